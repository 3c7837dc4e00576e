//! The deadlines of one conn or link, and their one entry in the timer wheel.

use crate::io::{Coarse, Fd, Io, Mono, Token};
use crate::table::{TimerId, TimerWheel};
use std::time::Duration;

/// No look at the socket yet.
const UNSEEN: u32 = u32::MAX;

/// Two deadlines, each `Mono::MAX` when off. The wheel is touched only when the earliest moves forward: a deadline that
/// moves back is found out when the old one fires, so that activity costs a store and no list surgery.
#[derive(Debug)]
pub struct Deadlines {
    /// By when the peer must have sent something (or, on a connecting link, answered).
    pub read_by: Mono,
    /// By when the peer must have taken something; set by [`Deadlines::begin_write`].
    write_by: Mono,
    /// The last time a byte moved, for choosing whom to evict. It stands here because there is room for it.
    pub progress: Coarse,
    /// What the peer had not acknowledged when last looked at; `UNSEEN` before the first look.
    unacknowledged: u32,
    armed: Mono,
    timer: Option<TimerId>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            read_by: Mono::MAX,
            write_by: Mono::MAX,
            progress: Mono(0).into(),
            unacknowledged: UNSEEN,
            armed: Mono::MAX,
            timer: None,
        }
    }
}

impl Deadlines {
    /// From `now` on, with a first deadline for reading.
    pub fn reading_by(now: Mono, read_by: Mono) -> Self {
        Self { read_by, progress: now.into(), ..Self::default() }
    }
    /// A send is in flight: its peer has `within` to take something, unless that time runs already.
    ///
    /// A send completes when a third of the socket's buffer is free, which with megabytes of buffer a slow but steady
    /// reader may not bring about in time. So its socket is looked at after a quarter of the time, and again at the end:
    /// who acknowledged something meanwhile gets the time anew.
    pub fn begin_write(&mut self, now: Mono, within: Duration) {
        if self.write_by == Mono::MAX {
            self.unacknowledged = UNSEEN;
            self.write_by = now.after(within / 4);
        }
    }
    /// The send completed, or nobody waits for it any more.
    pub fn end_write(&mut self) {
        self.write_by = Mono::MAX;
    }
    /// When its socket is looked at next, because a send is in flight; `Mono::MAX` when none is.
    pub fn write_by(&self) -> Mono {
        self.write_by
    }
    /// Whether the peer of `fd` has taken nothing for `within`. To be asked when the wheel fired.
    pub fn is_write_over(&mut self, io: &mut impl Io, fd: Fd, now: Mono, within: Duration) -> bool {
        if self.write_by > now {
            return false;
        }
        let before = self.unacknowledged;
        self.unacknowledged = io.unacknowledged(fd).unwrap_or(before);
        let first = before == UNSEEN;
        self.write_by = now.after(if first { within - within / 4 } else { within });
        !first && self.unacknowledged >= before
    }
    /// Whether the wheel fires before either deadline and before `also` are due. What else was settled counted then.
    pub fn fires_by(&self, also: Mono) -> bool {
        self.armed != Mono::MAX && self.armed <= self.read_by.min(self.write_by).min(also)
    }
    /// Makes sure that the wheel fires by the earliest deadline and by `also` (a lifetime, say). `key` names the owner.
    pub fn settle(&mut self, wheel: &mut TimerWheel, key: Token, also: Mono) {
        let at = self.read_by.min(self.write_by).min(also);
        if at >= self.armed {
            return;
        }
        match self.timer {
            Some(timer) => {
                wheel.reschedule(timer, at);
            }
            None => self.timer = Some(wheel.schedule(key.0, at)),
        }
        self.armed = at;
    }
    /// The wheel fired: its entry is kept, and armed again by [`Deadlines::settle`].
    pub fn on_fired(&mut self) {
        self.armed = Mono::MAX;
    }
    /// The owner ends: no timer may name it any more.
    pub fn cancel(&mut self, wheel: &mut TimerWheel) {
        if let Some(timer) = self.timer.take() {
            wheel.cancel(timer);
        }
        *self = Self::default();
    }
}
