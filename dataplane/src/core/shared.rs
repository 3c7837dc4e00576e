//! What all shards of a process share of each object: numbers by id, which live as long as anything refers to the object.

use crate::cluster::eligible::Health;
use crate::cluster::events::Events;
use crate::cluster::shared::{SharedCluster, SharedListener, SharedLoads};
use crate::cluster::switch::Switch;
use crate::io::Mono;
use crate::spec::{Cluster, Route, RouteId, Snapshot};
use crate::stats::objects::OfRoute;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The atomics that all shards of a process share, by id.
#[derive(Debug, Default)]
pub struct Shared {
    pub listeners: Vec<Option<Arc<SharedListener>>>,
    pub clusters: Vec<Option<Arc<SharedCluster>>>,
    pub loads: Arc<SharedLoads>,
    /// What happens to endpoints, for control.
    pub events: Arc<Events>,
    /// Of routes in maintenance, by `SwitchId`.
    pub switches: Vec<Arc<Switch>>,
    /// What shards count of routes, by id.
    pub routes: Arc<SharedRoutes>,
}

impl Shared {
    /// Fresh counters for every object of a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        let events = Arc::new(Events::new());
        let shards = snapshot.runtime.shards;
        let listener = |l: &Option<_>| l.as_ref().map(|_| Arc::new(SharedListener::new(shards)));
        let cluster = |c: &Option<Arc<Cluster>>| {
            c.as_ref().map(|c| shared_cluster(c, snapshot.runtime.shards, &events))
        };
        Self {
            switches: switches(snapshot),
            listeners: snapshot.listeners.iter().map(listener).collect(),
            clusters: snapshot.clusters.iter().map(cluster).collect(),
            loads: Arc::new(SharedLoads::new(snapshot.runtime.shards)),
            routes: Arc::new(SharedRoutes::default().next(snapshot)),
            events,
        }
    }
}

/// What each shard counts of each route, by id. A route goes on counting as long as there is one of its name.
#[derive(Debug, Default)]
pub struct SharedRoutes(Vec<Option<CountedRoute>>);

/// A route's name, and what each shard counts of it.
type CountedRoute = (Arc<str>, Arc<[OfRoute]>);

impl SharedRoutes {
    /// Of the routes of `snapshot`, which comes next.
    fn next(&self, snapshot: &Snapshot) -> Self {
        // A name mostly has the id that it had.
        let named = |route: &Route, at: usize| {
            let (_, counts) = self.0.get(at)?.as_ref().filter(|(name, _)| *name == route.name)?;
            Some(counts)
        };
        let known = OnceCell::new();
        let all = || self.0.iter().flatten().map(|(name, counts)| (&**name, counts));
        let moved = |name: &str| known.get_or_init(|| all().collect::<BTreeMap<_, _>>()).get(name).copied();
        let mut next = Vec::new();
        for route in snapshot.routes.iter() {
            let at = route.id.0 as usize;
            let fresh = || (0..snapshot.runtime.shards).map(|_| OfRoute::default()).collect();
            let counts = named(route, at).or_else(|| moved(&route.name)).map_or_else(fresh, Arc::clone);
            next.resize_with(next.len().max(at + 1), || None);
            next[at] = Some((Arc::clone(&route.name), counts));
        }
        Self(next)
    }
    /// What each shard counts of a route.
    pub fn counts(&self, id: RouteId) -> Option<&[OfRoute]> {
        self.0.get(id.0 as usize)?.as_ref().map(|(_, counts)| &**counts)
    }
}

/// Fresh counters of a cluster.
fn shared_cluster(c: &Cluster, shards: u16, events: &Arc<Events>) -> Arc<SharedCluster> {
    let shared = SharedCluster::of(c, shards, Arc::clone(events));
    for endpoint in c.endpoints.iter().filter(|_| c.starts_down) {
        shared.set_health(endpoint.id, Health::Down, Mono(0));
    }
    Arc::new(shared)
}

/// The switches of a snapshot, as they are at its begin.
fn switches(snapshot: &Snapshot) -> Vec<Arc<Switch>> {
    let mut on = Vec::new();
    for maintenance in snapshot.routes.iter().filter_map(|route| route.maintenance.as_ref()) {
        let at = usize::from(maintenance.switch.0);
        on.resize(on.len().max(at + 1), false);
        on[at] |= maintenance.on;
    }
    on.into_iter().map(|on| Arc::new(Switch::new(on))).collect()
}

