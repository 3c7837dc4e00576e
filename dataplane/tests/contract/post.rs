//! Messages between two shards: the same scenarios on two rings of two threads, and on two shards of one simulation.

use crate::harness::{assert_failed, loopback};
use dataplane::buf::{Class, Pool, PoolSize};
use dataplane::io::{Completion, Errno, Expect, Fd, Io, Kind, Message, Mono, Outcome, Token};
use dataplane::sim::random::ALWAYS;
use dataplane::sim::{Fault, FaultPlan, Owner, SimIo};
use dataplane::spec::ListenerId;
use dataplane::sys::{Ring, RingOptions, probe};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// No scenario waits longer than this for one completion.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two shards, 0 and 1, of which either may act.
trait Pair {
    fn post(&mut self, from: u16, to: u16, message: Message, token: Token);
    /// Turns until something completes at `shard`; gives back the leases of what was received.
    fn turn(&mut self, shard: u16) -> Vec<Completion>;
    /// Ends a shard, which has nothing in flight.
    fn end(&mut self, shard: u16);
    /// A connection of a client that says "hello", as shard 0 accepted it.
    fn accepted(&mut self) -> Fd;
    fn recv(&mut self, shard: u16, fd: Fd, token: Token);
    fn close(&mut self, shard: u16, fd: Fd, token: Token);
}

fn message(n: i32) -> Message {
    Message::Conn { listener: ListenerId(7), fd: Fd(n) }
}
fn token(kind: Kind, slot: u32) -> Token {
    Token::new(kind, slot, 1)
}

/// The completions of one shard until there are `n`.
fn collect(pair: &mut impl Pair, shard: u16, n: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    while all.len() < n {
        all.extend(pair.turn(shard));
    }
    assert_eq!(all.len(), n, "{all:?}");
    all
}

fn each_arrives_once(pair: &mut impl Pair) {
    const MANY: u32 = 100;
    for n in 0..MANY {
        pair.post(0, 1, message(n.cast_signed()), token(Kind::Post, n));
    }
    for completion in collect(pair, 0, MANY as usize) {
        assert!(matches!(completion.outcome, Outcome::Posted) && completion.token.kind() == Kind::Post);
    }
    let mut seen = Vec::new();
    for completion in collect(pair, 1, MANY as usize) {
        let Outcome::Message(Message::Conn { listener: ListenerId(7), fd }) = completion.outcome else {
            panic!("{completion:?}")
        };
        assert_eq!((completion.token.kind(), completion.more), (Kind::Message, false));
        seen.push(fd.0.cast_unsigned());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..MANY).collect::<Vec<_>>());
    // And in the other direction, after both had turns.
    pair.post(1, 0, message(5), token(Kind::Post, 0));
    assert!(matches!(collect(pair, 1, 1)[0].outcome, Outcome::Posted));
    assert!(matches!(collect(pair, 0, 1)[0].outcome, Outcome::Message(m) if m == message(5)));
    pair.end(0);
    pair.end(1);
}

fn one_for_a_shard_that_is_gone_fails(pair: &mut impl Pair) {
    pair.end(1);
    pair.post(0, 1, message(1), token(Kind::Post, 1));
    assert_failed(&collect(pair, 0, 1)[0].outcome, &[libc::EBADF, libc::EBADFD, libc::EOWNERDEAD]);
    pair.post(0, 2, message(1), token(Kind::Post, 2));
    assert_failed(&collect(pair, 0, 1)[0].outcome, &[libc::EBADF]);
    pair.end(0);
}

fn a_connection_goes_on_at_the_other(pair: &mut impl Pair) {
    let fd = pair.accepted();
    pair.post(0, 1, message(fd.0), token(Kind::Post, 1));
    assert!(matches!(collect(pair, 0, 1)[0].outcome, Outcome::Posted));
    let arrived = collect(pair, 1, 1);
    assert!(matches!(arrived[0].outcome, Outcome::Message(m) if m == message(fd.0)), "{arrived:?}");
    pair.recv(1, fd, token(Kind::ConnRecv, 1));
    assert!(matches!(collect(pair, 1, 1)[0].outcome, Outcome::Sent(5)), "received, as turn() says it");
    pair.close(1, fd, token(Kind::ConnClose, 1));
    assert!(matches!(collect(pair, 1, 1)[0].outcome, Outcome::Closed));
    pair.end(0);
    pair.end(1);
}

/// What a test sees of a receive: how many bytes, its lease given back.
fn without_leases(out: Vec<Completion>, pool: &mut Pool) -> Vec<Completion> {
    let told = |completion: Completion| match completion.outcome {
        Outcome::Received(lease) => {
            let n = u32::try_from(lease.len()).unwrap();
            pool.give_back(lease);
            Completion { outcome: Outcome::Sent(n), ..completion }
        }
        _ => completion,
    };
    out.into_iter().map(told).collect()
}

