//! The response, piece by piece, onto the conn: encoded as HTTP/1 for this client. An HTTP/2 conn will have its own.

use super::{Conn, Ends, Phase, bulk::down, close, flush, http1, upstream};
use crate::buf::{Class, Lease, Pool};
use crate::cluster::outcome::Outcome;
use crate::core::Core;
use crate::exchange::request::{QUEUE_HIGH, push_last_chunk};
use crate::exchange::response::{self, Next};
use crate::exchange::{Down, Exchange, Up, again, attempt, beside, measure, record};
use crate::fault::{CloseReason, Refusal};
use crate::io::{Expect, Io};
use crate::limits;
use crate::link::{self, Owner, Phase as LinkPhase};
use crate::proto::http1::{ResponseEdits, encode_response, frame_chunk};
use crate::proto::{Framing, Version};
use crate::stream::Stream;
use crate::table::Id;
use crate::tunnel::upgraded::Upgraded;
use crate::tunnel::{self, Tunnel};

/// Takes every piece that the exchange has and queues it; then sends, and sees what the exchange needs next.
pub fn pump(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    loop {
        match response::next(core, xid) {
            Next::NeedMore => break,
            Next::Interim => write_interim(core, id, xid),
            Next::Head => {
                if let Some(step) = again::on_answer(core, io, xid) {
                    flush(core, io, id);
                    return upstream::take_step(core, io, id, xid, step);
                }
                beside::cancel(core, io, xid);
                if let Err(refusal) = write_head(core, id, xid) {
                    return upstream::on_response_failed(core, io, id, xid, refusal);
                }
            }
            Next::Upgraded => {
                beside::cancel(core, io, xid);
                return upgrade(core, io, id, xid);
            }
            Next::Data(lease, end) => {
                if !write_data(core, id, xid, lease, end) {
                    return upstream::on_response_failed(core, io, id, xid, Refusal::BuffersExhausted);
                }
                if end {
                    on_end(core, io, xid);
                    break;
                }
            }
            Next::Failed(refusal) => return upstream::on_response_failed(core, io, id, xid, refusal),
        }
    }
    flush(core, io, id);
    resume(core, io, id, xid);
    settle(core, io, id);
}

/// Arms the link's recv for more of the response while the client keeps up.
fn resume(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let now = core.now();
    if down::is_wanted(core, id, xid) {
        return down::drive(core, io, id, xid);
    }
    let (Some(conn), Some(x)) = (core.conns.get(id), core.exchanges.get(xid)) else { return };
    let (Some(link), false) = (x.link, x.down().is_over()) else { return };
    let Some(timeouts) = x.timeouts else { return };
    let in_body = x.down() == Down::Body;
    // An interim response may be followed by another that the client waits for: none is read before the last is out.
    let keeps_up = conn.stream.queued() < if in_body { QUEUE_HIGH } else { 1 };
    if let Some(l) = core.links.get_mut(link)
        && in_body
    {
        // While the client holds us up the origin is not slow.
        l.deadlines.read_by = if keeps_up { now.after(timeouts.response_body) } else { crate::io::Mono::MAX };
    }
    if keeps_up {
        if in_body {
            link::arm_recv(core, io, link, Expect::Now);
        } else {
            link::arm_small_recv(core, io, link);
        }
        link::settle(core, link);
    }
}

/// The client took bytes: more may follow, or the exchange may be over.
pub fn on_sent(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    flush(core, io, id);
    if let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) {
        resume(core, io, id, xid);
    }
    settle(core, io, id);
}

/// Ends the exchange once both halves are over and the client has every byte; then the next request, or the end.
pub fn settle(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get(id) else { return };
    let Some(x) = conn.exchange.and_then(|x| core.exchanges.get(x)) else { return };
    if conn.phase() != Phase::Serving || !conn.stream.is_drained() {
        return;
    }
    if x.down().is_over() && !x.is_over() {
        return on_answered_early(core, io, id);
    }
    if !x.is_over() {
        return;
    }
    // A client that meant to go on may have sent more already: closing on that would reset what we answered. So would closing
    // on what came behind the last request, for which nothing may have been receiving.
    let unread = x.up() == Up::Aborted
        || conn.rx.is_some()
        || !conn.stream.is_eof()
            && (x.head.keep_alive
                || x.close_after
                    && !conn.stream.is_receiving()
                    && io.unread(conn.stream.fd).is_ok_and(|n| n > 0));
    let cut = x.down() == Down::Aborted;
    let (close, refused, until_close) =
        (x.close_after, x.refusal.is_some(), x.down_framing == Framing::UntilClose);
    let reason = match () {
        () if cut => CloseReason::OriginAborted,
        () if core.draining || conn.ends.leaves() => CloseReason::Drained,
        () if conn.ends == Ends::EXPIRED => CloseReason::Lifetime,
        () if until_close => CloseReason::OriginAnsweredClose,
        () => CloseReason::KeepAliveEnded,
    };
    close::end_exchange(
        core,
        io,
        id,
        (close || cut).then_some(if refused && !cut { CloseReason::Refused } else { reason }),
    );
    core.stats.responses.add(1);
    if cut {
        close::begin(core, io, id, reason);
    } else if close && refused {
        close::linger(core, io, id, None);
    } else if close && unread {
        close::linger(core, io, id, Some(reason));
    } else if close {
        close::begin(core, io, id, reason);
    } else {
        next_request(core, io, id);
    }
}

