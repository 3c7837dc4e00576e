//! `match = { … }`: which requests a route takes.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::names::Names;
use super::tree::{Item, Table};
use super::{address, available, host};
use dataplane::limits;
use dataplane::spec::{FieldMatch, Match, Pattern, TextMatch};
use std::sync::Arc;

const TEXTS: Shape = Shape::Free("a string, or a list of them");
const FIELDS: Shape = Shape::Free("a table of names");

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key::new(name, shape, NextExchange, doc).absent("any")
}

pub(super) static SECTION: Section = Section {
    path: "route.match",
    shared: false,
    doc: "All keys that are there must hold; a list means any of. Paths are compared in the normal form that is also \
          forwarded.",
    keys: &[
        key(
            "host",
            TEXTS,
            "The whole host, or `\"*.example.org\"` for one or more labels in front. Case, port and a final dot do not count.",
        ),
        key("host_prefix", TEXTS, "The front of the host."),
        key("path", TEXTS, "The whole path, without its query."),
        key("path_prefix", TEXTS, "Whole segments: `\"/v1\"` takes `/v1` and `/v1/x`, not `/v1x`."),
        key("path_begins", TEXTS, "Bytes: `\"/v1\"` takes `/v1x` too (HAProxy's path_beg)."),
        key("path_suffix", TEXTS, "The path's end."),
        key(
            "path_regex",
            TEXTS,
            "Regular expressions, found anywhere in the path; anchor them with `^` and `$`. They look at bytes, and each takes one \
             step for each byte; one whose table of states would have more than 1 MiB is refused.",
        ),
        Key::new(
            "ignore_case",
            Shape::Flag,
            NextExchange,
            "Path keys of this table ignore the case of ASCII letters.",
        ),
        key("method", TEXTS, "The method; it has case."),
        key("header", FIELDS, "Fields of the request by name, in any case: `{ \"x-env\" = \"a\" }`."),
        key("cookie", FIELDS, "Cookies by name."),
        key("query", FIELDS, "Keys of the query."),
        key("source", Shape::Free("networks, as \"10.0.0.0/8\""), "Where the client connects from."),
        key("not", Shape::Table(&SECTION), "A match that must not hold as a whole."),
        key(
            "sni",
            TEXTS,
            "The name that a TLS client asks for, written as `host`. Of tcp listeners; a client without a name meets none.",
        ),
        key(
            "alpn",
            TEXTS,
            "The protocols that a TLS client offers, as `\"h2\"`; they have case. Of tcp listeners.",
        ),
        key("available", Shape::Table(&available::SECTION), "How many endpoints of a cluster are usable."),
    ],
};

pub(super) static FIELD: Section = Section {
    path: "route.match.header, route.match.cookie, route.match.query",
    shared: true,
    doc: "Behind each name: a string (exactly this), a list of strings (any of them), `true` or `false` (there or not), \
          or one of these tables.",
    keys: &[
        Key::new("prefix", Shape::Free("a string"), NextExchange, "The front of the value.")
            .absent("one of the two"),
        Key::new(
            "regex",
            Shape::Free("a regular expression"),
            NextExchange,
            "Found anywhere in the value, and bounded as `path_regex` is.",
        )
        .absent("one of the two"),
    ],
};

pub(super) fn read(table: &Table<'_>, clusters: &mut Names) -> Match {
    let ignore_case = table.flag("ignore_case");
    let path = |key, check: fn(&Item<'_>, &str)| texts(table, key, check, ignore_case);
    Match {
        host: hosts(table),
        host_prefix: table.each("host_prefix").iter().filter_map(host_prefix).collect(),
        path: path("path", check_whole_path),
        path_prefix: path("path_prefix", check_path),
        path_begins: path("path_begins", check_path_start),
        path_suffix: path("path_suffix", check_path_characters),
        path_regex: table
            .each("path_regex")
            .iter()
            .filter_map(|item| pattern_of_clients(item, ignore_case))
            .collect(),
        ignore_case,
        method: texts(table, "method", check_method, false),
        header: fields(table, "header", header_name),
        cookie: fields(table, "cookie", cookie_name),
        query: fields(table, "query", query_name),
        source: table.each("source").iter().filter_map(address::network).collect(),
        sni: list(table, "sni").iter().filter_map(server_name).collect(),
        alpn: texts(table, "alpn", check_protocol, false),
        available: available::read(table, clusters),
        not: table.get("not").map(|_| Box::new(read(&table.table("not"), clusters))),
    }
}

/// The keys of a match, those of its negation included, that only a request can meet.
pub(super) fn of_requests<'t>(table: &Table<'t>) -> Vec<Item<'t>> {
    keys(table, &|key| key.built && !["source", "not", "sni", "alpn", "available"].contains(&key.name))
}

