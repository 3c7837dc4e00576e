//! The facts of the machine, without which a figure is void.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::child::output;

/// Which CPU is whose: the proxy's is measured and has it alone, load and origin share the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus {
    pub(super) load: usize,
    pub(super) proxy: usize,
}

pub(super) fn cpus() -> anyhow::Result<Cpus> {
    let ids = core_affinity::get_core_ids().context("which CPUs may be used?")?;
    let (Some(first), Some(last)) = (ids.iter().map(|i| i.id).min(), ids.iter().map(|i| i.id).max()) else {
        bail!("no CPU may be used");
    };
    if first == last {
        bail!("needs two CPUs: one for the proxy, one for origin and load");
    }
    Ok(Cpus { load: first, proxy: last })
}

/// Raises the soft bound on descriptors to the hard one, for this process and its children, and returns it.
pub(super) fn raise_descriptors() -> anyhow::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    // Enough for 15,000 clients; more only costs tables in those that size them by it.
    Ok(hard.unwrap_or(1 << 20).min(1 << 20))
}

/// The CPU's ticks (all, stolen) from the text of /proc/stat.
pub(super) fn ticks(stat: &str, cpu: usize) -> Option<(u64, u64)> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|l| l.split(' ').next() == Some(&name))?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|f| f.parse().ok()).collect();
    Some((fields.iter().sum(), *fields.get(7)?))
}

/// Kilobytes of one line of /proc/meminfo or /proc/PID/status, in bytes.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

/// A line of /proc/meminfo, bytes.
pub(super) fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text, name).unwrap_or(0)
}

pub(super) fn slab() -> u64 {
    memory("Slab")
}

/// Ports that the kernel chooses from for connections, on each address.
pub(super) fn local_ports() -> anyhow::Result<u32> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_whitespace().filter_map(|n| n.parse::<u32>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else { bail!("no range of ports in {text}") };
    Ok(last.saturating_sub(first) + 1)
}

/// Gives empty slabs back, as far as this process may, so that one rival's leavings are not another's savings.
pub(super) fn shrink_slabs() {
    for entry in fs::read_dir("/sys/kernel/slab").into_iter().flatten().flatten() {
        _ = fs::write(entry.path().join("shrink"), "1");
    }
}

/// First line that `program --version` or the like prints.
pub(super) fn version(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args);
    let text = output(command, Duration::from_secs(10)).ok()?;
    text.lines().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned())
}

pub(super) fn facts() -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).ok();
    let mut facts = BTreeMap::new();
    let mut fact = |name: &str, value: Option<String>| {
        facts.insert(name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()));
    };
    fact("kernel", read("/proc/sys/kernel/osrelease"));
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    let count = cpu.lines().filter(|l| l.starts_with("processor")).count();
    fact("CPU", model.map(|(_, m)| format!("{}, {count} visible", m.trim())));
    fact("hypervisor", Some(if cpu.contains(" hypervisor") { "yes" } else { "no" }.to_owned()));
    let mut active = Vec::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if text.starts_with("Mitigation") || text.starts_with("Vulnerable") {
            active.push(format!("{}: {}", entry.file_name().to_string_lossy(), text.trim()));
        }
    }
    active.sort();
    fact("mitigations", Some(if active.is_empty() { "none needed".to_owned() } else { active.join("; ") }));
    fact(
        "memory",
        read("/proc/meminfo").and_then(|t| kilobytes(&t, "MemTotal")).map(|b| format!("{} MiB", b >> 20)),
    );
    fact("date", version("date", &["-u", "+%Y-%m-%d"]));
    facts
}

/// 64 bits of FNV-1a: enough to see whether two runs used the same configuration.
pub(super) fn hash(text: &str) -> String {
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_one_cpu() {
        let stat = "cpu  1 1 1 1 1 1 1 1 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu10 9 9 9 9 9 9 9 9 0 0\n";
        assert_eq!(ticks(stat, 1), Some((36, 8)));
        assert_eq!(ticks(stat, 2), None);
    }

    #[test]
    fn kilobytes_are_bytes() {
        assert_eq!(kilobytes("MemTotal:  5 kB\nSlab:   12 kB\nSlabX: 1 kB\n", "Slab"), Some(12 * 1024));
    }

    #[test]
    fn fnv_is_fnv() {
        assert_eq!(hash("a"), "af63dc4c8601ec8c");
    }
}