fn next_request(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.rx.is_some()
        && let Some(spec) = core.snapshot.listener(conn.listener)
    {
        // Its first byte is here already: the head's deadline runs from now.
        conn.deadlines.read_by = now.after(spec.timeouts.request_header);
        super::deadline::settle(core, id);
    }
    http1::advance(core, io, id);
}

/// The response is out and the request's body is not in: skip a short rest, give up a long one.
fn on_answered_early(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else { return };
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    if x.up() == Up::Drain {
        return;
    }
    if x.close_after || !x.rest_is_small() {
        x.close_after = true;
        x.enter_up(Up::Aborted);
        return settle(core, io, id);
    }
    x.enter_up(Up::Drain);
    if x.up_decoder.is_done() {
        x.enter_up(Up::Done);
        return settle(core, io, id);
    }
    match core.conns.get_mut(id).and_then(|c| c.rx.take()) {
        Some(lease) => http1::feed(core, io, id, xid, lease),
        None => http1::continue_body(core, io, id),
    }
}

/// The last piece of the response is queued.
pub(super) fn on_end(core: &mut Core, io: &mut impl Io, xid: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.enter_down(Down::Done);
        x.enter_attempt(crate::exchange::Attempt::Ended);
    }
    attempt::give_back(core, io, xid);
}

/// The origin ended a close-delimited body by closing: that is its proper end.
pub fn finish_by_close(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if !write_data(core, id, xid, None, true) {
        return upstream::on_response_failed(core, io, id, xid, Refusal::BuffersExhausted);
    }
    on_end(core, io, xid);
    flush(core, io, id);
    settle(core, io, id);
}

/// Encodes the head at the front of `link_rx` for this client.
fn encode(core: &mut Core, id: Id<Conn>, xid: Id<Exchange>, interim: bool) -> Option<Lease> {
    let Core { pool, exchanges, conns, clusters, snapshot, date, draining, .. } = core;
    let x = exchanges.get_mut(xid)?;
    let runtime = x.cluster.and_then(|c| clusters.get(usize::from(c.0))?.as_ref());
    let source = x.link_rx.as_ref()?;
    let conn = conns.get(id)?;
    if conn.stream.is_eof() && conn.rx.is_none() || *draining || conn.ends != Ends::NOT_YET {
        x.close_after = true;
    }
    let upgrade = x.response.upgrade_websocket && x.response.status == 101;
    let edits = ResponseEdits {
        version: x.head.version,
        framing: x.down_framing,
        close: x.close_after && !upgrade,
        keep_alive_10: !x.close_after && x.head.version == Version::Http10,
        upgrade,
        via: &snapshot.runtime.node,
        date: if interim { &[] } else { date.text() },
        sticky: runtime.and_then(|runtime| response::sticky(x, &runtime.state)),
    };
    for class in
        [Class::for_bytes(x.head_len + limits::HEAD_ADDED_BYTES.min(512))?.max(Class::Small), Class::Large]
    {
        let mut lease = pool.take(class)?;
        let (bytes, target) = pool.pair(source, &mut lease);
        if let Some(n) = encode_response(&x.response, bytes, &edits, target) {
            lease.extend(n);
            return Some(lease);
        }
        pool.give_back(lease);
    }
    None
}

fn write_head(core: &mut Core, id: Id<Conn>, xid: Id<Exchange>) -> Result<(), Refusal> {
    if let Some(x) = core.exchanges.get_mut(xid) {
        response::accept(&mut core.pool, x);
    }
    let lease = encode(core, id, xid, false).ok_or(Refusal::BuffersExhausted)?;
    down::on_head(core, xid);
    let Core { pool, exchanges, conns, .. } = core;
    let (Some(x), Some(conn)) = (exchanges.get_mut(xid), conns.get_mut(id)) else {
        pool.give_back(lease);
        return Ok(());
    };
    x.status = x.response.status;
    x.enter_down(Down::Body);
    response::head_taken(pool, x);
    conn.stream.push(lease);
    Ok(())
}

