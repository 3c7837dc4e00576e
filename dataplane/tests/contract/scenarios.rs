//! The scenarios. Nothing here knows which backend it runs on.

use crate::harness::{A_WHILE, Harness, World, assert_failed};
pub use crate::standing::*;
use dataplane::buf::{Class, PoolSize};
use dataplane::io::{
    Address, Errno, Expect, Family, Fd, Interest, Io, Kind, Mono, Outcome, PortRange, Shutdown,
    SocketAddress, SocketOption, Token, UnixName,
};
use dataplane::limits;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Calls `$test!(name)` for every scenario, so that no backend leaves one out.
macro_rules! each_scenario {
    ($test:ident) => {
        $test!(connect_and_accept);
        $test!(unix_sockets);
        $test!(turn_keeps_time);
        $test!(bytes_then_eof);
        $test!(chains_arrive_in_order);
        $test!(full_socket_takes_a_part);
        $test!(shutdown_of_writing_leaves_reading);
        $test!(shutdown_of_both_wakes_the_receiver);
        $test!(close_over_unread_bytes_resets);
        $test!(reset_is_not_an_end);
        $test!(reset_wakes_the_receiver);
        $test!(send_to_a_closed_peer);
        $test!(connect_refused);
        $test!(connect_without_a_port);
        $test!(poll_then_receive);
        $test!(splice_from_socket_to_socket);
        $test!(splice_to_a_full_socket);
        $test!(splice_and_a_peer_that_left);
        $test!(splice_of_much);
        $test!(unload_a_pipe);
        $test!(pipes_are_lent_to_the_last);
        $test!(poll_sees_the_end);
        $test!(poll_sees_a_reset);
        $test!(poll_sees_a_shutdown);
        $test!(poll_takes_the_place_of_a_receive);
        $test!(cancel_receive);
        $test!(cancel_accept);
        $test!(cancel_connect);
        $test!(cancel_poll);
        $test!(cancel_send);
        $test!(cancel_what_ended);
        $test!(starved_receive_resumes);
        $test!(cancel_starved_receive);
        $test!(shutdown_wakes_a_starved_receive);
        $test!(starvation_of_one_class_only);
        $test!(discard_many);
        $test!(what_a_slow_reader_has_not_taken);
        $test!(accept_many);
        $test!(accept_without_descriptors);
        $test!(pipes_without_descriptors);
        $test!(often_brings_all_in_order);
        $test!(often_unasked_bytes_wait);
        $test!(often_then_poll);
        $test!(often_taken_back);
        $test!(often_then_close);
        $test!(often_and_the_end);
    };
}
pub(crate) use each_scenario;

pub fn connect_and_accept<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (client, accepted) = w.pair();
    assert_eq!(w.io.local_address(client), w.io.peer_address(accepted));
    assert_eq!(w.io.peer_address(client), w.io.local_address(accepted));
    w.io.set_option(accepted, SocketOption::NoDelay).unwrap();
    w.close_both((client, accepted));
    w.finish();
}

/// As with TCP, but that neither end has an address.
pub fn unix_sockets<H: Harness>(h: &mut H) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("@ringway-contract-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let address = Address::from(UnixName::new(name.as_bytes()).unwrap());
    let mut w = World::new(h);
    let nobody = w.io.socket(Family::Unix).unwrap();
    let connect = w.token(Kind::LinkConnect);
    w.io.connect(nobody, &address, connect);
    assert_failed(&w.outcome(connect), &[libc::ECONNREFUSED]);
    w.close(nobody);
    let listener = w.io.socket(Family::Unix).unwrap();
    w.io.bind(listener, &address).unwrap();
    w.io.listen(listener, 16).unwrap();
    let accept = w.accept(listener);
    let client = w.io.socket(Family::Unix).unwrap();
    let connect = w.token(Kind::LinkConnect);
    w.io.connect(client, &address, connect);
    assert!(matches!(w.outcome(connect), Outcome::Connected));
    let accepted = w.accepted(accept);
    for fd in [client, accepted] {
        assert_eq!(
            (w.io.local_address(fd), w.io.peer_address(fd)),
            (Ok(SocketAddress::UNIX), Ok(SocketAddress::UNIX))
        );
    }
    w.write(client, b"hello");
    assert_eq!(w.read(accepted, 5), b"hello");
    // Through a pipe to the client again.
    w.write(client, b"there and back");
    ready(&mut w, accepted, Interest::Readable);
    let pipe = w.io.take_pipe().unwrap();
    w.io.set_option(accepted, SocketOption::NonBlocking).unwrap();
    assert_eq!(w.io.splice_in(accepted, &pipe, 1 << 16), Ok(14));
    assert_eq!(w.io.splice_out(&pipe, accepted), Ok(14));
    w.io.give_pipe(pipe);
    assert_eq!(w.read(client, 14), b"there and back");
    w.io.shutdown(client, Shutdown::Write).unwrap();
    let end = w.recv(accepted, Class::Small);
    assert!(matches!(w.outcome(end), Outcome::Eof));
    w.io.cancel(accept);
    assert_failed(&w.outcome(accept), &[libc::ECANCELED]);
    w.close_both((client, accepted));
    w.close(listener);
    w.finish();
}

