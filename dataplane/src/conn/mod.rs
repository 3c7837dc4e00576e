//! A conn: one downstream connection, from accept to close. This file is the map: phases, and which file takes an event.
//!
//! `open` lets it in; `preface` reads what stands before its own bytes; `tcp` takes it from there on a tcp listener. On an
//! http one `http1` reads heads and starts exchanges; `upstream` takes what an exchange's link says, `hedge` what one beside it says; `relay` writes responses
//! to the client; `reply` writes our own. `queue` gives places at full clusters to those who wait; `deadline` says what a
//! passed deadline means and `follow` has a new configuration's hold; `close` ends it, and `moving` has it go on in another process.

pub mod brief;
pub mod bulk;
pub mod close;
pub mod deadline;
pub mod follow;
pub mod hedge;
pub mod http1;
pub mod moving;
pub mod open;
pub mod preface;
pub mod queue;
pub mod relay;
pub mod reply;
pub mod room;
pub mod serve;
pub mod tcp;
pub mod upstream;

use crate::buf::{Class, Lease};
use crate::core::Core;
use crate::core::Party;
use crate::deadlines::Deadlines;
use crate::exchange::Exchange;
use crate::fault::CloseReason;
use crate::io::{Completion, Errno, Expect, Io, Kind, Mono, Outcome, SocketAddress};
use crate::proto::http1::Scan;
use crate::spec::{ListenerId, Protocol};
use crate::stream::Stream;
use crate::table::Id;
use crate::tunnel::{self, Fate, Side, Tunnel};
use preface::Preface;

/// Where a conn is in its life. TLS will add `Handshake` between `Open` and `Serving`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Accepted; no byte has come.
    Open,
    /// Something is awaited that must be read before anything else: a PROXY header, a ClientHello to route by.
    Preface,
    /// Between requests, or in one.
    Serving,
    /// Of a tcp listener: an endpoint is being connected to.
    Connecting,
    /// Bytes pass unread.
    Tunnel,
    /// Our last answer is sent; what still comes is read and dropped, so that no reset destroys that answer.
    Lingering,
    /// Everything in flight was asked to end; freed when it has, and the descriptor is closed.
    Closing,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Preface,
        Self::Serving,
        Self::Connecting,
        Self::Tunnel,
        Self::Lingering,
        Self::Closing,
    ];

    /// The transition table.
    pub const fn may_become(self, next: Self) -> bool {
        use Phase::{Closing, Connecting, Lingering, Open, Preface, Serving, Tunnel};
        matches!(
            (self, next),
            (Open, Preface | Serving | Connecting | Lingering | Closing)
                | (Preface, Serving | Connecting | Closing)
                | (Serving, Tunnel | Lingering | Closing)
                | (Connecting, Tunnel | Closing)
                | (Tunnel, Closing)
                | (Lingering, Closing)
        )
    }
}

/// Whether a conn ends at its next boundary, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends(u8);

impl Ends {
    /// Not as far as it is known.
    pub const NOT_YET: Self = Self(0);
    /// It is older than `max_lifetime`.
    pub const EXPIRED: Self = Self(u8::MAX);

    /// Its listener is gone, or listens elsewhere: at the latest it ends when the time of its party is over.
    pub fn with(party: Party) -> Self {
        Self(party.number())
    }
    pub fn leaves(self) -> bool {
        self.party().is_some()
    }
    pub fn party(self) -> Option<Party> {
        Party::new(self.0)
    }
}

