//! The schedule of an open loop. Requests are due at fixed instants whatever the target does, and are counted from there:
//! a target that stalls is charged for every request that came due meanwhile (no coordinated omission).
//!
//! Connections take what is due; one that finds nothing waits its turn, and the pacer wakes it. The executor looks at its
//! rings and timers without a pause while the next instant is near (`SPIN`), and sleeps only while it is far: a thread that
//! sleeps wakes tens of microseconds late, and the CPU is ours. A task that yields in a loop would not do: this executor
//! submits nothing to its rings until all its tasks wait, or its time slice is over.

use crate::clock::{self, MILLISECOND};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Nearer than this nothing sleeps.
pub(super) const SPIN: Duration = Duration::from_millis(2);
/// Between two looks while every connection is busy: they take what is due by themselves.
const LOOK_NANOS: u64 = 20_000;
/// A request that starts later than this although a connection was free is the generator's fault.
const LATE_NANOS: u64 = MILLISECOND;

/// When a request was due, and whether the generator itself kept it from starting then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) scheduled: u64,
    pub(super) late: bool,
}

/// A connection that waits for work.
#[derive(Debug, Default)]
struct Seat {
    waker: RefCell<Option<Waker>>,
    /// Due then; or the schedule is over.
    given: Cell<Option<Option<u64>>>,
}

/// One executor's part of the schedule.
#[derive(Debug)]
pub(super) struct Pace {
    start: u64,
    interval: f64,
    /// Requests taken.
    taken: Cell<u64>,
    end: u64,
    waiting: RefCell<VecDeque<Rc<Seat>>>,
}

impl Pace {
    /// Requests from `start` on, `interval` nanoseconds apart, before `end`.
    pub(super) fn new(start: u64, interval: f64, end: u64) -> Self {
        Self { start, interval, taken: Cell::new(0), end, waiting: RefCell::new(VecDeque::new()) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^53 for a hundred days"
    )]
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn due(&self) -> u64 {
        self.start + (self.taken.get() as f64 * self.interval) as u64
    }

    /// Requests that came due and that no connection took.
    pub(super) fn missed(&self) -> u64 {
        let mut missed = 0;
        while self.due() < self.end {
            self.taken.set(self.taken.get() + 1);
            missed += 1;
        }
        missed
    }

    /// The next request for a free connection, when it is due; `None` when the schedule is over.
    pub(super) async fn next(&self) -> Option<Start> {
        let (now, due) = (clock::now(), self.due());
        if due >= self.end {
            return None;
        }
        if due <= now {
            self.taken.set(self.taken.get() + 1);
            // Was this connection the only free one, then the target kept it; else the pacer should have come earlier.
            let late = now - due > LATE_NANOS && !self.waiting.borrow().is_empty();
            return Some(Start { scheduled: due, late });
        }
        let seat = Rc::new(Seat::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&seat));
        let given = std::future::poll_fn(|cx| match seat.given.get() {
            Some(given) => Poll::Ready(given),
            None => {
                *seat.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        given.map(|scheduled| Start { scheduled, late: clock::now() - scheduled > LATE_NANOS })
    }

    fn give(&self, given: Option<u64>) -> bool {
        let Some(seat) = self.waiting.borrow_mut().pop_front() else { return false };
        seat.given.set(Some(given));
        if let Some(waker) = seat.waker.take() {
            waker.wake();
        }
        true
    }

    /// Hands out what is due, until the schedule is over.
    pub(super) async fn run(&self) {
        loop {
            let now = clock::now();
            while self.due() <= now && self.due() < self.end && self.give(Some(self.due())) {
                self.taken.set(self.taken.get() + 1);
            }
            if self.due() >= self.end {
                while self.give(None) {}
                return;
            }
            let ahead = self.due().saturating_sub(now);
            let wait = if ahead == 0 { LOOK_NANOS } else { ahead };
            glommio::timer::sleep(Duration::from_nanos(wait)).await;
        }
    }
}
