//! The end of a conn: linger where a client may still be sending, wait for the kernel, close, free. One reason each.

use super::{Conn, Phase, deadline, flush, moving, tcp};
use crate::buf::{Class, Lease};
use crate::cluster::outcome::Outcome;
use crate::core::Core;
use crate::exchange::{Down, attempt, measure, record};
use crate::fault::CloseReason;
use crate::io::{Expect, Io, Kind, Mono, SocketOption};
use crate::limits;
use crate::proto::Framing;
use crate::spec::Protocol;
use crate::table::Id;
use crate::tunnel;

/// Begins the end of a conn, from any phase: everything in flight is asked to end, then the descriptor closes.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: CloseReason) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.phase() == Phase::Closing {
        return;
    }
    let (reason, tunnel, fd) = (*conn.reason.get_or_insert(reason), conn.tunnel, conn.stream.fd);
    let is_tcp = conn.protocol == Protocol::Tcp;
    // Bytes whose end only FINs tell: whatever else ends them, both sides must see that it is not the end.
    let cut = (is_tcp || tunnel.is_some()) && reason != CloseReason::TunnelEnded;
    if cut || resets(reason) || core.conns.get(id).is_some_and(|conn| cuts_unframed(core, conn)) {
        // Where the option cannot be set the socket is gone already.
        let _ = io.set_option(fd, SocketOption::ResetOnClose);
    }
    if is_tcp {
        tcp::on_end(core, id, reason);
    }
    if let Some(tunnel) = core.conns.get_mut(id).and_then(|c| c.tunnel.take()) {
        tunnel::end(core, io, tunnel, cut, reason);
    }
    abort_exchange(core, io, id, reason);
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.enter(Phase::Closing);
    conn.deadlines.cancel(&mut core.wheel);
    if let Some(lease) = conn.rx.take() {
        core.pool.give_back(lease);
    }
    conn.stream.discard_queue(&mut core.pool);
    conn.stream.cancel(io, id.token(Kind::ConnRecv), id.token(Kind::ConnSend), id.token(Kind::ConnRecv));
    when_quiet(core, io, id);
}

/// Reasons that end a conn by RST, because its peer, its buffers or the operator cannot wait for a FIN to be taken.
fn resets(reason: CloseReason) -> bool {
    use CloseReason::{Evicted, Internal, Killed, SendTimeout};
    matches!(reason, SendTimeout | Evicted | Killed | Internal)
}

/// A response that only the connection's end delimits is not complete: a FIN would make it look so (threat B02). Other
/// framings show the cut by themselves, and a RST would destroy what was answered before.
fn cuts_unframed(core: &Core, conn: &Conn) -> bool {
    conn.exchange.and_then(|x| core.exchanges.get(x)).is_some_and(|x| {
        x.down_framing == Framing::UntilClose && (x.down() != Down::Done || !conn.stream.is_drained())
    })
}

/// The running exchange ends with its conn.
fn abort_exchange(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: CloseReason) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else { return };
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.note_end();
    }
    attempt::release(core, io, xid, Outcome::Unknown);
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.abort_up();
        if !x.down().is_over() {
            x.enter_down(Down::Aborted);
        }
    }
    end_exchange(core, io, id, Some(reason));
}

/// Frees the conn's exchange, after its record was written.
pub fn end_exchange(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: Option<CloseReason>) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else { return };
    measure::ended(core, xid);
    record::write(core, xid, reason);
    free_exchange(core, io, id);
}

/// Frees the conn's exchange, of which nobody will hear any more.
pub(super) fn free_exchange(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(xid) = core.conns.get_mut(id).and_then(|c| c.exchange.take()) else { return };
    let Core { exchanges, pool, spare_heads, .. } = core;
    let Some(x) = exchanges.get_mut(xid) else { return };
    debug_assert!(
        x.link.is_none() && x.waiter.is_none() && x.beside.is_none(),
        "an exchange ended with its link or its place in a queue"
    );
    x.down_bulk.drop_pipe(io);
    x.up_bulk.drop_pipe(io);
    for lease in [x.head_bytes.take(), x.link_rx.take(), x.held.take()].into_iter().flatten() {
        pool.give_back(lease);
    }
    if spare_heads.len() < limits::SPARE_HEADS {
        spare_heads.push((std::mem::take(&mut x.head), std::mem::take(&mut x.response)));
    }
    exchanges.discard(xid);
}

/// Closes the descriptor of a closing conn once nothing is in flight on it.
pub fn when_quiet(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.phase() == Phase::Closing && conn.stream.is_quiet() {
        if conn.reason == Some(CloseReason::Moved) {
            return moving::leave(core, io, id);
        }
        conn.stream.discard_queue(&mut core.pool);
        conn.stream.close(io, id.token(Kind::ConnClose));
    }
}

