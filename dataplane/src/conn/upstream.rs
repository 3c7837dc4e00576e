//! What the link of a conn's exchange or tunnel says, and what the exchange does about it.

use super::{Conn, bulk::down, close, hedge, http1, on_tunnel_fate, relay, reply, tcp};
use crate::core::Core;
use crate::exchange::again::{self, Loss};
use crate::exchange::attempt::{self, Step};
use crate::exchange::{Attempt, Down, Exchange, Up, replay, request, response};
use crate::fault::{CloseReason, Refusal};
use crate::io::{Completion, Errno, Io, Kind, Mono, Outcome};
use crate::link::{self, Link, Owner, Phase as LinkPhase};
use crate::proto::Framing;
use crate::table::Id;
use crate::tunnel::{self, Fate, Side, Tunnel};

/// A completion of one of a link's operations.
pub fn on_completion(core: &mut Core, io: &mut impl Io, id: Id<Link>, completion: Completion) {
    let Some(phase) = core.links.get(id).map(Link::phase) else { return };
    match (completion.token.kind(), completion.outcome) {
        (Kind::LinkConnect, outcome) => on_connect(core, io, id, outcome),
        (Kind::LinkRecv, outcome) => on_recv(core, io, id, phase, outcome),
        (Kind::LinkSend, Outcome::Sent(n)) => on_sent(core, io, id, phase, n),
        (Kind::LinkSend, Outcome::Ready) => on_writable(core, io, id, phase),
        (Kind::LinkSend, outcome) => on_send_failed(core, io, id, &outcome),
        (Kind::LinkClose, _) => link::on_closed(core, id),
        (kind, outcome) => debug_assert!(false, "{kind:?} {outcome:?} came to a link"),
    }
}

/// The exchange that a link is leased to, and its conn.
fn leased_to(core: &Core, id: Id<Link>) -> Option<(Id<Conn>, Id<Exchange>)> {
    match core.links.get(id)?.owner {
        Owner::Exchange(x) => Some((core.conn_of(x)?, x)),
        Owner::None | Owner::Beside(_) | Owner::Tunnel(_) => None,
    }
}

fn tunnel_of(core: &Core, id: Id<Link>) -> Option<(Id<Conn>, Id<Tunnel>)> {
    match core.links.get(id)?.owner {
        Owner::Tunnel(t) => Some((core.tunnels.get(t)?.conn, t)),
        Owner::None | Owner::Beside(_) | Owner::Exchange(_) => None,
    }
}

fn on_connect(core: &mut Core, io: &mut impl Io, id: Id<Link>, outcome: Outcome) {
    let no_port = matches!(outcome, Outcome::Failed(Errno(libc::EADDRNOTAVAIL)));
    if no_port && link::connect::try_next_window(core, io, id) {
        return;
    }
    link::connect::on_ended(core, io, id, matches!(outcome, Outcome::Connected));
    if no_port && link::connect::try_next_source(core, io, id) {
        return;
    }
    if let Some((conn, tunnel)) = tunnel_of(core, id) {
        return tcp::on_connect_ended(core, io, conn, tunnel, &outcome);
    }
    let Some((conn, x)) = leased_to(core, id) else {
        return match hedge::of(core, id) {
            Some((conn, x)) => hedge::on_connect_ended(core, io, conn, x, &outcome),
            None => link::close_when_quiet(core, io, id),
        };
    };
    match outcome {
        Outcome::Connected => {
            attempt::on_connected(core, x);
            take_step(core, io, conn, x, Step::Send);
        }
        outcome => {
            core.stats.connect_failures.add(1);
            let errno = if let Outcome::Failed(errno) = outcome { errno } else { Errno(libc::EIO) };
            lose(core, io, conn, x, Loss::connect(link::connect::refusal_of(errno)));
        }
    }
}

