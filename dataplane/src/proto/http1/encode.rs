//! Heads as they leave us: regenerated from checked values, with our own framing and identity fields (RFC 9110 7.6).

use super::octets::length_value;
use super::reply::reason_phrase;
use super::sticky::{self, StickyEdits};
use super::write::Writer;
use crate::proto::{Field, FieldName, FieldNames, Framing, Method, RequestHead, ResponseHead, Version};
use std::net::IpAddr;

/// What becomes of X-Forwarded-For, -Host, -Proto, Forwarded and X-Real-IP (H03).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedMode {
    /// Drop what the client sent; set our own.
    Replace,
    /// From a trusted peer append to what it sent; from others as `Replace`.
    Append,
    /// Add nothing; drop what the client sent unless it is trusted.
    Off,
}

/// What changes in a request on its way upstream.
#[derive(Debug, Clone)]
pub struct RequestEdits<'a> {
    /// The Host to send; `None` is the client's authority.
    pub host: Option<&'a [u8]>,
    /// The client, as X-Forwarded-For names it.
    pub peer: Option<IpAddr>,
    pub forwarded: ForwardedMode,
    /// The peer may speak for others (`listener.forwarded.trusted`).
    pub trusted: bool,
    /// For X-Forwarded-Proto: "http" or "https".
    pub scheme: &'a str,
    /// This process's pseudonym in Via.
    pub via: &'a str,
    /// Which copy of the request this is, if not its first: said in Ringway-Attempt.
    pub copy: Option<u8>,
    /// How we frame the body that follows.
    pub framing: Framing,
    /// Ask for a tunnel to `websocket`.
    pub upgrade: bool,
    /// Say `TE: trailers`, so that the origin may send some.
    pub te_trailers: bool,
    /// A cookie that the origin is not to see.
    pub hidden_cookie: Option<&'a [u8]>,
    /// Of a request that is a span of ours.
    pub span: Option<SpanEdits<'a>>,
}

/// What the origin is told of the trace in place of what the client said.
#[derive(Debug, Clone, Copy)]
pub struct SpanEdits<'a> {
    /// For traceparent.
    pub parent: &'a [u8],
    /// It is the client's trace. Where it is not, nor is its tracestate (W3C Trace Context 3.4).
    pub goes_on: bool,
}

/// Writes a request's head, always as HTTP/1.1 with keep-alive implied. Returns its length; `None`: it does not fit.
pub fn encode_request(
    head: &RequestHead,
    bytes: &[u8],
    edits: &RequestEdits<'_>,
    out: &mut [u8],
) -> Option<usize> {
    let mut to = Writer::new(out);
    if head.method == Method::Get {
        to.text(b"GET ");
    } else {
        to.foreign(head.method_text.of(bytes));
        to.text(b" ");
    }
    to.foreign(head.path.of(bytes));
    if let Some(query) = head.query {
        to.text(b"?");
        to.foreign(query.of(bytes));
    }
    to.text(b" HTTP/1.1\r\nhost: ");
    // Without any authority Host is sent empty (RFC 9112 3.2).
    to.foreign(edits.host.unwrap_or_else(|| head.authority.of(bytes)));
    to.text(b"\r\n");
    let believed = edits.trusted && edits.forwarded != ForwardedMode::Replace;
    let passes =
        |f: &&Field| request_passes(head, f, believed) && edits.span.is_none_or(|span| span.passes(f, bytes));
    match edits.hidden_cookie.filter(|_| head.names.has(FieldName::Cookie)) {
        None => pass_on(&mut to, bytes, head.fields.iter().filter(passes)),
        Some(cookie) => {
            let others = head.fields.iter().filter(|f| passes(f) && f.kind != FieldName::Cookie);
            pass_on(&mut to, bytes, others);
            sticky::pass_others(&mut to, &head.fields, bytes, cookie);
        }
    }
    forwarded(&mut to, head, bytes, edits, believed);
    via(&mut to, via_fields(&head.fields, head.names), bytes, head.version, edits.via);
    if let Some(left) = head.max_forwards {
        to.text(b"max-forwards: ");
        to.number(u64::from(left.saturating_sub(1)));
        to.text(b"\r\n");
    }
    if let Some(span) = edits.span {
        to.own(b"traceparent: ", span.parent);
    }
    if let Some(copy) = edits.copy {
        to.text(b"ringway-attempt: ");
        to.number(u64::from(copy));
        to.text(b"\r\n");
    }
    if head.expect_continue {
        to.text(b"expect: 100-continue\r\n");
    }
    let length_expected = matches!(head.method, Method::Post | Method::Put | Method::Patch);
    match edits.framing {
        // RFC 9110 8.6: these methods say so when they have no body.
        Framing::None if length_expected => to.content_length(0),
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => to.content_length(length),
        Framing::Chunked => to.text(CHUNKED),
    }
    match (edits.upgrade, edits.te_trailers) {
        (true, _) => to.text(UPGRADE),
        (false, true) => to.text(b"connection: te\r\nte: trailers\r\n"),
        (false, false) => {}
    }
    to.finish()
}

