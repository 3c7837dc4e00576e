//! Every problem of a configuration file at once, each with its line and column.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;

/// Problems kept; what is wrong beyond them is only counted.
const PROBLEMS_MAX: usize = 1000;

/// The key under which faults of the TOML itself are reported.
const SYNTAX: &str = "syntax";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be run.
    Error,
    /// It can, but does something that was hardly meant.
    Warning,
}

impl Severity {
    /// The word that a report prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, or doubtful, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub severity: Severity,
    /// The key as docs/config.md names it, or `syntax` or `file`.
    pub key: String,
    pub what: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, severity, key, what, nearest } = self;
        write!(f, "{file}:{line}:{column}: {}: {key}: {what}", severity.name())?;
        nearest.as_ref().map_or(Ok(()), |nearest| write!(f, " (nearest: {nearest})"))
    }
}

/// The problems of one file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub problems: Vec<Problem>,
}

impl Report {
    /// A report of one error that concerns the file as a whole.
    pub(crate) fn of_file(file: &str, what: String) -> Self {
        let (severity, key) = (Severity::Error, "file".to_owned());
        let problem =
            Problem { file: file.to_owned(), line: 1, column: 1, severity, key, what, nearest: None };
        Self { problems: vec![problem] }
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether anything in it forbids to run the file.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// The same for machines: an array with one object for each problem.
    pub fn to_json(&self) -> serde_json::Value {
        self.problems
            .iter()
            .map(|p| {
                serde_json::json!({
                    "file": p.file, "line": p.line, "column": p.column, "severity": p.severity.name(),
                    "key": p.key, "what": p.what, "nearest": p.nearest,
                })
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

/// A problem found, before its place is known as line and column.
#[derive(Debug)]
struct Found {
    offset: usize,
    /// How many bytes into the string that begins there.
    inside: usize,
    severity: Severity,
    key: String,
    what: String,
    nearest: Option<String>,
    line: usize,
    column: usize,
}

/// Where problems are put while a file is read. A cell, so that tables of the file can be read side by side.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Found>>,
    not_kept: Cell<usize>,
    /// The text has faults of syntax: what seems to be missing may only be unreadable.
    torn: Cell<bool>,
}

impl Problems {
    pub(super) fn add(
        &self,
        severity: Severity,
        offset: usize,
        key: &str,
        what: String,
        nearest: Option<String>,
    ) {
        let mut found = self.found.borrow_mut();
        if found.len() < PROBLEMS_MAX {
            let (key, line, column) = (key.to_owned(), 1, 1);
            found.push(Found { offset, inside: 0, severity, key, what, nearest, line, column });
        } else {
            self.not_kept.set(self.not_kept.get() + 1);
        }
    }

    /// An error at a byte of the string that begins at `offset`.
    pub(super) fn add_inside(
        &self,
        offset: usize,
        inside: usize,
        key: &str,
        what: String,
        nearest: Option<String>,
    ) {
        self.add(Severity::Error, offset, key, what, nearest);
        if let Some(last) = self.found.borrow_mut().last_mut().filter(|last| last.offset == offset) {
            last.inside = inside;
        }
    }

    /// A fault of the TOML itself.
    pub(super) fn syntax(&self, offset: usize, what: String, nearest: Option<String>) {
        self.torn.set(true);
        self.add(Severity::Error, offset, SYNTAX, what, nearest);
    }

    /// Whether anything wrong was found, so that what follows from it need not be told too.
    pub(super) fn any_error(&self) -> bool {
        self.found.borrow().iter().any(|found| found.severity == Severity::Error)
    }

    /// Something is not there, or not used. Not said of a torn text, where it may be there and be unreadable.
    pub(super) fn absent(
        &self,
        severity: Severity,
        offset: usize,
        key: &str,
        what: String,
        nearest: Option<String>,
    ) {
        if !self.torn.get() {
            self.add(severity, offset, key, what, nearest);
        }
    }

    /// The report: in the order of the file, without echoes of faulty lines.
    pub(super) fn finish(self, file: &str, text: &str) -> Report {
        let mut found = self.found.into_inner();
        for one in found.iter_mut().filter(|one| one.inside > 0) {
            one.offset = place_in_string(text, one.offset, one.inside);
        }
        found.sort_by_key(|f| f.offset);
        locate(&mut found, text);
        let faulty: BTreeSet<usize> = found.iter().filter(|f| f.key == SYNTAX).map(|f| f.line).collect();
        found.retain(|f| f.key == SYNTAX || !faulty.contains(&f.line));
        found.dedup_by(|b, a| a.key == SYNTAX && b.key == SYNTAX && a.line == b.line);
        let mut problems: Vec<Problem> = found
            .into_iter()
            .map(|Found { severity, key, what, nearest, line, column, .. }| Problem {
                file: file.to_owned(),
                line,
                column,
                severity,
                key,
                what,
                nearest,
            })
            .collect();
        problems.dedup();
        if self.not_kept.get() > 0 {
            let what = format!("and {} more problems", self.not_kept.get());
            problems.extend(Report::of_file(file, what).problems);
        }
        Report { problems }
    }
}

/// Where the byte `inside` of a string's value stands in the text, in which the string begins at `offset` (TOML 1.0,
/// "String"). Where that cannot be told, its begin.
fn place_in_string(text: &str, offset: usize, inside: usize) -> usize {
    let raw = text.get(offset..).unwrap_or_default();
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| raw.starts_with(quote));
    let Some(quote) = quote else { return offset };
    let mut at = quote.len();
    if quote.len() == 3 {
        // A newline right behind the quotes is none of the value.
        at += ["\r\n", "\n"].into_iter().find(|end| raw[at..].starts_with(end)).map_or(0, str::len);
    }
    let mut value = 0;
    loop {
        let mut rest = raw[at..].chars();
        let Some(c) = rest.next() else { return offset };
        // The end of a line that goes on has no length, and may stand right before the place.
        let goes_on = c == '\\' && quote == "\"\"\"" && raw[at + 1..].starts_with(char::is_whitespace);
        if value >= inside && !goes_on {
            return offset + at;
        }
        if c != '\\' || quote.starts_with('\'') {
            (at, value) = (at + c.len_utf8(), value + c.len_utf8());
            continue;
        }
        let digits = match rest.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(c) if c.is_whitespace() => {
                // Nothing up to the next text is of the value.
                at += 1 + raw[at + 1..]
                    .chars()
                    .take_while(|c| c.is_whitespace())
                    .map(char::len_utf8)
                    .sum::<usize>();
                continue;
            }
            Some(_) => 0,
            None => return offset,
        };
        let code = raw.get(at + 2..at + 2 + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        value += if digits == 0 { 1 } else { code.and_then(char::from_u32).map_or(1, char::len_utf8) };
        at += 2 + digits;
    }
}

/// Turns offsets, which ascend, into lines and columns in one pass over the text.
fn locate(found: &mut [Found], text: &str) {
    let (mut at, mut line, mut column) = (0, 1, 1);
    for problem in found {
        let mut to = problem.offset.min(text.len());
        while !text.is_char_boundary(to) {
            to -= 1;
        }
        for c in text.get(at..to).unwrap_or_default().chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        at = to.max(at);
        (problem.line, problem.column) = (line, column);
    }
}

/// The known name that `word` was probably meant to be: at most a third of its letters differ,
/// or one begins with the other.
pub(super) fn nearest<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let begins =
        |name: &str| word.len().min(name.len()) >= 3 && (word.starts_with(name) || name.starts_with(&word));
    known
        .into_iter()
        .filter(|name| name.len() <= 2 * LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&word, name), name))
        .filter(|&(distance, name)| {
            distance <= (word.chars().count().max(name.len()) / 3).max(1) || begins(name)
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name.to_owned())
}

/// A key as a message shows it: on one line, and not endless.
pub(super) fn shown(key: &str) -> String {
    let plain = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    if plain {
        return key.to_owned();
    }
    let cut: String = key.chars().take(64).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_string_is_found_behind_its_escapes() {
        for (raw, value) in [
            ("\"ab${x}\"", "ab${x}"),
            ("'a\\b${x}'", "a\\b${x}"),
            ("\"\\\"é\\u00e9\\t${x}\"", "\"éé\t${x}"),
            ("\"\"\"\n a \\\n   ${x}\"\"\"", " a ${x}"),
            ("'''\n${x}'''", "${x}"),
        ] {
            let text = format!("key = {raw}");
            let inside = value.find("${").unwrap();
            let want = if inside == 0 { 6 } else { text.find("${").unwrap() };
            let found = if inside == 0 { 6 } else { place_in_string(&text, 6, inside) };
            assert_eq!(found, want, "{raw}");
        }
        assert_eq!(place_in_string("a = 5", 4, 3), 4);
    }

    #[test]
    fn places_count_characters_and_ascend() {
        let text = "é = 1\nab = 2\n";
        let problems = Problems::default();
        problems.add(Severity::Warning, text.find("ab").unwrap(), "ab", "second".into(), Some("abc".into()));
        problems.add(Severity::Error, text.find('1').unwrap(), "é", "first".into(), None);
        problems.add(Severity::Error, 4000, "end", "beyond".into(), None);
        let report = problems.finish("f.toml", text);
        assert_eq!(
            report.to_string(),
            "f.toml:1:5: error: é: first\nf.toml:2:1: warning: ab: second (nearest: abc)\n\
             f.toml:3:1: error: end: beyond\n"
        );
        assert!(report.has_errors());
    }

    #[test]
    fn a_torn_text_lacks_nothing_and_its_faulty_lines_speak_once() {
        let problems = Problems::default();
        problems.syntax(0, "broken".into(), None);
        problems.add(Severity::Error, 2, "x", "an echo of line 1".into(), None);
        problems.absent(Severity::Error, 5, "y", "missing".into(), None);
        problems.add(Severity::Error, 5, "z", "wrong".into(), None);
        let report = problems.finish("f", "a b\nz");
        let keys: Vec<_> = report.problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["syntax", "z"]);
    }

    #[test]
    fn problems_are_bounded() {
        let problems = Problems::default();
        for _ in 0..PROBLEMS_MAX + 5 {
            problems.add(Severity::Error, 0, "k", "w".into(), None);
        }
        assert_eq!(problems.not_kept.get(), 5);
        assert_eq!(problems.found.borrow().len(), PROBLEMS_MAX);
    }

    #[test]
    fn json_has_every_field() {
        let json = Report::of_file("f", "gone".into()).to_json();
        assert_eq!(
            json.to_string(),
            r#"[{"column":1,"file":"f","key":"file","line":1,"nearest":null,"severity":"error","what":"gone"}]"#
        );
    }

    #[test]
    fn nearest_names() {
        let known = ["listener", "cluster", "idle"];
        assert_eq!(nearest("listner", known).as_deref(), Some("listener"));
        assert_eq!(nearest("Cluster", known).as_deref(), Some("cluster"));
        assert_eq!(nearest("idel", known).as_deref(), Some("idle"));
        assert_eq!(nearest("idle_timeout", known).as_deref(), Some("idle"));
        assert_eq!(nearest("route", known), None);
        assert_eq!(nearest(&"x".repeat(5000), known), None);
    }
}
