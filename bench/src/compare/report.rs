//! The table of gates, and docs/performance.md from the journal and the notes that are kept by hand.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::plot;
use super::ratio::{Pair, Ratios, Span, pairs, span};
use super::record::{self, Machine, PeerFacts, Record, Run};
use super::scenario::{Against, Better, Gate, SCENARIOS, gates};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder that `compare` wrote.
    #[arg(long, default_value = "target/compare")]
    results: PathBuf,
    /// What compare does not measure, kept by hand.
    #[arg(long, default_value = "docs/performance-notes.md")]
    notes: PathBuf,
    /// The table that `scale` wrote, where there is one.
    #[arg(long, default_value = "target/scale/scale.md")]
    scale: PathBuf,
    /// The document to write; its plots go into a folder beside it, named as it is.
    #[arg(long, default_value = "docs/performance.md")]
    out: PathBuf,
}

/// Renders docs/performance.md.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let records = record::read(&args.results.join("results.jsonl"))?;
    let notes = std::fs::read_to_string(&args.notes)
        .with_context(|| format!("cannot read {}", args.notes.display()))?;
    let plots = args.out.with_extension("");
    std::fs::create_dir_all(&plots)?;
    let drawn = plot::draw(&records, &plots)?;
    let folder = plots.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let scale = std::fs::read_to_string(&args.scale).unwrap_or_default();
    std::fs::write(&args.out, document(&records, &drawn, &folder, &scale, &notes))?;
    Ok(())
}

/// A row's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Missed,
    /// No limit: stands beside the others.
    Shown,
    /// No figure on one side.
    Absent,
    /// Every round was too noisy.
    Void,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::Shown => "",
            Self::Absent => "absent",
            Self::Void => "void: noisy",
        }
    }
}

/// One row with its figures.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) gate: Gate,
    pub(super) ours: Option<Span>,
    pub(super) theirs: Option<Span>,
    /// Ours over theirs, or our figure where there is no other side.
    pub(super) value: Option<Span>,
    pub(super) kept: usize,
    pub(super) dropped: usize,
    pub(super) verdict: Verdict,
}

fn runs_of(records: &[Record]) -> Vec<&Run> {
    records.iter().filter_map(|r| if let Record::Run(run) = r { Some(run) } else { None }).collect()
}

fn machine_of(records: &[Record]) -> Option<&Machine> {
    records.iter().find_map(|r| if let Record::Machine(m) = r { Some(m) } else { None })
}

fn peers_of(records: &[Record]) -> Vec<&PeerFacts> {
    records.iter().filter_map(|r| if let Record::Peer(p) = r { Some(p) } else { None }).collect()
}

fn means(pairs: &[Pair]) -> Option<Span> {
    span(&pairs.iter().map(|p| p.mean).collect::<Vec<_>>())
}

fn row(gate: Gate, runs: &[&Run], noise: f64) -> Row {
    let ours = pairs(runs, gate.scenario, gate.case, "ringway", gate.metric);
    let theirs = match gate.against {
        Against::Peer(peer) => Some(pairs(runs, gate.scenario, gate.case, peer, gate.metric)),
        Against::Own(scenario, case) => Some(pairs(runs, scenario, case, "ringway", gate.metric)),
        Against::Nothing => None,
    };
    let ratios = match &theirs {
        Some(theirs) => Ratios::of(&ours, theirs, noise),
        None => {
            let (kept, dropped): (Vec<Pair>, Vec<Pair>) = ours.iter().partition(|p| p.is_quiet(noise));
            let values = |pairs: Vec<Pair>| pairs.iter().map(|p| p.mean).collect();
            Ratios { kept: values(kept), dropped: values(dropped) }
        }
    };
    let value = ratios.span();
    let verdict = match (value, gate.limit) {
        (None, _) => Verdict::Absent,
        (Some(_), _) if ratios.kept.is_empty() => Verdict::Void,
        (Some(_), None) => Verdict::Shown,
        (Some(v), Some(limit)) => {
            let met = if gate.better == Better::More { v.median >= limit } else { v.median <= limit };
            if met { Verdict::Met } else { Verdict::Missed }
        }
    };
    let (kept, dropped) = (ratios.kept.len(), ratios.dropped.len());
    Row { gate, ours: means(&ours), theirs: theirs.as_deref().and_then(means), value, kept, dropped, verdict }
}

/// The rows of every scenario that was run. `baseline` only when there was one.
pub(super) fn rows(records: &[Record]) -> Vec<Row> {
    let runs = runs_of(records);
    let noise = machine_of(records).map_or(0.05, |m| m.noise);
    let was_run = |g: &Gate| runs.iter().any(|r| r.scenario == g.scenario && r.case == g.case);
    let compared = runs.iter().any(|r| r.peer == "baseline");
    let wanted =
        gates().into_iter().filter(|g| was_run(g) && (compared || g.against != Against::Peer("baseline")));
    wanted.map(|gate| row(gate, &runs, noise)).collect()
}

/// A figure with as many digits as say something.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.2} G", value / 1e9),
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn ranged(span: Option<Span>) -> String {
    span.map_or_else(
        || "absent".to_owned(),
        |s| format!("{} ({} - {})", figure(s.median), figure(s.least), figure(s.most)),
    )
}

