//! The two clocks, read straight from the kernel's shared page.

use crate::io::{Clock, Mono};

/// CLOCK_MONOTONIC and CLOCK_REALTIME, in nanoseconds.
pub fn now() -> Clock {
    Clock { mono: Mono(read(libc::CLOCK_MONOTONIC)), wall: read(libc::CLOCK_REALTIME) }
}

fn read(id: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the whole call. Both clocks always exist, so the call cannot fail.
    unsafe { libc::clock_gettime(id, &raw mut at) };
    // Neither clock is before its epoch on a machine that has booted; a wall clock that says so reads as 1970.
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(at.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_and_knows_the_year() {
        let first = now();
        let second = now();
        assert!(second.mono >= first.mono && first.mono > Mono(0));
        assert!(first.wall > 1_700_000_000 * 1_000_000_000, "the wall clock says it is before 2023");
    }
}
