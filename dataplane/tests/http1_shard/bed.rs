//! A whole shard between scripted clients and one recording origin: no faults, virtual time.

use crate::message::{self, Framing, Kind, Message};
use dataplane::buf::{Class, PoolSize};
use dataplane::conn::Conn;
use dataplane::core::{Setup, Shared};
use dataplane::fault::{CLOSE_REASONS, CloseReason, REFUSALS};
use dataplane::io::{Io, Mono, SocketAddress, SocketOption};
use dataplane::limits;
use dataplane::link;
use dataplane::proto::proxy_header::{self, Reading};
use dataplane::route::RouteTable;
use dataplane::shard::{Shard, drain};
use dataplane::sim::peers::{Act, Ended, Peer};
use dataplane::sim::{self, FaultPlan, Net, SimIo, SocketId, World};
use dataplane::spec::{
    Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, Forwarded, ForwardedMode, Limits,
    ListenAddress, Listener, ListenerId, Pool, Protocol, Runtime, Snapshot, Steer, Timeouts,
};
use dataplane::stats::timings::Timings;
use dataplane::stats::traced::Traced;
use dataplane::stats::{Stats, access_log};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_TO_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
/// How long a client that was answered stays to see whether its connection does.
pub(crate) const SETTLES: Duration = Duration::from_millis(50);
/// Longer than any linger or grace of ours.
const AFTERMATH: Duration = Duration::from_secs(4);
const CLIENTS_OF_AN_ADDRESS: u32 = 20_000;
const MOST_TURNS: u64 = 2_000_000;

pub(crate) fn listen_address() -> SocketAddress {
    SocketAddress::new([127, 0, 0, 1].into(), 8080)
}
pub(crate) fn origin_address() -> SocketAddress {
    origin_at(0)
}
/// Of several origins the n-th, from 0 on.
pub(crate) fn origin_at(n: u16) -> SocketAddress {
    SocketAddress::new([127, 0, 0, 2].into(), 9000 + n)
}
pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
/// Silence in a script.
pub(crate) fn wait(pause: Duration) -> Act {
    Act::Wait(u64::try_from(pause.as_nanos()).expect("a short pause"))
}
pub(crate) fn say(bytes: impl AsRef<[u8]>) -> Act {
    Act::Say(bytes.as_ref().to_vec())
}

/// What the origin does for each whole request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// 200 with two bytes.
    Ok,
    Script(Vec<Act>),
}

/// One far end.
#[derive(Debug)]
pub(crate) struct End {
    peer: Peer,
    is_client: bool,
    /// Which of several origins it is of.
    pub(crate) origin: usize,
    /// Reads nothing.
    deaf: bool,
    /// Goes on speaking when the other side has finished.
    stays: bool,
    pub(crate) received: Vec<u8>,
    /// Bytes of requests that were recorded already.
    taken: usize,
    /// The PROXY header was taken off the front.
    announced: bool,
    /// Bytes that the present request has at least.
    needed: usize,
    /// When the last bytes came.
    pub(crate) heard_at: Mono,
    pub(crate) ended_at: Option<Mono>,
}

impl End {
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.peer.ended
    }
    /// Bytes behind the last whole request.
    pub(crate) fn unfinished(&self) -> &[u8] {
        &self.received[self.taken..]
    }
}

/// Clients and the origin. Actor 0 is the origin's listener, actor n the end n - 1.
#[derive(Debug)]
pub(crate) struct Far {
    pub(crate) ends: Vec<End>,
    pub(crate) answer: Answer,
    /// Those of the origins after the first, and where all of them listen.
    pub(crate) others: Vec<Answer>,
    listeners: Vec<sim::ListenerId>,
    /// Connections to the origin begin with a PROXY header, and these came.
    pub(crate) announced: bool,
    pub(crate) headers: Vec<Vec<u8>>,
    /// New connections to the origin are not read.
    pub(crate) deaf_origin: bool,
    /// Whole requests that reached the origin, and on which of its ends.
    pub(crate) requests: Vec<(usize, Message)>,
    /// Ends of the origin that heard or saw something since the last look.
    pub(crate) touched: BTreeSet<usize>,
    pub(crate) wrong: Vec<String>,
}

