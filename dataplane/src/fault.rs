//! What can go wrong, sorted by whose fault it is: a refusal answers one request, a close reason ends one connection.
//!
//! Each variant is a counter, a word in the access log, and a row of the manual. Nothing is refused without one.

mod close;
mod end;

pub use close::{CLOSE_REASONS, CloseReason};
pub use end::{At, By, ENDS, End, EndRow};

/// Why a request got our own answer instead of an origin's, or a tcp conn no link. The status is what a client of HTTP is
/// told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    // the client's request line and framing
    BadRequestLine,
    BadMethod,
    MethodTooLong,
    BadVersion,
    UnsupportedVersion,
    BadTarget,
    BadPath,
    FragmentInTarget,
    UserinfoInTarget,
    WrongScheme,
    RequestLineTooLong,
    BareLf,
    BareCr,
    ControlCharacter,
    TooManyEmptyLines,
    LeadingSpace,
    FoldedField,
    BadFieldName,
    BadFieldValue,
    HeaderBlockTooLarge,
    TooManyFields,
    HostMissing,
    HostRepeated,
    HostInvalid,
    ContentLengthInvalid,
    ContentLengthRepeated,
    LengthAndEncoding,
    EncodingInvalid,
    EncodingUnknown,
    EncodingInHttp10,
    ConnectionNamesField,
    UnderscoreTwin,
    ChunkSizeInvalid,
    ChunkTerminatorInvalid,
    ChunkExtensionTooLong,
    TrailerInvalid,
    TrailerTooLarge,
    RequestBodyTooLarge,
    BodyTruncated,
    ExpectationUnknown,
    MethodNotAllowed,
    Loop,
    MaxForwards,
    // time
    RequestHeaderTimeout,
    RequestBodyTimeout,
    RequestBodyTooSlow,
    // our limits
    ListenerFull,
    BuffersExhausted,
    // routing and clusters
    NoRoute,
    NoEndpoint,
    CircuitOpen,
    EndpointsFull,
    QueueFull,
    QueueTimeout,
    ConnectFailed,
    ConnectTimeout,
    PortsExhausted,
    DescriptorsExhausted,
    MemoryExhausted,
    // the origin's response
    OriginClosed,
    OriginReset,
    OriginClosedAfterWrite,
    OriginSendTimeout,
    ResponseHeaderTimeout,
    ResponseBodyTimeout,
    ResponseInvalid,
    ResponseFramingInvalid,
    ResponseHeaderTooLarge,
    ResponseTooManyInterim,
    ResponseUnexpectedUpgrade,
    ResponseEncodingUnknown,
    RequestHeadTooLargeToForward,
}

/// One row of the manual: the refusal, the status it answers with, its word, and what it means.
#[derive(Debug, Clone, Copy)]
pub struct RefusalRow {
    pub refusal: Refusal,
    pub status: u16,
    pub name: &'static str,
    pub meaning: &'static str,
}

const fn row(refusal: Refusal, status: u16, name: &'static str, meaning: &'static str) -> RefusalRow {
    RefusalRow { refusal, status, name, meaning }
}

