//! An origin's response head: bytes to a checked value, or to the refusal that its client gets instead (RFC 9112 6.3).

use super::Parsed;
use super::at_once::{self, Room};
use super::field::{ConnectionFault, Declared, connection, declared, is_hop, kind_and_twin, only};
use super::line::{StatusLine, status_line};
use super::scan::{Extent, Rules, Scan};
use crate::fault::Refusal;
use crate::limits::{HEADER_FIELDS_MAX, RESPONSE_HEADER_BLOCK, STATUS_LINE_BYTES};
use crate::proto::{Field, FieldName, Framing, Method, ResponseHead, Span, Version};
use std::mem::MaybeUninit;

#[allow(clippy::cast_possible_truncation, reason = "constants of limits.rs, far below 2^32")]
const RULES: Rules = Rules {
    start_line: STATUS_LINE_BYTES as u32,
    block: RESPONSE_HEADER_BLOCK as u32,
    fields: HEADER_FIELDS_MAX as u32,
    // What comes before a status line was not asked for, be it an empty line.
    leading: 0,
    start_line_too_long: Refusal::ResponseHeaderTooLarge,
    block_too_large: Refusal::ResponseHeaderTooLarge,
    too_many_fields: Refusal::ResponseHeaderTooLarge,
    fault: |_| Refusal::ResponseInvalid,
};

/// Parses a response's head from the front of `bytes`; as [`super::parse_request`], but changes nothing in place.
/// `request_method` is that of the request it answers: a response to HEAD has no body.
pub fn parse_response(
    bytes: &[u8],
    scan: &mut Scan,
    request_method: Method,
    out: &mut ResponseHead,
) -> Result<Parsed, Refusal> {
    out.clear();
    let plain = if scan.is_fresh() { read_at_once(bytes, out) } else { None };
    let (extent, line) = match plain {
        Some(plain) => plain,
        None => {
            let Some(extent) = scan.advance(bytes, &RULES, |line| status_line(line).map(|_| ()))? else {
                return Ok(Parsed::Partial);
            };
            out.clear();
            let line = status_line(&bytes[extent.start..extent.fields - 2])?;
            read_fields(bytes, extent, out)?;
            (extent, line)
        }
    };
    out.status = line.status;
    out.version = line.version;
    out.reason = Span::within(bytes, line.reason);
    let said = connection(&mut out.fields, out.names, bytes, |_| false).map_err(|fault| match fault {
        ConnectionFault::TooManyOptions => Refusal::ResponseHeaderTooLarge,
        ConnectionFault::NotAToken | ConnectionFault::NamesProtected => Refusal::ResponseInvalid,
    })?;
    out.framing = framing(bytes, request_method, out)?;
    out.has_date =
        out.names.has(FieldName::Date) && out.fields.iter().any(|f| f.kind == FieldName::Date && !f.hop);
    out.keep_alive = out.framing != Framing::UntilClose
        && !said.close
        && (out.version == Version::Http11 || said.keep_alive);
    out.upgrade_websocket = out.status == 101
        && said.upgrade
        && matches!(
            only(&out.fields, out.names, FieldName::Upgrade),
            Ok(Some(value)) if value.of(bytes).eq_ignore_ascii_case(b"websocket")
        );
    Ok(Parsed::Complete { len: extent.end })
}

/// A head that is whole and plain. `None` says no more than that the scan must look at it; `out` may then hold a part.
fn read_at_once<'a>(bytes: &'a [u8], out: &mut ResponseHead) -> Option<(Extent, StatusLine<'a>)> {
    let room = Room { start_line: RULES.start_line, block: RULES.block, fields: RULES.fields };
    let extent = at_once::read(bytes, room, &mut out.fields, &mut out.names)?;
    let line = status_line(&bytes[..extent.fields - 2]).ok()?;
    Some((extent, line))
}

fn read_fields(bytes: &[u8], extent: Extent, out: &mut ResponseHead) -> Result<(), Refusal> {
    let mut table = [const { MaybeUninit::uninit() }; HEADER_FIELDS_MAX];
    let mut head = httparse::Response::new(&mut []);
    let head_bytes = &bytes[extent.start..extent.end];
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut head, head_bytes, &mut table) {
        Ok(httparse::Status::Complete(len)) if extent.start + len == extent.end => {}
        _ => return Err(Refusal::ResponseInvalid),
    }
    for header in head.headers.iter() {
        let name = header.name.as_bytes();
        let (kind, twin) = kind_and_twin(name);
        out.names.add(kind);
        out.fields.push(Field {
            name: Span::within(bytes, name),
            value: Span::within(bytes, header.value),
            kind,
            hop: is_hop(kind) || twin != FieldName::Other,
        });
    }
    Ok(())
}

/// How the body ends. What frames it must be sound even where there is no body: an origin that contradicts itself is not
/// to be trusted with a link.
fn framing(bytes: &[u8], request_method: Method, out: &ResponseHead) -> Result<Framing, Refusal> {
    let declared = declared(&out.fields, out.names, bytes).map_err(|fault| fault.of_response())?;
    if declared == Declared::Chunked && out.version == Version::Http10 {
        return Err(Refusal::ResponseFramingInvalid);
    }
    if request_method == Method::Head || matches!(out.status, 100..=199 | 204 | 304) {
        return Ok(Framing::None);
    }
    Ok(match declared {
        Declared::Nothing => Framing::UntilClose,
        Declared::Length(length) => Framing::Length(length),
        Declared::Chunked => Framing::Chunked,
    })
}
