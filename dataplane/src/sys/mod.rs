//! The kernel: the ring, its operations, sockets, pinning. The other home of `unsafe`.
//!
//! What the unsafe code here leans on:
//! - memory named in a submission is alive until its completion (payloads: the caller keeps the leases, invariant 1) or
//!   until it was submitted (headers and addresses: `scratch`; the kernel copies those, IORING_FEAT_SUBMIT_STABLE);
//! - buffers in a provided-buffer ring are on loan from the pool, so no lease reaches them until they come back;
//! - a descriptor is closed only when nothing is in flight on it (invariant 2), which is the caller's promise;
//! - a ring stays on the thread that made it (IORING_SETUP_SINGLE_ISSUER): it is not `Send`.
#![allow(
    unsafe_code,
    reason = "system calls and memory shared with the kernel; each block says why it is sound"
)]

mod abandon;
pub mod affinity;
mod buf_ring;
pub mod clock;
mod complete;
pub mod deaf;
mod enter;
mod feed;
mod fit;
pub mod inherited;
mod later;
mod operations;
mod pipe;
pub mod probe;
pub mod ring;
pub mod rlimit;
mod scratch;
pub mod socket;
mod sound;
mod sqe;
mod standing;
mod starved;
pub mod steer;
pub mod unix;

pub use fit::{RingMemory, RingOptions};
pub use probe::{Features, Unusable, probe};
pub use ring::Ring;
