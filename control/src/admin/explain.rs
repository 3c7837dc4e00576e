//! `ringway explain`: where a request would go, asked of the running process, which sends nothing and counts nothing.

use super::{Answer, Sight};
use axum::http::StatusCode;
use dataplane::cluster::eligible::{Admin, Eligible};
use dataplane::io::Address;
use dataplane::plane::explain::Explained;
use dataplane::spec::{Action, Cluster, Endpoint, Listener, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use utoipa::ToSchema;

/// A request that nobody sends, or a connection to a tcp listener that nobody opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its method, as GET; a connection to a tcp listener has none
    #[arg(requires = "url")]
    #[serde(default)]
    pub method: Option<String>,
    /// Where it goes: an http URL, or a path alone
    #[serde(default)]
    pub url: Option<String>,
    /// A field of its head, as 'name: value'; may be given again
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    #[serde(default)]
    pub headers: Vec<String>,
    /// The address that it comes from [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub source: Option<IpAddr>,
    /// The listener that it comes to [default: the one on the URL's port, or the only one]
    #[arg(long, value_name = "NAME", required_unless_present = "method")]
    pub listener: Option<String>,
    /// The name that a connection's ClientHello asks for
    #[arg(long, value_name = "NAME", conflicts_with = "method")]
    #[serde(default)]
    pub sni: Option<String>,
    /// A protocol that it offers; may be given again
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "method")]
    #[serde(default)]
    pub alpn: Vec<String>,
}

/// The parts of a URL that a request shows: authority and target.
fn parts(url: &str) -> Option<(&str, &str)> {
    if url.starts_with('/') || url == "*" {
        return Some(("", url));
    }
    let rest = url.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

impl Asked {
    /// The head as a client would send it, none of a connection; the error says what cannot be sent.
    fn head(&self) -> Result<Option<Vec<u8>>, String> {
        let (method, url) = match (&self.method, &self.url) {
            (Some(method), Some(url)) => (method, url),
            (None, None) if self.headers.is_empty() => return Ok(None),
            _ => return Err("a request has a method and a url, and a connection neither of them".to_owned()),
        };
        if self.sni.is_some() || !self.alpn.is_empty() {
            return Err("sni and alpn are of connections to tcp listeners".to_owned());
        }
        let (host, target) = parts(url).ok_or("a URL is http://HOST[:PORT]/PATH or /PATH")?;
        let slash = if target.is_empty() || target.starts_with('?') { "/" } else { "" };
        let mut head = format!("{method} {slash}{target} HTTP/1.1\r\n");
        let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !host.is_empty() && !self.headers.iter().any(|line| name(line) == "host") {
            head.push_str(&format!("host: {host}\r\n"));
        }
        for line in &self.headers {
            if !line.contains(':') {
                return Err(format!("{line:?} is no field: NAME: VALUE"));
            }
            head.push_str(line);
            head.push_str("\r\n");
        }
        let told = [method, url].into_iter().chain(&self.headers);
        if told.flat_map(|text| text.chars()).any(|c| c == '\r' || c == '\n') {
            return Err("a line end stands in it".to_owned());
        }
        head.push_str("\r\n");
        Ok(Some(head.into_bytes()))
    }

    fn port(&self) -> Option<u16> {
        let (host, _) = parts(self.url.as_deref()?).filter(|(host, _)| !host.is_empty())?;
        let after = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        after.map_or(Some(80), |(_, port)| port.parse().ok())
    }

    /// The listener that is meant; the error says why that is not known.
    fn listener<'a>(&self, sight: &Sight<'a>) -> Result<&'a Arc<Listener>, String> {
        let all = || sight.loaded.snapshot.listeners.iter().flatten();
        if let Some(name) = &self.listener {
            let found = all().find(|listener| *listener.name == **name);
            let found = found.ok_or_else(|| format!("no listener is called {name:?}"))?;
            return match (found.protocol, &self.method) {
                (Protocol::Http, Some(_)) | (Protocol::Tcp, None) => Ok(found),
                (Protocol::Tcp, Some(_)) => Err(format!("listener {name} takes connections, not requests")),
                (Protocol::Http, None) => Err(format!("listener {name} takes requests: say method and url")),
            };
        }
        if self.method.is_none() {
            return Err("say which tcp listener is meant".to_owned());
        }
        let of_http = || all().filter(|listener| listener.protocol == Protocol::Http);
        let on_port = |listener: &&Arc<Listener>| {
            sight.plane.bound().iter().any(|bound| {
                let ip = if let Address::Ip(address) = &bound.address { Some(address.port()) } else { None };
                bound.listener == listener.id && ip.is_some() && ip == self.port()
            })
        };
        let only = |mut some: Box<dyn Iterator<Item = &'a Arc<Listener>> + '_>| {
            let first = some.next();
            first.filter(|_| some.next().is_none())
        };
        let found = only(Box::new(of_http().filter(on_port))).or_else(|| only(Box::new(of_http())));
        let names = || of_http().map(|listener| &*listener.name).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("say which listener is meant: {}", names()))
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedView<'a> {
    listener: &'a str,
    #[schema(value_type = String)]
    source: IpAddr,
    /// Routes in front of the one that takes it, in file order.
    passed_over: Vec<PassedOver<'a>>,
    /// The route that takes it; none where the listener's cluster does, or nothing.
    route: Option<&'a str>,
    in_maintenance: bool,
    /// forward, respond, redirect or refuse.
    action: &'static str,
    /// Of an answer of our own.
    status: Option<u16>,
    /// Why it is refused.
    refusal: Option<&'static str>,
    cluster: Option<&'a str>,
    balance: Option<&'a str>,
    /// The endpoint that its client sticks to.
    sticks_to: Option<&'a str>,
    /// Who gets it, where that is no matter of turns or chance.
    endpoint: Option<&'a str>,
    endpoints: Vec<EndpointShown<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PassedOver<'a> {
    route: &'a str,
    /// The first key of its match that does not hold, or `listeners`.
    key: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct EndpointShown<'a> {
    name: &'a str,
    address: String,
    weight: u32,
    state: &'static str,
    health: &'static str,
    running: u32,
    links: u32,
    /// Whether it may get this request now.
    takes: bool,
    /// Why, or why not.
    why: &'static str,
}

