//! A complete head becomes an exchange: its checks, its route, and what the route says.

use super::{Conn, Ends, deadline, http1, reply, upstream};
use crate::buf::{Lease, Pool};
use crate::cluster::balance::Hint;
use crate::core::Core;
use crate::exchange::{Attempt, Exchange, attempt, replay};
use crate::fault::Refusal;
use crate::io::{Io, Mono};
use crate::proto::http1::{BodyDecoder, via_names};
use crate::proto::{FieldName, Framing, Method, RequestHead, trace};
use crate::route;
use crate::spec::{Action, Cluster, ClusterId, ClusterTimeouts, Route, RouteId};
use crate::stats::traced;
use crate::table::Id;
use std::sync::Arc;

/// `scratch.request` holds a checked head of `len` bytes at the front of the conn's lease.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Conn>, len: usize) {
    let listener = core.conns.get(id).and_then(|c| core.snapshot.listener(c.listener));
    let Some(limits) = listener.map(|l| l.limits) else { return };
    let Some((head_bytes, rest)) = split(core, id, len) else {
        return reply::refuse_head(core, io, id, Refusal::BuffersExhausted);
    };
    let (mut head, mut response) = core.spare_heads.pop().unwrap_or_default();
    response.clear();
    std::mem::swap(&mut head, &mut core.scratch.request);
    let number = core.next_request;
    core.next_request += 1;
    core.stats.requests.add(1);
    let traced = core.snapshot.tracing.is_some_and(|tracing| {
        let parent = trace::of_head(&head, core.pool.bytes(&head_bytes));
        traced::takes(&tracing, core.request_id(number), parent)
    });
    let now = core.clock;
    let began = deadline::head_began(core, id);
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.rx = rest;
    conn.scan = Default::default();
    conn.requests = conn.requests.saturating_add(1);
    conn.deadlines.read_by = Mono::MAX;
    // Made where it stands and filled there: what was just written in small pieces would be read back to be moved.
    let Ok(xid) = core.exchanges.insert(Exchange::new(id)) else {
        unreachable!("there are as many exchanges as conns")
    };
    conn.exchange = Some(xid);
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    x.close_after = !head.keep_alive
        || core.draining
        || conn.ends != Ends::NOT_YET
        || u64::from(conn.requests) >= limits.requests_per_connection;
    x.up_decoder = BodyDecoder::new(head.framing);
    x.up_framing = head.framing;
    x.body_limit = limits.request_body;
    x.body_since = now.mono;
    x.traced = traced;
    x.head = head;
    x.response = response;
    x.head_bytes = Some(head_bytes);
    x.number = number;
    x.on_conn = u64::from(conn.requests);
    let took = now.mono.since(began);
    x.started = began;
    x.started_wall = now.wall.saturating_sub(took);
    x.head_us = u32::try_from(took / 1000).unwrap_or(u32::MAX);
    decide(core, io, id, xid);
}

/// Cuts the head off what is held. The smaller part is copied, so that pipelined requests cost no more copying than
/// they have bytes.
fn split(core: &mut Core, id: Id<Conn>, len: usize) -> Option<(Lease, Option<Lease>)> {
    let Core { conns, pool, .. } = core;
    let conn = conns.get_mut(id)?;
    let mut lease = conn.rx.take()?;
    if lease.len() == len {
        return Some((lease, None));
    }
    let parts = cut(pool, &mut lease, len);
    match parts {
        Some((other, true)) => Some((other, Some(lease))),
        Some((other, false)) => Some((lease, Some(other))),
        None => {
            conn.rx = Some(lease);
            None
        }
    }
}

/// The new lease, and whether it is the head (then `lease` keeps the rest) or the rest.
fn cut(pool: &mut Pool, lease: &mut Lease, len: usize) -> Option<(Lease, bool)> {
    if len <= lease.len() - len {
        let mut head = pool.take(crate::buf::Class::for_bytes(len)?)?;
        let (source, target) = pool.pair(lease, &mut head);
        target[..len].copy_from_slice(&source[..len]);
        head.extend(len);
        lease.advance(len);
        Some((head, true))
    } else {
        Some((pool.split_off(lease, len)?, false))
    }
}

/// What the request is answered with, or where it goes.
fn decide(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>) {
    if let Some(refusal) = check(core, xid) {
        return reply::refuse(core, io, id, refusal);
    }
    core.count_available();
    match find(core, id, xid) {
        None => reply::refuse(core, io, id, Refusal::NoRoute),
        Some(Chosen::Forward(route, cluster, timeouts)) => {
            if let Some(x) = core.exchanges.get_mut(xid) {
                x.route = route;
            }
            forward(core, io, id, xid, cluster, timeouts);
        }
        Some(Chosen::Own(route)) => {
            if let Some(x) = core.exchanges.get_mut(xid) {
                x.route = Some(route.id);
            }
            reply::by_route(core, io, id, &route);
        }
    }
}

