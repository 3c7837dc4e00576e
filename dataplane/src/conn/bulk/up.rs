//! Bulk request bodies, from conn to link.
//!
//! The request half stays in `Body` while bytes are in a pipe: whatever ends the attempt finds the body incomplete then,
//! and the link is not used again. Once a byte was taken from the client the request is not repeated.

use super::{GONE, is_worth_it};
use crate::bulk::{Filled, Poured};
use crate::conn::{Conn, close, deadline, http1, lost, relay, upstream};
use crate::core::Core;
use crate::exchange::{Exchange, Up, attempt};
use crate::io::{Expect, Io, Kind, Outcome};
use crate::limits::QUEUE_HIGH;
use crate::link;
use crate::table::Id;

/// Whether the rest of a request's body goes by splice.
pub fn is_wanted(core: &Core, id: Id<Conn>, xid: Id<Exchange>) -> bool {
    let Some(x) = core.exchanges.get(xid) else { return false };
    // What is to be held must pass through our hands.
    if x.up() != Up::Body || x.holds_body() {
        return false;
    }
    let ends = (core.conns.get(id), x.link.and_then(|l| core.links.get(l)));
    let (Some(conn), Some(link)) = ends else { return false };
    x.up_bulk.is_holding()
        || is_worth_it(&x.up_bulk, x.up_framing, &x.up_decoder)
            && x.up_bulk.may_splice(&conn.stream, &link.stream, conn.rx.is_some())
}

/// The client has bytes, or its end.
pub fn on_readable(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.up_bulk.set_readable();
    }
    drive(core, io, id, xid);
    relay::settle(core, io, id);
}

/// Moves what can be moved now, and waits for whichever side is behind.
pub fn drive(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    match pour(core, io, id, xid) {
        Poured::All(_) => {}
        Poured::Waits(_) => return go_on(core, io, id, xid),
        Poured::Failed(_) => return,
    }
    if core.exchanges.get(xid).is_some_and(|x| x.up_bulk.is_readable() && !x.up_decoder.is_done()) {
        match fill(core, io, id, xid) {
            Filled::Bytes(_) => match pour(core, io, id, xid) {
                Poured::All(_) => {}
                Poured::Waits(_) => return go_on(core, io, id, xid),
                Poured::Failed(_) => return,
            },
            Filled::Again | Filled::Refused => {}
            Filled::Eof | Filled::Failed(_) => return,
        }
    }
    go_on(core, io, id, xid);
}

/// Sends what the pipe holds.
fn pour(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> Poured {
    let Core { exchanges, links, pool, .. } = core;
    let Some(x) = exchanges.get_mut(xid) else { return Poured::Failed(GONE) };
    let Some(lid) = x.link else { return Poured::Failed(GONE) };
    let Some(link) = links.get_mut(lid) else { return Poured::Failed(GONE) };
    let poured = x.up_bulk.pour(io, pool, &mut link.stream, lid.token(Kind::LinkSend));
    match poured {
        Poured::All(n) => link.wrote |= n > 0,
        Poured::Waits(n) => {
            link.wrote |= n > 0;
            link::flush(core, io, lid); // the send deadline runs
        }
        Poured::Failed(errno) => {
            x.up_bulk.drop_pipe(io);
            // What is left of the body would be lost too: nothing is read until the attempt has ended.
            x.up_bulk.refuse();
            deadline::on_body_paused(core, id);
            upstream::on_link_takes_no_more(core, io, lid, &Outcome::Failed(errno));
        }
    }
    poured
}

/// Takes what the client has sent, once, and never more than is left of the body (threat F11).
fn fill(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) -> Filled {
    let Core { conns, exchanges, links, stats, share, .. } = core;
    let (Some(conn), Some(x)) = (conns.get_mut(id), exchanges.get_mut(xid)) else {
        return Filled::Failed(GONE);
    };
    let Some(link) = x.link.and_then(|l| links.get_mut(l)) else { return Filled::Failed(GONE) };
    let remaining = x.up_decoder.remaining().unwrap_or(0);
    let share = share.take(stats.turns.get());
    let filled = x.up_bulk.fill(io, &mut conn.stream, &mut link.stream, remaining, share);
    match filled {
        Filled::Bytes(n) => {
            x.body_taken = true;
            x.up_decoder.skip(n as u64);
            x.up_bytes += n as u64;
            stats.spliced_bytes.add(n as u64);
            // The next request's body may be long too: then only its head is to be copied.
            conn.stream.expect_small();
        }
        Filled::Again => {}
        Filled::Refused => x.up_bulk.refuse(),
        Filled::Eof => http1::on_eof(core, io, id),
        Filled::Failed(errno) => close::begin(core, io, id, lost(&Outcome::Failed(errno))),
    }
    filled
}

/// Waits for the link, for the client, or for nothing more.
fn go_on(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let Core { exchanges, links, .. } = &mut *core;
    let Some(x) = exchanges.get_mut(xid) else { return };
    let queued = x.link.and_then(|l| links.get(l)).map_or(0, |l| l.stream.queued());
    // Also a poll may bring bytes to queue ([`Io::poll`]).
    let full = queued >= QUEUE_HIGH && !x.up_decoder.is_done();
    if x.up_bulk.is_holding() || x.up_bulk.is_readable() || full {
        // The link holds us up: meanwhile the client is not slow.
        return deadline::on_body_paused(core, id);
    }
    if !x.up_decoder.is_done() {
        // Also while the head is still going out.
        return await_client(core, io, id, xid);
    }
    x.enter_up(Up::Done);
    attempt::time_response(core, xid);
    http1::continue_body(core, io, id);
    relay::settle(core, io, id);
}

/// Waits for more from the client.
fn await_client(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let Some(refused) = core.exchanges.get(xid).map(|x| x.up_bulk.is_refused()) else { return };
    let Some(conn) = core.conns.get_mut(id) else { return };
    if refused {
        conn.stream.arm_recv(io, Expect::Now, id.token(Kind::ConnRecv));
    } else {
        conn.stream.await_readable(io, id.token(Kind::ConnRecv));
    }
    deadline::on_body_awaited(core, id);
}
