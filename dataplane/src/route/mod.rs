//! Which route takes a request: the built table and its lookup. The first in file order whose match holds.
//!
//! `index` finds, by host and path, the few routes that could take a request; `matching` says whether one does;
//! `template` writes what a route answers by itself.

mod index;
mod matching;
pub mod template;

use crate::proto::RequestHead;
use crate::spec::{ListenerId, Route};
use index::Index;
use std::net::IpAddr;
use std::sync::Arc;

/// What of a request a route can match.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub listener: ListenerId,
    pub head: &'a RequestHead,
    /// What `head` was parsed from.
    pub bytes: &'a [u8],
    /// The client's address.
    pub source: IpAddr,
}

/// Every route of a snapshot, indexed. Immutable: one may serve all shards.
#[derive(Debug)]
pub struct RouteTable {
    /// In file order; the index names them by their place here.
    routes: Vec<Arc<Route>>,
    index: Index,
}

impl RouteTable {
    /// The table of `routes`, which are in file order. Allocates; off the steady path.
    pub fn build(routes: &[Arc<Route>]) -> Self {
        Self { routes: routes.to_vec(), index: Index::build(routes) }
    }

    /// The first route that takes the request. Allocates nothing.
    pub fn find(&self, request: &Request<'_>) -> Option<&Arc<Route>> {
        let (host, path) = (request.head.host.of(request.bytes), request.head.path.of(request.bytes));
        let mut best: Option<u32> = None;
        self.index.candidates(host, path, |list| {
            // Each list is in file order, so of each only the first match counts, and only before the best so far.
            let earlier = list.iter().take_while(|&&at| best.is_none_or(|best| at < best));
            best = earlier.copied().find(|&at| self.takes(at, request)).or(best);
        });
        self.routes.get(best? as usize)
    }

    fn takes(&self, at: u32, request: &Request<'_>) -> bool {
        self.routes.get(at as usize).is_some_and(|route| matching::takes(route, request))
    }
}

#[cfg(test)]
mod tests;
