//! Keys that are known and reserved, and refused until their feature is built. Each section moves to its own file then.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, ReloadEffect, Section, Shape};

const fn key(name: &'static str, form: &'static str, effect: ReloadEffect, doc: &'static str) -> Key {
    Key::later(name, Shape::Free(form), effect, doc)
}

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
