//! `[[cluster]]`: endpoints with one policy, how they are reached and for how long.

use super::keys::ReloadEffect::{Drains, NewConnections, NextExchange, Nothing};
use super::keys::{Key, Section, Shape};
use super::tree::Table;
use super::{Environment, balance, endpoint, failures, health, host, retry, source, sticky};
use crate::discovery::Sources;
use crate::health::{Check, Initial};
use dataplane::limits;
use dataplane::spec::{
    Action, Cluster, ClusterId, ClusterTimeouts, HashOn, HostPolicy, Listener, Pool, Protocol, Route,
    SendProxy,
};
use std::sync::Arc;
use std::time::Duration;

pub(super) static SECTION: Section = Section {
    path: "cluster",
    shared: false,
    doc: "A named set of endpoints with one policy.",
    keys: &[
        Key::new("name", Shape::Free("a name"), Drains, "Its identity in routes, log and metrics.").absent("required"),
        Key::new(
            "balance",
            Shape::Word(balance::NAMES, &[]),
            NextExchange,
            "Which endpoint takes the next request: `\"round_robin\"` by weight in turn, `\"least_connections\"` the one \
             with the fewest running requests for its weight, `\"random\"` the better of two draws, `\"first\"` the first in the \
             list that is below its limits, `\"peak_ewma\"` the one with the least product of recent latency and running \
             requests, `\"hash\"` the one that a hash of the client's address leads to; or a table, for what else a hash may be \
             of.",
        ),
        Key::new(
            "host",
            Shape::Free("\"pass\", \"endpoint\" or a name"),
            NextExchange,
            "The Host that origins are sent: the client's, the endpoint's address (`localhost` for a unix socket), or this name.",
        )
        .absent("\"pass\""),
        Key::new(
            "source_addresses",
            Shape::Free("local addresses, ranges \"127.0.0.1-127.0.0.9\" or networks, one or a list"),
            NewConnections,
            "Where links come from, each address in turn. An IPv4 network stands for its addresses without the first and \
             the last.",
        )
        .absent("the kernel's choice"),
        Key::new(
            "source_ports",
            Shape::Free("a range of ports, as \"10000-60999\""),
            NewConnections,
            "Local ports of links, every shard from the whole range. An end outside `net.ipv4.ip_local_port_range` has no \
             effect. Needs Linux 6.3.",
        )
        .absent("`net.ipv4.ip_local_port_range`"),
        Key::new(
            "endpoints",
            Shape::Free("a list of addresses or tables"),
            Drains,
            "An address `\"127.0.0.1:9000\"`, `\"unix:/run/x.sock\"` or `\"unix:@x\"`, a host name `\"app.internal:9000\"`, a \
             service `\"srv:_http._tcp.example.org\"` (SRV), or a table. Each address that a name leads to is an endpoint; they \
             come and go as its answers do.",
        )
        .absent("required, unless there is `endpoints_file`"),
        Key::new(
            "endpoints_file",
            Shape::Free("a path"),
            Drains,
            "Further endpoints, one a line: `ADDRESS [name=NAME] [weight=N] [backup]`; a `#` begins a comment. The file is \
             looked at once a second; one with a mistake changes nothing. Replace it as a whole, by renaming.",
        )
        .absent("none"),
        Key::new(
            "trailers",
            Shape::Word(&["drop", "pass"], &[]),
            NextExchange,
            "Whether the trailers of chunked bodies are passed on, both ways.",
        ),
        Key::new(
            "max_queued",
            Shape::Count(limits::MAX_QUEUED, None),
            NextExchange,
            "Requests that may wait for a place while every endpoint is full, over all shards. Beyond: 503 `queue_full`. 0 \
             lets none wait.",
        ),
        Key::new(
            "fail_open",
            Shape::Flag,
            NextExchange,
            "Where no endpoint may be used, because checks or live traffic say so, use those of the lowest tier all the same. \
             Otherwise requests are answered 503 `no_endpoint`.",
        ),
        Key::new(
            "slow_start",
            Shape::Duration(limits::SLOW_START, None),
            NextExchange,
            "For so long an endpoint that came up has less than its share: a tenth at first, then evenly more. Clients whom a \
             cookie keeps come back to it at once. `\"0s\"` is off.",
        ),
        Key::new("timeouts", Shape::Table(&TIMEOUTS), NextExchange, "How long an origin may take."),
        Key::new("pool", Shape::Table(&POOL), NextExchange, "Idle links kept for the next request."),
        Key::new(
            "send_proxy",
            Shape::Word(&["v1", "v2"], &[]),
            NewConnections,
            "Begin each link with a PROXY header of this version, which names the client; `\"v2\"` passes on the TLVs of a \
             header that came. Such a link is one client's: it is not kept for the next request, so that each request \
             costs a connect.",
        )
        .absent("none"),
        Key::new("health", Shape::Table(&health::SECTION), Nothing, "Active checks.").absent("none"),
        Key::new(
            "outlier",
            Shape::Table(&failures::OUTLIER),
            Nothing,
            "Ejecting endpoints at which live requests fail.",
        )
        .absent("none"),
        Key::new("circuit_breaker", Shape::Table(&failures::CIRCUIT_BREAKER), Nothing, "Stopping requests to what fails.")
            .absent("none"),
        Key::new("retry", Shape::Table(&retry::SECTION), NextExchange, "Second attempts.")
            .absent("failed connects and dead pooled connections only"),
        Key::new("sticky", Shape::Table(&sticky::SECTION), NextExchange, "Clients come back to their endpoint by a cookie.")
            .absent("none: they do not"),
        Key::later("tls", Shape::Free("reserved"), NewConnections, "TLS to endpoints."),
    ],
};

