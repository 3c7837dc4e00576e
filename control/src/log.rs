//! The log thread: access-log records in from the shards, process-log lines in from control, lines out.
//!
//! It alone may block on an output. Shards copy records into bounded rings and control sends lines through a bounded
//! channel, neither of which ever waits; what does not fit is lost and counted, and the count is logged. The thread
//! polls the rings: 1 ms apart while records come, up to 25 ms while none do, so that a shard never makes a system call
//! to wake it. At 100,000 records a second a ring of 1 MiB holds some 50 ms.

pub mod access;
pub mod process;
mod sink;

pub use process::Format;
pub use sink::Target;

use dataplane::spec::{ListenerId, Snapshot};
use dataplane::stats::access_log::{LogReader, Record};
use dataplane::stats::request_id::RequestId;
use process::Lines;
use sink::Sink;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// `[log]` and the `[[access_log]]`s.
#[derive(Debug, Clone)]
pub struct Settings {
    pub level: tracing::Level,
    pub format: Format,
    pub access: Vec<AccessLog>,
}

/// One `[[access_log]]`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    pub to: Target,
    /// Names; `None` is all.
    pub listeners: Option<Vec<Arc<str>>>,
    /// Share of exchanges that are written, 0 to 1; the same exchanges in every log of one value.
    pub sample: f64,
}

/// Pause between two looks at the rings, while records come and while none do.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// Records taken from one ring before the next ring's turn.
const RECORDS_PER_LOOK: usize = 4096;
/// Process-log lines waiting for the thread.
const LINES_WAITING: usize = 1024;
/// Losses are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last lines.
const FINISH: Duration = Duration::from_secs(1);

/// What control asks of the thread. Rare, so the channel needs no bound of its own.
enum Command {
    Follow(Vec<LogReader>, Arc<Snapshot>),
    Reopen,
    Finish,
}

/// Control's handle on the log thread.
#[derive(Debug)]
pub struct Log {
    commands: Sender<Command>,
    done: Receiver<()>,
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
        let mut outputs = Vec::new();
        for log in &settings.access {
            let sink = Sink::open(log.to.clone())
                .map_err(|e| format!("cannot open the access log {:?}: {e}", log.to.name()))?;
            outputs.push(Output { sink, log: log.clone(), listeners: None });
        }
        let (lines, waiting) = process::channel(LINES_WAITING);
        let (commands, inbox) = mpsc::channel();
        let (done_sender, done) = mpsc::channel();
        let thread = Thread {
            waiting,
            lines: lines.clone(),
            inbox,
            outputs,
            readers: Vec::new(),
            snapshot: None,
            line: Vec::new(),
            reported: None,
            reported_losses: 0,
        };
        let run = move || {
            thread.run();
            let _ = done_sender.send(());
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(run)
            .map_err(|e| format!("cannot start the log thread: {e}"))?;
        Ok((Self { commands, done }, lines))
    }

    /// Reads these shards' records from now on, with the names of `snapshot`.
    pub fn follow(&self, readers: Vec<LogReader>, snapshot: Arc<Snapshot>) {
        let _ = self.commands.send(Command::Follow(readers, snapshot));
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
    }
}

/// One access log at work.
struct Output {
    sink: Sink,
    log: AccessLog,
    /// The ids of `log.listeners` in the snapshot.
    listeners: Option<Vec<ListenerId>>,
}

impl Output {
    fn wants(&self, record: &Record<'_>) -> bool {
        self.listeners.as_ref().is_none_or(|ids| ids.contains(&record.listener))
            && (self.log.sample >= 1.0 || lot(record.request_id) < self.log.sample)
    }

    fn resolve(&mut self, snapshot: &Snapshot) {
        self.listeners = self.log.listeners.as_ref().map(|names| {
            let listeners = snapshot.listeners.iter().flatten();
            listeners.filter(|listener| names.contains(&listener.name)).map(|listener| listener.id).collect()
        });
    }
}

