//! When each endpoint's next check is: spread over the interval at first, so that they never come in a burst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;
use tokio::time::Instant;

/// Which check is next. An endpoint stands here while none of its checks is running.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Schedule {
    pub(super) fn add(&mut self, at: Instant, target: usize) {
        self.heap.push(Reverse((at, target)));
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is due, and since when it is.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let due = self.next().is_some_and(|at| at <= now);
        if due { self.heap.pop().map(|Reverse(next)| next) } else { None }
    }
}

/// How long after the start the first check of an endpoint is: a share of the interval that its names decide, and that so
/// is the same after each start.
pub(super) fn offset(cluster: &str, endpoint: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (cluster, endpoint).hash(&mut hasher);
    let share = (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64;
    interval.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_checks_are_spread() {
        let interval = Duration::from_secs(2);
        let mut slots = [0; 20];
        for n in 0..2000 {
            let at = offset("app", &format!("10.0.{}.{}:80", n / 250, n % 250), interval);
            slots[usize::try_from(at.as_millis() / 100).unwrap()] += 1;
        }
        // 100 each on average; a burst would be a slot of hundreds.
        assert!(slots.iter().all(|n| (50..150).contains(n)), "{slots:?}");
        assert_ne!(offset("a", "x", interval), offset("b", "x", interval));
    }

    #[test]
    fn what_is_due_comes_in_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::default();
        for (ms, target) in [(30, 3), (10, 1), (20, 2)] {
            schedule.add(at(ms), target);
        }
        assert_eq!(schedule.next(), Some(at(10)));
        assert_eq!(schedule.take(at(9)), None);
        assert_eq!(
            (schedule.take(at(20)), schedule.take(at(20)), schedule.take(at(20))),
            (Some((at(10), 1)), Some((at(20), 2)), None)
        );
    }
}