const POOL: PoolSize = PoolSize { tiny: 8, small: 16, large: 8 };

/// What a ring's thread is told.
enum Order {
    Connect(Vec<Fd>),
    Post(u16, Message, Token),
    Recv(Fd, Token),
    Close(Fd, Token),
    Turn,
    End,
}

/// A ring on a thread of its own, as it must be.
struct OnThread {
    orders: Sender<Order>,
    answers: Receiver<Vec<Completion>>,
    ring: Fd,
    thread: JoinHandle<()>,
}

fn on_thread(completion_entries: u32) -> OnThread {
    let ((orders, received), (answer, answers), (tell, told)) = (channel(), channel(), channel());
    let thread = std::thread::spawn(move || {
        let options = RingOptions { submission_entries: 8, completion_entries };
        let mut pool = Pool::new(POOL);
        let mut ring = Ring::new(probe().unwrap(), options).unwrap();
        tell.send(ring.fd()).unwrap();
        for order in received {
            match order {
                Order::Connect(rings) => ring.connect_shards(rings.into()),
                Order::Post(shard, message, token) => ring.post(shard, message, token),
                Order::Recv(fd, token) => ring.recv(fd, Class::Small, Expect::Now, token),
                Order::Close(fd, token) => ring.close(fd, token),
                Order::Turn => {
                    // For ever: only a completion, perhaps a message, may end it.
                    let mut out = Vec::new();
                    ring.turn(&mut pool, Mono::MAX, &mut out).unwrap();
                    answer.send(without_leases(out, &mut pool)).unwrap();
                }
                Order::End => break,
            }
        }
        assert_eq!((ring.in_flight(), ring.strays()), (0, 0));
        assert!(ring.reclaim(&mut pool));
    });
    OnThread { orders, answers, ring: told.recv().unwrap(), thread }
}

struct Rings {
    shards: Vec<Option<OnThread>>,
    client: Option<TcpStream>,
}

fn rings() -> Rings {
    rings_of([512, 512])
}
fn rings_of(completion_entries: [u32; 2]) -> Rings {
    let shards = completion_entries.map(on_thread);
    let fds: Vec<Fd> = shards.iter().map(|s| s.ring).collect();
    shards.iter().for_each(|s| s.orders.send(Order::Connect(fds.clone())).unwrap());
    Rings { shards: shards.into_iter().map(Some).collect(), client: None }
}

impl Rings {
    fn order(&self, shard: u16, order: Order) {
        self.shards[usize::from(shard)].as_ref().unwrap().orders.send(order).unwrap();
    }
    fn answer(&self, shard: u16) -> Vec<Completion> {
        self.shards[usize::from(shard)].as_ref().unwrap().answers.recv_timeout(PATIENCE).unwrap()
    }
}

impl Pair for Rings {
    fn post(&mut self, from: u16, to: u16, message: Message, token: Token) {
        self.order(from, Order::Post(to, message, token));
    }
    fn turn(&mut self, shard: u16) -> Vec<Completion> {
        self.order(shard, Order::Turn);
        self.answer(shard)
    }
    fn end(&mut self, shard: u16) {
        let ended = self.shards[usize::from(shard)].take().unwrap();
        ended.orders.send(Order::End).unwrap();
        ended.thread.join().unwrap();
    }
    fn accepted(&mut self) -> Fd {
        let listener = std::net::TcpListener::bind(SocketAddr::from(loopback())).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"hello").unwrap();
        self.client = Some(client);
        Fd(std::os::fd::IntoRawFd::into_raw_fd(listener.accept().unwrap().0))
    }
    fn recv(&mut self, shard: u16, fd: Fd, token: Token) {
        self.order(shard, Order::Recv(fd, token));
    }
    fn close(&mut self, shard: u16, fd: Fd, token: Token) {
        self.order(shard, Order::Close(fd, token));
    }
}

struct Simulated {
    io: SimIo,
    pools: Vec<Pool>,
}

fn simulated(plan: FaultPlan) -> Simulated {
    Simulated { io: SimIo::new(plan).with_shards(2), pools: (0..2).map(|_| Pool::new(POOL)).collect() }
}

