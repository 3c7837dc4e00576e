//! What ran short: a line in the process log when something was refused or closed because a limit of the process was
//! reached, and then at most one a minute.

use dataplane::fault::Refusal;
use dataplane::stats::Stats;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(60);

/// One thing that may run short.
#[derive(Debug)]
struct Watched {
    count: fn(&Stats) -> u64,
    /// What happened, and the mend.
    what: &'static str,
    /// As of the last line.
    told: u64,
    told_at: Option<Instant>,
}

impl Watched {
    const fn new(count: fn(&Stats) -> u64, what: &'static str) -> Self {
        Self { count, what, told: 0, told_at: None }
    }
    /// How many more there are than the last line said, if a line is due.
    fn note(&mut self, count: u64, now: Instant) -> Option<u64> {
        let rests = self.told_at.is_some_and(|at| now.duration_since(at) < PAUSE);
        let more = count.saturating_sub(self.told);
        if more == 0 || rests {
            return None;
        }
        (self.told, self.told_at) = (count, Some(now));
        Some(more)
    }
}

/// Everything that is watched.
#[derive(Debug)]
pub(crate) struct Pressure([Watched; 4]);

impl Pressure {
    pub(crate) const fn new() -> Self {
        Self([
            Watched::new(
                |stats| {
                    let refused = stats.refusal(Refusal::DescriptorsExhausted).get();
                    stats.made_room.get() + stats.accept_errors.get() + refused
                },
                "descriptors run short: connections of little use make room, and newcomers are turned away; raise \
                 `ulimit -n` or LimitNOFILE, or lower listener.max_connections",
            ),
            Watched::new(
                |stats| stats.refusal(Refusal::MemoryExhausted).get(),
                "the kernel is short of memory: links that cannot be opened are refused with memory_exhausted; see dmesg, \
                 the control group's memory.max, and net.ipv4.tcp_mem",
            ),
            Watched::new(
                |stats| stats.refusal(Refusal::ListenerFull).get(),
                "listener.max_connections are open: newcomers are refused with listener_full",
            ),
            Watched::new(
                |stats| stats.evictions.get(),
                "buffers run short: the connections longest without progress are closed",
            ),
        ])
    }

    /// One look at what the shards count.
    pub(crate) fn look<'a>(&mut self, stats: impl Iterator<Item = &'a Stats> + Clone, now: Instant) {
        for watched in &mut self.0 {
            let count = stats.clone().map(watched.count).fold(0, u64::saturating_add);
            if let Some(more) = watched.note(count, now) {
                tracing::warn!(count = more, "{}", watched.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_once_and_one_a_minute() {
        let mut watched = Watched::new(|_| 0, "");
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let said =
            [(0, 0), (3, 1), (9, 2), (9, 60), (10, 61), (10, 200)].map(|(n, s)| watched.note(n, at(s)));
        assert_eq!(said, [None, Some(3), None, None, Some(7), None]);
    }
}
