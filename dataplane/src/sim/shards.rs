//! Several shards in one simulation: one machine, one clock, one table of descriptors; each shard has a ring of its own.
//!
//! A turn never waits then. Whoever drives the shards asks [`SimIo::next_shard`] whose turn it is: one of those that have
//! something to see or a deadline to keep, drawn by the seed; when nobody has, the clock moves on.

use super::ahead::Ahead;
use super::completions::Ready;
use super::faults::Fault;
use super::io::{SimIo, World};
use super::net::Notice;
use super::operations::{Submission, Verb};
use crate::io::{Completion, Errno, Fd, Message, Mono, Outcome, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::swap;

/// The ring of a shard that does not have its turn.
#[derive(Debug, Default)]
pub(super) struct Side {
    submissions: Vec<Submission>,
    live: BTreeMap<Token, (Fd, Verb)>,
    ready: BTreeMap<(Mono, u64), Ready>,
    starving: BTreeSet<Fd>,
    ahead: BTreeMap<Token, Ahead>,
    late_cancels: Vec<(Mono, Token)>,
    former: BTreeMap<(u8, u32), u32>,
    missed: Vec<Notice>,
    /// Nothing to do for it before this, as far as it knows.
    pub(super) sleeps_until: Mono,
    /// Its ring is closed.
    gone: bool,
}

impl<W: World> SimIo<W> {
    /// As many shards, instead of one.
    #[must_use]
    pub fn with_shards(mut self, count: u16) -> Self {
        self.sides = (0..count.max(1)).map(|_| Side::default()).collect();
        self
    }
    /// Gives `shard` its turn: from now on it is its ring that is spoken to.
    pub fn select(&mut self, shard: u16) {
        self.exchange();
        self.shard = shard;
        self.exchange();
    }
    /// Whose turn it is.
    pub fn selected(&self) -> u16 {
        self.shard
    }
    /// Completions of the shard that has its turn which it was not handed yet.
    pub fn unseen(&self) -> usize {
        self.ready.len()
    }
    /// The ring of the shard that has its turn is closed, with nothing in flight.
    pub fn leave(&mut self) {
        assert!(
            self.live.is_empty() && self.submissions.is_empty(),
            "a ring was closed with something in flight"
        );
        assert!(self.ready.is_empty(), "a ring was closed over a message: {:?}", self.ready);
        self.sides[usize::from(self.shard)].gone = true;
    }
    /// Lets the network and the peers go on until then, once no shard is left.
    pub fn pass(&mut self, until: Mono) {
        loop {
            self.cover();
            match self.net.next_at() {
                Some(next) if next <= until => self.net.now = self.net.now.max(next),
                _ => break,
            }
        }
        self.net.now = self.net.now.max(until);
    }
    fn exchange(&mut self) {
        let side = &mut self.sides[usize::from(self.shard)];
        swap(&mut self.submissions, &mut side.submissions);
        swap(&mut self.live, &mut side.live);
        swap(&mut self.ready, &mut side.ready);
        swap(&mut self.starving, &mut side.starving);
        swap(&mut self.ahead, &mut side.ahead);
        swap(&mut self.late_cancels, &mut side.late_cancels);
        swap(&mut self.former, &mut side.former);
        swap(&mut self.missed, &mut side.missed);
    }

    /// The next shard to have its turn, selected; none once all are gone. Moves the clock on, no further than `until`,
    /// while nobody has anything to do.
    pub fn next_shard(&mut self, until: Mono) -> Option<u16> {
        loop {
            self.cover();
            let mut wakes = Vec::new();
            for shard in 0..self.sides.len() as u16 {
                self.select(shard);
                if !self.sides[usize::from(shard)].gone {
                    wakes.push((self.wakes_at(), shard));
                }
            }
            let first = wakes.iter().min()?.0;
            let mut awake: Vec<u16> = wakes.iter().filter(|w| w.0 <= self.net.now).map(|w| w.1).collect();
            if awake.is_empty() {
                let next = self.net.next_at().map_or(first, |at| at.min(first)).min(until);
                if next > self.net.now {
                    self.net.now = next;
                    continue;
                }
                // As long as asked: somebody has a turn for nothing, as after a spurious wake-up.
                awake.extend(wakes.iter().map(|w| w.1));
            }
            let shard = self.net.faults.random().pick(&awake);
            self.select(shard);
            return Some(shard);
        }
    }
    /// Lets the network and the peers do all that is due, while no shard has its turn.
    fn cover(&mut self) {
        while let Some(notice) = self.net.step() {
            self.tell(notice, None);
        }
    }
    /// When the selected shard has something to do.
    fn wakes_at(&self) -> Mono {
        if !self.submissions.is_empty() || !self.missed.is_empty() {
            return Mono(0);
        }
        let ready = self.ready.first_key_value().map(|((at, _), _)| *at);
        let late = self.late_cancels.iter().map(|(at, _)| *at).min();
        let sleeps_until = self.sides[usize::from(self.shard)].sleeps_until;
        [ready, late, self.next_meal()].into_iter().flatten().fold(sleeps_until, Mono::min)
    }
    /// Something happened on a descriptor of a shard that does not have its turn.
    pub(super) fn miss(&mut self, shard: u16, notice: Notice) {
        let missed = match shard == self.shard {
            true => &mut self.missed,
            false => &mut self.sides[usize::from(shard)].missed,
        };
        if !missed.contains(&notice) {
            missed.push(notice);
        }
    }

    pub(super) fn start_post(&mut self, shard: u16, message: Message, token: Token) {
        const NOBODY: Fd = Fd(-1);
        self.note("post", token, NOBODY, i64::from(shard));
        let double = self.live.insert(token, (NOBODY, Verb::Post));
        assert!(double.is_none(), "{token:?} is in flight already");
        let fails = match self.sides.get(usize::from(shard)) {
            None => Some(libc::EBADF),
            Some(side) if side.gone => Some(libc::EBADFD),
            Some(_) if self.net.faults.hit(Fault::PostFails) => Some(libc::ENOMEM),
            Some(_) => None,
        };
        if let Some(errno) = fails {
            return self.complete(NOBODY, Verb::Post, token, Outcome::Failed(Errno(errno)));
        }
        self.complete(NOBODY, Verb::Post, token, Outcome::Posted);
        if self.swallows_message() {
            return;
        }
        let at = self.seen_at();
        let arrival =
            Completion { token: message.encode().0, outcome: Outcome::Message(message), more: false };
        let sender = self.shard;
        self.select(shard);
        self.enqueue(at, NOBODY, Verb::Post, arrival, None);
        self.select(sender);
    }
}
