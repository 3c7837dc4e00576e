//! Bytes that the simulated backend receives ahead of being asked ([`Expect::Often`](crate::io::Expect)), as a ring may: what
//! its owner sees of that are polls that end in bytes, and streams that must be taken back before they go elsewhere.

use super::faults::Fault;
use super::io::{SimIo, World};
use super::operations::Verb;
use crate::buf::{Class, Lease, Pool};
use crate::io::{Fd, Token};
use crate::limits::STANDING_BYTES;
use std::collections::VecDeque;

/// Of one stream, by the token of its receives.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) fd: Fd,
    /// Bytes may be taken though none were asked for.
    stands: bool,
    kept: VecDeque<Lease>,
}

impl<W: World> SimIo<W> {
    /// A recv that expects more of the kind ended in bytes.
    pub(super) fn stand(&mut self, fd: Fd, token: Token, pool: &mut Pool) {
        if !self.net.faults.hit(Fault::ReadAhead) {
            return;
        }
        self.ahead.entry(token).or_insert(Ahead { fd, stands: true, kept: VecDeque::new() }).stands = true;
        while self.net.faults.random().one_in(3) && self.swallow(token, pool) {}
    }
    /// Takes some of what is there. False if it took nothing.
    fn swallow(&mut self, token: Token, pool: &mut Pool) -> bool {
        let Some(ahead) = self.ahead.get(&token) else { return false };
        let (fd, kept) = (ahead.fd, self.ahead_of(token));
        let Ok(id) = self.socket_at(fd) else { return false };
        let there = self.net.readable(id).min((STANDING_BYTES as usize).saturating_sub(kept));
        if there == 0 {
            return false;
        }
        let Some(loan) = pool.lend(Class::Small) else { return false };
        let n = self.net.faults.random().between(1, there.min(loan.len as usize) as u64) as usize;
        let lease = self.read_into(&loan, id, n, pool);
        self.note("ahead", token, fd, n as i64);
        self.ahead.get_mut(&token).expect("found before").kept.push_back(lease);
        true
    }
    /// What a recv, or a poll in its place, comes to at once.
    pub(super) fn take_kept(&mut self, token: Token) -> Option<Lease> {
        let ahead = self.ahead.get_mut(&token)?;
        let lease = ahead.kept.pop_front();
        self.forget_ahead(token);
        lease
    }
    fn forget_ahead(&mut self, token: Token) {
        if self.ahead.get(&token).is_some_and(|ahead| !ahead.stands && ahead.kept.is_empty()) {
            self.ahead.remove(&token);
        }
    }
    /// Nothing is taken any more unless it is asked for; perhaps something is first.
    pub(super) fn stand_no_more(&mut self, token: Token, pool: &mut Pool) {
        if !self.stands_now(token) {
            return;
        }
        if self.net.faults.random().one_in(2) {
            self.swallow(token, pool);
        }
        if let Some(ahead) = self.ahead.get_mut(&token) {
            ahead.stands = false;
        }
        self.forget_ahead(token);
    }
    /// A turn begins: what nobody waits for ends.
    pub(super) fn end_loose(&mut self, pool: &mut Pool) {
        let waits = |ahead: &Ahead| {
            let descriptor = self.descriptors[ahead.fd.0 as usize].as_ref();
            descriptor.is_some_and(|d| d.flying[Verb::Recv as usize] || d.flying[Verb::Poll as usize])
        };
        let loose: Vec<_> = self.ahead.iter().filter(|(_, a)| !waits(a)).map(|(token, _)| *token).collect();
        loose.into_iter().for_each(|token| self.stand_no_more(token, pool));
    }
    /// The descriptor is closed: nobody will ask.
    pub(super) fn drop_ahead(&mut self, fd: Fd, pool: &mut Pool) {
        if let Some(ahead) = self.ahead_on(fd).and_then(|token| self.ahead.remove(&token)) {
            ahead.kept.into_iter().for_each(|lease| pool.give_back(lease));
        }
    }
    pub(super) fn stands_now(&self, token: Token) -> bool {
        self.ahead.get(&token).is_some_and(|ahead| ahead.stands)
    }
    /// Bytes that are kept for the recv of a token.
    pub(super) fn ahead_of(&self, token: Token) -> usize {
        self.ahead.get(&token).map_or(0, |ahead| ahead.kept.iter().map(Lease::len).sum())
    }
    /// The token of the receives of a stream of which something is, or may be, ahead.
    pub(super) fn ahead_on(&self, fd: Fd) -> Option<Token> {
        self.ahead.iter().find(|(_, ahead)| ahead.fd == fd).map(|(token, _)| *token)
    }
}