/// One downstream connection.
#[derive(Debug)]
pub struct Conn {
    pub stream: Stream,
    phase: Phase,
    /// Of its listener, when it was accepted.
    pub protocol: Protocol,
    /// It holds one of its listener's `max_connections`.
    pub counted: bool,
    /// Whether it ends at the next boundary.
    pub ends: Ends,
    /// Descriptors or places are short: it lingers no longer than a moment.
    pub hurried: bool,
    /// Why it ends; set once.
    pub reason: Option<CloseReason>,
    pub listener: ListenerId,
    /// Received and not yet taken: a partial head, or what was sent ahead.
    pub rx: Option<Lease>,
    pub scan: Scan,
    pub exchange: Option<Id<Exchange>>,
    pub tunnel: Option<Id<Tunnel>>,
    /// The client: who connected, or who the PROXY header says did. Every decision on an address is about this one.
    pub peer: SocketAddress,
    /// Only of a conn whose first bytes are, or were, not its own.
    pub preface: Option<Box<Preface>>,
    pub deadlines: Deadlines,
    pub opened: Mono,
    /// Requests begun, refused heads included.
    pub requests: u32,
    /// Bytes that lingering may still read.
    pub linger_left: u32,
}

const _: () = assert!(size_of::<Conn>() <= 192, "a conn is small: an idle one is little else");

impl Conn {
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Waiting for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Serving) && self.exchange.is_none() && self.rx.is_none()
    }
    /// The one door through which the phase changes (invariant 6).
    pub fn enter(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "a conn may not go from {:?} to {next:?}", self.phase);
        self.phase = next;
    }
}

/// A completion of one of the conn's own operations.
pub fn on_completion(core: &mut Core, io: &mut impl Io, id: Id<Conn>, completion: Completion) {
    match (completion.token.kind(), completion.outcome) {
        (Kind::ConnRecv, outcome) => on_recv(core, io, id, outcome),
        (Kind::ConnSend, Outcome::Sent(n)) => on_sent(core, io, id, n),
        (Kind::ConnSend, Outcome::Ready) => on_writable(core, io, id),
        (Kind::ConnSend, outcome) => on_send_failed(core, io, id, &outcome),
        (Kind::ConnClose, _) => close::on_closed(core, id),
        (kind, outcome) => debug_assert!(false, "{kind:?} {outcome:?} came to a conn"),
    }
}

fn on_recv(core: &mut Core, io: &mut impl Io, id: Id<Conn>, outcome: Outcome) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if !matches!(outcome, Outcome::Failed(_)) {
        conn.deadlines.progress = now.into();
    }
    let (phase, tunnel) = (conn.phase, conn.tunnel);
    if phase == Phase::Tunnel
        && let Some(tunnel) = tunnel
    {
        let fate = match outcome {
            Outcome::Received(lease) => tunnel::on_received(core, io, tunnel, Side::Conn, lease),
            Outcome::Eof => tunnel::on_eof(core, io, tunnel, Side::Conn),
            Outcome::Ready => tunnel::on_readable(core, io, tunnel, Side::Conn),
            outcome => tunnel::on_recv_failed(core, tunnel, Side::Conn, &outcome),
        };
        return on_tunnel_fate(core, io, id, fate);
    }
    match outcome {
        Outcome::Received(lease) => {
            conn.stream.on_received(&lease);
            match phase {
                Phase::Open | Phase::Serving => http1::on_bytes(core, io, id, lease),
                Phase::Preface => preface::on_bytes(core, io, id, lease),
                Phase::Connecting => tcp::hold(core, id, lease),
                Phase::Lingering => close::on_linger_bytes(core, io, id, lease),
                Phase::Closing if conn.reason == Some(CloseReason::Moved) => {
                    conn.rx = Some(lease);
                    close::when_quiet(core, io, id);
                }
                Phase::Tunnel | Phase::Closing => {
                    core.pool.give_back(lease);
                    close::when_quiet(core, io, id);
                }
            }
        }
        Outcome::Eof => {
            conn.stream.on_eof();
            match phase {
                Phase::Open | Phase::Serving => http1::on_eof(core, io, id),
                Phase::Preface => preface::on_eof(core, io, id),
                // Passed on once there is a link to pass it to.
                Phase::Connecting => {}
                Phase::Lingering => close::on_linger_eof(core, io, id),
                Phase::Tunnel | Phase::Closing => close::when_quiet(core, io, id),
            }
        }
        Outcome::Ready => on_ready(core, io, id),
        Outcome::Failed(Errno(libc::ECANCELED))
            if phase != Phase::Closing && conn.stream.park_poll(io, id.token(Kind::ConnRecv)) => {}
        outcome => {
            conn.stream.on_recv_failed();
            if phase == Phase::Closing {
                close::when_quiet(core, io, id);
            } else {
                close::begin(core, io, id, lost(&outcome));
            }
        }
    }
}