impl Shared {
    /// What a route does now: itself, or what it does in maintenance.
    pub fn in_force<'r>(&self, route: &'r Arc<Route>) -> &'r Arc<Route> {
        match &route.maintenance {
            Some(it) if self.switches.get(usize::from(it.switch.0)).is_some_and(|switch| switch.is_on()) => {
                &it.instead
            }
            _ => route,
        }
    }

    /// Of `next`, which comes after `snapshot`: objects that both have go on with the same counters. An id is another's only
    /// when nobody refers to its former owner. An endpoint that comes, or comes back, begins `now`, as one of which nothing
    /// was said.
    #[must_use]
    pub fn next(&self, snapshot: &Snapshot, next: &Snapshot, now: Mono) -> Self {
        let cluster = |c: &Arc<Cluster>| shared_cluster(c, next.runtime.shards, &self.events);
        let shards = next.runtime.shards;
        let routes = match snapshot.routes.are(&next.routes) {
            true => Arc::clone(&self.routes),
            false => Arc::new(self.routes.next(next)),
        };
        let new_switches = switches(next).into_iter().skip(self.switches.len());
        let shared = Self {
            listeners: go_on(&self.listeners, &snapshot.listeners, &next.listeners, |_| {
                Arc::new(SharedListener::new(shards))
            }),
            clusters: go_on(&self.clusters, &snapshot.clusters, &next.clusters, cluster),
            loads: Arc::clone(&self.loads),
            events: Arc::clone(&self.events),
            routes,
            switches: self.switches.iter().cloned().chain(new_switches).collect(),
        };
        for cluster in next.clusters.iter().flatten() {
            let before = snapshot.cluster(cluster.id);
            let Some(Some(numbers)) = shared.clusters.get(usize::from(cluster.id.0)) else { continue };
            if before.is_some_and(|before| Arc::ptr_eq(before, cluster)) {
                continue;
            }
            let health = if cluster.starts_down { Health::Down } else { Health::Up };
            numbers.grow(cluster.endpoints.len());
            numbers.follow(cluster);
            for endpoint in cluster.endpoints.iter().filter(|endpoint| endpoint.gone) {
                numbers.on_gone(endpoint.id);
            }
            for endpoint in cluster.present() {
                if !before.is_some_and(|before| before.has(endpoint.id)) {
                    numbers.renew(endpoint.id, health, now);
                }
            }
        }
        shared
    }
}

/// What there is by id, and what comes to it, also where an id is given anew that nobody had `before`; what is gone stays, for
/// what may be left of it.
fn go_on<T, S>(
    there: &[Option<Arc<T>>],
    before: &[Option<S>],
    next: &[Option<S>],
    make: impl Fn(&S) -> Arc<T>,
) -> Vec<Option<Arc<T>>> {
    let old = |at: usize| there.get(at).cloned().flatten();
    let had = |at: usize| before.get(at).is_some_and(Option::is_some);
    let of = |at: usize| match next.get(at).and_then(Option::as_ref) {
        Some(spec) if !had(at) => Some(make(spec)),
        Some(spec) => old(at).or_else(|| Some(make(spec))),
        None => old(at),
    };
    (0..there.len().max(next.len())).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Action, Maintenance, Match, Redirect, RouteId, Runtime, SwitchId, Template};
    use std::time::Duration;

    #[test]
    fn a_switch_decides_which_face_a_route_shows() {
        let route = |status, maintenance| {
            Arc::new(Route {
                id: RouteId(0),
                name: "r".into(),
                listeners: Vec::new(),
                matcher: Match::default(),
                action: Action::Redirect(Arc::new(Redirect { status, to: Template(Vec::new()) })),
                maintenance,
                error_pages: Default::default(),
            })
        };
        let with = |switch, on| {
            let maintenance = Maintenance { switch: SwitchId(switch), on, instead: route(307, None) };
            route(301, Some(maintenance))
        };
        let snapshot = Snapshot {
            runtime: Runtime { shards: 1, node: "n".into(), drain_timeout: Duration::ZERO },
            listeners: Vec::new(),
            routes: vec![with(1, true), with(0, false), route(301, None)].into(),
            clusters: Vec::new(),
            tracing: None,
        };
        let shared = Shared::new(&snapshot);
        let shows = || {
            let status = |route: &Arc<Route>| match &shared.in_force(route).action {
                Action::Redirect(redirect) => redirect.status,
                _ => 0,
            };
            snapshot.routes.iter().map(status).collect::<Vec<_>>()
        };
        assert_eq!(shows(), [307, 301, 301], "as at the start");
        shared.switches[1].set(false);
        shared.switches[0].set(true);
        assert_eq!(shows(), [301, 307, 301]);
    }
}
