//! The end of a ring that still has something in flight.

use super::enter::Wait;
use super::operations::Verb;
use super::ring::{Ring, fatal};
use super::socket;
use super::standing::served;
use crate::io::{Fd, Io as _, Kind, Message, Token};
use io_uring::{cqueue, types};

impl Ring {
    /// The last resort of a ring dropped with operations in flight (a panic): cancels them and waits, at most about a
    /// second, for the kernel to let go of the buffers.
    fn abandon(&mut self) {
        const TURNS: u32 = 100;
        const TURN_NANOS: u64 = 10_000_000;
        self.flush();
        let timeout = types::Timespec::new().nsec(100_000_000);
        let _ = self.uring.submitter().register_sync_cancel(Some(timeout), types::CancelBuilder::any());
        for _ in 0..TURNS {
            while let Some(cqe) = self.uring.completion().next() {
                let token = Token(cqe.user_data());
                let verb = self.operations.get(token).map(|o| o.verb);
                if let Some(Message::Conn { fd, .. }) = Message::decode(token, cqe.result()) {
                    socket::close(fd);
                }
                if verb == Some(Verb::Accept) && cqe.result() >= 0 {
                    socket::close(Fd(cqe.result()));
                }
                if !cqueue::more(cqe.flags()) {
                    self.operations.remove(token);
                    if matches!(token.kind(), Kind::ConnStanding | Kind::LinkStanding) {
                        // What waited for its end was never with the kernel.
                        for waiting in served(token) {
                            self.operations.remove(waiting);
                        }
                    }
                }
            }
            if self.operations.count() <= self.starved() + self.later.count()
                || self.call(0, Wait::For(TURN_NANOS)).is_err_and(fatal)
            {
                break;
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.operations.count() > self.starved() + self.later.count() {
            self.abandon();
        }
        self.entry.unregister();
        for group in &self.groups {
            group.unregister(&self.uring.submitter());
        }
    }
}
