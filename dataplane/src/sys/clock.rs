//! The two clocks, read straight from the kernel's shared page.

use crate::io::{Clock, Mono};
use std::os::unix::thread::JoinHandleExt as _;
use std::thread::JoinHandle;
use std::time::Duration;

/// CLOCK_MONOTONIC and CLOCK_REALTIME, in nanoseconds.
pub fn now() -> Clock {
    Clock { mono: Mono(read(libc::CLOCK_MONOTONIC)), wall: read(libc::CLOCK_REALTIME) }
}

/// What a thread has had of a CPU so far; `None` once it has ended. pthread_getcpuclockid(3).
pub fn cpu_time<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    let mut id: libc::clockid_t = 0;
    // SAFETY: `id` is valid for the whole call, and so is the thread's number as long as its handle is there, because nobody
    // has joined or detached it.
    let found = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut id) };
    (found == 0).then(|| Duration::from_nanos(read(id)))
}

fn read(id: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the whole call. The machine's clocks always exist; that of a thread which has
    // ended fails, and leaves 0.
    unsafe { libc::clock_gettime(id, &raw mut at) };
    // Neither clock is before its epoch on a machine that has booted; a wall clock that says so reads as 1970.
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(at.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_time_that_it_works() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let begin = now().mono;
            while now().mono.since(begin) < 30_000_000 {}
            wait.recv().unwrap_err();
        });
        while cpu_time(&thread).unwrap() < Duration::from_millis(1) {}
        drop(done);
        while cpu_time(&thread).is_some() && !thread.is_finished() {}
        thread.join().unwrap();
    }

    #[test]
    fn the_clock_goes_forward_and_knows_the_year() {
        let first = now();
        let second = now();
        assert!(second.mono >= first.mono && first.mono > Mono(0));
        assert!(first.wall > 1_700_000_000 * 1_000_000_000, "the wall clock says it is before 2023");
    }
}
