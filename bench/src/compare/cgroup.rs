//! A control group for one measured process: the kernel's account of its CPU, and the certain end of all its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::child::pause;

/// CPU that the kernel charged, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) usage_us: u64,
    pub(super) user_us: u64,
    pub(super) system_us: u64,
}

impl CpuTime {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            usage_us: self.usage_us.saturating_sub(before.usage_us),
            user_us: self.user_us.saturating_sub(before.user_us),
            system_us: self.system_us.saturating_sub(before.system_us),
        }
    }
}

/// The text of a `cpu.stat` of version 2.
pub(super) fn parse_cpu_stat(text: &str) -> anyhow::Result<CpuTime> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no {name} in cpu.stat"))?.trim().parse::<u64>().context("cpu.stat")
    };
    Ok(CpuTime {
        usage_us: field("usage_usec")?,
        user_us: field("user_usec")?,
        system_us: field("system_usec")?,
    })
}

/// Where version 2 is mounted, from the text of /proc/self/mounts.
pub(super) fn mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// One control group, removed with all that runs in it when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// `None` where there is no version 2, or where this process may not make a group; then /proc is read instead.
    pub(super) fn new(name: &str) -> Option<Self> {
        let root = mount(&fs::read_to_string("/proc/self/mounts").ok()?)?;
        let path = root.join(format!("ringway-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self { path };
        // A group that cannot be read is of no use; Drop takes it away.
        group.cpu().ok().map(|_| group)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn cpu(&self) -> anyhow::Result<CpuTime> {
        parse_cpu_stat(&fs::read_to_string(self.path.join("cpu.stat"))?)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.trim().parse().ok()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Kills what forked away from the child that we know, too.
        _ = fs::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..200 {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => pause(Duration::from_millis(10)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_stat_is_read() {
        let text = "usage_usec 300\nuser_usec 100\nsystem_usec 200\nnice_usec 0\n";
        let time = parse_cpu_stat(text).unwrap();
        assert_eq!(time, CpuTime { usage_us: 300, user_us: 100, system_us: 200 });
        assert_eq!(time.since(CpuTime { usage_us: 50, user_us: 50, system_us: 300 }).usage_us, 250);
        parse_cpu_stat("usage_usec 300\n").unwrap_err();
    }

    #[test]
    fn version_2_is_found_among_mounts() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount("proc /proc proc rw 0 0\n"), None);
    }
}
