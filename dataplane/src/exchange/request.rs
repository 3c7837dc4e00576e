//! The request half: its head, regenerated, and its body, decoded and framed anew, onto the link.

use super::{Exchange, Up, replay};
use crate::buf::{Class, Lease, Pool};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::Io;
use crate::limits;
use crate::link;
use crate::proto::http1::{
    self, LAST_CHUNK, RequestEdits, SpanEdits, encode_request, frame_chunk, write_trailers,
};
use crate::proto::{Framing, trace};
use crate::spec::{Cluster, EndpointId, ForwardedMode, HostPolicy};
use crate::stats::traced::Traced;
use crate::stream::Stream;
use crate::table::Id;

pub use crate::limits::QUEUE_HIGH;

/// Encodes the head for the exchange's link and queues it.
pub fn send_head(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> Result<(), Refusal> {
    let lease = encode(core, id, core.exchanges.get(id).and_then(|x| x.endpoint))?;
    let now = core.now();
    let Some(x) = core.exchanges.get_mut(id) else {
        core.pool.give_back(lease);
        return Ok(());
    };
    let next = if matches!(x.up_framing, Framing::None | Framing::Length(0)) { Up::Done } else { Up::Body };
    x.enter_up(next);
    x.copies = x.copies.saturating_add(1);
    x.sent = now;
    let link = x.link;
    match link.and_then(|l| core.links.get_mut(l)) {
        Some(l) => {
            x.upstream_local = l.local;
            l.stream.push(lease);
        }
        None => core.pool.give_back(lease),
    }
    if next == Up::Done
        && let Some(l) = link
    {
        link::flush(core, io, l);
    }
    Ok(())
}

/// The request's head as one endpoint gets it. Inlined: as a result in memory a lease is read back in other pieces than it
/// was written in, which waits for the stores before it.
#[inline(always)]
pub(super) fn encode(
    core: &mut Core,
    id: Id<Exchange>,
    endpoint: Option<EndpointId>,
) -> Result<Lease, Refusal> {
    let Some(x) = core.exchanges.get(id) else { return Err(Refusal::NoEndpoint) };
    let Some(bytes) = &x.head_bytes else { return Err(Refusal::BuffersExhausted) };
    let Some(conn) = core.conns.get(x.conn) else { return Err(Refusal::NoEndpoint) };
    let Some(listener) = core.snapshot.listener(conn.listener) else { return Err(Refusal::NoRoute) };
    let cluster = x.cluster.and_then(|c| core.snapshot.cluster(c));
    let host = cluster.and_then(|c| match &c.host {
        HostPolicy::Pass => None,
        HostPolicy::Endpoint => {
            endpoint.and_then(|e| c.endpoints.get(usize::from(e.0))).map(|e| &*e.authority)
        }
        HostPolicy::Name(name) => Some(&**name),
    });
    let peer = conn.peer.ip();
    let trusted = match peer {
        Some(peer) => listener.forwarded.trusted.iter().any(|net| net.contains(peer)),
        None => listener.forwarded.trusts_unix,
    };
    let span = x.tracing(&core.snapshot).map(|tracing| {
        let parent = trace::of_head(&x.head, core.pool.bytes(bytes));
        let span = Traced::of(&tracing, core.request_id(x.number), parent);
        (span.to_origin(parent).text(), parent.is_some())
    });
    let edits = RequestEdits {
        host: host.map(str::as_bytes),
        peer,
        forwarded: match listener.forwarded.mode {
            ForwardedMode::Append if trusted => http1::ForwardedMode::Append,
            ForwardedMode::Append | ForwardedMode::Replace => http1::ForwardedMode::Replace,
            ForwardedMode::Off => http1::ForwardedMode::Off,
        },
        trusted,
        scheme: "http",
        via: &core.snapshot.runtime.node,
        // A count of another proxy's passes as it is.
        copy: (x.copies > 0 && !x.nested).then_some(x.copies.saturating_add(1)),
        framing: x.up_framing,
        upgrade: x.head.upgrade_websocket,
        te_trailers: x.head.te_trailers && cluster.is_some_and(|c| c.pass_trailers),
        hidden_cookie: cluster.and_then(|c| hidden_cookie(c)),
        span: span.as_ref().map(|(parent, goes_on)| SpanEdits { parent, goes_on: *goes_on }),
    };
    let Some(class) = Class::for_bytes(bytes.len() + limits::HEAD_ADDED_BYTES.min(1024)) else {
        return Err(Refusal::RequestHeadTooLargeToForward);
    };
    for class in [class.max(Class::Small), Class::Large] {
        let Some(mut lease) = core.pool.take(class) else { return Err(Refusal::BuffersExhausted) };
        let (source, target) = core.pool.pair(bytes, &mut lease);
        if let Some(n) = encode_request(&x.head, source, &edits, target) {
            lease.extend(n);
            return Ok(lease);
        }
        core.pool.give_back(lease);
    }
    Err(Refusal::RequestHeadTooLargeToForward)
}

/// The cookie of ours that origins of the cluster are not to see.
fn hidden_cookie(cluster: &Cluster) -> Option<&[u8]> {
    cluster.sticky.as_ref().filter(|sticky| sticky.indirect).map(|sticky| sticky.cookie.as_bytes())
}

/// Bytes of the body came from the client: decodes, frames and queues them. Returns what belongs to the next request.
pub fn feed(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Exchange>,
    mut lease: Lease,
) -> Result<Option<Lease>, Refusal> {
    let Some(x) = core.exchanges.get_mut(id) else { return Ok(Some(lease)) };
    let trailers = x.up_trailers.as_deref_mut();
    let decoded = match x.up_decoder.decode(core.pool.bytes_mut(&mut lease), trailers) {
        Ok(decoded) => decoded,
        Err(refusal) => {
            core.pool.give_back(lease);
            return Err(refusal);
        }
    };
    x.body_taken = true;
    x.up_bytes += decoded.data as u64;
    let limit = x.body_limit;
    if x.up_bytes > limit {
        core.pool.give_back(lease);
        return Err(Refusal::RequestBodyTooLarge);
    }
    let rest = if decoded.consumed < lease.len() {
        let Some(rest) = core.pool.split_off(&mut lease, decoded.consumed) else {
            core.pool.give_back(lease);
            return Err(Refusal::BuffersExhausted);
        };
        Some(rest)
    } else {
        None
    };
    lease.truncate(decoded.data);
    let Some(x) = core.exchanges.get_mut(id) else { unreachable!("nothing above removes an exchange") };
    if x.up() != Up::Body {
        // The body is being drained: nobody wants it.
        core.pool.give_back(lease);
        if decoded.end {
            x.enter_up(Up::Done);
        }
        return Ok(rest);
    }
    replay::hold(&mut core.pool, x, &lease);
    if let Err(refusal) = push_body(core, id, lease, decoded.end) {
        if let Some(rest) = rest {
            core.pool.give_back(rest);
        }
        return Err(refusal);
    }
    if let Some(link) = core.exchanges.get(id).and_then(|x| x.link) {
        link::flush(core, io, link);
    }
    Ok(rest)
}

/// Queues a piece of the body on the link, framed.
fn push_body(core: &mut Core, id: Id<Exchange>, lease: Lease, end: bool) -> Result<(), Refusal> {
    let Core { pool, exchanges, links, .. } = core;
    let Some(x) = exchanges.get_mut(id) else {
        pool.give_back(lease);
        return Ok(());
    };
    let Some(link) = x.link.and_then(|l| links.get_mut(l)) else {
        // Answered early and the link is gone: the body ends here all the same.
        pool.give_back(lease);
        if end {
            x.enter_up(Up::Done);
        }
        return Ok(());
    };
    push_piece(pool, &mut link.stream, x, lease, end)?;
    if end {
        x.enter_up(Up::Done);
    }
    Ok(())
}

/// Queues a piece of a request's body, which may be empty, framed; the last one ends it.
pub(super) fn push_piece(
    pool: &mut Pool,
    stream: &mut Stream,
    x: &Exchange,
    mut lease: Lease,
    end: bool,
) -> Result<(), Refusal> {
    let trailers = x.up_trailers.as_deref().filter(|t| end && !t.is_empty()).map(Vec::as_slice);
    let empty = lease.is_empty();
    if empty {
        pool.give_back(lease);
    } else {
        if x.up_framing == Framing::Chunked {
            frame_chunk(&mut lease, pool, end && trailers.is_none());
        }
        stream.push(lease);
    }
    if x.up_framing == Framing::Chunked && end && (empty || trailers.is_some()) {
        push_last_chunk(pool, stream, trailers)?;
    }
    Ok(())
}

/// Queues the last chunk, with trailers where there are some to pass on.
pub fn push_last_chunk(pool: &mut Pool, stream: &mut Stream, trailers: Option<&[u8]>) -> Result<(), Refusal> {
    let bytes = trailers.map_or(LAST_CHUNK.len(), |t| t.len() + 16);
    let Some(mut lease) = Class::for_bytes(bytes).and_then(|class| pool.take(class)) else {
        return Err(Refusal::BuffersExhausted);
    };
    match trailers.and_then(|raw| write_trailers(raw, pool.spare_mut(&mut lease))) {
        Some(n) => lease.extend(n),
        None => pool.append(&mut lease, LAST_CHUNK),
    }
    stream.push(lease);
    Ok(())
}
