//! Several shards in one simulation before one origin whose limit they share: it holds for all of them together, whoever
//! waits is served, and shards take turns.

use crate::bed::{
    self, Answer, Far, OK, listen_address, millis, origin_address, origin_at, say, seconds, wait,
};
use crate::message::{self, Kind};
use dataplane::buf::PoolSize;
use dataplane::core::{Setup, Shared};
use dataplane::fault::REFUSALS;
use dataplane::io::{Io, Mono, SocketOption};
use dataplane::route::RouteTable;
use dataplane::shard::{Shard, Turn, drain};
use dataplane::sim::random::ALWAYS;
use dataplane::sim::{self, Fault, FaultPlan, SimIo};
use dataplane::spec::{Cluster, Endpoint, EndpointId, HostPolicy, ListenerId, Runtime, Snapshot};
use dataplane::stats::{Stats, access_log};
use std::sync::Arc;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct Crowd {
    io: SimIo<Far>,
    shards: Vec<Shard>,
    stats: Vec<Arc<Stats>>,
    shared: Arc<Shared>,
    _logs: Vec<access_log::LogReader>,
    most_links: usize,
    most_connections: usize,
    turns: u64,
}

impl Crowd {
    fn new(count: u16, faults: FaultPlan, change: impl FnOnce(&mut Cluster)) -> Self {
        let mut cluster = bed::cluster();
        change(&mut cluster);
        let snapshot = Arc::new(Snapshot {
            runtime: Runtime { shards: count, node: "node".into(), drain_timeout: seconds(5) },
            listeners: vec![Some(Arc::new(bed::listener()))],
            routes: Vec::new().into(),
            clusters: vec![Some(Arc::new(cluster))],
            tracing: None,
        });
        let mut io = SimIo::with_world(faults, Far::new()).with_shards(count);
        io.net.listen(origin_address(), 1024, sim::Owner::Actor(0));
        let shared = Arc::new(Shared::new(&snapshot));
        let routes = Arc::new(RouteTable::build(&snapshot.routes));
        let (mut shards, mut stats, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        for shard in 0..count {
            io.select(shard);
            let fd = io.listener_socket();
            io.set_option(fd, SocketOption::ReusePort).expect("a socket");
            io.bind(fd, &listen_address().into()).expect("a free address");
            io.listen(fd, 1024).expect("a bound socket");
            let (log, reader) = access_log::ring();
            let counters = Arc::new(Stats::default());
            let setup = Setup {
                shard,
                routes: routes.clone(),
                shared: shared.clone(),
                snapshot: snapshot.clone(),
                stats: counters.clone(),
                log,
                pool: PoolSize { tiny: 64, small: 512, large: 16 },
                seed: u64::from(shard),
                process_tag: 7,
            };
            let mut started = Shard::new(setup, &[(ListenerId(0), fd, listen_address())], io.clock());
            started.start(&mut io);
            shards.push(started);
            stats.push(counters);
            logs.push(reader);
        }
        Self { io, shards, stats, shared, _logs: logs, most_links: 0, most_connections: 0, turns: 0 }
    }
    fn now(&self) -> Mono {
        self.io.clock().mono
    }
    fn turn(&mut self, until: Mono) {
        self.turns += 1;
        let shard = self.io.next_shard(until).expect("none has left");
        let turn = self.shards[usize::from(shard)].turn(&mut self.io).expect("the simulator turns");
        assert!(turn == Turn::Goes || self.shards[usize::from(shard)].core.draining);
        let links: u32 = self.shards.iter().map(|shard| shard.core.links.len()).sum();
        self.most_links = self.most_links.max(links as usize);
        self.most_connections = self.most_connections.max(self.io.world.origin_connections());
    }
    fn run_until(&mut self, what: &str, happened: impl Fn(&Self) -> bool) {
        let by = self.now().after(seconds(600));
        while !happened(self) {
            let waiting: Vec<_> = self.shards.iter().map(|shard| shard.core.waiters.len()).collect();
            assert!(
                self.now() < by && self.turns < 3_000_000,
                "not in ten minutes: {what}; waiting: {waiting:?}"
            );
            self.turn(by);
        }
    }
    fn run_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.now() < until {
            self.turn(until);
        }
    }
    fn clients(&mut self, count: usize, script: &[sim::peers::Act]) -> Vec<usize> {
        (0..count).map(|_| self.io.world.client(&mut self.io.net, false, script.to_vec())).collect()
    }
    fn statuses(&self, client: usize) -> Vec<u16> {
        let (mut all, mut bytes) = (Vec::new(), self.io.world.ends[client].received.as_slice());
        while let Some(message) = message::read(bytes, Kind::Response).expect("a response") {
            bytes = &bytes[message.len..];
            all.push(message.status());
        }
        all
    }
    fn sum(&self, count: impl Fn(&Stats) -> u64) -> u64 {
        self.stats.iter().map(|stats| count(stats)).sum()
    }
    fn refusals(&self) -> Vec<(&'static str, u64)> {
        let count = |row: &dataplane::fault::RefusalRow| self.sum(|stats| stats.refusal(row.refusal).get());
        REFUSALS.iter().map(|row| (row.name, count(row))).filter(|(_, n)| *n > 0).collect()
    }
    /// Nothing is held or counted any more but idle links.
    fn check(&self) {
        let cluster = self.shared.clusters[0].as_ref().expect("the cluster");
        let endpoint = cluster.endpoint(EndpointId(0)).expect("the endpoint");
        let idle: u32 = self.shards.iter().map(|shard| shard.core.links.len()).sum();
        assert_eq!((endpoint.running_requests(), endpoint.open_links()), (0, idle));
        assert_eq!((cluster.waiters(), cluster.has_waiters(), cluster.is_queue_eager()), (0, false, false));
        assert!(
            self.shards.iter().all(|shard| shard.core.waiters.is_empty() && shard.core.stirred.is_empty())
        );
    }
}

