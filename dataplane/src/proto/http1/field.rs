//! Field lines: what a name means to us, what Connection says of it, and the fields that frame a message.

use super::octets::{is_token, length_value, list_members};
use crate::fault::Refusal;
use crate::limits::CONNECTION_OPTIONS;
use crate::proto::{Field, FieldName, FieldNames, Span};

/// Every name that is looked at, in lower case. The order of `FieldName` is irrelevant here.
const NAMES: [(&[u8], FieldName); 29] = [
    (b"connection", FieldName::Connection),
    (b"content-length", FieldName::ContentLength),
    (b"cookie", FieldName::Cookie),
    (b"date", FieldName::Date),
    (b"expect", FieldName::Expect),
    (b"forwarded", FieldName::Forwarded),
    (b"host", FieldName::Host),
    (b"http2-settings", FieldName::Http2Settings),
    (b"keep-alive", FieldName::KeepAlive),
    (b"max-forwards", FieldName::MaxForwards),
    (b"proxy", FieldName::Proxy),
    (b"proxy-authenticate", FieldName::ProxyAuthenticate),
    (b"proxy-authorization", FieldName::ProxyAuthorization),
    (b"proxy-connection", FieldName::ProxyConnection),
    (b"referer", FieldName::Referer),
    (b"ringway-attempt", FieldName::RingwayAttempt),
    (b"server", FieldName::Server),
    (b"set-cookie", FieldName::SetCookie),
    (b"te", FieldName::Te),
    (b"traceparent", FieldName::TraceParent),
    (b"trailer", FieldName::Trailer),
    (b"transfer-encoding", FieldName::TransferEncoding),
    (b"upgrade", FieldName::Upgrade),
    (b"user-agent", FieldName::UserAgent),
    (b"via", FieldName::Via),
    (b"x-forwarded-for", FieldName::XForwardedFor),
    (b"x-forwarded-host", FieldName::XForwardedHost),
    (b"x-forwarded-proto", FieldName::XForwardedProto),
    (b"x-real-ip", FieldName::XRealIp),
];

/// Places in `BY_LENGTH` for each length: the lower five bits of a first letter, which its case does not change.
const LETTERS: usize = 32;
const NO_NAME: u8 = u8::MAX;
/// Length and first letter tell the names apart: where in `NAMES` the only one stands that a field could be.
const BY_LENGTH: [u8; 32 * LETTERS] = {
    let mut places = [NO_NAME; 32 * LETTERS];
    let mut i = 0u8;
    while (i as usize) < NAMES.len() {
        let name = NAMES[i as usize].0;
        let place = place_of(name.len(), name[0]);
        assert!(places[place] == NO_NAME, "two names share length and first letter");
        places[place] = i;
        i += 1;
    }
    places
};

const fn place_of(len: usize, first: u8) -> usize {
    len * LETTERS + first as usize % LETTERS
}

/// The only known name that `name` could be, judged by its length and first letter alone.
fn candidate(name: &[u8]) -> Option<&'static (&'static [u8], FieldName)> {
    let place = place_of(name.len(), *name.first()?);
    NAMES.get(usize::from(*BY_LENGTH.get(place)?))
}

/// What a field name means to us, in any case.
pub(super) fn kind_of(name: &[u8]) -> FieldName {
    kind_and_twin(name).0
}

/// The known name that `name` becomes in an origin that reads `_` as `-` (CGI and its heirs do); `Other` if none.
pub(super) fn twin_of(name: &[u8]) -> FieldName {
    kind_and_twin(name).1
}

