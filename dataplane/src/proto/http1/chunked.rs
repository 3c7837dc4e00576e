//! The chunked coding (RFC 9112 section 7.1): a strict decoder, and framing written around a lease's data.

use super::body::Decoded;
use super::octets::{hex_value, is_blank, is_control, is_token_octet};
use super::trailer::TrailerSection;
use crate::buf::{Lease, Pool};
use crate::fault::Refusal;
use crate::limits::{CHUNK_EXTENSION_BYTES, CHUNK_SIZE_DIGITS, LEASE_HEADROOM, LEASE_TAILROOM};

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What the next octet is. The grammar of a chunk line is spelt out, so that no lenient reading of it is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
enum Next {
    #[default]
    Size,
    /// White space behind the size: only `;` may follow it.
    SizeBlank,
    ExtensionStart,
    ExtensionName,
    ExtensionNameBlank,
    ExtensionValueStart,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionEscaped,
    ExtensionQuotedEnd,
    ExtensionBlank,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// The state of one chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    /// The chunk's size as read so far, then what is left of it.
    size: u64,
    trailers: TrailerSection,
    extension_bytes: u16,
    digits: u8,
    next: Next,
}

impl ChunkDecoder {
    pub(super) fn is_done(&self) -> bool {
        self.next == Next::Done
    }

