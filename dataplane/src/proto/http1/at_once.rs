//! A head that came whole and in the form that we would write it in: read in one pass, without the scan.
//!
//! Nearly every head is one. httparse judges the octets of names and values; here it is made sure that nothing else is in
//! the block but `:`, one SP at most, and CRLF, so that no octet is left which only the scan would refuse. What is not
//! plain is not refused here: the scan then looks at it from its first octet, and alone says what is wrong. That both
//! give the same head is tested by every case and by the fuzzer, which cut heads into pieces: those are never read at once.

use super::field::{is_hop, kind_and_twin};
use super::octets::find_control;
use super::scan::Extent;
use crate::proto::{Field, FieldName, FieldNames, Span};
use httparse::Header;

/// The most that a head may have of each, as [`super::scan::Rules`] has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) start_line: u32,
    pub(super) block: u32,
    pub(super) fields: u32,
}

/// Where the start line and the fields of a head of `len` bytes stand, if it is plain up to its fields and within bounds.
pub(super) fn extent(bytes: &[u8], headers: &[Header<'_>], len: usize, room: Room) -> Option<Extent> {
    let end_of_fields = len.checked_sub(2)?;
    let fields =
        headers.first().map_or(end_of_fields, |h| h.name.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()));
    let (line, end) = bytes.get(..fields)?.split_last_chunk::<2>()?;
    let fits = line.len() <= room.start_line as usize
        && end_of_fields.checked_sub(fields)? <= room.block as usize
        && headers.len() <= room.fields as usize;
    (fits && end == b"\r\n" && find_control(line) == line.len()).then_some(Extent {
        start: 0,
        fields,
        end: len,
    })
}

/// Takes the fields over if every line is `NAME ":" [SP] VALUE CRLF` and stands where the one before it ends; `None`
/// where one is not, or has a name that only an underscore keeps from being a known one.
pub(super) fn take_fields(
    bytes: &[u8],
    headers: &[Header<'_>],
    extent: Extent,
    fields: &mut Vec<Field>,
    names: &mut FieldNames,
) -> Option<()> {
    let block = bytes.get(..extent.end)?;
    let address_of = |at: usize| block.as_ptr().addr() + at;
    let mut at = extent.fields;
    for header in headers {
        let name = Span::between(at, at + header.name.len());
        let colon = at + header.name.len();
        let (b':', next) = (*block.get(colon)?, *block.get(colon + 1)?) else { return None };
        let start = colon + 1 + usize::from(next == b' ');
        let end = start + header.value.len();
        let stands = header.name.as_ptr().addr() == address_of(at)
            && (header.value.is_empty() || header.value.as_ptr().addr() == address_of(start));
        if !stands || block.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        let (kind, twin) = kind_and_twin(header.name.as_bytes());
        if twin != FieldName::Other {
            return None;
        }
        names.add(kind);
        fields.push(Field { name, value: Span::between(start, end), kind, hop: is_hop(kind) });
        at = end + 2;
    }
    (block.get(at..)? == b"\r\n").then_some(())
}
