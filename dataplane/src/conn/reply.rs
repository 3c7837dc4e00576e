//! Our own answers: refusals, and what `respond` and `redirect` routes say.

use super::{Conn, close, deadline, flush, relay, upstream};
use crate::buf::Class;
use crate::core::{Core, Scratch};
use crate::exchange::{Attempt, Down, Exchange, Up, attempt, record};
use crate::fault::Refusal;
use crate::io::{Io, SocketAddress};
use crate::limits;
use crate::proto::http1::{OwnReply, encode_own_reply};
use crate::proto::{Method, Version};
use crate::route::template::{Place, Variables, render};
use crate::spec::{Action, Route, TemplatePart, Variable};
use crate::table::Id;

/// Answers a request, or a head that never became one, with a refusal: counted, logged, named in the answer.
pub fn refuse(core: &mut Core, io: &mut impl Io, id: Id<Conn>, refusal: Refusal) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else {
        return refuse_head(core, io, id, refusal);
    };
    match core.exchanges.get(xid).map(Exchange::down) {
        Some(Down::Waiting | Down::Head) => {}
        // A response is under way: another would be taken for the answer to the next request.
        Some(Down::Body) => return upstream::on_response_failed(core, io, id, xid, refusal),
        Some(Down::Done | Down::Aborted) => return give_up_body(core, io, id, xid, refusal),
        None => return,
    }
    core.stats.refusal(refusal).add(1);
    if let Some(x) = core.exchanges.get_mut(xid) {
        x.note_end();
    }
    attempt::release(core, io, xid, refusal.into());
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    x.refusal = Some(refusal);
    x.status = refusal.status();
    if x.attempt() != Attempt::Ended {
        x.enter_attempt(Attempt::Ended);
    }
    if is_hurried(refusal) {
        x.close_after = true;
        if let Some(conn) = core.conns.get_mut(id) {
            conn.hurried = true;
        }
    }
    if !x.up().is_over() && (in_doubt(refusal) || !x.rest_is_small() || x.head.expect_continue) {
        x.enter_up(Up::Aborted);
        x.close_after = true;
    }
    let request_id = core.request_id(core.exchanges.get(xid).map_or(0, |x| x.number)).text();
    let frame =
        Frame { status: refusal.status(), refusal: Some(refusal), request_id: &request_id, local: None };
    write(core, io, id, Some(xid), frame, &Body::Text(refusal));
}

/// The response is out, and what is left of the request's body cannot be had: the conn ends without another word.
fn give_up_body(core: &mut Core, io: &mut impl Io, id: Id<Conn>, xid: Id<Exchange>, refusal: Refusal) {
    core.stats.refusal(refusal).add(1);
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    x.refusal = Some(refusal);
    x.note_end();
    x.close_after = true;
    x.abort_up();
    relay::settle(core, io, id);
}

/// Refused because descriptors or the kernel's memory have run out: the connection gives back what it has.
fn is_hurried(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::DescriptorsExhausted | Refusal::MemoryExhausted)
}

/// After these nobody knows where the next request begins, or the client is not worth the wait: the connection ends.
fn in_doubt(refusal: Refusal) -> bool {
    matches!(refusal.status(), 400 | 408 | 413 | 414 | 421 | 431 | 501 | 505)
}

/// A head that could not be read: the answer, then the end.
fn refuse_head(core: &mut Core, io: &mut impl Io, id: Id<Conn>, refusal: Refusal) {
    core.stats.refusal(refusal).add(1);
    let number = core.next_request;
    core.next_request += 1;
    let began = deadline::head_began(core, id);
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.requests = conn.requests.saturating_add(1);
    let (listener, peer, requests) = (conn.listener, conn.peer, u64::from(conn.requests));
    record::write_refused(core, listener, peer, number, refusal, requests, began);
    let request_id = core.request_id(number).text();
    let frame =
        Frame { status: refusal.status(), refusal: Some(refusal), request_id: &request_id, local: None };
    write(core, io, id, None, frame, &Body::Text(refusal));
    close::linger(core, io, id, None);
}