/// The faults that cost time only, and messages that get lost.
fn plans(seed: u64) -> FaultPlan {
    let plan = FaultPlan::calm(seed);
    match seed % 4 {
        0 => plan,
        1 => plan.with(Fault::PostFails, ALWAYS / 3),
        2 => plan.with(Fault::LateCompletion, ALWAYS / 3).with(Fault::CancelLate, ALWAYS / 3),
        _ => plan
            .with(Fault::QueueFull, ALWAYS / 3)
            .with(Fault::Latency, ALWAYS / 8)
            .with(Fault::PostFails, ALWAYS / 8),
    }
}

/// The test of the card: eight shards, three connections, two hundred clients of three requests each.
#[test]
fn a_limit_of_links_over_eight_shards() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut crowd = Crowd::new(8, plans(seed), |c| {
            c.endpoints[0].max_connections = 3;
            c.timeouts.queue = seconds(100);
        });
        crowd.io.world.answer = Answer::Script(vec![wait(millis(2)), say(OK)]);
        let all = crowd.clients(200, &[say(GET.repeat(3))]);
        crowd.run_until("all are served", |crowd| crowd.sum(|stats| stats.responses.get()) == 600);
        crowd.run_for(millis(50));
        for client in all {
            assert_eq!(crowd.statuses(client), [200; 3]);
        }
        assert_eq!(
            (crowd.refusals(), crowd.most_links),
            (vec![], 3),
            "the limit is reached and not exceeded"
        );
        if seed % 4 == 0 {
            // Without delays the origin sees the end of one connection before the beginning of the next.
            assert_eq!(crowd.most_connections, 3);
        }
        let connects = crowd.sum(|stats| stats.connects.get());
        println!("{connects} connects for 600 requests");
        assert!(connects < 400, "{connects} connects for 600 requests: links are not reused at the limit");
        crowd.check();
    }
}

