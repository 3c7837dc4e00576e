//! Time as the generator counts it: nanoseconds of the monotonic clock, and of the CPU that the calling thread used.

use rustix::time::{ClockId, clock_gettime};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

pub(crate) fn now() -> u64 {
    read(ClockId::Monotonic)
}

pub(crate) fn thread_cpu() -> u64 {
    read(ClockId::ThreadCPUTime)
}
