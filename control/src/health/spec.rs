//! What a check of an endpoint is, as `[cluster.health]` says it.

use dataplane::limits;
use dataplane::spec::Pattern;
use memchr::memmem;
use std::sync::Arc;
use std::time::Duration;

/// The checks of one cluster's endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub kind: Kind,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// The same while the endpoint changes: some checks in a row, not yet enough, said otherwise.
    pub fast_interval: Duration,
    /// For the whole of one check.
    pub timeout: Duration,
    /// Passed checks in a row until an endpoint that is down is up.
    pub rise: u32,
    /// Failed checks in a row until an endpoint that is up is down.
    pub fall: u32,
    pub initial: Initial,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A connect, and the end.
    Tcp,
    /// A request of HTTP/1.1.
    Http(Http),
}

/// What is asked, and which answers are good.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    pub method: Arc<str>,
    /// In origin form.
    pub path: Arc<str>,
    /// The endpoint's authority if none is given.
    pub host: Option<Arc<str>>,
    /// Further fields, as they are written.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    pub body: Option<BodyMatch>,
}

/// What an answer's body must have in its first [`limits::CHECK_BODY_BYTES`].
#[derive(Debug, Clone, PartialEq)]
pub enum BodyMatch {
    Contains(Box<[u8]>),
    Regex(Pattern),
}

impl BodyMatch {
    pub(super) fn holds(&self, body: &[u8]) -> bool {
        match self {
            Self::Contains(text) => memmem::find(body, text).is_some(),
            Self::Regex(pattern) => pattern.is_in(body),
        }
    }
}

/// What an endpoint is before its first check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    Up,
    /// Down until `rise` checks passed.
    Down,
    /// Down until the first check, which decides alone and is made at once.
    Probing,
}

impl Check {
    /// What a probe does where a cluster says nothing of checks: a connect.
    pub fn connect() -> Self {
        let count = |bound: limits::Bound<u64>| u32::try_from(bound.default).unwrap_or(u32::MAX);
        Self {
            kind: Kind::Tcp,
            interval: limits::CHECK_INTERVAL.default,
            fast_interval: limits::CHECK_INTERVAL.default,
            timeout: limits::CHECK_TIMEOUT.default,
            rise: count(limits::CHECK_RISE),
            fall: count(limits::CHECK_FALL),
            initial: Initial::Up,
        }
    }
}
