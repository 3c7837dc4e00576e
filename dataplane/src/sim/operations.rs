//! How the simulated kernel carries out submitted operations: start, wait for the network, complete, cancel.

use super::completions::sum;
use super::faults::Fault;
use super::io::{SimIo, World};
use super::net::{ListenerId, Owner, Read, SocketId};
use crate::buf::{Class, Lease, Loan, Pool, Sight};
use crate::io::{Completion, Errno, Fd, Interest, Kind, Message, Mono, Outcome, SocketAddress, Token};

/// The kinds of operation of which a descriptor may have one in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Accept,
    Recv,
    Send,
    Connect,
    Poll,
    /// A poll for room to send.
    PollOut,
    Close,
    /// To another shard; of no descriptor.
    Post,
}

#[derive(Debug)]
pub(super) enum Thing {
    Socket(SocketId),
    Listener(ListenerId),
    /// An eventfd, and whether it was written to.
    Event(bool),
}

/// What waits for the network on one descriptor.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) thing: Thing,
    /// The shard that last submitted an operation on it: it is told what happens.
    pub(super) shard: u16,
    pub(super) reuse_port: bool,
    /// By verb: submitted, and the completion not handed out.
    pub(super) flying: [bool; 7],
    accept: Option<Token>,
    recv: Option<Recv>,
    send: Option<Send>,
    connect: Option<Token>,
    pub(super) poll: Option<Token>,
    pub(super) poll_out: Option<Token>,
    pub(super) non_blocking: bool,
    /// When the last accept completion may be seen: the next comes no sooner.
    accept_seen: Mono,
}

#[derive(Debug, Clone, Copy)]
struct Recv {
    token: Token,
    class: Class,
    often: bool,
    /// No buffer before this.
    starved_until: Mono,
    /// Was starved on purpose already.
    starved: bool,
}

#[derive(Debug)]
struct Send {
    token: Token,
    sights: Vec<Sight>,
    sum: u64,
}

/// Queued by the shard, not yet seen by the kernel.
#[derive(Debug)]
pub(super) enum Submission {
    Accept(Fd, Token),
    /// Whether more of the kind is expected.
    Recv(Fd, Class, bool, Token),
    Send(Fd, Vec<Sight>, Token),
    Connect(Fd, SocketAddress, Token),
    Poll(Fd, Interest, Token),
    Close(Fd, Token),
    Post(u16, Message, Token),
    Cancel(Token),
}

impl Submission {
    /// Of what will complete; a cancel has no completion of its own.
    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Self::Accept(_, token)
            | Self::Recv(_, _, _, token)
            | Self::Send(_, _, token)
            | Self::Connect(_, _, token)
            | Self::Poll(_, _, token)
            | Self::Close(_, token)
            | Self::Post(_, _, token) => Some(*token),
            Self::Cancel(_) => None,
        }
    }
}

impl Descriptor {
    pub(super) fn new(thing: Thing) -> Self {
        Self {
            thing,
            shard: 0,
            reuse_port: false,
            flying: [false; 7],
            accept: None,
            recv: None,
            send: None,
            connect: None,
            poll: None,
            poll_out: None,
            non_blocking: false,
            accept_seen: Mono(0),
        }
    }
}

