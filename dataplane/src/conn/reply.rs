//! Our own answers: refusals, and what `respond` and `redirect` routes say.

use super::{Conn, Ends, close, deadline, flush, relay, upstream};
use crate::buf::Class;
use crate::core::{Core, Scratch};
use crate::exchange::{Attempt, Down, Exchange, Up, attempt, record};
use crate::fault::Refusal;
use crate::io::{Io, SocketAddress};
use crate::limits;
use crate::proto::http1::{OwnReply, encode_own_reply, gist};
use crate::proto::{Method, Version};
use crate::route::template::{Place, Variables, render};
use crate::spec::{Action, BodyForm, ErrorPage, ErrorPages, Page, Route, TemplatePart, Variable};
use crate::table::Id;

/// Answers a request, or a head that never became one, with a refusal: counted, logged, named in the answer.
pub fn refuse(core: &mut Core, io: &mut impl Io, id: Id<Conn>, refusal: Refusal) {
    let Some(xid) = core.conns.get(id).and_then(|c| c.exchange) else {
        // What was read last is another connection's.
        core.scratch.request.clear();
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
    let number = core.exchanges.get(xid).map_or(0, |x| x.number);
    say(core, io, id, Some(xid), refusal, number);
}

/// Answers with a refusal: its error page where there is one, of the route before the listener's.
fn say(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    refusal: Refusal,
    number: u64,
) {
    let request_id = core.request_id(number).text();
    let status = refusal.status();
    let frame = Frame { status, refusal: Some(refusal), request_id: &request_id, local: None };
    let (of_route, of_listener) = pages(core, id, xid);
    let pages = of_route.iter().chain(&of_listener).flat_map(|pages| pages.iter());
    match pages.into_iter().find(|page| page.statuses.has(status)) {
        Some(ErrorPage { page, .. }) => write(core, io, id, xid, frame, &Body::Page(page, refusal)),
        None => write(core, io, id, xid, frame, &Body::Text(refusal)),
    }
}

/// The error pages of an exchange's route and of a conn's listener, where there are some. Held by their count, since the
/// answer changes what they are found in.
fn pages(core: &Core, id: Id<Conn>, xid: Option<Id<Exchange>>) -> (Option<ErrorPages>, Option<ErrorPages>) {
    let route = xid.and_then(|x| core.exchanges.get(x)?.route);
    let route = route.and_then(|route| core.snapshot.routes.named(route));
    let listener = core.conns.get(id).and_then(|conn| core.snapshot.listener(conn.listener));
    let some = |pages: &ErrorPages| (!pages.is_empty()).then(|| pages.clone());
    (route.and_then(|r| some(&r.error_pages)), listener.and_then(|l| some(&l.error_pages)))
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

/// A head that could not be read: the answer, then the end. `scratch.request` has what was read of it, for the log.
pub(super) fn refuse_head(core: &mut Core, io: &mut impl Io, id: Id<Conn>, refusal: Refusal) {
    core.stats.refusal(refusal).add(1);
    let number = core.next_request;
    core.next_request += 1;
    let began = deadline::head_began(core, id);
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.requests = conn.requests.saturating_add(1);
    let (listener, peer, requests) = (conn.listener, conn.peer, u64::from(conn.requests));
    if let Some(listener) = core.of_listener(listener) {
        listener.traffic.answered(refusal.status());
    }
    understand(core, id);
    let said = record::Refused { listener, peer, number, refusal, on_conn: requests, began };
    record::write_refused(core, id, &said);
    say(core, io, id, None, refusal, number);
    close::linger(core, io, id, None);
}

/// Has `scratch.request` say what a refused head is about, as far as that can be told.
fn understand(core: &mut Core, id: Id<Conn>) {
    let Core { conns, pool, scratch, snapshot, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    let most = snapshot.listener(conn.listener).map_or(0, |listener| listener.limits.request_line);
    match &mut conn.rx {
        Some(held) if scratch.request.method_text.is_empty() => {
            gist(pool.bytes_mut(held), most, &mut scratch.request);
        }
        Some(_) => {}
        None => scratch.request.clear(),
    }
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
    /// An error page, which stands for the text.
    Page(&'a Page, Refusal),
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
    let ends = core.draining || core.conns.get(id).is_some_and(|c| c.ends != Ends::NOT_YET);
    if let Some(x) = xid.and_then(|x| core.exchanges.get_mut(x)) {
        x.close_after |= ends;
    }
    let mut composed = compose(core, id, xid, &frame, body);
    if composed.is_none() && matches!(body, Body::Route(_)) {
        // With the request's own text in it, the route's answer is too long.
        return refuse(core, io, id, Refusal::RequestLineTooLong);
    }
    let mut queued = composed.is_some_and(|answer| queue(core, id, answer.length));
    if let (false, Body::Page(_, refusal)) = (queued, body) {
        // With the request's own text in it the page is too long, or no buffer holds it: the shorter text may go.
        composed = compose(core, id, xid, &frame, &Body::Text(*refusal));
        queued = composed.is_some_and(|answer| queue(core, id, answer.length));
    }
    let body_bytes = composed.map_or(0, |answer| answer.body as u64);
    if let Some(x) = xid.and_then(|x| core.exchanges.get_mut(x)) {
        if queued {
            x.down_bytes = body_bytes;
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
    let page = |page: &Page| names(&page.body) || page.headers.iter().any(|(_, t)| names(t));
    match body {
        Body::Text(_) => false,
        Body::Page(own, _) => page(own),
        Body::Route(route) => match &route.action {
            Action::Respond(reply) => page(&reply.page),
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

/// An answer that stands in `scratch.reply`: its bytes, and those of them that are its body.
#[derive(Clone, Copy)]
struct Composed {
    length: usize,
    body: usize,
}

/// Writes head and body of an answer to `scratch.reply`; `None` where it does not fit.
fn compose(
    core: &mut Core,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    frame: &Frame<'_>,
    body: &Body<'_>,
) -> Option<Composed> {
    let mut scratch = std::mem::take(&mut core.scratch);
    let composed = compose_in(core, id, xid, frame, body, &mut scratch);
    core.scratch = scratch;
    composed
}

fn compose_in(
    core: &Core,
    id: Id<Conn>,
    xid: Option<Id<Exchange>>,
    frame: &Frame<'_>,
    body: &Body<'_>,
    scratch: &mut Scratch,
) -> Option<Composed> {
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
        route: match body {
            Body::Route(route) => &route.name,
            Body::Text(_) | Body::Page(..) => {
                x.and_then(|x| core.snapshot.routes.named(x.route?)).map_or("", |route| &*route.name)
            }
        },
        status: frame.status,
        reason: frame.refusal.map_or("", Refusal::name),
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
        retry_after: (frame.status == 503 && extra[..fields].iter().all(|(name, _)| *name != "retry-after"))
            .then(|| retry_after(core, x, frame)),
    };
    let length = encode_own_reply(&reply, &mut scratch.reply)?;
    // A page goes out in one piece or not at all.
    let goes = !matches!(body, Body::Page(..)) || length <= Class::Large.capacity();
    // RFC 9110 6.4.1: those have none.
    let bodiless = reply.head_only || matches!(frame.status, 100..=199 | 204 | 304);
    goes.then_some(Composed { length, body: if bodiless { 0 } else { content } })
}

/// Seconds after which asking again may help: when an open breaker lets somebody try, when the first endpoint is no longer
/// ejected where nothing else stands against it, else soon.
fn retry_after(core: &Core, x: Option<&Exchange>, frame: &Frame<'_>) -> u32 {
    let runtime = x.and_then(|x| core.clusters.get(usize::from(x.cluster?.0))?.as_ref());
    let usable = runtime.map(|runtime| runtime.state.usable());
    let at = match frame.refusal {
        Some(Refusal::CircuitOpen) => usable.and_then(|usable| usable.reopens()),
        Some(Refusal::NoEndpoint) => usable.and_then(|usable| usable.returns()),
        _ => None,
    };
    let left = at.map_or(0, |at| at.since(core.now()));
    u32::try_from(left.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

/// Renders the body into `text` and the fields' values into `values`; lengths of the body and of the fields, and what the
/// body is.
fn fill<'a>(
    body: &Body<'a>,
    variables: &Variables<'_>,
    text: &mut [u8],
    values: &'a mut [u8],
    extra: &mut [(&'a str, &'a [u8]); limits::RESPOND_FIELDS],
) -> Option<(usize, usize, &'a str)> {
    match body {
        Body::Text(refusal) => {
            let row = refusal.row();
            let mut out = &mut text[..];
            let room = out.len();
            // The answer to an OPTIONS that ended here has no body; a refusal says its status, its word, its meaning.
            if row.status >= 300 {
                let id = std::str::from_utf8(variables.request_id).unwrap_or_default();
                std::io::Write::write_fmt(
                    &mut out,
                    format_args!("{} {}\n{}\nrequest {id}\n", row.status, row.name, row.meaning),
                )
                .ok()?;
            }
            Some((room - out.len(), 0, "text/plain"))
        }
        Body::Page(page, _) => fill_page(page, variables, text, values, extra),
        Body::Route(route) => match &route.action {
            Action::Respond(own) => fill_page(&own.page, variables, text, values, extra),
            Action::Redirect(own) => {
                let n = render(&own.to, variables, Place::Location, values).ok()?;
                extra[0] = ("location", &values[..n]);
                Some((0, 1, "text/plain"))
            }
            Action::Forward { .. } => None,
        },
    }
}

fn fill_page<'a>(
    page: &'a Page,
    variables: &Variables<'_>,
    text: &mut [u8],
    mut values: &'a mut [u8],
    extra: &mut [(&'a str, &'a [u8]); limits::RESPOND_FIELDS],
) -> Option<(usize, usize, &'a str)> {
    let content = render(&page.body, variables, Place::Body(page.form), text).ok()?;
    let mut content_type = match page.form {
        BodyForm::Plain => "text/plain",
        BodyForm::Html => "text/html; charset=utf-8",
        BodyForm::Json => "application/json",
    };
    let mut fields = 0;
    for (name, template) in &page.headers {
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
