//! What doctor found, and how it says so: text for people, JSON for programs.

use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Good,
    /// Falls short: `--strict` makes the exit code 1.
    Short,
    /// To know; nothing to mend.
    Note,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Short => "short",
            Self::Note => "note",
        }
    }
}

/// One thing about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) state: State,
    /// The part of the report it belongs to.
    pub(super) part: &'static str,
    pub(super) subject: String,
    /// What is so, and what follows.
    pub(super) what: String,
    /// A command, or an advice, that mends it.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn new(
        state: State,
        part: &'static str,
        subject: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self { state, part, subject: subject.into(), what: what.into(), mend: None }
    }

    pub(super) fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// How many fall short.
pub(super) fn count_short(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.state == State::Short).count()
}

/// The report for people.
pub(super) fn text(findings: &[Finding]) -> String {
    let (mut text, mut part) = (String::new(), "");
    for finding in findings {
        if finding.part != part {
            part = finding.part;
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{gap}{part}");
        }
        let _ = writeln!(text, "  {:<6} {}: {}", finding.state.name(), finding.subject, finding.what);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "         mend: {mend}");
        }
    }
    let short = count_short(findings);
    let _ = match short {
        0 => write!(text, "\nnothing falls short"),
        1 => write!(text, "\n1 thing falls short"),
        _ => write!(text, "\n{short} things fall short"),
    };
    text
}

/// The same for programs, one line.
pub(super) fn to_json(findings: &[Finding]) -> Value {
    let list: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "part": finding.part, "subject": finding.subject, "state": finding.state.name(),
                "what": finding.what, "mend": finding.mend,
            })
        })
        .collect();
    json!({ "short": count_short(findings), "findings": list })
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest unit of which there are at least ten.
pub(super) fn bytes(number: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| number >> shift >= 10);
    unit.map_or_else(
        || format!("{} B", grouped(number)),
        |(name, shift)| format!("{} {name}", grouped(number >> shift)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (28232, "28,232"), (1_082_314_991, "1,082,314,991")]
        {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in
            [(512, "512 B"), (65536, "64 KiB"), (9 << 20, "9,216 KiB"), (10 << 30, "10 GiB")]
        {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn a_report_has_its_parts_and_its_count() {
        let findings = [
            Finding::new(State::Good, "kernel", "io_uring", "there"),
            Finding::new(State::Short, "limits", "descriptors", "too few").mend("ulimit -n 9"),
        ];
        assert_eq!(
            text(&findings),
            "kernel\n  ok     io_uring: there\n\nlimits\n  short  descriptors: too few\n         mend: ulimit -n 9\n\n\
             1 thing falls short"
        );
        assert_eq!(to_json(&findings)["short"], 1);
        assert_eq!(to_json(&findings)["findings"][1]["mend"], "ulimit -n 9");
    }
}
