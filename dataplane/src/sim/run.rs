//! One seed: one or more whole shards between the peers of a workload, from its first accept to nothing left.

use super::churn::Churn;
use super::conditions::Conditions;
use super::faults::{Fault, FaultPlan};
use super::io::SimIo;
use super::sabotage::Sabotage;
use super::setup::{self, Drawn};
use super::workload::Workload;
use crate::buf::Class;
use crate::cluster::shared::SharedEndpoint;
use crate::conn;
use crate::core::{Setup, Shared};
use crate::exchange::{Down, Up, is_possible};
use crate::fault::{CLOSE_REASONS, CloseReason, REFUSALS};
use crate::io::{Completion, Fd, Io, Kind, Message, Mono, Outcome, SocketAddress, SocketOption};
use crate::limits;
use crate::link;
use crate::route::RouteTable;
use crate::shard::swap::{self, Swap};
use crate::shard::{Shard, Turn, drain};
use crate::spec::{ClusterId, ListenerId};
use crate::stats::access_log;
use crate::stats::retries::Retried;
use crate::stats::{Counter, Stats};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Every conversation is over by then, or something hangs.
const LAST_CALL: Duration = Duration::from_secs(240);
/// And after this much more nothing is left of them.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Turns between two looks at the whole state.
const LOOK_EVERY: u64 = 32;
/// A shard that turns more often than this does not wait.
const MOST_TURNS: u64 = 4_000_000;

/// What is switched on for a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub sabotage: Option<Sabotage>,
    /// Prints every event as it comes.
    pub live: bool,
}

/// What one seed came to.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub hash: u64,
    pub events: u64,
    pub connections: u64,
    pub exchanges: usize,
    /// Empty when all was well.
    pub violations: Vec<String>,
    pub last_events: String,
    pub sabotaged: u64,
    /// Faults, close reasons, refusals, outcomes and phases, each with how often it was met.
    pub tally: BTreeMap<String, u64>,
}

struct Run {
    io: SimIo<Workload>,
    members: Vec<Member>,
    shared: Arc<Shared>,
    churn: Option<Churn>,
    conditions: Conditions,
    drawn: Drawn,
    tally: BTreeMap<String, u64>,
    seen: Seen,
    violations: Vec<String>,
}

/// One of the shards.
struct Member {
    shard: Shard,
    stats: Arc<Stats>,
    // Kept so that the shard's log has a reader.
    _log: access_log::LogReader,
    drain_at: Mono,
    /// Clusters whose links and waiters it is to look at.
    looks: BTreeSet<ClusterId>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Its turns are over; the kernel still holds something of it.
    Ended,
    /// Its ring is closed.
    Gone,
}

/// The faults of a seed: some are calm, some cost time only, most may break anything.
fn plan(seed: u64) -> FaultPlan {
    match seed % 8 {
        0 => FaultPlan::calm(seed),
        1 | 2 => FaultPlan::gentle(seed),
        _ => FaultPlan::swarm(seed),
    }
}

/// Runs one seed. A panic of the shard is a finding like any other.
pub fn run(seed: u64, options: Options) -> Report {
    let mut run = Run::new(seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| run.play()));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()));
        run.violations.push(format!("panic: {}", text.unwrap_or_default()));
    }
    run.report(seed)
}

