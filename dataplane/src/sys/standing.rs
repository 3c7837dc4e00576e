//! Receives that stand: where messages are small and many, the kernel goes on receiving by itself (a multishot receive,
//! io_uring_prep_recv_multishot(3)), and nothing is submitted, looked up or armed for the next one.
//!
//! The shard sees nothing of it: a recv that it asks for is *served* by the standing one of its slot, and ends in what that
//! brings. What comes while no recv is asked for is kept, in order, and a standing receive that nobody waits on when a turn
//! begins is ended. Little is ever kept: the kernel ends each by itself once [`STANDING_BYTES`] have come. Whatever must not run
//! beside it, a poll, a close, another receive, waits until it has ended.

use super::operations::{Operation, Verb};
use super::ring::{Ring, group_of};
use super::sqe;
use crate::buf::{Class, Lease, Pool};
use crate::io::{Completion, Errno, Expect, Fd, Kind, Mono, Outcome, Token};
use crate::limits::{STANDING_BYTES, STANDING_PATIENCE};
use io_uring::cqueue;
use std::collections::VecDeque;

/// What the standing receives of a ring need beside their operations.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// There may be any ([`Features::standing`](super::Features)), and the completion queue is not a small one.
    allowed: bool,
    /// Those on which perhaps nobody waits, with their descriptors.
    loose: Vec<(Fd, Token)>,
    /// What came unasked, ordered by descriptor. Almost always empty.
    kept: Vec<(Fd, Kept)>,
    /// Queues of what was kept, empty, to be used again.
    spare: Vec<VecDeque<Lease>>,
    /// Of closed descriptors; the pool gets them at the next turn.
    dropped: Vec<Lease>,
    /// All of them, some more than once, and when they are looked at; not at all while there are none.
    all: Vec<Token>,
    look_at: Option<Mono>,
}

/// What came for a recv that was not asked for.
#[derive(Debug, Default)]
struct Kept {
    leases: VecDeque<Lease>,
    /// It ended so, behind the bytes: an error is told to one receive only.
    failed: Option<Errno>,
}

/// What one completion of a standing receive says.
enum Said {
    Bytes(Lease),
    Eof,
    /// 0 where it says nothing.
    Failed(i32),
}

impl Standing {
    /// `allowed`: whether there may be any.
    pub(super) fn new(allowed: bool) -> Self {
        Self { allowed, ..Self::default() }
    }
    /// The place of what is kept of a stream, or where it would be.
    fn find(&self, fd: Fd) -> Result<usize, usize> {
        self.kept.binary_search_by_key(&fd, |(of, _)| *of)
    }
    fn kept(&mut self, fd: Fd) -> &mut Kept {
        let at = self.find(fd).unwrap_or_else(|at| {
            let leases = self.spare.pop().unwrap_or_default();
            self.kept.insert(at, (fd, Kept { leases, failed: None }));
            at
        });
        &mut self.kept[at].1
    }
    /// Keeps bytes behind those that are kept, in the same buffer where they fit, in the smallest where they are few.
    fn keep(&mut self, fd: Fd, lease: Lease, pool: &mut Pool) {
        let leases = &mut self.kept(fd).leases;
        if let Some(last) = leases.back_mut().filter(|last| last.spare() >= lease.len()) {
            pool.append_lease(last, &lease);
            return pool.give_back(lease);
        }
        let fits = Class::for_bytes(lease.len()).is_some_and(|class| class < lease.class());
        match fits.then(|| pool.copy(&lease)).flatten() {
            Some(small) => {
                leases.push_back(small);
                pool.give_back(lease);
            }
            None => leases.push_back(lease),
        }
    }
    /// The next of what was kept.
    fn take(&mut self, fd: Fd) -> Option<Outcome> {
        let at = self.find(fd).ok()?;
        let (_, kept) = &mut self.kept[at];
        let outcome = match kept.leases.pop_front() {
            Some(lease) => Some(Outcome::Received(lease)),
            None => kept.failed.take().map(Outcome::Failed),
        };
        if kept.leases.is_empty() && kept.failed.is_none() {
            self.forget(fd);
        }
        outcome
    }
    /// Bytes that are kept of a stream.
    fn bytes(&self, fd: Fd) -> usize {
        self.find(fd).map_or(0, |at| self.kept[at].1.leases.iter().map(Lease::len).sum())
    }
    fn forget(&mut self, fd: Fd) {
        if let Ok(at) = self.find(fd) {
            let (_, mut kept) = self.kept.remove(at);
            self.dropped.extend(kept.leases.drain(..));
            self.spare.push(kept.leases);
        }
    }
    /// Buffers that are nobody's operation.
    pub(super) fn leases(&self) -> usize {
        self.dropped.len() + self.kept.iter().map(|(_, kept)| kept.leases.len()).sum::<usize>()
    }
    /// When those that bring nothing are to be looked for.
    pub(super) fn due(&self) -> Mono {
        self.look_at.unwrap_or(Mono::MAX)
    }
}

