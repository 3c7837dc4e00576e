//! What a shard counts and records for control: counters, close reasons, access-log records.

pub mod access_log;
pub mod counters;
pub mod histogram;
pub mod objects;
pub mod request_id;
pub mod retries;
pub mod timings;
pub mod traced;

pub use counters::{Counter, Stats};
