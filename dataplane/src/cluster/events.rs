//! What happened to endpoints, from whoever made it happen (a shard or control) to control, which tells the world.
//!
//! One bounded queue for the node, lock-free (Vyukov's bounded queue, with one reader): a slot's sequence number says whose
//! it is, the writer's at n, the reader's at n + 1, and the next writer's a round later. An event is three words, so that
//! slots are atomics and nothing else. A full queue loses the event and counts it.

use crate::io::Mono;
use crate::limits::EVENTS;
use crate::spec::{ClusterId, EndpointId};
use crate::sync::{AtomicU64, Ordering, Padded};
use std::time::Duration;

/// What happened to an endpoint, or to its cluster as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub cluster: ClusterId,
    /// `None` where it is the breaker of the cluster.
    pub endpoint: Option<EndpointId>,
    pub what: What,
    pub at: Mono,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is left alone for so long, the `times`-th time in a row.
    Ejected { why: Failed, time: Duration, times: u32 },
    /// Its time is over.
    Readmitted,
    /// A check found it good before its time was over.
    ReadmittedByCheck,
    /// After so many failures in a row.
    Opened { failures: u32 },
    /// The trial failed.
    OpenedByTrial,
    /// Nothing was heard of the trial in time.
    OpenedBySilence,
    /// A trial began.
    HalfOpened,
    /// The trial went well.
    Closed,
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// So many times in a row.
    InARow(u32),
    /// So many requests in ten thousand.
    Rate(u32),
}

impl What {
    /// How many kinds there are; sizes the counters.
    pub const KINDS: usize = 8;
    /// Their words, for metrics, in the order of [`What::kind`].
    pub const NAMES: [&'static str; Self::KINDS] = [
        "ejected",
        "readmitted",
        "readmitted_by_check",
        "breaker_opened",
        "breaker_opened_by_trial",
        "breaker_opened_by_silence",
        "breaker_half_opened",
        "breaker_closed",
    ];

    /// Its place among the kinds.
    pub const fn kind(self) -> usize {
        match self {
            Self::Ejected { .. } => 0,
            Self::Readmitted => 1,
            Self::ReadmittedByCheck => 2,
            Self::Opened { .. } => 3,
            Self::OpenedByTrial => 4,
            Self::OpenedBySilence => 5,
            Self::HalfOpened => 6,
            Self::Closed => 7,
        }
    }
}

/// `kind:8 | cluster:16 | endpoint:16 | count:24`, then `rate:1 | times:31 | milliseconds:32`, then the time.
type Words = [u64; 3];

const RATE_BIT: u64 = 1 << 63;
const COUNT_MAX: u32 = (1 << 24) - 1;
const NO_ENDPOINT: u16 = u16::MAX;

impl Event {
    fn encode(self) -> Words {
        let endpoint = self.endpoint.map_or(NO_ENDPOINT, |id| id.0);
        let (mut count, mut value) = (0, 0);
        match self.what {
            What::Ejected { why, time, times } => {
                let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
                value = u64::from(times & !(1 << 31)) << 32 | u64::from(ms);
                count = match why {
                    Failed::InARow(n) => n,
                    Failed::Rate(n) => {
                        value |= RATE_BIT;
                        n
                    }
                };
            }
            What::Opened { failures } => count = failures,
            _ => {}
        }
        let kind = self.what.kind() as u64;
        let ids = kind << 56 | u64::from(self.cluster.0) << 40 | u64::from(endpoint) << 24;
        [ids | u64::from(count.min(COUNT_MAX)), value, self.at.0]
    }

    fn decode([ids, value, at]: Words) -> Option<Self> {
        let [kind, c1, c2, e1, e2, count @ ..] = ids.to_be_bytes();
        let count = count.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
        let ms = Duration::from_millis(value & 0xffff_ffff);
        let times = u32::try_from((value & !RATE_BIT) >> 32).ok()?;
        let what = match kind {
            0 if value & RATE_BIT == 0 => What::Ejected { why: Failed::InARow(count), time: ms, times },
            0 => What::Ejected { why: Failed::Rate(count), time: ms, times },
            1 => What::Readmitted,
            2 => What::ReadmittedByCheck,
            3 => What::Opened { failures: count },
            4 => What::OpenedByTrial,
            5 => What::OpenedBySilence,
            6 => What::HalfOpened,
            7 => What::Closed,
            _ => return None,
        };
        let endpoint = u16::from_be_bytes([e1, e2]);
        let endpoint = (endpoint != NO_ENDPOINT).then_some(EndpointId(endpoint));
        Some(Self { cluster: ClusterId(u16::from_be_bytes([c1, c2])), endpoint, what, at: Mono(at) })
    }
}

#[derive(Debug)]
struct Slot {
    turn: AtomicU64,
    words: [AtomicU64; 3],
}

