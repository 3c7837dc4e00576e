//! What a comparison leaves on disk: one JSON line for the machine, for each peer, and for each run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One line of `results.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Record {
    Machine(Machine),
    Peer(PeerFacts),
    Run(Run),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) facts: BTreeMap<String, String>,
    pub(super) quick: bool,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    /// How far two runs of one peer in one round may differ before the round is dropped.
    pub(super) noise: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PeerFacts {
    pub(super) name: String,
    pub(super) version: String,
    /// Of the configuration file before names are filled in; empty where there is none.
    pub(super) config_hash: String,
    /// Why it is not measured.
    pub(super) absent: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) scenario: String,
    pub(super) case: String,
    pub(super) peer: String,
    pub(super) round: u32,
    /// 0 on the way there, 1 on the way back: A B | B A.
    pub(super) turn: u32,
    pub(super) generator: String,
    /// Why there are no figures.
    pub(super) failed: Option<String>,
    pub(super) metrics: BTreeMap<String, f64>,
}

impl Run {
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied().filter(|v| v.is_finite())
    }
}

/// Writes each record as it comes, so that a run that is stopped leaves what it had.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    pub(super) records: Vec<Record>,
}

impl Journal {
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, records: Vec::new() })
    }

    pub(super) fn push(&mut self, record: Record) -> anyhow::Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&record)?)?;
        self.records.push(record);
        Ok(())
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a record: {line}")))
        .collect()
}
