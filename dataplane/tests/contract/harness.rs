//! What a scenario needs of a backend, and the little world it plays in: a backend, a pool, and what completed.

use dataplane::buf::{Chain, Class, Lease, Pool, PoolSize};
use dataplane::io::{
    Clock, Completion, Errno, Expect, Family, Fd, Interest, Io, Kind, Mono, Outcome, SocketAddress, Token,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// A backend under test. Ports are always 0 and addresses those of the loopback.
pub trait Harness {
    type Io: Io;

    fn start(&mut self) -> Self::Io;
    /// Ends the backend, which has nothing in flight, and takes back the buffers it was lent.
    fn finish(&mut self, io: Self::Io, pool: &mut Pool);
    /// From here on no descriptor can be opened, until `relieve`. False: this backend cannot show that here.
    fn exhaust_descriptors(&mut self, io: &mut Self::Io) -> bool;
    fn relieve_descriptors(&mut self, io: &mut Self::Io);
}

/// No scenario waits longer than this for one completion.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is watched that something does not happen.
pub const A_WHILE: Duration = Duration::from_millis(30);

pub struct World<'h, H: Harness> {
    harness: &'h mut H,
    pub io: H::Io,
    pub pool: Pool,
    clock: Clock,
    next_slot: u32,
    completed: Vec<Completion>,
    sending: BTreeMap<Token, Chain>,
}

impl<'h, H: Harness> World<'h, H> {
    pub fn new(harness: &'h mut H) -> Self {
        Self::with_pool(harness, PoolSize { tiny: 64, small: 256, large: 64 })
    }

    pub fn with_pool(harness: &'h mut H, size: PoolSize) -> Self {
        let io = harness.start();
        let mut world = Self {
            harness,
            io,
            pool: Pool::new(size),
            clock: Clock::default(),
            next_slot: 0,
            completed: Vec::new(),
            sending: BTreeMap::new(),
        };
        world.turn(Duration::ZERO);
        world
    }

    /// A token that was never used before.
    pub fn token(&mut self, kind: Kind) -> Token {
        self.next_slot += 1;
        Token::new(kind, self.next_slot, self.next_slot % 7)
    }

    pub fn now(&self) -> Mono {
        self.clock.mono
    }

    /// One turn that waits at most `wait`. A send that completed gives its leases back.
    pub fn turn(&mut self, wait: Duration) {
        let mut out = Vec::new();
        let before = self.clock;
        let until = before.mono.after(wait);
        self.clock = self.io.turn(&mut self.pool, until, &mut out).unwrap();
        assert!(self.clock.mono >= before.mono, "the clock went back");
        assert!(!out.is_empty() || self.clock.mono >= until, "a turn ended empty-handed before its time");
        for completion in &out {
            if let Some(mut chain) = self.sending.remove(&completion.token) {
                if let Outcome::Sent(n) = completion.outcome {
                    assert!(n > 0, "a send of nothing");
                    chain.consume(n as usize, &mut self.pool);
                }
                chain.clear(&mut self.pool);
            }
        }
        self.completed.append(&mut out);
    }

    /// The oldest completion of `token` that was not taken yet.
    pub fn take(&mut self, token: Token) -> Option<Completion> {
        let at = self.completed.iter().position(|c| c.token == token)?;
        Some(self.completed.remove(at))
    }

    /// A completion of `token` is there and was not taken yet.
    pub fn peek(&self, token: Token) -> bool {
        self.completed.iter().any(|c| c.token == token)
    }

    /// Gives back the leases of all receives that were not taken.
    pub fn drop_received(&mut self) {
        for completion in std::mem::take(&mut self.completed) {
            let Outcome::Received(lease) = completion.outcome else { panic!("{completion:?}") };
            self.pool.give_back(lease);
        }
    }

    /// Turns until `token` completes.
    pub fn wait(&mut self, token: Token) -> Completion {
        let deadline = self.now().after(PATIENCE);
        loop {
            if let Some(completion) = self.take(token) {
                return completion;
            }
            assert!(self.now() < deadline, "no completion of {token:?}; waiting: {:?}", self.completed);
            self.turn(PATIENCE);
        }
    }

    /// The completion of `token`, if it comes within a while.
    pub fn soon(&mut self, token: Token) -> Option<Completion> {
        let deadline = self.now().after(A_WHILE);
        while !self.peek(token) && self.now() < deadline {
            self.turn(Duration::from_nanos(deadline.since(self.now())));
        }
        self.take(token)
    }

    /// As [`World::wait`], for an operation of one completion.
    pub fn outcome(&mut self, token: Token) -> Outcome {
        let completion = self.wait(token);
        assert!(!completion.more, "{completion:?} says that more will come");
        completion.outcome
    }

    /// Turns for `span`, whatever happens.
    pub fn pass(&mut self, span: Duration) {
        let deadline = self.now().after(span);
        while self.now() < deadline {
            self.turn(Duration::from_nanos(deadline.since(self.now())));
        }
    }

    /// `token` does not complete for a while.
    pub fn nothing_from(&mut self, token: Token) {
        self.pass(A_WHILE);
        assert!(self.completed.iter().all(|c| c.token != token), "{token:?} completed: {:?}", self.completed);
    }

