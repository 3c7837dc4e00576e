//! Deadlines: a hierarchical wheel over the shard's monotonic time. Never early, late by at most one tick.
//!
//! Seven levels of 64 slots number all of 64-bit nanoseconds, so nothing wraps and nothing is clamped. A timer sits at
//! the level of the highest digit (base 64) in which its tick differs from the present one, and moves down as that
//! digit is reached. One bit per slot says whether it is empty, so that idle time costs nothing to pass.

use super::slab::{Id, Slab};
use crate::io::Mono;
use std::fmt;
use std::num::NonZeroU64;

/// A tick is 2^22 ns (4.2 ms): fine enough for any timeout of a network, coarse enough to share wake-ups.
const TICK_SHIFT: u32 = 22;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 64;
/// 22 + 7 * 6 = 64 bits.
const LEVELS: u32 = 7;
/// Places of a list: the slots of every level, the timers that are due, and nowhere (a timer that is off).
const DUE: usize = SLOTS * LEVELS as usize;
const OFF: usize = DUE + 1;

const _: () = assert!(SLOTS == 1 << DIGIT_BITS && TICK_SHIFT + DIGIT_BITS * LEVELS == u64::BITS);

/// A timer of its owner, from [`TimerWheel::schedule`] to [`TimerWheel::cancel`]; it may fire and be set any number of
/// times between. A cancelled one is stale and does nothing.
pub type TimerId = Id<Timer>;

/// A timer's place in the wheel.
#[derive(Debug)]
pub struct Timer {
    key: u64,
    /// The first tick at which its deadline has passed, above its place (level and slot, `DUE` or `OFF`) and one.
    when_and_place: NonZeroU64,
    /// Slots of its neighbours, `NONE` at the ends.
    previous: u32,
    next: u32,
}

/// No slot of the table of timers.
const NONE: u32 = u32::MAX;
const PLACE_BITS: u32 = 10;

const _: () = assert!(OFF + 1 < 1 << PLACE_BITS && PLACE_BITS <= TICK_SHIFT);
const _: () = assert!(size_of::<Option<Timer>>() <= 24, "each conn has one");

impl Timer {
    fn new(key: u64) -> Self {
        Self { key, when_and_place: pack(0, OFF), previous: NONE, next: NONE }
    }
    fn when(&self) -> u64 {
        self.when_and_place.get() >> PLACE_BITS
    }
    fn place(&self) -> usize {
        (self.when_and_place.get() & ((1 << PLACE_BITS) - 1)) as usize - 1
    }
    fn set(&mut self, when: u64, place: usize) {
        self.when_and_place = pack(when, place);
    }
}

/// Never 0, because a place is counted from 1: an `Option` of a timer takes no more room.
fn pack(when: u64, place: usize) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(when << PLACE_BITS | place as u64)
}

/// All deadlines of one shard. Every verb is O(1), but for [`TimerWheel::advance`], which is bounded.
pub struct TimerWheel {
    timers: Slab<Timer>,
    /// First timer of each slot, then of the due list.
    heads: [Option<TimerId>; DUE + 1],
    /// One bit per slot of each level: not empty.
    occupied: [u64; LEVELS as usize],
    /// The tick that has been reached: every timer in a slot is later, or its slot is being moved down.
    elapsed: u64,
}

impl TimerWheel {
    /// An empty wheel. The tables that own timers bound their number.
    pub fn new(now: Mono) -> Self {
        Self {
            timers: Slab::new(u32::MAX),
            heads: [None; DUE + 1],
            occupied: [0; LEVELS as usize],
            elapsed: now.0 >> TICK_SHIFT,
        }
    }

    /// Timers that exist, the ones that are off included.
    pub fn len(&self) -> u32 {
        self.timers.len()
    }
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// A new timer that will fire with `key` once `at` is past; `Mono::MAX` makes one that is off.
    pub fn schedule(&mut self, key: u64, at: Mono) -> TimerId {
        let Ok(id) = self.timers.insert(Timer::new(key)) else { unreachable!("fewer timers than 2^32") };
        self.reschedule(id, at);
        id
    }

    /// Moves a timer, whether it is set, off or has fired; `Mono::MAX` turns it off. False if `id` was cancelled.
    pub fn reschedule(&mut self, id: TimerId, at: Mono) -> bool {
        let when = tick_after(at);
        let to = when.map_or(OFF, |when| self.place_of(when));
        let Some(timer) = self.timers.get_mut(id) else { return false };
        timer.set(when.unwrap_or(0), timer.place());
        // The frequent case, a deadline pushed back by a little, touches nothing else.
        if timer.place() != to {
            self.unlink(id);
            self.link(id, to);
        }
        true
    }

