//! Bounds of the access log and of traces.

/// Strings copied to the access log are cut here.
pub const LOG_STRING_BYTES: usize = 2048;
/// Lines that wait for an output of the log that does not take them, bytes; further ones are lost and counted.
pub const LOG_WAITING_BYTES: usize = 1 << 20;
/// Records that wait to be sent as spans: those of a few seconds that a collector does not answer. Each has at most
/// `RECORD_BYTES_MAX`, mostly some hundreds. And spans that are sent at once.
pub const SPANS_WAITING: usize = 4096;
pub const SPANS_BATCH: usize = 512;
/// A format string of the access log, bytes; and access logs of one configuration, each with an output of its own.
pub const LOG_FORMAT_BYTES: usize = 4096;
pub const ACCESS_LOGS_MAX: usize = 64;
/// One shard's access-log ring, bytes; full means records are dropped and counted.
pub const LOG_RING_BYTES: usize = 1 << 20;
