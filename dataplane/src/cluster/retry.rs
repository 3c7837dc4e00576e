//! May a request that failed before its response began be tried again, and where? Pure: facts in, a decision out.
//!
//! RFC 9110 section 9.2.2: once any byte of a request was written, only an idempotent one may be repeated (threats B02,
//! B03). A request of which the origin saw nothing may go anywhere.

use crate::fault::Refusal;
use crate::limits::CONNECT_ATTEMPTS;

/// Requests repeated after a link was lost: one that kills each endpoint it meets must not meet them all.
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
    /// The link works but the origin was too slow or its answer invalid: it may be at work on the request.
    Other,
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
    /// Any byte of a response arrived, interim responses included.
    pub response_bytes: bool,
    /// Everything of the request so far is still held and can be sent again.
    pub replayable: bool,
    /// Attempts of this request so far, this one included.
    pub attempts: u32,
    /// Times this request was already repeated after a lost link.
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
    /// Whether and where the request may be tried again.
    pub fn again(&self) -> Again {
        match self.failure {
            Failure::Other => Again::Never,
            // Nothing was written, whatever the method.
            Failure::Connect if self.attempts < CONNECT_ATTEMPTS => Again::Elsewhere,
            Failure::Connect => Again::Never,
            Failure::Closed | Failure::Reset => self.after_loss(),
        }
    }

    fn after_loss(&self) -> Again {
        let harmless = !self.request_bytes || self.idempotent;
        if !harmless || !self.replayable || self.response_bytes || self.repeats >= REPEATS {
            Again::Never
        } else if self.pooled {
            Again::FreshLink
        } else {
            Again::Elsewhere
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
            Failure::Closed | Failure::Other => Refusal::OriginClosed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Attempt = Attempt {
        failure: Failure::Closed,
        pooled: false,
        idempotent: true,
        request_bytes: true,
        response_bytes: false,
        replayable: true,
        attempts: 0,
        repeats: 0,
    };
    const POOLED: Attempt = Attempt { pooled: true, ..FRESH };

    #[test]
    fn each_case_has_its_answer() {
        let post = |attempt| Attempt { idempotent: false, ..attempt };
        let unsent = |attempt| Attempt { request_bytes: false, ..attempt };
        let failed = |attempts| Attempt { failure: Failure::Connect, attempts, ..unsent(FRESH) };
        let rows = [
            ("a GET on a dead pooled link", POOLED, Again::FreshLink),
            ("reset instead of closed", Attempt { failure: Failure::Reset, ..POOLED }, Again::FreshLink),
            ("a GET on a fresh link that dies", FRESH, Again::Elsewhere),
            ("a POST of which bytes were written", post(POOLED), Again::Never),
            ("a POST on a fresh link", post(FRESH), Again::Never),
            ("a POST provably unsent", post(unsent(POOLED)), Again::FreshLink),
            ("a POST provably unsent on a fresh link", post(unsent(FRESH)), Again::Elsewhere),
            ("an answer had begun", Attempt { response_bytes: true, ..POOLED }, Again::Never),
            ("a body that is gone", Attempt { replayable: false, ..POOLED }, Again::Never),
            ("a second time", Attempt { repeats: 1, ..POOLED }, Again::Never),
            ("a second time, fresh", Attempt { repeats: 1, ..FRESH }, Again::Never),
            ("a timeout", Attempt { failure: Failure::Other, ..POOLED }, Again::Never),
            ("a timeout before a byte", Attempt { failure: Failure::Other, ..unsent(FRESH) }, Again::Never),
            ("a refused connect", failed(1), Again::Elsewhere),
            ("a refused connect of a POST", post(failed(1)), Again::Elsewhere),
            ("the last but one connect", failed(CONNECT_ATTEMPTS - 1), Again::Elsewhere),
            ("the last connect", failed(CONNECT_ATTEMPTS), Again::Never),
        ];
        for (what, attempt, again) in rows {
            assert_eq!(attempt.again(), again, "{what}");
        }
    }

    /// RFC 9110 9.2.2 over every combination of facts.
    #[test]
    fn a_written_request_that_is_not_idempotent_is_never_repeated() {
        let failures = [Failure::Connect, Failure::Closed, Failure::Reset, Failure::Other];
        for failure in failures {
            for bits in 0u32..32 {
                let bit = |n: u32| bits >> n & 1 == 1;
                let attempt = Attempt {
                    failure,
                    pooled: bit(0),
                    idempotent: bit(1),
                    request_bytes: bit(2) && failure != Failure::Connect,
                    response_bytes: bit(3),
                    replayable: bit(4),
                    attempts: 1,
                    repeats: 0,
                };
                if attempt.request_bytes && !attempt.idempotent {
                    assert_eq!(attempt.again(), Again::Never, "{attempt:?}");
                }
                if attempt.response_bytes && failure != Failure::Connect {
                    assert_eq!(attempt.again(), Again::Never, "{attempt:?}");
                }
            }
        }
    }

    #[test]
    fn a_lost_link_is_named() {
        let post = Attempt { idempotent: false, ..POOLED };
        assert_eq!(post.refusal(), Refusal::OriginClosedAfterWrite);
        assert_eq!(FRESH.refusal(), Refusal::OriginClosed);
        assert_eq!(Attempt { failure: Failure::Reset, ..FRESH }.refusal(), Refusal::OriginReset);
        assert_eq!(Attempt { failure: Failure::Connect, ..FRESH }.refusal(), Refusal::ConnectFailed);
    }
}
