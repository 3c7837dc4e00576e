//! How an exchange or connection ended, in two letters: who ended it, and where it was then.
//!
//! The letters are HAProxy's wherever they mean the same (its configuration manual, "Session state at disconnection"). The
//! words of refusals and close reasons say more; the letters are for sorting. They never change.

use super::{CloseReason, Refusal};

/// The first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum By {
    /// It ended as it should.
    Nobody,
    Client,
    /// The client was too slow, or not heard of.
    ClientTime,
    /// The endpoint, or that none was to be had.
    Server,
    ServerTime,
    /// Neither side sent anything.
    Time,
    /// ringway refused what broke a rule.
    Proxy,
    /// A limit, or what the machine has, was used up.
    Resource,
    /// A route, or ringway, answered by itself.
    Local,
    /// On purpose: the process or the connection was to go.
    Killed,
    Internal,
}

/// The second letter: where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum At {
    /// What the client asks for was being read, or decided on.
    Request,
    Queue,
    Connect,
    /// The request was on its way, or out, and nothing of an answer was passed on.
    Answer,
    /// An answer, or the bytes of a tunnel, went to the client; or the fault was in a body.
    Data,
}

impl By {
    const ALL: [Self; 11] = [
        Self::Nobody,
        Self::Client,
        Self::ClientTime,
        Self::Server,
        Self::ServerTime,
        Self::Time,
        Self::Proxy,
        Self::Resource,
        Self::Local,
        Self::Killed,
        Self::Internal,
    ];

    const fn letter(self) -> u8 {
        match self {
            Self::Nobody => b'-',
            Self::Client => b'C',
            Self::ClientTime => b'c',
            Self::Server => b'S',
            Self::ServerTime => b's',
            Self::Time => b't',
            Self::Proxy => b'P',
            Self::Resource => b'R',
            Self::Local => b'L',
            Self::Killed => b'K',
            Self::Internal => b'I',
        }
    }
}

/// How many there are of [`At`].
const PLACES: u8 = 5;

impl At {
    pub const ALL: [Self; PLACES as usize] =
        [Self::Request, Self::Queue, Self::Connect, Self::Answer, Self::Data];

    const fn letter(self) -> u8 {
        match self {
            Self::Request => b'R',
            Self::Queue => b'Q',
            Self::Connect => b'C',
            Self::Answer => b'H',
            Self::Data => b'D',
        }
    }
}

/// Who ended it and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    by: By,
    at: At,
}

impl End {
    /// As it should: `--`.
    pub const WELL: Self = Self { by: By::Nobody, at: At::Data };
    /// Answered without an endpoint, as the configuration says: `LR`.
    pub const LOCAL: Self = Self { by: By::Local, at: At::Request };

    /// By a refusal, of what stood `at`.
    pub fn of_refusal(refusal: Refusal, at: At) -> Self {
        let (by, first, last) = cause_of_refusal(refusal);
        Self { by, at: at.clamp(first, last) }
    }
    /// By a close alone, of what stood `at`.
    pub fn of_close(close: CloseReason, at: At) -> Self {
        let (by, first, last) = cause_of_close(close);
        if by == By::Nobody { Self::WELL } else { Self { by, at: at.clamp(first, last) } }
    }
    /// Who ended it.
    pub const fn by(self) -> By {
        self.by
    }
    /// The two letters.
    pub const fn code(self) -> [u8; 2] {
        match self.by {
            By::Nobody => *b"--",
            by => [by.letter(), self.at.letter()],
        }
    }
    /// As a number; [`End::from_bits`] makes it an end again.
    pub const fn bits(self) -> u8 {
        self.by as u8 * PLACES + self.at as u8
    }
    pub fn from_bits(bits: u8) -> Self {
        let (by, at) = (usize::from(bits) / At::ALL.len(), usize::from(bits) % At::ALL.len());
        By::ALL.get(by).map_or(Self::WELL, |by| Self { by: *by, at: At::ALL[at] })
    }
}

/// Who is at fault, and between which places that may be.
type Cause = (By, At, At);

const fn in_head(by: By) -> Cause {
    (by, At::Request, At::Request)
}
const fn in_body(by: By) -> Cause {
    (by, At::Data, At::Data)
}
const fn of_origin(by: By) -> Cause {
    (by, At::Answer, At::Data)
}
const fn anywhere(by: By) -> Cause {
    (by, At::Request, At::Data)
}

