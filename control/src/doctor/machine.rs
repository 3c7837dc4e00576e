//! What this machine is: its sysctls, and what the process may do on it. Reads and never writes.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Capabilities by their bit (capabilities(7), linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capability {
    NetBindService = 10,
    IpcLock = 14,
    SysAdmin = 21,
    SysResource = 24,
}

/// What a file of /proc or /sys says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    Value(String),
    /// This kernel, or this network namespace, has no such file.
    Absent,
    /// It is there and cannot be read; why.
    Refused(String),
}

impl Reading {
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Value(text) => Some(text),
            Self::Absent | Self::Refused(_) => None,
        }
    }
    pub(super) fn number(&self) -> Option<u64> {
        self.value()?.parse().ok()
    }
}

/// The machine, below a directory that stands for `/`.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// This machine; in tests what RINGWAY_ROOT names, as for kernel-tuning/tune.sh.
    pub(super) fn here() -> Self {
        Self { root: std::env::var_os("RINGWAY_ROOT").map_or_else(|| "/".into(), Into::into) }
    }

    /// One whose files are below `root`.
    #[cfg(test)]
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A small text file, by its absolute path; white space becomes single spaces.
    pub(super) fn read(&self, path: &str) -> Reading {
        match fs::read_to_string(self.root.join(path.trim_start_matches('/'))) {
            Ok(text) => Reading::Value(text.split_whitespace().collect::<Vec<_>>().join(" ")),
            Err(e) if e.kind() == ErrorKind::NotFound => Reading::Absent,
            Err(e) => Reading::Refused(e.to_string()),
        }
    }

    pub(super) fn sysctl(&self, key: &str) -> Reading {
        self.read(&format!("/proc/sys/{}", key.replace('.', "/")))
    }

    /// Whether this process has a capability now.
    pub(super) fn may(&self, capability: Capability) -> bool {
        let status = self.read("/proc/self/status");
        let mut words = status.value().unwrap_or_default().split(' ');
        let held = words.find(|word| *word == "CapEff:").and_then(|_| words.next());
        let held = held.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        held >> capability as u64 & 1 == 1
    }

    /// Memory of the machine in bytes, or the control group's limit where that is less; `None` if neither is told.
    pub(super) fn memory(&self) -> Option<u64> {
        let info = self.read("/proc/meminfo");
        let mut words = info.value().unwrap_or_default().split(' ');
        let total = words.find(|word| *word == "MemTotal:").and_then(|_| words.next()?.parse::<u64>().ok());
        let total = total.map(|kib| kib.saturating_mul(1024));
        let group = self.read("/sys/fs/cgroup/memory.max").number();
        [total, group].into_iter().flatten().min()
    }
}