/// The operation that stands beside the recv, or the close, of a token.
fn beside(token: Token) -> Option<Token> {
    let kind = match token.kind() {
        Kind::ConnRecv | Kind::ConnClose => Kind::ConnStanding,
        Kind::LinkRecv | Kind::LinkClose => Kind::LinkStanding,
        _ => return None,
    };
    Some(Token::new(kind, token.slot(), token.generation()))
}

/// The recv and the close of a standing receive's slot.
pub(super) fn served(standing: Token) -> [Token; 2] {
    let kinds = match standing.kind() {
        Kind::ConnStanding => [Kind::ConnRecv, Kind::ConnClose],
        _ => [Kind::LinkRecv, Kind::LinkClose],
    };
    kinds.map(|kind| Token::new(kind, standing.slot(), standing.generation()))
}

impl Ring {
    /// The standing receive beside the recv, poll or close of `token`, if there is one.
    fn stands_beside(&mut self, token: Token) -> Option<(Token, Operation)> {
        let standing = beside(token)?;
        Some((standing, self.operations.get(standing)?))
    }
    pub(super) fn stands_for(&self, token: Token) -> bool {
        beside(token).is_some_and(|standing| self.operations.has(standing))
    }

    /// Has a recv served by a standing receive: by the one that is there, or a new one if such is asked for. False where it is
    /// to be submitted by itself.
    pub(super) fn serve(&mut self, fd: Fd, class: Class, expect: Expect, token: Token) -> bool {
        if let Some((standing, operation)) = self.stands_beside(token) {
            if self.admit(Verb::Recv(class), fd, token) && expect != Expect::Often {
                self.end_standing(standing, operation);
            }
            return true;
        }
        if let Some(outcome) = self.take_kept(fd) {
            self.local.push(Completion { token, outcome, more: false });
            return true;
        }
        let Some(standing) = beside(token).filter(|_| expect == Expect::Often && class == Class::Small)
        else {
            return false;
        };
        if !self.standing.allowed || !self.has_room(2) {
            return false;
        }
        self.operations.insert(token, Operation::new(Verb::Recv(class), fd.0));
        self.operations.insert(standing, Operation::new(Verb::Stand, fd.0));
        self.operations.set_lively(standing);
        self.enlist(standing);
        self.push(sqe::recv_standing(fd.0, self.groups[group_of(class)].id(), STANDING_BYTES, standing));
        true
    }

    /// Has a poll in the place of a recv wait for the end of what stands there, or end in what was kept. False where it is to be
    /// submitted.
    pub(super) fn poll_beside(&mut self, fd: Fd, verb: Verb, token: Token) -> bool {
        if let Some((standing, operation)) = self.stands_beside(token) {
            if self.admit(verb, fd, token) {
                self.end_standing(standing, operation);
            }
            return true;
        }
        let kept = self.take_kept(fd);
        let found = kept.is_some();
        self.local.extend(kept.map(|outcome| Completion { token, outcome, more: false }));
        found
    }

    /// Has the close of a descriptor wait for the end of what stands there. False where it is to be submitted.
    pub(super) fn close_beside(&mut self, fd: Fd, token: Token) -> bool {
        let Some(standing) = beside(token) else { return false };
        self.standing.forget(fd);
        let Some(operation) = self.operations.get(standing) else { return false };
        self.operations.insert(token, Operation::new(Verb::Close, fd.0));
        self.end_standing(standing, operation);
        true
    }

