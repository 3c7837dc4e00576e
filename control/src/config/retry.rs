//! `[cluster.retry]`: second attempts of a request, one after the other or side by side.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::tree::{Item, Table};
use dataplane::limits;
use dataplane::spec::{HedgeAfter, Retry, RetryOn, Statuses};

pub(super) static SECTION: Section = Section {
    path: "cluster.retry",
    shared: false,
    doc: "Second attempts of requests over HTTP. Without this table a failed connect goes to the next endpoint, and a pooled \
          connection that turns out dead is replaced once. A request of which bytes were written is sent again only if its \
          method is idempotent, nothing of an answer came, and its body is still held. docs/recipes/surviving-failing-origins.md \
          explains the whole.",
    keys: &[
        Key::new(
            "attempts",
            Shape::Count(limits::RETRY_ATTEMPTS, None),
            NextExchange,
            "Further attempts of one request, each at another endpoint. Failed connects are not counted: they have cost no \
             origin anything, and up to 8 are made.",
        ),
        Key::new(
            "on",
            Shape::Free("a list of \"connect\", \"reset\", \"timeout\" and statuses from 400 to 599"),
            NextExchange,
            "What is tried again: a connect that failed; a connection that ended before a byte of the answer; an endpoint \
             that was too slow (`response_header`, `send`); these statuses, of which the last is passed on if no other \
             attempt does better.",
        )
        .absent("[\"connect\", \"reset\", \"timeout\", 503]"),
        Key::new(
            "budget_percent",
            Shape::Count(limits::RETRY_BUDGET_PERCENT, None),
            NextExchange,
            "Second attempts, hedges included, in a hundred requests of the last ten seconds. Failed connects are free.",
        ),
        Key::new(
            "budget_minimum",
            Shape::Count(limits::RETRY_BUDGET_MINIMUM, None),
            NextExchange,
            "Second attempts each second that are allowed whatever the share, over all shards, so that a node with few \
             requests can make some.",
        ),
        Key::new(
            "replay_body",
            Shape::Size(limits::REPLAY_BODY, None),
            NextExchange,
            "Largest body of an idempotent request that is held to be sent again. A request with a larger one is not sent \
             again once some of it was read.",
        ),
        Key::new(
            "hedge_after",
            Shape::Duration(limits::HEDGE_DELAY, None),
            NextExchange,
            "When an idempotent request has no answer after this, a second attempt begins beside the first; the first \
             answer is taken. Or a percentile, `\"p50\"` to `\"p99\"`: `\"p95\"` is the time within which 95 of 100 requests to this cluster had their first byte, \
             once enough were seen. To within 4 ms.",
        )
        .absent("none"),
    ],
};

/// The policy of a cluster, if it has the table.
pub(super) fn read(cluster: &Table<'_>) -> Option<Retry> {
    cluster.get("retry")?;
    let table = cluster.table("retry");
    let narrow = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
    Some(Retry {
        attempts: narrow(table.count("attempts")),
        on: on(&table),
        budget_percent: narrow(table.count("budget_percent")),
        budget_minimum: table.count32("budget_minimum"),
        replay_body: table.size32("replay_body"),
        hedge_after: table.get("hedge_after").and_then(|item| hedge_after(&item)),
    })
}

fn on(table: &Table<'_>) -> RetryOn {
    let Some(list) = table.get("on") else {
        let mut statuses = Statuses::default();
        statuses.add(503);
        return RetryOn { connect: true, reset: true, timeout: true, statuses };
    };
    let mut on = RetryOn::default();
    // An empty list is a policy: nothing is tried again.
    let items =
        if list.value.as_array().is_some_and(|list| list.is_empty()) { Vec::new() } else { list.each() };
    for item in items {
        match item.value.as_str() {
            Some("connect") => on.connect = true,
            Some("reset") => on.reset = true,
            Some("timeout") => on.timeout = true,
            Some(other) => {
                let known = ["connect", "reset", "timeout"];
                item.error_near(
                    format!("wants \"connect\", \"reset\", \"timeout\" or a status; this is {other:?}"),
                    super::report::nearest(other, known),
                );
            }
            None => status(&item, &mut on.statuses),
        }
    }
    on
}

fn status(item: &Item<'_>, statuses: &mut Statuses) {
    let Some(number) = item.value.as_integer() else { return item.wrong_type() };
    let status = u16::from_str_radix(number.as_str(), number.radix());
    if !status.is_ok_and(|status| statuses.add(status)) {
        let (first, last) = (Statuses::FIRST, Statuses::LAST);
        item.error(format!("{number} is out of range ({first} to {last})"));
    }
}

fn hedge_after(item: &Item<'_>) -> Option<HedgeAfter> {
    let text = item.text()?;
    let Some(number) = text.strip_prefix('p') else {
        return item.duration(limits::HEDGE_DELAY, None).map(HedgeAfter::Delay);
    };
    let bound = limits::HEDGE_PERCENTILE;
    match number.parse::<u8>() {
        Ok(n) if (bound.min..=bound.max).contains(&u64::from(n)) => Some(HedgeAfter::Percentile(n)),
        _ => {
            item.error(format!("{text:?} is out of range (\"p{}\" to \"p{}\")", bound.min, bound.max));
            None
        }
    }
}