/// Whether a text without control octets is `known`, which has letters in lower case, digits and `-` alone, in any case.
/// Words at a time: with the bit of the case set, only a control octet would become one of these too.
pub(super) fn is_same_token(token: &[u8], known: &[u8]) -> bool {
    let word = |text: &[u8; 8]| u64::from_le_bytes(*text) | 0x2020_2020_2020_2020;
    let half = |text: &[u8; 4]| u32::from_le_bytes(*text) | 0x2020_2020;
    if token.len() != known.len() {
        return false;
    }
    if let (Some(a), Some(b)) = (token.last_chunk::<8>(), known.last_chunk::<8>()) {
        let pairs = token.as_chunks::<8>().0.iter().zip(known.as_chunks::<8>().0);
        return word(a) == word(b) && pairs.into_iter().all(|(a, b)| word(a) == word(b));
    }
    match (token.first_chunk(), known.first_chunk(), token.last_chunk(), known.last_chunk()) {
        (Some(a), Some(b), Some(c), Some(d)) => half(a) == half(b) && half(c) == half(d),
        _ => token.iter().zip(known).all(|(a, b)| a | 0x20 == *b),
    }
}

/// Both at once. No known name has a `_`, so that a known one has no twin; and none begins with `_` or `-`, so that a twin
/// has the length and first letter of its original.
pub(super) fn kind_and_twin(name: &[u8]) -> (FieldName, FieldName) {
    const NEITHER: (FieldName, FieldName) = (FieldName::Other, FieldName::Other);
    match candidate(name) {
        None => NEITHER,
        Some((known, kind)) if is_same_token(name, known) => (*kind, FieldName::Other),
        Some((known, kind)) => {
            let dashed = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
            if name.iter().map(dashed).eq(known.iter().copied()) {
                (FieldName::Other, *kind)
            } else {
                NEITHER
            }
        }
    }
}

/// Hop-by-hop by nature: never forwarded, but regenerated where we speak it ourselves (RFC 9110 7.6.1, H02; H06 for
/// Proxy).
pub(super) const fn is_hop(kind: FieldName) -> bool {
    matches!(
        kind,
        FieldName::Connection
            | FieldName::Http2Settings
            | FieldName::KeepAlive
            | FieldName::Proxy
            | FieldName::ProxyAuthenticate
            | FieldName::ProxyAuthorization
            | FieldName::ProxyConnection
            | FieldName::Te
            | FieldName::Trailer
            | FieldName::TransferEncoding
            | FieldName::Upgrade
    )
}

/// The only field of `kind`; `Err` if there are several. `names` are those of `fields`.
pub(super) fn only(fields: &[Field], names: FieldNames, kind: FieldName) -> Result<Option<Span>, ()> {
    if !names.has(kind) {
        return Ok(None);
    }
    let mut found = fields.iter().filter(|f| f.kind == kind);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(()),
        (field, None) => Ok(field.map(|f| f.value)),
    }
}

/// What the Connection fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What Connection may be refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionFault {
    NotAToken,
    TooManyOptions,
    /// It names a field that frames or routes the message, or that we set: removing it would forge the message (H01).
    NamesProtected,
}

/// Reads every Connection field and marks the fields they name as hop-by-hop. `protected` refuses some names.
pub(super) fn connection(
    fields: &mut [Field],
    names: FieldNames,
    bytes: &[u8],
    protected: fn(FieldName) -> bool,
) -> Result<Connection, ConnectionFault> {
    let mut said = Connection::default();
    if !names.has(FieldName::Connection) {
        return Ok(said);
    }
    let mut options = 0;
    for i in 0..fields.len() {
        if fields[i].kind != FieldName::Connection {
            continue;
        }
        let value = fields[i].value;
        // Nearly always.
        if options < CONNECTION_OPTIONS && is_same_token(value.of(bytes), b"keep-alive") {
            options += 1;
            said.keep_alive = true;
            continue;
        }
        for option in list_members(value.of(bytes)).filter(|o| !o.is_empty()) {
            options += 1;
            let (keep_alive, close) = (is_same_token(option, b"keep-alive"), is_same_token(option, b"close"));
            if !(keep_alive || close || is_token(option)) {
                return Err(ConnectionFault::NotAToken);
            }
            if options > CONNECTION_OPTIONS {
                return Err(ConnectionFault::TooManyOptions);
            }
            match option {
                _ if close => said.close = true,
                _ if keep_alive => said.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => said.upgrade = true,
                _ if protected(kind_of(option)) || protected(twin_of(option)) => {
                    return Err(ConnectionFault::NamesProtected);
                }
                _ => mark_hop(fields, bytes, option),
            }
        }
    }
    Ok(said)
}