/// Passes an interim response on (RFC 9110 15.2): not to HTTP/1.0, and only while nothing else waits to be sent, because
/// it is advice and must not take the response's room.
fn write_interim(core: &mut Core, id: Id<Conn>, xid: Id<Exchange>) {
    let wanted = core.exchanges.get(xid).is_some_and(|x| x.head.version == Version::Http11);
    let room = core.conns.get(id).is_some_and(|c| c.stream.queued() == 0 || !c.stream.is_sending());
    let lease = if wanted && room { encode(core, id, xid, true) } else { None };
    let Core { pool, exchanges, conns, .. } = core;
    if let Some(lease) = lease {
        match conns.get_mut(id).map(|c| &mut c.stream) {
            Some(stream) if stream.queued() == 0 => stream.push(lease),
            Some(stream) => {
                if let Some(back) = stream.back_mut().filter(|back| back.spare() >= lease.len()) {
                    pool.append_lease(back, &lease);
                }
                pool.give_back(lease);
            }
            None => pool.give_back(lease),
        }
    }
    if let Some(x) = exchanges.get_mut(xid) {
        response::head_taken(pool, x);
    }
    let invited = |x: &Exchange| x.response.status == 100 && x.up() == Up::Body && !x.body_taken;
    if core.exchanges.get(xid).is_some_and(invited) {
        // The client may have waited for this before it sent its body: the body's time begins now.
        super::deadline::on_body_invited(core, id);
        attempt::time_response(core, xid);
    }
}

/// Queues a piece of the body, framed for this client; false when buffers ran out.
fn write_data(core: &mut Core, id: Id<Conn>, xid: Id<Exchange>, lease: Option<Lease>, end: bool) -> bool {
    let Core { pool, exchanges, conns, .. } = core;
    let (Some(x), Some(conn)) = (exchanges.get_mut(xid), conns.get_mut(id)) else {
        if let Some(lease) = lease {
            pool.give_back(lease);
        }
        return true;
    };
    let chunked = x.down_framing == Framing::Chunked;
    let trailers = x.down_trailers.as_deref().filter(|t| end && !t.is_empty()).map(Vec::as_slice);
    let mut ended = !end || !chunked;
    if let Some(mut lease) = lease {
        if chunked {
            let last = end && trailers.is_none();
            frame_chunk(&mut lease, pool, last);
            ended |= last;
        }
        append(pool, &mut conn.stream, lease);
    }
    ended || push_last_chunk(pool, &mut conn.stream, trailers).is_ok()
}

/// A small piece joins the head in its lease, so that one plain send carries both.
fn append(pool: &mut Pool, stream: &mut Stream, lease: Lease) {
    if let Some(back) = stream.back_mut()
        && back.spare() >= lease.len()
    {
        pool.append_lease(back, &lease);
        pool.give_back(lease);
        return;
    }
    stream.push(lease);
}

/// The origin switched protocols and the client asked for it: a tunnel from here on, and not before (threat U03).
fn upgrade(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let Some(lease) = encode(core, id, xid, false) else {
        return upstream::on_response_failed(core, io, id, xid, Refusal::BuffersExhausted);
    };
    let Core { pool, exchanges, conns, links, .. } = core;
    let (Some(x), Some(conn)) = (exchanges.get_mut(xid), conns.get_mut(id)) else {
        return pool.give_back(lease);
    };
    x.status = x.response.status;
    response::head_taken(pool, x);
    conn.stream.push(lease);
    let mut carried = (0, 0);
    if let Some(glued) = x.link_rx.take() {
        carried.1 = glued.len() as u64;
        conn.stream.push(glued);
    }
    x.enter_down(Down::Done);
    let (ahead, eof) = (conn.rx.take(), conn.stream.is_eof());
    let Some(link) = x.link else { return };
    if let Some(l) = links.get_mut(link) {
        // Bytes that came behind the request belong to the new protocol now that the origin agreed to it.
        if let Some(ahead) = ahead {
            carried.0 = ahead.len() as u64;
            l.stream.push(ahead);
        }
        if eof {
            l.stream.finish();
        }
        l.enter(LinkPhase::Tunnel);
        l.deadlines.cancel(&mut core.wheel);
    }
    attempt::detach(core, xid, Outcome::Answered(101));
    measure::upgraded(core, xid);
    let was = kept(core, xid);
    close::free_exchange(core, io, id);
    start_tunnel(core, io, id, Tunnel::new(id, link, carried, was));
}

/// What a tunnel must know of the exchange that it was.
fn kept(core: &Core, xid: Id<Exchange>) -> Option<Box<Upgraded>> {
    let x = core.exchanges.get(xid)?;
    let usual = x.cluster.and_then(|cluster| core.snapshot.cluster(cluster)).map(|c| c.timeouts.send);
    let send = x.timeouts.map(|t| t.send).filter(|send| Some(*send) != usual);
    Upgraded { send, started: x.started, record: record::encoded(core, xid) }.boxed()
}

fn start_tunnel(core: &mut Core, io: &mut impl Io, id: Id<Conn>, tunnel: Tunnel) {
    let link = tunnel.link;
    let Ok(tid) = core.tunnels.insert(tunnel) else { unreachable!("there are as many tunnels as conns") };
    if let Some(l) = link.and_then(|l| core.links.get_mut(l)) {
        l.owner = Owner::Tunnel(tid);
    }
    if let Some(conn) = core.conns.get_mut(id) {
        conn.tunnel = Some(tid);
        conn.enter(Phase::Tunnel);
        conn.deadlines.read_by = crate::io::Mono::MAX;
        conn.deadlines.end_write();
    }
    tunnel::start(core, io, tid);
    super::deadline::settle(core, id);
    super::moving::begin(core, io, id);
}
