//! Going away: accept no more, close what is idle, let the rest finish, then cut what is left at the deadline.

use super::Shard;
use crate::conn::{Conn, Phase, close, deadline};
use crate::fault::CloseReason;
use crate::io::{Io, Mono};
use crate::link;
use crate::listener;
use crate::table::Id;

/// Begins to drain; what still runs at `by` is cut. Again with an earlier `by`, the earlier one holds.
pub fn begin(shard: &mut Shard, io: &mut impl Io, by: Mono) {
    shard.drain_by = shard.drain_by.min(by);
    let core = &mut shard.core;
    if core.draining {
        return;
    }
    core.draining = true;
    listener::stop(core, io);
    link::pool::close_all(core, io);
    let idle = |c: &Conn| {
        matches!(c.phase(), Phase::Open | Phase::Preface | Phase::Serving)
            && c.exchange.is_none()
            && c.rx.is_none()
    };
    let ids: Vec<(Id<Conn>, Phase)> =
        core.conns.iter().filter(|(_, c)| idle(c)).map(|(id, c)| (id, c.phase())).collect();
    for (id, phase) in ids {
        if phase != Phase::Serving {
            // Its first request may be in the socket already: accepted, so not to be lost (threat B07).
            deadline::on_last_chance(core, id);
        } else {
            close::begin(core, io, id, CloseReason::Drained);
        }
    }
}

/// After each turn: cuts what is left at the deadline; true once nothing is left at all.
pub(super) fn advance(shard: &mut Shard, io: &mut impl Io) -> bool {
    if !shard.core.draining {
        return false;
    }
    let core = &mut shard.core;
    if core.clock.mono >= shard.drain_by {
        // Once is enough: after this every conn is closing and only the kernel is waited for.
        shard.drain_by = Mono::MAX;
        let ids: Vec<Id<Conn>> = core.conns.ids().collect();
        for id in ids {
            close::begin(core, io, id, CloseReason::Drained);
        }
        link::pool::close_all(core, io);
    }
    core.conns.is_empty()
        && core.links.is_empty()
        && core.posts.is_empty()
        && core.listeners.iter().all(listener::ListenerState::is_closed)
}
