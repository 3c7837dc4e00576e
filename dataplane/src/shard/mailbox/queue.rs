//! The shape of rtrb's queue made of loom's parts: the same two indices with the same orderings, checked by loom.

use crate::sync::{Arc, AtomicU32, Ordering};
use loom::sync::Mutex;

/// Makes both ends.
pub(super) struct RingBuffer<T> {
    /// Locks stand for rtrb's unsafe cells: never contended if the indices are right, and no part of what is tested.
    slots: Vec<Mutex<Option<T>>>,
    head: AtomicU32,
    tail: AtomicU32,
}

impl<T> RingBuffer<T> {
    #[expect(clippy::new_ret_no_self, reason = "as rtrb has it")]
    pub(super) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let slots = (0..capacity).map(|_| Mutex::new(None)).collect();
        let ring = Arc::new(Self { slots, head: AtomicU32::new(0), tail: AtomicU32::new(0) });
        (Producer(ring.clone()), Consumer(ring))
    }
    fn slot(&self, at: u32) -> Option<&Mutex<Option<T>>> {
        self.slots.get(at as usize % self.slots.len())
    }
}

pub(super) struct Producer<T>(Arc<RingBuffer<T>>);
pub(super) struct Consumer<T>(Arc<RingBuffer<T>>);

pub(super) enum PushError<T> {
    Full(T),
}

#[expect(clippy::needless_pass_by_ref_mut, reason = "as rtrb has it")]
impl<T> Producer<T> {
    pub(super) fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        let tail = self.0.tail.load(Ordering::Relaxed);
        let queued = tail - self.0.head.load(Ordering::Acquire);
        match self.0.slot(tail).map(Mutex::lock) {
            Some(Ok(mut slot)) if (queued as usize) < self.0.slots.len() => *slot = Some(value),
            _ => return Err(PushError::Full(value)),
        }
        self.0.tail.store(tail + 1, Ordering::Release);
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_ref_mut, reason = "as rtrb has it")]
impl<T> Consumer<T> {
    pub(super) fn pop(&mut self) -> Result<T, ()> {
        if self.is_empty() {
            return Err(());
        }
        let head = self.0.head.load(Ordering::Relaxed);
        let value = self.0.slot(head).and_then(|slot| slot.lock().ok()?.take()).ok_or(());
        self.0.head.store(head + 1, Ordering::Release);
        value
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.head.load(Ordering::Relaxed) == self.0.tail.load(Ordering::Acquire)
    }
}