/// Answers as a `respond` or `redirect` route says.
pub fn by_route(core: &mut Core, io: &mut impl Io, id: Id<Conn>, route: &Route) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else { return };
    let status = match &route.action {
        Action::Respond(reply) => reply.status,
        Action::Redirect(redirect) => redirect.status,
        Action::Forward { .. } => return,
    };
    let Some(x) = core.exchanges.get_mut(xid) else { return };
    x.status = status;
    x.enter_attempt(Attempt::Ended);
    if !x.up().is_over() && (!x.rest_is_small() || x.head.expect_continue) {
        x.enter_up(Up::Aborted);
        x.close_after = true;
    }
    let request_id = core.request_id(core.exchanges.get(xid).map_or(0, |x| x.number)).text();
    let frame = Frame { status, refusal: None, request_id: &request_id, local: None };
    write(core, io, id, Some(xid), frame, &Body::Route(route));
}

enum Body<'a> {
    Text(Refusal),
    Route(&'a Route),
}

/// Composes and queues the answer; then the exchange's response half is over.
fn write(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    mut frame: Frame<'_>,
    body: &Body<'_>,
) {
    if wants_local(body) {
        frame.local = core.conns.get(id).and_then(|c| io.local_address(c.stream.fd).ok());
    }
    let ends = core.draining || core.conns.get(id).is_some_and(|c| c.expired);
    if let Some(x) = xid.and_then(|x| core.exchanges.get_mut(x)) {
        x.close_after |= ends;
    }
    let length = compose(core, id, xid, &frame, body);
    if length.is_none() && matches!(body, Body::Route(_)) {
        // With the request's own text in it, the route's answer is too long.
        return refuse(core, io, id, Refusal::RequestLineTooLong);
    }
    let queued = length.is_some_and(|length| queue(core, id, length));
    if let Some(x) = xid.and_then(|x| core.exchanges.get_mut(x)) {
        if queued {
            x.answer_own();
        } else {
            x.enter_down(Down::Aborted);
            x.abort_up();
        }
    }
    flush(core, io, id);
    relay::settle(core, io, id);
}

/// Whether the answer names the local address, which costs a system call to find out.
fn wants_local(body: &Body<'_>) -> bool {
    let names = |t: &crate::spec::Template| {
        t.0.iter()
            .any(|part| matches!(part, TemplatePart::Variable(Variable::ServerAddr | Variable::ServerPort)))
    };
    match body {
        Body::Text(_) => false,
        Body::Route(route) => match &route.action {
            Action::Respond(reply) => names(&reply.body) || reply.headers.iter().any(|(_, t)| names(t)),
            Action::Redirect(redirect) => names(&redirect.to),
            Action::Forward { .. } => false,
        },
    }
}

/// What an answer is made of besides its body.
struct Frame<'a> {
    status: u16,
    refusal: Option<Refusal>,
    request_id: &'a [u8],
    local: Option<SocketAddress>,
}

/// Writes head and body of an answer to `scratch.reply`; its length, or `None` where it does not fit.
fn compose(
    core: &mut Core,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    frame: &Frame<'_>,
    body: &Body<'_>,
) -> Option<usize> {
    let mut scratch = std::mem::take(&mut core.scratch);
    let length = compose_in(core, id, xid, frame, body, &mut scratch);
    core.scratch = scratch;
    length
}

