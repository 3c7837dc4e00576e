//! Which endpoint takes an attempt; knows no sockets and no clock.
//!
//! `ClusterState` is one shard's part of a cluster: it picks an endpoint by the cluster's policy (`balance`), and takes
//! and gives back what is limited over all shards (`shared`). What it took for a caller, the caller gives back: each
//! `pick` ends in one `end_request`, each `open_link` in one `close_link`, each `park_link` in one `unpark_link`.

pub mod balance;
mod breaker;
pub mod budget;
pub mod capacity;
pub mod change;
pub mod condition;
pub mod delay;
pub mod eligible;
pub mod events;
pub mod exhausted;
mod grown;
mod hint;
pub mod left;
pub mod outcome;
pub mod outlier;
pub mod retry;
pub mod roster;
pub mod shared;
mod slow_start;
pub mod switch;
mod trial;
pub mod usable;

use crate::io::Mono;
use crate::limits::{CONNECT_ATTEMPTS, EXHAUSTED_PAIRS};
use crate::spec::{Cluster, Endpoint, EndpointId, Hash};
use balance::{Balancer, Hint, POLICIES, View, policy};
use eligible::Eligible;
use exhausted::SourceId;
use shared::SharedCluster;
use std::net::IpAddr;
use std::sync::Arc;
use trial::UnderWay;
use usable::Usable;

/// The endpoints that one request already tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    ids: [EndpointId; CONNECT_ATTEMPTS as usize],
    len: u8,
}

impl Tried {
    pub const NONE: Self = Self { ids: [EndpointId(0); CONNECT_ATTEMPTS as usize], len: 0 };

    pub fn contains(&self, id: EndpointId) -> bool {
        self.ids[..usize::from(self.len)].contains(&id)
    }
    /// Adds an endpoint; false when no more than these may be tried.
    pub fn add(&mut self, id: EndpointId) -> bool {
        if self.contains(id) {
            return true;
        }
        let Some(free) = self.ids.get_mut(usize::from(self.len)) else { return false };
        *free = id;
        self.len += 1;
        true
    }
    pub fn iter(&self) -> impl Iterator<Item = EndpointId> {
        self.ids[..self.len()].iter().copied()
    }
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether the last allowed attempt was made.
    pub fn is_full(&self) -> bool {
        self.len() == self.ids.len()
    }
}

impl Default for Tried {
    fn default() -> Self {
        Self::NONE
    }
}

/// Why no endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// None is left that may be used and was not tried.
    NoEndpoint,
    /// Some are left, but each is at `max_connections` or `max_requests`.
    Full,
    /// Breakers keep requests from all that are left; [`Usable::reopens`] says for how long.
    CircuitOpen,
}

/// Whether a place is free at a cluster, as one shard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Every endpoint is at a limit.
    None,
    /// An endpoint is below its limits, or none may be used at all: then a waiter learns that.
    Open,
    /// Only this shard can go on, by an idle link to this endpoint, which is at `max_connections`.
    Idle(EndpointId),
}

/// One shard's part of a cluster.
#[derive(Debug)]
pub struct ClusterState {
    shard: u16,
    /// Of its balancer's random draws.
    seed: u64,
    cluster: Arc<Cluster>,
    shared: Arc<SharedCluster>,
    balancer: Box<dyn Balancer>,
    usable: Usable,
    /// Requests of this shard that try for the node whether something works again.
    trials: Vec<UnderWay>,
    /// Counts the picks of endpoints that have just come up.
    thinned: u32,
    /// This shard's idle links, by endpoint.
    idle: Box<[u32]>,
}

/// Picks that may lose a race for the last free place of an endpoint before the first that has one is taken.
const LOST_RACES: u32 = 4;

impl ClusterState {
    /// A shard's part of `cluster`; `seed` and `shard` together make its random draws its own.
    pub fn new(cluster: Arc<Cluster>, shared: Arc<SharedCluster>, shard: u16, seed: u64) -> Self {
        // The configuration was checked against the same table: an unknown name does not get here.
        let policy = policy(cluster.balance).unwrap_or(&POLICIES[0]);
        let seed = seed ^ (u64::from(shard) << 48) ^ (u64::from(cluster.id.0) << 32);
        let mut balancer = (policy.build)(&cluster, seed);
        let usable = Usable::new(&cluster, &shared, Mono(0));
        balancer.on_usable_changed(&cluster, &usable);
        let idle = vec![0; cluster.endpoints.len()].into();
        Self { shard, seed, cluster, shared, balancer, usable, trials: Vec::new(), thinned: 0, idle }
    }

