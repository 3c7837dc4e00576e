//! The one normal form of a path, which is both routed by and forwarded (docs/http.md).

use super::octets::hex_value;
use crate::fault::Refusal;

/// RFC 3986 2.3: what a percent escape never needs to hide.
const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// What one position of a path holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Octet(u8),
    /// An escape that stays one, with its value.
    Escape(u8),
}

fn unit(path: &[u8], at: usize) -> Result<Unit, Refusal> {
    match path[at] {
        b'%' => {
            let digit = |i| path.get(i).copied().and_then(hex_value);
            let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                return Err(Refusal::BadPath);
            };
            match high << 4 | low {
                // An origin may decode these before it splits the path: two readings of one path.
                0 | b'/' | b'\\' => Err(Refusal::BadPath),
                value if is_unreserved(value) => Ok(Unit::Octet(value)),
                value => Ok(Unit::Escape(value)),
            }
        }
        b'\\' => Err(Refusal::BadPath),
        b'#' => Err(Refusal::FragmentInTarget),
        0x80.. => Err(Refusal::BadTarget),
        octet => Ok(Unit::Octet(octet)),
    }
}

/// Writes the normal form of `path`, which begins with `/`, over its front and returns its length.
///
/// Escapes in upper case, escaped unreserved octets decoded, empty segments dropped, dot segments removed. Refused: an
/// escaped or raw backslash, an escaped slash or NUL, a broken escape, a raw octet above 0x7f, an overlong UTF-8 escape,
/// a dot segment with parameters (`..;x`), a path above the root. Normal forms are fixed points of this function.
pub(super) fn normalise(path: &mut [u8]) -> Result<usize, Refusal> {
    // The usual path is its own normal form already; this look costs less than moving each octet.
    if is_plain(path) {
        return Ok(path.len());
    }
    let (mut from, mut to) = (0, 0);
    let mut lead = None; // the value of an escape directly before
    while from < path.len() {
        match unit(path, from)? {
            Unit::Octet(b'/') => {
                to = end_segment(path, to)?;
                if to == 0 || path[to - 1] != b'/' {
                    path[to] = b'/';
                    to += 1;
                }
                from += 1;
                lead = None;
            }
            Unit::Octet(octet) => {
                from += if path[from] == b'%' { 3 } else { 1 };
                path[to] = octet;
                to += 1;
                lead = None;
            }
            Unit::Escape(value) => {
                if lead.is_some_and(|lead| is_overlong(lead, value)) {
                    return Err(Refusal::BadPath);
                }
                lead = Some(value);
                path[to] = b'%';
                path[to + 1] = path[from + 1].to_ascii_uppercase();
                path[to + 2] = path[from + 2].to_ascii_uppercase();
                to += 3;
                from += 3;
            }
        }
    }
    end_segment(path, to)
}

/// No escape, no octet to refuse, no empty segment and none that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &octet in path {
        let begins_segment = previous == b'/';
        if matches!(octet, b'%' | b'\\' | b'#' | 0x80..) || begins_segment && matches!(octet, b'/' | b'.') {
            return false;
        }
        previous = octet;
    }
    true
}

/// The segment before `to` is whole: a dot segment goes, `..` with the segment before it. Returns the new end.
fn end_segment(path: &[u8], to: usize) -> Result<usize, Refusal> {
    let start = path[..to].iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    match &path[start..to] {
        b"." => Ok(start),
        b".." => {
            // `start` is behind a slash; the segment to drop ends before that slash.
            let before = start.saturating_sub(1);
            let parent = path[..before].iter().rposition(|b| *b == b'/');
            parent.map(|at| at + 1).ok_or(Refusal::BadPath)
        }
        // Some origins cut parameters off before they resolve dot segments.
        [b'.', b';', ..] | [b'.', b'.', b';', ..] => Err(Refusal::BadPath),
        _ => Ok(to),
    }
}

/// Whether two escaped octets begin an overlong UTF-8 form (a lax decoder reads `%C0%AE` as a dot).
const fn is_overlong(lead: u8, next: u8) -> bool {
    match lead {
        0xc0 | 0xc1 => next & 0xc0 == 0x80,
        0xe0 => matches!(next, 0x80..=0x9f),
        0xf0 => matches!(next, 0x80..=0x8f),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, Refusal> {
        let mut bytes = path.as_bytes().to_vec();
        let len = normalise(&mut bytes)?;
        Ok(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    #[test]
    fn normal_forms() {
        for (path, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("//evil/x", "/evil/x"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a//../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/%7euser/%41%2d%5f", "/~user/A-_"),
            ("/a%3ab%c3%a9", "/a%3Ab%C3%A9"),
            ("/%0d%0aX:y", "/%0D%0AX:y"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/admin;x", "/admin;x"),
            ("/a/.../%2e%2e/b", "/a/b"),
            ("/%25%32%65", "/%252e"),
            ("/%252e%252e/x", "/%252e%252e/x"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(form), "{path}");
        }
    }

    #[test]
    fn refused() {
        for path in [
            "/..",
            "/..//admin",
            "/%2e%2e/admin",
            "/a/../..",
            "/a/..%2fadmin",
            "/a%2Fb",
            "/a%5cb",
            "/\\admin",
            "/a%00",
            "/%zz",
            "/%2",
            "/%",
            "/a%",
            "/%c0%ae",
            "/%C1%9C",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/a/..;/b",
            "/a/.;x",
            "/a/%2e.;/b",
            "/./..",
            "/a/..;",
        ] {
            assert_eq!(normal(path), Err(Refusal::BadPath), "{path}");
        }
        assert_eq!(normal("/a#b"), Err(Refusal::FragmentInTarget));
        assert_eq!(normal("/é"), Err(Refusal::BadTarget));
    }

    proptest! {
        #[test]
        fn a_normal_form_is_a_fixed_point(path in "/([a.%;]|/|%2e|%2F|%41|%c3|%a9|\\.\\.|//){0,12}") {
            if let Ok(form) = normal(&path) {
                prop_assert!(form.starts_with('/'));
                prop_assert!(!form.contains("//") && !form.split('/').any(|s| s == "." || s == ".."));
                prop_assert_eq!(normal(&form), Ok(form.clone()));
            }
        }
    }
}