/// The same with running requests as the limit: links are plenty.
#[test]
fn a_limit_of_requests_over_shards() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut crowd = Crowd::new(4, plans(seed), |c| {
            c.endpoints[0].max_requests = 2;
            c.timeouts.queue = seconds(100);
        });
        crowd.io.world.answer = Answer::Script(vec![wait(millis(2)), say(OK)]);
        let all = crowd.clients(100, &[say(GET)]);
        crowd.run_until("all are served", |crowd| crowd.sum(|stats| stats.responses.get()) == 100);
        crowd.run_for(millis(50));
        assert!(all.into_iter().all(|client| crowd.statuses(client) == [200]));
        assert_eq!(crowd.refusals(), []);
        crowd.check();
    }
}

/// A request does not wait while another shard holds an idle link: that one is closed for it, at once.
#[test]
fn an_idle_link_of_another_shard_is_given_up() {
    let mut crowd = Crowd::new(8, FaultPlan::calm(3), |c| {
        c.endpoints[0].max_connections = 1;
        c.timeouts.queue = seconds(100);
    });
    for n in 1..=40 {
        let began = crowd.now();
        let client = crowd.clients(1, &[say(GET)])[0];
        crowd.run_until("it is served", |crowd| crowd.sum(|stats| stats.responses.get()) == n);
        let took = crowd.now().since(began);
        assert!(took < 5_000_000, "request {n} waited {took} ns");
        crowd.run_for(millis(1));
        assert_eq!((crowd.statuses(client), crowd.most_links), (vec![200], 1));
    }
    assert!(crowd.sum(|stats| stats.queue_waits.get()) > 10, "other shards had the link");
    crowd.check();
}

/// One shard has nearly all the clients: those of the others do not wait behind all of them.
#[test]
fn no_shard_is_starved() {
    let mut crowd = Crowd::new(2, FaultPlan::calm(1), |c| {
        c.endpoints[0].max_connections = 1;
        c.timeouts.queue = seconds(100);
    });
    crowd.io.world.answer = Answer::Script(vec![wait(millis(10)), say(OK)]);
    // Whose client is whose is the network's choice: told apart by who waits where.
    let all = crowd.clients(120, &[say(GET)]);
    crowd.run_until("all have asked", |crowd| crowd.sum(|stats| stats.requests.get()) == 120);
    let waiting = |crowd: &Crowd| crowd.shards.iter().map(|s| s.core.waiters.len()).collect::<Vec<_>>();
    let mut before = waiting(&crowd);
    assert!(before.iter().all(|n| *n > 20), "{before:?}");
    // In every eighty answers each shard has its share.
    for round in 1..=2 {
        crowd.run_until("forty more", |crowd| crowd.sum(|stats| stats.responses.get()) >= 40 * round);
        let now = waiting(&crowd);
        for (before, now) in before.iter().zip(&now) {
            assert!(before - now >= 12, "round {round}: {before} and then {now} wait");
        }
        before = now;
    }
    crowd.run_until("all are served", |crowd| crowd.sum(|stats| stats.responses.get()) == 120);
    crowd.run_for(millis(50));
    assert!(all.into_iter().all(|client| crowd.statuses(client) == [200]));
    crowd.check();
}

/// The queue's bound is the node's, and so is a place in it that a timeout frees.
#[test]
fn the_bound_of_the_queue_holds_over_shards() {
    let mut crowd = Crowd::new(4, FaultPlan::calm(1), |c| {
        c.endpoints[0].max_requests = 1;
        c.timeouts.queue = seconds(1);
        c.max_queued = 10;
    });
    crowd.io.world.answer = Answer::Script(vec![wait(seconds(3)), say(OK)]);
    crowd.clients(40, &[say(GET)]);
    crowd.run_until("all others were told", |crowd| {
        crowd.refusals().iter().map(|(_, n)| n).sum::<u64>() == 39
    });
    crowd.run_for(seconds(4));
    assert_eq!(crowd.refusals(), [("queue_full", 29), ("queue_timeout", 10)]);
    crowd.run_for(millis(50));
    crowd.check();
}

