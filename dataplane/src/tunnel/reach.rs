//! How a tunnel without an exchange comes to its link: endpoints are tried, as for a request, until one is connected to.

use super::Tunnel;
use crate::cluster::balance::Hint;
use crate::cluster::outcome::Outcome;
use crate::cluster::{PickError, Tried};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::{Io, Mono};
use crate::limits;
use crate::link::queue::Waiter;
use crate::link::{self, Owner};
use crate::spec::{ClusterId, EndpointId, RouteId};
use crate::stats::timings::{Phase, Timings};
use crate::table::Id;
use std::num::NonZeroU32;

/// How far the present attempt is.
#[derive(Debug, Clone, Copy)]
enum Progress {
    None,
    /// In the queue of its cluster.
    Waiting(Id<Waiter>),
    /// Since then.
    Connecting(Mono),
    /// That took so many microseconds, and was done so many after the conn's accept.
    Done {
        connect_us: u32,
        at_us: u32,
    },
}

/// The attempts of one tunnel. For its whole life it counts as one running request of the endpoint it reached.
#[derive(Debug)]
pub struct Reach {
    /// None where the listener's own cluster takes what no route does.
    pub route: Option<RouteId>,
    pub cluster: ClusterId,
    /// Of the last attempt.
    pub endpoint: Option<EndpointId>,
    /// `pick` counted a request on `endpoint`, which [`end_request`] gives back.
    running: bool,
    pub attempts: u8,
    tried: Tried,
    /// Why the last attempt failed.
    pub failure: Option<Refusal>,
    /// How long it waited for a place, microseconds, one at least, if it did.
    pub queue_us: Option<NonZeroU32>,
    progress: Progress,
}

impl Reach {
    /// Nothing tried yet.
    pub fn new(route: Option<RouteId>, cluster: ClusterId) -> Self {
        Self {
            route,
            cluster,
            endpoint: None,
            running: false,
            attempts: 0,
            tried: Tried::NONE,
            failure: None,
            queue_us: None,
            progress: Progress::None,
        }
    }
    /// Of a tunnel that came from another process, where its link was reached like this. `running`: its request is counted here.
    pub fn adopted(
        (route, cluster, endpoint): (Option<RouteId>, ClusterId, Option<EndpointId>),
        running: bool,
        reached: Reached,
    ) -> Self {
        let Reached { attempts, queue_us, connect_us, at_us } = reached;
        let progress = Progress::Done { connect_us, at_us };
        Self { endpoint, running, attempts, queue_us, progress, ..Self::new(route, cluster) }
    }
    /// How its link was reached; none before it was.
    pub fn reached(&self) -> Option<Reached> {
        let Progress::Done { connect_us, at_us } = self.progress else { return None };
        Some(Reached { attempts: self.attempts, queue_us: self.queue_us, connect_us, at_us })
    }
    /// A link was connected.
    pub fn is_done(&self) -> bool {
        self.connect_us().is_some()
    }
    /// How long the connect took, microseconds; none before it was made.
    pub fn connect_us(&self) -> Option<u32> {
        if let Progress::Done { connect_us, .. } = self.progress { Some(connect_us) } else { None }
    }
    /// In the queue of its cluster.
    pub fn is_waiting(&self) -> bool {
        matches!(self.progress, Progress::Waiting(_))
    }
    /// Sets the phases that ended by now; the preface is told of already.
    pub fn time(&self, timings: &mut Timings) {
        let queue = self.queue_us.map(|us| u64::from(us.get()));
        if let Some(queue) = queue {
            timings.set(Phase::Queue, queue);
        }
        let Progress::Done { connect_us, at_us } = self.progress else { return };
        let (connect, at) = (u64::from(connect_us), u64::from(at_us));
        timings.set(Phase::Connect, connect);
        if self.attempts > 1 {
            let before = timings.get(Phase::Head).unwrap_or(0) + queue.unwrap_or(0);
            timings.set(Phase::Lost, at.saturating_sub(connect + before));
        }
        timings.set(Phase::Transfer, timings.total_us.saturating_sub(at));
    }
}

/// How a tunnel that is open reached its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub attempts: u8,
    /// As [`Reach::queue_us`].
    pub queue_us: Option<NonZeroU32>,
    /// The connect took so many microseconds.
    pub connect_us: u32,
    /// It was done so many after the conn's accept.
    pub at_us: u32,
}

/// What became of the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// A connect is under way.
    Wait,
    /// Every endpoint that is left is full, or others wait already: [`wait`] for a place.
    Queue,
    /// No endpoint is left to try.
    Fail(Refusal),
}

