//! What an access-log line looks like: JSON, or a text with fields, compiled once.
//!
//! docs/operations/access-log-formats.md has every field; its table is written from [`FIELDS`].

use super::access;
use super::fields::{FIELDS, Field, Value};
use dataplane::limits;
use dataplane::spec::Snapshot;
use dataplane::stats::access_log::Record;

/// `"common"`: NCSA's common log format, as Apache and nginx have it. A tcp connection's bytes stand for a body's.
const COMMON: &str = "${remote_addr} - - [${time_common}] \"${request}\" ${status} ${bytes_down}";
/// `"combined"`: the same with Referer and User-Agent.
const COMBINED: &str = "${remote_addr} - - [${time_common}] \"${request}\" ${status} ${bytes_down} \"${referer}\" \"${user_agent}\"";
/// The words for them, in the manual's order.
pub const WORDS: [&str; 3] = ["json", "common", "combined"];

/// The names of all fields.
pub fn field_names() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(name, ..)| *name)
}

/// `format` of an `[[access_log]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFormat {
    Json,
    Text(Vec<Piece>),
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(Box<str>),
    /// What a field says. `quoted`: it stands between quotes, so that a space in it is no end of it.
    Value {
        field: Field,
        quoted: bool,
    },
}

/// What is wrong with a format, and at which byte of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub what: String,
    /// The names that may have been meant.
    pub known: bool,
    pub name: String,
}

impl LineFormat {
    /// The format that a configuration names or writes out.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "json" => Ok(Self::Json),
            "common" => compile(COMMON),
            "combined" => compile(COMBINED),
            text => compile(text),
        }
    }

    /// Appends the line of `record`, its newline included.
    pub fn write(&self, out: &mut Vec<u8>, record: &Record<'_>, snapshot: &Snapshot) {
        match self {
            Self::Json => access::write_line(out, record, snapshot),
            Self::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Value { field, quoted } => {
                            Value { out, quoted: *quoted }.put(*field, record, snapshot);
                        }
                    }
                }
                out.push(b'\n');
            }
        }
    }
}

fn fault(at: usize, what: impl Into<String>) -> Fault {
    Fault { at, what: what.into(), known: false, name: String::new() }
}

fn compile(text: &str) -> Result<LineFormat, Fault> {
    if text.len() > limits::LOG_FORMAT_BYTES {
        let most = limits::LOG_FORMAT_BYTES;
        return Err(fault(0, format!("has {} bytes, which is out of range (at most {most})", text.len())));
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| access::unprintable(*c) && *c != '\t') {
        return Err(fault(at, format!("{c:?} cannot stand in a line")));
    }
    let (mut pieces, mut plain, mut quoted, mut at) = (Vec::new(), String::new(), false, 0);
    while let Some((before, after)) = text[at..].split_once('$') {
        plain.push_str(before);
        quoted ^= before.matches('"').count() % 2 == 1;
        at += before.len();
        if after.starts_with('$') {
            plain.push('$');
            at += 2;
            continue;
        }
        let Some(inside) = after.strip_prefix('{') else {
            plain.push('$');
            at += 1;
            continue;
        };
        let Some((name, _)) = inside.split_once('}') else {
            return Err(fault(at, "a \"${\" lacks its \"}\"; write \"$${\" for the characters themselves"));
        };
        let Some((_, field, _)) = FIELDS.iter().find(|(known, ..)| *known == name) else {
            let shown: String = name.chars().take(64).collect();
            let what = format!("no field of the access log is called {shown:?}");
            return Err(Fault { at: at + 2, what, known: true, name: shown });
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
        }
        pieces.push(Piece::Value { field: *field, quoted });
        at += name.len() + 3;
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    if !pieces.iter().any(|piece| matches!(piece, Piece::Value { .. })) {
        return Err(Fault {
            at: 0,
            what: format!(
                "wants \"json\", \"common\", \"combined\" or a text with fields as ${{path}}; this is {text:?}"
            ),
            known: false,
            name: text.chars().take(64).collect(),
        });
    }
    Ok(LineFormat::Text(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::access::tests::{record, snapshot};
    use dataplane::limits::LOG_STRING_BYTES;

    fn line(format: &str, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        LineFormat::parse(format).unwrap().write(&mut out, record, &snapshot());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_formats_keep_their_form() {
        let record =
            Record { query: Some(b"q=\"1\""), user_agent: Some(b"curl/8 \\ \xff"), status: 200, ..record() };
        assert_eq!(
            line("common", &record),
            "127.0.0.1 - - [31/Dec/2026:23:59:59 +0000] \"GET /?q=\\x221\\x22 HTTP/1.1\" 200 7\n"
        );
        assert_eq!(
            line("combined", &record),
            "127.0.0.1 - - [31/Dec/2026:23:59:59 +0000] \"GET /?q=\\x221\\x22 HTTP/1.1\" 200 7 \"-\" \"curl/8 \\x5C \\xFF\"\n"
        );
        assert_eq!(line("$${path}$ ${path}$", &record), "${path}$ /$\n");
    }

    #[test]
    fn every_field_has_a_value_for_every_record() {
        let tcp = Record::of_tcp(record().listener, record().peer, record().request_id);
        for (name, ..) in FIELDS {
            for record in [&record(), &tcp] {
                let line = line(&format!("${{{name}}}"), record).replace(" +0000", "");
                assert!(line.len() > 1 && !line.trim_end().contains(' '), "{name}: {line:?}");
            }
        }
    }

    /// Threat H09: nothing that a client sends ends a line, a quoted text, or a column.
    #[test]
    fn hostile_bytes_stay_in_their_column() {
        let all: Vec<u8> = (0..=255).collect();
        let long = vec![b'"'; LOG_STRING_BYTES];
        for hostile in [&all[..], b"\r\n127.0.0.1 - - x", "\u{2028}\u{202e} é".as_bytes(), b" \" ", &long] {
            let record = Record {
                method: hostile,
                host: hostile,
                path: hostile,
                query: Some(hostile),
                user_agent: Some(hostile),
                referer: Some(hostile),
                ..record()
            };
            let bare =
                line("${method} ${host} ${path} ${query} ${user_agent} ${referer} ${request}", &record);
            assert_eq!((bare.matches(' ').count(), bare.matches('\n').count()), (6, 1), "{bare:?}");
            assert!(
                bare.trim_end().bytes().all(|b| b.is_ascii_graphic() || b == b' ') && !bare.contains('"')
            );
            let quoted = line("combined", &record);
            assert_eq!((quoted.matches('"').count(), quoted.matches('\n').count()), (6, 1), "{quoted:?}");
        }
    }

    #[test]
    fn faults_are_told_at_their_byte() {
        let at = |text: &str| LineFormat::parse(text).unwrap_err().at;
        assert_eq!(at("a ${hots}"), 4);
        assert_eq!(at("${path} ${"), 8);
        assert_eq!(at("${path}\n"), 7);
        assert_eq!(at("jsno"), 0);
        assert_eq!(at(&"${path}".repeat(2000)), 0);
    }
}
