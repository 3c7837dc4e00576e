//! `[[listener]]`: where clients connect, what is allowed to them, and whose forwarding fields are believed.

use super::keys::ReloadEffect::{Drains, NewConnections, NextExchange, Nothing};
use super::keys::{Key, Section, Shape};
use super::names::Names;
use super::tree::Table;
use super::{Environment, Severity, address, error_page};
use dataplane::limits;
use dataplane::route::asks_for_hello;
use dataplane::spec::{
    ClusterId, Forwarded, ForwardedMode, Limits, ListenAddress, Listener, ListenerId, Protocol,
    ProxyProtocol, Route, Steer, Timeouts,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(super) static SECTION: Section = Section {
    path: "listener",
    shared: false,
    doc: "Bound addresses, and what is allowed to those who connect there. A request that no route takes goes to the \
          listener's `cluster`; without one it is answered 404. No `[[listener]]` at all is an error.",
    keys: &[
        Key::new("name", Shape::Free("a name"), Drains, "Its identity in routes, log and metrics.").absent("required"),
        Key::new(
            "address",
            Shape::Free("an address, or a list of them"),
            Drains,
            "`\"0.0.0.0:8080\"`, `\"[::]:8080\"` (IPv6 only: list both for both), `\"127.0.0.1:0\"` (any free port), \
             `\"unix:/run/x.sock\"` (at most 107 bytes; a file that nobody listens on is replaced, and removed at the \
             end), `\"unix:@x\"` (an abstract name), `\"fd:3\"` (a listening socket that ringway is started with), \
             `\"fd:NAME\"` (all that systemd's socket units call so). An address more drains nobody; with one less, every \
             connection of the listener leaves.",
        )
        .absent("required"),
        Key::new(
            "socket_mode",
            Shape::Free("octal digits, as \"0660\""),
            NewConnections,
            "Permissions of the files of unix sockets: who may write to one may connect.",
        )
        .absent("\"0660\""),
        Key::new(
            "steer",
            Shape::Word(&["hash", "cpu", "source"], &[]),
            NewConnections,
            "Which shard gets a connection to an IP address: `\"hash\"` as the kernel spreads them, and then evened out; \
             `\"cpu\"` that of the CPU which handles the packet (its number modulo the shards); `\"source\"` always the \
             same for one source address. The last two even nothing out.",
        ),
        Key::new(
            "protocol",
            Shape::Word(&["http", "tcp"], &[]),
            Drains,
            "What is spoken there: `\"http\"`, or anything over `\"tcp\"`, whose bytes pass unread to an endpoint of \
             a cluster. A tcp listener has no `limits`, no `forwarded`, of `timeouts` `send`, `tunnel_idle`, \
             `max_lifetime` and `dead_peer`, and `request_header` where it reads first bytes at all: for a PROXY header, \
             and for a ClientHello if one of its routes matches `sni` or `alpn`. Otherwise it connects at once, so that \
             servers may speak first.",
        ),
        Key::new(
            "max_connections",
            Shape::Count(limits::LISTENER_CONNECTIONS, None),
            Nothing,
            "Connections open at once, over all shards; further ones are refused. `\"auto\"` is half of the \
             descriptors that the process may open, less 128 or a quarter for itself, so that each connection can have its \
             link.",
        )
        .absent("\"auto\""),
        Key::new(
            "cluster",
            Shape::Free("the name of a cluster"),
            NextExchange,
            "Takes the requests, or the connections of a tcp listener, that no route takes.",
        )
        .absent("none: 404, or a close"),
        Key::new("limits", Shape::Table(&LIMITS), NextExchange, "How much one client may send."),
        Key::new("timeouts", Shape::Table(&TIMEOUTS), NextExchange, "How long one client may take."),
        Key::new("forwarded", Shape::Table(&FORWARDED), NextExchange, "The fields that tell origins who the client is."),
        Key::new(
            "proxy_protocol",
            Shape::Table(&PROXY_PROTOCOL),
            NewConnections,
            "The PROXY header of a balancer in front, versions 1 and 2: it says who the client is.",
        )
        .absent("none: no header is read"),
        Key::new(
            "error_page",
            Shape::Tables(&error_page::SECTION),
            NextExchange,
            "What refusals are answered with.",
        )
        .absent("plain text: status, word, meaning and request id"),
        Key::later("tls", Shape::Free("reserved"), NewConnections, "TLS from clients."),
        Key::later("versions", Shape::Free("reserved"), NewConnections, "Versions of HTTP that are spoken."),
    ],
};

pub(super) static LIMITS: Section = Section {
    path: "listener.limits",
    shared: false,
    doc: "Each is exact: the limit passes, one more is refused with the limit's name in answer, log and metric.",
    keys: &[
        Key::new(
            "request_line",
            Shape::Size(limits::REQUEST_LINE, None),
            NextExchange,
            "The request line, without its CRLF. Beyond: 414.",
        ),
        Key::new(
            "header_block",
            Shape::Size(limits::HEADER_BLOCK, None),
            NextExchange,
            "All field lines of a head, with their CRLFs. Beyond: 431.",
        ),
        Key::new(
            "header_fields",
            Shape::Count(limits::HEADER_FIELDS, None),
            NextExchange,
            "Field lines in one head. Beyond: 431.",
        ),
        Key::new(
            "request_body",
            Shape::Size(limits::REQUEST_BODY, Some(("unlimited", u64::MAX))),
            NextExchange,
            "The body of one request. Beyond: 413.",
        ),
        Key::new(
            "requests_per_connection",
            Shape::Count(limits::REQUESTS_PER_CONNECTION, Some(("unlimited", u64::MAX))),
            NextExchange,
            "Requests answered on one connection before it is closed.",
        ),
        Key::new(
            "pipelined",
            Shape::Count(limits::PIPELINED, None),
            NextExchange,
            "Requests that may wait on one connection, the running one included; further ones stay unread, but for what came in one segment with the last that was read.",
        ),
    ],
};

/// Peers on unix sockets, in a list of networks.
const UNIX: &str = "unix:";
const OFF: (&str, Duration) = ("off", Duration::MAX);

pub(super) static TIMEOUTS: Section = Section {
    path: "listener.timeouts",
    shared: false,
    doc: "How long one client may take.",
    keys: &[
        Key::new(
            "request_header",
            Shape::Duration(limits::REQUEST_HEADER_TIMEOUT, None),
            NextExchange,
            "From the first byte of a request to the end of its head. Beyond: 408. Also from accept to the first byte, and to \
             the end of a PROXY header and of a ClientHello. Beyond: a close.",
        ),
        Key::new(
            "request_body",
            Shape::Duration(limits::REQUEST_BODY_TIMEOUT, None),
            NextExchange,
            "Between two pieces of a request's body. Beyond: 408.",
        ),
        Key::new(
            "min_rate",
            Shape::Size(limits::MIN_RATE, Some(("off", 0))),
            NextExchange,
            "What a body must keep per second, on average, after its first 10 s; `\"off\"` asks for nothing.",
        ),
        Key::new(
            "send",
            Shape::Duration(limits::SEND_TIMEOUT, None),
            NextExchange,
            "For a client to take any of what is sent to it.",
        ),
        Key::new(
            "idle",
            Shape::Duration(limits::IDLE_TIMEOUT, None),
            NextExchange,
            "Between two requests of a connection.",
        ),
        Key::new(
            "tunnel_idle",
            Shape::Duration(limits::TUNNEL_IDLE_TIMEOUT, None),
            Nothing,
            "Without a byte in either direction of a tunnel, or of a connection of a tcp listener.",
        ),
        Key::new(
            "max_lifetime",
            Shape::Duration(limits::MAX_LIFETIME, Some(OFF)),
            Nothing,
            "From accept on, less up to a tenth of it, so that connections which came together do not all end together. A \
             running exchange is finished; a tunnel, or a connection of a tcp listener, is cut.",
        ),
        Key::new(
            "dead_peer",
            Shape::Duration(limits::DEAD_PEER, Some(OFF)),
            NewConnections,
            "A client that vanished without a word is found within this time, whether something is being sent to it or \
             not: by keep-alive probes and TCP_USER_TIMEOUT. Also ends a client that keeps its window shut that long.",
        ),
    ],
};

pub(super) static FORWARDED: Section = Section {
    path: "listener.forwarded",
    shared: false,
    doc: "X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host. A client on a unix socket has no address: none is added to \
          X-Forwarded-For.",
    keys: &[
        Key::new(
            "mode",
            Shape::Word(&["replace", "append", "off"], &[]),
            NextExchange,
            "`\"replace\"` drops what the client sent and sets ours; `\"append\"` adds to what a `trusted` peer sent and \
             replaces what others sent; `\"off\"` adds nothing, and passes on only what a `trusted` peer sent.",
        ),
        Key::new(
            "trusted",
            Shape::Free("networks, as \"10.0.0.0/8\", and \"unix:\""),
            NextExchange,
            "Peers whose forwarding fields are believed; `\"unix:\"` stands for those on unix sockets.",
        )
        .absent("none"),
    ],
};

pub(super) static PROXY_PROTOCOL: Section = Section {
    path: "listener.proxy_protocol",
    shared: false,
    doc: "The address that the header supplies takes the place of the peer's: in `source` matches, `forwarded.trusted`, \
          X-Forwarded-For, the log, and the header that `cluster.send_proxy` sends. A header that says LOCAL or UNKNOWN \
          leaves the peer's. It must come whole within `timeouts.request_header` of the accept; one that is wrong, or \
          missing where it is required, ends the connection without an answer and with a close reason.",
    keys: &[
        Key::new(
            "accept",
            Shape::Word(&["required", "optional"], &[]),
            NewConnections,
            "`\"required\"`: every connection begins with a header, and one from elsewhere than `from` is closed. \
             `\"optional\"`: one from `from` may; first bytes that are no header, and whatever comes from elsewhere, are \
             the connection's own. On a tcp listener a peer in `from` then has to speak first.",
        ),
        Key::new(
            "from",
            Shape::Free("networks, as \"10.0.0.0/8\", and \"unix:\""),
            NewConnections,
            "The balancers; `\"unix:\"` stands for those on unix sockets. Whoever may send a header may claim to be any client.",
        )
        .absent("required"),
    ],
};

/// Reads all listeners; which of them an access log wants is found later.
pub(super) fn read(
    tables: &[Table<'_>],
    names: &[Arc<str>],
    clusters: &mut Names,
    environment: &Environment,
    checks: u64,
) -> Vec<Listener> {
    let mut bound = BTreeMap::new();
    let mut listeners = Vec::with_capacity(tables.len());
    for (index, (table, name)) in tables.iter().zip(names).enumerate() {
        let protocol = if table.word("protocol") == "tcp" { Protocol::Tcp } else { Protocol::Http };
        let timeouts = table.table("timeouts");
        if protocol == Protocol::Tcp {
            check_tcp(table, &timeouts);
        }
        let addresses = addresses(table, name, environment, &mut bound);
        listeners.push(Listener {
            id: ListenerId(u16::try_from(index).unwrap_or(u16::MAX)),
            name: Arc::clone(name),
            steer: steer(table, &addresses),
            addresses,
            protocol,
            max_connections: max_connections(table, environment, checks),
            limits: read_limits(&table.table("limits")),
            timeouts: read_timeouts(&timeouts),
            forwarded: forwarded(&table.table("forwarded")),
            proxy_protocol: proxy_protocol(table),
            cluster: table.get("cluster").and_then(|item| clusters.resolve(&item)).map(ClusterId),
            access_log: false,
            error_pages: Default::default(),
        });
    }
    listeners
}

/// What a tcp listener must have, and may not.
fn check_tcp(table: &Table<'_>, timeouts: &Table<'_>) {
    let of_table = ["limits", "forwarded", "error_page"].iter().filter_map(|key| table.get(key));
    let of_timeouts = ["request_body", "min_rate", "idle"];
    for item in of_table.chain(of_timeouts.iter().filter_map(|key| timeouts.get(key))) {
        item.error("is about requests, and this listener is tcp");
    }
}

/// Tells of tcp listeners that lead nowhere, and of a deadline for first bytes where none are read.
pub(super) fn check_openings(tables: &[Table<'_>], listeners: &[Listener], routes: &[Arc<Route>]) {
    for (table, listener) in tables.iter().zip(listeners).filter(|(_, l)| l.protocol == Protocol::Tcp) {
        let own = || routes.iter().filter(|route| route.listeners.contains(&listener.id));
        if table.get("cluster").is_none() && own().next().is_none() {
            table.lacks(Severity::Error, "cluster", "is missing: a tcp listener has one, or routes");
        }
        let reads = listener.proxy_protocol.is_some() || own().any(|route| asks_for_hello(&route.matcher));
        if let Some(item) = table.table("timeouts").get("request_header")
            && !reads
        {
            item.error("is about first bytes, and this tcp listener reads none: no `proxy_protocol`, `sni` or `alpn`");
        }
    }
}

/// The addresses of one listener; `bound` are those of the listeners before it.
fn addresses(
    table: &Table<'_>,
    name: &Arc<str>,
    environment: &Environment,
    bound: &mut BTreeMap<String, Arc<str>>,
) -> Vec<ListenAddress> {
    let mode = match table.get("socket_mode") {
        Some(item) => address::mode(&item).unwrap_or_default(),
        None => limits::SOCKET_MODE.default,
    };
    let Some(item) = table.need("address") else { return Vec::new() };
    let items = item.each();
    if items.len() > limits::LISTENER_ADDRESSES_MAX {
        item.error(format!("lists more than {} addresses", limits::LISTENER_ADDRESSES_MAX));
        return Vec::new();
    }
    let mut addresses = Vec::with_capacity(items.len());
    for item in items {
        for found in address::listen(&item, mode, environment.inherited.as_deref()) {
            let any_port = matches!(&found, ListenAddress::Ip(address) if address.port() == 0);
            if !any_port && let Some(other) = bound.insert(found.to_string(), Arc::clone(name)) {
                item.error(format!("listener {other:?} is bound to {found} already"));
            }
            addresses.push(found);
        }
    }
    let has_unix = addresses.iter().any(|address| matches!(address, ListenAddress::Unix { .. }));
    if !has_unix && let Some(item) = table.get("socket_mode") {
        item.error("is for unix sockets, and this listener has none");
    }
    addresses
}

fn steer(table: &Table<'_>, addresses: &[ListenAddress]) -> Steer {
    let steer = match table.word("steer") {
        "cpu" => Steer::Cpu,
        "source" => Steer::Source,
        _ => Steer::Hash,
    };
    if steer != Steer::Hash
        && addresses.iter().any(|address| !matches!(address, ListenAddress::Ip(_)))
        && let Some(item) = table.get("steer")
    {
        item.error("steers IP addresses only: give unix and inherited sockets a listener of their own");
    }
    steer
}

/// Descriptors that connections may have.
fn usable_descriptors(environment: &Environment, checks: u64) -> u64 {
    let reserved = limits::RESERVED_DESCRIPTORS.min(environment.descriptors / 4);
    environment.descriptors.saturating_sub(reserved).saturating_sub(checks)
}

/// What `max_connections = "auto"` comes to where active checks may hold `checks` descriptors.
pub fn auto_connections(environment: &Environment, checks: u64) -> u32 {
    let bound = limits::LISTENER_CONNECTIONS;
    u32::try_from((usable_descriptors(environment, checks) / 2).clamp(bound.min, bound.max))
        .unwrap_or(u32::MAX)
}

fn max_connections(table: &Table<'_>, environment: &Environment, checks: u64) -> u32 {
    let (bound, usable) = (limits::LISTENER_CONNECTIONS, usable_descriptors(environment, checks));
    let auto = auto_connections(environment, checks);
    let Some(item) = table.get("max_connections") else { return auto };
    match item.value.as_str() {
        Some("auto") => auto,
        Some(_) => {
            item.wants("a whole number or \"auto\"");
            auto
        }
        None => {
            let Some(count) = item.count(bound, None) else { return auto };
            if count > usable {
                item.warn(format!("the process may open only {} descriptors", environment.descriptors), None);
            }
            u32::try_from(count).unwrap_or(u32::MAX)
        }
    }
}

fn read_limits(table: &Table<'_>) -> Limits {
    Limits {
        request_line: table.size32("request_line"),
        header_block: table.size32("header_block"),
        header_fields: table.count32("header_fields"),
        request_body: table.size("request_body"),
        requests_per_connection: table.count("requests_per_connection"),
        pipelined: table.count32("pipelined"),
    }
}

fn read_timeouts(table: &Table<'_>) -> Timeouts {
    Timeouts {
        request_header: table.duration("request_header"),
        request_body: table.duration("request_body"),
        min_rate: table.size("min_rate"),
        send: table.duration("send"),
        idle: table.duration("idle"),
        tunnel_idle: table.duration("tunnel_idle"),
        max_lifetime: table.duration("max_lifetime"),
        dead_peer: table.duration("dead_peer"),
    }
}

fn forwarded(table: &Table<'_>) -> Forwarded {
    let mode = match table.word("mode") {
        "append" => ForwardedMode::Append,
        "off" => ForwardedMode::Off,
        _ => ForwardedMode::Replace,
    };
    let (unix, networks): (Vec<_>, Vec<_>) =
        table.each("trusted").into_iter().partition(|item| item.value.as_str() == Some(UNIX));
    let trusted: Vec<_> = networks.iter().filter_map(address::network).collect();
    if mode == ForwardedMode::Append
        && table.get("trusted").is_none()
        && let Some(item) = table.get("mode")
    {
        item.warn("without `trusted` nobody is believed, and this does what \"replace\" does", None);
    }
    Forwarded { mode, trusted, trusts_unix: !unix.is_empty() }
}

fn proxy_protocol(listener: &Table<'_>) -> Option<ProxyProtocol> {
    // One that is no table has been told of by its type.
    let table = listener.table("proxy_protocol");
    listener.get("proxy_protocol").filter(|item| item.value.is_table())?;
    let required = table.word("accept") == "required";
    table.need("from");
    let (mut from, mut from_unix) = (Vec::new(), false);
    for item in table.each("from") {
        if item.value.as_str() == Some(UNIX) {
            from_unix = true;
            continue;
        }
        let Some(network) = address::network(&item) else { continue };
        if network.prefix == 0 {
            item.warn("everybody may send a PROXY header, and so claim to be any client", None);
        }
        from.push(network);
    }
    Some(ProxyProtocol { required, from, from_unix })
}

/// Warns of listeners that take no request at all.
pub(super) fn warn_deaf(tables: &[Table<'_>], listeners: &[Listener], routes: &[Arc<Route>]) {
    let everywhere = routes.iter().any(|route| route.listeners.is_empty());
    let named: BTreeSet<_> = routes.iter().flat_map(|route| &route.listeners).collect();
    for (table, listener) in tables.iter().zip(listeners) {
        let http = listener.protocol == Protocol::Http;
        if http && listener.cluster.is_none() && !everywhere && !named.contains(&listener.id) {
            let name = &listener.name;
            let what =
                format!("no route and no cluster takes the requests of {name:?}: all are answered 404");
            table.lacks(Severity::Warning, "cluster", what);
        }
    }
}