    /// Ends a timer. False if it had ended.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        self.unlink(id);
        self.timers.release(id)
    }

    /// Fires what is due at `now`: calls `fire` with each key, and turns those timers off. Does at most `batch` steps
    /// (one timer fired or moved down a level each) and returns whether everything due was done.
    pub fn advance(&mut self, now: Mono, batch: usize, mut fire: impl FnMut(u64)) -> bool {
        let target = now.0 >> TICK_SHIFT;
        let mut left = batch;
        loop {
            while let Some(id) = self.heads[DUE] {
                if left == 0 {
                    return false;
                }
                left -= 1;
                self.unlink(id);
                if let Some(timer) = self.timers.get(id) {
                    fire(timer.key);
                }
            }
            let Some((start, place)) = self.earliest().filter(|&(start, _)| start <= target) else {
                self.elapsed = self.elapsed.max(target);
                return true;
            };
            self.elapsed = self.elapsed.max(start);
            while let Some(id) = self.heads[place] {
                if left == 0 {
                    return false;
                }
                left -= 1;
                self.unlink(id);
                let to = self.timers.get(id).map_or(OFF, |timer| self.place_of(timer.when()));
                self.link(id, to);
            }
        }
    }

    /// When [`TimerWheel::advance`] next has something to do: never later than the earliest deadline needs, perhaps
    /// earlier (a far deadline moves down a level first). `Mono::MAX` if no timer is set.
    pub fn next(&self) -> Mono {
        if self.heads[DUE].is_some() {
            return Mono(self.elapsed << TICK_SHIFT);
        }
        self.earliest().map_or(Mono::MAX, |(start, _)| Mono(start << TICK_SHIFT))
    }

    /// The first tick and the place of the earliest slot that is not empty. None lies behind `elapsed`, which stops at
    /// each, so the first of a level is its earliest.
    fn earliest(&self) -> Option<(u64, usize)> {
        let first = |(level, &occupied): (u32, &u64)| {
            let shift = DIGIT_BITS * level;
            let slot = (occupied != 0).then(|| occupied.trailing_zeros())?;
            let start = (self.elapsed >> shift & !(SLOTS as u64 - 1) | u64::from(slot)) << shift;
            Some((start, place(level, slot)))
        };
        (0u32..).zip(&self.occupied).filter_map(first).min()
    }

    /// Where a timer of tick `when` belongs at present.
    fn place_of(&self, when: u64) -> usize {
        if when <= self.elapsed {
            return DUE;
        }
        let level = (when ^ self.elapsed).ilog2() / DIGIT_BITS;
        let slot = (when >> (DIGIT_BITS * level)) & 63;
        place(level, 0) | slot as usize
    }

    fn link(&mut self, id: TimerId, place: usize) {
        let head = self.heads.get(place).copied().flatten();
        if let Some(timer) = self.timers.get_mut(id) {
            timer.set(timer.when(), place);
            timer.previous = NONE;
            timer.next = head.map_or(NONE, Id::slot);
        }
        if place == OFF {
            return;
        }
        if let Some(head) = head.and_then(|head| self.timers.get_mut(head)) {
            head.previous = id.slot();
        }
        self.heads[place] = Some(id);
        if place < DUE {
            self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
        }
    }

    /// Takes a timer out of its list; it is off then.
    fn unlink(&mut self, id: TimerId) {
        let Some(timer) = self.timers.get_mut(id) else { return };
        let (previous, next, place) = (timer.previous, timer.next, timer.place());
        (timer.previous, timer.next) = (NONE, NONE);
        timer.set(timer.when(), OFF);
        if place == OFF {
            return;
        }
        let (before, after) = (self.timers.id_at(previous), self.timers.id_at(next));
        if let Some(after) = after.and_then(|after| self.timers.get_mut(after)) {
            after.previous = previous;
        }
        if let Some(before) = before.and_then(|before| self.timers.get_mut(before)) {
            before.next = next;
            return;
        }
        self.heads[place] = after;
        if after.is_none() && place < DUE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }
}

impl fmt::Debug for TimerWheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerWheel").field("timers", &self.len()).field("next", &self.next()).finish()
    }
}

/// The place of a slot of a level.
fn place(level: u32, slot: u32) -> usize {
    ((level << DIGIT_BITS) | slot) as usize
}

/// The first tick that begins at or after `at`; `None` for `Mono::MAX` (and the last tick before it).
fn tick_after(at: Mono) -> Option<u64> {
    at.0.checked_add((1 << TICK_SHIFT) - 1).map(|up| up >> TICK_SHIFT)
}

#[cfg(test)]
mod tests;
