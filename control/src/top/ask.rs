//! Asking the running process: five answers in JSON, and `/metrics` for what these do not hold.

use super::clean;
use super::counts::{Counts, Family};
use crate::admin::client::Found;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer may take: who waits longer is told so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Source {
    found: Found,
    address: String,
}

/// What was answered at a moment.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) counts: Counts,
    /// `/v1/clusters`, `/v1/listeners`, `/v1/limits` and `/v1/events` as they are.
    pub(super) clusters: Value,
    pub(super) listeners: Value,
    pub(super) limits: Value,
    pub(super) events: Value,
}

impl Source {
    pub(super) fn new(found: Found) -> Self {
        let address = clean(&found.address.to_string());
        Self { found, address }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Asks everything once. The error says why there is no answer.
    pub(super) fn ask(&self) -> Result<Seen, String> {
        self.ask_all().map_err(|why| clean(&why))
    }

    fn ask_all(&self) -> Result<Seen, String> {
        let get = |path| self.found.ask_within(PATIENCE, path);
        let json = |path| get(path)?.read::<Value>();
        // All rates are of this one answer and its moment, so that an upgrade between two answers mixes nothing.
        let mut counts = Counts::read(get("/metrics")?.text()?);
        let at = Instant::now();
        for shard in list(&json("/v1/shards")?, "shards") {
            if let (Some(number), Some(cpu)) = (shard["shard"].as_u64(), shard["cpu_ms"].as_f64()) {
                counts.put(Family::ShardCpu, &[&number.to_string()], cpu / 1000.0);
            }
        }
        Ok(Seen {
            at,
            counts,
            clusters: json("/v1/clusters")?,
            listeners: json("/v1/listeners")?,
            limits: json("/v1/limits")?,
            events: json("/v1/events")?,
        })
    }
}

/// The list of an answer under a key.
pub(super) fn list<'v>(value: &'v Value, key: &str) -> std::slice::Iter<'v, Value> {
    value[key].as_array().map_or(&[][..], Vec::as_slice).iter()
}
