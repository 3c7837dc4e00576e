//! What the simulator sees of a pool: the bytes of a send in flight, read when the kernel would read them.

use super::{Class, Lease, Place, Pool};

/// Where a lease's filled bytes lie, without the right to them.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    class: Class,
    index: u32,
    from: usize,
    to: usize,
}

impl Sight {
    pub fn len(&self) -> usize {
        self.to - self.from
    }
    pub fn is_empty(&self) -> bool {
        self.to == self.from
    }
}

impl Pool {
    /// Notes where the bytes of a lease lie.
    pub fn sight(&self, lease: &Lease) -> Sight {
        let (from, to) = lease.range();
        Sight { class: lease.class(), index: lease.index(), from, to }
    }
    /// The bytes now; `None` once the buffer was given back, which no sender may do before its completion (invariant 1).
    pub fn seen(&self, sight: &Sight) -> Option<&[u8]> {
        let shelf = self.shelf(sight.class);
        (shelf.place[sight.index as usize] == Place::Leased)
            .then(|| shelf.arena.slice(sight.index, sight.from, sight.to))
    }
    /// Deliberate bug: a second lease of the same buffer.
    pub fn forge(&self, lease: &Lease) -> Lease {
        let (from, to) = lease.range();
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Lease::mint(lease.class(), lease.index(), narrow(from), narrow(to))
    }
}
