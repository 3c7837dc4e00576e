//! Files whose presence turns a route's answer (`maintenance_file`): looked for now and then, never by a shard.
//!
//! stat(2) may take long, as on a network's file system that is away: a thread beside control's asks, one look at a time, and
//! what was known stands meanwhile.

use dataplane::plane::Plane;
use dataplane::spec::SwitchId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Control's ticks between two looks: 500 ms.
const TICKS: u64 = 5;

/// What a look found, by file.
type Found = Vec<Option<io::Result<bool>>>;

/// All such files of a configuration.
#[derive(Debug)]
pub(crate) struct Files {
    /// By the number of their switch; one that no file turns any more is none.
    paths: Arc<[Option<PathBuf>]>,
    /// Whether each was there at the last look that could tell.
    there: Vec<bool>,
    /// Files of which the last look could not tell; that is told once.
    unknown: Vec<bool>,
    look: Option<oneshot::Receiver<Found>>,
}

impl Files {
    /// `files` are the paths by switch, and whether each was there when the configuration was read.
    pub(crate) fn new(files: &[Option<(PathBuf, bool)>]) -> Self {
        Self {
            paths: files.iter().map(|file| Some(file.as_ref()?.0.clone())).collect(),
            there: files.iter().map(|file| file.as_ref().is_some_and(|(_, there)| *there)).collect(),
            unknown: vec![false; files.len()],
            look: None,
        }
    }

    /// Other files from now on, and so perhaps other switches, which are turned as their files are. What was known of a file
    /// stands.
    pub(crate) fn follow(&mut self, files: &[Option<(PathBuf, bool)>], plane: &Plane) {
        let before = std::mem::replace(self, Self::new(files));
        for at in 0..self.paths.len() {
            let known = before.paths.get(at).is_some_and(|path| path.is_some() && *path == self.paths[at]);
            if known {
                self.there[at] = before.there[at];
                self.unknown[at] = before.unknown[at];
            } else if let (Some(_), Ok(switch)) = (&self.paths[at], u16::try_from(at)) {
                plane.set_switch(SwitchId(switch), self.there[at]);
            }
        }
    }

    /// One tick of control: takes what a look found, or begins the next one.
    pub(crate) fn tick(&mut self, ticks: u64, plane: &Plane) {
        if self.paths.is_empty() {
            return;
        }
        match self.look.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(found)) => {
                self.look = None;
                for (switch, on) in self.note(&found) {
                    plane.set_switch(switch, on);
                }
            }
            // It takes long.
            Some(Err(oneshot::error::TryRecvError::Empty)) => return,
            Some(Err(oneshot::error::TryRecvError::Closed)) => self.look = None,
            None => {}
        }
        if self.look.is_none() && ticks.is_multiple_of(TICKS) {
            let (sender, receiver) = oneshot::channel();
            let paths = Arc::clone(&self.paths);
            tokio::task::spawn_blocking(move || {
                let look = |path: &Option<PathBuf>| Some(path.as_ref()?.try_exists());
                let found = paths.iter().map(look).collect();
                // Nobody waits when the process ends.
                let _ = sender.send(found);
            });
            self.look = Some(receiver);
        }
    }

    /// Which switches a look turns.
    fn note(&mut self, found: &[Option<io::Result<bool>>]) -> Vec<(SwitchId, bool)> {
        let mut turned = Vec::new();
        for (at, found) in found.iter().enumerate() {
            let (Some(found), Some(Some(path)), Some(there), Some(unknown)) =
                (found, self.paths.get(at), self.there.get_mut(at), self.unknown.get_mut(at))
            else {
                continue;
            };
            let file = path.display();
            match found {
                Err(error) => {
                    if !std::mem::replace(unknown, true) {
                        tracing::warn!(%file, %error, "the maintenance file cannot be looked for; what it said stands");
                    }
                }
                Ok(now) => {
                    *unknown = false;
                    if std::mem::replace(there, *now) != *now {
                        match now {
                            true => {
                                tracing::warn!(%file, "the maintenance file is there: its routes answer so")
                            }
                            false => {
                                tracing::info!(%file, "the maintenance file is gone: its routes serve again")
                            }
                        }
                        turned.extend(u16::try_from(at).map(|at| (SwitchId(at), *now)));
                    }
                }
            }
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_turns_its_switch_once_each_way() {
        let mut files = Files::new(&[Some(("a".into(), false)), None, Some(("b".into(), true))]);
        let denied = || Err(io::Error::from_raw_os_error(libc::EACCES));
        let mut note = |a, b| files.note(&[Some(a), None, Some(b)]);
        assert_eq!(note(Ok(false), Ok(true)), []);
        assert_eq!(note(Ok(true), Ok(true)), [(SwitchId(0), true)]);
        assert_eq!(note(denied(), denied()), [], "what was known stands");
        assert_eq!(note(Ok(true), Ok(false)), [(SwitchId(2), false)]);
        assert_eq!(note(Ok(false), Ok(false)), [(SwitchId(0), false)]);
    }
}
