//! `[cluster.health]`: active checks of a cluster's endpoints.

use super::keys::ReloadEffect::Nothing;
use super::keys::{Key, Section, Shape};
use super::matching::{is_token, pattern};
use super::tree::{Item, Table};
use super::{host, reply, template};
use crate::health::{BodyMatch, Check, Http, Initial, Kind};
use dataplane::limits::{self, Bound};
use dataplane::spec::Pattern;
use std::sync::Arc;

/// Statuses that an answer can have. Those below 200 are no answer yet, and who asks for no upgrade gets no 101.
const STATUS: Bound<u64> = Bound { min: 200, default: 200, max: 599 };

pub(super) static SECTION: Section = Section {
    path: "cluster.health",
    shared: false,
    doc: "Active checks: each endpoint is asked from time to time, once for the whole process, whether it serves. One that \
          does not gets no new requests. `ringway probe CLUSTER/ENDPOINT` makes one check and shows it. See \
          [operations/active-checks.md](operations/active-checks.md).",
    keys: &[
        Key::new(
            "kind",
            Shape::Word(&["tcp", "http"], &[]),
            Nothing,
            "What a check does: `\"tcp\"` connects, `\"http\"` sends a request of HTTP/1.1 and judges the answer. A kept \
             connection serves the next check where the answer allows it. The cluster's `source_addresses`, \
             `source_ports` and `send_proxy` (LOCAL, or UNKNOWN in `\"v1\"`) hold for checks too.",
        ),
        Key::new("method", Shape::Free("a method"), Nothing, "Of an http check.").absent("\"GET\""),
        Key::new("path", Shape::Free("a path, as \"/health?full=1\""), Nothing, "Of an http check; it may have a query.")
            .absent("\"/\""),
        Key::new("host", Shape::Free("a name"), Nothing, "The Host of an http check.").absent("the endpoint's address"),
        Key::new(
            "headers",
            Shape::Free("a table of names"),
            Nothing,
            "Further fields of an http check, at most 32. `connection = \"close\"` makes each check connect anew.",
        )
        .absent("none"),
        Key::new(
            "expect_status",
            Shape::Free("statuses, as 200 or \"200-399\", one or a list"),
            Nothing,
            "Which statuses are good, of 200 to 599.",
        )
        .absent("\"200-399\""),
        Key::new(
            "expect_body",
            Shape::Table(&EXPECT_BODY),
            Nothing,
            "What the first 64 KiB of the answer's body must have.",
        )
        .absent("anything"),
        Key::new(
            "interval",
            Shape::Duration(limits::CHECK_INTERVAL, None),
            Nothing,
            "From the start of a check to the start of the next. The first checks are spread over it.",
        ),
        Key::new(
            "timeout",
            Shape::Duration(limits::CHECK_TIMEOUT, None),
            Nothing,
            "For a whole check, connecting included. A check that takes longer than `interval` delays the next.",
        ),
        Key::new("rise", Shape::Count(limits::CHECK_RISE, None), Nothing, "Passed checks in a row until a down endpoint is up."),
        Key::new("fall", Shape::Count(limits::CHECK_FALL, None), Nothing, "Failed checks in a row until an up endpoint is down."),
        Key::new(
            "fast_interval",
            Shape::Duration(limits::CHECK_INTERVAL, None),
            Nothing,
            "Instead of `interval` while the last checks say otherwise than what holds, and are not yet enough.",
        )
        .absent("`interval`"),
        Key::new(
            "initial",
            Shape::Word(&["up", "down", "probing"], &[]),
            Nothing,
            "What an endpoint is when ringway starts: used at once, down until `rise` checks passed, or unused until its \
             first check, which is made at once and decides.",
        ),
    ],
};

pub(super) static EXPECT_BODY: Section = Section {
    path: "cluster.health.expect_body",
    shared: false,
    doc: "One of the two.",
    keys: &[
        Key::new("contains", Shape::Free("a string"), Nothing, "Somewhere in the body.")
            .absent("one of the two"),
        Key::new(
            "regex",
            Shape::Free("a regular expression"),
            Nothing,
            "Found somewhere in the body. One that no body has is refused, and one whose table of states would have more than \
             1 MiB, so that no body takes long to search.",
        )
            .absent("one of the two"),
    ],
};

/// The checks of a cluster's endpoints.
pub(super) fn read(cluster: &Table<'_>) -> Option<Arc<Check>> {
    let there = cluster.get("health")?.value.is_table();
    let table = cluster.table("health");
    there.then(|| Arc::new(check(&table)))
}

fn check(table: &Table<'_>) -> Check {
    let interval = table.duration("interval");
    Check {
        kind: kind(table),
        interval,
        fast_interval: table.duration_if_set("fast_interval").unwrap_or(interval),
        timeout: table.duration("timeout"),
        rise: table.count32("rise"),
        fall: table.count32("fall"),
        initial: match table.word("initial") {
            "down" => Initial::Down,
            "probing" => Initial::Probing,
            _ => Initial::Up,
        },
    }
}