/// Does what an attempt asked for.
pub fn take_step(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, step: Step) {
    match step {
        Step::Wait => {}
        Step::Queue => match attempt::wait(core, xid) {
            // Notice the client leaving.
            Ok(()) => http1::read_ahead(core, io, id),
            Err(refusal) => reply::refuse(core, io, id, refusal),
        },
        Step::Refuse(refusal) => reply::refuse(core, io, id, refusal),
        Step::Respond => relay::pump(core, io, id, xid),
        Step::Send => send_request(core, io, id, xid),
    }
}

fn send_request(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    let now = core.now();
    let link = core.exchanges.get(xid).and_then(|x| x.link);
    let announced = link.map_or(Ok(()), |link| link::announce::announce(core, io, link, id));
    if let Err(refusal) = announced.and_then(|()| request::send_head(core, io, xid)) {
        return reply::refuse(core, io, id, refusal);
    }
    if core.exchanges.get(xid).is_some_and(|x| x.up() == Up::Body && x.body_taken)
        && let Some(link) = link
    {
        match replay::push_held(core, xid, link) {
            Ok(true) => {
                if let Some(x) = core.exchanges.get_mut(xid) {
                    x.enter_up(Up::Done);
                }
            }
            Ok(false) => {}
            Err(refusal) => return reply::refuse(core, io, id, refusal),
        }
        link::flush(core, io, link);
    }
    attempt::await_response(core, io, xid);
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    x.body_since = now;
    if x.up() == Up::Done || x.body_taken {
        return http1::continue_body(core, io, id);
    }
    match core.conns.get_mut(id).and_then(|c| c.rx.take()) {
        Some(lease) => http1::feed(core, io, id, xid, lease),
        None => {
            if let Some(link) = x.link {
                link::flush(core, io, link);
            }
            http1::continue_body(core, io, id);
        }
    }
}

fn lose(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, loss: Loss) {
    let step = again::on_lost(core, io, xid, loss);
    take_step(core, io, id, xid, step);
}

fn on_recv(core: &mut Core, io: &mut impl Io, id: Id<Link>, phase: LinkPhase, outcome: Outcome) {
    if let Some((conn, tunnel)) = tunnel_of(core, id) {
        return on_tunnel_recv(core, io, conn, tunnel, outcome);
    }
    let Some(link) = core.links.get_mut(id) else { return };
    match &outcome {
        Outcome::Received(lease) => link.stream.on_received(lease),
        Outcome::Eof => link.stream.on_eof(),
        Outcome::Ready => link.stream.on_readable(),
        _ => link.stream.on_recv_failed(),
    }
    let leased = leased_to(core, id);
    match (phase, leased, outcome) {
        (LinkPhase::Leased, Some((conn, x)), Outcome::Received(lease)) => {
            match response::receive(core, x, lease) {
                Ok(()) => relay::pump(core, io, conn, x),
                Err(refusal) => on_response_failed(core, io, conn, x, refusal),
            }
        }
        (LinkPhase::Leased, Some((conn, x)), Outcome::Ready) => down::on_readable(core, io, conn, x),
        (LinkPhase::Leased, Some((conn, x)), Outcome::Eof) => {
            on_ended(core, io, conn, x, Refusal::OriginClosed)
        }
        (LinkPhase::Leased, Some((conn, x)), _) => on_ended(core, io, conn, x, Refusal::OriginReset),
        (phase, _, outcome) => {
            if let Some((conn, x)) = hedge::of(core, id) {
                return hedge::on_recv(core, io, conn, x, outcome);
            }
            if let Outcome::Received(lease) = outcome {
                core.pool.give_back(lease);
            }
            if phase == LinkPhase::Idle {
                link::pool::on_recv_while_idle(core, io, id);
            } else {
                link::close_when_quiet(core, io, id);
            }
        }
    }
}

/// The link ended under its exchange.
pub(super) fn on_ended(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, refusal: Refusal) {
    if refusal == Refusal::OriginClosed && response::ends_with_close(core, xid) {
        return relay::finish_by_close(core, io, id, xid);
    }
    match core.exchanges.get(xid).map(Exchange::attempt) {
        Some(Attempt::Sending) => lose(core, io, id, xid, Loss::link(refusal)),
        _ => on_response_failed(core, io, id, xid, refusal),
    }
}

