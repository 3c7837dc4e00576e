//! Reading the fields of a head: by order, by name, and by cookie. For routing, balancing and the log.

use super::{Field, FieldName};

/// Every field line in order: name, value, kind. Hop-by-hop ones too.
pub fn field_values<'a>(
    fields: &'a [Field],
    bytes: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8], FieldName)> {
    fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes), f.kind))
}

/// The values of every line of the field `name`, in any case.
pub fn values_of<'a>(fields: &'a [Field], bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    field_values(fields, bytes).filter(move |(n, ..)| n.eq_ignore_ascii_case(name)).map(|(_, value, _)| value)
}

/// The values of the cookie `name` (case-sensitive), over all Cookie lines (RFC 6265 5.4). Quotation marks stay.
pub fn cookie_values<'a>(
    fields: &'a [Field],
    bytes: &'a [u8],
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.iter().filter(|f| f.kind == FieldName::Cookie);
    let pairs = lines.flat_map(|f| f.value.of(bytes).split(|b| *b == b';'));
    pairs.filter(move |pair| is_cookie(pair, name)).map(move |pair| &pair.trim_ascii()[name.len() + 1..])
}

/// Whether a part of a Cookie line, from one ";" to the next, is the cookie `name`.
pub(super) fn is_cookie(pair: &[u8], name: &[u8]) -> bool {
    pair.trim_ascii().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Span;

    #[test]
    fn fields_and_cookies() {
        let bytes = b"Cookie: a=1; b=\"2\";a=3=4; c\r\nX: y\r\nCOOKIE: ab=5; a=\r\n";
        let line = |name: &str, value: &str, kind| {
            let span = |part: &str| {
                let at = bytes.windows(part.len()).position(|w| w == part.as_bytes()).unwrap();
                Span::between(at, at + part.len())
            };
            Field { name: span(name), value: span(value), kind, hop: false }
        };
        let fields = [
            line("Cookie", "a=1; b=\"2\";a=3=4; c", FieldName::Cookie),
            line("X", "y", FieldName::Other),
            line("COOKIE", "ab=5; a=", FieldName::Cookie),
        ];
        let cookies = |name: &'static [u8]| cookie_values(&fields, bytes, name).collect::<Vec<_>>();
        assert_eq!(cookies(b"a"), [b"1".as_slice(), b"3=4", b""]);
        assert_eq!(cookies(b"b"), [b"\"2\""]);
        assert!(cookies(b"c").is_empty() && cookies(b"A").is_empty());
        assert_eq!(values_of(&fields, bytes, b"x").collect::<Vec<_>>(), [b"y"]);
        assert_eq!(values_of(&fields, bytes, b"cookie").count(), 2);
    }
}
