//! May a request be tried again that failed, or was answered with what counts as failing, and where? Pure: facts in, a
//! decision out.
//!
//! RFC 9110 section 9.2.2: once any byte of a request was written, only an idempotent one may be repeated (threats B02,
//! B03). A request of which the origin saw nothing may go anywhere.

use crate::fault::Refusal;
use crate::limits::CONNECT_ATTEMPTS;
use crate::spec::Retry;
use crate::stats::retries::Retried;

/// Requests repeated after a link was lost, where no `[cluster.retry]` says how many, and after a stale pooled one in any
/// case: one that kills each endpoint it meets must not meet them all.
const REPEATS: u32 = 1;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connect was refused, unreachable, reset or too slow.
    Connect,
    /// The origin closed an established link (FIN).
    Closed,
    /// The origin reset an established link, or a send on it failed.
    Reset,
    /// The link works but the origin was too slow: it may be at work on the request.
    Timeout,
    /// The origin answered, with this.
    Status(u16),
}

/// A failed attempt, and what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub failure: Failure,
    /// The link came from the idle pool.
    pub pooled: bool,
    /// The request's method is idempotent (`Method::is_idempotent`).
    pub idempotent: bool,
    /// Any byte of the request may have been written to the link: a send was submitted and did not fail with nothing sent.
    pub request_bytes: bool,
    /// Any byte of a response arrived, interim responses included; of a [`Failure::Status`] before its head.
    pub response_bytes: bool,
    /// Everything of the request so far is still held and can be sent again.
    pub replayable: bool,
    /// The request is itself a second attempt, of a proxy in front of this one.
    pub nested: bool,
    /// Attempts of this request so far, this one included.
    pub attempts: u32,
    /// Times this request was already repeated after bytes of it were written, or its link was lost.
    pub repeats: u32,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Answer the client.
    Never,
    /// Add the endpoint to `Tried` and pick another.
    Elsewhere,
    /// Pick again, the same endpoint included, but connect: an idle link of this age may be as dead as the first.
    FreshLink,
}

impl Attempt {
    /// Whether and where the request may be tried again. `policy` is `[cluster.retry]`.
    pub fn again(&self, policy: Option<&Retry>) -> Again {
        match self.failure {
            // Nothing was written, whatever the method.
            Failure::Connect => {
                let wanted = policy.is_none_or(|policy| policy.on.connect);
                if wanted && self.attempts < CONNECT_ATTEMPTS { Again::Elsewhere } else { Again::Never }
            }
            _ if !self.is_harmless() => Again::Never,
            Failure::Closed | Failure::Reset => self.after_loss(policy),
            Failure::Timeout => self.within(policy.filter(|policy| policy.on.timeout)),
            Failure::Status(status) => self.within(policy.filter(|policy| policy.on.statuses.has(status))),
        }
    }

    /// A second attempt does no harm, whoever wants it.
    fn is_harmless(&self) -> bool {
        let unseen = !self.request_bytes;
        // Another proxy's second attempt is nobody's first: were it repeated, attempts would multiply.
        (unseen || self.idempotent && !self.nested) && self.replayable && !self.response_bytes
    }

    fn after_loss(&self, policy: Option<&Retry>) -> Again {
        if self.pooled {
            // The link was stale, not the origin: once, whatever the policy.
            let most = policy.map_or(REPEATS, |policy| u32::from(policy.attempts).max(REPEATS));
            return if self.repeats < most { Again::FreshLink } else { Again::Never };
        }
        match policy {
            Some(policy) => self.within(Some(policy).filter(|policy| policy.on.reset)),
            None if self.repeats < REPEATS => Again::Elsewhere,
            None => Again::Never,
        }
    }

    /// Elsewhere, where the policy wants that and allows one more.
    fn within(&self, policy: Option<&Retry>) -> Again {
        match policy {
            Some(policy) if self.repeats < u32::from(policy.attempts) => Again::Elsewhere,
            _ => Again::Never,
        }
    }

    /// Whether one more attempt is paid for by the budget: not if no origin has had any work with this one.
    pub fn is_paid_for(&self) -> bool {
        self.request_bytes && self.failure != Failure::Connect
    }

    /// Why it is tried again, for counters and the log.
    pub fn why(&self) -> Retried {
        match self.failure {
            Failure::Connect => Retried::Connect,
            Failure::Closed | Failure::Reset => Retried::Reset,
            Failure::Timeout => Retried::Timeout,
            Failure::Status(_) => Retried::Status,
        }
    }

    /// What the client is told when a lost link's request is not tried again, and no response head was passed on.
    pub fn refusal(&self) -> Refusal {
        if self.pooled && self.request_bytes && !self.idempotent {
            // The race that no proxy can win: the origin closed an idle link while the request was on its way.
            return Refusal::OriginClosedAfterWrite;
        }
        match self.failure {
            Failure::Connect => Refusal::ConnectFailed,
            Failure::Reset => Refusal::OriginReset,
            Failure::Closed | Failure::Timeout | Failure::Status(_) => Refusal::OriginClosed,
        }
    }
}

#[cfg(test)]
mod tests;
