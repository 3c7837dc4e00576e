//! Bulk response bodies, from link to conn.

use super::{GONE, is_worth_it};
use crate::bulk::{Filled, Poured};
use crate::conn::{Conn, close, flush, lost, relay, upstream};
use crate::core::Core;
use crate::exchange::{Down, Exchange};
use crate::fault::Refusal;
use crate::io::{Expect, Io, Kind, Mono, Outcome};
use crate::limits;
use crate::link;
use crate::proto::Framing;
use crate::table::Id;

/// Whether the rest of a response's body goes by splice.
pub fn is_wanted(core: &Core, id: Id<Conn>, xid: Id<Exchange>) -> bool {
    let Some(x) = core.exchanges.get(xid) else { return false };
    if x.down_bulk.is_holding() {
        return true;
    }
    if x.down() != Down::Body || !is_worth_it(&x.down_bulk, x.down_framing, &x.down_decoder) {
        return false;
    }
    let ends = (core.conns.get(id), x.link.and_then(|l| core.links.get(l)));
    let (Some(conn), Some(link)) = ends else { return false };
    x.response.framing == x.down_framing
        && x.down_bulk.may_splice(&link.stream, &conn.stream, x.link_rx.is_some())
}

/// A head was passed on. Where its body is long, the next on this link may be too: then only a head is to be copied.
pub fn on_head(core: &mut Core, xid: Id<Exchange>) {
    let Core { exchanges, links, .. } = core;
    if let Some(x) = exchanges.get(xid)
        && let Some(link) = x.link.and_then(|l| links.get_mut(l))
    {
        let long = matches!(x.response.framing, Framing::Length(n) if n >= limits::SPLICE_MIN + limits::LEASE_SMALL_BYTES as u64);
        link.stream.expect_head(long.then_some(x.head_len));
    }
}

/// The link has bytes, or its end.
pub fn on_readable(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.down_bulk.set_readable();
    }
    drive(core, io, id, xid);
    relay::settle(core, io, id);
}

/// Moves what can be moved now, and waits for whichever side is behind.
pub fn drive(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    match pour(core, io, id, xid) {
        Poured::All(_) => {}
        Poured::Waits(_) => return hold(core, io, id, xid),
        Poured::Failed(_) => return,
    }
    if core.exchanges.get(xid).is_some_and(|x| x.down_bulk.is_readable() && x.down() == Down::Body) {
        match fill(core, io, id, xid) {
            Filled::Bytes(_) => match pour(core, io, id, xid) {
                Poured::All(_) => {}
                Poured::Waits(_) => return hold(core, io, id, xid),
                Poured::Failed(_) => return,
            },
            Filled::Again | Filled::Refused => {}
            Filled::Eof | Filled::Failed(_) => return,
        }
    }
    await_link(core, io, xid);
}

/// Sends what the pipe holds.
fn pour(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> Poured {
    let now = core.now();
    let Core { conns, exchanges, pool, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get_mut(xid)) else {
        return Poured::Failed(GONE);
    };
    let poured = x.down_bulk.pour(io, pool, &mut conn.stream, id.token(Kind::ConnSend));
    match poured {
        Poured::All(0) => {}
        Poured::All(_) => conn.deadlines.progress = now.into(),
        Poured::Waits(_) => flush(core, io, id), // the send deadline runs
        Poured::Failed(errno) => close::begin(core, io, id, lost(&Outcome::Failed(errno))),
    }
    poured
}

/// Takes what the link has, once.
fn fill(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> Filled {
    let Core { conns, exchanges, links, stats, share, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get_mut(xid)) else {
        return Filled::Failed(GONE);
    };
    let Some(link) = x.link.and_then(|l| links.get_mut(l)) else { return Filled::Failed(GONE) };
    let remaining = x.down_decoder.remaining().unwrap_or(0);
    let share = share.take(stats.turns.get());
    let filled = x.down_bulk.fill(io, &mut link.stream, &mut conn.stream, remaining, share);
    match filled {
        Filled::Bytes(n) => {
            x.down_decoder.skip(n as u64);
            x.down_bytes += n as u64;
            stats.spliced_bytes.add(n as u64);
            if x.down_decoder.is_done() {
                // What is behind the end is in the socket still, where nobody has seen it, and must not meet the next
                // request (invariant 19, threat F22).
                x.link_clean = io.unread(link.stream.fd) == Ok(0);
                relay::on_end(core, io, xid);
            }
        }
        Filled::Again => {}
        Filled::Refused => x.down_bulk.refuse(),
        Filled::Eof => upstream::on_ended(core, io, id, xid, Refusal::OriginClosed),
        Filled::Failed(_) => upstream::on_ended(core, io, id, xid, Refusal::OriginReset),
    }
    filled
}

/// The client holds us up: meanwhile the origin is not slow. Unless the head is still going out: then the wait for the
/// link begins already.
fn hold(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let Core { conns, exchanges, links, .. } = &mut *core;
    let Some(x) = exchanges.get_mut(xid) else { return };
    // Also a poll may bring bytes to queue ([`Io::poll`]).
    let full = conns.get(id).is_some_and(|conn| conn.stream.queued() >= limits::QUEUE_HIGH);
    if !x.down_bulk.is_holding() && !x.down_bulk.is_readable() && !full {
        let link = x.link.and_then(|l| links.get(l));
        if !link.is_some_and(|l| !l.stream.is_receiving() && io.unread(l.stream.fd).is_ok_and(|n| n > 0)) {
            return await_link(core, io, xid);
        }
        x.down_bulk.set_readable();
    }
    if let Some(link) = x.link.and_then(|l| core.links.get_mut(l)) {
        link.deadlines.read_by = Mono::MAX;
    }
}

/// Waits for more from the link.
fn await_link(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>) {
    let now = core.now();
    let Some(x) = core.exchanges.get(xid) else { return };
    let (Some(id), Down::Body) = (x.link, x.down()) else { return };
    let (refused, timeouts) = (x.down_bulk.is_refused(), x.timeouts);
    let Some(link) = core.links.get_mut(id) else { return };
    if let Some(timeouts) = timeouts {
        link.deadlines.read_by = now.after(timeouts.response_body);
    }
    if refused {
        link::arm_recv(core, io, id, Expect::Now);
    } else {
        link.stream.await_readable(io, id.token(Kind::LinkRecv));
    }
    link::settle(core, id);
}