impl<W: World> SimIo<W> {
    /// Registers an operation; false if its descriptor is not open, and then it has failed already.
    fn launch(&mut self, fd: Fd, verb: Verb, token: Token, what: &'static str, value: i64) -> bool {
        self.note(what, token, fd, value);
        let double = self.live.insert(token, (fd, verb));
        assert!(double.is_none(), "{token:?} is in flight already: {verb:?} on {fd:?} ({:?})", token.kind());
        let shard = self.shard;
        match self.descriptor_mut(fd) {
            Ok(descriptor) => {
                descriptor.shard = shard;
                let flying = &mut descriptor.flying[verb as usize];
                assert!(!*flying, "a second {verb:?} on {fd:?} (contract of Io)");
                *flying = true;
                true
            }
            Err(errno) => {
                self.complete(fd, verb, token, Outcome::Failed(errno));
                false
            }
        }
    }
    /// The kernel sees a submission.
    pub(super) fn start(&mut self, submission: Submission, pool: &mut Pool) {
        match submission {
            Submission::Accept(fd, token) => {
                if self.launch(fd, Verb::Accept, token, "accept", 0) {
                    self.descriptors[fd.0 as usize].as_mut().unwrap().accept = Some(token);
                    self.serve_accept(fd);
                }
            }
            Submission::Recv(fd, class, often, token) => {
                if self.launch(fd, Verb::Recv, token, "recv", class as i64) {
                    if !often {
                        self.stand_no_more(token, pool);
                    }
                    if let Some(lease) = self.take_kept(token) {
                        return self.complete(fd, Verb::Recv, token, Outcome::Received(lease));
                    }
                    let recv = Recv { token, class, often, starved_until: Mono(0), starved: false };
                    self.descriptors[fd.0 as usize].as_mut().unwrap().recv = Some(recv);
                    self.honour_stale(fd, token);
                    self.try_recv(fd, pool);
                }
            }
            Submission::Send(fd, sights, token) => {
                let bytes: usize = sights.iter().map(Sight::len).sum();
                if self.launch(fd, Verb::Send, token, "send", bytes as i64) {
                    let sum = sum(&sights, pool).expect("the leases of a send were given back at once");
                    self.descriptors[fd.0 as usize].as_mut().unwrap().send =
                        Some(Send { token, sights, sum });
                    self.try_send(fd, pool);
                }
            }
            Submission::Connect(fd, to, token) => self.start_connect(fd, to, token),
            Submission::Poll(fd, Interest::Readable, token) => {
                if self.launch(fd, Verb::Poll, token, "poll", 0) {
                    self.stand_no_more(token, pool);
                    if let Some(lease) = self.take_kept(token) {
                        return self.complete(fd, Verb::Poll, token, Outcome::Received(lease));
                    }
                    self.descriptors[fd.0 as usize].as_mut().unwrap().poll = Some(token);
                    self.try_poll(fd);
                }
            }
            Submission::Poll(fd, Interest::Writable, token) => {
                if self.launch(fd, Verb::PollOut, token, "poll_out", 0) {
                    self.descriptors[fd.0 as usize].as_mut().unwrap().poll_out = Some(token);
                    self.try_poll_out(fd);
                }
            }
            Submission::Close(fd, token) => {
                self.drop_ahead(fd, pool);
                self.start_close(fd, token);
            }
            Submission::Post(shard, message, token) => self.start_post(shard, message, token),
            Submission::Cancel(token) => {
                self.note("cancel", token, Fd(-1), 0);
                if self.net.faults.hit(Fault::CancelLate) {
                    let at = Mono(self.net.now.0 + self.net.faults.random().below(2_000_000));
                    self.late_cancels.push((at, token));
                } else {
                    self.cancel_now(token);
                }
            }
        }
    }
    fn start_connect(&mut self, fd: Fd, to: SocketAddress, token: Token) {
        if !self.launch(fd, Verb::Connect, token, "connect", i64::from(to.port())) {
            return;
        }
        let descriptor = self.descriptors[fd.0 as usize].as_mut().unwrap();
        let Thing::Socket(id) = descriptor.thing else {
            return self.complete(fd, Verb::Connect, token, Outcome::Failed(Errno(libc::EISCONN)));
        };
        descriptor.connect = Some(token);
        if let Err(errno) = self.net.connect(id, to) {
            self.descriptors[fd.0 as usize].as_mut().unwrap().connect = None;
            self.complete(fd, Verb::Connect, token, Outcome::Failed(errno));
        }
    }
    /// Lets go of a descriptor with `flying` operations in flight on it, its close included.
    pub(super) fn drop_descriptor(&mut self, fd: Fd, flying: usize) {
        let descriptor = self.descriptors[fd.0 as usize].take().expect("open");
        self.free.insert(fd.0 as usize);
        let found = descriptor.flying.iter().filter(|f| **f).count();
        assert!(
            found == flying,
            "{fd:?} was closed with an operation in flight (invariant 2): {descriptor:?}"
        );
        match descriptor.thing {
            Thing::Socket(id) => self.net.close(id),
            Thing::Listener(id) => self.net.close_listener(id),
            Thing::Event(_) => {}
        }
    }
    fn start_close(&mut self, fd: Fd, token: Token) {
        if !self.launch(fd, Verb::Close, token, "close", 0) {
            return;
        }
        self.drop_descriptor(fd, 1);
        if token.kind() == Kind::ConnClose {
            self.former.insert((Kind::ConnRecv as u8, token.slot()), token.generation());
        }
        self.complete(fd, Verb::Close, token, Outcome::Closed);
    }

