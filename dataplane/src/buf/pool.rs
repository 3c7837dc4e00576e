//! Leases: take, give back, lend to the kernel; and exact counts of where every buffer is.

#[cfg(feature = "sim")]
mod sight;

use super::arena::{Arena, Class, Lease};
use crate::limits::{
    LEASE_HEADROOM, POOL_LARGE, POOL_RESERVE_DIVISOR, POOL_SMALL, POOL_SPARE_DIVISOR, POOL_TINY,
};
#[cfg(feature = "sim")]
pub use sight::Sight;

/// How many buffers of each class a pool has.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    pub tiny: u32,
    pub small: u32,
    pub large: u32,
}

impl Default for PoolSize {
    fn default() -> Self {
        Self { tiny: POOL_TINY, small: POOL_SMALL, large: POOL_LARGE }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Leased,
    Kernel,
}

#[derive(Debug)]
struct Shelf {
    arena: Arena,
    /// Last in, first out, so that the same few pages stay warm.
    free: Vec<u32>,
    place: Vec<Place>,
    leased: u32,
    kernel: u32,
}

/// A buffer on loan to the kernel for receiving; it comes back through [`Pool::received`] or [`Pool::unlend`].
#[derive(Debug)]
pub struct Loan {
    pub class: Class,
    pub index: u32,
    /// Where the kernel may write, and how many bytes.
    pub address: *mut u8,
    pub len: u32,
}

/// All buffers of one shard.
#[derive(Debug)]
pub struct Pool {
    shelves: [Shelf; 3],
}

impl Pool {
    pub fn new(size: PoolSize) -> Self {
        let shelf = |class, buffers: u32| Shelf {
            arena: Arena::new(class, buffers),
            free: (0..buffers).rev().collect(),
            place: vec![Place::Free; buffers as usize],
            leased: 0,
            kernel: 0,
        };
        Self {
            shelves: [
                shelf(Class::Tiny, size.tiny),
                shelf(Class::Small, size.small),
                shelf(Class::Large, size.large),
            ],
        }
    }

    fn shelf(&self, class: Class) -> &Shelf {
        &self.shelves[class as usize]
    }
    fn shelf_mut(&mut self, class: Class) -> &mut Shelf {
        &mut self.shelves[class as usize]
    }

    /// An empty lease of `class`, or of the next larger class that has one; `None` when all are out.
    pub fn take(&mut self, class: Class) -> Option<Lease> {
        for class in Class::ALL.into_iter().filter(|c| *c >= class) {
            let shelf = self.shelf_mut(class);
            if let Some(index) = shelf.free.pop() {
                shelf.place[index as usize] = Place::Leased;
                shelf.leased += 1;
                let start = u32::try_from(LEASE_HEADROOM).unwrap_or(0);
                return Some(Lease::mint(class, index, start, start));
            }
        }
        None
    }
    /// As [`Pool::take`], but only while half of the class is free: for what is good to have and can be done without.
    pub fn take_spare(&mut self, class: Class) -> Option<Lease> {
        let shelf = self.shelf(class);
        let scarce = shelf.free.len() <= shelf.place.len() / POOL_SPARE_DIVISOR as usize;
        if scarce { None } else { self.take(class) }
    }
    /// Another lease with the bytes of `lease`, of the smallest class that holds them; `None` when all are out.
    pub fn copy(&mut self, lease: &Lease) -> Option<Lease> {
        let mut copy = self.take(Class::for_bytes(lease.len())?)?;
        self.append_lease(&mut copy, lease);
        Some(copy)
    }
    /// A lease with a copy of `bytes`; `None` when no class is large enough or all are out.
    pub fn take_copy(&mut self, bytes: &[u8]) -> Option<Lease> {
        let mut lease = self.take(Class::for_bytes(bytes.len())?)?;
        self.append(&mut lease, bytes);
        Some(lease)
    }
    /// The end of a lease's life.
    pub fn give_back(&mut self, lease: Lease) {
        let (class, index) = (lease.class(), lease.index());
        let shelf = self.shelf_mut(class);
        // A buffer given back twice would end in two connections at once: worth the process.
        assert!(shelf.place[index as usize] == Place::Leased, "a buffer was given back twice");
        shelf.place[index as usize] = Place::Free;
        shelf.leased -= 1;
        shelf.free.push(index);
    }

