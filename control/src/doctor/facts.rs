//! kernel-tuning/facts.toml as `ringway doctor` knows it: the same file that kernel-tuning/tune.sh reads.

use clap::ValueEnum;
use toml::{Table, Value};

/// The file, compiled in, so that the binary knows what the script beside it knows.
const TEXT: &str = include_str!("../../../kernel-tuning/facts.toml");

/// What a machine is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A great many connections that mostly wait
    Idle,
    /// Long streams of bytes
    Bulk,
    /// Short requests, answered soon
    Latency,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Idle, Self::Bulk, Self::Latency];

    /// Its name in facts.toml and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Bulk => "bulk",
            Self::Latency => "latency",
        }
    }
}

/// Which of two values of a field is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    More,
    Less,
    Exact,
}

/// What every fact says. Fields that a fact does not have are empty.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    /// The sysctl, or the name of another setting.
    pub(super) key: String,
    /// The kernel version it came with; empty where every kernel that runs ringway has it.
    pub(super) since: String,
    /// The kernel's default.
    pub(super) default: String,
    pub(super) what: String,
    pub(super) why: String,
    /// What it was measured to do, or is documented to.
    pub(super) effect: String,
    pub(super) source: String,
    pub(super) risk: String,
    pub(super) undo: String,
}

/// A sysctl that profiles set.
#[derive(Debug, Clone)]
pub(super) struct Sysctl {
    pub(super) fact: Fact,
    /// One for each field of its value.
    rules: Vec<Rule>,
    /// By profile; `None` where a profile leaves it alone.
    wanted: [Option<String>; 3],
}

/// How a value compares with what a profile wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As wanted, or better.
    Good,
    /// The value that it should have: in each field the better one.
    Short(String),
    /// Not such a value as the facts expect.
    Odd,
}

impl Sysctl {
    pub(super) fn wanted(&self, profile: Profile) -> Option<&str> {
        self.wanted.get(profile as usize)?.as_deref()
    }

    /// Compares `now` with what a profile wants. What is better already is never made worse.
    pub(super) fn compare(&self, now: &str, wanted: &str) -> Verdict {
        let numbers = |text: &str| {
            text.split_whitespace().map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()
        };
        let (Some(now), Some(wanted)) = (numbers(now), numbers(wanted)) else { return Verdict::Odd };
        if now.len() != self.rules.len() || wanted.len() != self.rules.len() {
            return Verdict::Odd;
        }
        let fields = self.rules.iter().zip(now.iter().zip(&wanted));
        let better: Vec<u64> = fields
            .map(|(rule, (&now, &wanted))| match rule {
                Rule::More => now.max(wanted),
                Rule::Less => now.min(wanted),
                Rule::Exact => wanted,
            })
            .collect();
        if better == now {
            return Verdict::Good;
        }
        Verdict::Short(better.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
    }
}

/// All that is known about the machine's settings.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) sysctls: Vec<Sysctl>,
    /// Set by no profile: gone, harmful, or without effect here. `why` says which.
    pub(super) refused: Vec<Fact>,
    /// Judged by what a configuration needs, or only shown.
    pub(super) watched: Vec<Fact>,
}

impl Facts {
    /// Reads the file that is compiled in.
    pub(super) fn load() -> Result<Self, String> {
        Self::parse(TEXT)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Table = text.parse().map_err(|e| format!("facts.toml: {e}"))?;
        let facts = |kind: &str| each(&file, kind).map(fact).collect::<Vec<_>>();
        Ok(Self {
            sysctls: each(&file, "sysctl").map(sysctl).collect::<Result<_, _>>()?,
            refused: facts("refused"),
            watched: facts("watched"),
        })
    }
}

