//! One seed: a whole shard between the peers of a workload, from its first accept to nothing left.

use super::faults::{Fault, FaultPlan};
use super::io::SimIo;
use super::sabotage::Sabotage;
use super::setup::{self, Drawn};
use super::workload::Workload;
use crate::buf::Class;
use crate::conn;
use crate::core::{Setup, Shared};
use crate::exchange::{Down, Up, is_possible};
use crate::fault::{CLOSE_REASONS, CloseReason, REFUSALS};
use crate::io::{Fd, Io, Kind, Mono, SocketAddress, SocketOption};
use crate::limits;
use crate::link;
use crate::route::RouteTable;
use crate::shard::{Shard, Turn, drain};
use crate::spec::ListenerId;
use crate::stats::Stats;
use crate::stats::access_log;
use std::collections::BTreeMap;
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
    shard: Shard,
    stats: Arc<Stats>,
    drawn: Drawn,
    tally: BTreeMap<String, u64>,
    seen: Seen,
    violations: Vec<String>,
    // Kept so that the shard's log has a reader.
    _log: access_log::LogReader,
    ended: bool,
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
        let [http, tcp] = setup::listen_addresses();
        let mut io = SimIo::with_world(plan(seed), Workload::new(seed, http, tcp));
        io.trace.live = options.live;
        io.sabotage = options.sabotage;
        let listeners =
            [(ListenerId(0), http), (ListenerId(1), tcp)].map(|(id, at)| (id, listen(&mut io, at), at));
        io.limit_pipes(drawn.pipes);
        let snapshot = Arc::new(drawn.snapshot.clone());
        let (log, reader) = access_log::ring();
        let stats = Arc::new(Stats::default());
        let setup = Setup {
            shard: 0,
            routes: Arc::new(RouteTable::of(&snapshot)),
            shared: Arc::new(Shared::new(&snapshot)),
            snapshot,
            stats: stats.clone(),
            log,
            pool: drawn.pool,
            seed,
            process_tag: 7,
        };
        let mut shard = Shard::new(setup, &listeners, io.clock());
        shard.core.park_after = drawn.park_after;
        Self {
            io,
            shard,
            stats,
            drawn,
            tally: BTreeMap::new(),
            seen: Seen::default(),
            violations: Vec::new(),
            _log: reader,
            ended: false,
        }
    }
    fn play(&mut self) {
        self.io.world.ledger.dry = self.drawn.pool.small < 100;
        let listener = self.drawn.snapshot.listeners[0].as_ref();
        self.io.world.ledger.proxied = listener.and_then(|l| l.proxy_protocol.as_ref()).map(|p| p.required);
        let cluster = self.drawn.snapshot.clusters[0].as_ref();
        self.io.world.ledger.announced = cluster.is_some_and(|c| c.send_proxy.is_some());
        self.io.world.begin(&mut self.io.net);
        self.shard.start(&mut self.io);
        let begin = self.io.clock().mono;
        let mut drain_at = self.drawn.drain_after.map_or(Mono::MAX, |after| begin.after(after));
        let strict = !self.io.net.faults.disrupts() && !self.drawn.scarce;
        while !self.io.world.is_over() && self.io.clock().mono < begin.after(LAST_CALL) && !self.ended {
            if self.io.clock().mono >= drain_at {
                drain_at = Mono::MAX;
                self.drain();
            }
            self.turn();
        }
        self.io.net.faults.calm_down();
        if self.ended {
            // Nobody listens any more; the peers find out by themselves.
            self.let_peers_finish(begin.after(LAST_CALL));
        }
        let now = self.io.clock().mono;
        self.io.world.ledger.mortal = self.drawn.mortal;
        self.io.world.judge(strict, now);
        let last = now.after(AFTERMATH);
        while !self.is_empty() && self.io.clock().mono < last && !self.ended {
            self.turn();
        }
        self.check_quiesced();
        self.drain();
        let last = self.io.clock().mono.after(AFTERMATH);
        while !self.ended && self.io.clock().mono < last {
            self.turn();
        }
        self.let_kernel_finish();
        self.check_ended();
    }
    /// As the plane does when a shard has ended: turns until the kernel holds nothing.
    fn let_kernel_finish(&mut self) {
        let mut out = Vec::new();
        for _ in 0..100 {
            let until = self.io.clock().mono.after(Duration::from_millis(10));
            self.io.turn(&mut self.shard.core.pool, until, &mut out).expect("the simulator turns");
        }
        let expected = out.iter().all(|c| c.token.kind() == Kind::ListenerClose);
        assert!(expected, "completions after the shard ended: {out:?}");
    }
    fn let_peers_finish(&mut self, until: Mono) {
        while !self.io.world.is_over() && self.io.clock().mono < until {
            let next = self.io.clock().mono.after(Duration::from_secs(1));
            let mut out = Vec::new();
            self.io.turn(&mut self.shard.core.pool, next, &mut out).expect("the simulator turns");
            let expected = out.iter().all(|c| c.token.kind() == Kind::ListenerClose);
            assert!(expected, "completions after the shard ended: {out:?}");
        }
    }
    fn drain(&mut self) {
        let by = self.io.clock().mono.after(self.drawn.snapshot.runtime.drain_timeout);
        drain::begin(&mut self.shard, &mut self.io, by);
    }
    fn turn(&mut self) {
        assert!(self.io.turns < MOST_TURNS, "{MOST_TURNS} turns: the shard does not wait");
        self.ended = self.shard.turn(&mut self.io).expect("the simulator turns") == Turn::Ended;
        if self.io.turns.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
    }
    /// The invariants that hold between any two turns, and which phases were met.
    fn look(&mut self) {
        let core = &self.shard.core;
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
        let core = &self.shard.core;
        core.conns.is_empty() && core.links.is_empty()
    }
    /// Everyone has left: every buffer, slot and count is where it was at the start.
    fn check_quiesced(&mut self) {
        let core = &self.shard.core;
        let mut wrong = Vec::new();
        for class in Class::ALL {
            let pool = &core.pool;
            let (leased, lent) = (pool.leased(class), pool.lent(class));
            if (leased, lent, pool.free(class)) != (0, 0, pool.total(class)) {
                wrong.push(format!(
                    "{leased} {class:?} buffers are leased and {lent} lent, and nobody is there"
                ));
            }
        }
        let left = [core.conns.len(), core.links.len(), core.exchanges.len(), core.tunnels.len()];
        if left != [0; 4] {
            let tokens = self.io.in_flight_tokens();
            wrong.push(format!("{left:?} conns, links, exchanges, tunnels are left; in flight: {tokens:?}"));
        }
        let closes: u64 = CLOSE_REASONS.iter().map(|row| self.stats.close(row.0).get()).sum();
        let accepted = self.stats.accepted.get();
        if closes != accepted {
            wrong.push(format!("{accepted} connections were accepted and {closes} ended with a reason"));
        }
        if self.io.pipes_out() != 0 {
            wrong.push(format!("{} pipes are out, and nobody is there", self.io.pipes_out()));
        }
        for (what, n) in [
            ("internal close reasons", self.stats.close(CloseReason::Internal).get()),
            ("stale completions", self.stats.stale_completions.get()),
        ] {
            if n != 0 {
                wrong.push(format!("{n} {what}"));
            }
        }
        self.violations.extend(wrong);
    }
    fn check_ended(&mut self) {
        let (flying, open) = (self.io.in_flight(), self.io.open_descriptors());
        if !self.ended || flying != 0 || open != 0 {
            let tokens = self.io.in_flight_tokens();
            let ended = self.ended;
            self.violations
                .push(format!("drained: {ended}, with {open} descriptors and {tokens:?} in flight"));
        }
    }
    fn report(mut self, seed: u64) -> Report {
        let faults = Fault::ALL.into_iter().map(|f| (format!("fault {f:?}"), self.io.net.faults.count(f)));
        self.tally.extend(faults);
        for row in REFUSALS {
            self.tally.insert(format!("refusal {}", row.name), self.stats.refusal(row.refusal).get());
        }
        for row in CLOSE_REASONS {
            self.tally.insert(format!("close {}", row.1), self.stats.close(row.0).get());
        }
        self.tally.insert("parks".to_owned(), self.stats.parks.get());
        self.tally.insert("unparks".to_owned(), self.stats.unparks.get());
        self.tally.extend(self.seen.words());
        self.tally.insert("spliced bytes".to_owned(), self.stats.spliced_bytes.get());
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
        io.bind(fd, &address)?;
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
