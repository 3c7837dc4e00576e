//! `[cluster.retry]`: when a request is tried again, or at two endpoints at once, and within what.

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

/// A set of the statuses 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses([u64; 4]);

impl Statuses {
    pub const FIRST: u16 = 400;
    pub const LAST: u16 = 599;

    /// Adds a status; false if it is none of those that a set may hold.
    pub fn add(&mut self, status: u16) -> bool {
        let known = (Self::FIRST..=Self::LAST).contains(&status);
        if known {
            let at = usize::from(status - Self::FIRST);
            self.0[at / 64] |= 1 << (at % 64);
        }
        known
    }
    pub fn has(&self, status: u16) -> bool {
        status
            .checked_sub(Self::FIRST)
            .map(usize::from)
            .is_some_and(|at| self.0.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1))
    }
}

/// When a hedge begins, counted from the end of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// When so many in a hundred of the cluster's requests had their first byte.
    Percentile(u8),
    Delay(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added() {
        let mut set = Statuses::default();
        assert!(!set.add(399) && !set.add(600));
        for status in [400, 463, 464, 503, 599] {
            assert!(set.add(status));
        }
        let held: Vec<u16> = (0..=u16::MAX).filter(|status| set.has(*status)).collect();
        assert_eq!(held, [400, 463, 464, 503, 599]);
    }
}