/// Descriptors that never got an owner, many of them within one turn.
pub fn discard_many<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let pairs = w.pairs(5);
    for (client, accepted) in pairs {
        w.io.discard(accepted);
        let end = w.recv(client, Class::Small);
        assert!(matches!(w.outcome(end), Outcome::Eof));
        w.close(client);
    }
    w.finish();
}

/// What was given to a socket and not taken shrinks as its peer reads, long before a full send completes.
pub fn what_a_slow_reader_has_not_taken<H: Harness>(h: &mut H) {
    const PIECE: usize = 60_000;
    let mut w = World::new(h);
    let (a, b) = w.pair();
    assert_eq!(w.io.unacknowledged(a), Ok(0));
    let mut sent = 0;
    let stuck = loop {
        let token = w.send(a, &[&[b'x'; PIECE]]);
        let Some(completion) = w.soon(token) else { break token };
        let Outcome::Sent(n) = completion.outcome else { panic!("{completion:?}") };
        sent += n as usize;
    };
    let before = w.io.unacknowledged(a).unwrap();
    assert!(before > 0);
    w.read(b, sent / 2);
    assert!(w.io.unacknowledged(a).unwrap() < before);
    w.read(b, sent - sent / 2);
    w.outcome(stuck);
    w.close_both((a, b));
    w.finish();
}

/// A range of four ports: what finds none free may be bound to another address and connected again.
pub fn connect_without_a_port<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (listener, to) = w.listener(16);
    // Ports that are nobody's at these addresses, unless somebody has bound one at all addresses.
    let [source, other] = [1, 2].map(|n| SocketAddress::new([127, 77, 7, n].into(), 0));
    let ports = PortRange::new(50_000, 50_003).unwrap();
    let mut open = Vec::new();
    loop {
        let fd = w.io.socket(Family::V4).unwrap();
        w.io.set_option(fd, SocketOption::LocalPorts(ports)).unwrap();
        w.io.set_option(fd, SocketOption::BindAddressNoPort).unwrap();
        w.io.bind(fd, &source.into()).unwrap();
        open.push(fd);
        let token = w.token(Kind::LinkConnect);
        w.io.connect(fd, &to.into(), token);
        match w.outcome(token) {
            Outcome::Connected => {
                let local = w.io.local_address(fd).unwrap();
                assert!(local.ip() == source.ip() && ports.contains(local.port()), "{local}");
            }
            other => break assert_failed(&other, &[libc::EADDRNOTAVAIL]),
        }
        assert!(open.len() <= 4, "more connections than ports");
    }
    assert!(open.len() > 1, "no port of four was free");
    let last = open[open.len() - 1];
    w.io.bind(last, &other.into()).unwrap();
    let token = w.token(Kind::LinkConnect);
    w.io.connect(last, &to.into(), token);
    assert!(matches!(w.outcome(token), Outcome::Connected));
    assert_eq!(w.io.local_address(last).unwrap().ip(), other.ip());
    open.into_iter().for_each(|fd| w.close(fd));
    w.close(listener);
    w.finish();
}

pub fn turn_keeps_time<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let before = w.now();
    w.pass(A_WHILE);
    assert!(w.now().since(before) >= 30_000_000);
    let mut out = Vec::new();
    w.io.turn(&mut w.pool, Mono(0), &mut out).unwrap();
    assert!(out.is_empty());
    w.finish();
}

pub fn bytes_then_eof<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let early = w.recv(b, Class::Small);
    assert_eq!(w.io.in_flight(), 1);
    w.nothing_from(early);
    w.write(a, b"hello");
    assert_eq!(w.bytes(early), b"hello");
    w.write(a, b"again");
    w.close(a);
    assert_eq!(w.read(b, 5), b"again");
    for _ in 0..2 {
        let end = w.recv(b, Class::Small);
        assert!(matches!(w.outcome(end), Outcome::Eof));
    }
    w.close(b);
    w.finish();
}