    /// Goes on by another specification. Endpoints that both have keep their ids, and with them what is open and running;
    /// the shared part has room for those that came.
    pub fn change(&mut self, cluster: Arc<Cluster>, now: Mono) {
        if cluster.balance == self.cluster.balance {
            self.balancer.on_endpoints_changed(&cluster);
        } else {
            let policy = policy(cluster.balance).unwrap_or(&POLICIES[0]);
            self.balancer = (policy.build)(&cluster, self.seed);
        }
        self.usable = Usable::new(&cluster, &self.shared, now);
        self.balancer.on_usable_changed(&cluster, &self.usable);
        let idle = self.idle.iter().copied().chain(std::iter::repeat(0));
        // As long as ever: there may be idle links to those behind the last, until they are closed.
        self.idle = idle.take(self.idle.len().max(cluster.endpoints.len())).collect();
        self.cluster = cluster;
        // Limits may have come, and with them those who ask for idle links.
        for (id, idle) in (0u16..).map(EndpointId).zip(&self.idle) {
            if *idle > 0 {
                self.tell_idle(id, true);
            }
        }
    }

    pub fn spec(&self) -> &Arc<Cluster> {
        &self.cluster
    }
    pub fn shared(&self) -> &SharedCluster {
        &self.shared
    }
    /// What this shard counts of the cluster.
    pub fn counts(&self) -> Option<&shared::Counts> {
        self.shared.counts_of(self.shard)
    }
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.cluster.endpoints.get(usize::from(id.0))
    }

    /// Which endpoints picks choose among, as of the last [`ClusterState::refresh`] or pick.
    pub fn usable(&self) -> &Usable {
        &self.usable
    }
    /// Learns what changed of the endpoints' conditions; costs a comparison if nothing did.
    pub fn refresh(&mut self, now: Mono) {
        if !self.usable.is_fresh(&self.shared, now) {
            self.look(now);
        }
    }
    #[cold]
    fn look(&mut self, now: Mono) {
        self.usable.look(&self.cluster, &self.shared, now);
        self.balancer.on_usable_changed(&self.cluster, &self.usable);
    }

    /// An endpoint for an attempt, with a running request counted on it until [`ClusterState::end_request`]: whom the client
    /// sticks to, as long as it may be, else the policy's choice.
    pub fn pick(&mut self, tried: &Tried, hint: Hint) -> Result<EndpointId, PickError> {
        self.refresh(hint.now);
        if self.usable.is_guarded() {
            return self.pick_guarded(tried, hint);
        }
        self.choose(tried, hint)
    }
    /// The endpoint that is chosen, whatever breakers say.
    fn choose(&mut self, tried: &Tried, hint: Hint) -> Result<EndpointId, PickError> {
        let sticky = hint.sticky.filter(|&id| self.keeps(id) && !tried.contains(id));
        let Self { cluster, shared, balancer, usable, idle, .. } = self;
        let view = View { cluster, shared, usable, idle, tried };
        if let Some(id) = sticky
            && view.has_room(id)
            && try_start(&view, id)
        {
            return Ok(id);
        }
        for _ in 0..LOST_RACES {
            let Some(id) = balancer.pick(&view, hint) else { break };
            if try_start(&view, id) {
                return Ok(id);
            }
        }
        let ids = || (0u16..).take(view.len()).map(EndpointId);
        if let Some(id) = ids().find(|&id| view.eligible(id) && try_start(&view, id)) {
            return Ok(id);
        }
        if ids().any(|id| usable.contains(id) && !tried.contains(id)) {
            return Err(PickError::Full);
        }
        self.pick_beyond(tried)
    }
    /// An endpoint of a later tier for a request that tried all of the tier in use: what nobody knows to be dead yet must not
    /// keep requests from what would answer them.
    #[cold]
    fn pick_beyond(&self, tried: &Tried) -> Result<EndpointId, PickError> {
        let Self { cluster, shared, usable, idle, .. } = self;
        let view = View { cluster, shared, usable, idle, tried };
        // Whoever tried something is told how that failed.
        let shut = tried.is_empty() && usable.reopens().is_some();
        let mut error = if shut { PickError::CircuitOpen } else { PickError::NoEndpoint };
        let mut last = 0;
        while !tried.is_empty()
            && let Some(tier) = cluster.endpoints.iter().map(|e| e.priority).filter(|tier| *tier > last).min()
        {
            last = tier;
            let may = |endpoint: &&Endpoint| {
                endpoint.priority == tier
                    && endpoint.weight > 0
                    && usable.eligible(endpoint.id) == Some(Eligible::Yes)
                    && !tried.contains(endpoint.id)
            };
            for endpoint in cluster.endpoints.iter().filter(may) {
                if view.has_room(endpoint.id) && try_start(&view, endpoint.id) {
                    return Ok(endpoint.id);
                }
                error = PickError::Full;
            }
        }
        Err(error)
    }
    /// Whom a request would be given now, where that is no matter of turns or chance. Takes and counts nothing.
    pub fn foresee(&mut self, hint: Hint) -> Option<EndpointId> {
        let sticky = hint.sticky.filter(|&id| self.keeps(id));
        let Self { cluster, shared, balancer, usable, idle, .. } = self;
        let view = View { cluster, shared, usable, idle, tried: &Tried::NONE };
        if let Some(id) = sticky.filter(|&id| view.has_room(id)) {
            return Some(id);
        }
        if usable.is_guarded() {
            return None;
        }
        let mut choice = (0u16..).take(view.len()).map(EndpointId).filter(|&id| view.eligible(id));
        let (one, other) = (choice.next(), choice.next());
        match cluster.balance {
            _ if other.is_none() => one,
            "hash" | "first" => balancer.pick(&view, hint),
            _ => None,
        }
    }
    /// Whether those who stick to an endpoint stay with it, although it may have no room at this moment.
    pub fn keeps(&self, id: EndpointId) -> bool {
        let weighs = self.endpoint(id).is_some_and(|endpoint| endpoint.weight > 0);
        weighs
            && match self.usable.eligible(id) {
                Some(Eligible::Yes | Eligible::StickyOnly) => true,
                // A trial is a pick like any other, not theirs.
                Some(Eligible::Trial) | None => false,
                // The cluster may fail open to it.
                Some(Eligible::No(_)) => self.usable.contains(id),
            }
    }
    /// The attempt that `pick` was for is over.
    pub fn end_request(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.shared.endpoint(id) {
            let left = endpoint.end();
            if counts_all(&self.cluster) {
                self.shared.end();
            }
            self.balancer.on_end(id, left);
        }
    }
    /// An endpoint answered, so many nanoseconds after it was asked: with the head of a response, or a tunnel's link.
    pub fn observe(&mut self, id: EndpointId, latency: u64, now: Mono) {
        self.balancer.observe(id, latency, now);
    }

    /// Counts a link in, before its connect; false at `max_connections`: try another endpoint.
    pub fn open_link(&self, id: EndpointId) -> bool {
        let (Some(spec), Some(endpoint)) = (self.endpoint(id), self.shared.endpoint(id)) else {
            return false;
        };
        endpoint.try_open_link(spec.max_connections)
    }
    /// Counts in a link that another process opened, and its request if it runs one, whatever the limits are now: what is
    /// established is not closed for them. False where there is no such endpoint.
    pub fn adopt_link(&self, id: EndpointId, with_request: bool) -> bool {
        let Some(endpoint) = self.shared.endpoint(id) else { return false };
        endpoint.try_open_link(u32::MAX);
        if with_request && endpoint.try_start(u32::MAX) && counts_all(&self.cluster) {
            self.shared.start();
        }
        true
    }
    /// Counts a link out, after its close.
    pub fn close_link(&self, id: EndpointId) {
        if let Some(endpoint) = self.shared.endpoint(id) {
            endpoint.close_link();
        }
    }

    /// Whether as many links as may be are open to an endpoint.
    pub fn is_at_link_limit(&self, id: EndpointId) -> bool {
        let (Some(spec), Some(endpoint)) = (self.endpoint(id), self.shared.endpoint(id)) else {
            return false;
        };
        endpoint.open_links() >= spec.max_connections
    }
    /// Whether a link may now be kept idle; false means close it: `pool.idle` are kept. Counted until
    /// [`ClusterState::unpark_link`].
    pub fn park_link(&mut self, id: EndpointId) -> bool {
        let Some(idle) = self.idle.get_mut(usize::from(id.0)) else { return false };
        let kept = self.shared.try_park(self.cluster.pool.idle);
        *idle += u32::from(kept);
        if kept && *idle == 1 {
            self.tell_idle(id, true);
        }
        kept
    }
    /// An idle link is no longer idle: it was leased again, or is closing.
    pub fn unpark_link(&mut self, id: EndpointId) {
        if let Some(idle) = self.idle.get_mut(usize::from(id.0)) {
            debug_assert!(*idle > 0, "more unparked than parked");
            *idle = idle.saturating_sub(1);
            let none = *idle == 0;
            self.shared.unpark();
            if none {
                self.tell_idle(id, false);
            }
        }
    }
    /// Only where links are limited does another shard ask who has an idle one.
    fn tell_idle(&self, id: EndpointId, some: bool) {
        if let (Some(spec), Some(endpoint)) = (self.endpoint(id), self.shared.endpoint(id))
            && spec.max_connections != u32::MAX
        {
            endpoint.set_idle(self.shard, some);
        }
    }

    /// Whether some endpoint has a limit, so that requests may have to wait for it.
    pub fn is_limited(&self, id: EndpointId) -> bool {
        self.endpoint(id).is_some_and(|e| e.max_connections != u32::MAX || e.max_requests != u32::MAX)
    }
    /// Whether a link to an endpoint may wait there for the next request: somebody might be sent on it.
    pub fn keeps_links(&self, id: EndpointId) -> bool {
        let takes_new = self.usable.eligible(id).is_some_and(Eligible::takes_new);
        // The cluster may fail open to what nobody would choose otherwise.
        self.cluster.has(id)
            && (takes_new || self.usable.contains(id) || self.cluster.sticky.is_some() && self.keeps(id))
    }

    /// Whether a place is free. Looks at every endpoint: only for clusters at which somebody waits.
    pub fn room(&self) -> Room {
        if self.usable.reopens().is_some() {
            return Room::Open;
        }
        let (mut room, mut usable) = (Room::None, false);
        for (spec, idle) in self.cluster.endpoints.iter().zip(&self.idle) {
            let usable_here = self.usable.contains(spec.id);
            let Some(shared) = self.shared.endpoint(spec.id).filter(|_| usable_here) else { continue };
            usable = true;
            if shared.running_requests() >= spec.max_requests {
                continue;
            }
            if shared.open_links() < spec.max_connections {
                return Room::Open;
            }
            if *idle > 0 && room == Room::None {
                room = Room::Idle(spec.id);
            }
        }
        if usable { room } else { Room::Open }
    }
    /// A shard that holds an idle link to an endpoint which is at `max_connections` and would take a request.
    pub fn idle_elsewhere(&self) -> Option<u16> {
        self.cluster.endpoints.iter().find_map(|spec| {
            let shared = self.shared.endpoint(spec.id)?;
            let may = self.usable.contains(spec.id)
                && spec.max_connections != u32::MAX
                && shared.running_requests() < spec.max_requests;
            if may { shared.idle_after(self.shard).filter(|holder| *holder != self.shard) } else { None }
        })
    }

    /// The next local address to connect from that `may` be tried, in turn over all shards. `Some` without an address
    /// leaves it to the kernel; `None` says that none may be tried.
    pub fn next_source(
        &self,
        v6: bool,
        may: impl Fn(SourceId) -> bool,
    ) -> Option<(SourceId, Option<IpAddr>)> {
        let addresses = &self.cluster.source_addresses;
        let count = addresses.count(v6);
        if count == 0 {
            return may(SourceId::KERNEL).then_some((SourceId::KERNEL, None));
        }
        let first = self.shared.take_source_ticket();
        // More than the table holds cannot all be exhausted as far as this shard knows.
        let looks = count.min(EXHAUSTED_PAIRS as u64 + 1);
        (0..looks).find_map(|n| {
            let index = first.wrapping_add(n) % count;
            let id = SourceId(u16::try_from(index).ok()?);
            if !may(id) {
                return None;
            }
            Some((id, Some(addresses.at(index, v6)?)))
        })
    }
}

/// Counts a running request on the endpoint, unless it reached its limit since the policy looked.
fn try_start(view: &View<'_>, id: EndpointId) -> bool {
    let limit = view.cluster.endpoints.get(usize::from(id.0)).map_or(0, |endpoint| endpoint.max_requests);
    let started = view.shared.endpoint(id).is_some_and(|endpoint| endpoint.try_start(limit));
    if started && counts_all(view.cluster) {
        view.shared.start();
    }
    started
}

/// Whether a cluster's running requests are counted as a whole too, because its policy needs to know.
fn counts_all(cluster: &Cluster) -> bool {
    cluster.hash.as_ref().is_some_and(Hash::is_bounded)
}

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
use tests::test_cluster;
