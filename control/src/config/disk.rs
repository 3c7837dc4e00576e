//! Files that a configuration is read from, opened so that nobody waits: whatever is no regular file may never end.
//!
//! The file of the command line may be a pipe (`-c <(generate)`) when the process starts, for then somebody waits for it.

use std::fmt;
use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Why a file is not opened.
#[derive(Debug)]
pub(crate) enum Unopened {
    Error(io::Error),
    /// What it is instead of a regular file.
    Other(&'static str),
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Other(what) => write!(f, "it is {what}, not a regular file"),
        }
    }
}

/// Opens a regular file.
///
/// # Errors
/// Why it cannot be opened, or what it is.
pub(crate) fn open(path: &Path) -> Result<File, Unopened> {
    let regular = |kind: FileType| if kind.is_file() { Ok(()) } else { Err(Unopened::Other(word(kind))) };
    // Asked before, as opening alone may do something to a device; and of what was opened, as another may be in its place by then.
    regular(std::fs::metadata(path).map_err(Unopened::Error)?.file_type())?;
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(Unopened::Error)?;
    regular(file.metadata().map_err(Unopened::Error)?.file_type())?;
    Ok(file)
}

fn word(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        let (here, mode) = (rustix::fs::CWD, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(here, path("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for name in ["file", "link"] {
            let mut text = String::new();
            open(&path(name)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text", "{name}");
        }
        for (name, what) in
            [("fifo", "a FIFO"), ("socket", "a socket"), ("zero", "a device"), (".", "a directory")]
        {
            let why = open(&path(name)).unwrap_err().to_string();
            assert_eq!(why, format!("it is {what}, not a regular file"), "{name}");
        }
        assert!(matches!(open(&path("none")), Err(Unopened::Error(_))));
    }
}
