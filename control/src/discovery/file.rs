//! `endpoints_file`: a list of endpoints that somebody else writes, one a line.
//!
//! `ADDRESS [name=NAME] [weight=N] [backup]`; what follows a `#` does not count. A list with a mistake is not used, not even
//! the lines without one: whoever writes it should replace it as a whole (rename(2)), so that no half of it is ever seen.

use super::Found;
use crate::config::{connectable, disk, is_name};
use dataplane::io::Address;
use dataplane::limits;
use dataplane::spec::{Endpoint, EndpointId};
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file: (u64, u64),
    changed: (i64, i64),
    modified: (i64, i64),
    len: u64,
}

impl State {
    fn of(file: &Metadata) -> Self {
        Self {
            file: (file.dev(), file.ino()),
            changed: (file.ctime(), file.ctime_nsec()),
            modified: (file.mtime(), file.mtime_nsec()),
            len: file.len(),
        }
    }
}

/// Looks at a file for ever, and tells what stands in it, each time that it is another than before.
pub(super) async fn follow(place: usize, path: PathBuf, tell: mpsc::Sender<Found>) {
    let mut seen: Option<Result<State, String>> = None;
    loop {
        let (path, before) = (path.clone(), seen.clone());
        // Not on the control thread: a file on a network that is gone holds up whoever looks at it.
        let look = tokio::task::spawn_blocking(move || look(&path, before.as_ref())).await;
        if let Ok(Some((state, list))) = look {
            seen = Some(state);
            if tell.send(Found::File(place, list)).await.is_err() {
                return;
            }
        }
        sleep(limits::ENDPOINTS_FILE_LOOK).await;
    }
}

/// What stands in a file now, unless it is as it was.
#[allow(clippy::type_complexity, reason = "one use, as it is told")]
fn look(
    path: &Path,
    before: Option<&Result<State, String>>,
) -> Option<(Result<State, String>, Result<Vec<Endpoint>, String>)> {
    let now = std::fs::metadata(path).map(|file| State::of(&file)).map_err(|error| error.to_string());
    (before != Some(&now)).then(|| (now, read(path)))
}

/// The endpoints that a file lists, whose ids mean nothing; the error names the line.
pub(crate) fn read(path: &Path) -> Result<Vec<Endpoint>, String> {
    let most = limits::ENDPOINTS_FILE_BYTES;
    let mut bytes = Vec::new();
    let file = disk::open(path).map_err(|why| format!("cannot be read: {why}"))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("is larger than {most} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    parse(&text).map_err(|(line, what)| format!("line {line}: {what}"))
}

/// The endpoints of a text, or the first mistake and its line.
fn parse(text: &str) -> Result<Vec<Endpoint>, (usize, String)> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut names = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        if line.is_empty() {
            continue;
        }
        let endpoint = endpoint(line).map_err(|what| (number, what))?;
        if !names.insert(endpoint.name.clone()) {
            let hint = if line.contains("name=") { "" } else { "; give each a name=NAME" };
            return Err((number, format!("another endpoint is called {:?}{hint}", endpoint.name)));
        }
        if endpoints.len() == limits::ENDPOINTS_MAX {
            return Err((number, format!("more than {} endpoints", limits::ENDPOINTS_MAX)));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn endpoint(line: &str) -> Result<Endpoint, String> {
    let mut words = line.split_whitespace();
    let text = words.next().unwrap_or_default();
    let address: Address = connectable(text)?;
    let mut endpoint = Endpoint::new(EndpointId(0), &address.to_string(), address);
    let mut said = BTreeSet::new();
    for word in words {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        if !said.insert(key) {
            return Err(format!("{key:?} stands there twice"));
        }
        match (key, value) {
            ("name", Some(name)) if is_name(name) => endpoint.name = name.into(),
            ("name", _) => {
                return Err(format!(
                    "{word:?}: a name is a-z and 0-9 first, then also _ . -, at most 64 of them"
                ));
            }
            ("weight", Some(weight)) => {
                let bound = limits::ENDPOINT_WEIGHT;
                let number = weight.parse::<u64>().ok().filter(|n| (bound.min..=bound.max).contains(n));
                let weight = number.and_then(|n| u32::try_from(n).ok());
                endpoint.weight = weight
                    .ok_or_else(|| format!("{word:?} is out of range ({} to {})", bound.min, bound.max))?;
            }
            ("backup", None) => endpoint.priority = 1,
            _ => return Err(format!("{word:?} is not name=NAME, weight=N or backup")),
        }
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_endpoint_a_line() {
        let text = "# ours\n\n10.0.0.1:80\n  [::1]:80 weight=3 name=six backup # and a word\r\nunix:/run/a.sock weight=0\n";
        let list = parse(text).unwrap();
        let words: Vec<_> =
            list.iter().map(|e| (&*e.name, e.address.to_string(), e.weight, e.priority)).collect();
        assert_eq!(
            words,
            [
                ("10.0.0.1:80", "10.0.0.1:80".to_owned(), 1, 0),
                ("six", "[::1]:80".to_owned(), 3, 1),
                ("unix:/run/a.sock", "unix:/run/a.sock".to_owned(), 0, 0),
            ]
        );
        assert_eq!(parse(""), Ok(vec![]));
        let twice = parse("10.0.0.1:80\n10.0.0.1:80 name=other").unwrap();
        assert_eq!(twice.len(), 2, "one address under two names is two endpoints, as in the configuration");
    }

    #[test]
    fn a_mistake_names_its_line() {
        let rows = [
            ("10.0.0.1", 1, "lacks its port"),
            ("10.0.0.1:80\napp.internal:80", 2, "host name"),
            ("10.0.0.1:80\n\n10.0.0.1:80", 3, "called \"10.0.0.1:80\"; give each a name=NAME"),
            ("10.0.0.1:80 name=a\n10.0.0.2:80 name=a", 2, "called"),
            ("10.0.0.1:80 weight=257", 1, "out of range"),
            ("10.0.0.1:80 weight=1 weight=1", 1, "twice"),
            ("10.0.0.1:80 name=A", 1, "name"),
            ("10.0.0.1:80 backup=yes", 1, "backup"),
            ("10.0.0.1:80 fast", 1, "\"fast\""),
            ("0.0.0.0:0", 1, "port 0"),
            ("224.0.0.1:80", 1, "multicast"),
            ("unix:", 1, ""),
        ];
        for (text, line, what) in rows {
            let (at, told) = parse(text).unwrap_err();
            assert!(at == line && told.contains(what), "{text:?}: {at}: {told}");
        }
    }

    #[test]
    fn a_file_is_read_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let (state, list) = look(&path, None).unwrap();
        assert!(list.unwrap_err().contains("cannot be read"));
        assert!(look(&path, Some(&state)).is_none());
        std::fs::write(&path, "10.0.0.1:80\n").unwrap();
        let (state, list) = look(&path, Some(&state)).unwrap();
        assert_eq!(list.unwrap().len(), 1);
        assert!(look(&path, Some(&state)).is_none());
        std::fs::write(dir.path().join("new"), "10.0.0.2:80\n").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        let (state, list) = look(&path, Some(&state)).unwrap();
        assert_eq!(list.unwrap()[0].address.to_string(), "10.0.0.2:80", "of the same length");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(
            look(&path, Some(&state)).unwrap().1.unwrap_err(),
            "cannot be read: it is a directory, not a regular file"
        );
    }
}
