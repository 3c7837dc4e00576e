//! Field lines: what a name means to us, what Connection says of it, and the fields that frame a message.

use super::octets::{is_token, length_value, list_members};
use crate::fault::Refusal;
use crate::limits::CONNECTION_OPTIONS;
use crate::proto::{Field, FieldName, Span};

/// Every name that is looked at, in lower case. The order of `FieldName` is irrelevant here.
const NAMES: [(&[u8], FieldName); 25] = [
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
    (b"server", FieldName::Server),
    (b"te", FieldName::Te),
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
    match candidate(name) {
        Some((known, kind)) if known.eq_ignore_ascii_case(name) => *kind,
        _ => FieldName::Other,
    }
}

/// The known name that `name` becomes in an origin that reads `_` as `-` (CGI and its heirs do); `Other` if none. No
/// known name begins with either, so a twin has the length and first letter of its original.
pub(super) fn twin_of(name: &[u8]) -> FieldName {
    if candidate(name).is_none() || !name.contains(&b'_') {
        return FieldName::Other;
    }
    let mut dashed = [0u8; 32];
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    kind_of(&dashed[..name.len()])
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

/// The only field of `kind`; `Err` if there are several.
pub(super) fn only(fields: &[Field], kind: FieldName) -> Result<Option<Span>, ()> {
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
    bytes: &[u8],
    protected: fn(FieldName) -> bool,
) -> Result<Connection, ConnectionFault> {
    let mut said = Connection::default();
    let mut options = 0;
    for i in 0..fields.len() {
        if fields[i].kind != FieldName::Connection {
            continue;
        }
        let value = fields[i].value;
        for option in list_members(value.of(bytes)).filter(|o| !o.is_empty()) {
            options += 1;
            if !is_token(option) {
                return Err(ConnectionFault::NotAToken);
            }
            if options > CONNECTION_OPTIONS {
                return Err(ConnectionFault::TooManyOptions);
            }
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => said.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => said.keep_alive = true,
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
pub(super) fn declared(fields: &[Field], bytes: &[u8]) -> Result<Declared, FramingFault> {
    let length = only(fields, FieldName::ContentLength).map_err(|()| FramingFault::LengthRepeated)?;
    let encoding = only(fields, FieldName::TransferEncoding).map_err(|()| FramingFault::EncodingInvalid)?;
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