/// The table, in Markdown.
pub(super) fn table(records: &[Record]) -> String {
    let mut text = String::from(
        "| scenario | case | figure | against | ringway | they | ratio or figure, median (range) | gate | rounds kept, dropped | |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows(records) {
        let gate = row.gate;
        let against = match gate.against {
            Against::Peer(peer) => peer.to_owned(),
            Against::Own(scenario, case) => format!("own {scenario}, {case}"),
            Against::Nothing => String::new(),
        };
        let sign = if gate.better == Better::More { ">=" } else { "<=" };
        let limit = gate.limit.map_or_else(String::new, |l| format!("{sign} {l}"));
        let theirs = if gate.against == Against::Nothing { String::new() } else { ranged(row.theirs) };
        _ = writeln!(
            text,
            "| {} | {} | {} | {against} | {} | {theirs} | **{}** | {limit} | {}, {} | {} |",
            gate.scenario,
            gate.case,
            gate.metric.replace('_', " "),
            ranged(row.ours),
            ranged(row.value),
            row.kept,
            row.dropped,
            row.verdict.word(),
        );
    }
    text
}

/// Each row in which we are behind, gate or not.
fn losses(records: &[Record]) -> String {
    let mut text = String::new();
    for row in rows(records) {
        let (Against::Peer(peer), Some(value)) = (row.gate.against, row.value) else { continue };
        let behind = if row.gate.better == Better::More { value.median < 1.0 } else { value.median > 1.0 };
        if behind && peer != "baseline" {
            let Gate { scenario, case, metric, .. } = row.gate;
            let metric = metric.replace('_', " ");
            _ = writeln!(text, "- {scenario}, {case}, {metric}: {} of {peer}'s.", figure(value.median));
        }
    }
    if text.is_empty() { "Nowhere in what was measured.\n".to_owned() } else { text }
}

/// How busy the proxy's core was, who offered the load, and what failed, for each case and peer.
pub(super) fn conditions(records: &[Record]) -> String {
    let runs = runs_of(records);
    let mut text = String::from(
        "| scenario | case | peer | requests/s | proxy's core busy | switches per request | itself against itself | generator | |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut seen: Vec<(&str, &str, &str)> = Vec::new();
    for run in &runs {
        let key = (run.scenario.as_str(), run.case.as_str(), run.peer.as_str());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let (scenario, case, peer) = key;
        let of = |metric: &str| means(&pairs(&runs, scenario, case, peer, metric));
        let show = |metric: &str| of(metric).map_or_else(String::new, |s| figure(s.median));
        let main =
            ["requests_per_cpu_second", "bytes_per_cpu_second", "bytes_per_connection", "calls_per_request"];
        let itself = main.iter().find_map(|m| {
            let found = pairs(&runs, scenario, case, peer, m);
            span(&found.iter().filter_map(|p| p.itself).collect::<Vec<_>>())
        });
        let failed = runs.iter().filter(|r| (r.scenario.as_str(), r.case.as_str(), r.peer.as_str()) == key);
        let failed = failed.filter_map(|r| r.failed.as_deref()).next();
        _ = writeln!(
            text,
            "| {scenario} | {case} | {peer} | {} | {} | {} | {} | {} | {} |",
            show("rps"),
            of("busy").map_or_else(String::new, |s| format!("{:.0} %", s.median * 100.0)),
            show("switches_per_request"),
            itself.map_or_else(String::new, |s| ranged(Some(s))),
            run.generator,
            failed.map_or_else(String::new, |why| format!("absent: {}", why.replace(['|', '\n'], " "))),
        );
    }
    text
}

/// The machine and the peers.
pub(super) fn facts(records: &[Record]) -> String {
    let mut text = String::from("| fact | value |\n|---|---|\n");
    for (name, value) in machine_of(records).into_iter().flat_map(|m| &m.facts) {
        _ = writeln!(text, "| {name} | {value} |");
    }
    text.push_str("\n| peer | version | hash of its configuration |\n|---|---|---|\n");
    for peer in peers_of(records) {
        let version =
            peer.absent.as_ref().map_or_else(|| peer.version.clone(), |why| format!("absent: {why}"));
        _ = writeln!(text, "| {} | {version} | {} |", peer.name, peer.config_hash);
    }
    text
}

/// The whole document.
fn document(records: &[Record], plots: &[String], folder: &str, scale: &str, notes: &str) -> String {
    let mut text = String::from(
        "<!-- Written by `ringway-bench report` from a run of `ringway-bench compare` and docs/performance-notes.md. -->\n\
         # Performance\n\n\
         What was measured, how, and where ringway loses. How to read it, and what voids a run: [bench](../bench/README.md).\n\n",
    );
    if let Some(m) = machine_of(records) {
        let quick = if m.quick { " A quick run: it shows the direction, it proves nothing." } else { "" };
        _ = writeln!(
            text,
            "{} round(s) there and back, {} s each; a round is dropped when steal is above 1 % or a peer differs from \
             itself by more than {:.0} %.{quick}\n",
            m.rounds,
            m.seconds,
            m.noise * 100.0
        );
    }
    for (name, what) in SCENARIOS {
        _ = writeln!(text, "- **{name}**: {what}.");
    }
    _ = write!(text, "\n## Gates\n\n{}\n## Where we lose\n\n{}", table(records), losses(records));
    if !plots.is_empty() {
        text.push_str("\n## Plots\n\n");
        for plot in plots {
            _ = writeln!(text, "![{}]({folder}/{plot})", plot.trim_end_matches(".svg").replace('-', " "));
        }
    }
    if !scale.is_empty() {
        _ = write!(text, "\n## Scale\n\n{scale}");
    }
    _ = write!(text, "\n## Conditions\n\n{}\n## The machine\n\n{}\n", conditions(records), facts(records));
    // The notes have a title of their own for those who read them alone.
    let notes = notes.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    text.push_str(notes);
    text
}

#[cfg(test)]
mod tests;
