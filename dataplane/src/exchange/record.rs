//! What the access log says of an exchange.

use super::Exchange;
use crate::buf::Pool;
use crate::conn::Conn;
use crate::core::Core;
use crate::fault::{At, CloseReason, End, Refusal};
use crate::io::{Mono, SocketAddress};
use crate::proto::{FieldName, Version, trace};
use crate::spec::{ListenerId, Protocol, Tracing};
use crate::stats::access_log::Record;
use crate::stats::request_id::RequestId;
use crate::stats::retries::Retries;
use crate::stats::timings::{Phase, Timings};
use crate::stats::traced::Traced;
use crate::table::Id;

/// The record of an exchange that is not over, encoded; none where none will be written.
pub fn encoded(core: &Core, id: Id<Exchange>) -> Option<Box<[u8]>> {
    let x = core.exchanges.get(id)?;
    let conn = logged(core, x)?;
    let mut bytes = Vec::new();
    let (id, tracing) = (core.request_id(x.number), x.tracing(&core.snapshot));
    of(&core.pool, x, conn, id, core.now(), tracing).encode(&mut bytes);
    Some(bytes.into_boxed_slice())
}

/// Writes the record of an exchange that is over.
pub fn write(core: &mut Core, id: Id<Exchange>, close: Option<CloseReason>) {
    let Some(x) = core.exchanges.get(id) else { return };
    let Some(conn) = logged(core, x) else { return };
    let (id, tracing) = (core.request_id(x.number), x.tracing(&core.snapshot));
    let record = of(&core.pool, x, conn, id, core.now(), tracing);
    let end = end(x, close);
    core.log.write(&Record { close, end, ..record });
}

/// The conn of an exchange, if its listener's requests are logged, or it is a span.
fn logged<'a>(core: &'a Core, x: &Exchange) -> Option<&'a Conn> {
    let conn = core.conns.get(x.conn)?;
    let traced = x.tracing(&core.snapshot).is_some();
    (traced || core.snapshot.listener(conn.listener).is_some_and(|l| l.access_log)).then_some(conn)
}

/// All that is known now.
fn of<'a>(
    pool: &'a Pool,
    x: &'a Exchange,
    conn: &Conn,
    request_id: RequestId,
    now: Mono,
    tracing: Option<Tracing>,
) -> Record<'a> {
    let empty: &[u8] = &[];
    let bytes = x.head_bytes.as_ref().map_or(empty, |lease| pool.bytes(lease));
    let names = x.head.names;
    let field = |kind: FieldName| {
        let fields = if names.has(kind) { &x.head.fields[..] } else { &[] };
        fields.iter().find(|f| f.kind == kind).map(|f| f.value.of(bytes))
    };
    let trace = trace::of_head(&x.head, bytes);
    Record {
        protocol: Protocol::Http,
        wall_ns: x.started_wall,
        request_id,
        listener: conn.listener,
        route: x.route,
        cluster: x.cluster,
        endpoint: x.endpoint,
        peer: conn.peer,
        upstream_local: x.upstream_local,
        method: x.head.method_text.of(bytes),
        host: x.head.host.of(bytes),
        path: x.head.path.of(bytes),
        query: x.head.query.map(|q| q.of(bytes)),
        user_agent: field(FieldName::UserAgent),
        referer: field(FieldName::Referer),
        trace,
        span: tracing.map(|tracing| Traced::of(&tracing, request_id, trace)),
        minor_version: u8::from(x.head.version == Version::Http11),
        status: x.status,
        request_body_bytes: x.up_bytes,
        response_body_bytes: x.down_bytes,
        timings: timings(x, now),
        attempts: x.attempts,
        retries: x.retried,
        link_reused: x.pooled,
        refusal: x.refusal,
        close: None,
        end: End::WELL,
        request_number: x.on_conn,
        tunnel_up_bytes: 0,
        tunnel_down_bytes: 0,
    }
}

/// Who ended it, and where.
fn end(x: &Exchange, close: Option<CloseReason>) -> End {
    match (x.refusal, x.ended_at, close) {
        (Some(refusal), at, _) => End::of_refusal(refusal, at.unwrap_or(At::Data)),
        (None, Some(at), Some(close)) => End::of_close(close, at),
        // Only a route answers what goes to no cluster.
        (None, None, _) if x.cluster.is_none() => End::LOCAL,
        (None, _, _) => End::WELL,
    }
}

