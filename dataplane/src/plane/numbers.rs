//! What control reads of what shards count and share: for metrics.

use super::Plane;
use crate::cluster::shared::Counts;
use crate::core::Shared;
use crate::spec::{ClusterId, ListenerId, Route, RouteId};
use crate::stats::objects::{OfListener, OfRoute};
use std::sync::Arc;

/// The numbers of every object that there is at a moment; what is read of them is as of when it is read.
#[derive(Debug)]
pub struct Numbers(Arc<Shared>);

impl Numbers {
    /// What each shard counts of a listener.
    pub fn of_listener(&self, id: ListenerId) -> Option<&[OfListener]> {
        self.0.listeners.get(usize::from(id.0))?.as_ref().map(|shared| shared.counts())
    }
    /// Connections of a listener that are open.
    pub fn open(&self, id: ListenerId) -> u32 {
        let shared = self.0.listeners.get(usize::from(id.0)).and_then(Option::as_ref);
        shared.map_or(0, |shared| shared.open())
    }
    /// Whether a route answers in maintenance now.
    pub fn in_maintenance(&self, route: &Arc<Route>) -> bool {
        !Arc::ptr_eq(self.0.in_force(route), route)
    }
    /// What each shard counts of a route.
    pub fn of_route(&self, id: RouteId) -> Option<&[OfRoute]> {
        self.0.routes.counts(id)
    }
    /// What each shard counts of a cluster and its endpoints.
    pub fn of_cluster(&self, id: ClusterId) -> Option<&[Counts]> {
        self.0.clusters.get(usize::from(id.0))?.as_ref().map(|shared| shared.counts())
    }
    /// Links of a cluster that wait for a request.
    pub fn idle_links(&self, id: ClusterId) -> u32 {
        let shared = self.0.clusters.get(usize::from(id.0)).and_then(Option::as_ref);
        shared.map_or(0, |shared| shared.idle_links())
    }
}

impl Plane {
    /// The numbers of the objects that there are now.
    pub fn numbers(&self) -> Numbers {
        Numbers(Arc::clone(&self.present.borrow().shared))
    }
}