impl Run {
    fn new(seed: u64, options: Options) -> Self {
        let drawn = setup::draw(seed);
        let addresses @ [http, tcp] = setup::listen_addresses();
        let mut io = SimIo::with_world(plan(seed), Workload::new(seed, http, tcp))
            .with_shards(drawn.snapshot.runtime.shards);
        io.trace.live = options.live;
        io.sabotage = options.sabotage;
        io.limit_pipes(drawn.pipes);
        let snapshot = Arc::new(drawn.snapshot.clone());
        let shared = Arc::new(Shared::new(&snapshot));
        let routes = Arc::new(RouteTable::of(&snapshot));
        let member = |shard: u16| {
            let (log, reader) = access_log::ring();
            let stats = Arc::new(Stats::default());
            let setup = Setup {
                shard,
                routes: routes.clone(),
                shared: shared.clone(),
                snapshot: snapshot.clone(),
                stats: stats.clone(),
                log,
                pool: drawn.pool,
                seed: seed ^ u64::from(shard) << 48,
                process_tag: 7,
            };
            let accepts = shard == 0 || !drawn.one_accepts;
            let numbered = (0..).map(ListenerId).zip(addresses).filter(|_| accepts);
            let sockets: Vec<_> = numbered.map(|(id, at)| (id, listen(&mut io, at), at)).collect();
            let mut shard = Shard::new(setup, &sockets, io.clock());
            shard.core.park_after = drawn.park_after;
            Member {
                shard,
                stats,
                _log: reader,
                drain_at: Mono::MAX,
                looks: BTreeSet::new(),
                phase: Phase::Serving,
            }
        };
        let members = (0..snapshot.runtime.shards).map(member).collect();
        let first = Swap {
            snapshot: snapshot.clone(),
            routes,
            shared: shared.clone(),
            sockets: None,
            drains: Arc::default(),
        };
        let churn = drawn.churn.map(|may_empty| Churn::new(seed, first, may_empty));
        Self {
            io,
            members,
            conditions: Conditions::new(seed, drawn.fickle, &snapshot, &shared),
            shared,
            churn,
            drawn,
            tally: BTreeMap::new(),
            seen: Seen::default(),
            violations: Vec::new(),
        }
    }
    fn play(&mut self) {
        self.io.world.ledger.dry = self.drawn.pool.small < 100;
        let listener = self.drawn.snapshot.listeners[0].as_ref();
        self.io.world.ledger.proxied = listener.and_then(|l| l.proxy_protocol.as_ref()).map(|p| p.required);
        self.io.world.ledger.flow_rules = self.drawn.flow_rules;
        let cluster = self.drawn.snapshot.clusters[0].as_ref();
        self.io.world.ledger.announced = cluster.is_some_and(|c| c.send_proxy.is_some());
        let retry = cluster.and_then(|c| c.retry.as_ref());
        // The first, those that follow it or the one that replaces a stale connection, and a hedge.
        let hedge = retry.is_some_and(|r| r.hedge_after.is_some());
        self.io.world.ledger.most_copies =
            1 + retry.map_or(1, |r| u32::from(r.attempts).max(1)) + u32::from(hedge);
        self.io.world.begin(&mut self.io.net);
        for (member, at) in self.members.iter_mut().zip(0..) {
            self.io.select(at);
            member.shard.start(&mut self.io);
        }
        let begin = self.io.clock().mono;
        if let Some(after) = self.drawn.drain_after {
            self.drain_from(begin.after(after));
        }
        let last_call = begin.after(LAST_CALL);
        let strict = !self.io.net.faults.disrupts() && !self.drawn.scarce;
        while !self.io.world.is_over() && self.io.clock().mono < last_call && !self.is_over() {
            self.turn(last_call);
        }
        self.io.net.faults.calm_down();
        while self.is_over() && !self.io.world.is_over() && self.io.clock().mono < last_call {
            // Nobody listens any more; the peers find out by themselves.
            self.io.pass(self.io.clock().mono.after(Duration::from_secs(1)));
        }
        let now = self.io.clock().mono;
        self.io.world.ledger.mortal = self.drawn.mortal;
        self.io.world.judge(strict, now);
        let last = now.after(AFTERMATH);
        while !self.is_empty() && self.io.clock().mono < last && !self.is_over() {
            self.turn(last);
        }
        self.check_quiesced();
        let Self { io, members, drawn, .. } = self;
        io.world.ledger.judge_openings(!strict || drawn.mortal, |reason| {
            members.iter().map(|member| member.stats.close(reason).get()).sum()
        });
        self.drain_from(self.io.clock().mono);
        let last = self.io.clock().mono.after(AFTERMATH);
        while !self.is_over() && self.io.clock().mono < last {
            self.turn(last);
        }
        self.check_ended();
    }
    /// Tells every shard to drain, the first now, the others when they look into their mailboxes.
    fn drain_from(&mut self, at: Mono) {
        if let Some(churn) = &mut self.churn {
            churn.stop();
        }
        for (n, member) in self.members.iter_mut().enumerate() {
            let later = if n == 0 { 0 } else { self.io.net.faults.random().below(20_000_000) };
            member.drain_at = member.drain_at.min(Mono(at.0 + later));
        }
    }
    /// All shards' rings are closed.
    fn is_over(&self) -> bool {
        self.members.iter().all(|m| m.phase == Phase::Gone)
    }
    /// One turn of one shard.
    fn turn(&mut self, until: Mono) {
        assert!(self.io.turns < MOST_TURNS, "{MOST_TURNS} turns: the shards do not wait");
        let alone = self.members.len() == 1;
        let Some(at) = (if alone { Some(0) } else { self.io.next_shard(until) }) else { return };
        let now = self.io.clock().mono;
        if let Some(cluster) = self.conditions.tick(now) {
            self.members.iter_mut().for_each(|member| _ = member.looks.insert(cluster));
        }
        let member = &mut self.members[usize::from(at)];
        if member.phase == Phase::Ended {
            // As the plane does when a shard has ended: turns until the kernel holds nothing.
            let (pool, mut out) = (&mut member.shard.core.pool, Vec::new());
            self.io.turn(pool, now.after(Duration::from_millis(10)), &mut out).expect("the simulator turns");
            // Nobody waits here any more, of whom another shard may yet tell.
            let is_late_word = |c: &Completion| {
                matches!(c.outcome, Outcome::Message(Message::Place { .. } | Message::Wanted { .. }))
            };
            let expected = out.iter().all(|c| c.token.kind() == Kind::ListenerClose || is_late_word(c));
            assert!(expected, "completions after the shard ended: {out:?}");
            if self.io.in_flight() == 0 && self.io.unseen() == 0 {
                self.io.leave();
                member.phase = Phase::Gone;
            }
            return;
        }
        if let Some(churn) = &mut self.churn {
            if let Some(mut swap) = churn.due(at, now) {
                swap::begin(&mut member.shard.core, &mut self.io, &mut swap);
            }
            if churn.tick(now) {
                self.shared = churn.shared();
            }
        }
        if now >= member.drain_at {
            member.drain_at = Mono::MAX;
            let by = now.after(self.drawn.snapshot.runtime.drain_timeout);
            drain::begin(&mut member.shard, &mut self.io, by);
        }
        for cluster in std::mem::take(&mut member.looks) {
            conn::queue::on_change(&mut member.shard.core, &mut self.io, cluster);
        }
        if member.shard.turn(&mut self.io).expect("the simulator turns") == Turn::Ended {
            member.phase = Phase::Ended;
        }
        if self.io.turns.is_multiple_of(LOOK_EVERY) {
            self.look(usize::from(at));
        }
    }
    /// The invariants that hold between any two turns, and which phases were met.
    fn look(&mut self, at: usize) {
        let core = &self.members[at].shard.core;
        for (_, conn) in core.conns.iter() {
            self.seen.conns |= 1 << conn.phase() as u32;
        }
        for (_, link) in core.links.iter() {
            self.seen.links |= 1 << link.phase() as u32;
        }
        for (_, exchange) in core.exchanges.iter() {
            self.seen.pairs[exchange.up() as usize] |= 1 << exchange.down() as u32;
            self.seen.bulk |= u32::from(exchange.up_bulk.has_begun()) << BULK_UP;
            self.seen.bulk |= u32::from(exchange.down_bulk.has_begun()) << BULK_DOWN;
        }
        for bulk in core.tunnels.iter().flat_map(|(_, tunnel)| &tunnel.bulk) {
            self.seen.bulk |= u32::from(bulk.is_promoted() && bulk.has_begun()) << BULK_TUNNEL;
            self.seen.bulk |= u32::from(!bulk.is_promoted() && bulk.has_begun()) << BULK_DEMOTED;
        }
        let streams =
            core.conns.iter().map(|(_, c)| &c.stream).chain(core.links.iter().map(|(_, l)| &l.stream));
        let mut bits = 0;
        for stream in streams {
            let open = [stream.is_receiving(), stream.is_sending(), stream.is_connecting()];
            let n = open.iter().filter(|b| **b).count();
            // Nothing of those and not quiet: it is closing.
            bits += if n == 0 && !stream.is_quiet() { 1 } else { n };
        }
        let others = self.io.in_flight_of_listeners();
        let kernel = self.io.in_flight();
        assert!(
            bits + others == kernel,
            "{bits} bits are set, {others} of listeners, and {kernel} are in flight"
        );
    }
    fn is_empty(&self) -> bool {
        self.members.iter().all(|m| m.shard.core.conns.is_empty() && m.shard.core.links.is_empty())
            && (0..self.drawn.snapshot.runtime.shards).all(|shard| self.shared.loads.get(shard) == 0)
    }
    /// What all shards counted together.
    fn count(&self, counter: impl Fn(&Stats) -> &Counter) -> u64 {
        self.members.iter().map(|m| counter(&m.stats).get()).sum()
    }
    /// Everyone has left: every buffer, slot and count is where it was at the start.
    fn check_quiesced(&mut self) {
        let mut wrong = Vec::new();
        for (at, member) in (0u16..).zip(&self.members) {
            let core = &member.shard.core;
            for class in Class::ALL {
                let pool = &core.pool;
                let (leased, lent) = (pool.leased(class), pool.lent(class));
                if (leased, lent, pool.free(class)) != (0, 0, pool.total(class)) {
                    wrong.push(format!(
                        "{leased} {class:?} buffers are leased and {lent} lent, and nobody is there"
                    ));
                }
            }
            let exchanges = core.exchanges.len() + core.besides.len();
            let left = [core.conns.len(), core.links.len(), exchanges, core.tunnels.len()];
            if left != [0; 4] {
                self.io.select(at);
                let tokens = self.io.in_flight_tokens();
                wrong.push(format!(
                    "{left:?} conns, links, exchanges, tunnels are left; in flight: {tokens:?}"
                ));
            }
            let (posts, load) = (core.posts.len(), self.shared.loads.get(at));
            if (posts, load) != (0, 0) {
                wrong.push(format!("{posts} posts are left, and a load of {load}, and nobody is there"));
            }
        }
        for cluster in self.shared.clusters.iter().flatten() {
            let sum = |count: fn(&SharedEndpoint) -> u32| cluster.endpoints().map(count).sum::<u32>();
            let left = [
                sum(SharedEndpoint::open_links),
                sum(SharedEndpoint::running_requests),
                cluster.idle_links(),
                cluster.waiters(),
            ];
            if left != [0; 4] {
                wrong.push(format!(
                    "{left:?} links, requests, idle links, waiters are counted, and nobody is there"
                ));
            }
        }
        let closes: u64 = CLOSE_REASONS.iter().map(|row| self.count(|s| s.close(row.0))).sum();
        let accepted = self.count(|s| &s.accepted);
        if closes != accepted {
            wrong.push(format!("{accepted} connections were accepted and {closes} ended with a reason"));
        }
        if self.io.pipes_out() != 0 {
            wrong.push(format!("{} pipes are out, and nobody is there", self.io.pipes_out()));
        }
        for (what, n) in [
            ("internal close reasons", self.count(|s| s.close(CloseReason::Internal))),
            ("stale completions", self.count(|s| &s.stale_completions)),
        ] {
            if n != 0 {
                wrong.push(format!("{n} {what}"));
            }
        }
        self.violations.extend(wrong);
    }
    fn check_ended(&mut self) {
        let open = self.io.open_descriptors();
        for at in 0..self.drawn.snapshot.runtime.shards {
            let phase = self.members[usize::from(at)].phase;
            if phase != Phase::Gone || open != 0 {
                self.io.select(at);
                let tokens = self.io.in_flight_tokens();
                self.violations
                    .push(format!("shard {at}: {phase:?}, with {open} descriptors and {tokens:?} in flight"));
            }
        }
    }
    fn report(mut self, seed: u64) -> Report {
        let faults = Fault::ALL.into_iter().map(|f| (format!("fault {f:?}"), self.io.net.faults.count(f)));
        self.tally.extend(faults);
        for row in REFUSALS {
            self.tally.insert(format!("refusal {}", row.name), self.count(|s| s.refusal(row.refusal)));
        }
        for row in CLOSE_REASONS {
            self.tally.insert(format!("close {}", row.1), self.count(|s| s.close(row.0)));
        }
        for why in Retried::ALL {
            let n = self.count(|s| s.retried(why));
            self.tally.insert(format!("retried {}", why.name()), n);
        }
        for (what, n) in [
            ("hedges won", self.count(|s| &s.hedges_won)),
            ("parks", self.count(|s| &s.parks)),
            ("unparks", self.count(|s| &s.unparks)),
            ("spliced bytes", self.count(|s| &s.spliced_bytes)),
            ("handed to another shard", self.count(|s| &s.handed)),
            ("handed in vain", self.count(|s| &s.hand_failures)),
        ] {
            self.tally.insert(what.to_owned(), n);
        }
        self.tally.extend(self.seen.words());
        self.tally.extend(self.churn.iter().flat_map(Churn::words));
        self.tally.extend(Conditions::tally(&self.shared));
        self.tally.insert("last pipe lent".to_owned(), self.io.last_pipe_lent());
        let ledger = &mut self.io.world.ledger;
        for (what, n) in &ledger.tally {
            self.tally.insert(format!("outcome {what}"), *n);
        }
        self.violations.append(&mut ledger.violations);
        Report {
            seed,
            hash: self.io.trace.hash(),
            events: self.io.trace.events(),
            connections: ledger.connections,
            exchanges: ledger.sent(),
            violations: self.violations,
            last_events: self.io.trace.last(60),
            sabotaged: self.io.sabotaged,
            tally: self.tally,
        }
    }
}

