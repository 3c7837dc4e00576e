//! The pipes of a shard, and splice(2): bytes from socket to socket by reference.

use super::enter::last_errno;
use super::socket;
use crate::io::pipe::Lending;
use crate::io::{Errno, Fd, Pipe};
use crate::limits::{PIPE_BYTES, PIPES};
use std::mem::ManuallyDrop;
use std::ptr;

/// One pipe, and the bytes in it: what went in less what came out, which splice(2) and read(2) count exactly.
#[derive(Debug)]
struct Ends {
    reader: Fd,
    writer: Fd,
    held: usize,
}

impl Drop for Ends {
    fn drop(&mut self) {
        socket::close(self.reader);
        socket::close(self.writer);
    }
}

/// Up to `PIPES` pipes; made when first needed, kept for their next use. Those of higher numbers came from another process, with
/// bytes inside, and are gone after that.
#[derive(Debug)]
pub(super) struct Pipes {
    lending: Lending,
    ends: Vec<Option<Ends>>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { lending: Lending::new(PIPES), ends: (0..PIPES).map(|_| None).collect() }
    }
}

impl Pipes {
    pub(super) fn take(&mut self) -> Option<Pipe> {
        let ends = &mut self.ends;
        self.lending.take(|at| {
            let ends = &mut ends[usize::from(at)];
            if ends.is_none() {
                *ends = make();
            }
            ends.is_some()
        })
    }
    /// A pipe that still holds bytes is closed, so that nobody meets them: the next one of its number is a new one.
    pub(super) fn give(&mut self, pipe: &Pipe) {
        let ends = &mut self.ends[pipe.at()];
        if pipe.is_adopted() {
            *ends = None;
            return;
        }
        match ends {
            Some(Ends { held: 0, reader, .. }) => {
                debug_assert_eq!(socket::unread(*reader), Ok(0), "a pipe holds what nobody counted");
            }
            _ => *ends = None,
        }
        self.lending.give(pipe);
    }
    pub(super) fn lent_count(&self) -> usize {
        usize::from(PIPES) - self.lending.count()
    }
    pub(super) fn held(&self, pipe: &Pipe) -> usize {
        self.ends[pipe.at()].as_ref().map_or(0, |ends| ends.held)
    }
    /// The ends of a lent pipe, whose owner is the caller from now on; its number is free again.
    pub(super) fn part_with(&mut self, pipe: &Pipe) -> ([Fd; 2], usize) {
        let ends = self.ends[pipe.at()].take().map(ManuallyDrop::new);
        if !pipe.is_adopted() {
            self.lending.give(pipe);
        }
        ends.map_or(([Fd(-1); 2], 0), |ends| ([ends.reader, ends.writer], ends.held))
    }
    /// A pipe of another process; closed where there are too many of them.
    pub(super) fn adopt(&mut self, [reader, writer]: [Fd; 2], held: usize) -> Option<Pipe> {
        let ends = Some(Ends { reader, writer, held });
        let pipe = Pipe::adopted(self.ends[usize::from(PIPES)..].iter().map(Option::is_some))?;
        match self.ends.get_mut(pipe.at()) {
            Some(place) => *place = ends,
            None => self.ends.push(ends),
        }
        Some(pipe)
    }
    /// A lent pipe exists: it is closed only in [`Pipes::give`].
    fn lent(&mut self, pipe: &Pipe) -> Result<&mut Ends, Errno> {
        self.ends[pipe.at()].as_mut().ok_or(Errno(libc::EBADF))
    }

    /// From a socket that a poll found readable. In blocking mode the kernel returns what is there and waits only for a
    /// first byte (net/ipv4/tcp.c, tcp_splice_read), which is there.
    pub(super) fn splice_in(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        let ends = self.lent(pipe)?;
        match splice(from, ends.writer, most) {
            // Nothing goes past the mark of urgent data, and there is no word for that: it looks like the end, or with
            // O_NONBLOCK like nothing. What is received skips the urgent byte, and goes on.
            Ok(0) | Err(Errno(libc::EAGAIN)) if has_bytes(from) => Err(Errno(libc::EINVAL)),
            Ok(n) => {
                ends.held += n;
                Ok(n)
            }
            Err(errno) => Err(errno),
        }
    }
    /// To a socket with O_NONBLOCK, which alone keeps this from waiting for room. A peer that is gone earns EPIPE and
    /// SIGPIPE; the runtime of Rust ignores that signal.
    pub(super) fn splice_out(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno> {
        let ends = self.lent(pipe)?;
        let n = splice(ends.reader, to, ends.held)?;
        ends.took(n);
        Ok(n)
    }
    pub(super) fn unload(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno> {
        let ends = self.lent(pipe)?;
        // SAFETY: the kernel writes at most `to.len()` bytes to `to`, which outlives the call.
        let n = unsafe { libc::read(ends.reader.0, to.as_mut_ptr().cast(), to.len()) };
        let n = usize::try_from(n).map_err(|_| last_errno())?;
        ends.took(n);
        Ok(n)
    }
}

impl Ends {
    fn took(&mut self, n: usize) {
        assert!(n <= self.held, "more bytes left a pipe than it held");
        self.held -= n;
    }
}

fn make() -> Option<Ends> {
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
    Some(Ends { reader: Fd(ends[0]), writer: Fd(ends[1]), held: 0 })
}

/// Whether a byte could be received from a socket now.
fn has_bytes(fd: Fd) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most one byte to `byte`, which outlives the call.
    unsafe { libc::recv(fd.0, (&raw mut byte).cast(), 1, flags) == 1 }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    /// Splice stops at an urgent byte, and neither says that the stream has ended nor that there is nothing.
    #[test]
    fn urgent_data_is_no_end() {
        for nonblocking in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"abc").unwrap();
            // SAFETY: one byte of static memory is read.
            assert_eq!(unsafe { libc::send(client.as_raw_fd(), b"U".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
            client.write_all(b"def").unwrap();
            let mut pipes = Pipes::default();
            let pipe = pipes.take().unwrap();
            let (from, mut bytes) = (Fd(server.as_raw_fd()), [0; 8]);
            assert_eq!(pipes.splice_in(from, &pipe, 100), Ok(3), "up to the mark");
            assert_eq!(pipes.unload(&pipe, &mut bytes), Ok(3));
            assert_eq!(server.peek(&mut bytes).map(|n| n > 0).ok(), Some(true), "what is behind it has come");
            server.set_nonblocking(nonblocking).unwrap();
            assert_eq!(pipes.splice_in(from, &pipe, 100), Err(Errno(libc::EINVAL)));
            server.set_nonblocking(false).unwrap();
            drop(client);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"def", "without the urgent byte");
            assert_eq!(pipes.splice_in(from, &pipe, 100), Ok(0), "the end");
            pipes.give(&pipe);
        }
    }
}