fn mark_hop(fields: &mut [Field], bytes: &[u8], name: &[u8]) {
    for field in fields.iter_mut() {
        if field.name.len as usize == name.len() && field.name.of(bytes).eq_ignore_ascii_case(name) {
            field.hop = true;
        }
    }
}

/// What one message's Content-Length and Transfer-Encoding fields say together; the caller names each fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// Why they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FramingFault {
    LengthInvalid,
    LengthRepeated,
    LengthAndEncoding,
    EncodingInvalid,
    EncodingUnknown,
}

/// RFC 9112 6.3, without its leniency: one Content-Length of digits, or one Transfer-Encoding that is `chunked`.
pub(super) fn declared(fields: &[Field], names: FieldNames, bytes: &[u8]) -> Result<Declared, FramingFault> {
    let length = only(fields, names, FieldName::ContentLength).map_err(|()| FramingFault::LengthRepeated)?;
    let encoding =
        only(fields, names, FieldName::TransferEncoding).map_err(|()| FramingFault::EncodingInvalid)?;
    match (length, encoding) {
        (None, None) => Ok(Declared::Nothing),
        (Some(_), Some(_)) => Err(FramingFault::LengthAndEncoding),
        (Some(length), None) => {
            length_value(length.of(bytes)).map(Declared::Length).ok_or(FramingFault::LengthInvalid)
        }
        (None, Some(encoding)) => match encoding.of(bytes) {
            value if value.eq_ignore_ascii_case(b"chunked") => Ok(Declared::Chunked),
            value if is_token(value) => Err(FramingFault::EncodingUnknown),
            _ => Err(FramingFault::EncodingInvalid),
        },
    }
}

impl FramingFault {
    pub(super) fn of_request(self) -> Refusal {
        match self {
            Self::LengthInvalid => Refusal::ContentLengthInvalid,
            Self::LengthRepeated => Refusal::ContentLengthRepeated,
            Self::LengthAndEncoding => Refusal::LengthAndEncoding,
            Self::EncodingInvalid => Refusal::EncodingInvalid,
            Self::EncodingUnknown => Refusal::EncodingUnknown,
        }
    }
    pub(super) fn of_response(self) -> Refusal {
        match self {
            Self::EncodingUnknown => Refusal::ResponseEncodingUnknown,
            _ => Refusal::ResponseFramingInvalid,
        }
    }
}

/// Whether a list has this member, in any case.
pub(super) fn list_has(value: &[u8], member: &[u8]) -> bool {
    list_members(value).any(|m| m.eq_ignore_ascii_case(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, kind) in NAMES {
            assert_eq!(kind_of(&name.to_ascii_uppercase()), kind);
            assert!(name.len() < 32);
        }
        for other in
            ["", "x-forwarded-fox", "hosts", "x", "content-type", "a-name-of-some-forty-octets-that-is-long"]
        {
            assert_eq!(kind_of(other.as_bytes()), FieldName::Other, "{other}");
        }
    }

    #[test]
    fn twins() {
        for (name, kind) in [
            ("Transfer_Encoding", FieldName::TransferEncoding),
            ("CONTENT_LENGTH", FieldName::ContentLength),
            ("x_forwarded-for", FieldName::XForwardedFor),
            ("X-Real_IP", FieldName::XRealIp),
            ("x-forwarded-for", FieldName::Other),
            ("my_field", FieldName::Other),
        ] {
            assert_eq!(twin_of(name.as_bytes()), kind, "{name}");
        }
    }
}
