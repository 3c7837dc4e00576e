//! `available` of a match: how many endpoints of a cluster are usable.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::names::Names;
use super::tree::Table;
use dataplane::limits;
use dataplane::spec::{Available, ClusterId};

pub(super) static SECTION: Section = Section {
    path: "route.match.available",
    shared: false,
    doc: "How many endpoints of a cluster its next request could go to (HAProxy's nbsrv): those of the tier in use that \
          checks, live traffic, operator and breaker allow. Both bounds may be given.",
    keys: &[
        Key::new("cluster", Shape::Free("the name of a cluster"), NextExchange, "Whose.").absent("required"),
        Key::new("below", Shape::Count(limits::AVAILABLE, None), NextExchange, "Fewer than this.")
            .absent("any"),
        Key::new("at_least", Shape::Count(limits::AVAILABLE, None), NextExchange, "This or more.")
            .absent("any"),
    ],
};

/// What a match asks of a cluster, if it does.
pub(super) fn read(matcher: &Table<'_>, clusters: &mut Names) -> Option<Available> {
    let table = matcher.get("available")?.table(&SECTION)?;
    let cluster = table.need("cluster").and_then(|item| clusters.resolve(&item));
    let bound = |key| table.get(key).map(|_| table.count32(key));
    let (at_least, below) = (bound("at_least"), bound("below"));
    match (at_least, below) {
        (None, None) => table.error("below", "is missing: say `below` or `at_least`"),
        (Some(least), Some(below)) if least >= below => {
            table.error("below", "never holds: it is not above `at_least`");
        }
        _ => {}
    }
    Some(Available {
        cluster: ClusterId(cluster?),
        at_least: at_least.unwrap_or(0),
        below: below.unwrap_or(u32::MAX),
    })
}
