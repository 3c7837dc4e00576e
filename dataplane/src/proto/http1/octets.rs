//! Classes of octets: tokens, white space, digits; and the search for the next octet that needs a look.

/// RFC 9110 5.6.2: the octets of a token.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let text = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut i = 0;
    while i < text.len() {
        table[text[i] as usize] = true;
        i += 1;
    }
    table
};

pub(super) const fn is_token_octet(b: u8) -> bool {
    TOKEN[b as usize]
}

/// 1*tchar.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| is_token_octet(*b))
}

/// C0 controls and DEL; HTAB, CR and LF among them.
pub(super) const fn is_control(b: u8) -> bool {
    b < 0x20 || b == 0x7f
}

/// SP or HTAB (RFC 9110 5.6.3).
pub(super) const fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Without the SP and HTAB around it.
pub(super) fn trim_blank(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

pub(super) const fn hex_value(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// 1*19DIGIT up to 2^63-1: what a Content-Length may say. Leading zeros are grammar-legal; the number is decimal.
pub(super) fn length_value(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0')); // 19 digits fit a u64
    (value <= i64::MAX as u64).then_some(value)
}

/// Where the first control octet stands; `text.len()` if there is none. Eight octets at a time as one word, the last of
/// them again where the length is no multiple of eight: most lines are too short for a wider step to pay.
pub(super) fn find_control(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        if let Some(at) = first_of(controls(*word)) {
            return i * 8 + at;
        }
    }
    match text.last_chunk::<8>() {
        Some(_) if rest.is_empty() => text.len(),
        Some(last) => first_of(controls(*last)).map_or(text.len(), |at| text.len() - 8 + at),
        None => rest.iter().position(|b| is_control(*b)).unwrap_or(text.len()),
    }
}

/// Where the first colon stands, if no control octet comes before it.
pub(super) fn find_colon(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        if let Some(at) = first_of(controls(*word) | equals(*word, b':')) {
            return (word[at & 7] == b':').then_some(i * 8 + at);
        }
    }
    let at = rest.iter().position(|b| *b == b':' || is_control(*b))?;
    (rest[at] == b':').then_some(text.len() - rest.len() + at)
}

const ONES: u64 = u64::MAX / 0xff;
const HIGHS: u64 = ONES * 0x80;

/// The high bit of the first control octet of eight. The subtraction borrows only past an octet that was found, so the first
/// one found is right, and only that one counts.
const fn controls(word: [u8; 8]) -> u64 {
    let low = u64::from_le_bytes(word);
    (low.wrapping_sub(ONES * 0x20) & !low) & HIGHS | equals(word, 0x7f)
}

/// The high bit of the first of eight octets that is this one; as [`controls`].
const fn equals(word: [u8; 8], octet: u8) -> u64 {
    let same = u64::from_le_bytes(word) ^ (ONES * octet as u64);
    same.wrapping_sub(ONES) & !same & HIGHS
}

/// Of high bits, which octet the first is of.
const fn first_of(found: u64) -> Option<usize> {
    if found == 0 { None } else { Some((found.trailing_zeros() / 8) as usize) }
}

/// The members of a comma-separated list (RFC 9110 5.6.1), trimmed; empty ones included.
pub(super) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim_blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_control_agrees_with_a_plain_search() {
        for len in 0..70 {
            let clean = vec![b'a'; len];
            assert_eq!(find_control(&clean), len);
            for at in 0..len {
                for b in [0, 9, 10, 13, 31, 127] {
                    let mut text = clean.clone();
                    text[at] = b;
                    assert_eq!(find_control(&text), at, "len {len} octet {b}");
                }
                let mut text = clean.clone();
                text[at] = 0x80;
                assert_eq!(find_control(&text), len);
            }
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(length_value(b"0"), Some(0));
        assert_eq!(length_value(b"00005"), Some(5));
        assert_eq!(length_value(b"9223372036854775807"), Some(u64::try_from(i64::MAX).unwrap()));
        for bad in ["", "9223372036854775808", "00000000000000000005", "+5", "-1", "5 6", "0x5", "1_0", "5.0"]
        {
            assert_eq!(length_value(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn find_colon_agrees_with_a_plain_search() {
        for len in 0..40 {
            let clean = vec![0xba; len];
            assert_eq!(find_colon(&clean), None);
            for (at, b) in (0..len).flat_map(|at| [b':', 0x1f, 0x7f, 9].map(|b| (at, b))) {
                for behind in [b'a', b':', b'\n', 0xff] {
                    let mut text = clean.clone();
                    text[at..].fill(behind);
                    text[at] = b;
                    assert_eq!(
                        find_colon(&text),
                        (b == b':').then_some(at),
                        "len {len}, {b} before {behind}"
                    );
                }
            }
        }
    }

    #[test]
    fn tokens() {
        assert_eq!((0..=255).filter(|b| is_token_octet(*b)).count(), 77);
        assert!(!is_token(b"") && !is_token(b"a b") && is_token(b"x-1_!"));
    }
}
