//! Waiting for a place at a cluster whose endpoints are all full: one list for each cluster and shard, oldest first.
//!
//! Here is who waits, and what may have freed a place; `conn::queue` gives places away. Shards take turns, and no place is
//! lost between them, because who frees one looks for those who wait after it, and who begins to wait looks for a place
//! after that ([`crate::cluster::shared::SharedCluster::meet`]): both leave the cluster in `core.stirred`.

use super::{Link, Owner};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::{Kind, Mono};
use crate::limits;
use crate::spec::{ClusterId, EndpointId};
use crate::table::{Id, TimerId};
use std::time::Duration;

/// One who waits.
#[derive(Debug)]
pub struct Waiter {
    pub owner: Owner,
    pub cluster: ClusterId,
    since: Mono,
    timer: Option<TimerId>,
    /// Any place would serve it: it has tried no endpoint yet.
    eager: bool,
    newer: Option<Id<Self>>,
    older: Option<Id<Self>>,
}

/// Those of one cluster and shard who wait.
#[derive(Debug, Default)]
pub struct WaitList {
    oldest: Option<Id<Waiter>>,
    newest: Option<Id<Waiter>>,
    /// The cluster stands in `core.stirred`.
    stirred: bool,
    /// An idle link came back for one who waits here, although it may be another shard's turn.
    pub run: bool,
}

impl WaitList {
    pub fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }
    pub fn oldest(&self) -> Option<Id<Waiter>> {
        self.oldest
    }
}

impl Waiter {
    pub fn newer(&self) -> Option<Id<Self>> {
        self.newer
    }
}

/// Whether one who comes now must wait behind others, although there may be a place.
pub fn is_ahead(core: &mut Core, cluster: ClusterId) -> bool {
    core.cluster_mut(cluster).is_some_and(|runtime| runtime.state.shared().is_queue_eager())
}

/// Begins to wait, at most for `timeout`. `eager` says that any place would do. Refused where nobody may wait, or too many
/// do.
pub fn join(
    core: &mut Core,
    owner: Owner,
    cluster: ClusterId,
    eager: bool,
    timeout: Duration,
) -> Result<Id<Waiter>, Refusal> {
    let (now, shard) = (core.now(), core.shard);
    let Some(Some(runtime)) = core.clusters.get_mut(usize::from(cluster.0)) else {
        return Err(Refusal::NoEndpoint);
    };
    let most = runtime.state.spec().max_queued;
    if timeout.is_zero() || most == 0 {
        return Err(Refusal::EndpointsFull);
    }
    if !runtime.state.shared().try_wait(shard, eager, most) {
        return Err(Refusal::QueueFull);
    }
    let list = &mut runtime.queue;
    let older = list.newest;
    let waiter = Waiter { owner, cluster, since: now, timer: None, eager, newer: None, older };
    let Ok(id) = core.waiters.insert(waiter) else {
        // There are as many slots as conns, each of which waits once.
        runtime.state.shared().end_wait(shard, eager, older.is_none());
        return Err(Refusal::QueueFull);
    };
    if let Some(waiter) = core.waiters.get_mut(id) {
        waiter.timer = Some(core.wheel.schedule(id.token(Kind::WaitTimer).0, now.after(timeout)));
    }
    list.newest = Some(id);
    list.oldest = list.oldest.or(Some(id));
    if let Some(older) = older.and_then(|o| core.waiters.get_mut(o)) {
        older.newer = Some(id);
    }
    core.stats.queued.set(u64::from(core.waiters.len()));
    stir(core, cluster);
    Ok(id)
}