fn listen(io: &mut SimIo<Workload>, address: SocketAddress) -> Fd {
    let open = |io: &mut SimIo<Workload>| {
        let fd = io.listener_socket();
        io.set_option(fd, SocketOption::ReusePort)?;
        io.bind(fd, &address.into())?;
        io.listen(fd, limits::LISTEN_BACKLOG)?;
        Ok::<Fd, crate::io::Errno>(fd)
    };
    open(io).expect("the first socket of a simulation")
}

/// Which phases were met between two turns, a bit each.
#[derive(Debug, Default)]
struct Seen {
    conns: u32,
    links: u32,
    /// By request half, then response half.
    pairs: [u32; Up::ALL.len()],
    /// Directions that were spliced.
    bulk: u32,
}

const BULK_UP: u32 = 0;
const BULK_DOWN: u32 = 1;
const BULK_TUNNEL: u32 = 2;
/// It was, and is copied again.
const BULK_DEMOTED: u32 = 3;

impl Seen {
    /// Every phase, and every possible pair of an exchange's halves, with 1 where it was met.
    fn words(&self) -> Vec<(String, u64)> {
        let bit = |bits: u32, n: u32| u64::from(bits >> n & 1);
        let conns = conn::Phase::ALL.into_iter().map(|p| (format!("conn {p:?}"), bit(self.conns, p as u32)));
        let links = link::Phase::ALL.into_iter().map(|p| (format!("link {p:?}"), bit(self.links, p as u32)));
        let pairs = Up::ALL.into_iter().flat_map(|up| Down::ALL.into_iter().map(move |down| (up, down)));
        let exchanges = pairs.filter(|(up, down)| is_possible(*up, *down)).map(|(up, down)| {
            (format!("exchange {up:?} {down:?}"), bit(self.pairs[up as usize], down as u32))
        });
        let bulk = [
            ("bulk up", BULK_UP),
            ("bulk down", BULK_DOWN),
            ("bulk tunnel", BULK_TUNNEL),
            ("bulk demoted", BULK_DEMOTED),
        ];
        let bulk = bulk.map(|(name, at)| (name.to_owned(), bit(self.bulk, at)));
        conns.chain(links).chain(exchanges).chain(bulk).collect()
    }
}
