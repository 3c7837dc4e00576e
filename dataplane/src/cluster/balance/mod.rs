//! Balancing policies: one file each, one entry in `POLICIES`; the contract tests run over the registry.
//!
//! A policy chooses among the endpoints that may be used; limits and counts are the caller's. It allocates only when
//! built or when the endpoints change.

pub mod cycle;
mod draw;
mod first;
mod hash;
mod least_connections;
pub mod maglev;
mod peak_ewma;
mod random;
mod round_robin;
mod seen;

use super::Tried;
use super::shared::SharedCluster;
use super::usable::{Choice, Usable};
use crate::io::Mono;
use crate::spec::{Cluster, EndpointId};
use std::fmt;

/// One way to choose an endpoint, with its state on one shard.
pub trait Balancer: fmt::Debug + Send {
    /// An eligible endpoint; `None` only when there is none.
    fn pick(&mut self, view: &View<'_>, hint: Hint) -> Option<EndpointId>;
    /// A request of this shard ended; `running` others are left on the endpoint, over all shards.
    fn on_end(&mut self, _id: EndpointId, _running: u32) {}
    /// The head of a response came to this shard, or a link of a tunnel, so many nanoseconds after it was asked for.
    fn observe(&mut self, _id: EndpointId, _latency: u64, _now: Mono) {}
    /// Rebuilds tables for other endpoints or weights; off the steady path. [`Balancer::on_usable_changed`] follows.
    fn on_endpoints_changed(&mut self, cluster: &Cluster);
    /// Fits tables to those of its endpoints that picks choose among now, in time linear in the tables; off the steady path.
    /// Every shard is told of the same set. [`View::eligible`] excludes the others anyhow: this is for the shares of those
    /// that are left.
    fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable);
}

/// A policy that a configuration may name.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Its word in `cluster.balance`.
    pub name: &'static str,
    /// One sentence for the manual.
    pub doc: &'static str,
    /// Builds one shard's balancer; `seed` differs from shard to shard.
    pub build: fn(cluster: &Cluster, seed: u64) -> Box<dyn Balancer>,
}

/// Every policy; the first is the default.
pub const POLICIES: &[Policy] = &[
    round_robin::POLICY,
    least_connections::POLICY,
    random::POLICY,
    first::POLICY,
    peak_ewma::POLICY,
    hash::POLICY,
];

/// The policy of that name.
pub fn policy(name: &str) -> Option<&'static Policy> {
    POLICIES.iter().find(|policy| policy.name == name)
}

/// What a policy may know of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint {
    /// Hash of what the cluster balances on; 0 where its policy needs none.
    pub key: u64,
    /// The time of this turn.
    pub now: Mono,
    /// Whom the client sticks to: it is picked whatever the policy, as long as it may be.
    pub sticky: Option<EndpointId>,
    /// Who picks, told from all others of its shard at any time: if the pick is a trial, its result is this one's.
    pub who: u64,
}

/// What a policy may know of its cluster: the endpoints, and how busy they are over all shards.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) shared: &'a SharedCluster,
    pub(super) usable: &'a Usable,
    /// This shard's idle links, by endpoint.
    pub(super) idle: &'a [u32],
    pub(super) tried: &'a Tried,
}

impl View<'_> {
    /// Endpoints of the cluster, eligible or not: ids are 0 up to this.
    pub fn len(&self) -> usize {
        self.cluster.endpoints.len()
    }
    pub fn is_empty(&self) -> bool {
        self.cluster.endpoints.is_empty()
    }
    /// Whether the endpoint may take this request: it is usable, was not tried, and is below its limits.
    pub fn eligible(&self, id: EndpointId) -> bool {
        match self.usable.choice(id) {
            Choice::No => false,
            Choice::Free => !self.tried.contains(id),
            Choice::Limited => !self.tried.contains(id) && self.has_room(id),
        }
    }
    /// Whether the endpoint is below its limits (at `max_connections` it still can take a request if this shard has an idle
    /// link to it).
    pub fn has_room(&self, id: EndpointId) -> bool {
        let at = usize::from(id.0);
        let (Some(spec), Some(shared)) = (self.cluster.endpoints.get(at), self.shared.endpoint(id)) else {
            return false;
        };
        (spec.max_requests == u32::MAX || shared.running_requests() < spec.max_requests)
            && (spec.max_connections == u32::MAX
                || shared.open_links() < spec.max_connections
                || self.idle.get(at).is_some_and(|&idle| idle > 0))
    }
    /// The endpoint's configured weight.
    pub fn weight(&self, id: EndpointId) -> u32 {
        self.cluster.endpoints.get(usize::from(id.0)).map_or(0, |endpoint| endpoint.weight)
    }
    /// Requests running on the endpoint, over all shards.
    pub fn running(&self, id: EndpointId) -> u32 {
        self.shared.endpoint(id).map_or(0, |endpoint| endpoint.running_requests())
    }
    /// This pick's number among all shards' picks of the cluster; taken at most once per pick.
    pub fn take_ticket(&self) -> u64 {
        self.shared.take_pick_ticket()
    }
    /// Whether `a` has less to do than `b`, each by its weight.
    fn less_busy(&self, a: EndpointId, b: EndpointId) -> bool {
        let load = |busy, other| u64::from(self.running(busy)) * u64::from(self.weight(other));
        load(a, b) < load(b, a)
    }
    /// The first eligible endpoint from `start` on, in the order of ids, going round.
    fn first_from(&self, start: usize) -> Option<EndpointId> {
        self.round_from(start).find(|&id| self.eligible(id))
    }
    /// Every endpoint's id, from `start` on, going round.
    fn round_from(&self, start: usize) -> impl Iterator<Item = EndpointId> + use<> {
        let len = self.len();
        let start = start.checked_rem(len).unwrap_or(0);
        (start..len).chain(0..start).map(endpoint_id)
    }
}

/// The id of the endpoint at `index`; `limits::ENDPOINTS_MAX` is far below 65,536.
fn endpoint_id(index: usize) -> EndpointId {
    EndpointId(u16::try_from(index).unwrap_or(u16::MAX))
}

#[cfg(all(test, not(loom)))]
mod tests;