fn kind(table: &Table<'_>) -> Kind {
    if table.word("kind") != "http" {
        let of_http = ["method", "path", "host", "headers", "expect_status", "expect_body"];
        for item in of_http.iter().filter_map(|key| table.get(key)) {
            item.error_near(
                "is about requests, and the kind of check is \"tcp\"",
                Some("kind = \"http\"".to_owned()),
            );
        }
        return Kind::Tcp;
    }
    let method = method(table);
    if let (Some(item), "HEAD") = (table.get("expect_body"), &*method) {
        item.error("an answer to HEAD has no body");
    }
    Kind::Http(Http {
        method,
        path: path(table),
        host: table.get("host").and_then(|item| name(&item)),
        headers: headers(table),
        statuses: statuses(table),
        body: body(table),
    })
}

fn method(table: &Table<'_>) -> Arc<str> {
    let Some(item) = table.get("method") else { return "GET".into() };
    let Some(text) = item.words() else { return "GET".into() };
    if !is_token(text) || text.len() > limits::METHOD_BYTES {
        item.error(format!("{text:?} is not a method"));
    } else if text == "CONNECT" {
        item.error("a check opens no tunnel");
    }
    text.into()
}

fn path(table: &Table<'_>) -> Arc<str> {
    let Some(item) = table.get("path") else { return "/".into() };
    let Some(text) = item.words() else { return "/".into() };
    if text.len() > limits::CHECK_PATH_BYTES {
        let most = limits::CHECK_PATH_BYTES;
        item.error(format!("has {} bytes, which is out of range (at most {most})", text.len()));
    } else if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        item.error(format!("{c:?} cannot stand in a path; percent-encode it"));
    } else if !text.starts_with('/') && text != "*" {
        item.error_near("a path begins with \"/\"", Some(format!("/{text}")));
    }
    text.into()
}

fn name(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.words()?;
    host::authority(text).map_err(|what| item.error(what)).ok()?;
    Some(text.into())
}

/// Fields with which a check would be another message than the one that its other keys say, or none.
const NOT_A_CHECKS: &[&str] = &["content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"];

fn headers(table: &Table<'_>) -> Vec<(Arc<str>, Arc<str>)> {
    let Some(item) = table.get("headers") else { return Vec::new() };
    let entries = item.entries().unwrap_or_default();
    if entries.len() > limits::CHECK_FIELDS {
        item.error(format!("has more than {} fields", limits::CHECK_FIELDS));
        return Vec::new();
    }
    let mut headers: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    for (name, place, value) in entries {
        let lower = name.to_ascii_lowercase();
        if !is_token(name) {
            place.error(format!("{name:?} is not a field's name"));
        } else if lower == "host" {
            place.error("is said by `host`");
        } else if NOT_A_CHECKS.contains(&lower.as_str()) {
            place.error(format!("{name:?} has no place in a check"));
        } else if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            place.error(format!("{name:?} stands twice"));
        }
        let Some(text) = template::string(&value, limits::CHECK_FIELD_BYTES) else { continue };
        if reply::check_value(&value, &text) {
            bytes += name.len() + text.len() + ": \r\n".len();
            headers.push((name.into(), text.as_ref().into()));
        }
    }
    if bytes > limits::CHECK_FIELD_BYTES {
        let most = limits::CHECK_FIELD_BYTES;
        item.error(format!("has {bytes} bytes of fields, which is out of range (at most {most})"));
    }
    headers
}

fn statuses(table: &Table<'_>) -> Vec<(u16, u16)> {
    let items = table.each("expect_status");
    if let Some(item) = items.first().filter(|_| items.len() > limits::CHECK_STATUSES) {
        item.error(format!("lists more than {} statuses", limits::CHECK_STATUSES));
    }
    let ranges: Vec<_> = items.iter().filter_map(status_range).collect();
    if items.is_empty() { vec![(200, 399)] } else { ranges }
}

/// `204`, `"204"` or `"200-399"`.
fn status_range(item: &Item<'_>) -> Option<(u16, u16)> {
    let status = |text: &str| {
        let number = text.trim().parse::<u16>().ok()?;
        (STATUS.min..=STATUS.max).contains(&number.into()).then_some(number)
    };
    let Some(text) = item.value.as_str() else {
        let status = item.count_in(STATUS, "200 to 599").and_then(|n| u16::try_from(n).ok())?;
        return Some((status, status));
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (status(from), status(to)) {
        (Some(from), Some(to)) if from <= to => Some((from, to)),
        _ => {
            item.error_near(
                format!("{text:?} is no final status and no range of them, 200 to 599"),
                Some("\"200-399\"".to_owned()),
            );
            None
        }
    }
}

fn body(table: &Table<'_>) -> Option<BodyMatch> {
    let item = table.get("expect_body")?;
    if !item.value.is_table() {
        item.wants("{ contains = … } or { regex = … }");
        return None;
    }
    let table = table.table("expect_body");
    match (table.get("contains"), table.get("regex")) {
        (Some(text), None) => {
            let words = text.words()?;
            if words.len() > limits::CHECK_TEXT_BYTES {
                let most = limits::CHECK_TEXT_BYTES;
                text.error(format!("has {} bytes, which is out of range (at most {most})", words.len()));
            }
            Some(BodyMatch::Contains(words.as_bytes().into()))
        }
        (None, Some(text)) => pattern_of_bodies(&text).map(BodyMatch::Regex),
        _ => {
            item.wants("one of `contains` and `regex`");
            None
        }
    }
}

fn pattern_of_bodies(item: &Item<'_>) -> Option<Pattern> {
    let pattern = pattern(item, false)?;
    if !pattern.can_match() {
        item.error("no body has it: every check would fail");
        return None;
    }
    Some(pattern)
}
