//! Whole shards under seeded misfortune: every seed must keep every invariant, and every planted bug must be found.
//!
//! `SIM_SEED=n` replays one seed with its trace printed; `SIM_SEEDS=n` sweeps that many, `SIM_FIRST=n` from there on.

#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a sweep over threads that prints what it met; no shard's state is shared"
)]

use dataplane::sim::{Options, Report, Sabotage, run};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Seeds of the ordinary run.
const SEEDS: u64 = 256;
const THREADS: usize = 2;

/// A number from the environment, decimal or 0x hexadecimal.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs seeds on a few threads until one of them says that it is enough.
fn sweep(first: u64, count: u64, options: Options, each: impl Fn(Report) -> bool + Sync) {
    let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !enough.load(Relaxed) {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if each(run(seed, options)) {
                        enough.store(true, Relaxed);
                    }
                }
            });
        }
    });
}

fn describe(report: &Report) -> String {
    let Report { seed, hash, events, last_events, violations, .. } = report;
    let violations = violations.join("\n  ");
    format!(
        "seed {seed} (trace {hash:016x}, {events} events) failed:\n  {violations}\nlast events:\n{last_events}\
         replay it: SIM_SEED={seed} cargo test -p dataplane --test simulation -- --nocapture"
    )
}

/// Everything that can be met was met at least once.
fn assert_covered(tally: &BTreeMap<String, u64>) {
    let missing: Vec<_> = tally.iter().filter(|(name, n)| **n == 0 && !is_beyond(name)).collect();
    assert!(missing.is_empty(), "never reached in the whole sweep: {missing:?}");
}

/// What this workload cannot reach, each with the place that tests it instead.
fn is_beyond(name: &str) -> bool {
    BEYOND.iter().any(|(beyond, _)| *beyond == name)
}

const BEYOND: &[(&str, &str)] = &[
    ("close dead_origin", "the same"),
    ("close dead_peer", "nobody vanishes in the simulator: control/tests/e2e/dead_peer.rs"),
    ("close killed", "an operator's act: tests/http1_shard/listing.rs"),
    ("close moved", "an upgrade: tests/http1_shard/moving.rs"),
    ("close internal", "a bug of ours; the run fails when it happens"),
    (
        "close proxy_peer_not_allowed",
        "a listener has one list of networks: the proxy cases of tests/http1_shard",
    ),
    ("refusal body_truncated", "the client has left: there is nobody to answer"),
    ("refusal request_head_too_large_to_forward", "the largest head fits a large lease by assertion"),
    ("exchange Aborted Aborted", "both halves end in one step, before the turn does"),
    ("exchange Aborted Head", "a head is written in the step that reads it"),
    ("exchange Body Head", "a head is written in the step that reads it"),
    ("exchange Done Head", "a head is written in the step that reads it"),
    ("exchange Aborted Waiting", "a request given up is answered in the same step"),
    ("exchange Aborted Body", "a cut request cuts its response in the same step"),
    ("exchange Body Aborted", "a cut response gives the request up in the same step"),
    ("exchange Drain Aborted", "a cut response gives the request up in the same step"),
    ("exchange Head Aborted", "a cut response gives the request up in the same step"),
];

#[test]
fn every_seed_keeps_every_invariant() {
    if let Some(seed) = number("SIM_SEED") {
        let report = run(seed, Options { live: true, ..Options::default() });
        println!("seed {seed}: trace {:016x}, {} events", report.hash, report.events);
        println!("{:#?}", report.tally);
        assert!(report.violations.is_empty(), "{}", describe(&report));
        return;
    }
    let (first, count) = (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let sum = std::sync::Mutex::new((BTreeMap::<String, u64>::new(), Vec::new(), 0));
    sweep(first, count, Options::default(), |report| {
        assert!(report.connections >= 200, "seed {}: {} connections", report.seed, report.connections);
        assert!(report.exchanges >= 1000, "seed {}: {} exchanges", report.seed, report.exchanges);
        let mut sum = sum.lock().unwrap();
        for (name, n) in &report.tally {
            *sum.0.entry(name.clone()).or_default() += n;
        }
        sum.2 += report.exchanges;
        if !report.violations.is_empty() {
            sum.1.push(describe(&report));
        }
        sum.1.len() >= 3
    });
    let (tally, failures, exchanges) = sum.into_inner().unwrap();
    println!("{count} seeds from {first}, {exchanges} exchanges");
    for (name, n) in &tally {
        println!("{n:>9}  {name}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if count >= SEEDS {
        assert_covered(&tally);
    }
}

#[test]
fn a_seed_replays_to_the_same_hash() {
    for seed in [1, 6] {
        let (one, other) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!((one.hash, one.events, one.tally), (other.hash, other.events, other.tally), "seed {seed}");
    }
}

/// Plants one bug and demands that some seed of the ordinary run finds it.
fn assert_found(sabotage: Sabotage) {
    assert_found_as(sabotage, "");
}

/// And says so in a violation that has these words.
fn assert_found_as(sabotage: Sabotage, words: &str) {
    let found = std::sync::Mutex::new(Vec::new());
    let struck = AtomicU64::new(0);
    sweep(0, SEEDS, Options { sabotage: Some(sabotage), live: false }, |report| {
        struck.fetch_add(report.sabotaged, Relaxed);
        let said = report.violations.iter().find(|violation| violation.contains(words));
        if let Some(said) = said.filter(|_| report.sabotaged > 0) {
            found.lock().unwrap().push((report.seed, said.clone()));
        }
        said.is_some()
    });
    let found = found.into_inner().unwrap();
    assert!(!found.is_empty(), "{sabotage:?} struck {struck:?} times in {SEEDS} seeds and nobody noticed");
    println!("{sabotage:?}: seed {} said {:.200}", found[0].0, found[0].1);
}

#[test]
fn a_missing_in_flight_bit_is_found() {
    assert_found(Sabotage::MissingInFlightBit);
}
#[test]
fn a_buffer_returned_twice_is_found() {
    assert_found(Sabotage::BufferTwice);
}
#[test]
fn a_stale_completion_honoured_is_found() {
    assert_found(Sabotage::StaleCompletion);
}
#[test]
fn a_lost_fin_on_an_idle_link_is_found() {
    assert_found(Sabotage::LostIdleFin);
}
#[test]
fn a_request_sent_twice_is_found() {
    assert_found_as(Sabotage::ForgottenWrite, "it is a POST and came 2 times");
}
#[test]
fn a_lost_message_is_found() {
    assert_found(Sabotage::LostMessage);
}