/// The response cannot be had any more: our own answer if the client has seen nothing of it, else a visible cut.
pub fn on_response_failed(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    xid: Id<Exchange>,
    refusal: Refusal,
) {
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    if matches!(x.down(), Down::Waiting | Down::Head) {
        return match again::on_broken(core, io, xid, refusal) {
            Some(step) => take_step(core, io, id, xid, step),
            None => reply::refuse(core, io, id, refusal),
        };
    }
    x.refusal = Some(refusal);
    x.note_end();
    core.stats.refusal(refusal).add(1);
    let until_close = x.down_framing == Framing::UntilClose;
    x.enter_down(Down::Aborted);
    x.abort_up();
    attempt::release(core, io, xid, refusal.into());
    if until_close {
        // Only a reset tells this client that the end is not the end.
        return close::begin(core, io, id, CloseReason::OriginAborted);
    }
    super::flush(core, io, id);
    relay::settle(core, io, id);
}

fn on_sent(core: &mut Core, io: &mut impl Io, id: Id<Link>, phase: LinkPhase, n: u32) {
    if let Some((conn, tunnel)) = tunnel_of(core, id) {
        let fate = tunnel::on_sent(core, io, tunnel, Side::Link, n);
        return on_tunnel_fate(core, io, conn, fate);
    }
    let Some(link) = core.links.get_mut(id) else { return };
    link.wrote = true;
    link.deadlines.end_write();
    link.stream.on_sent(n, &mut core.pool);
    if phase == LinkPhase::Closing {
        return link::close_when_quiet(core, io, id);
    }
    link::flush(core, io, id);
    let Some((conn, x)) = leased_to(core, id) else { return hedge::on_sent(core, id) };
    attempt::time_response(core, x);
    if core.exchanges.get(x).is_some_and(|x| x.up() == Up::Body) {
        http1::continue_body(core, io, conn);
    }
}

/// The origin made room for what is to be spliced.
fn on_writable(core: &mut Core, io: &mut impl Io, id: Id<Link>, phase: LinkPhase) {
    if let Some((conn, tunnel)) = tunnel_of(core, id) {
        let fate = tunnel::on_writable(core, io, tunnel, Side::Link);
        return on_tunnel_fate(core, io, conn, fate);
    }
    let Some(link) = core.links.get_mut(id) else { return };
    link.stream.on_writable();
    link.deadlines.end_write();
    if phase == LinkPhase::Closing {
        return link::close_when_quiet(core, io, id);
    }
    if let Some((conn, x)) = leased_to(core, id)
        && core.exchanges.get(x).is_some_and(|x| x.up() == Up::Body)
    {
        http1::continue_body(core, io, conn);
    }
}

fn on_send_failed(core: &mut Core, io: &mut impl Io, id: Id<Link>, outcome: &Outcome) {
    if let Some((conn, tunnel)) =
        tunnel_of(core, id).filter(|(_, tunnel)| core.tunnels.get(*tunnel).is_some_and(Tunnel::is_open))
    {
        let fate = tunnel::on_send_failed(core, tunnel, Side::Link, outcome);
        return on_tunnel_fate(core, io, conn, fate);
    }
    if let Some(link) = core.links.get_mut(id) {
        link.stream.on_send_failed(&mut core.pool);
        on_link_takes_no_more(core, io, id, outcome);
    }
}

/// The origin takes no more. What it answered may still be on its way: the recv in flight tells.
pub(super) fn on_link_takes_no_more(core: &mut Core, io: &mut impl Io, id: Id<Link>, outcome: &Outcome) {
    let Some(link) = core.links.get_mut(id) else { return };
    link.deadlines.end_write();
    if let Some((conn, _)) = tunnel_of(core, id) {
        return on_tunnel_fate(core, io, conn, Fate::Ends(tunnel::lost(Side::Link, outcome)));
    }
    let receiving = core.links.get(id).is_some_and(|l| l.stream.is_receiving());
    match leased_to(core, id) {
        Some((conn, x)) if !receiving => on_ended(core, io, conn, x, Refusal::OriginReset),
        Some((_, x)) => attempt::time_last_words(core, x),
        None => match hedge::of(core, id) {
            Some((_, x)) => hedge::on_takes_no_more(core, io, x, receiving),
            None => link::close_when_quiet(core, io, id),
        },
    }
}

