//! Where a response ends: by its length, by its chunks, or with the connection. Bodies are not kept.

use std::io;

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a piece of bytes brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// Bytes left.
    Body(u64),
    /// The size line of a chunk, as far as it is read; whether its digits are over.
    Size(u64, bool),
    /// Bytes left, with the CRLF behind them.
    Chunk(u64),
    /// The trailer; whether its line has anything in it.
    Trailer(bool),
    UntilEnd,
    Done,
}

/// One response being read.
#[derive(Debug)]
pub(super) struct Response {
    part: Part,
    /// The start of a head that came in pieces.
    partial: Vec<u8>,
    pub(super) status: u16,
    /// The target ends the connection after this response.
    pub(super) close: bool,
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Response {
    pub(super) const fn new() -> Self {
        Self { part: Part::Head, partial: Vec::new(), status: 0, close: false }
    }

    /// Reads a piece. Bytes behind the end are an error: nothing else was asked for.
    pub(super) fn feed(&mut self, piece: &[u8]) -> io::Result<Progress> {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.part {
                Part::Head => self.head(rest)?,
                Part::Done => return Err(wrong("bytes behind the response")),
                Part::UntilEnd => return Ok(Progress::More),
                Part::Body(left) => {
                    let (taken, rest) = skip(rest, left);
                    self.part = if taken == left { Part::Done } else { Part::Body(left - taken) };
                    rest
                }
                Part::Chunk(left) => {
                    let (taken, rest) = skip(rest, left);
                    self.part = if taken == left { Part::Size(0, false) } else { Part::Chunk(left - taken) };
                    rest
                }
                Part::Size(..) | Part::Trailer(_) => self.line_byte(rest)?,
            };
        }
        Ok(if self.part == Part::Done { Progress::Done } else { Progress::More })
    }

    /// Whether the end of the connection is the end of the response.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.part == Part::UntilEnd
    }

    fn head<'a>(&mut self, rest: &'a [u8]) -> io::Result<&'a [u8]> {
        let before = self.partial.len();
        if before > 0 {
            self.partial.extend_from_slice(rest);
            let joined = std::mem::take(&mut self.partial);
            return match self.parse(&joined)? {
                // The head ended in this piece, because it had not in those before.
                Some(len) => Ok(&rest[len.saturating_sub(before)..]),
                None => {
                    self.partial = joined;
                    Ok(&[])
                }
            };
        }
        match self.parse(rest)? {
            Some(len) => Ok(&rest[len..]),
            None => {
                self.partial = rest.to_vec();
                Ok(&[])
            }
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(len) = response.parse(bytes).map_err(|_| wrong("no HTTP response"))?
        else {
            return if bytes.len() > HEAD_BYTES_MAX { Err(wrong("an endless head")) } else { Ok(None) };
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            return Ok(Some(len));
        }
        self.status = status;
        self.close = response.version == Some(0);
        let mut part = Part::UntilEnd;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") && part == Part::UntilEnd {
                let text = std::str::from_utf8(header.value).unwrap_or_default();
                part = Part::Body(text.trim().parse().map_err(|_| wrong("a bad Content-Length"))?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                part = Part::Size(0, false);
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.close = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.part = if matches!(status, 204 | 304) || part == Part::Body(0) { Part::Done } else { part };
        Ok(Some(len))
    }

    /// One byte of a chunk's size line or of the trailer.
    fn line_byte<'a>(&mut self, rest: &'a [u8]) -> io::Result<&'a [u8]> {
        let byte = rest[0];
        self.part = match (self.part, byte) {
            (Part::Size(0, _), b'\n') => Part::Trailer(false),
            (Part::Size(size, _), b'\n') => Part::Chunk(size.saturating_add(2)),
            (Part::Size(size, false), _) => match char::from(byte).to_digit(16) {
                Some(digit) if size < 1 << 56 => Part::Size(size << 4 | u64::from(digit), false),
                Some(_) => return Err(wrong("an endless chunk")),
                None => Part::Size(size, true),
            },
            (Part::Trailer(false), b'\n') => Part::Done,
            (Part::Trailer(_), b'\n') => Part::Trailer(false),
            (Part::Trailer(any), b'\r') => Part::Trailer(any),
            (Part::Trailer(_), _) => Part::Trailer(true),
            (part, _) => part,
        };
        Ok(&rest[1..])
    }
}

fn skip(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (taken as u64, &bytes[taken..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_cut_anywhere_end_where_they_end() {
        let wire: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ];
        for bytes in wire {
            for cut in 1..bytes.len() {
                let mut response = Response::new();
                assert_eq!(response.feed(&bytes[..cut]).unwrap(), Progress::More, "cut at {cut}");
                assert_eq!(response.feed(&bytes[cut..]).unwrap(), Progress::Done, "cut at {cut}");
                response.feed(b"x").unwrap_err();
            }
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_its_connection() {
        let mut response = Response::new();
        assert_eq!(response.feed(b"HTTP/1.0 200 OK\r\n\r\nabc").unwrap(), Progress::More);
        assert!(response.ends_with_connection() && response.close);
    }
}
