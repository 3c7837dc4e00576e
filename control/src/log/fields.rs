//! The fields of a format string: their names, and how a record's values are written.

use super::access::{write_time, write_time_common};
use dataplane::io::SocketAddress;
use dataplane::spec::{Protocol, Snapshot};
use dataplane::stats::access_log::Record;
use dataplane::stats::retries::Retried;
use dataplane::stats::timings::Phase;
use std::io::Write as _;
use std::net::IpAddr;

/// What of a record a `${…}` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Time,
    TimeCommon,
    TimeUnix,
    RequestId,
    Listener,
    Route,
    Cluster,
    Endpoint,
    Client,
    RemoteAddr,
    RemotePort,
    UpstreamLocal,
    Protocol,
    Method,
    Host,
    Path,
    Query,
    PathAndQuery,
    Request,
    Version,
    UserAgent,
    Referer,
    TraceId,
    SpanId,
    ParentId,
    Sni,
    Status,
    RequestBodyBytes,
    ResponseBodyBytes,
    TunnelUpBytes,
    TunnelDownBytes,
    BytesUp,
    BytesDown,
    Duration(Unit),
    Phase(Phase, Unit),
    FirstByte(Unit),
    Attempts,
    Retries,
    LinkReused,
    Reason,
    End,
    Close,
    RequestNumber,
}

/// Of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Us,
    /// Rounded down.
    Ms,
    /// With three digits behind the point.
    S,
}

use Unit::{Ms, S, Us};

/// Every field: its name, and what it says where that differs from the key of that name in JSON.
pub const FIELDS: &[(&str, Field, &str)] = &[
    ("time", Field::Time, ""),
    ("time_common", Field::TimeCommon, "as the common log format writes it, UTC"),
    ("time_unix", Field::TimeUnix, "seconds since 1970 with three digits behind the point"),
    ("request_id", Field::RequestId, ""),
    ("listener", Field::Listener, ""),
    ("route", Field::Route, ""),
    ("cluster", Field::Cluster, ""),
    ("endpoint", Field::Endpoint, ""),
    ("client", Field::Client, ""),
    ("remote_addr", Field::RemoteAddr, "the client's address without its port"),
    ("remote_port", Field::RemotePort, "the client's port"),
    ("upstream_local", Field::UpstreamLocal, ""),
    ("protocol", Field::Protocol, "`http` or `tcp`"),
    ("method", Field::Method, ""),
    ("host", Field::Host, ""),
    ("path", Field::Path, ""),
    ("query", Field::Query, ""),
    ("path_and_query", Field::PathAndQuery, "the path, and \"?\" and query where there is one"),
    ("request", Field::Request, "method, path with query, and version, as a request line has them"),
    ("version", Field::Version, ""),
    ("user_agent", Field::UserAgent, ""),
    ("referer", Field::Referer, ""),
    ("trace_id", Field::TraceId, ""),
    ("span_id", Field::SpanId, ""),
    ("parent_id", Field::ParentId, ""),
    ("sni", Field::Sni, ""),
    ("status", Field::Status, ""),
    ("request_body_bytes", Field::RequestBodyBytes, ""),
    ("response_body_bytes", Field::ResponseBodyBytes, ""),
    ("tunnel_up_bytes", Field::TunnelUpBytes, ""),
    ("tunnel_down_bytes", Field::TunnelDownBytes, ""),
    ("bytes_up", Field::BytesUp, "of the request's body, and of the tunnel from the client"),
    ("bytes_down", Field::BytesDown, "of the response's body, and of the tunnel to the client"),
    ("duration_us", Field::Duration(Us), ""),
    ("duration_ms", Field::Duration(Ms), ""),
    ("duration_s", Field::Duration(S), ""),
    ("head_us", Field::Phase(Phase::Head, Us), ""),
    ("head_ms", Field::Phase(Phase::Head, Ms), ""),
    ("head_s", Field::Phase(Phase::Head, S), ""),
    ("queue_us", Field::Phase(Phase::Queue, Us), ""),
    ("queue_ms", Field::Phase(Phase::Queue, Ms), ""),
    ("queue_s", Field::Phase(Phase::Queue, S), ""),
    ("lost_us", Field::Phase(Phase::Lost, Us), ""),
    ("lost_ms", Field::Phase(Phase::Lost, Ms), ""),
    ("lost_s", Field::Phase(Phase::Lost, S), ""),
    ("connect_us", Field::Phase(Phase::Connect, Us), ""),
    ("connect_ms", Field::Phase(Phase::Connect, Ms), ""),
    ("connect_s", Field::Phase(Phase::Connect, S), ""),
    ("response_us", Field::Phase(Phase::Response, Us), ""),
    ("response_ms", Field::Phase(Phase::Response, Ms), ""),
    ("response_s", Field::Phase(Phase::Response, S), ""),
    ("transfer_us", Field::Phase(Phase::Transfer, Us), ""),
    ("transfer_ms", Field::Phase(Phase::Transfer, Ms), ""),
    ("transfer_s", Field::Phase(Phase::Transfer, S), ""),
    ("first_byte_us", Field::FirstByte(Us), ""),
    ("first_byte_ms", Field::FirstByte(Ms), ""),
    ("first_byte_s", Field::FirstByte(S), ""),
    ("attempts", Field::Attempts, ""),
    ("retries", Field::Retries, "the words with commas between them"),
    ("link_reused", Field::LinkReused, ""),
    ("reason", Field::Reason, ""),
    ("end", Field::End, ""),
    ("close", Field::Close, ""),
    ("request_number", Field::RequestNumber, ""),
];

