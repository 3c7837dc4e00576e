//! Random, the better of two draws (Mitzenmacher, "The power of two choices", 2001): weighted draws, the less busy wins.

use super::draw::Draw;
use super::{Balancer, Hint, Policy, View};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "random",
    doc: "Two different endpoints are drawn by weight; the one with fewer running requests for its weight takes it.",
    build: |cluster, seed| Box::new(Random(Draw::new(cluster, seed))),
};

#[derive(Debug)]
struct Random(Draw);

impl Balancer for Random {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        let (first, second) = self.0.two(view)?;
        Some(second.filter(|&second| view.less_busy(second, first)).unwrap_or(first))
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        self.0.on_endpoints_changed(cluster);
    }
    fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable) {
        self.0.on_usable_changed(cluster, usable);
    }
}
