//! The commands that ask the running process something, or tell it.

use super::environment;
use crate::admin::commands::{self, Part, Where, Which};
use crate::admin::{self, Asked, DrainAsked, Name};
use crate::exit::Exit;
use crate::top::{self, Asked as TopAsked};
use dataplane::cluster::eligible::Admin;

/// `ringway status`.
pub fn status(part: Part, at: &Where, json: bool) -> Exit {
    commands::status(part, at, json, &environment(false))
}

/// `ringway connections`.
pub fn connections(which: &Which, at: &Where, json: bool) -> Exit {
    commands::connections(which, at, json, &environment(false))
}

/// `ringway reload`.
pub fn reload(at: &Where, json: bool) -> Exit {
    commands::reload(at, json, &environment(false))
}

/// `ringway upgrade`.
pub fn upgrade(at: &Where, json: bool) -> Exit {
    admin::upgrade::command(at, json, &environment(false))
}

/// `ringway drain`.
pub fn drain(asked: &DrainAsked, wait: bool, at: &Where) -> Exit {
    admin::drain::command(asked, wait, at, &environment(false))
}

/// `ringway plan`.
pub fn plan(at: &Where, json: bool) -> Exit {
    commands::plan(at, json, &environment(false))
}

/// `ringway export`.
pub fn export(at: &Where) -> Exit {
    commands::export(at, &environment(false))
}

/// `ringway drift`.
pub fn drift(forget: bool, at: &Where, json: bool) -> Exit {
    commands::drift(forget, at, json, &environment(false))
}

/// `ringway set`.
pub fn set(name: &Name, state: Admin, at: &Where) -> Exit {
    commands::set(name, state, at, &environment(false))
}

/// `ringway explain`.
pub fn explain(asked: &Asked, at: &Where, json: bool) -> Exit {
    commands::explain(asked, at, json, &environment(false))
}

/// `ringway probe`.
pub fn probe(name: &Name, at: &Where, json: bool) -> Exit {
    commands::probe_one(name, at, json, &environment(false))
}

/// `ringway top`.
pub fn top(asked: &TopAsked, at: &Where) -> Exit {
    top::top(asked, at, &environment(false))
}
