//! Going away, all of it or the conns of some listeners: accept no more, close what waits, let the rest finish, then cut what
//! is left at the deadline.
//!
//! A drain that may be called off is an order (`spec::Order`) for the conns of a listener, or of all: it comes and goes with a
//! swap, which also takes its sockets away and brings new ones. The end of the shard itself is `begin`.

use super::Shard;
use crate::conn::{Conn, Ends, Phase, close, deadline};
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Io, Mono};
use crate::limits;
use crate::link;
use crate::listener;
use crate::spec::{Drains, ListenerId, Order};
use crate::table::Id;
use std::sync::Arc;
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
    let by = core.now().after(core.snapshot.runtime.drain_timeout);
    let party = core.parties.join_reload(by);
    for id in &leaving {
        core.conns.get_mut(*id).into_iter().for_each(|conn| conn.ends = Ends::with(party));
    }
    send_away(core, io, leaving);
}

/// Whether nothing of a request has come.
fn waits(conn: &Conn) -> bool {
    matches!(conn.phase(), Phase::Open | Phase::Preface | Phase::Serving)
        && conn.exchange.is_none()
        && conn.rx.is_none()
}

/// Closes those of the conns that wait.
fn send_away(core: &mut Core, io: &mut impl Io, conns: Vec<Id<Conn>>) {
    for id in conns {
        match core.conns.get(id).filter(|conn| waits(conn)).map(Conn::phase) {
            None => {}
            Some(Phase::Serving) => close::begin(core, io, id, CloseReason::Drained),
            // Its first request may be in the socket already: accepted, so not to be lost (threat B07).
            Some(_) => deadline::on_last_chance(core, id),
        }
    }
}

/// Other orders are in force than `before`: conns that get one leave, those whose order was called off stay after all, and
/// nothing else about them changes. What closes already goes on closing.
pub(super) fn follow(core: &mut Core, before: &Drains) {
    let after = Arc::clone(&core.drains);
    let listeners = u16::try_from(core.snapshot.listeners.len()).unwrap_or(u16::MAX);
    let pair = |id| (before.of(ListenerId(id)), after.of(ListenerId(id)));
    let orders: Vec<(Option<Order>, Option<Order>)> = (0..listeners).map(pair).collect();
    if orders.iter().any(|(was, is)| was != is) {
        for slot in 0..core.conns.slots() {
            let Some(id) = core.conns.id_at(slot) else { continue };
            let Some(conn) = core.conns.get_mut(id) else { continue };
            let Some(&(was, is)) = orders.get(usize::from(conn.listener.0)) else { continue };
            let party = conn.ends.party();
            let by_order = party.is_some() && party == was.and_then(|was| core.parties.of(was.number));
            match is {
                _ if was == is || conn.ends.leaves() && !by_order => {}
                Some(_) => {
                    let listener = conn.listener;
                    let party = core.party(listener);
                    core.conns.get_mut(id).into_iter().for_each(|conn| conn.ends = Ends::with(party));
                }
                None => deadline::on_staying(core, id),
            }
        }
    }
    core.parties.keep(|number| after.has(number));
}

/// After each turn: sends those away that wait and whose time on the curve has come.
pub(super) fn walk(core: &mut Core, io: &mut impl Io) {
    let now = core.clock.mono;
    for _ in 0..limits::DRAIN_SLOTS {
        let Some((slot, party, order)) = core.parties.step(now) else { return };
        let Some(id) = core.conns.id_at(slot) else { continue };
        let Some(conn) = core.conns.get(id) else { continue };
        if conn.ends.party() != Some(party) || !waits(conn) {
            continue;
        }
        let rests_since = conn.deadlines.progress.before(now);
        match conn.phase() {
            Phase::Serving if rests_since.after(order.quiet()) <= now => {
                close::begin(core, io, id, CloseReason::Drained);
            }
            Phase::Serving => deadline::on_leaving(core, id, order.quiet()),
            _ => deadline::on_last_chance(core, id),
        }
    }
}

/// After each turn: cuts what was to leave, and still is here when its time is over.
pub(super) fn cut_leaving(core: &mut Core, io: &mut impl Io) {
    let now = core.clock.mono;
    while let Some(party) = core.parties.over(now) {
        let theirs = core.conns.iter().filter(|(_, conn)| conn.ends.party() == Some(party));
        let over: Vec<Id<Conn>> = theirs.map(|(id, _)| id).collect();
        for id in over {
            close::begin(core, io, id, CloseReason::DrainCut);
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
            close::begin(core, io, id, CloseReason::DrainCut);
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
