//! Answers of the API as text for a terminal.

use super::Name;
use super::commands::Part;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What is shown of an answer to `/v1/clusters`; what one of another version does not say is a "-".
#[derive(Debug, Deserialize)]
pub(super) struct Clusters<'a> {
    #[serde(borrow, default)]
    short: Option<Word<'a>>,
    #[serde(borrow, default)]
    waits: Vec<Word<'a>>,
    #[serde(default)]
    drain: Value,
    #[serde(borrow, default)]
    drift: Vec<Word<'a>>,
    #[serde(borrow)]
    clusters: Vec<ClusterShown<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClusterShown<'a> {
    #[serde(borrow)]
    name: Word<'a>,
    balance: Word<'a>,
    active: Number,
    backup: Number,
    #[serde(borrow)]
    breaker: Word<'a>,
    queued: Number,
    endpoints: Vec<EndpointShown<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointShown<'a> {
    #[serde(borrow)]
    name: Word<'a>,
    address: Word<'a>,
    state: Word<'a>,
    health: Word<'a>,
    usable: bool,
    #[serde(borrow)]
    eligible: Word<'a>,
    running: Number,
    links: Number,
    port_capacity: Option<u64>,
    check: Option<CheckShown<'a>>,
}

#[derive(Debug, Deserialize)]
struct CheckShown<'a> {
    #[serde(borrow)]
    result: Cow<'a, str>,
    took_ms: f64,
    ago_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

impl Default for Word<'_> {
    fn default() -> Self {
        Self(Cow::Borrowed("-"))
    }
}

#[derive(Debug, Default, Deserialize)]
struct Number(Option<u64>);

impl Number {
    fn text(&self) -> Cow<'static, str> {
        match self.0 {
            Some(0) => Cow::Borrowed("0"),
            Some(number) => Cow::Owned(number.to_string()),
            None => Cow::Borrowed("-"),
        }
    }
}

/// The answer to `/v1/clusters`.
pub(super) fn clusters(shown: &Clusters<'_>) -> String {
    let mut out = String::new();
    if let Some(short) = &shown.short {
        let _ = writeln!(out, "short: {}\n", short.0);
    }
    if !shown.waits.is_empty() {
        let waits: Vec<&str> = shown.waits.iter().map(|key| &*key.0).collect();
        let _ = writeln!(out, "wait for an upgrade: {}\n", waits.join(", "));
    }
    let drains = super::drain::lines(&shown.drain);
    if !drains.is_empty() {
        let _ = writeln!(out, "{drains}");
    }
    if !shown.drift.is_empty() {
        let drift: Vec<&str> = shown.drift.iter().map(|name| &*name.0).collect();
        let _ = writeln!(out, "changed at run time, beside the file: {}\n", drift.join(", "));
    }
    for cluster in &shown.clusters {
        // Writing to a String cannot fail.
        let breaker = match &*cluster.breaker.0 {
            "closed" | "-" => String::new(),
            state => format!(", circuit breaker {state}"),
        };
        let _ = writeln!(
            out,
            "{}: {}, {} active and {} backup endpoints, {} waiting{breaker}",
            cluster.name.0,
            cluster.balance.0,
            cluster.active.text(),
            cluster.backup.text(),
            cluster.queued.text(),
        );
        let head =
            ["ENDPOINT", "ADDRESS", "STATE", "HEALTH", "USED", "RUNNING", "LINKS", "PORTS", "LAST CHECK"];
        let mut rows = vec![head.map(Cow::Borrowed)];
        rows.extend(cluster.endpoints.iter().map(row));
        write_table(&mut out, &rows);
        out.push('\n');
    }
    out
}

