//! The ring of one shard: queue operations, enter the kernel once per turn, hand completions out.

use super::buf_ring::BufRing;
use super::enter::{Entry as RingEntry, Wait};
use super::fit::{self, RingOptions};
use super::later::Later;
use super::operations::{Operation, Operations, Verb};
use super::pipe::Pipes;
use super::probe::{Features, Unusable};
use super::scratch::Scratch;
use super::standing::Standing;
use super::starved::Starved;
use super::{clock, socket, sqe};
use crate::buf::{Chain, Class, Pool};
use crate::io::{
    Address, Clock, Completion, Errno, Expect, Family, Fd, Interest, Io, Kind, Message, Mono, Outcome, Pipe,
    Shutdown, SocketAddress, SocketOption, Token,
};
use crate::limits;
use io_uring::{IoUring, squeue};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// What a ring did so far, for the statistics and for tests that count system calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Calls of io_uring_enter.
    pub(super) enters: u64,
    /// Entries queued for submission.
    pub(super) sqes: u64,
    /// Completions reaped.
    pub(super) cqes: u64,
    /// Turns at which the kernel had more completions than its queue holds.
    pub(super) overflows: u64,
    /// Completions of no operation in flight: a bug, here or in the kernel.
    pub(super) strays: u64,
    /// Operations refused with EBUSY because as many as the completion queue holds were in flight.
    pub(super) refused: u64,
    /// Receives that found no buffer.
    pub(super) starvations: u64,
}

/// io_uring as the backend of one shard. Not `Send`: a ring belongs to the thread that made it.
///
/// The pool given to [`Io::turn`] is always the same one. It is dropped after the ring, and only once
/// [`Io::in_flight`] is 0 (invariant 15): until then the kernel may write to it.
pub struct Ring {
    pub(super) uring: IoUring,
    pub(super) entry: RingEntry,
    pub(super) operations: Operations,
    /// Small and large.
    pub(super) groups: [BufRing; 2],
    pub(super) starved: [Starved; 2],
    pub(super) later: Later,
    pub(super) standing: Standing,
    /// Entries that found the submission queue full even after it was submitted.
    parked: VecDeque<squeue::Entry>,
    scratch: Scratch,
    pipes: Pipes,
    /// The rings of all shards, by shard: whom messages can reach.
    rings: Arc<[Fd]>,
    /// Completions that the kernel never saw: of receives cancelled while starved, and of what was refused.
    pub(super) local: Vec<Completion>,
    /// Operations to ask for again after this reaping.
    pub(super) again: Vec<Token>,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight())
            .field("starved", &self.starved())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The group that serves a class; tiny buffers are never received into.
pub(super) fn group_of(class: Class) -> usize {
    usize::from(class == Class::Large)
}

impl Ring {
    /// Makes the ring of the calling thread, of half the size and half again where memory is short.
    pub fn new(features: Features, options: RingOptions) -> Result<Self, Unusable> {
        let (uring, groups) = fit::make(&features, options)?;
        // Nothing here needs the kernel's worker threads; if something does, one is enough to show it.
        let _ = uring.submitter().register_iowq_max_workers(&mut [1, 1]);
        let entry = RingEntry::new(&uring, features.no_iowait);
        // A standing receive is one operation, and may complete as often in one turn as there are buffers.
        let many = uring.params().cq_entries() >= 2 * u32::from(limits::RING_SMALL_BUFFERS);
        Ok(Self {
            uring,
            entry,
            operations: Operations::default(),
            groups,
            starved: [Starved::default(), Starved::default()],
            later: Later::default(),
            standing: Standing::new(features.standing && many),
            parked: VecDeque::new(),
            scratch: Scratch::new(),
            pipes: Pipes::default(),
            rings: Arc::new([]),
            local: Vec::new(),
            again: Vec::new(),
            clock: clock::now(),
            counters: Counters::default(),
        })
    }

    /// The sizes that it has, which may be smaller than those that were asked for.
    pub fn sizes(&self) -> RingOptions {
        let made = self.uring.params();
        RingOptions { submission_entries: made.sq_entries(), completion_entries: made.cq_entries() }
    }
    /// By which other rings reach this one, for as long as it lives.
    pub fn fd(&self) -> Fd {
        Fd(self.uring.as_raw_fd())
    }
    /// The rings of all shards, by shard: from now on [`Io::post`] reaches them.
    pub fn connect_shards(&mut self, rings: Arc<[Fd]>) {
        self.rings = rings;
    }

