//! Each case by name, and the rules that no combination of facts may break.

use super::*;
use crate::spec::{RetryOn, Statuses};

const FRESH: Attempt = Attempt {
    failure: Failure::Closed,
    pooled: false,
    idempotent: true,
    request_bytes: true,
    response_bytes: false,
    replayable: true,
    nested: false,
    attempts: 0,
    repeats: 0,
};
const POOLED: Attempt = Attempt { pooled: true, ..FRESH };

fn post(attempt: Attempt) -> Attempt {
    Attempt { idempotent: false, ..attempt }
}
fn unsent(attempt: Attempt) -> Attempt {
    Attempt { request_bytes: false, ..attempt }
}
fn nested(attempt: Attempt) -> Attempt {
    Attempt { nested: true, ..attempt }
}
fn failed(attempts: u32) -> Attempt {
    Attempt { failure: Failure::Connect, attempts, ..unsent(FRESH) }
}
fn answered(status: u16) -> Attempt {
    Attempt { failure: Failure::Status(status), ..FRESH }
}
fn timed_out(attempt: Attempt) -> Attempt {
    Attempt { failure: Failure::Timeout, ..attempt }
}

/// Everything is tried again, so often; of statuses 503.
fn all(attempts: u8) -> Retry {
    let mut statuses = Statuses::default();
    statuses.add(503);
    Retry {
        attempts,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses },
        budget_percent: 20,
        budget_minimum: 10,
        replay_body: 0,
        hedge_after: None,
    }
}

#[test]
fn each_case_has_its_answer() {
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
        ("a timeout", timed_out(POOLED), Again::Never),
        ("a timeout before a byte", timed_out(unsent(FRESH)), Again::Never),
        ("a 503", answered(503), Again::Never),
        ("a refused connect", failed(1), Again::Elsewhere),
        ("a refused connect of a POST", post(failed(1)), Again::Elsewhere),
        ("the last but one connect", failed(CONNECT_ATTEMPTS - 1), Again::Elsewhere),
        ("the last connect", failed(CONNECT_ATTEMPTS), Again::Never),
        ("another proxy's second attempt", nested(POOLED), Again::Never),
        ("the same, unsent", nested(unsent(POOLED)), Again::FreshLink),
        ("the same, not connected", nested(failed(1)), Again::Elsewhere),
    ];
    for (what, attempt, again) in rows {
        assert_eq!(attempt.again(None), again, "{what}");
    }
}

#[test]
fn a_policy_says_what_else() {
    let one = all(1);
    let two = all(2);
    let none = Retry { on: RetryOn::default(), ..all(1) };
    let often = |repeats, attempt| Attempt { repeats, ..attempt };
    let rows = [
        ("a GET on a fresh link that dies", &one, FRESH, Again::Elsewhere),
        ("not wanted", &none, FRESH, Again::Never),
        ("a stale pooled link is no matter of wanting", &none, POOLED, Again::FreshLink),
        ("nor of attempts", &Retry { attempts: 0, ..all(0) }, POOLED, Again::FreshLink),
        ("but once", &none, often(1, POOLED), Again::Never),
        ("or as often as there are attempts", &two, often(1, POOLED), Again::FreshLink),
        ("a timeout", &one, timed_out(FRESH), Again::Elsewhere),
        ("a timeout of a POST", &one, timed_out(post(FRESH)), Again::Never),
        ("a timeout, not wanted", &none, timed_out(FRESH), Again::Never),
        ("a 503", &one, answered(503), Again::Elsewhere),
        ("a 503 to a POST", &one, post(answered(503)), Again::Never),
        ("a 502", &one, answered(502), Again::Never),
        ("a 503, not wanted", &none, answered(503), Again::Never),
        ("a second 503", &one, often(1, answered(503)), Again::Never),
        ("a second 503 of two", &two, often(1, answered(503)), Again::Elsewhere),
        ("a third 503 of two", &two, often(2, answered(503)), Again::Never),
        ("a 503 to another proxy's second attempt", &two, nested(answered(503)), Again::Never),
        ("a 503 behind a 103", &two, Attempt { response_bytes: true, ..answered(503) }, Again::Never),
        ("connects are not counted", &Retry { attempts: 0, ..all(0) }, failed(3), Again::Elsewhere),
        ("a connect, not wanted", &none, failed(1), Again::Never),
    ];
    for (what, policy, attempt, again) in rows {
        assert_eq!(attempt.again(Some(policy)), again, "{what}");
    }
}

/// RFC 9110 9.2.2 over every combination of facts, without a policy and under the most eager one.
#[test]
fn a_written_request_that_is_not_idempotent_is_never_repeated() {
    let failures =
        [Failure::Connect, Failure::Closed, Failure::Reset, Failure::Timeout, Failure::Status(503)];
    let eager = all(3);
    for (failure, bits) in failures.into_iter().flat_map(|f| (0u32..256).map(move |bits| (f, bits))) {
        let bit = |n: u32| bits >> n & 1 == 1;
        let connect = failure == Failure::Connect;
        let attempt = Attempt {
            failure,
            pooled: bit(0),
            idempotent: bit(1),
            request_bytes: bit(2) && !connect,
            response_bytes: bit(3),
            replayable: bit(4),
            nested: bit(5),
            attempts: 1,
            repeats: u32::from(bit(6)) + 2 * u32::from(bit(7)),
        };
        for policy in [None, Some(&eager)] {
            let again = attempt.again(policy);
            if attempt.request_bytes && (!attempt.idempotent || attempt.nested) {
                assert_eq!(again, Again::Never, "{attempt:?}");
            }
            if !connect && (attempt.response_bytes || !attempt.replayable) {
                assert_eq!(again, Again::Never, "{attempt:?}");
            }
            let most = policy.map_or(1, |policy| u32::from(policy.attempts));
            if !connect && attempt.repeats >= most {
                assert_eq!(again, Again::Never, "{attempt:?}");
            }
            // Only what no origin saw is free.
            assert_eq!(attempt.is_paid_for(), attempt.request_bytes, "{attempt:?}");
        }
        // An eager policy allows whatever none would.
        if attempt.again(None) != Again::Never {
            assert_ne!(attempt.again(Some(&eager)), Again::Never, "{attempt:?}");
        }
    }
}

#[test]
fn a_lost_link_is_named() {
    assert_eq!(post(POOLED).refusal(), Refusal::OriginClosedAfterWrite);
    assert_eq!(FRESH.refusal(), Refusal::OriginClosed);
    assert_eq!(Attempt { failure: Failure::Reset, ..FRESH }.refusal(), Refusal::OriginReset);
    assert_eq!(Attempt { failure: Failure::Connect, ..FRESH }.refusal(), Refusal::ConnectFailed);
}
