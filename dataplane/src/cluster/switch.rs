//! A switch that control turns and every shard reads: one word, for a choice between two prepared answers.

use crate::sync::{AtomicBool, Ordering, Padded};

/// On or off. Written rarely, by control alone; a shard that reads it pays for a line that all cores share.
#[derive(Debug)]
pub struct Switch(Padded<AtomicBool>);

impl Switch {
    pub fn new(on: bool) -> Self {
        Self(Padded(AtomicBool::new(on)))
    }
    pub fn set(&self, on: bool) {
        self.0.0.store(on, Ordering::Relaxed);
    }
    pub fn is_on(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }
}
