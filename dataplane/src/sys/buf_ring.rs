//! Provided-buffer rings: buffers on loan to the kernel, which picks one when bytes arrive. No connection holds a
//! buffer while it waits.

use super::enter::last_errno;
use crate::buf::{Class, Lease, Pool};
use crate::io::Errno;
use crate::limits::{RING_BUFFERS_FIRST, RING_LARGE_BUFFERS, RING_SMALL_BUFFERS};
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

const _: () = assert!(RING_SMALL_BUFFERS.is_power_of_two() && RING_LARGE_BUFFERS.is_power_of_two());

/// The group of one class of buffer.
#[derive(Debug)]
pub(super) struct BufRing {
    class: Class,
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    capacity: u16,
    /// Entries published to the kernel, ever; wraps.
    tail: u16,
    /// Buffer ids not in use. The kernel returns an id, not an address.
    free_ids: Vec<u16>,
    /// By buffer id: the pool's index of the buffer on loan under it.
    indices: Box<[u32]>,
    /// How many to keep on loan. Starts small, so that an idle shard keeps few pages warm, and grows when it was too
    /// few; never shrinks, because the pages are touched by then.
    target: u16,
    /// A receive of this class was asked for at least once.
    used: bool,
}

impl BufRing {
    /// The memory of a group, not yet known to a kernel.
    pub(super) fn new(class: Class) -> Self {
        let capacity = if class == Class::Large { RING_LARGE_BUFFERS } else { RING_SMALL_BUFFERS };
        let Ok(layout) = Layout::from_size_align(usize::from(capacity) * size_of::<BufRingEntry>(), 4096)
        else {
            unreachable!("sizes are constants of limits.rs")
        };
        // SAFETY: the layout has a non-zero size.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast()) else { handle_alloc_error(layout) };
        Self {
            class,
            entries,
            layout,
            capacity,
            tail: 0,
            free_ids: (0..capacity).rev().collect(),
            indices: vec![0; usize::from(capacity)].into(),
            target: RING_BUFFERS_FIRST.min(capacity),
            used: false,
        }
    }

    /// The group's number in the kernel.
    pub(super) fn id(&self) -> u16 {
        self.class as u16
    }

    /// Tells the kernel of the group. From here on it reads the entries, until [`BufRing::unregister`].
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> Result<(), Errno> {
        let address = self.entries.as_ptr().addr() as u64;
        // SAFETY: the memory is page-aligned, holds `capacity` entries and lives until this value is dropped, before
        // which the owner unregisters the group.
        let result = unsafe { submitter.register_buf_ring_with_flags(address, self.capacity, self.id(), 0) };
        result.map_err(|e| e.raw_os_error().map_or_else(last_errno, Errno))
    }

    pub(super) fn unregister(&self, submitter: &Submitter<'_>) {
        // Fails only for a group that was never registered.
        let _ = submitter.unregister_buf_ring(self.id());
    }

    /// Buffers that the kernel can still pick.
    pub(super) fn available(&self) -> usize {
        usize::from(self.capacity) - self.free_ids.len()
    }

    /// A receive of this class was asked for: the group is lent buffers from now on.
    pub(super) fn wanted(&mut self) {
        self.used = true;
    }

    /// There were too few.
    pub(super) fn grow(&mut self) {
        self.target = (self.target * 2).min(self.capacity);
    }

    /// Lends free buffers of `pool` up to the target.
    pub(super) fn lend(&mut self, pool: &mut Pool) {
        if !self.used || self.available() >= usize::from(self.target) {
            return;
        }
        while self.available() < usize::from(self.target) {
            let Some(loan) = pool.lend(self.class) else { break };
            let Some(id) = self.free_ids.pop() else {
                pool.unlend(loan.class, loan.index);
                break;
            };
            self.indices[usize::from(id)] = loan.index;
            self.put(loan.address.addr() as u64, loan.len, id);
        }
        self.publish();
    }

    fn put(&mut self, address: u64, len: u32, id: u16) {
        let at = usize::from(self.tail & (self.capacity - 1));
        // SAFETY: `at` is below `capacity`, the number of entries allocated.
        let mut entry = unsafe { self.entries.add(at) };
        // SAFETY: the kernel does not read this entry before `publish` moves the tail over it: at most `capacity` entries
        // are published and not yet taken, because each has an id of its own. The setters leave the last two bytes alone,
        // which in the first entry are the tail.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the pointer is that of the first of `capacity` initialised (zeroed) entries.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is two bytes, aligned, within the ring's memory, and only written here; the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn take(&mut self, id: u16) -> u32 {
        debug_assert!(!self.free_ids.contains(&id), "the kernel returned a buffer it did not have");
        self.free_ids.push(id);
        self.indices[usize::from(id)]
    }

    /// The kernel wrote `len` bytes to buffer `id`.
    pub(super) fn received(&mut self, id: u16, len: u32, pool: &mut Pool) -> Lease {
        let index = self.take(id);
        pool.received(self.class, index, len)
    }

    /// The kernel took buffer `id` and wrote nothing to it.
    pub(super) fn unused(&mut self, id: u16, pool: &mut Pool) {
        let index = self.take(id);
        pool.unlend(self.class, index);
    }

    /// Takes back every loan. The group is unregistered and no receive is in flight.
    pub(super) fn reclaim(&mut self, pool: &mut Pool) {
        for id in (0..self.capacity).filter(|id| !self.free_ids.contains(id)).collect::<Vec<_>>() {
            self.unused(id, pool);
        }
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed nowhere else, and unregistered by the owner.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}
