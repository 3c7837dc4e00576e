//! What going over from one configuration to another changes, object by object: one pure function, by which a reload goes and
//! which `ringway plan` shows.

use super::configured::{Configured, at, put};
use crate::config::{Keys, Kind, ReloadEffect, default_of, objects};
use crate::discovery::Query;
use dataplane::spec::{Cluster, Endpoint, ListenAddress, Listener, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    New,
    Changed,
    Gone,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// One that the file names, or a table of its own.
    Of(Kind, String),
    /// Of a cluster.
    Endpoint(String, String),
    /// In which the routes stand.
    RouteOrder,
}

/// One key that is written otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyChange {
    pub(crate) key: String,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) effect: ReloadEffect,
}

/// One object that is another afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) object: Object,
    pub(crate) what: What,
    /// What it does to what is established: the most that one of its keys does.
    pub(crate) effect: ReloadEffect,
    pub(crate) keys: Vec<KeyChange>,
}

/// All that changes. What is not in it is the same object afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
}

impl Plan {
    /// From `before` to `after`, which was made by [`Configured::next`]: what both have is one and the same. `started` is the text
    /// that the process was started with, whose keys hold where a change of them needs an upgrade.
    pub(crate) fn of(before: &Configured, after: &Configured, started: &str) -> Self {
        let mut found: Vec<(Object, What)> = Vec::new();
        let mut note = |kind, name: &str, what| found.push((Object::Of(kind, name.to_owned()), what));
        compare(&before.listeners, &after.listeners, |one, what| note(Kind::Listener, &one.name, what));
        let (old, new) = (by_id(&before.routes), by_id(&after.routes));
        compare(&old, &new, |one: &Route, what| note(Kind::Route, &one.name, what));
        let stays = |route: &&Arc<Route>| at_route(&old, route).is_some() && at_route(&new, route).is_some();
        let order =
            |all: &'_ [Arc<Route>]| all.iter().filter(stays).map(|route| route.id).collect::<Vec<_>>();
        let reordered = order(&before.routes) != order(&after.routes);
        compare(&before.clusters, &after.clusters, |one, what| note(Kind::Cluster, &one.name, what));
        // What is told of a cluster beside its specification.
        for cluster in after.clusters.iter().flatten() {
            let id = cluster.id.0;
            let other = !is_same(at(&before.sources, id), at(&after.sources, id))
                || !is_same(at(&before.checks, id), at(&after.checks, id));
            let there = at(&before.clusters, id).is_some_and(|old| Arc::ptr_eq(old, cluster));
            if other && there {
                note(Kind::Cluster, &cluster.name, What::Changed);
            }
        }
        let mut plan = Self { changes: Vec::new() };
        plan.write(found, before, after, started);
        if reordered {
            let effect = ReloadEffect::NextExchange;
            plan.changes.push(Change {
                object: Object::RouteOrder,
                what: What::Changed,
                effect,
                keys: Vec::new(),
            });
        }
        plan.changes.sort_by(|one, other| one.object.cmp(&other.object));
        plan
    }

    /// The keys that wait for a restart or an upgrade.
    pub(crate) fn waits(&self) -> Vec<String> {
        let waits = |key: &&KeyChange| key.effect == ReloadEffect::NeedsUpgrade;
        let of = |change: &Change| -> Vec<String> {
            let section = match &change.object {
                Object::Of(Kind::Runtime, _) => "runtime",
                Object::Of(_, name) => name,
                Object::Endpoint(..) | Object::RouteOrder => "",
            };
            change.keys.iter().filter(waits).map(|key| format!("{section}.{}", key.key)).collect()
        };
        self.changes.iter().flat_map(of).collect()
    }