pub fn chains_arrive_in_order<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let body = vec![b'x'; 3000];
    let token = w.send(a, &[b"one ", b"two ", &body, b" three"]);
    let Outcome::Sent(n) = w.outcome(token) else { panic!("the chain was not sent") };
    assert_eq!(n, 3014, "three kilobytes fit an empty socket");
    let expected = [b"one two ".as_slice(), &body, b" three"].concat();
    assert_eq!(w.read(b, 3014), expected);
    // A small buffer takes its capacity of a longer run, and the rest stays for the next.
    let long = vec![b'y'; Class::Small.capacity() + 10];
    let token = w.send(a, &[&long]);
    assert!(matches!(w.outcome(token), Outcome::Sent(n) if n as usize == long.len()));
    let first = w.recv(b, Class::Small);
    assert!(w.bytes(first).len() <= Class::Small.capacity());
    w.close(a);
    let mut rest = 0;
    loop {
        let token = w.recv(b, Class::Large);
        match w.outcome(token) {
            Outcome::Received(lease) => {
                rest += lease.len();
                w.pool.give_back(lease);
            }
            Outcome::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(rest >= 10);
    w.close(b);
    w.finish();
}

/// The byte at place `at` of a long stream.
fn canary(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]
}

pub fn full_socket_takes_a_part<H: Harness>(h: &mut H) {
    const PIECE: usize = 60_000;
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let (mut sent, mut shorts) = (0, 0);
    // Send until a send stays unanswered: the socket is full, because nobody reads.
    let stuck = loop {
        let piece: Vec<u8> = (sent..sent + 3 * PIECE).map(canary).collect();
        let parts: Vec<&[u8]> = piece.chunks(PIECE).collect();
        let token = w.send(a, &parts);
        let Some(completion) = w.soon(token) else { break token };
        let Outcome::Sent(n) = completion.outcome else { panic!("{completion:?}") };
        assert!((1..=3 * PIECE).contains(&(n as usize)));
        shorts += usize::from((n as usize) < 3 * PIECE);
        sent += n as usize;
        assert!(sent < 64 << 20, "a socket that is never full");
    };
    assert!(shorts > 0, "{sent} bytes, and no send was taken in part");
    let mut read = 0;
    let mut due = None;
    loop {
        if let Some(completion) = w.take(stuck) {
            let Outcome::Sent(n) = completion.outcome else { panic!("{completion:?}") };
            sent += n as usize;
            due = Some(sent);
        }
        if due == Some(read) {
            break;
        }
        let token = w.recv(b, Class::Large);
        let bytes = w.bytes(token);
        for (at, byte) in (read..).zip(&bytes) {
            assert_eq!(*byte, canary(at), "at byte {at}");
        }
        read += bytes.len();
    }
    w.close_both((a, b));
    w.finish();
}

pub fn shutdown_of_writing_leaves_reading<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let back = w.recv(a, Class::Small);
    w.write(a, b"all I have");
    w.io.shutdown(a, Shutdown::Write).unwrap();
    assert_eq!(w.read(b, 10), b"all I have");
    let end = w.recv(b, Class::Small);
    assert!(matches!(w.outcome(end), Outcome::Eof));
    w.nothing_from(back);
    w.write(b, b"thanks");
    assert_eq!(w.bytes(back), b"thanks");
    let refused = w.send(a, &[b"more"]);
    assert_failed(&w.outcome(refused), &[libc::EPIPE]);
    w.close_both((a, b));
    w.finish();
}

pub fn shutdown_of_both_wakes_the_receiver<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let (mine, theirs) = (w.recv(a, Class::Small), w.recv(b, Class::Large));
    w.nothing_from(mine);
    w.io.shutdown(a, Shutdown::Both).unwrap();
    assert!(matches!(w.outcome(mine), Outcome::Eof));
    assert!(matches!(w.outcome(theirs), Outcome::Eof));
    w.close_both((a, b));
    w.finish();
}

pub fn close_over_unread_bytes_resets<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let answer = w.recv(a, Class::Small);
    w.write(a, b"never read");
    w.nothing_from(answer);
    w.close(b);
    assert_failed(&w.outcome(answer), &[libc::ECONNRESET]);
    w.close(a);
    w.finish();
}

/// What the peer had not read when a reset came may be lost or not; but it must never look like an orderly end.
pub fn reset_is_not_an_end<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    w.write(a, b"perhaps lost");
    w.io.set_option(a, SocketOption::ResetOnClose).unwrap();
    w.close(a);
    w.pass(A_WHILE);
    let first = w.recv(b, Class::Small);
    match w.outcome(first) {
        Outcome::Received(lease) => {
            assert_eq!(w.pool.bytes(&lease), b"perhaps lost");
            w.pool.give_back(lease);
            let second = w.recv(b, Class::Small);
            assert_failed(&w.outcome(second), &[libc::ECONNRESET]);
        }
        other => assert_failed(&other, &[libc::ECONNRESET]),
    }
    w.close(b);
    w.finish();
}

