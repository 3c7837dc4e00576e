//! Keys that are known and reserved, and refused until their feature is built. Each section moves to its own file then.

use super::keys::ReloadEffect::{NewConnections, NextExchange, Nothing};
use super::keys::{Key, ReloadEffect, Section, Shape};

const fn key(name: &'static str, form: &'static str, effect: ReloadEffect, doc: &'static str) -> Key {
    Key::later(name, Shape::Free(form), effect, doc)
}

pub(super) static ADMIN: Section = Section {
    path: "admin",
    shared: false,
    doc: "The address of the admin API, metrics and page.",
    keys: &[key("address", "an address, as \"127.0.0.1:9901\"", NewConnections, "Where it listens.")],
};

pub(super) static HEALTH: Section = Section {
    path: "cluster.health",
    shared: false,
    doc: "Active checks of each endpoint.",
    keys: &[
        key("kind", "\"tcp\" or \"http\"", Nothing, "What a check does."),
        key("method", "a method", Nothing, "Of the check's request."),
        key("path", "a path", Nothing, "Of the check's request."),
        key("host", "a name", Nothing, "Of the check's request."),
        key("headers", "a table", Nothing, "Of the check's request."),
        key("expect_status", "a list, as [\"200-399\"]", Nothing, "What counts as well."),
        Key::later("expect_body", Shape::Table(&EXPECT_BODY), Nothing, "What the answer's body must have."),
        key("interval", "a duration", Nothing, "Between two checks."),
        key("timeout", "a duration", Nothing, "For one check."),
        key("rise", "a whole number", Nothing, "Good checks until an endpoint is up."),
        key("fall", "a whole number", Nothing, "Bad checks until it is down."),
        key("fast_interval", "a duration", Nothing, "Between checks while it changes."),
        key("initial", "\"up\", \"down\" or \"probing\"", Nothing, "Before the first check."),
    ],
};

pub(super) static EXPECT_BODY: Section = Section {
    path: "cluster.health.expect_body",
    shared: false,
    doc: "One of the two.",
    keys: &[
        key("contains", "a string", Nothing, "Somewhere in the body."),
        key("regex", "a regular expression", Nothing, "Found in the body."),
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
