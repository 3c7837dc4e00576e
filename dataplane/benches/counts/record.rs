//! Recorded counts: a file of `name count growth`, what was counted now held against it, and the file written anew.
//!
//! A count that grew beyond its margin fails. One that fell by more than its margin is said, because a bound that stays
//! high would hide the next growth; it does not fail, so that nobody is punished for an improvement.

use std::fmt;
use std::path::Path;

/// How far a count may grow, where the file says nothing: for a new line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Margin {
    /// Of what is recorded.
    Percent(f64),
    /// In the count's own unit; for counts near 0.
    Absolute(f64),
}

impl Margin {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Self::Percent),
            None => text.parse().ok().map(Self::Absolute),
        }
    }
    fn of(self, count: f64) -> f64 {
        match self {
            Self::Percent(percent) => count * percent / 100.0,
            Self::Absolute(margin) => margin,
        }
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Absolute(margin) => write!(f, "{margin}"),
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq)]
struct Bound {
    name: String,
    count: f64,
    margin: Margin,
}

fn bound(line: &str) -> Option<Bound> {
    let mut words = line.split_whitespace();
    let (name, count) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(Bound { name, count, margin: Margin::parse(words.next()?)? })
}

fn parse(text: &str) -> Result<Vec<Bound>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| bound(line).ok_or_else(|| format!("not `name count growth`: {line}"))).collect()
}

/// What holding counts against the record found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// One line for each count.
    pub(crate) table: Vec<String>,
    /// Why it fails; empty if it does not.
    pub(crate) wrong: Vec<String>,
}

fn judge(bounds: &[Bound], counted: &[(String, f64)]) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, count) in counted {
        let Some(bound) = bounds.iter().find(|bound| bound.name == *name) else {
            verdict.wrong.push(format!("{name}: {count}, not recorded yet"));
            continue;
        };
        let margin = bound.margin.of(bound.count);
        let word = if *count > bound.count + margin {
            verdict
                .wrong
                .push(format!("{name}: grew from {} to {count}; it may by {}", bound.count, bound.margin));
            "GREW"
        } else if *count < bound.count - margin {
            "fell: record it"
        } else {
            "ok"
        };
        verdict.table.push(format!(
            "{name:<28} {count:>10}  recorded {:>10} + {:<5} {word}",
            bound.count, bound.margin
        ));
    }
    let gone = bounds.iter().filter(|bound| counted.iter().all(|(name, _)| *name != bound.name));
    verdict.wrong.extend(gone.map(|bound| format!("{}: recorded, but no longer counted", bound.name)));
    verdict
}

fn render(head: &str, bounds: &[Bound], counted: &[(String, f64)], new: Margin) -> String {
    let mut text: String = head.lines().map_while(|l| l.starts_with('#').then(|| format!("{l}\n"))).collect();
    for (name, count) in counted {
        let margin = bounds.iter().find(|bound| bound.name == *name).map_or(new, |bound| bound.margin);
        text.push_str(&format!("{name:<28} {count:>10}  {margin}\n"));
    }
    text
}

/// Holds `counted` against `file`. With UPDATE_COUNTS in the environment writes it instead: its comment stays, each
/// margin too, and a new line gets `new`.
pub(crate) fn hold(file: &Path, counted: &[(String, f64)], new: Margin) -> Result<Verdict, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
    let bounds = parse(&text).map_err(|e| format!("{shown}: {e}"))?;
    if std::env::var_os("UPDATE_COUNTS").is_none() {
        return Ok(judge(&bounds, counted));
    }
    let text = render(&text, &bounds, counted, new);
    std::fs::write(file, &text).map_err(|e| format!("{shown}: {e}"))?;
    Ok(Verdict { table: text.lines().map(str::to_owned).collect(), wrong: Vec::new() })
}
