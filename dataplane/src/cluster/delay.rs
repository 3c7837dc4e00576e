//! After how long a hedge begins: a fixed time, or a percentile of how long a cluster took to its first byte.
//!
//! What one shard saw, in a log-linear table of fixed size: eight steps to an octave, so that a percentile is at most an
//! eighth too long. An attempt that lost against its hedge counts with the time it had by then; left out, the slow ones
//! would make the percentile of the rest smaller with each hedge.

use crate::io::Mono;
use crate::limits::{HEDGE_HALVE, HEDGE_REFRESH, HEDGE_SAMPLES};
use crate::spec::HedgeAfter;
use std::time::Duration;

/// Steps to an octave, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Microseconds from here on (134 s) are one.
const MOST_BITS: u32 = 27;
const PLACES: usize = (MOST_BITS - STEP_BITS + 1) as usize * STEPS;

/// When a cluster's hedges begin, as one shard knows it.
#[derive(Debug)]
pub struct HedgeDelay {
    after: Option<Duration>,
    seen: Option<Box<Seen>>,
}

#[derive(Debug)]
struct Seen {
    percentile: u64,
    counts: [u32; PLACES],
    refresh_at: Mono,
    halve_at: Mono,
}

impl HedgeDelay {
    pub fn new(after: HedgeAfter) -> Self {
        match after {
            HedgeAfter::Delay(delay) => Self { after: Some(delay), seen: None },
            HedgeAfter::Percentile(percentile) => {
                let seen = Seen {
                    percentile: u64::from(percentile),
                    counts: [0; PLACES],
                    refresh_at: Mono(0),
                    halve_at: Mono(0),
                };
                Self { after: None, seen: Some(Box::new(seen)) }
            }
        }
    }
    /// How long after a request its hedge begins; `None` while too little was seen.
    pub fn after(&self) -> Option<Duration> {
        self.after
    }
    /// An attempt took so long to its first byte, nanoseconds, or was given up after that.
    pub fn record(&mut self, took: u64, now: Mono) {
        let Some(seen) = &mut self.seen else { return };
        let count = &mut seen.counts[place_of(took / 1000)];
        *count = count.saturating_add(1);
        if now >= seen.refresh_at {
            seen.refresh_at = now.after(HEDGE_REFRESH);
            self.after = seen.take_percentile();
            if now >= seen.halve_at {
                seen.halve_at = now.after(HEDGE_HALVE);
                seen.counts.iter_mut().for_each(|count| *count /= 2);
            }
        }
    }
}

impl Seen {
    fn take_percentile(&self) -> Option<Duration> {
        let total: u64 = self.counts.iter().map(|n| u64::from(*n)).sum();
        if total < HEDGE_SAMPLES {
            return None;
        }
        let rank = (total * self.percentile).div_ceil(100);
        let mut below = 0;
        let reached = |count: &u32| {
            below += u64::from(*count);
            below >= rank
        };
        let place = self.counts.iter().position(reached)?;
        Some(Duration::from_micros(end_of(place)))
    }
}

/// The place of a time in microseconds.
fn place_of(us: u64) -> usize {
    let us = us.min((1 << MOST_BITS) - 1);
    let Some(octave) = us.checked_ilog2().and_then(|bits| bits.checked_sub(STEP_BITS)) else {
        return usize::try_from(us).unwrap_or(0);
    };
    // The leading bit and the three behind it.
    let step = usize::try_from(us >> octave).unwrap_or(0) - STEPS;
    (octave as usize + 1) * STEPS + step
}

/// The first time, in microseconds, that is past a place.
fn end_of(place: usize) -> u64 {
    let (octave, step) = (place / STEPS, place % STEPS);
    match octave {
        0 => step as u64 + 1,
        _ => ((STEPS + step) as u64 + 1) << (octave - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn places_follow_each_other() {
        let mut last = 0;
        for us in (0..5_000).chain([1 << 20, (1 << 27) - 1, 1 << 27, u64::MAX / 1000]) {
            let place = place_of(us);
            assert!(place < PLACES && place >= last, "{us}: {place}");
            last = place;
            if us < 1 << MOST_BITS {
                assert!(us < end_of(place) && end_of(place) <= us + us / 8 + 1, "{us}: {}", end_of(place));
            }
        }
        assert_eq!(last, PLACES - 1);
    }

    #[test]
    fn a_percentile_needs_samples_and_follows_them() {
        let mut delay = HedgeDelay::new(HedgeAfter::Percentile(95));
        let mut now = Mono(0);
        let mut see = |delay: &mut HedgeDelay, took: u64, times: u64| {
            for _ in 0..times {
                now = Mono(now.0 + 10 * MS);
                delay.record(took, now);
            }
        };
        see(&mut delay, 5 * MS, 99);
        assert_eq!(delay.after(), None);
        // Nine in a hundred are slow.
        for _ in 0..20 {
            see(&mut delay, 5 * MS, 91);
            see(&mut delay, 80 * MS, 9);
        }
        let slow = delay.after().unwrap();
        assert!(slow > Duration::from_millis(79) && slow < Duration::from_millis(91), "{slow:?}");
        // Nobody is, any more.
        see(&mut delay, 5 * MS, 20_000);
        let fast = delay.after().unwrap();
        assert!(fast > Duration::from_millis(5) && fast < Duration::from_millis(6), "{fast:?}");
        // Hardly anything comes: what is left of the past soon means nothing.
        for n in 0..30 {
            delay.record(5 * MS, Mono(now.0 + n * 10_000 * MS));
        }
        assert_eq!(delay.after(), None);
    }

    #[test]
    fn a_fixed_delay_is_what_it_is() {
        let mut delay = HedgeDelay::new(HedgeAfter::Delay(Duration::from_millis(30)));
        for n in 0..1_000 {
            delay.record(n, Mono(n * 100 * MS));
        }
        assert_eq!(delay.after(), Some(Duration::from_millis(30)));
    }
}
