//! Receives that expect more of the kind ([`Expect::Often`]): a backend may take bytes ahead then, and whatever it does, all of
//! them come in order, once, and to whoever asks.

use crate::harness::{Harness, World, assert_failed};
use dataplane::buf::Class;
use dataplane::io::{Expect, Fd, Interest, Io, Kind, Outcome, Shutdown, SocketOption, Token};

/// A stream with one token for all its receives, as a conn has.
#[derive(Clone, Copy)]
struct Hot {
    fd: Fd,
    recv: Token,
}

impl Hot {
    fn new<H: Harness>(w: &mut World<'_, H>, fd: Fd) -> Self {
        Self { fd, recv: w.token(Kind::ConnRecv) }
    }
    fn ask<H: Harness>(self, w: &mut World<'_, H>) {
        w.io.recv(self.fd, Class::Small, Expect::Often, self.recv);
    }
    fn read<H: Harness>(self, w: &mut World<'_, H>, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            self.ask(w);
            all.extend(w.bytes(self.recv));
        }
        all
    }
    fn close<H: Harness>(self, w: &mut World<'_, H>) {
        let token = Token::new(Kind::ConnClose, self.recv.slot(), self.recv.generation());
        w.io.close(self.fd, token);
        assert!(matches!(w.outcome(token), Outcome::Closed));
    }
}

/// A pair of which the second end has received a first message, and nothing asks for the next.
fn hot<H: Harness>(w: &mut World<'_, H>) -> (Fd, Hot) {
    let (near, far) = w.pair();
    let hot = Hot::new(w, far);
    w.write(near, b"first");
    assert_eq!(hot.read(w, 5), b"first");
    (near, hot)
}

pub fn often_brings_all_in_order<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (near, hot) = hot(&mut w);
    for n in 0..200u32 {
        let text = format!("{n:>width$}", width = 3 + n as usize % 97);
        let asked_before = n % 2 == 0;
        if asked_before {
            hot.ask(&mut w);
        }
        w.write(near, text.as_bytes());
        let mut got = if asked_before { w.bytes(hot.recv) } else { Vec::new() };
        got.extend(hot.read(&mut w, text.len() - got.len()));
        assert_eq!(got, text.as_bytes());
    }
    hot.close(&mut w);
    w.close(near);
    w.finish();
}

pub fn often_unasked_bytes_wait<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    let (near, hot) = hot(&mut w);
    for text in [&b"one"[..], b"two", b"three"] {
        w.write(near, text);
    }
    w.turn(std::time::Duration::ZERO);
    assert_eq!(hot.read(&mut w, 11), b"onetwothree");
    // More than is ever taken ahead, with a large lease and an end behind it.
    let much: Vec<u8> = (0..60_000u32).map(|n| n.to_le_bytes()[0]).collect();
    w.write(near, b"small");
    assert_eq!(hot.read(&mut w, 5), b"small");
    let sent = w.send(near, &[&much]);
    let mut got = Vec::new();
    while got.len() < much.len() {
        w.io.recv(hot.fd, Class::Large, Expect::Now, hot.recv);
        got.extend(w.bytes(hot.recv));
    }
    assert!(matches!(w.outcome(sent), Outcome::Sent(60_000)));
    assert!(got == much);
    w.io.shutdown(near, Shutdown::Write).unwrap();
    hot.ask(&mut w);
    assert!(matches!(w.outcome(hot.recv), Outcome::Eof));
    hot.close(&mut w);
    w.close(near);
    w.finish();
}

pub fn often_then_poll<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    for ahead in [false, true] {
        let (near, hot) = hot(&mut w);
        if ahead {
            w.write(near, b"rest");
        }
        let pipe = w.io.take_pipe().unwrap();
        w.io.poll(hot.fd, Interest::Readable, hot.recv);
        if !ahead {
            w.turn(std::time::Duration::ZERO);
            w.write(near, b"rest");
        }
        let got = match w.outcome(hot.recv) {
            Outcome::Received(lease) => w.read_out(lease),
            Outcome::Ready => Vec::new(),
            other => panic!("{other:?}"),
        };
        // A poll that said no more than that leaves all bytes where a splice finds them.
        if got.is_empty() {
            assert_eq!((w.io.unread(hot.fd), w.io.ahead(hot.fd)), (Ok(4), 0));
            assert_eq!(w.io.splice_in(hot.fd, &pipe, 1 << 16), Ok(4));
        } else {
            let rest = hot.read(&mut w, 4 - got.len());
            assert_eq!([got, rest].concat(), b"rest");
        }
        w.io.give_pipe(pipe);
        hot.close(&mut w);
        w.close(near);
    }
    w.finish();
}