pub(super) static TIMEOUTS: Section = Section {
    path: "cluster.timeouts",
    shared: false,
    doc: "How long an origin may take. A route may override these, but for `dead_peer`.",
    keys: &[
        Key::new(
            "connect",
            Shape::Duration(limits::CONNECT_TIMEOUT, None),
            NextExchange,
            "To connect. Beyond: the next endpoint, in the end 504.",
        ),
        Key::new(
            "response_header",
            Shape::Duration(limits::RESPONSE_HEADER_TIMEOUT, None),
            NextExchange,
            "From the end of the request to the end of the response's head. Beyond: 504.",
        ),
        Key::new(
            "response_body",
            Shape::Duration(limits::RESPONSE_BODY_TIMEOUT, None),
            NextExchange,
            "Between two pieces of a response's body.",
        ),
        Key::new(
            "send",
            Shape::Duration(limits::SEND_TIMEOUT, None),
            NextExchange,
            "For an origin to take any of what is sent to it.",
        ),
        Key::new(
            "dead_peer",
            Shape::Duration(limits::DEAD_PEER, Some(("off", Duration::MAX))),
            NewConnections,
            "An origin that vanished without a word, under an idle link too, is found within this time: by keep-alive \
             probes and TCP_USER_TIMEOUT. A route cannot override it.",
        ),
        Key::new(
            "queue",
            Shape::Duration(limits::QUEUE_TIMEOUT, None),
            NextExchange,
            "To wait while every endpoint is at `max_connections` or `max_requests`. Beyond: 503 `queue_timeout`, or a \
             close. `\"0ms\"` refuses at once.",
        ),
    ],
};

pub(super) static POOL: Section = Section {
    path: "cluster.pool",
    shared: false,
    doc: "Links kept open for the next request.",
    keys: &[
        Key::new(
            "idle",
            Shape::Count(limits::POOL_IDLE, None),
            NextExchange,
            "Idle links kept, over all shards of this process; 0 closes each after its exchange.",
        ),
        Key::new(
            "idle_timeout",
            Shape::Duration(limits::POOL_IDLE_TIMEOUT, None),
            NextExchange,
            "How long a link may be idle; keep it below the origins' own.",
        ),
        Key::new(
            "requests_per_connection",
            Shape::Count(limits::REQUESTS_PER_CONNECTION, Some(("unlimited", u64::MAX))),
            NextExchange,
            "Requests on one link before it is closed.",
        ),
    ],
};

/// What a cluster's table says.
pub(super) struct Read {
    /// With the endpoints that are written down.
    pub cluster: Cluster,
    /// The active checks of all endpoints.
    pub check: Option<Arc<Check>>,
    /// Where further endpoints come from.
    pub sources: Option<Arc<Sources>>,
}

