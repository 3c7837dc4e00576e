//! Trailers: the section behind a chunked body, checked as it comes, and the few of its fields that may be passed on.

use super::field::{kind_of, twin_of};
use super::octets::{is_control, is_token, is_token_octet, trim_blank};
use crate::fault::Refusal;
use crate::limits::{TRAILER_BYTES, TRAILER_FIELDS};
use crate::proto::FieldName;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
enum Next {
    /// The first octet of a line.
    #[default]
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
}

/// The state of a trailer section, from behind the last chunk's line to the empty line.
#[derive(Debug, Default)]
pub(super) struct TrailerSection {
    bytes: u16,
    fields: u8,
    next: Next,
}

const _: () = assert!(TRAILER_BYTES < u16::MAX as u32 && TRAILER_FIELDS < u8::MAX as u32);

impl TrailerSection {
    /// Reads from `bytes`; returns how many belong to the section, and whether it ended. Its field lines are appended to
    /// `raw` with their CRLFs.
    pub(super) fn read(&mut self, bytes: &[u8], raw: Option<&mut Vec<u8>>) -> Result<(usize, bool), Refusal> {
        let mut lines = bytes.len();
        for (at, octet) in bytes.iter().enumerate() {
            match self.step(*octet)? {
                Some(next) => {
                    // The CR of the last, empty line is no part of a field line.
                    if next == Next::EndLf {
                        lines = at;
                    }
                    self.next = next;
                }
                None => {
                    append(raw, &bytes[..lines.min(at)]);
                    return Ok((at + 1, true));
                }
            }
        }
        append(raw, &bytes[..lines]);
        Ok((bytes.len(), false))
    }

    /// What comes after `octet`; `None` at the end of the section.
    fn step(&mut self, octet: u8) -> Result<Option<Next>, Refusal> {
        let invalid = Err(Refusal::TrailerInvalid);
        match (self.next, octet) {
            (Next::EndLf, b'\n') => return Ok(None),
            (Next::Line, b'\r') => return Ok(Some(Next::EndLf)),
            (Next::EndLf, _) => return invalid,
            _ => {}
        }
        self.bytes += 1;
        if u32::from(self.bytes) > TRAILER_BYTES {
            return Err(Refusal::TrailerTooLarge);
        }
        match (self.next, octet) {
            (Next::Line, b) if is_token_octet(b) => {
                self.fields += 1;
                if u32::from(self.fields) > TRAILER_FIELDS {
                    Err(Refusal::TrailerTooLarge)
                } else {
                    Ok(Some(Next::Name))
                }
            }
            (Next::Name, b':') => Ok(Some(Next::Value)),
            (Next::Name, b) if is_token_octet(b) => Ok(Some(Next::Name)),
            (Next::Value, b'\r') => Ok(Some(Next::ValueLf)),
            (Next::Value, b) if b == b'\t' || !is_control(b) => Ok(Some(Next::Value)),
            (Next::ValueLf, b'\n') => Ok(Some(Next::Line)),
            _ => invalid,
        }
    }
}

fn append(raw: Option<&mut Vec<u8>>, lines: &[u8]) {
    if let Some(raw) = raw {
        raw.extend_from_slice(lines);
    }
}

/// Names that may cross as trailers: they describe the content that went before, and decide nothing about the message,
/// its route or who sent it (RFC 9110 6.5.1).
const PASSED: [&[u8]; 10] = [
    b"content-digest",
    b"digest",
    b"etag",
    b"grpc-message",
    b"grpc-status",
    b"grpc-status-details-bin",
    b"repr-digest",
    b"server-timing",
    b"signature",
    b"signature-input",
];
/// The same for whole families of names.
const PASSED_PREFIXES: [&[u8]; 2] = [b"x-amz-checksum-", b"x-checksum-"];

fn is_passed(name: &[u8]) -> bool {
    let known = kind_of(name) != FieldName::Other || twin_of(name) != FieldName::Other;
    let begins = |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
    is_token(name)
        && !known
        && (PASSED.iter().any(|passed| passed.eq_ignore_ascii_case(name))
            || PASSED_PREFIXES.iter().any(begins))
}

