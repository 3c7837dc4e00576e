//! Which shard serves a connection: decided once, when it was accepted and nothing was asked of it yet.
//!
//! The kernel spreads connections by a hash of their addresses, which is uneven where they are few and long; a socket
//! that only one shard holds is as uneven as can be. So whoever accepts compares its load with those of the others, and
//! hands the descriptor to the least loaded one if that has `EVEN_SLACK` connections less: moving one then leaves neither
//! shard ahead of where the other was. A connection is moved at most once.
//!
//! Brief connections even out by themselves where every shard accepts, and moving one costs more than it gains. So while
//! some have ended of late, not the load of this moment counts but the least of the last tenths of a second: bursts of brief
//! ones are not in it. Where the listener steers connections, by CPU or source address, they stay: that is what
//! the operator asked for.

use crate::conn;
use crate::core::Core;
use crate::io::{Fd, Io, Message};
use crate::limits;
use crate::post;
use crate::spec::{ListenerId, Steer};

/// Races for the least loaded shard that may be lost before a connection stays where it is.
const LOST_RACES: u32 = 4;

/// A descriptor was accepted here, by this shard `alone` or by each its own share: the least loaded shard gets it.
pub fn place(core: &mut Core, io: &mut impl Io, (listener, alone): (ListenerId, bool), fd: Fd) {
    let steered = core.snapshot.listener(listener).is_none_or(|spec| spec.steer != Steer::Hash);
    if !steered && let Some(shard) = taker(core, alone) {
        if post::begin(core, io, shard, Message::Conn { listener, fd }) {
            core.stats.handed.add(1);
            return;
        }
        core.shared.loads.close(shard);
    }
    keep(core, io, listener, fd);
}

fn keep(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd) {
    core.shared.loads.open(core.shard);
    conn::open::accept(core, io, listener, fd, false);
}

/// A descriptor was accepted by a socket that is going away: it stays, and leaves soon.
pub fn see_off(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd) {
    core.shared.loads.open(core.shard);
    conn::open::accept(core, io, listener, fd, true);
}

/// The shard that is to have one connection more in place of this one, counted in there.
fn taker(core: &mut Core, alone: bool) -> Option<u16> {
    let Core { shared, brief, clock, shard: own, .. } = core;
    let loads = &shared.loads;
    let load = loads.get(*own);
    let lasting = if alone { load } else { brief.lasting(load, clock.mono) };
    for _ in 0..LOST_RACES {
        if lasting < limits::EVEN_SLACK {
            return None;
        }
        let (shard, seen) = loads.least_beside(*own)?;
        if lasting < seen.saturating_add(limits::EVEN_SLACK) {
            return None;
        }
        if loads.try_hand(shard, seen) {
            return Some(shard);
        }
    }
    None
}

/// Another shard accepted it and counted it in here.
pub fn on_handed(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd) {
    conn::open::accept(core, io, listener, fd, false);
}

/// The other shard never saw it: it is served here.
pub fn on_failed(core: &mut Core, io: &mut impl Io, shard: u16, (listener, fd): (ListenerId, Fd)) {
    core.stats.hand_failures.add(1);
    core.shared.loads.close(shard);
    keep(core, io, listener, fd);
}
