//! SimIo as the contract of `Io` says, and its assertions.

use super::*;
use crate::buf::PoolSize;
use crate::io::{Interest, Kind, Outcome};
use crate::sim::random::ALWAYS;

fn pool() -> Pool {
    Pool::new(PoolSize { tiny: 16, small: 16, large: 16 })
}
fn token(kind: Kind, slot: u32) -> Token {
    Token::new(kind, slot, 1)
}
const LOOPBACK: SocketAddress = SocketAddress::UNSPECIFIED;

/// A shard's listener at a port, with an accept armed.
fn listening(io: &mut SimIo) -> (Fd, SocketAddress) {
    let fd = io.socket(Family::V4).unwrap();
    io.set_option(fd, SocketOption::ReusePort).unwrap();
    io.bind(fd, &SocketAddress::new([127, 0, 0, 1].into(), 0).into()).unwrap();
    io.listen(fd, 16).unwrap();
    io.accept(fd, token(Kind::Accept, 0));
    let at = io.local_address(fd).unwrap();
    assert_ne!((at.port(), at), (0, LOOPBACK));
    (fd, at)
}
/// Turns until `n` completions came.
fn wait(io: &mut SimIo, pool: &mut Pool, n: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    for _ in 0..1000 {
        let until = Mono(io.net.now.0 + 1_000_000_000);
        io.turn(pool, until, &mut out).unwrap();
        if out.len() >= n {
            break;
        }
    }
    assert!(out.len() >= n, "{out:?}");
    out
}
/// A connected pair: the shard's descriptor and a peer's socket.
fn pair(io: &mut SimIo, pool: &mut Pool) -> (Fd, SocketId) {
    let (_, at) = listening(io);
    let peer = io.net.socket(Owner::Nobody);
    io.net.connect(peer, at).unwrap();
    let out = wait(io, pool, 1);
    let Outcome::Accepted(fd) = out[0].outcome else { panic!("{out:?}") };
    (fd, peer)
}

#[test]
fn accepts_receives_sends_and_closes() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, peer) = pair(&mut io, &mut pool);
    assert_eq!(fd, Fd(4));
    io.recv(fd, Class::Small, Expect::Later, token(Kind::ConnRecv, 1));
    let mut out = Vec::new();
    let before = io.clock().mono;
    io.turn(&mut pool, before.after(std::time::Duration::from_secs(5)), &mut out).unwrap();
    assert!(out.is_empty() && io.clock().mono.since(before) >= 5_000_000_000);
    assert_eq!(pool.lent(Class::Small), 0);

    io.net.write(peer, b"ping").unwrap();
    let mut out = wait(&mut io, &mut pool, 1);
    let Completion { outcome: Outcome::Received(lease), token: t, more: false } = out.remove(0) else {
        panic!("{out:?}")
    };
    assert_eq!((pool.bytes(&lease), t), (&b"ping"[..], token(Kind::ConnRecv, 1)));
    let mut chain = Chain::default();
    chain.push(lease);
    io.send(fd, &chain, &pool, token(Kind::ConnSend, 1));
    let out = wait(&mut io, &mut pool, 1);
    assert!(matches!(out[0].outcome, Outcome::Sent(4)));
    chain.consume(4, &mut pool);
    assert_eq!(io.in_flight(), 1, "the accept goes on");
    io.close(fd, token(Kind::ConnClose, 1));
    let out = wait(&mut io, &mut pool, 1);
    assert!(matches!(out[0].outcome, Outcome::Closed));
    wait_until_quiet(&mut io, &mut pool);
    assert_eq!(io.net.read_up_to(peer, 9).unwrap(), (super::super::Read::Bytes(4), b"ping".to_vec()));
    assert_eq!(io.net.read_up_to(peer, 9).unwrap().0, super::super::Read::Eof);
    // The number is free again, lowest first.
    assert_eq!(io.socket(Family::V4), Ok(fd));
}
fn wait_until_quiet(io: &mut SimIo, pool: &mut Pool) {
    let mut out = Vec::new();
    let until = Mono(io.net.now.0 + 1_000_000_000);
    io.turn(pool, until, &mut out).unwrap();
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn an_accept_ends_on_emfile_and_can_be_armed_again() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (listener, at) = listening(&mut io);
    io.descriptor_limit = 2;
    let peers = [0, 1].map(|_| {
        let peer = io.net.socket(Owner::Nobody);
        io.net.connect(peer, at).unwrap();
        peer
    });
    let out = wait(&mut io, &mut pool, 2);
    assert!(matches!(out[0], Completion { outcome: Outcome::Accepted(Fd(4)), more: true, .. }));
    assert!(matches!(out[1], Completion { outcome: Outcome::Failed(Errno(libc::EMFILE)), more: false, .. }));
    assert_eq!(io.in_flight(), 0);
    io.close(Fd(4), token(Kind::ConnClose, 1));
    wait(&mut io, &mut pool, 1);
    io.accept(listener, token(Kind::Accept, 0));
    let out = wait(&mut io, &mut pool, 1);
    assert!(matches!(out[0], Completion { outcome: Outcome::Accepted(Fd(4)), more: true, .. }));
    assert_eq!(io.net.peer_address(peers[1]), Ok(at));
}