/// Where one value goes.
pub(super) struct Value<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Between quotes.
    pub(super) quoted: bool,
}

impl Value<'_> {
    /// Writes what `field` says of `record`; `-` where that is nothing.
    pub(super) fn put(&mut self, field: Field, record: &Record<'_>, snapshot: &Snapshot) {
        let http = record.protocol == Protocol::Http;
        let cluster = || record.cluster.and_then(|id| snapshot.cluster(id));
        match field {
            Field::Time => write_time(self.out, record.wall_ns),
            Field::TimeCommon => write_time_common(self.out, record.wall_ns),
            Field::TimeUnix => self.seconds(record.wall_ns / 1_000_000),
            Field::RequestId => self.out.extend_from_slice(&record.request_id.text()),
            Field::Listener => self.name(snapshot.listener(record.listener).map(|l| &*l.name)),
            Field::Route => {
                let route = record.route.and_then(|id| snapshot.routes.named(id));
                self.name(route.map(|route| &*route.name));
            }
            Field::Cluster => self.name(cluster().map(|cluster| &*cluster.name)),
            Field::Endpoint => {
                let at = record.endpoint.map(|id| usize::from(id.0));
                let endpoint = cluster().zip(at).and_then(|(cluster, at)| cluster.endpoints.get(at));
                self.name(endpoint.map(|endpoint| &*endpoint.name));
            }
            Field::Client => self.address(record.client()),
            Field::RemoteAddr => match record.client().and_then(|client| client.ip()) {
                Some(ip) => self.shown(Some(ip)),
                None => self.shown(record.client()),
            },
            Field::RemotePort => {
                self.shown(record.client().filter(|client| !client.is_unix()).map(|client| client.port()))
            }
            Field::UpstreamLocal => self.address(record.upstream_local),
            Field::Protocol => self.name(Some(if http { "http" } else { "tcp" })),
            Field::Method => self.text(Some(record.method)),
            Field::Host => self.text(Some(record.host).filter(|_| http)),
            Field::Path => self.text(Some(record.path)),
            Field::Query => self.text(record.query),
            Field::PathAndQuery => self.path_and_query(record),
            Field::Request => self.request(record),
            Field::Version => self.name(http.then(|| version(record))),
            Field::UserAgent => self.text(record.user_agent),
            Field::Referer => self.text(record.referer),
            Field::TraceId => self.id(record.trace_id().map(|id| &id[..])),
            Field::SpanId => self.id(record.span.as_ref().map(|span| &span.span_id[..])),
            Field::ParentId => self.id(record.trace.as_ref().map(|trace| &trace.parent_id[..])),
            Field::Sni => self.text(Some(record.host).filter(|_| !http)),
            Field::Status => self.number(http.then_some(u64::from(record.status))),
            Field::RequestBodyBytes => self.number(http.then_some(record.request_body_bytes)),
            Field::ResponseBodyBytes => self.number(http.then_some(record.response_body_bytes)),
            Field::TunnelUpBytes => self.number(Some(record.tunnel_up_bytes)),
            Field::TunnelDownBytes => self.number(Some(record.tunnel_down_bytes)),
            Field::BytesUp => self.number(Some(record.request_body_bytes + record.tunnel_up_bytes)),
            Field::BytesDown => self.number(Some(record.response_body_bytes + record.tunnel_down_bytes)),
            Field::Duration(unit) => self.time(Some(record.timings.total_us), unit),
            Field::Phase(phase, unit) => self.time(record.timings.get(phase), unit),
            Field::FirstByte(unit) => self.time(record.timings.first_byte_us(), unit),
            Field::Attempts => self.number(Some(u64::from(record.attempts))),
            Field::Retries => self.retries(record),
            Field::LinkReused => self.name(Some(if record.link_reused { "true" } else { "false" })),
            Field::Reason => self.name(record.refusal.map(|refusal| refusal.name())),
            Field::End => self.out.extend_from_slice(&record.end.code()),
            Field::Close => self.name(record.close.map(|close| close.name())),
            Field::RequestNumber => self.number(http.then_some(record.request_number)),
        }
    }

    fn address(&mut self, address: Option<SocketAddress>) {
        match address {
            Some(address) => put_address(self.out, address),
            None => self.out.push(b'-'),
        }
    }

    /// A word of ours, which needs no escape.
    fn name(&mut self, name: Option<&str>) {
        self.out.extend_from_slice(name.unwrap_or("-").as_bytes());
    }
    fn shown(&mut self, value: Option<impl std::fmt::Display>) {
        match value {
            // Writing to a Vec cannot fail.
            Some(value) => drop(write!(self.out, "{value}")),
            None => self.out.push(b'-'),
        }
    }
    fn number(&mut self, value: Option<u64>) {
        match value {
            Some(value) => put_number(self.out, value),
            None => self.out.push(b'-'),
        }
    }
    fn id(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => put_id(self.out, bytes),
            None => self.out.push(b'-'),
        }
    }
    fn time(&mut self, us: Option<u64>, unit: Unit) {
        match (us, unit) {
            (Some(us), Us) => put_number(self.out, us),
            (Some(us), Ms) => put_number(self.out, us / 1000),
            (Some(us), S) => self.seconds(us / 1000),
            (None, _) => self.out.push(b'-'),
        }
    }
    fn seconds(&mut self, ms: u64) {
        put_number(self.out, ms / 1000);
        let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
        self.out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
    }
    /// Bytes of the wire: what is not printable ASCII, quotes and backslashes as `\xHH`, and spaces too where no quotes keep
    /// them together (threat H09).
    fn text(&mut self, text: Option<&[u8]>) {
        match text {
            None | Some([]) => self.out.push(b'-'),
            Some(text) => self.escaped(text),
        }
    }
    fn escaped(&mut self, text: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let plain = |b: u8| match b {
            b'"' | b'\\' => false,
            b' ' => self.quoted,
            b => b.is_ascii_graphic(),
        };
        let mut rest = text;
        loop {
            let n = rest.iter().position(|b| !plain(*b)).unwrap_or(rest.len());
            self.out.extend_from_slice(&rest[..n]);
            let Some(byte) = rest.get(n) else { return };
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            self.out.extend_from_slice(&[b'\\', b'x', high, low]);
            rest = &rest[n + 1..];
        }
    }
    fn path_and_query(&mut self, record: &Record<'_>) {
        self.text(Some(record.path));
        if let Some(query) = record.query {
            self.out.push(b'?');
            self.escaped(query);
        }
    }
    fn request(&mut self, record: &Record<'_>) {
        if record.method.is_empty() {
            return self.out.push(b'-');
        }
        let space: &[u8] = if self.quoted { b" " } else { b"\\x20" };
        self.escaped(record.method);
        self.out.extend_from_slice(space);
        self.path_and_query(record);
        self.out.extend_from_slice(space);
        self.out.extend_from_slice(version(record).as_bytes());
    }
    fn retries(&mut self, record: &Record<'_>) {
        if record.retries.is_empty() {
            return self.out.push(b'-');
        }
        let mut before: &[u8] = b"";
        for why in Retried::ALL.into_iter().filter(|why| record.retries.has(*why)) {
            self.out.extend_from_slice(before);
            self.out.extend_from_slice(why.name().as_bytes());
            before = b",";
        }
    }
}