/// A stream that goes elsewhere: what was taken goes along, and nothing is taken any more.
pub fn often_taken_back<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    for ahead in [false, true] {
        let (near, hot) = hot(&mut w);
        if ahead {
            w.write(near, b"one");
            w.write(near, b"two");
        }
        let mut got = Vec::new();
        if w.io.stands(hot.recv) || w.io.ahead(hot.fd) > 0 {
            w.io.recv(hot.fd, Class::Small, Expect::Later, hot.recv);
            w.io.cancel(hot.recv);
            match w.outcome(hot.recv) {
                Outcome::Received(lease) => got.extend(w.read_out(lease)),
                outcome => assert_failed(&outcome, &[libc::ECANCELED]),
            }
        }
        assert!(!w.io.stands(hot.recv));
        got.extend(w.io.take_ahead(hot.fd, &mut w.pool));
        assert_eq!(w.io.ahead(hot.fd), 0);
        w.write(near, b"last");
        let left = if ahead { 10 } else { 4 } - got.len();
        assert!(w.io.unread(hot.fd).unwrap() as usize <= left);
        // Under another token: its new owner's.
        let there = w.read(hot.fd, left);
        got.extend(there);
        assert_eq!(got, if ahead { &b"onetwolast"[..] } else { b"last" });
        hot.close(&mut w);
        w.close(near);
    }
    w.finish();
}

pub fn often_then_close<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    for unasked in [0, 1, 30] {
        let (near, hot) = hot(&mut w);
        for _ in 0..unasked {
            w.write(near, b"nobody reads this");
        }
        hot.close(&mut w);
        w.close(near);
    }
    // One that is asked for is cancelled first.
    let (near, hot) = hot(&mut w);
    hot.ask(&mut w);
    w.turn(std::time::Duration::ZERO);
    w.io.cancel(hot.recv);
    assert_failed(&w.outcome(hot.recv), &[libc::ECANCELED]);
    hot.ask(&mut w);
    w.write(near, b"again");
    assert_eq!(w.bytes(hot.recv), b"again");
    hot.close(&mut w);
    w.close(near);
    w.finish();
}

pub fn often_and_the_end<H: Harness>(h: &mut H) {
    let mut w = World::new(h);
    // FIN, asked for and not.
    for asked in [true, false] {
        let (near, hot) = hot(&mut w);
        if asked {
            hot.ask(&mut w);
        }
        w.io.shutdown(near, Shutdown::Write).unwrap();
        if !asked {
            w.turn(std::time::Duration::ZERO);
            hot.ask(&mut w);
        }
        assert!(matches!(w.outcome(hot.recv), Outcome::Eof));
        hot.close(&mut w);
        w.close(near);
    }
    // A reset, asked for and not: never like an end.
    for asked in [true, false] {
        let (near, hot) = hot(&mut w);
        if asked {
            hot.ask(&mut w);
        }
        w.io.set_option(near, SocketOption::ResetOnClose).unwrap();
        w.close(near);
        if !asked {
            w.turn(std::time::Duration::ZERO);
            hot.ask(&mut w);
        }
        assert_failed(&w.outcome(hot.recv), &[libc::ECONNRESET]);
        hot.close(&mut w);
    }
    // Bytes with the end behind them, both there before anybody asks: first the bytes, then the end as it was, at once.
    for reset in [false, true] {
        let (near, hot) = hot(&mut w);
        w.write(near, b"last");
        if reset {
            w.io.set_option(near, SocketOption::ResetOnClose).unwrap();
        }
        w.close(near);
        w.pass(std::time::Duration::from_millis(2));
        let began = w.now();
        hot.ask(&mut w);
        // A reset may destroy what was not read yet.
        let mut outcome = w.outcome(hot.recv);
        if let Outcome::Received(lease) = outcome {
            assert_eq!(w.read_out(lease), b"last");
            hot.ask(&mut w);
            outcome = w.outcome(hot.recv);
        }
        match reset {
            true => assert_failed(&outcome, &[libc::ECONNRESET]),
            false => assert!(matches!(outcome, Outcome::Eof), "{outcome:?}"),
        }
        assert!(w.now().since(began) < 900_000_000, "only the look at idle ones found the end");
        hot.close(&mut w);
    }
    // Our own shutdown wakes it.
    let (near, hot) = hot(&mut w);
    hot.ask(&mut w);
    w.turn(std::time::Duration::ZERO);
    w.io.shutdown(hot.fd, Shutdown::Both).unwrap();
    assert!(matches!(w.outcome(hot.recv), Outcome::Eof));
    hot.close(&mut w);
    w.close(near);
    w.finish();
}