#[test]
fn a_dry_pool_starves_a_receive_until_a_buffer_comes_back() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, peer) = pair(&mut io, &mut pool);
    let held: Vec<_> = (0..14).map(|_| pool.take(Class::Large).unwrap()).collect();
    io.recv(fd, Class::Large, Expect::Now, token(Kind::ConnRecv, 1));
    io.net.write(peer, b"x").unwrap();
    wait_until_quiet(&mut io, &mut pool);
    assert_eq!((io.starved(), io.in_flight()), (1, 2));
    held.into_iter().for_each(|lease| pool.give_back(lease));
    let mut out = wait(&mut io, &mut pool, 1);
    assert_eq!(io.starved(), 0);
    let Outcome::Received(lease) = out.remove(0).outcome else { panic!() };
    pool.give_back(lease);
}

#[test]
fn a_cancel_wins_or_loses_but_one_completion_comes() {
    let mut lost = 0;
    for seed in 0..64 {
        let plan = FaultPlan::calm(seed).with(Fault::CancelLate, ALWAYS / 2);
        let (mut io, mut pool) = (SimIo::new(plan), pool());
        let (fd, peer) = pair(&mut io, &mut pool);
        io.recv(fd, Class::Small, Expect::Now, token(Kind::ConnRecv, 1));
        io.cancel(token(Kind::ConnRecv, 1));
        io.net.write(peer, b"x").unwrap();
        match wait(&mut io, &mut pool, 1).remove(0).outcome {
            Outcome::Received(lease) => {
                lost += 1;
                pool.give_back(lease);
            }
            outcome => assert!(matches!(outcome, Outcome::Failed(Errno(libc::ECANCELED))), "{outcome:?}"),
        }
        let mut out = Vec::new();
        let until = Mono(io.net.now.0 + 1_000_000_000);
        io.turn(&mut pool, until, &mut out).unwrap();
        assert!(out.is_empty() && io.in_flight() == 1);
    }
    assert!((8..56).contains(&lost), "{lost}");
}

#[test]
fn shutdown_wakes_a_receive_with_eof() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, _) = pair(&mut io, &mut pool);
    io.recv(fd, Class::Small, Expect::Later, token(Kind::ConnRecv, 1));
    wait_until_quiet(&mut io, &mut pool);
    io.shutdown(fd, Shutdown::Both).unwrap();
    assert!(matches!(wait(&mut io, &mut pool, 1)[0].outcome, Outcome::Eof));
}

#[test]
fn a_poll_sees_an_eventfd() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let fd = io.event();
    io.poll(fd, Interest::Readable, token(Kind::Mailbox, 0));
    wait_until_quiet(&mut io, &mut pool);
    io.signal(fd);
    assert!(matches!(wait(&mut io, &mut pool, 1)[0].outcome, Outcome::Ready));
    io.clear_event(fd);
    io.poll(fd, Interest::Readable, token(Kind::Mailbox, 0));
    wait_until_quiet(&mut io, &mut pool);
}

