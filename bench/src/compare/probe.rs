//! What the kernel says of a running proxy: CPU, context switches, resident memory, and time stolen from its CPU.

use std::fs;
use std::time::Instant;

use super::cgroup::{CpuTime, Group};
use super::machine::{kilobytes, ticks};
use super::peer::Proxy;

/// One look.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    cpu: CpuTime,
    switches: u64,
    ticks: (u64, u64),
}

/// What lies between two looks.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    pub(super) cpu: CpuTime,
    pub(super) switches: u64,
    /// Share of the proxy's CPU that the hypervisor took.
    pub(super) steal: f64,
}

impl Cost {
    /// Share of its CPU that the proxy used.
    pub(super) fn busy(&self) -> f64 {
        self.cpu.usage_us as f64 / 1e6 / self.seconds
    }
}

impl Sample {
    pub(super) fn of(proxy: &Proxy, cpu: usize) -> anyhow::Result<Self> {
        let pids = proxy.pids();
        let time = match proxy.group() {
            Some(group) => group.cpu()?,
            None => cpu_of(&pids),
        };
        let stat = fs::read_to_string("/proc/stat")?;
        let switches = pids.iter().map(|pid| switches(*pid)).sum();
        Ok(Self { at: Instant::now(), cpu: time, switches, ticks: ticks(&stat, cpu).unwrap_or_default() })
    }

    pub(super) fn since(&self, before: &Self) -> Cost {
        let all = self.ticks.0.saturating_sub(before.ticks.0).max(1);
        Cost {
            seconds: (self.at - before.at).as_secs_f64(),
            cpu: self.cpu.since(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
            steal: self.ticks.1.saturating_sub(before.ticks.1) as f64 / all as f64,
        }
    }
}

/// The group's processes, or the tree below `pid` where there is no group.
pub(super) fn pids(group: Option<&Group>, pid: u32) -> Vec<u32> {
    let found = group.map(Group::pids).unwrap_or_default();
    if !found.is_empty() {
        return found;
    }
    let (mut found, mut next) = (vec![pid], 0);
    while let Some(pid) = found.get(next).copied() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        next += 1;
    }
    found
}

fn tasks(pid: u32) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn switches(pid: u32) -> u64 {
    let of = |text: &str| -> u64 {
        let lines = text.lines().filter(|l| l.contains("ctxt_switches:"));
        lines.filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    tasks(pid).filter_map(|t| fs::read_to_string(t.join("status")).ok()).map(|text| of(&text)).sum()
}

/// Without a group: nanoseconds of every thread, the kernel's workers for the ring included; the split in clock ticks.
fn cpu_of(pids: &[u32]) -> CpuTime {
    const TICK_US: u64 = 10_000; // USER_HZ is 100 on every Linux we run on
    let mut time = CpuTime::default();
    for task in pids.iter().flat_map(|pid| tasks(*pid)) {
        let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        time.usage_us +=
            text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1000;
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0) * TICK_US;
        time.user_us += field(11);
        time.system_us += field(12);
    }
    time
}

/// Resident bytes of all its processes.
pub(super) fn resident(pids: &[u32]) -> u64 {
    let of = |pid: &u32| kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS");
    pids.iter().filter_map(of).sum()
}
