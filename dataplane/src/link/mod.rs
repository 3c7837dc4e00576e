//! A link: one upstream connection, from connect through leases to close. It owns its descriptor and outlives the conn.
//!
//! `connect` reaches an endpoint; `announce` says whom the link is for; `pool` is where links wait idle, `queue` where others
//! wait for a place at a full cluster. Links know endpoints and nothing of HTTP.

pub mod announce;
pub mod connect;
pub mod pool;
pub mod queue;

use crate::buf::Class;
use crate::cluster::exhausted::{Pair, SourceId};
use crate::cluster::outcome::Outcome;
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::exchange::Exchange;
use crate::io::{Expect, Io, Kind, Mono, SocketAddress};
use crate::limits;
use crate::spec::{ClusterId, EndpointId};
use crate::stream::Stream;
use crate::table::Id;
use crate::tunnel::Tunnel;
use std::time::Duration;

/// Where a link is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the endpoint to accept; an exchange, or a tunnel to be, waits with it.
    Connecting,
    /// Out on loan to an exchange.
    Leased,
    /// Waiting for the next exchange, with its recv armed so that a FIN is noticed (invariant 19).
    Idle,
    /// One side of a tunnel.
    Tunnel,
    /// Everything in flight was asked to end; freed when it has, and the descriptor is closed.
    Closing,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Connecting, Self::Leased, Self::Idle, Self::Tunnel, Self::Closing];

    /// The transition table.
    pub const fn may_become(self, next: Self) -> bool {
        use Phase::{Closing, Connecting, Idle, Leased, Tunnel};
        matches!(
            (self, next),
            (Connecting, Leased | Tunnel | Closing)
                | (Leased, Idle | Tunnel | Closing)
                | (Idle, Leased | Closing)
                | (Tunnel, Closing)
        )
    }
}

/// Whose a link is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    None,
    Exchange(Id<Exchange>),
    /// It is beside the one that the exchange has (`exchange::beside`).
    Beside(Id<Exchange>),
    Tunnel(Id<Tunnel>),
}

impl Owner {
    /// A number that no other owner has at the same time: who a pick and its report are of.
    pub fn number(self) -> u64 {
        const TUNNEL_BIT: u64 = 1 << 63;
        let number = |slot: u32, generation: u32| u64::from(generation) << 32 | u64::from(slot);
        match self {
            Self::None => 0,
            // A generation has 24 bits and is never 0.
            // Of the two attempts of one exchange each has an endpoint of its own.
            Self::Exchange(id) | Self::Beside(id) => number(id.slot(), id.generation()),
            Self::Tunnel(id) => number(id.slot(), id.generation()) | TUNNEL_BIT,
        }
    }
}

#[derive(Debug)]
pub struct Link {
    pub stream: Stream,
    phase: Phase,
    pub cluster: ClusterId,
    pub endpoint: EndpointId,
    pub owner: Owner,
    pub deadlines: Deadlines,
    /// Its local address, once connected; for the log.
    pub local: Option<SocketAddress>,
    /// Where it connects from.
    source: SourceId,
    /// Searches for a free port that it has left, the present one included, the last of them through the whole range; 0
    /// where the kernel searches as it likes.
    windows: u8,
    /// Exchanges begun on this link.
    pub requests: u32,
    /// The kernel took bytes since the link was last leased.
    pub wrote: bool,
    /// It began with the PROXY header of one client.
    pub private: bool,
    /// Neighbours in the idle list of its endpoint.
    newer: Option<Id<Self>>,
    older: Option<Id<Self>>,
}

const _: () = assert!(size_of::<Link>() <= 160, "a link is small: there are as many as conns");

impl Link {
    /// One side of a tunnel that came from another process, as `local`.
    pub fn adopted(
        stream: Stream,
        (cluster, endpoint): (ClusterId, EndpointId),
        tunnel: Id<Tunnel>,
        local: Option<SocketAddress>,
    ) -> Self {
        Self {
            stream,
            phase: Phase::Tunnel,
            cluster,
            endpoint,
            owner: Owner::Tunnel(tunnel),
            deadlines: Deadlines::default(),
            local,
            source: SourceId::KERNEL,
            windows: 0,
            requests: 1,
            wrote: true,
            private: false,
            newer: None,
            older: None,
        }
    }
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Between which addresses it holds a local port.
    fn pair(&self) -> Pair {
        Pair { cluster: self.cluster, endpoint: self.endpoint, source: self.source }
    }
    /// The one door through which the phase changes (invariant 6).
    pub fn enter(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "a link may not go from {:?} to {next:?}", self.phase);
        self.phase = next;
    }
}

