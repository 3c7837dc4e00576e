//! `[cluster.outlier]` and `[cluster.circuit_breaker]`: what follows when live requests fail at an endpoint.

use super::Statuses;
use std::time::Duration;

/// When an endpoint at which requests fail is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// Failures in a row; `u32::MAX` is never.
    pub consecutive_failures: u32,
    /// Share of requests that failed within `window`, of at least `minimum_volume`; `None` is never.
    pub failure_rate: Option<f64>,
    pub minimum_volume: u32,
    pub window: Duration,
    /// Of the first ejection; each one that follows soon is longer by as much.
    pub ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Endpoints that may be out at once, in a hundred of those with weight, rounded down.
    pub max_ejected_percent: u8,
    /// Answers that count as failures.
    pub failure_status: Statuses,
}

/// When requests to an endpoint or a whole cluster are stopped because they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub of: BreakerOf,
    /// Failures in a row until it opens.
    pub failure_threshold: u32,
    /// From then to the trial.
    pub recovery_timeout: Duration,
    /// A trial of which nothing was heard is over after this.
    pub trial_timeout: Duration,
    /// Answers that count as failures.
    pub failure_status: Statuses,
}

/// What there is a breaker of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerOf {
    /// Each endpoint has one.
    Endpoint,
    /// The cluster has one.
    Cluster,
    Both,
}

impl CircuitBreaker {
    pub fn is_of_endpoints(&self) -> bool {
        self.of != BreakerOf::Cluster
    }
    pub fn is_of_cluster(&self) -> bool {
        self.of != BreakerOf::Endpoint
    }
}
