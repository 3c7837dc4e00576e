//! House rules that the compiler does not check: lengths, layers, homes of `unsafe`, words, and that each threat names its test.
//!
//! Every exception is written here with its reason, and an exception that is no longer needed fails too (a ratchet).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 1000;
/// Files that may be longer, up to a size, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Lowest first; a module may use its own row and those below. docs/architecture.md draws it.
const LAYERS: &[&[&str]] = &[
    &["limits", "fault", "mix", "sync"],
    &["spec", "io", "buf"],
    &["sys", "stats", "proto"],
    &["route", "cluster", "table", "stream", "bulk", "deadlines"],
    &["link", "post"],
    &["tunnel"],
    &["exchange"],
    &["conn"],
    &["listener"],
    &["shard", "sim"],
    &["plane"],
];
/// `core.rs` names together the state one shard owns: it holds types of these layers, and all of them work on it.
const CORE_FROM: usize = 4;
/// Who may not use whom although the layers would let it: (user, used, except these users).
const BANS: &[(&str, &str, &[&str])] = &[("*", "sys", &["sys", "shard", "plane"]), ("proto", "spec", &[])];
/// Modules that control may not name: it drives shards through `plane` and describes them with `spec`.
const NOT_FOR_CONTROL: &[&str] = &["sys", "buf", "link", "tunnel", "exchange", "conn", "listener", "core"];

/// Where `unsafe` may stand: the kernel, the buffer memory, tests that speak to either, and the bench's own ring.
const UNSAFE_HOMES: &[&str] = &[
    "dataplane/src/sys/",
    "dataplane/src/buf/arena.rs",
    "dataplane/tests/contract/forbidden.rs",
    "dataplane/tests/contract/ring.rs",
    "dataplane/tests/no_alloc/counting.rs",
    "control/tests/e2e/support/seccomp.rs",
    "bench/src/sys/",
];
/// Where a test may pause: where time passing is the subject (a slow client, a stopped process), and between two looks, up
/// to a deadline, at something that has no event.
const PAUSE_HOMES: &[&str] = &["control/tests/e2e/"];

/// Rows of the threat model whose test has yet to be written or named. May only shrink.
const UNPROVEN: &[&str] = &[];

/// Documents that others link to and that are still being written. May only shrink.
const AWAITED: &[&str] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// (path from the root, text) of every text file with one of these endings.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts", "coverage", ".venv"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|e| name.ends_with(e))
                && let Ok(text) = fs::read_to_string(&path)
            {
                let from_root = path.strip_prefix(&root).expect("below the root");
                found.push((from_root.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no file ends in {endings:?}");
    found.sort();
    found
}

fn fail_if_any(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// A line without its comment. A `//` inside a string cuts too, which hides at most the rest of that line.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_word(c)).filter(|w| !w.is_empty())
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let lines: Vec<&str> = text.lines().collect();
        let tests = lines.windows(2).position(|w| {
            w[0].starts_with("#[cfg(") && w[0].contains("test") && w[1].starts_with("mod tests")
        });
        let (length, test) = (tests.unwrap_or(lines.len()), is_test_file(&path));
        let max = if test { TEST_LINES_MAX } else { LINES_MAX };
        match LONG_FILES.iter().find(|(long, ..)| *long == path) {
            None if length > max => {
                found.push(format!("{path}: {length} lines; split it by concept (at most {max})"))
            }
            Some((_, grown, _)) if length > *grown => found.push(format!("{path}: grew to {length} lines")),
            Some(_) if length <= max => found.push(format!("{path}: short again; take it off LONG_FILES")),
            _ => {}
        }
    }
    fail_if_any(&found);
}

#[test]
fn files_say_their_job_first() {
    let late =
        files(&[".rs"]).into_iter().filter(|(_, text)| !text.starts_with("//! ") && text != "fn main() {}\n");
    fail_if_any(
        &late.map(|(path, _)| format!("{path}:1: say the file's job in a `//!` line")).collect::<Vec<_>>(),
    );
}

/// The top-level modules of a crate that `text` names, with their lines: `prefix::x` and `prefix::{x::…, y}`.
fn uses(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let code = text.lines().map(code).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut word) = (0, String::new());
            let mut at_start = true;
            for c in list.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && at_start && is_word(c) {
                    word.push(c);
                } else if !word.is_empty() {
                    found.push((line, std::mem::take(&mut word)));
                    at_start = false;
                }
                at_start = (at_start && (c.is_whitespace() || is_word(c))) || (depth == 0 && c == ',');
            }
            found.extend((!word.is_empty()).then_some((line, word)));
        } else {
            found.extend(words(rest).next().map(|w| (line, w.to_owned())));
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn may_use(user: &str, used: &str) -> bool {
    if BANS.iter().any(|(u, d, except)| (*u == "*" || *u == user) && *d == used && !except.contains(&user)) {
        return false;
    }
    match (layer(user), layer(used)) {
        (Some(user), Some(used)) => used <= user,
        (Some(user), None) => used != "core" || user >= CORE_FROM,
        (None, used) => used.is_none_or(|used| used <= layer("listener").unwrap_or(0)),
    }
}

/// Whether all that `text` takes from a higher `module` is the name of its state, the parameter of an `Id`: links, tunnels,
/// exchanges and conns hold each other's ids, which are opaque without the slab that `core` holds.
fn only_names_ids(text: &str, module: &str) -> bool {
    let path = format!("crate::{module}::");
    let states = ["conn::Conn", "exchange::Exchange", "tunnel::Tunnel"].map(|s| format!("use crate::{s};"));
    text.lines().map(code).filter(|l| l.contains(&path)).all(|l| states.iter().any(|s| s == l))
}

#[test]
fn layers_look_down_only() {
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if let Some(inner) = path.strip_prefix("dataplane/src/") {
            let module = inner.split(['/', '.']).next().unwrap_or_default();
            if module == "lib" {
                continue;
            }
            if module != "core" && layer(module).is_none() {
                found.push(format!("{path}: `{module}` has no layer in tidy.rs"));
            }
            for (line, used) in uses(&text, "crate::") {
                if may_use(module, &used) || only_names_ids(&text, &used) {
                    continue;
                }
                found.push(format!("{path}:{line}: `{module}` may not use `{used}`"));
            }
        } else if path.starts_with("control/src/") {
            for (line, used) in uses(&text, "dataplane::") {
                if NOT_FOR_CONTROL.contains(&used.as_str()) {
                    found.push(format!("{path}:{line}: control may not use `dataplane::{used}`: ask plane"));
                }
            }
        }
    }
    let manifest = fs::read_to_string(root().join("dataplane/Cargo.toml")).expect("dataplane's manifest");
    for outside in ["tokio", "serde", "toml", "axum", "tracing", "control"] {
        if manifest.lines().any(|l| l.split(['=', '.']).next().is_some_and(|name| name.trim() == outside)) {
            found.push(format!("dataplane/Cargo.toml: the data path does not know `{outside}`"));
        }
    }
    fail_if_any(&found);
}

