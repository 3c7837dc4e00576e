//! One case: its peers there and back, round by round, one record for each run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context;

use super::child::check_stop;
use super::generator::{self, Generator, Load, Outcome};
use super::idle::{self, Ask};
use super::machine::Cpus;
use super::peer::{Peer, Settings};
use super::probe::Cost;
use super::record::{Journal, Record, Run};
use super::report::figure;
use super::say;
use super::scenario::{Case, REFERENCE, Work};

/// How long and how often.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    pub(super) warm_up: f64,
    pub(super) idle_seconds: f64,
    /// Rivals that no gate of a case names stay away from it.
    pub(super) gated_only: bool,
    pub(super) generator: Generator,
    pub(super) cpus: Cpus,
    pub(super) files: u64,
}

type Metrics = BTreeMap<String, f64>;

pub(super) fn run(
    case: &Case,
    peers: &[Peer],
    plan: &Plan,
    origin: SocketAddr,
    journal: &mut Journal,
) -> anyhow::Result<()> {
    let takes_part = |p: &&Peer| {
        p.name == "baseline" || case.peers.contains(&p.name) && (!plan.gated_only || case.is_gated(p.name))
    };
    let there: Vec<&Peer> = peers.iter().filter(takes_part).collect();
    let work = paced(case, plan, origin, peers, journal);
    let (clients, pool) = match &case.work {
        // A pool below the number of busy clients would measure connecting.
        Work::Load(load) | Work::Paced(load, _) | Work::Beside(load, _) | Work::Count(load) => {
            (load.connections.max(1024), load.connections.max(1024))
        }
        Work::Idle(clients) => (*clients, 1024),
    };
    let settings = Settings {
        protocol: case.protocol,
        origin,
        sources: "",
        cpus: plan.cpus,
        pool,
        clients,
        files: plan.files,
    };
    // A peer that failed once is not tried again: it would fail the same way for minutes.
    let mut failed: Vec<&str> = Vec::new();
    // Memory takes a minute for each peer and is not noise of the scheduler's kind: three rounds say all.
    let rounds = if matches!(case.work, Work::Idle(_)) { plan.rounds.min(3) } else { plan.rounds };
    for round in 0..rounds {
        let back = there.iter().rev().map(|peer| (1, peer));
        for (turn, peer) in there.iter().map(|peer| (0, peer)).chain(back) {
            check_stop()?;
            let once = matches!(case.work, Work::Idle(_) | Work::Count(_)) && turn == 1;
            if once || failed.contains(&peer.name) {
                continue;
            }
            let done = match &work {
                Ok(work) => measure(case, work, peer, plan, &settings),
                Err(why) => Err(anyhow::anyhow!("{why:#}")),
            };
            check_stop()?; // what failed because of the signal is no result
            let generator = generator_of(case, plan).to_owned();
            let (metrics, why) = match done {
                Ok(metrics) => (metrics, None),
                Err(e) => (Metrics::new(), Some(format!("{e:#}"))),
            };
            if why.is_some() {
                failed.push(peer.name);
            }
            progress(case, peer.name, round, &metrics, why.as_deref());
            let (scenario, case) = (case.scenario.to_owned(), case.name.to_owned());
            let peer = peer.name.to_owned();
            journal.push(Record::Run(Run {
                scenario,
                case,
                peer,
                round,
                turn,
                generator,
                failed: why,
                metrics,
            }))?;
        }
    }
    Ok(())
}

fn progress(case: &Case, peer: &str, round: u32, metrics: &Metrics, why: Option<&str>) {
    let shown = [
        "rps",
        "bytes_per_cpu_second",
        "cpu_us_per_request",
        "busy",
        "p99",
        "bytes_per_connection",
        "calls_per_request",
    ];
    let figures =
        shown.iter().filter_map(|m| Some(format!("{} {m}", figure(*metrics.get(*m).filter(|v| **v > 0.0)?))));
    let figures = why.map_or_else(|| figures.collect::<Vec<_>>().join(", "), |why| format!("absent: {why}"));
    say(&format!("{} {:6} round {round} {peer:20} {figures}", case.scenario, case.name));
}

fn generator_of(case: &Case, plan: &Plan) -> &'static str {
    match case.work {
        Work::Load(ref load) => load.generator(plan.generator).name(),
        Work::Paced(..) | Work::Beside(..) => Generator::Own.name(),
        Work::Count(_) => Generator::Wrk.name(),
        Work::Idle(_) => "in process",
    }
}

/// The work with its rate filled in: K4 is paced by the reference's best rate, from K1 or, without K1, found now.
fn paced(
    case: &Case,
    plan: &Plan,
    origin: SocketAddr,
    peers: &[Peer],
    journal: &Journal,
) -> anyhow::Result<Work> {
    let Work::Paced(load, share) = &case.work else { return Ok(case.work.clone()) };
    let best = journal.records.iter().filter_map(|record| match record {
        Record::Run(run) if run.scenario == "K1" && run.peer == REFERENCE => run.metric("rps"),
        Record::Run(_) | Record::Machine(_) | Record::Peer(_) => None,
    });
    let mut best = best.fold(0.0, f64::max);
    if best == 0.0 {
        let reference =
            peers.iter().find(|p| p.name == REFERENCE).context("its rate is a share of nginx's")?;
        let (protocol, pool, clients) = (case.protocol, 1024, 1024);
        let (cpus, files) = (plan.cpus, plan.files);
        let settings = Settings { protocol, origin, sources: "", cpus, pool, clients, files };
        let proxy = reference.start(&settings)?;
        let load = timed(load, plan);
        best = Generator::Wrk.run(&load, &proxy, plan.cpus)?.0.rps;
    }
    let rate = best * share;
    say(&format!("K4: {} requests per second, {share} of nginx's best", figure(rate)));
    Ok(Work::Paced(Load { rate: Some(rate), ..load.clone() }, *share))
}

