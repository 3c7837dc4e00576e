//! HTTP as the peers speak it, strict and slow, apart from the proxy's own parser; and the canary bytes of bodies.

use crate::mix::mix;

/// What the body of `id` must hold at `from`: each exchange and direction has bytes of its own.
pub(super) fn canary(id: u64, from: u64, len: usize) -> Vec<u8> {
    let skip = (from % 8) as usize;
    let words = (from / 8..).map(|n| mix((id << 32) ^ n).to_le_bytes());
    let mut bytes: Vec<u8> = words.take((skip + len).div_ceil(8)).flatten().collect();
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}
/// Whether `bytes` are the body of `id` from `from` on.
pub(super) fn is_canary(id: u64, from: u64, bytes: &[u8]) -> bool {
    canary(id, from, bytes.len()) == bytes
}

/// A message head: the first line, and fields with lower-case names.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Head {
    /// The head at the front of `bytes` and its length; `None` while it is incomplete.
    pub(super) fn parse(bytes: &[u8]) -> Option<Result<(Self, usize), String>> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let Ok(text) = std::str::from_utf8(&bytes[..end]) else { return Some(Err("not text".into())) };
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_string();
        let mut fields = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else {
                return Some(Err(format!("a field without colon and space: {line:?}")));
            };
            fields.push((name.to_ascii_lowercase(), value.to_string()));
        }
        Some(Ok((Self { first, fields }, end + 4)))
    }
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub(super) fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n == name).count()
    }
    pub(super) fn says_close(&self) -> bool {
        self.field("connection").is_some_and(|v| v.to_ascii_lowercase().contains("close"))
    }
    /// The framing that these fields declare; `unless` is what their absence means.
    pub(super) fn frame(&self, unless: Frame) -> Result<Frame, String> {
        match (self.field("transfer-encoding"), self.field("content-length")) {
            (Some(_), Some(_)) => Err("both Transfer-Encoding and Content-Length".into()),
            (Some("chunked"), None) if self.count("transfer-encoding") == 1 => Ok(Frame::Chunked),
            (Some(other), None) => Err(format!("Transfer-Encoding: {other}")),
            (None, Some(n)) if self.count("content-length") == 1 => {
                n.parse().map(Frame::Sized).map_err(|_| format!("Content-Length: {n}"))
            }
            (None, Some(_)) => Err("Content-Length twice".into()),
            (None, None) => Ok(unless),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Sized(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Data(u64),
    /// The line that names the next chunk's size, so far.
    Size,
    /// The CRLF behind a chunk.
    Gap,
    Trailer,
    Done,
}

/// Reads one body, piece by piece, and checks its bytes.
#[derive(Debug)]
pub(super) struct Body {
    id: u64,
    frame: Frame,
    piece: Piece,
    line: Vec<u8>,
    /// Body bytes so far.
    pub(super) got: u64,
    /// Trailer fields seen.
    pub(super) trailers: u32,
    /// Its bytes are ours to check.
    checked: bool,
}

impl Body {
    pub(super) fn new(id: u64, frame: Frame, checked: bool) -> Self {
        let piece = match frame {
            Frame::Sized(0) => Piece::Done,
            Frame::Sized(n) => Piece::Data(n),
            Frame::Chunked => Piece::Size,
            Frame::UntilClose => Piece::Data(u64::MAX),
        };
        Self { id, frame, piece, line: Vec::new(), got: 0, trailers: 0, checked }
    }
    pub(super) fn is_done(&self) -> bool {
        self.piece == Piece::Done
    }
    /// Whether the end of the connection is this body's proper end.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.frame == Frame::UntilClose
    }
    /// Takes bytes of this body from the front; how many.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && self.piece != Piece::Done {
            if let Piece::Data(left) = self.piece {
                let n = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                if self.checked && !is_canary(self.id, self.got, &bytes[at..at + n]) {
                    return Err(format!(
                        "foreign bytes in a body, between {} and {}",
                        self.got,
                        self.got + n as u64
                    ));
                }
                self.got += n as u64;
                at += n;
                self.piece = match (left - n as u64, self.frame) {
                    (0, Frame::Chunked) => Piece::Gap,
                    (0, _) => Piece::Done,
                    (left, _) => Piece::Data(left),
                };
                continue;
            }
            self.line.push(bytes[at]);
            at += 1;
            if self.line.ends_with(b"\r\n") {
                let line = std::mem::take(&mut self.line);
                self.end_of_line(&line[..line.len() - 2])?;
            }
        }
        Ok(at)
    }
    fn end_of_line(&mut self, line: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(line).into_owned();
        self.piece = match self.piece {
            Piece::Size => match u64::from_str_radix(&text, 16) {
                Ok(0) => Piece::Trailer,
                Ok(n) => Piece::Data(n),
                Err(_) => return Err(format!("a chunk size of {text:?}")),
            },
            Piece::Gap if line.is_empty() => Piece::Size,
            Piece::Gap => return Err(format!("{text:?} behind a chunk")),
            Piece::Trailer if line.is_empty() => Piece::Done,
            Piece::Trailer => {
                self.trailers += 1;
                Piece::Trailer
            }
            Piece::Data(_) | Piece::Done => unreachable!("these have no lines"),
        };
        Ok(())
    }
}

/// A body as it travels: framed, in pieces of `step` bytes. Chunked bodies get one chunk per piece.
pub(super) fn frame_body(id: u64, len: u64, chunked: bool, step: u64) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let n = step.max(1).min(len - at);
        let data = canary(id, at, n as usize);
        pieces.push(if chunked { [format!("{n:x}\r\n").as_bytes(), &data, b"\r\n"].concat() } else { data });
        at += n;
    }
    if chunked {
        pieces.push(b"0\r\n\r\n".to_vec());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_every_cut_and_foreign_bytes_do_not() {
        for chunked in [false, true] {
            let bytes = frame_body(9, 40, chunked, 7).concat();
            for cut in 0..bytes.len() {
                let mut body = Body::new(9, if chunked { Frame::Chunked } else { Frame::Sized(40) }, true);
                assert_eq!(body.feed(&bytes[..cut]).unwrap(), cut);
                assert!(!body.is_done());
                assert_eq!(body.feed(&bytes[cut..]).unwrap(), bytes.len() - cut);
                assert_eq!((body.is_done(), body.got), (true, 40));
            }
            let mut other = Body::new(8, if chunked { Frame::Chunked } else { Frame::Sized(40) }, true);
            other.feed(&bytes).unwrap_err();
        }
        assert!(is_canary(3, 5, &canary(3, 5, 100)) && !is_canary(3, 6, &canary(3, 5, 100)));
    }
}
