//! HTTP/1 on a conn: heads in, exchanges one after another, bodies to the exchange, what is sent ahead held back.

use super::{Conn, Ends, Phase, bulk::up, close, deadline, moving, relay, reply, serve};
use crate::buf::{Class, Lease, Pool};
use crate::core::Core;
use crate::exchange::request::{self, QUEUE_HIGH};
use crate::exchange::response::join;
use crate::exchange::{Exchange, Up, attempt};
use crate::fault::{CloseReason, Refusal};
use crate::io::{Expect, Io, Kind, Mono};
use crate::limits;
use crate::proto::http1::{HeadLimits, Parsed, parse_request};
use crate::table::Id;

/// Bytes came from the client.
pub fn on_bytes(core: &mut Core, io: &mut impl Io, id: Id<Conn>, lease: Lease) {
    let Some(conn) = core.conns.get_mut(id) else { return core.pool.give_back(lease) };
    if conn.phase() == Phase::Open {
        conn.enter(Phase::Serving);
    }
    let exchange = conn.exchange.and_then(|x| core.exchanges.get(x).map(|e| (x, e.up())));
    match exchange {
        Some((xid, Up::Body | Up::Drain)) if core.conns.get(id).is_some_and(|c| c.rx.is_none()) => {
            feed(core, io, id, xid, lease);
        }
        Some(_) => {
            if hold(core, id, lease) {
                read_ahead(core, io, id);
            } else {
                // The recv is armed only while a buffer could hold more, so there was none to be had.
                close::begin(core, io, id, CloseReason::Evicted);
            }
        }
        None => {
            let began = core.conns.get(id).is_some_and(|c| c.rx.is_none());
            if !hold(core, id, lease) {
                return reply::refuse(core, io, id, Refusal::BuffersExhausted);
            }
            if began {
                on_head_began(core, id);
            }
            advance(core, io, id);
        }
    }
}

/// Joins bytes to what is held; false where no class holds them together.
pub(super) fn hold(core: &mut Core, id: Id<Conn>, lease: Lease) -> bool {
    let Core { conns, pool, .. } = core;
    let Some(conn) = conns.get_mut(id) else {
        pool.give_back(lease);
        return true;
    };
    match join(pool, conn.rx.take(), lease) {
        Some(joined) => {
            conn.rx = Some(joined);
            true
        }
        None => false,
    }
}

/// The first byte of a head: from now on its absolute deadline runs (threat D01).
pub(super) fn on_head_began(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if let Some(spec) = core.snapshot.listener(conn.listener) {
        conn.deadlines.read_by = now.after(spec.timeouts.request_header);
    }
    deadline::settle(core, id);
}

