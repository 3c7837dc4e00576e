//! How the process ends: the exit codes that scripts rely on.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Clean = 0,
    /// The configuration is wrong; or `doctor --strict` found that something falls short.
    Configuration = 1,
    /// The command line is wrong, or asks for what this version does not do.
    CommandLine = 2,
    /// The machine cannot run it: io_uring is refused, an address is taken, a log file cannot be opened.
    Machine = 3,
    /// The running process cannot be reached.
    Unreachable = 69,
    /// A fault of ours: a shard panicked or stalled.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
