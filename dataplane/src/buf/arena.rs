//! The buffer memory of one shard, and `Lease`: the right to one buffer of it. One of the two homes of `unsafe`.
#![allow(unsafe_code, reason = "the arena hands out slices of memory that the kernel also writes to")]

use crate::limits::{LEASE_HEADROOM, LEASE_LARGE_BYTES, LEASE_SMALL_BYTES, LEASE_TAILROOM, LEASE_TINY_BYTES};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::num::NonZeroU32;
use std::ptr::NonNull;

/// The size of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    Tiny,
    Small,
    Large,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Tiny, Self::Small, Self::Large];

    /// Bytes from one buffer to the next, head and tail room included.
    pub const fn stride(self) -> usize {
        match self {
            Self::Tiny => LEASE_TINY_BYTES,
            Self::Small => LEASE_SMALL_BYTES,
            Self::Large => LEASE_LARGE_BYTES,
        }
    }
    /// Bytes one lease can hold between its head and tail room.
    pub const fn capacity(self) -> usize {
        self.stride() - LEASE_HEADROOM - LEASE_TAILROOM
    }
    /// The smallest class that holds `bytes`, if any does.
    pub fn for_bytes(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|c| bytes <= c.capacity())
    }
}

/// No more than malloc gives by itself: asked for more, it would zero (and so touch) every page at once.
const ALIGNMENT: usize = 16;
const INDEX_BITS: u32 = 30;

/// The right to one buffer, and the range of it that is filled. Linear: give it back to its pool.
#[derive(Debug)]
#[must_use = "a lease that is dropped is a buffer lost: give it back to its pool"]
pub struct Lease {
    /// `class:2 | index:30`, plus one so that `Option<Lease>` needs no flag.
    tag: NonZeroU32,
    start: u32,
    end: u32,
}

impl Lease {
    pub(super) fn mint(class: Class, index: u32, start: u32, end: u32) -> Self {
        debug_assert!(index < (1 << INDEX_BITS) - 1);
        let tag = (u32::from(class as u8) << INDEX_BITS | index) + 1;
        Self { tag: NonZeroU32::new(tag).unwrap_or(NonZeroU32::MIN), start, end }
    }
    pub fn class(&self) -> Class {
        Class::ALL[((self.tag.get() - 1) >> INDEX_BITS) as usize]
    }
    pub(super) fn index(&self) -> u32 {
        (self.tag.get() - 1) & ((1 << INDEX_BITS) - 1)
    }
    /// Bytes filled.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Bytes that may still be appended before the tail room.
    pub fn spare(&self) -> usize {
        self.class().stride() - LEASE_TAILROOM - self.end as usize
    }
    /// Drops `n` bytes from the front.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance past the end of a lease");
        self.start += u32::try_from(n).unwrap_or(u32::MAX);
    }
    /// Keeps the first `n` bytes.
    pub fn truncate(&mut self, n: usize) {
        assert!(n <= self.len(), "truncate past the end of a lease");
        self.end = self.start + u32::try_from(n).unwrap_or(u32::MAX);
    }
    /// Takes `front` bytes before and `back` bytes behind into the lease (chunk framing uses the head and tail room).
    pub fn widen(&mut self, front: usize, back: usize) {
        assert!(front <= self.start as usize, "widen past the head room of a lease");
        assert!(self.end as usize + back <= self.class().stride(), "widen past the tail room of a lease");
        self.start -= u32::try_from(front).unwrap_or(u32::MAX);
        self.end += u32::try_from(back).unwrap_or(u32::MAX);
    }
    /// Counts `n` more bytes as filled, after they were written to [`super::Pool::spare_mut`].
    pub fn extend(&mut self, n: usize) {
        assert!(n <= self.spare(), "extend past the end of a lease");
        self.end += u32::try_from(n).unwrap_or(u32::MAX);
    }
    pub(super) fn range(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }
}

const _: () = assert!(size_of::<Option<Lease>>() == 12);

/// One slab of equal buffers. The memory is zeroed lazily by the kernel: a page costs nothing until it is first used.
#[derive(Debug)]
pub(super) struct Arena {
    base: NonNull<u8>,
    layout: Layout,
    stride: usize,
}

// SAFETY: the arena owns its memory alone; nothing in it is bound to the thread that made it.
unsafe impl Send for Arena {}

impl Arena {
    pub(super) fn new(class: Class, buffers: u32) -> Self {
        let stride = class.stride();
        let bytes = stride * buffers.max(1) as usize;
        let Ok(layout) = Layout::from_size_align(bytes, ALIGNMENT) else {
            unreachable!("sizes are constants of limits.rs")
        };
        // SAFETY: the layout has a non-zero size.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { base, layout, stride }
    }
    /// Address of byte `at` of buffer `index`; for the kernel. In bounds by the caller's lease or loan.
    pub(super) fn address(&self, index: u32, at: usize) -> *mut u8 {
        let offset = index as usize * self.stride + at;
        assert!(offset <= self.layout.size(), "address outside the arena");
        // SAFETY: the offset is within the allocation, or one past it, by the assertion above.
        unsafe { self.base.as_ptr().add(offset) }
    }
    /// The bytes `from..to` of buffer `index`. The caller holds its lease, so neither the kernel nor another lease
    /// reaches them.
    pub(super) fn slice(&self, index: u32, from: usize, to: usize) -> &[u8] {
        assert!(from <= to && to <= self.stride, "range outside a buffer");
        let start = self.address(index, from).cast_const();
        // SAFETY: in bounds by the assertion; initialised, because the arena is zeroed; not written while borrowed,
        // because the lease (one owner, invariant 9) is borrowed with it and the kernel has no loan of this buffer.
        unsafe { std::slice::from_raw_parts(start, to - from) }
    }
    /// The bytes of one buffer to read and of another to write, of this arena and of `target` (perhaps the same arena).
    /// The two buffers differ by assertion: a lease is linear, so two leases never name one buffer.
    #[allow(
        clippy::mut_from_ref,
        reason = "the two buffers are distinct, and the caller's lease is the exclusive right to one"
    )]
    pub(super) fn pair<'a>(
        &'a self,
        source: (u32, usize, usize),
        target: (&'a Self, u32, usize, usize),
    ) -> (&'a [u8], &'a mut [u8]) {
        let (into, index, from, to) = target;
        assert!(source.0 != index || !std::ptr::eq(self, into), "two leases name one buffer");
        assert!(from <= to && to <= into.stride, "range outside a buffer");
        let start = into.address(index, from);
        // SAFETY: in bounds by the assertion; exclusive, because the caller holds both leases mutably borrowed through the
        // pool, and the source is another buffer by the assertion above.
        let write = unsafe { std::slice::from_raw_parts_mut(start, to - from) };
        (self.slice(source.0, source.1, source.2), write)
    }
    /// As [`Arena::slice`], to write to.
    #[allow(
        clippy::needless_pass_by_ref_mut,
        reason = "exclusive use of the arena is what makes writing sound"
    )]
    pub(super) fn slice_mut(&mut self, index: u32, from: usize, to: usize) -> &mut [u8] {
        assert!(from <= to && to <= self.stride, "range outside a buffer");
        let start = self.address(index, from);
        // SAFETY: as in `slice`; exclusive, because `&mut self` borrows the whole arena.
        unsafe { std::slice::from_raw_parts_mut(start, to - from) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and freed nowhere else.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