/// Reads the next head out of what is held, and starts its exchange; or waits for more.
pub fn advance(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Core { conns, pool, snapshot, scratch, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    if conn.exchange.is_some() || conn.phase() != Phase::Serving {
        return;
    }
    let Some(spec) = snapshot.listener(conn.listener) else { return };
    let Some(mut lease) = conn.rx.take() else { return wait_idle(core, io, id) };
    let limits = HeadLimits {
        request_line: spec.limits.request_line,
        header_block: spec.limits.header_block,
        header_fields: spec.limits.header_fields,
    };
    let parsed = parse_request(pool.bytes_mut(&mut lease), &mut conn.scan, &limits, &mut scratch.request);
    conn.rx = Some(lease);
    match parsed {
        Ok(Parsed::Partial) if conn.stream.is_eof() => close::begin(core, io, id, CloseReason::ClientAborted),
        Ok(Parsed::Partial) => {
            shrink(core, id);
            if let Some(conn) = core.conns.get_mut(id) {
                conn.stream.arm_recv_of(io, Class::Small, Expect::Later, id.token(Kind::ConnRecv));
            }
        }
        Ok(Parsed::Complete { len }) => serve::begin(core, io, id, len),
        Err(refusal) => reply::refuse_head(core, io, id, refusal),
    }
}

/// Nothing is held: the conn waits for its next request, for a moment only if it is to go, or ends.
fn wait_idle(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.stream.is_eof() {
        return close::begin(core, io, id, CloseReason::ClientClosed);
    }
    if conn.ends == Ends::EXPIRED {
        return close::begin(core, io, id, CloseReason::Lifetime);
    }
    if moving::begin(core, io, id) {
        return;
    }
    let Some(conn) = core.conns.get_mut(id) else { return };
    if let Some(spec) = core.snapshot.listener(conn.listener) {
        conn.deadlines.read_by = now.after(spec.timeouts.idle);
    }
    conn.stream.arm_recv(io, Expect::Later, id.token(Kind::ConnRecv));
    if core.draining || conn.ends.leaves() {
        // It is to go since its last answer was composed, which did not say so: the next request is on its way, perhaps.
        return deadline::on_last_chance(core, id);
    }
    deadline::settle(core, id);
}

/// A partial head moves to the smallest lease that holds it, so that what a slow client makes us hold stays in
/// proportion to what it sent (invariant 16).
pub(super) fn shrink(core: &mut Core, id: Id<Conn>) {
    let Core { conns, pool, .. } = core;
    if let Some(lease) = conns.get_mut(id).and_then(|c| c.rx.as_mut()) {
        shrink_lease(pool, lease);
    }
}

/// Moves what a lease holds to the smallest class with a little room to spare.
pub fn shrink_lease(pool: &mut Pool, lease: &mut Lease) {
    let fits = Class::for_bytes(lease.len() + lease.len() / 4);
    if let Some(class) = fits.filter(|class| *class < lease.class())
        && let Some(mut small) = pool.take(class)
    {
        if small.class() == class {
            pool.append_lease(&mut small, lease);
            std::mem::swap(lease, &mut small);
        }
        pool.give_back(small);
    }
}

/// Bytes of the running exchange's body.
pub fn feed(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, lease: Lease) {
    match request::feed(core, io, xid, lease) {
        Ok(rest) => {
            if let Some(conn) = core.conns.get_mut(id) {
                debug_assert!(conn.rx.is_none(), "a body was fed past bytes that are held");
                conn.rx = rest;
            }
            continue_body(core, io, id);
            relay::settle(core, io, id);
        }
        Err(refusal) => {
            // What was read is gone: nobody knows any more where the next request begins (threat F11).
            if let Some(x) = core.exchanges.get_mut(xid) {
                x.close_after = true;
                x.abort_up();
            }
            reply::refuse(core, io, id, refusal);
        }
    }
}

/// Arms the recv for more of the body while the origin keeps up; after the body, for what comes next.
pub fn continue_body(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Core { conns, exchanges, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    let Some(xid) = conn.exchange else { return };
    match exchanges.get(xid).map(Exchange::up) {
        Some(Up::Body | Up::Drain) => await_body(core, io, id, xid),
        Some(Up::Done) => {
            if !conn.stream.is_eof() {
                conn.deadlines.read_by = Mono::MAX;
            }
            read_ahead(core, io, id);
        }
        Some(Up::Head | Up::Aborted) | None => {}
    }
}

fn await_body(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if up::is_wanted(core, id, xid) {
        return up::drive(core, io, id, xid);
    }
    let Core { conns, exchanges, links, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get(xid)) else { return };
    if conn.stream.is_eof() && conn.rx.is_none() {
        // The held bytes were not all of the body, and no more will come (threat F21).
        on_truncated(core, id);
        return close::begin(core, io, id, CloseReason::ClientAborted);
    }
    let queued = x.link.and_then(|l| links.get(l)).map_or(0, |l| l.stream.queued());
    if queued < QUEUE_HIGH {
        if let Some(lease) = conn.rx.take() {
            // It came while the link was lost on which what was held before goes out once more.
            return feed(core, io, id, xid, lease);
        }
        conn.stream.arm_recv(io, Expect::Now, id.token(Kind::ConnRecv));
        deadline::on_body_awaited(core, id);
    } else {
        deadline::on_body_paused(core, id);
    }
}

/// While an exchange runs, the recv is armed to notice a client that leaves; what it sends ahead is held until `pipelined`
/// requests wait (back-pressure, not refusal: threat F14). Behind its last request nothing is to be sent ahead, so a client
/// is watched for leaving only once the answer takes long.
pub fn read_ahead(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, exchanges, .. } = &mut *core;
    if let Some(conn) = conns.get_mut(id)
        && conn.rx.is_none()
        && !conn.stream.is_eof()
        && !conn.stream.is_receiving()
        && conn
            .exchange
            .and_then(|x| exchanges.get(x))
            .is_some_and(|x| x.close_after && !x.head.upgrade_websocket)
    {
        conn.deadlines.read_by = now.after(limits::WATCH_AFTER);
        return deadline::settle(core, id);
    }
    watch(core, io, id);
}

/// Arms the recv of [`read_ahead`], unless enough is held.
pub fn watch(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Core { conns, exchanges, pool, snapshot, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    if let Some(lease) = &conn.rx {
        // Bytes of a body whose link is still being connected to wait as they are.
        let body_waits = conn.exchange.and_then(|x| exchanges.get(x)).is_some_and(|x| x.up() != Up::Done);
        let limit = snapshot.listener(conn.listener).map_or(1, |l| l.limits.pipelined);
        let bytes = pool.bytes(lease);
        let waiting = memchr::memmem::find_iter(bytes, b"\r\n\r\n").take(limit as usize).count();
        if body_waits || waiting + 1 >= limit as usize || bytes.len() > Class::Large.capacity() / 4 {
            return;
        }
    }
    conn.stream.arm_recv_of(io, Class::Small, Expect::Later, id.token(Kind::ConnRecv));
}

/// The client finished sending.
pub fn on_eof(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    let Some((xid, x)) = conn.exchange.and_then(|xid| Some((xid, core.exchanges.get(xid)?))) else {
        let reason = if conn.rx.is_some() { CloseReason::ClientAborted } else { CloseReason::ClientClosed };
        return close::begin(core, io, id, reason);
    };
    // While its link is still being reached, a request without a body is whole, and one whose body is held may be.
    let whole = match x.up() {
        Up::Done => true,
        Up::Head => x.up_decoder.is_done() || conn.rx.is_some(),
        Up::Body | Up::Drain | Up::Aborted => false,
    };
    if !whole {
        // The body will never be complete: the origin must not take it for whole (threat F21).
        on_truncated(core, id);
        return close::begin(core, io, id, CloseReason::ClientAborted);
    }
    // FIN after a whole request is a client that left, or one that only finished sending. A grace tells them apart well
    // enough: an answer that comes within it is delivered, a departed client costs the origin no more than that.
    conn.deadlines.read_by = now.after(limits::CLIENT_GONE_GRACE);
    deadline::settle(core, id);
    attempt::on_client_finished(core, xid);
}

/// Counts and notes a body that ended before its end. Nobody is left to be told.
fn on_truncated(core: &mut Core, id: Id<Conn>) {
    core.stats.refusal(Refusal::BodyTruncated).add(1);
    if let Some(x) = core.conns.get(id).and_then(|c| c.exchange).and_then(|x| core.exchanges.get_mut(x)) {
        x.refusal = Some(Refusal::BodyTruncated);
    }
}
