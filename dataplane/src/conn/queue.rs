//! Giving the places of full clusters to those who wait: the oldest of this shard, and shards in turn.
//!
//! Whoever frees a place stirs its cluster (`link::queue`), and at the end of the turn [`look`] finds the shard whose turn
//! it is. If that is another one, it is told ([`Message::Place`]); it serves its oldest waiter and looks on for the next,
//! so that places that are free together find as many waiters. A shard that holds an idle link to a full endpoint closes
//! it for the others, when it sees that they wait or when it is told so ([`Message::Wanted`]).

use super::{reply, tcp, upstream};
use crate::cluster::Room;
use crate::core::Core;
use crate::exchange::Exchange;
use crate::exchange::attempt::{self, Step};
use crate::fault::Refusal;
use crate::io::{Io, Message};
use crate::limits;
use crate::link::queue::{self, Waiter};
use crate::link::{self, Owner};
use crate::post;
use crate::spec::ClusterId;
use crate::table::Id;
use crate::tunnel::Tunnel;
use crate::tunnel::reach;

/// Looks at every cluster at which a place may have become free; once a turn.
pub fn look(core: &mut Core, io: &mut impl Io) {
    let now = core.now();
    if !core.waiters.is_empty() && now >= core.queue_look {
        core.queue_look = now.after(limits::QUEUE_LOOK);
        for index in (0u16..).take(core.clusters.len()) {
            if core.cluster_mut(ClusterId(index)).is_some_and(|runtime| !runtime.queue.is_empty()) {
                queue::stir(core, ClusterId(index));
            }
        }
    }
    // What is stirred by this is for the next turn.
    for _ in 0..core.stirred.len() {
        if let Some(cluster) = queue::take_stirred(core) {
            give(core, io, cluster);
        }
    }
}

/// Conditions of a cluster's endpoints changed: idle links to what may not be used are closed, and whoever waits learns that
/// there is somewhere to go now, or nowhere.
pub fn on_change(core: &mut Core, io: &mut impl Io, cluster: ClusterId) {
    let now = core.now();
    let Some(runtime) = core.cluster_mut(cluster) else { return };
    runtime.state.refresh(now);
    link::pool::close_unwanted(core, io, cluster);
    queue::stir(core, cluster);
}

/// Gives the places of a cluster away, as far as this shard can.
fn give(core: &mut Core, io: &mut impl Io, cluster: ClusterId) {
    for _ in 0..limits::QUEUE_SERVES {
        let (now, shard) = (core.now(), core.shard);
        let Some(runtime) = core.cluster_mut(cluster) else { return };
        let run = std::mem::take(&mut runtime.queue.run);
        runtime.state.refresh(now);
        runtime.state.shared().meet();
        let Some(next) = runtime.state.shared().next_waiting() else { return };
        match runtime.state.room() {
            Room::None => return ask(core, io, cluster),
            Room::Idle(_) if run && serve(core, io, cluster) => continue,
            // Its place is free once it is closed, which stirs again.
            Room::Idle(endpoint) if next != shard => {
                link::pool::close_oldest_to(core, io, cluster, endpoint);
                return;
            }
            Room::Idle(_) | Room::Open => {}
        }
        let Some(next) = core.cluster_mut(cluster).and_then(|runtime| runtime.state.shared().take_turn())
        else {
            return;
        };
        let hops = core.snapshot.runtime.shards;
        if next != shard {
            return tell(core, io, next, Message::Place { cluster, hops });
        }
        if !serve(core, io, cluster) {
            return pass(core, io, cluster, hops);
        }
    }
    queue::stir(core, cluster);
}

/// Serves the oldest waiter of this shard that can be served; false if there is none.
fn serve(core: &mut Core, io: &mut impl Io, cluster: ClusterId) -> bool {
    let mut at = core.cluster_mut(cluster).and_then(|runtime| runtime.queue.oldest());
    for _ in 0..limits::QUEUE_LOOKS {
        let Some(waiter) = at.and_then(|id| core.waiters.get(id)) else { return false };
        at = waiter.newer();
        let (served, eager) = match waiter.owner {
            Owner::Exchange(x) => serve_exchange(core, io, x),
            Owner::Tunnel(t) => serve_tunnel(core, io, t),
            Owner::None | Owner::Beside(_) => continue,
        };
        // Where one who would take any place finds none, nobody does.
        if served || eager {
            return served;
        }
    }
    false
}