    /// See [`super::BodyDecoder::decode`].
    pub(super) fn decode(
        &mut self,
        bytes: &mut [u8],
        mut trailers: Option<&mut Vec<u8>>,
    ) -> Result<Decoded, Refusal> {
        let (mut at, mut data) = (0, 0);
        while at < bytes.len() {
            match self.next {
                Next::Data => {
                    let left = bytes.len() - at;
                    let n = usize::try_from(self.size).map_or(left, |size| size.min(left));
                    if at != data {
                        bytes.copy_within(at..at + n, data);
                    }
                    (at, data) = (at + n, data + n);
                    self.size -= n as u64;
                    if self.size == 0 {
                        self.next = Next::DataCr;
                    }
                }
                Next::Trailers => {
                    let (used, end) = self.trailers.read(&bytes[at..], trailers.as_deref_mut())?;
                    at += used;
                    if end {
                        self.next = Next::Done;
                    }
                }
                Next::Done => break,
                _ => {
                    self.next = self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(Decoded { consumed: at, data, end: self.is_done() })
    }

    /// One octet of framing.
    fn step(&mut self, octet: u8) -> Result<Next, Refusal> {
        match self.next {
            Next::Size => self.size_octet(octet),
            Next::SizeLf if octet == b'\n' => {
                self.digits = 0;
                Ok(if self.size == 0 { Next::Trailers } else { Next::Data })
            }
            Next::DataCr if octet == b'\r' => Ok(Next::DataLf),
            Next::DataLf if octet == b'\n' => Ok(Next::Size),
            Next::SizeLf | Next::DataCr | Next::DataLf => Err(Refusal::ChunkTerminatorInvalid),
            _ => self.extension_octet(octet),
        }
    }

    fn size_octet(&mut self, octet: u8) -> Result<Next, Refusal> {
        if let Some(digit) = hex_value(octet) {
            self.digits += 1;
            // Sixteen digits fit a u64; the next octet would not, and neither may the sign bit be used.
            if self.digits > CHUNK_SIZE_DIGITS {
                return Err(Refusal::ChunkSizeInvalid);
            }
            self.size = self.size << 4 | u64::from(digit);
            return Ok(Next::Size);
        }
        if self.digits == 0 || self.size > i64::MAX as u64 {
            return Err(Refusal::ChunkSizeInvalid);
        }
        match octet {
            b'\r' => Ok(Next::SizeLf),
            b'\n' => Err(Refusal::ChunkTerminatorInvalid),
            b';' => Ok(Next::ExtensionStart),
            b if is_blank(b) => Ok(Next::SizeBlank),
            _ => Err(Refusal::ChunkSizeInvalid),
        }
    }

    /// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`; read only to know where it ends.
    fn extension_octet(&mut self, octet: u8) -> Result<Next, Refusal> {
        self.extension_bytes += 1;
        if u32::from(self.extension_bytes) > CHUNK_EXTENSION_BYTES {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        let blank = is_blank(octet);
        let token = is_token_octet(octet);
        let next = match (self.next, octet) {
            (Next::SizeBlank, b';') => Next::ExtensionStart,
            (Next::SizeBlank, _) if blank => Next::SizeBlank,
            (Next::SizeBlank, _) => return Err(Refusal::ChunkSizeInvalid),
            (Next::ExtensionStart, _) if blank => Next::ExtensionStart,
            (Next::ExtensionStart | Next::ExtensionName, _) if token => Next::ExtensionName,
            (Next::ExtensionName | Next::ExtensionNameBlank, b'=') => Next::ExtensionValueStart,
            (Next::ExtensionName | Next::ExtensionNameBlank, _) if blank => Next::ExtensionNameBlank,
            (Next::ExtensionValueStart, b'"') => Next::ExtensionQuoted,
            (Next::ExtensionValueStart, _) if blank => Next::ExtensionValueStart,
            (Next::ExtensionValueStart | Next::ExtensionToken, _) if token => Next::ExtensionToken,
            (Next::ExtensionQuoted, b'"') => Next::ExtensionQuotedEnd,
            (Next::ExtensionQuoted, b'\\') => Next::ExtensionEscaped,
            (Next::ExtensionQuoted | Next::ExtensionEscaped, b'\t') => Next::ExtensionQuoted,
            (Next::ExtensionQuoted | Next::ExtensionEscaped, _) if !is_control(octet) => {
                Next::ExtensionQuoted
            }
            (Next::ExtensionToken | Next::ExtensionQuotedEnd | Next::ExtensionBlank, _) if blank => {
                Next::ExtensionBlank
            }
            (
                Next::ExtensionName
                | Next::ExtensionNameBlank
                | Next::ExtensionToken
                | Next::ExtensionQuotedEnd
                | Next::ExtensionBlank,
                b';',
            ) => Next::ExtensionStart,
            (Next::ExtensionName | Next::ExtensionToken | Next::ExtensionQuotedEnd, b'\r') => Next::SizeLf,
            _ => return Err(Refusal::ChunkExtensionTooLong),
        };
        Ok(next)
    }
}

const _: () = assert!(CHUNK_EXTENSION_BYTES < u16::MAX as u32, "counted in a u16");
const _: () = assert!(CHUNK_SIZE_DIGITS <= 16, "more digits would overflow a u64");
const _: () = assert!(LEASE_HEADROOM >= 8 + 2, "a chunk-size line of any lease fits its head room");
const _: () = assert!(LEASE_TAILROOM >= 2 + LAST_CHUNK.len(), "the end of a body fits a lease's tail room");

/// Frames a lease's data as one chunk in place, in the head and tail room every lease has: a size line before it, CRLF
/// behind it, and the last chunk too if it is the `last`. Without data only the last chunk is written, if at all.
pub fn frame_chunk(lease: &mut Lease, pool: &mut Pool, last: bool) {
    let size = lease.len();
    let tail: &[u8] = match (size, last) {
        (0, false) => return,
        (0, true) => LAST_CHUNK,
        (_, false) => b"\r\n",
        (_, true) => b"\r\n0\r\n\r\n",
    };
    let mut line = [0u8; 10];
    let line_len = if size == 0 { 0 } else { size_line(size, &mut line) };
    lease.widen(line_len, tail.len());
    let bytes = pool.bytes_mut(lease);
    bytes[..line_len].copy_from_slice(&line[..line_len]);
    let tail_at = bytes.len() - tail.len();
    bytes[tail_at..].copy_from_slice(tail);
}

/// Writes `size` in hexadecimal and a CRLF; returns the length. Eight digits hold any lease.
fn size_line(size: usize, out: &mut [u8; 10]) -> usize {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1) as usize;
    debug_assert!(digits <= 8, "a lease of over 4 GiB");
    for (i, octet) in out[..digits].iter_mut().enumerate() {
        *octet = b"0123456789abcdef"[size >> (4 * (digits - 1 - i)) & 0xf];
    }
    out[digits..digits + 2].copy_from_slice(b"\r\n");
    digits + 2
}

#[cfg(test)]
mod tests;
