//! The scenarios on the kernel, and what only the ring can show.
#![allow(
    unsafe_code,
    reason = "the descriptor limit, a thread's id, and reading a descriptor that a ring left behind"
)]

use crate::child;
use crate::harness::{A_WHILE, Harness, World, assert_failed};
use crate::scenarios::{self, each_scenario};
use dataplane::buf::{Chain, Class, Pool, PoolSize};
use dataplane::io::{Completion, Expect, Interest, Io, Kind, Mono, Outcome, Token};
use dataplane::sys::{Features, Ring, RingOptions, probe, rlimit, socket};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

pub struct OnRing {
    features: Features,
    options: RingOptions,
    /// This process is ours alone: its limits may be changed.
    alone: bool,
}

pub fn on_ring() -> OnRing {
    OnRing { features: probe().unwrap(), options: RingOptions::default(), alone: false }
}

fn on_ring_of(submission_entries: u32, completion_entries: u32) -> OnRing {
    OnRing { options: RingOptions { submission_entries, completion_entries }, ..on_ring() }
}

impl Harness for OnRing {
    type Io = Ring;

    fn start(&mut self) -> Ring {
        Ring::new(self.features, self.options).unwrap()
    }
    fn finish(&mut self, mut ring: Ring, pool: &mut Pool) {
        assert_eq!((ring.strays(), ring.refused()), (0, 0));
        assert!(ring.reclaim(pool));
    }
    fn exhaust_descriptors(&mut self, _: &mut Ring) -> bool {
        if self.alone {
            // The lowest free number: all below it are open, so with it as the limit none can be opened.
            let free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
            set_descriptor_limit(u64::try_from(free).unwrap());
        }
        self.alone
    }
    fn relieve_descriptors(&mut self, _: &mut Ring) {
        assert!(rlimit::raise_descriptor_limit() > 0);
    }
}

fn set_descriptor_limit(soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing during the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = soft;
    // SAFETY: `limit` is valid for reading during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

macro_rules! on_ring {
    ($scenario:ident) => {
        #[test]
        fn $scenario() {
            scenarios::$scenario(&mut on_ring());
        }
    };
}
each_scenario!(on_ring);

/// The same with a submission queue of two entries, so that nearly every submission fills it.
#[test]
fn with_a_tiny_submission_queue() {
    macro_rules! on_tiny_ring {
        ($scenario:ident) => {
            scenarios::$scenario(&mut on_ring_of(2, 512));
        };
    }
    each_scenario!(on_tiny_ring);
}

#[test]
fn without_descriptors() {
    child::run("ring::child_without_descriptors");
}

#[test]
#[ignore = "the body of without_descriptors"]
fn child_without_descriptors() {
    let mut harness = OnRing { alone: true, ..on_ring() };
    scenarios::accept_without_descriptors(&mut harness);
    scenarios::pipes_without_descriptors(&mut harness);
}

#[test]
fn more_connections_than_completions_fit() {
    const MANY: usize = 100;
    let mut harness = on_ring_of(4, 8);
    let mut w = World::new(&mut harness);
    let (listener, address) = w.listener(1024);
    let accept = w.accept(listener);
    w.pass(A_WHILE);
    let clients: Vec<_> = (0..MANY).map(|_| TcpStream::connect(SocketAddr::from(address)).unwrap()).collect();
    // The kernel ends a multishot accept when completions overflow: it is asked again, and nobody is forgotten.
    let accepted: Vec<_> = (0..MANY).map(|_| w.accepted(accept)).collect();
    assert!(w.io.overflows() > 0, "8 completions held {MANY}");
    w.io.cancel(accept);
    assert_failed(&w.outcome(accept), &[libc::ECANCELED]);
    drop(clients);
    accepted.into_iter().for_each(|fd| w.close(fd));
    w.close(listener);
    w.finish();
}

#[test]
fn no_more_operations_than_completions_fit() {
    let features = probe().unwrap();
    let options = RingOptions { submission_entries: 4, completion_entries: 8 };
    let mut ring = Ring::new(features, options).unwrap();
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 8, large: 8 });
    let event = socket::event().unwrap();
    let token = |slot| Token::new(Kind::Mailbox, slot, 0);
    (0..9).for_each(|slot| ring.poll(event, Interest::Readable, token(slot)));
    assert_eq!(ring.refused(), 1);
    let mut out = Vec::new();
    ring.turn(&mut pool, Mono(0), &mut out).unwrap();
    assert_eq!((out.len(), out[0].token), (1, token(8)));
    assert_failed(&out[0].outcome, &[libc::EBUSY]);
    // A close is never refused: the descriptor would be lost.
    let spare = socket::event().unwrap();
    ring.close(spare, Token::new(Kind::ConnClose, 1, 0));
    socket::signal_event(event);
    while ring.in_flight() > 0 {
        ring.turn(&mut pool, Mono::MAX, &mut out).unwrap();
    }
    assert_eq!(out.iter().filter(|c| matches!(c.outcome, Outcome::Ready)).count(), 8);
    assert_eq!(out.iter().filter(|c| matches!(c.outcome, Outcome::Closed)).count(), 1);
    socket::close(event);
}