    /// Has the end of a recv or poll wait for the end of what stands there. False where nothing does.
    pub(super) fn cancel_beside(&mut self, target: Token) -> bool {
        let Some((standing, operation)) = self.stands_beside(target) else { return false };
        self.operations.set_cancelling(target);
        self.end_standing(standing, operation);
        true
    }

    /// Has it looked at. The list grows with how many there are, not with how often one was begun anew.
    fn enlist(&mut self, standing: Token) {
        let Self { standing: Standing { all, look_at, .. }, operations, clock, .. } = self;
        if all.len() == all.capacity() {
            all.sort_unstable();
            all.dedup();
            all.retain(|standing| operations.has(*standing));
            if all.len() * 2 >= all.capacity() {
                all.reserve(all.len().max(64));
            }
        }
        all.push(standing);
        look_at.get_or_insert_with(|| clock.mono.after(STANDING_PATIENCE));
    }

    fn end_standing(&mut self, standing: Token, operation: Operation) {
        if !operation.cancelling {
            self.operations.set_cancelling(standing);
            self.push(sqe::cancel(standing, Token::new(Kind::Backend, 0, 0)));
        }
    }

    fn take_kept(&mut self, fd: Fd) -> Option<Outcome> {
        if self.standing.kept.is_empty() { None } else { self.standing.take(fd) }
    }

