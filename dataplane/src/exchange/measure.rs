//! What an exchange that is over adds to the counts of its listener, route and cluster.

use super::{Exchange, record};
use crate::core::Core;
use crate::spec::ListenerId;
use crate::stats::timings::Phase;
use crate::table::Id;

/// Counts an exchange that is over.
pub fn ended(core: &Core, id: Id<Exchange>) {
    let Some((x, listener)) = of(core, id) else { return };
    let timings = record::timings(x, core.now());
    let counts = (core.of_listener(listener), x.cluster.and_then(|cluster| core.of_cluster(cluster)));
    if let Some(listener) = counts.0 {
        listener.traffic.answered(x.status);
        listener.traffic.carried(x.up_bytes, x.down_bytes);
        listener.latency.record(&timings);
        listener.latency.total.record(timings.total_us);
    }
    if let Some(route) = x.route.and_then(|route| core.of_route(route)) {
        route.traffic.answered(x.status);
        route.traffic.carried(x.up_bytes, x.down_bytes);
    }
    if let Some(cluster) = counts.1.map(|counts| &counts.cluster) {
        cluster.traffic.answered(x.status);
        cluster.traffic.carried(x.up_bytes, x.down_bytes);
        cluster.latency.record(&timings);
        cluster.latency.total.record(timings.total_us);
    }
}

/// Counts an exchange that becomes a tunnel, whose time has only begun.
pub fn upgraded(core: &Core, id: Id<Exchange>) {
    let Some((x, listener)) = of(core, id) else { return };
    let mut timings = record::timings(x, core.now());
    timings.unset(Phase::Transfer);
    if let Some(listener) = core.of_listener(listener) {
        listener.traffic.answered(x.status);
        listener.latency.record(&timings);
    }
    if let Some(route) = x.route.and_then(|route| core.of_route(route)) {
        route.traffic.answered(x.status);
    }
    if let Some(counts) = x.cluster.and_then(|cluster| core.of_cluster(cluster)) {
        counts.cluster.traffic.answered(x.status);
        counts.cluster.latency.record(&timings);
    }
}

fn of(core: &Core, id: Id<Exchange>) -> Option<(&Exchange, ListenerId)> {
    let x = core.exchanges.get(id)?;
    Some((x, core.conns.get(x.conn)?.listener))
}