#[test]
#[should_panic(expected = "invariant 2")]
fn a_close_with_a_receive_in_flight_is_caught() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, _) = pair(&mut io, &mut pool);
    io.recv(fd, Class::Small, Expect::Later, token(Kind::ConnRecv, 1));
    io.close(fd, token(Kind::ConnClose, 1));
    wait(&mut io, &mut pool, 1);
}

#[test]
#[should_panic(expected = "a second Recv")]
fn a_second_receive_is_caught() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, _) = pair(&mut io, &mut pool);
    io.recv(fd, Class::Small, Expect::Later, token(Kind::ConnRecv, 1));
    io.recv(fd, Class::Small, Expect::Later, token(Kind::ConnRecv, 2));
    wait(&mut io, &mut pool, 1);
}

#[test]
#[should_panic(expected = "changed")]
fn a_buffer_that_changes_under_a_send_is_caught() {
    let (mut io, mut pool) = (SimIo::new(FaultPlan::calm(1)), pool());
    let (fd, peer) = pair(&mut io, &mut pool);
    io.net.set_room(peer, 0);
    let id = io.socket_of(fd).unwrap();
    io.net.set_room(id, 0);
    let mut chain = Chain::default();
    chain.push(pool.take_copy(b"first").unwrap());
    io.send(fd, &chain, &pool, token(Kind::ConnSend, 1));
    wait_until_quiet(&mut io, &mut pool);
    pool.bytes_mut(chain.back_mut().unwrap())[0] = b'w';
    io.net.set_room(id, 100);
    io.net.set_room(peer, 100);
    io.net.shutdown(peer, Shutdown::Write).unwrap();
    wait(&mut io, &mut pool, 1);
}

#[test]
fn faults_shorten_delay_and_ration_but_lose_nothing() {
    let plan =
        [Fault::ShortRead, Fault::ShortWrite, Fault::LateCompletion, Fault::QueueFull, Fault::NoBuffers]
            .into_iter()
            .fold(FaultPlan::calm(5), |plan, fault| plan.with(fault, ALWAYS / 2));
    let (mut io, mut pool) = (SimIo::new(plan), pool());
    let (fd, peer) = pair(&mut io, &mut pool);
    let text: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(io.net.write(peer, &text), Ok(text.len()));
    let mut echoed = Vec::new();
    while echoed.len() < text.len() {
        io.recv(fd, Class::Small, Expect::Now, token(Kind::ConnRecv, 1));
        let Outcome::Received(lease) = wait(&mut io, &mut pool, 1).remove(0).outcome else { panic!() };
        let mut chain = Chain::default();
        chain.push(lease);
        while !chain.is_empty() {
            io.send(fd, &chain, &pool, token(Kind::ConnSend, 1));
            let Outcome::Sent(n) = wait(&mut io, &mut pool, 1)[0].outcome else { panic!() };
            chain.consume(n as usize, &mut pool);
        }
        wait_until_quiet(&mut io, &mut pool);
        echoed.extend(io.net.read_up_to(peer, 1 << 20).unwrap().1);
    }
    assert!(echoed == text);
    for fault in [Fault::ShortRead, Fault::ShortWrite, Fault::LateCompletion, Fault::NoBuffers] {
        assert!(io.net.faults.count(fault) > 0, "{fault:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_hash_and_another_does_not() {
    let run = |seed| {
        let (mut io, mut pool) = (SimIo::new(FaultPlan::gentle(seed)), pool());
        let (fd, peer) = pair(&mut io, &mut pool);
        io.net.write(peer, &[1; 3000]).unwrap();
        for _ in 0..3 {
            io.recv(fd, Class::Tiny, Expect::Now, token(Kind::ConnRecv, 1));
            let Outcome::Received(lease) = wait(&mut io, &mut pool, 1).remove(0).outcome else { panic!() };
            pool.give_back(lease);
        }
        (io.trace.hash(), io.trace.events())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}
