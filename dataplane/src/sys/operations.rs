//! What is in flight, found by its token: the kernel gives back 64 bits, and a receive that found no buffer has to be
//! asked again with everything that was asked first.

use crate::buf::Class;
use crate::io::{Interest, Kind, Token};
use std::num::{NonZeroU8, NonZeroU32};

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
    /// To the ring of this descriptor.
    Post,
    /// A receive that goes on by itself, into small buffers.
    Stand,
}

/// One operation in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// Of a send: its first bytes, which alone are sent again if the kernel says EAGAIN.
    pub(super) first: *const u8,
    pub(super) first_len: u32,
    pub(super) fd: i32,
    pub(super) verb: Verb,
    /// A cancel was asked for.
    pub(super) cancelling: bool,
    /// Not with the kernel: waits for a free buffer.
    pub(super) starved: bool,
}

impl Operation {
    pub(super) fn new(verb: Verb, fd: i32) -> Self {
        Self { first: std::ptr::null(), first_len: 0, fd, verb, cancelling: false, starved: false }
    }
}

/// What is kept of an operation for as long as it waits: 8 bytes, because a conn has a cell for each kind that it ever
/// used.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// The descriptor; of a send, its place among the sends.
    value: u32,
    /// The generation above, the state in the lowest byte.
    life: NonZeroU32,
}

impl Cell {
    fn new(value: u32, token: Token, state: State) -> Self {
        Self { value, life: NonZeroU32::from(state.0) | token.generation() << 8 }
    }
    fn is_of(self, token: Token) -> bool {
        self.life.get() >> 8 == token.generation()
    }
    fn state(self) -> State {
        let [state, ..] = self.life.get().to_le_bytes();
        // It was never 0.
        State(NonZeroU8::new(state).unwrap_or(NonZeroU8::MIN))
    }
}

/// A verb and two flags in a byte that is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State(NonZeroU8);

const CANCELLING: u8 = 1 << 6;
const STARVED: u8 = 1 << 7;

impl State {
    fn new(verb: Verb) -> Self {
        let verb = match verb {
            Verb::Accept => 1,
            Verb::Recv(Class::Tiny) => 2,
            Verb::Recv(Class::Small) => 3,
            Verb::Recv(Class::Large) => 4,
            Verb::Send => 5,
            Verb::Connect => 6,
            Verb::Poll(Interest::Readable) => 7,
            Verb::Poll(Interest::Writable) => 8,
            Verb::Close => 9,
            Verb::Post => 10,
            Verb::Stand => 11,
        };
        Self(NonZeroU8::MIN.saturating_add(verb - 1))
    }
    fn verb(self) -> Verb {
        match self.0.get() & !(CANCELLING | STARVED) {
            1 => Verb::Accept,
            2 => Verb::Recv(Class::Tiny),
            3 => Verb::Recv(Class::Small),
            4 => Verb::Recv(Class::Large),
            5 => Verb::Send,
            6 => Verb::Connect,
            7 => Verb::Poll(Interest::Readable),
            8 => Verb::Poll(Interest::Writable),
            9 => Verb::Close,
            10 => Verb::Post,
            _ => Verb::Stand,
        }
    }
    fn with(self, flag: u8, on: bool) -> Self {
        if on { Self(self.0 | flag) } else { self }
    }
    fn has(self, flag: u8) -> bool {
        self.0.get() & flag != 0
    }
}

/// A send in flight. Few conns send at any moment, so these do not stand in the cells.
#[derive(Debug, Clone, Copy)]
struct Send {
    first: *const u8,
    first_len: u32,
    fd: i32,
}

const _: () = assert!(size_of::<Option<Cell>>() == 8);

const CHUNK: usize = 256;
type Chunk = [Option<Cell>; CHUNK];

/// Operations by kind and slot. Slots are the small dense numbers of the shard's slabs, so a token is an address here
/// and no hashing is needed; memory grows by chunks, once.
#[derive(Debug, Default)]
pub(super) struct Operations {
    kinds: [Vec<Option<Box<Chunk>>>; Kind::COUNT],
    /// As many as were ever in flight at once, and which of them are free.
    sends: Vec<Send>,
    sends_free: Vec<u32>,
    count: usize,
}

