//! The next configuration of the running process, ready but for the endpoints that are found.

use super::configured::{AllIds, Configured, at, put};
use super::plan::Plan;
use crate::config::Loaded;
use dataplane::plane::Plane;
use dataplane::spec::{ClusterId, Listener, ListenerId, Routes, Snapshot};
use std::sync::Arc;

/// What runs now.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) configured: Configured,
    pub(crate) ids: AllIds,
    /// What the process was started with.
    pub(crate) started: Arc<str>,
}

/// What is to run next.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) present: Present,
    pub(crate) plan: Plan,
    /// Clusters that changed, or came, are as they are written, and those that went as they were.
    pub(crate) snapshot: Snapshot,
    pub(crate) changed: Vec<ClusterId>,
    pub(crate) gone: Vec<ClusterId>,
}

/// Who may be forgotten.
pub(crate) trait InUse {
    fn conns(&self, listener: ListenerId) -> bool;
    fn cluster(&self, cluster: ClusterId) -> bool;
}

impl InUse for Plane {
    fn conns(&self, listener: ListenerId) -> bool {
        self.open_conns(listener) > 0
    }
    fn cluster(&self, cluster: ClusterId) -> bool {
        !self.is_unused(cluster)
    }
}

impl Present {
    /// Of a process that starts with `loaded`.
    pub(crate) fn first(loaded: &Loaded) -> Self {
        let (configured, ids) = Configured::first(loaded);
        Self { configured, ids, started: Arc::clone(&loaded.text) }
    }

    /// What a reload to `file` changes.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn plan(&self, file: &Loaded, swap: u64) -> Result<Plan, String> {
        let mut ids = self.ids.clone();
        let next = self.configured.next(file, &mut ids, swap)?;
        Ok(Plan::of(&self.configured, &next, &self.started))
    }

    /// What runs after a reload to `file` with swap number `swap`, where `live` runs. Ids that are gone since swap `rested` or
    /// longer, and that nobody uses, are free afterwards.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn next(
        &self,
        file: &Loaded,
        live: &Snapshot,
        (swap, rested): (u64, u64),
        in_use: &impl InUse,
    ) -> Result<Next, String> {
        let mut ids = self.ids.clone();
        let small = |id: usize| u16::try_from(id).unwrap_or(u16::MAX);
        for (id, since) in self.ids.listeners.gone() {
            if since <= rested && !in_use.conns(ListenerId(small(id))) {
                ids.listeners.free(id, swap);
            }
        }
        for (id, since) in self.ids.clusters.gone() {
            if since <= rested && !in_use.cluster(ClusterId(small(id))) {
                ids.clusters.free(id, swap);
            }
        }
        ids.routes.free_oldest(swap);
        let mut configured = self.configured.next(file, &mut ids, swap)?;
        // What needs an upgrade stays as it is.
        configured.runtime.shards = live.runtime.shards;
        configured.runtime.node = Arc::clone(&live.runtime.node);
        if let Some(traces) = &mut configured.process.traces {
            traces.node = live.runtime.node.to_string();
        }
        let plan = Plan::of(&self.configured, &configured, &self.started);

        let mut listeners = configured.listeners.clone();
        for (id, _) in ids.listeners.gone() {
            let Some(before) = at(&live.listeners, small(id)) else { continue };
            let cluster = before.cluster.filter(|cluster| at(&configured.clusters, cluster.0).is_some());
            let stays = before.is_gone() && before.cluster == cluster;
            let gone = || Listener { addresses: Vec::new(), cluster, ..(**before).clone() };
            put(&mut listeners, small(id), if stays { Arc::clone(before) } else { Arc::new(gone()) });
        }
        let (mut clusters, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for cluster in configured.clusters.iter().flatten() {
            let id = cluster.id.0;
            let same_sources = match (at(&self.configured.sources, id), at(&configured.sources, id)) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            let stays = at(&self.configured.clusters, id).is_some_and(|old| Arc::ptr_eq(old, cluster));
            match at(&live.clusters, id).filter(|_| stays && same_sources) {
                Some(live) => put(&mut clusters, id, Arc::clone(live)),
                None => {
                    put(&mut clusters, id, Arc::clone(cluster));
                    changed.push(cluster.id);
                }
            }
        }
        for (id, _) in ids.clusters.gone() {
            let Some(before) = at(&live.clusters, small(id)) else { continue };
            put(&mut clusters, small(id), Arc::clone(before));
            if !before.gone {
                gone.push(before.id);
            }
        }
        let names = ids.routes.gone().filter_map(|(id, _)| live.routes.by_id().get(id)?.clone());
        let routes = Routes::new(configured.routes.clone(), names.collect::<Vec<_>>());
        let (runtime, tracing) = (configured.runtime.clone(), configured.tracing);
        let snapshot = Snapshot { runtime, listeners, routes, clusters, tracing };
        let present = Self { configured, ids, started: Arc::clone(&self.started) };
        Ok(Next { present, plan, snapshot, changed, gone })
    }
}