fn timed(load: &Load, plan: &Plan) -> Load {
    Load { seconds: plan.seconds, warm_up: plan.warm_up, ..load.clone() }
}

/// Starts the peer, does the work, ends the peer.
fn measure(
    case: &Case,
    work: &Work,
    peer: &Peer,
    plan: &Plan,
    settings: &Settings,
) -> anyhow::Result<Metrics> {
    match work {
        Work::Load(load) => {
            // The origin of an upgrade answers nothing else.
            let proxy = if load.upgrade { peer.start_unasked(settings) } else { peer.start(settings) }?;
            let (outcome, cost) =
                load.generator(plan.generator).run(&timed(load, plan), &proxy, plan.cpus)?;
            Ok(metrics(&outcome, &cost, case.body_bytes))
        }
        Work::Paced(load, _) => {
            let proxy = peer.start(settings)?;
            let (outcome, cost) = Generator::Own.run(&timed(load, plan), &proxy, plan.cpus)?;
            Ok(metrics(&outcome, &cost, case.body_bytes))
        }
        Work::Beside(load, other) => {
            let proxy = peer.start(settings)?;
            let other = other.as_ref().map(|other| timed(other, plan));
            let (outcome, cost) = generator::own(&timed(load, plan), other.as_ref(), &proxy, plan.cpus)?;
            Ok(metrics(&outcome, &cost, case.body_bytes))
        }
        Work::Count(load) => {
            let proxy = peer.start(settings)?;
            let calls = generator::count_calls(&timed(load, plan), &proxy, plan.cpus)?;
            say(&format!("K6: counted by {}", calls.by));
            let figures = [
                ("calls_per_request", calls.all),
                ("enters_per_request", calls.enter),
                ("busy", calls.busy),
                ("rps", calls.rps),
            ];
            Ok(figures.map(|(name, value)| (name.to_owned(), value)).into())
        }
        Work::Idle(clients) => {
            let clients = peer.clients(*clients, plan.files);
            let settings = Settings { clients, ..*settings };
            let ask = Ask::of(case.protocol, case.origin);
            idle::measure(clients, ask, plan.idle_seconds, || match ask {
                Ask::Upgraded => peer.start_unasked(&settings),
                Ask::Request | Ask::Message => peer.start(&settings),
            })
        }
    }
}

/// Whether a figure says what was achieved, and 0 therefore that nothing was asked for.
fn is_yield(name: &str) -> bool {
    matches!(name, "requests" | "rps" | "requests_per_cpu_second" | "bytes_per_cpu_second")
        || name.starts_with('p') && name[1..].parse::<f64>().is_ok()
}

fn metrics(outcome: &Outcome, cost: &Cost, body_bytes: f64) -> Metrics {
    let (requests, cpu_us) = (outcome.requests, cost.cpu.usage_us as f64);
    let figures = [
        ("requests", requests),
        ("rps", outcome.rps),
        ("cpu_us_per_request", cpu_us / requests),
        ("user_us_per_request", cost.cpu.user_us as f64 / requests),
        ("system_us_per_request", cost.cpu.system_us as f64 / requests),
        ("requests_per_cpu_second", requests / cpu_us * 1e6),
        ("bytes_per_cpu_second", (requests * body_bytes + outcome.bytes) / cpu_us * 1e6),
        ("switches_per_request", cost.switches as f64 / requests),
        ("busy", cost.busy()),
        ("steal", cost.steal),
    ];
    let mut metrics: Metrics = figures.map(|(name, value)| (name.to_owned(), value)).into();
    metrics.extend(outcome.latency_us.clone());
    metrics.extend(outcome.generator_busy.map(|busy| ("generator_busy".to_owned(), busy)));
    metrics.extend(outcome.late.map(|late| ("late_share".to_owned(), late / requests)));
    // A stream has no requests, messages have no bodies: what was not asked for is no figure.
    metrics.retain(|name, value| value.is_finite() && (*value != 0.0 || !is_yield(name)));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cgroup::CpuTime;

    #[test]
    fn what_was_not_asked_for_is_no_figure() {
        let cpu = CpuTime { usage_us: 1_000_000, user_us: 0, system_us: 1_000_000 };
        let cost = Cost { seconds: 2.0, cpu, switches: 0, steal: 0.0 };
        let late = Some(0.0);
        let stream =
            Outcome { bytes: 5e9, late, latency_us: [("p99".to_owned(), 0.0)].into(), ..Outcome::default() };
        let stream = metrics(&stream, &cost, 0.0);
        assert_eq!(stream["bytes_per_cpu_second"], 5e9);
        assert_eq!(stream["busy"], 0.5);
        let absent = ["rps", "requests_per_cpu_second", "cpu_us_per_request", "late_share", "p99"];
        assert!(absent.iter().all(|name| !stream.contains_key(*name)), "{stream:?}");
        let messages =
            metrics(&Outcome { requests: 100.0, rps: 50.0, late, ..Outcome::default() }, &cost, 0.0);
        assert_eq!((messages["requests_per_cpu_second"], messages["late_share"]), (100.0, 0.0));
        assert!(!messages.contains_key("bytes_per_cpu_second") && messages.contains_key("steal"));
    }
}