/// Refusals that need the whole head and no route.
fn check(core: &Core, xid: Id<Exchange>) -> Option<Refusal> {
    core.exchanges.get(xid).and_then(|x| refusal_of(&x.head, x.body_limit))
}

/// The same of a head, where bodies may have `body_limit` bytes.
pub fn refusal_of(head: &RequestHead, body_limit: u64) -> Option<Refusal> {
    if head.method == Method::Options && head.max_forwards == Some(0) {
        return Some(Refusal::MaxForwards);
    }
    if let Framing::Length(n) = head.framing
        && n > body_limit
    {
        return Some(Refusal::RequestBodyTooLarge);
    }
    None
}

/// What a request's route says, or its listener's cluster where no route takes it.
enum Chosen {
    Forward(Option<RouteId>, ClusterId, ClusterTimeouts),
    /// Rare enough to hold the route by its count; a forwarded request touches no count that shards share.
    Own(Arc<Route>),
}

fn find(core: &Core, id: Id<Conn>, xid: Id<Exchange>) -> Option<Chosen> {
    let (conn, x) = (core.conns.get(id)?, core.exchanges.get(xid)?);
    let bytes = core.pool.bytes(x.head_bytes.as_ref()?);
    let (listener, source, available) = (conn.listener, conn.peer.ip(), &core.available);
    let request = route::Request { listener, head: &x.head, bytes, source, available };
    let Some(route) = core.routes.find(&request) else {
        let cluster = core.snapshot.listener(conn.listener)?.cluster?;
        return Some(Chosen::Forward(None, cluster, core.snapshot.cluster(cluster)?.timeouts));
    };
    let route = core.shared.in_force(route);
    match &route.action {
        Action::Forward { cluster, response_header, response_body, send, connect, queue } => {
            let base = core.snapshot.cluster(*cluster)?.timeouts;
            let timeouts = ClusterTimeouts {
                connect: connect.unwrap_or(base.connect),
                response_header: response_header.unwrap_or(base.response_header),
                response_body: response_body.unwrap_or(base.response_body),
                send: send.unwrap_or(base.send),
                queue: queue.unwrap_or(base.queue),
            };
            Some(Chosen::Forward(Some(route.id), *cluster, timeouts))
        }
        Action::Respond(_) | Action::Redirect(_) => Some(Chosen::Own(route.clone())),
    }
}

/// Our own pseudonym is in Via: what we are about to forward came from us (threat H04). Answering it ourselves is no loop.
fn is_loop(core: &Core, xid: Id<Exchange>) -> bool {
    let Some(x) = core.exchanges.get(xid) else { return false };
    let bytes = x.head_bytes.as_ref().map_or(&[][..], |lease| core.pool.bytes(lease));
    via_names(&x.head, bytes, &core.snapshot.runtime.node)
}

/// What the cluster's policy asks of the request; most ask nothing.
fn hint(core: &Core, id: Id<Conn>, xid: Id<Exchange>, cluster: ClusterId) -> Hint {
    let asks = |c: &&Arc<Cluster>| c.hash.is_some() || c.sticky.is_some();
    let Some(cluster) = core.snapshot.cluster(cluster).filter(asks) else { return Hint::default() };
    let (Some(conn), Some(x)) = (core.conns.get(id), core.exchanges.get(xid)) else { return Hint::default() };
    let bytes = x.head_bytes.as_ref().map_or(&[][..], |lease| core.pool.bytes(lease));
    Hint::of_request(cluster, &x.head, bytes, conn.peer.ip())
}

fn forward(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    xid: Id<Exchange>,
    cluster: ClusterId,
    timeouts: ClusterTimeouts,
) {
    if is_loop(core, xid) {
        return reply::refuse(core, io, id, Refusal::Loop);
    }
    let hint = hint(core, id, xid, cluster);
    let Core { snapshot, exchanges, .. } = core;
    let (Some(spec), Some(x)) = (snapshot.cluster(cluster), exchanges.get_mut(xid)) else { return };
    let pass_trailers = spec.pass_trailers;
    x.nested = x.head.names.has(FieldName::RingwayAttempt);
    if let Some(policy) = &spec.retry {
        replay::prepare(x, policy);
        x.timed = policy.hedge_after.is_some();
        x.may_hedge = x.timed && x.head.method.is_idempotent() && !x.nested && !x.head.upgrade_websocket;
    }
    x.cluster = Some(cluster);
    x.timeouts = Some(timeouts);
    x.pass_trailers = pass_trailers;
    x.hint = hint;
    if pass_trailers && x.up_framing == Framing::Chunked {
        x.up_trailers = Some(Box::default());
    }
    let step = attempt::start(core, io, xid);
    upstream::take_step(core, io, id, xid, step);
    if core.exchanges.get(xid).is_some_and(|x| x.attempt() == Attempt::Connecting && x.up_decoder.is_done()) {
        // Nothing more is awaited from the client: notice it leaving while we connect.
        http1::read_ahead(core, io, id);
    }
}
