//! A whole shard with one tcp listener, between scripted clients and two scripted origins: no faults, virtual time.

use dataplane::buf::{Class, PoolSize};
use dataplane::core::{Setup, Shared};
use dataplane::fault::{CLOSE_REASONS, REFUSALS};
use dataplane::io::{Io, Mono, SocketAddress, SocketOption};
use dataplane::route::RouteTable;
use dataplane::shard::swap::{self, Swap};
use dataplane::shard::{Shard, Turn, drain};
use dataplane::sim::peers::{Act, Ended, Peer};
use dataplane::sim::{self, FaultPlan, Net, SimIo, SocketId, World};
use dataplane::spec::{
    Action, Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, Forwarded, ForwardedMode, Limits,
    ListenAddress, Listener, ListenerId, Match, Pool, Protocol, Route, RouteId, Runtime, Snapshot, Steer,
    Timeouts,
};
use dataplane::stats::timings::Phase;
use dataplane::stats::{Stats, access_log};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const LONG: Duration = Duration::from_secs(100);
const MOST_TURNS: u64 = 2_000_000;

pub(crate) fn listen_address() -> SocketAddress {
    SocketAddress::new([127, 0, 0, 1].into(), 5432)
}
/// Where origin 0 or 1 listens: the endpoint of that number.
pub(crate) fn origin_address(n: u8) -> SocketAddress {
    SocketAddress::new([127, 0, 0, 2 + n].into(), 9000)
}
pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub(crate) fn wait(pause: Duration) -> Act {
    Act::Wait(u64::try_from(pause.as_nanos()).unwrap())
}
pub(crate) fn say(bytes: impl AsRef<[u8]>) -> Act {
    Act::Say(bytes.as_ref().to_vec())
}

/// One far end: a client, or an origin's side of a link.
#[derive(Debug)]
pub(crate) struct End {
    peer: Peer,
    /// Of a link: which origin's.
    origin: Option<u8>,
    /// Reads nothing.
    deaf: bool,
    /// Does not leave by itself when it has seen the other's end.
    pub(crate) stays: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) ended: Option<Ended>,
    pub(crate) ended_at: Option<Mono>,
}

/// Clients and origins. Actors 0 and 1 are the origins' listeners, actor n the end n - 2.
#[derive(Debug, Default)]
pub(crate) struct Far {
    pub(crate) ends: Vec<End>,
    /// What an origin does on each connection.
    pub(crate) script: Vec<Act>,
    pub(crate) deaf_origin: bool,
}

impl Far {
    fn add(&mut self, socket: SocketId, origin: Option<u8>, deaf: bool) -> usize {
        let mut peer = Peer::new(u32::try_from(self.ends.len() + 2).unwrap());
        peer.adopt(socket);
        self.ends.push(End {
            peer,
            origin,
            deaf,
            stays: false,
            received: Vec::new(),
            ended: None,
            ended_at: None,
        });
        self.ends.len() - 1
    }
    /// Reads what is there and goes on with the script. Who has seen the other's end and has no more to say, leaves.
    fn act(&mut self, net: &mut Net, at: usize) {
        let end = &mut self.ends[at];
        end.peer.speak(net);
        while !end.deaf {
            let bytes = end.peer.listen(net);
            if bytes.is_empty() {
                break;
            }
            end.received.extend(bytes);
        }
        end.peer.speak(net);
        if end.ended.is_none() && end.peer.ended.is_some() {
            (end.ended, end.ended_at) = (end.peer.ended, Some(net.now));
        }
        if end.ended.is_some() && end.peer.is_silent() && !end.stays {
            end.peer.leave(net, false);
        }
    }
}

impl World for Far {
    fn on_socket(&mut self, net: &mut Net, actor: u32, _: SocketId) {
        self.act(net, actor as usize - 2);
    }
    fn on_listener(&mut self, net: &mut Net, actor: u32, listener: sim::ListenerId) {
        while net.pending(listener) > 0 {
            let end = u32::try_from(self.ends.len() + 2).unwrap();
            let Some(socket) = net.accept(listener, sim::Owner::Actor(end)) else { return };
            let at = self.add(socket, Some(u8::try_from(actor).unwrap()), self.deaf_origin);
            self.script.iter().for_each(|act| self.ends[at].peer.push(act.clone()));
            self.act(net, at);
        }
    }
    fn on_timer(&mut self, net: &mut Net, actor: u32, _: u64) {
        self.act(net, actor as usize - 2);
    }
}