/// Writes the end of a chunked body with those of the `raw` trailer lines that may be passed on: the last chunk, the
/// fields, the empty line. Returns its length; `None` when it does not fit `out`.
///
/// For a cluster that passes trailers, and a reader that said `TE: trailers`; all others get [`super::LAST_CHUNK`].
pub fn write_trailers(raw: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut to = super::write::Writer::new(out);
    to.text(b"0\r\n");
    for line in raw.split(|b| *b == b'\n') {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].strip_suffix(b"\r").unwrap_or_default());
        if is_passed(name) {
            to.field(name, trim_blank(value));
        }
    }
    to.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<(usize, Vec<u8>), Refusal> {
        let mut raw = Vec::new();
        let (used, end) = TrailerSection::default().read(text, Some(&mut raw))?;
        // The same byte by byte.
        let (mut section, mut pieces, mut at) = (TrailerSection::default(), Vec::new(), 0);
        let mut ended = false;
        while at < text.len() && !ended {
            let (n, e) = section.read(&text[at..=at], Some(&mut pieces)).expect("as in one piece");
            assert_eq!(n, 1);
            (at, ended) = (at + n, e);
        }
        assert_eq!((at, ended, &pieces), (used, end, &raw));
        Ok((used, raw))
    }

    #[test]
    fn sections() {
        assert_eq!(read(b"\r\nGET").unwrap(), (2, vec![]));
        assert_eq!(read(b"A: b\r\nC:\t\xff\r\n\r\nX").unwrap(), (14, b"A: b\r\nC:\t\xff\r\n".to_vec()));
        assert_eq!(read(b"A: b\r\n").unwrap(), (6, b"A: b\r\n".to_vec()));
        for bad in [
            b"\rX".as_slice(),
            b"\n",
            b":x\r\n",
            b"A\r\n",
            b"A : b\r\n",
            b" A: b\r\n",
            b"A: b\r\n c\r\n",
            b"A: b\n",
            b"A: \0\r\n",
            b"A: b\rX",
            b"A\x80: b\r\n",
            b"X:POST / HTTP/1.1\r\n\r\r",
        ] {
            assert_eq!(
                TrailerSection::default().read(bad, None).err(),
                Some(Refusal::TrailerInvalid),
                "{}",
                bad.escape_ascii()
            );
        }
    }

    #[test]
    fn limits() {
        let section = |fields: usize| [b"A:\r\n".repeat(fields), b"\r\n".to_vec()].concat();
        let fields = TRAILER_FIELDS as usize;
        for (n, refusal) in [(fields - 1, None), (fields, None), (fields + 1, Some(Refusal::TrailerTooLarge))]
        {
            assert_eq!(TrailerSection::default().read(&section(n), None).err(), refusal, "{n}");
        }
        let bytes = TRAILER_BYTES as usize;
        for (n, refusal) in [(bytes - 1, None), (bytes, None), (bytes + 1, Some(Refusal::TrailerTooLarge))] {
            let text = [b"A:".to_vec(), vec![b'x'; n - 4], b"\r\n\r\n".to_vec()].concat();
            let mut raw = Vec::new();
            assert_eq!(TrailerSection::default().read(&text, Some(&mut raw)).err(), refusal, "{n}");
            assert!(raw.len() <= bytes);
        }
    }

    #[test]
    fn only_what_is_listed_is_passed_on() {
        let raw = b"Grpc-Status: 0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: a\r\nAuthorization: b\r\n\
            Connection: x\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a\r\nSet-Cookie: a=b\r\nX-Checksum-MD5:  q \r\n\
            grpc_status: 1\r\nX-Other: y\r\n";
        let mut out = [0; 200];
        let len = write_trailers(raw, &mut out).unwrap();
        assert_eq!(
            out[..len].escape_ascii().to_string(),
            "0\\r\\nGrpc-Status: 0\\r\\nX-Checksum-MD5: q\\r\\n\\r\\n"
        );
        assert_eq!(write_trailers(raw, &mut [0; 39]), None);
        let len = write_trailers(b"", &mut out).unwrap();
        assert_eq!(&out[..len], super::super::LAST_CHUNK);
    }
}
