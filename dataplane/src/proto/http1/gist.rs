//! What can be told of a request whose head was refused, or never came whole: its method and target, for the log.

use super::line::method;
use super::octets::{find_control, is_token};
use super::target::target;
use crate::limits::{LEADING_EMPTY_LINES, METHOD_BYTES};
use crate::proto::{Method, RequestHead, Span, Version};

/// Fills in what the request line at the front of `bytes` says: the method if a space follows it, and a whole target of the
/// grammar if a version does and the line has no more than `most` bytes. A path is put in its normal form in place, as it is
/// where the head is read; so this is for bytes that nobody reads again.
pub fn gist(bytes: &mut [u8], most: u32, out: &mut RequestHead) {
    out.clear();
    let empty = bytes.chunks_exact(2).take(LEADING_EMPTY_LINES).take_while(|pair| *pair == b"\r\n");
    let start = empty.count() * 2;
    let line = &bytes[start..start + find_control(&bytes[start..])];
    let is_whole = line.len() <= most as usize && bytes[start + line.len()..].starts_with(b"\r\n");
    let mut parts = line.split(|b| *b == b' ');
    let (Some(name), Some(asked)) = (parts.next(), parts.next()) else { return };
    if name.len() > METHOD_BYTES || !is_token(name) {
        return;
    }
    out.method_text = Span::between(start, start + name.len());
    let Some(version) = parts.next().filter(|version| is_whole && version.starts_with(b"HTTP/")) else {
        return;
    };
    if parts.next().is_some() {
        return;
    }
    out.version = if version == b"HTTP/1.0" { Version::Http10 } else { Version::Http11 };
    out.method = method(name).unwrap_or(Method::Other);
    let (from, len, method) = (start + name.len() + 1, asked.len(), out.method);
    if let Ok(found) = target(bytes, from, len, method) {
        out.path = found.path;
        out.query = found.query;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (String, String, Option<String>) {
        let (mut bytes, mut head) = (text.as_bytes().to_vec(), RequestHead::default());
        gist(&mut bytes, 40, &mut head);
        let text = |span: Span| String::from_utf8(span.of(&bytes).to_vec()).unwrap();
        (text(head.method_text), text(head.path), head.query.map(text))
    }

    #[test]
    fn what_is_understood_is_told_and_nothing_else() {
        for (text, method, path, query) in [
            ("GET /a/../b?c HTTP/1.1\r\nHost: a\r\nx", "GET", "/b", Some("c")),
            ("\r\n\r\nPUT /x HTTP/1.0\r\n", "PUT", "/x", None),
            ("GET / HTTP/2.0\r\n\r\n", "GET", "/", None),
            ("TRACE /t HTTP/1.1\r\n", "TRACE", "/t", None),
            ("GET http://a/b HTTP/1.1\r\n", "GET", "/b", None),
            ("CONNECT a:443 HTTP/1.1\r\n", "CONNECT", "", None),
            ("GET /a\u{e9} HTTP/1.1\r\n", "GET", "", None),
            (&format!("GET /{} HTTP/1.1\r\n", "a".repeat(26)), "GET", &format!("/{}", "a".repeat(26)), None),
            (&format!("GET /{} HTTP/1.1\r\n", "a".repeat(27)), "GET", "", None),
            ("GET /a HTTP/1.1", "GET", "", None),
            ("GET /a HTTP/1.1 x\r\n", "GET", "", None),
            ("GET /a\r\n", "GET", "", None),
            ("GET /a HTTP/1.1\n", "GET", "", None),
            ("GET", "", "", None),
            ("\u{16}\u{3}\u{1} \u{2}", "", "", None),
            ("(x) / HTTP/1.1\r\n", "", "", None),
            (&format!("{} / HTTP/1.1\r\n", "M".repeat(METHOD_BYTES + 1)), "", "", None),
            ("\r\n", "", "", None),
            ("", "", "", None),
        ] {
            let expected = (method.to_owned(), path.to_owned(), query.map(str::to_owned));
            assert_eq!(told(text), expected, "{text:?}");
        }
    }
}
