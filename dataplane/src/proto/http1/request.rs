//! A request's head: bytes to a checked value, or to the refusal that answers them (RFC 9112 sections 2 to 6).

use super::at_once::{self, Room};
use super::field::{
    Connection, ConnectionFault, Declared, connection, declared, is_hop, kind_and_twin, list_has, only,
};
use super::host::{AuthorityFault, host_len};
use super::line::{RequestLine, request_line};
use super::scan::{Extent, Rules, Scan};
use super::target::target;
use super::{HeadLimits, Parsed};
use crate::fault::Refusal;
use crate::limits::{HEADER_FIELDS_MAX, LEADING_EMPTY_LINES};
use crate::proto::{Field, FieldName, Framing, Method, RequestHead, Span, Version};
use std::mem::MaybeUninit;

/// Parses a request's head from the front of `bytes`.
///
/// Call it again, with the same `scan` and the longer bytes, while it says `Partial`; nothing is examined twice. When the
/// head is complete, its path is normalised and its host put in lower case in place, and `out` is filled; spans index
/// `bytes`. Every refusal is final and depends on the bytes alone, never on how they were cut.
pub fn parse_request(
    bytes: &mut [u8],
    scan: &mut Scan,
    limits: &HeadLimits,
    out: &mut RequestHead,
) -> Result<Parsed, Refusal> {
    let rules = Rules {
        start_line: limits.request_line,
        block: limits.header_block,
        fields: limits.header_fields,
        leading: LEADING_EMPTY_LINES,
        start_line_too_long: Refusal::RequestLineTooLong,
        block_too_large: Refusal::HeaderBlockTooLarge,
        too_many_fields: Refusal::TooManyFields,
        fault: |refusal| refusal,
    };
    out.clear();
    let plain = if scan.is_fresh() { read_at_once(bytes, limits, out) } else { None };
    let extent = match plain {
        Some((extent, line)) => {
            take_start_line(bytes, extent, line, out)?;
            extent
        }
        None => {
            let Some(extent) = scan.advance(bytes, &rules, |line| request_line(line).map(|_| ()))? else {
                return Ok(Parsed::Partial);
            };
            out.clear();
            let line = Parts::of(&request_line(&bytes[extent.start..extent.fields - 2])?);
            take_start_line(bytes, extent, line, out)?;
            read_fields(bytes, extent, out)?;
            extent
        }
    };
    let said = read_connection(bytes, out)?;
    read_host(bytes, out)?;
    read_framing(bytes, out)?;
    read_expect(bytes, out)?;
    read_upgrade(bytes, said, out);
    read_max_forwards(bytes, out)?;
    Ok(Parsed::Complete { len: extent.end })
}

/// What is kept of a request line while the target is normalised in its place.
#[derive(Debug, Clone, Copy)]
struct Parts {
    method: Method,
    version: Version,
    method_len: usize,
    target_len: usize,
}

impl Parts {
    fn of(line: &RequestLine<'_>) -> Self {
        let RequestLine { method, version, method_text, target } = line;
        Self { method: *method, version: *version, method_len: method_text.len(), target_len: target.len() }
    }
}

