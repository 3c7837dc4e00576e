//! Where a body ends: decodes a message's body in place, however its bytes were cut (RFC 9112 sections 6 and 7).

use super::chunked::ChunkDecoder;
use crate::fault::Refusal;
use crate::proto::Framing;

/// Reads one body. `None` and `Length` never look at a byte; `Chunked` checks each octet of its framing.
#[derive(Debug)]
pub struct BodyDecoder(Kind);

const _: () = assert!(size_of::<BodyDecoder>() <= 40);

#[derive(Debug)]
enum Kind {
    /// Bytes still to come; 0 is done.
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
}

/// What one call of [`BodyDecoder::decode`] made of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// Bytes that belonged to the body and its framing; what is behind them belongs to what follows.
    pub consumed: usize,
    /// Bytes of data, now at the front.
    pub data: usize,
    /// The body is complete, trailers included.
    pub end: bool,
}

impl BodyDecoder {
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(ChunkDecoder::default()),
            Framing::UntilClose => Kind::UntilClose,
        })
    }

    /// Decodes in place: the data ends up in `bytes[..data]`, and `bytes[consumed..]` belongs to what follows.
    ///
    /// Trailers are checked and bounded. Their lines, as they came, are appended to `trailers` if it is given; together
    /// they never exceed `TRAILER_BYTES`. An error is final: the connection's framing is lost.
    pub fn decode(&mut self, bytes: &mut [u8], trailers: Option<&mut Vec<u8>>) -> Result<Decoded, Refusal> {
        match &mut self.0 {
            Kind::Length(remaining) => {
                let data = usize::try_from(*remaining).map_or(bytes.len(), |n| n.min(bytes.len()));
                *remaining -= data as u64;
                Ok(Decoded { consumed: data, data, end: *remaining == 0 })
            }
            Kind::UntilClose => Ok(Decoded { consumed: bytes.len(), data: bytes.len(), end: false }),
            Kind::Chunked(chunks) => chunks.decode(bytes, trailers),
        }
    }

    /// `n` bytes of a declared length, at most [`BodyDecoder::remaining`], passed without being looked at.
    pub fn skip(&mut self, n: u64) {
        if let Kind::Length(remaining) = &mut self.0 {
            *remaining = remaining.saturating_sub(n);
        }
    }
    /// The body is complete. One that ends with its connection never is, until [`BodyDecoder::on_close`].
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Length(remaining) => *remaining == 0,
            Kind::UntilClose => false,
            Kind::Chunked(chunks) => chunks.is_done(),
        }
    }

    /// The connection ended: a clean end, or a body cut off (RFC 9112 section 8).
    pub fn on_close(&self) -> Result<(), Refusal> {
        match &self.0 {
            Kind::UntilClose => Ok(()),
            _ if self.is_done() => Ok(()),
            _ => Err(Refusal::BodyTruncated),
        }
    }

    /// Bytes of a declared length still to come; `None` when no length was declared.
    pub fn remaining(&self) -> Option<u64> {
        match &self.0 {
            Kind::Length(remaining) => Some(*remaining),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_ends_where_it_says() {
        let mut body = BodyDecoder::new(Framing::Length(5));
        let mut bytes = *b"abc";
        assert_eq!(body.decode(&mut bytes, None), Ok(Decoded { consumed: 3, data: 3, end: false }));
        assert_eq!((body.remaining(), body.on_close()), (Some(2), Err(Refusal::BodyTruncated)));
        let mut bytes = *b"deGET";
        assert_eq!(body.decode(&mut bytes, None), Ok(Decoded { consumed: 2, data: 2, end: true }));
        assert_eq!(body.decode(&mut bytes, None), Ok(Decoded { consumed: 0, data: 0, end: true }));
        assert!(body.is_done() && body.on_close().is_ok());
    }

    #[test]
    fn nothing_is_nothing() {
        for framing in [Framing::None, Framing::Length(0)] {
            let mut body = BodyDecoder::new(framing);
            assert!(body.is_done());
            assert_eq!(body.decode(&mut [b'x'], None), Ok(Decoded { consumed: 0, data: 0, end: true }));
        }
    }

    #[test]
    fn until_close_ends_cleanly() {
        let mut body = BodyDecoder::new(Framing::UntilClose);
        assert_eq!(body.decode(&mut [b'x'; 9], None), Ok(Decoded { consumed: 9, data: 9, end: false }));
        assert_eq!((body.is_done(), body.on_close(), body.remaining()), (false, Ok(()), None));
    }
}
