//! What there is to know of this process itself: when it began, and what the kernel says of it.

use crate::events;
use dataplane::plane;
use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// When the process began, by both clocks.
#[derive(Debug)]
pub(crate) struct Began {
    pub(crate) at: Instant,
    /// Since 1970.
    pub(crate) unix: Duration,
    /// The same as events say times: UTC, RFC 3339.
    pub(crate) time: String,
}

static BEGAN: LazyLock<Began> = LazyLock::new(|| {
    #[allow(clippy::disallowed_methods, reason = "control is no shard; this is when it began")]
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Began { at: Instant::now(), unix, time: events::written(unix) }
});

/// When the process began: that is when this is first called.
pub(crate) fn began() -> &'static Began {
    &BEGAN
}

/// Memory of the process, bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) mapped: u64,
    pub(crate) resident: u64,
}

/// As /proc/self/statm has it; none where there is no /proc.
pub(crate) fn memory() -> Option<Memory> {
    memory_of(&std::fs::read_to_string("/proc/self/statm").ok()?, page_size() as u64)
}

/// The first two numbers are pages (proc_pid_statm(5)).
fn memory_of(statm: &str, page: u64) -> Option<Memory> {
    let mut pages = statm.split_ascii_whitespace().map_while(|pages| pages.parse::<u64>().ok());
    Some(Memory { mapped: pages.next()? * page, resident: pages.next()? * page })
}

/// Time that all its threads ran, those that ended included.
pub(crate) fn cpu_time() -> Duration {
    // The kernel tells no negative time.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Descriptors that are open, and how many there may be.
pub(crate) fn descriptors() -> (Option<u64>, u64) {
    // The size of this directory is their number since Linux 6.2, and 0 before.
    let open = std::fs::metadata("/proc/self/fd").ok().map(|directory| directory.len());
    (open.filter(|open| *open > 0), plane::descriptor_limit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_pages() {
        let of = |statm| memory_of(statm, 4096);
        assert_eq!(of("20 10 3 1 0 9 0\n"), Some(Memory { mapped: 81_920, resident: 40_960 }));
        assert_eq!((of("20"), of("x 1"), of("")), (None, None, None));
        let now = memory().unwrap();
        assert!(now.mapped >= now.resident && now.resident > 100_000, "{now:?}");
    }

    #[test]
    fn its_own_time_grows_with_what_it_does() {
        let before = cpu_time();
        // Until the clock, whatever its step is, has seen the work.
        while cpu_time() == before {}
        assert!(cpu_time() > before && began().unix.as_secs() > 1_700_000_000);
    }
}
