//! One access-log line: a record and the names of its objects, as one JSON object.
//!
//! docs/operations/reading-the-access-log.md documents every key.

use super::fields::{DIGITS, put_address, put_id, put_number, version};
use dataplane::io::SocketAddress;
use dataplane::spec::{Protocol, Snapshot};
use dataplane::stats::access_log::Record;
use dataplane::stats::retries::{Retried, Retries};
use dataplane::stats::timings::{Phase, Timings};
use std::io::Write as _;

/// A key of the line, with what stands around it: one piece, whose length the compiler knows.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}
/// The same of a value in quotes.
macro_rules! quoted {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"").as_bytes()
    };
}

/// Appends the line of `record`, its newline included. Names come from `snapshot`.
pub fn write_line(out: &mut Vec<u8>, record: &Record<'_>, snapshot: &Snapshot) {
    let mut line = Line { out };
    line.out.extend_from_slice(b"{\"time\":\"");
    write_time(line.out, record.wall_ns);
    line.out.extend_from_slice(b"\",\"request_id\":\"");
    line.out.extend_from_slice(&record.request_id.text());
    line.out.push(b'"');
    if let Some(listener) = snapshot.listener(record.listener) {
        line.word(quoted!("listener"), &listener.name);
    }
    if let Some(route) = record.route.and_then(|id| snapshot.routes.named(id)) {
        line.word(quoted!("route"), &route.name);
    }
    if let Some(cluster) = record.cluster.and_then(|id| snapshot.cluster(id)) {
        line.word(quoted!("cluster"), &cluster.name);
        if let Some(endpoint) = record.endpoint.and_then(|id| cluster.endpoints.get(usize::from(id.0))) {
            line.text(quoted!("endpoint"), endpoint.name.as_bytes());
        }
    }
    if let Some(client) = record.client() {
        line.address(quoted!("client"), client);
    }
    if let Some(local) = record.upstream_local {
        line.address(quoted!("upstream_local"), local);
    }
    match record.protocol {
        Protocol::Http => {
            write_request(&mut line, record);
            write_outcome(&mut line, record);
        }
        Protocol::Tcp => write_connection(&mut line, record),
    }
    out.extend_from_slice(b"}\n");
}

fn write_request(line: &mut Line<'_>, record: &Record<'_>) {
    if record.refusal.is_some() || record.method.is_empty() {
        // Refused or gone before all of it was understood.
        line.text_or_null(key!("method"), record.method);
        line.text_or_null(key!("host"), record.host);
        line.text_or_null(key!("path"), record.path);
    } else {
        line.text(quoted!("method"), record.method);
        line.text(quoted!("host"), record.host);
        line.text(quoted!("path"), record.path);
    }
    line.text_if(quoted!("query"), record.query);
    line.text_if(quoted!("user_agent"), record.user_agent);
    line.text_if(quoted!("referer"), record.referer);
    if let Some(id) = record.trace_id() {
        line.id(quoted!("trace_id"), id);
    }
    if let Some(span) = &record.span {
        line.id(quoted!("span_id"), &span.span_id);
    }
    if let Some(trace) = &record.trace {
        line.id(quoted!("parent_id"), &trace.parent_id);
    }
    line.word(quoted!("version"), version(record));
}

fn write_outcome(line: &mut Line<'_>, record: &Record<'_>) {
    line.number(key!("status"), u64::from(record.status));
    line.number(key!("request_body_bytes"), record.request_body_bytes);
    line.number(key!("response_body_bytes"), record.response_body_bytes);
    write_timings(line, &record.timings);
    line.number(key!("attempts"), u64::from(record.attempts));
    write_retries(line, record.retries);
    line.out.extend_from_slice(key!("link_reused"));
    line.out.extend_from_slice(if record.link_reused { b"true" } else { b"false" });
    write_end(line, record);
    line.number(key!("request_number"), record.request_number);
    if record.tunnel_up_bytes > 0 || record.tunnel_down_bytes > 0 {
        line.number(key!("tunnel_up_bytes"), record.tunnel_up_bytes);
        line.number(key!("tunnel_down_bytes"), record.tunnel_down_bytes);
    }
}

