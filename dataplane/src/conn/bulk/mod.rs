//! Bulk bodies of declared length, by splice(2): `down` from link to conn, `up` from conn to link. What a step is, and when
//! it may be taken, is [`crate::bulk`]'s; deadlines, counts and ends are here. Chunked bodies are copied.
//!
//! Head and what came with it are copied as always; the rest follows by reference once that is out. Bytes behind a body
//! are never touched: a splice takes at most what is left of it.

pub mod down;
pub mod up;

use crate::bulk::Bulk;
use crate::io::Errno;
use crate::limits;
use crate::proto::Framing;
use crate::proto::http1::BodyDecoder;

/// What a step over a direction that has ended meanwhile comes to: nobody is left to hear of it.
const GONE: Errno = Errno(libc::ENOTCONN);

/// Whether enough of a body of declared length is still to come to be worth two system calls more.
fn is_worth_it(bulk: &Bulk, framing: Framing, decoder: &BodyDecoder) -> bool {
    matches!(framing, Framing::Length(_))
        && decoder.remaining().is_some_and(|n| bulk.has_begun() && n > 0 || n >= limits::SPLICE_MIN)
}
