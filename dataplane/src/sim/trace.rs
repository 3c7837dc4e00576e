//! The running hash of everything that crossed the seam, and the last events in words: same seed, same hash.

use crate::io::{Fd, Mono, Outcome, Token};
use std::collections::VecDeque;
use std::fmt;

/// How many events a failing seed prints.
const KEPT: usize = 400;

/// One operation or completion.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub at: Mono,
    pub what: &'static str,
    pub token: Token,
    pub fd: Fd,
    /// Bytes, an errno, a descriptor: what `what` is about.
    pub value: i64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what, token, fd, value } = self;
        let (millis, nanos) = (at.0 / 1_000_000, at.0 % 1_000_000);
        let (kind, slot, generation) = (token.kind(), token.slot(), token.generation());
        write!(f, "{millis:>8}.{nanos:06} {what:<16} {fd:?} {value:>7} {kind:?} {slot}/{generation}")
    }
}

/// FNV-1a over all events, and a window on the last of them.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    last: VecDeque<Event>,
    /// Print each event as it comes (a single seed is being replayed).
    pub live: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, last: VecDeque::with_capacity(KEPT), live: false }
    }
}

impl Trace {
    pub fn add(&mut self, event: Event) {
        for word in [event.at.0, event.token.0, event.fd.0 as u64, event.value as u64] {
            for byte in word.to_le_bytes() {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        for byte in event.what.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.events += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(event);
        if self.live {
            eprintln!("{event}");
        }
    }
    pub fn hash(&self) -> u64 {
        self.hash
    }
    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
    /// The last events, one per line, oldest first.
    pub fn last(&self, n: usize) -> String {
        let skip = self.last.len().saturating_sub(n);
        self.last.iter().skip(skip).map(|e| format!("{e}\n")).collect()
    }
}

/// A completion in a word, and a number with it.
pub(super) fn words(outcome: &Outcome) -> (&'static str, i64) {
    match outcome {
        Outcome::Accepted(fd) => ("= accepted", i64::from(fd.0)),
        Outcome::Connected => ("= connected", 0),
        Outcome::Received(lease) => ("= received", lease.len() as i64),
        Outcome::Eof => ("= eof", 0),
        Outcome::Sent(n) => ("= sent", i64::from(*n)),
        Outcome::Ready => ("= ready", 0),
        Outcome::Closed => ("= closed", 0),
        Outcome::Posted => ("= posted", 0),
        Outcome::Message(message) => ("= message", i64::from(message.encode().1)),
        Outcome::Failed(errno) => ("= failed", -i64::from(errno.0)),
    }
}
