//! `ringway-bench compare`: runs the scenarios over ringway and its peers, in alternation.
//!
//! `scenario` says what is run and which gates hold, `peer` how each program is started, `generator` and `idle` offer the
//! load, `probe` and `cgroup` read what it cost, `round` puts one run together, `ratio` decides what may be believed,
//! `report` and `plot` show it. `scale` holds many connections.

mod cgroup;
mod child;
mod generator;
mod idle;
mod machine;
mod origin;
mod peer;
mod plot;
mod probe;
mod ratio;
mod record;
pub(crate) mod report;
mod round;
pub(crate) mod scale;
mod scenario;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use generator::Generator;
use origin::{Origins, Role};
use peer::{Kind, Peer};
use record::{Journal, Machine, Record};
use round::Plan;
use scenario::{Case, REFERENCE};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One short round of everything: within ten minutes, shows the direction, proves nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds of each case, there and back: A B C | C B A.
    #[arg(long)]
    rounds: Option<u32>,
    /// Measured seconds of each run.
    #[arg(long)]
    seconds: Option<f64>,
    /// Only these scenarios, as K1,L1.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How far a peer may differ from itself within a round before the round is dropped.
    #[arg(long, default_value_t = 0.05)]
    noise: f64,
    /// Who offers the load of K1, K2, K3, K5 and L3. The others always take the bench's own: wrk offers no rate and speaks
    /// nothing but HTTP.
    #[arg(long, value_enum, default_value = "wrk")]
    generator: Generator,
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// The binary to measure; built in release if not given.
    #[arg(long)]
    ringway: Option<PathBuf>,
    /// Another ringway to hold it against, row by row.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where `setup` put what it built.
    #[arg(long, default_value = crate::setup::ROOT)]
    rivals: PathBuf,
    /// Where the results go.
    #[arg(long, default_value = "target/compare")]
    out: PathBuf,
}

/// Progress, for who watches; the results go to stdout and to files.
fn say(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let cases = wanted(&args.only)?;
    let ringway = match &args.ringway {
        Some(path) => path.clone(),
        None => build()?,
    };
    child::stop_on_signals()?;
    let files = machine::raise_descriptors()?;
    let cpus = machine::cpus()?;
    let plan = Plan {
        rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 10 }),
        seconds: args.seconds.unwrap_or(if args.quick { 2.0 } else { 10.0 }),
        warm_up: if args.quick { 0.6 } else { 2.0 },
        idle_seconds: if args.quick { 6.0 } else { 55.0 },
        gated_only: args.quick,
        generator: args.generator,
        cpus,
        files,
    };
    // This process shares the load's CPU, so that its own doings never disturb the proxy.
    core_affinity::set_for_current(core_affinity::CoreId { id: cpus.load });
    std::fs::create_dir_all(&args.out)?;
    let mut journal = Journal::new(&args.out.join("results.jsonl"))?;
    let mut origins = Origins::new(args.nginx.clone(), cpus, files);
    let mut facts = machine::facts();
    facts.insert("origin".to_owned(), origins.of(Role::Http)?.name.to_owned());
    facts.insert("generator".to_owned(), generator_version(args.generator));
    facts.insert(
        "CPUs".to_owned(),
        format!("proxy alone on {}, origin and load on {}", cpus.proxy, cpus.load),
    );
    let (rounds, seconds, noise) = (plan.rounds, plan.seconds, args.noise);
    journal.push(Record::Machine(Machine { facts, quick: args.quick, rounds, seconds, noise }))?;
    let peers = present(&args, &ringway, &cases, &mut journal)?;
    for case in &cases {
        let origin = origins.of(case.origin)?.address;
        round::run(case, &peers, &plan, origin, &mut journal)?;
    }
    drop(origins);
    let drawn = plot::draw(&journal.records, &args.out)?;
    let markdown = format!(
        "{}\n{}\n{}",
        report::table(&journal.records),
        report::conditions(&journal.records),
        report::facts(&journal.records)
    );
    std::fs::write(args.out.join("table.md"), &markdown)?;
    say(&format!("results.jsonl, table.md, {} in {}", drawn.join(", "), args.out.display()));
    writeln!(std::io::stdout(), "{markdown}")?;
    Ok(())
}