#[test]
fn an_event_of_another_thread_wakes_a_ring_that_waits_for_ever() {
    let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 8, large: 8 });
    let event = socket::event().unwrap();
    let token = Token::new(Kind::Mailbox, 0, 0);
    for _ in 0..3 {
        ring.poll(event, Interest::Readable, token);
        let waker = std::thread::spawn(move || socket::signal_event(event));
        let mut out = Vec::new();
        ring.turn(&mut pool, Mono::MAX, &mut out).unwrap();
        assert!(
            matches!(out[..], [Completion { token: t, outcome: Outcome::Ready, more: false }] if t == token)
        );
        waker.join().unwrap();
        ring.clear_event(event);
    }
    socket::close(event);
}

#[test]
fn a_connect_that_hangs_is_cancelled() {
    let mut harness = on_ring();
    let mut w = World::new(&mut harness);
    // With a backlog of 0 one connection fits; the handshakes of the others are not answered.
    let (listener, address) = w.listener(0);
    let mut clients: Vec<_> = (0..4).map(|_| w.connect(&address)).collect();
    w.pass(A_WHILE);
    let hanging: Vec<_> = clients.iter().map(|(_, token)| *token).filter(|t| !w.peek(*t)).collect();
    assert!(!hanging.is_empty(), "every connection fits a backlog of 0");
    for token in hanging {
        w.io.cancel(token);
        assert_failed(&w.outcome(token), &[libc::ECANCELED]);
        clients.retain(|(fd, t)| {
            *t != token || {
                w.close(*fd);
                false
            }
        });
    }
    for (fd, token) in clients {
        assert!(matches!(w.outcome(token), Outcome::Connected));
        w.close(fd);
    }
    w.close(listener);
    w.finish();
}

/// Threads that the kernel keeps for what it cannot do without blocking; their names carry the ring owner's id.
fn kernel_workers_of_this_thread() -> usize {
    // SAFETY: gettid takes nothing and cannot fail.
    let me = unsafe { libc::gettid() };
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == format!("iou-wrk-{me}")).count()
}

#[test]
fn a_turn_is_one_system_call() {
    const PAIRS: usize = 32;
    const ROUNDS: u64 = 200;
    let mut harness = on_ring();
    let mut w = World::new(&mut harness);
    let pairs = w.pairs(PAIRS);
    let (mut chain, mut out) = (Chain::default(), Vec::new());
    chain.push(w.pool.take_copy(b"ping").unwrap());
    let (enters, sqes, mut turns, mut received) = (w.io.enters(), w.io.sqes(), 0, 0);
    let slots = || pairs.iter().zip(0u32..);
    for _ in 0..ROUNDS {
        for ((a, b), slot) in slots() {
            w.io.recv(*b, Class::Small, Expect::Later, Token::new(Kind::ConnRecv, slot, 0));
            w.io.send(*a, &chain, &w.pool, Token::new(Kind::LinkSend, slot, 0));
        }
        while w.io.in_flight() > 0 {
            w.io.turn(&mut w.pool, Mono::MAX, &mut out).unwrap();
            turns += 1;
            for completion in out.drain(..) {
                if let Outcome::Received(lease) = completion.outcome {
                    w.pool.give_back(lease);
                    received += 1;
                }
            }
        }
    }
    assert_eq!(received, ROUNDS * PAIRS as u64);
    let (enters, sqes) = (w.io.enters() - enters, w.io.sqes() - sqes);
    // The buffers lent at first are few, and while they grow some receives are asked for again inside a turn.
    assert!(enters <= turns + 16, "{enters} enters in {turns} turns");
    assert!(sqes >= 16 * enters, "{sqes} operations in {enters} system calls");
    chain.clear(&mut w.pool);
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
    assert_eq!(kernel_workers_of_this_thread(), 0, "the kernel needed a thread for what never blocks");
}