impl Far {
    pub(crate) fn new() -> Self {
        Self {
            ends: Vec::new(),
            answer: Answer::Ok,
            others: Vec::new(),
            listeners: Vec::new(),
            announced: false,
            headers: Vec::new(),
            deaf_origin: false,
            requests: Vec::new(),
            touched: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }
    /// Connections that the origin has open.
    pub(crate) fn origin_connections(&self) -> usize {
        self.ends.iter().filter(|end| !end.is_client && end.ended_at.is_none()).count()
    }
    /// A client that connects now and then follows its script; its end's number.
    pub(crate) fn client(
        &mut self,
        net: &mut Net,
        deaf: bool,
        script: impl IntoIterator<Item = Act>,
    ) -> usize {
        let actor = u32::try_from(self.ends.len() + 1).expect("few ends");
        let socket = net.socket(sim::Owner::Actor(actor));
        // One address has ports for so many, and a crowd takes the next.
        let third =
            2 + u8::try_from(actor / CLIENTS_OF_AN_ADDRESS).expect("fewer clients than addresses and ports");
        net.bind(socket, SocketAddress::new([192, 0, third, 1].into(), 0)).expect("a free port");
        net.connect(socket, listen_address()).expect("a connect");
        let at = self.add(net, socket, true, deaf, 0);
        self.tell(net, at, script);
        at
    }
    /// More for a client to do, behind what it does already.
    pub(crate) fn tell(&mut self, net: &mut Net, at: usize, script: impl IntoIterator<Item = Act>) {
        script.into_iter().for_each(|act| self.ends[at].peer.push(act));
        self.act(net, at);
    }
    fn add(&mut self, net: &Net, socket: SocketId, is_client: bool, deaf: bool, origin: usize) -> usize {
        let actor = u32::try_from(self.ends.len() + 1).expect("few ends");
        let mut peer = Peer::new(actor);
        peer.adopt(socket);
        let (received, heard_at) = (Vec::new(), net.now);
        self.ends.push(End {
            peer,
            is_client,
            origin,
            deaf,
            stays: false,
            received,
            taken: 0,
            announced: false,
            needed: 0,
            heard_at,
            ended_at: None,
        });
        self.ends.len() - 1
    }
    fn act(&mut self, net: &mut Net, at: usize) {
        let end = &mut self.ends[at];
        end.peer.speak(net);
        while !end.deaf {
            let bytes = end.peer.listen(net);
            if bytes.is_empty() {
                break;
            }
            end.heard_at = net.now;
            end.received.extend(bytes);
        }
        if !end.is_client {
            self.touched.insert(at);
            self.serve(at);
        }
        let end = &mut self.ends[at];
        end.peer.speak(net);
        if end.stays && end.peer.ended == Some(Ended::Eof) {
            return;
        }
        if end.peer.ended.is_some() && end.ended_at.is_none() {
            end.ended_at = Some(net.now);
            end.peer.leave(net, false);
        }
    }
    /// The origin records each whole request and answers it.
    fn serve(&mut self, at: usize) {
        loop {
            let end = &mut self.ends[at];
            if self.announced && !end.announced {
                match proxy_header::read(&end.received) {
                    Ok(Reading::Whole(header)) => {
                        self.headers.push(end.received.drain(..header.len).collect());
                        end.announced = true;
                    }
                    Ok(Reading::Undecided | Reading::Begun) => return,
                    other => return self.wrong.push(format!("the origin got no PROXY header: {other:?}")),
                }
            }
            if end.unfinished().len() < end.needed {
                return;
            }
            let message = match message::read(end.unfinished(), Kind::Request) {
                Ok(Some(message)) if message.whole => message,
                Ok(Some(Message { framing: Framing::Length(n), head, .. })) => {
                    return end.needed = head.len() + usize::try_from(n).expect("a length");
                }
                Ok(_) => return,
                Err(what) => return self.wrong.push(format!("the origin got {what}")),
            };
            end.taken += message.len;
            end.needed = 0;
            let answer = if end.origin == 0 { &self.answer } else { &self.others[end.origin - 1] };
            let acts = match answer {
                Answer::Ok if message.start.starts_with("HEAD ") => vec![say(OK_TO_HEAD)],
                Answer::Ok => vec![say(OK)],
                Answer::Script(acts) => acts.clone(),
            };
            acts.into_iter().for_each(|act| end.peer.push(act));
            self.requests.push((at, message));
        }
    }
}

impl World for Far {
    fn on_socket(&mut self, net: &mut Net, actor: u32, _: SocketId) {
        self.act(net, actor as usize - 1);
    }
    fn on_listener(&mut self, net: &mut Net, _: u32, listener: sim::ListenerId) {
        while net.pending(listener) > 0 {
            let actor = u32::try_from(self.ends.len() + 1).expect("few ends");
            let Some(socket) = net.accept(listener, sim::Owner::Actor(actor)) else { return };
            let origin = self.listeners.iter().position(|l| *l == listener).unwrap_or(0);
            self.add(net, socket, false, self.deaf_origin, origin);
        }
    }
    fn on_timer(&mut self, net: &mut Net, actor: u32, _: u64) {
        self.act(net, actor as usize - 1);
    }
}

/// The shard and everyone around it.
pub(crate) struct Bed {
    pub(crate) io: SimIo<Far>,
    pub(crate) shard: Shard,
    pub(crate) stats: Arc<Stats>,
    pub(crate) shared: Arc<Shared>,
    log: access_log::LogReader,
}

pub(crate) fn listener() -> Listener {
    Listener {
        id: ListenerId(0),
        name: "edge".into(),
        addresses: vec![ListenAddress::Ip(listen_address())],
        steer: Steer::Hash,
        protocol: Protocol::Http,
        max_connections: 1000,
        limits: Limits {
            request_line: u32::try_from(limits::REQUEST_LINE.default).expect("a small number"),
            header_block: u32::try_from(limits::HEADER_BLOCK.default).expect("a small number"),
            header_fields: u32::try_from(limits::HEADER_FIELDS.default).expect("a small number"),
            request_body: u64::MAX,
            requests_per_connection: u64::MAX,
            pipelined: u32::try_from(limits::PIPELINED.default).expect("a small number"),
        },
        timeouts: Timeouts {
            request_header: seconds(100),
            request_body: seconds(100),
            min_rate: 0,
            send: seconds(100),
            idle: seconds(100),
            tunnel_idle: seconds(100),
            max_lifetime: Duration::MAX,
            dead_peer: Duration::MAX,
        },
        forwarded: Forwarded { mode: ForwardedMode::Replace, trusted: Vec::new(), trusts_unix: false },
        proxy_protocol: None,
        cluster: Some(ClusterId(0)),
        access_log: true,
        error_pages: Default::default(),
    }
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: seconds(100),
            response_header: seconds(100),
            response_body: seconds(100),
            send: seconds(100),
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 8, idle_timeout: seconds(100), requests_per_connection: u64::MAX },
        ..Cluster::new(
            ClusterId(0),
            "app",
            vec![Endpoint::new(EndpointId(0), "origin", origin_address().into())],
        )
    }
}