/// A head that is whole and plain. `None` says no more than that the scan must look at it; `out` may then hold a part.
fn read_at_once(bytes: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Option<(Extent, Parts)> {
    let room =
        Room { start_line: limits.request_line, block: limits.header_block, fields: limits.header_fields };
    let extent = at_once::read(bytes, room, &mut out.fields, &mut out.names)?;
    let line = request_line(&bytes[..extent.fields - 2]).ok()?;
    Some((extent, Parts::of(&line)))
}

fn take_start_line(
    bytes: &mut [u8],
    extent: Extent,
    line: Parts,
    out: &mut RequestHead,
) -> Result<(), Refusal> {
    let Parts { method, version, method_len, target_len } = line;
    out.method = method;
    out.version = version;
    out.method_text = Span::between(extent.start, extent.start + method_len);
    let found = target(bytes, extent.start + method_len + 1, target_len, method)?;
    out.authority = found.authority.unwrap_or_default();
    out.path = found.path;
    out.query = found.query;
    Ok(())
}

/// The grammar of field lines is httparse's; what names mean is ours.
fn read_fields(bytes: &[u8], extent: Extent, out: &mut RequestHead) -> Result<(), Refusal> {
    let mut table = [const { MaybeUninit::uninit() }; HEADER_FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    // The target was normalised in place, which leaves a line that still parses.
    let parsed = head.parse_with_uninit_headers(&bytes[extent.start..extent.end], &mut table);
    match parsed {
        Ok(httparse::Status::Complete(len)) if extent.start + len == extent.end => {}
        Err(httparse::Error::HeaderName) => return Err(Refusal::BadFieldName),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
        Err(httparse::Error::Token) => return Err(Refusal::BadTarget),
        // A head that the scan called whole and that ends elsewhere here would be read in two ways: refuse it.
        Ok(_) | Err(_) => return Err(Refusal::BadFieldValue),
    }
    for header in head.headers.iter() {
        let name = header.name.as_bytes();
        let (kind, twin) = kind_and_twin(name);
        out.names.add(kind);
        if matches!(twin, FieldName::ContentLength | FieldName::TransferEncoding) {
            return Err(Refusal::UnderscoreTwin);
        }
        out.fields.push(Field {
            name: Span::within(bytes, name),
            value: Span::within(bytes, header.value),
            kind,
            // An origin that reads `_` as `-` must not take a client's word for ours (F04, H03): twins go no further.
            hop: is_hop(kind) || twin != FieldName::Other,
        });
    }
    Ok(())
}

/// What Connection may not name in a request.
const fn is_protected(kind: FieldName) -> bool {
    matches!(
        kind,
        FieldName::Host
            | FieldName::ContentLength
            | FieldName::TransferEncoding
            | FieldName::Forwarded
            | FieldName::Via
            | FieldName::XForwardedFor
            | FieldName::XForwardedHost
            | FieldName::XForwardedProto
            | FieldName::XRealIp
    )
}

fn read_connection(bytes: &[u8], out: &mut RequestHead) -> Result<Connection, Refusal> {
    let said = connection(&mut out.fields, out.names, bytes, is_protected).map_err(|fault| match fault {
        ConnectionFault::NotAToken => Refusal::BadFieldValue,
        ConnectionFault::TooManyOptions => Refusal::TooManyFields,
        ConnectionFault::NamesProtected => Refusal::ConnectionNamesField,
    })?;
    out.keep_alive = !said.close && (out.version == Version::Http11 || said.keep_alive);
    out.te_trailers = out.names.has(FieldName::Te)
        && out.fields.iter().any(|f| f.kind == FieldName::Te && list_has(f.value.of(bytes), b"trailers"));
    Ok(said)
}

/// Host must be there in HTTP/1.1, single and valid, even where an absolute target overrides it (RFC 9112 3.2).
fn read_host(bytes: &mut [u8], out: &mut RequestHead) -> Result<(), Refusal> {
    let field = only(&out.fields, out.names, FieldName::Host).map_err(|()| Refusal::HostRepeated)?;
    if field.is_none() && out.version == Version::Http11 {
        return Err(Refusal::HostMissing);
    }
    let mut host_len = 0;
    if let Some(value) = field {
        host_len = check_host(value.of(bytes))?;
    }
    match field {
        Some(value) if out.authority.is_empty() => out.authority = value,
        // An absolute target's authority overrides Host, and is checked by itself.
        _ if !out.authority.is_empty() => host_len = check_host(out.authority.of(bytes))?,
        _ => {}
    }
    if !out.authority.is_empty() {
        out.authority.of_mut(bytes).make_ascii_lowercase();
        out.host = Span { start: out.authority.start, len: host_len };
    }
    Ok(())
}

fn check_host(authority: &[u8]) -> Result<u32, Refusal> {
    match host_len(authority) {
        Ok(len) => Ok(u32::try_from(len).unwrap_or(u32::MAX)),
        Err(AuthorityFault::Userinfo) => Err(Refusal::UserinfoInTarget),
        Err(AuthorityFault::Invalid) => Err(Refusal::HostInvalid),
    }
}

fn read_framing(bytes: &[u8], out: &mut RequestHead) -> Result<(), Refusal> {
    let encoded = out.names.has(FieldName::TransferEncoding);
    if encoded && out.version == Version::Http10 {
        return Err(Refusal::EncodingInHttp10);
    }
    out.framing = match declared(&out.fields, out.names, bytes).map_err(|fault| fault.of_request())? {
        // A request without either has no body, whatever follows (RFC 9112 6.3, item 7).
        Declared::Nothing => Framing::None,
        Declared::Length(length) => Framing::Length(length),
        Declared::Chunked => Framing::Chunked,
    };
    Ok(())
}

/// Expect means something only from HTTP/1.1 and before a body; else it goes no further (RFC 9110 10.1.1).
fn read_expect(bytes: &[u8], out: &mut RequestHead) -> Result<(), Refusal> {
    if !out.names.has(FieldName::Expect) {
        return Ok(());
    }
    let mut expected = false;
    let useful = out.version == Version::Http11;
    for field in out.fields.iter_mut().filter(|f| f.kind == FieldName::Expect) {
        if useful && (expected || !field.value.of(bytes).eq_ignore_ascii_case(b"100-continue")) {
            return Err(Refusal::ExpectationUnknown);
        }
        expected = true;
        field.hop = true;
    }
    out.expect_continue = expected && useful && !matches!(out.framing, Framing::None | Framing::Length(0));
    Ok(())
}

/// A tunnel is asked for by exactly one `Upgrade: websocket`; anything else is proxied as if it had not asked (U04).
fn read_upgrade(bytes: &[u8], said: Connection, out: &mut RequestHead) {
    let websocket = matches!(
        only(&out.fields, out.names, FieldName::Upgrade),
        Ok(Some(value)) if value.of(bytes).eq_ignore_ascii_case(b"websocket")
    );
    out.upgrade_websocket = websocket
        && said.upgrade
        && out.version == Version::Http11
        && out.method == Method::Get
        && matches!(out.framing, Framing::None | Framing::Length(0));
}

/// Max-Forwards counts for OPTIONS and TRACE alone, and TRACE got no further than its line (RFC 9110 7.6.2).
fn read_max_forwards(bytes: &[u8], out: &mut RequestHead) -> Result<(), Refusal> {
    if out.method != Method::Options {
        return Ok(());
    }
    let Some(value) =
        only(&out.fields, out.names, FieldName::MaxForwards).map_err(|()| Refusal::BadFieldValue)?
    else {
        return Ok(());
    };
    let digits = value.of(bytes);
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadFieldValue);
    }
    let number = digits.iter().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')));
    out.max_forwards = Some(u32::try_from(number).unwrap_or(u32::MAX));
    Ok(())
}
