//! `[cluster.retry]`: when a request is tried again, or at two endpoints at once, and within what.

use super::Statuses;
use std::time::Duration;

/// Second attempts of a cluster's requests. Without it a failed connect goes to the next endpoint and a stale pooled link
/// is replaced once, and that is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts of one request of which bytes were written; failed connects are not counted.
    pub attempts: u8,
    pub on: RetryOn,
    /// Second attempts in a hundred requests, over the window of the budget.
    pub budget_percent: u8,
    /// Second attempts each second that are allowed whatever the share, over all shards.
    pub budget_minimum: u32,
    /// Largest request body that is held to be sent again, bytes; 0 holds none.
    pub replay_body: u32,
    /// When a second attempt begins beside the first; `None` is never.
    pub hedge_after: Option<HedgeAfter>,
}

/// What an attempt may end in so that another follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// No connection was made.
    pub connect: bool,
    /// The connection ended before a byte of the response.
    pub reset: bool,
    /// The endpoint was too slow to take the request or to answer it.
    pub timeout: bool,
    /// It answered with one of these.
    pub statuses: Statuses,
}

/// When a hedge begins, counted from the end of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// When so many in a hundred of the cluster's requests had their first byte.
    Percentile(u8),
    Delay(Duration),
}