#[test]
fn the_layer_check_reads_nested_imports() {
    let text = "use crate::{buf::{Chain, Pool}, io::Fd,\n  conn};\nlet x = crate::sys::f(); // crate::plane";
    let seen: Vec<_> =
        uses(text, "crate::").into_iter().map(|(line, used)| format!("{line}{used}")).collect();
    assert_eq!(seen, ["1buf", "1io", "1conn", "3sys"]);
    assert!(may_use("conn", "link") && may_use("link", "core") && may_use("core", "conn"));
    assert!(!may_use("link", "conn") && !may_use("conn", "sys") && !may_use("proto", "spec"));
    assert!(!may_use("table", "core") && !may_use("core", "shard"));
    assert!(only_names_ids("use crate::exchange::Exchange;\nstruct Owner(Id<Exchange>);", "exchange"));
    assert!(!only_names_ids("use crate::exchange::Exchange;\ncrate::exchange::end(core);", "exchange"));
    assert!(!only_names_ids("use crate::exchange::{self, Exchange};", "exchange"));
}

#[test]
fn unsafe_stays_at_home() {
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if UNSAFE_HOMES.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| words(code(line)).any(|w| w == concat!("un", "safe")));
        found.extend(lines.map(|(i, _)| {
            format!(
                "{path}:{}: keep this in its homes, dataplane/src/sys, buf/arena.rs and bench/src/sys",
                i + 1
            )
        }));
    }
    fail_if_any(&found);
}

#[test]
fn nothing_is_left_over() {
    let leftovers = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("thread::", "sleep"),
        concat!("#[ign", "ore]"),
    ];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs", ".py", ".sh"]) {
        let pauses = PAUSE_HOMES.iter().any(|home| path.starts_with(home));
        for (i, line) in text.lines().enumerate() {
            let line = if pauses { &line.replace(leftovers[6], "") } else { line };
            found.extend(
                leftovers.iter().filter(|l| line.contains(**l)).map(|l| format!("{path}:{}: {l}", i + 1)),
            );
        }
    }
    fail_if_any(&found);
}

#[test]
fn crates_inherit_the_lints() {
    let bare = files(&["Cargo.toml"]).into_iter().filter(|(path, text)| {
        path != "Cargo.toml" && !path.contains("fuzz/") && !text.contains("[lints]\nworkspace = true")
    });
    fail_if_any(&bare.map(|(path, _)| format!("{path}: say `[lints] workspace = true`")).collect::<Vec<_>>());
}

#[test]
fn types_use_the_words_of_the_glossary() {
    let endings = ["Manager", "Handler", "Context", "Helper", "Util", "Utils", "Misc"];
    let anywhere = ["Session", "Worker"];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        for (i, line) in text.lines().enumerate() {
            let mut words =
                words(code(line)).skip_while(|w| !["struct", "enum", "trait", "type"].contains(w));
            let (Some(_), Some(name)) = (words.next(), words.next()) else { continue };
            if endings.iter().any(|e| name.ends_with(e)) || anywhere.iter().any(|w| name.contains(w)) {
                found.push(format!("{path}:{}: `{name}`: find the word in docs/glossary.md", i + 1));
            }
        }
    }
    fail_if_any(&found);
}

