//! Where a request's head ends, and what it wants. Trusts its peer as far as a benchmark may: it looks for the few fields
//! that it obeys and checks nothing else.

use super::answer::{SMALL, Wish};
use memchr::memmem;

/// A head longer than this ends the connection.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) head: usize,
    /// Bytes of body that follow the head.
    pub(crate) body: u64,
    pub(crate) wish: Wish,
}

/// The request at the start of `bytes`, if its head is all there.
pub(crate) fn read(bytes: &[u8]) -> Option<Request> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let lines = &bytes[..head];
    let mut wish = wish(lines);
    let mut body = 0;
    // GET without a body is the usual case, but its `Connection` counts too; both fields begin with "\r\nC".
    for (at, _) in
        lines.windows(3).enumerate().filter(|(_, w)| w[0] == b'\n' && w[1] | 32 == b'c' && w[2] | 32 == b'o')
    {
        let line = &lines[at + 1..];
        let line = &line[..memchr::memchr(b'\r', line).unwrap_or(line.len())];
        if let Some(value) = value(line, b"content-length:") {
            body = number(value).unwrap_or(0);
        } else if let Some(value) = value(line, b"connection:") {
            wish.close |= value.eq_ignore_ascii_case(b"close");
        }
    }
    Some(Request { head, body, wish })
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `/bytes/N` and `/status/CODE`; every other path gets the small answer.
fn wish(head: &[u8]) -> Wish {
    let target = head.split(|b| *b == b' ').nth(1).unwrap_or_default();
    if target == b"/" {
        return SMALL;
    }
    if let Some(n) = target.strip_prefix(b"/bytes/") {
        return number(n).and_then(|n| usize::try_from(n).ok()).map_or(SMALL, |body| Wish { body, ..SMALL });
    }
    let status = target.strip_prefix(b"/status/").and_then(number).and_then(|n| u16::try_from(n).ok());
    match status {
        Some(status @ 200..=599) => Wish { status, body: 0, close: false },
        _ => SMALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_length_its_wish_and_its_end() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(read(get), Some(Request { head: get.len(), body: 0, wish: SMALL }));
        assert_eq!(read(&get[..get.len() - 1]), None);
        let post =
            b"POST /bytes/10 HTTP/1.1\r\nhost: a\r\ncontent-LENGTH: 5\r\nConnection: Close\r\n\r\nhello";
        let wish = Wish { status: 200, body: 10, close: true };
        assert_eq!(read(post), Some(Request { head: post.len() - 5, body: 5, wish }));
        let status = read(b"GET /status/404 HTTP/1.1\r\n\r\n").map(|r| r.wish);
        assert_eq!(status, Some(Wish { status: 404, body: 0, close: false }));
    }
}