pub fn reset_wakes_the_receiver<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let waiting = w.recv(b, Class::Small);
    w.nothing_from(waiting);
    w.io.set_option(a, SocketOption::ResetOnClose).unwrap();
    w.close(a);
    assert_failed(&w.outcome(waiting), &[libc::ECONNRESET]);
    w.close(b);
    w.finish();
}

pub fn send_to_a_closed_peer<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    w.close(b);
    let mut sent = 0;
    let failure = loop {
        let token = w.send(a, &[b"anybody there?"]);
        match w.outcome(token) {
            Outcome::Sent(_) => sent += 1,
            other => break other,
        }
        assert!(sent < 100, "a peer that is gone takes everything");
        w.pass(A_WHILE);
    };
    assert!(sent > 0, "the first bytes after an orderly end are taken");
    assert_failed(&failure, &[libc::EPIPE, libc::ECONNRESET]);
    w.close(a);
    w.finish();
}

pub fn connect_refused<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (listener, address) = w.listener(8);
    w.close(listener);
    let (fd, connect) = w.connect(&address);
    assert_failed(&w.outcome(connect), &[libc::ECONNREFUSED]);
    w.close(fd);
    w.finish();
}

pub fn poll_then_receive<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let poll = w.poll(b);
    w.nothing_from(poll);
    w.write(a, b"ready");
    assert!(matches!(w.outcome(poll), Outcome::Ready));
    assert_eq!(w.read(b, 5), b"ready");
    w.close_both((a, b));
    w.finish();
}

pub fn poll_sees_the_end<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let poll = w.poll(b);
    w.nothing_from(poll);
    w.io.shutdown(a, Shutdown::Write).unwrap();
    assert!(matches!(w.outcome(poll), Outcome::Ready));
    // What has happened already is seen too.
    let again = w.poll(b);
    assert!(matches!(w.outcome(again), Outcome::Ready));
    let end = w.recv(b, Class::Small);
    assert!(matches!(w.outcome(end), Outcome::Eof));
    w.close_both((a, b));
    w.finish();
}

pub fn poll_sees_a_reset<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let poll = w.poll(b);
    w.nothing_from(poll);
    w.io.set_option(a, SocketOption::ResetOnClose).unwrap();
    w.close(a);
    assert!(matches!(w.outcome(poll), Outcome::Ready));
    let end = w.recv(b, Class::Small);
    assert_failed(&w.outcome(end), &[libc::ECONNRESET]);
    w.close(b);
    w.finish();
}

pub fn poll_sees_a_shutdown<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let poll = w.poll(b);
    w.nothing_from(poll);
    w.io.shutdown(b, Shutdown::Both).unwrap();
    assert!(matches!(w.outcome(poll), Outcome::Ready));
    let end = w.recv(b, Class::Small);
    assert!(matches!(w.outcome(end), Outcome::Eof));
    w.close_both((a, b));
    w.finish();
}

/// How an idle conn is parked: its receive is cancelled and a poll takes over the token, also while bytes arrive.
pub fn poll_takes_the_place_of_a_receive<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let token = w.recv(b, Class::Small);
    cancel_for_sure(&mut w, token);
    w.io.poll(b, Interest::Readable, token);
    w.nothing_from(token);
    w.write(a, b"first");
    assert!(matches!(w.outcome(token), Outcome::Ready));
    w.io.recv(b, Class::Small, Expect::Now, token);
    assert_eq!(w.bytes(token), b"first");
    for _ in 0..20 {
        w.io.recv(b, Class::Small, Expect::Later, token);
        w.turn(Duration::ZERO);
        let send = w.send(a, &[b"again"]);
        w.io.cancel(token);
        match w.outcome(token) {
            Outcome::Received(lease) => {
                assert_eq!(w.pool.bytes(&lease), b"again");
                w.pool.give_back(lease);
            }
            other => {
                assert_failed(&other, &[libc::ECANCELED]);
                w.io.poll(b, Interest::Readable, token);
                assert!(matches!(w.outcome(token), Outcome::Ready));
                w.io.recv(b, Class::Small, Expect::Now, token);
                assert_eq!(w.bytes(token), b"again");
            }
        }
        assert!(matches!(w.outcome(send), Outcome::Sent(5)));
    }
    w.close_both((a, b));
    w.finish();
}

/// Cancels and expects the one answer that an operation with nothing to tell can give.
fn cancel_for_sure<H: Harness>(w: &mut World<'_, H>, token: Token) {
    w.nothing_from(token);
    w.io.cancel(token);
    w.io.cancel(token);
    assert_failed(&w.outcome(token), &[libc::ECANCELED]);
    w.nothing_from(token);
}

