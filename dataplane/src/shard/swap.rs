//! Going over to another configuration while requests run: clusters whose specification is another one change, sockets come and
//! go, the conns of listeners that went leave, and all else stays.
//!
//! What runs goes on by what it began with, as far as it took that along, and ends where it is: an endpoint that is gone gets
//! nothing new, and its idle links are closed. What was before is given back, so that nothing of it is freed on a shard.

use super::drain;
use crate::conn;
use crate::core::{ClusterRuntime, Core, Shared};
use crate::io::Io;
use crate::link;
use crate::listener::{self, Socket};
use crate::route::RouteTable;
use crate::spec::{ClusterId, Drains, Listener, Snapshot};
use std::sync::Arc;

/// A configuration and what is made of it; once swapped in, what was there before.
#[derive(Debug, Clone)]
pub struct Swap {
    pub snapshot: Arc<Snapshot>,
    pub routes: Arc<RouteTable>,
    pub shared: Arc<Shared>,
    /// By shard, the sockets to accept on, the highest number last; none where they stay as they are.
    pub sockets: Option<Arc<[Vec<Socket>]>>,
    /// Whose conns leave though their listener stays; it has no sockets then.
    pub drains: Arc<Drains>,
}

/// Puts `swap` in the place of what the shard runs by, which it then holds.
///
/// A listener keeps its id, also one that is gone until no conn is left of it. A cluster keeps its id and [`Shared`] numbers, and so does each endpoint that is in
/// both; a cluster that is gone keeps its place for what runs there.
pub fn begin(core: &mut Core, io: &mut impl Io, swap: &mut Swap) {
    std::mem::swap(&mut core.snapshot, &mut swap.snapshot);
    std::mem::swap(&mut core.routes, &mut swap.routes);
    std::mem::swap(&mut core.shared, &mut swap.shared);
    std::mem::swap(&mut core.drains, &mut swap.drains);
    core.make_room();
    if let Some(sockets) = swap.sockets.as_ref().and_then(|all| all.get(usize::from(core.shard))) {
        listener::follow(core, io, sockets);
    }
    let went = |before: &&Arc<Listener>| {
        !before.is_gone() && core.snapshot.listener(before.id).is_none_or(|next| before.drains_for(next))
    };
    let went: Vec<_> = swap.snapshot.listeners.iter().flatten().filter(went).map(|l| l.id).collect();
    if !went.is_empty() {
        drain::leave(core, io, &went);
    }
    if !Arc::ptr_eq(&core.drains, &swap.drains) {
        drain::follow(core, &swap.drains);
    }
    conn::follow::begin(core, &swap.snapshot);
    let clusters = core.snapshot.clusters.len().max(core.clusters.len());
    core.stirred.reserve(clusters);
    core.clusters.resize_with(clusters, || None);
    core.available.resize(clusters, 0);
    for id in (0u16..).take(clusters).map(ClusterId) {
        change(core, io, id);
    }
}

fn change(core: &mut Core, io: &mut impl Io, id: ClusterId) {
    let at = usize::from(id.0);
    let now = core.now();
    let (shard, seed, shards) = (core.shard, core.seed, core.snapshot.runtime.shards);
    let Some(spec) = core.snapshot.cluster(id) else {
        while link::pool::close_oldest(core, io, id) {}
        return;
    };
    match core.clusters.get_mut(at) {
        Some(Some(runtime)) if Arc::ptr_eq(runtime.state.spec(), spec) => return,
        Some(Some(runtime)) if runtime.is_of(core.shared.clusters.get(at)) => {
            let announces_otherwise = runtime.state.spec().send_proxy != spec.send_proxy;
            runtime.change(spec.clone(), shards, now);
            // Nobody may find a link idle that began otherwise.
            while announces_otherwise && link::pool::close_oldest(core, io, id) {}
        }
        // None was there, or another cluster had the id, of which nothing is left.
        Some(runtime) => {
            let shared = core.shared.clusters.get(at).cloned().flatten();
            *runtime = shared.map(|shared| ClusterRuntime::new(spec.clone(), shared, (shard, shards), seed));
        }
        None => return,
    }
    conn::queue::on_change(core, io, id);
}