    /// A socket changed: whatever waits on its descriptor tries again.
    pub(super) fn serve_socket(&mut self, fd: Fd, pool: &mut Pool) {
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let Thing::Socket(id) = descriptor.thing else { return };
        if let Some(token) = descriptor.connect
            && let Some(result) = self.net.take_connected(id)
        {
            self.descriptors[fd.0 as usize].as_mut().unwrap().connect = None;
            let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Connected);
            self.complete(fd, Verb::Connect, token, outcome);
        }
        self.try_recv(fd, pool);
        self.try_send(fd, pool);
        self.try_poll(fd);
        self.try_poll_out(fd);
    }
    /// Accepts what waits, as long as nothing fails.
    pub(super) fn serve_accept(&mut self, fd: Fd) {
        loop {
            let Ok(descriptor) = self.descriptor_mut(fd) else { return };
            let (Some(token), Thing::Listener(id)) = (descriptor.accept, &descriptor.thing) else { return };
            let id = *id;
            if self.net.pending(id) == 0 {
                return;
            }
            let outcome = self.accept_one(id);
            let ends = matches!(outcome, Outcome::Failed(_)) || self.net.faults.hit(Fault::AcceptEnds);
            let at = self.seen_at();
            let descriptor = self.descriptors[fd.0 as usize].as_mut().unwrap();
            descriptor.accept_seen = descriptor.accept_seen.max(at);
            let at = descriptor.accept_seen;
            if ends {
                descriptor.accept = None;
            }
            self.enqueue(at, fd, Verb::Accept, Completion { token, outcome, more: !ends }, None);
        }
    }
    /// How the kernel says that there is nothing more for it.
    pub(super) fn nothing_left(&mut self) -> Errno {
        Errno(self.net.faults.random().pick(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]))
    }
    fn accept_one(&mut self, id: ListenerId) -> Outcome {
        if self.net.faults.hit(Fault::AcceptEmfile) {
            return Outcome::Failed(self.nothing_left());
        }
        if self.net.faults.hit(Fault::AcceptAborted) {
            return Outcome::Failed(Errno(libc::ECONNABORTED));
        }
        match self.open(Thing::Event(false)) {
            Ok(fd) => {
                let socket = self.net.accept(id, Owner::Shard(fd)).expect("one was pending");
                self.descriptors[fd.0 as usize].as_mut().unwrap().thing = Thing::Socket(socket);
                Outcome::Accepted(fd)
            }
            Err(errno) => Outcome::Failed(errno),
        }
    }
    fn try_recv(&mut self, fd: Fd, pool: &mut Pool) {
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let Some(recv) = descriptor.recv else { return };
        let outcome = match &descriptor.thing {
            Thing::Socket(id) => {
                let id = *id;
                match self.receive(fd, id, recv, pool) {
                    Some(outcome) => outcome,
                    None => return,
                }
            }
            Thing::Listener(_) => Outcome::Failed(Errno(libc::ENOTCONN)),
            Thing::Event(_) => Outcome::Failed(Errno(libc::ENOTSOCK)),
        };
        self.starving.remove(&fd);
        self.descriptors[fd.0 as usize].as_mut().unwrap().recv = None;
        let stands = recv.often && matches!(outcome, Outcome::Received(_));
        self.complete(fd, Verb::Recv, recv.token, outcome);
        if stands {
            self.stand(fd, recv.token, pool);
        }
    }
    /// What a recv comes to now; `None` while it must wait.
    fn receive(&mut self, fd: Fd, id: SocketId, recv: Recv, pool: &mut Pool) -> Option<Outcome> {
        let there = self.net.readable(id);
        if there == 0 {
            return match self.net.read(id, &mut []) {
                Ok(Read::Eof) if self.swallows_fin(recv.token) => None,
                Ok(Read::Eof) => Some(Outcome::Eof),
                Ok(Read::Empty | Read::Bytes(_)) => None,
                Err(errno) => Some(Outcome::Failed(errno)),
            };
        }
        if self.net.now < recv.starved_until {
            return None;
        }
        if !recv.starved && self.net.faults.hit(Fault::NoBuffers) {
            let until = Mono(self.net.now.0 + self.net.faults.random().between(1_000, 20_000_000));
            self.starve(fd, until);
            return None;
        }
        let Some(loan) = pool.lend(recv.class) else {
            if recv.starved && self.net.is_shut(id) {
                return Some(Outcome::Eof);
            }
            self.starve(fd, Mono(0));
            return None;
        };
        let mut n = there.min(loan.len as usize);
        if n > 1 && self.net.faults.hit(Fault::ShortRead) {
            n = self.net.faults.random().between(1, n as u64) as usize;
        }
        Some(Outcome::Received(self.read_into(&loan, id, n, pool)))
    }
    /// Reads `n` bytes that are there into a buffer on loan.
    pub(super) fn read_into(&mut self, loan: &Loan, id: SocketId, n: usize, pool: &mut Pool) -> Lease {
        let mut lease = pool.received(loan.class, loan.index, n as u32);
        let read = self.net.read(id, pool.bytes_mut(&mut lease));
        debug_assert!(read == Ok(Read::Bytes(n)), "the bytes were there");
        lease
    }
    fn starve(&mut self, fd: Fd, until: Mono) {
        self.starving.insert(fd);
        let recv = self.descriptors[fd.0 as usize].as_mut().and_then(|d| d.recv.as_mut()).unwrap();
        (recv.starved_until, recv.starved) = (until, true);
    }
    /// Starved receives try again.
    pub(super) fn feed_starving(&mut self, pool: &mut Pool) {
        for fd in self.starving.iter().copied().collect::<Vec<_>>() {
            self.try_recv(fd, pool);
        }
    }
    /// When the next starved receive may be fed by the clock alone.
    pub(super) fn next_meal(&self) -> Option<Mono> {
        let recv_of = |fd: &Fd| self.descriptors[fd.0 as usize].as_ref()?.recv.as_ref();
        let later = |until: Mono| (until > self.net.now).then_some(until);
        self.starving.iter().filter_map(|fd| later(recv_of(fd)?.starved_until)).min()
    }
    fn try_send(&mut self, fd: Fd, pool: &Pool) {
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let (Some(_), Thing::Socket(id)) = (&descriptor.send, &descriptor.thing) else { return };
        let id = *id;
        let outcome = match self.net.writable(id) {
            Err(errno) => Outcome::Failed(errno),
            Ok(0) => return,
            Ok(mut room) => {
                if room > 1 && self.net.faults.hit(Fault::ShortWrite) {
                    room = self.net.faults.random().between(1, room.min(8192) as u64) as usize;
                }
                let send = self.descriptors[fd.0 as usize].as_ref().and_then(|d| d.send.as_ref()).unwrap();
                let sum = sum(&send.sights, pool);
                assert!(
                    sum == Some(send.sum),
                    "the bytes of a send on {fd:?} changed while it waited (invariant 1)"
                );
                let mut sent = 0;
                for sight in &send.sights {
                    let bytes = pool.seen(sight).expect("checked above");
                    let n = bytes.len().min(room - sent);
                    sent += self.net.write(id, &bytes[..n]).expect("room was there");
                }
                Outcome::Sent(sent as u32)
            }
        };
        let send = self.descriptors[fd.0 as usize].as_mut().and_then(|d| d.send.take()).unwrap();
        let at = self.seen_at();
        let completion = Completion { token: send.token, outcome, more: false };
        self.enqueue(at, fd, Verb::Send, completion, Some((send.sights, send.sum)));
    }
    /// Ends the operation of `token` unless it has completed already.
    fn cancel_now(&mut self, token: Token) {
        let Some((fd, verb)) = self.live.get(&token).copied() else { return };
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let waiting = match verb {
            Verb::Accept => descriptor.accept.take_if(|t| *t == token).is_some(),
            Verb::Recv => descriptor.recv.take_if(|r| r.token == token).is_some(),
            Verb::Send => descriptor.send.take_if(|s| s.token == token).is_some(),
            Verb::Connect => descriptor.connect.take_if(|t| *t == token).is_some(),
            Verb::Poll => descriptor.poll.take_if(|t| *t == token).is_some(),
            Verb::PollOut => descriptor.poll_out.take_if(|t| *t == token).is_some(),
            Verb::Close | Verb::Post => false,
        };
        if !waiting {
            return;
        }
        let accept_seen = descriptor.accept_seen;
        if verb == Verb::Recv {
            self.starving.remove(&fd);
        }
        let mut at = self.seen_at();
        if verb == Verb::Accept {
            at = at.max(accept_seen);
        }
        let outcome = Outcome::Failed(Errno(libc::ECANCELED));
        self.enqueue(at, fd, verb, Completion { token, outcome, more: false }, None);
    }
    pub(super) fn cancel_late(&mut self) {
        let now = self.net.now;
        let due: Vec<Token> = self.late_cancels.iter().filter(|c| c.0 <= now).map(|c| c.1).collect();
        self.late_cancels.retain(|c| c.0 > now);
        due.into_iter().for_each(|token| self.cancel_now(token));
    }
}