fn each<'t>(file: &'t Table, kind: &str) -> impl Iterator<Item = &'t Table> {
    file.get(kind).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn word(table: &Table, key: &str) -> Option<String> {
    table.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn fact(table: &Table) -> Fact {
    let word = |key| word(table, key).unwrap_or_default();
    Fact {
        key: word("key"),
        since: word("since"),
        default: word("default"),
        what: word("what"),
        why: word("why"),
        effect: word("effect"),
        source: word("source"),
        risk: word("risk"),
        undo: word("undo"),
    }
}

fn sysctl(table: &Table) -> Result<Sysctl, String> {
    let fact = fact(table);
    let rules = word(table, "rule").unwrap_or_default();
    let rules = rules.split(' ').map(|rule| match rule {
        "more" => Ok(Rule::More),
        "less" => Ok(Rule::Less),
        "exact" => Ok(Rule::Exact),
        other => Err(format!("facts.toml: {}: no rule {other:?}", fact.key)),
    });
    let rules = rules.collect::<Result<_, _>>()?;
    let wanted = Profile::ALL.map(|profile| word(table, profile.name()));
    Ok(Sysctl { fact, rules, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sysctl that the documents behind this project name, in their spelling.
    const NAMED: &[&str] = &[
        "fs.file-max",
        "fs.nr_open",
        "net.core.netdev_budget",
        "net.core.netdev_max_backlog",
        "net.core.rmem_max",
        "net.core.somaxconn",
        "net.core.wmem_max",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_fastopen",
        "net.ipv4.tcp_max_syn_backlog",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_slow_start_after_idle",
        "net.ipv4.tcp_timestamps",
        "net.ipv4.tcp_tw_recycle",
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_wmem",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    ];

    #[test]
    fn every_sysctl_that_was_named_is_there_or_refused() {
        let facts = Facts::load().unwrap();
        let sysctls = facts.sysctls.iter().map(|sysctl| &sysctl.fact.key);
        let keys: Vec<_> = sysctls.chain(facts.refused.iter().map(|fact| &fact.key)).collect();
        for name in NAMED {
            assert!(keys.iter().any(|key| key == name), "{name}");
        }
        let mut once = keys.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), keys.len(), "a key stands twice");
    }

    /// kernel-tuning/tune.sh reads the file line by line: one string on each line, a fact's key first, its rule before
    /// its values.
    #[test]
    fn the_file_is_as_plain_as_the_script_reads_it() {
        let mut keys: Vec<&str> = Vec::new();
        for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(kind) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
                assert!(["sysctl", "refused", "watched"].contains(&kind), "{line}");
                keys.clear();
                continue;
            }
            let (key, value) = line.split_once(" = ").expect(line);
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line);
            assert!(!value.contains(['"', '\\', '|']) && !value.is_empty(), "{line}");
            assert_eq!(keys.is_empty(), key == "key", "{line}");
            assert!(
                !Profile::ALL.iter().any(|profile| profile.name() == key) || keys.contains(&"rule"),
                "{line}"
            );
            keys.push(key);
        }
    }

    #[test]
    fn every_fact_says_all_there_is_to_say() {
        let facts = Facts::load().unwrap();
        for sysctl in &facts.sysctls {
            let Fact { key, default, what, why, effect, source, risk, undo, .. } = &sysctl.fact;
            for text in [default, what, why, effect, source, risk, undo] {
                assert!(!text.is_empty(), "{key}");
            }
            assert!(sysctl.wanted.iter().any(Option::is_some), "{key}: no profile wants it");
            for wanted in sysctl.wanted.iter().flatten() {
                assert_eq!(sysctl.compare(wanted, wanted), Verdict::Good, "{key}");
            }
        }
        for fact in &facts.refused {
            assert!(!fact.why.is_empty() && !fact.source.is_empty(), "{}", fact.key);
        }
        for Fact { key, what, why, effect, source, .. } in &facts.watched {
            for text in [what, why, effect, source] {
                assert!(!text.is_empty(), "{key}");
            }
        }
    }

    #[test]
    fn what_is_better_stays() {
        let of = |rule: &str| Sysctl {
            fact: fact(&Table::new()),
            rules: sysctl(&format!("rule = \"{rule}\"").parse().unwrap()).unwrap().rules,
            wanted: [None, None, None],
        };
        let short = |text: &str| Verdict::Short(text.to_owned());
        let more = of("more");
        assert_eq!(more.compare("4096", "65535"), short("65535"));
        assert_eq!(more.compare("65536", "65535"), Verdict::Good);
        assert_eq!(more.compare("9223372036854775807\n", "2097152"), Verdict::Good);
        assert_eq!(of("less").compare("4294967295", "131072"), short("131072"));
        assert_eq!(of("less").compare("16384", "131072"), Verdict::Good);
        assert_eq!(of("exact").compare("2", "1"), short("1"));
        assert_eq!(of("less more").compare("32768\t60999", "10000 65535"), short("10000 65535"));
        assert_eq!(of("less more").compare("1024\t60999", "10000 65535"), short("1024 65535"));
        assert_eq!(
            of("more more more").compare("4096 131072 6291456", "4096 87380 16777216"),
            short("4096 131072 16777216")
        );
        for odd in ["", "x", "1 2", "-1"] {
            assert_eq!(more.compare(odd, "1"), Verdict::Odd, "{odd:?}");
        }
    }
}
