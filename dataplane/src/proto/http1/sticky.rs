//! The cookie of ours in heads as they leave us: hidden from origins, set for clients.

use super::write::Writer;
use crate::proto::fields::is_cookie;
use crate::proto::{Field, FieldName};

/// What becomes of our cookie in a response of a cluster that has one.
#[derive(Debug, Clone, Copy)]
pub struct StickyEdits<'a> {
    pub cookie: &'a [u8],
    /// The value that the client is given; none if it keeps what it has.
    pub value: Option<&'a [u8]>,
    /// What follows the value, from its first ";" on.
    pub attributes: &'a [u8],
    /// Mark a response that sets it as private.
    pub private: bool,
}

/// Whether a field is the origin's attempt to set our cookie, which is ours to set.
pub(super) fn sets(field: &Field, bytes: &[u8], cookie: &[u8]) -> bool {
    let name = |value: &[u8]| value.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii() == cookie;
    field.kind == FieldName::SetCookie && name(field.value.of(bytes))
}

/// Sets the cookie. `private` has a line of its own beside whatever the origin said of caches: a list may be spread over
/// lines (RFC 9110 5.3), and of directives that conflict a cache obeys the more restrictive (RFC 9111 4.2.1).
pub(super) fn set(to: &mut Writer<'_>, edits: &StickyEdits<'_>) {
    let Some(value) = edits.value else { return };
    to.text(b"set-cookie: ");
    to.foreign(edits.cookie);
    to.text(b"=");
    to.foreign(value);
    to.foreign(edits.attributes);
    to.text(b"\r\n");
    if edits.private {
        to.text(b"cache-control: private\r\n");
    }
}

/// The Cookie lines without our cookie, the others byte for byte; a line that had no other is left out.
pub(super) fn pass_others(to: &mut Writer<'_>, fields: &[Field], bytes: &[u8], cookie: &[u8]) {
    for field in fields.iter().filter(|f| f.kind == FieldName::Cookie && !f.hop) {
        let value = field.value.of(bytes);
        let others = || value.split(|b| *b == b';').filter(|pair| !is_cookie(pair, cookie));
        if others().all(|pair| pair.trim_ascii().is_empty()) {
            continue;
        }
        to.foreign(field.name.of(bytes));
        to.text(b": ");
        for (at, pair) in others().enumerate() {
            to.text(if at == 0 { b"" } else { b";" });
            to.foreign(if at == 0 { pair.trim_ascii_start() } else { pair });
        }
        to.text(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Span;

    /// The Cookie lines that are left of these, with "|" for an end of line.
    fn left(lines: &[&str]) -> String {
        let bytes = format!("Cookie{}", lines.concat()).into_bytes();
        let mut at = 6;
        let fields: Vec<_> = lines
            .iter()
            .map(|line| {
                let value = Span::between(at, at + line.len());
                at += line.len();
                Field { name: Span::between(0, 6), value, kind: FieldName::Cookie, hop: false }
            })
            .collect();
        let mut out = [0; 500];
        let mut to = Writer::new(&mut out);
        pass_others(&mut to, &fields, &bytes, b"SO");
        let len = to.finish().unwrap();
        String::from_utf8(out[..len].to_vec()).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn others_pass_byte_for_byte() {
        for (lines, expected) in [
            (&["SO=1"][..], "|"),
            (&["a=1"], "Cookie: a=1||"),
            (&["SO=1; a=1"], "Cookie: a=1||"),
            (&["a=1; SO=1"], "Cookie: a=1||"),
            (&["a=1; SO=1; b=2;c=3;  d"], "Cookie: a=1; b=2;c=3;  d||"),
            (&["a=1;SO=1;SO=2 ;b=\"SO=3\""], "Cookie: a=1;b=\"SO=3\"||"),
            (&["SO=1; SO=2;"], "|"),
            (&["SO", "so=1", "SOS=1", "a=SO=1"], "Cookie: SO|Cookie: so=1|Cookie: SOS=1|Cookie: a=SO=1||"),
            (&["b=1; SO=x", "SO=y", "c=;d=\t;"], "Cookie: b=1|Cookie: c=;d=\t;||"),
            (&["SO = 1; a=1"], "Cookie: SO = 1; a=1||"),
            (&["", " ; ;"], "|"),
        ] {
            assert_eq!(left(lines), expected, "{lines:?}");
        }
    }
}