fn compose_in(
    core: &Core,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    frame: &Frame<'_>,
    body: &Body<'_>,
    scratch: &mut Scratch,
) -> Option<usize> {
    let (conn, x) = (core.conns.get(id)?, xid.and_then(|x| core.exchanges.get(x)));
    let close = x.is_none_or(|x| x.close_after);
    let head = x.map(|x| &x.head);
    let bytes = x.and_then(|x| x.head_bytes.as_ref()).map_or(&[][..], |lease| core.pool.bytes(lease));
    let variables = Variables {
        remote: conn.peer,
        server: frame.local.unwrap_or(SocketAddress::UNSPECIFIED),
        host: head.map_or(&[], |h| h.host.of(bytes)),
        method: head.map_or(&[], |h| h.method_text.of(bytes)),
        path: head.map_or(&[], |h| h.path.of(bytes)),
        query: head.and_then(|h| h.query).map(|q| q.of(bytes)),
        scheme: "http",
        request_id: frame.request_id,
        node: &core.snapshot.runtime.node,
        listener: core.snapshot.listener(conn.listener).map_or("", |l| &*l.name),
        route: if let Body::Route(route) = body { &route.name } else { "" },
    };
    let mut extra: [(&str, &[u8]); limits::RESPOND_FIELDS] = [("", &[]); limits::RESPOND_FIELDS];
    let (content, fields, content_type) =
        fill(body, &variables, &mut scratch.body, &mut scratch.values, &mut extra)?;
    let reply = OwnReply {
        status: frame.status,
        reason: frame.refusal.map(Refusal::name),
        request_id: std::str::from_utf8(frame.request_id).unwrap_or(""),
        date: core.date.text(),
        close,
        keep_alive_10: !close && head.is_some_and(|h| h.version == Version::Http10),
        head_only: head.is_some_and(|h| h.method == Method::Head),
        content_type,
        extra: &extra[..fields],
        body: &scratch.body[..content],
        retry_after: (frame.status == 503).then(|| retry_after(core, x, frame)),
    };
    encode_own_reply(&reply, &mut scratch.reply)
}

/// Seconds after which asking again may help: when an open breaker lets somebody try, else soon.
fn retry_after(core: &Core, x: Option<&Exchange>, frame: &Frame<'_>) -> u32 {
    let cluster = x.filter(|_| frame.refusal == Some(Refusal::CircuitOpen)).and_then(|x| x.cluster);
    let runtime = cluster.and_then(|id| core.clusters.get(usize::from(id.0))?.as_ref());
    let left =
        runtime.and_then(|runtime| runtime.state.usable().reopens()).map_or(0, |at| at.since(core.now()));
    u32::try_from(left.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

/// Renders the body into `text` and the fields' values into `values`; lengths of the body and of the fields.
fn fill<'a>(
    body: &Body<'a>,
    variables: &Variables<'_>,
    text: &mut [u8],
    mut values: &'a mut [u8],
    extra: &mut [(&'a str, &'a [u8]); limits::RESPOND_FIELDS],
) -> Option<(usize, usize, &'a str)> {
    match body {
        Body::Text(refusal) => {
            let row = refusal.row();
            let mut out = &mut text[..];
            let room = out.len();
            // The answer to an OPTIONS that ended here has no body; a refusal says its status, its word, its meaning.
            if row.status >= 300 {
                std::io::Write::write_fmt(
                    &mut out,
                    format_args!("{} {}\n{}\n", row.status, row.name, row.meaning),
                )
                .ok()?;
            }
            Some((room - out.len(), 0, "text/plain"))
        }
        Body::Route(route) => match &route.action {
            Action::Respond(own) => {
                let content = render(&own.body, variables, Place::Body, text).ok()?;
                let (mut fields, mut content_type) = (0, "text/plain");
                for (name, template) in &own.headers {
                    let n = render(template, variables, Place::Field, values).ok()?;
                    let (value, rest) = values.split_at_mut(n);
                    values = rest;
                    if &**name == "content-type" {
                        content_type = std::str::from_utf8(value).ok()?;
                    } else {
                        *extra.get_mut(fields)? = (name, value);
                        fields += 1;
                    }
                }
                Some((content, fields, content_type))
            }
            Action::Redirect(own) => {
                let n = render(&own.to, variables, Place::Location, values).ok()?;
                extra[0] = ("location", &values[..n]);
                Some((0, 1, "text/plain"))
            }
            Action::Forward { .. } => None,
        },
    }
}

/// Copies an answer into leases and queues them; false when buffers ran out.
fn queue(core: &mut Core, id: Id<Conn>, length: usize) -> bool {
    let Core { pool, conns, scratch, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return false };
    for piece in scratch.reply[..length].chunks(Class::Large.capacity()) {
        if conn.stream.room() == 0 {
            return false;
        }
        let Some(lease) = pool.take_copy(piece) else { return false };
        conn.stream.push(lease);
    }
    length > 0
}
