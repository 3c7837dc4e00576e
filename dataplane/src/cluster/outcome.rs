//! How an attempt went, as far as that says something of its endpoint.

use crate::fault::Refusal;
use crate::spec::Statuses;
#[cfg(doc)]
use crate::stats::objects::OfEndpoint;

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with this status, to the end. A tunnel that came about counts as one.
    Answered(u16),
    ConnectFailed,
    /// The connection was closed or reset before the end of the answer.
    Lost,
    /// The endpoint was too slow, connects included.
    Timeout,
    /// Its answer was none.
    Invalid,
    /// A hedge's answer came before any byte of this one: once it says nothing, again and again it does.
    Overtaken,
    /// It says nothing of the endpoint: the client left, something of ours ran out, or a pooled link was stale.
    Unknown,
}

impl Outcome {
    /// Of a tunnel of a tcp listener.
    pub const CONNECTED: Self = Self::Answered(200);

    /// Its place in [`OfEndpoint::RESULTS`].
    pub(super) fn place(self) -> usize {
        match self {
            Self::Answered(status) => usize::from(status / 100).clamp(1, 5) - 1,
            Self::ConnectFailed => 5,
            Self::Lost => 6,
            Self::Timeout => 7,
            Self::Invalid => 8,
            Self::Overtaken => 9,
            Self::Unknown => 10,
        }
    }

    /// Whether it was good; `None` where that is not known. `failures` are answers that count as bad.
    pub fn is_good(self, failures: &Statuses) -> Option<bool> {
        match self {
            Self::Answered(status) => Some(!failures.has(status)),
            Self::ConnectFailed | Self::Lost | Self::Timeout | Self::Invalid => Some(false),
            Self::Overtaken | Self::Unknown => None,
        }
    }
}

/// What a refusal with which an attempt ended says of its endpoint.
impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ConnectFailed => Self::ConnectFailed,
            Refusal::OriginClosed | Refusal::OriginReset | Refusal::OriginClosedAfterWrite => Self::Lost,
            Refusal::ConnectTimeout
            | Refusal::OriginSendTimeout
            | Refusal::ResponseHeaderTimeout
            | Refusal::ResponseBodyTimeout => Self::Timeout,
            Refusal::ResponseInvalid
            | Refusal::ResponseFramingInvalid
            | Refusal::ResponseHeaderTooLarge
            | Refusal::ResponseTooManyInterim
            | Refusal::ResponseUnexpectedUpgrade
            | Refusal::ResponseEncodingUnknown => Self::Invalid,
            _ => Self::Unknown,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::fault::REFUSALS;

    #[test]
    fn each_outcome_has_its_word() {
        use crate::stats::objects::OfEndpoint;
        let words = [
            (Outcome::Answered(101), "1xx"),
            (Outcome::Answered(599), "5xx"),
            (Outcome::ConnectFailed, "connect_failed"),
            (Outcome::Lost, "lost"),
            (Outcome::Timeout, "timeout"),
            (Outcome::Invalid, "invalid"),
            (Outcome::Overtaken, "overtaken"),
            (Outcome::Unknown, "unknown"),
        ];
        for (outcome, word) in words {
            assert_eq!(OfEndpoint::RESULTS[outcome.place()], word);
        }
    }

    /// What is of the client or of us never counts against an endpoint.
    #[test]
    fn only_what_origins_do_counts() {
        for row in REFUSALS {
            let bad = Outcome::from(row.refusal).is_good(&Statuses::default());
            let of_origin =
                ["connect_", "origin_", "response_"].iter().any(|front| row.name.starts_with(front));
            assert_eq!(bad, of_origin.then_some(false), "{}", row.name);
        }
        assert_eq!(Outcome::Answered(503).is_good(&Statuses::SERVER_ERRORS), Some(false));
        assert_eq!(Outcome::Answered(503).is_good(&Statuses::default()), Some(true));
        assert_eq!(Outcome::Answered(404).is_good(&Statuses::SERVER_ERRORS), Some(true));
        assert_eq!(Outcome::CONNECTED.is_good(&Statuses::SERVER_ERRORS), Some(true));
    }
}
