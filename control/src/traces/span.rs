//! One record as a span: names and attributes are those of OpenTelemetry's semantic conventions for HTTP servers (1.38, stable), and
//! `ringway.*` for what they have no word for. docs/operations/traces.md documents all of them.

use super::Names;
use dataplane::fault::By;
use dataplane::io::SocketAddress;
use dataplane::stats::access_log::Record;
use dataplane::stats::retries::Retried;
use dataplane::stats::timings::Phase;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};

/// Methods that a span may be named by; others are `_OTHER`, so that clients cannot invent names (semantic conventions, HTTP spans).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The span of a record; none where it is none, or does not decode.
pub(super) fn of(bytes: &[u8], names: &Names) -> Option<Span> {
    let record = Record::decode(bytes)?;
    let ids = record.span?;
    let parent = record.trace.map_or(Vec::new(), |parent| parent.parent_id.to_vec());
    let remote = if parent.is_empty() { 0 } else { SpanFlags::ContextIsRemoteMask as u32 };
    let sampled = 1;
    let mut attributes = Attributes(Vec::new());
    let name = request(&mut attributes, &record);
    objects(&mut attributes, &record, names);
    outcome(&mut attributes, &record);
    Some(Span {
        trace_id: ids.trace_id.to_vec(),
        span_id: ids.span_id.to_vec(),
        parent_span_id: parent,
        flags: sampled | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
        name: match &names.route {
            Some(route) => format!("{name} {route}"),
            None => name.to_owned(),
        },
        kind: SpanKind::Server as i32,
        start_time_unix_nano: record.wall_ns,
        end_time_unix_nano: record.wall_ns + record.timings.total_us * 1000,
        attributes: attributes.0,
        events: events(&record),
        status: status(&record),
        ..Span::default()
    })
}

/// What was asked. Returns what the span is named by.
fn request<'a>(to: &mut Attributes, record: &Record<'a>) -> &'a str {
    let method = std::str::from_utf8(record.method).ok().filter(|method| METHODS.contains(method));
    match method {
        Some(method) => to.text("http.request.method", method.as_bytes()),
        None => {
            to.text("http.request.method", b"_OTHER");
            to.text("http.request.method_original", record.method);
        }
    }
    to.text("url.scheme", b"http");
    to.text("url.path", record.path);
    if let Some(query) = record.query {
        to.text("url.query", query);
    }
    to.text("server.address", record.host);
    to.address("client.address", "client.port", record.peer);
    to.address("network.peer.address", "network.peer.port", record.peer);
    to.text("network.protocol.name", b"http");
    to.text("network.protocol.version", if record.minor_version == 0 { b"1.0" } else { b"1.1" });
    if let Some(agent) = record.user_agent {
        to.text("user_agent.original", agent);
    }
    to.number("http.request.body.size", record.request_body_bytes);
    method.unwrap_or("HTTP")
}

/// By the names of the configuration.
fn objects(to: &mut Attributes, record: &Record<'_>, names: &Names) {
    to.text("ringway.request_id", &record.request_id.text());
    for (key, name) in [
        ("ringway.listener", &names.listener),
        ("ringway.route", &names.route),
        ("ringway.cluster", &names.cluster),
        ("ringway.endpoint", &names.endpoint),
    ] {
        if let Some(name) = name {
            to.text(key, name.as_bytes());
        }
    }
}

fn outcome(to: &mut Attributes, record: &Record<'_>) {
    if record.status != 0 {
        to.number("http.response.status_code", record.status.into());
    }
    to.number("http.response.body.size", record.response_body_bytes);
    to.number("ringway.attempts", record.attempts.into());
    to.put("ringway.link_reused", Value::BoolValue(record.link_reused));
    to.text("ringway.end", &record.end.code());
    let retries: Vec<&str> =
        Retried::ALL.into_iter().filter(|why| record.retries.has(*why)).map(Retried::name).collect();
    to.list("ringway.retries", &retries);
    if let Some(refusal) = record.refusal {
        to.text("ringway.reason", refusal.name().as_bytes());
    }
    if let Some(close) = record.close {
        to.text("ringway.close", close.name().as_bytes());
    }
    if record.tunnel_up_bytes > 0 || record.tunnel_down_bytes > 0 {
        to.number("ringway.tunnel_up_bytes", record.tunnel_up_bytes);
        to.number("ringway.tunnel_down_bytes", record.tunnel_down_bytes);
    }
    if is_error(record) {
        let close = || record.close.map(|close| close.name().to_owned());
        let word = record.refusal.map(|refusal| refusal.name().to_owned()).or_else(close);
        to.text("error.type", word.unwrap_or_else(|| record.status.to_string()).as_bytes());
    }
}

/// The end of each phase but the last, whose end is the span's.
fn events(record: &Record<'_>) -> Vec<Event> {
    let mut at = record.wall_ns;
    let ended = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Transfer);
    let ended = ended.filter_map(|phase| record.timings.get(phase).map(|us| (phase, us)));
    ended
        .map(|(phase, us)| {
            at += us * 1000;
            Event { time_unix_nano: at, name: format!("{}.end", phase.name()), ..Event::default() }
        })
        .collect()
}

/// A server's span is an error where the fault is the server's: a status from 500 on, or an answer that broke off through no fault
/// of the client (semantic conventions, HTTP spans, "Status").
fn is_error(record: &Record<'_>) -> bool {
    let broke_off = matches!(record.end.by(), By::Server | By::ServerTime | By::Resource | By::Internal);
    record.status >= 500 || (broke_off && record.close.is_some())
}

fn status(record: &Record<'_>) -> Option<Status> {
    is_error(record).then(|| Status { code: StatusCode::Error as i32, message: String::new() })
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
    /// Bytes of the wire: what is not UTF-8 becomes U+FFFD, for protobuf has no other strings.
    fn text(&mut self, key: &str, text: &[u8]) {
        self.put(key, Value::StringValue(String::from_utf8_lossy(text).into_owned()));
    }
    fn number(&mut self, key: &str, number: u64) {
        self.put(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)));
    }
    fn list(&mut self, key: &str, words: &[&str]) {
        if words.is_empty() {
            return;
        }
        let word = |word: &&str| AnyValue { value: Some(Value::StringValue((*word).to_owned())) };
        self.put(key, Value::ArrayValue(ArrayValue { values: words.iter().map(word).collect() }));
    }
    /// A peer on a unix socket has none.
    fn address(&mut self, key: &str, port: &str, address: SocketAddress) {
        if let Some(ip) = address.ip() {
            self.text(key, ip.to_string().as_bytes());
            self.number(port, address.port().into());
        }
    }
}

#[cfg(test)]
mod tests;
