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
    /// Since it was accepted.
    pub age: Duration,
    /// Requests so far.
    pub requests: u32,
    /// Received, and nobody's request yet.
    pub bytes: Vec<u8>,
    /// Of one whose bytes pass unread.
    pub tunnel: Option<Box<MovedTunnel<S>>>,
}

impl<S> Moved<S> {
    /// The same with descriptors held otherwise: the client's, then those of [`MovedTunnel::map`].
    pub fn map<T>(self, mut f: impl FnMut(S) -> T) -> Moved<T> {
        let Self { socket, listener, peer, age, requests, bytes, tunnel } = self;
        let socket = f(socket);
        let tunnel = tunnel.map(|tunnel| Box::new(tunnel.map(f)));
        Moved { socket, listener, peer, age, requests, bytes, tunnel }
    }
}

/// Conns of this shard move.
#[derive(Debug)]
pub struct Moving {
    to: Sender<Moved>,
    /// By number: whether conns of that listener do. The others' listener is not there in the next process.
    listeners: Box<[bool]>,
    /// The first slot that was not looked at yet.
    slot: u32,
}

impl Moving {
    pub fn new(to: Sender<Moved>, listeners: Box<[bool]>) -> Self {
        Self { to, listeners, slot: 0 }
    }
    fn takes(&self, listener: ListenerId) -> bool {
        self.listeners.get(usize::from(listener.0)).is_some_and(|takes| *takes)
    }
}

/// After each turn: looks at some of those that wait already. The others move when they come to wait.
pub fn walk(core: &mut Core, io: &mut impl Io) {
    for _ in 0..limits::DRAIN_SLOTS {
        let slots = core.conns.slots();
        let Some(moving) = core.moving.as_mut().filter(|moving| moving.slot < slots) else { return };
        let slot = moving.slot;
        moving.slot += 1;
        if let Some(id) = core.conns.id_at(slot) {
            begin(core, io, id);
        }
    }
}

/// Whether a walk has slots to look at.
pub fn is_walking(core: &Core) -> bool {
    core.moving.as_ref().is_some_and(|moving| moving.slot < core.conns.slots())
}

/// Whether nothing of a request has come, nothing is owed to the client, and what is known of it fits into a [`Moved`].
fn may_move(conn: &Conn) -> bool {
    matches!(conn.phase(), Phase::Open | Phase::Serving)
        && conn.protocol == Protocol::Http
        && conn.exchange.is_none()
        && conn.rx.is_none()
        && conn.preface.is_none()
        && conn.counted
        && conn.ends == Ends::NOT_YET
        && conn.stream.is_drained()
        && !conn.stream.is_finished()
        && !conn.stream.is_eof()
}

/// Has the conn leave for the other process, if conns move and this one may. True if it does.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Conn>) -> bool {
    let Some(conn) = core.conns.get_mut(id) else { return false };
    if !core.moving.as_ref().is_some_and(|moving| moving.takes(conn.listener)) {
        return false;
    }
    if let (Phase::Tunnel, Ends::NOT_YET, Some(tunnel)) = (conn.phase(), conn.ends, conn.tunnel) {
        let moves = tunnels::begin(core, io, tunnel);
        leave_when_quiet(core, io, id);
        return moves;
    }
    if !may_move(conn) {
        return false;
    }
    conn.reason = Some(CloseReason::Moved);
    conn.enter(Phase::Closing);
    conn.deadlines.cancel(&mut core.wheel);
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
        conn.deadlines.cancel(&mut core.wheel);
        go(core, io, id, moved.map(Box::new));
    }
}

/// Nothing of a moving conn is in flight any more: its socket leaves this process.
pub(super) fn leave(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    go(core, io, id, None);
}

fn go(core: &mut Core, io: &mut impl Io, id: Id<Conn>, tunnel: Option<Box<MovedTunnel>>) {
    let now = core.clock.mono;
    let Core { conns, pool, moving, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    let rx = conn.rx.take();
    let bytes = rx.as_ref().map(|lease| pool.bytes(lease).to_vec()).unwrap_or_default();
    rx.into_iter().for_each(|lease| pool.give_back(lease));
    let moved = Moved {
        socket: conn.stream.fd,
        listener: conn.listener,
        peer: conn.peer,
        age: Duration::from_nanos(now.since(conn.opened)),
        requests: conn.requests,
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
            if let Some(tunnel) = moved.tunnel {
                // Where the option cannot be set the socket is gone already.
                let _ = io.set_option(conn.stream.fd, SocketOption::ResetOnClose);
                tunnels::discard(io, *tunnel);
            }
            conn.stream.close(io, id.token(Kind::ConnClose));
        }
    }
}

/// A conn comes from the process before this one, and is counted into this shard's load. What is established is not closed for a
/// limit of its listener.
pub fn adopt(core: &mut Core, io: &mut impl Io, moved: Moved) {
    let now = core.now();
    let spec = core.snapshot.listener(moved.listener).filter(|spec| !spec.is_gone());
    let shared = core.shared.listeners.get(usize::from(moved.listener.0)).and_then(Option::as_ref);
    let may = |spec: &Listener| moved.tunnel.is_some() || spec.protocol == Protocol::Http;
    let Some((spec, shared)) = spec.zip(shared).filter(|(spec, _)| may(spec)) else {
        return discard(core, io, moved);
    };
    shared.try_open(u32::MAX);
    let (within, phase) = match (&moved.tunnel, moved.requests) {
        (Some(_), _) => (Duration::MAX, Phase::Tunnel),
        (None, 0) => (spec.timeouts.request_header, Phase::Open),
        (None, _) => (spec.timeouts.idle, Phase::Serving),
    };
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
        preface: tunnel.and_then(|tunnel| Preface::adopted(tunnel.name.clone(), tunnel.head_us)),
        deadlines: Deadlines::reading_by(now, now.after(within)),
        opened: Mono(now.0.saturating_sub(u64::try_from(moved.age.as_nanos()).unwrap_or(u64::MAX))),
        requests: moved.requests,
        linger_left: 0,
    };
    let Ok(id) = core.conns.insert(conn) else {
        shared.close();
        return discard(core, io, moved);
    };
    if let Some(listener) = core.of_listener(moved.listener) {
        listener.connections.add(1);
    }
    core.stats.adopted.add(1);
    core.stats.conns_open.set(u64::from(core.conns.len()));
    if let Some(tunnel) = moved.tunnel {
        let fate = tunnels::adopt(core, io, id, *tunnel);
        return on_tunnel_fate(core, io, id, fate);
    }
    if moved.bytes.is_empty() {
        if let Some(conn) = core.conns.get_mut(id) {
            conn.stream.arm_recv(io, Expect::Later, id.token(Kind::ConnRecv));
        }
        return deadline::settle(core, id);
    }
    match core.pool.take_copy(&moved.bytes) {
        Some(lease) => http1::on_bytes(core, io, id, lease),
        None => close::begin(core, io, id, CloseReason::Evicted),
    }
}

/// Closes what gets no conn here.
fn discard(core: &Core, io: &mut impl Io, moved: Moved) {
    core.stats.close(CloseReason::ListenerFull).add(1);
    core.shared.loads.close(core.shard);
    if let Some(tunnel) = moved.tunnel {
        // Where the option cannot be set the socket is gone already.
        let _ = io.set_option(moved.socket, SocketOption::ResetOnClose);
        tunnels::discard(io, *tunnel);
    }
    io.discard(moved.socket);
}
