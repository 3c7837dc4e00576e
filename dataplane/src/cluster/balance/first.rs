//! First: requests fill the endpoints in the order of the configuration, so that the last of them stay idle, or can be off.

use super::{Balancer, Hint, Policy, View};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "first",
    doc: "The first endpoint, in the order of the list, that is below its limits; weights other than 0 do not matter.",
    build: |_cluster, _seed| Box::new(First),
};

#[derive(Debug)]
struct First;

impl Balancer for First {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        view.first_from(0)
    }
    fn on_endpoints_changed(&mut self, _cluster: &Cluster) {}
    fn on_usable_changed(&mut self, _cluster: &Cluster, _usable: &Usable) {}
}
