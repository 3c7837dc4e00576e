//! Conditions of endpoints: what control says of them, what it can see, and what happened to them.

use super::Plane;
use crate::cluster::condition::Condition;
use crate::cluster::eligible::{Admin, Health};
use crate::cluster::events::{Event, Failed, What};
use crate::cluster::left::Left;
use crate::cluster::outlier::RateWatch;
use crate::cluster::shared::SharedCluster;
use crate::core::Shared;
use crate::io::Mono;
use crate::shard::mailbox::Command;
use crate::spec::{Cluster, ClusterId, EndpointId, Snapshot};
use crate::sys::clock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint as the whole node has it at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointStatus {
    pub condition: Condition,
    /// How long it will still be ejected.
    pub ejected_for: Option<Duration>,
    /// Requests and tunnels.
    pub running: u32,
    /// Links, idle ones included.
    pub open_links: u32,
}

/// A cluster whose endpoints' conditions change by what shards see, as control watches it.
#[derive(Debug)]
pub(super) struct Watched {
    spec: Arc<Cluster>,
    shared: Arc<SharedCluster>,
    /// The version that shards were last told to look at.
    told: u64,
    /// Where the rate of failures is watched.
    rates: Option<RateWatch>,
}

impl Watched {
    /// Of all clusters that there are.
    pub(super) fn all(snapshot: &Snapshot, shared: &Shared) -> Vec<Self> {
        let clusters = snapshot.clusters.iter().zip(&shared.clusters);
        clusters.filter_map(|(spec, shared)| Self::new(spec.as_ref()?, shared.as_ref()?)).collect()
    }
    fn new(spec: &Arc<Cluster>, shared: &Arc<SharedCluster>) -> Option<Self> {
        (spec.outlier.is_some() || spec.circuit_breaker.is_some()).then(|| {
            let (told, shared) = (shared.version(), Arc::clone(shared));
            let mut watched = Self { spec: Arc::clone(spec), shared, told, rates: None };
            watched.rates = watches_rates(spec).then(|| watched.new_rates());
            watched
        })
    }
    /// What was counted so far is held against nobody.
    fn new_rates(&self) -> RateWatch {
        let mut rates = RateWatch::new(self.spec.endpoints.len());
        for endpoint in &self.spec.endpoints {
            rates.forget(endpoint.id, self.shared.tallied(endpoint.id));
        }
        rates
    }
    /// The cluster has another specification.
    fn follow(&mut self, spec: &Arc<Cluster>) {
        if !Arc::ptr_eq(&self.spec, spec) {
            let before = std::mem::replace(&mut self.spec, Arc::clone(spec));
            if !watches_rates(spec) {
                self.rates = None;
            } else if self.rates.is_none() {
                self.rates = Some(self.new_rates());
            } else if let Some(rates) = &mut self.rates {
                rates.grow(spec.endpoints.len());
                for id in spec.present().map(|endpoint| endpoint.id).filter(|id| !before.has(*id)) {
                    rates.forget(id, self.shared.tallied(id));
                }
            }
        }
    }
    /// Does what is due, and says whether shards have to look at the cluster.
    fn tick(&mut self, now: Mono) -> bool {
        let Self { spec, shared, told, rates } = self;
        shared.settle(spec, now);
        if let (Some(rates), Some(rules)) = (rates, &spec.outlier)
            && now >= rates.next_step()
        {
            let eject = |id, rate| shared.eject(spec, rules, id, Failed::Rate(rate), now);
            rates.step(rules, now, |id| shared.tallied(id), eject);
        }
        let version = shared.version();
        std::mem::replace(told, version) != version
    }
}

fn watches_rates(spec: &Cluster) -> bool {
    spec.outlier.is_some_and(|rules| rules.failure_rate.is_some())
}

impl Plane {
    fn spec(&self, cluster: ClusterId) -> Option<Arc<Cluster>> {
        self.present.borrow().snapshot.cluster(cluster).cloned()
    }
    pub(super) fn shared_cluster(&self, cluster: ClusterId) -> Option<Arc<SharedCluster>> {
        self.present.borrow().shared.clusters.get(usize::from(cluster.0))?.clone()
    }

