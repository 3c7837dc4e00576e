//! `ringway doctor`: reads the machine, holds it against what a proxy needs and what a configuration asks for, and names
//! the command that mends what falls short. It writes nothing.

mod facts;
mod finding;
mod machine;
mod needs;
mod table;

pub use facts::Profile;
pub use table::readme;

use crate::config::{self, Environment};
use crate::exit::Exit;
use crate::{cli, locked, ready};
use dataplane::limits;
use dataplane::plane::{self, Features, Resources, RingMemory, Unusable};
use facts::{Facts, Sysctl, Verdict};
use finding::{Finding, State, bytes, count_short, grouped};
use machine::{Capability, Machine, Reading};
use std::path::PathBuf;

/// What `ringway doctor` was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// A configuration whose needs are to be met.
    pub config: Option<PathBuf>,
    pub profile: Profile,
    pub json: bool,
    /// Exit 1 if anything falls short.
    pub strict: bool,
}

/// Looks, and prints what it found.
pub fn run(question: &Question, environment: &Environment) -> Exit {
    let facts = match Facts::load() {
        Ok(facts) => facts,
        Err(what) => {
            cli::complain(&what);
            return Exit::Internal;
        }
    };
    let loaded = match question.config.as_deref().map(|file| config::load(file, environment)).transpose() {
        Ok(loaded) => loaded,
        Err(report) => {
            cli::complain(&format!("the configuration is wrong:\n{}", report.to_string().trim_end()));
            return Exit::Configuration;
        }
    };
    let (machine, resources) = (Machine::here(), plane::resources());
    let mut findings = vec![io_uring(plane::probe())];
    let shards = loaded.as_ref().map(|loaded| u64::from(loaded.snapshot.runtime.shards));
    let shards = shards.unwrap_or_else(|| u64::try_from(resources.shards).unwrap_or(1));
    findings.extend(limits_of(&machine, &resources, shards));
    findings.extend(facts.sysctls.iter().filter_map(|sysctl| judge(sysctl, question.profile, &machine)));
    findings.extend(shown(&facts, &machine));
    if let Some(loaded) = &loaded {
        findings.extend(needs::of(loaded, environment, &machine, &resources));
    }
    if question.json {
        ready::print(&finding::to_json(&findings).to_string());
    } else {
        let of = question.config.as_ref().map(|file| format!(", for {}", file.display()));
        let title = format!("profile {}{}", question.profile.name(), of.unwrap_or_default());
        ready::print(&format!("{title}\n\n{}{}", finding::text(&findings), tune(question, &findings)));
    }
    if question.strict && count_short(&findings) > 0 { Exit::Configuration } else { Exit::Clean }
}

const KERNEL: &str = "kernel";
const LIMITS: &str = "limits of this process (a service manager may set others)";
const SYSCTLS: &str = "sysctls";
const SHOWN: &str = "shown, no profile sets them";

/// How all sysctls that fall short are mended at once.
fn tune(question: &Question, findings: &[Finding]) -> String {
    let short = findings.iter().filter(|f| f.part == SYSCTLS && f.state == State::Short && f.mend.is_some());
    match short.count() {
        0 => String::new(),
        n => format!(
            "; `kernel-tuning/tune.sh apply {}` sets {n} of them, with an undo",
            question.profile.name()
        ),
    }
}

fn io_uring(probed: Result<Features, Unusable>) -> Finding {
    match probed {
        Ok(features) => {
            let (major, minor) = features.kernel;
            let has = |there: bool, name, since| {
                if there { format!("; {name}") } else { format!("; no {name} (Linux {since})") }
            };
            let what = format!(
                "Linux {major}.{minor}, allowed, with all operations that are needed{}{}{}",
                has(features.no_sqarray, "IORING_SETUP_NO_SQARRAY", "6.6"),
                has(features.no_iowait, "IORING_ENTER_NO_IOWAIT", "6.15"),
                has(features.standing, "receives that stand", "6.18, with a68ed2df7213"),
            );
            Finding::new(State::Good, KERNEL, "io_uring", what)
        }
        // Its text says what to change.
        Err(unusable) => Finding::new(State::Short, KERNEL, "io_uring", unusable.to_string()),
    }
}

/// The limits that every run needs; what a configuration needs beyond them is in `needs`.
fn limits_of(machine: &Machine, resources: &Resources, shards: u64) -> Vec<Finding> {
    let (have, least) = (resources.descriptors, limits::DESCRIPTORS_MIN);
    let what = format!("{} may be open; half of them are clients, half are links", grouped(have));
    let descriptors = match have >= least {
        true => Finding::new(State::Good, LIMITS, "descriptors", what),
        false => {
            Finding::new(State::Short, LIMITS, "descriptors", format!("{what}; nothing starts below {least}"))
                .mend(format!(
                    "ulimit -n 65536 (systemd: LimitNOFILE={})",
                    needs::ordinary_descriptors(machine)
                ))
        }
    };
    vec![descriptors, locked_memory(machine, resources, shards)]
}

