//! Idle links: waiting for the next exchange, newest first, bounded per cluster.
//!
//! An idle link keeps its recv armed. Whatever completes it (FIN, reset, unsolicited bytes) discards the link, so a
//! response that nobody asked for can never reach the next request (invariant 19; threat F22).

use super::{Link, Owner, Phase, arm_recv, close, queue, settle};
use crate::core::Core;
use crate::io::{Expect, Io, Kind, Mono};
use crate::limits;
use crate::spec::{ClusterId, EndpointId};
use crate::table::Id;

/// The idle links of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdleList {
    newest: Option<Id<Link>>,
    oldest: Option<Id<Link>>,
}

/// Takes the newest idle link to an endpoint, if there is one.
pub fn take(core: &mut Core, cluster: ClusterId, endpoint: EndpointId) -> Option<Id<Link>> {
    let id = core.cluster_mut(cluster)?.idle.get(usize::from(endpoint.0))?.newest?;
    unlist(core, id);
    let link = core.links.get_mut(id)?;
    link.enter(Phase::Leased);
    link.deadlines.read_by = Mono::MAX;
    link.requests += 1;
    link.wrote = false;
    Some(id)
}

/// Puts a leased link back to wait, or closes it where the pool is full. The caller checked that it is reusable.
pub fn put(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let now = core.clock.mono;
    let draining = core.draining;
    let Some(link) = core.links.get(id) else { return };
    let (cluster, endpoint, requests) = (link.cluster, link.endpoint, link.requests);
    let private = link.private;
    let Some(runtime) = core.cluster_mut(cluster) else { return close(core, io, id) };
    // It begins with the PROXY header of one client, or should.
    let private = private || runtime.state.spec().send_proxy.is_some();
    let yields = !private && queue::yields(core, id);
    let Some(runtime) = core.cluster_mut(cluster) else { return close(core, io, id) };
    let spec = runtime.state.spec().pool;
    let worn = u64::from(requests) >= spec.requests_per_connection;
    let unwanted = !runtime.state.keeps_links(endpoint);
    if draining || private || worn || yields || unwanted || !runtime.state.park_link(endpoint) {
        return close(core, io, id);
    }
    let Some(list) = runtime.idle.get_mut(usize::from(endpoint.0)) else { return close(core, io, id) };
    let older = list.newest.replace(id);
    if list.oldest.is_none() {
        list.oldest = Some(id);
    }
    if let Some(neighbour) = older.and_then(|o| core.links.get_mut(o)) {
        neighbour.newer = Some(id);
    }
    if let Some(link) = core.links.get_mut(id) {
        link.enter(Phase::Idle);
        link.owner = Owner::None;
        link.older = older;
        link.newer = None;
        link.deadlines.read_by = now.after(spec.idle_timeout);
    }
    arm_recv(core, io, id, Expect::Later);
    settle(core, id);
    queue::parked(core, cluster, endpoint);
}

/// Takes a link out of its endpoint's idle list.
pub(super) fn unlist(core: &mut Core, id: Id<Link>) {
    let Some(link) = core.links.get_mut(id) else { return };
    let (cluster, endpoint) = (link.cluster, link.endpoint);
    let (newer, older) = (link.newer.take(), link.older.take());
    if let Some(link) = newer.and_then(|n| core.links.get_mut(n)) {
        link.older = older;
    }
    if let Some(link) = older.and_then(|o| core.links.get_mut(o)) {
        link.newer = newer;
    }
    let Some(runtime) = core.cluster_mut(cluster) else { return };
    runtime.state.unpark_link(endpoint);
    if let Some(list) = runtime.idle.get_mut(usize::from(endpoint.0)) {
        if newer.is_none() {
            list.newest = older;
        }
        if older.is_none() {
            list.oldest = newer;
        }
    }
}

/// Closes the link of a cluster that has waited longest, to make room or to free a descriptor.
pub fn close_oldest(core: &mut Core, io: &mut impl Io, cluster: ClusterId) -> bool {
    let Some(runtime) = core.cluster_mut(cluster) else { return false };
    let Some(id) = runtime.idle.iter().find_map(|list| list.oldest) else { return false };
    close(core, io, id);
    true
}

/// Closes the link to one endpoint that has waited longest, so that another has its place; false where none waits.
pub fn close_oldest_to(core: &mut Core, io: &mut impl Io, cluster: ClusterId, endpoint: EndpointId) -> bool {
    let list = core.cluster_mut(cluster).and_then(|runtime| runtime.idle.get(usize::from(endpoint.0)));
    let Some(id) = list.and_then(|list| list.oldest) else { return false };
    close(core, io, id);
    true
}

/// Closes the idle links of a cluster to which no request may be sent now.
pub fn close_unwanted(core: &mut Core, io: &mut impl Io, cluster: ClusterId) {
    let mut from = 0;
    loop {
        let Some(runtime) = core.cluster_mut(cluster) else { return };
        let (state, lists) = (&runtime.state, runtime.idle.iter().zip(0u16..).skip(usize::from(from)));
        let mut with_links = lists.filter(|(list, _)| list.oldest.is_some());
        let Some((_, id)) = with_links.find(|(_, id)| !state.keeps_links(EndpointId(*id))) else { return };
        while close_oldest_to(core, io, cluster, EndpointId(id)) {}
        from = id + 1;
    }
}

/// Closes a few idle links of each cluster: descriptors have run out.
pub fn close_some(core: &mut Core, io: &mut impl Io) {
    for index in (0u16..).take(core.clusters.len()) {
        for _ in 0..limits::RELIEF_LINKS {
            if !close_oldest(core, io, ClusterId(index)) {
                break;
            }
        }
    }
}

/// Closes every idle link of every cluster.
pub fn close_all(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.clusters.len() {
        let Ok(index) = u16::try_from(index) else { return };
        while close_oldest(core, io, ClusterId(index)) {}
    }
}

/// The deadline of an idle link came.
pub fn on_timer(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    let now = core.clock.mono;
    match core.links.get(id) {
        Some(link) if link.deadlines.read_by <= now => {
            core.stats.link_idle_timeouts.add(1);
            close(core, io, id);
        }
        Some(_) => settle(core, id),
        None => {}
    }
}

/// Something completed the recv of an idle link: never good, never lost.
pub fn on_recv_while_idle(core: &mut Core, io: &mut impl Io, id: Id<Link>) {
    core.stats.links_discarded_idle.add(1);
    debug_assert!(
        core.links.get(id).is_some_and(|l| !l.stream.is_receiving()),
        "{:?}",
        id.token(Kind::LinkRecv)
    );
    close(core, io, id);
}
