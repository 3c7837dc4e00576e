//! Going away, all of it or the conns of some listeners: accept no more, close what is idle, let the rest finish, then cut what
//! is left at the deadline.

use super::Shard;
use crate::conn::{Conn, Ends, Phase, close, deadline};
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Io, Mono};
use crate::limits;
use crate::link;
use crate::listener;
use crate::spec::ListenerId;
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
    match by <= core.clock.mono {
        true => listener::stop_all(core, io),
        false => listener::leave_all(core, io),
    }
    link::pool::close_all(core, io);
    let all: Vec<Id<Conn>> = core.conns.ids().collect();
    send_away(core, io, all);
}

/// The conns of these listeners leave, because the listeners do. What still runs when `drain_timeout` is over is cut.
pub(super) fn leave(core: &mut Core, io: &mut impl Io, of: &[ListenerId]) {
    let is_leaving = |c: &Conn| !c.ends.leaves() && of.contains(&c.listener);
    let leaving: Vec<Id<Conn>> = core.conns.iter().filter(|(_, c)| is_leaving(c)).map(|(id, _)| id).collect();
    if leaving.is_empty() {
        return;
    }
    let party = core.party();
    for id in &leaving {
        core.conns.get_mut(*id).into_iter().for_each(|conn| conn.ends = Ends::with(party));
    }
    send_away(core, io, leaving);
}

/// Closes those of the conns that are idle.
fn send_away(core: &mut Core, io: &mut impl Io, conns: Vec<Id<Conn>>) {
    let is_idle = |c: &Conn| {
        matches!(c.phase(), Phase::Open | Phase::Preface | Phase::Serving)
            && c.exchange.is_none()
            && c.rx.is_none()
    };
    for id in conns {
        match core.conns.get(id).filter(|conn| is_idle(conn)).map(Conn::phase) {
            None => {}
            Some(Phase::Serving) => close::begin(core, io, id, CloseReason::Drained),
            // Its first request may be in the socket already: accepted, so not to be lost (threat B07).
            Some(_) => deadline::on_last_chance(core, id),
        }
    }
}

/// After each turn: cuts what was to leave, and still is here when its time is over.
pub(super) fn cut_leaving(core: &mut Core, io: &mut impl Io) {
    let now = core.clock.mono;
    while let Some((party, _)) = core.parties.front().copied().filter(|(_, by)| *by <= now) {
        core.parties.pop_front();
        let theirs = core.conns.iter().filter(|(_, conn)| conn.ends.party() == Some(party));
        let over: Vec<Id<Conn>> = theirs.map(|(id, _)| id).collect();
        for id in over {
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
        listener::stop_all(core, io);
    }
    core.conns.is_empty()
        && core.links.is_empty()
        && core.posts.is_empty()
        // What another shard handed over is on its way for a turn at most; a kernel without memory may have lost it.
        && (core.shared.loads.get(core.shard) == 0 || core.clock.mono >= shard.drain_ends)
        && core.listeners.iter().all(listener::ListenerState::is_closed)
}