    /// Calls of io_uring_enter so far.
    pub fn enters(&self) -> u64 {
        self.counters.enters
    }
    /// Entries queued for submission so far.
    pub fn sqes(&self) -> u64 {
        self.counters.sqes
    }
    /// Completions reaped so far.
    pub fn cqes(&self) -> u64 {
        self.counters.cqes
    }
    /// Turns at which the kernel had more completions than its queue holds.
    pub fn overflows(&self) -> u64 {
        self.counters.overflows
    }
    /// Completions of no operation in flight; always 0.
    pub fn strays(&self) -> u64 {
        self.counters.strays
    }
    /// Operations refused with EBUSY because the completion queue could not have held more.
    pub fn refused(&self) -> u64 {
        self.counters.refused
    }
    /// Receives that found no buffer so far.
    pub fn starvations(&self) -> u64 {
        self.counters.starvations
    }

    /// Takes every buffer back from the kernel, before the ring is dropped. False, and nothing done, while operations are
    /// in flight: then the pool must outlive the ring, or be leaked.
    pub fn reclaim(&mut self, pool: &mut Pool) -> bool {
        if self.operations.count() > 0 {
            return false;
        }
        for group in &mut self.groups {
            group.unregister(&self.uring.submitter());
            group.reclaim(pool);
        }
        true
    }

