//! The pipes of the simulated kernel, and splice: bytes from socket to socket without a buffer of the shard's.

use super::faults::Fault;
use super::io::{SimIo, World};
use super::net::Read;
use super::operations::Verb;
use crate::io::pipe::Lending;
use crate::io::{Errno, Fd, Pipe};
use crate::limits::PIPES;
use std::collections::{BTreeMap, VecDeque};

/// Pipes and what they hold.
#[derive(Debug)]
pub(super) struct Pipes {
    lending: Lending,
    count: usize,
    /// By number; made when first lent, and gone when given back with bytes inside.
    contents: Vec<Option<VecDeque<u8>>>,
    /// How often the last one was lent.
    last_lent: u64,
    /// Adopted ones, beginning with number [`PIPES`].
    adopted: Vec<Option<VecDeque<u8>>>,
    /// Those that nobody has at the moment, by the number of their reader.
    between: BTreeMap<i32, VecDeque<u8>>,
}

/// Descriptors of pipes between two shards begin here and go down: they stand in no table.
const BETWEEN: i32 = -100;

impl Default for Pipes {
    fn default() -> Self {
        Self::of(PIPES)
    }
}

impl Pipes {
    fn of(count: u16) -> Self {
        let contents: Vec<_> = (0..count.max(1)).map(|_| None).collect();
        Self {
            lending: Lending::new(count),
            count: contents.len(),
            contents,
            last_lent: 0,
            adopted: Vec::new(),
            between: BTreeMap::new(),
        }
    }
    fn place(&mut self, pipe: &Pipe) -> &mut Option<VecDeque<u8>> {
        match pipe.at().checked_sub(usize::from(PIPES)) {
            Some(at) => &mut self.adopted[at],
            None => &mut self.contents[pipe.at()],
        }
    }
    fn lent(&mut self, pipe: &Pipe) -> &mut VecDeque<u8> {
        self.place(pipe).as_mut().expect("a lent pipe exists")
    }
    pub(super) fn part_with(&mut self, pipe: &Pipe) -> ([Fd; 2], usize) {
        let contents = self.place(pipe).take().expect("a lent pipe exists");
        if !pipe.is_adopted() {
            self.lending.give(pipe);
        }
        let (held, last) =
            (contents.len(), self.between.first_key_value().map_or(BETWEEN, |(first, _)| *first));
        self.between.insert(last - 2, contents);
        ([Fd(last - 2), Fd(last - 1)], held)
    }
    pub(super) fn lent_count(&self) -> usize {
        self.count - self.lending.count()
    }
    pub(super) fn adopt(&mut self, [reader, _]: [Fd; 2], held: usize) -> Option<Pipe> {
        let contents = self.between.remove(&reader.0).expect("a pipe between two shards");
        assert_eq!(contents.len(), held, "a pipe holds what was said of it");
        let pipe = Pipe::adopted(self.adopted.iter().map(Option::is_some))?;
        if pipe.at() == self.adopted.len() + usize::from(PIPES) {
            self.adopted.push(None);
        }
        *self.place(&pipe) = Some(contents);
        Some(pipe)
    }
}