pub(super) fn read(tables: &[Table<'_>], names: &[Arc<str>], environment: &Environment) -> Vec<Read> {
    let tables = tables.iter().zip(names).enumerate();
    tables
        .map(|(index, (table, name))| {
            let timeouts = table.table("timeouts");
            let pool = table.table("pool");
            let balance = balance::read(table);
            let found = endpoint::read(table, balance.policy);
            let endpoints = found.fixed();
            let (sticky, sticky_key) = sticky::read(table, &endpoints, environment).unzip();
            let check = health::read(table);
            let cluster = Cluster {
                id: ClusterId(u16::try_from(index).unwrap_or(u16::MAX)),
                name: Arc::clone(name),
                balance: balance.policy,
                cycle: balance.cycle(&endpoints),
                hash: balance.hash(&endpoints),
                sticky,
                host: host_policy(table),
                source_addresses: source::read(table, &found, environment),
                endpoints,
                dead_peer: timeouts.duration("dead_peer"),
                timeouts: ClusterTimeouts {
                    connect: timeouts.duration("connect"),
                    response_header: timeouts.duration("response_header"),
                    response_body: timeouts.duration("response_body"),
                    send: timeouts.duration("send"),
                    queue: timeouts.duration("queue"),
                },
                pool: Pool {
                    idle: pool.count32("idle"),
                    idle_timeout: pool.duration("idle_timeout"),
                    requests_per_connection: pool.count("requests_per_connection"),
                },
                max_queued: table.count32("max_queued"),
                send_proxy: send_proxy(table),
                retry: retry::read(table),
                pass_trailers: table.word("trailers") == "pass",
                fail_open: table.flag("fail_open"),
                slow_start: table.duration("slow_start"),
                outlier: failures::outlier(table),
                circuit_breaker: failures::circuit_breaker(table),
                gone: false,
                starts_down: check.as_ref().is_some_and(|check| check.initial != Initial::Up),
            };
            Read { cluster, check, sources: found.sources(sticky_key) }
        })
        .collect()
}

/// Tells of clusters of tcp listeners that want something of a request or response to know whom a client goes to.
pub(super) fn check_protocols(
    tables: &[Table<'_>],
    clusters: &[Cluster],
    routes: &[Arc<Route>],
    listeners: &[Listener],
) {
    let of_tcp = |cluster: &Cluster| {
        listeners.iter().filter(|listener| listener.protocol == Protocol::Tcp).find(|listener| {
            let routed = |route: &Arc<Route>| {
                let takes = matches!(route.action, Action::Forward { cluster: id, .. } if id == cluster.id);
                takes && route.listeners.contains(&listener.id)
            };
            listener.cluster == Some(cluster.id) || routes.iter().any(routed)
        })
    };
    for (table, cluster) in tables.iter().zip(clusters) {
        let of_requests = cluster.hash.as_ref().is_some_and(|hash| hash.on != HashOn::Source);
        let balance = table.get("balance").filter(|_| of_requests);
        let of_requests = [balance, table.get("sticky"), table.get("retry")];
        if of_requests.iter().all(Option::is_none) {
            continue;
        }
        let Some(listener) = of_tcp(cluster) else { continue };
        for item in of_requests.into_iter().flatten() {
            let name = &listener.name;
            item.error(format!(
                "is about requests, and the listener {name:?}, which uses this cluster, is tcp"
            ));
        }
    }
}

fn send_proxy(table: &Table<'_>) -> Option<SendProxy> {
    table.get("send_proxy")?;
    if let Some(pool) = table.get("pool") {
        pool.warn("with `send_proxy` no link is kept, and this does nothing", None);
    }
    Some(if table.word("send_proxy") == "v2" { SendProxy::V2 } else { SendProxy::V1 })
}

fn host_policy(table: &Table<'_>) -> HostPolicy {
    let Some(item) = table.get("host") else { return HostPolicy::Pass };
    match item.words() {
        None | Some("pass") => HostPolicy::Pass,
        Some("endpoint") => HostPolicy::Endpoint,
        Some(name) => {
            if let Err(what) = host::authority(name) {
                item.error(what);
            }
            HostPolicy::Name(name.into())
        }
    }
}