    /// The filled bytes.
    pub fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let (from, to) = lease.range();
        self.shelf(lease.class()).arena.slice(lease.index(), from, to)
    }
    #[allow(
        clippy::needless_pass_by_ref_mut,
        reason = "exclusive use of the lease is what makes writing sound"
    )]
    pub fn bytes_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        let (from, to) = lease.range();
        let (class, index) = (lease.class(), lease.index());
        self.shelf_mut(class).arena.slice_mut(index, from, to)
    }
    /// The room behind the filled bytes; then [`Lease::extend`].
    #[allow(
        clippy::needless_pass_by_ref_mut,
        reason = "exclusive use of the lease is what makes writing sound"
    )]
    pub fn spare_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        let (_, to) = lease.range();
        let (class, index, spare) = (lease.class(), lease.index(), lease.spare());
        self.shelf_mut(class).arena.slice_mut(index, to, to + spare)
    }
    /// Copies `bytes` behind what is filled. The caller checked [`Lease::spare`].
    pub fn append(&mut self, lease: &mut Lease, bytes: &[u8]) {
        self.spare_mut(lease)[..bytes.len()].copy_from_slice(bytes);
        lease.extend(bytes.len());
    }
    /// Copies the bytes of `from` behind those of `to`.
    pub fn append_lease(&mut self, to: &mut Lease, from: &Lease) {
        let n = from.len();
        assert!(n <= to.spare(), "append past the end of a lease");
        let (source, target) = self.pair(from, to);
        target[..n].copy_from_slice(source);
        to.extend(n);
    }
    /// The filled bytes of `from` and the room behind those of `to`, at once: to encode one from the other. Then
    /// [`Lease::extend`].
    #[allow(
        clippy::needless_pass_by_ref_mut,
        reason = "exclusive use of the lease is what makes writing sound"
    )]
    pub fn pair<'a>(&'a mut self, from: &'a Lease, to: &'a mut Lease) -> (&'a [u8], &'a mut [u8]) {
        let (from_start, from_end) = from.range();
        let (_, at) = to.range();
        let target = &self.shelf(to.class()).arena;
        let source = &self.shelf(from.class()).arena;
        source.pair((from.index(), from_start, from_end), (target, to.index(), at, at + to.spare()))
    }
    /// Moves the bytes from `at` on to a lease of their own, as small as holds them; `None` when no lease is free, and
    /// then nothing has changed.
    pub fn split_off(&mut self, lease: &mut Lease, at: usize) -> Option<Lease> {
        let n = lease.len() - at;
        let mut tail = self.take(Class::for_bytes(n)?)?;
        let (source, target) = self.pair(lease, &mut tail);
        target[..n].copy_from_slice(&source[at..]);
        tail.extend(n);
        lease.truncate(at);
        Some(tail)
    }
    /// Address and length of the filled bytes, for an operation of the kernel that ends before the lease does.
    pub fn address(&self, lease: &Lease) -> (*const u8, usize) {
        let (from, to) = lease.range();
        (self.shelf(lease.class()).arena.address(lease.index(), from).cast_const(), to - from)
    }

    /// Lends a free buffer to the kernel; `None` when only the reserve for heads and sends is left (invariant 18).
    pub fn lend(&mut self, class: Class) -> Option<Loan> {
        let shelf = self.shelf_mut(class);
        let total = u32::try_from(shelf.place.len()).unwrap_or(u32::MAX);
        if shelf.free.len() <= (total / POOL_RESERVE_DIVISOR) as usize {
            return None;
        }
        let index = shelf.free.pop()?;
        shelf.place[index as usize] = Place::Kernel;
        shelf.kernel += 1;
        let address = shelf.arena.address(index, LEASE_HEADROOM);
        Some(Loan { class, index, address, len: u32::try_from(class.capacity()).unwrap_or(0) })
    }
    /// The kernel wrote `len` bytes to a buffer it had on loan.
    pub fn received(&mut self, class: Class, index: u32, len: u32) -> Lease {
        let shelf = self.shelf_mut(class);
        assert!(shelf.place[index as usize] == Place::Kernel, "the kernel returned a buffer it did not have");
        assert!(len as usize <= class.capacity(), "the kernel returned more bytes than were lent");
        shelf.place[index as usize] = Place::Leased;
        shelf.kernel -= 1;
        shelf.leased += 1;
        let start = u32::try_from(LEASE_HEADROOM).unwrap_or(0);
        Lease::mint(class, index, start, start + len)
    }
    /// The kernel returned a loan unused.
    pub fn unlend(&mut self, class: Class, index: u32) {
        let lease = self.received(class, index, 0);
        self.give_back(lease);
    }

    /// Leases out with owners in the shard.
    pub fn leased(&self, class: Class) -> u32 {
        self.shelf(class).leased
    }
    /// Buffers on loan to the kernel.
    pub fn lent(&self, class: Class) -> u32 {
        self.shelf(class).kernel
    }
    pub fn free(&self, class: Class) -> usize {
        self.shelf(class).free.len()
    }
    pub fn total(&self, class: Class) -> usize {
        self.shelf(class).place.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(PoolSize { tiny: 2, small: 16, large: 2 })
    }

    #[test]
    fn take_falls_to_the_next_class() {
        let mut pool = pool();
        let leases: Vec<_> = (0..20).map_while(|_| pool.take(Class::Tiny)).collect();
        assert_eq!(leases.len(), 20);
        assert!(pool.take(Class::Tiny).is_none());
        assert_eq!(leases.iter().filter(|l| l.class() == Class::Large).count(), 2);
        leases.into_iter().for_each(|l| pool.give_back(l));
        assert_eq!(pool.free(Class::Tiny) + pool.free(Class::Small) + pool.free(Class::Large), 20);
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_second_return_is_caught() {
        let mut pool = pool();
        let lease = pool.take(Class::Small).unwrap();
        let twin = Lease::mint(lease.class(), lease.index(), 0, 0);
        pool.give_back(lease);
        pool.give_back(twin);
    }

    #[test]
    fn what_can_be_done_without_leaves_half() {
        let mut pool = pool();
        let leases: Vec<_> = (0..20).map_while(|_| pool.take_spare(Class::Small)).collect();
        assert_eq!((leases.len(), pool.free(Class::Small)), (8, 8));
        leases.into_iter().for_each(|l| pool.give_back(l));
    }

    #[test]
    fn lending_keeps_the_reserve() {
        let mut pool = pool();
        let mut loans = 0;
        while pool.lend(Class::Small).is_some() {
            loans += 1;
        }
        assert_eq!((loans, pool.free(Class::Small)), (14, 2));
    }

    #[test]
    fn widening_uses_head_and_tail_room() {
        let mut pool = pool();
        let mut lease = pool.take_copy(b"hello").unwrap();
        lease.widen(3, 2);
        pool.bytes_mut(&mut lease)[..3].copy_from_slice(b"5\r\n");
        pool.bytes_mut(&mut lease)[8..].copy_from_slice(b"\r\n");
        assert_eq!(pool.bytes(&lease), b"5\r\nhello\r\n");
        let mut long = pool.take_copy(&vec![b'x'; Class::Small.capacity()]).unwrap();
        assert_eq!(long.spare(), 0);
        long.widen(LEASE_HEADROOM, 7);
        let mut joined = pool.take(Class::Large).unwrap();
        pool.append_lease(&mut joined, &long);
        assert_eq!(pool.bytes(&joined), pool.bytes(&long));
        [lease, long, joined].into_iter().for_each(|l| pool.give_back(l));
    }
}
