//! Bytes to values and back; no policy, no I/O. A head is protocol-neutral: HTTP/1 and later HPACK produce the same.

pub mod client_hello;
mod fields;
pub mod http1;
pub mod proxy_header;
pub mod trace;

pub use fields::{cookie_values, field_values, values_of};

/// A checked range of a head's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The bytes of this range. `bytes` is the buffer that the head was parsed from.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
    }
    /// As [`Span::of`], to write to.
    pub fn of_mut<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        &mut bytes[self.start as usize..(self.start + self.len) as usize]
    }
    /// `bytes[start..end]`. No head is near 2^32 bytes long.
    pub fn between(start: usize, end: usize) -> Self {
        debug_assert!(start <= end, "a span ends before it starts");
        let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start: narrow(start), len: narrow(end - start) }
    }
    /// Where `part`, a slice of `bytes`, stands in it; empty if it is none.
    pub fn within(bytes: &[u8], part: &[u8]) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        match bytes.get(at..at.saturating_add(part.len())) {
            Some(_) => Self::between(at, at + part.len()),
            None => Self::default(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Fields that this proxy looks at; all others are `Other`. Matched ignoring case, once, when parsed. Those of one hop stand
/// together where they can: a new name between Te and Upgrade costs every head instructions (`benches/counts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldName {
    Other,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    Proxy,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    /// Ours: this copy of a request is not its first (docs/http.md).
    RingwayAttempt,
    Server,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    TraceParent,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRealIp,
}

/// Which of these names a head has: most heads have few of them, and a question of one is then a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldNames(u32);

const _: () = assert!((FieldName::XRealIp as u32) < u32::BITS, "the last of the names has its bit");

impl FieldNames {
    pub fn add(&mut self, name: FieldName) {
        self.0 |= 1 << name as u32;
    }
    pub fn has(self, name: FieldName) -> bool {
        self.0 & 1 << name as u32 != 0
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    /// Without the white space around it.
    pub value: Span,
    pub kind: FieldName,
    /// Named by Connection, or hop-by-hop by nature: not forwarded (RFC 9110 7.6.1).
    pub hop: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    /// Any other token; its text is `RequestHead::method_text`.
    Other,
}

impl Method {
    /// RFC 9110 9.2.2: may be sent twice without harm. An unknown method is not.
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// How a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
}

/// A request's head, checked. Spans index the bytes it was parsed from, which the caller keeps beside it.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    pub method: Method,
    pub method_text: Span,
    /// `host[:port]` as the client named it (absolute-form wins over Host); empty only for HTTP/1.0 without Host.
    pub authority: Span,
    /// The authority without port and without one trailing dot: what routes match. It and the authority are put in
    /// lower case; an IPv6 address keeps its brackets.
    pub host: Span,
    /// The path in its normal form (docs/http.md): what routes match and what is forwarded. "*" for `OPTIONS *`.
    pub path: Span,
    /// Without its "?".
    pub query: Option<Span>,
    pub version: Version,
    pub framing: Framing,
    /// Every field line in order.
    pub fields: Vec<Field>,
    /// Of all of them.
    pub names: FieldNames,
    /// The client wants the connection kept (HTTP/1.1 without close; HTTP/1.0 with keep-alive).
    pub keep_alive: bool,
    /// `Expect: 100-continue` from an HTTP/1.1 client whose request has a body.
    pub expect_continue: bool,
    /// `Connection: upgrade` and `Upgrade: websocket`, and nothing else named; GET of HTTP/1.1 only; no body.
    pub upgrade_websocket: bool,
    /// `TE: trailers`.
    pub te_trailers: bool,
    /// Max-Forwards of an OPTIONS; 0 means that we answer. The encoder sends one less.
    pub max_forwards: Option<u32>,
}

/// A response's head, checked.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    pub status: u16,
    /// The origin's words for it; may be empty, may hold obs-text.
    pub reason: Span,
    pub version: Version,
    pub framing: Framing,
    pub fields: Vec<Field>,
    /// Of all of them.
    pub names: FieldNames,
    /// The origin keeps the connection open after this response.
    pub keep_alive: bool,
    /// A 101 to `websocket`.
    pub upgrade_websocket: bool,
    pub has_date: bool,
}

impl RequestHead {
    /// Ready for the next request; keeps the table's memory, so that the steady path allocates nothing.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}

impl ResponseHead {
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}
