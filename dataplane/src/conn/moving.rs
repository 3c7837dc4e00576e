//! Conns that move to another process, between two requests: what the kernel has in flight is taken back, what it received
//! meanwhile is kept, and the socket goes on there.

use super::{Conn, Ends, Phase, close, deadline, http1};
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::CloseReason;
use crate::io::{Expect, Fd, Io, Kind, Mono, SocketAddress};
use crate::limits;
use crate::spec::{ListenerId, Protocol};
use crate::stream::Stream;
use crate::table::Id;
use std::sync::mpsc;
use std::time::Duration;

/// A conn without a process: all that the next one has to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Nobody's but the bearer's.
    pub fd: Fd,
    pub listener: ListenerId,
    /// As [`Conn::peer`].
    pub peer: SocketAddress,
    /// Since it was accepted.
    pub age: Duration,
    /// Requests so far.
    pub requests: u32,
    /// Received, and nobody's request yet.
    pub bytes: Vec<u8>,
}

/// Conns of this shard move.
#[derive(Debug)]
pub struct Moving {
    to: mpsc::Sender<Moved>,
    /// The first slot that was not looked at yet.
    slot: u32,
}

impl Moving {
    pub fn new(to: mpsc::Sender<Moved>) -> Self {
        Self { to, slot: 0 }
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
    if core.moving.is_none() {
        return false;
    }
    let Some(conn) = core.conns.get_mut(id).filter(|conn| may_move(conn)) else { return false };
    conn.reason = Some(CloseReason::Moved);
    conn.enter(Phase::Closing);
    conn.deadlines.cancel(&mut core.wheel);
    conn.stream.cancel(io, id.token(Kind::ConnRecv), id.token(Kind::ConnSend), id.token(Kind::ConnRecv));
    close::when_quiet(core, io, id);
    true
}

/// Nothing of a moving conn is in flight any more: its socket leaves this process.
pub(super) fn leave(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.clock.mono;
    let Core { conns, pool, moving, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    let rx = conn.rx.take();
    let bytes = rx.as_ref().map(|lease| pool.bytes(lease).to_vec()).unwrap_or_default();
    rx.into_iter().for_each(|lease| pool.give_back(lease));
    let moved = Moved {
        fd: conn.stream.fd,
        listener: conn.listener,
        peer: conn.peer,
        age: Duration::from_nanos(now.since(conn.opened)),
        requests: conn.requests,
        bytes,
    };
    let sent = moving.as_ref().is_some_and(|moving| moving.to.send(moved).is_ok());
    if sent {
        close::gone(core, id);
    } else {
        // Nobody takes it.
        conn.stream.close(io, id.token(Kind::ConnClose));
    }
}

/// A conn comes from the process before this one, and is counted into this shard's load.
pub fn adopt(core: &mut Core, io: &mut impl Io, moved: &Moved) {
    let now = core.now();
    let spec = core.snapshot.listener(moved.listener).filter(|spec| !spec.is_gone());
    let shared = core.shared.listeners.get(usize::from(moved.listener.0)).and_then(Option::as_ref);
    let place = spec
        .zip(shared)
        .filter(|(spec, shared)| spec.protocol == Protocol::Http && shared.try_open(spec.max_connections));
    let Some((spec, shared)) = place else { return discard(core, io, moved.fd) };
    let (within, phase) = match moved.requests {
        0 => (spec.timeouts.request_header, Phase::Open),
        _ => (spec.timeouts.idle, Phase::Serving),
    };
    let conn = Conn {
        stream: Stream::new(moved.fd),
        phase,
        protocol: Protocol::Http,
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
        preface: None,
        deadlines: Deadlines::reading_by(now, now.after(within)),
        opened: Mono(now.0.saturating_sub(u64::try_from(moved.age.as_nanos()).unwrap_or(u64::MAX))),
        requests: moved.requests,
        linger_left: 0,
    };
    let Ok(id) = core.conns.insert(conn) else {
        shared.close();
        return discard(core, io, moved.fd);
    };
    if let Some(listener) = core.of_listener(moved.listener) {
        listener.connections.add(1);
    }
    core.stats.adopted.add(1);
    core.stats.conns_open.set(u64::from(core.conns.len()));
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

/// Closes a socket that gets no conn here.
fn discard(core: &Core, io: &mut impl Io, fd: Fd) {
    core.stats.close(CloseReason::ListenerFull).add(1);
    core.shared.loads.close(core.shard);
    io.discard(fd);
}
