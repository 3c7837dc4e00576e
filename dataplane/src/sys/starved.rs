//! Receives that found no buffer, in the order they starved.

use crate::io::Token;
use std::collections::VecDeque;

/// First in, first out. A receive that is cancelled while it waits leaves its entry behind, which is passed over; such
/// entries are swept out when they are the greater part, so each cancel costs a constant on average.
#[derive(Debug, Default)]
pub(super) struct Starved {
    queue: VecDeque<Token>,
    waiting: usize,
}

/// Below this many entries a sweep is not worth it.
const SWEEP_ENTRIES: usize = 64;

impl Starved {
    /// Receives that wait.
    pub(super) fn count(&self) -> usize {
        self.waiting
    }
    pub(super) fn push(&mut self, token: Token) {
        self.queue.push_back(token);
        self.waiting += 1;
    }
    /// One receive waits no longer; `waits` tells of an entry whether it is still good.
    pub(super) fn forget(&mut self, waits: impl FnMut(&Token) -> bool) {
        self.waiting -= 1;
        if self.queue.len() >= SWEEP_ENTRIES && self.queue.len() > self.waiting * 2 {
            self.queue.retain(waits);
        }
    }
    /// The first one that `fits`.
    pub(super) fn find(&self, mut fits: impl FnMut(&Token) -> bool) -> Option<Token> {
        self.queue.iter().copied().find(|token| fits(token))
    }
    /// The one that waited longest.
    pub(super) fn pop(&mut self, mut waits: impl FnMut(&Token) -> bool) -> Option<Token> {
        while let Some(token) = self.queue.pop_front() {
            if waits(&token) {
                self.waiting -= 1;
                return Some(token);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Kind;
    use std::collections::BTreeSet;

    #[test]
    fn order_is_kept_and_cancelled_ones_are_swept_out() {
        let token = |slot| Token::new(Kind::ConnRecv, slot, 0);
        let mut starved = Starved::default();
        let mut good: BTreeSet<Token> = (0..200).map(token).collect();
        (0..200).map(token).for_each(|t| starved.push(t));
        for slot in (0..200).filter(|s| s % 4 != 0) {
            good.remove(&token(slot));
            starved.forget(|t| good.contains(t));
        }
        assert_eq!(starved.count(), 50);
        assert!(starved.queue.len() <= 100, "{} entries for 50 receives", starved.queue.len());
        let order: Vec<_> = std::iter::from_fn(|| starved.pop(|t| good.contains(t))).collect();
        assert_eq!(order, (0..200).step_by(4).map(token).collect::<Vec<_>>());
        assert_eq!(starved.count(), 0);
    }
}
