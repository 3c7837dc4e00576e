//! An allocator that counts what this thread allocates, and weighs what it holds; the rest of the process does not disturb the count.

#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; every call is passed on unchanged")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated and not yet freed.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn hold(bytes: usize, freed: usize) {
    let change = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    // A thread that is ending has no count any more, and nobody asks for it.
    let _ = HELD.try_with(|held| held.set(held.get() + change(bytes) - change(freed)));
}

fn count() {
    // A thread that is ending has no count any more, and nobody asks for it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let told = TELLS.try_with(|tells| tells.replace(false)).unwrap_or(false);
    if told {
        // Capturing allocates as well: it is off meanwhile.
        eprintln!("allocated by:\n{}", std::backtrace::Backtrace::force_capture());
        TELLS.with(|tells| tells.set(true));
    }
}

// SAFETY: every call goes to the system's allocator with the caller's arguments, which the caller vouches for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size(), 0);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size(), 0);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        hold(0, layout.size());
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        hold(size, layout.size());
        // SAFETY: as the caller vouches.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How often `work` allocates on this thread. With `SHOW_ALLOCATIONS` in the environment each says where.
pub(crate) fn allocations(work: impl FnOnce()) -> u64 {
    let shows = std::env::var_os("SHOW_ALLOCATIONS").is_some();
    TELLS.with(|tells| tells.set(shows));
    let before = COUNT.with(Cell::get);
    work();
    let count = COUNT.with(Cell::get) - before;
    TELLS.with(|tells| tells.set(false));
    count
}

/// Heap bytes that `value` held alone: those that are freed when it is dropped.
pub(crate) fn weight<T>(value: T) -> u64 {
    let before = HELD.with(Cell::get);
    drop(value);
    u64::try_from(before - HELD.with(Cell::get)).unwrap_or(0)
}