/// The shard and everyone around it.
pub(crate) struct Bed {
    pub(crate) io: SimIo<Far>,
    pub(crate) shard: Shard,
    pub(crate) stats: Arc<Stats>,
    pub(crate) shared: Arc<Shared>,
    log: access_log::LogReader,
    pub(crate) ended: bool,
    /// Whose connections the records are of.
    pub(crate) client: IpAddr,
}

fn listener() -> Listener {
    Listener {
        id: ListenerId(0),
        name: "db".into(),
        addresses: vec![ListenAddress::Ip(listen_address())],
        steer: Steer::Hash,
        protocol: Protocol::Tcp,
        max_connections: 1000,
        limits: Limits {
            request_line: 0,
            header_block: 0,
            header_fields: 0,
            request_body: 0,
            requests_per_connection: 0,
            pipelined: 0,
        },
        timeouts: Timeouts {
            request_header: Duration::ZERO,
            request_body: Duration::ZERO,
            min_rate: u64::MAX,
            send: LONG,
            idle: Duration::ZERO,
            tunnel_idle: LONG,
            max_lifetime: Duration::MAX,
            dead_peer: Duration::MAX,
        },
        forwarded: Forwarded { mode: ForwardedMode::Off, trusted: Vec::new(), trusts_unix: false },
        proxy_protocol: None,
        cluster: Some(ClusterId(0)),
        access_log: true,
        error_pages: Default::default(),
    }
}

fn endpoint(n: u8) -> Endpoint {
    Endpoint::new(EndpointId(u16::from(n)), &format!("origin-{n}"), origin_address(n).into())
}

fn cluster() -> Cluster {
    Cluster {
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: LONG,
            response_header: Duration::ZERO,
            response_body: Duration::ZERO,
            send: LONG,
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 8, idle_timeout: LONG, requests_per_connection: u64::MAX },
        ..Cluster::new(ClusterId(0), "app", vec![endpoint(0)])
    }
}

