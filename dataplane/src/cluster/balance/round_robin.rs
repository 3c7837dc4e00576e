//! Smooth weighted round robin: pick number n of all shards is turn n of the cycle.

use super::cycle::Cycle;
use super::{Balancer, Hint, Policy, View};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "round_robin",
    doc: "Each endpoint in its turn, by weight, spread evenly; exact over all shards.",
    build: |cluster, _seed| Box::new(RoundRobin { cycle: Cycle::new(cluster) }),
};

/// Turns searched for an eligible endpoint, per endpoint of the cluster, before any eligible one will do.
const SEARCH: usize = 4;

#[derive(Debug)]
struct RoundRobin {
    cycle: Cycle,
}

impl Balancer for RoundRobin {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        // An endpoint that may not be used gives its turn to the next in the cycle. A long cycle is not searched to its
        // end: that would make the picks of a large cluster dearest when it is full.
        let ticket = if self.cycle.is_one() { 0 } else { view.take_ticket() };
        let turns = self.cycle.from(ticket).take(SEARCH * view.len());
        let mut turns = turns.filter(|&id| view.eligible(id));
        turns.next().or_else(|| view.first_from(0))
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        self.cycle = Cycle::new(cluster);
    }
    fn on_usable_changed(&mut self, _cluster: &Cluster, usable: &Usable) {
        self.cycle.keep(usable);
    }
}