/// Why a conn ends that failed under an operation.
fn lost(outcome: &Outcome) -> CloseReason {
    match outcome {
        Outcome::Failed(errno) if errno.is_dead_peer() => CloseReason::DeadPeer,
        _ => CloseReason::ClientReset,
    }
}

/// A poll in the place of a recv ended: of a parked conn, or of one whose body goes by splice.
fn on_ready(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    core.stats.unparks.add(u64::from(conn.stream.is_parked()));
    conn.stream.on_readable();
    if conn.phase == Phase::Closing {
        return close::when_quiet(core, io, id);
    }
    let exchange = conn.exchange;
    match exchange {
        Some(xid) if bulk::up::is_wanted(core, id, xid) => bulk::up::on_readable(core, io, id, xid),
        _ => {
            if let Some(conn) = core.conns.get_mut(id) {
                conn.stream.arm_recv_of(io, Class::Small, Expect::Now, id.token(Kind::ConnRecv));
            }
        }
    }
}

fn on_sent(core: &mut Core, io: &mut impl Io, id: Id<Conn>, n: u32) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.deadlines.progress = now.into();
    match (conn.phase, conn.tunnel) {
        (Phase::Tunnel, Some(tunnel)) => {
            let fate = tunnel::on_sent(core, io, tunnel, Side::Conn, n);
            on_tunnel_fate(core, io, id, fate);
        }
        (phase, _) => {
            conn.stream.on_sent(n, &mut core.pool);
            conn.deadlines.end_write();
            on_took(core, io, id, phase);
        }
    }
}

/// The client made room for what is to be spliced.
fn on_writable(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.deadlines.progress = now.into();
    let phase = conn.phase;
    if let (Phase::Tunnel, Some(tunnel)) = (phase, conn.tunnel) {
        let fate = tunnel::on_writable(core, io, tunnel, Side::Conn);
        return on_tunnel_fate(core, io, id, fate);
    }
    conn.stream.on_writable();
    conn.deadlines.end_write();
    on_took(core, io, id, phase);
}

/// The client took bytes, or can.
fn on_took(core: &mut Core, io: &mut impl Io, id: Id<Conn>, phase: Phase) {
    match phase {
        Phase::Closing => close::when_quiet(core, io, id),
        Phase::Lingering => close::on_linger_sent(core, io, id),
        _ => relay::on_sent(core, io, id),
    }
}

fn on_send_failed(core: &mut Core, io: &mut impl Io, id: Id<Conn>, outcome: &Outcome) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    if let (Phase::Tunnel, Some(tunnel)) = (conn.phase, conn.tunnel) {
        let fate = tunnel::on_send_failed(core, tunnel, Side::Conn, outcome);
        return on_tunnel_fate(core, io, id, fate);
    }
    conn.stream.on_send_failed(&mut core.pool);
    match conn.phase {
        Phase::Closing => close::when_quiet(core, io, id),
        _ => close::begin(core, io, id, lost(outcome)),
    }
}

/// Does what a tunnel's event asked for.
pub fn on_tunnel_fate(core: &mut Core, io: &mut impl Io, id: Id<Conn>, fate: Fate) {
    match fate {
        Fate::Goes => {
            deadline::settle(core, id);
            moving::leave_when_quiet(core, io, id);
        }
        Fate::Ends(reason) => close::begin(core, io, id, reason),
    }
}

/// Sends what is queued on a conn and keeps its send deadline.
pub fn flush(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.stream.flush(io, &core.pool, id.token(Kind::ConnSend));
    if conn.stream.is_sending() {
        let send = core
            .snapshot
            .listener(conn.listener)
            .map_or(crate::limits::SEND_TIMEOUT.default, |l| l.timeouts.send);
        conn.deadlines.begin_write(now, send);
        deadline::settle(core, id);
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