impl Bed {
    /// Every timeout is 100 seconds and every limit its default, but for what `change` does to them.
    pub(crate) fn new(change: impl FnOnce(&mut Listener, &mut Cluster)) -> Self {
        Self::with_pool(PoolSize { tiny: 64, small: 64, large: 16 }, change)
    }
    /// The same with as many buffers as `pool` says.
    pub(crate) fn with_pool(pool: PoolSize, change: impl FnOnce(&mut Listener, &mut Cluster)) -> Self {
        let (mut listener, mut cluster) = (listener(), cluster());
        change(&mut listener, &mut cluster);
        let snapshot = Arc::new(Snapshot {
            runtime: Runtime { shards: 1, node: "node".into(), drain_timeout: seconds(5) },
            listeners: vec![Some(Arc::new(listener))],
            routes: Vec::new().into(),
            clusters: vec![Some(Arc::new(cluster))],
            tracing: None,
        });
        let mut io = SimIo::with_world(FaultPlan::calm(1), Far::new());
        let fd = io.listener_socket();
        io.set_option(fd, SocketOption::ReusePort).expect("a socket");
        io.bind(fd, &listen_address().into()).expect("a free address");
        io.listen(fd, 1024).expect("a bound socket");
        let origin = io.net.listen(origin_address(), 1024, sim::Owner::Actor(0));
        io.world.listeners.push(origin);
        let (log, reader) = access_log::ring();
        let (stats, shared) = (Arc::new(Stats::default()), Arc::new(Shared::new(&snapshot)));
        let setup = Setup {
            shard: 0,
            routes: Arc::new(RouteTable::of(&snapshot)),
            shared: shared.clone(),
            snapshot,
            stats: stats.clone(),
            log,
            pool,
            seed: 1,
            process_tag: 7,
        };
        let mut shard = Shard::new(setup, &[(ListenerId(0), fd, listen_address())], io.clock());
        shard.start(&mut io);
        let mut bed = Self { io, shard, stats, shared, log: reader };
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
    /// A client that reads at most so many bytes at once, and then nothing for a while.
    pub(crate) fn client_of_pace(
        &mut self,
        most: usize,
        pause: Duration,
        script: impl IntoIterator<Item = Act>,
    ) -> usize {
        let at = self.client_that_is(false, []);
        let pause = u64::try_from(pause.as_nanos()).expect("a short pause");
        self.io.world.ends[at].peer.pace = Some((most, pause));
        self.tell(at, script);
        at
    }
    fn client_that_is(&mut self, deaf: bool, script: impl IntoIterator<Item = Act>) -> usize {
        self.io.world.client(&mut self.io.net, deaf, script)
    }
    /// More for a client to do, behind what it does already.
    pub(crate) fn tell(&mut self, at: usize, script: impl IntoIterator<Item = Act>) {
        self.io.world.tell(&mut self.io.net, at, script);
    }
    /// An end that was deaf reads from now on.
    pub(crate) fn hear(&mut self, at: usize) {
        self.io.world.ends[at].deaf = false;
        self.io.world.act(&mut self.io.net, at);
    }
    /// An end that goes on speaking when the other side has finished, until it is told to close.
    pub(crate) fn stay(&mut self, at: usize) {
        self.io.world.ends[at].stays = true;
    }
    pub(crate) fn drain(&mut self, within: Duration) {
        let by = self.now().after(within);
        drain::begin(&mut self.shard, &mut self.io, by);
    }
    pub(crate) fn end(&self, at: usize) -> &End {
        &self.io.world.ends[at]
    }
    pub(crate) fn turn(&mut self) {
        assert!(self.io.turns < MOST_TURNS, "the shard does not wait");
        self.shard.turn(&mut self.io).expect("the simulator turns");
    }
    /// At least so long; the shard sleeps at most half a second at a time, so perhaps that much longer.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.now() < until {
            self.turn();
        }
    }
    /// Until `happened`, at most ten minutes; exact to a turn, because the shard turns when a timer is due.
    pub(crate) fn run_until(&mut self, what: &str, happened: impl Fn(&Self) -> bool) -> Mono {
        let by = self.now().after(seconds(600));
        while !happened(self) {
            assert!(self.now() < by, "not in ten minutes: {what}; but {}", self.counted());
            self.turn();
        }
        self.now()
    }
    /// Until the script of a client is said, and nothing more happens soon.
    pub(crate) fn run_script(&mut self, at: usize) {
        while !self.end(at).peer.is_silent() && self.end(at).ended().is_none() {
            self.turn();
        }
        self.run_for(SETTLES);
    }
    pub(crate) fn leave(&mut self, at: usize) {
        if self.end(at).ended().is_none() {
            self.io.world.ends[at].peer.leave(&mut self.io.net, false);
        }
    }
    pub(crate) fn conn(&self) -> Option<&Conn> {
        self.shard.core.conns.iter().map(|(_, conn)| conn).next()
    }
    pub(crate) fn idle_links(&self) -> usize {
        self.shard.core.links.iter().filter(|(_, l)| l.phase() == link::Phase::Idle).count()
    }
    /// The responses that a client got; all to plain requests.
    pub(crate) fn responses(&self, at: usize) -> Vec<Message> {
        let (mut all, mut bytes) = (Vec::new(), self.end(at).received.as_slice());
        while let Some(message) = message::read(bytes, Kind::Response).expect("a response") {
            bytes = &bytes[message.len..];
            all.push(message);
        }
        all
    }
    /// Their statuses, and behind them `(end)` if its connection ended, `(cut)` if it did with a reset.
    pub(crate) fn told(&self, at: usize) -> String {
        let statuses: Vec<_> = self.responses(at).iter().map(|m| m.status().to_string()).collect();
        let ended = match self.end(at).ended() {
            None | Some(Ended::Left) => "",
            Some(Ended::Eof) => " (end)",
            Some(Ended::Broken) => " (cut)",
        };
        format!("{}{ended}", statuses.join(" "))
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

    /// More origins, up to so many in all, with answers of their own.
    pub(crate) fn open_origins(&mut self, count: u16) {
        for n in 1..count {
            let listener = self.io.net.listen(origin_at(n), 1024, sim::Owner::Actor(0));
            self.io.world.listeners.push(listener);
            self.io.world.others.push(Answer::Ok);
        }
    }
    /// What the nth origin answers from now on.
    pub(crate) fn answers(&mut self, n: usize, acts: impl IntoIterator<Item = Act>) {
        let answer = Answer::Script(acts.into_iter().collect());
        match n.checked_sub(1) {
            None => self.io.world.answer = answer,
            Some(n) => self.io.world.others[n] = answer,
        }
    }
    /// The nth origin no longer listens.
    pub(crate) fn close_origin(&mut self, n: usize) {
        let listener = self.io.world.listeners[n];
        self.io.net.close_listener(listener);
    }
    /// How long each request that was logged since the last look took to the first byte of its answer, microseconds.
    pub(crate) fn first_bytes(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| all.extend(r.timings.first_byte_us()));
        all
    }
    /// The phases of each request that was logged since the last look.
    pub(crate) fn timings(&mut self) -> Vec<Timings> {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| all.push(r.timings));
        all
    }
    /// The span of each request that was logged since the last look.
    pub(crate) fn spans(&mut self) -> Vec<Option<Traced>> {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| all.push(r.span));
        all
    }
    /// How each request ended that was logged since the last look, in letters.
    pub(crate) fn ends(&mut self) -> String {
        let mut all = Vec::new();
        self.log.drain(usize::MAX, |r| all.push(String::from_utf8_lossy(&r.end.code()).into_owned()));
        all.join(" ")
    }
    /// The requests that reached the origins, in order: which of them, and the request.
    pub(crate) fn arrivals(&self) -> Vec<(usize, &Message)> {
        let world = &self.io.world;
        world.requests.iter().map(|(end, message)| (world.ends[*end].origin, message)).collect()
    }

    /// Everyone has left: nothing but idle links remains.
    pub(crate) fn check_quiet(&mut self) -> Result<(), String> {
        for _ in 0..12 {
            if self.shard.core.conns.is_empty() {
                break;
            }
            self.run_for(AFTERMATH / 8);
        }
        let core = &self.shard.core;
        let mut wrong = std::mem::take(&mut self.io.world.wrong);
        let left = [core.conns.len(), core.exchanges.len() + core.besides.len(), core.tunnels.len()];
        if left != [0; 3] {
            wrong.push(format!("{left:?} conns, exchanges, tunnels are left"));
        }
        for class in Class::ALL {
            let (leased, lent) = (core.pool.leased(class), core.pool.lent(class));
            if (leased, lent) != (0, 0) {
                wrong.push(format!("{leased} {class:?} buffers are leased and {lent} lent"));
            }
        }
        let idle = self.idle_links();
        let links = core.links.len() as usize;
        let open = self.shared.listeners[0].as_ref().expect("the listener").open();
        let cluster = self.shared.clusters[0].as_ref().expect("the cluster");
        let endpoints = || (0..).map_while(|id| cluster.endpoint(EndpointId(id)));
        let counts = [
            open as usize,
            endpoints().map(|endpoint| endpoint.running_requests() as usize).sum(),
            endpoints().map(|endpoint| endpoint.open_links() as usize).sum(),
            cluster.idle_links() as usize,
        ];
        if counts != [0, 0, links, links] || idle != links {
            wrong.push(format!("{links} links, {idle} idle; open, running, links, parked: {counts:?}"));
        }
        if core.wheel.len() as usize > links {
            wrong.push(format!("{} timers for {links} links", core.wheel.len()));
        }
        let closes: u64 = CLOSE_REASONS.iter().map(|row| self.stats.close(row.0).get()).sum();
        let accepted = self.stats.accepted.get() + self.stats.adopted.get();
        let internal = self.stats.close(CloseReason::Internal).get();
        if (closes, internal) != (accepted, 0) {
            wrong.push(format!("{accepted} accepted, {closes} closed, {internal} for reasons of ours"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
    /// As [`Bed::check_quiet`], and when the idle timeout is over no link remains either.
    pub(crate) fn check_empty(&mut self) -> Result<(), String> {
        self.check_quiet()?;
        self.run_for(seconds(101));
        self.check_quiet()?;
        if self.shard.core.links.is_empty() { Ok(()) } else { Err("links are left".to_owned()) }
    }
}
