//! A table that only grows, and whose rows never move: what all shards share of endpoints that come while they run.
//!
//! One thread makes it longer; the others see a row as soon as they are told its number, and need not be told of the table.

use std::sync::OnceLock;

/// Rows of the first chunk behind those that the table began with; each chunk is twice as long as the one before.
const CHUNK: usize = 16;
const CHUNKS: usize = 12;

const _: () = assert!(CHUNK * ((1 << CHUNKS) - 1) >= crate::limits::ENDPOINTS_MAX);

/// Rows by number. Those it began with are one load away.
#[derive(Debug)]
pub(super) struct Grown<T> {
    first: Box<[T]>,
    later: [OnceLock<Box<[T]>>; CHUNKS],
}

impl<T> Grown<T> {
    pub(super) fn new(rows: usize, row: impl FnMut(usize) -> T) -> Self {
        Self { first: (0..rows).map(row).collect(), later: std::array::from_fn(|_| OnceLock::new()) }
    }
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        match self.first.get(at) {
            None => self.get_later(at - self.first.len()),
            row => row,
        }
    }
    fn get_later(&self, at: usize) -> Option<&T> {
        // Chunk n begins at CHUNK * (2^n - 1).
        let chunk = (at / CHUNK + 1).ilog2();
        let begin = CHUNK * ((1 << chunk) - 1);
        self.later.get(chunk as usize)?.get()?.get(at - begin)
    }
    /// Makes the table at least so long.
    pub(super) fn grow(&self, rows: usize, mut row: impl FnMut(usize) -> T) {
        let mut there = self.first.len();
        for (chunk, len) in self.later.iter().zip((0..).map(|n| CHUNK << n)) {
            if there >= rows {
                return;
            }
            chunk.get_or_init(|| (there..there + len).map(&mut row).collect());
            there += len;
        }
    }
    /// Every row there is.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.later.iter().filter_map(OnceLock::get).flatten())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_and_are_found_by_their_numbers() {
        for first in [0, 1, 3, 100] {
            let table = Grown::new(first, |at| at);
            assert_eq!((table.get(first), table.iter().count()), (None, first));
            for rows in [0, first + 1, first + 16, first + 17, 1000, 500, 10_000] {
                let addresses: Vec<_> = table.iter().map(std::ptr::from_ref).collect();
                table.grow(rows, |at| at);
                assert!((0..rows).all(|at| table.get(at) == Some(&at)), "{first} and {rows}");
                assert!(table.iter().zip(addresses).all(|(row, before)| std::ptr::eq(row, before)));
                assert!(table.iter().enumerate().all(|(at, row)| at == *row));
            }
            assert_eq!(table.get(usize::from(u16::MAX) * 2), None);
        }
    }
}