fn write_end(line: &mut Line<'_>, record: &Record<'_>) {
    if let Some(refusal) = record.refusal {
        line.word(quoted!("reason"), refusal.name());
    }
    line.out.extend_from_slice(quoted!("end"));
    line.out.extend_from_slice(&record.end.code());
    line.out.push(b'"');
    if let Some(close) = record.close {
        line.word(quoted!("close"), close.name());
    }
}

fn write_timings(line: &mut Line<'_>, timings: &Timings) {
    line.number(key!("duration_us"), timings.total_us);
    for phase in Phase::ALL {
        let Some(us) = timings.get(phase) else { continue };
        let key = match phase {
            Phase::Head => key!("head_us"),
            Phase::Queue => key!("queue_us"),
            Phase::Lost => key!("lost_us"),
            Phase::Connect => key!("connect_us"),
            Phase::Response => key!("response_us"),
            Phase::Transfer => key!("transfer_us"),
        };
        line.number(key, us);
    }
    if let Some(us) = timings.first_byte_us() {
        line.number(key!("first_byte_us"), us);
    }
}

/// The reasons as a list of words, where there are any.
fn write_retries(line: &mut Line<'_>, retries: Retries) {
    if retries.is_empty() {
        return;
    }
    line.out.extend_from_slice(key!("retries"));
    let mut before = b'[';
    for why in Retried::ALL.into_iter().filter(|why| retries.has(*why)) {
        line.out.extend_from_slice(&[before, b'"']);
        line.out.extend_from_slice(why.name().as_bytes());
        line.out.push(b'"');
        before = b',';
    }
    line.out.push(b']');
}

/// What there is to say of a connection of which nothing was read, or no more than whom its client asks for.
fn write_connection(line: &mut Line<'_>, record: &Record<'_>) {
    line.word(quoted!("protocol"), "tcp");
    line.text_if(quoted!("sni"), Some(record.host).filter(|name| !name.is_empty()));
    write_timings(line, &record.timings);
    line.number(key!("attempts"), u64::from(record.attempts));
    write_end(line, record);
    line.number(key!("tunnel_up_bytes"), record.tunnel_up_bytes);
    line.number(key!("tunnel_down_bytes"), record.tunnel_down_bytes);
}

/// The members of one object, after its first. What is inlined is so that a key is stored and not copied by a call.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// A word of ours, in which nothing needs an escape.
    #[inline]
    fn word(&mut self, key: &[u8], value: &str) {
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }
    #[inline]
    fn number(&mut self, key: &[u8], value: u64) {
        self.out.extend_from_slice(key);
        put_number(self.out, value);
    }
    /// Nothing in it needs an escape.
    #[inline]
    fn address(&mut self, key: &[u8], value: SocketAddress) {
        self.out.extend_from_slice(key);
        put_address(self.out, value);
        self.out.push(b'"');
    }
    /// Bytes in hexadecimal digits.
    #[inline]
    fn id(&mut self, key: &[u8], bytes: &[u8]) {
        self.out.extend_from_slice(key);
        put_id(self.out, bytes);
        self.out.push(b'"');
    }
    #[inline]
    fn text(&mut self, key: &[u8], value: &[u8]) {
        self.out.extend_from_slice(key);
        escape(self.out, value);
        self.out.push(b'"');
    }
    fn text_or_null(&mut self, key: &[u8], value: &[u8]) {
        self.out.extend_from_slice(key);
        if value.is_empty() {
            return self.out.extend_from_slice(b"null");
        }
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }
    #[inline]
    fn text_if(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }
}

/// Appends bytes of the wire as the inside of a JSON string: nothing in it ends the line, or moves a terminal's cursor
/// (threat H09). What is not UTF-8 becomes U+FFFD.
pub(super) fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    // All of them, without a branch for each: many at once.
    let plain = |b: u8| (b.wrapping_sub(b' ') < 0x5f) & (b != b'"') & (b != b'\\');
    if bytes.iter().fold(true, |all, b| all & plain(*b)) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                c if unprintable(c) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Control characters (C0, DEL, C1), line separators, and the marks that reorder what is shown.