#[test]
fn the_tree_speaks_of_ringway_alone() {
    let places =
        [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ro", "ot/."), concat!(".lib", "rary/")];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".toml", ".sh", ".py", ".txt", "run", "justfile"]) {
        for (i, line) in text.lines().enumerate() {
            let lower = line.to_ascii_lowercase();
            let numbered = |before: &str| {
                lower
                    .split(before)
                    .skip(1)
                    .any(|rest| rest.trim_start_matches([' ', '#']).starts_with(|c: char| c.is_ascii_digit()))
            };
            // Numbers of a design that the repository does not hold; threats have two digits, D01 to D12.
            let design = words(line).any(|w| {
                w.strip_prefix('D').is_some_and(|n| ["8", "9", "13", "14", "15"].contains(&n))
                    && path.ends_with(".rs")
            });
            let issue = numbered(concat!("iss", "ue ")) || numbered(concat!("iss", "ue #"));
            if issue || design || places.iter().any(|place| line.contains(place)) {
                found.push(format!("{path}:{}: names a place or number outside the repository", i + 1));
            }
        }
    }
    fail_if_any(&found);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let written = AWAITED.iter().filter(|file| root().join(file).exists());
    let mut found: Vec<String> =
        written.map(|file| format!("{file}: is here; take it off AWAITED")).collect();
    for (path, text) in files(&[".md"]) {
        let folder = root().join(&path).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let awaited = AWAITED.iter().any(|a| a.rsplit('/').next() == file.rsplit('/').next());
            if !target.contains("://") && !file.is_empty() && !awaited && !folder.join(file).exists() {
                found.push(format!("{path}: no file at `{target}`"));
            }
        }
    }
    fail_if_any(&found);
}

#[test]
fn documents_have_one_title() {
    let mut found = Vec::new();
    for (path, text) in files(&[".md"]) {
        let (mut fenced, mut titles) = (false, 0);
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            titles += usize::from(!fenced && line.starts_with("# "));
        }
        let first = text.lines().find(|l| !l.is_empty() && !l.starts_with("<!--"));
        if titles != 1 || !first.is_some_and(|l| l.starts_with("# ")) {
            found.push(format!("{path}: {titles} titles; one, in front"));
        }
    }
    fail_if_any(&found);
}

/// Ids that docs/threat-model.md must have a row for.
fn threat_ids() -> BTreeSet<String> {
    let series =
        [("F", 1, 23), ("L", 1, 10), ("T", 1, 9), ("H", 1, 10), ("U", 1, 6), ("D", 1, 12), ("B", 1, 7)];
    let mut ids: BTreeSet<String> =
        series.iter().flat_map(|(s, from, to)| (*from..=*to).map(move |n| format!("{s}{n:02}"))).collect();
    ids.extend((1..=7).map(|n| format!("io {n}")));
    ids
}

#[test]
fn every_threat_names_its_test() {
    let model = fs::read_to_string(root().join("docs/threat-model.md")).expect("docs/threat-model.md");
    let mut proofs = BTreeSet::new();
    for (path, text) in files(&[".rs", ".txt"]) {
        if path.starts_with("dataplane/tests/cases/") {
            // A block begins with "[ID name]"; the rows of the model name the id for all of its cases.
            let ids = text.lines().filter_map(|l| l.strip_prefix('[')?.split_whitespace().next());
            proofs.extend(ids.map(str::to_owned));
        } else if path.ends_with(".rs") {
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let is_test = |i: usize| lines[i.saturating_sub(3)..i].iter().any(|l| l.contains("test]"));
            for (_, line) in lines.iter().enumerate().filter(|(i, _)| is_test(*i)) {
                let name = line.split("fn ").nth(1).and_then(|rest| words(rest).next());
                proofs.extend(name.map(str::to_owned));
            }
            // Scenarios of the contract of Io, which a macro makes a test for each backend of.
            let scenarios = lines.iter().filter_map(|l| l.strip_prefix("$test!(")?.strip_suffix(");"));
            proofs.extend(scenarios.map(str::to_owned));
        }
    }
    let (mut found, mut missing) = (Vec::new(), threat_ids());
    for line in model.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(id), Some(proof)) = (cells.first(), cells.last()) else { continue };
        if !missing.remove(*id) {
            continue;
        }
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        let proven = proof.starts_with("later: ") || !names.is_empty();
        found.extend(
            names
                .iter()
                .filter(|n| !proofs.contains(**n))
                .map(|n| format!("{id}: no test or case is called `{n}`")),
        );
        match (proven, UNPROVEN.contains(id)) {
            (false, false) => found.push(format!("{id}: name the test that proves it")),
            (true, true) => found.push(format!("{id}: proven; take it off UNPROVEN")),
            _ => {}
        }
    }
    found.extend(missing.iter().map(|id| format!("{id}: no row in docs/threat-model.md")));
    fail_if_any(&found);
}
