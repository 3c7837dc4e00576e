//! What one shard counts of each listener, route, cluster and endpoint: written by its thread alone, read by control at any
//! time (invariant 13). They lie beside the numbers that shards share of the same object, and live as long.

use super::Counter;
use super::histogram::Histogram;
use super::retries::Retried;
use super::timings::{Phase, Timings};
use crate::fault::CloseReason;
use std::array::from_fn;

/// Answers and the bytes of bodies, or of tunnels.
#[derive(Debug, Default)]
pub struct Traffic {
    by_class: [Counter; Self::CLASSES.len()],
    /// From clients, and to them.
    pub up_bytes: Counter,
    pub down_bytes: Counter,
}

impl Traffic {
    /// Classes of statuses; the first is of requests that were told nothing.
    pub const CLASSES: [&'static str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts a request that was answered with this status; 0 is no answer.
    pub fn answered(&self, status: u16) {
        self.by_class[usize::from(status / 100).min(5)].add(1);
    }
    /// Counts bytes from a client and to it.
    pub fn carried(&self, up: u64, down: u64) {
        self.up_bytes.add(up);
        self.down_bytes.add(down);
    }
    /// Requests by class, in the order of [`Traffic::CLASSES`].
    pub fn by_class(&self) -> [u64; Self::CLASSES.len()] {
        from_fn(|at| self.by_class[at].get())
    }
}

/// How long the phases of exchanges, or tcp connections, took, and the whole of them.
#[derive(Debug, Default)]
pub struct Latency {
    phases: [Histogram; Phase::ALL.len()],
    pub total: Histogram,
}

impl Latency {
    /// Counts the phases that ended.
    pub fn record(&self, timings: &Timings) {
        for phase in Phase::ALL {
            if let Some(us) = timings.get(phase) {
                self.phase(phase).record(us);
            }
        }
    }
    pub fn phase(&self, phase: Phase) -> &Histogram {
        &self.phases[phase as usize]
    }
}

/// Of a listener.
#[derive(Debug)]
#[repr(align(128))]
pub struct OfListener {
    pub connections: Counter,
    pub traffic: Traffic,
    closes: [Counter; CloseReason::COUNT],
    pub latency: Latency,
}

impl OfListener {
    /// Connections that ended for a reason.
    pub fn close(&self, reason: CloseReason) -> &Counter {
        &self.closes[reason as usize]
    }
}

impl Default for OfListener {
    fn default() -> Self {
        Self {
            connections: Counter::default(),
            traffic: Traffic::default(),
            closes: from_fn(|_| Counter::default()),
            latency: Latency::default(),
        }
    }
}

/// Of a route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OfRoute {
    /// Connections of a tcp listener.
    pub connections: Counter,
    pub traffic: Traffic,
}

/// Of a cluster.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OfCluster {
    /// Of tcp listeners.
    pub connections: Counter,
    pub traffic: Traffic,
    retried: [Counter; Retried::ALL.len()],
    pub hedges_won: Counter,
    /// Waits for a place that ended, well or not, and how long they took together, microseconds.
    pub queue_waits: Counter,
    pub queue_us: Counter,
    pub latency: Latency,
}

impl OfCluster {
    /// Requests that were sent again for a reason, or were not.
    pub fn retried(&self, why: Retried) -> &Counter {
        &self.retried[why as usize]
    }
}

/// Of an endpoint.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OfEndpoint {
    attempts: [Counter; Self::RESULTS.len()],
    pub connects: Counter,
}

impl OfEndpoint {
    /// How attempts end: the class of the answer's status, or what came in its place.
    pub const RESULTS: [&'static str; 11] = [
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "connect_failed",
        "lost",
        "timeout",
        "invalid",
        "overtaken",
        "unknown",
    ];

    /// Counts an attempt that ended so; a place in [`OfEndpoint::RESULTS`].
    pub fn ended(&self, result: usize) {
        self.attempts[result.min(Self::RESULTS.len() - 1)].add(1);
    }
    /// Attempts that ended, in the order of [`OfEndpoint::RESULTS`].
    pub fn attempts(&self) -> [u64; Self::RESULTS.len()] {
        from_fn(|at| self.attempts[at].get())
    }
    /// Begins anew, for another endpoint that has the same id. Only while no shard writes.
    pub fn clear(&self) {
        self.attempts.iter().chain([&self.connects]).for_each(|counter| counter.set(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_fall_into_their_classes() {
        let traffic = Traffic::default();
        [0, 101, 200, 204, 308, 404, 503, 599, 700].into_iter().for_each(|status| traffic.answered(status));
        assert_eq!(traffic.by_class(), [1, 1, 2, 1, 1, 3]);
        let endpoint = OfEndpoint::default();
        [0, 5, 10, 99].into_iter().for_each(|result| endpoint.ended(result));
        assert_eq!(endpoint.attempts(), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2]);
        endpoint.clear();
        assert_eq!(endpoint.attempts(), [0; 11]);
    }

    #[test]
    fn only_phases_that_ended_are_counted() {
        use crate::stats::histogram::Merged;
        let (latency, mut timings) = (Latency::default(), Timings::of_total(9));
        timings.set(Phase::Connect, 4);
        latency.record(&timings);
        let counts = Phase::ALL.map(|phase| Merged::of([latency.phase(phase)].into_iter()).count());
        assert_eq!(counts, [0, 0, 0, 1, 0, 0]);
    }
}