impl Operations {
    /// Operations in flight, starved ones included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn slot(&mut self, token: Token) -> Option<&mut Option<Cell>> {
        let slot = token.slot() as usize;
        let chunk = self.kinds[token.kind() as usize].get_mut(slot / CHUNK)?.as_mut()?;
        Some(&mut chunk[slot % CHUNK])
    }
    /// The cell of this life of the slot.
    fn cell(&mut self, token: Token) -> Option<&mut Cell> {
        self.slot(token)?.as_mut().filter(|cell| cell.is_of(token))
    }

    pub(super) fn insert(&mut self, token: Token, operation: Operation) {
        assert!(token.kind() != Kind::Backend, "a token of the backend's own");
        let value = if operation.verb == Verb::Send {
            self.keep_send(&operation)
        } else {
            operation.fd.cast_unsigned()
        };
        let state = State::new(operation.verb)
            .with(CANCELLING, operation.cancelling)
            .with(STARVED, operation.starved);
        let chunks = &mut self.kinds[token.kind() as usize];
        let chunk = token.slot() as usize / CHUNK;
        if chunks.len() <= chunk {
            chunks.resize_with(chunk + 1, || None);
        }
        let cells = chunks[chunk].get_or_insert_with(|| Box::new([None; CHUNK]));
        let cell = &mut cells[token.slot() as usize % CHUNK];
        // Two operations under one token would make the second completion act on a slot that moved on.
        assert!(cell.is_none(), "an operation was submitted twice: {token:?}");
        *cell = Some(Cell::new(value, token, state));
        self.count += 1;
    }

    fn keep_send(&mut self, operation: &Operation) -> u32 {
        let send = Send { first: operation.first, first_len: operation.first_len, fd: operation.fd };
        if let Some(at) = self.sends_free.pop() {
            self.sends[at as usize] = send;
            return at;
        }
        let Ok(at) = u32::try_from(self.sends.len()) else { unreachable!("more sends than tokens") };
        self.sends.push(send);
        // Room for all of them, so that the end of a send allocates nothing.
        self.sends_free.reserve(self.sends.len());
        at
    }

    fn operation(&self, cell: Cell) -> Operation {
        let state = cell.state();
        let mut operation = Operation::new(state.verb(), cell.value.cast_signed());
        operation.cancelling = state.has(CANCELLING);
        operation.starved = state.has(STARVED);
        if operation.verb == Verb::Send {
            let send = self.sends[cell.value as usize];
            (operation.first, operation.first_len, operation.fd) = (send.first, send.first_len, send.fd);
        }
        operation
    }

    /// Whether what a token asked for is in flight.
    pub(super) fn has(&self, token: Token) -> bool {
        let slot = token.slot() as usize;
        let chunk = self.kinds[token.kind() as usize].get(slot / CHUNK).and_then(Option::as_ref);
        chunk.and_then(|chunk| chunk[slot % CHUNK]).is_some_and(|cell| cell.is_of(token))
    }

    /// What a token asked for, if it is in flight.
    pub(super) fn get(&mut self, token: Token) -> Option<Operation> {
        let cell = *self.cell(token)?;
        Some(self.operation(cell))
    }

    /// A cancel was asked for.
    pub(super) fn set_cancelling(&mut self, token: Token) {
        if let Some(cell) = self.cell(token) {
            cell.life |= u32::from(CANCELLING);
        }
    }
    /// A standing receive brought bytes. It is never starved, so it has that bit for this.
    pub(super) fn set_lively(&mut self, token: Token) {
        if let Some(cell) = self.cell(token) {
            cell.life |= u32::from(STARVED);
        }
    }
    /// Whether it did since this was asked last.
    pub(super) fn take_lively(&mut self, token: Token) -> bool {
        let Some(cell) = self.cell(token) else { return false };
        let state = cell.state();
        *cell =
            Cell::new(cell.value, token, State::new(state.verb()).with(CANCELLING, state.has(CANCELLING)));
        state.has(STARVED)
    }
    /// A starved receive is asked for again, into a buffer of this class.
    pub(super) fn set_fed(&mut self, token: Token, class: Class) {
        if let Some(cell) = self.cell(token) {
            let state = State::new(Verb::Recv(class)).with(CANCELLING, cell.state().has(CANCELLING));
            *cell = Cell::new(cell.value, token, state);
        }
    }

    /// The operation ended: what it was, if it was in flight.
    pub(super) fn remove(&mut self, token: Token) -> Option<Operation> {
        let slot = self.slot(token)?;
        let cell = slot.filter(|cell| cell.is_of(token))?;
        *slot = None;
        self.count -= 1;
        let operation = self.operation(cell);
        if operation.verb == Verb::Send {
            self.sends_free.push(cell.value);
        }
        Some(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_kind_slot_and_generation() {
        let mut operations = Operations::default();
        let token = Token::new(Kind::ConnRecv, 70_000, 3);
        operations.insert(token, Operation::new(Verb::Recv(Class::Small), 9));
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
    fn keeps_what_was_asked() {
        let mut operations = Operations::default();
        let classes = Class::ALL.map(Verb::Recv);
        let polls = [Interest::Readable, Interest::Writable].map(Verb::Poll);
        let others = [Verb::Accept, Verb::Send, Verb::Connect, Verb::Close, Verb::Post, Verb::Stand];
        let bytes = [7u8; 3];
        for (slot, verb) in (0..).zip(classes.into_iter().chain(others).chain(polls)) {
            let token = Token::new(Kind::ConnSend, slot, Token::GENERATION_MASK);
            let mut operation = Operation::new(verb, 40 + slot.cast_signed());
            (operation.first, operation.first_len) = (bytes.as_ptr(), 3);
            operations.insert(token, operation);
            operations.set_cancelling(token);
            let kept = operations.get(token).unwrap();
            assert_eq!(
                (kept.verb, kept.fd, kept.cancelling, kept.starved),
                (verb, operation.fd, true, false)
            );
            if matches!(verb, Verb::Recv(_)) {
                let starved = operations.remove(token).map(|o| Operation { starved: true, ..o });
                operations.insert(token, starved.unwrap());
                assert!(operations.get(token).unwrap().starved);
                operations.set_fed(token, Class::Large);
                let fed = operations.get(token).unwrap();
                assert_eq!((fed.verb, fed.cancelling, fed.starved), (Verb::Recv(Class::Large), true, false));
            }
            assert_eq!(kept.first_len, if verb == Verb::Send { 3 } else { 0 });
        }
        // A send's place is free again once it ended.
        let token = Token::new(Kind::ConnSend, 4, Token::GENERATION_MASK);
        for _ in 0..3 {
            operations.remove(token);
            operations.insert(token, Operation::new(Verb::Send, 44));
        }
        assert_eq!((operations.sends.len(), operations.count()), (1, 11));
    }

    #[test]
    #[should_panic(expected = "submitted twice")]
    fn a_second_submission_is_caught() {
        let mut operations = Operations::default();
        let token = Token::new(Kind::ConnSend, 1, 1);
        operations.insert(token, Operation::new(Verb::Send, 4));
        operations.insert(token, Operation::new(Verb::Send, 4));
    }
}