    /// Queues an entry. What it points to is alive by the rules of this module. Inlined, so that an entry is made where it
    /// is queued: read back in wider pieces than it was written in, it would wait for the stores before it.
    #[inline(always)]
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        self.counters.sqes += 1;
        if !self.parked.is_empty() || !self.try_push(&entry) {
            self.push_full(entry);
        }
    }

    #[cold]
    fn push_full(&mut self, entry: squeue::Entry) {
        self.flush();
        if !self.parked.is_empty() || !self.try_push(&entry) {
            self.parked.push_back(entry);
        }
    }

    #[inline(always)]
    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: payloads stay alive until their completion, because the caller of `Io` keeps the leases (invariant 1);
        // headers and addresses are in `scratch` and stay until everything queued was submitted.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Submits what is queued, without waiting, because the queue or the scratch is full in the middle of a turn.
    pub(super) fn flush(&mut self) {
        let pending = self.pending();
        // A failure leaves the entries queued; the turn meets it again and reports it.
        let _ = self.call(pending, Wait::No);
    }

    fn pending(&mut self) -> u32 {
        u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX)
    }

    /// One io_uring_enter; afterwards parked entries move up and the scratch is free again if nothing is queued.
    pub(super) fn call(&mut self, pending: u32, wait: Wait) -> Result<u32, Errno> {
        self.counters.enters += 1;
        let result = self.entry.enter(pending, wait);
        if self.parked.is_empty() && self.pending() == 0 {
            self.scratch.reset();
        }
        while let Some(entry) = self.parked.pop_front() {
            if !self.try_push(&entry) {
                self.parked.push_front(entry);
                break;
            }
        }
        result
    }

    /// Submits and waits, in the one system call of a turn; in none when nothing is queued, the kernel has no work to do
    /// for us and completions are there already.
    fn submit_and_wait(&mut self, until: Mono) -> Result<(), Errno> {
        let ready = !self.local.is_empty() || !self.uring.completion().is_empty();
        let queue = self.uring.submission();
        let (pending, kernel_work) = (queue.len(), queue.taskrun() || queue.cq_overflow());
        self.counters.overflows += u64::from(queue.cq_overflow());
        drop(queue);
        if ready && pending == 0 && !kernel_work {
            return Ok(());
        }
        // The clock of the last turn: whoever waits does so a little long rather than read it twice (invariant 7).
        let left = until.since(self.clock.mono);
        let wait = match left {
            _ if ready || left == 0 || self.can_feed() => Wait::No,
            _ if until == Mono::MAX => Wait::Forever,
            nanos => Wait::For(nanos),
        };
        let pending = u32::try_from(pending).unwrap_or(u32::MAX);
        match self.call(pending, wait) {
            Ok(_) | Err(Errno(libc::EINTR | libc::ETIME)) => Ok(()),
            // No memory for requests, or completions of old ones in the way: reap first. The entries stay queued.
            Err(Errno(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) if ready => Ok(()),
            Err(Errno(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => self.pause(),
            Err(errno) => Err(errno),
        }
    }

    /// Submission is stuck: waits shortly for a completion to make room.
    fn pause(&mut self) -> Result<(), Errno> {
        const PAUSE_NANOS: u64 = 1_000_000;
        match self.call(0, Wait::For(PAUSE_NANOS)) {
            Err(errno) if fatal(errno) => Err(errno),
            // Not even that: the thread rests, so that it does not spin.
            Err(Errno(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => {
                std::thread::park_timeout(Duration::from_nanos(PAUSE_NANOS));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Books an operation, unless the completion queue could not hold its answer (invariant 3).
    pub(super) fn admit(&mut self, verb: Verb, fd: Fd, token: Token) -> bool {
        self.admit_with(Operation::new(verb, fd.0), token)
    }

    /// Whether the completion queue could hold the answers of so many operations more.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let starved: usize = self.starved.iter().map(Starved::count).sum();
        self.operations.count() - starved + more <= self.uring.params().cq_entries() as usize
    }

    fn admit_with(&mut self, operation: Operation, token: Token) -> bool {
        if self.has_room(1) {
            self.operations.insert(token, operation);
            return true;
        }
        self.counters.refused += 1;
        self.fail(token, libc::EBUSY);
        false
    }

    pub(super) fn fail(&mut self, token: Token, errno: i32) {
        self.local.push(Completion { token, outcome: Outcome::Failed(Errno(errno)), more: false });
    }
}

impl Io for Ring {
    fn turn(&mut self, pool: &mut Pool, until: Mono, out: &mut Vec<Completion>) -> Result<Clock, Errno> {
        let before = out.len();
        self.end_loose(pool);
        loop {
            self.feed(pool);
            self.ask_later(self.clock.mono);
            self.end_idle();
            self.submit_and_wait(until.min(self.later.due()).min(self.standing.due()))?;
            self.reap(pool, out);
            out.append(&mut self.local);
            self.clock = clock::now();
            if out.len() > before || self.clock.mono >= until {
                return Ok(self.clock);
            }
        }
    }

    fn accept(&mut self, listener: Fd, token: Token) {
        if self.admit(Verb::Accept, listener, token) {
            self.push(sqe::accept(listener.0, token));
        }
    }
    fn recv(&mut self, fd: Fd, class: Class, expect: Expect, token: Token) {
        let index = group_of(class);
        self.groups[index].wanted();
        if self.serve(fd, class, expect, token) {
            return;
        }
        if self.admit(Verb::Recv(class), fd, token) {
            let group = self.groups[index].id();
            let most = if expect == Expect::Head { limits::HEAD_ALONE } else { 0 };
            self.push(sqe::recv(fd.0, group, most, expect != Expect::Now, token));
        }
    }
    fn send(&mut self, fd: Fd, chain: &Chain, pool: &Pool, token: Token) {
        let mut leases = chain.iter().filter(|l| !l.is_empty());
        let Some(lease) = leases.next() else { return self.fail(token, libc::EINVAL) };
        let (address, len) = pool.address(lease);
        let mut operation = Operation::new(Verb::Send, fd.0);
        (operation.first, operation.first_len) = (address, u32::try_from(len).unwrap_or(u32::MAX));
        if !self.admit_with(operation, token) {
            return;
        }
        if self.scratch.is_full() {
            self.flush();
        }
        let message = if leases.next().is_some() { self.scratch.message(chain, pool) } else { None };
        // Without room for a message the first lease goes alone: a short count is always allowed.
        self.push(match message {
            Some(message) => sqe::send_message(fd.0, message, token),
            None => sqe::send(fd.0, operation.first, operation.first_len, token),
        });
    }
    fn connect(&mut self, fd: Fd, to: &Address, token: Token) {
        if self.scratch.is_full() {
            self.flush();
        }
        let Some((address, len)) = self.scratch.address(to) else { return self.fail(token, libc::EBUSY) };
        if self.admit(Verb::Connect, fd, token) {
            self.push(sqe::connect(fd.0, address, len, token));
        }
    }
    fn poll(&mut self, fd: Fd, interest: Interest, token: Token) {
        if interest == Interest::Readable && self.poll_beside(fd, Verb::Poll(interest), token) {
            return;
        }
        if self.admit(Verb::Poll(interest), fd, token) {
            self.push(sqe::poll(fd.0, interest, token));
        }
    }
    fn close(&mut self, fd: Fd, token: Token) {
        if self.close_beside(fd, token) {
            return;
        }
        if self.operations.count() < self.uring.params().cq_entries() as usize {
            self.operations.insert(token, Operation::new(Verb::Close, fd.0));
            self.push(sqe::close(fd.0, token));
        } else {
            // A close must never be refused: the descriptor would be lost.
            socket::close(fd);
            self.local.push(Completion { token, outcome: Outcome::Closed, more: false });
        }
    }
    fn post(&mut self, shard: u16, message: Message, token: Token) {
        let Some(ring) = self.rings.get(usize::from(shard)).copied() else {
            return self.fail(token, libc::EBADF);
        };
        if self.admit(Verb::Post, ring, token) {
            self.push(sqe::post(ring.0, message, token));
        }
    }
    fn cancel(&mut self, target: Token) {
        let Some(operation) = self.operations.get(target) else { return };
        if operation.cancelling || self.cancel_beside(target) {
            return;
        }
        self.operations.set_cancelling(target);
        let Verb::Recv(class) = operation.verb else {
            return self.push(sqe::cancel(target, Token::new(Kind::Backend, 0, 0)));
        };
        if !operation.starved {
            return self.push(sqe::cancel(target, Token::new(Kind::Backend, 0, 0)));
        }
        self.end_starved(class, target, Outcome::Failed(Errno(libc::ECANCELED)));
    }

    fn socket(&mut self, family: Family) -> Result<Fd, Errno> {
        socket::socket(family)
    }
    fn set_option(&mut self, fd: Fd, option: SocketOption) -> Result<(), Errno> {
        socket::set_option(fd, option)
    }
    fn bind(&mut self, fd: Fd, to: &Address) -> Result<(), Errno> {
        socket::bind(fd, to)
    }
    fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno> {
        socket::listen(fd, backlog)
    }
    fn shutdown(&mut self, fd: Fd, how: Shutdown) -> Result<(), Errno> {
        if how == Shutdown::Both && self.starved() > 0 {
            self.end_starved_of(fd);
        }
        socket::shutdown(fd, how)
    }
    fn local_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        socket::local_address(fd)
    }
    fn carried(&mut self, fd: Fd) -> Result<(u64, u64), Errno> {
        socket::carried(fd)
    }
    fn peer_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        socket::peer_address(fd)
    }
    fn unacknowledged(&mut self, fd: Fd) -> Result<u32, Errno> {
        socket::unacknowledged(fd)
    }
    fn unread(&mut self, fd: Fd) -> Result<u32, Errno> {
        let ahead = u32::try_from(self.kept_of(fd)).unwrap_or(u32::MAX);
        Ok(socket::unread(fd)?.saturating_add(ahead))
    }
    fn take_pipe(&mut self) -> Option<Pipe> {
        self.pipes.take()
    }
    fn give_pipe(&mut self, pipe: Pipe) {
        self.pipes.give(&pipe);
    }
    fn pipes_lent(&self) -> usize {
        self.pipes.lent_count()
    }
    fn held(&self, pipe: &Pipe) -> usize {
        self.pipes.held(pipe)
    }
    fn splice_in(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        if self.is_ahead_on(from) {
            return Err(Errno(libc::EAGAIN));
        }
        self.pipes.splice_in(from, pipe, most)
    }
    fn splice_out(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno> {
        self.pipes.splice_out(pipe, to)
    }
    fn unload(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno> {
        self.pipes.unload(pipe, to)
    }
    fn part_with(&mut self, pipe: Pipe) -> ([Fd; 2], usize) {
        self.pipes.part_with(&pipe)
    }
    fn adopt_pipe(&mut self, ends: [Fd; 2], held: usize) -> Option<Pipe> {
        self.pipes.adopt(ends, held)
    }
    fn discard(&mut self, fd: Fd) {
        socket::close(fd);
    }
    fn clear_event(&mut self, fd: Fd) {
        socket::clear_event(fd);
    }

    fn stands(&self, recv: Token) -> bool {
        self.stands_for(recv)
    }
    fn ahead(&self, fd: Fd) -> usize {
        self.kept_of(fd)
    }
    fn take_ahead(&mut self, fd: Fd, pool: &mut Pool) -> Vec<u8> {
        self.take_all_kept(fd, pool)
    }

    fn starved(&self) -> usize {
        self.starved.iter().map(Starved::count).sum()
    }
    fn in_flight(&self) -> usize {
        self.operations.count() + self.local.len() + self.standing.leases()
    }
}

/// What no turn can go on after.
pub(super) fn fatal(errno: Errno) -> bool {
    !matches!(errno.0, libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
}
