//! Least connections: the endpoint with the fewest running requests for its weight, over all shards.
//!
//! Ties go to whose turn it is in the round robin's cycle, so that an idle cluster is used evenly and by weight. A pick
//! looks at every endpoint: for clusters of thousands, `random` is the cheaper choice and nearly as even.

use super::cycle::Cycle;
use super::{Balancer, Hint, Policy, View};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "least_connections",
    doc: "The endpoint with the fewest running requests for its weight; ties in turn.",
    build: |cluster, _seed| Box::new(LeastConnections { cycle: Cycle::new(cluster) }),
};

#[derive(Debug)]
struct LeastConnections {
    cycle: Cycle,
}

impl Balancer for LeastConnections {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        let start = self.cycle.at(view.take_ticket())?;
        let mut best: Option<EndpointId> = None;
        for id in view.round_from(usize::from(start.0)) {
            if view.eligible(id) && best.is_none_or(|best| view.less_busy(id, best)) {
                best = Some(id);
            }
        }
        best
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        self.cycle = Cycle::new(cluster);
    }
    fn on_usable_changed(&mut self, _cluster: &Cluster, usable: &Usable) {
        self.cycle.keep(usable);
    }
}
