//! Notices a shard whose loop no longer turns, without mistaking a stopped process for one.
//!
//! Time is counted in control's own ticks: while the whole process is stopped (SIGSTOP, a suspended machine) control
//! does not tick either, and the pause counts as one tick at most. And a shard whose CPU others have taken (a busy
//! machine, a host that gives the virtual one no time) has not stalled: it goes on as soon as it can, with all that it holds.
//! So what counts at first is the CPU time that it spent without a turn.

use dataplane::limits::{SHARD_LOST, SHARD_STALL};
use std::time::Duration;

/// Between two looks at the shards' turn counters.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Without a turn for so many ticks a shard has stalled if it was at work meanwhile, and for so many more if it was not.
const STALL_TICKS: u32 = ticks(SHARD_STALL);
const LOST_TICKS: u32 = ticks(SHARD_LOST);

#[allow(clippy::cast_possible_truncation, reason = "a few hundred")]
const fn ticks(time: Duration) -> u32 {
    (time.as_millis() / TICK.as_millis()) as u32
}
const _: () =
    assert!(dataplane::limits::TURN_WAIT.as_millis() * 3 <= SHARD_STALL.as_millis(), "idle is no stall");

#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// `None` once it has ended.
    shards: Vec<Option<Watched>>,
}

/// One shard.
#[derive(Debug)]
struct Watched {
    /// At the last look.
    turns: u64,
    /// Since they changed.
    ticks: u32,
    /// What it had had of a CPU one tick after they changed.
    cpu: Duration,
}

impl Watched {
    /// Whether it has stalled. `cpu` is asked of those only that make no turn.
    fn look(&mut self, turns: u64, cpu: impl FnOnce() -> Option<Duration>) -> bool {
        if self.turns != turns {
            (self.turns, self.ticks) = (turns, 0);
            return false;
        }
        self.ticks += 1;
        if self.ticks == 1 {
            self.cpu = cpu().unwrap_or_default();
            return false;
        }
        if self.ticks < STALL_TICKS {
            return false;
        }
        let worked = cpu().is_some_and(|now| now.saturating_sub(self.cpu) >= SHARD_STALL / 2);
        worked || self.ticks >= LOST_TICKS
    }
}

impl Watchdog {
    /// `shard` ended and turns no more.
    pub(crate) fn ended(&mut self, shard: u16) {
        if let Some(state) = self.shards.get_mut(usize::from(shard)) {
            *state = None;
        }
    }

    /// One tick: the shards' turn counters as they are now, and what a shard has had of a CPU. Returns the first shard that
    /// has stalled.
    pub(crate) fn tick(&mut self, turns: &[u64], cpu: impl Fn(usize) -> Option<Duration>) -> Option<usize> {
        if self.shards.is_empty() {
            let watched = |turns: &u64| Some(Watched { turns: *turns, ticks: 0, cpu: Duration::ZERO });
            self.shards = turns.iter().map(watched).collect();
            return None;
        }
        let mut stalled = None;
        for (at, (watched, turns)) in self.shards.iter_mut().zip(turns).enumerate() {
            let Some(watched) = watched else { continue };
            if watched.look(*turns, || cpu(at)) {
                stalled = stalled.or(Some(at));
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that works all the time.
    fn works(ticks: u32) -> impl Fn(usize) -> Option<Duration> {
        move |_| Some(TICK * ticks)
    }

    #[test]
    fn a_stalled_shard_is_named_after_two_seconds_of_ticks() {
        let mut watchdog = Watchdog::default();
        for n in 0..STALL_TICKS {
            assert_eq!(watchdog.tick(&[n.into(), 7], works(n)), None, "tick {n}");
        }
        assert_eq!(watchdog.tick(&[100, 7], works(STALL_TICKS)), Some(1));
    }

    /// It may be on its CPU for half of the time only; with less it is given longer.
    #[test]
    fn a_shard_without_a_cpu_has_not_stalled() {
        for (share, stalls) in [(2, STALL_TICKS + 1), (4, 2 * STALL_TICKS), (1_000, LOST_TICKS)] {
            let mut watchdog = Watchdog::default();
            let first = (0..=LOST_TICKS).find(|n| watchdog.tick(&[7], |_| Some(TICK * *n / share)).is_some());
            let first = first.unwrap();
            assert!(first.abs_diff(stalls) <= 4, "of 1/{share}: after {first} ticks, not {stalls}");
        }
    }

    #[test]
    fn one_turn_in_time_is_enough() {
        let mut watchdog = Watchdog::default();
        for n in 0..10 * STALL_TICKS {
            assert_eq!(watchdog.tick(&[u64::from(n / (STALL_TICKS - 1))], works(n)), None, "tick {n}");
        }
    }

    #[test]
    fn a_shard_that_ended_cannot_stall() {
        let mut watchdog = Watchdog::default();
        watchdog.tick(&[1, 1], works(0));
        watchdog.ended(0);
        for n in 0..5 * STALL_TICKS {
            assert_eq!(watchdog.tick(&[1, u64::from(n) + 2], works(n)), None);
        }
    }
}
