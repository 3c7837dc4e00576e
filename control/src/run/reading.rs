//! What reads a configuration, each on a thread of its own: a panic there ends that thread alone, and a file that takes for ever, as
//! one on a network that is gone, holds up nobody who does not want it.

use axum::http::StatusCode;
use dataplane::limits;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Begins readings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    patience: Duration,
    /// For tests of files that hang and of parsers that panic.
    injects: bool,
}

/// Why nothing was read, in words.
#[derive(Debug)]
pub(super) enum Unread {
    /// It takes too long: the thread may still be there.
    Hangs(String),
    /// It panicked, or did not begin.
    Died(String),
}

impl Unread {
    pub(super) fn why(&self) -> &str {
        let (Self::Hangs(why) | Self::Died(why)) = self;
        why
    }
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Hangs(_) => StatusCode::CONFLICT,
            Self::Died(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct Reading<T> {
    name: String,
    begun: Instant,
    patience: Duration,
    thread: JoinHandle<()>,
    result: oneshot::Receiver<T>,
}

impl Reader {
    /// `RINGWAY_INJECT=read` in the environment is for tests: whoever reads PATH waits while there is a PATH.hangs, for which there
    /// is a second of patience, and panics where there is a PATH.panics.
    pub(super) fn new() -> Self {
        let injects = std::env::var("RINGWAY_INJECT").is_ok_and(|asked| asked == "read");
        Self { patience: if injects { Duration::from_secs(1) } else { limits::CONFIG_READ }, injects }
    }

    /// Begins to read what messages call `name`.
    pub(super) fn begin<T: Send + 'static>(
        self,
        name: String,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Reading<T>, Unread> {
        let (sender, result) = oneshot::channel();
        let injected = name.clone();
        let run = move || {
            self.inject(&injected);
            // Nobody waits any more where it took too long.
            drop(sender.send(read()));
        };
        // Before the thread may have ended already.
        let begun = Instant::now();
        let thread = std::thread::Builder::new().name("configuration".to_owned()).spawn(run);
        let thread = thread.map_err(|error| Unread::Died(format!("no thread to read {name}: {error}")))?;
        Ok(Reading { name, begun, patience: self.patience, thread, result })
    }

    /// What tests want to happen to whoever reads this.
    pub(super) fn inject(self, name: &str) {
        let is_there = |end: &str| self.injects && Path::new(&format!("{name}.{end}")).exists();
        while is_there("hangs") {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(!is_there("panics"), "injected");
    }
}

impl<T> Reading<T> {
    /// What was read. May be dropped and asked again until it says something.
    pub(super) async fn end(&mut self) -> Result<T, Unread> {
        let until = self.begun + self.patience;
        tokio::select! {
            biased;
            read = &mut self.result => read.map_err(|_| {
                Unread::Died(format!(
                    "internal error while reading {}; please report it with the line of the log that says \"panic\"",
                    self.name
                ))
            }),
            () = sleep_until(until) => {
                let seconds = self.patience.as_secs();
                Err(Unread::Hangs(format!("reading {} took longer than {seconds} s (CONFIG_READ)", self.name)))
            }
        }
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// That it still has not ended, in words.
    pub(super) fn hangs(&self) -> Option<String> {
        let told = || {
            let since = self.begun.elapsed().as_secs();
            format!(
                "{} has been read for {since} s and that has not ended: its file system hangs, or one of a file that it names",
                self.name
            )
        };
        (!self.thread.is_finished()).then(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn reader(patience: Duration) -> Reader {
        Reader { patience, injects: false }
    }

    #[tokio::test]
    async fn what_is_read_comes_and_what_hangs_or_panics_is_told() {
        let patient = reader(Duration::from_secs(60));
        let read = patient.begin("file".to_owned(), || 7).unwrap().end().await;
        assert!(matches!(read, Ok(7)));
        let died = patient.begin("file".to_owned(), || panic!("of a test")).unwrap().end().await;
        let Err(Unread::Died(why)): Result<(), _> = died else { panic!("it did not die") };
        assert!(why.contains("internal error while reading file"), "{why}");

        let (ends, waits) = mpsc::channel::<()>();
        let mut hanging =
            reader(Duration::ZERO).begin("file".to_owned(), move || waits.recv().is_ok()).unwrap();
        let Err(Unread::Hangs(why)) = hanging.end().await else { panic!("it ended") };
        assert!(why.contains("reading file took longer than 0 s"), "{why}");
        assert!(hanging.hangs().is_some_and(|why| why.contains("file")));
        drop(ends);
        while hanging.hangs().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