/// The descriptor is closed: the slot is free again.
pub fn on_closed(core: &mut Core, id: Id<Conn>) {
    if let Some(conn) = core.conns.get_mut(id) {
        conn.stream.on_closed();
    }
    gone(core, id);
}

/// Its descriptor is closed, or another process's.
pub(super) fn gone(core: &mut Core, id: Id<Conn>) {
    let Some(conn) = core.conns.remove(id) else { return };
    if conn.counted
        && let Some(shared) = core.shared.listeners.get(usize::from(conn.listener.0)).and_then(Option::as_ref)
    {
        shared.close();
    }
    core.shared.loads.close(core.shard);
    core.brief.ended(conn.opened, core.clock.mono);
    let reason = conn.reason.unwrap_or(CloseReason::Internal);
    core.stats.close(reason).add(1);
    if let Some(listener) = core.of_listener(conn.listener) {
        listener.close(reason).add(1);
    }
    core.stats.conns_open.set(u64::from(core.conns.len()));
}

/// Sends what is queued, then FIN, then reads and drops what the client still sends, within bounds (RFC 9112 9.6).
/// `reason` is why the conn ends where that is known; otherwise it depends on who ends the lingering.
pub fn linger(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: Option<CloseReason>) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.reason = conn.reason.or(reason);
    conn.enter(Phase::Lingering);
    conn.linger_left = limits::LINGER_BYTES;
    conn.deadlines.read_by = Mono::MAX;
    conn.stream.finish();
    if let Some(lease) = conn.rx.take() {
        core.pool.give_back(lease);
    }
    flush(core, io, id);
    on_linger_sent(core, io, id);
}

/// A lingering conn sent something, perhaps all of it: from then on the linger time runs.
pub fn on_linger_sent(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    flush(core, io, id);
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.stream.is_drained() {
        if conn.stream.is_eof() {
            return begin(core, io, id, CloseReason::Refused);
        }
        if conn.deadlines.read_by == Mono::MAX {
            let linger = if conn.hurried { limits::LINGER_HURRIED } else { limits::LINGER };
            conn.deadlines.read_by = now.after(linger);
        }
    }
    conn.stream.arm_recv(io, Expect::Later, id.token(Kind::ConnRecv));
    deadline::settle(core, id);
}

/// A lingering conn's client sent more.
pub fn on_linger_bytes(core: &mut Core, io: &mut impl Io, id: Id<Conn>, lease: Lease) {
    let Some(conn) = core.conns.get_mut(id) else { return core.pool.give_back(lease) };
    let n = u32::try_from(lease.len()).unwrap_or(u32::MAX);
    core.pool.give_back(lease);
    match conn.linger_left.checked_sub(n) {
        Some(left) => {
            conn.linger_left = left;
            conn.stream.arm_recv(io, Expect::Later, id.token(Kind::ConnRecv));
        }
        None => begin(core, io, id, CloseReason::LingerEnded),
    }
}

/// A lingering conn's client has finished: nothing can be lost any more once our answer is out.
pub fn on_linger_eof(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    if core.conns.get(id).is_some_and(|c| c.stream.is_drained()) {
        begin(core, io, id, CloseReason::Refused);
    }
}

/// Closes the conn that holds buffers and has been longest without progress (invariant 18). Only for emergencies.
pub fn evict(core: &mut Core, io: &mut impl Io) {
    let now = core.now().into();
    let Core { conns, exchanges, besides, links, tunnels, .. } = &*core;
    let is_big = |lease: &Option<Lease>| lease.as_ref().is_some_and(|l| l.class() > Class::Tiny);
    let link_of = |c: &Conn| match c.tunnel.and_then(|t| tunnels.get(t)) {
        Some(tunnel) => tunnel.link,
        None => c.exchange.and_then(|x| exchanges.get(x)).and_then(|x| x.link),
    };
    let holds = |c: &Conn| {
        let received = c.exchange.and_then(|x| exchanges.get(x)).is_some_and(|x| {
            let beside = x.beside.and_then(|at| besides.get(at));
            is_big(&x.link_rx) || is_big(&x.held) || beside.is_some_and(|beside| is_big(&beside.rx))
        });
        let link = link_of(c).and_then(|l| links.get(l));
        let going_up = link.is_some_and(|l| l.stream.queued() > 0 || io.ahead(l.stream.fd) > 0);
        c.phase() != Phase::Closing
            && (is_big(&c.rx) || c.stream.queued() > 0 || io.ahead(c.stream.fd) > 0 || received || going_up)
    };
    let victim = conns
        .iter()
        .filter(|(_, c)| holds(c))
        .max_by_key(|(_, c)| c.deadlines.progress.age(now))
        .map(|(id, _)| id);
    if let Some(id) = victim {
        core.stats.evictions.add(1);
        begin(core, io, id, CloseReason::Evicted);
    }
}
