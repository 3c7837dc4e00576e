//! One connection's requests, however the network cut them.

use super::answer::{Answer, Answers};
use super::head::{self, HEAD_BYTES_MAX};

/// What is left of an earlier piece.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The start of a head whose end has not come. Empty, and without memory, unless heads come in pieces.
    partial: Vec<u8>,
    /// Bytes of body still to come.
    body: u64,
    /// Given once the body is all here.
    awaiting: Option<super::answer::Wish>,
}

impl Requests {
    /// Reads one piece and hands out an answer for each request that it ends. False ends the connection.
    pub(crate) fn read(&mut self, piece: &[u8], answers: &mut Answers, mut give: impl FnMut(Answer)) -> bool {
        let joined;
        let mut rest = piece;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(piece);
            joined = std::mem::take(&mut self.partial);
            rest = &joined;
        }
        loop {
            let skipped = usize::try_from(self.body).unwrap_or(usize::MAX).min(rest.len());
            self.body -= skipped as u64;
            rest = &rest[skipped..];
            if self.body == 0
                && let Some(wish) = self.awaiting.take()
            {
                give(answers.to(wish));
            }
            if rest.is_empty() {
                return true;
            }
            let Some(request) = head::read(rest) else {
                self.partial = rest.to_vec();
                return rest.len() <= HEAD_BYTES_MAX;
            };
            rest = &rest[request.head..];
            self.body = request.body;
            self.awaiting = Some(request.wish);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cut_anywhere_get_the_same_answers() {
        let stream =
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /bytes/7 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                       GET /status/204 HTTP/1.1\r\nConnection: close\r\n\r\n";
        for cut in 0..stream.len() {
            let (mut answers, mut requests, mut given) = (Answers::new(), Requests::default(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                assert!(requests.read(piece, &mut answers, |answer| given.push(answer)));
            }
            assert_eq!(given.len(), 3, "cut at {cut}");
            assert!(given[1].bytes.ends_with(b"\r\n\r\nxxxxxxx") && given[2].close);
        }
    }
}
