//! How many of a shard's connections will last: all of them, unless brief ones are about, which come and go in bursts and are
//! gone again before it matters which shard has them. Then as many as were there all the time of late.

use crate::io::Mono;
use crate::limits::{BRIEF, BRIEF_WINDOW};

#[derive(Debug, Clone, Copy)]
struct Window {
    /// Whether a brief connection ended in it.
    any_brief: bool,
    /// The smallest load that was seen in it.
    least: u32,
}

impl Window {
    const EMPTY: Self = Self { any_brief: false, least: u32::MAX };
}

/// The present window, and the one before it.
#[derive(Debug, Clone, Copy)]
pub struct Brief {
    since: Mono,
    now: Window,
    before: Window,
}

impl Default for Brief {
    fn default() -> Self {
        Self { since: Mono(0), now: Window::EMPTY, before: Window::EMPTY }
    }
}

impl Brief {
    fn roll(&mut self, now: Mono) {
        let age = u128::from(now.since(self.since));
        if age >= BRIEF_WINDOW.as_nanos() {
            self.before = if age < 2 * BRIEF_WINDOW.as_nanos() { self.now } else { Window::EMPTY };
            (self.since, self.now) = (now, Window::EMPTY);
        }
    }
    /// A connection ended that was opened at `opened`.
    pub fn ended(&mut self, opened: Mono, now: Mono) {
        self.roll(now);
        self.now.any_brief |= u128::from(now.since(opened)) < BRIEF.as_nanos();
    }
    /// How many of `load` connections will last.
    pub fn lasting(&mut self, load: u32, now: Mono) -> u32 {
        self.roll(now);
        self.now.least = self.now.least.min(load);
        let any_brief = self.now.any_brief || self.before.any_brief;
        if any_brief { self.now.least.min(self.before.least) } else { load }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn bursts_of_brief_ones_do_not_last() {
        let mut brief = Brief::default();
        let at = |ms: u64| Mono(1_000 * MS + ms * MS);
        // Nothing ends: all last, however fast they came.
        assert_eq!([brief.lasting(5, at(0)), brief.lasting(60, at(1))], [5, 60]);
        // Long ones may end without a doubt about the others.
        brief.ended(Mono(0), at(2));
        assert_eq!(brief.lasting(59, at(3)), 59);
        // A brief one ended: what was there before its like came lasts.
        brief.ended(at(1), at(4));
        assert_eq!(brief.lasting(90, at(5)), 5);
        assert_eq!(brief.lasting(70, at(150)), 5);
        brief.ended(at(150), at(160));
        assert_eq!(brief.lasting(72, at(250)), 70);
        // A whole window without one.
        assert_eq!([brief.lasting(80, at(420)), brief.lasting(80, at(520))], [80, 80]);
    }
}