pub fn cancel_receive<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let waiting = w.recv(b, Class::Small);
    cancel_for_sure(&mut w, waiting);
    // Asked for and cancelled in the same turn.
    let at_once = w.recv(b, Class::Large);
    w.io.cancel(at_once);
    assert_failed(&w.outcome(at_once), &[libc::ECANCELED]);
    // A cancel that races with bytes: either wins, and no byte is lost.
    let race = w.recv(b, Class::Small);
    w.write(a, b"bytes");
    w.io.cancel(race);
    let got = match w.outcome(race) {
        Outcome::Received(lease) => {
            let bytes = w.pool.bytes(&lease).to_vec();
            w.pool.give_back(lease);
            bytes
        }
        other => {
            assert_failed(&other, &[libc::ECANCELED]);
            w.read(b, 5)
        }
    };
    assert_eq!(got, b"bytes");
    w.close_both((a, b));
    w.finish();
}

pub fn cancel_accept<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (listener, address) = w.listener(8);
    let accept = w.accept(listener);
    cancel_for_sure(&mut w, accept);
    // A connection that comes while an accept is cancelled is delivered, or waits for the next accept.
    let accept = w.accept(listener);
    let (client, connect) = w.connect(&address);
    w.io.cancel(accept);
    let mut fds: Vec<Fd> = Vec::new();
    loop {
        let completion = w.wait(accept);
        match completion.outcome {
            Outcome::Accepted(fd) => fds.push(fd),
            other => assert_failed(&other, &[libc::ECANCELED]),
        }
        if !completion.more {
            break;
        }
    }
    assert!(matches!(w.outcome(connect), Outcome::Connected));
    if fds.is_empty() {
        let next = w.accept(listener);
        fds.push(w.accepted(next));
        cancel_for_sure(&mut w, next);
    }
    assert_eq!(fds.len(), 1);
    w.close_both((client, fds[0]));
    w.close(listener);
    w.finish();
}

pub fn cancel_connect<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    // A full backlog that nobody empties: later connects wait, where the network is that true to life.
    let (listener, address) = w.listener(0);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (fd, connect) = w.connect(&address);
        w.pass(A_WHILE);
        w.io.cancel(connect);
        match w.outcome(connect) {
            Outcome::Connected => {}
            other => assert_failed(&other, &[libc::ECANCELED]),
        }
        clients.push(fd);
    }
    clients.into_iter().for_each(|fd| w.close(fd));
    w.close(listener);
    w.finish();
}

pub fn cancel_poll<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let poll = w.poll(b);
    cancel_for_sure(&mut w, poll);
    w.close_both((a, b));
    w.finish();
}

pub fn cancel_send<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let block = vec![b'z'; 60_000];
    let stuck = loop {
        let token = w.send(a, &[&block, &block, &block, &block]);
        match w.soon(token) {
            Some(completion) => assert!(matches!(completion.outcome, Outcome::Sent(_)), "{completion:?}"),
            None => break token,
        }
    };
    cancel_for_sure(&mut w, stuck);
    w.close_both((a, b));
    w.finish();
}

pub fn cancel_what_ended<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (a, b) = w.pair();
    let token = w.recv(b, Class::Small);
    w.write(a, b"done");
    assert_eq!(w.bytes(token), b"done");
    w.io.cancel(token);
    let never = w.token(Kind::ConnRecv);
    w.io.cancel(never);
    w.nothing_from(token);
    w.close_both((a, b));
    w.finish();
}

/// Sixteen buffers, two of them in reserve, and more receivers with bytes waiting than that.
const STARVED: usize = 10;
fn starve<H: Harness>(w: &mut World<'_, H>) -> (Vec<(Fd, Fd)>, Vec<Token>) {
    let pairs = w.pairs(14 + STARVED);
    for (a, _) in &pairs {
        w.write(*a, b"!");
    }
    let tokens: Vec<Token> = pairs.iter().map(|(_, b)| w.recv(*b, Class::Small)).collect();
    w.pass(A_WHILE);
    assert_eq!((w.io.starved(), w.io.in_flight()), (STARVED, STARVED));
    (pairs, tokens)
}

const SCARCE: PoolSize = PoolSize { tiny: 64, small: 16, large: 16 };

pub fn starved_receive_resumes<H: Harness>(h: &mut H) {
    let mut w = World::with_pool(h, SCARCE);
    let (pairs, tokens) = starve(&mut w);
    let mut got = BTreeSet::new();
    while got.len() < tokens.len() {
        let ready: Vec<_> = tokens.iter().filter_map(|t| w.take(*t)).collect();
        // At most two leases go back per round, so that the rest keeps waiting for its turn.
        for completion in ready {
            let Outcome::Received(lease) = completion.outcome else { panic!("{completion:?}") };
            w.pool.give_back(lease);
            assert!(got.insert(completion.token), "one receive answered twice");
            if got.len() % 2 == 0 {
                w.turn(Duration::ZERO);
            }
        }
        w.turn(Duration::from_secs(1));
    }
    assert_eq!(w.io.starved(), 0);
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
}

