//! A pipe as a shard holds it: where bytes stay on their way from socket to socket when user space never sees them. And
//! the rule by which every backend lends pipes.

use crate::limits::{PIPES, PIPES_ADOPTED};
use std::num::NonZeroU16;

/// A pipe out on loan from the backend, to be given back through [`super::Io::give_pipe`]. Two bytes, for every tunnel has
/// room for two of them; what a pipe holds its backend knows ([`super::Io::held`]).
///
/// It may hold more bytes than its nominal size: what it counts are references to the network's own buffers.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Pipe(NonZeroU16);

impl Pipe {
    /// Pipe number `at` of its shard, from 0.
    pub(crate) fn number(at: u16) -> Self {
        Self(NonZeroU16::MIN.saturating_add(at))
    }
    /// Its number.
    pub(crate) fn at(&self) -> usize {
        usize::from(self.0.get() - 1)
    }
    /// One more than the shard has of its own: a number from [`PIPES`] on, the lowest whose place in `taken` is free, or the next;
    /// none where [`PIPES_ADOPTED`] are taken.
    pub(crate) fn adopted(taken: impl ExactSizeIterator<Item = bool>) -> Option<Self> {
        let next = taken.len();
        let at = taken.enumerate().find(|(_, taken)| !taken).map_or(next, |(at, _)| at);
        let at = u16::try_from(at).ok().filter(|at| *at < PIPES_ADOPTED)?;
        Some(Self::number(PIPES + at))
    }
    /// It came from another process.
    pub(crate) fn is_adopted(&self) -> bool {
        self.at() >= usize::from(PIPES)
    }
    /// No other pipe is left: it is to be given back in the step that took it, empty ([`super::Io::unload`]), so that
    /// flows which stall never keep all pipes from those that move.
    pub fn is_last(&self) -> bool {
        self.at() == 0
    }
}

/// Which pipes of a shard are in: number 0 is lent when no other one can be.
#[derive(Debug)]
pub(crate) struct Lending {
    last: bool,
    /// Last in, first out, so that the same few pages stay warm.
    others: Vec<u16>,
}

impl Lending {
    /// With `count` pipes, at least 1 and at most [`PIPES`].
    pub(crate) fn new(count: u16) -> Self {
        Self { last: true, others: (1..count.clamp(1, PIPES)).rev().collect() }
    }
    /// Lends a pipe that `exists`, which makes the numbered pipe if need be. The last one has to exist before any other is
    /// lent: it is what helps when the others are out.
    pub(crate) fn take(&mut self, mut exists: impl FnMut(u16) -> bool) -> Option<Pipe> {
        if self.last && !exists(0) {
            return None;
        }
        if let Some(at) = self.others.pop() {
            if exists(at) {
                return Some(Pipe::number(at));
            }
            self.others.push(at);
        }
        std::mem::take(&mut self.last).then(|| Pipe::number(0))
    }
    /// Takes a pipe back.
    pub(crate) fn give(&mut self, pipe: &Pipe) {
        match u16::try_from(pipe.at()) {
            Ok(at @ 1..) => self.others.push(at),
            _ => self.last = true,
        }
    }
    /// Pipes that are in.
    pub(crate) fn count(&self) -> usize {
        self.others.len() + usize::from(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_lent_last_and_any_is_lent_again() {
        let mut lending = Lending::new(3);
        let taken: Vec<Pipe> = std::iter::from_fn(|| lending.take(|_| true)).collect();
        assert_eq!(taken.iter().map(Pipe::at).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(taken.iter().map(Pipe::is_last).collect::<Vec<_>>(), [false, false, true]);
        assert!(lending.take(|_| true).is_none());
        lending.give(&taken[2]);
        lending.give(&taken[1]);
        assert_eq!((lending.count(), lending.take(|_| true)), (2, Some(Pipe::number(2))));
    }

    #[test]
    fn adopted_pipes_have_numbers_of_their_own() {
        let number =
            |taken: &[bool]| Pipe::adopted(taken.iter().copied()).map(|pipe| pipe.at() - usize::from(PIPES));
        assert_eq!(number(&[]), Some(0));
        assert_eq!(number(&[true, false, true]), Some(1));
        assert_eq!(number(&[true, true]), Some(2));
        assert_eq!(number(&vec![true; usize::from(PIPES_ADOPTED)]), None);
        let mut lending = Lending::new(PIPES);
        assert!(!std::iter::from_fn(|| lending.take(|_| true)).any(|pipe| pipe.is_adopted()));
    }

    #[test]
    fn what_cannot_be_made_is_not_lent_and_asked_for_again() {
        let mut lending = Lending::new(PIPES);
        assert!(lending.take(|_| false).is_none());
        // Descriptors for one pipe: it is the last one, and serves one step at a time.
        assert_eq!(lending.take(|at| at == 0), Some(Pipe::number(0)));
        assert!(lending.take(|at| at == 0).is_none());
        assert_eq!(lending.take(|_| true), Some(Pipe::number(1)));
        lending.give(&Pipe::number(0));
        assert_eq!(lending.count(), usize::from(PIPES) - 1);
    }
}