pub(crate) fn unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn write_time(out: &mut Vec<u8>, wall_ns: u64) {
    let ms = wall_ns / 1_000_000;
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    // A u64 of nanoseconds ends in the year 2554.
    put_two(&mut text, 0, year / 100);
    put_two(&mut text, 2, year % 100);
    put_two(&mut text, 5, month);
    put_two(&mut text, 8, day);
    put_two(&mut text, 11, in_day / 3_600_000);
    put_two(&mut text, 14, in_day / 60_000 % 60);
    put_two(&mut text, 17, in_day / 1000 % 60);
    put_two(&mut text, 20, in_day % 1000 / 10);
    text[22] = DIGITS[usize::try_from(in_day % 10).unwrap_or(0) * 2 + 1];
    out.extend_from_slice(&text);
}

fn put_two(text: &mut [u8; 24], at: usize, number: u64) {
    let from = usize::try_from(number % 100).unwrap_or(0) * 2;
    text[at..at + 2].copy_from_slice(&DIGITS[from..from + 2]);
}

/// `20/Nov/2026:12:00:00 +0000`, as the common log format writes it.
pub(super) fn write_time_common(out: &mut Vec<u8>, wall_ns: u64) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = wall_ns / 1_000_000_000;
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let month = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at)).unwrap_or(&"");
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let _ = write!(out, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
}