pub fn cancel_starved_receive<H: Harness>(h: &mut H) {
    let mut w = World::with_pool(h, SCARCE);
    let (pairs, tokens) = starve(&mut w);
    let received: Vec<_> = tokens.iter().filter_map(|t| w.take(*t)).collect();
    assert_eq!(received.len(), 14);
    // Which ones starve is the backend's choice.
    let mut starved = Vec::new();
    for (token, (_, b)) in tokens.into_iter().zip(&pairs) {
        if received.iter().all(|c| c.token != token) {
            starved.push((token, *b));
        }
    }
    for (cancelled, (token, _)) in starved.iter().enumerate() {
        w.io.cancel(*token);
        assert_failed(&w.outcome(*token), &[libc::ECANCELED]);
        assert_eq!(w.io.starved(), STARVED - cancelled - 1);
    }
    for completion in received {
        let Outcome::Received(lease) = completion.outcome else { panic!("{completion:?}") };
        w.pool.give_back(lease);
    }
    // What was cancelled lost nothing: the bytes are still there to be read.
    for (_, b) in starved {
        assert_eq!(w.read(b, 1), b"!");
    }
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
}

pub fn shutdown_wakes_a_starved_receive<H: Harness>(h: &mut H) {
    let mut w = World::with_pool(h, SCARCE);
    let (pairs, tokens) = starve(&mut w);
    for (token, (_, b)) in tokens.into_iter().zip(&pairs) {
        if !w.peek(token) {
            w.io.shutdown(*b, Shutdown::Both).unwrap();
            assert!(matches!(w.outcome(token), Outcome::Eof));
        }
    }
    assert_eq!(w.io.starved(), 0);
    w.drop_received();
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
}

pub fn starvation_of_one_class_only<H: Harness>(h: &mut H) {
    let mut w = World::with_pool(h, SCARCE);
    let (pairs, tokens) = starve(&mut w);
    let (a, b) = w.pair();
    w.write(a, b"large");
    let large = w.recv(b, Class::Large);
    assert_eq!(w.bytes(large), b"large");
    assert_eq!(w.io.starved(), STARVED);
    let mut open = BTreeSet::from_iter(tokens);
    while let Some(token) = open.iter().copied().next() {
        let token = open.iter().copied().find(|t| w.peek(*t)).unwrap_or(token);
        assert_eq!(w.bytes(token), b"!");
        open.remove(&token);
    }
    w.close_both((a, b));
    pairs.into_iter().for_each(|pair| w.close_both(pair));
    w.finish();
}

pub fn accept_many<H: Harness>(h: &mut H) {
    const MANY: usize = 200;
    let mut w = World::new(h);
    let (listener, address) = w.listener(1024);
    let accept = w.accept(listener);
    let clients: Vec<_> = (0..MANY).map(|_| w.connect(&address)).collect();
    let accepted: Vec<Fd> = (0..MANY).map(|_| w.accepted(accept)).collect();
    let mut theirs = BTreeSet::new();
    for (fd, connect) in &clients {
        assert!(matches!(w.outcome(*connect), Outcome::Connected));
        theirs.insert(w.io.local_address(*fd).unwrap());
    }
    let seen: BTreeSet<_> = accepted.iter().map(|fd| w.io.peer_address(*fd).unwrap()).collect();
    assert_eq!((seen.len(), &seen), (MANY, &theirs));
    w.io.cancel(accept);
    assert_failed(&w.outcome(accept), &[libc::ECANCELED]);
    clients.into_iter().for_each(|(fd, _)| w.close(fd));
    accepted.into_iter().for_each(|fd| w.close(fd));
    w.close(listener);
    w.finish();
}

pub fn accept_without_descriptors<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (listener, address) = w.listener(8);
    let accept = w.accept(listener);
    let fd = w.io.socket(Family::V4).unwrap();
    if w.exhaust_descriptors() {
        let connect = w.token(Kind::LinkConnect);
        w.io.connect(fd, &address.into(), connect);
        assert!(matches!(w.outcome(connect), Outcome::Connected));
        assert_failed(&w.outcome(accept), &[libc::EMFILE]);
        w.relieve_descriptors();
        // The connection waited in the backlog.
        let again = w.accept(listener);
        let accepted = w.accepted(again);
        w.close(accepted);
        w.io.cancel(again);
        assert_failed(&w.outcome(again), &[libc::ECANCELED]);
    } else {
        w.io.cancel(accept);
        assert_failed(&w.outcome(accept), &[libc::ECANCELED]);
    }
    w.close(fd);
    w.close(listener);
    w.finish();
}

