//! The log thread: access-log records in from the shards, process-log lines in from control, lines out.
//!
//! It alone may block on an output, and does only where a file's disk is slow: pipes, terminals and sockets are asked first
//! (`target`). Shards copy records into bounded rings and control sends lines through a bounded channel, neither of which
//! ever waits; what an output does not take waits in a bounded buffer (`sink`). What does not fit is lost and counted, and
//! the count is logged. The thread polls the rings: 5 ms apart while records come, up to 25 ms while none do, so that a shard
//! never makes a system call to wake it, and that few of its own are for few records. At 100,000 records a second a ring of 1 MiB
//! holds some 50 ms.

pub mod access;
pub mod fields;
pub mod format;
mod output;
pub mod process;
mod sink;
mod target;

pub use format::LineFormat;
pub use output::{Numbers, OutputNumbers};
pub use process::Format;
pub use target::Target;

use crate::traces::{self, Exporter, Spans};
use dataplane::spec::Snapshot;
use dataplane::stats::access_log::LogReader;
use output::{Losses, Output, Shown};
use process::Lines;
use sink::Sink;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// `[log]` and the `[[access_log]]`s.
#[derive(Debug, Clone)]
pub struct Settings {
    pub level: tracing::Level,
    pub format: Format,
    pub access: Vec<AccessLog>,
    /// Where spans go; `None` makes none.
    pub(crate) traces: Option<traces::Settings>,
}

/// One `[[access_log]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub to: Target,
    pub format: LineFormat,
    /// Names; `None` is all.
    pub listeners: Option<Vec<Arc<str>>>,
    /// Share of exchanges that are written, 0 to 1; the same exchanges in every log of one value.
    pub sample: f64,
}

/// Pause between two looks at the rings, while records come and while none do.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// Records taken from one ring before the next ring's turn.
const RECORDS_PER_LOOK: usize = 4096;
/// Process-log lines waiting for the thread.
const LINES_WAITING: usize = 1024;
/// Losses are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last lines, the thread for outputs that take none, and between two tries.
const FINISH: Duration = Duration::from_secs(1);
const LAST_TRIES: Duration = Duration::from_millis(900);
const LAST_PAUSE: Duration = Duration::from_millis(2);

/// What control asks of the thread. Rare, so the channel needs no bound of its own.
enum Command {
    Follow(Vec<LogReader>, Arc<Snapshot>),
    Outputs(Vec<Output>),
    Spans(Option<Spans>),
    Reopen,
    Finish,
}

/// Control's handle on the log thread.
#[derive(Debug)]
pub struct Log {
    commands: Sender<Command>,
    done: Receiver<()>,
    /// The outputs of this moment.
    shown: RefCell<Vec<Shown>>,
    stderr: Arc<sink::Numbers>,
    losses: Arc<Losses>,
    spans: Arc<traces::Counts>,
    /// What sends spans now, and those before it, which may not be done yet.
    exporter: RefCell<Option<Exporter>>,
    former: RefCell<Vec<Exporter>>,
}

