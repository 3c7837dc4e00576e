//! Conns that move to another process, between two requests or as tunnels: what the kernel has in flight is taken back, what it
//! received meanwhile is kept, and the sockets go on there.

use super::preface::Preface;
use super::{Conn, Ends, Phase, close, deadline, http1, on_tunnel_fate};
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::CloseReason;
use crate::io::{Expect, Fd, Io, Kind, Mono, SocketAddress, SocketOption};
use crate::limits;
use crate::spec::{Listener, ListenerId, Protocol};
use crate::stream::Stream;
use crate::table::Id;
use crate::tunnel::moving::{self as tunnels, MovedTunnel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::time::Duration;

/// A conn without a process: all that the next one has to know of it. `S` is how the bearer holds descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved<S = Fd> {
    /// The client's.
    pub socket: S,
    pub listener: ListenerId,
    /// The client: who connected, or who the PROXY header said did.
    pub peer: SocketAddress,
    /// What the PROXY header said besides, as [`Preface`] has it: the destination, and TLVs.
    pub announced: Option<(SocketAddress, Box<[u8]>)>,
    /// Since it was accepted.
    pub age: Duration,
    /// Requests so far.
    pub requests: u32,
    /// For how long it may still be without a request; none where that does not count.
    pub wait_left: Option<Duration>,
    /// Received, and nobody's request yet.
    pub bytes: Vec<u8>,
    /// Of one whose bytes pass unread.
    pub tunnel: Option<Box<MovedTunnel<S>>>,
}

impl<S> Moved<S> {
    /// The same with descriptors held otherwise: the client's, then those of [`MovedTunnel::map`].
    pub fn map<T>(self, mut f: impl FnMut(S) -> T) -> Moved<T> {
        let Self { socket, listener, peer, announced, age, requests, wait_left, bytes, tunnel } = self;
        let socket = f(socket);
        let tunnel = tunnel.map(|tunnel| Box::new(tunnel.map(f)));
        Moved { socket, listener, peer, announced, age, requests, wait_left, bytes, tunnel }
    }
}

/// What shards, the bearer and control know of conns that move: how many are on their way, and whether more may be.
#[derive(Debug, Default)]
pub struct Transit {
    began: AtomicU64,
    done: AtomicU64,
    /// Shards that have looked at all of theirs.
    walked: AtomicU64,
    closed: AtomicBool,
}

impl Transit {
    /// Counts one more in, unless no more may begin.
    fn begin(&self) -> bool {
        // In this order: who closes, and then finds that all are done, has not missed one.
        self.began.fetch_add(1, Ordering::SeqCst);
        let may = !self.closed.load(Ordering::SeqCst);
        if !may {
            self.end();
        }
        may
    }
    /// One is where it goes, or will not go.
    pub fn end(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }
    fn is_full(&self) -> bool {
        let done = self.done.load(Ordering::SeqCst);
        self.began.load(Ordering::SeqCst).saturating_sub(done) >= limits::MOVES_AT_ONCE
    }
    /// How many have come to an end.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }
    /// Whether so many shards have looked at all of their conns once.
    pub fn is_walked(&self, shards: usize) -> bool {
        self.walked.load(Ordering::SeqCst) >= shards as u64
    }
    /// No more conns begin to move.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
    /// No more come, and none is on its way.
    pub fn is_over(&self) -> bool {
        self.is_closed() && self.done() == self.began.load(Ordering::SeqCst)
    }
}

/// Conns of this shard move.
#[derive(Debug)]
pub struct Moving {
    to: Sender<Moved>,
    transit: Arc<Transit>,
    /// By number: whether conns of that listener do. The others' listener is not there in the next process.
    listeners: Box<[bool]>,
    /// The first slot that was not looked at yet.
    slot: u32,
    walked: bool,
}

impl Moving {
    pub fn new(to: Sender<Moved>, transit: Arc<Transit>, listeners: Box<[bool]>) -> Self {
        Self { to, transit, listeners, slot: 0, walked: false }
    }
    fn takes(&self, listener: ListenerId) -> bool {
        self.listeners.get(usize::from(listener.0)).is_some_and(|takes| *takes)
    }
    /// Whether the conn of that slot may begin. Where too many are on their way it is looked at once more.
    fn may_begin(&mut self, slot: u32) -> bool {
        let full = self.transit.is_full();
        if full {
            self.slot = self.slot.min(slot);
        }
        !full && self.transit.begin()
    }
    /// One that began to move will not.
    pub fn gave_up(&self) {
        self.transit.end();
    }
}