const fn cause_of_refusal(refusal: Refusal) -> Cause {
    use Refusal as R;
    match refusal {
        R::BadRequestLine
        | R::BadMethod
        | R::MethodTooLong
        | R::BadVersion
        | R::UnsupportedVersion
        | R::BadTarget
        | R::BadPath
        | R::FragmentInTarget
        | R::UserinfoInTarget
        | R::WrongScheme
        | R::RequestLineTooLong
        | R::BareLf
        | R::BareCr
        | R::ControlCharacter
        | R::TooManyEmptyLines
        | R::LeadingSpace
        | R::FoldedField
        | R::BadFieldName
        | R::BadFieldValue
        | R::HeaderBlockTooLarge
        | R::TooManyFields
        | R::HostMissing
        | R::HostRepeated
        | R::HostInvalid
        | R::ContentLengthInvalid
        | R::ContentLengthRepeated
        | R::LengthAndEncoding
        | R::EncodingInvalid
        | R::EncodingUnknown
        | R::EncodingInHttp10
        | R::ConnectionNamesField
        | R::UnderscoreTwin
        | R::ExpectationUnknown
        | R::MethodNotAllowed
        | R::Loop
        | R::NoRoute
        | R::RequestHeadTooLargeToForward => in_head(By::Proxy),
        R::MaxForwards => in_head(By::Local),
        R::ChunkSizeInvalid
        | R::ChunkTerminatorInvalid
        | R::ChunkExtensionTooLong
        | R::TrailerInvalid
        | R::TrailerTooLarge
        | R::RequestBodyTooLarge => in_body(By::Proxy),
        R::BodyTruncated => in_body(By::Client),
        R::RequestHeaderTimeout => in_head(By::ClientTime),
        R::RequestBodyTimeout | R::RequestBodyTooSlow => in_body(By::ClientTime),
        R::ListenerFull => in_head(By::Resource),
        R::BuffersExhausted => anywhere(By::Resource),
        R::EndpointsFull | R::QueueFull => (By::Resource, At::Queue, At::Queue),
        R::QueueTimeout => (By::ServerTime, At::Queue, At::Queue),
        R::CircuitOpen => (By::Proxy, At::Connect, At::Connect),
        R::NoEndpoint | R::ConnectFailed => (By::Server, At::Connect, At::Connect),
        R::ConnectTimeout => (By::ServerTime, At::Connect, At::Connect),
        R::PortsExhausted | R::DescriptorsExhausted | R::MemoryExhausted => {
            (By::Resource, At::Connect, At::Connect)
        }
        R::OriginClosed | R::OriginReset | R::OriginClosedAfterWrite => of_origin(By::Server),
        R::OriginSendTimeout => of_origin(By::ServerTime),
        R::ResponseHeaderTimeout => (By::ServerTime, At::Answer, At::Answer),
        R::ResponseBodyTimeout => in_body(By::ServerTime),
        R::ResponseInvalid
        | R::ResponseFramingInvalid
        | R::ResponseHeaderTooLarge
        | R::ResponseTooManyInterim
        | R::ResponseUnexpectedUpgrade
        | R::ResponseEncodingUnknown => of_origin(By::Proxy),
    }
}

const fn cause_of_close(close: CloseReason) -> Cause {
    use CloseReason as C;
    match close {
        C::KeepAliveEnded | C::OriginAnsweredClose | C::TunnelEnded => anywhere(By::Nobody),
        C::ClientClosed | C::ClientReset | C::ClientAborted => anywhere(By::Client),
        C::TunnelReset => in_body(By::Client),
        C::IdleTimeout | C::SilentTimeout => in_head(By::ClientTime),
        C::ProxyHeaderTimeout | C::ClientHelloTimeout => in_head(By::ClientTime),
        C::SendTimeout => in_body(By::ClientTime),
        C::DeadPeer => anywhere(By::ClientTime),
        C::OriginAborted | C::OriginReset => in_body(By::Server),
        C::OriginSendTimeout | C::DeadOrigin => in_body(By::ServerTime),
        C::NoLink => (By::Server, At::Connect, At::Connect),
        C::TunnelIdle => in_body(By::Time),
        C::Lifetime | C::Drained | C::DrainCut | C::Killed | C::Moved => anywhere(By::Killed),
        C::Evicted => anywhere(By::Resource),
        C::ListenerFull => in_head(By::Resource),
        C::Refused
        | C::LingerEnded
        | C::ProxyPeerNotAllowed
        | C::ProxyHeaderMissing
        | C::ProxyHeaderInvalid
        | C::ProxyHeaderTooLarge
        | C::NotTls
        | C::ClientHelloInvalid
        | C::ClientHelloTooLarge => in_head(By::Proxy),
        C::Internal => anywhere(By::Internal),
    }
}

