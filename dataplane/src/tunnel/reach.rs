//! How a tunnel without an exchange comes to its link: endpoints are tried, as for a request, until one is connected to.

use super::Tunnel;
use crate::cluster::balance::Hint;
use crate::cluster::{PickError, Tried};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::{Io, Mono};
use crate::limits;
use crate::link::{self, Owner};
use crate::spec::{ClusterId, EndpointId};
use crate::table::Id;

/// The attempts of one tunnel. For its whole life it counts as one running request of the endpoint it reached.
#[derive(Debug)]
pub struct Reach {
    pub cluster: ClusterId,
    /// Of the last attempt.
    pub endpoint: Option<EndpointId>,
    /// `pick` counted a request on `endpoint`, which [`end_request`] gives back.
    running: bool,
    pub attempts: u8,
    tried: Tried,
    /// Why the last attempt failed.
    pub failure: Option<Refusal>,
    /// When the last connect was begun.
    since: Mono,
    /// How long it took, microseconds; none before it was made.
    pub connect_us: Option<u32>,
}

impl Reach {
    /// Nothing tried yet.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            endpoint: None,
            running: false,
            attempts: 0,
            tried: Tried::NONE,
            failure: None,
            since: Mono(0),
            connect_us: None,
        }
    }
    /// A link was connected.
    pub fn is_done(&self) -> bool {
        self.connect_us.is_some()
    }
}

/// What became of the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// A connect is under way.
    Wait,
    /// No endpoint is left to try.
    Fail(Refusal),
}

fn reach_mut(core: &mut Core, id: Id<Tunnel>) -> Option<&mut Reach> {
    core.tunnels.get_mut(id)?.reach.as_mut()
}

/// Begins the next attempt.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> Step {
    loop {
        let Some(reach) = reach_mut(core, id) else { return Step::Fail(Refusal::NoEndpoint) };
        let (cluster, tried, failure) = (reach.cluster, reach.tried, reach.failure);
        if u32::from(reach.attempts) >= limits::CONNECT_ATTEMPTS {
            return Step::Fail(failure.unwrap_or(Refusal::ConnectFailed));
        }
        let Some(runtime) = core.cluster_mut(cluster) else { return Step::Fail(Refusal::NoEndpoint) };
        let timeout = runtime.state.spec().timeouts.connect;
        let endpoint = match runtime.state.pick(&tried, Hint::default()) {
            Ok(endpoint) => endpoint,
            // Where a queue stands in front of a full endpoint, this is where a tunnel joins it.
            Err(PickError::Full) => return Step::Fail(failure.unwrap_or(Refusal::EndpointsFull)),
            Err(PickError::NoEndpoint) => return Step::Fail(failure.unwrap_or(Refusal::NoEndpoint)),
        };
        let now = core.now();
        let begun = link::connect::begin(core, io, (cluster, endpoint), Owner::Tunnel(id), timeout);
        let Some(tunnel) = core.tunnels.get_mut(id) else { return Step::Fail(Refusal::NoEndpoint) };
        let Some(reach) = &mut tunnel.reach else { return Step::Fail(Refusal::NoEndpoint) };
        reach.attempts += 1;
        reach.endpoint = Some(endpoint);
        reach.running = true;
        match begun {
            Ok(link) => {
                tunnel.link = Some(link);
                reach.since = now;
                return Step::Wait;
            }
            Err(refusal) => {
                fail(core, id, refusal);
                if refusal == Refusal::DescriptorsExhausted {
                    link::pool::close_some(core, io);
                }
            }
        }
    }
}

/// The connect was made. Its deadline is over; those of the tunnel begin with [`super::start`].
pub fn on_connected(core: &mut Core, id: Id<Tunnel>) {
    let now = core.now();
    let Core { tunnels, links, wheel, .. } = core;
    let Some(tunnel) = tunnels.get_mut(id) else { return };
    if let Some(reach) = &mut tunnel.reach {
        reach.connect_us = Some(u32::try_from(now.since(reach.since) / 1000).unwrap_or(u32::MAX));
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

/// The attempt at its endpoint is over.
fn fail(core: &mut Core, id: Id<Tunnel>, refusal: Refusal) {
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
pub(super) fn end_request(core: &mut Core, reach: &Reach) {
    give_back(core, reach.cluster, reach.endpoint.filter(|_| reach.running));
}

fn give_back(core: &mut Core, cluster: ClusterId, endpoint: Option<EndpointId>) {
    if let Some(endpoint) = endpoint
        && let Some(runtime) = core.cluster_mut(cluster)
    {
        runtime.state.end_request(endpoint);
    }
}