/// Writes fields that pass unchanged. Those that stand one behind the other as we would write them go in one stretch: a
/// parsed value holds no control octet but HTAB, so the bytes are the same.
fn pass_on<'a>(to: &mut Writer<'_>, bytes: &[u8], fields: impl Iterator<Item = &'a Field>) {
    let mut run = 0..0;
    for field in fields {
        match line_of(field, bytes) {
            Some(line) if line.start == run.end => run.end = line.end,
            line => {
                if !run.is_empty() {
                    to.lines(&bytes[run]);
                }
                if line.is_none() {
                    to.field(field.name.of(bytes), field.value.of(bytes));
                }
                run = line.unwrap_or_default();
            }
        }
    }
    if !run.is_empty() {
        to.lines(&bytes[run]);
    }
}

/// Where a field's line stands, with its CRLF, if it is exactly what [`Writer::field`] would write.
fn line_of(field: &Field, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let (name_end, value) = ((field.name.start + field.name.len) as usize, field.value.start as usize);
    let end = value + field.value.len as usize + 2;
    let plain = value == name_end + 2
        && bytes.get(name_end..value)? == b": "
        && bytes.get(end - 2..end)? == b"\r\n"
        && field.name.len > 0;
    plain.then_some(field.name.start as usize..end)
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";
const UPGRADE: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n";

/// Whether a client's field goes upstream as it came. The others are dropped, or written by us.
fn request_passes(head: &RequestHead, field: &Field, believed: bool) -> bool {
    match field.kind {
        _ if field.hop => false,
        FieldName::ContentLength | FieldName::Expect | FieldName::Host | FieldName::Via => false,
        FieldName::MaxForwards => head.max_forwards.is_none(),
        // Joined into one line with our entry.
        FieldName::XForwardedFor => false,
        FieldName::Forwarded
        | FieldName::XForwardedHost
        | FieldName::XForwardedProto
        | FieldName::XRealIp => believed,
        _ => true,
    }
}

impl SpanEdits<'_> {
    /// Whether a client's field stays beside what we say.
    fn passes(self, field: &Field, bytes: &[u8]) -> bool {
        match field.kind {
            FieldName::TraceParent => false,
            FieldName::Other => self.goes_on || !field.name.of(bytes).eq_ignore_ascii_case(b"tracestate"),
            _ => true,
        }
    }
}

/// X-Forwarded-For, -Proto and -Host. What a believed peer said stays, and its own address is appended.
fn forwarded(
    to: &mut Writer<'_>,
    head: &RequestHead,
    bytes: &[u8],
    edits: &RequestEdits<'_>,
    believed: bool,
) {
    let own = edits.forwarded != ForwardedMode::Off;
    let said = |kind| {
        let fields: &[Field] = if believed && head.names.has(kind) { &head.fields } else { &[] };
        fields.iter().filter(move |f| f.kind == kind && !f.hop)
    };
    // A peer on a unix socket has no address to tell.
    let peer = edits.peer.filter(|_| own);
    if peer.is_some() || said(FieldName::XForwardedFor).next().is_some() {
        to.text(b"x-forwarded-for: ");
        let some = joined(to, said(FieldName::XForwardedFor), bytes);
        if let Some(peer) = peer {
            if some {
                to.text(b", ");
            }
            to.address(peer);
        }
        to.text(b"\r\n");
    }
    if own && said(FieldName::XForwardedProto).next().is_none() {
        to.own(b"x-forwarded-proto: ", edits.scheme.as_bytes());
    }
    if own && !head.authority.is_empty() && said(FieldName::XForwardedHost).next().is_none() {
        to.own(b"x-forwarded-host: ", head.authority.of(bytes));
    }
}

/// The values of several lines of one field as one list; false if there were none.
fn joined<'a>(to: &mut Writer<'_>, fields: impl Iterator<Item = &'a Field>, bytes: &[u8]) -> bool {
    let mut some = false;
    for value in fields.map(|f| f.value.of(bytes)).filter(|v| !v.is_empty()) {
        if some {
            to.text(b", ");
        }
        to.foreign(value);
        some = true;
    }
    some
}

