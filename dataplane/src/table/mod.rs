//! Fixed tables that a shard keeps its state in: slots with generations, and the timer wheel.

pub mod slab;
pub mod timer_wheel;

pub use slab::{Id, Slab};
pub use timer_wheel::{TimerId, TimerWheel};
