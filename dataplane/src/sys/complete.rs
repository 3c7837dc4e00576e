//! From the kernel's completions to outcomes: every errno that is the kernel's way of saying "ask again" ends here.

use super::later::is_short_of_memory;
use super::operations::{Operation, Verb};
use super::ring::{Ring, group_of};
use super::sqe;
use crate::buf::{Class, Pool};
use crate::io::{Completion, Errno, Fd, Kind, Message, Outcome, Token};
use io_uring::cqueue;

/// What becomes of an operation after one of its completions.
enum Next {
    /// It ended.
    End(Outcome),
    /// It goes on, with this to tell.
    More(Outcome),
    /// It is asked for again, with this to tell.
    Again(Option<Outcome>),
    /// It is asked for again after a pause.
    Later,
    /// It waits for a buffer.
    Starve(Class),
}

impl Ring {
    /// Moves the completions that are there now to the end of `out`, at most as many as the queue holds (invariant 8).
    pub(super) fn reap(&mut self, pool: &mut Pool, out: &mut Vec<Completion>) {
        let there = self.uring.completion().len();
        for _ in 0..there {
            let Some(cqe) = self.uring.completion().next() else { break };
            self.counters.cqes += 1;
            self.complete(&cqe, pool, out);
        }
        while let Some(token) = self.again.pop() {
            self.ask_again(token);
        }
    }

    pub(super) fn complete(&mut self, cqe: &cqueue::Entry, pool: &mut Pool, out: &mut Vec<Completion>) {
        let token = Token(cqe.user_data());
        if token.kind() == Kind::Backend {
            return; // what a cancel says of itself; its target says the rest
        }
        if let Some(message) = Message::decode(token, cqe.result()) {
            return out.push(Completion { token, outcome: Outcome::Message(message), more: false });
        }
        if matches!(token.kind(), Kind::ConnStanding | Kind::LinkStanding) {
            return self.stood(token, cqe, pool, out);
        }
        let Some(operation) = self.operations.remove(token) else {
            self.counters.strays += 1;
            debug_assert!(false, "a completion of nothing in flight: {token:?}");
            return;
        };
        let next = match operation.verb {
            Verb::Recv(class) => self.received(class, &operation, cqe, pool),
            Verb::Accept => accepted(&operation, cqe),
            Verb::Send | Verb::Connect | Verb::Poll(_) | Verb::Close | Verb::Post | Verb::Stand => {
                finished(&operation, cqe.result())
            }
        };
        let (outcome, more) = match next {
            Next::End(outcome) => (Some(outcome), false),
            Next::More(outcome) => {
                self.operations.insert(token, operation);
                (Some(outcome), true)
            }
            Next::Again(outcome) => {
                self.operations.insert(token, operation);
                self.again.push(token);
                (outcome, true)
            }
            Next::Later => {
                self.operations.insert(token, operation);
                self.later.push(token, self.clock.mono);
                (None, true)
            }
            Next::Starve(class) => {
                self.operations.insert(token, Operation { starved: true, ..operation });
                self.starve(class, token);
                (None, true)
            }
        };
        if let Some(outcome) = outcome {
            out.push(Completion { token, outcome, more });
        }
    }

    fn received(
        &mut self,
        class: Class,
        operation: &Operation,
        cqe: &cqueue::Entry,
        pool: &mut Pool,
    ) -> Next {
        let group = &mut self.groups[group_of(class)];
        let buffer = cqueue::buffer_select(cqe.flags());
        let bytes = u32::try_from(cqe.result()).unwrap_or(0);
        if let (Some(id), true) = (buffer, bytes > 0) {
            return Next::End(Outcome::Received(group.received(id, bytes, pool)));
        }
        // The end of the stream and errors may come with a buffer that was picked and not used.
        if let Some(id) = buffer {
            group.unused(id, pool);
        }
        match cqe.result() {
            0 => Next::End(Outcome::Eof),
            error if operation.cancelling && is_retry(error) || error == -libc::ECANCELED => canceled(),
            error if error == -libc::ENOBUFS => Next::Starve(class),
            error if error == -libc::ENOMEM => Next::Later,
            error if is_retry(error) => Next::Again(None),
            error => failed(error),
        }
    }

    pub(super) fn starve(&mut self, class: Class, token: Token) {
        let index = group_of(class);
        self.counters.starvations += 1;
        self.groups[index].grow();
        self.starved[index].push(token);
    }

    /// The kernel gave an operation back undone.
    pub(super) fn ask_again(&mut self, token: Token) {
        let Some(operation) = self.operations.get(token) else { return };
        let fd = operation.fd;
        let entry = match operation.verb {
            Verb::Accept => sqe::accept(fd, token),
            Verb::Recv(class) => sqe::recv(fd, self.groups[group_of(class)].id(), 0, true, token),
            Verb::Send => sqe::send(fd, operation.first, operation.first_len, token),
            Verb::Poll(interest) => sqe::poll(fd, interest, token),
            Verb::Connect | Verb::Close | Verb::Post | Verb::Stand => {
                unreachable!("none of these is ever asked for again")
            }
        };
        self.push(entry);
    }
}

/// The errno values by which the kernel gives back what it has not done: a signal came, it would block after all, or no
/// buffer or memory was there.
fn is_retry(result: i32) -> bool {
    matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
}

fn failed(result: i32) -> Next {
    Next::End(Outcome::Failed(Errno(-result)))
}

fn canceled() -> Next {
    Next::End(Outcome::Failed(Errno(libc::ECANCELED)))
}

/// Errors of one connection that died in the backlog, which accept(2) passes on and asks to treat like EAGAIN.
fn is_of_one_connection(result: i32) -> bool {
    matches!(
        -result,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
    )
}

fn accepted(operation: &Operation, cqe: &cqueue::Entry) -> Next {
    let result = cqe.result();
    if result >= 0 {
        let outcome = Outcome::Accepted(Fd(result));
        return match cqueue::more(cqe.flags()) {
            true => Next::More(outcome),
            // The kernel ends a multishot when completions overflow; a cancelled one ends with what won the race.
            false if operation.cancelling => Next::End(outcome),
            false => Next::Again(Some(outcome)),
        };
    }
    match result {
        _ if operation.cancelling => canceled(),
        _ if result == -libc::EAGAIN || result == -libc::EINTR || is_of_one_connection(result) => {
            Next::Again(None)
        }
        _ => failed(result),
    }
}

fn finished(operation: &Operation, result: i32) -> Next {
    let canceled_now = operation.cancelling && is_retry(result);
    match (operation.verb, result) {
        (Verb::Send, 1..) => Next::End(Outcome::Sent(result.unsigned_abs())),
        (Verb::Connect, 0) => Next::End(Outcome::Connected),
        (Verb::Post, 0) => Next::End(Outcome::Posted),
        (Verb::Poll(_), 1..) => Next::End(Outcome::Ready),
        // close(2) has closed, whatever it says of what it could not write; only a descriptor that is none is our bug.
        (Verb::Close, _) if result != -libc::EBADF => Next::End(Outcome::Closed),
        _ if canceled_now => canceled(),
        (Verb::Send | Verb::Poll(_), _) if is_short_of_memory(result) => Next::Later,
        (Verb::Send | Verb::Poll(_), 0) => Next::Again(None),
        (Verb::Send | Verb::Poll(_), _) if result == -libc::EAGAIN || result == -libc::EINTR => {
            Next::Again(None)
        }
        _ => failed(result),
    }
}
