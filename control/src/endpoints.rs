//! What control does for endpoints: has them checked, sets what operators say of them, and tells what changed.

use crate::admin::Name;
use crate::config::Loaded;
use crate::events::{About, Details, Events, Weight};
use crate::failing;
use crate::health::{Change, Check, Checks, Task};
use crate::log::Format;
use crate::outage::Outages;
use crate::upgrade::{self, Former};
use dataplane::cluster::eligible::{Admin, Health};
use dataplane::plane::Plane;
use dataplane::spec::{Cluster, ClusterId, Endpoint, Snapshot};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An endpoint by its names; the error says which of them is unknown.
pub(crate) fn find<'s>(
    snapshot: &'s Snapshot,
    name: &Name,
) -> Result<(&'s Arc<Cluster>, &'s Endpoint), String> {
    let cluster = find_cluster(snapshot, &name.cluster)?;
    let Some(endpoint) = cluster.present().find(|endpoint| *endpoint.name == *name.endpoint) else {
        return Err(format!("cluster {} has no endpoint called {:?}", name.cluster, name.endpoint));
    };
    Ok((cluster, endpoint))
}

/// A cluster by its name; the error says that it is unknown.
pub(crate) fn find_cluster<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s Arc<Cluster>, String> {
    let mut clusters = snapshot.clusters.iter().flatten();
    clusters
        .find(|cluster| !cluster.gone && *cluster.name == *name)
        .ok_or_else(|| format!("no cluster is called {name:?}"))
}

/// The check of an endpoint: its cluster's, or a connect where that has none.
pub(crate) fn task(name: &Name, loaded: &Loaded) -> Result<Task, String> {
    let (cluster, endpoint) = find(&loaded.snapshot, name)?;
    let check = loaded.checks.get(usize::from(cluster.id.0)).cloned().flatten();
    let check = check.unwrap_or_else(|| Arc::new(Check::connect()));
    Ok(Task { cluster: Arc::clone(cluster), at: endpoint.id.0.into(), check, turn: 0 })
}

/// How many endpoints of a cluster may get new requests: those of its lowest tier, and the others.
pub(crate) fn left(plane: &Plane, cluster: ClusterId) -> (u64, u64) {
    plane.left(cluster).map_or((0, 0), |left| (left.active.into(), left.backup.into()))
}

/// What happens to endpoints and clusters: the one place where it is told.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) events: Events,
    outages: Outages,
    /// Events of shards that were lost, as far as that was told.
    lost: u64,
    /// What operators said that is not `ready`, by the names of cluster and endpoint: it holds for whoever has the name.
    said: BTreeMap<(Arc<str>, Arc<str>), Admin>,
    /// Clusters that drain, by name: whatever was said of their endpoints, nothing is sent there.
    drained: BTreeSet<Arc<str>>,
}

impl Watch {
    /// `format` is that of the process log.
    pub(crate) fn new(format: Format) -> Self {
        let (said, drained) = (BTreeMap::new(), BTreeSet::new());
        Self { events: Events::new(format), outages: Outages::default(), lost: 0, said, drained }
    }

    /// Tells what shards found, and then which clusters have nothing left or something again. Called at each tick.
    pub(crate) fn tick(&mut self, plane: &Plane, snapshot: &Snapshot, checks: &Checks) {
        plane.events(|event| failing::tell(&event, snapshot, &mut self.events));
        let lost = plane.lost_events();
        if lost > self.lost {
            tracing::warn!(lost = lost - self.lost, "events of endpoints were lost: too many at once");
            self.lost = lost;
        }
        self.outages.look(plane, snapshot, checks, &mut self.events);
    }

    /// Endpoints came or went. What an operator said of a name is said again of the endpoint that has it now.
    pub(crate) fn follow(&mut self, plane: &Plane, before: &Snapshot, now: &Snapshot) {
        for cluster in now.clusters.iter().flatten() {
            if before.cluster(cluster.id).is_some_and(|before| Arc::ptr_eq(before, cluster)) {
                continue;
            }
            self.outages.forget(cluster.id);
            if self.drained.contains(&cluster.name) {
                self.set_all(plane, cluster);
                continue;
            }
            let of_cluster = self.said.iter().filter(|((name, _), _)| *name == cluster.name);
            for ((_, name), state) in of_cluster {
                let endpoint = cluster.present().find(|endpoint| endpoint.name == *name);
                endpoint.map(|endpoint| plane.set_admin(cluster.id, endpoint.id, *state));
            }
        }
    }