/// After each turn: looks at some of those that wait already. The others move when they come to wait.
pub fn walk(core: &mut Core, io: &mut impl Io) {
    for _ in 0..limits::MOVE_SLOTS {
        let slots = core.conns.slots();
        let Some(moving) = &mut core.moving else { return };
        if moving.slot >= slots {
            if !std::mem::replace(&mut moving.walked, true) {
                moving.transit.walked.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        if moving.transit.is_full() {
            return;
        }
        let slot = moving.slot;
        moving.slot += 1;
        if let Some(id) = core.conns.id_at(slot) {
            begin(core, io, id);
        }
    }
}

/// When a walk goes on; `Mono::MAX` where it has nothing to look at.
pub fn due(core: &Core) -> Mono {
    match &core.moving {
        Some(moving) if moving.slot < core.conns.slots() && !moving.transit.is_closed() => {
            if moving.transit.is_full() { core.clock.mono.after(limits::MOVE_LOOK) } else { Mono(0) }
        }
        Some(moving) if !moving.walked => Mono(0),
        _ => Mono::MAX,
    }
}

/// Whether nothing of a request has come, nothing is owed to the client, and what is known of it fits into a [`Moved`].
fn may_move(conn: &Conn) -> bool {
    matches!(conn.phase(), Phase::Open | Phase::Serving)
        && conn.protocol == Protocol::Http
        && conn.exchange.is_none()
        && conn.rx.is_none()
        && conn.counted
        && conn.ends == Ends::NOT_YET
        && conn.stream.is_drained()
        && !conn.stream.is_finished()
        && !conn.stream.is_eof()
}

/// Has the conn leave for the other process, if conns move and this one may. True if it does.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Conn>) -> bool {
    let Core { conns, tunnels, links, moving: Some(moving), .. } = core else { return false };
    let Some(conn) = conns.get_mut(id).filter(|conn| moving.takes(conn.listener)) else { return false };
    if let (Phase::Tunnel, Ends::NOT_YET, Some(tunnel)) = (conn.phase(), conn.ends, conn.tunnel) {
        let moves = tunnels::may_move(tunnels, links, tunnel) && moving.may_begin(id.slot());
        if moves {
            tunnels::begin(core, io, tunnel);
            leave_when_quiet(core, io, id);
        }
        return moves;
    }
    if !may_move(conn) || !moving.may_begin(id.slot()) {
        return false;
    }
    conn.reason = Some(CloseReason::Moved);
    conn.enter(Phase::Closing);
    conn.stream.take_back(io, id.token(Kind::ConnRecv));
    conn.stream.cancel(io, id.token(Kind::ConnRecv), id.token(Kind::ConnSend), id.token(Kind::ConnRecv));
    close::when_quiet(core, io, id);
    true
}

/// A tunnel that moves leaves once nothing of it is in flight.
pub(super) fn leave_when_quiet(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    if core.moving.is_none() {
        return;
    }
    let Some(tunnel) = core.conns.get(id).and_then(|conn| conn.tunnel) else { return };
    if tunnels::is_ready(core, tunnel) {
        let moved = tunnels::leave(core, io, tunnel);
        let Some(conn) = core.conns.get_mut(id) else { return };
        conn.tunnel = None;
        conn.reason = Some(CloseReason::Moved);
        conn.enter(Phase::Closing);
        go(core, io, id, moved.map(Box::new));
    }
}

/// Nothing of a moving conn is in flight any more: its socket leaves this process.
pub(super) fn leave(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    go(core, io, id, None);
}

fn go(core: &mut Core, io: &mut impl Io, id: Id<Conn>, tunnel: Option<Box<MovedTunnel>>) {
    let now = core.clock.mono;
    let Core { conns, pool, moving, wheel, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    let read_by = conn.deadlines.read_by;
    conn.deadlines.cancel(wheel);
    let rx = conn.rx.take();
    let mut bytes = rx.as_ref().map(|lease| pool.bytes(lease).to_vec()).unwrap_or_default();
    rx.into_iter().for_each(|lease| pool.give_back(lease));
    if tunnel.is_none() {
        bytes.append(&mut io.take_ahead(conn.stream.fd, pool));
    }
    let moved = Moved {
        socket: conn.stream.fd,
        listener: conn.listener,
        peer: conn.peer,
        announced: conn.preface.take().and_then(|preface| Some((preface.destination?, preface.tlvs))),
        age: Duration::from_nanos(now.since(conn.opened)),
        requests: conn.requests,
        wait_left: (read_by != Mono::MAX).then(|| Duration::from_nanos(read_by.since(now))),
        bytes,
        tunnel,
    };
    let back = match moving {
        Some(moving) => moving.to.send(moved).err().map(|SendError(moved)| moved),
        None => Some(moved),
    };
    match back {
        None => close::gone(core, id),
        // Nobody takes it.
        Some(moved) => {
            conn.reason = Some(CloseReason::DrainCut);
            moving.iter().for_each(Moving::gave_up);
            if let Some(tunnel) = moved.tunnel {
                // Where the option cannot be set the socket is gone already.
                let _ = io.set_option(conn.stream.fd, SocketOption::ResetOnClose);
                tunnels::discard(io, *tunnel);
            }
            conn.stream.close(io, id.token(Kind::ConnClose));
        }
    }
}

/// A conn comes from the process before this one, or did not get to the next, and is counted into this shard's load. What is
/// established is not closed for a limit of its listener; where that is to drain, so is the conn.
pub fn adopt(core: &mut Core, io: &mut impl Io, moved: Moved) {
    let now = core.now();
    let spec = core.snapshot.listener(moved.listener);
    let shared = core.shared.listeners.get(usize::from(moved.listener.0)).and_then(Option::as_ref);
    let may = |spec: &Listener| moved.tunnel.is_some() || spec.protocol == Protocol::Http;
    let Some((spec, shared)) = spec.zip(shared).filter(|(spec, _)| may(spec)) else {
        return discard(core, io, moved);
    };
    let leaves = spec.is_gone() || core.drains.of(moved.listener).is_some();
    shared.try_open(u32::MAX);
    let (within, phase) = match (&moved.tunnel, moved.requests, &moved.announced) {
        (Some(_), _, _) => (Duration::MAX, Phase::Tunnel),
        (None, 0, None) => (spec.timeouts.request_header, Phase::Open),
        (None, _, _) => (spec.timeouts.idle, Phase::Serving),
    };
    let within = moved.wait_left.map_or(within, |left| left.min(within));
    let tunnel = moved.tunnel.as_deref();
    let is_tcp = tunnel.is_some_and(|tunnel| tunnel.reached.is_some());
    let conn = Conn {
        stream: Stream::adopted(moved.socket, tunnel.is_some_and(|tunnel| tunnel.sides[0].eof)),
        phase,
        protocol: if is_tcp { Protocol::Tcp } else { Protocol::Http },
        counted: true,
        ends: Ends::NOT_YET,
        hurried: false,
        reason: None,
        listener: moved.listener,
        rx: None,
        scan: Default::default(),
        exchange: None,
        tunnel: None,
        peer: moved.peer,
        preface: Preface::adopted(moved.announced.clone(), tunnel),
        deadlines: Deadlines::reading_by(now, now.after(within)),
        opened: Mono(now.0.saturating_sub(u64::try_from(moved.age.as_nanos()).unwrap_or(u64::MAX))),
        requests: moved.requests,
        linger_left: 0,
    };
    let Ok(id) = core.conns.insert(conn) else {
        shared.close();
        return discard(core, io, moved);
    };
    if leaves {
        let party = core.party(moved.listener);
        core.conns.get_mut(id).into_iter().for_each(|conn| conn.ends = Ends::with(party));
    }
    if let Some(listener) = core.of_listener(moved.listener) {
        listener.connections.add(1);
    }
    core.stats.adopted.add(1);
    core.stats.conns_open.set(u64::from(core.conns.len()));
    go_on(core, io, id, moved);
    // Perhaps another upgrade is under way already.
    begin(core, io, id);
}

/// What was under way with it goes on.
fn go_on(core: &mut Core, io: &mut impl Io, id: Id<Conn>, moved: Moved) {
    if let Some(tunnel) = moved.tunnel {
        let fate = tunnels::adopt(core, io, id, *tunnel);
        return on_tunnel_fate(core, io, id, fate);
    }
    if !moved.bytes.is_empty() {
        return match core.pool.take_copy(&moved.bytes) {
            Some(lease) => http1::on_bytes(core, io, id, lease),
            None => close::begin(core, io, id, CloseReason::Evicted),
        };
    }
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.stream.arm_recv(io, Expect::Later, id.token(Kind::ConnRecv));
    if conn.ends.leaves() || core.draining {
        deadline::on_last_chance(core, id);
    }
    deadline::settle(core, id);
}

/// Closes what gets no conn here.
fn discard(core: &Core, io: &mut impl Io, moved: Moved) {
    core.stats.close(CloseReason::Evicted).add(1);
    core.shared.loads.close(core.shard);
    if let Some(tunnel) = moved.tunnel {
        // Where the option cannot be set the socket is gone already.
        let _ = io.set_option(moved.socket, SocketOption::ResetOnClose);
        tunnels::discard(io, *tunnel);
    }
    io.discard(moved.socket);
}