impl Log {
    /// Opens the access logs, starts the thread, and makes it the process's `tracing` subscriber and the teller of
    /// panics. The error names the output that could not be opened.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let (log, lines) = Self::start_thread(settings)?;
        process::install(lines, settings.level, settings.format);
        Ok(log)
    }

    fn start_thread(settings: &Settings) -> Result<(Self, Lines), String> {
        let stderr =
            Sink::open(Target::Stderr).map_err(|e| format!("cannot write to standard error: {e}"))?;
        let Opened(outputs) = Self::open(&settings.access)?;
        let (lines, waiting) = process::channel(LINES_WAITING);
        let (commands, inbox) = mpsc::channel();
        let (done_sender, done) = mpsc::channel();
        let shown = RefCell::new(outputs.iter().map(Output::shown).collect());
        let losses = Arc::new(Losses::default());
        let counts = Arc::default();
        let (spans, exporter) = start_traces(settings.traces.as_ref(), &counts)?;
        let numbers = Arc::clone(stderr.numbers());
        let thread = Thread {
            waiting,
            lines: lines.clone(),
            inbox,
            stderr,
            outputs,
            spans,
            lost_before: 0,
            readers: Vec::new(),
            snapshot: None,
            reported: None,
            reported_losses: 0,
            losses: Arc::clone(&losses),
        };
        let run = move || {
            thread.run();
            let _ = done_sender.send(());
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(run)
            .map_err(|e| format!("cannot start the log thread: {e}"))?;
        let (exporter, former) = (RefCell::new(exporter), RefCell::default());
        let log = Self { commands, done, shown, stderr: numbers, losses, spans: counts, exporter, former };
        Ok((log, lines))
    }

    /// What was lost so far, what waits, and which access logs cannot be written now.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            ring_bytes: self.losses.ring_bytes.load(Relaxed),
            ring_full: self.losses.ring_full.load(Relaxed),
            process_waiting_bytes: self.stderr.waiting.load(Relaxed),
            process_lines: self.losses.process_lines.load(Relaxed),
            outputs: self.shown.borrow().iter().map(OutputNumbers::of).collect(),
            spans: self.spans(),
        }
    }

    /// Reads these shards' records from now on, with the names of `snapshot`.
    pub fn follow(&self, readers: Vec<LogReader>, snapshot: Arc<Snapshot>) {
        let _ = self.commands.send(Command::Follow(readers, snapshot));
    }

    /// Opens the access logs of other settings, for `Log::change`; the error names the output that could not be opened.
    pub fn open(access: &[AccessLog]) -> Result<Opened, String> {
        access.iter().map(Output::open).collect::<Result<_, _>>().map(Opened)
    }

    /// Starts what sends spans elsewhere, for [`Log::change`].
    pub(crate) fn open_traces(&self, settings: Option<&traces::Settings>) -> Result<OpenedTraces, String> {
        start_traces(settings, &self.spans).map(OpenedTraces)
    }

    /// Writes to these access logs, and sends spans there, from now on, if they are others.
    pub(crate) fn change(
        &self,
        opened: Option<Opened>,
        traces: Option<OpenedTraces>,
        level: tracing::Level,
        format: Format,
    ) {
        process::set(level, format);
        if let Some(OpenedTraces((spans, exporter))) = traces {
            // The one before sends what it has, and ends.
            let mut former = self.former.borrow_mut();
            former.retain(|exporter| !exporter.is_done());
            former.extend(self.exporter.replace(exporter));
            let _ = self.commands.send(Command::Spans(spans));
        }
        if let Some(Opened(outputs)) = opened {
            self.shown.replace(outputs.iter().map(Output::shown).collect());
            let _ = self.commands.send(Command::Outputs(outputs));
        }
    }

    /// Entries that were lost, as of the thread's last look: the ring of a shard was full, an output took nothing, and lines
    /// of the process log waited too long.
    pub fn losses(&self) -> [u64; 3] {
        let Losses { ring_full, not_written, process_lines, .. } = &*self.losses;
        [ring_full, not_written, process_lines].map(|lost| lost.load(Relaxed))
    }

    /// What became of spans.
    pub(crate) fn spans(&self) -> traces::Numbers {
        self.spans.numbers(self.exporter.borrow().as_ref().is_some_and(Exporter::is_failing))
    }

    /// Opens log files anew, after a rotation.
    pub fn reopen(&self) {
        let _ = self.commands.send(Command::Reopen);
    }
}

impl Drop for Log {
    /// Writes what there is, then ends the thread, also when control panicked. A blocked output is waited for no longer
    /// than a second.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Finish);
        let _ = self.done.recv_timeout(FINISH);
        // The log thread is gone, and with it the last that hands spans over.
        let until = now() + FINISH;
        let all = self.former.get_mut().iter().chain(self.exporter.get_mut().as_ref());
        all.for_each(|exporter| exporter.finish(until.saturating_duration_since(now())));
    }
}

