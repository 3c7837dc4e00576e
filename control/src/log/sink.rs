//! Where lines go, one at a time or many at once, without ever waiting for whoever takes them, and in whole lines.
//!
//! What is not taken waits in memory up to `limits::LOG_WAITING_BYTES`, and goes on from the byte at which it stopped; lines
//! beyond that are lost, whole ones, and counted.

use super::target::{Target, Way};
use dataplane::limits;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 64 * 1024;
/// Until an output that took nothing, or one that failed, is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(1);
const FAULT_PAUSE: Duration = Duration::from_millis(250);
/// One that fails says so at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What others may see of a sink.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Lines that were not written and will not be.
    pub(super) lost: AtomicU64,
    /// Bytes of lines that wait, as of the last try to write them.
    pub(super) waiting: AtomicUsize,
    /// Its last write failed.
    pub(super) failing: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Sink {
    target: Target,
    way: Way,
    /// Whole lines, of which the first `done` bytes are written.
    lines: Vec<u8>,
    done: usize,
    /// The last byte that was written ended a line.
    whole: bool,
    retry_at: Option<Instant>,
    told_at: Option<Instant>,
    numbers: Arc<Numbers>,
}

impl Sink {
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let way = target.open()?;
        Ok(Self {
            target,
            way,
            lines: Vec::with_capacity(2 * BATCH_BYTES),
            done: 0,
            whole: true,
            retry_at: None,
            told_at: None,
            numbers: Arc::default(),
        })
    }

    /// Opens a file anew under its name, so that a rotated one is let go; on failure the old one stays. So the address of
    /// syslog. Half a line stays in the old file: what is left of it is lost.
    pub(super) fn reopen(&mut self, now: Instant) -> io::Result<()> {
        self.retry_at = None;
        self.flush(now);
        if matches!(self.target, Target::Stdout | Target::Stderr) {
            return Ok(());
        }
        self.way = self.target.open()?;
        self.retry_at = None;
        if !std::mem::replace(&mut self.whole, true) {
            let rest = self.waiting().iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.done += rest;
            self.numbers.lost.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        self.target.name()
    }
    pub(super) fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }
    pub(super) fn lost(&self) -> u64 {
        self.numbers.lost.load(Relaxed)
    }

    /// The same with the lines that wait.
    pub(super) fn lost_if_dropped(&self) -> u64 {
        self.lost() + self.waiting().iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn waiting(&self) -> &[u8] {
        &self.lines[self.done..]
    }
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Takes one line, its newline included, from whoever writes it; or loses it.
    pub(super) fn line(&mut self, now: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting().len() >= limits::LOG_WAITING_BYTES {
            self.numbers.lost.fetch_add(1, Relaxed);
            return;
        }
        write(&mut self.lines);
        if self.waiting().len() >= BATCH_BYTES {
            self.flush(now);
        }
    }

    /// Writes what waits, as far as it is taken.
    pub(super) fn flush(&mut self, now: Instant) {
        self.write(now);
        self.numbers.waiting.store(self.waiting().len(), Relaxed);
    }

    fn write(&mut self, now: Instant) {
        if self.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        while !self.is_empty() {
            let waiting = &self.lines[self.done..];
            match self.way.write_some(waiting, &self.numbers.lost) {
                Ok(n) if n > 0 => {
                    self.whole = waiting[n - 1] == b'\n';
                    self.done += n;
                    self.on_written();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) if e.kind() != ErrorKind::WouldBlock => {
                    self.on_fault(&e, now);
                    break;
                }
                Ok(_) | Err(_) => {
                    self.retry_at = now.checked_add(FULL_PAUSE);
                    break;
                }
            }
        }
        if self.is_empty() {
            self.lines.clear();
            self.done = 0;
        } else if self.done >= BATCH_BYTES {
            self.lines.drain(..self.done);
            self.done = 0;
        }
    }

    fn on_written(&self) {
        if self.numbers.failing.swap(false, Relaxed) {
            tracing::info!(log = self.name(), lost = self.lost(), "the log is written again");
        }
    }

    fn on_fault(&mut self, error: &io::Error, now: Instant) {
        self.retry_at = now.checked_add(FAULT_PAUSE);
        self.numbers.failing.store(true, Relaxed);
        if let Some(way) = self.way.renewed(&self.target, error) {
            self.way = way;
        }
        if self.told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
            self.told_at = Some(now);
            tracing::error!(
                log = self.name(),
                %error,
                "the log cannot be written; its lines wait, and beyond 1 MiB they are lost"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::path::PathBuf;

    #[allow(clippy::disallowed_methods, reason = "a test of the log thread's part, which has a clock")]
    fn now() -> Instant {
        Instant::now()
    }
    fn to(path: PathBuf) -> Sink {
        Sink::open(Target::File(path)).unwrap()
    }
    fn put(sink: &mut Sink, line: &str) {
        sink.line(now(), |out| out.extend_from_slice(line.as_bytes()));
    }

    #[test]
    fn a_rotated_file_is_let_go_on_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut sink = to(path.clone());
        put(&mut sink, "one\n");
        sink.flush(now());
        let old = dir.path().join("access.log.1");
        std::fs::rename(&path, &old).unwrap();
        put(&mut sink, "two\n");
        sink.reopen(now()).unwrap();
        put(&mut sink, "three\n");
        sink.flush(now());
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
        assert_eq!(sink.lost(), 0);
    }

    /// Threat D09: lines for a full disk wait within a bound, and beyond it they are lost whole and counted.
    #[test]
    fn a_full_disk_costs_counted_lines() {
        let mut sink = to("/dev/full".into());
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..2000 {
            put(&mut sink, &line);
        }
        sink.flush(now());
        let kept = limits::LOG_WAITING_BYTES / 1024;
        assert_eq!((sink.lost(), sink.waiting().len() / 1024), (2000 - kept as u64, kept));
        assert!(sink.numbers.failing.load(Relaxed));
        assert_eq!(sink.numbers.waiting.load(Relaxed), sink.waiting().len());
    }

    #[test]
    fn half_a_line_stays_in_the_file_that_it_began_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = to("/dev/full".into());
        put(&mut sink, "half of this is written\nall of this is not\n");
        (sink.done, sink.whole) = (4, false);
        sink.target = Target::File(dir.path().join("next"));
        sink.reopen(now()).unwrap();
        sink.flush(now());
        assert_eq!(std::fs::read_to_string(dir.path().join("next")).unwrap(), "all of this is not\n");
        assert_eq!((sink.lost(), sink.is_empty()), (1, true));
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("logs");
        std::fs::create_dir(&inner).unwrap();
        let mut sink = to(inner.join("a"));
        let kept = dir.path().join("kept");
        std::fs::rename(&inner, &kept).unwrap();
        assert!(sink.reopen(now()).is_err());
        put(&mut sink, "still\n");
        sink.flush(now());
        assert_eq!(std::fs::read_to_string(kept.join("a")).unwrap(), "still\n");
    }

    /// Threat D09: nobody reads, and then somebody does.
    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for_and_goes_on_without_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut reader = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        let mut sink = to(fifo);
        let mut want = String::new();
        for n in 0.. {
            let line = format!("{n:08} {}\n", "x".repeat(n % 6000));
            put(&mut sink, &line);
            if sink.lost() > 0 {
                break;
            }
            want.push_str(&line);
        }
        let (mut got, mut piece) = (Vec::new(), [0; 10_000]);
        while got.len() < want.len() {
            sink.retry_at = None;
            sink.flush(now());
            let n = reader.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..n]);
        }
        assert!(got == want.as_bytes(), "a line is torn or out of place");
        assert!(sink.is_empty());
    }
}
