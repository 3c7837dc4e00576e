//! HTTP/1 through a whole shard, in the simulator without faults: every case of `cases/`, and every limit and timeout.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod available;
mod bed;
mod bulk;
#[path = "../cases/mod.rs"]
mod cases;
mod drains;
mod even;
mod failing;
mod last;
mod limits;
mod listing;
mod message;
mod moving;
mod ports;
mod proxy;
mod queue;
mod records;
mod requests;
mod responses;
mod retry;
mod room;
mod shards;
mod sticky;
mod swap;
mod timeouts;
mod tracing;
mod tunnels;
mod uploads;
