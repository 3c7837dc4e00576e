//! A configuration in the ids of this process, as it is written: without the endpoints that are found, and those that are gone.

use super::ids::Ids;
use crate::config::{Loaded, ProcessSettings};
use crate::discovery::Sources;
use crate::health::Check;
use dataplane::limits;
use dataplane::spec::{
    Action, Cluster, ClusterId, Listener, ListenerId, Maintenance, Match, Route, RouteId, Runtime, SwitchId,
    Tracing,
};
use std::path::PathBuf;
use std::sync::Arc;

/// The ids of everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllIds {
    pub(crate) listeners: Ids,
    pub(crate) clusters: Ids,
    pub(crate) routes: Ids,
}

/// Tables by id, but for the routes, which are in their order.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    pub(crate) text: Arc<str>,
    pub(crate) runtime: Runtime,
    pub(crate) process: ProcessSettings,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) listeners: Vec<Option<Arc<Listener>>>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) clusters: Vec<Option<Arc<Cluster>>>,
    pub(crate) sources: Vec<Option<Arc<Sources>>>,
    pub(crate) checks: Vec<Option<Arc<Check>>>,
    /// Maintenance files by the number of their switch, and whether each was there.
    pub(crate) files: Vec<Option<(PathBuf, bool)>>,
    pub(crate) check_descriptors: u64,
}

impl Configured {
    /// The first of a process: the ids are those of the file.
    pub(crate) fn first(loaded: &Loaded) -> (Self, AllIds) {
        let snapshot = &loaded.snapshot;
        let ids = AllIds {
            listeners: Ids::of(snapshot.listeners.iter().flatten().map(|l| Arc::clone(&l.name))),
            clusters: Ids::of(snapshot.clusters.iter().flatten().map(|c| Arc::clone(&c.name))),
            routes: Ids::of(snapshot.routes.iter().map(|r| Arc::clone(&r.name))),
        };
        let configured = Self {
            text: Arc::clone(&loaded.text),
            runtime: snapshot.runtime.clone(),
            process: loaded.process.clone(),
            tracing: snapshot.tracing,
            listeners: snapshot.listeners.clone(),
            routes: snapshot.routes.to_vec(),
            clusters: snapshot.clusters.clone(),
            sources: loaded.sources.clone(),
            checks: loaded.checks.clone(),
            files: loaded.maintenance_files.iter().cloned().map(Some).collect(),
            check_descriptors: loaded.check_descriptors,
        };
        (configured, ids)
    }

    /// What `loaded` says, after this: objects that are as they were are this one's own. `ids` are given for swap number `swap`.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn next(&self, loaded: &Loaded, ids: &mut AllIds, swap: u64) -> Result<Self, String> {
        let file = &loaded.snapshot;
        let full = |what: &'static str| {
            move |most| {
                format!(
                    "more than {most} {what}, with those that are gone and still in use: reload again later"
                )
            }
        };
        let small = |ids: Vec<usize>| -> Vec<u16> {
            ids.into_iter().map(|id| u16::try_from(id).unwrap_or(u16::MAX)).collect()
        };
        let names: Vec<_> = file.listeners.iter().flatten().map(|l| Arc::clone(&l.name)).collect();
        let listener_ids =
            small(ids.listeners.assign(&names, swap, limits::IDS_MAX).map_err(full("listeners"))?);
        let names: Vec<_> = file.clusters.iter().flatten().map(|c| Arc::clone(&c.name)).collect();
        let cluster_ids =
            small(ids.clusters.assign(&names, swap, limits::IDS_MAX).map_err(full("clusters"))?);
        let names: Vec<_> = file.routes.iter().map(|r| Arc::clone(&r.name)).collect();
        let most = 4 * limits::ROUTES_MAX + limits::ROUTES_GONE;
        let route_ids = ids.routes.assign(&names, swap, most).map_err(full("routes"))?;
        let (switches, files) = self.follow_files(&loaded.maintenance_files);
        let to = Numbers { listeners: &listener_ids, clusters: &cluster_ids, switches: &switches };

        let mut next = Self {
            text: Arc::clone(&loaded.text),
            runtime: file.runtime.clone(),
            process: loaded.process.clone(),
            tracing: file.tracing,
            listeners: Vec::new(),
            routes: Vec::with_capacity(file.routes.len()),
            clusters: Vec::new(),
            sources: Vec::new(),
            checks: Vec::new(),
            files,
            check_descriptors: loaded.check_descriptors,
        };
        for (listener, id) in file.listeners.iter().flatten().zip(&listener_ids) {
            let new = to.listener(listener, ListenerId(*id));
            put(&mut next.listeners, *id, same(at(&self.listeners, *id), new));
        }
        let clusters = file.clusters.iter().flatten().zip(&cluster_ids);
        for ((cluster, id), (sources, check)) in clusters.zip(loaded.sources.iter().zip(&loaded.checks)) {
            let new = to.cluster(cluster, ClusterId(*id));
            put(&mut next.clusters, *id, same(at(&self.clusters, *id), new));
            if let Some(sources) = sources {
                put(&mut next.sources, *id, same(at(&self.sources, *id), Arc::clone(sources)));
            }
            if let Some(check) = check {
                put(&mut next.checks, *id, same(at(&self.checks, *id), Arc::clone(check)));
            }
        }
        let mut before: Vec<Option<&Arc<Route>>> = Vec::new();
        for route in &self.routes {
            put(&mut before, route.id.0 as usize, route);
        }
        for (route, id) in file.routes.iter().zip(route_ids) {
            let new = to.route(route, RouteId(u32::try_from(id).unwrap_or(u32::MAX)));
            let known = before.get(id).copied().flatten();
            next.routes.push(same(known, new));
        }
        Ok(next)
    }

    /// The number of each file's switch: that of before, one that nobody has, or a new one.
    fn follow_files(&self, wanted: &[(PathBuf, bool)]) -> (Vec<u16>, Vec<Option<(PathBuf, bool)>>) {
        let place = |path: &PathBuf| self.files.iter().position(|f| f.as_ref().is_some_and(|f| f.0 == *path));
        let mut files: Vec<Option<(PathBuf, bool)>> = vec![None; self.files.len()];
        let mut numbers = vec![None; wanted.len()];
        for (file, number) in wanted.iter().zip(&mut numbers) {
            *number = place(&file.0);
            number.iter().for_each(|at| files[*at] = Some(file.clone()));
        }
        for (file, number) in wanted.iter().zip(&mut numbers).filter(|(_, number)| number.is_none()) {
            let at = files.iter().position(Option::is_none).unwrap_or(files.len());
            match files.get_mut(at) {
                Some(free) => *free = Some(file.clone()),
                None => files.push(Some(file.clone())),
            }
            *number = Some(at);
        }
        let small = |at: Option<usize>| at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX);
        (numbers.into_iter().map(small).collect(), files)
    }
}

