//! Going over to another configuration while requests run: clusters whose specification is another one change, all else stays.
//!
//! What runs goes on by what it began with, as far as it took that along, and ends where it is: an endpoint that is gone gets
//! nothing new, and its idle links are closed. What was before is given back, so that nothing of it is freed on a shard.

use crate::conn;
use crate::core::{ClusterRuntime, Core, Shared};
use crate::io::Io;
use crate::link;
use crate::route::RouteTable;
use crate::spec::{ClusterId, Snapshot};
use std::sync::Arc;

/// A configuration and what is made of it; once swapped in, what was there before.
#[derive(Debug, Clone)]
pub struct Swap {
    pub snapshot: Arc<Snapshot>,
    pub routes: Arc<RouteTable>,
    pub shared: Arc<Shared>,
}

/// Puts `swap` in the place of what the shard runs by, which it then holds.
///
/// Listeners keep their ids and sockets. A cluster keeps its id and [`Shared`] numbers, and so does each endpoint that is in
/// both; a cluster that is gone keeps its place for what runs there.
pub fn begin(core: &mut Core, io: &mut impl Io, swap: &mut Swap) {
    std::mem::swap(&mut core.snapshot, &mut swap.snapshot);
    std::mem::swap(&mut core.routes, &mut swap.routes);
    std::mem::swap(&mut core.shared, &mut swap.shared);
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
        Some(Some(runtime)) => runtime.change(spec.clone(), shards, now),
        Some(none) => {
            let shared = core.shared.clusters.get(at).cloned().flatten();
            *none = shared.map(|shared| ClusterRuntime::new(spec.clone(), shared, (shard, shards), seed));
        }
        None => return,
    }
    conn::queue::on_change(core, io, id);
}
