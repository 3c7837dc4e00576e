//! Going away: accept no more, close what is idle, let the rest finish, then cut what is left at the deadline.

use super::Shard;
use crate::conn::{Conn, Phase, close, deadline};
use crate::fault::CloseReason;
use crate::io::{Io, Mono};
use crate::limits;
use crate::link;
use crate::listener;
use crate::table::Id;
use std::time::Duration;

/// Pause between two looks at what is to be cut.
const CUT_AGAIN: Duration = Duration::from_millis(20);

/// Begins to drain; what still runs at `by` is cut. Again with an earlier `by`, the earlier one holds.
pub fn begin(shard: &mut Shard, io: &mut impl Io, by: Mono) {
    shard.drain_by = shard.drain_by.min(by);
    let core = &mut shard.core;
    if core.draining {
        return;
    }
    core.draining = true;
    core.shared.loads.shut(core.shard);
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
        // Now every conn is closing and only the kernel is waited for. Again soon, for what another shard handed over.
        shard.drain_by = core.clock.mono.after(CUT_AGAIN);
        shard.drain_ends = shard.drain_ends.min(core.clock.mono.after(limits::SHARD_STALL));
        let ids: Vec<Id<Conn>> = core.conns.ids().collect();
        for id in ids {
            close::begin(core, io, id, CloseReason::Drained);
        }
        link::pool::close_all(core, io);
    }
    core.conns.is_empty()
        && core.links.is_empty()
        && core.posts.is_empty()
        // What another shard handed over is on its way for a turn at most; a kernel without memory may have lost it.
        && (core.shared.loads.get(core.shard) == 0 || core.clock.mono >= shard.drain_ends)
        && core.listeners.iter().all(listener::ListenerState::is_closed)
}