/// What sends spans, and has none yet.
#[derive(Debug)]
pub(crate) struct OpenedTraces((Option<Spans>, Option<Exporter>));

fn start_traces(
    settings: Option<&traces::Settings>,
    counts: &Arc<traces::Counts>,
) -> Result<(Option<Spans>, Option<Exporter>), String> {
    Ok(settings.map(|settings| traces::start(settings, counts)).transpose()?.unzip())
}

/// Access logs that are open and not written to yet.
#[derive(Debug)]
pub struct Opened(Vec<Output>);

#[allow(clippy::disallowed_methods, reason = "the log thread is no shard, and paces itself")]
fn now() -> Instant {
    Instant::now()
}

struct Thread {
    waiting: Receiver<Vec<u8>>,
    /// To know how many lines were lost.
    lines: Lines,
    inbox: Receiver<Command>,
    stderr: Sink,
    outputs: Vec<Output>,
    spans: Option<Spans>,
    /// By outputs that are no more.
    lost_before: u64,
    readers: Vec<LogReader>,
    snapshot: Option<Arc<Snapshot>>,
    reported: Option<Instant>,
    reported_losses: u64,
    losses: Arc<Losses>,
}

impl Thread {
    fn run(mut self) {
        let mut pause = PAUSE_MAX;
        loop {
            match self.waiting.recv_timeout(pause) {
                Ok(line) => self.take_line(&line),
                Err(RecvTimeoutError::Timeout) => (),
                // Not while `lines` is here; if it were, this is no reason to spin.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_lines();
            let finish = self.obey();
            let mut records = self.take_records();
            while finish && records > 0 {
                records = self.take_records();
            }
            pause = if records > 0 { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            self.report_losses(finish);
            if finish {
                return self.finish();
            }
        }
    }

    /// Carries out what control asked; true if that was to finish.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Follow(readers, snapshot)) => {
                    self.outputs.iter_mut().for_each(|output| output.resolve(&snapshot));
                    self.readers.extend(readers);
                    self.snapshot = Some(snapshot);
                }
                Ok(Command::Outputs(outputs)) => self.change(outputs),
                Ok(Command::Spans(spans)) => self.spans = spans,
                Ok(Command::Reopen) => self.outputs.iter_mut().for_each(|output| output.reopen(now())),
                Ok(Command::Finish) | Err(mpsc::TryRecvError::Disconnected) => return true,
                Err(mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    /// Goes on with other outputs. What the old ones do not take at once is lost, and counted.
    fn change(&mut self, outputs: Vec<Output>) {
        let now = now();
        self.outputs.iter_mut().for_each(|output| output.sink.flush(now));
        self.lost_before += self.outputs.iter().map(|output| output.sink.lost_if_dropped()).sum::<u64>();
        self.outputs = outputs;
        if let Some(snapshot) = &self.snapshot {
            self.outputs.iter_mut().for_each(|output| output.resolve(snapshot));
        }
    }

    /// One look at every ring. Returns how many records there were.
    fn take_records(&mut self) -> usize {
        let Some(snapshot) = &self.snapshot else { return 0 };
        let fullest = self.readers.iter().map(LogReader::waiting_bytes).max();
        self.losses.ring_bytes.store(fullest.unwrap_or(0), Relaxed);
        let (now, outputs, spans) = (now(), &mut self.outputs, &self.spans);
        let mut count = 0;
        for reader in &mut self.readers {
            count += reader.drain(RECORDS_PER_LOOK, |record| {
                outputs.iter_mut().for_each(|output| output.take(record, snapshot, now));
                if let Some(spans) = spans {
                    spans.take(record, snapshot);
                }
            });
        }
        outputs.iter_mut().for_each(|output| output.sink.flush(now));
        count
    }

    /// Lines of the process log, to standard error. Where that takes none there is nowhere to say so.
    fn take_lines(&mut self) {
        for _ in 0..LINES_WAITING {
            match self.waiting.try_recv() {
                Ok(line) => self.take_line(&line),
                Err(_) => break,
            }
        }
        self.stderr.flush(now());
    }

    fn take_line(&mut self, line: &[u8]) {
        self.stderr.line(now(), |out| out.extend_from_slice(line));
    }

    fn report_losses(&mut self, finish: bool) {
        let rings = self.readers.iter().map(LogReader::dropped).sum();
        let lines = self.lines.lost() + self.stderr.lost();
        let outputs = self.outputs.iter().map(|output| output.sink.lost()).sum::<u64>() + self.lost_before;
        self.losses.ring_full.store(rings, Relaxed);
        self.losses.not_written.store(outputs, Relaxed);
        self.losses.process_lines.store(lines, Relaxed);
        let losses = rings + outputs + lines;
        if losses == self.reported_losses {
            return;
        }
        let now = now();
        if finish || self.reported.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
            tracing::warn!(
                ring_full = rings,
                not_written = outputs,
                process_lines = lines,
                "log entries were lost"
            );
            self.reported_losses = losses;
            self.reported = Some(now);
        }
    }

    /// What is left goes out, as far as it is taken within a moment.
    fn finish(mut self) {
        let begun = now();
        loop {
            self.take_lines();
            let now = now();
            self.outputs.iter_mut().for_each(|output| output.sink.flush(now));
            let empty = self.stderr.is_empty() && self.outputs.iter().all(|output| output.sink.is_empty());
            if empty || now.duration_since(begun) >= LAST_TRIES {
                return;
            }
            match self.waiting.recv_timeout(LAST_PAUSE) {
                Ok(line) => self.take_line(&line),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::stats::access_log::{self, Record};
    use dataplane::stats::request_id::RequestId;

    fn settings(access: Vec<AccessLog>) -> Settings {
        Settings { level: tracing::Level::INFO, format: Format::Text, access, traces: None }
    }

    fn to_file(path: &std::path::Path, sample: f64) -> AccessLog {
        AccessLog { to: Target::File(path.to_owned()), format: LineFormat::Json, listeners: None, sample }
    }

    #[test]
    fn every_record_of_every_shard_is_a_line_when_the_log_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (all, tenth, none) = (dir.path().join("all"), dir.path().join("tenth"), dir.path().join("none"));
        let nobody = AccessLog { listeners: Some(vec!["other".into()]), ..to_file(&none, 1.0) };
        let (log, _lines) =
            Log::start_thread(&settings(vec![to_file(&all, 1.0), to_file(&tenth, 0.1), nobody])).unwrap();
        let (mut writers, readers): (Vec<_>, Vec<_>) = (0..3).map(|_| access_log::ring()).unzip();
        log.follow(readers, Arc::new(access::tests::snapshot()));
        for (shard, writer) in (0..).zip(&mut writers) {
            for count in 0..1000 {
                let request_id = RequestId { process: 0, shard, count };
                writer.write(&Record { request_id, ..access::tests::record() });
            }
            assert_eq!(writer.dropped(), 0);
        }
        drop(log);
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&all), lines(&none)), (3000, 0));
        assert!((200..400).contains(&lines(&tenth)), "{}", lines(&tenth));
    }

    #[test]
    fn an_output_that_cannot_be_opened_is_named() {
        let error =
            Log::start_thread(&settings(vec![to_file("/nonexistent/a.log".as_ref(), 1.0)])).unwrap_err();
        assert!(error.contains("/nonexistent/a.log"), "{error}");
    }

    /// Threat D09: a log that nobody reads stops neither shards nor the end of the process.
    #[test]
    fn a_blocked_output_loses_counted_records_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // Keeps the fifo open for reading and never reads it.
        let _reader = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        let (log, _lines) = Log::start_thread(&settings(vec![to_file(&fifo, 1.0)])).unwrap();
        let (mut writer, reader) = access_log::ring();
        log.follow(vec![reader], Arc::new(access::tests::snapshot()));
        while log.numbers().outputs[0].lost == 0 {
            writer.write(&access::tests::record());
        }
        drop(log);
    }
}