/// Year, month and day of a day counted from 1970-01-01: years are counted from March, so that a leap day is a year's
/// last, in cycles of 400 years of 146,097 days (Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, in_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let day_of_year = in_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dataplane::fault::{At, CloseReason, End, Refusal};
    use dataplane::proto::trace::TraceParent;
    use dataplane::spec::{ClusterId, EndpointId, ListenerId, RouteId, Runtime};
    use dataplane::stats::request_id::RequestId;
    use std::time::Duration;

    fn time(wall_ns: u64) -> String {
        let mut out = Vec::new();
        write_time(&mut out, wall_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times() {
        const DAY: u64 = 86_400_000_000_000;
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(951_782_400_000_000_000 + DAY), "2000-03-01T00:00:00.000Z");
        assert_eq!(time(1_798_761_599_999_999_999), "2026-12-31T23:59:59.999Z");
        assert_eq!(time(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000Z");
    }

    pub(in super::super) fn snapshot() -> Snapshot {
        let runtime = Runtime { shards: 1, node: "n".into(), drain_timeout: Duration::ZERO };
        Snapshot { runtime, listeners: vec![], routes: Vec::new().into(), clusters: vec![], tracing: None }
    }

    pub(crate) fn record() -> Record<'static> {
        Record {
            protocol: Protocol::Http,
            wall_ns: 1_798_761_599_999_999_999,
            request_id: RequestId { process: 1, shard: 2, count: 3 },
            listener: ListenerId(0),
            route: Some(RouteId(9)),
            cluster: Some(ClusterId(9)),
            endpoint: Some(EndpointId(9)),
            peer: SocketAddress::new([127, 0, 0, 1].into(), 5),
            upstream_local: None,
            method: b"GET",
            host: b"a",
            path: b"/",
            query: None,
            user_agent: None,
            referer: None,
            trace: None,
            span: None,
            minor_version: 1,
            status: 400,
            request_body_bytes: 0,
            response_body_bytes: 7,
            timings: timings(
                8,
                &[(Phase::Head, 0), (Phase::Queue, 3), (Phase::Response, 1), (Phase::Transfer, 4)],
            ),
            attempts: 1,
            retries: Retries::NONE,
            link_reused: true,
            refusal: Some(Refusal::BareLf),
            close: Some(CloseReason::Refused),
            end: End::of_refusal(Refusal::BareLf, At::Request),
            request_number: 1,
            tunnel_up_bytes: 0,
            tunnel_down_bytes: 0,
        }
    }

    fn timings(total_us: u64, phases: &[(Phase, u64)]) -> Timings {
        let mut timings = Timings::of_total(total_us);
        phases.iter().for_each(|(phase, us)| timings.set(*phase, *us));
        timings
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write_line(&mut out, record, &snapshot());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_keeps_its_form_and_names_that_are_gone_are_left_out() {
        assert_eq!(
            line(&record()),
            "{\"time\":\"2026-12-31T23:59:59.999Z\",\"request_id\":\"00000001-002000000000003\",\
             \"client\":\"127.0.0.1:5\",\"method\":\"GET\",\"host\":\"a\",\"path\":\"/\",\"version\":\"HTTP/1.1\",\
             \"status\":400,\"request_body_bytes\":0,\"response_body_bytes\":7,\"duration_us\":8,\"head_us\":0,\
             \"queue_us\":3,\"response_us\":1,\"transfer_us\":4,\"first_byte_us\":4,\
             \"attempts\":1,\"link_reused\":true,\"reason\":\"bare_lf\",\"end\":\"PR\",\"close\":\"refused\",\"request_number\":1}\n"
        );
    }

    #[test]
    fn the_trace_is_written_as_its_field_has_it() {
        let trace = TraceParent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes(),
            parent_id: [0, 1, 0xff, 0, 0, 0, 0, 9],
            flags: 1,
        };
        let line = line(&Record { trace: Some(trace), ..record() });
        let ids = ",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"parent_id\":\"0001ff0000000009\",\"version\":";
        assert!(line.contains(ids), "{line}");
    }

    #[test]
    fn why_a_request_was_tried_again_is_a_list_of_words() {
        let mut record = Record { attempts: 3, ..record() };
        record.retries.add(Retried::Status);
        record.retries.add(Retried::BudgetEmpty);
        let line = line(&record);
        assert!(
            line.contains(",\"attempts\":3,\"retries\":[\"status\",\"budget_empty\"],\"link_reused\":"),
            "{line}"
        );
    }

    #[test]
    fn a_line_of_a_tcp_connection_has_nothing_of_requests() {
        let record = Record {
            wall_ns: 0,
            timings: timings(9, &[(Phase::Connect, 3), (Phase::Transfer, 6)]),
            attempts: 2,
            close: Some(CloseReason::TunnelEnded),
            tunnel_up_bytes: 5,
            ..Record::of_tcp(ListenerId(0), record().peer, record().request_id)
        };
        assert_eq!(
            line(&record),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"request_id\":\"00000001-002000000000003\",\
             \"client\":\"127.0.0.1:5\",\"protocol\":\"tcp\",\"duration_us\":9,\"connect_us\":3,\"transfer_us\":6,\"attempts\":2,\
             \"end\":\"--\",\"close\":\"tunnel_ended\",\"tunnel_up_bytes\":5,\"tunnel_down_bytes\":0}\n"
        );
        // It was gone before its address could be asked for.
        let line = line(&Record { peer: SocketAddress::UNSPECIFIED, ..record });
        assert!(!line.contains("client"), "{line}");
    }

    /// Threat H09.
    #[test]
    fn hostile_bytes_stay_inside_one_line_of_json() {
        let all: Vec<u8> = (0..=255).collect();
        let marks = "\"\\\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{7f}\u{1f980}é".as_bytes();
        for hostile in [&all[..], marks, b"\xff\xfe", b"\r\n{\"status\":200}", b"\0"] {
            let record = Record {
                method: hostile,
                host: hostile,
                path: hostile,
                query: Some(hostile),
                user_agent: Some(hostile),
                referer: Some(hostile),
                ..record()
            };
            let line = line(&record);
            let shown = line.strip_suffix('\n').unwrap();
            assert!(!shown.chars().any(unprintable), "{shown:?}");
            let value: serde_json::Value = serde_json::from_str(shown).unwrap();
            for key in ["method", "host", "path", "query", "user_agent", "referer"] {
                assert_eq!(value[key], *String::from_utf8_lossy(hostile), "{key}");
            }
        }
    }
}