/// The rings of all shards count against the limit on locked memory; where it is short they are made smaller.
fn locked_memory(machine: &Machine, resources: &Resources, shards: u64) -> Finding {
    let found = |state, what: String| Finding::new(state, LIMITS, "locked memory", what);
    let unlimited = machine.may(Capability::IpcLock);
    let lockable = if unlimited { u64::MAX } else { resources.locked_memory };
    let rings = RingMemory::planned(u16::try_from(shards).unwrap_or(u16::MAX), lockable);
    let what = format!("{shards} rings of {} = {}", bytes(rings.asked), bytes(shards * rings.asked));
    match (locked::shortage(&rings), lockable) {
        (Some(shortage), _) => found(State::Short, shortage).mend(locked::MEND),
        (None, _) if unlimited => found(State::Good, format!("{what}; CAP_IPC_LOCK lifts the limit")),
        (None, u64::MAX) => found(State::Good, format!("{what}; unlimited")),
        (None, have) => found(State::Good, format!("{what}; {} may be locked", bytes(have))),
    }
}

fn judge(sysctl: &Sysctl, profile: Profile, machine: &Machine) -> Option<Finding> {
    let wanted = sysctl.wanted(profile)?;
    let key = &sysctl.fact.key;
    let found = |state, what: String| Finding::new(state, SYSCTLS, key.clone(), what);
    Some(match machine.sysctl(key) {
        Reading::Value(now) => match sysctl.compare(&now, wanted) {
            Verdict::Good => found(State::Good, now),
            Verdict::Short(better) => {
                let value = if better.contains(' ') { format!("\"{better}\"") } else { better };
                found(State::Short, format!("{now}, better {value}: {}", sysctl.fact.why))
                    .mend(format!("sysctl -w {key}={value}"))
            }
            Verdict::Odd => {
                found(State::Short, format!("holds {now:?}, which is not what such a setting holds"))
            }
        },
        Reading::Absent if sysctl.fact.since.is_empty() => {
            found(State::Note, "not in this kernel or network namespace".to_owned())
        }
        Reading::Absent => found(
            State::Note,
            format!("not in this kernel or network namespace (Linux {})", sysctl.fact.since),
        ),
        Reading::Refused(why) => found(State::Short, format!("cannot be read: {why}")),
    })
}

/// What no profile decides: shown with what it means.
fn shown(facts: &Facts, machine: &Machine) -> Vec<Finding> {
    let shown = |fact: &facts::Fact| {
        let path = fact.key.strip_prefix("file:");
        let reading = path.map_or_else(|| machine.sysctl(&fact.key), |path| machine.read(path));
        let what = match reading {
            Reading::Value(now) if now.is_empty() => format!("empty: {}", fact.why),
            Reading::Value(now) => format!("{now}: {}", fact.why),
            Reading::Absent => format!("not there: {}", fact.why),
            Reading::Refused(why) => format!("cannot be read ({why}): {}", fact.why),
        };
        Finding::new(State::Note, SHOWN, path.unwrap_or(&fact.key), what)
    };
    facts.watched.iter().filter(|fact| !fact.key.starts_with("limit:")).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that facts.toml took from limits.rs.
    #[test]
    fn the_facts_know_our_limits() {
        let facts = Facts::load().unwrap();
        let sysctl = |key: &str| facts.sysctls.iter().find(|sysctl| sysctl.fact.key == key).unwrap();
        let wanted = |key, profile| sysctl(key).wanted(profile).unwrap().parse::<usize>().unwrap();
        for profile in Profile::ALL {
            assert_eq!(i32::try_from(wanted("net.core.somaxconn", profile)), Ok(limits::LISTEN_BACKLOG));
        }
        let pages_of_a_shard = usize::from(limits::PIPES) * limits::PIPE_BYTES / 4096;
        assert_eq!(wanted("fs.pipe-user-pages-soft", Profile::Bulk), 16 * pages_of_a_shard);
        assert_eq!(wanted("fs.pipe-max-size", Profile::Bulk), limits::PIPE_BYTES);
        let fact = facts.watched.iter().find(|fact| fact.key == "limit:RLIMIT_MEMLOCK").unwrap();
        let ring = RingMemory::planned(1, u64::MAX).asked;
        assert!(fact.why.contains(&format!("{} KiB", grouped(ring / 1024))), "{}", fact.why);
    }
}
