//! What a request says of the trace that it is part of: the field `traceparent` (W3C Trace Context, levels 1 and 2).

use super::{FieldName, RequestHead};

/// A trace, the span of the client in it, and whether the client keeps that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// Not all zero.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled; bit 1: the trace id is random; the others are for later levels.
    pub flags: u8,
}

/// Of version 00: `VERSION-TRACE_ID-PARENT_ID-FLAGS` in hexadecimal digits.
pub const BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

impl TraceParent {
    /// Reads the field's value (W3C Trace Context 3.2). `None` is one that has to be taken for none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (ours, more) = value.split_at_checked(BYTES)?;
        let [version] = digits(ours.get(..2)?)?;
        // 3.2.2.1: "ff" is none; 3.2.4: a later version may have more behind another "-".
        let ends_well = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let parted = ours[2] == b'-' && ours[35] == b'-' && ours[52] == b'-';
        let (trace_id, parent_id) = (digits(&ours[3..35])?, digits(&ours[36..52])?);
        let [flags] = digits(&ours[53..])?;
        let named = trace_id != [0; 16] && parent_id != [0; 8];
        (ends_well && parted && named).then_some(Self { trace_id, parent_id, flags })
    }

    /// As the field has it, of version 00.
    pub fn text(&self) -> [u8; BYTES] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00-................................-................-..";
        let mut put = |at: usize, bytes: &[u8]| {
            for (digits, byte) in text[at..].chunks_exact_mut(2).zip(bytes) {
                digits.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        };
        put(3, &self.trace_id);
        put(36, &self.parent_id);
        put(53, &[self.flags]);
        text
    }
}

/// What a request's head says, if it says it once: two of them name no trace (W3C Trace Context 3.2).
pub fn of_head(head: &RequestHead, bytes: &[u8]) -> Option<TraceParent> {
    if !head.names.has(FieldName::TraceParent) {
        return None;
    }
    let mut lines = head.fields.iter().filter(|f| f.kind == FieldName::TraceParent);
    let value = lines.next()?.value.of(bytes);
    if lines.next().is_some() { None } else { TraceParent::parse(value) }
}

/// Bytes that are written as two digits each. Capital ones are none (3.2.2: HEXDIGLC).
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_standards_example_is_read() {
        let parent = TraceParent::parse(VALUE.as_bytes()).unwrap();
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        assert_eq!(parent.parent_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_eq!(parent.flags, 1);
        assert_eq!(parent.text(), VALUE.as_bytes());
        // Flags of later levels are kept, and a later version may say more.
        for (value, flags) in [
            (VALUE.replace("-01", "-ff"), 0xff),
            (VALUE.replace("00-", "01-"), 1),
            (VALUE.replace("00-", "cc-") + "-what-the-future-will-be-like", 1),
            (VALUE.replace("00-", "cc-") + "-", 1),
        ] {
            assert_eq!(TraceParent::parse(value.as_bytes()).map(|p| p.flags), Some(flags), "{value}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        let cases = [
            String::new(),
            VALUE[..VALUE.len() - 1].to_owned(),
            format!("{VALUE}-"),
            format!("{VALUE}0"),
            VALUE.replace("00-", "ff-"),
            VALUE.replace("00-", "0-0"),
            VALUE.replace("00-", "cc-") + ".what",
            VALUE.replace("00-", "cc-") + "0",
            VALUE.to_uppercase(),
            VALUE.replace('b', "g"),
            VALUE.replace('-', "_"),
            VALUE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            VALUE.replace("b7ad6b7169203331", &"0".repeat(16)),
            VALUE.replace("-01", "-0x"),
            VALUE.replace("0af7", "0\u{e9}7"),
            format!("{VALUE},{VALUE}"),
        ];
        for value in cases {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{value}");
        }
        // Wherever it is cut, and whatever one octet becomes, nothing panics.
        for at in 0..VALUE.len() {
            let mut bytes = VALUE.as_bytes().to_vec();
            bytes[at] = 0xff;
            assert_eq!(TraceParent::parse(&bytes), None, "octet {at}");
            assert_eq!(TraceParent::parse(&bytes[..at]), None);
        }
    }
}
