//! Answers of the API as text for a terminal.

use super::Name;
use serde_json::Value;
use std::fmt::Write as _;

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> String {
    value[key].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string())
}

/// The answer to `/v1/clusters`.
pub(super) fn clusters(body: &Value) -> String {
    let mut out = String::new();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for cluster in list(body, "clusters") {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{}: {}, {} active and {} backup endpoints, {} waiting",
            text(&cluster, "name"),
            text(&cluster, "balance"),
            number(&cluster, "active"),
            number(&cluster, "backup"),
            number(&cluster, "queued"),
        );
        let head =
            ["ENDPOINT", "ADDRESS", "STATE", "HEALTH", "USED", "RUNNING", "LINKS", "PORTS", "LAST CHECK"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(list(&cluster, "endpoints").iter().map(row));
        write_table(&mut out, &rows);
        out.push('\n');
    }
    out
}

fn row(endpoint: &Value) -> [String; 9] {
    let ports = match endpoint["port_capacity"].as_u64() {
        Some(capacity) => format!("{} of {capacity}", number(endpoint, "links")),
        None => "-".to_owned(),
    };
    let check = &endpoint["check"];
    let last = match check["result"].as_str() {
        Some(result) => format!(
            "{result} ({:.1} ms, {:.1} s ago)",
            check["took_ms"].as_f64().unwrap_or(0.0),
            check["ago_ms"].as_f64().unwrap_or(0.0) / 1000.0
        ),
        None => "-".to_owned(),
    };
    [
        text(endpoint, "name").to_owned(),
        text(endpoint, "address").to_owned(),
        text(endpoint, "state").to_owned(),
        text(endpoint, "health").to_owned(),
        if endpoint["usable"] == true { "yes" } else { "no" }.to_owned(),
        number(endpoint, "running"),
        number(endpoint, "links"),
        ports,
        last,
    ]
}

/// Columns as wide as their widest cell, two spaces apart.
fn write_table<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::from("  ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
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
        let body = json!({ "clusters": [{
            "name": "app", "balance": "round_robin", "active": 1, "backup": 0, "queued": 2,
            "endpoints": [
                { "name": "one", "address": "127.0.0.1:9000", "state": "ready", "health": "up", "usable": true,
                  "running": 3, "links": 4, "port_capacity": 28232,
                  "check": { "result": "Layer4 check passed", "took_ms": 0.24, "ago_ms": 1500 } },
                { "name": "two", "address": "unix:/x", "state": "maint", "health": "unchecked", "usable": false,
                  "running": 0, "links": 0 },
            ],
        }] });
        let text = clusters(&body);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "app: round_robin, 1 active and 0 backup endpoints, 2 waiting");
        assert!(
            lines[2].contains("4 of 28232") && lines[2].ends_with("Layer4 check passed (0.2 ms, 1.5 s ago)"),
            "{text}"
        );
        assert!(lines[3].contains("maint") && lines[3].ends_with('-'), "{text}");
    }
}