impl Pair for Simulated {
    fn post(&mut self, from: u16, to: u16, message: Message, token: Token) {
        self.io.select(from);
        self.io.post(to, message, token);
    }
    fn turn(&mut self, shard: u16) -> Vec<Completion> {
        let deadline = self.io.clock().mono.after(PATIENCE);
        let mut out = Vec::new();
        while out.is_empty() {
            assert!(self.io.clock().mono < deadline, "nothing completes at shard {shard}");
            // The other one may be chosen too: it has its turn, and sees what it will be asked for later.
            if self.io.next_shard(deadline) == Some(shard) {
                self.io.turn(&mut self.pools[usize::from(shard)], deadline, &mut out).unwrap();
            } else {
                self.io.select(shard);
                let now = self.io.clock().mono;
                self.io.turn(&mut self.pools[usize::from(shard)], now, &mut out).unwrap();
            }
        }
        without_leases(out, &mut self.pools[usize::from(shard)])
    }
    fn end(&mut self, shard: u16) {
        self.io.select(shard);
        assert_eq!(self.io.in_flight(), 0);
        self.io.leave();
    }
    fn accepted(&mut self) -> Fd {
        self.io.select(0);
        let listener = self.io.listener_socket();
        self.io.bind(listener, &loopback().with_port(8080).into()).unwrap();
        self.io.listen(listener, 8).unwrap();
        let accept = token(Kind::Accept, 0);
        self.io.accept(listener, accept);
        let client = self.io.net.socket(Owner::Nobody);
        let to = self.io.local_address(listener).unwrap();
        self.io.net.connect(client, to).unwrap();
        let Outcome::Accepted(fd) = self.turn(0)[0].outcome else { panic!("no connection") };
        self.io.net.write(client, b"hello").unwrap();
        self.io.select(0);
        self.io.cancel(accept);
        assert_failed(&self.turn(0)[0].outcome, &[libc::ECANCELED]);
        self.close(0, listener, token(Kind::ListenerClose, 0));
        assert!(matches!(self.turn(0)[0].outcome, Outcome::Closed));
        fd
    }
    fn recv(&mut self, shard: u16, fd: Fd, token: Token) {
        self.io.select(shard);
        self.io.recv(fd, Class::Small, Expect::Now, token);
    }
    fn close(&mut self, shard: u16, fd: Fd, token: Token) {
        self.io.select(shard);
        self.io.close(fd, token);
    }
}

macro_rules! on_rings {
    ($($scenario:ident),+) => {
        mod on_rings {
            $(#[test] fn $scenario() { super::$scenario(&mut super::rings()); })+
        }
    };
}
macro_rules! in_the_simulation {
    ($($scenario:ident),+) => {
        mod in_the_simulation {
            $(#[test] fn $scenario() {
                super::$scenario(&mut super::simulated(super::FaultPlan::calm(0)));
                for seed in 0..16 {
                    println!("seed {seed}");
                    super::$scenario(&mut super::simulated(super::allowed(seed)));
                }
            })+
        }
    };
}
on_rings!(each_arrives_once, a_connection_goes_on_at_the_other);
// On rings the middle one is tests/gone_ring.rs, alone in its process: another test's ring could get the descriptor's number.
in_the_simulation!(each_arrives_once, one_for_a_shard_that_is_gone_fails, a_connection_goes_on_at_the_other);

/// Faults that cost a scenario time only.
fn allowed(seed: u64) -> FaultPlan {
    let faults = [Fault::LateCompletion, Fault::QueueFull, Fault::Latency, Fault::Stall, Fault::CancelLate];
    faults.into_iter().fold(FaultPlan::calm(seed), |plan, fault| plan.with(fault, ALWAYS / 3))
}

/// Many more messages than the target's completion queue holds, while it does not look: the kernel keeps them.
#[test]
fn a_full_completion_queue_loses_none() {
    each_arrives_once(&mut rings_of([512, 8]));
}

/// A message is all that ends the sleep of a shard that waits for ever.
#[test]
fn a_sleeping_shard_is_woken() {
    let mut pair = rings();
    for n in 0..20 {
        pair.order(1, Order::Turn);
        pair.post(0, 1, message(n), token(Kind::Post, 0));
        assert!(matches!(collect(&mut pair, 0, 1)[0].outcome, Outcome::Posted));
        assert!(matches!(pair.answer(1)[0].outcome, Outcome::Message(m) if m == message(n)));
    }
    pair.end(0);
    pair.end(1);
}

/// A post that the simulated kernel has no memory for fails, and nobody gets the message.
#[test]
fn a_failed_post_reaches_nobody() {
    let mut pair = simulated(FaultPlan::calm(1).with(Fault::PostFails, ALWAYS));
    pair.post(0, 1, message(1), token(Kind::Post, 1));
    assert!(matches!(collect(&mut pair, 0, 1)[0].outcome, Outcome::Failed(Errno(libc::ENOMEM))));
    let mut out = Vec::new();
    pair.io.select(1);
    pair.io.turn(&mut pair.pools[1], Mono(0), &mut out).unwrap();
    assert!(out.is_empty(), "{out:?}");
    pair.end(0);
    pair.end(1);
}