fn via_fields(fields: &[Field], names: FieldNames) -> impl Iterator<Item = &Field> {
    let fields = if names.has(FieldName::Via) { fields } else { &[] };
    fields.iter().filter(|f| f.kind == FieldName::Via && !f.hop)
}

/// What others said in Via, and our own member with the version we received (RFC 9110 7.6.3: a gateway must).
fn via<'a>(
    to: &mut Writer<'_>,
    said: impl Iterator<Item = &'a Field>,
    bytes: &[u8],
    received: Version,
    node: &str,
) {
    to.text(b"via: ");
    let some = joined(to, said, bytes);
    if some {
        to.text(b", ");
    }
    to.text(match received {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
    });
    to.text(node.as_bytes());
    to.text(b"\r\n");
}

/// What changes in a response on its way to the client.
#[derive(Debug, Clone)]
pub struct ResponseEdits<'a> {
    /// The client's.
    pub version: Version,
    /// How we frame the body that follows: never `Chunked` for HTTP/1.0. `None` for an answer to HEAD and a 304, whose
    /// own Content-Length is then passed on.
    pub framing: Framing,
    /// We close after this response.
    pub close: bool,
    /// We keep the connection of an HTTP/1.0 client that asked for it.
    pub keep_alive_10: bool,
    /// A 101 to `websocket`.
    pub upgrade: bool,
    /// This process's pseudonym in Via.
    pub via: &'a str,
    /// Added if the origin sent no Date (RFC 9110 6.6.1).
    pub date: &'a [u8],
    /// Of a cluster whose clients stick to their endpoints.
    pub sticky: Option<StickyEdits<'a>>,
}

/// Writes a response's head. Our version is 1.1 to every client (RFC 9110 6.2). An interim response (1xx but 101) gets
/// neither Date nor framing nor connection options. Returns the length; `None`: it does not fit.
pub fn encode_response(
    head: &ResponseHead,
    bytes: &[u8],
    edits: &ResponseEdits<'_>,
    out: &mut [u8],
) -> Option<usize> {
    debug_assert!(
        edits.version == Version::Http11 || edits.framing != Framing::Chunked,
        "an HTTP/1.0 client knows no chunks"
    );
    let mut to = Writer::new(out);
    to.text(b"HTTP/1.1 ");
    to.number(u64::from(head.status));
    to.text(b" ");
    to.foreign(match head.reason.of(bytes) {
        [] => reason_phrase(head.status).as_bytes(),
        reason => reason,
    });
    to.text(b"\r\n");
    let passes = |f: &&Field| !f.hop && !matches!(f.kind, FieldName::ContentLength | FieldName::Via);
    match edits.sticky {
        None => pass_on(&mut to, bytes, head.fields.iter().filter(passes)),
        Some(sticky) => {
            let others = |f: &&Field| passes(f) && !sticky::sets(f, bytes, sticky.cookie);
            pass_on(&mut to, bytes, head.fields.iter().filter(others));
        }
    }
    let said = via_fields(&head.fields, head.names);
    via(&mut to, said, bytes, head.version, edits.via);
    let interim = matches!(head.status, 100..=199) && head.status != 101;
    if interim {
        return to.finish();
    }
    if !head.has_date {
        to.own(b"date: ", edits.date);
    }
    if let Some(edits) = &edits.sticky {
        sticky::set(&mut to, edits);
    }
    match edits.framing {
        Framing::Length(length) => to.content_length(length),
        Framing::Chunked => to.text(CHUNKED),
        Framing::UntilClose => {}
        Framing::None => length_without_body(&mut to, head, bytes),
    }
    match (edits.upgrade, edits.close, edits.keep_alive_10) {
        (true, ..) => to.text(UPGRADE),
        (false, true, _) => to.text(b"connection: close\r\n"),
        (false, false, true) => to.text(b"connection: keep-alive\r\n"),
        (false, false, false) => {}
    }
    to.finish()
}

/// The length that an answer to HEAD or a 304 tells of. RFC 9110 8.6 forbids it in a 1xx and a 204.
fn length_without_body(to: &mut Writer<'_>, head: &ResponseHead, bytes: &[u8]) {
    if matches!(head.status, 100..=199 | 204) {
        return;
    }
    if !head.names.has(FieldName::ContentLength) {
        return;
    }
    let field = head.fields.iter().find(|f| f.kind == FieldName::ContentLength);
    if let Some(length) = field.and_then(|f| length_value(f.value.of(bytes))) {
        to.content_length(length);
    }
}

#[cfg(test)]
mod tests;
