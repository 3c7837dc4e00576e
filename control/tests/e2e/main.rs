//! End to end: the real binary on real io_uring, between raw clients and origins of our own, nginx and Python.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests may lock, look at the clock, and print what failed"
)]
#![allow(unreachable_pub, missing_debug_implementations, reason = "a test binary has no users")]

mod support;

mod admin;
mod bad_input;
mod balance;
mod bodies;
mod changes;
mod connections;
mod dead_peer;
mod discovery;
mod discovery_hostile;
mod doctor;
mod drain;
mod error_pages;
mod exhaustion;
mod explain;
mod failing;
mod forwarding;
mod health;
mod health_network;
mod health_programs;
mod limits;
mod links;
mod log;
mod log_outputs;
mod maintenance;
mod memory;
mod metrics;
mod outage;
mod page;
mod process;
mod proxy_protocol;
mod queue;
mod real_origins;
mod recipes;
mod refusals;
mod reload;
mod reload_files;
mod retry;
mod shards;
mod smuggling;
mod sni;
mod sockets;
mod sticky;
mod tcp;
mod timeouts;
mod top;
mod traces;
mod tracing;
mod tuning;
mod tunnel;
mod upgrade;
mod upgrade_conns;
mod upgrade_lost;
