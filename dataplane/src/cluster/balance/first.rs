//! First: requests fill the endpoints in the order of the configuration, so that the last of them stay idle, or can be off.
//!
//! Of few endpoints every pick looks at each. Of many it begins behind those in front that were full when it last looked: it
//! goes back to one at which a request of this shard ended, and all of it is looked at anew now and then, for the places that
//! other shards freed.

use super::{Balancer, Hint, Policy, View};
use crate::cluster::usable::Usable;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "first",
    doc: "The first endpoint, in the order of the list, that is below its limits; weights other than 0 do not matter.",
    build: |cluster, _seed| Box::new(First::new(cluster)),
};

/// Up to so many endpoints are looked at for every pick.
const FEW: usize = 16;
/// Picks from one look at all of them to the next, for as many endpoints.
const PICKS_PER_ENDPOINT: usize = 8;

#[derive(Debug)]
struct First {
    /// In their order.
    usable: Vec<EndpointId>,
    /// Where to begin: those of `usable` before it were full.
    from: usize,
    /// Picks until all are looked at.
    left: usize,
}

impl First {
    fn new(cluster: &Cluster) -> Self {
        Self { usable: cluster.endpoints.iter().map(|endpoint| endpoint.id).collect(), from: 0, left: 0 }
    }
}

impl Balancer for First {
    fn pick(&mut self, view: &View<'_>, _hint: Hint) -> Option<EndpointId> {
        if self.left == 0 || self.usable.len() <= FEW {
            (self.from, self.left) = (0, self.usable.len() / PICKS_PER_ENDPOINT);
        } else {
            self.left -= 1;
        }
        let mut full = true;
        for &id in self.usable.get(self.from..)? {
            if view.eligible(id) {
                return Some(id);
            }
            // What this request tried is there for the next one.
            full &= !view.tried.contains(id);
            self.from += usize::from(full);
        }
        None
    }
    fn on_end(&mut self, id: EndpointId, _left: u32) {
        if self.usable.get(self.from).is_none_or(|&at| id < at) {
            self.from = self.usable.partition_point(|&at| at < id).min(self.from);
        }
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        *self = Self::new(cluster);
    }
    fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable) {
        self.usable.clear();
        let ids = cluster.endpoints.iter().map(|endpoint| endpoint.id);
        self.usable.extend(ids.filter(|id| usable.contains(*id)));
        (self.from, self.left) = (0, 0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::shared::SharedCluster;
    use crate::cluster::{ClusterState, PickError, Tried, test_cluster};
    use std::sync::Arc;

    /// Two shards of a hundred endpoints with room for two requests each.
    fn shards() -> [ClusterState; 2] {
        let mut cluster = test_cluster(&[1; 100]);
        cluster.balance = "first";
        cluster.endpoints.iter_mut().for_each(|endpoint| endpoint.max_requests = 2);
        let (cluster, shared) = (Arc::new(cluster), Arc::new(SharedCluster::new(100, 2)));
        [0, 1].map(|shard| ClusterState::new(cluster.clone(), shared.clone(), shard, 0))
    }

    fn pick(state: &mut ClusterState) -> Result<u16, PickError> {
        state.pick(&Tried::NONE, Hint::default()).map(|id| id.0)
    }

    #[test]
    fn a_place_that_this_shard_freed_is_next_and_another_shards_soon() {
        let [mut one, mut two] = shards();
        let picks: Vec<_> = (0..160).map(|_| pick(&mut one).unwrap()).collect();
        assert!(picks.iter().zip(0u16..).all(|(id, n)| *id == n / 2), "{picks:?}");
        one.end_request(EndpointId(70));
        one.end_request(EndpointId(3));
        assert_eq!([pick(&mut one), pick(&mut one), pick(&mut one)], [Ok(3), Ok(70), Ok(80)]);
        assert_eq!(pick(&mut two), Ok(80));
        // Freed elsewhere: seen after so many picks at the latest.
        two.end_request(EndpointId(5));
        let next: Vec<_> = (0..13).map(|_| pick(&mut one).unwrap()).collect();
        assert_eq!(next.iter().filter(|id| **id == 5).count(), 1, "{next:?}");
    }

    #[test]
    fn what_a_request_tried_is_there_for_the_next() {
        let [mut one, _] = shards();
        assert_eq!(pick(&mut one), Ok(0));
        let mut tried = Tried::default();
        assert!(tried.add(EndpointId(0)));
        assert_eq!(one.pick(&tried, Hint::default()), Ok(EndpointId(1)));
        assert_eq!(pick(&mut one), Ok(0));
    }

    #[test]
    fn the_last_place_of_all_is_found_whoever_freed_it() {
        let [mut one, mut two] = shards();
        (0..200).for_each(|n| assert_eq!(pick(&mut one), Ok(n / 2)));
        assert_eq!(pick(&mut one), Err(PickError::Full));
        two.end_request(EndpointId(7));
        assert_eq!((pick(&mut one), pick(&mut one)), (Ok(7), Err(PickError::Full)));
    }
}
