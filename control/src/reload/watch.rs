//! `[runtime] watch`: the file itself is looked at, and read anew once it has settled.

use dataplane::limits::CONFIG_LOOK;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What tells one state of a file from another; none where there is none.
type State = Option<(u64, u64, i64, i64, u64)>;

/// Looks at a file now and then. A look that takes for ever holds nobody up.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    /// What was read last, as far as it is known.
    read: State,
    /// What was seen last.
    seen: State,
    /// What the look that is under way sees was read.
    is_first: bool,
    look: Option<oneshot::Receiver<State>>,
    next: Instant,
}

impl Watch {
    /// From now on: what is there now was read.
    pub(crate) fn new(path: PathBuf) -> Self {
        let now = state(&path);
        Self { path, read: now, seen: now, is_first: false, look: None, next: Instant::now() + CONFIG_LOOK }
    }

    /// The same of a file that nobody waits for: the first look beside this thread says what was read.
    pub(crate) fn later(path: PathBuf) -> Self {
        let next = Instant::now() + CONFIG_LOOK;
        let mut watch = Self { path, read: None, seen: None, is_first: true, look: None, next };
        watch.begin_look();
        watch
    }

    /// One tick of control. True where another file is there than was read, and has been so for two looks: whoever writes it is
    /// done.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        match self.look.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(state)) => {
                self.look = None;
                return self.note(state);
            }
            Some(Err(oneshot::error::TryRecvError::Empty)) => return false,
            Some(Err(oneshot::error::TryRecvError::Closed)) => self.look = None,
            None => {}
        }
        if now >= self.next {
            self.next = now + CONFIG_LOOK;
            self.begin_look();
        }
        false
    }

    fn begin_look(&mut self) {
        let (sender, receiver) = oneshot::channel();
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody waits when the process ends.
            let _ = sender.send(state(&path));
        });
        self.look = Some(receiver);
    }

    fn note(&mut self, state: State) -> bool {
        if std::mem::take(&mut self.is_first) {
            (self.read, self.seen) = (state, state);
        }
        let settled = std::mem::replace(&mut self.seen, state) == state;
        let is_another = state.is_some() && state != self.read;
        if settled && is_another {
            self.read = state;
        }
        settled && is_another
    }
}

fn state(path: &PathBuf) -> State {
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_told_once_and_only_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ringway.toml");
        std::fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(path.clone());
        let look = |watch: &mut Watch| watch.note(state(&path));
        assert_eq!([look(&mut watch), look(&mut watch)], [false, false]);
        std::fs::write(&path, "ab").unwrap();
        assert_eq!([look(&mut watch), look(&mut watch), look(&mut watch)], [false, true, false]);
        std::fs::write(&path, "abc").unwrap();
        assert!(!look(&mut watch));
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!([look(&mut watch), look(&mut watch)], [false, true], "it was still being written");
        std::fs::remove_file(&path).unwrap();
        assert_eq!([look(&mut watch), look(&mut watch)], [false, false], "a file that is gone is none");
    }
}