/// The answer to `/v1/explain`.
pub(crate) fn answer(sight: &Sight<'_>, asked: &Asked) -> Answer {
    let refused = |why: String| Answer::refused(StatusCode::BAD_REQUEST, &why);
    let (listener, head) = match asked.listener(sight).and_then(|listener| Ok((listener, asked.head()?))) {
        Ok(both) => both,
        Err(why) => return refused(why),
    };
    let source = asked.source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let explained = match head {
        Some(head) => sight.plane.explain(listener.id, Some(source), head),
        None => {
            let sni = asked.sni.as_deref();
            match sight.plane.explain_opening(listener.id, Some(source), sni, &asked.alpn) {
                Some(Err(reason)) => {
                    return refused(format!("no client sends such a hello: {}", reason.name()));
                }
                explained => explained.and_then(Result::ok),
            }
        }
    };
    let Some(explained) = explained else { return refused("that is no whole head".to_owned()) };
    let cluster = explained.cluster.and_then(|id| sight.loaded.snapshot.cluster(id));
    let (action, status) = action(&explained);
    // A connection is only closed.
    let status = status.filter(|_| listener.protocol == Protocol::Http);
    let endpoint_name = |id| {
        cluster
            .and_then(|cluster| cluster.present().find(|e| Some(e.id) == id))
            .map(|endpoint| &*endpoint.name)
    };
    let mut endpoints = Vec::new();
    if let Some(cluster) = cluster {
        endpoints.extend(cluster.present().map(|e| endpoint_shown(sight, &explained, cluster, e)));
    }
    let shown = ExplainedView {
        listener: &listener.name,
        source,
        passed_over: explained.passed_over.iter().map(|(route, key)| PassedOver { route, key }).collect(),
        route: explained.route.as_ref().map(|route| &*route.name),
        in_maintenance: explained.in_maintenance,
        action,
        status,
        refusal: explained.refusal.map(|refusal| refusal.name()),
        cluster: cluster.map(|cluster| &*cluster.name),
        balance: cluster.map(|cluster| cluster.balance),
        sticks_to: endpoint_name(explained.sticky),
        endpoint: endpoint_name(explained.endpoint),
        endpoints,
    };
    Answer::json(StatusCode::OK, &shown)
}

fn action(explained: &Explained) -> (&'static str, Option<u16>) {
    match (explained.refusal, explained.route.as_ref().map(|route| &route.action)) {
        (Some(refusal), _) => ("refuse", Some(refusal.status())),
        (None, Some(Action::Respond(reply))) => ("respond", Some(reply.status)),
        (None, Some(Action::Redirect(redirect))) => ("redirect", Some(redirect.status)),
        (None, Some(Action::Forward { .. }) | None) => ("forward", None),
    }
}