    pub fn listener(&mut self, backlog: i32) -> (Fd, SocketAddress) {
        let fd = self.io.socket(Family::V4).unwrap();
        self.io.bind(fd, &loopback().into()).unwrap();
        self.io.listen(fd, backlog).unwrap();
        let address = self.io.local_address(fd).unwrap();
        assert!(address.port() != 0 && address.ip() == loopback().ip());
        (fd, address)
    }

    pub fn accept(&mut self, listener: Fd) -> Token {
        let token = self.token(Kind::Accept);
        self.io.accept(listener, token);
        token
    }

    pub fn accepted(&mut self, token: Token) -> Fd {
        let completion = self.wait(token);
        let Outcome::Accepted(fd) = completion.outcome else { panic!("{completion:?}") };
        assert!(completion.more, "an accept ended without a reason");
        fd
    }

    pub fn connect(&mut self, to: &SocketAddress) -> (Fd, Token) {
        let fd = self.io.socket(Family::V4).unwrap();
        let token = self.token(Kind::LinkConnect);
        self.io.connect(fd, &(*to).into(), token);
        (fd, token)
    }

    /// Connected sockets: the one that connected, the one that was accepted.
    pub fn pairs(&mut self, count: usize) -> Vec<(Fd, Fd)> {
        let (listener, address) = self.listener(128);
        let accept = self.accept(listener);
        let mut pairs = Vec::new();
        for _ in 0..count {
            let (client, connect) = self.connect(&address);
            assert!(matches!(self.outcome(connect), Outcome::Connected));
            pairs.push((client, self.accepted(accept)));
        }
        self.io.cancel(accept);
        assert_failed(&self.outcome(accept), &[libc::ECANCELED]);
        self.close(listener);
        pairs
    }

    pub fn pair(&mut self) -> (Fd, Fd) {
        self.pairs(1)[0]
    }

    pub fn recv(&mut self, fd: Fd, class: Class) -> Token {
        let token = self.token(Kind::ConnRecv);
        let expect = if token.slot().is_multiple_of(2) { Expect::Now } else { Expect::Later };
        self.io.recv(fd, class, expect, token);
        token
    }

    pub fn poll(&mut self, fd: Fd) -> Token {
        let token = self.token(Kind::Mailbox);
        self.io.poll(fd, Interest::Readable, token);
        token
    }

    /// The bytes of a receive; its lease goes back.
    pub fn bytes(&mut self, token: Token) -> Vec<u8> {
        match self.outcome(token) {
            Outcome::Received(lease) => self.read_out(lease),
            other => panic!("{other:?} where bytes were due"),
        }
    }

    /// The bytes of a received lease, which goes back.
    pub fn read_out(&mut self, lease: Lease) -> Vec<u8> {
        let bytes = self.pool.bytes(&lease).to_vec();
        assert!(!bytes.is_empty(), "a receive of nothing");
        self.pool.give_back(lease);
        bytes
    }

    /// Receives into small buffers until `count` bytes are there.
    pub fn read(&mut self, fd: Fd, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let token = self.recv(fd, Class::Small);
            all.extend(self.bytes(token));
        }
        all
    }

    /// Sends the pieces as one chain, one lease each.
    pub fn send(&mut self, fd: Fd, pieces: &[&[u8]]) -> Token {
        let mut chain = Chain::default();
        for piece in pieces {
            chain.push(self.pool.take_copy(piece).unwrap());
        }
        let token = self.token(Kind::ConnSend);
        self.io.send(fd, &chain, &self.pool, token);
        self.sending.insert(token, chain);
        token
    }

    /// Sends a short text whole.
    pub fn write(&mut self, fd: Fd, text: &[u8]) {
        let token = self.send(fd, &[text]);
        match self.outcome(token) {
            Outcome::Sent(n) => assert_eq!(n as usize, text.len(), "a short text went in parts"),
            other => panic!("{other:?}"),
        }
    }

    pub fn close(&mut self, fd: Fd) {
        let token = self.token(Kind::ConnClose);
        self.io.close(fd, token);
        assert!(matches!(self.outcome(token), Outcome::Closed));
    }

    pub fn close_both(&mut self, pair: (Fd, Fd)) {
        self.close(pair.0);
        self.close(pair.1);
    }

    /// The end of every scenario: nothing in flight, nothing untold, every buffer where it belongs.
    pub fn finish(mut self) {
        self.turn(Duration::ZERO);
        assert!(self.completed.is_empty(), "left over: {:?}", self.completed);
        assert_eq!((self.io.in_flight(), self.io.starved()), (0, 0));
        self.harness.finish(self.io, &mut self.pool);
        for class in Class::ALL {
            assert_eq!((self.pool.leased(class), self.pool.lent(class)), (0, 0), "{class:?}");
            assert_eq!(self.pool.free(class), self.pool.total(class), "{class:?}");
        }
    }

    pub fn exhaust_descriptors(&mut self) -> bool {
        self.harness.exhaust_descriptors(&mut self.io)
    }
    pub fn relieve_descriptors(&mut self) {
        self.harness.relieve_descriptors(&mut self.io);
    }
}

pub fn loopback() -> SocketAddress {
    SocketAddress::new(std::net::Ipv4Addr::LOCALHOST.into(), 0)
}

/// The outcome is a failure with one of these errnos.
#[track_caller]
pub fn assert_failed(outcome: &Outcome, errnos: &[i32]) {
    match outcome {
        Outcome::Failed(Errno(errno)) if errnos.contains(errno) => {}
        other => panic!("{other:?} where a failure of {errnos:?} was due"),
    }
}
