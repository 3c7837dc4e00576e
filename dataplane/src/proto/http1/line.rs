//! Start lines: `METHOD SP TARGET SP VERSION` and `VERSION SP STATUS [SP REASON]`, judged as soon as they are whole.

use super::octets::{is_blank, is_token};
use crate::fault::Refusal;
use crate::limits::METHOD_BYTES;
use crate::proto::{Method, Version};

/// A request line's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) method: Method,
    pub(super) method_text: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) version: Version,
}

/// RFC 9112 section 3, with exactly one SP between the parts. `line` is without its CRLF and holds no control octet but
/// perhaps HTAB.
pub(super) fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    if let Some(get) = plain_get(line) {
        return Ok(get);
    }
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method_text), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::BadRequestLine);
    };
    if method_text.is_empty() || target.is_empty() || line.contains(&b'\t') {
        return Err(Refusal::BadRequestLine);
    }
    let method = method(method_text)?;
    let version = request_version(version)?;
    match method {
        Method::Connect | Method::Trace => Err(Refusal::MethodNotAllowed),
        _ => Ok(RequestLine { method, method_text, target, version }),
    }
}

/// What most lines are, in one pass. `None` says nothing.
fn plain_get(line: &[u8]) -> Option<RequestLine<'_>> {
    let (target, version) = line.strip_prefix(b"GET ")?.split_last_chunk::<9>()?;
    let plain = version == b" HTTP/1.1" && !target.is_empty() && !target.iter().any(|b| is_blank(*b));
    plain.then_some(RequestLine {
        method: Method::Get,
        method_text: &line[..3],
        target,
        version: Version::Http11,
    })
}

const METHODS: [(&[u8], Method); 9] = [
    (b"GET", Method::Get),
    (b"POST", Method::Post),
    (b"HEAD", Method::Head),
    (b"PUT", Method::Put),
    (b"DELETE", Method::Delete),
    (b"OPTIONS", Method::Options),
    (b"PATCH", Method::Patch),
    (b"TRACE", Method::Trace),
    (b"CONNECT", Method::Connect),
];

/// Methods are case-sensitive (RFC 9110 9.1). One that differs from a known one by case alone is refused: an origin that
/// ignores case would frame its answer by another method than we do.
pub(super) fn method(text: &[u8]) -> Result<Method, Refusal> {
    if !is_token(text) {
        return Err(Refusal::BadMethod);
    }
    if text.len() > METHOD_BYTES {
        return Err(Refusal::MethodTooLong);
    }
    match METHODS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((name, method)) if *name == text => Ok(*method),
        Some(_) => Err(Refusal::BadMethod),
        None => Ok(Method::Other),
    }
}

/// `HTTP/` DIGIT `.` DIGIT, nothing around it (RFC 9112 2.3).
fn request_version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::UnsupportedVersion),
        _ => Err(Refusal::BadVersion),
    }
}

/// A status line's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StatusLine<'a> {
    pub(super) version: Version,
    pub(super) status: u16,
    /// May be empty; may hold obs-text.
    pub(super) reason: &'a [u8],
}

/// RFC 9112 section 4. The SP before an empty reason may be missing, as many origins leave it out.
pub(super) fn status_line(line: &[u8]) -> Result<StatusLine<'_>, Refusal> {
    let invalid = Err(Refusal::ResponseInvalid);
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return invalid,
    };
    let (digits, reason) = match &line[9..] {
        [a, b, c] => ([*a, *b, *c], &[][..]),
        [a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return invalid,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return invalid;
    }
    let status = digits.iter().fold(0u16, |n, b| n * 10 + u16::from(b - b'0'));
    if !(100..=599).contains(&status) {
        return invalid;
    }
    Ok(StatusLine { version, status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> Refusal {
        request_line(line.as_bytes()).expect_err(line)
    }

    #[test]
    fn request_lines() {
        let line = request_line(b"GET /a?b HTTP/1.0").unwrap();
        assert_eq!(
            (line.method, line.target, line.version),
            (Method::Get, b"/a?b".as_slice(), Version::Http10)
        );
        assert_eq!(request_line(b"PROPFIND / HTTP/1.1").unwrap().method, Method::Other);
        for bad in
            ["", "GET", "GET /", " GET / HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /\tHTTP/1.1"]
        {
            assert_eq!(refusal(bad), Refusal::BadRequestLine, "{bad:?}");
        }
        for bad in [
            "get / HTTP/1.1",
            "Get / HTTP/1.1",
            "G=\":<>(e) / HTTP/1.1",
            "G\u{e9} / HTTP/1.1",
            "connect / HTTP/1.1",
        ] {
            assert_eq!(refusal(bad), Refusal::BadMethod, "{bad:?}");
        }
        for bad in ["CONNECT a:443 HTTP/1.1", "TRACE / HTTP/1.1"] {
            assert_eq!(refusal(bad), Refusal::MethodNotAllowed, "{bad:?}");
        }
    }

    #[test]
    fn method_lengths() {
        for (len, expected) in [(31, None), (32, None), (33, Some(Refusal::MethodTooLong))] {
            let line = format!("{} / HTTP/1.1", "M".repeat(len));
            assert_eq!(request_line(line.as_bytes()).err(), expected, "{len}");
        }
    }

    #[test]
    fn versions() {
        for bad in [
            "HTTP/1",
            "http/1.1",
            "HTTP/1.10",
            "HTTP/01.1",
            "HTTP/4294967297.1",
            "HTTP/0.9",
            "HTTP/1,1",
            "",
            "HTTP",
        ] {
            assert_eq!(request_version(bad.as_bytes()), Err(Refusal::BadVersion), "{bad}");
        }
        for other in ["HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0"] {
            assert_eq!(request_version(other.as_bytes()), Err(Refusal::UnsupportedVersion), "{other}");
        }
    }

    #[test]
    fn status_lines() {
        let line = status_line(b"HTTP/1.1 404 Not \xfcber").unwrap();
        assert_eq!((line.status, line.reason), (404, b"Not \xfcber".as_slice()));
        assert_eq!(status_line(b"HTTP/1.0 200 ").unwrap().reason, b"");
        assert_eq!(status_line(b"HTTP/1.1 200").unwrap().status, 200);
        for bad in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 099 x",
            "HTTP/1.1 600 x",
            "HTTP/1.1  200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.2 200 OK",
            "ICY 200 OK",
            "HTTP/1.1 2x0 OK",
            "HTTP/1.1 200\tOK",
            "http/1.1 200 OK",
        ] {
            assert_eq!(status_line(bad.as_bytes()).err(), Some(Refusal::ResponseInvalid), "{bad:?}");
        }
    }
}
