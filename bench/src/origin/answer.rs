//! The responses of the origin. Each is made once, with its head in front of its body, and from then on only sent.

use std::collections::BTreeMap;

/// The body of `GET /`, in bytes.
pub(crate) const SMALL_BODY_BYTES: usize = 128;
/// The longest body of `/bytes/N`.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Distinct answers kept, and all of their bytes: they are never freed. What would exceed this is answered with 507.
const ANSWERS_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A response: head and body in one piece, and whether the connection ends after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) bytes: &'static [u8],
    pub(crate) close: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish {
    pub(crate) status: u16,
    pub(crate) body: usize,
    pub(crate) close: bool,
}

/// The answers made so far.
#[derive(Debug)]
pub(crate) struct Answers {
    made: BTreeMap<Wish, &'static [u8]>,
    bytes: usize,
    /// `GET /`, the usual one, without a look-up.
    small: &'static [u8],
}

fn make(wish: Wish) -> &'static [u8] {
    let connection = if wish.close { "Connection: close\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {} x\r\nContent-Type: text/plain\r\n{connection}Content-Length: {}\r\n\r\n",
        wish.status, wish.body
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + wish.body, b'x');
    bytes.leak()
}

pub(crate) const SMALL: Wish = Wish { status: 200, body: SMALL_BODY_BYTES, close: false };

impl Answers {
    pub(crate) fn new() -> Self {
        Self { made: BTreeMap::new(), bytes: 0, small: make(SMALL) }
    }

    pub(crate) fn small(&self) -> &'static [u8] {
        self.small
    }

    /// The answer to a wish; 507 where it would take more memory than answers may.
    pub(crate) fn to(&mut self, wish: Wish) -> Answer {
        if wish == SMALL {
            return Answer { bytes: self.small, close: false };
        }
        if let Some(bytes) = self.made.get(&wish) {
            return Answer { bytes, close: wish.close };
        }
        let refused = wish.body > BODY_BYTES_MAX
            || self.made.len() >= ANSWERS_MAX
            || self.bytes + wish.body > ANSWER_BYTES_MAX;
        let wish = if refused { Wish { status: 507, body: 0, close: true } } else { wish };
        let bytes = *self.made.entry(wish).or_insert_with(|| make(wish));
        self.bytes += wish.body;
        Answer { bytes, close: wish.close }
    }
}
