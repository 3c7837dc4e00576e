//! Operations for which the kernel had no memory. Nothing of theirs is with the kernel: all of them are asked for again after
//! a pause, so that what is established waits and is not lost, and nobody spins. Their owners' deadlines go on.

use super::ring::Ring;
use crate::io::{Completion, Errno, Mono, Outcome, Token};
use crate::limits::MEMORY_PAUSE;

/// Those that wait, and until when. One that is cancelled meanwhile ends when its time comes.
#[derive(Debug, Default)]
pub(super) struct Later {
    tokens: Vec<Token>,
    until: Mono,
}

impl Later {
    pub(super) fn count(&self) -> usize {
        self.tokens.len()
    }
    /// The first begins the pause for all.
    pub(super) fn push(&mut self, token: Token, now: Mono) {
        if self.tokens.is_empty() {
            self.until = now.after(MEMORY_PAUSE);
        }
        self.tokens.push(token);
    }
    /// When there is something to ask for again.
    pub(super) fn due(&self) -> Mono {
        if self.tokens.is_empty() { Mono::MAX } else { self.until }
    }
}

impl Ring {
    /// Asks for what has waited long enough.
    pub(super) fn ask_later(&mut self, now: Mono) {
        if now < self.later.due() {
            return;
        }
        for token in std::mem::take(&mut self.later.tokens) {
            if self.operations.get(token).is_some_and(|operation| operation.cancelling) {
                self.operations.remove(token);
                let outcome = Outcome::Failed(Errno(libc::ECANCELED));
                self.local.push(Completion { token, outcome, more: false });
            } else {
                self.ask_again(token);
            }
        }
    }
}

/// The errno values by which the kernel says that it had no memory for it now.
pub(super) fn is_short_of_memory(result: i32) -> bool {
    matches!(-result, libc::ENOMEM | libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{Class, Pool, PoolSize};
    use crate::io::{Fd, Interest, Io, Kind};
    use crate::sys::operations::{Operation, Verb};
    use crate::sys::ring::group_of;
    use crate::sys::{RingOptions, clock, probe, socket};
    use io_uring::cqueue;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// What the kernel would say.
    fn completion(token: Token, errno: i32) -> cqueue::Entry {
        let parts: (u64, i32, u32) = (token.0, -errno, 0);
        // SAFETY: an entry is a struct io_uring_cqe (io_uring(7)): 64 bits of the user's, a result, flags; 16 bytes.
        unsafe { std::mem::transmute::<(u64, i32, u32), cqueue::Entry>(parts) }
    }

    #[test]
    fn what_found_no_memory_is_asked_for_again_after_a_pause() {
        let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
        let mut pool = Pool::new(PoolSize { tiny: 8, small: 64, large: 8 });
        let (near, mut far) = UnixStream::pair().unwrap();
        let fd = Fd(near.as_raw_fd());
        far.write_all(b"here").unwrap();
        ring.groups[group_of(Class::Small)].wanted();
        let [recv, poll, dropped] = [0, 1, 2].map(|slot| Token::new(Kind::ConnRecv, slot, 0));
        let mut out = Vec::new();
        let began = ring.turn(&mut pool, Mono(0), &mut out).unwrap().mono;
        let enters = ring.enters();
        for (token, verb, errno) in [
            (recv, Verb::Recv(Class::Small), libc::ENOMEM),
            (poll, Verb::Poll(Interest::Writable), libc::ENOMEM),
            (dropped, Verb::Poll(Interest::Readable), libc::ENOMEM),
        ] {
            ring.operations.insert(token, Operation::new(verb, fd.0));
            ring.complete(&completion(token, errno), &mut pool, &mut out);
        }
        assert!(out.is_empty(), "nobody is told: {out:?}");
        assert_eq!(ring.in_flight(), 3);
        ring.cancel(dropped);
        let last = began.after(Duration::from_secs(5));
        while out.len() < 3 && clock::now().mono < last {
            ring.turn(&mut pool, last, &mut out).unwrap();
        }
        let took = clock::now().mono.since(began);
        assert!(took >= 10_000_000, "{took} ns");
        assert!(ring.enters() - enters < 10, "{} calls of io_uring_enter", ring.enters() - enters);
        out.sort_by_key(|completion| completion.token);
        let [received, ready, canceled] = out.try_into().unwrap();
        let Outcome::Received(lease) = received.outcome else { panic!("{received:?}") };
        assert_eq!(pool.bytes(&lease), b"here");
        pool.give_back(lease);
        assert!(matches!(ready.outcome, Outcome::Ready), "{ready:?}");
        assert!(matches!(canceled.outcome, Outcome::Failed(Errno(libc::ECANCELED))), "{canceled:?}");
        assert!(ring.reclaim(&mut pool));
    }

    /// A send that is asked for again sends what it was to send, once.
    #[test]
    fn a_send_that_found_no_memory_goes_out_later() {
        use std::io::Read;
        let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
        let mut pool = Pool::new(PoolSize { tiny: 8, small: 8, large: 8 });
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut lease = pool.take(Class::Tiny).unwrap();
        pool.append(&mut lease, b"hello");
        let (first, len) = pool.address(&lease);
        let mut operation = Operation::new(Verb::Send, near.as_raw_fd());
        (operation.first, operation.first_len) = (first, u32::try_from(len).unwrap());
        let token = Token::new(Kind::ConnSend, 0, 0);
        ring.operations.insert(token, operation);
        let mut out = Vec::new();
        ring.complete(&completion(token, libc::ENOBUFS), &mut pool, &mut out);
        let last = clock::now().mono.after(Duration::from_secs(5));
        ring.turn(&mut pool, last, &mut out).unwrap();
        assert!(matches!(out[0].outcome, Outcome::Sent(5)), "{out:?}");
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        pool.give_back(lease);
        assert!(ring.reclaim(&mut pool));
    }

    #[test]
    fn a_connect_that_found_no_memory_is_told_at_once() {
        let mut ring = Ring::new(probe().unwrap(), RingOptions::default()).unwrap();
        let mut pool = Pool::new(PoolSize { tiny: 8, small: 8, large: 8 });
        let token = Token::new(Kind::LinkConnect, 0, 0);
        let fd = socket::socket(crate::io::Family::V4).unwrap();
        ring.operations.insert(token, Operation::new(Verb::Connect, fd.0));
        let mut out = Vec::new();
        ring.complete(&completion(token, libc::ENOMEM), &mut pool, &mut out);
        assert!(matches!(out[0].outcome, Outcome::Failed(Errno(libc::ENOMEM))), "{out:?}");
        socket::close(fd);
        let _ = ring.turn(&mut pool, clock::now().mono.after(Duration::ZERO), &mut out);
        assert!(ring.reclaim(&mut pool));
    }
}