/// Waits until `fd` is as `interest` says.
fn ready<H: Harness>(w: &mut World<'_, H>, fd: Fd, interest: Interest) {
    let token = w.token(Kind::LinkRecv);
    w.io.poll(fd, interest, token);
    assert!(matches!(w.outcome(token), Outcome::Ready));
}

pub fn splice_from_socket_to_socket<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let pairs = w.pairs(2);
    let ((a, b), (c, d)) = (pairs[0], pairs[1]);
    w.io.set_option(c, SocketOption::NonBlocking).unwrap();
    let pipe = w.io.take_pipe().unwrap();
    let mut seen = Vec::new();
    for text in [b"hello".as_slice(), b" again"] {
        w.write(a, text);
        ready(&mut w, b, Interest::Readable);
        // Never more than asked for; the rest stays in the socket.
        assert_eq!(w.io.splice_in(b, &pipe, 3), Ok(3));
        assert_eq!(w.io.unread(b), Ok(u32::try_from(text.len()).unwrap() - 3));
        assert_eq!(w.io.held(&pipe), 3);
        assert_eq!(w.io.splice_out(&pipe, c), Ok(3));
        ready(&mut w, b, Interest::Readable);
        assert_eq!(w.io.splice_in(b, &pipe, 1 << 20), Ok(text.len() - 3));
        assert_eq!(w.io.splice_out(&pipe, c), Ok(text.len() - 3));
        seen.extend(w.read(d, text.len()));
    }
    assert_eq!(seen, b"hello again");
    w.close(a);
    ready(&mut w, b, Interest::Readable);
    assert_eq!(w.io.splice_in(b, &pipe, 1 << 20), Ok(0), "the end of the stream");
    w.io.give_pipe(pipe);
    // The sockets serve submitted operations as before.
    w.write(c, b"copied");
    assert_eq!(w.read(d, 6), b"copied");
    w.write(d, b"back");
    assert_eq!(w.read(c, 4), b"back");
    w.close(b);
    w.close_both((c, d));
    w.finish();
}

pub fn splice_to_a_full_socket<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let pairs = w.pairs(2);
    let ((a, b), (c, d)) = (pairs[0], pairs[1]);
    w.io.set_option(c, SocketOption::NonBlocking).unwrap();
    ready(&mut w, c, Interest::Writable);
    let pipe = w.io.take_pipe().unwrap();
    let (mut sent, mut read) = (0, 0);
    // Until the far socket takes no more.
    loop {
        let piece: Vec<u8> = (sent..sent + 3000).map(canary).collect();
        w.write(a, &piece);
        sent += piece.len();
        ready(&mut w, b, Interest::Readable);
        let taken = w.io.splice_in(b, &pipe, 1 << 20).unwrap();
        match w.io.splice_out(&pipe, c) {
            Ok(n) if n == taken => {}
            Ok(_) | Err(Errno(libc::EAGAIN)) => break,
            Err(errno) => panic!("{errno}"),
        }
        assert!(sent < 64 << 20, "a socket that is never full");
    }
    let room = w.token(Kind::ConnSend);
    w.io.poll(c, Interest::Writable, room);
    let mut waits = true;
    while read < sent {
        if waits && w.take(room).is_some() {
            waits = false;
        }
        if !waits && w.io.held(&pipe) > 0 {
            let n = w.io.splice_out(&pipe, c).unwrap();
            assert!(n > 0);
        }
        let token = w.recv(d, Class::Large);
        let bytes = w.bytes(token);
        for (at, byte) in (read..).zip(&bytes) {
            assert_eq!(*byte, canary(at), "at byte {at}");
        }
        read += bytes.len();
    }
    w.io.give_pipe(pipe);
    w.close_both((a, b));
    w.close_both((c, d));
    w.finish();
}

pub fn splice_and_a_peer_that_left<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let pairs = w.pairs(2);
    let ((a, b), (c, d)) = (pairs[0], pairs[1]);
    w.io.set_option(c, SocketOption::NonBlocking).unwrap();
    w.write(a, b"lost");
    ready(&mut w, b, Interest::Readable);
    let pipe = w.io.take_pipe().unwrap();
    assert_eq!(w.io.splice_in(b, &pipe, 1 << 20), Ok(4));
    w.io.set_option(d, SocketOption::ResetOnClose).unwrap();
    w.close(d);
    ready(&mut w, c, Interest::Readable);
    let Err(Errno(errno)) = w.io.splice_out(&pipe, c) else { panic!("bytes for nobody") };
    assert!([libc::ECONNRESET, libc::EPIPE].contains(&errno), "{errno}");
    // Bytes are in it: it goes back all the same, and the next one is empty.
    w.io.give_pipe(pipe);
    let pipe = w.io.take_pipe().unwrap();
    assert_eq!(w.io.held(&pipe), 0);
    w.io.give_pipe(pipe);
    w.io.set_option(a, SocketOption::ResetOnClose).unwrap();
    w.close(a);
    ready(&mut w, b, Interest::Readable);
    let pipe = w.io.take_pipe().unwrap();
    assert_eq!(w.io.splice_in(b, &pipe, 10), Err(Errno(libc::ECONNRESET)));
    w.io.give_pipe(pipe);
    w.close(b);
    w.close(c);
    w.finish();
}