/// Ends a wait, for whatever reason; how long it was, microseconds.
pub fn leave(core: &mut Core, id: Id<Waiter>) -> u64 {
    let Some(waiter) = core.waiters.remove(id) else { return 0 };
    if let Some(timer) = waiter.timer {
        core.wheel.cancel(timer);
    }
    if let Some(newer) = waiter.newer.and_then(|n| core.waiters.get_mut(n)) {
        newer.older = waiter.older;
    }
    if let Some(older) = waiter.older.and_then(|o| core.waiters.get_mut(o)) {
        older.newer = waiter.newer;
    }
    let shard = core.shard;
    if let Some(runtime) = core.cluster_mut(waiter.cluster) {
        let list = &mut runtime.queue;
        if list.oldest == Some(id) {
            list.oldest = waiter.newer;
        }
        if list.newest == Some(id) {
            list.newest = waiter.older;
        }
        let last = list.oldest.is_none();
        runtime.state.shared().end_wait(shard, waiter.eager, last);
    }
    let waited = core.now().since(waiter.since) / 1000;
    core.stats.queued.set(u64::from(core.waiters.len()));
    core.stats.queue_waits.add(1);
    core.stats.queue_us.add(waited);
    if let Some(counts) = core.of_cluster(waiter.cluster) {
        counts.cluster.queue_waits.add(1);
        counts.cluster.queue_us.add(waited);
    }
    waited
}

/// A place may be free at a cluster, or somebody began to wait: it is looked at when the turn ends.
pub fn stir(core: &mut Core, cluster: ClusterId) {
    if let Some(Some(runtime)) = core.clusters.get_mut(usize::from(cluster.0))
        && !std::mem::replace(&mut runtime.queue.stirred, true)
    {
        core.stirred.push(cluster);
    }
}

/// Takes a cluster that was stirred.
pub fn take_stirred(core: &mut Core) -> Option<ClusterId> {
    let cluster = core.stirred.pop()?;
    if let Some(runtime) = core.cluster_mut(cluster) {
        runtime.queue.stirred = false;
    }
    Some(cluster)
}

/// A place at an endpoint became free: those who wait anywhere are told when the turn ends.
fn freed(core: &mut Core, cluster: ClusterId, endpoint: EndpointId) {
    let Some(runtime) = core.cluster_mut(cluster) else { return };
    if runtime.state.is_limited(endpoint) {
        runtime.state.shared().meet();
        if runtime.state.shared().has_waiters() {
            stir(core, cluster);
        }
    }
}

/// The request that was counted on an endpoint by `pick` is over.
pub fn end_request(core: &mut Core, cluster: ClusterId, endpoint: EndpointId) {
    if let Some(runtime) = core.cluster_mut(cluster) {
        runtime.state.end_request(endpoint);
        freed(core, cluster, endpoint);
    }
}

/// The link that was counted on an endpoint is closed.
pub fn close_link(core: &mut Core, cluster: ClusterId, endpoint: EndpointId) {
    if let Some(runtime) = core.cluster_mut(cluster) {
        runtime.state.close_link(endpoint);
        freed(core, cluster, endpoint);
    }
}

/// A link was put to wait idle.
pub(super) fn parked(core: &mut Core, cluster: ClusterId, endpoint: EndpointId) {
    freed(core, cluster, endpoint);
}

/// Whether a link to an endpoint at its limit is to be closed rather than kept, because it is another shard's turn to have
/// its place.
pub(super) fn yields(core: &mut Core, id: Id<Link>) -> bool {
    let shard = core.shard;
    let Some(link) = core.links.get(id) else { return false };
    let (cluster, endpoint, requests) = (link.cluster, link.endpoint, link.requests);
    let Some(runtime) = core.cluster_mut(cluster) else { return false };
    if !runtime.state.is_limited(endpoint) || !runtime.state.is_at_link_limit(endpoint) {
        return false;
    }
    runtime.state.shared().meet();
    match runtime.state.shared().next_waiting() {
        None => false,
        Some(next) if next == shard => false,
        Some(_) if !runtime.queue.is_empty() && !requests.is_multiple_of(limits::QUEUE_RUN) => {
            runtime.queue.run = true;
            false
        }
        Some(_) => true,
    }
}
