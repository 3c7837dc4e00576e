//! Writes kernel-tuning/README.md from the facts. A test fails when the file is stale.

use super::facts::{Fact, Facts, Profile, Sysctl};
use std::fmt::Write;

const HEAD: &str = r"<!-- Written from kernel-tuning/facts.toml by `UPDATE_DOCS=1 cargo test -p control`. -->

# kernel-tuning

Settings of a Linux machine that matter to a proxy: what each does, what it was measured to do, what it risks, and how it
is undone. ringway needs none of them to run. Three profiles: **idle** for a great many connections that mostly wait,
**bulk** for long streams of bytes, **latency** for short requests.

| file | is |
|---|---|
| [facts.toml](facts.toml) | everything that is known, in one place: the script reads it, `ringway doctor` has it compiled in, and the tables below are written from it |
| [tune.sh](tune.sh) | compares a machine with a profile, and applies it when told; short enough to read before it is run as root |
| [measure.py](measure.py) | the measurements behind the figures, in a network namespace of its own |
| [ringway.service](ringway.service) | a systemd unit with the limits, closed as far as io_uring allows |

```sh
kernel-tuning/tune.sh                     # compares with `latency`; writes nothing; exit 1 if something falls short
kernel-tuning/tune.sh check idle
kernel-tuning/tune.sh apply idle          # prints each change, then makes it; ringway-undo.conf keeps what was before
kernel-tuning/tune.sh undo ringway-undo.conf   # puts all of it back, and removes the file
kernel-tuning/tune.sh print idle > /etc/sysctl.d/90-ringway.conf   # apply lasts until the next boot
ringway doctor -c FILE --profile idle     # the same, with what a configuration needs; writes nothing
```

`apply` never makes worse what is better already: a larger limit stays, a wider port range is only widened. It leaves out
what this kernel or network namespace does not have, and says so. Settings under `net.` belong to the network namespace
in which it runs, those under `fs.` to the machine. In a container, run it on the host.
";

/// kernel-tuning/README.md.
pub fn readme() -> Result<String, String> {
    let facts = Facts::load()?;
    let mut out = HEAD.to_owned();
    heading(
        &mut out,
        "What the profiles set",
        "| knob | idle | bulk | latency | why | effect | risk | undo |",
    );
    for sysctl in &facts.sysctls {
        row(&mut out, &cells(sysctl));
    }
    heading(&mut out, "What no profile sets", "| knob | what | why it matters | effect | source |");
    for Fact { key, what, why, effect, source, .. } in &facts.watched {
        let key = key.strip_prefix("file:").or_else(|| key.strip_prefix("limit:")).unwrap_or(key);
        row(&mut out, &[&code(key), what, why, effect, source]);
    }
    heading(&mut out, "What is refused", "| knob | why | source |");
    for Fact { key, why, source, .. } in &facts.refused {
        row(&mut out, &[&code(key), why, source]);
    }
    Ok(out)
}

fn heading(out: &mut String, title: &str, columns: &str) {
    let rule = "|---".repeat(columns.matches('|').count().saturating_sub(1));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n## {title}\n\n{columns}\n{rule}|");
}

fn row<T: AsRef<str>>(out: &mut String, cells: &[T]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn cells(sysctl: &Sysctl) -> [String; 8] {
    let Fact { key, since, default, what, why, effect, source, risk, undo } = &sysctl.fact;
    let since = if since.is_empty() { String::new() } else { format!(" (from Linux {since})") };
    let [idle, bulk, latency] =
        Profile::ALL.map(|profile| sysctl.wanted(profile).map_or_else(|| "–".to_owned(), code));
    [
        format!("{}{since}: {what}", code(key)),
        idle,
        bulk,
        latency,
        why.clone(),
        format!("{effect} ({source})"),
        risk.clone(),
        format!("kernel's default: {default}. {undo}"),
    ]
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_tables_are_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-tuning/README.md");
        let fresh = readme().unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == fresh,
            "kernel-tuning/README.md is stale: UPDATE_DOCS=1 cargo test -p control writes it"
        );
    }
}
