//! Timeouts that another configuration made shorter reach the conns that are silent: after a swap a shard goes over all of
//! them, a bounded number of slots each turn, and puts their deadlines into the wheel anew.
//!
//! Those of what applies at once: `tunnel_idle` and `max_lifetime`. A longer one needs no walk: the wheel fires when the
//! shorter one would have been over, and what is then asked is what holds then.

use super::deadline;
use crate::core::Core;
use crate::io::Mono;
use crate::limits;
use crate::spec::{Listener, Snapshot};
use std::sync::Arc;

/// How far a shard has gone over its conns.
#[derive(Debug, Default)]
pub struct Following {
    /// The next slot; none where nothing is to be done.
    at: Option<u32>,
    /// Another configuration made something shorter meanwhile: once more, from the first slot on.
    again: bool,
}

/// Another configuration than `before` is in force.
pub fn begin(core: &mut Core, before: &Snapshot) {
    let is_shorter = |was: &Arc<Listener>| {
        let next = core.snapshot.listener(was.id).filter(|next| !Arc::ptr_eq(was, next));
        next.is_some_and(|next| {
            let (was, next) = (&was.timeouts, &next.timeouts);
            next.tunnel_idle < was.tunnel_idle || next.max_lifetime < was.max_lifetime
        })
    };
    if before.listeners.iter().flatten().any(is_shorter) {
        // A walk that is under way ends first, so that however often this comes, each conn has its turn.
        core.following.again = core.following.at.is_some();
        core.following.at.get_or_insert(0);
    }
}

/// After each turn: goes on with the walk.
pub fn walk(core: &mut Core) {
    for _ in 0..limits::FOLLOW_SLOTS {
        let Some(slot) = core.following.at else { return };
        if slot >= core.conns.slots() {
            core.following.at = std::mem::take(&mut core.following.again).then_some(0);
            return;
        }
        core.following.at = Some(slot + 1);
        if let Some(id) = core.conns.id_at(slot) {
            deadline::settle_anew(core, id);
        }
    }
}

/// When a walk goes on; `Mono::MAX` where there is none.
pub fn due(core: &Core) -> Mono {
    core.following.at.map_or(Mono::MAX, |_| Mono(0))
}
