//! The process log: `tracing` events as lines, one each, sent to the log thread without ever waiting for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

/// `format` of `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The sending end of the line channel.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    sender: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

/// Bytes of one line; what is longer is cut.
const LINE_BYTES: usize = 16 * 1024;

pub(super) fn channel(lines: usize) -> (Lines, Receiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::sync_channel(lines);
    (Lines { sender, lost: Arc::new(AtomicU64::new(0)) }, receiver)
}

impl Lines {
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl io::Write for Lines {
    /// Takes one whole event: the formatter writes each in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.sender.try_send(one_line(event)) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Relaxed);
            }
        }
        Ok(event.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// `event` as one line: control characters escaped, cut to `LINE_BYTES`, ended by a newline (threat H09).
fn one_line(event: &[u8]) -> Vec<u8> {
    let event = event.strip_suffix(b"\n").unwrap_or(event);
    let text = String::from_utf8_lossy(&event[..event.len().min(LINE_BYTES)]);
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if super::access::unprintable(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    line.into_bytes()
}

/// The least that is written, as a number that grows with detail, and whether in JSON. They change while the process runs.
static LEVEL: AtomicUsize = AtomicUsize::new(0);
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Writes from now on what is of this level or above it, so.
pub(super) fn set(level: tracing::Level, format: Format) {
    LEVEL.store(detail(level), Relaxed);
    IS_JSON.store(format == Format::Json, Relaxed);
}

fn detail(level: tracing::Level) -> usize {
    use tracing::Level;
    [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG]
        .iter()
        .take_while(|coarser| level > **coarser)
        .count()
}

/// Makes `lines` the process's log, for events and panics. The first call of a process decides.
pub(super) fn install(lines: Lines, level: tracing::Level, format: Format) {
    set(level, format);
    let layer = || fmt::layer().with_target(false).with_ansi(false).with_writer(lines.clone());
    let wants = |json: bool| {
        dynamic_filter_fn(move |event, _| {
            IS_JSON.load(Relaxed) == json && detail(*event.level()) <= LEVEL.load(Relaxed)
        })
    };
    let text = layer().with_filter(wants(false)).boxed();
    let json = layer().json().flatten_event(true).with_filter(wants(true)).boxed();
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(vec![text, json]));
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place,
            "panic: {}",
            info.payload_as_str().unwrap_or("(no text)")
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn one_event_is_one_line() {
        assert_eq!(one_line(b"plain \xc3\xa9\n"), "plain é\n".as_bytes());
        let hostile = one_line(b"a\nb\r\x1b[2J\xff\0\n");
        assert_eq!(String::from_utf8(hostile).unwrap(), "a\\nb\\r\\u{1b}[2J\u{fffd}\\u{0}\n");
        assert!(one_line(&[b'x'; 100_000]).len() <= LINE_BYTES + 1);
    }

    #[test]
    fn a_full_channel_loses_counted_lines_and_does_not_wait() {
        let (mut lines, waiting) = channel(2);
        for _ in 0..5 {
            lines.write_all(b"line\n").unwrap();
        }
        assert_eq!((lines.lost(), waiting.try_iter().count()), (3, 2));
        drop(waiting);
        lines.write_all(b"line\n").unwrap();
        assert_eq!(lines.lost(), 4);
    }

    /// What the whole path does with an event: both formats, hostile fields included.
    #[test]
    fn events_become_lines() {
        for format in [Format::Text, Format::Json] {
            let (lines, waiting) = channel(8);
            let builder = tracing_subscriber::fmt().with_target(false).with_ansi(false).with_writer(lines);
            let event = || tracing::warn!(host = "a\n\x1b[31mb\"", "mind\nthis");
            match format {
                Format::Text => tracing::subscriber::with_default(builder.finish(), event),
                Format::Json => {
                    tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), event);
                }
            }
            let got: Vec<_> = waiting.try_iter().collect();
            assert_eq!(got.len(), 1, "{format:?}");
            let line = String::from_utf8(got[0].clone()).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\x1b') && line.contains("WARN"), "{line:?}");
            if format == Format::Json {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(value["message"], "mind\nthis");
                assert_eq!(value["host"], "a\n\x1b[31mb\"");
            }
        }
    }
}
