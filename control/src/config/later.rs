//! Keys that are known and reserved, and refused until their feature is built. Each section moves to its own file then.

use super::keys::ReloadEffect::{NextExchange, Nothing};
use super::keys::{Key, ReloadEffect, Section, Shape};

const fn key(name: &'static str, form: &'static str, effect: ReloadEffect, doc: &'static str) -> Key {
    Key::later(name, Shape::Free(form), effect, doc)
}

pub(super) static OUTLIER: Section = Section {
    path: "cluster.outlier",
    shared: false,
    doc: "Ejecting endpoints that fail real requests.",
    keys: &[
        key("consecutive_failures", "a whole number", Nothing, "In a row until ejection."),
        key("failure_rate", "a number from 0 to 1", Nothing, "Share of failures until ejection."),
        key("minimum_volume", "a whole number", Nothing, "Requests before the rate counts."),
        key("ejection_time", "a duration", Nothing, "How long."),
        key("max_ejected_percent", "a whole number", Nothing, "Endpoints that may be out at once."),
    ],
};

pub(super) static CIRCUIT_BREAKER: Section = Section {
    path: "cluster.circuit_breaker",
    shared: false,
    doc: "Stopping requests to a cluster that fails.",
    keys: &[
        key("failure_threshold", "a whole number", Nothing, "Failures until it opens."),
        key("recovery_timeout", "a duration", Nothing, "Until it tries again."),
        key("trial_timeout", "a duration", Nothing, "For the trial."),
    ],
};

pub(super) static RETRY: Section = Section {
    path: "cluster.retry",
    shared: false,
    doc: "Trying a request again.",
    keys: &[
        key("attempts", "a whole number", NextExchange, "Further attempts."),
        key(
            "on",
            "a list, as [\"connect\", \"reset\", \"timeout\", 503]",
            NextExchange,
            "What is tried again.",
        ),
        key(
            "budget_percent",
            "a whole number",
            NextExchange,
            "Share of requests that may be second attempts.",
        ),
        key(
            "hedge_after",
            "\"p95\" or a duration",
            NextExchange,
            "When a second attempt starts beside the first.",
        ),
    ],
};

pub(super) static AVAILABLE: Section = Section {
    path: "route.match.available",
    shared: false,
    doc: "How many endpoints of a cluster are available (HAProxy's nbsrv).",
    keys: &[
        key("cluster", "the name of a cluster", NextExchange, "Whose."),
        key("below", "a whole number", NextExchange, "Fewer than this."),
        key("at_least", "a whole number", NextExchange, "This or more."),
    ],
};