fn on_tunnel_recv(core: &mut Core, io: &mut impl Io, conn: Id<Conn>, tunnel: Id<Tunnel>, outcome: Outcome) {
    let fate = match outcome {
        Outcome::Received(lease) => tunnel::on_received(core, io, tunnel, Side::Link, lease),
        Outcome::Eof => tunnel::on_eof(core, io, tunnel, Side::Link),
        Outcome::Ready => tunnel::on_readable(core, io, tunnel, Side::Link),
        outcome => tunnel::on_recv_failed(core, tunnel, Side::Link, &outcome),
    };
    on_tunnel_fate(core, io, conn, fate);
}

/// A deadline of a link passed, perhaps.
pub fn on_timer(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let now = core.now();
    let Some(send) = core.links.get(id).map(|l| link::send_timeout(core, l)) else { return };
    let Some(link) = core.links.get_mut(id) else { return };
    link.deadlines.on_fired();
    let read = link.deadlines.read_by <= now;
    let write = link.deadlines.is_write_over(io, link.stream.fd, now, send);
    let phase = link.phase();
    if let Some((conn, tunnel)) = tunnel_of(core, id)
        && phase == LinkPhase::Connecting
        && read
    {
        return tcp::on_lost(core, io, conn, tunnel, Refusal::ConnectTimeout);
    }
    match (phase, leased_to(core, id)) {
        (LinkPhase::Idle, _) => link::pool::on_timer(core, io, id),
        (LinkPhase::Connecting, Some((conn, x))) if read => {
            lose(core, io, conn, x, Loss::connect(Refusal::ConnectTimeout))
        }
        (LinkPhase::Leased, Some((_, x))) if write && !read && give_up_upload(core, id, x) => {
            link::settle(core, id)
        }
        (LinkPhase::Leased, Some((conn, x))) if read || write => {
            let in_body = core.exchanges.get(x).is_some_and(|x| x.down() == Down::Body);
            let refusal = match (read, in_body) {
                (true, true) => Refusal::ResponseBodyTimeout,
                (true, false) => Refusal::ResponseHeaderTimeout,
                (false, _) => Refusal::OriginSendTimeout,
            };
            match core.exchanges.get(x).map(Exchange::attempt) {
                Some(Attempt::Sending) => lose(core, io, conn, x, Loss::timeout(refusal)),
                _ => on_response_failed(core, io, conn, x, refusal),
            }
        }
        (LinkPhase::Leased, Some((conn, x))) => {
            let hedge_by = |core: &Core| core.exchanges.get(x).map_or(Mono::MAX, |x| x.hedge_by);
            if hedge_by(core) <= now {
                hedge::start(core, io, conn, x);
            }
            // The wheel may have fired for what was earlier than both.
            let hedge_by = hedge_by(core);
            link::settle_also(core, id, hedge_by);
        }
        (_, None)
            if (read || write)
                && let Some((_, x)) = hedge::of(core, id) =>
        {
            hedge::on_too_slow(core, io, x);
        }
        _ => link::settle(core, id),
    }
}

/// The origin answers and reads no more of the upload: the response goes on without it. False where nothing answers yet.
fn give_up_upload(core: &mut Core, id: Id<Link>, xid: Id<Exchange>) -> bool {
    let Some(x) = core.exchanges.get_mut(xid) else { return false };
    if x.down() != Down::Body {
        return false;
    }
    x.abort_up();
    x.close_after = true;
    if let Some(link) = core.links.get_mut(id) {
        link.deadlines.end_write();
    }
    true
}