    fn write(&mut self, found: Vec<(Object, What)>, before: &Configured, after: &Configured, started: &str) {
        let named: BTreeSet<(Kind, &str)> = found
            .iter()
            .filter_map(|(object, _)| match object {
                Object::Of(kind, name) => Some((*kind, name.as_str())),
                _ => None,
            })
            .collect();
        let single = |kind| {
            matches!(
                kind,
                Kind::Runtime | Kind::Drain | Kind::Admin | Kind::Log | Kind::AccessLog | Kind::Tracing
            )
        };
        let wants = |kind, name: &str| single(kind) || named.contains(&(kind, name));
        let (old, new) = (objects(&before.text, wants), objects(&after.text, wants));
        let started = objects(started, |kind, _| kind == Kind::Runtime);
        let none = Keys::new();
        for (object, what) in found {
            let Object::Of(kind, name) = &object else { continue };
            let key = (*kind, name.clone());
            let keys = differing(*kind, old.get(&key).unwrap_or(&none), new.get(&key).unwrap_or(&none), what);
            let change = match kind {
                Kind::Listener => of_listener(object, what, keys, before, after),
                Kind::Cluster => {
                    let of_endpoints = self.endpoints(name, before, after);
                    of_cluster(object, what, keys, of_endpoints)
                }
                _ => Change { effect: effect_of(what, *kind, &keys), object, what, keys },
            };
            self.changes.push(change);
        }
        let all: BTreeSet<_> = old.keys().chain(new.keys()).filter(|(kind, _)| single(*kind)).collect();
        for key in all {
            // What cannot change while the process runs is compared with what it runs by.
            let was = if key.0 == Kind::Runtime { started.get(key) } else { old.get(key) };
            let last = old.get(key).unwrap_or(&none);
            let what = match (old.get(key), new.get(key)) {
                (None, Some(_)) => What::New,
                (Some(_), None) => What::Gone,
                _ => What::Changed,
            };
            let now = new.get(key).unwrap_or(&none);
            let mut keys = differing(key.0, last, now, What::Changed);
            keys.retain(|key| key.effect != ReloadEffect::NeedsUpgrade);
            let waits = differing(key.0, was.unwrap_or(&none), now, What::Changed);
            keys.extend(waits.into_iter().filter(|key| key.effect == ReloadEffect::NeedsUpgrade));
            if !keys.is_empty() {
                let (object, effect) = (Object::Of(key.0, key.1.clone()), strongest(&keys));
                self.changes.push(Change { object, what, effect, keys });
            }
        }
    }

    /// The endpoints of a cluster that change: those that are written down, and the names that are resolved. The most that one of
    /// them does.
    fn endpoints(&mut self, cluster: &str, before: &Configured, after: &Configured) -> ReloadEffect {
        let from = self.changes.len();
        let (old, new) = (endpoints(before, cluster), endpoints(after, cluster));
        for (name, endpoint) in &new {
            let keys = old.get(name).map(|old| of_endpoint(old, endpoint)).unwrap_or_default();
            let what = if old.contains_key(name) { What::Changed } else { What::New };
            if what == What::New || !keys.is_empty() {
                let (object, effect) = (Object::Endpoint(cluster.to_owned(), name.clone()), strongest(&keys));
                self.changes.push(Change { object, what, effect, keys });
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            let object = Object::Endpoint(cluster.to_owned(), name.clone());
            let effect = ReloadEffect::Drains;
            self.changes.push(Change { object, what: What::Gone, effect, keys: Vec::new() });
        }
        most(self.changes[from..].iter().map(|change| change.effect))
    }
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Routes in the places of their ids.
fn by_id(routes: &[Arc<Route>]) -> Vec<Option<Arc<Route>>> {
    let mut table = Vec::with_capacity(routes.len());
    for route in routes {
        put(&mut table, route.id.0 as usize, Arc::clone(route));
    }
    table
}

fn at_route<'r>(table: &'r [Option<Arc<Route>>], route: &Route) -> Option<&'r Arc<Route>> {
    table.get(route.id.0 as usize)?.as_ref()
}

fn compare<T>(before: &[Option<Arc<T>>], after: &[Option<Arc<T>>], mut each: impl FnMut(&T, What)) {
    for at in 0..before.len().max(after.len()) {
        match (before.get(at).and_then(Option::as_ref), after.get(at).and_then(Option::as_ref)) {
            (None, Some(new)) => each(new, What::New),
            (Some(old), None) => each(old, What::Gone),
            (Some(old), Some(new)) if !Arc::ptr_eq(old, new) => each(new, What::Changed),
            _ => {}
        }
    }
}

/// Keys with another value; those of an object that comes or goes as a whole are not listed.
fn differing(kind: Kind, old: &Keys, new: &Keys, what: What) -> Vec<KeyChange> {
    if what != What::Changed {
        return Vec::new();
    }
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        let value = |written: Option<&crate::config::Written>| {
            written.map_or_else(|| default_of(kind, path), |written| written.value.clone())
        };
        let (old, new) = (value(before), value(after));
        let Some(effect) = after.or(before).map(|written| written.effect) else { continue };
        if old == new {
            continue;
        }
        let show = |written: Option<&crate::config::Written>, value: String| {
            short(written.and_then(|written| written.hidden.clone()).unwrap_or(value))
        };
        let (before, after) = (show(before, old), show(after, new));
        changes.push(KeyChange { key: path.clone(), before, after, effect });
    }
    changes
}