/// The keys that only a ClientHello can meet.
pub(super) fn of_hellos<'t>(table: &Table<'t>) -> Vec<Item<'t>> {
    keys(table, &|key| ["sni", "alpn"].contains(&key.name))
}

/// What stands behind the wanted keys of a match, and of its negation.
fn keys<'t>(table: &Table<'t>, wanted: &dyn Fn(&Key) -> bool) -> Vec<Item<'t>> {
    let own = SECTION.keys.iter().filter(|key| wanted(key));
    let mut items: Vec<_> = own.filter_map(|key| table.get(key.name)).collect();
    if table.get("not").is_some_and(|item| item.value.is_table()) {
        items.extend(keys(&table.table("not"), wanted));
    }
    items
}

/// A name of a ClientHello: a host without a port, and never an address.
fn server_name(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.words()?;
    match host::pattern(text) {
        Ok(pattern) if pattern.had_port => {
            item.error(format!("{text:?} has a port, which no client's name has"))
        }
        Ok(pattern)
            if pattern.text.starts_with('[') || pattern.text.parse::<std::net::Ipv4Addr>().is_ok() =>
        {
            item.error(format!("{text:?} is an address, which is no name (RFC 6066 section 3)"));
        }
        Ok(pattern) => return Some(pattern.text.into()),
        Err(what) => item.error(what.replace("`host`", "`sni`")),
    }
    None
}

/// RFC 7301 section 3.1.
fn check_protocol(item: &Item<'_>, text: &str) {
    const LONGEST: usize = 255;
    if text.len() > LONGEST {
        item.error(format!("is longer than the {LONGEST} bytes that a protocol's name may have"));
    }
}

/// The items of a list within its bound.
fn list<'t>(table: &Table<'t>, key: &str) -> Vec<Item<'t>> {
    let items = table.each(key);
    if items.len() > limits::MATCH_LIST_MAX
        && let Some(item) = items.first()
    {
        item.error(format!("lists more than {} texts", limits::MATCH_LIST_MAX));
        return Vec::new();
    }
    items
}

fn texts(table: &Table<'_>, key: &str, check: fn(&Item<'_>, &str), lower: bool) -> Vec<Arc<str>> {
    let items = list(table, key);
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = item.words() else { continue };
        check(&item, text);
        texts.push(if lower { text.to_ascii_lowercase().into() } else { text.into() });
    }
    texts
}

fn hosts(table: &Table<'_>) -> Vec<Arc<str>> {
    let mut hosts = Vec::new();
    for item in list(table, "host") {
        let Some(text) = item.words() else { continue };
        match host::pattern(text) {
            Ok(pattern) => {
                if pattern.had_port {
                    item.warn(
                        "the port does not count: a host matches on every port",
                        Some(pattern.text.clone()),
                    );
                }
                hosts.push(pattern.text.into());
            }
            Err(what) => item.error(what),
        }
    }
    hosts
}

fn host_prefix(item: &Item<'_>) -> Option<Arc<str>> {
    let found = host::prefix(item.words()?);
    found.map_err(|what| item.error(what)).ok().map(Into::into)
}

fn check_whole_path(item: &Item<'_>, text: &str) {
    if text != "*" {
        check_path(item, text);
    }
}

fn check_path(item: &Item<'_>, text: &str) {
    check_path_start(item, text);
    if let Err(why) = normal_segments(text) {
        item.warn(format!("never matches: {why} in the normal form of a path"), None);
    }
}

fn check_path_start(item: &Item<'_>, text: &str) {
    if text.starts_with('/') {
        check_path_characters(item, text);
    } else {
        item.error_near(format!("{text:?} must begin with \"/\""), Some(format!("/{text}")));
    }
}

fn check_path_characters(item: &Item<'_>, text: &str) {
    if let Some((path, _)) = text.split_once('?') {
        item.error_near(
            "a path ends at \"?\"; match the rest by `query`",
            (!path.is_empty()).then(|| path.to_owned()),
        );
    } else if text.contains('#') {
        item.error("a path ends at \"#\", and what follows is never sent");
    } else if let Err(why) = normal_characters(text) {
        item.warn(format!("never matches: {why} in the normal form of a path"), None);
    }
}

fn normal_segments(text: &str) -> Result<(), String> {
    if text.contains("//") {
        return Err("no segment is empty".to_owned());
    }
    match text.split('/').find(|segment| matches!(*segment, "." | "..")) {
        Some(segment) => Err(format!("there is no segment {segment:?}")),
        None => Ok(()),
    }
}