impl<W: World> SimIo<W> {
    /// Before any is lent: the shard has no more than `count` pipes, at least 1.
    pub fn limit_pipes(&mut self, count: u16) {
        assert_eq!(self.pipes_out(), 0, "pipes are out");
        self.pipes = Pipes::of(count);
    }
    /// Pipes that the shard holds.
    pub fn pipes_out(&self) -> usize {
        let adopted = self.pipes.adopted.iter().flatten().count();
        self.pipes.lent_count() + adopted + self.pipes.between.len()
    }
    /// How often the last pipe was lent.
    pub fn last_pipe_lent(&self) -> u64 {
        self.pipes.last_lent
    }
    pub(super) fn pipe(&mut self) -> Option<Pipe> {
        if self.net.faults.hit(Fault::NoPipe) {
            return None;
        }
        let may_make = self.open_descriptors() < self.descriptor_limit;
        let contents = &mut self.pipes.contents;
        let pipe = self.pipes.lending.take(|at| {
            let contents = &mut contents[usize::from(at)];
            if contents.is_none() && may_make {
                *contents = Some(VecDeque::new());
            }
            contents.is_some()
        })?;
        assert!(self.held_by(&pipe) == 0, "a pipe was lent with bytes in it");
        self.pipes.last_lent += u64::from(pipe.is_last());
        Some(pipe)
    }
    pub(super) fn return_pipe(&mut self, pipe: &Pipe) {
        let place = self.pipes.place(pipe);
        if pipe.is_adopted() {
            *place = None;
            return;
        }
        place.take_if(|contents| !contents.is_empty());
        self.pipes.lending.give(pipe);
    }
    pub(super) fn held_by(&self, pipe: &Pipe) -> usize {
        let Pipes { contents, adopted, .. } = &self.pipes;
        let place =
            pipe.at().checked_sub(usize::from(PIPES)).map_or_else(|| &contents[pipe.at()], |at| &adopted[at]);
        place.as_ref().expect("a lent pipe exists").len()
    }
    pub(super) fn fill_pipe(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        assert!(
            self.held_by(pipe) == 0,
            "a pipe is emptied before it is filled: else EAGAIN has two meanings"
        );
        assert!(most > 0, "a splice of nothing would look like the end of the stream");
        let id = self.socket_at(from)?;
        assert!(self.net.is_ready(id), "a splice from {from:?} would have blocked the shard");
        assert!(!self.is_receiving(from), "a splice beside a receive on {from:?}");
        if self.net.faults.hit(Fault::SpliceAgain) {
            return Err(Errno(libc::EAGAIN));
        }
        if self.net.faults.hit(Fault::SpliceNoMemory) {
            return Err(Errno(libc::ENOMEM));
        }
        let mut most = most.min(self.net.readable(id));
        if most > 1 && self.net.faults.hit(Fault::ShortRead) {
            most = self.net.faults.random().between(1, most as u64) as usize;
        }
        let mut bytes = vec![0; most];
        match self.net.read(id, &mut bytes)? {
            Read::Eof => Ok(0),
            Read::Empty => Err(Errno(libc::EAGAIN)),
            Read::Bytes(n) => {
                self.pipes.lent(pipe).extend(&bytes[..n]);
                Ok(n)
            }
        }
    }
    pub(super) fn drain_pipe(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno> {
        let id = self.socket_at(to)?;
        assert!(self.descriptor_mut(to)?.non_blocking, "a splice to {to:?} could block the shard");
        assert!(!self.is_sending(to), "a splice beside a send on {to:?}");
        let mut most = self.held_by(pipe).min(self.net.writable(id)?);
        if most == 0 || self.net.faults.hit(Fault::SpliceAgain) {
            return Err(Errno(libc::EAGAIN));
        }
        if self.net.faults.hit(Fault::SpliceNoMemory) {
            return Err(Errno(libc::ENOMEM));
        }
        if most > 1 && self.net.faults.hit(Fault::ShortWrite) {
            most = self.net.faults.random().between(1, most as u64) as usize;
        }
        let bytes: Vec<u8> = self.pipes.lent(pipe).drain(..most).collect();
        let n = self.net.write(id, &bytes)?;
        assert_eq!(n, most, "room was there");
        Ok(n)
    }
    pub(super) fn empty_pipe(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno> {
        let contents = self.pipes.lent(pipe);
        let n = contents.len().min(to.len());
        if n == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        for (byte, taken) in to.iter_mut().zip(contents.drain(..n)) {
            *byte = taken;
        }
        Ok(n)
    }
    fn is_receiving(&self, fd: Fd) -> bool {
        self.descriptors[fd.0 as usize].as_ref().is_some_and(|d| d.flying[Verb::Recv as usize])
    }
    fn is_sending(&self, fd: Fd) -> bool {
        self.descriptors[fd.0 as usize].as_ref().is_some_and(|d| d.flying[Verb::Send as usize])
    }
}
