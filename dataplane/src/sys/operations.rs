//! What is in flight, found by its token: the kernel gives back 64 bits, and a receive that found no buffer has to be
//! asked again with everything that was asked first.

use crate::buf::Class;
use crate::io::{Interest, Kind, Token};

/// What was asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Accept,
    /// Into a buffer of this class: small or large.
    Recv(Class),
    Send,
    Connect,
    Poll(Interest),
    Close,
}

/// One operation in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// Of a send: its first bytes, which alone are sent again if the kernel says EAGAIN.
    pub(super) first: *const u8,
    pub(super) first_len: u32,
    pub(super) fd: i32,
    generation: u32,
    pub(super) verb: Verb,
    /// A cancel was asked for.
    pub(super) cancelling: bool,
    /// Not with the kernel: waits for a free buffer.
    pub(super) starved: bool,
}

impl Operation {
    pub(super) fn new(verb: Verb, fd: i32, token: Token) -> Self {
        let generation = token.generation();
        Self {
            first: std::ptr::null(),
            first_len: 0,
            fd,
            generation,
            verb,
            cancelling: false,
            starved: false,
        }
    }
}

const _: () = assert!(size_of::<Option<Operation>>() <= 32);

const CHUNK: usize = 256;
type Chunk = [Option<Operation>; CHUNK];

/// Operations by kind and slot. Slots are the small dense numbers of the shard's slabs, so a token is an address here
/// and no hashing is needed; memory grows by chunks, once.
#[derive(Debug, Default)]
pub(super) struct Operations {
    kinds: Vec<Vec<Option<Box<Chunk>>>>,
    count: usize,
}

impl Operations {
    /// Operations in flight, starved ones included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn cell(&mut self, token: Token) -> Option<&mut Option<Operation>> {
        let slot = token.slot() as usize;
        let chunk = self.kinds.get_mut(token.kind() as usize)?.get_mut(slot / CHUNK)?.as_mut()?;
        Some(&mut chunk[slot % CHUNK])
    }

    pub(super) fn insert(&mut self, token: Token, operation: Operation) {
        assert!(token.kind() != Kind::Backend, "a token of the backend's own");
        let (kind, chunk) = (token.kind() as usize, token.slot() as usize / CHUNK);
        if self.kinds.len() <= kind {
            self.kinds.resize_with(kind + 1, Vec::new);
        }
        let chunks = &mut self.kinds[kind];
        if chunks.len() <= chunk {
            chunks.resize_with(chunk + 1, || None);
        }
        let cells = chunks[chunk].get_or_insert_with(|| Box::new([None; CHUNK]));
        let cell = &mut cells[token.slot() as usize % CHUNK];
        // Two operations under one token would make the second completion act on a slot that moved on.
        assert!(cell.is_none(), "an operation was submitted twice: {token:?}");
        *cell = Some(operation);
        self.count += 1;
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut Operation> {
        self.cell(token)?.as_mut().filter(|o| o.generation == token.generation())
    }

    /// The operation ended.
    pub(super) fn remove(&mut self, token: Token) {
        let Some(cell) = self.cell(token) else { return };
        if cell.is_some_and(|o| o.generation == token.generation()) {
            *cell = None;
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_kind_slot_and_generation() {
        let mut operations = Operations::default();
        let token = Token::new(Kind::ConnRecv, 70_000, 3);
        operations.insert(token, Operation::new(Verb::Recv(Class::Small), 9, token));
        assert_eq!(operations.get(token).map(|o| o.fd), Some(9));
        for other in [
            Token::new(Kind::ConnRecv, 70_000, 2),
            Token::new(Kind::ConnSend, 70_000, 3),
            Token::new(Kind::ConnRecv, 1, 3),
        ] {
            assert!(operations.get(other).is_none(), "{other:?}");
            operations.remove(other);
        }
        assert_eq!(operations.count(), 1);
        operations.remove(token);
        operations.remove(token);
        assert_eq!(operations.count(), 0);
    }

    #[test]
    #[should_panic(expected = "submitted twice")]
    fn a_second_submission_is_caught() {
        let mut operations = Operations::default();
        let token = Token::new(Kind::ConnSend, 1, 1);
        operations.insert(token, Operation::new(Verb::Send, 4, token));
        operations.insert(token, Operation::new(Verb::Send, 4, token));
    }
}