    /// Says what the operator wants of an endpoint: every pick from now on obeys. False if there is no such endpoint or it was
    /// so before.
    pub fn set_admin(&self, cluster: ClusterId, endpoint: EndpointId, admin: Admin) -> bool {
        let (now, shared) = (clock::now().mono, self.shared_cluster(cluster));
        let changed = shared.is_some_and(|shared| shared.set_admin(endpoint, admin, now));
        self.look(changed.then_some(cluster))
    }
    /// Says what the active checks found of an endpoint: every pick from now on follows. One that is ejected and found good is
    /// readmitted, so that this is worth telling again. False if there is no such endpoint or nothing changed.
    pub fn set_health(&self, cluster: ClusterId, endpoint: EndpointId, health: Health) -> bool {
        self.set_healths([(cluster, endpoint, health)])
    }
    /// The same of many endpoints, of which shards are told once. Whether anything changed.
    pub fn set_healths(&self, found: impl IntoIterator<Item = (ClusterId, EndpointId, Health)>) -> bool {
        let (now, mut changed) = (clock::now().mono, BTreeSet::new());
        for (cluster, endpoint, health) in found {
            let shared = self.shared_cluster(cluster);
            if shared.is_some_and(|shared| shared.set_health(endpoint, health, now)) {
                changed.insert(cluster);
            }
        }
        self.look(changed)
    }
    /// What is known of an endpoint; none if there is no such endpoint.
    pub fn endpoint_status(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<EndpointStatus> {
        let (now, spec) = (clock::now().mono, self.spec(cluster)?);
        let shared = self.shared_cluster(cluster)?;
        let condition = shared.condition(&spec, endpoint, now)?;
        let until = shared.ejected_until(endpoint, now);
        let counts = shared.endpoint(endpoint)?;
        Some(EndpointStatus {
            condition,
            ejected_for: until.map(|until| Duration::from_nanos(until.since(now))),
            running: counts.running_requests(),
            open_links: counts.open_links(),
        })
    }
    /// What a cluster has left for new requests; none if there is no such cluster.
    pub fn left(&self, cluster: ClusterId) -> Option<Left> {
        let (spec, shared) = (self.spec(cluster)?, self.shared_cluster(cluster)?);
        Some(Left::of(&spec, &shared, clock::now().mono))
    }
    /// The same, where it may be something else than it was when `before` was asked for.
    pub fn left_since(&self, cluster: ClusterId, before: &Left) -> Option<Left> {
        let (now, shared) = (clock::now().mono, self.shared_cluster(cluster)?);
        if before.is_fresh(&shared, now) {
            return None;
        }
        Some(Left::of(&*self.spec(cluster)?, &shared, now))
    }
    /// Those who wait for a place at a cluster, over all shards.
    pub fn waiters(&self, cluster: ClusterId) -> u32 {
        self.shared_cluster(cluster).map_or(0, |shared| shared.waiters())
    }

    /// Hands over what happened to endpoints, oldest first, after doing what time and the rates of failures ask for; then
    /// shards close the links and look at the waiters that are concerned. Control calls it at each of its ticks.
    pub fn events(&self, mut each: impl FnMut(Event)) {
        let now = clock::now().mono;
        for watched in self.watched.borrow_mut().iter_mut() {
            if watched.tick(now) {
                self.ask_all(watched.spec.id);
            }
        }
        self.tell_untold();
        let events = Arc::clone(&self.present.borrow().shared.events);
        while let Some(event) = events.pop() {
            each(event);
        }
    }
    /// Events that were lost since the start, because control did not come to read them.
    pub fn lost_events(&self) -> u64 {
        self.present.borrow().shared.events.lost()
    }
    /// Events of each kind since the start, by name.
    pub fn event_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        What::NAMES.into_iter().zip(self.present.borrow().shared.events.counts())
    }

    /// Watches the clusters as they are now.
    pub(super) fn follow_watched(&self) {
        let present = self.present.borrow();
        let clusters = present.snapshot.clusters.iter().zip(&present.shared.clusters);
        let pairs = clusters.filter_map(|(spec, shared)| Some((spec.as_ref()?, shared.as_ref()?)));
        let mut before = std::mem::take(&mut *self.watched.borrow_mut()).into_iter().peekable();
        let mut watched = Vec::new();
        // Both are in the order of ids.
        for (spec, shared) in pairs {
            while before.next_if(|old| old.spec.id < spec.id).is_some() {}
            let new = Watched::new(spec, shared);
            match before.next_if(|old| old.spec.id == spec.id && Arc::ptr_eq(&old.shared, shared)) {
                Some(mut old) if new.is_some() => {
                    old.follow(spec);
                    watched.push(old);
                }
                _ => watched.extend(new),
            }
        }
        *self.watched.borrow_mut() = watched;
    }

    /// Tells every shard to look at the links and waiters of the clusters that changed; says whether there is one.
    fn look(&self, changed: impl IntoIterator<Item = ClusterId>) -> bool {
        let mut any = false;
        for cluster in changed {
            self.ask_all(cluster);
            any = true;
        }
        if any {
            self.tell_untold();
        }
        any
    }
    fn ask_all(&self, cluster: ClusterId) {
        self.untold.borrow_mut().extend((0..self.shards.len()).map(|shard| (cluster, shard)));
    }
    /// Tells those who are to look at a cluster, as far as their mailboxes have room; the rest at the next tick.
    fn tell_untold(&self) {
        self.send_unsent();
        self.untold.borrow_mut().retain(|&(cluster, shard)| {
            let shard = self.shards.get(shard);
            shard.is_some_and(|s| s.commands.borrow_mut().send(Command::Look { cluster }).is_err())
        });
    }
}