/// Whether an exchange that waits no longer does, and whether any place would have served it.
fn serve_exchange(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> (bool, bool) {
    match attempt::resume(core, io, id) {
        Step::Queue => (false, core.exchanges.get(id).is_none_or(|x| x.tried.is_empty())),
        step => {
            attempt::end_wait(core, id);
            if let Some(conn) = core.conn_of(id) {
                upstream::take_step(core, io, conn, id, step);
            }
            (true, true)
        }
    }
}

/// The same of a tunnel.
fn serve_tunnel(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> (bool, bool) {
    match reach::resume(core, io, id) {
        reach::Step::Queue => (false, reach::is_eager(core, id)),
        step => {
            reach::end_wait(core, id);
            if let Some(conn) = core.tunnels.get(id).map(|t| t.conn) {
                tcp::take_step(core, io, conn, step);
            }
            (true, true)
        }
    }
}

/// A place that nobody of this shard can use goes to the next shard that waits.
fn pass(core: &mut Core, io: &mut impl Io, cluster: ClusterId, hops: u16) {
    let shard = core.shard;
    let Some(runtime) = core.cluster_mut(cluster) else { return };
    let (room, next) = (runtime.state.room(), runtime.state.shared().next_waiting());
    let (Some(next), Some(hops)) = (next.filter(|next| *next != shard), hops.checked_sub(1)) else { return };
    match room {
        Room::None => {}
        Room::Idle(endpoint) => {
            link::pool::close_oldest_to(core, io, cluster, endpoint);
        }
        Room::Open => {
            runtime.state.shared().take_turn();
            tell(core, io, next, Message::Place { cluster, hops });
        }
    }
}

/// Nothing is free: an idle link of another shard may be given up for one who waits here.
fn ask(core: &mut Core, io: &mut impl Io, cluster: ClusterId) {
    let Some(runtime) = core.cluster_mut(cluster).filter(|runtime| !runtime.queue.is_empty()) else { return };
    if let Some(holder) = runtime.state.idle_elsewhere() {
        tell(core, io, holder, Message::Wanted { cluster });
    }
}

fn tell(core: &mut Core, io: &mut impl Io, shard: u16, message: Message) {
    if !post::begin(core, io, shard, message) {
        on_untold(core, message);
    }
}

/// A message did not reach its shard: this one looks again in the next turn.
pub fn on_untold(core: &mut Core, message: Message) {
    match message {
        Message::Place { cluster, .. } | Message::Wanted { cluster } => queue::stir(core, cluster),
        Message::Conn { .. } => {}
    }
}

/// Another shard says that it is this one's turn.
pub fn on_place(core: &mut Core, io: &mut impl Io, cluster: ClusterId, hops: u16) {
    if serve(core, io, cluster) {
        queue::stir(core, cluster);
    } else {
        pass(core, io, cluster, hops);
    }
}

/// The wait was too long.
pub fn on_timer(core: &mut Core, io: &mut impl Io, id: Id<Waiter>) {
    match core.waiters.get(id).map(|waiter| waiter.owner) {
        Some(Owner::Exchange(x)) => {
            attempt::end_wait(core, x);
            if let Some(conn) = core.conn_of(x) {
                reply::refuse(core, io, conn, Refusal::QueueTimeout);
            }
        }
        Some(Owner::Tunnel(t)) => {
            reach::end_wait(core, t);
            if let Some(conn) = core.tunnels.get(t).map(|t| t.conn) {
                tcp::no_link(core, io, conn, Refusal::QueueTimeout);
            }
        }
        Some(Owner::None | Owner::Beside(_)) => {
            queue::leave(core, id);
        }
        None => {}
    }
}
