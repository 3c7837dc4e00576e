//! `[tracing]`: requests as spans for a collector.

use super::keys::ReloadEffect::{NextExchange, Nothing};
use super::keys::{Key, Section, Shape};
use super::tree::{Item, Table};
use super::{Environment, Severity, host};
use crate::traces::{Endpoint, Settings};
use dataplane::spec::Tracing;
use sha2::{Digest as _, Sha256};

/// Where a collector listens unless told otherwise, and for what (OTLP/HTTP).
const PORT: u16 = 4318;
const PATH: &str = "/v1/traces";

pub(super) static SECTION: Section = Section {
    path: "tracing",
    shared: false,
    doc: "Requests as spans, sent to a collector by OTLP. See [operations/traces.md](operations/traces.md).",
    keys: &[
        Key::new(
            "endpoint",
            Shape::Free("a URL, as \"http://127.0.0.1:4318/v1/traces\""),
            Nothing,
            "Where spans are posted, as binary OTLP over HTTP. The port is 4318 and the path `/v1/traces` where none is given.",
        )
        .absent("required"),
        Key::new(
            "sample",
            Shape::Fraction,
            NextExchange,
            "Share of the requests that become spans, of those whose client does not decide.",
        ),
        Key::new(
            "respect_parent",
            Shape::Flag,
            NextExchange,
            "Whether the `traceparent` of a request decides: a client that keeps its span has this one kept, one that does not has it \
             not. For clients that one knows: others could have all their requests sent to the collector.",
        ),
        Key::new("service", Shape::Free("a text"), Nothing, "`service.name` of the spans.").absent("\"ringway\""),
    ],
};

/// Which requests are spans, and where those go.
pub(super) fn read(
    root: &Table<'_>,
    node: &str,
    environment: &Environment,
) -> (Option<Tracing>, Option<Settings>) {
    if root.get("tracing").filter(|item| item.value.is_table()).is_none() {
        return (None, None);
    }
    let table = root.table("tracing");
    let endpoint = table.need("endpoint").as_ref().and_then(endpoint);
    let sample = table.fraction("sample");
    let respect_parent = table.flag("respect_parent");
    if sample == 0.0 && !respect_parent {
        table.lacks(Severity::Warning, "sample", "is 0 and clients do not decide: no request becomes a span");
    }
    let service = table.get("service").as_ref().and_then(Item::words).unwrap_or("ringway").to_owned();
    let tracing = Tracing { key: key(&environment.random_key), share: sample, respect_parent };
    let node = node.to_owned();
    (Some(tracing), endpoint.map(|endpoint| Settings { endpoint, service, node }))
}

/// A key of its own: who knows some ids may work out what they were made with, and cookies are made with the other.
fn key(random: &[u8; 16]) -> [u64; 2] {
    let digest = Sha256::new().chain_update(random).chain_update("spans").finalize();
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    [number(&digest[..8]), number(&digest[8..16])]
}

/// `http://HOST[:PORT][/PATH]`.
fn endpoint(item: &Item<'_>) -> Option<Endpoint> {
    let text = item.words()?;
    let wrong = |what: &str, meant: Option<String>| {
        item.error_near(what, meant);
        None
    };
    let Some(rest) = text.strip_prefix("http://") else {
        let what = match text.split_once("://") {
            Some(("https", _)) => {
                "TLS is not in this version: send to a collector on this machine or in this network"
            }
            Some(("grpc", _)) => "wants OTLP over HTTP: the collector's HTTP receiver, mostly on port 4318",
            _ => "wants a URL that begins with \"http://\"",
        };
        let meant = if text.contains("://") { None } else { Some(format!("http://{text}")) };
        return wrong(what, meant);
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if path.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\')) {
        return wrong("its path has a character that no path has", None);
    }
    let at_port = authority.rfind(':').filter(|at| authority.rfind(']').is_none_or(|end| end < *at));
    let (name, port) = at_port.map_or((authority, None), |at| (&authority[..at], Some(&authority[at + 1..])));
    if let Err(what) = host::authority(name) {
        return wrong(&what, None);
    }
    let port = match port.map(str::parse::<u16>) {
        None => PORT,
        Some(Ok(port)) if port != 0 => port,
        _ => return wrong("its port is from 1 to 65535", None),
    };
    if port == 4317 {
        item.warn("4317 is mostly where collectors speak gRPC", Some(format!("http://{name}:{PORT}{path}")));
    }
    let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let path = if matches!(path, "" | "/") { PATH } else { path };
    Some(Endpoint { host, port, authority: format!("{name}:{port}"), path: path.to_owned() })
}