impl Bed {
    /// One origin that says nothing, everything that is of HTTP at its worst value, and every other timeout 100 seconds;
    /// but for what `change` does.
    pub(crate) fn new(change: impl FnOnce(&mut Listener, &mut Cluster)) -> Self {
        Self::with_origins(&[0], Vec::new(), change)
    }
    /// Two endpoints, of which `open` listen.
    pub(crate) fn with_two(open: &[u8], change: impl FnOnce(&mut Listener, &mut Cluster)) -> Self {
        let change = |listener: &mut Listener, cluster: &mut Cluster| {
            cluster.endpoints.push(endpoint(1));
            change(listener, cluster);
        };
        Self::with_origins(open, Vec::new(), change)
    }
    /// Two clusters: 0 has origin 0 and is the listener's own, unless `change` says otherwise; 1 has origin 1 and is where
    /// routes with these matches go.
    pub(crate) fn with_routes(
        matchers: impl IntoIterator<Item = Match>,
        change: impl FnOnce(&mut Listener, &mut Cluster),
    ) -> Self {
        let routes = (0..).zip(matchers).map(|(id, matcher)| Route {
            id: RouteId(id),
            name: format!("route-{id}").into(),
            listeners: vec![ListenerId(0)],
            matcher,
            action: Action::Forward {
                cluster: ClusterId(1),
                response_header: None,
                response_body: None,
                send: None,
                connect: None,
                queue: None,
            },
            maintenance: None,
            error_pages: Default::default(),
        });
        Self::with_origins(&[0, 1], routes.collect(), change)
    }
    fn with_origins(
        open: &[u8],
        routes: Vec<Route>,
        change: impl FnOnce(&mut Listener, &mut Cluster),
    ) -> Self {
        let (mut listener, mut cluster) = (listener(), cluster());
        change(&mut listener, &mut cluster);
        let other = Cluster {
            id: ClusterId(1),
            name: "other".into(),
            endpoints: vec![Endpoint { id: EndpointId(0), ..endpoint(1) }],
            ..cluster.clone()
        };
        let snapshot = Arc::new(Snapshot {
            runtime: Runtime { shards: 1, node: "node".into(), drain_timeout: seconds(5) },
            listeners: vec![Some(Arc::new(listener))],
            routes: routes.into_iter().map(Arc::new).collect(),
            clusters: vec![Some(Arc::new(cluster)), Some(Arc::new(other))],
            tracing: None,
        });
        let mut io = SimIo::with_world(FaultPlan::calm(1), Far::default());
        let fd = io.listener_socket();
        io.set_option(fd, SocketOption::ReusePort).unwrap();
        io.bind(fd, &listen_address().into()).unwrap();
        io.listen(fd, 1024).unwrap();
        for n in open {
            io.net.listen(origin_address(*n), 1024, sim::Owner::Actor(u32::from(*n)));
        }
        let (log, reader) = access_log::ring();
        let (stats, shared) = (Arc::new(Stats::default()), Arc::new(Shared::new(&snapshot)));
        let setup = Setup {
            shard: 0,
            routes: Arc::new(RouteTable::of(&snapshot)),
            shared: shared.clone(),
            snapshot,
            stats: stats.clone(),
            log,
            pool: PoolSize { tiny: 64, small: 64, large: 16 },
            seed: 1,
            process_tag: 7,
        };
        let mut shard = Shard::new(setup, &[(ListenerId(0), fd, listen_address())], io.clock());
        for (free, all) in stats.buffers_free.iter().zip(&stats.buffers) {
            assert!(free.get() == all.get() && all.get() > 0, "known before the first turn");
        }
        shard.start(&mut io);
        let mut bed =
            Self { io, shard, stats, shared, log: reader, ended: false, client: [192, 0, 2, 1].into() };
        // The accept must be armed before the first client comes, or that client's time would begin late.
        bed.turn();
        bed
    }
    pub(crate) fn now(&self) -> Mono {
        self.io.clock().mono
    }
    /// A client that connects now and then follows its script; its end's number.
    pub(crate) fn client(&mut self, script: impl IntoIterator<Item = Act>) -> usize {
        self.client_that_is(false, script)
    }
    pub(crate) fn deaf_client(&mut self, script: impl IntoIterator<Item = Act>) -> usize {
        self.client_that_is(true, script)
    }
    fn client_that_is(&mut self, deaf: bool, script: impl IntoIterator<Item = Act>) -> usize {
        let net = &mut self.io.net;
        let actor = u32::try_from(self.io.world.ends.len() + 2).unwrap();
        let socket = net.socket(sim::Owner::Actor(actor));
        net.bind(socket, SocketAddress::new([192, 0, 2, 1].into(), 0)).unwrap();
        net.connect(socket, listen_address()).unwrap();
        let at = self.io.world.add(socket, None, deaf);
        self.tell(at, script);
        at
    }
    /// More for an end to do, behind what it does already.
    pub(crate) fn tell(&mut self, at: usize, script: impl IntoIterator<Item = Act>) {
        let end = &mut self.io.world.ends[at];
        script.into_iter().for_each(|act| end.peer.push(act));
        self.io.world.act(&mut self.io.net, at);
    }
    pub(crate) fn hear(&mut self, at: usize) {
        self.io.world.ends[at].deaf = false;
        self.io.world.act(&mut self.io.net, at);
    }
    pub(crate) fn end(&self, at: usize) -> &End {
        &self.io.world.ends[at]
    }
    /// The ends that origin `n` accepted, in order.
    pub(crate) fn accepted(&self, n: u8) -> Vec<usize> {
        let ends = self.io.world.ends.iter().enumerate();
        ends.filter(|(_, end)| end.origin == Some(n)).map(|(at, _)| at).collect()
    }
    pub(crate) fn turn(&mut self) {
        assert!(self.io.turns < MOST_TURNS, "the shard does not wait");
        self.ended = self.shard.turn(&mut self.io).unwrap() == Turn::Ended;
    }
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.now() < until && !self.ended {
            self.turn();
        }
        // The shard is gone, and the network goes on.
        while self.now() < until {
            self.io.turn(&mut self.shard.core.pool, until, &mut Vec::new()).unwrap();
        }
    }
    /// Until `happened`, at most ten minutes; exact to a turn, because the shard turns when a timer is due.
    pub(crate) fn run_until(&mut self, what: &str, happened: impl Fn(&Self) -> bool) -> Mono {
        let by = self.now().after(seconds(600));
        while !happened(self) {
            assert!(self.now() < by && !self.ended, "not in ten minutes: {what}; but {}", self.counted());
            self.turn();
        }
        self.now()
    }
    /// The listener is another one from now on.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Listener)) {
        let before = self.shard.core.snapshot.clone();
        let (mut next, mut listener) =
            (Snapshot::clone(&before), Listener::clone(before.listeners[0].as_ref().unwrap()));
        change(&mut listener);
        next.listeners[0] = Some(Arc::new(listener));
        let shared = Arc::new(self.shared.next(&before, &next, self.now()));
        let routes = Arc::new(RouteTable::of(&next));
        let (snapshot, drains) = (Arc::new(next), Arc::default());
        let mut swap = Swap { snapshot, routes, shared: shared.clone(), sockets: None, drains };
        swap::begin(&mut self.shard.core, &mut self.io, &mut swap);
        self.shared = shared;
    }
    pub(crate) fn drain(&mut self, within: Duration) {
        let by = self.now().after(within);
        drain::begin(&mut self.shard, &mut self.io, by);
    }
    /// What an end was told, as text, and how it ended: `(end)` by a FIN, `(cut)` by a reset.
    pub(crate) fn told(&self, at: usize) -> String {
        let end = self.end(at);
        let ended = match end.ended {
            None | Some(Ended::Left) => "",
            Some(Ended::Eof) => "(end)",
            Some(Ended::Broken) => "(cut)",
        };
        format!("{}{ended}", String::from_utf8_lossy(&end.received))
    }
    /// Every refusal and close reason that was counted, with its number where that is not 1.
    pub(crate) fn counted(&self) -> String {
        let refusals = REFUSALS.iter().map(|row| (row.name, self.stats.refusal(row.refusal).get()));
        let closes = CLOSE_REASONS.iter().map(|row| (row.1, self.stats.close(row.0).get()));
        let one = |(name, n): (&str, u64)| match n {
            0 => None,
            1 => Some(name.to_owned()),
            n => Some(format!("{name}*{n}")),
        };
        refusals.chain(closes).filter_map(one).collect::<Vec<_>>().join(" ")
    }
    /// The access log's records since the last look, in short.
    pub(crate) fn records(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| {
            assert_eq!(r.protocol, Protocol::Tcp);
            assert_eq!((r.listener, r.peer.ip()), (ListenerId(0), Some(self.client)));
            let endpoint = r.endpoint.map_or_else(|| "-".to_owned(), |e| e.0.to_string());
            let reason = r.refusal.map_or("-", |refusal| refusal.name());
            let close = r.close.map_or("-", |close| close.name());
            let (up, down, ms) = (r.tunnel_up_bytes, r.tunnel_down_bytes, r.timings.total_us / 1000);
            let connected = if r.timings.get(Phase::Connect).is_some() { "connected" } else { "-" };
            all.push(format!(
                "endpoint {endpoint} attempts {} {connected} up {up} down {down} ms {ms} {reason} {close}",
                r.attempts
            ));
        });
        all
    }
    /// How connections ended of which there are records since the last look, and for how many milliseconds they waited in a
    /// queue.
    pub(crate) fn waits(&mut self) -> Vec<(String, Option<u64>)> {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| {
            let code = String::from_utf8(r.end.code().to_vec()).unwrap();
            all.push((code, r.timings.get(Phase::Queue).map(|us| us / 1000)));
        });
        all
    }
    /// Everyone has left: nothing remains, and every count is back where it was.
    pub(crate) fn check_empty(&mut self) {
        self.run_for(seconds(2));
        let core = &self.shard.core;
        let left = [core.conns.len(), core.links.len(), core.exchanges.len(), core.tunnels.len()];
        assert_eq!(left, [0; 4], "conns, links, exchanges, tunnels; {}", self.counted());
        assert_eq!(core.wheel.len(), 0, "timers");
        for class in Class::ALL {
            assert_eq!((core.pool.leased(class), core.pool.lent(class)), (0, 0), "{class:?}");
        }
        assert_eq!(self.shared.listeners[0].as_ref().unwrap().open(), 0);
        for n in 0..core.snapshot.clusters[0].as_ref().unwrap().endpoints.len() {
            assert_eq!(self.counts(u16::try_from(n).unwrap()), (0, 0), "running, links of endpoint {n}");
        }
        let closes: u64 = CLOSE_REASONS.iter().map(|row| self.stats.close(row.0).get()).sum();
        assert_eq!(closes, self.stats.accepted.get() + self.stats.adopted.get(), "one close reason each");
        assert_eq!(self.stats.tunnels_started.get(), self.stats.tunnels_ended.get());
    }
    /// Running requests and open links of an endpoint.
    pub(crate) fn counts(&self, n: u16) -> (u32, u32) {
        let endpoint = self.shared.clusters[0].as_ref().unwrap().endpoint(EndpointId(n)).unwrap();
        (endpoint.running_requests(), endpoint.open_links())
    }
}