    /// What an operator said of an endpoint.
    pub(crate) fn said(&self, cluster: &Cluster, endpoint: &Endpoint) -> Admin {
        let name = (Arc::clone(&cluster.name), Arc::clone(&endpoint.name));
        self.said.get(&name).copied().unwrap_or(Admin::Ready)
    }
    /// What holds for it: a cluster that drains stands above that.
    fn held(&self, cluster: &Cluster, endpoint: &Endpoint) -> Admin {
        if self.drained.contains(&cluster.name) { Admin::Maint } else { self.said(cluster, endpoint) }
    }
    fn set_all(&self, plane: &Plane, cluster: &Cluster) {
        for endpoint in cluster.present() {
            plane.set_admin(cluster.id, endpoint.id, self.held(cluster, endpoint));
        }
    }
    /// An operator says that nothing more is to be sent to a cluster, or no longer says it: then what was said of its endpoints
    /// holds again.
    pub(crate) fn drain_cluster(&mut self, plane: &Plane, cluster: &Cluster, drains: bool) {
        let changed = match drains {
            true => self.drained.insert(Arc::clone(&cluster.name)),
            false => self.drained.remove(&cluster.name),
        };
        if changed {
            self.set_all(plane, cluster);
            let word = if drains { "drains: nothing more is sent there" } else { "drains no longer" };
            tracing::info!("cluster {} {word}", cluster.name);
        }
    }
    /// The names of clusters that an operator drains.
    pub(crate) fn drained_clusters(&self) -> Vec<String> {
        self.drained.iter().map(ToString::to_string).collect()
    }
    /// Clusters and endpoints that drain, as the API shows them.
    pub(crate) fn drained(&self, plane: &Plane, snapshot: &Snapshot) -> (Vec<Value>, Vec<Value>) {
        let (mut clusters, mut endpoints) = (Vec::new(), Vec::new());
        let shown = |name: String, running: u64, links: u64| {
            let phase = if running == 0 { "drained" } else { "leaving" };
            json!({ "name": name, "phase": phase, "running": running, "links": links })
        };
        for cluster in snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone) {
            let status = |endpoint: &Endpoint| {
                let status = plane.endpoint_status(cluster.id, endpoint.id);
                status.map_or((0, 0), |status| (u64::from(status.running), u64::from(status.open_links)))
            };
            if self.drained.contains(&cluster.name) {
                let all = cluster.endpoints.iter().map(status);
                let (running, links) = all.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
                clusters.push(shown(cluster.name.to_string(), running, links));
            }
            for endpoint in cluster.present().filter(|one| self.said(cluster, one) == Admin::Drain) {
                let (running, links) = status(endpoint);
                endpoints.push(shown(format!("{}/{}", cluster.name, endpoint.name), running, links));
            }
        }
        (clusters, endpoints)
    }

    /// Active checks changed their mind about some endpoints: the shards are told of all of them, then everybody of each. What
    /// is left of a cluster is counted once, however many of its endpoints changed.
    pub(crate) fn on_changes(&mut self, plane: &Plane, snapshot: &Snapshot, changes: &[Change]) {
        let health = |change: &Change| if change.up { Health::Up } else { Health::Down };
        plane.set_healths(changes.iter().map(|change| (change.cluster, change.endpoint, health(change))));
        let mut counted = BTreeMap::new();
        for change in changes {
            let Some(cluster) = snapshot.cluster(change.cluster) else { continue };
            let left = *counted.entry(cluster.id).or_insert_with(|| left(plane, cluster.id));
            self.tell(plane, cluster, change, left);
        }
    }

    fn tell(&mut self, plane: &Plane, cluster: &Cluster, change: &Change, (active, backup): (u64, u64)) {
        let Some(endpoint) = cluster.endpoints.get(usize::from(change.endpoint.0)) else { return };
        let status = plane.endpoint_status(change.cluster, change.endpoint);
        let details = Details {
            class: Some(change.verdict.class()),
            reason: Some(change.verdict.to_string()),
            check_ms: u64::try_from(change.took.as_millis()).ok(),
            active: Some(active),
            backup: Some(backup),
            running: Some(status.map_or(0, |status| status.running.into())),
            requeued: Some(0),
            queued: Some(plane.waiters(change.cluster).into()),
            ..Details::default()
        };
        let about = |event| About {
            event,
            cluster: Arc::clone(&cluster.name),
            endpoint: Some(Arc::clone(&endpoint.name)),
        };
        let line = line_of(&format!("{}/{}", cluster.name, endpoint.name), change.up, &details);
        match change.up {
            true => self.events.tell(Weight::Notice, about("endpoint_up"), line, details),
            false => self.events.tell(Weight::Warning, about("endpoint_down"), line, details),
        }
    }

    /// What operators said that is not `ready`: of which cluster, which endpoint, what.
    pub(crate) fn all_said(&self) -> impl Iterator<Item = (&str, &str, Admin)> {
        self.said.iter().map(|((cluster, endpoint), state)| (&**cluster, &**endpoint, *state))
    }
    /// What operators said of endpoints that are gone is over. Their names.
    pub(crate) fn forget_gone(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut forgotten = Vec::new();
        self.said.retain(|(cluster, endpoint), _| {
            let name = Name { cluster: cluster.to_string(), endpoint: endpoint.to_string() };
            let stays = find(snapshot, &name).is_ok();
            if !stays {
                forgotten.push(format!("{cluster}/{endpoint}"));
            }
            stays
        });
        forgotten
    }

    /// An operator says what an endpoint is to do.
    pub(crate) fn set_state(&mut self, plane: &Plane, cluster: &Cluster, endpoint: &Endpoint, state: Admin) {
        let name = (Arc::clone(&cluster.name), Arc::clone(&endpoint.name));
        match state {
            Admin::Ready => self.said.remove(&name),
            _ => self.said.insert(name, state),
        };
        if !plane.set_admin(cluster.id, endpoint.id, self.held(cluster, endpoint)) {
            return;
        }
        let (active, backup) = left(plane, cluster.id);
        let running = plane.endpoint_status(cluster.id, endpoint.id).map_or(0, |status| status.running);
        let about = About {
            event: "endpoint_state",
            cluster: Arc::clone(&cluster.name),
            endpoint: Some(Arc::clone(&endpoint.name)),
        };
        let line = format!(
            "endpoint {}/{} is set to {}. {active} active and {backup} backup endpoints left. {running} running.",
            cluster.name,
            endpoint.name,
            state.name()
        );
        let details = Details {
            state: Some(state.name()),
            active: Some(active),
            backup: Some(backup),
            running: Some(running.into()),
            ..Details::default()
        };
        self.events.tell(Weight::Notice, about, line, details);
    }
}