/// The one of before, if the new one says the same.
fn same<T: PartialEq>(before: Option<&Arc<T>>, new: Arc<T>) -> Arc<T> {
    match before {
        Some(before) if **before == *new => Arc::clone(before),
        _ => new,
    }
}

pub(super) fn at<T>(table: &[Option<Arc<T>>], id: u16) -> Option<&Arc<T>> {
    table.get(usize::from(id)).and_then(Option::as_ref)
}

/// Puts a row in its place of a table that is as long as it has to be.
pub(crate) fn put<T: Clone>(table: &mut Vec<Option<T>>, id: impl Into<usize>, row: T) {
    let at = id.into();
    table.resize(table.len().max(at + 1), None);
    table[at] = Some(row);
}

/// What the ids of a file are in this process.
struct Numbers<'a> {
    listeners: &'a [u16],
    clusters: &'a [u16],
    switches: &'a [u16],
}

impl Numbers<'_> {
    fn cluster_id(&self, id: ClusterId) -> ClusterId {
        ClusterId(self.clusters.get(usize::from(id.0)).copied().unwrap_or(u16::MAX))
    }
    fn listener_id(&self, id: ListenerId) -> ListenerId {
        ListenerId(self.listeners.get(usize::from(id.0)).copied().unwrap_or(u16::MAX))
    }
    fn listener(&self, listener: &Arc<Listener>, id: ListenerId) -> Arc<Listener> {
        let cluster = listener.cluster.map(|cluster| self.cluster_id(cluster));
        if (listener.id, listener.cluster) == (id, cluster) {
            return Arc::clone(listener);
        }
        Arc::new(Listener { id, cluster, ..(**listener).clone() })
    }
    fn cluster(&self, cluster: &Arc<Cluster>, id: ClusterId) -> Arc<Cluster> {
        if cluster.id == id {
            return Arc::clone(cluster);
        }
        Arc::new(Cluster { id, ..(**cluster).clone() })
    }
    fn route(&self, route: &Arc<Route>, id: RouteId) -> Arc<Route> {
        if route.id == id && self.keeps(route) {
            return Arc::clone(route);
        }
        let mut new = (**route).clone();
        new.id = id;
        new.listeners.iter_mut().for_each(|listener| *listener = self.listener_id(*listener));
        self.number_match(&mut new.matcher);
        self.number_action(&mut new.action);
        new.maintenance = new.maintenance.map(|Maintenance { switch, on, instead }| Maintenance {
            switch: SwitchId(self.switches.get(usize::from(switch.0)).copied().unwrap_or(u16::MAX)),
            on,
            instead: self.route(&instead, id),
        });
        Arc::new(new)
    }
    /// Whether everything that a route refers to has the id of the file.
    fn keeps(&self, route: &Route) -> bool {
        let mut matcher = Some(&route.matcher);
        let mut of_match = true;
        while let Some(own) = matcher {
            of_match &=
                own.available.is_none_or(|available| self.cluster_id(available.cluster) == available.cluster);
            matcher = own.not.as_deref();
        }
        let of_action = match &route.action {
            Action::Forward { cluster, .. } => self.cluster_id(*cluster) == *cluster,
            Action::Respond(_) | Action::Redirect(_) => true,
        };
        let switch = |it: &Maintenance| self.switches.get(usize::from(it.switch.0)) == Some(&it.switch.0);
        of_match
            && of_action
            && route.listeners.iter().all(|listener| self.listener_id(*listener) == *listener)
            && route.maintenance.as_ref().is_none_or(|it| switch(it) && self.keeps(&it.instead))
    }
    fn number_match(&self, matcher: &mut Match) {
        if let Some(available) = &mut matcher.available {
            available.cluster = self.cluster_id(available.cluster);
        }
        if let Some(not) = &mut matcher.not {
            self.number_match(not);
        }
    }
    fn number_action(&self, action: &mut Action) {
        if let Action::Forward { cluster, .. } = action {
            *cluster = self.cluster_id(*cluster);
        }
    }
}
