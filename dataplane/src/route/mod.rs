//! Which route takes a request: the built table and its lookup. The first in file order whose match holds.
//!
//! `index` finds, by host and path, the few routes that could take a request, or by a ClientHello's name those that could
//! take a conn of a tcp listener; `matching` says whether one does; `template` writes what a route answers by itself.

pub mod explain;
mod index;
mod matching;
pub mod template;

use crate::proto::RequestHead;
use crate::proto::client_hello::Hello;
use crate::spec::{ClusterId, ListenerId, Match, Protocol, Route, Snapshot};
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
    /// The client's address; none of one on a unix socket, which no network holds.
    pub source: Option<IpAddr>,
    /// By cluster, how many of its endpoints are usable; right for those that [`RouteTable::asks_about`].
    pub available: &'a [u32],
}

/// What of a conn of a tcp listener a route can match.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    pub listener: ListenerId,
    /// The client's address, as of a request.
    pub source: Option<IpAddr>,
    /// Its ClientHello, where one was read, and the message that it is of.
    pub hello: Option<(&'a Hello, &'a [u8])>,
    /// As of a request.
    pub available: &'a [u32],
}

impl Opening<'_> {
    /// The name that the client asks for; empty if it names none.
    fn name(&self) -> &[u8] {
        self.hello.and_then(|(hello, message)| hello.name(message)).unwrap_or_default()
    }
}

/// Every route of a snapshot, indexed. Immutable: one may serve all shards.
#[derive(Debug)]
pub struct RouteTable {
    requests: Indexed,
    /// Those of tcp listeners.
    openings: Indexed,
    /// The tcp listeners whose routes ask for a ClientHello, sorted.
    hellos: Vec<ListenerId>,
    /// The clusters whose usable endpoints decide something, sorted.
    asks_about: Vec<ClusterId>,
}

/// Routes in file order, which the index names by their place.
#[derive(Debug)]
struct Indexed {
    routes: Vec<Arc<Route>>,
    index: Index,
}

impl Indexed {
    /// The first that takes something of this host and path.
    fn first(&self, host: &[u8], path: &[u8], takes: impl Fn(&Route) -> bool) -> Option<&Arc<Route>> {
        let takes = |at: u32| self.routes.get(at as usize).is_some_and(|route| takes(route));
        let mut best: Option<u32> = None;
        self.index.candidates(host, path, |list| {
            // Each list is in file order, so of each only the first match counts, and only before the best so far.
            let earlier = list.iter().take_while(|&&at| best.is_none_or(|best| at < best));
            best = earlier.copied().find(|&at| takes(at)).or(best);
        });
        self.routes.get(best? as usize)
    }
}

impl RouteTable {
    /// The table of a snapshot. Allocates; off the steady path.
    pub fn of(snapshot: &Snapshot) -> Self {
        let is_tcp = |id: &ListenerId| snapshot.listener(*id).is_some_and(|l| l.protocol == Protocol::Tcp);
        Self::split(&snapshot.routes, is_tcp)
    }

    /// Each route to where it may take something; one may name listeners of both kinds.
    fn split(routes: &[Arc<Route>], is_tcp: impl Fn(&ListenerId) -> bool) -> Self {
        let asks_about = asked_about(routes);
        let routes = routes.iter().cloned();
        let of_tcp: Vec<_> = routes.clone().filter(|route| route.listeners.iter().any(&is_tcp)).collect();
        let of_http: Vec<_> = routes
            .filter(|route| route.listeners.is_empty() || !route.listeners.iter().all(&is_tcp))
            .collect();
        let asking = of_tcp.iter().filter(|route| asks_for_hello(&route.matcher));
        let mut hellos: Vec<_> = asking.flat_map(|route| route.listeners.iter().copied()).collect();
        hellos.sort_unstable();
        hellos.dedup();
        let openings = Indexed { index: Index::build(&of_tcp, |matcher| &matcher.sni), routes: of_tcp };
        let requests = Indexed { index: Index::build(&of_http, |matcher| &matcher.host), routes: of_http };
        Self { requests, openings, hellos, asks_about }
    }

    /// The table of `routes` of http listeners, which are in file order.
    pub fn build(routes: &[Arc<Route>]) -> Self {
        Self::split(routes, |_| false)
    }

    /// The first route that takes the request. Allocates nothing.
    pub fn find(&self, request: &Request<'_>) -> Option<&Arc<Route>> {
        let (host, path) = (request.head.host.of(request.bytes), request.head.path.of(request.bytes));
        self.requests.first(host, path, |route| matching::takes(route, request))
    }

    /// The clusters whose usable endpoints have to be counted before a route is looked for; mostly none.
    pub fn asks_about(&self) -> &[ClusterId] {
        &self.asks_about
    }

    /// Whether a conn of this tcp listener is routed by its ClientHello. Where it is not, none is read.
    pub fn asks_for_hello(&self, listener: ListenerId) -> bool {
        self.hellos.binary_search(&listener).is_ok()
    }

    /// The first route that takes a conn of a tcp listener. Allocates nothing.
    pub fn find_opening(&self, opening: &Opening<'_>) -> Option<&Arc<Route>> {
        self.openings.first(opening.name(), &[], |route| matching::takes_opening(route, opening))
    }
}

/// The clusters that matches, or what they negate, ask about.
fn asked_about(routes: &[Arc<Route>]) -> Vec<ClusterId> {
    let mut clusters = Vec::new();
    for route in routes {
        let mut matcher = Some(&route.matcher);
        while let Some(own) = matcher {
            clusters.extend(own.available.map(|available| available.cluster));
            matcher = own.not.as_deref();
        }
    }
    clusters.sort_unstable();
    clusters.dedup();
    clusters
}

/// Whether a match, or what it negates, looks at a ClientHello.
pub fn asks_for_hello(matcher: &Match) -> bool {
    !matcher.sni.is_empty() || !matcher.alpn.is_empty() || matcher.not.as_deref().is_some_and(asks_for_hello)
}

#[cfg(test)]
mod tests;