fn reach_mut(core: &mut Core, id: Id<Tunnel>) -> Option<&mut Reach> {
    core.tunnels.get_mut(id)?.reach.as_mut()
}

/// Connects that may find their endpoint's last place taken by another shard before the tunnel waits.
const LOST_RACES: u32 = 4;

/// Begins the next attempt. The first does not overtake those who wait.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> Step {
    let first = reach_mut(core, id).filter(|reach| reach.attempts == 0).map(|reach| reach.cluster);
    if first.is_some_and(|cluster| link::queue::is_ahead(core, cluster)) {
        return Step::Queue;
    }
    resume(core, io, id)
}

/// Waits for a place, at most as long as the cluster says.
pub fn wait(core: &mut Core, id: Id<Tunnel>) -> Result<(), Refusal> {
    let Some(reach) = reach_mut(core, id) else { return Err(Refusal::NoEndpoint) };
    let (cluster, eager, failure) = (reach.cluster, reach.tried.is_empty(), reach.failure);
    let Some(spec) = core.snapshot.cluster(cluster) else { return Err(Refusal::NoEndpoint) };
    let timeout = spec.timeouts.queue;
    match link::queue::join(core, Owner::Tunnel(id), cluster, eager, timeout) {
        Ok(waiter) => {
            if let Some(reach) = reach_mut(core, id) {
                reach.progress = Progress::Waiting(waiter);
            }
            Ok(())
        }
        Err(Refusal::EndpointsFull) => Err(failure.unwrap_or(Refusal::EndpointsFull)),
        Err(refusal) => Err(refusal),
    }
}

/// No longer waits for a place, if it did.
pub fn end_wait(core: &mut Core, id: Id<Tunnel>) {
    let Some(reach) = reach_mut(core, id) else { return };
    let Progress::Waiting(waiter) = reach.progress else { return };
    reach.progress = Progress::None;
    let waited = link::queue::leave(core, waiter);
    if let Some(reach) = reach_mut(core, id) {
        let before = reach.queue_us.map_or(0, |us| u64::from(us.get()));
        let us = u32::try_from(before + waited).unwrap_or(u32::MAX);
        reach.queue_us = Some(NonZeroU32::new(us).unwrap_or(NonZeroU32::MIN));
    }
}

/// Whether it has failed at no endpoint, so that any place would serve it.
pub fn is_eager(core: &mut Core, id: Id<Tunnel>) -> bool {
    reach_mut(core, id).is_none_or(|reach| reach.tried.is_empty())
}

