//! Which CPUs this process may use, how many shards that makes, and which threads run on which of them.

use std::fs;
use std::mem::{size_of, zeroed};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The CPUs of the process, in rising order; never empty. They are those that the thread which first asks may run on: threads keep
/// to fewer later ([`pin`], [`keep_off_shards`]), and what one of those may use is no answer.
pub fn cpus() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(of_thread)
}

/// The CPU of a shard: they take turns where there are more of them than CPUs.
pub fn cpu_of(shard: u16) -> usize {
    let cpus = cpus();
    cpus[usize::from(shard) % cpus.len()]
}

/// Keeps the calling thread, and those that it starts from now on, to the CPUs on which none of so many shards runs. False where
/// there is no such CPU, or the kernel refuses: then they run where there is room.
pub fn keep_off_shards(shards: u16) -> bool {
    let free = cpus().get(usize::from(shards)..).unwrap_or_default();
    !free.is_empty() && run_on(free)
}

/// Lets the calling thread, and those and the processes that it starts from now on, run on every CPU of the process.
pub fn use_all() -> bool {
    run_on(cpus())
}

/// Shards where the configuration leaves it to us: one per usable CPU, but no more than the control group's CPU quota
/// pays for (rounded up), because a shard without CPU time only adds waiting.
pub fn shard_count_auto() -> usize {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let quota = quota(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(usize::MAX);
    cpus().len().min(quota)
}

/// Pins the calling thread to `cpu`; false where the kernel refuses.
pub fn pin(cpu: usize) -> bool {
    // Beyond this the crate's set of CPUs ends, and it would panic.
    cpu < SET_CPUS && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

const SET_BYTES: usize = size_of::<libc::cpu_set_t>();
/// CPUs that a set has room for.
const SET_CPUS: usize = SET_BYTES * 8;

/// The CPUs that the calling thread may run on now, in rising order; never empty.
fn of_thread() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    if cpus.is_empty() {
        cpus.push(0);
    }
    cpus
}

/// Has the calling thread run on these alone, of which there may be several: core_affinity knows one.
fn run_on(cpus: &[usize]) -> bool {
    // SAFETY: the set is an array of integers, of which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    for &cpu in cpus.iter().filter(|cpu| **cpu < SET_CPUS) {
        // SAFETY: the set has a bit for this number.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: 0 is the calling thread; the kernel reads `set`, of that size, and keeps nothing of it.
    unsafe { libc::sched_setaffinity(0, SET_BYTES, &raw const set) == 0 }
}

/// The lowest CPU quota of our control group and its parents, in CPUs, rounded up; `groups` is /proc/self/cgroup.
fn quota(root: &Path, groups: &str) -> Option<usize> {
    groups.lines().filter_map(|line| quota_of_line(root, line)).min()
}

/// One line of /proc/self/cgroup: `0::/path` (version 2) or `4:cpu,cpuacct:/path` (version 1).
fn quota_of_line(root: &Path, line: &str) -> Option<usize> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    if controllers.is_empty() {
        return lowest(root, path, |dir| parse_cpu_max(&fs::read_to_string(dir.join("cpu.max")).ok()?));
    }
    controllers.split(',').any(|c| c == "cpu").then_some(())?;
    let read = |dir: &Path, name| fs::read_to_string(dir.join(name)).ok();
    // The hierarchy is mounted under its list of controllers, with a link under each alone.
    [controllers, "cpu"].into_iter().find_map(|mount| {
        lowest(&root.join(mount), path, |dir| {
            parse_quota(&read(dir, "cpu.cfs_quota_us")?, &read(dir, "cpu.cfs_period_us")?)
        })
    })
}

/// The lowest answer from `root/path` up to `root`. Where a container has a control group namespace, `path` is "/" or
/// does not exist below its own mount: then only the directories that do exist count.
fn lowest(root: &Path, path: &str, read: impl Fn(&Path) -> Option<usize>) -> Option<usize> {
    let mut dir: PathBuf = root.to_path_buf();
    let mut found = read(&dir);
    for name in Path::new(path).components() {
        let std::path::Component::Normal(name) = name else { continue };
        dir.push(name);
        found = [found, read(&dir)].into_iter().flatten().min();
    }
    found
}

/// cpu.max of version 2: "200000 100000", or "max 100000" for no limit.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    parse_quota(quota, period)
}

/// A quota and its period in microseconds; a quota of -1 or "max" is no limit.
fn parse_quota(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|p| *p > 0)?;
    usize::try_from(quota.div_ceil(period).max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cpu_and_a_thread_can_be_pinned_to_it() {
        let cpus = cpus();
        assert!(!cpus.is_empty() && cpus.is_sorted());
        assert!((1..=cpus.len()).contains(&shard_count_auto()));
        let last = cpus[cpus.len() - 1];
        let seen = std::thread::spawn(move || (pin(last), of_thread())).join().unwrap();
        assert_eq!(seen, (true, vec![last]));
        assert!(!pin(1023) && !pin(100_000), "CPUs that are not there");
    }

    #[test]
    fn what_keeps_off_the_shards_knows_all_cpus_and_can_have_them_back() {
        let all = cpus();
        let seen = std::thread::spawn(move || {
            let kept = keep_off_shards(1);
            let heirs = std::thread::spawn(of_thread).join().unwrap();
            (kept, heirs, cpus(), use_all(), of_thread())
        });
        let (kept, heirs, known, back, now) = seen.join().unwrap();
        assert_eq!((kept, known, back, &*now), (all.len() > 1, all, true, all));
        assert_eq!(heirs, if kept { &all[1..] } else { all });
        let full = u16::try_from(all.len()).unwrap();
        assert!(!keep_off_shards(full) && !keep_off_shards(u16::MAX), "shards have every CPU");
        assert_eq!((cpu_of(0), cpu_of(full)), (all[0], all[0]));
    }

    #[test]
    fn quotas_round_up_and_no_limit_is_none() {
        for (text, expected) in [
            ("max 100000\n", None),
            ("200000 100000\n", Some(2)),
            ("150000 100000\n", Some(2)),
            ("1000 100000\n", Some(1)),
            ("100000 0\n", None),
            ("100000\n", None),
            ("", None),
        ] {
            assert_eq!(parse_cpu_max(text), expected, "{text:?}");
        }
        assert_eq!(parse_quota("-1\n", "100000\n"), None);
        assert_eq!(parse_quota("250000\n", "100000\n"), Some(3));
    }

    #[test]
    fn the_tightest_group_on_the_way_up_rules() {
        let root = std::env::temp_dir().join(format!("ringway-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("a/cpu.max", "300000 100000\n");
        write("a/b/cpu.max", "max 100000\n");
        write("cpu,cpuacct/docker/cpu.cfs_quota_us", "50000\n");
        write("cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
        let seen = [
            quota(&root, "0::/a/b\n"),
            quota(&root, "0::/elsewhere\n"),
            quota(&root, "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n"),
            quota(&root, "4:cpuset:/docker\n\nnonsense\n"),
        ];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(seen, [Some(3), None, Some(1), None]);
    }
}