#[test]
fn more_messages_in_one_batch_than_the_scratch_holds() {
    const PAIRS: usize = 600;
    let mut harness = on_ring();
    let mut w = World::with_pool(&mut harness, PoolSize { tiny: 4096, small: 1024, large: 16 });
    let pairs = w.pairs(PAIRS);
    let enters = w.io.enters();
    let sends: Vec<_> = pairs.iter().map(|(a, _)| w.send(*a, &[b"two ", b"parts"])).collect();
    assert!(w.io.enters() > enters, "{PAIRS} message headers were kept without submitting any");
    for token in sends {
        assert!(matches!(w.outcome(token), Outcome::Sent(9)));
    }
    for (_, b) in &pairs {
        assert_eq!(w.read(*b, 9), b"two parts");
    }
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
}

#[test]
fn a_ring_dropped_in_a_hurry_lets_go_of_its_buffers() {
    let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 64, large: 8 });
    let listener = socket::listener(&crate::harness::loopback(), 16).unwrap();
    let address = socket::local_address(listener).unwrap();
    ring.accept(listener, Token::new(Kind::Accept, 0, 0));
    let mut client = TcpStream::connect(SocketAddr::from(address)).unwrap();
    let mut out = Vec::new();
    ring.turn(&mut pool, Mono::MAX, &mut out).unwrap();
    let Outcome::Accepted(fd) = out[0].outcome else { panic!("{out:?}") };
    ring.recv(fd, Class::Small, Expect::Now, Token::new(Kind::ConnRecv, 0, 0));
    ring.turn(&mut pool, Mono(0), &mut out).unwrap();
    assert_eq!((ring.in_flight(), ring.reclaim(&mut pool)), (2, false));
    drop(ring);
    // The receive is gone with the ring: bytes that come now stay in the socket for another reader.
    client.write_all(b"too late").unwrap();
    // SAFETY: the ring is gone and nobody else uses the descriptor.
    let mut accepted = unsafe { TcpStream::from_raw_fd(fd.0) };
    accepted.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = [0; 8];
    accepted.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"too late");
    socket::close(listener);
}

#[test]
fn waiting_is_as_long_as_asked() {
    let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 8, large: 8 });
    let mut out = Vec::new();
    let start = ring.turn(&mut pool, Mono(0), &mut out).unwrap().mono;
    let end = ring.turn(&mut pool, start.after(Duration::from_millis(25)), &mut out).unwrap().mono;
    assert!((25_000_000..2_000_000_000).contains(&end.since(start)), "{} ns", end.since(start));
    assert_eq!(ring.enters(), 2);
}

/// What a receive that stands is for: 500 messages of 64 bytes take a submission for each 8 KiB, not one each. Every answer to a
/// recv that was asked for is the next message, and ending them leaves nothing.
#[test]
fn small_messages_need_no_submission_each() {
    const MESSAGES: u64 = 500;
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let fd = dataplane::io::Fd(far.as_raw_fd());
    let mut ring = on_ring();
    let stands = ring.features.standing;
    assert!(stands || ring.features.kernel < (6, 18), "this kernel is known to be able to");
    let mut w = World::new(&mut ring);
    let recv = w.token(Kind::ConnRecv);
    let before = w.io.sqes();
    for n in 0..MESSAGES {
        w.io.recv(fd, Class::Small, Expect::Often, recv);
        let message = format!("{n:>64}");
        near.write_all(message.as_bytes()).unwrap();
        assert_eq!(w.bytes(recv), message.as_bytes());
        assert!(w.io.stands(recv) || !stands || n > 100, "nothing stands after message {n}");
    }
    let submitted = w.io.sqes() - before;
    let most = if stands { 2 + MESSAGES * 64 / (8 * 1024) } else { MESSAGES + 1 };
    assert!(submitted <= most, "{submitted} submissions for {MESSAGES} messages");
    w.io.recv(fd, Class::Small, Expect::Often, recv);
    w.io.cancel(recv);
    assert_failed(&w.outcome(recv), &[libc::ECANCELED]);
    w.finish();
}

/// One that brings nothing for a while makes room for a receive by itself, so that whatever the kernel may have lost comes late and
/// not never; and a ring in which nothing stands has nothing to look at.
#[test]
fn what_stands_idle_makes_room() {
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = dataplane::io::Fd(near.as_raw_fd());
    let mut ring = on_ring();
    let stands = ring.features.standing;
    let mut w = World::new(&mut ring);
    let recv = w.token(Kind::ConnRecv);
    w.io.recv(fd, Class::Small, Expect::Often, recv);
    w.turn(Duration::ZERO);
    assert_eq!(w.io.stands(recv), stands);
    w.pass(Duration::from_millis(2_500));
    assert!(!w.io.stands(recv), "it stands for more than two looks");
    let enters = w.io.enters();
    w.pass(Duration::from_millis(1_500));
    assert!(w.io.enters() - enters <= 2, "{} looks at nothing", w.io.enters() - enters);
    far.write_all(b"late").unwrap();
    assert_eq!(w.bytes(recv), b"late");
    w.finish();
}
