//! Where access-log lines go: standard output or a file, in whole lines, whatever happens to the disk.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// `to` of an `[[access_log]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    File(PathBuf),
}

/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Sink {
    target: Target,
    file: File,
    batch: Vec<u8>,
    /// Part of a line was written and the rest was not: the next write ends that line first.
    broken: bool,
    /// Lines lost because they could not be written.
    pub(super) lost: u64,
}

impl Sink {
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let file = target.open()?;
        Ok(Self { target, file, batch: Vec::with_capacity(2 * BATCH_BYTES), broken: false, lost: 0 })
    }

    /// Opens a file anew under its name, so that a rotated one is let go; on failure the old one stays.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        if matches!(self.target, Target::File(_)) {
            self.file = self.target.open()?;
            self.broken = false;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        self.target.name()
    }

    /// The buffer to append whole lines to. Call [`Sink::line_added`] after each.
    pub(super) fn batch(&mut self) -> &mut Vec<u8> {
        &mut self.batch
    }

    pub(super) fn line_added(&mut self) {
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes what was gathered. What cannot be written is lost, and counted by lines.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.broken && self.file.write(b"\n").is_ok_and(|n| n == 1) {
            self.broken = false;
        }
        let written = if self.broken { 0 } else { write_most(&mut self.file, &self.batch) };
        let rest = &self.batch[written..];
        self.lost += rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.broken |= written > 0 && !rest.is_empty() && self.batch[written - 1] != b'\n';
        self.batch.clear();
    }
}

impl Target {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            // A descriptor of our own: std's handle would buffer by lines.
            Self::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Self::File(path) => File::options().create(true).append(true).open(path),
        }
    }
}

/// Writes until all is written or an error; how many bytes went.
fn write_most(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => (),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_let_go_on_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut sink = Sink::open(Target::File(path.clone())).unwrap();
        let put = |sink: &mut Sink, line: &str| {
            sink.batch().extend_from_slice(line.as_bytes());
            sink.line_added();
        };
        put(&mut sink, "one\n");
        sink.flush();
        let old = dir.path().join("access.log.1");
        std::fs::rename(&path, &old).unwrap();
        put(&mut sink, "two\n");
        sink.reopen().unwrap();
        put(&mut sink, "three\n");
        sink.flush();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
        assert_eq!(sink.lost, 0);
    }

    /// Threat D09: a full disk costs counted lines.
    #[test]
    fn a_full_disk_costs_counted_lines() {
        let mut sink = Sink::open(Target::File("/dev/full".into())).unwrap();
        for _ in 0..3 {
            sink.batch().extend_from_slice(b"line\n");
            sink.line_added();
        }
        sink.flush();
        assert_eq!(sink.lost, 3);
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("logs");
        std::fs::create_dir(&inner).unwrap();
        let mut sink = Sink::open(Target::File(inner.join("a"))).unwrap();
        let kept = dir.path().join("kept");
        std::fs::rename(&inner, &kept).unwrap();
        assert!(sink.reopen().is_err());
        sink.batch().extend_from_slice(b"still\n");
        sink.flush();
        assert_eq!(std::fs::read_to_string(kept.join("a")).unwrap(), "still\n");
    }

    #[test]
    fn write_most_stops_at_an_error_and_counts() {
        struct Short(usize);
        impl Write for Short {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => Ok(bytes.len().min(3)),
                    2 => Err(ErrorKind::Interrupted.into()),
                    3 => Ok(bytes.len().min(2)),
                    _ => Err(ErrorKind::StorageFull.into()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write_most(&mut Short(0), b"123456789"), 5);
    }
}
