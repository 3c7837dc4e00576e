//! The pipes of a shard, and splice(2): bytes from socket to socket by reference.

use super::enter::last_errno;
use super::socket;
use crate::io::{Errno, Fd, Pipe};
use crate::limits::{PIPE_BYTES, PIPES};
use std::ptr;

/// Pipes kept for their next use; made when first needed, never more than `PIPES`.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    made: u32,
}

impl Pipes {
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.made >= PIPES {
            return None;
        }
        let pipe = make()?;
        self.made += 1;
        Some(pipe)
    }
    pub(super) fn give(&mut self, pipe: Pipe) {
        if pipe.held() == 0 {
            self.free.push(pipe);
        } else {
            self.made -= 1;
            close(&pipe);
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.free.iter().for_each(close);
    }
}

fn close(pipe: &Pipe) {
    socket::close(pipe.reader);
    socket::close(pipe.writer);
}

fn make() -> Option<Pipe> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors to an array of two.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if result < 0 {
        return None;
    }
    // Refused beyond pipe-max-size, or past a user's pipe-user-pages-soft: then it is used at the size it has.
    // SAFETY: no memory is passed.
    let _ =
        unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, libc::c_int::try_from(PIPE_BYTES).unwrap_or(0)) };
    Some(Pipe::new(Fd(ends[0]), Fd(ends[1])))
}

/// splice(2) without waiting on the pipe; a signal only makes it be asked again.
fn splice(from: Fd, to: Fd, len: usize) -> Result<usize, Errno> {
    loop {
        // SAFETY: no memory is passed: both offsets are null, as they must be for pipes and sockets.
        let moved = unsafe {
            libc::splice(
                from.0,
                ptr::null_mut(),
                to.0,
                ptr::null_mut(),
                len,
                libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
            )
        };
        match usize::try_from(moved) {
            Ok(n) => return Ok(n),
            Err(_) if last_errno().0 == libc::EINTR => {}
            Err(_) => return Err(last_errno()),
        }
    }
}

/// From a socket that a poll found readable. In blocking mode the kernel returns what is there and waits only for a first
/// byte (net/ipv4/tcp.c, tcp_splice_read), which is there.
pub(super) fn splice_in(from: Fd, pipe: &mut Pipe, most: usize) -> Result<usize, Errno> {
    let n = splice(from, pipe.writer, most.min(PIPE_BYTES))?;
    pipe.filled(n);
    Ok(n)
}

/// To a socket with O_NONBLOCK, which alone keeps this from waiting for room. A peer that is gone earns EPIPE and SIGPIPE;
/// the runtime of Rust ignores that signal.
pub(super) fn splice_out(pipe: &mut Pipe, to: Fd) -> Result<usize, Errno> {
    let n = splice(pipe.reader, to, pipe.held())?;
    pipe.drained(n);
    Ok(n)
}