/// All that is known of endpoints and does not stand in the configuration, for the next process in an upgrade.
pub(crate) fn known(snapshot: &Snapshot, watch: &Watch, checks: &Checks) -> Vec<upgrade::Endpoint> {
    let of = |cluster: &Arc<Cluster>, endpoint: &Endpoint| {
        let state = watch.said.get(&(Arc::clone(&cluster.name), Arc::clone(&endpoint.name)));
        let up = checks.is_up(cluster.id, endpoint.id);
        (state.is_some() || up.is_some()).then(|| upgrade::Endpoint {
            cluster: cluster.name.to_string(),
            endpoint: endpoint.name.to_string(),
            state: state.map(|state| state.name().to_owned()),
            up,
        })
    };
    let clusters = snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone);
    clusters.flat_map(|cluster| cluster.present().filter_map(move |endpoint| of(cluster, endpoint))).collect()
}

/// What the process before this one knew of endpoints, of those that are still there.
pub(crate) fn believe(
    Former { endpoints: known, drained, .. }: &Former,
    snapshot: &Snapshot,
    plane: &Plane,
    watch: &mut Watch,
    checks: &mut Checks,
) {
    for one in known {
        let name = Name { cluster: one.cluster.clone(), endpoint: one.endpoint.clone() };
        let Ok((cluster, endpoint)) = find(snapshot, &name) else { continue };
        if let Some(up) = one.up.filter(|up| checks.believe(cluster.id, endpoint.id, *up)) {
            let health = if up { Health::Up } else { Health::Down };
            plane.set_healths([(cluster.id, endpoint.id, health)]);
        }
        let state = Admin::ALL.into_iter().find(|state| one.state.as_deref() == Some(state.name()));
        if let Some(state) = state {
            watch.said.insert((Arc::clone(&cluster.name), Arc::clone(&endpoint.name)), state);
            plane.set_admin(cluster.id, endpoint.id, state);
        }
    }
    for cluster in snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone) {
        if drained.iter().any(|name| **name == *cluster.name) {
            watch.drain_cluster(plane, cluster, true);
        }
    }
}

/// The line of an endpoint that went down or came up, in the words of HAProxy's.
fn line_of(name: &str, up: bool, details: &Details) -> String {
    let n = |number: Option<u64>| number.unwrap_or(0);
    let (active, backup) = (n(details.active), n(details.backup));
    let head = format!(
        "endpoint {name} is {}, reason: {}, check duration: {}ms.",
        if up { "UP" } else { "DOWN" },
        details.reason.as_deref().unwrap_or_default(),
        n(details.check_ms),
    );
    let (running, requeued, queued) = (n(details.running), n(details.requeued), n(details.queued));
    match up {
        false => format!(
            "{head} {active} active and {backup} backup endpoints left. {running} sessions active, {requeued} requeued, \
             {queued} remaining in queue."
        ),
        true => format!(
            "{head} {active} active and {backup} backup endpoints online. {requeued} sessions requeued, {queued} total in \
             queue."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_that_people_know() {
        let details = Details {
            reason: Some("Layer4 timeout".to_owned()),
            check_ms: Some(2000),
            active: Some(2),
            backup: Some(0),
            running: Some(1),
            requeued: Some(0),
            queued: Some(0),
            ..Details::default()
        };
        assert_eq!(
            line_of("apps/s2", false, &details),
            "endpoint apps/s2 is DOWN, reason: Layer4 timeout, check duration: 2000ms. 2 active and 0 backup endpoints \
             left. 1 sessions active, 0 requeued, 0 remaining in queue."
        );
        let details = Details {
            reason: Some("Layer4 check passed".to_owned()),
            check_ms: Some(0),
            active: Some(3),
            ..details
        };
        assert_eq!(
            line_of("apps/s2", true, &details),
            "endpoint apps/s2 is UP, reason: Layer4 check passed, check duration: 0ms. 3 active and 0 backup endpoints \
             online. 0 sessions requeued, 0 total in queue."
        );
    }
}
