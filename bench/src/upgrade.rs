//! The WebSocket handshake that begins a tunnel (RFC 6455 4.1, 4.2.2), with the key of the standard's own example: what is
//! measured is the tunnel behind it, and neither end checks the other's randomness.

/// Of RFC 6455 1.3, with the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What an origin answers.
pub(crate) const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The longest head of either side.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a client asks.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// A head that comes in pieces, its own or a peer's, up to its end.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Takes a piece. `Some(n)`: the head ended, and n bytes behind it came along; an error: it is too long.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Option<usize>, ()> {
        // The end may lie across two pieces.
        let from = self.bytes.len().saturating_sub(3);
        self.bytes.extend_from_slice(piece);
        match memchr::memmem::find(&self.bytes[from..], b"\r\n\r\n") {
            Some(at) => Ok(Some(self.bytes.len() - from - at - 4)),
            None if self.bytes.len() > HEAD_BYTES_MAX => Err(()),
            None => Ok(None),
        }
    }

    /// Whether the server took the upgrade.
    pub(crate) fn is_switching(&self) -> bool {
        self.bytes.starts_with(b"HTTP/1.1 101 ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_wherever_it_is_cut() {
        let all = [ANSWER, b"rest"].concat();
        for cut in 0..all.len() {
            let mut head = Head::default();
            let first = head.feed(&all[..cut]).unwrap();
            let behind =
                first.map_or_else(|| head.feed(&all[cut..]).unwrap().unwrap(), |n| n + all.len() - cut);
            assert_eq!((behind, head.is_switching()), (4, true), "cut at {cut}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut head = Head::default();
        assert!((0..20).any(|_| head.feed(&[b'x'; 1024]).is_err()));
    }
}
