//! What is counted, and what is said about it: one line of JSON.

use super::plan::Plan;
use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies are kept in nanoseconds, to three digits, up to a minute; above that they count as a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 3;
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Error {
    /// No connection.
    Connect,
    /// The connection ended before the answer did.
    Reset,
    /// An answer of 400 or above, or one that is no HTTP.
    Status,
    /// No answer within the time for one.
    Timeout,
}

/// What one executor counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Made with the first latency.
    latencies: Option<Histogram<u64>>,
    /// In the window and out of it, for the progress line.
    answered: u64,
    requests: u64,
    errors: [u64; 4],
    down: u64,
    up: u64,
    late: u64,
    wall: u64,
    cpu: u64,
    busy: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { latencies: Histogram::new_with_max(LATENCY_NANOS_MAX, DIGITS).ok(), ..Self::default() }
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn succeed(&mut self, counts: bool, nanos: u64, down: u64, up: usize) {
        self.answered += 1;
        if counts {
            self.requests += 1;
            self.move_bytes(down, up as u64);
            if let Some(latencies) = &mut self.latencies {
                latencies.saturating_record(nanos);
            }
        }
    }

    pub(super) fn move_bytes(&mut self, down: u64, up: u64) {
        self.down += down;
        self.up += up;
    }

    pub(super) fn fail_many(&mut self, error: Error, times: u64) {
        self.errors[error as usize] += times;
    }

    pub(super) fn late(&mut self, late: bool) {
        self.late += u64::from(late);
    }

    pub(super) fn measured(&mut self, wall: u64, cpu: u64, busy: u64) {
        (self.wall, self.cpu, self.busy) = (wall, cpu, busy);
    }
}

/// What a comparison with the origin alone says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validation {
    pub(super) direct_rps: f64,
    pub(super) generator_is_limit: bool,
}

/// All executors together.
#[derive(Debug)]
pub(super) struct Report {
    sum: Tally,
    latencies: Histogram<u64>,
    seconds: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(number: u64) -> f64 {
    number as f64
}

impl Report {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_max(LATENCY_NANOS_MAX, DIGITS).context("a histogram")?;
        Ok(Self { sum: Tally::default(), latencies, seconds: plan.seconds })
    }

    pub(super) fn add(&mut self, tally: &Tally) -> anyhow::Result<()> {
        let sum = &mut self.sum;
        sum.requests += tally.requests;
        sum.down += tally.down;
        sum.up += tally.up;
        sum.late += tally.late;
        sum.wall += tally.wall;
        sum.cpu += tally.cpu;
        sum.busy += tally.busy;
        for (all, one) in sum.errors.iter_mut().zip(tally.errors) {
            *all += one;
        }
        tally.latencies.iter().try_for_each(|one| self.latencies.add(one)).context("histograms of one shape")
    }

    pub(super) fn rps(&self) -> f64 {
        float(self.sum.requests) / self.seconds
    }

    /// Whether anything succeeded.
    pub(super) fn any(&self) -> bool {
        self.sum.requests > 0 || self.sum.down > 0 || self.sum.up > 0
    }

    fn latency(&self) -> Value {
        let micros = |nanos: u64| float(nanos) / 1000.0;
        let mut all: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .map(|(name, p)| ((*name).to_owned(), json!(micros(self.latencies.value_at_percentile(*p)))))
            .collect();
        all.insert("max".to_owned(), json!(micros(self.latencies.max())));
        Value::Object(all)
    }

    fn json(&self, validation: Option<Validation>) -> Value {
        let sum = &self.sum;
        let [connect, reset, status, timeout] = sum.errors;
        let mut report = json!({
            "requests": sum.requests,
            "errors": { "connect": connect, "reset": reset, "status": status, "timeout": timeout },
            "bytes_down": sum.down,
            "bytes_up": sum.up,
            "seconds": self.seconds,
            "rps": self.rps(),
            "latency_us": self.latency(),
            "generator_cpu_seconds": float(sum.cpu) / 1e9,
            "generator_busy": float(sum.busy) / float(sum.wall.max(1)),
            "late": sum.late,
        });
        if let Some(validation) = validation {
            report["direct_rps"] = json!(validation.direct_rps);
            report["generator_is_limit"] = json!(validation.generator_is_limit);
        }
        report
    }

    /// The last line of standard output, and of standard error what the validation says.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "the result")]
    pub(super) fn print(&self, validation: Option<Validation>) -> anyhow::Result<()> {
        if let Some(Validation { direct_rps, generator_is_limit }) = validation {
            let limit = if generator_is_limit { "the generator" } else { "the target" };
            eprintln!(
                "{:.0} requests/s, {direct_rps:.0} without the target: {limit} is the limit",
                self.rps()
            );
        }
        println!("{}", serde_json::to_string(&self.json(validation)).context("the report")?);
        Ok(())
    }
}
