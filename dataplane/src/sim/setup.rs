//! The configuration that a seed runs with: a listener of each protocol, a cluster for each, and a few seeds' limits drawn
//! low enough to be met.

use super::random::Random;
use super::workload::{FLOW_ORIGIN_COUNT, FlowRules, ORIGIN_COUNT, ROUTED_NAMES, Workload};
use crate::buf::PoolSize;
use crate::cluster::balance;
use crate::io::{Address, SocketAddress};
use crate::limits;
use crate::spec::{
    Action, BreakerOf, CircuitBreaker, Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, Forwarded,
    ForwardedMode, Hash, HashOn, HedgeAfter, Limits, ListenAddress, Listener, ListenerId, Match, Network,
    Outlier, Pool, Protocol, ProxyProtocol, Retry, RetryOn, Route, RouteId, Runtime, SendProxy, Snapshot,
    SourceAddresses, Statuses, Steer, Sticky, Timeouts,
};
use std::sync::Arc;
use std::time::Duration;

/// Largest request body accepted, bytes; a flaw of the workload is larger, its uploads are not.
const REQUEST_BODY: u64 = 500_000;
/// How long an idle connection may stay.
pub(super) const IDLE: Duration = Duration::from_secs(15);

/// What a seed draws.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) snapshot: Snapshot,
    pub(super) pool: PoolSize,
    /// Good requests may be refused by a limit.
    pub(super) scarce: bool,
    /// Connections end by `max_lifetime`, perhaps between an answer that promised more and the next request.
    pub(super) mortal: bool,
    /// Drains in the middle of the run, this long after its begin.
    pub(super) drain_after: Option<Duration>,
    /// Only the first shard accepts: the others live by what it hands them.
    pub(super) one_accepts: bool,
    /// Idle conns are parked after this: in most seeds while their clients think.
    pub(super) park_after: Duration,
    /// What is said of endpoints changes while the seed runs.
    pub(super) fickle: bool,
    /// Pipes of the shard: in some seeds so few that flows which stall have to give theirs up.
    pub(super) pipes: u16,
    /// Endpoints come and go; where this is true, perhaps all of a cluster.
    pub(super) churn: Option<bool>,
    pub(super) flow_rules: FlowRules,
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Where the shard of every seed listens: for HTTP, and for flows.
pub(super) fn listen_addresses() -> [SocketAddress; 2] {
    [8080, 8081].map(|port| SocketAddress::new([127, 0, 0, 1].into(), port))
}

pub(super) fn draw(seed: u64) -> Drawn {
    let mut random = Random::new(seed ^ 0x7365_7475);
    let mut listener = listener();
    let mut cluster = cluster(&mut random);
    let mut flows = flow_cluster(&cluster);
    let mut pool = PoolSize { tiny: 4096, small: 2048, large: 256 };
    let mut scarce = true;
    let mut drain_after = None;
    let mut fickle = false;
    match random.below(16) {
        0 => listener.max_connections = random.between(10, 60) as u32,
        1 => pool = PoolSize { tiny: 64, small: 48, large: 12 },
        6 => pool = PoolSize { tiny: 4, small: 10, large: 3 },
        2 => endpoints(&mut cluster, &mut flows).for_each(|e| e.max_requests = 2),
        3 => endpoints(&mut cluster, &mut flows).for_each(|e| e.max_connections = 3),
        4 => drain_after = Some(Duration::from_millis(random.between(1_000, 14_000))),
        5 => endpoints(&mut cluster, &mut flows).for_each(|e| e.weight = 0),
        rules @ 7..=10 => {
            fickle = true;
            [&mut cluster, &mut flows].into_iter().for_each(|c| watch(c, rules, &mut random));
        }
        _ => scarce = false,
    }
    if random.one_in(4) {
        listener.limits.requests_per_connection = random.between(1, 5);
    }
    let mortal = random.one_in(6);
    if mortal {
        listener.timeouts.max_lifetime = Duration::from_millis(random.between(500, 8_000));
    }
    let mut tcp = flow_listener(&listener);
    let flow_rules = flow_rules(seed, &mut tcp, &mut flows);
    if random.one_in(5) {
        listener.proxy_protocol = Some(proxy_protocol(random.one_in(2)));
    }
    if random.one_in(6) {
        cluster.send_proxy = Some(random.pick(&[SendProxy::V1, SendProxy::V2]));
    }
    let named = named_cluster(&flows);
    cluster.retry = retry(&mut Random::new(seed ^ 0x7265_7472));
    let shards = if random.one_in(4) { random.between(2, 5) as u16 } else { 1 };
    let one_accepts = random.one_in(2);
    let snapshot = Snapshot {
        runtime: Runtime { shards, node: "sim".into(), drain_timeout: seconds(5) },
        listeners: [listener, tcp].map(|l| Some(Arc::new(l))).into(),
        routes: std::iter::once(route()).chain(named_route(flow_rules)).map(Arc::new).collect(),
        clusters: vec![Some(Arc::new(cluster)), Some(Arc::new(flows)), Some(Arc::new(named))],
        tracing: None,
    };
    let park_after = Duration::from_millis(random.pick(&[0, 1, 3, 20, 5_000]));
    let pipes = random.pick(&[limits::PIPES, limits::PIPES, 2, 1]);
    let churn = (!fickle && random.one_in(3)).then(|| random.one_in(3));
    let scarce = scarce || churn == Some(true);
    Drawn {
        snapshot,
        pool,
        scarce,
        mortal,
        drain_after,
        one_accepts,
        park_after,
        fickle,
        pipes,
        churn,
        flow_rules,
    }
}

