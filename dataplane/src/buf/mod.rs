//! Buffers: a shard's arena, the leases out of it, and bounded chains of leases.
//!
//! A lease has one owner at a time (invariant 9): it is neither `Copy` nor `Clone`, and goes back by [`Pool::give_back`].

mod arena;
mod chain;
mod pool;

pub use arena::{Class, Lease};
pub use chain::Chain;
#[cfg(feature = "sim")]
pub use pool::Sight;
pub use pool::{Loan, Pool, PoolSize};