/// Whether these characters can stand in a path's normal form: visible ASCII, `%XX` in capitals, and nothing escaped
/// that needs no escape (RFC 3986 section 6.2.2).
fn normal_characters(text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{c:?} is percent-encoded"));
    }
    if text.contains('\\') {
        return Err("no backslash stands".to_owned());
    }
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else { return Err("no \"%\" stands without two digits".to_owned()) };
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        if matches!(byte, 0 | b'/' | b'\\') {
            return Err(format!("no \"%{digits}\" stands (it is refused)"));
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Err(format!("\"%{digits}\" is {:?}", char::from(byte)));
        }
        if digits.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!("\"%{digits}\" is \"%{}\"", digits.to_ascii_uppercase()));
        }
    }
    Ok(())
}

fn check_method(item: &Item<'_>, text: &str) {
    const KNOWN: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    let upper = text.to_ascii_uppercase();
    if !is_token(text) || text.len() > limits::METHOD_BYTES {
        item.error(format!("{text:?} is not a method"));
    } else if text != upper && KNOWN.contains(&upper.as_str()) {
        item.warn(format!("methods have case, and no client sends {text:?}"), Some(upper));
    }
}

/// A token of RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn header_name(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is not a field's name"))
    }
}

fn cookie_name(text: &str) -> Result<String, String> {
    if is_token(text) { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a cookie's name")) }
}

fn query_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a key of a query is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn fields(table: &Table<'_>, key: &str, name: fn(&str) -> Result<String, String>) -> Vec<FieldMatch> {
    let Some(item) = table.get(key) else { return Vec::new() };
    let mut fields: Vec<FieldMatch> = Vec::new();
    for (text, place, value) in item.entries().unwrap_or_default() {
        match name(text) {
            Ok(name) => {
                if fields.iter().any(|field| *field.name == *name) {
                    place.error(format!("{name:?} stands twice"));
                }
                if let Some(text) = field(&value) {
                    fields.push(FieldMatch { name: name.into(), text });
                }
            }
            Err(what) => place.error(what),
        }
    }
    fields
}

fn field(item: &Item<'_>) -> Option<TextMatch> {
    if let Some(flag) = item.value.as_bool() {
        return Some(if flag { TextMatch::Present } else { TextMatch::Absent });
    }
    if item.value.is_str() || item.value.is_array() {
        let items = item.each();
        let mut texts: Vec<Arc<str>> = Vec::with_capacity(items.len());
        for item in &items {
            match item.value.as_str() {
                Some(text) => texts.push(text.into()),
                None => item.wants("a string"),
            }
        }
        return (texts.len() == items.len() && !texts.is_empty()).then_some(TextMatch::AnyOf(texts));
    }
    if !item.value.is_table() {
        item.wants("a string, a list of strings, true, false, { prefix = … } or { regex = … }");
        return None;
    }
    let table = item.table(&FIELD)?;
    match (table.get("prefix"), table.get("regex")) {
        (Some(prefix), None) => prefix.words().map(|text| TextMatch::Prefix(text.into())),
        (None, Some(text)) => pattern_of_clients(&text, false).map(TextMatch::Regex),
        _ => {
            item.wants("one of `prefix` and `regex`");
            None
        }
    }
}

/// A regular expression over bytes.
pub(super) fn pattern(item: &Item<'_>, ignore_case: bool) -> Option<Pattern> {
    Pattern::new(item.words()?, ignore_case).map_err(|why| item.error(why.to_string())).ok()
}

/// The same, for what clients send.
fn pattern_of_clients(item: &Item<'_>, ignore_case: bool) -> Option<Pattern> {
    let pattern = pattern(item, ignore_case)?;
    if !pattern.can_match() {
        item.warn("nothing has it: it never matches", None);
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths() {
        for text in ["/", "/v1", "/a/b.c/~x", "/a%20b", "/a/", "/a\"<>|", "/;p=1", "/a:b@c,d"] {
            assert_eq!(normal_characters(text).and_then(|()| normal_segments(text)), Ok(()), "{text}");
        }
        for text in [
            "/a b", "/ä", "/%41", "/%2f", "/%", "/%4", "/%zz", "/a/../b", "/.", "/a\\b", "/a//b", "/%2F",
            "/%5C", "/%00", "/\u{0}",
        ] {
            assert!(normal_characters(text).and_then(|()| normal_segments(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token("x-env"));
        for text in ["", "a b", "a:", "é", "a\r"] {
            assert!(!is_token(text), "{text}");
        }
    }
}