    /// What was received on a stream ahead of being asked for, once nothing stands there any more.
    pub(super) fn take_all_kept(&mut self, fd: Fd, pool: &mut Pool) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(outcome) = self.take_kept(fd) {
            if let Outcome::Received(lease) = outcome {
                bytes.extend_from_slice(pool.bytes(&lease));
                pool.give_back(lease);
            }
        }
        bytes
    }
    pub(super) fn kept_of(&self, fd: Fd) -> usize {
        if self.standing.kept.is_empty() { 0 } else { self.standing.bytes(fd) }
    }
    /// Bytes may be taken from this socket, or something was, that its owner has not seen.
    pub(super) fn is_ahead_on(&self, fd: Fd) -> bool {
        self.standing.loose.iter().any(|(of, _)| *of == fd) || self.standing.find(fd).is_ok()
    }

    /// Ends those that have brought nothing since the last look: a receive by itself waits in their place. The kernel may lose
    /// the end of a stream that came with its last bytes (io_uring/poll.c before a68ed2df7213 of Linux 7.0; [`super::sound`] finds
    /// that out, but for what fits between two of its instructions): so it is lost for two looks at most.
    pub(super) fn end_idle(&mut self) {
        if self.clock.mono < self.standing.due() {
            return;
        }
        let mut all = std::mem::take(&mut self.standing.all);
        all.sort_unstable();
        all.dedup();
        all.retain(|standing| {
            let Some(operation) = self.operations.get(*standing) else { return false };
            let lively = self.operations.take_lively(*standing);
            if !lively {
                self.end_standing(*standing, operation);
            }
            lively
        });
        self.standing.look_at = (!all.is_empty()).then(|| self.clock.mono.after(STANDING_PATIENCE));
        self.standing.all = all;
    }

    /// Ends what stands though nobody waits for it, and gives back what nobody will take.
    pub(super) fn end_loose(&mut self, pool: &mut Pool) {
        while let Some(lease) = self.standing.dropped.pop() {
            pool.give_back(lease);
        }
        for at in (0..self.standing.loose.len()).rev() {
            let (_, standing) = self.standing.loose[at];
            let waited_for = self.operations.has(served(standing)[0]);
            let alone = if waited_for { None } else { self.operations.get(standing) };
            match alone {
                Some(operation) => self.end_standing(standing, operation),
                None => drop(self.standing.loose.swap_remove(at)),
            }
        }
    }

    /// A standing receive brought bytes, or ended.
    pub(super) fn stood(
        &mut self,
        standing: Token,
        cqe: &cqueue::Entry,
        pool: &mut Pool,
        out: &mut Vec<Completion>,
    ) {
        let ends = !cqueue::more(cqe.flags());
        let operation = if ends { self.operations.remove(standing) } else { self.operations.get(standing) };
        let said = self.said(cqe, pool);
        let Some(operation) = operation else {
            self.counters.strays += 1;
            debug_assert!(false, "a completion of nothing in flight: {standing:?}");
            if let Said::Bytes(lease) = said {
                pool.give_back(lease);
            }
            return;
        };
        let ([recv, close], fd) = (served(standing), Fd(operation.fd));
        let awaited =
            self.operations.get(recv).is_some_and(|op| matches!(op.verb, Verb::Recv(_)) && !op.cancelling);
        let said = match said {
            Said::Bytes(lease) if awaited && !operation.cancelling => {
                self.operations.remove(recv);
                if !ends {
                    self.operations.set_lively(standing);
                    self.standing.loose.push((fd, standing));
                }
                return out.push(Completion { token: recv, outcome: Outcome::Received(lease), more: false });
            }
            Said::Bytes(lease) => {
                if self.operations.has(close) {
                    pool.give_back(lease);
                } else {
                    self.standing.keep(fd, lease, pool);
                }
                // More comes than is asked for.
                self.end_standing(
                    standing,
                    Operation { cancelling: operation.cancelling || ends, ..operation },
                );
                Said::Failed(0)
            }
            said => said,
        };
        if ends {
            self.stands_no_more(recv, close, fd, &said, out);
        }
    }

    fn said(&mut self, cqe: &cqueue::Entry, pool: &mut Pool) -> Said {
        let group = &mut self.groups[group_of(Class::Small)];
        match (cqueue::buffer_select(cqe.flags()), cqe.result()) {
            (Some(id), result @ 1..) => Said::Bytes(group.received(id, result.unsigned_abs(), pool)),
            (unused, result) => {
                // The end of the stream and errors may come with a buffer that was picked and not used.
                unused.into_iter().for_each(|id| group.unused(id, pool));
                if result == 0 { Said::Eof } else { Said::Failed(-result) }
            }
        }
    }

    /// It ended: whatever waited for that goes on.
    fn stands_no_more(&mut self, recv: Token, close: Token, fd: Fd, said: &Said, out: &mut Vec<Completion>) {
        if self.operations.has(close) {
            self.standing.forget(fd);
            return self.push(sqe::close(fd.0, close));
        }
        let failed = match said {
            Said::Failed(errno) if !is_undone(*errno) => Some(Errno(*errno)),
            _ => None,
        };
        let Some(waiting) = self.operations.get(recv) else {
            if failed.is_some() {
                self.standing.kept(fd).failed = failed;
            }
            return;
        };
        let outcome = self.take_kept(fd).or_else(|| match (said, waiting.verb) {
            (Said::Eof, Verb::Recv(_)) => Some(Outcome::Eof),
            _ if failed.is_some() => failed.map(Outcome::Failed),
            _ if waiting.cancelling => Some(Outcome::Failed(Errno(libc::ECANCELED))),
            _ => None,
        });
        match (outcome, said) {
            (Some(outcome), _) => {
                self.operations.remove(recv);
                if let (Outcome::Received(_), Some(_)) = (&outcome, failed) {
                    self.standing.kept(fd).failed = failed;
                }
                out.push(Completion { token: recv, outcome, more: false });
            }
            (None, Said::Failed(libc::ENOMEM)) => self.later.push(recv, self.clock.mono),
            (None, Said::Failed(libc::ENOBUFS)) => match waiting.verb {
                Verb::Recv(class) => {
                    self.operations.remove(recv);
                    self.operations.insert(recv, Operation { starved: true, ..waiting });
                    self.starve(class, recv);
                }
                _ => self.again.push(recv),
            },
            (None, _) => self.again.push(recv),
        }
    }
}

/// The errno values by which a standing receive ends without having met anything; 0 is none.
fn is_undone(errno: i32) -> bool {
    matches!(
        errno,
        0 | libc::ECANCELED | libc::EINVAL | libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM
    )
}
