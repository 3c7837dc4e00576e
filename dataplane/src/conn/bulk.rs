//! Bulk bodies: from link to conn by splice(2), armed by polls. The bytes never enter our memory.
//!
//! The head and what came with it are copied as always; the rest follows by reference once that is out. One splice in
//! for each time the link is readable, then out until the client's socket is full, so a bulk flow takes turns like others.

use super::{Conn, close, flush, relay, upstream};
use crate::core::Core;
use crate::exchange::{Down, Exchange};
use crate::fault::{CloseReason, Refusal};
use crate::io::{Errno, Expect, Io, Kind, Mono};
use crate::limits;
use crate::link;
use crate::proto::Framing;
use crate::table::Id;

/// Whether the rest of a response's body goes by splice: both ends are plain sockets, nothing looks at its bytes, nothing
/// of it is held, and there is enough of it to be worth two system calls more.
pub fn is_wanted(x: &Exchange) -> bool {
    if x.bulk.pipe.is_some() {
        return true;
    }
    x.down() == Down::Body
        && !x.bulk.refused
        && x.link_rx.is_none()
        && matches!(x.down_framing, Framing::Length(_))
        && x.response.framing == x.down_framing
        && x.down_decoder.remaining().is_some_and(|n| x.bulk.begun && n > 0 || n >= limits::SPLICE_MIN)
}

/// A head was passed on. Where its body is long, the next on this link may be too: then only a head is to be copied.
pub fn on_head(core: &mut Core, xid: Id<Exchange>) {
    let Core { exchanges, links, .. } = core;
    if let Some(x) = exchanges.get(xid)
        && matches!(x.response.framing, Framing::Length(n) if n >= limits::SPLICE_MIN + limits::LEASE_SMALL_BYTES as u64)
        && let Some(link) = x.link.and_then(|l| links.get_mut(l))
    {
        link.stream.expect_small();
    }
}

/// The link has bytes, or its end.
pub fn on_readable(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.bulk.readable = true;
    }
    drive(core, io, id, xid);
    relay::settle(core, io, id);
}

/// Moves what can be moved now, and waits for whichever side is behind.
pub fn drive(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if !pour(core, io, id, xid) {
        return hold(core, io, xid);
    }
    if core.exchanges.get(xid).is_some_and(|x| x.bulk.readable && x.down() == Down::Body)
        && (!fill(core, io, id, xid) || !pour(core, io, id, xid))
    {
        return hold(core, io, xid);
    }
    await_link(core, io, xid);
}

/// Sends what the pipe holds. True when nothing is left of it and the client could take more.
fn pour(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> bool {
    let Core { conns, exchanges, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get_mut(xid)) else { return false };
    if !conn.stream.is_drained() {
        return false;
    }
    let Some(pipe) = &mut x.bulk.pipe else { return true };
    match io.splice_out(pipe, conn.stream.fd) {
        Ok(_) if pipe.held() == 0 => {
            if let Some(pipe) = x.bulk.pipe.take() {
                io.give_pipe(pipe);
            }
            true
        }
        Ok(_) | Err(Errno(libc::EAGAIN)) => {
            conn.stream.await_writable(io, id.token(Kind::ConnSend));
            flush(core, io, id); // the send deadline runs
            false
        }
        Err(_) => {
            close::begin(core, io, id, CloseReason::ClientReset);
            false
        }
    }
}

/// Takes what the link has, once. False when there is nothing to pour.
fn fill(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> bool {
    let Core { conns, exchanges, links, stats, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get_mut(xid)) else { return false };
    let Some(link) = x.link.and_then(|l| links.get_mut(l)) else { return false };
    x.bulk.readable = false;
    let pipe = if conn.stream.allow_splice_out(io) { io.take_pipe() } else { None };
    let Some(mut pipe) = pipe else {
        x.bulk.refused = true;
        return false;
    };
    let remaining = x.down_decoder.remaining().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let taken = io.splice_in(link.stream.fd, &mut pipe, remaining);
    if let Ok(n @ 1..) = taken {
        x.bulk.begun = true;
        x.bulk.pipe = Some(pipe);
        x.down_decoder.skip(n as u64);
        x.down_bytes += n as u64;
        stats.spliced_bytes.add(n as u64);
        if x.down_decoder.is_done() {
            // What is behind the end is in the socket still, where nobody has seen it, and must not meet the next
            // request (invariant 19, threat F22).
            x.link_clean = io.unread(link.stream.fd) == Ok(0);
            relay::on_end(core, io, xid);
        }
        return true;
    }
    io.give_pipe(pipe);
    match taken {
        Ok(_) => {
            link.stream.on_spliced_eof();
            upstream::on_ended(core, io, id, xid, Refusal::OriginClosed);
        }
        Err(Errno(libc::EAGAIN)) => {}
        Err(Errno(libc::EINVAL | libc::ENOMEM)) => x.bulk.refused = true,
        Err(_) => upstream::on_ended(core, io, id, xid, Refusal::OriginReset),
    }
    false
}

/// The client holds us up, or nothing is left to do: meanwhile the origin is not slow. Unless the head is still going
/// out: then the wait for the link begins already.
fn hold(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>) {
    let Some(x) = core.exchanges.get(xid) else { return };
    if x.bulk.pipe.is_none() && !x.bulk.readable {
        return await_link(core, io, xid);
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
    let (refused, timeouts) = (x.bulk.refused, x.timeouts);
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
