//! One access log at work: which records it takes, how they look, and what others may see of it.

use super::AccessLog;
use super::access::write_time;
use super::sink::{self, Sink};
use crate::traces;
use dataplane::mix::mix;
use dataplane::spec::{ListenerId, Snapshot};
use dataplane::stats::access_log::Record;
use dataplane::stats::request_id::RequestId;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Output {
    pub(super) sink: Sink,
    log: AccessLog,
    /// The ids of `log.listeners` in the snapshot.
    listeners: Option<Vec<ListenerId>>,
    /// What stands between the time and the line, where it goes to syslog.
    syslog: Option<Box<[u8]>>,
}

impl Output {
    /// The error names the output that could not be opened.
    pub(super) fn open(log: &AccessLog) -> Result<Self, String> {
        let sink = Sink::open(log.to.clone())
            .map_err(|e| format!("cannot open the access log {:?}: {e}", log.to.name()))?;
        let syslog = log.to.is_syslog().then(syslog_header);
        Ok(Self { sink, log: log.clone(), listeners: None, syslog })
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        self.listeners.as_ref().is_none_or(|ids| ids.contains(&record.listener))
            && (self.log.sample >= 1.0 || lot(record.request_id) < self.log.sample)
    }

    /// Writes the line of a record that is one of its own.
    pub(super) fn take(&mut self, record: &Record<'_>, snapshot: &Snapshot, now: Instant) {
        if !self.wants(record) {
            return;
        }
        let (format, syslog) = (&self.log.format, self.syslog.as_deref());
        self.sink.line(now, |out| {
            if let Some(header) = syslog {
                out.extend_from_slice(PRIORITY);
                write_time(out, record.wall_ns);
                out.extend_from_slice(header);
            }
            format.write(out, record, snapshot);
        });
    }

    pub(super) fn resolve(&mut self, snapshot: &Snapshot) {
        self.listeners = self.log.listeners.as_ref().map(|names| {
            let listeners = snapshot.listeners.iter().flatten();
            listeners.filter(|listener| names.contains(&listener.name)).map(|listener| listener.id).collect()
        });
    }

    pub(super) fn reopen(&mut self, now: Instant) {
        match self.sink.reopen(now) {
            Ok(()) => tracing::info!(log = self.sink.name(), "log reopened"),
            Err(e) => {
                tracing::error!(log = self.sink.name(), error = %e, "log not reopened; the old file stays");
            }
        }
    }
}

/// Facility local0, severity informational; version 1 (RFC 5424 section 6.2).
const PRIORITY: &[u8] = b"<134>1 ";

/// Host, program, process, kind of message, no structured data (RFC 5424 section 6).
fn syslog_header() -> Box<[u8]> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    format!(" {host} ringway {} access - ", std::process::id()).into_bytes().into()
}

/// An even number in [0, 1) that depends on the id alone (splitmix64).
fn lot(id: RequestId) -> f64 {
    let number = id.count ^ (u64::from(id.shard) << 48) ^ u64::from(id.process).rotate_left(17);
    (mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// What was lost since the process started, as of the thread's last look.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) ring_full: AtomicU64,
    /// By all access logs, those of earlier configurations included.
    pub(super) not_written: AtomicU64,
    pub(super) process_lines: AtomicU64,
    /// Bytes in the fullest ring, before the thread's last look.
    pub(super) ring_bytes: AtomicUsize,
}

/// What an access log is called, and its numbers.
pub(super) type Shown = (String, Arc<sink::Numbers>);

impl Output {
    pub(super) fn shown(&self) -> Shown {
        (self.sink.name(), Arc::clone(self.sink.numbers()))
    }
}

impl OutputNumbers {
    pub(super) fn of((to, numbers): &Shown) -> Self {
        Self {
            to: to.clone(),
            waiting_bytes: numbers.waiting.load(Relaxed),
            lost: numbers.lost.load(Relaxed),
            failing: numbers.failing.load(Relaxed),
        }
    }
}

/// What the logs lost since the process started, and what waits.
#[derive(Debug, Clone, Serialize)]
pub struct Numbers {
    /// Bytes of records that the log thread found in the fullest ring, of [`dataplane::limits::LOG_RING_BYTES`].
    pub ring_bytes: usize,
    /// Records that a shard could not put into its ring, because the log thread was behind.
    pub ring_full: u64,
    /// Bytes of lines that wait for standard error, of [`dataplane::limits::LOG_WAITING_BYTES`].
    pub process_waiting_bytes: usize,
    /// Lines of the process log.
    pub process_lines: u64,
    /// The access logs, in the order of the configuration.
    #[serde(rename = "access_logs")]
    pub outputs: Vec<OutputNumbers>,
    /// Requests that were sent to a collector as spans.
    pub spans: traces::Numbers,
}

/// Of one access log.
#[derive(Debug, Clone, Serialize)]
pub struct OutputNumbers {
    pub to: String,
    /// Bytes of lines that wait for it, of [`dataplane::limits::LOG_WAITING_BYTES`].
    pub waiting_bytes: usize,
    /// Lines that it did not take.
    pub lost: u64,
    /// Its last write failed.
    pub failing: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_takes_its_share_and_the_same_exchanges_each_time() {
        let id = |count| RequestId { process: 7, shard: 3, count };
        let taken = (0..100_000).filter(|count| lot(id(*count)) < 0.1).count();
        assert!((9_500..10_500).contains(&taken), "{taken} of 100,000 at 0.1");
        assert!((0..1000).all(|count| (0.0..1.0).contains(&lot(id(count)))));
        assert_eq!(lot(id(5)), lot(id(5)));
    }
}