/// How long the endpoint may take nothing: the exchange's word, which a route may have set, or the cluster's.
pub fn send_timeout(core: &Core, link: &Link) -> Duration {
    let exchange = match link.owner {
        Owner::Exchange(x) | Owner::Beside(x) => core.exchanges.get(x),
        Owner::None | Owner::Tunnel(_) => None,
    };
    exchange
        .and_then(|x| x.timeouts)
        .or_else(|| core.snapshot.cluster(link.cluster).map(|c| c.timeouts))
        .map_or(limits::SEND_TIMEOUT.default, |timeouts| timeouts.send)
}

/// Sends what is queued on a link and keeps its send deadline.
pub fn flush(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let Some(link) = core.links.get_mut(id) else { return };
    link.stream.flush(io, &core.pool, id.token(Kind::LinkSend));
    if !link.stream.is_sending() {
        return link.deadlines.end_write();
    }
    let now = core.now();
    let Some(send) = core.links.get(id).map(|l| send_timeout(core, l)) else { return };
    if let Some(link) = core.links.get_mut(id) {
        link.deadlines.begin_write(now, send);
    }
    settle(core, id);
}

/// Arms the link's recv unless it is armed.
pub fn arm_recv(core: &mut Core, io: &mut impl Io, id: Id<Link>, expect: Expect) {
    if let Some(link) = core.links.get_mut(id) {
        link.stream.arm_recv(io, expect, id.token(Kind::LinkRecv));
    }
}

/// As [`arm_recv`], for bytes that will join others: a small buffer, so that both together fit the largest.
pub fn arm_small_recv(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    if let Some(link) = core.links.get_mut(id) {
        link.stream.arm_recv_of(io, Class::Small, Expect::Later, id.token(Kind::LinkRecv));
    }
}

/// Puts the link's deadlines into the wheel.
pub fn settle(core: &mut Core, id: Id<Link>) {
    settle_also(core, id, Mono::MAX);
}

/// As [`settle`], with the time of its exchange's hedge. Once told, the wheel keeps the earliest until it fires.
pub fn settle_also(core: &mut Core, id: Id<Link>, hedge_by: Mono) {
    if let Some(link) = core.links.get_mut(id) {
        link.deadlines.settle(&mut core.wheel, id.token(Kind::LinkTimer), hedge_by);
    }
}

/// How the attempt went that `owner` picked an endpoint for: told once for each pick.
pub fn report(core: &mut Core, owner: Owner, at: (ClusterId, EndpointId), outcome: Outcome) {
    let now = core.now();
    if let Some(runtime) = core.cluster_mut(at.0) {
        runtime.state.report(at.1, owner.number(), outcome, now);
    }
}

/// Begins the end of a link, from any phase: asks for the end of what is in flight, then closes, then frees.
pub fn close(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let Some(link) = core.links.get_mut(id) else { return };
    if link.phase == Phase::Closing {
        return;
    }
    if link.phase == Phase::Idle {
        pool::unlist(core, id);
    }
    let Some(link) = core.links.get_mut(id) else { return };
    link.enter(Phase::Closing);
    link.owner = Owner::None;
    link.deadlines.cancel(&mut core.wheel);
    link.stream.discard_queue(&mut core.pool);
    link.stream.cancel(io, id.token(Kind::LinkRecv), id.token(Kind::LinkSend), id.token(Kind::LinkConnect));
    close_when_quiet(core, io, id);
}

/// Closes the descriptor of a closing link once nothing is in flight on it.
pub fn close_when_quiet(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let Some(link) = core.links.get_mut(id) else { return };
    if link.phase == Phase::Closing && link.stream.is_quiet() {
        link.stream.discard_queue(&mut core.pool);
        link.stream.close(io, id.token(Kind::LinkClose));
        // Operations run in the order they are submitted: a connect after this finds the port free, if the endpoint ended
        // first; else it waits in TIME_WAIT (RFC 9293 3.6).
        if link.stream.is_eof() {
            core.exhausted.freed(link.pair(), core.clock.mono);
        }
    }
}

/// The descriptor is closed: the slot is free again, and only now the place at the endpoint, which another shard may take
/// at once.
pub fn on_closed(core: &mut Core, id: Id<Link>) {
    if let Some(mut link) = core.links.remove(id) {
        link.stream.on_closed();
        queue::close_link(core, link.cluster, link.endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_reaches_closing() {
        for phase in Phase::ALL {
            assert!(phase == Phase::Closing || phase.may_become(Phase::Closing), "{phase:?}");
            assert!(!Phase::Closing.may_become(phase));
        }
    }
}
