//! The bench's home of `unsafe`: the ring, the buffers it shares with the kernel, and a socket option.
#![allow(unsafe_code, reason = "the kernel reads and writes the memory that a ring names")]

mod bind_late;
mod buffers;
mod uring;

pub(crate) use bind_late::bind_without_port;
pub(crate) use buffers::Lease;
pub(crate) use uring::{Event, Options, Uring};