fn endpoint_shown<'a>(
    sight: &Sight<'_>,
    explained: &Explained,
    cluster: &Cluster,
    endpoint: &'a Endpoint,
) -> EndpointShown<'a> {
    let status = sight.plane.endpoint_status(cluster.id, endpoint.id);
    let (running, links) = status.map_or((0, 0), |status| (status.running, status.open_links));
    let eligible = status.map_or(Eligible::Yes, |status| status.condition.eligible());
    let chosen = explained.choice.contains(&endpoint.id);
    let full = running >= endpoint.max_requests;
    let certain = explained.endpoint;
    let (takes, why) = match () {
        () if certain == Some(endpoint.id) && explained.sticky == certain => {
            (true, "its client sticks to it")
        }
        () if certain == Some(endpoint.id) => (true, "the policy says so"),
        () if certain.is_some() && chosen => (false, "another is chosen"),
        () if chosen && full => (false, "max_requests run there"),
        () if chosen => (true, "by turns or chance"),
        () if endpoint.weight == 0 => (false, "weight 0"),
        () if !eligible.takes_new() => (false, eligible.name()),
        () => (false, "an earlier tier is in use"),
    };
    let at = usize::from(endpoint.id.0);
    EndpointShown {
        name: &endpoint.name,
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        state: status.map_or(Admin::Ready, |status| status.condition.admin).name(),
        health: sight.checks.status(cluster.id, at).map_or("unchecked", |(health, _)| health),
        running,
        links,
        takes: takes && explained.refusal.is_none(),
        why,
    }
}

/// The answer as text for a terminal.
pub(super) fn text(asked: &Asked, body: &Value) -> String {
    let word = |key: &str| body[key].as_str().unwrap_or("-");
    let what = match (&asked.method, &asked.url) {
        (Some(method), Some(url)) => format!("{method} {url}"),
        _ => {
            let sni = asked.sni.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
            let alpn = if asked.alpn.is_empty() {
                String::new()
            } else {
                format!(" with {}", asked.alpn.join(", "))
            };
            format!("a connection{sni}{alpn}")
        }
    };
    let mut out = format!("{what} from {} at listener {}\n", word("source"), word("listener"));
    let list = |key: &str| body[key].as_array().map_or(&[][..], Vec::as_slice);
    // Writing to a String cannot fail.
    for passed in list("passed_over") {
        let said = |key: &str| passed[key].as_str().unwrap_or("-");
        let _ = writeln!(out, "  route {}: passed over, {} does not hold", said("route"), said("key"));
    }
    match body["route"].as_str() {
        Some(route) if body["in_maintenance"] == true => {
            _ = writeln!(out, "  route {route}: takes it, in maintenance")
        }
        Some(route) => _ = writeln!(out, "  route {route}: takes it"),
        None => out.push_str("  no route takes it\n"),
    }
    let status = body["status"].as_u64().map(|status| format!(" {status}")).unwrap_or_default();
    match word("action") {
        "forward" => _ = writeln!(out, "forwarded to cluster {} ({})", word("cluster"), word("balance")),
        "refuse" => _ = writeln!(out, "refused:{status} {}", word("refusal")),
        action => _ = writeln!(out, "{action}:{status}"),
    }
    for endpoint in list("endpoints") {
        let said = |key: &str| endpoint[key].as_str().unwrap_or("-");
        let mark = if endpoint["takes"] == true { "may take it" } else { "does not" };
        let _ = writeln!(
            out,
            "  {} at {}: {mark}: {} (weight {}, {}, {}, {} running, {} links)",
            said("name"),
            said("address"),
            said("why"),
            endpoint["weight"],
            said("state"),
            said("health"),
            endpoint["running"],
            endpoint["links"]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, headers: &[&str]) -> Asked {
        let headers = headers.iter().map(|&line| line.to_owned()).collect();
        let (method, url) = (Some("GET".to_owned()), Some(url.to_owned()));
        Asked { method, url, headers, source: None, listener: None, sni: None, alpn: Vec::new() }
    }

    #[test]
    fn a_head_is_made_as_a_client_makes_it() {
        let head = |url, headers: &[&str]| {
            asked(url, headers).head().map(|head| String::from_utf8(head.unwrap()).unwrap())
        };
        assert_eq!(
            head("http://a:81/x?y", &["X: 1"]).unwrap(),
            "GET /x?y HTTP/1.1\r\nhost: a:81\r\nX: 1\r\n\r\n"
        );
        assert_eq!(head("http://a", &["Host: b"]).unwrap(), "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(head("http://a?q", &[]).unwrap(), "GET /?q HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(head("/x", &[]).unwrap(), "GET /x HTTP/1.1\r\n\r\n");
        for (url, headers) in
            [("a/x", &[][..]), ("https://a/", &[]), ("/\r\nx: y", &[]), ("/", &["x"]), ("/", &["x: \n"])]
        {
            assert!(head(url, headers).is_err(), "{url:?} {headers:?}");
        }
    }

    #[test]
    fn ports_are_read_from_urls() {
        let ports = ["http://a/", "http://a:81/", "http://[::1]/", "http://[::1]:82", "/x"];
        assert_eq!(ports.map(|url| asked(url, &[]).port()), [Some(80), Some(81), Some(80), Some(82), None]);
    }
}