/// The queue of what happened.
#[derive(Debug)]
pub struct Events {
    slots: Box<[Slot]>,
    /// The next to be written.
    tail: Padded<AtomicU64>,
    /// The next to be read.
    head: Padded<AtomicU64>,
    lost: AtomicU64,
    counts: [AtomicU64; What::KINDS],
}

impl Events {
    /// A queue of the node.
    pub fn new() -> Self {
        Self::with_slots(EVENTS)
    }
    /// A queue of so many slots, a power of two and two at least.
    pub fn with_slots(slots: usize) -> Self {
        debug_assert!(
            slots.is_power_of_two() && slots > 1,
            "a written slot must differ from the next round's"
        );
        let word = || AtomicU64::new(0);
        let slot = |n| Slot { turn: AtomicU64::new(n), words: [word(), word(), word()] };
        let zero = || Padded(AtomicU64::new(0));
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            slots: (0..slots as u64).map(slot).collect(),
            tail: zero(),
            head: zero(),
            lost: AtomicU64::new(0),
            counts,
        }
    }
    fn slot(&self, at: u64) -> &Slot {
        // The remainder is below the length, which is a usize.
        &self.slots[usize::try_from(at % self.slots.len() as u64).unwrap_or(0)]
    }

    /// Counts an event and queues it; counted as lost if the queue is full.
    pub fn push(&self, event: Event) {
        self.counts[event.what.kind()].fetch_add(1, Ordering::Relaxed);
        let mut tail = self.tail.0.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(tail);
            let turn = slot.turn.load(Ordering::Acquire);
            if turn < tail {
                // The reader has not been here since the last round.
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if turn > tail {
                // Another writer was faster.
                tail = self.tail.0.load(Ordering::Relaxed);
                continue;
            }
            let (taken, order) = (tail.wrapping_add(1), Ordering::Relaxed);
            match self.tail.0.compare_exchange(tail, taken, order, order) {
                Ok(_) => {
                    for (word, value) in slot.words.iter().zip(event.encode()) {
                        word.store(value, Ordering::Relaxed);
                    }
                    slot.turn.store(taken, Ordering::Release);
                    return;
                }
                Err(other) => tail = other,
            }
        }
    }
    /// The oldest event. Only one thread may read.
    pub fn pop(&self) -> Option<Event> {
        let head = self.head.0.load(Ordering::Relaxed);
        let slot = self.slot(head);
        if slot.turn.load(Ordering::Acquire) != head.wrapping_add(1) {
            return None;
        }
        let event = Event::decode(slot.words.each_ref().map(|word| word.load(Ordering::Relaxed)));
        slot.turn.store(head.wrapping_add(self.slots.len() as u64), Ordering::Release);
        self.head.0.store(head.wrapping_add(1), Ordering::Relaxed);
        event
    }
    /// Events that found the queue full, since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
    /// Events of each kind since the start, lost ones included.
    pub fn counts(&self) -> [u64; What::KINDS] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    fn event(n: u64, what: What) -> Event {
        Event { cluster: ClusterId(9_999), endpoint: Some(EndpointId(3)), what, at: Mono(n) }
    }

    #[test]
    fn what_is_pushed_is_popped() {
        let time = Duration::from_millis(30_500);
        let all = [
            What::Ejected { why: Failed::InARow(5), time, times: 1 },
            What::Ejected { why: Failed::Rate(10_000), time: Duration::ZERO, times: 7 },
            What::Readmitted,
            What::ReadmittedByCheck,
            What::Opened { failures: 5 },
            What::OpenedByTrial,
            What::OpenedBySilence,
            What::HalfOpened,
            What::Closed,
        ];
        let events = Events::with_slots(16);
        for (n, what) in (1u16..).zip(all) {
            let endpoint = (n % 2 == 0).then_some(EndpointId(n));
            let event = Event { endpoint, ..event(n.into(), what) };
            events.push(event);
            assert_eq!(events.pop(), Some(event));
        }
        assert_eq!((events.pop(), events.lost()), (None, 0));
        assert_eq!(events.counts(), [2, 1, 1, 1, 1, 1, 1, 1]);
        let kinds: Vec<_> = all[1..].iter().map(|what| what.kind()).collect();
        assert_eq!(kinds, (0..What::KINDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_loses_what_comes_last_and_counts_it() {
        let events = Events::with_slots(4);
        for round in 0..3 {
            (0..6).for_each(|n| events.push(event(n, What::Closed)));
            assert_eq!(events.lost(), 2 * (round + 1));
            let read: Vec<_> = std::iter::from_fn(|| events.pop()).map(|event| event.at.0).collect();
            assert_eq!(read, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn threads_together_lose_none_uncounted() {
        let events = Events::with_slots(64);
        let mut read = 0;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..2_000).for_each(|n| events.push(event(n, What::Closed)))))
                .collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                read += std::iter::from_fn(|| events.pop()).count();
            }
        });
        read += std::iter::from_fn(|| events.pop()).count();
        assert_eq!(read as u64 + events.lost(), 8_000);
    }
}