/// A pipe takes what it takes, perhaps more than its size in bytes: what it holds is what was counted.
pub fn splice_of_much<H: Harness>(h: &mut H) {
    const MUCH: usize = 3 << 20;
    let mut w = World::new(h);
    let pairs = w.pairs(2);
    let ((a, b), (c, d)) = (pairs[0], pairs[1]);
    w.io.set_option(c, SocketOption::NonBlocking).unwrap();
    let (mut sent, mut read) = (0, 0);
    while read < MUCH {
        if sent < MUCH {
            let piece: Vec<u8> = (sent..sent + 60_000).map(canary).collect();
            w.write(a, &piece);
            sent += piece.len();
        }
        ready(&mut w, b, Interest::Readable);
        let pipe = w.io.take_pipe().unwrap();
        let taken = w.io.splice_in(b, &pipe, 1 << 30).unwrap();
        assert_eq!(w.io.held(&pipe), taken);
        let mut given = 0;
        while given < taken {
            ready(&mut w, c, Interest::Writable);
            given += w.io.splice_out(&pipe, c).unwrap();
            assert_eq!(w.io.held(&pipe), taken - given);
            let token = w.recv(d, Class::Large);
            let bytes = w.bytes(token);
            assert!((read..).zip(&bytes).all(|(at, byte)| *byte == canary(at)));
            read += bytes.len();
        }
        w.io.give_pipe(pipe);
        while read < sent && sent >= MUCH {
            let token = w.recv(d, Class::Large);
            read += w.bytes(token).len();
        }
    }
    w.close_both((a, b));
    w.close_both((c, d));
    w.finish();
}

pub fn unload_a_pipe<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let pairs = w.pairs(2);
    let ((a, b), (c, d)) = (pairs[0], pairs[1]);
    w.io.set_option(c, SocketOption::NonBlocking).unwrap();
    let pipe = w.io.take_pipe().unwrap();
    assert_eq!(w.io.unload(&pipe, &mut [0; 8]), Err(Errno(libc::EAGAIN)), "an empty pipe");
    w.write(a, b"copied and passed on");
    ready(&mut w, b, Interest::Readable);
    assert_eq!(w.io.splice_in(b, &pipe, 1 << 20), Ok(20));
    let mut to = [0; 7];
    assert_eq!((w.io.unload(&pipe, &mut to), &to), (Ok(7), b"copied "));
    assert_eq!((w.io.held(&pipe), w.io.splice_out(&pipe, c)), (13, Ok(13)));
    assert_eq!(w.read(d, 13), b"and passed on");
    w.write(a, b"all");
    ready(&mut w, b, Interest::Readable);
    assert_eq!(w.io.splice_in(b, &pipe, 1 << 20), Ok(3));
    let mut to = [0; 100];
    assert_eq!((w.io.unload(&pipe, &mut to), &to[..3]), (Ok(3), &b"all"[..]));
    assert_eq!(w.io.held(&pipe), 0);
    w.io.give_pipe(pipe);
    w.close_both((a, b));
    w.close_both((c, d));
    w.finish();
}

pub fn pipes_are_lent_to_the_last<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    for _ in 0..2 {
        let pipes: Vec<_> = std::iter::from_fn(|| w.io.take_pipe()).collect();
        assert_eq!(pipes.len(), usize::from(limits::PIPES));
        assert!(pipes.iter().all(|pipe| w.io.held(pipe) == 0));
        let last = pipes.iter().position(dataplane::io::Pipe::is_last);
        assert_eq!(last, Some(pipes.len() - 1), "the last one is lent last");
        pipes.into_iter().for_each(|pipe| w.io.give_pipe(pipe));
    }
    w.finish();
}

pub fn pipes_without_descriptors<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    if w.exhaust_descriptors() {
        assert!(w.io.take_pipe().is_none());
        w.relieve_descriptors();
        let pipe = w.io.take_pipe().unwrap();
        assert!(w.exhaust_descriptors());
        // The last one exists by now, and is lent when no other can be made.
        let last = w.io.take_pipe().unwrap();
        assert!(!pipe.is_last() && last.is_last() && w.io.take_pipe().is_none());
        w.relieve_descriptors();
        w.io.give_pipe(last);
        w.io.give_pipe(pipe);
    }
    w.finish();
}
