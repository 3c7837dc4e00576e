//! A request's body, held so that it can be sent again: at most `[cluster.retry] replay_body` of an idempotent one.
//!
//! What is held is what was taken from the client, all of it or nothing. It lies in one lease, which is taken only while
//! half of its class is free, and goes as soon as an answer is passed on.

use super::{Attempt, Exchange, beside, request};
use crate::buf::{Class, Lease, Pool};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::Io;
use crate::link::{self, Link};
use crate::proto::Framing;
use crate::spec::Retry;
use crate::table::Id;

/// Whether, and how much of, a request's body will be held.
pub fn prepare(x: &mut Exchange, policy: &Retry) {
    let fits = match x.up_framing {
        Framing::Length(n) => n > 0 && n <= u64::from(policy.replay_body),
        Framing::Chunked => true,
        Framing::None | Framing::UntilClose => false,
    };
    // Any other is not sent again once a byte of it was.
    let wanted = fits && x.head.method.is_idempotent() && !x.nested;
    x.hold_limit = if wanted { policy.replay_body } else { 0 };
}

/// A piece of the body was taken from the client: it is held with the rest, or none of it any longer.
pub fn hold(pool: &mut Pool, x: &mut Exchange, piece: &Lease) {
    if !x.holds_body() || piece.is_empty() {
        return;
    }
    let held = x.held.as_ref().map_or(0, Lease::len);
    let bytes = held + piece.len();
    if bytes > x.hold_limit as usize {
        return give_up(pool, x);
    }
    if x.held.as_ref().is_none_or(|held| held.spare() < piece.len()) {
        // Of what is here, not of what was announced: who sends little of much must not hold much.
        let larger = Class::for_bytes(bytes).and_then(|class| pool.take_spare(class));
        let Some(mut larger) = larger else { return give_up(pool, x) };
        if let Some(held) = x.held.take() {
            pool.append_lease(&mut larger, &held);
            pool.give_back(held);
        }
        x.held = Some(larger);
    }
    if let Some(held) = &mut x.held {
        pool.append_lease(held, piece);
    }
}

/// Nothing will be sent again, or not from here.
pub fn give_up(pool: &mut Pool, x: &mut Exchange) {
    x.hold_limit = 0;
    if let Some(held) = x.held.take() {
        pool.give_back(held);
    }
}

/// Queues what is held of the body behind a head that was queued on a link; true if that was all of the body.
pub fn push_held(core: &mut Core, id: Id<Exchange>, link: Id<Link>) -> Result<bool, Refusal> {
    let Core { pool, exchanges, links, .. } = core;
    let (Some(x), Some(link)) = (exchanges.get(id), links.get_mut(link)) else { return Ok(false) };
    if !x.body_taken {
        return Ok(false);
    }
    let end = x.up_decoder.is_done();
    let copy = match &x.held {
        Some(held) => pool.copy(held),
        None => pool.take(Class::Tiny),
    };
    let Some(copy) = copy else { return Err(Refusal::BuffersExhausted) };
    request::push_piece(pool, &mut link.stream, x, copy, end)?;
    Ok(end)
}

/// Queues a whole copy of the request on the link of a hedge, and sends it.
pub fn send_copy(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, link: Id<Link>) -> Result<(), Refusal> {
    let now = core.now();
    let endpoint = beside::of(core, id).map(|hedge| hedge.endpoint);
    let head = request::encode(core, id, endpoint)?;
    match core.links.get_mut(link) {
        Some(l) => l.stream.push(head),
        None => core.pool.give_back(head),
    }
    push_held(core, id, link)?;
    if let Some(x) = core.exchanges.get_mut(id) {
        x.copies = x.copies.saturating_add(1);
    }
    if let Some(hedge) = beside::of_mut(core, id) {
        hedge.attempt = Attempt::Sending;
        hedge.sent = now;
    }
    link::flush(core, io, link);
    Ok(())
}
