//! A tcp listener through a whole shard, in the simulator without faults: coming to a link, half-close, resets, deadlines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod bed;
mod ending;
mod hello;
mod moving;
mod proxy;
mod queue;
mod reaching;
mod refused;