/// The client's version of HTTP.
pub(super) fn version(record: &Record<'_>) -> &'static str {
    if record.minor_version == 0 { "HTTP/1.0" } else { "HTTP/1.1" }
}

/// Appends bytes in hexadecimal digits, as traceparent has them.
pub(super) fn put_id(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
}

/// The numbers below 100, two digits each.
pub(super) static DIGITS: [u8; 200] = {
    let (mut digits, mut at, mut number) = ([b'0'; 200], 0, 0u8);
    while at < digits.len() {
        digits[at] += number / 10;
        digits[at + 1] += number % 10;
        (at, number) = (at + 2, number + 1);
    }
    digits
};

/// Appends a number in decimal.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    let two = |number: u64| usize::try_from(number % 100).unwrap_or(0) * 2;
    if number < 10 {
        return out.push(DIGITS[two(number) + 1]);
    }
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    while left >= 10 {
        at -= 2;
        let from = two(left);
        digits[at..at + 2].copy_from_slice(&DIGITS[from..from + 2]);
        left /= 100;
    }
    if left > 0 {
        at -= 1;
        digits[at] = DIGITS[two(left) + 1];
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address as it is shown.
pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddress) {
    let Some(IpAddr::V4(ip)) = address.ip() else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    let [a, b, c, d] = ip.octets();
    put_number(out, u64::from(a));
    for octet in [b, c, d] {
        out.push(b'.');
        put_number(out, u64::from(octet));
    }
    out.push(b':');
    put_number(out, u64::from(address.port()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 99, 100, 101, 999, 1_000, 12_345, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    /// docs/operations/access-log-formats.md has every field.
    #[test]
    fn the_manual_has_every_field() {
        const BEGIN: &str = "<!-- fields: written by `UPDATE_DOCS=1 cargo test -p control every_field` -->\n";
        const END: &str = "<!-- fields: end -->";
        let mut table = String::from("\n| field | what it says |\n|---|---|\n");
        for (name, field, what) in FIELDS {
            let what = match field {
                // One row for the three units.
                Field::Duration(Us) | Field::Phase(_, Us) | Field::FirstByte(Us) => "microseconds",
                Field::Duration(Ms) | Field::Phase(_, Ms) | Field::FirstByte(Ms) => {
                    "milliseconds, rounded down"
                }
                Field::Duration(S) | Field::Phase(_, S) | Field::FirstByte(S) => "seconds, as `0.042`",
                _ if what.is_empty() => "as in JSON",
                _ => what,
            };
            table.push_str(&format!("| `${{{name}}}` | {what} |\n"));
        }
        table.push('\n');
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/access-log-formats.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the mark before the table");
        let (there, after) = rest.split_once(END).expect("the mark behind the table");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(
                there == table,
                "the table is stale: UPDATE_DOCS=1 cargo test -p control every_field writes it"
            );
        }
    }
}
