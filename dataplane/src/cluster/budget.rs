//! How many second attempts a shard may make: a share of its requests over a sliding window.
//!
//! Each shard counts its own, because the same share of each shard's requests is that share of the node's. So there is
//! nothing to share, and a cluster whose every answer is a failure is sent no more than the share on top.

use crate::io::Mono;
use crate::limits::BUDGET_SECONDS;
use std::time::Duration;

const BUCKET: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    requests: u64,
    spent: u64,
}

/// One shard's budget of a cluster.
#[derive(Debug)]
pub struct Budget {
    percent: u64,
    /// Allowed in one window whatever the share.
    floor: u64,
    buckets: [Bucket; BUDGET_SECONDS],
    at: usize,
    /// When the present bucket ends.
    until: Mono,
    /// Over all buckets.
    requests: u64,
    spent: u64,
}

impl Budget {
    /// `percent` of the requests, and in any case this shard's part of `minimum` each second over all `shards`.
    pub fn new(percent: u8, minimum: u32, shards: u16) -> Self {
        let floor = u64::from(minimum) * BUDGET_SECONDS as u64;
        Self {
            percent: u64::from(percent),
            floor: floor.div_ceil(u64::from(shards.max(1))),
            buckets: [Bucket::default(); BUDGET_SECONDS],
            at: 0,
            until: Mono(0),
            requests: 0,
            spent: 0,
        }
    }
    /// A client's request came. Second attempts are none.
    pub fn on_request(&mut self, now: Mono) {
        self.pass(now);
        self.buckets[self.at].requests += 1;
        self.requests += 1;
    }
    /// Whether one more second attempt may be made.
    pub fn has(&mut self, now: Mono) -> bool {
        self.pass(now);
        // One more must still fit.
        self.spent < self.floor || (self.spent + 1) * 100 <= self.percent * self.requests
    }
    /// A second attempt is made.
    pub fn spend(&mut self, now: Mono) {
        self.pass(now);
        self.buckets[self.at].spent += 1;
        self.spent += 1;
    }
    /// Lets go of the buckets that are older than the window.
    fn pass(&mut self, now: Mono) {
        for _ in 0..BUDGET_SECONDS {
            if now < self.until {
                return;
            }
            self.at = (self.at + 1) % BUDGET_SECONDS;
            let old = std::mem::take(&mut self.buckets[self.at]);
            self.requests -= old.requests;
            self.spent -= old.spent;
            self.until = self.until.after(BUCKET);
        }
        if now >= self.until {
            // A whole window passed without a request: all buckets are empty, and the next begins now.
            self.until = now.after(BUCKET);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_fifth_of_a_thousand_a_second_and_no_more() {
        let mut budget = Budget::new(20, 10, 1);
        let mut spent = 0;
        for n in 0..20_000u64 {
            let now = Mono(5 * SECOND + n * SECOND / 1000);
            budget.on_request(now);
            if budget.has(now) {
                budget.spend(now);
                spent += 1;
            }
        }
        assert_eq!(spent, 4_000);
    }

    #[test]
    fn a_quiet_node_has_its_minimum() {
        let mut budget = Budget::new(20, 3, 1);
        budget.on_request(Mono(0));
        let allowed = |budget: &mut Budget, now| {
            (0..1000).take_while(|_| budget.has(now).then(|| budget.spend(now)).is_some()).count()
        };
        assert_eq!(allowed(&mut budget, Mono(0)), 30);
        assert_eq!(allowed(&mut budget, Mono(9 * SECOND - 1)), 0);
        assert_eq!(allowed(&mut budget, Mono(11 * SECOND)), 30);
        // Shares of the minimum are rounded up: none of many shards has nothing.
        assert_eq!(allowed(&mut Budget::new(0, 1, 64), Mono(0)), 1);
        assert_eq!(allowed(&mut Budget::new(0, 0, 1), Mono(0)), 0);
        assert_eq!(allowed(&mut Budget::new(100, 0, 1), Mono(0)), 0);
    }

    proptest! {
        /// Against a list of everything that happened: what is spent in a window is within the share of that window's
        /// requests or the minimum, whatever the times.
        #[test]
        fn never_above_the_share_or_the_minimum(
            percent in 0u8..=100,
            minimum in 0u32..4,
            steps in proptest::collection::vec((0u64..3 * SECOND, 0usize..40), 1..60),
        ) {
            let mut budget = Budget::new(percent, minimum, 1);
            let (mut now, mut requests, mut spent) = (7 * SECOND, Vec::new(), Vec::new());
            for (pause, count) in steps {
                now += pause;
                for _ in 0..count {
                    budget.on_request(Mono(now));
                    requests.push(now);
                    if !budget.has(Mono(now)) {
                        continue;
                    }
                    budget.spend(Mono(now));
                    spent.push(now);
                    // The buckets hold between nine and ten seconds.
                    let within = |times: &[u64], seconds: u64| {
                        times.iter().filter(|at| **at + seconds * SECOND > now).count() as u64
                    };
                    let share = u64::from(percent) * within(&requests, 10) / 100;
                    let floor = u64::from(minimum) * 10;
                    prop_assert!(within(&spent, 9) <= share.max(floor));
                }
            }
        }
    }
}