fn row<'a>(endpoint: &'a EndpointShown<'_>) -> [Cow<'a, str>; 9] {
    let ports = match endpoint.port_capacity {
        Some(capacity) => Cow::Owned(format!("{} of {capacity}", endpoint.links.text())),
        None => Cow::Borrowed("-"),
    };
    let last = match &endpoint.check {
        Some(CheckShown { result, took_ms, ago_ms }) => {
            Cow::Owned(format!("{result} ({took_ms:.1} ms, {:.1} s ago)", ago_ms / 1000.0))
        }
        None => Cow::Borrowed("-"),
    };
    [
        Cow::Borrowed(&*endpoint.name.0),
        Cow::Borrowed(&*endpoint.address.0),
        Cow::Borrowed(&*endpoint.state.0),
        Cow::Borrowed(&*endpoint.health.0),
        match (endpoint.usable, &*endpoint.eligible.0) {
            (false, "-") => Cow::Borrowed("no"),
            (false, "yes") => Cow::Borrowed("no: weight 0"),
            (false, why) => Cow::Borrowed(why),
            (true, _) => Cow::Borrowed("yes"),
        },
        endpoint.running.text(),
        endpoint.links.text(),
        ports,
        last,
    ]
}

/// A list of objects as a table: a title and a key for each column. What an object does not say is a "-".
pub(super) fn rows<const N: usize>(list: &Value, columns: &[(&'static str, &str); N]) -> String {
    let mut rows = vec![columns.map(|(title, _)| Cow::Borrowed(title))];
    for object in list.as_array().into_iter().flatten() {
        rows.push(columns.map(|(_, key)| cell(&object[key])));
    }
    let mut out = String::new();
    write_table(&mut out, &rows);
    out
}

fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed("-"),
        Value::String(text) if text.is_empty() => Cow::Borrowed("-"),
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(flag) => Cow::Borrowed(if *flag { "yes" } else { "no" }),
        Value::Array(list) if list.is_empty() => Cow::Borrowed("-"),
        Value::Array(list) => Cow::Owned(list.iter().map(cell).collect::<Vec<_>>().join(", ")),
        other => Cow::Owned(other.to_string()),
    }
}

/// What `ringway status` shows of a part of the process.
pub(super) fn part(part: Part, body: &Value) -> String {
    match part {
        Part::Clusters => String::new(),
        Part::Listeners => rows(
            &body["listeners"],
            &[
                ("LISTENER", "name"),
                ("PROTOCOL", "protocol"),
                ("BOUND", "bound"),
                ("LEAVING", "leaving"),
                ("OPEN", "connections"),
                ("MOST", "max_connections"),
                ("ACCEPTED", "accepted"),
                ("REQUESTS", "requests"),
                ("CLUSTER", "cluster"),
            ],
        ),
        Part::Routes => rows(
            &body["routes"],
            &[
                ("ROUTE", "name"),
                ("LISTENERS", "listeners"),
                ("ACTION", "action"),
                ("CLUSTER", "cluster"),
                ("STATUS", "status"),
                ("MAINTENANCE", "in_maintenance"),
                ("REQUESTS", "requests"),
                ("CONNECTIONS", "connections"),
            ],
        ),
        Part::Shards => rows(
            &body["shards"],
            &[
                ("SHARD", "shard"),
                ("CONNECTIONS", "connections"),
                ("LINKS", "links"),
                ("QUEUED", "queued"),
                ("REQUESTS", "requests"),
                ("TURNS", "turns"),
                ("CPU MS", "cpu_ms"),
                ("STARVED", "starved"),
            ],
        ),
        Part::Limits => rows(
            &body["limits"],
            &[("LIMIT", "limit"), ("OF", "of"), ("USED", "used"), ("MOST", "most"), ("PERCENT", "percent")],
        ),
    }
}

/// What was changed at run time.
pub(super) fn drift(body: &Value) -> String {
    let mut out = String::new();
    for change in body["changes"].as_array().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "{} {}: {}", text(change, "kind"), text(change, "name"), text(change, "change"));
    }
    for state in body["states"].as_array().into_iter().flatten() {
        let gone = if state["gone"] == true { ", and gone (--forget ends that)" } else { "" };
        let _ = writeln!(out, "endpoint {}: set to {}{gone}", text(state, "endpoint"), text(state, "state"));
    }
    if out.is_empty() { "all is as the file says\n".to_owned() } else { out }
}