fn listener() -> Listener {
    Listener {
        id: ListenerId(0),
        name: "edge".into(),
        addresses: vec![ListenAddress::Ip(listen_addresses()[0])],
        steer: Steer::Hash,
        protocol: Protocol::Http,
        max_connections: 10_000,
        limits: Limits {
            request_line: limits::REQUEST_LINE.default as u32,
            header_block: limits::HEADER_BLOCK.default as u32,
            header_fields: limits::HEADER_FIELDS.default as u32,
            request_body: REQUEST_BODY,
            requests_per_connection: u64::MAX,
            pipelined: limits::PIPELINED.default as u32,
        },
        timeouts: Timeouts {
            request_header: seconds(5),
            request_body: seconds(5),
            min_rate: 500,
            send: seconds(5),
            idle: IDLE,
            tunnel_idle: seconds(10),
            max_lifetime: Duration::MAX,
            dead_peer: Duration::MAX,
        },
        forwarded: Forwarded { mode: ForwardedMode::Replace, trusted: Vec::new(), trusts_unix: false },
        proxy_protocol: None,
        cluster: None,
        access_log: true,
        error_pages: Default::default(),
    }
}

/// As the http listener, with its limits and timeouts.
fn flow_listener(http: &Listener) -> Listener {
    Listener {
        id: ListenerId(1),
        name: "flows".into(),
        addresses: vec![ListenAddress::Ip(listen_addresses()[1])],
        protocol: Protocol::Tcp,
        cluster: Some(ClusterId(1)),
        ..http.clone()
    }
}

/// As the cluster of requests, with origins of its own.
fn flow_cluster(http: &Cluster) -> Cluster {
    let origins = (0..FLOW_ORIGIN_COUNT).map(|n| endpoint(n, Workload::origin_at(ORIGIN_COUNT + n)));
    let endpoints: Vec<_> = origins.collect();
    let table = balance::maglev::table(&endpoints);
    let hash = http.hash.clone().map(|hash| Hash { on: HashOn::Source, table, ..hash });
    Cluster { id: ClusterId(1), name: "flows".into(), endpoints, hash, sticky: None, ..http.clone() }
}

/// What the listener of flows reads first and its cluster sends first: in most seeds nothing.
fn flow_rules(seed: u64, listener: &mut Listener, cluster: &mut Cluster) -> FlowRules {
    let random = &mut Random::new(seed ^ 0x7275_6c65);
    let rules = FlowRules {
        proxied: random.one_in(4).then(|| random.one_in(2)),
        announced: random.one_in(4).then(|| random.pick(&[SendProxy::V1, SendProxy::V2])),
        routed: random.one_in(3).then(|| random.one_in(2)),
    };
    listener.proxy_protocol = rules.proxied.map(proxy_protocol);
    listener.cluster = listener.cluster.filter(|_| rules.routed != Some(false));
    cluster.send_proxy = rules.announced;
    rules
}

/// Of everybody.
fn proxy_protocol(required: bool) -> ProxyProtocol {
    let from = vec![Network { address: [127, 0, 0, 1].into(), prefix: 0 }];
    ProxyProtocol { required, from, from_unix: false }
}

/// As the cluster of flows, with an origin of its own.
fn named_cluster(flows: &Cluster) -> Cluster {
    let address = Workload::origin_at(ORIGIN_COUNT + FLOW_ORIGIN_COUNT);
    let endpoints = vec![Endpoint { address, ..flows.endpoints[0].clone() }];
    let table = balance::maglev::table(&endpoints);
    let hash = flows.hash.clone().map(|hash| Hash { table, ..hash });
    Cluster { id: ClusterId(2), name: "named".into(), endpoints, hash, ..flows.clone() }
}

/// Takes flows by the name in their ClientHello, where the seed has such routes.
fn named_route(rules: FlowRules) -> Option<Route> {
    rules.routed.map(|_| Route {
        id: RouteId(1),
        name: "named".into(),
        listeners: vec![ListenerId(1)],
        matcher: Match { sni: ROUTED_NAMES.map(Into::into).into(), ..Match::default() },
        action: forward(ClusterId(2)),
        maintenance: None,
        error_pages: Default::default(),
    })
}