/// An even number in [0, 1) that depends on the id alone (splitmix64).
fn lot(id: RequestId) -> f64 {
    let mut z = id.count ^ (u64::from(id.shard) << 48) ^ u64::from(id.process).rotate_left(17);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

struct Thread {
    waiting: Receiver<Vec<u8>>,
    /// To know how many lines were lost.
    lines: Lines,
    inbox: Receiver<Command>,
    outputs: Vec<Output>,
    readers: Vec<LogReader>,
    snapshot: Option<Arc<Snapshot>>,
    /// The line being made.
    line: Vec<u8>,
    reported: Option<Instant>,
    reported_losses: u64,
}

impl Thread {
    fn run(mut self) {
        let mut pause = PAUSE_MAX;
        loop {
            match self.waiting.recv_timeout(pause) {
                Ok(line) => self.write_process_lines(line),
                Err(RecvTimeoutError::Timeout) => (),
                // Not while `lines` is here; if it were, this is no reason to spin.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let finish = self.obey();
            let mut records = self.take_records();
            while finish && records > 0 {
                records = self.take_records();
            }
            pause = if records > 0 { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            self.report_losses(finish);
            if finish {
                while let Ok(line) = self.waiting.try_recv() {
                    self.write_process_lines(line);
                }
                break;
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
                Ok(Command::Reopen) => self.reopen(),
                Ok(Command::Finish) | Err(mpsc::TryRecvError::Disconnected) => return true,
                Err(mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    fn reopen(&mut self) {
        for output in &mut self.outputs {
            match output.sink.reopen() {
                Ok(()) => tracing::info!(log = output.sink.name(), "log reopened"),
                Err(e) => {
                    tracing::error!(log = output.sink.name(), error = %e, "log not reopened; the old file stays");
                }
            }
        }
    }

    /// One look at every ring. Returns how many records there were.
    fn take_records(&mut self) -> usize {
        let Some(snapshot) = &self.snapshot else { return 0 };
        let mut count = 0;
        for reader in &mut self.readers {
            count += reader.drain(RECORDS_PER_LOOK, |record| {
                self.line.clear();
                for output in self.outputs.iter_mut().filter(|output| output.wants(record)) {
                    if self.line.is_empty() {
                        access::write_line(&mut self.line, record, snapshot);
                    }
                    output.sink.batch().extend_from_slice(&self.line);
                    output.sink.line_added();
                }
            });
        }
        self.outputs.iter_mut().for_each(|output| output.sink.flush());
        count
    }

    /// Writes `first` and the lines behind it. Standard error that cannot be written leaves nowhere to say so.
    fn write_process_lines(&self, first: Vec<u8>) {
        let mut batch = first;
        while let Ok(line) = self.waiting.try_recv() {
            batch.extend_from_slice(&line);
            if batch.len() > 64 * 1024 {
                break;
            }
        }
        let _ = io::stderr().lock().write_all(&batch);
    }

    fn report_losses(&mut self, finish: bool) {
        let rings: u64 = self.readers.iter().map(LogReader::dropped).sum();
        let outputs: u64 = self.outputs.iter().map(|output| output.sink.lost).sum();
        let lines = self.lines.lost();
        let losses = rings + outputs + lines;
        if losses == self.reported_losses {
            return;
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the log thread is no shard; this only spaces out warnings"
        )]
        let now = Instant::now();
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::stats::access_log;

    fn settings(access: Vec<AccessLog>) -> Settings {
        Settings { level: tracing::Level::INFO, format: Format::Text, access }
    }

    fn to_file(path: &std::path::Path, sample: f64) -> AccessLog {
        AccessLog { to: Target::File(path.to_owned()), listeners: None, sample }
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
        while writer.dropped() == 0 {
            writer.write(&access::tests::record());
        }
        drop(log);
    }

    #[test]
    fn sampling_takes_its_share_and_the_same_exchanges_each_time() {
        let id = |count| RequestId { process: 7, shard: 3, count };
        let taken = (0..100_000).filter(|count| lot(id(*count)) < 0.1).count();
        assert!((9_500..10_500).contains(&taken), "{taken} of 100,000 at 0.1");
        assert!((0..1000).all(|count| (0.0..1.0).contains(&lot(id(count)))));
        assert_eq!(lot(id(5)), lot(id(5)));
    }
}
