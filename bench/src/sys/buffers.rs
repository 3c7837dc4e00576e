//! Provided buffers: memory on loan to the kernel, which picks one of them when bytes arrive.

use anyhow::Context as _;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;
const PAGE: usize = 4096;

/// A buffer that holds received bytes. Neither `Clone` nor made elsewhere: whoever has it is the only reader, and the
/// kernel does not write to it until it is given back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) id: u16,
}

/// The buffers of one ring. They live as long as the process, because the kernel may write to them until it ends.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    bytes: u32,
    tail: u16,
    /// How many the kernel has.
    on_loan: u16,
    /// Bytes received, by buffer id.
    lengths: Box<[u32]>,
}

/// Zeroed pages that are never freed.
fn pages(bytes: usize) -> anyhow::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes.max(PAGE), PAGE)?;
    // SAFETY: the layout is at least a page, so not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).context("no memory for buffers")
}

impl Buffers {
    /// `count` (a power of two) buffers of `bytes` each, all on loan.
    pub(super) fn new(submitter: &Submitter<'_>, count: u16, bytes: u32) -> anyhow::Result<Self> {
        anyhow::ensure!(count.is_power_of_two() && bytes > 0, "buffers come in powers of two");
        let entries = pages(usize::from(count) * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = pages(usize::from(count) * bytes as usize)?;
        // SAFETY: the address is page-aligned, holds `count` entries and is never freed.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr().addr() as u64, count, GROUP, 0) }
            .context("a ring of provided buffers")?;
        let lengths = vec![0; usize::from(count)].into();
        let mut buffers = Self { entries, memory, count, bytes, tail: 0, on_loan: 0, lengths };
        for id in 0..count {
            buffers.lend(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        // SAFETY: ids are below `count`: `received` checks those that come from the kernel, and leases are made there.
        unsafe { self.memory.add(usize::from(id) * self.bytes as usize) }
    }

    fn lend(&mut self, id: u16) {
        let address = self.address(id).as_ptr().addr() as u64;
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, the number of entries.
        let mut entry = unsafe { self.entries.add(at) };
        // SAFETY: at most `count` ids exist and each is published at most once until the kernel hands it back, so the
        // kernel has read this entry's previous content. The setters leave the tail, which shares the first entry, alone.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.on_loan += 1;
    }

    /// Shows the kernel what was lent.
    pub(super) fn publish(&self) {
        // SAFETY: `entries` is the base of the ring that was registered.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 within the ring, which the kernel only reads; it outlives the process.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The lease of a buffer that the kernel says it filled with `len` bytes.
    pub(super) fn received(&mut self, id: u16, len: u32) -> Option<Lease> {
        *self.lengths.get_mut(usize::from(id))? = len.min(self.bytes);
        self.on_loan -= 1;
        Some(Lease { id })
    }

    pub(super) fn on_loan(&self) -> u16 {
        self.on_loan
    }

    pub(super) fn bytes(&self, lease: &Lease) -> &[u8] {
        let len = self.lengths[usize::from(lease.id)] as usize;
        // SAFETY: the buffer is `bytes` long, `len` is at most that, and the kernel does not write to it while the lease
        // exists; a send that is in flight only reads it.
        unsafe { std::slice::from_raw_parts(self.address(lease.id).as_ptr(), len) }
    }

    /// Lends the buffer again; the kernel sees it at the next `publish`.
    pub(super) fn give_back(&mut self, lease: Lease) {
        self.lend(lease.id);
    }
}