/// No longer than a line that one likes to read.
fn short(value: String) -> String {
    const MOST: usize = 200;
    match value.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value,
    }
}

fn strongest(keys: &[KeyChange]) -> ReloadEffect {
    most(keys.iter().map(|key| key.effect))
}

fn most(effects: impl Iterator<Item = ReloadEffect>) -> ReloadEffect {
    let rank = |effect: ReloadEffect| ReloadEffect::ALL.iter().position(|other| *other == effect);
    effects.max_by_key(|effect| rank(*effect)).unwrap_or(ReloadEffect::Nothing)
}

fn effect_of(what: What, kind: Kind, keys: &[KeyChange]) -> ReloadEffect {
    match (what, kind) {
        (What::Changed, _) => strongest(keys),
        (_, Kind::Route) => ReloadEffect::NextExchange,
        (What::New, _) => ReloadEffect::Nothing,
        (What::Gone, _) => ReloadEffect::Drains,
    }
}

/// An address more drains nobody; one less, or another protocol, drains all that came in.
fn of_listener(
    object: Object,
    what: What,
    mut keys: Vec<KeyChange>,
    before: &Configured,
    after: &Configured,
) -> Change {
    let named = |all: &Configured| -> Option<Arc<Listener>> {
        let Object::Of(_, name) = &object else { return None };
        all.listeners.iter().flatten().find(|listener| *listener.name == **name).cloned()
    };
    let (old, new) = (named(before), named(after));
    let drains = old.zip(new).is_some_and(|(old, new)| old.drains_for(&new));
    for key in keys.iter_mut().filter(|key| key.effect == ReloadEffect::Drains && !drains) {
        key.effect = ReloadEffect::Nothing;
    }
    Change { effect: effect_of(what, Kind::Listener, &keys), object, what, keys }
}

/// The list of its endpoints does what those of them do that changed; a file of further ones drains nobody where there was none.
fn of_cluster(object: Object, what: What, mut keys: Vec<KeyChange>, of_endpoints: ReloadEffect) -> Change {
    for key in &mut keys {
        match key.key.as_str() {
            "endpoints" => key.effect = of_endpoints,
            "endpoints_file" if key.before == default_of(Kind::Cluster, "endpoints_file") => {
                key.effect = ReloadEffect::Nothing;
            }
            _ => {}
        }
    }
    Change { effect: effect_of(what, Kind::Cluster, &keys), object, what, keys }
}

/// What is written of a cluster's endpoints, by name, and where each leads.
fn endpoints(all: &Configured, cluster: &str) -> BTreeMap<String, (Endpoint, String)> {
    let Some(cluster) = all.clusters.iter().flatten().find(|one| *one.name == *cluster) else {
        return BTreeMap::new();
    };
    let named = |endpoint: &Endpoint, query: Option<&Query>| {
        let leads = query.map_or_else(|| endpoint.address.to_string(), Query::to_string);
        (endpoint.name.to_string(), (endpoint.clone(), leads))
    };
    match at(&all.sources, cluster.id.0) {
        Some(sources) => {
            sources.entries.iter().map(|entry| named(&entry.endpoint, entry.query.as_ref())).collect()
        }
        None => Cluster::present(cluster).map(|endpoint| named(endpoint, None)).collect(),
    }
}

fn of_endpoint((old, from): &(Endpoint, String), (new, to): &(Endpoint, String)) -> Vec<KeyChange> {
    use ReloadEffect::{Drains, NextExchange};
    let limit = |limit: u32| if limit == u32::MAX { "none".to_owned() } else { limit.to_string() };
    let at = |address: &str| format!("{address:?}");
    let rows = [
        ("address", at(from), at(to), Drains),
        ("weight", old.weight.to_string(), new.weight.to_string(), NextExchange),
        ("max_connections", limit(old.max_connections), limit(new.max_connections), NextExchange),
        ("max_requests", limit(old.max_requests), limit(new.max_requests), NextExchange),
        ("priority", old.priority.to_string(), new.priority.to_string(), NextExchange),
    ];
    let differ = rows.into_iter().filter(|(_, before, after, _)| before != after);
    differ
        .map(|(key, before, after, effect)| KeyChange { key: key.to_owned(), before, after, effect })
        .collect()
}

/// Where a listener listens, for the log.
pub(crate) fn addresses(listener: &Listener) -> String {
    let addresses: Vec<String> = listener.addresses.iter().map(ListenAddress::to_string).collect();
    addresses.join(", ")
}
