//! Notices a shard whose loop no longer turns, without mistaking a stopped process for one.
//!
//! Time is counted in control's own ticks: while the whole process is stopped (SIGSTOP, a suspended machine) control
//! does not tick either, and the pause counts as one tick at most.

use dataplane::limits::SHARD_STALL;
use std::time::Duration;

/// Between two looks at the shards' turn counters.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// A shard that made no turn for this many ticks has stalled.
#[allow(clippy::cast_possible_truncation, reason = "20")]
const STALL_TICKS: u32 = (SHARD_STALL.as_millis() / TICK.as_millis()) as u32;
const _: () =
    assert!(dataplane::limits::TURN_WAIT.as_millis() * 3 <= SHARD_STALL.as_millis(), "idle is no stall");

#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// For each shard its turns at the last look, and the ticks since they changed; `None` once it has ended.
    shards: Vec<Option<(u64, u32)>>,
}

impl Watchdog {
    /// `shard` ended and turns no more.
    pub(crate) fn ended(&mut self, shard: u16) {
        if let Some(state) = self.shards.get_mut(usize::from(shard)) {
            *state = None;
        }
    }

    /// One tick: the shards' turn counters as they are now. Returns the first shard that has stalled.
    pub(crate) fn tick(&mut self, turns: &[u64]) -> Option<usize> {
        if self.shards.is_empty() {
            self.shards = turns.iter().map(|turns| Some((*turns, 0))).collect();
            return None;
        }
        let mut stalled = None;
        for (i, (state, now)) in self.shards.iter_mut().zip(turns).enumerate() {
            let Some((seen, ticks)) = state else { continue };
            *ticks = if *seen == *now { *ticks + 1 } else { 0 };
            *seen = *now;
            if *ticks >= STALL_TICKS {
                stalled = stalled.or(Some(i));
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_shard_is_named_after_two_seconds_of_ticks() {
        let mut watchdog = Watchdog::default();
        for n in 0..STALL_TICKS {
            assert_eq!(watchdog.tick(&[u64::from(n), 7]), None, "tick {n}");
        }
        assert_eq!(watchdog.tick(&[100, 7]), Some(1));
    }

    #[test]
    fn one_turn_in_time_is_enough() {
        let mut watchdog = Watchdog::default();
        for n in 0..10 * STALL_TICKS {
            assert_eq!(watchdog.tick(&[u64::from(n / (STALL_TICKS - 1))]), None, "tick {n}");
        }
    }

    #[test]
    fn a_shard_that_ended_cannot_stall() {
        let mut watchdog = Watchdog::default();
        watchdog.tick(&[1, 1]);
        watchdog.ended(0);
        for n in 0..5 * STALL_TICKS {
            assert_eq!(watchdog.tick(&[1, u64::from(n) + 2]), None);
        }
    }
}
