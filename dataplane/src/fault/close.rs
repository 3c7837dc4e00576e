//! Why connections end: one word for each, in the log and in the manual.

/// Why a downstream connection ended: exactly one for each (invariant 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CloseReason {
    ClientClosed,
    ClientReset,
    ClientAborted,
    KeepAliveEnded,
    IdleTimeout,
    SilentTimeout,
    SendTimeout,
    Lifetime,
    Refused,
    LingerEnded,
    OriginAborted,
    OriginAnsweredClose,
    TunnelEnded,
    TunnelIdle,
    TunnelReset,
    OriginSendTimeout,
    OriginReset,
    DeadPeer,
    DeadOrigin,
    NoLink,
    Drained,
    DrainCut,
    Killed,
    Moved,
    Evicted,
    ListenerFull,
    ProxyPeerNotAllowed,
    ProxyHeaderMissing,
    ProxyHeaderInvalid,
    ProxyHeaderTooLarge,
    ProxyHeaderTimeout,
    NotTls,
    ClientHelloInvalid,
    ClientHelloTooLarge,
    ClientHelloTimeout,
    Internal,
}

/// Every close reason with its word and meaning, in the order of the enum (a test checks it).
pub const CLOSE_REASONS: &[(CloseReason, &str, &str)] = &[
    (CloseReason::ClientClosed, "client_closed", "the client closed between requests"),
    (CloseReason::ClientReset, "client_reset", "the client reset the connection"),
    (CloseReason::ClientAborted, "client_aborted", "the client left in the middle of an exchange"),
    (
        CloseReason::KeepAliveEnded,
        "keep_alive_ended",
        "the last answer said close: the request, its version or requests_per_connection asked for it",
    ),
    (CloseReason::IdleTimeout, "idle_timeout", "no request within `listener.timeouts.idle`"),
    (
        CloseReason::SilentTimeout,
        "silent_timeout",
        "a new connection sent nothing, or nothing behind its PROXY header, within `listener.timeouts.request_header`",
    ),
    (CloseReason::SendTimeout, "send_timeout", "the client took no bytes for `listener.timeouts.send`"),
    (CloseReason::Lifetime, "lifetime", "older than `listener.timeouts.max_lifetime`"),
    (CloseReason::Refused, "refused", "a refusal was answered and the client then closed"),
    (CloseReason::LingerEnded, "linger_ended", "a refusal was answered and the client kept sending"),
    (CloseReason::OriginAborted, "origin_aborted", "the origin failed after its head was passed on"),
    (CloseReason::OriginAnsweredClose, "origin_answered_close", "a response that only closing can end"),
    (CloseReason::TunnelEnded, "tunnel_ended", "both sides of the tunnel finished"),
    (CloseReason::TunnelIdle, "tunnel_idle", "no byte for `listener.timeouts.tunnel_idle`"),
    (CloseReason::TunnelReset, "tunnel_reset", "the client reset its side of the tunnel"),
    (
        CloseReason::OriginSendTimeout,
        "origin_send_timeout",
        "the far side of a tunnel took no bytes for `cluster.timeouts.send`",
    ),
    (CloseReason::OriginReset, "origin_reset", "the far side of a tunnel was reset"),
    (CloseReason::DeadPeer, "dead_peer", "the client was not heard of for `listener.timeouts.dead_peer`"),
    (
        CloseReason::DeadOrigin,
        "dead_origin",
        "the far side of a tunnel was not heard of for `cluster.timeouts.dead_peer`",
    ),
    (CloseReason::NoLink, "no_link", "no endpoint took the connection of a tcp listener; a refusal says why"),
    (
        CloseReason::Drained,
        "drained",
        "the process or the listener drained, and it waited for a request or had its last answer",
    ),
    (CloseReason::DrainCut, "drain_cut", "it still ran when the time of a drain was over"),
    (CloseReason::Killed, "killed", "an operator closed it: `ringway connections --kill`"),
    (CloseReason::Moved, "moved", "it goes on in the next process of an upgrade"),
    (
        CloseReason::Evicted,
        "evicted",
        "buffers or descriptors ran short, and this connection was of least use: longest without progress, or new",
    ),
    (CloseReason::ListenerFull, "listener_full", "`listener.max_connections` were open"),
    (
        CloseReason::ProxyPeerNotAllowed,
        "proxy_peer_not_allowed",
        "a PROXY header is required, and the peer is not in `listener.proxy_protocol.from`",
    ),
    (
        CloseReason::ProxyHeaderMissing,
        "proxy_header_missing",
        "a PROXY header is required, and the first bytes were something else",
    ),
    (
        CloseReason::ProxyHeaderInvalid,
        "proxy_header_invalid",
        "a PROXY header with a field, an address, a TLV or a checksum that cannot be",
    ),
    (
        CloseReason::ProxyHeaderTooLarge,
        "proxy_header_too_large",
        "a PROXY header of more than 107 bytes (version 1) or 4096 (version 2)",
    ),
    (
        CloseReason::ProxyHeaderTimeout,
        "proxy_header_timeout",
        "a PROXY header was begun and not whole within `listener.timeouts.request_header`",
    ),
    (CloseReason::NotTls, "not_tls", "a route asks for `sni` or `alpn`, and the first bytes were not TLS"),
    (CloseReason::ClientHelloInvalid, "client_hello_invalid", "a ClientHello that is not well-formed"),
    (CloseReason::ClientHelloTooLarge, "client_hello_too_large", "a ClientHello of more than 16 KiB"),
    (
        CloseReason::ClientHelloTimeout,
        "client_hello_timeout",
        "a ClientHello was begun and not whole within `listener.timeouts.request_header`",
    ),
    (CloseReason::Internal, "internal", "an invariant of ours failed on this connection; a bug"),
];

impl CloseReason {
    pub const COUNT: usize = CLOSE_REASONS.len();

    pub fn name(self) -> &'static str {
        CLOSE_REASONS[self as usize].1
    }
}
