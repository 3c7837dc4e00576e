//! Our own answers: refusals, `respond` routes and redirects.

use super::write::Writer;

/// A whole answer of our own.
#[derive(Debug, Clone)]
pub struct OwnReply<'a> {
    /// A final status.
    pub status: u16,
    /// The refusal's word, sent as `ringway-reason`.
    pub reason: Option<&'a str>,
    /// Sent as `x-request-id`; the log has the same.
    pub request_id: &'a str,
    pub date: &'a [u8],
    /// We close after it.
    pub close: bool,
    /// We keep the connection of an HTTP/1.0 client that asked for it.
    pub keep_alive_10: bool,
    /// The request was a HEAD: everything but the body.
    pub head_only: bool,
    /// Of the body, if it has one.
    pub content_type: &'a str,
    /// More fields, in order. Values may be made from the request: what could end a line is written as SP.
    pub extra: &'a [(&'a str, &'a [u8])],
    pub body: &'a [u8],
    /// Seconds.
    pub retry_after: Option<u32>,
}

/// Writes an answer with its body. Returns its length; `None`: it does not fit.
pub fn encode_own_reply(reply: &OwnReply<'_>, out: &mut [u8]) -> Option<usize> {
    let mut to = Writer::new(out);
    to.text(b"HTTP/1.1 ");
    to.number(u64::from(reply.status));
    to.text(b" ");
    to.text(reason_phrase(reply.status).as_bytes());
    to.text(b"\r\n");
    to.own(b"date: ", reply.date);
    to.own(b"x-request-id: ", reply.request_id.as_bytes());
    if let Some(reason) = reply.reason {
        to.own(b"ringway-reason: ", reason.as_bytes());
    }
    if let Some(seconds) = reply.retry_after {
        to.text(b"retry-after: ");
        to.number(u64::from(seconds));
        to.text(b"\r\n");
    }
    for (name, value) in reply.extra {
        to.field(name.as_bytes(), value);
    }
    // RFC 9110 6.4.1: these have no body, and 204 no length either; an empty 304 tells nothing of the length it stands for.
    let bodiless = matches!(reply.status, 100..=199 | 204 | 304);
    if !bodiless {
        if !reply.body.is_empty() {
            to.own(b"content-type: ", reply.content_type.as_bytes());
        }
        to.content_length(reply.body.len() as u64);
    }
    if reply.close {
        to.text(b"connection: close\r\n");
    } else if reply.keep_alive_10 {
        to.text(b"connection: keep-alive\r\n");
    }
    to.finish_with(if bodiless || reply.head_only { b"" } else { reply.body })
}

/// The words for a status (RFC 9110 section 15 and the IANA registry); for others, those of its class.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => match status / 100 {
            1 => "Informational",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::REFUSALS;

    const PLAIN: OwnReply<'_> = OwnReply {
        status: 404,
        reason: Some("no_route"),
        request_id: "n-1",
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
        close: false,
        keep_alive_10: false,
        head_only: false,
        content_type: "text/plain",
        extra: &[],
        body: b"no\n",
        retry_after: None,
    };

    fn text(reply: &OwnReply<'_>) -> String {
        let mut out = [0; 500];
        let len = encode_own_reply(reply, &mut out).unwrap();
        assert_eq!(encode_own_reply(reply, &mut out[..len]), Some(len));
        assert_eq!(encode_own_reply(reply, &mut out[..len - 1]), None);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_reply() {
        assert_eq!(
            text(&PLAIN),
            "HTTP/1.1 404 Not Found\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-request-id: n-1\r\n\
             ringway-reason: no_route\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nno\n"
        );
        let head = text(&OwnReply { head_only: true, close: true, retry_after: Some(7), ..PLAIN });
        assert!(head.contains("\r\nretry-after: 7\r\n"));
        assert!(head.ends_with("content-length: 3\r\nconnection: close\r\n\r\n"));
        let kept = text(&OwnReply { keep_alive_10: true, body: b"", ..PLAIN });
        assert!(
            kept.ends_with("content-length: 0\r\nconnection: keep-alive\r\n\r\n")
                && !kept.contains("content-type")
        );
    }

    #[test]
    fn no_body_where_none_may_be() {
        for status in [204, 304] {
            let reply = text(&OwnReply { status, ..PLAIN });
            assert!(!reply.contains("content-") && reply.ends_with("\r\n\r\n"), "{reply}");
        }
    }

    #[test]
    fn a_redirect_cannot_be_split() {
        let location: &[u8] = b"https://b/\r\nSet-Cookie: a=b";
        let reply =
            text(&OwnReply { status: 308, extra: &[("location", location), ("bad\r\nname", b"x")], ..PLAIN });
        assert!(reply.contains("\r\nlocation: https://b/  Set-Cookie: a=b\r\n") && !reply.contains("bad"));
    }

    #[test]
    fn every_refusal_has_its_own_words() {
        for row in REFUSALS {
            let words = reason_phrase(row.status);
            assert!(!["Client Error", "Server Error", "Informational"].contains(&words), "{}", row.status);
        }
    }
}
