//! The commands that speak to a running process.

use super::environment;
use crate::admin::commands::{self, Where};
use crate::admin::{self, Asked, DrainAsked, Name};
use crate::exit::Exit;
use dataplane::cluster::eligible::Admin;

/// `ringway status`.
pub fn status(at: &Where, json: bool) -> Exit {
    commands::status(at, json, &environment(false))
}

/// `ringway reload`.
pub fn reload(at: &Where, json: bool) -> Exit {
    commands::reload(at, json, &environment(false))
}

/// `ringway upgrade`.
pub fn upgrade(at: &Where, json: bool) -> Exit {
    commands::upgrade(at, json, &environment(false))
}

/// `ringway plan`.
pub fn plan(at: &Where, json: bool) -> Exit {
    commands::plan(at, json, &environment(false))
}

/// `ringway set`.
pub fn set(name: &Name, state: Admin, at: &Where) -> Exit {
    commands::set(name, state, at, &environment(false))
}

/// `ringway drain`.
pub fn drain(asked: &DrainAsked, wait: bool, at: &Where) -> Exit {
    admin::drain::command(asked, wait, at, &environment(false))
}

/// `ringway explain`.
pub fn explain(asked: &Asked, at: &Where, json: bool) -> Exit {
    commands::explain(asked, at, json, &environment(false))
}

/// `ringway probe`.
pub fn probe(name: &Name, at: &Where, json: bool) -> Exit {
    commands::probe_one(name, at, json, &environment(false))
}
