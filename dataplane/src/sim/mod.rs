//! The simulator: a backend of `Io` with a virtual clock, TCP's semantics and a seeded fault plan.
//!
//! `net` is the network, `io` a shard's way into it, `faults` the bad luck of a seed, `random` its only source of
//! chance, `trace` the hash by which two runs are told apart. docs/testing.md says how to replay a seed.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test equipment: its numbers are small, it may print, and a broken expectation must end the run"
)]

mod ahead;
mod churn;
mod completions;
mod conditions;
pub mod faults;
pub mod io;
pub mod net;
mod operations;
pub mod peers;
mod pipes;
mod polls;
pub mod random;
pub mod run;
pub mod sabotage;
mod setup;
mod shards;
pub mod trace;
pub mod workload;

pub use faults::{Fault, FaultPlan};
pub use io::{SimIo, World, key};
pub use net::{ListenerId, Net, Notice, Owner, Read, SocketId};
pub use random::Random;
pub use run::{Options, Report, run};
pub use sabotage::Sabotage;
pub use trace::Trace;
