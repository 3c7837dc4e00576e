//! The pipes of the simulated kernel, and splice: bytes from socket to socket without a buffer of the shard's.

use super::faults::Fault;
use super::io::{SimIo, World};
use super::net::Read;
use super::operations::Verb;
use crate::io::{Errno, Fd, Pipe};
use std::collections::VecDeque;

/// Numbers of pipes begin here, far from those of descriptors.
const FIRST: i32 = 1 << 20;

/// Pipes and what they hold.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    contents: Vec<VecDeque<u8>>,
    free: Vec<Fd>,
    out: usize,
}

impl<W: World> SimIo<W> {
    /// Pipes that the shard holds.
    pub fn pipes_out(&self) -> usize {
        self.pipes.out
    }
    pub(super) fn pipe(&mut self) -> Option<Pipe> {
        if self.net.faults.hit(Fault::NoPipe) {
            return None;
        }
        let fd = self.pipes.free.pop().unwrap_or_else(|| {
            self.pipes.contents.push(VecDeque::new());
            Fd(FIRST + self.pipes.contents.len() as i32 - 1)
        });
        self.pipes.out += 1;
        Some(Pipe::new(fd, fd))
    }
    pub(super) fn return_pipe(&mut self, pipe: &Pipe) {
        self.pipes.out -= 1;
        let contents = &mut self.pipes.contents[(pipe.reader.0 - FIRST) as usize];
        assert_eq!(contents.len(), pipe.held(), "a pipe holds what its handle says");
        contents.clear();
        self.pipes.free.push(pipe.reader);
    }
    pub(super) fn fill_pipe(&mut self, from: Fd, pipe: &mut Pipe, most: usize) -> Result<usize, Errno> {
        assert!(pipe.held() == 0, "a pipe is emptied before it is filled: else EAGAIN could mean either end");
        let id = self.socket_at(from)?;
        assert!(self.net.is_ready(id), "a splice from {from:?} would have blocked the shard");
        assert!(!self.is_receiving(from), "a splice beside a receive on {from:?}");
        let mut most = most.min(self.net.readable(id));
        if most > 1 && self.net.faults.hit(Fault::ShortRead) {
            most = self.net.faults.random().between(1, most as u64) as usize;
        }
        let mut bytes = vec![0; most];
        match self.net.read(id, &mut bytes)? {
            Read::Eof => Ok(0),
            Read::Empty => Err(Errno(libc::EAGAIN)),
            Read::Bytes(n) => {
                self.pipes.contents[(pipe.reader.0 - FIRST) as usize].extend(&bytes[..n]);
                pipe.filled(n);
                Ok(n)
            }
        }
    }
    pub(super) fn drain_pipe(&mut self, pipe: &mut Pipe, to: Fd) -> Result<usize, Errno> {
        let id = self.socket_at(to)?;
        assert!(self.descriptor_mut(to)?.non_blocking, "a splice to {to:?} could block the shard");
        assert!(!self.is_sending(to), "a splice beside a send on {to:?}");
        let mut most = pipe.held().min(self.net.writable(id)?);
        if most == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        if most > 1 && self.net.faults.hit(Fault::ShortWrite) {
            most = self.net.faults.random().between(1, most as u64) as usize;
        }
        let contents = &mut self.pipes.contents[(pipe.reader.0 - FIRST) as usize];
        let bytes: Vec<u8> = contents.drain(..most).collect();
        let n = self.net.write(id, &bytes)?;
        assert_eq!(n, most, "room was there");
        pipe.drained(n);
        Ok(n)
    }
    fn is_receiving(&self, fd: Fd) -> bool {
        self.descriptors[fd.0 as usize].as_ref().is_some_and(|d| d.flying[Verb::Recv as usize])
    }
    fn is_sending(&self, fd: Fd) -> bool {
        self.descriptors[fd.0 as usize].as_ref().is_some_and(|d| d.flying[Verb::Send as usize])
    }
}
