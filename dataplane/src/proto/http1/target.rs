//! A request target's form: origin, absolute or asterisk (RFC 9112 3.2); its authority, path and query.

use super::host::{AuthorityFault, host_len};
use super::path::normalise;
use crate::fault::Refusal;
use crate::proto::{Method, Span};

/// A checked target. Spans index the bytes that hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Of an absolute target only; then it wins over Host (RFC 9112 3.2.2).
    pub(super) authority: Option<Span>,
    /// In its normal form.
    pub(super) path: Span,
    pub(super) query: Option<Span>,
}

/// Checks the target at `bytes[at..at + len]` and writes the path's normal form in its place.
#[inline]
pub(super) fn target(bytes: &mut [u8], at: usize, len: usize, method: Method) -> Result<Target, Refusal> {
    let end = at + len;
    let text = &bytes[at..end];
    if text.contains(&b'#') {
        return Err(Refusal::FragmentInTarget);
    }
    // Quotation mark and angle brackets belong to no URI, and to every injection.
    if text.iter().any(|b| matches!(b, b'"' | b'<' | b'>' | 0x80..)) {
        return Err(Refusal::BadTarget);
    }
    match text {
        [b'/', ..] => path_and_query(bytes, at, end, None),
        b"*" if method == Method::Options => {
            Ok(Target { authority: None, path: Span::between(at, end), query: None })
        }
        _ => absolute(bytes, at, end, method),
    }
}

#[inline(always)]
fn path_and_query(
    bytes: &mut [u8],
    at: usize,
    end: usize,
    authority: Option<Span>,
) -> Result<Target, Refusal> {
    let mark = bytes[at..end].iter().position(|b| *b == b'?').map(|i| at + i);
    let path_end = mark.unwrap_or(end);
    let len = normalise(&mut bytes[at..path_end])?;
    let query = mark.map(|mark| Span::between(mark + 1, end));
    Ok(Target { authority, path: Span::between(at, at + len), query })
}

/// `http://authority[/path][?query]`. Authority-form, and whatever else has no `://`, is a bad target.
fn absolute(bytes: &mut [u8], at: usize, end: usize, method: Method) -> Result<Target, Refusal> {
    let text = &bytes[at..end];
    let scheme_len = text.iter().position(|b| !is_scheme_octet(*b)).unwrap_or(text.len());
    let (scheme, rest) = text.split_at(scheme_len);
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !rest.starts_with(b"://") {
        return Err(Refusal::BadTarget);
    }
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Refusal::WrongScheme);
    }
    let from = at + scheme_len + 3;
    let authority_end =
        bytes[from..end].iter().position(|b| matches!(b, b'/' | b'?')).map_or(end, |i| from + i);
    let authority = Span::between(from, authority_end);
    host_len(authority.of(bytes)).map_err(|fault| match fault {
        AuthorityFault::Userinfo => Refusal::UserinfoInTarget,
        AuthorityFault::Invalid => Refusal::BadTarget,
    })?;
    if bytes[..end].get(authority_end) == Some(&b'/') {
        return path_and_query(bytes, authority_end, end, Some(authority));
    }
    // An empty path is "/", or "*" for OPTIONS without a query (RFC 9112 3.2.4). Its octet is the scheme's last slash.
    let path = Span::between(from - 1, from);
    let query = (authority_end < end).then(|| Span::between(authority_end + 1, end));
    if method == Method::Options && query.is_none() {
        bytes[from - 1] = b'*';
    }
    Ok(Target { authority: Some(authority), path, query })
}

const fn is_scheme_octet(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// authority, path, query
    fn parts(method: Method, text: &str) -> Result<(String, String, Option<String>), Refusal> {
        let mut bytes = text.as_bytes().to_vec();
        let len = bytes.len();
        let found = target(&mut bytes, 0, len, method)?;
        let text = |span: Span| String::from_utf8(span.of(&bytes).to_vec()).unwrap();
        Ok((found.authority.map(text).unwrap_or_default(), text(found.path), found.query.map(text)))
    }

    #[test]
    fn forms() {
        let some = |text: &str| Some(text.to_owned());
        for (text, authority, path, query) in [
            ("/", "", "/", None),
            ("/a?", "", "/a", some("")),
            ("/a/../b?c/../d?e%zz", "", "/b", some("c/../d?e%zz")),
            ("http://b", "b", "/", None),
            ("HTTP://b:80/x", "b:80", "/x", None),
            ("http://b?q", "b", "/", some("q")),
            ("http://[::1]:8080//x", "[::1]:8080", "/x", None),
        ] {
            let expected = (authority.to_owned(), path.to_owned(), query);
            assert_eq!(parts(Method::Get, text), Ok(expected), "{text}");
        }
        assert_eq!(parts(Method::Options, "*").unwrap().1, "*");
        assert_eq!(parts(Method::Options, "http://b").unwrap().1, "*");
        assert_eq!(parts(Method::Options, "http://b/").unwrap().1, "/");
        assert_eq!(parts(Method::Options, "http://b?q").unwrap().1, "/");
    }

    #[test]
    fn refused() {
        for (text, refusal) in [
            ("*", Refusal::BadTarget),
            ("a:443", Refusal::BadTarget),
            ("a", Refusal::BadTarget),
            ("?q", Refusal::BadTarget),
            ("http:/x", Refusal::BadTarget),
            ("http:x", Refusal::BadTarget),
            ("http:///x", Refusal::BadTarget),
            ("http://b:x/", Refusal::BadTarget),
            ("1http://b/", Refusal::BadTarget),
            ("://b/", Refusal::BadTarget),
            ("https://b/", Refusal::WrongScheme),
            ("ftp://b/", Refusal::WrongScheme),
            ("file:///etc", Refusal::WrongScheme),
            ("http://u:p@b/", Refusal::UserinfoInTarget),
            ("http://b/#f", Refusal::FragmentInTarget),
            ("/a?b#c", Refusal::FragmentInTarget),
            ("/a?\u{e9}", Refusal::BadTarget),
            ("/a?\"", Refusal::BadTarget),
            ("/<b>", Refusal::BadTarget),
        ] {
            assert_eq!(parts(Method::Get, text), Err(refusal), "{text}");
        }
    }
}
