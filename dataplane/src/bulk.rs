//! Bulk: one direction's bytes from socket to socket by splice(2), armed by polls. They never enter our memory.
//!
//! What is queued goes first, by copying; then each time that the source is readable one splice takes at most
//! its [`Share`] of the turn's bytes into a pipe, and one passes them on. What the sink does not take stays in the pipe, and nothing
//! more is taken until the sink has room. So a direction holds a pipe only while its sink is the slower side.
//!
//! The last pipe of a shard is never held: what a sink leaves in it is copied out and queued like any bytes. Flows that
//! stall can thus keep all pipes but one for as long as they may stall, and the others go on without copying.

use crate::buf::{Class, Pool};
use crate::io::{Errno, Fd, Io, Pipe, Token};
use crate::limits;
use crate::stream::Stream;

const READABLE: u8 = 1 << 0;
const BEGUN: u8 = 1 << 1;
const REFUSED: u8 = 1 << 2;
const PROMOTED: u8 = 1 << 3;
const STOPPED: u8 = 1 << 4;

/// What the flows that move in one turn share, so that no turn is long because many bytes are there.
#[derive(Debug, Default)]
pub struct Share {
    turn: u64,
    /// Flows that moved in this turn so far, and in the one before.
    flows: usize,
    before: usize,
}

impl Share {
    /// Bytes that one more flow may move in this turn; in a turn they are about as many flows as in the one before.
    pub fn take(&mut self, turn: u64) -> usize {
        if turn != self.turn {
            // A flow whose sink is slow moves every other turn.
            self.before = self.flows.max(self.before / 2);
            (self.turn, self.flows) = (turn, 0);
        }
        self.flows += 1;
        (limits::SPLICE_TURN / self.flows.max(self.before))
            .clamp(limits::SPLICE_STEP_MIN, limits::SPLICE_STEP_MAX)
    }
}

/// How far splicing a direction has come; everything off where its bytes are copied.
#[derive(Debug, Default)]
pub struct Bulk {
    /// Holds what was taken from the source and not by the sink.
    pipe: Option<Pipe>,
    bits: u8,
    /// Receives in a row that were large; once promoted, splices in a row that were small.
    streak: u8,
}

const _: () = assert!(size_of::<Bulk>() == 4, "every tunnel has two");

/// What became of the bytes in the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Poured {
    /// None is left, after so many were passed on.
    All(usize),
    /// So many were passed on; the sink has to make room first, and a completion of its send will say so.
    Waits(usize),
    /// The sink is gone.
    Failed(Errno),
}

/// What a splice from the source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Filled {
    /// So many bytes are in the pipe.
    Bytes(usize),
    /// Nothing is there after all.
    Again,
    /// The source's FIN.
    Eof,
    /// No pipe, or no splice between these two: the rest is to be copied.
    Refused,
    /// The source is gone.
    Failed(Errno),
}

impl Bulk {
    /// The one place that says whether a direction's bytes may go by reference: nobody looks at them or changes them,
    /// none is `held` between receiving and queueing, and neither end is over. A stream that encrypts, a compressor
    /// between source and sink and a mirror beside them say no here.
    pub fn may_splice(&self, source: &Stream, sink: &Stream, held: bool) -> bool {
        !held && self.bits & REFUSED == 0 && !source.is_eof() && !sink.is_finished()
    }

    /// Bytes are on their way in a pipe.
    pub fn is_holding(&self) -> bool {
        self.pipe.is_some()
    }
    /// Bytes were spliced.
    pub fn has_begun(&self) -> bool {
        self.bits & BEGUN != 0
    }
    /// It was tried and cannot be.
    pub fn is_refused(&self) -> bool {
        self.bits & REFUSED != 0
    }
    /// The source has bytes, which wait for the sink to take earlier ones.
    pub fn is_readable(&self) -> bool {
        self.bits & READABLE != 0
    }
    /// A poll said so. Until [`Bulk::fill`] nobody may receive from the source.
    pub fn set_readable(&mut self) {
        self.bits |= READABLE;
    }
    /// Whoever said so is not believed any more: the source may have been received from.
    pub fn forget_readable(&mut self) {
        self.bits &= !READABLE;
    }
    /// The rest is copied.
    pub fn refuse(&mut self) {
        self.bits |= REFUSED;
    }

    /// Passes on what the pipe holds. `token` is the send token of the sink's owner.
    pub fn pour(&mut self, io: &mut impl Io, pool: &mut Pool, sink: &mut Stream, token: Token) -> Poured {
        if !sink.is_drained() {
            return Poured::Waits(0);
        }
        let Some(pipe) = &self.pipe else { return Poured::All(0) };
        let (given, no_memory) = match io.splice_out(pipe, sink.fd) {
            Ok(n) => (n, false),
            Err(Errno(libc::EAGAIN)) => (0, false),
            // None to keep references to these bytes: they go on as copies.
            Err(Errno(libc::ENOMEM | libc::ENOBUFS)) => (0, true),
            Err(errno) => return Poured::Failed(errno),
        };
        if io.held(pipe) == 0 {
            self.drop_pipe(io);
            return Poured::All(given);
        }
        if pipe.is_last() || no_memory {
            self.unload(io, pool, sink);
            sink.flush(io, pool, token);
        }
        if !sink.is_sending() {
            sink.await_writable(io, token);
        }
        Poured::Waits(given)
    }