/// What a code says, and what mends it.
#[derive(Debug, Clone, Copy)]
pub struct EndRow {
    /// As in the log; a `*` stands for any second letter that has no row of its own.
    pub code: &'static str,
    pub meaning: &'static str,
    pub mend: &'static str,
}

const fn row(code: &'static str, meaning: &'static str, mend: &'static str) -> EndRow {
    EndRow { code, meaning, mend }
}

/// Every code, for the manual.
pub const ENDS: &[EndRow] = &[
    row("--", "It ended as it should.", "nothing"),
    row("LR", "ringway answered: a route's `respond` or `redirect`, or OPTIONS that ended here.", "nothing"),
    row(
        "CR",
        "The client left before what it asks for was known.",
        "nothing, but for many of them: port scans, checks of a balancer in front that only connect",
    ),
    row(
        "CQ",
        "The client left while it waited for a place at a full cluster.",
        "more endpoints, or higher `max_connections` and `max_requests`; `queue_us` says how long they wait",
    ),
    row(
        "CC",
        "The client left while an endpoint was being connected to.",
        "see that endpoints accept quickly; a shorter `cluster.timeouts.connect` tries the next one sooner",
    ),
    row(
        "CH",
        "The client left before anything of an answer was passed on.",
        "the origin is slower than clients are patient: `duration_us` says how patient",
    ),
    row(
        "CD",
        "The client left in the midst of a body or tunnel.",
        "nothing, where users stop downloads; else look at what is between them and ringway",
    ),
    row(
        "cR",
        "The client did not send its request, PROXY header or ClientHello in time.",
        "`listener.timeouts.request_header`, if honest clients are that slow; attacks look like this too",
    ),
    row(
        "cD",
        "The client did not send its body, or did not take what it asked for, in time.",
        "`listener.timeouts.request_body`, `min_rate` and `send`",
    ),
    row(
        "c*",
        "The client was not heard of for `dead_peer`, wherever it was.",
        "nothing: its machine or network is gone",
    ),
    row(
        "SC",
        "No endpoint could be connected to: none may be used, or those that may refused.",
        "`ringway status` says what stands against each endpoint; start them, or look at firewalls",
    ),
    row(
        "SH",
        "The endpoint closed or reset before it answered.",
        "the origin's log; its keep-alive time should be longer than `cluster.pool.idle_timeout`; `[cluster.retry]`",
    ),
    row(
        "SD",
        "The endpoint failed in the midst of its answer or of a tunnel.",
        "the origin's log: crashes, limits of time or memory",
    ),
    row(
        "sQ",
        "No place at a full cluster was free in `cluster.timeouts.queue`.",
        "more endpoints, or higher `max_connections` and `max_requests`",
    ),
    row(
        "sC",
        "No endpoint answered the connect in `cluster.timeouts.connect`.",
        "firewalls that drop, machines that are gone, full accept queues of origins",
    ),
    row(
        "sH",
        "The endpoint did not take the request, or did not answer it, in time.",
        "`cluster.timeouts.response_header` and `send`, or a faster origin",
    ),
    row(
        "sD",
        "The endpoint fell silent in its answer or a tunnel, took nothing of it, or was not heard of.",
        "`cluster.timeouts.response_body`, `send` and `dead_peer`; the origin's log",
    ),
    row(
        "tD",
        "Neither side of a tunnel sent anything for `listener.timeouts.tunnel_idle`.",
        "pings in the protocol, or a longer `tunnel_idle`",
    ),
    row(
        "PR",
        "The request, or the first bytes of a connection, broke a rule or met no route.",
        "`reason` or `close` names the rule: mend the client, or add a route",
    ),
    row("PC", "A circuit breaker is open.", "the endpoints that fail; `ringway status` says which"),
    row("PH", "The endpoint's answer broke a rule of HTTP.", "`reason` names the rule: mend the origin"),
    row("PD", "A body broke a rule or limit: the client's, or the endpoint's.", "`reason` names it"),
    row(
        "RR",
        "A limit was reached before the request was: connections of the listener, descriptors, or buffers.",
        "`listener.max_connections`; `ulimit -n`; more memory or shards",
    ),
    row(
        "RQ",
        "Every endpoint is full, and there is no queue or that is full too.",
        "`cluster.max_queued`, `cluster.timeouts.queue`, more endpoints",
    ),
    row(
        "RC",
        "No local port, descriptor or memory for a connection to an endpoint.",
        "`ringway doctor`; `cluster.source_addresses`",
    ),
    row(
        "RH",
        "Buffers ran out before an answer was passed on.",
        "more memory or shards, or fewer slow clients",
    ),
    row(
        "RD",
        "Buffers ran out in the midst of a body or tunnel.",
        "more memory or shards, or fewer slow clients",
    ),
    row(
        "K*",
        "The process was going away (`drained`), or the connection was older than `max_lifetime`.",
        "nothing, or a longer `runtime.drain_timeout`",
    ),
    row(
        "I*",
        "An invariant of ringway failed: a bug.",
        "please report the line and the process log around it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{CLOSE_REASONS, REFUSALS};
    use std::collections::BTreeMap;

    /// Every code that can be, and the words that lead to it.
    fn codes() -> BTreeMap<String, Vec<&'static str>> {
        let mut all: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        let mut add = |end: End, word| {
            let code = String::from_utf8(end.code().to_vec()).unwrap();
            let words = all.entry(code).or_default();
            if !words.contains(&word) {
                words.push(word);
            }
        };
        for at in At::ALL {
            REFUSALS.iter().for_each(|row| add(End::of_refusal(row.refusal, at), row.name));
            CLOSE_REASONS.iter().for_each(|row| add(End::of_close(row.0, at), row.1));
        }
        all
    }

    fn row_of(code: &str) -> Option<&'static EndRow> {
        let exact = ENDS.iter().find(|row| row.code == code);
        exact.or_else(|| ENDS.iter().find(|row| row.code.ends_with('*') && row.code[..1] == code[..1]))
    }

    #[test]
    fn letters_are_unique_and_bits_come_back() {
        let mut letters: Vec<_> = By::ALL.iter().map(|by| by.letter()).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), By::ALL.len());
        for by in By::ALL {
            for at in At::ALL {
                let end = End { by, at };
                assert_eq!(End::from_bits(end.bits()), end);
            }
        }
        assert_eq!(End::from_bits(u8::MAX), End::WELL);
    }

    /// Who reads logs by codes relies on them: a word never gets another.
    #[test]
    fn words_keep_their_codes() {
        let code = |end: End| String::from_utf8(end.code().to_vec()).unwrap();
        for (refusal, at, want) in [
            (Refusal::BareLf, At::Request, "PR"),
            (Refusal::NoRoute, At::Data, "PR"),
            (Refusal::QueueTimeout, At::Request, "sQ"),
            (Refusal::ConnectTimeout, At::Connect, "sC"),
            (Refusal::OriginReset, At::Request, "SH"),
            (Refusal::OriginReset, At::Data, "SD"),
            (Refusal::BuffersExhausted, At::Queue, "RQ"),
        ] {
            assert_eq!(code(End::of_refusal(refusal, at)), want, "{}", refusal.name());
        }
        for (close, at, want) in [
            (CloseReason::ClientReset, At::Queue, "CQ"),
            (CloseReason::KeepAliveEnded, At::Data, "--"),
            (CloseReason::Drained, At::Connect, "KC"),
        ] {
            assert_eq!(code(End::of_close(close, at)), want, "{}", close.name());
        }
    }

    /// docs/operations/reading-the-access-log.md has every code with its words, its meaning and its mend.
    #[test]
    fn the_manual_has_every_end_code() {
        let codes = codes();
        for code in codes.keys() {
            assert!(row_of(code).is_some(), "{code} has no row");
        }
        let mut table =
            String::from("\n| code | what it says | words that lead to it | mend |\n|---|---|---|---|\n");
        for row in ENDS {
            let of_row = |code: &&String| row_of(code).is_some_and(|found| found.code == row.code);
            let mut words: Vec<_> = codes.keys().filter(of_row).flat_map(|code| &codes[code]).collect();
            words.sort_unstable();
            words.dedup();
            assert!(!words.is_empty(), "{} never occurs", row.code);
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            table.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                row.code,
                row.meaning,
                words.join(", "),
                row.mend
            ));
        }
        table.push('\n');
        crate::fault::tests::hold_in_the_manual("end codes", "every_end_code", &table);
    }
}
