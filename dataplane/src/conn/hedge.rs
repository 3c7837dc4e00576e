//! A hedge: the second attempt that begins beside a slow first one, and what its link says.
//!
//! The first whole head of a final response wins, and the other attempt is cancelled. A head and not its first byte, so
//! that an origin which begins and stalls, or answers with what would be tried again, wins nothing. Interim responses of a
//! hedge are dropped: they are advice, and which answer they belong to is not known yet.

use super::{Conn, relay};
use crate::cluster::outcome::Outcome as Attempted;
use crate::core::Core;
use crate::exchange::response::join;
use crate::exchange::{Attempt, Exchange, again, beside, replay};
use crate::fault::Refusal;
use crate::io::{Errno, Io, Outcome};
use crate::limits;
use crate::link::{self, Link, Owner};
use crate::proto::http1::{Parsed, parse_response};
use crate::table::Id;

/// The exchange that a link is beside, and its conn.
pub fn of(core: &Core, id: Id<Link>) -> Option<(Id<Conn>, Id<Exchange>)> {
    match core.links.get(id)?.owner {
        Owner::Beside(x) => Some((core.conn_of(x)?, x)),
        Owner::None | Owner::Exchange(_) | Owner::Tunnel(_) => None,
    }
}

/// It is time for a hedge, if one is still of use.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if beside::is_wanted(core, xid)
        && beside::begin(core, io, xid)
        && hedge(core, xid) == Some(Attempt::Sending)
    {
        send(core, io, id, xid);
    }
}

/// How far the hedge of an exchange is.
fn hedge(core: &Core, xid: Id<Exchange>) -> Option<Attempt> {
    let beside = beside::of(core, xid)?;
    beside.is_hedge().then_some(beside.attempt)
}

/// Sends a copy of the request on the hedge's link, and awaits the answer.
fn send(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let Some(link) = beside::of(core, xid).and_then(|hedge| hedge.link) else { return };
    let sent: Result<(), Refusal> =
        link::announce::announce(core, io, link, id).and_then(|()| replay::send_copy(core, io, xid, link));
    if sent.is_err() {
        // The first attempt is none the worse.
        return beside::drop(core, io, xid, Attempted::Unknown);
    }
    await_answer(core, io, xid, link);
}

fn await_answer(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>, link: Id<Link>) {
    time(core, xid, link);
    link::arm_small_recv(core, io, link);
}

/// The deadline of the answer's head runs from the last byte of the request.
fn time(core: &mut Core, xid: Id<Exchange>, link: Id<Link>) {
    let now = core.now();
    let Some(timeouts) = core.exchanges.get(xid).and_then(|x| x.timeouts) else { return };
    if let Some(l) = core.links.get_mut(link) {
        l.deadlines.read_by = now.after(timeouts.response_header);
    }
    link::settle(core, link);
}

/// The connect of a hedge ended.
pub fn on_connect_ended(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    xid: Id<Exchange>,
    outcome: &Outcome,
) {
    if !matches!(outcome, Outcome::Connected) {
        core.stats.connect_failures.add(1);
        let errno = if let Outcome::Failed(errno) = outcome { *errno } else { Errno(libc::EIO) };
        return beside::drop(core, io, xid, link::connect::refusal_of(errno).into());
    }
    let now = core.now();
    if let Some(hedge) = beside::of_mut(core, xid) {
        hedge.connected = Some(now);
    }
    send(core, io, id, xid);
}

/// The kernel took bytes of a hedge's request; nothing of a response that was put aside.
pub fn on_sent(core: &mut Core, id: Id<Link>) {
    if let Some((_, xid)) = of(core, id)
        && hedge(core, xid).is_some()
    {
        time(core, xid, id);
    }
}

/// The endpoint takes no more of a hedge's request. If it says why, that is heard.
pub fn on_takes_no_more(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>, receiving: bool) {
    if hedge(core, xid).is_some() && !receiving {
        let lost = lost(core, xid);
        beside::drop(core, io, xid, lost);
    }
}

/// A deadline of a link that is beside passed.
pub fn on_too_slow(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>) {
    beside::drop(core, io, xid, Attempted::Timeout);
}

/// What the end of a hedge's link says of its endpoint: nothing if it may have been dead before.
fn lost(core: &Core, xid: Id<Exchange>) -> Attempted {
    let pooled = beside::of(core, xid).is_some_and(|hedge| hedge.pooled);
    if pooled { Attempted::Unknown } else { Attempted::Lost }
}

/// What the link of a hedge delivered, or its end.
pub fn on_recv(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, outcome: Outcome) {
    let Outcome::Received(lease) = outcome else {
        let lost = lost(core, xid);
        return beside::drop(core, io, xid, lost);
    };
    let Core { exchanges, besides, pool, .. } = core;
    let at = exchanges.get(xid).and_then(|x| x.beside);
    let Some(hedge) = at.and_then(|at| besides.get_mut(at)) else { return pool.give_back(lease) };
    hedge.rx = join(pool, hedge.rx.take(), lease);
    match read(core, xid) {
        Said::Part => {
            if let Some(link) = beside::of(core, xid).and_then(|hedge| hedge.link) {
                link::arm_small_recv(core, io, link);
            }
        }
        Said::Final(status) if !again::is_tried_again(core, xid, status) => {
            beside::win(core, io, xid);
            relay::pump(core, io, id, xid);
        }
        Said::Final(status) => beside::drop(core, io, xid, Attempted::Answered(status)),
        Said::Nonsense => {
            // Unless no buffer held what came.
            let came = beside::of(core, xid).is_some_and(|hedge| hedge.rx.is_some());
            let said = if came { Attempted::Invalid } else { Attempted::Unknown };
            beside::drop(core, io, xid, said);
        }
    }
}

/// What stands at the front of a hedge's bytes.
enum Said {
    /// A part of a head, or nothing any more.
    Part,
    /// A final head, with this status.
    Final(u16),
    /// No answer to what was asked.
    Nonsense,
}

fn read(core: &mut Core, xid: Id<Exchange>) -> Said {
    let Core { exchanges, besides, pool, scratch, .. } = core;
    let Some(x) = exchanges.get(xid) else { return Said::Nonsense };
    let (method, Some(hedge)) = (x.head.method, x.beside.and_then(|at| besides.get_mut(at))) else {
        return Said::Nonsense;
    };
    loop {
        // No buffer held what came.
        let Some(rx) = &mut hedge.rx else { return Said::Nonsense };
        let len = match parse_response(pool.bytes(rx), &mut hedge.scan, method, &mut scratch.response) {
            Ok(Parsed::Complete { len }) => len,
            Ok(Parsed::Partial) => return Said::Part,
            Err(_) => return Said::Nonsense,
        };
        match scratch.response.status {
            101 => return Said::Nonsense,
            100..=199 => {}
            status => return Said::Final(status),
        }
        hedge.interim_count += 1;
        hedge.interim_bytes += len;
        if hedge.interim_count > limits::INTERIM_RESPONSES
            || hedge.interim_bytes > limits::INTERIM_BYTES as usize
        {
            return Said::Nonsense;
        }
        rx.advance(len);
        hedge.scan = Default::default();
        if rx.is_empty() {
            if let Some(rx) = hedge.rx.take() {
                pool.give_back(rx);
            }
            return Said::Part;
        }
    }
}
