//! Reads the case files of this folder.

use std::path::Path;

/// One case; each file says at its head what its lines mean.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// File and name, for messages.
    pub(crate) name: String,
    pub(crate) method: Option<String>,
    pub(crate) sent: Vec<u8>,
    pub(crate) outcomes: Vec<String>,
    pub(crate) has: Vec<String>,
    pub(crate) lacks: Vec<String>,
}

/// `\R(TEXT,N)` becomes N times TEXT; inner ones first.
fn expand(text: &str) -> String {
    let Some(at) = text.rfind("\\R(") else { return text.to_owned() };
    let rest = &text[at + 3..];
    let mut depth = 1;
    let close = rest
        .char_indices()
        .find(|(_, c)| {
            depth += i32::from(*c == '(') - i32::from(*c == ')');
            depth == 0
        })
        .expect("a repeat ends")
        .0;
    let (unit, times) = rest[..close].rsplit_once(',').expect("a repeat has a count");
    let times = times.parse().expect("a count is a number");
    expand(&format!("{}{}{}", &text[..at], unit.repeat(times), &rest[close + 1..]))
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("an unknown escape {other:?} in {text}"),
            },
            other => other,
        });
    }
    bytes
}

/// The cases of the files whose names are wanted.
pub(crate) fn cases(wanted: impl Fn(&str) -> bool) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<Case> = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".txt") || !wanted(name) {
            continue;
        }
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            if let Some(id) = line.strip_prefix('[') {
                let id = id.strip_suffix(']').expect("a name ends with a bracket");
                cases.push(Case { name: format!("{name} [{id}]"), ..Case::default() });
                continue;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let case = cases.last_mut().expect("a case begins with its name");
            let (kind, text) = line.split_at(2);
            match kind {
                "> " | "< " => case.sent.extend(unescape(&expand(text))),
                "= " => case.outcomes.push(expand(text)),
                "+ " => case.has.push(expand(text)),
                "- " => case.lacks.push(text.to_ascii_lowercase()),
                "? " => case.method = Some(text.to_owned()),
                _ => panic!("{}: an unknown line {line}", case.name),
            }
        }
    }
    for case in &cases {
        assert!(!case.sent.is_empty() && !case.outcomes.is_empty(), "{} is incomplete", case.name);
    }
    cases
}