/// Rules for endpoints that fail, with times so short that a seed sees all of them.
fn watch(cluster: &mut Cluster, rules: u64, random: &mut Random) {
    let time = |random: &mut Random| Duration::from_millis(random.pick(&[100, 1_000, 4_000]));
    let outlier = Outlier {
        consecutive_failures: random.between(1, 4) as u32,
        failure_rate: None,
        minimum_volume: 1,
        window: seconds(1),
        ejection_time: time(random),
        max_ejection_time: seconds(10),
        max_ejected_percent: random.pick(&[40, 70, 100]),
        failure_status: Statuses::SERVER_ERRORS,
    };
    let breaker = CircuitBreaker {
        of: random.pick(&[BreakerOf::Endpoint, BreakerOf::Cluster, BreakerOf::Both]),
        failure_threshold: random.between(1, 4) as u32,
        recovery_timeout: time(random),
        trial_timeout: time(random),
        failure_status: Statuses::SERVER_ERRORS,
    };
    cluster.outlier = (rules != 8).then_some(outlier);
    cluster.circuit_breaker = (rules != 7).then_some(breaker);
    cluster.fail_open = random.one_in(2);
    cluster.slow_start = random.pick(&[Duration::ZERO, seconds(2)]);
    if rules == 10 {
        cluster.endpoints.iter_mut().for_each(|e| e.priority = random.below(3) as u8);
    }
}

fn endpoints<'a>(one: &'a mut Cluster, other: &'a mut Cluster) -> impl Iterator<Item = &'a mut Endpoint> {
    one.endpoints.iter_mut().chain(&mut other.endpoints)
}

fn endpoint(n: u16, address: Address) -> Endpoint {
    Endpoint { weight: u32::from(n) + 1, ..Endpoint::new(EndpointId(n), &format!("origin-{n}"), address) }
}

fn cluster(random: &mut Random) -> Cluster {
    let sources =
        if random.one_in(3) { vec![([127, 0, 0, 1].into(), [127, 0, 0, 4].into())] } else { Vec::new() };
    let policies: Vec<&'static str> = balance::POLICIES.iter().map(|p| p.name).collect();
    let origins = (0..ORIGIN_COUNT).map(|n| endpoint(n, Workload::origin_at(n)));
    let policy = random.pick(&policies);
    let mut cluster = Cluster {
        balance: policy,
        source_addresses: SourceAddresses { ranges: sources, ..SourceAddresses::default() },
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: seconds(2),
            response_header: seconds(8),
            response_body: seconds(8),
            send: seconds(5),
            queue: Duration::from_millis(random.pick(&[0, 200, 3_000])),
        },
        pool: Pool {
            idle: random.pick(&[0, 4, 64, 64, 256]),
            idle_timeout: seconds(6),
            requests_per_connection: random.pick(&[u64::MAX, u64::MAX, 10]),
        },
        max_queued: random.pick(&[3, 1024]),
        pass_trailers: random.one_in(4),
        ..Cluster::new(ClusterId(0), "app", origins.collect())
    };
    if policy == "hash" {
        let on = match random.pick(&[0, 1, 2]) {
            0 => HashOn::Uri,
            1 => HashOn::Header("x-sim".into()),
            // Of which no request has one.
            _ => HashOn::Cookie("sim".into()),
        };
        let table = balance::maglev::table(&cluster.endpoints);
        cluster.hash = Some(Hash { on, bounded_load: random.pick(&[u32::MAX, 100, 150]), table });
    }
    if random.one_in(3) {
        let value = |n: u8| [b'a' + n; 32];
        let values = [0, 1, 2].map(value).into();
        cluster.sticky = Sticky::new("sim".into(), "; Path=/".into(), values).ok();
        if let Some(sticky) = &mut cluster.sticky {
            (sticky.indirect, sticky.nocache) = (random.one_in(2), random.one_in(2));
        }
    }
    cluster
}

/// Half of the seeds have a policy on second attempts, of every kind there is.
fn retry(random: &mut Random) -> Option<Retry> {
    if random.one_in(2) {
        return None;
    }
    let mut statuses = Statuses::default();
    for status in [404, 500] {
        if random.one_in(2) {
            statuses.add(status);
        }
    }
    let on =
        RetryOn { connect: !random.one_in(8), reset: !random.one_in(4), timeout: random.one_in(2), statuses };
    let ms = |n| HedgeAfter::Delay(Duration::from_millis(n));
    Some(Retry {
        attempts: random.below(4) as u8,
        on,
        budget_percent: random.pick(&[0, 20, 20, 100]),
        budget_minimum: random.pick(&[0, 1, 10, 1_000]),
        replay_body: random.pick(&[0, 2_000, 16 << 10, limits::REPLAY_BODY.max as u32]),
        hedge_after: random.pick(&[
            None,
            Some(ms(5)),
            Some(ms(50)),
            Some(ms(250)),
            Some(HedgeAfter::Percentile(50)),
            Some(HedgeAfter::Percentile(95)),
        ]),
    })
}

/// Everything below /x goes to the cluster; nothing else has a route.
fn route() -> Route {
    Route {
        id: RouteId(0),
        name: "all".into(),
        listeners: Vec::new(),
        matcher: Match { path_prefix: vec!["/x".into()], ..Match::default() },
        action: forward(ClusterId(0)),
        maintenance: None,
        error_pages: Default::default(),
    }
}

fn forward(cluster: ClusterId) -> Action {
    Action::Forward {
        cluster,
        response_header: None,
        response_body: None,
        send: None,
        connect: None,
        queue: None,
    }
}
