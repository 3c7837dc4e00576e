//! `[cluster.outlier]` and `[cluster.circuit_breaker]`: what follows when live requests fail at an endpoint.

use super::keys::ReloadEffect::Nothing;
use super::keys::{Key, Section, Shape};
use super::tree::{Item, Table};
use dataplane::limits;
use dataplane::spec::{BreakerOf, CircuitBreaker, Outlier, Statuses};

const FAILURE_STATUS: Key = Key::new(
    "failure_status",
    Shape::Free("statuses from 400 to 599 and ranges of them, one or a list, as [\"500-599\", 429]"),
    Nothing,
    "Answers that count as failures, beside connects, resets, timeouts and answers that are none.",
)
.absent("\"500-599\"");

pub(super) static OUTLIER: Section = Section {
    path: "cluster.outlier",
    shared: false,
    doc: "Ejecting endpoints at which live requests fail. The table turns it on. docs/operations/health.md has the whole.",
    keys: &[
        Key::new(
            "consecutive_failures",
            Shape::Count(limits::CONSECUTIVE_FAILURES, Some(("off", u64::MAX))),
            Nothing,
            "Failures in a row, over all shards, until an endpoint is ejected.",
        ),
        Key::new(
            "failure_rate",
            Shape::Fraction,
            Nothing,
            "Share of an endpoint's requests that fail within `window` until it is ejected; looked at ten times in each \
             window.",
        )
        .absent("none"),
        Key::new(
            "minimum_volume",
            Shape::Count(limits::MINIMUM_VOLUME, None),
            Nothing,
            "Requests within `window` before `failure_rate` counts.",
        ),
        Key::new(
            "window",
            Shape::Duration(limits::RATE_WINDOW, None),
            Nothing,
            "Of `failure_rate`.",
        ),
        Key::new(
            "ejection_time",
            Shape::Duration(limits::EJECTION_TIME, None),
            Nothing,
            "How long the first ejection is. The next one is longer by as much, and so on; for each `ejection_time` that \
             the endpoint then behaves it is shorter by as much again.",
        ),
        Key::new(
            "max_ejection_time",
            Shape::Duration(limits::MAX_EJECTION_TIME, None),
            Nothing,
            "How long an ejection is at most.",
        ),
        Key::new(
            "max_ejected_percent",
            Shape::Count(limits::MAX_EJECTED_PERCENT, None),
            Nothing,
            "Endpoints that may be ejected at once, in a hundred of those with weight, rounded down: of three endpoints one \
             at 50, two at 67.",
        ),
        FAILURE_STATUS,
    ],
};

pub(super) static CIRCUIT_BREAKER: Section = Section {
    path: "cluster.circuit_breaker",
    shared: false,
    doc: "Stopping requests to what fails. The table turns it on. docs/operations/health.md has the whole.",
    keys: &[
        Key::new(
            "of",
            Shape::Word(&["endpoint", "cluster", "both"], &[]),
            Nothing,
            "What has a breaker: each endpoint, which is then passed over; the cluster, whose requests are then answered \
             503 `circuit_open`.",
        ),
        Key::new(
            "failure_threshold",
            Shape::Count(limits::FAILURE_THRESHOLD, None),
            Nothing,
            "Failures in a row, over all shards, until it opens.",
        ),
        Key::new(
            "recovery_timeout",
            Shape::Duration(limits::RECOVERY_TIMEOUT, None),
            Nothing,
            "How long it is open. Then one request of the whole node tries: if that goes well it closes, else it opens again.",
        ),
        Key::new(
            "trial_timeout",
            Shape::Duration(limits::TRIAL_TIMEOUT, None),
            Nothing,
            "A trial of which nothing was heard after this has failed.",
        ),
        FAILURE_STATUS,
    ],
};

/// The rules of ejection of a cluster, if it has the table.
pub(super) fn outlier(cluster: &Table<'_>) -> Option<Outlier> {
    cluster.get("outlier")?;
    let table = cluster.table("outlier");
    let percent = table.count("max_ejected_percent");
    let rules = Outlier {
        consecutive_failures: table.count32("consecutive_failures"),
        failure_rate: table.get("failure_rate").map(|_| table.fraction("failure_rate")),
        minimum_volume: table.count32("minimum_volume"),
        window: table.duration("window"),
        ejection_time: table.duration("ejection_time"),
        max_ejection_time: table.duration("max_ejection_time"),
        max_ejected_percent: u8::try_from(percent).unwrap_or(100),
        failure_status: statuses(&table),
    };
    if rules.consecutive_failures == u32::MAX && rules.failure_rate.is_none() {
        table.error(
            "consecutive_failures",
            "is off, and there is no `failure_rate`: nothing would ever be ejected",
        );
    }
    for key in ["minimum_volume", "window"] {
        if let Some(item) = table.get(key).filter(|_| rules.failure_rate.is_none()) {
            item.warn("without `failure_rate` this does nothing", None);
        }
    }
    if rules.ejection_time > rules.max_ejection_time {
        table.error("max_ejection_time", "is shorter than `ejection_time`");
    }
    Some(rules)
}

/// The rules of a cluster's circuit breakers, if it has the table.
pub(super) fn circuit_breaker(cluster: &Table<'_>) -> Option<CircuitBreaker> {
    cluster.get("circuit_breaker")?;
    let table = cluster.table("circuit_breaker");
    Some(CircuitBreaker {
        of: match table.word("of") {
            "cluster" => BreakerOf::Cluster,
            "both" => BreakerOf::Both,
            _ => BreakerOf::Endpoint,
        },
        failure_threshold: table.count32("failure_threshold"),
        recovery_timeout: table.duration("recovery_timeout"),
        trial_timeout: table.duration("trial_timeout"),
        failure_status: statuses(&table),
    })
}

fn statuses(table: &Table<'_>) -> Statuses {
    table.get("failure_status").map_or(Statuses::SERVER_ERRORS, |list| read_statuses(&list))
}

/// Statuses and ranges of them, of those that a set may hold.
pub(super) fn read_statuses(list: &Item<'_>) -> Statuses {
    // An empty list is a rule: no answer is a failure.
    let is_empty = list.value.as_array().is_some_and(|list| list.is_empty());
    let mut set = Statuses::default();
    for item in if is_empty { Vec::new() } else { list.each() } {
        let Some((from, to)) = range(&item) else { continue };
        let told = (from..=to).all(|status| set.add(status));
        if !told || from > to {
            let (first, last) = (Statuses::FIRST, Statuses::LAST);
            item.error(format!("is out of range ({first} to {last}, the lower one first)"));
        }
    }
    set
}

/// `503`, `"503"` or `"500-599"`.
fn range(item: &Item<'_>) -> Option<(u16, u16)> {
    let range = match (item.value.as_str(), item.value.as_integer()) {
        (Some(text), _) => {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            from.trim().parse().ok().zip(to.trim().parse().ok())
        }
        (None, Some(number)) => u16::from_str_radix(number.as_str(), number.radix()).ok().map(|n| (n, n)),
        (None, None) => None,
    };
    if range.is_none() {
        item.wants("a status or a range of them, as \"500-599\"");
    }
    range
}
