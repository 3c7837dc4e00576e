//! How many connections each shard has, for who hands one on to another.

use crate::sync::{AtomicU32, Ordering, Padded};

/// The loads of all shards: how many connections each has, those on their way to it from another included.
///
/// A shard that goes away shuts its own. From then on nobody counts in, so that once its load is 0 nothing can be on its
/// way to it any more.
#[derive(Debug, Default)]
pub struct SharedLoads {
    loads: Box<[Padded<AtomicU32>]>,
}

/// Set in a load that is shut, which so is above all others.
const SHUT: u32 = 1 << 31;

impl SharedLoads {
    pub fn new(shards: u16) -> Self {
        Self { loads: (0..shards).map(|_| Padded(AtomicU32::new(0))).collect() }
    }
    fn at(&self, shard: u16) -> Option<&AtomicU32> {
        self.loads.get(usize::from(shard)).map(|padded| &padded.0)
    }
    /// Counts a connection in.
    pub fn open(&self, shard: u16) {
        if let Some(load) = self.at(shard) {
            load.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// Counts a connection out, or one that did not reach `shard` after all.
    pub fn close(&self, shard: u16) {
        if let Some(load) = self.at(shard) {
            let before = load.fetch_sub(1, Ordering::Relaxed);
            debug_assert!(before & !SHUT > 0, "more counted out of a shard than in");
        }
    }
    /// Counts in a connection that is to go to `shard`, if its load is still `seen`: otherwise somebody else chose the
    /// same shard, which is the least loaded perhaps no longer.
    pub fn try_hand(&self, shard: u16, seen: u32) -> bool {
        let took = |load: &AtomicU32| {
            load.compare_exchange(seen, seen.saturating_add(1), Ordering::Relaxed, Ordering::Relaxed)
        };
        seen & SHUT == 0 && self.at(shard).is_some_and(|load| took(load).is_ok())
    }
    /// From now on nothing more is handed to `shard`.
    pub fn shut(&self, shard: u16) {
        if let Some(load) = self.at(shard) {
            load.fetch_or(SHUT, Ordering::Relaxed);
        }
    }
    /// A shard's connections, those on their way included.
    pub fn get(&self, shard: u16) -> u32 {
        self.at(shard).map_or(0, |load| load.load(Ordering::Relaxed) & !SHUT)
    }
    /// The least loaded of the other shards that is not shut, and its load; of equals the next after `shard`. One relaxed
    /// load each.
    pub fn least_beside(&self, shard: u16) -> Option<(u16, u32)> {
        let (before, after) = self.loads.split_at_checked(usize::from(shard))?;
        let numbered = after.iter().zip(shard..).skip(1).chain(before.iter().zip(0..));
        let least =
            numbered.map(|(load, at)| (at, load.0.load(Ordering::Relaxed))).min_by_key(|(_, load)| *load);
        least.filter(|(_, load)| load & SHUT == 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_of_the_others_is_found() {
        let loads = SharedLoads::new(3);
        assert_eq!(loads.least_beside(1), Some((2, 0)), "of equals the next");
        loads.open(2);
        assert_eq!((loads.least_beside(1), loads.least_beside(2)), (Some((0, 0)), Some((0, 0))));
        assert!(loads.try_hand(0, 0) && !loads.try_hand(0, 0), "somebody was faster");
        loads.shut(0);
        assert_eq!((loads.get(0), loads.least_beside(1)), (1, Some((2, 1))));
        assert!(!loads.try_hand(0, 1) && !loads.try_hand(0, 1 | SHUT) && !loads.try_hand(9, 0));
        loads.close(0);
        assert_eq!(loads.get(0), 0);
        loads.shut(2);
        assert_eq!(loads.least_beside(1), None, "all others are leaving");
        assert_eq!(SharedLoads::new(1).least_beside(0), None);
    }
}
