//! A head that came whole and in the form that we would write it in: read in one pass, without the scan.
//!
//! Nearly every head is one. Nothing is in it but lines that end with CRLF and hold no other control octet, HTAB included:
//! a start line, and fields of a token, `:`, at most one SP and a value without blanks around it. What is not plain is not
//! refused here: the scan then looks at it from its first octet, and alone says what is wrong. That both give the same
//! head is tested by every case and by the fuzzer, which cut heads into pieces: those are never read at once.

use super::field::{is_hop, kind_and_twin};
use super::octets::{find_colon, find_control, is_token};
use super::scan::Extent;
use crate::proto::{Field, FieldName, FieldNames, Span};

/// The most that a head may have of each, as [`super::scan::Rules`] has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) start_line: u32,
    pub(super) block: u32,
    pub(super) fields: u32,
}

/// Where the start line and the fields of a plain head stand; its fields are taken over, its start line is the caller's.
/// `None` where it is not plain, not whole, beyond its bounds, or has a name that only an underscore keeps from being a
/// known one; then a part may have been taken.
pub(super) fn read(
    bytes: &[u8],
    room: Room,
    fields: &mut Vec<Field>,
    names: &mut FieldNames,
) -> Option<Extent> {
    let first = line_end(bytes, 0)? + 2;
    let mut at = first;
    while bytes.get(at..at + 2)? != b"\r\n" {
        if fields.len() >= room.fields as usize {
            return None;
        }
        let (field, end) = field(bytes, at)?;
        names.add(field.kind);
        fields.push(field);
        at = end + 2;
    }
    let fits = first - 2 <= room.start_line as usize && at - first <= room.block as usize;
    fits.then_some(Extent { start: 0, fields: first, end: at + 2 })
}

/// Where the CRLF stands that ends the line at `at`, if no other control octet comes before it.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let end = at + find_control(bytes.get(at..)?);
    (bytes.get(end..end + 2)? == b"\r\n").then_some(end)
}

/// The plain field whose line begins at `at`, and where that line's CRLF stands.
fn field(bytes: &[u8], at: usize) -> Option<(Field, usize)> {
    let colon = at + find_colon(bytes.get(at..)?)?;
    let name = &bytes[at..colon];
    let (kind, twin) = kind_and_twin(name);
    // A known name is a token.
    if kind == FieldName::Other && (twin != FieldName::Other || !is_token(name)) {
        return None;
    }
    let start = colon + 1 + usize::from(*bytes.get(colon + 1)? == b' ');
    let end = line_end(bytes, start)?;
    if let [b' ', ..] | [.., b' '] = &bytes[start..end] {
        return None;
    }
    let (name, value) = (Span::between(at, colon), Span::between(start, end));
    Some((Field { name, value, kind, hop: is_hop(kind) }, end))
}
