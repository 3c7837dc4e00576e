//! HTTP/1.0 and 1.1 on the wire (RFC 9112): strict in, regenerated out. docs/http.md states the rules.
//!
//! A head is first scanned octet by octet (`scan`), so that garbage is answered at once and the outcome never depends on
//! how the bytes were cut; a whole head is then read into a value (`request`, `response`). One that came whole and plain
//! needs no scan (`at_once`). Bodies are framed by `body`.
//! What leaves us is written by `encode` and `reply`, never copied as it came.

mod at_once;
mod body;
mod chunked;
mod encode;
mod field;
mod gist;
mod host;
mod line;
mod octets;
mod path;
mod reply;
mod request;
mod response;
mod scan;
mod sticky;
mod target;
mod trailer;
mod via;
mod write;

pub use body::{BodyDecoder, Decoded};
pub use chunked::{LAST_CHUNK, frame_chunk};
pub use encode::{ForwardedMode, RequestEdits, ResponseEdits, SpanEdits, encode_request, encode_response};
pub use gist::gist;
pub use reply::{OwnReply, encode_own_reply, reason_phrase};
pub use request::parse_request;
pub use response::parse_response;
pub use scan::Scan;
pub use sticky::StickyEdits;
pub use trailer::write_trailers;
pub use via::via_names;

/// What bounds a request's head; `listener.limits` in the configuration. Bytes, bytes and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The request line without its CRLF.
    pub request_line: u32,
    /// All field lines with their CRLFs, without the empty line behind them.
    pub header_block: u32,
    pub header_fields: u32,
}

/// How far a head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Sound so far; more bytes are needed.
    Partial,
    /// Whole. `len` counts the head with its last empty line and the empty lines before it.
    Complete { len: usize },
}