/// A shard that goes away takes its waiters along and leaves the others theirs.
#[test]
fn a_shard_that_drains_leaves_the_turn_to_others() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut crowd = Crowd::new(3, plans(seed), |c| {
            c.endpoints[0].max_connections = 1;
            c.timeouts.queue = seconds(100);
        });
        crowd.io.world.answer = Answer::Script(vec![wait(millis(10)), say(OK)]);
        let all = crowd.clients(60, &[say(GET)]);
        crowd.run_until("all have asked", |crowd| crowd.sum(|stats| stats.requests.get()) == 60);
        crowd.io.select(0);
        let now = crowd.now();
        // At once: all its conns are cut.
        drain::begin(&mut crowd.shards[0], &mut crowd.io, now);
        let rest = |crowd: &Crowd| {
            all.iter().all(|client| {
                crowd.io.world.ends[*client].ended().is_some()
                    || !crowd.io.world.ends[*client].received.is_empty()
            })
        };
        crowd.run_until("everybody was answered or cut", rest);
        crowd.run_for(millis(50));
        let served = all.iter().filter(|client| crowd.statuses(**client) == [200]).count();
        assert!((20..60).contains(&served), "{served}");
        assert_eq!((crowd.refusals(), crowd.most_links), (vec![], 1));
        crowd.check();
    }
}

/// One connection after the other, each to whichever shard the network leads it: all shards together take exact turns.
#[test]
fn three_hundred_serial_connections_are_a_hundred_for_each_of_three_endpoints() {
    for balance in ["round_robin", "least_connections"] {
        let mut crowd = Crowd::new(8, FaultPlan::calm(1), |cluster| {
            let endpoint = |n: u16| Endpoint::new(EndpointId(n), &format!("e{n}"), origin_at(n).into());
            cluster.endpoints = (0..3).map(endpoint).collect();
            cluster.host = HostPolicy::Endpoint;
            cluster.balance = balance;
        });
        for n in 1..3 {
            crowd.io.net.listen(origin_at(n), 1024, sim::Owner::Actor(0));
        }
        for n in 0..300 {
            let client =
                crowd.clients(1, &[say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")])[0];
            crowd.run_until("the answer", |crowd| crowd.statuses(client) == [200]);
            assert_eq!(crowd.io.world.requests.len(), n + 1);
        }
        let to = |n: u16| {
            let host = Some(origin_at(n).to_string());
            let requests = crowd.io.world.requests.iter();
            requests.filter(|(_, message)| message.field("host") == host.as_deref()).count()
        };
        assert_eq!([0, 1, 2].map(to), [100; 3], "{balance}");
        let used = crowd.stats.iter().filter(|stats| stats.requests.get() > 0).count();
        assert_eq!(used, 8, "every shard had some");
    }
}

/// Eight shards before an origin that failed: half-open, with clients on all of them, exactly one request reaches it.
#[test]
fn one_trial_of_eight_shards() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut crowd = Crowd::new(8, plans(seed), |c| {
            c.circuit_breaker = Some(dataplane::spec::CircuitBreaker {
                of: dataplane::spec::BreakerOf::Endpoint,
                failure_threshold: 5,
                recovery_timeout: seconds(3),
                trial_timeout: seconds(100),
                failure_status: dataplane::spec::Statuses::SERVER_ERRORS,
            });
        });
        let broken = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        crowd.io.world.answer = Answer::Script(vec![say(broken)]);
        for n in 1..=40 {
            crowd.clients(1, &[say(GET)]);
            crowd.run_until("it is answered", |crowd| crowd.sum(|stats| stats.responses.get()) == n);
        }
        let asked = crowd.io.world.requests.len();
        assert_eq!((asked, crowd.refusals()), (5, vec![("circuit_open", 35)]));
        crowd.run_for(seconds(4));
        crowd.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
        crowd.clients(100, &[say(GET)]);
        crowd.run_for(seconds(4));
        assert_eq!((crowd.io.world.requests.len(), crowd.refusals()), (6, vec![("circuit_open", 134)]));
        crowd.run_for(seconds(4));
        crowd.io.world.answer = Answer::Ok;
        let late = crowd.clients(50, &[say(GET)]);
        crowd.run_for(seconds(1));
        assert!(late.into_iter().all(|client| crowd.statuses(client) == [200]));
        crowd.check();
    }
}