/// How long each phase took that ended by now. All are differences of moments in whole microseconds since the begin, so
/// that they add up.
pub(super) fn timings(x: &Exchange, now: Mono) -> Timings {
    let at = |moment: Mono| moment.since(x.started) / 1000;
    let mut timings = Timings::of_total(at(now));
    let (head, queue) = (u64::from(x.head_us), x.queue_us.map(u64::from));
    timings.set(Phase::Head, head);
    if let Some(queue) = queue {
        timings.set(Phase::Queue, queue);
    }
    // An attempt for which not even a socket was to be had began at no time.
    if x.attempt_since < x.started {
        return timings;
    }
    let begun = at(x.attempt_since);
    if x.attempts > 1 {
        timings.set(Phase::Lost, begun.saturating_sub(head + queue.unwrap_or(0)));
    }
    let Some(reached) = (if x.pooled { Some(begun) } else { x.connected.map(at) }) else { return timings };
    if !x.pooled {
        timings.set(Phase::Connect, reached.saturating_sub(begun));
    }
    if let Some(first) = x.first_byte.map(at) {
        timings.set(Phase::Response, first.saturating_sub(reached));
        timings.set(Phase::Transfer, timings.total_us.saturating_sub(first));
    }
    timings
}

/// Writes the record of a connection that ended before its first request, for a reason that its peer should know of.
pub fn write_closed(core: &mut Core, listener: ListenerId, peer: SocketAddress, reason: CloseReason) {
    if !core.snapshot.listener(listener).is_some_and(|l| l.access_log) {
        return;
    }
    let number = core.next_request;
    core.next_request += 1;
    let end = End::of_close(reason, At::Request);
    core.log.write(&Record { close: Some(reason), end, ..bare(core, listener, peer, number) });
}

/// A request that was refused before it was one: its head, which began to come then, was never complete, or broke a rule.
#[derive(Debug)]
pub struct Refused {
    pub listener: ListenerId,
    pub peer: SocketAddress,
    /// Of the request.
    pub number: u64,
    pub refusal: Refusal,
    /// Which request of its connection it is.
    pub on_conn: u64,
    pub began: Mono,
}

/// Writes the record of such a request, with what `scratch.request` says of the bytes that its conn holds.
pub fn write_refused(core: &mut Core, id: Id<Conn>, it: &Refused) {
    if !core.snapshot.listener(it.listener).is_some_and(|l| l.access_log) {
        return;
    }
    let took = core.now().since(it.began);
    let bare = bare(core, it.listener, it.peer, it.number);
    let head = &core.scratch.request;
    let held = core.conns.get(id).and_then(|conn| conn.rx.as_ref());
    let bytes = held.map_or(&[][..], |lease| core.pool.bytes(lease));
    core.log.write(&Record {
        wall_ns: core.clock.wall.saturating_sub(took),
        timings: Timings::of_total(took / 1000),
        method: head.method_text.of(bytes),
        host: head.host.of(bytes),
        path: head.path.of(bytes),
        query: head.query.map(|query| query.of(bytes)),
        minor_version: u8::from(head.version == Version::Http11),
        status: it.refusal.status(),
        refusal: Some(it.refusal),
        close: Some(CloseReason::Refused),
        end: End::of_refusal(it.refusal, At::Request),
        request_number: it.on_conn,
        ..bare
    });
}

/// Of a connection and nothing else.
fn bare(core: &Core, listener: ListenerId, peer: SocketAddress, number: u64) -> Record<'static> {
    Record {
        protocol: Protocol::Http,
        wall_ns: core.clock.wall,
        request_id: core.request_id(number),
        listener,
        route: None,
        cluster: None,
        endpoint: None,
        peer,
        upstream_local: None,
        method: &[],
        host: &[],
        path: &[],
        query: None,
        user_agent: None,
        referer: None,
        trace: None,
        span: None,
        minor_version: 1,
        status: 0,
        request_body_bytes: 0,
        response_body_bytes: 0,
        timings: Timings::of_total(0),
        attempts: 0,
        retries: Retries::NONE,
        link_reused: false,
        refusal: None,
        close: None,
        end: End::WELL,
        request_number: 0,
        tunnel_up_bytes: 0,
        tunnel_down_bytes: 0,
    }
}
