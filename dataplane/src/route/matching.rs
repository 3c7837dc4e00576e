//! Whether one route takes one request: every key of a match, as docs/config.md describes them.
//!
//! Paths, cookies and query keys are compared as they stand in the head: paths in their normal form, cookies and query
//! without percent-decoding, since two ways to read one value are how filters are passed by.

use super::{Opening, Request};
use crate::spec::{Available, FieldMatch, Match, Route, TextMatch};
use std::sync::Arc;

pub(super) fn takes(route: &Route, request: &Request<'_>) -> bool {
    (route.listeners.is_empty() || route.listeners.contains(&request.listener))
        && holds(&route.matcher, request)
}

pub(super) fn takes_opening(route: &Route, opening: &Opening<'_>) -> bool {
    route.listeners.contains(&opening.listener) && opening_holds(&route.matcher, opening)
}

/// As [`holds`], for a conn of a tcp listener, which has these keys alone.
pub(super) fn opening_holds(matcher: &Match, opening: &Opening<'_>) -> bool {
    // A client that offers nothing, or sends no name, meets no key that asks for one.
    let offers = |protocol: &Arc<str>| {
        let offered = opening.hello.map(|(hello, message)| hello.protocols(message));
        offered.is_some_and(|mut list| list.any(|offer| offer == protocol.as_bytes()))
    };
    any_of(&matcher.sni, |name| is_named(opening.name(), name))
        && any_of(&matcher.alpn, offers)
        && any_of(&matcher.source, |network| opening.source.is_some_and(|ip| network.contains(ip)))
        && is_available(matcher, opening.available)
        && matcher.not.as_ref().is_none_or(|not| !opening_holds(not, opening))
}

/// Every key that is present holds. The cheap ones are asked first.
pub(super) fn holds(matcher: &Match, request: &Request<'_>) -> bool {
    host_holds(matcher, request.head.host.of(request.bytes))
        && path_holds(matcher, request.head.path.of(request.bytes))
        && is_available(matcher, request.available)
        && any_of(&matcher.method, |method| method.as_bytes() == request.head.method_text.of(request.bytes))
        && any_of(&matcher.source, |network| request.source.is_some_and(|ip| network.contains(ip)))
        && matcher.header.iter().all(|field| header_holds(field, request))
        && matcher.cookie.iter().all(|field| text_holds(field, cookies(request)))
        && matcher.query.iter().all(|field| text_holds(field, query(request)))
        && matcher.not.as_ref().is_none_or(|not| !holds(not, request))
}

/// Whether a cluster has as many usable endpoints as a match asks for.
fn is_available(matcher: &Match, available: &[u32]) -> bool {
    let usable = |asked: &Available| available.get(usize::from(asked.cluster.0)).copied().unwrap_or(0);
    matcher.available.as_ref().is_none_or(|asked| asked.holds(usable(asked)))
}

/// Whether `holds` for any of a list; an empty list does not constrain.
fn any_of<T>(list: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

/// Whether a host is the one that a match names: "*.example.com" stands for one label at least before ".example.com".
fn is_named(host: &[u8], name: &Arc<str>) -> bool {
    match name.as_bytes() {
        [b'*', suffix @ ..] => host.len() > suffix.len() && host.ends_with(suffix),
        name => host == name,
    }
}

fn host_holds(matcher: &Match, host: &[u8]) -> bool {
    any_of(&matcher.host, |name| is_named(host, name))
        && any_of(&matcher.host_prefix, |prefix| host.starts_with(prefix.as_bytes()))
}

fn path_holds(matcher: &Match, path: &[u8]) -> bool {
    // Texts are in lower case already where case is ignored.
    let same = |a: &[u8], b: &[u8]| if matcher.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
    let begins = |text: &[u8]| path.get(..text.len()).is_some_and(|front| same(front, text));
    let ends = |text: &[u8]| path.len().checked_sub(text.len()).is_some_and(|from| same(&path[from..], text));
    let segments = |text: &[u8]| {
        begins(text) && (text.ends_with(b"/") || matches!(path.get(text.len()), None | Some(b'/')))
    };
    any_of(&matcher.path, |text| same(path, text.as_bytes()))
        && any_of(&matcher.path_prefix, |text| segments(text.as_bytes()))
        && any_of(&matcher.path_begins, |text| begins(text.as_bytes()))
        && any_of(&matcher.path_suffix, |text| ends(text.as_bytes()))
        && any_of(&matcher.path_regex, |pattern| pattern.is_in(path))
}

fn header_holds(field: &FieldMatch, request: &Request<'_>) -> bool {
    let head = request.head;
    if &*field.name == "host" {
        // What the target names rules over the field (RFC 9112 section 3.2.2).
        let authority = head.authority.of(request.bytes);
        let value = (!authority.is_empty()).then_some(("host".as_bytes(), authority));
        return text_holds(field, value.into_iter());
    }
    let named = head.fields.iter().filter(|line| {
        let name = line.name.of(request.bytes);
        name.eq_ignore_ascii_case(field.name.as_bytes())
    });
    text_holds(field, named.map(|line| (field.name.as_bytes(), line.value.of(request.bytes))))
}

/// Whether a match holds among pairs of name and value: of several values of one name any will do.
fn text_holds<'a>(field: &FieldMatch, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    let mut values = pairs.filter(|(name, _)| *name == field.name.as_bytes()).map(|(_, value)| value);
    match &field.text {
        TextMatch::Present => values.next().is_some(),
        TextMatch::Absent => values.next().is_none(),
        TextMatch::AnyOf(texts) => values.any(|value| texts.iter().any(|text| text.as_bytes() == value)),
        TextMatch::Prefix(prefix) => values.any(|value| value.starts_with(prefix.as_bytes())),
        TextMatch::Regex(pattern) => values.any(|value| pattern.is_in(value)),
    }
}

/// The pairs of every Cookie field (RFC 6265 section 4.2.1); what has no "=" is not a pair. Quotes belong to the value.
fn cookies<'a>(request: &Request<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let bytes = request.bytes;
    let fields = request.head.fields.iter();
    fields
        .filter(move |line| line.name.of(bytes).eq_ignore_ascii_case(b"cookie"))
        .flat_map(move |line| line.value.of(bytes).split(|&b| b == b';'))
        .filter_map(|pair| {
            let at = memchr::memchr(b'=', pair)?;
            Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
        })
}

/// The query's keys and values; a key without "=" has an empty value.
fn query<'a>(request: &Request<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let text = request.head.query.map(|query| query.of(request.bytes));
    text.into_iter().flat_map(|text| text.split(|&b| b == b'&')).filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        }
    })
}