/// Columns as wide as their widest cell, two spaces apart.
fn write_table<const N: usize>(out: &mut String, rows: &[[Cow<'_, str>; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (cell, width) in row.iter().zip(&mut widths) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        out.push_str("  ");
        for (cell, width) in row.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

/// The answer to a probe: the bytes both ways, line by line, and the verdict.
pub(super) fn probe(name: &Name, body: &Value) -> String {
    let mut out = format!("{}/{}\n", name.cluster, name.endpoint);
    for (mark, key) in [(">", "sent"), ("<", "received")] {
        for line in lines(text(body, key)) {
            let _ = writeln!(out, "{mark} {line}");
        }
    }
    let _ = write!(
        out,
        "{}, check duration: {:.1} ms",
        text(body, "verdict"),
        body["took_ms"].as_f64().unwrap_or(0.0)
    );
    match body["connected_ms"].as_f64() {
        Some(ms) => out.push_str(&format!(", connected after {ms:.1} ms\n")),
        None => out.push_str(", never connected\n"),
    }
    out
}

/// Escaped bytes, parted behind each escaped line feed.
fn lines(escaped: &str) -> Vec<&str> {
    let (mut lines, mut start, mut chars) = (Vec::new(), 0, escaped.char_indices());
    while let Some((_, c)) = chars.next() {
        if c == '\\'
            && let Some((at, 'n')) = chars.next()
        {
            lines.extend(escaped.get(start..=at));
            start = at + 1;
        }
    }
    lines.extend(escaped.get(start..).filter(|rest| !rest.is_empty()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_shown_line_by_line() {
        assert_eq!(lines(""), [""; 0]);
        let bytes = b"GET / HTTP/1.1\r\nX: a\\nb\r\n\r\nrest".escape_ascii().to_string();
        assert_eq!(lines(&bytes), ["GET / HTTP/1.1\\r\\n", "X: a\\\\nb\\r\\n", "\\r\\n", "rest"]);
        let name = Name { cluster: "app".to_owned(), endpoint: "one".to_owned() };
        let body = json!({ "verdict": "Layer7 timeout", "took_ms": 2000.04, "connected_ms": 0.26, "sent": "a\\n", "received": "" });
        assert_eq!(
            probe(&name, &body),
            "app/one\n> a\\n\nLayer7 timeout, check duration: 2000.0 ms, connected after 0.3 ms\n"
        );
    }

    #[test]
    fn a_table_says_what_the_api_says() {
        let body = json!({ "short": "8 rings of 580 KiB", "clusters": [{
            "name": "app", "balance": "round_robin", "active": 1, "backup": 0, "queued": 2, "breaker": "half-open",
            "endpoints": [
                { "name": "one", "address": "127.0.0.1:9000", "state": "ready", "health": "up", "usable": true,
                  "running": 3, "links": 4, "port_capacity": 28232,
                  "check": { "result": "Layer4 check passed", "took_ms": 0.24, "ago_ms": 1500 } },
                { "name": "two", "address": "unix:/x", "state": "maint", "health": "unchecked", "usable": false,
                  "eligible": "no: maint", "running": 0, "links": 0 },
            ],
        }] });
        let body = body.to_string();
        let text = clusters(&serde_json::from_str(&body).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["short: 8 rings of 580 KiB", ""]);
        let lines = &lines[2..];
        assert_eq!(
            lines[0],
            "app: round_robin, 1 active and 0 backup endpoints, 2 waiting, circuit breaker half-open"
        );
        assert!(
            lines[2].contains("4 of 28232") && lines[2].ends_with("Layer4 check passed (0.2 ms, 1.5 s ago)"),
            "{text}"
        );
        assert!(lines[3].contains("  no: maint  ") && lines[3].ends_with('-'), "{text}");
    }
}