    /// Queues what the pipe holds and gives the pipe back; it stays where no lease is to be had.
    fn unload(&mut self, io: &mut impl Io, pool: &mut Pool, sink: &mut Stream) {
        let Some(pipe) = &self.pipe else { return };
        while io.held(pipe) > 0 && sink.room() > 0 {
            let class = Class::for_bytes(io.held(pipe)).unwrap_or(Class::Large);
            let Some(mut lease) = pool.take(class) else { return };
            match io.unload(pipe, pool.spare_mut(&mut lease)) {
                Ok(n @ 1..) => {
                    lease.extend(n);
                    sink.push(lease);
                }
                _ => return pool.give_back(lease),
            }
        }
        if io.held(pipe) == 0 {
            self.drop_pipe(io);
        }
    }

    /// Takes up to `most` bytes, at least 1 and not more than this flow's `share` of the turn, of what a poll announced; the
    /// pipe is empty. Afterwards the announcement is used up.
    pub fn fill(
        &mut self,
        io: &mut impl Io,
        source: &mut Stream,
        sink: &mut Stream,
        most: u64,
        share: usize,
    ) -> Filled {
        self.forget_readable();
        let pipe = if sink.allow_splice_out(io) { io.take_pipe() } else { None };
        let Some(pipe) = pipe else { return Filled::Refused };
        let step = if pipe.is_last() { share.min(limits::SPLICE_STEP_LAST) } else { share };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(step);
        let taken = io.splice_in(source.fd, &pipe, most);
        if let Ok(n @ 1..) = taken {
            self.pipe = Some(pipe);
            self.bits |= BEGUN;
            return Filled::Bytes(n);
        }
        io.give_pipe(pipe);
        match taken {
            Ok(_) => {
                source.on_spliced_eof();
                Filled::Eof
            }
            Err(Errno(libc::EAGAIN)) => Filled::Again,
            Err(Errno(libc::EINVAL | libc::ENOMEM | libc::ENOBUFS)) => Filled::Refused,
            Err(errno) => Filled::Failed(errno),
        }
    }

    /// The direction is over, or its sink: what the pipe holds is for nobody.
    pub fn drop_pipe(&mut self, io: &mut impl Io) {
        if let Some(pipe) = self.pipe.take() {
            io.give_pipe(pipe);
        }
    }

    /// Its socket goes to another process: nothing more begins here.
    pub fn stop(&mut self) {
        self.bits |= STOPPED;
    }
    pub fn is_stopped(&self) -> bool {
        self.bits & STOPPED != 0
    }
    /// Gives up the pipe with what it holds, where it holds something.
    pub fn part_with(&mut self, io: &mut impl Io) -> Option<([Fd; 2], usize)> {
        self.pipe.take().map(|pipe| io.part_with(pipe))
    }
    /// Goes on with a pipe that another shard parted with, whose bytes go first.
    pub fn adopt(&mut self, pipe: Pipe) {
        self.pipe = Some(pipe);
        self.bits |= BEGUN | PROMOTED;
    }

    /// It proved to be bulk: it is spliced until [`Bulk::on_spliced`] finds that it trickles.
    pub fn is_promoted(&self) -> bool {
        self.bits & PROMOTED != 0
    }
    /// `n` bytes were received and copied: many, often enough in a row, promote.
    pub fn on_copied(&mut self, n: usize) {
        self.streak = if n >= limits::PROMOTE_BYTES { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= limits::PROMOTE_RECEIVES {
            self.bits |= PROMOTED;
            self.streak = 0;
        }
    }
    /// `n` bytes were spliced: few, often enough in a row, demote.
    pub fn on_spliced(&mut self, n: usize) {
        self.streak = if n < limits::DEMOTE_BYTES { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= limits::DEMOTE_SPLICES {
            self.demote();
        }
    }
    /// Copied from here on, until it proves to be bulk anew.
    pub fn demote(&mut self) {
        self.bits &= !PROMOTED;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_share_a_turn() {
        let mut share = Share::default();
        assert_eq!(share.take(1), limits::SPLICE_STEP_MAX, "alone");
        for turn in 2..10 {
            let taken: Vec<_> = (0..4).map(|_| share.take(turn)).collect();
            assert!(turn == 2 || taken.iter().sum::<usize>() <= limits::SPLICE_TURN, "{taken:?}");
        }
        let all: Vec<_> = (0..100).map(|_| share.take(10)).collect();
        assert_eq!(all[99], limits::SPLICE_STEP_MIN);
        for turn in 11..20 {
            share.take(turn);
        }
        assert_eq!(share.take(20), limits::SPLICE_STEP_MAX, "alone again");
    }

    #[test]
    fn large_receives_in_a_row_promote_and_small_splices_in_a_row_demote() {
        let (much, little) = (limits::PROMOTE_BYTES, limits::DEMOTE_BYTES - 1);
        let mut bulk = Bulk::default();
        for _ in 1..limits::PROMOTE_RECEIVES {
            bulk.on_copied(much);
        }
        bulk.on_copied(much - 1);
        assert!(!bulk.is_promoted(), "a row with a gap");
        (0..limits::PROMOTE_RECEIVES).for_each(|_| bulk.on_copied(much));
        assert!(bulk.is_promoted());
        for _ in 0..100 {
            (1..limits::DEMOTE_SPLICES).for_each(|_| bulk.on_spliced(little));
            bulk.on_spliced(little + 1);
        }
        assert!(bulk.is_promoted());
        (0..limits::DEMOTE_SPLICES).for_each(|_| bulk.on_spliced(little));
        assert!(!bulk.is_promoted());
        bulk.on_copied(much);
        assert!(!bulk.is_promoted(), "from the beginning");
    }
}
