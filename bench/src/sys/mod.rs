//! The bench's home of `unsafe`: the ring, and the buffers it shares with the kernel.
#![allow(unsafe_code, reason = "the kernel reads and writes the memory that a ring names")]

mod buffers;
mod uring;

pub(crate) use buffers::Lease;
pub(crate) use uring::{Event, Options, Uring};