/// As [`start`], for one that waits and whose turn it is. [`Step::Queue`] says that it waits on.
pub fn resume(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> Step {
    let mut lost_races = 0;
    let (now, who) = (core.now(), Owner::Tunnel(id).number());
    let conn = core.tunnels.get(id).and_then(|tunnel| core.conns.get(tunnel.conn));
    let source = conn.and_then(|conn| conn.peer.ip());
    loop {
        let Some(reach) = reach_mut(core, id) else { return Step::Fail(Refusal::NoEndpoint) };
        let (cluster, tried, failure) = (reach.cluster, reach.tried, reach.failure);
        if u32::from(reach.attempts) >= limits::CONNECT_ATTEMPTS {
            return Step::Fail(failure.unwrap_or(Refusal::ConnectFailed));
        }
        let Some(runtime) = core.cluster_mut(cluster) else { return Step::Fail(Refusal::NoEndpoint) };
        let timeout = runtime.state.spec().timeouts.connect;
        let hint = Hint { now, who, ..Hint::of_source(runtime.state.spec(), source) };
        let endpoint = match runtime.state.pick(&tried, hint) {
            Ok(endpoint) => endpoint,
            Err(PickError::Full) => return Step::Queue,
            Err(PickError::NoEndpoint) => return Step::Fail(failure.unwrap_or(Refusal::NoEndpoint)),
            Err(PickError::CircuitOpen) => return Step::Fail(failure.unwrap_or(Refusal::CircuitOpen)),
        };
        let begun = link::connect::begin(core, io, (cluster, endpoint), Owner::Tunnel(id), timeout);
        if begun == Err(Refusal::EndpointsFull) {
            link::report(core, Owner::Tunnel(id), (cluster, endpoint), Outcome::Unknown);
            give_back(core, cluster, Some(endpoint));
            lost_races += 1;
            // A link that waits idle for a request is of no use to a tunnel, and holds a place.
            if link::pool::close_oldest_to(core, io, cluster, endpoint) || lost_races == LOST_RACES {
                return Step::Queue;
            }
            continue;
        }
        let Some(tunnel) = core.tunnels.get_mut(id) else { return Step::Fail(Refusal::NoEndpoint) };
        let Some(reach) = &mut tunnel.reach else { return Step::Fail(Refusal::NoEndpoint) };
        reach.attempts += 1;
        reach.endpoint = Some(endpoint);
        reach.running = true;
        match begun {
            Ok(link) => {
                tunnel.link = Some(link);
                end_wait(core, id);
                if let Some(reach) = reach_mut(core, id) {
                    reach.progress = Progress::Connecting(now);
                }
                return Step::Wait;
            }
            Err(refusal) => {
                fail(core, id, refusal);
                if matches!(refusal, Refusal::DescriptorsExhausted | Refusal::MemoryExhausted) {
                    core.lacks_descriptors = true;
                }
            }
        }
    }
}

/// The connect was made. Its deadline is over; those of the tunnel begin with [`super::start`].
pub fn on_connected(core: &mut Core, id: Id<Tunnel>) {
    let now = core.now();
    // However the tunnel ends one day, the endpoint was there.
    report(core, id, Outcome::CONNECTED);
    let Core { tunnels, conns, links, wheel, clusters, .. } = core;
    let Some(tunnel) = tunnels.get_mut(id) else { return };
    let opened = conns.get(tunnel.conn).map_or(now, |conn| conn.opened);
    if let Some(reach) = &mut tunnel.reach
        && let Progress::Connecting(since) = reach.progress
    {
        let us = |moment: Mono| moment.since(opened) / 1000;
        let narrow = |us: u64| u32::try_from(us).unwrap_or(u32::MAX);
        reach.progress = Progress::Done { connect_us: narrow(us(now) - us(since)), at_us: narrow(us(now)) };
        if let (Some(Some(runtime)), Some(endpoint)) =
            (clusters.get_mut(usize::from(reach.cluster.0)), reach.endpoint)
        {
            runtime.state.observe(endpoint, now.since(since), now);
        }
    }
    if let Some(link) = tunnel.link.and_then(|l| links.get_mut(l)) {
        // The tunnel's one timer is its conn's.
        link.deadlines.cancel(wheel);
    }
}

/// The connect failed, or took too long: the next endpoint, while there is one.
pub fn on_lost(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, refusal: Refusal) -> Step {
    if let Some(link) = core.tunnels.get_mut(id).and_then(|t| t.link.take()) {
        link::close(core, io, link);
    }
    fail(core, id, refusal);
    if reach_mut(core, id).is_some_and(|reach| u32::from(reach.attempts) < limits::CONNECT_ATTEMPTS) {
        core.stats.retries.add(1);
    }
    start(core, io, id)
}

/// How the present attempt went.
fn report(core: &mut Core, id: Id<Tunnel>, outcome: Outcome) {
    let Some(reach) = reach_mut(core, id) else { return };
    if let (Some(endpoint), true) = (reach.endpoint, reach.running) {
        let at = (reach.cluster, endpoint);
        link::report(core, Owner::Tunnel(id), at, outcome);
    }
}

/// The attempt at its endpoint is over.
fn fail(core: &mut Core, id: Id<Tunnel>, refusal: Refusal) {
    report(core, id, refusal.into());
    let Some(reach) = reach_mut(core, id) else { return };
    reach.failure = Some(refusal);
    if let Some(endpoint) = reach.endpoint {
        reach.tried.add(endpoint);
    }
    let running = std::mem::take(&mut reach.running);
    let (cluster, endpoint) = (reach.cluster, reach.endpoint);
    give_back(core, cluster, endpoint.filter(|_| running));
}

/// Gives the running request of a tunnel that is over back, if it holds one.
pub(super) fn end_request(core: &mut Core, id: Id<Tunnel>, reach: &Reach) {
    if let (Some(endpoint), true, false) = (reach.endpoint, reach.running, reach.is_done()) {
        // Its client left before the connect was made.
        link::report(core, Owner::Tunnel(id), (reach.cluster, endpoint), Outcome::Unknown);
    }
    give_back(core, reach.cluster, reach.endpoint.filter(|_| reach.running));
}

fn give_back(core: &mut Core, cluster: ClusterId, endpoint: Option<EndpointId>) {
    if let Some(endpoint) = endpoint {
        link::queue::end_request(core, cluster, endpoint);
    }
}