/// Every refusal, in the order of the enum (a test checks it).
pub const REFUSALS: &[RefusalRow] = &[
    row(
        Refusal::BadRequestLine,
        400,
        "bad_request_line",
        "the first line is not `METHOD SP TARGET SP VERSION`",
    ),
    row(Refusal::BadMethod, 400, "bad_method", "the method is not a token, or a known one in other case"),
    row(Refusal::MethodTooLong, 501, "method_too_long", "the method is longer than 32 bytes (RFC 9112 3)"),
    row(Refusal::BadVersion, 400, "bad_version", "the version is not written `HTTP/1.x`"),
    row(
        Refusal::UnsupportedVersion,
        505,
        "unsupported_version",
        "a well-written version that is not 1.0 or 1.1",
    ),
    row(
        Refusal::BadTarget,
        400,
        "bad_target",
        "the target has a byte or a form that its method does not allow",
    ),
    row(
        Refusal::BadPath,
        400,
        "bad_path",
        "an encoded slash, backslash or NUL, a bad or overlong escape, a dot segment with parameters, or a path above the root",
    ),
    row(Refusal::FragmentInTarget, 400, "fragment_in_target", "a `#` in the target"),
    row(
        Refusal::UserinfoInTarget,
        400,
        "userinfo_in_target",
        "user information in the target or Host (RFC 9110 4.2.4)",
    ),
    row(
        Refusal::WrongScheme,
        421,
        "wrong_scheme",
        "an absolute target of a scheme that this listener does not serve",
    ),
    row(
        Refusal::RequestLineTooLong,
        414,
        "request_line_too_long",
        "longer than `listener.limits.request_line`",
    ),
    row(Refusal::BareLf, 400, "bare_lf", "a line ended with LF alone"),
    row(Refusal::BareCr, 400, "bare_cr", "a CR without LF"),
    row(Refusal::ControlCharacter, 400, "control_character", "a control character in the head"),
    row(
        Refusal::TooManyEmptyLines,
        400,
        "too_many_empty_lines",
        "more than two empty lines before the request",
    ),
    row(Refusal::LeadingSpace, 400, "leading_space", "white space before the first field (RFC 9112 2.2)"),
    row(Refusal::FoldedField, 400, "folded_field", "a folded field line (RFC 9112 5.2)"),
    row(
        Refusal::BadFieldName,
        400,
        "bad_field_name",
        "a field name that is empty, not a token, or has space before its colon",
    ),
    row(Refusal::BadFieldValue, 400, "bad_field_value", "a field value with a forbidden byte"),
    row(
        Refusal::HeaderBlockTooLarge,
        431,
        "header_block_too_large",
        "larger than `listener.limits.header_block`",
    ),
    row(Refusal::TooManyFields, 431, "too_many_fields", "more than `listener.limits.header_fields`"),
    row(Refusal::HostMissing, 400, "host_missing", "HTTP/1.1 without Host (RFC 9112 3.2)"),
    row(Refusal::HostRepeated, 400, "host_repeated", "more than one Host"),
    row(Refusal::HostInvalid, 400, "host_invalid", "a Host that is not `host[:port]`"),
    row(
        Refusal::ContentLengthInvalid,
        400,
        "content_length_invalid",
        "a Content-Length that is not a number below 2^63",
    ),
    row(Refusal::ContentLengthRepeated, 400, "content_length_repeated", "more than one Content-Length"),
    row(Refusal::LengthAndEncoding, 400, "length_and_encoding", "Content-Length beside Transfer-Encoding"),
    row(
        Refusal::EncodingInvalid,
        400,
        "encoding_invalid",
        "a Transfer-Encoding that is not exactly one `chunked`",
    ),
    row(Refusal::EncodingUnknown, 501, "encoding_unknown", "a transfer coding we do not know (RFC 9112 6.1)"),
    row(Refusal::EncodingInHttp10, 400, "encoding_in_http10", "Transfer-Encoding in an HTTP/1.0 request"),
    row(
        Refusal::ConnectionNamesField,
        400,
        "connection_names_field",
        "Connection names Host, a framing field or one that we set",
    ),
    row(
        Refusal::UnderscoreTwin,
        400,
        "underscore_twin",
        "a framing or identity field written with underscores",
    ),
    row(
        Refusal::ChunkSizeInvalid,
        400,
        "chunk_size_invalid",
        "a chunk size that is not 1 to 16 hexadecimal digits below 2^63",
    ),
    row(
        Refusal::ChunkTerminatorInvalid,
        400,
        "chunk_terminator_invalid",
        "a chunk or chunk line not ended by CRLF",
    ),
    row(
        Refusal::ChunkExtensionTooLong,
        400,
        "chunk_extension_too_long",
        "more than 4 KiB of chunk extensions, or a forbidden byte in one",
    ),
    row(Refusal::TrailerInvalid, 400, "trailer_invalid", "a malformed trailer"),
    row(Refusal::TrailerTooLarge, 431, "trailer_too_large", "more than 16 KiB or 100 fields of trailers"),
    row(
        Refusal::RequestBodyTooLarge,
        413,
        "request_body_too_large",
        "larger than `listener.limits.request_body`",
    ),
    row(Refusal::BodyTruncated, 400, "body_truncated", "the client closed before its body was complete"),
    row(Refusal::ExpectationUnknown, 417, "expectation_unknown", "an Expect other than 100-continue"),
    row(
        Refusal::MethodNotAllowed,
        501,
        "method_not_allowed",
        "CONNECT or TRACE, which this proxy does not serve",
    ),
    row(Refusal::Loop, 508, "loop", "our own pseudonym is in Via: the request came back to us"),
    row(Refusal::MaxForwards, 200, "max_forwards", "an OPTIONS whose Max-Forwards ended here"),
    row(
        Refusal::RequestHeaderTimeout,
        408,
        "request_header_timeout",
        "the head took longer than `listener.timeouts.request_header`",
    ),
    row(
        Refusal::RequestBodyTimeout,
        408,
        "request_body_timeout",
        "no piece of the body for `listener.timeouts.request_body`",
    ),
    row(
        Refusal::RequestBodyTooSlow,
        408,
        "request_body_too_slow",
        "the body came slower than `listener.timeouts.min_rate`",
    ),
    row(Refusal::ListenerFull, 503, "listener_full", "`listener.max_connections` are open"),
    row(Refusal::BuffersExhausted, 503, "buffers_exhausted", "the shard's buffers are all in use"),
    row(Refusal::NoRoute, 404, "no_route", "no route takes the request and the listener has no cluster"),
    row(Refusal::NoEndpoint, 503, "no_endpoint", "the cluster has no endpoint that may be used"),
    row(
        Refusal::CircuitOpen,
        503,
        "circuit_open",
        "a circuit breaker keeps requests from the cluster, or from all of its endpoints that could take them",
    ),
    row(
        Refusal::EndpointsFull,
        503,
        "endpoints_full",
        "every endpoint is at max_connections or max_requests, and `cluster.timeouts.queue` is 0",
    ),
    row(
        Refusal::QueueFull,
        503,
        "queue_full",
        "every endpoint is full, and `cluster.max_queued` wait for a place already",
    ),
    row(
        Refusal::QueueTimeout,
        503,
        "queue_timeout",
        "no place at an endpoint was free within `cluster.timeouts.queue`",
    ),
    row(Refusal::ConnectFailed, 502, "connect_failed", "no endpoint could be connected to"),
    row(
        Refusal::ConnectTimeout,
        504,
        "connect_timeout",
        "no endpoint answered within `cluster.timeouts.connect`",
    ),
    row(
        Refusal::PortsExhausted,
        503,
        "ports_exhausted",
        "no local port is free towards the endpoints, or no address of `cluster.source_addresses` is this machine's \
         (EADDRNOTAVAIL)",
    ),
    row(
        Refusal::DescriptorsExhausted,
        503,
        "descriptors_exhausted",
        "this process has no descriptor left (EMFILE, ENFILE)",
    ),
    row(
        Refusal::MemoryExhausted,
        503,
        "memory_exhausted",
        "the kernel has no memory for a socket or a connect (ENOMEM, ENOBUFS)",
    ),
    row(Refusal::OriginClosed, 502, "origin_closed", "the origin closed before it answered"),
    row(Refusal::OriginReset, 502, "origin_reset", "the origin reset the connection before it answered"),
    row(
        Refusal::OriginClosedAfterWrite,
        502,
        "origin_closed_after_write",
        "a pooled link died under a request that must not be repeated",
    ),
    row(
        Refusal::OriginSendTimeout,
        504,
        "origin_send_timeout",
        "the origin took no bytes for `cluster.timeouts.send`",
    ),
    row(
        Refusal::ResponseHeaderTimeout,
        504,
        "response_header_timeout",
        "no response head within `cluster.timeouts.response_header`",
    ),
    row(
        Refusal::ResponseBodyTimeout,
        504,
        "response_body_timeout",
        "no piece of the response's body for `cluster.timeouts.response_body`; the client's connection is cut",
    ),
    row(Refusal::ResponseInvalid, 502, "response_invalid", "the origin's response head is malformed"),
    row(
        Refusal::ResponseFramingInvalid,
        502,
        "response_framing_invalid",
        "the origin's response has ambiguous framing",
    ),
    row(
        Refusal::ResponseHeaderTooLarge,
        502,
        "response_header_too_large",
        "the origin's response head is larger than 56 KiB or 256 fields",
    ),
    row(
        Refusal::ResponseTooManyInterim,
        502,
        "response_too_many_interim",
        "more than 16 interim responses, or 32 KiB of them",
    ),
    row(
        Refusal::ResponseUnexpectedUpgrade,
        502,
        "response_unexpected_upgrade",
        "a 101 that nobody asked for",
    ),
    row(
        Refusal::ResponseEncodingUnknown,
        502,
        "response_encoding_unknown",
        "the origin used a transfer coding we do not know",
    ),
    row(
        Refusal::RequestHeadTooLargeToForward,
        431,
        "request_head_too_large_to_forward",
        "the head with our own fields does not fit a buffer",
    ),
];

impl Refusal {
    /// How many there are; sizes the counters.
    pub const COUNT: usize = REFUSALS.len();

    pub fn row(self) -> &'static RefusalRow {
        &REFUSALS[self as usize]
    }
    pub fn status(self) -> u16 {
        self.row().status
    }
    /// Its word in logs, metrics and the response's reason.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

#[cfg(test)]
mod tests;