fn wanted(only: &[String]) -> anyhow::Result<Vec<Case>> {
    let mut cases = scenario::cases();
    if let Some(unknown) = only.iter().find(|o| cases.iter().all(|c| !c.scenario.eq_ignore_ascii_case(o))) {
        bail!("no scenario is called {unknown}");
    }
    cases.retain(|c| only.is_empty() || only.iter().any(|o| c.scenario.eq_ignore_ascii_case(o)));
    Ok(cases)
}

/// Builds ringway in release and returns its binary, which cargo names in its last messages.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    say("building ringway in release");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "-p", "control", "--bin", "ringway"]);
    let done = command
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output();
    let done = done.context("cannot run cargo; give --ringway PATH")?;
    if !done.status.success() {
        bail!("cargo ended with {}", done.status);
    }
    let binary = String::from_utf8_lossy(&done.stdout).lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    binary.context("cargo named no binary")
}

fn generator_version(generator: Generator) -> String {
    let wrk = machine::version("wrk", &["-v"]).unwrap_or_else(|| "wrk (absent)".to_owned());
    let wrk = wrk.split(" [").next().unwrap_or_default();
    match generator {
        Generator::Wrk => format!("{wrk}; K4, L1, L2, L5: {}", Generator::Own.name()),
        Generator::Own => Generator::Own.name().to_owned(),
    }
}

/// All peers of the wanted cases, in the order in which a round runs them; ours is last, in the middle of there and back.
fn present(args: &Args, ringway: &Path, cases: &[Case], journal: &mut Journal) -> anyhow::Result<Vec<Peer>> {
    let built = |name: &str| args.rivals.join("bin").join(name);
    let own = std::env::current_exe()?;
    let floor = |name, kind| Peer { name, kind: Kind::Floor(kind), binary: own.clone() };
    let haproxy = |name, global, defaults| Peer {
        name,
        kind: Kind::Haproxy(global, defaults),
        binary: args.haproxy.clone(),
    };
    let mut peers = vec![
        Peer { name: REFERENCE, kind: Kind::Nginx, binary: args.nginx.clone() },
        haproxy("haproxy", "", ""),
        haproxy("haproxy-splice", "", "option splice-auto"),
        haproxy("haproxy-splice-1m", "tune.pipesize 1048576", "option splice-auto"),
        // Auto decides when its task happens to run, and a steady flow need not wake it: this one always splices.
        haproxy(
            "haproxy-forced-1m",
            "tune.pipesize 1048576",
            "option splice-request\n  option splice-response",
        ),
        Peer { name: "sozu", kind: Kind::Sozu, binary: built("sozu") },
        Peer { name: "pingora", kind: Kind::Pingora, binary: built("rival-pingora") },
        floor("floor-epoll", "epoll"),
        floor("floor-uring", "uring"),
        floor("floor-splice", "splice"),
        floor("floor-accept", "accept"),
        floor("floor-accept-connect", "accept-connect"),
        floor("floor-idle-epoll", "idle-epoll"),
        floor("floor-idle-uring", "idle-uring"),
    ];
    let baseline = args.baseline.as_ref();
    peers.extend(baseline.map(|b| Peer { name: "baseline", kind: Kind::Ringway, binary: b.clone() }));
    peers.push(Peer { name: "ringway", kind: Kind::Ringway, binary: ringway.to_owned() });
    let mut found = Vec::new();
    for peer in peers {
        if peer.name != "baseline" && cases.iter().all(|c| !c.peers.contains(&peer.name)) {
            continue;
        }
        let facts = peer.facts();
        match &facts.absent {
            Some(why) if peer.name == "ringway" => bail!("{why}"),
            Some(why) => say(&format!("{} is absent: {why}", peer.name)),
            None => found.push(peer),
        }
        journal.push(Record::Peer(facts))?;
    }
    Ok(found)
}
