//! Least connections: the endpoint with the fewest running requests for its weight, over all shards.
//!
//! A cluster of a few endpoints is looked at whole for each pick, so the least is the least of all at that moment; ties go
//! to whose turn it is in the round robin's cycle, so that an idle cluster is used evenly and by weight. Of more endpoints
//! each shard keeps the loads as it last saw them (`seen`), and a pick reads three of them anew: the least, which must
//! still be as low as it was seen, and two in turn. A shard knows of the ends of its own requests at once. So one shard is
//! exact; of several, each learns what ended elsewhere within half as many picks as there are endpoints, and never takes
//! an endpoint that has more to do than another that it knows of.

use super::cycle::Cycle;
use super::seen::Seen;
use super::{Balancer, Hint, Policy, View, endpoint_id};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "least_connections",
    doc: "The endpoint with the fewest running requests for its weight; ties in turn.",
    build: |cluster, seed| Box::new(LeastConnections::of(cluster, seed)),
};

/// Endpoints that each pick looks at whole.
pub(super) const FEW: usize = 16;
/// Endpoints that a pick of many reads anew, in turn.
const REFRESHED: usize = 2;
/// Endpoints that a pick of many looks at, because others took them or they may not be used, before the best of them will
/// do.
const LOOKS: usize = 16;

#[derive(Debug)]
struct LeastConnections {
    weights: Box<[u32]>,
    seed: u64,
    loads: Loads,
}

#[derive(Debug)]
enum Loads {
    Few(Cycle),
    /// And the endpoint that is read anew next.
    Many(Seen, usize),
}

impl LeastConnections {
    fn of(cluster: &Cluster, seed: u64) -> Self {
        let weights: Box<[u32]> = cluster.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let loads = if weights.len() <= FEW {
            Loads::Few(Cycle::new(cluster))
        } else {
            Loads::Many(Seen::new(&weights, seed), 0)
        };
        Self { weights, seed, loads }
    }
}

impl Balancer for LeastConnections {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        match &mut self.loads {
            Loads::Few(cycle) => least_of_all(&self.weights, cycle.at(view.take_ticket())?, view),
            Loads::Many(seen, next) => {
                refresh(seen, next, view);
                least_seen(seen, view).or_else(|| view.first_from(*next))
            }
        }
    }
    fn on_end(&mut self, id: EndpointId, running: u32) {
        if let Loads::Many(seen, _) = &mut self.loads {
            seen.see(id, running);
        }
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        *self = Self::of(cluster, self.seed);
    }
    fn on_usable_changed(&mut self, _cluster: &Cluster, usable: &Usable) {
        match &mut self.loads {
            Loads::Few(cycle) => cycle.keep(usable),
            Loads::Many(seen, _) => {
                for id in (0..seen.len()).map(endpoint_id) {
                    if usable.contains(id) { seen.put_back(id) } else { seen.put_aside(id) }
                }
            }
        }
    }
}

/// The least of every endpoint, from `start` on. Only one that is less busy than the best so far is asked whether it may.
fn least_of_all(weights: &[u32], start: EndpointId, view: &View<'_>) -> Option<EndpointId> {
    let mut best: Option<(EndpointId, u64, u64)> = None;
    for id in view.round_from(usize::from(start.0)) {
        let weight = u64::from(weights.get(usize::from(id.0)).copied().unwrap_or(0));
        let running = u64::from(view.running(id));
        let less = best.is_none_or(|(_, best, of)| running * of < best * weight);
        if weight > 0 && less && view.eligible(id) {
            best = Some((id, running, weight));
        }
    }
    best.map(|(id, ..)| id)
}

/// Reads the loads of the next few endpoints anew.
fn refresh(seen: &mut Seen, next: &mut usize, view: &View<'_>) {
    for _ in 0..REFRESHED {
        let id = endpoint_id(*next);
        *next = if *next + 1 < seen.len() { *next + 1 } else { 0 };
        // One that was tried by this request may be used by the next.
        if view.eligible(id) || view.tried.contains(id) {
            seen.see(id, view.running(id));
        } else {
            seen.put_aside(id);
        }
    }
}

fn least_seen(seen: &mut Seen, view: &View<'_>) -> Option<EndpointId> {
    let mut best: Option<EndpointId> = None;
    let mut found = None;
    for _ in 0..LOOKS {
        let Some(id) = seen.least() else { break };
        if !view.eligible(id) {
            seen.put_aside(id);
            continue;
        }
        let running = view.running(id);
        if !seen.is_more(id, running) {
            found = Some(id);
            break;
        }
        seen.see(id, running);
        if best.is_none_or(|best| view.less_busy(id, best)) {
            best = Some(id);
        }
    }
    view.tried.iter().for_each(|id| seen.see(id, view.running(id)));
    let id = found.or(best)?;
    seen.take(id, view.running(id));
    Some(id)
}
