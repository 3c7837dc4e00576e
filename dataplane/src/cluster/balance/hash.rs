//! Consistent hashing over a Maglev table: one key, one endpoint, on every shard and in every process.
//!
//! The table is of all endpoints, usable or not. A key whose endpoint may not be used is hashed on until one may, so that an
//! endpoint which is down moves its own keys and no others, evenly over the rest. With `bounded_load` an endpoint that has
//! its share of all running requests is passed over likewise (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with
//! Bounded Loads", 2016): no endpoint has more than that share, and only keys of busy endpoints move.

use super::{Balancer, Hint, Policy, View, maglev};
use crate::cluster::usable::Usable;
use crate::limits::HASH_PROBES;
use crate::mix::mix;
use crate::spec::{Cluster, EndpointId};
use std::sync::Arc;

pub(super) const POLICY: Policy = Policy {
    name: "hash",
    doc: "The endpoint that a hash leads to, by weight: of the client's address, or what `on` says.",
    build: |cluster, _seed| Box::new(Hash::new(cluster)),
};

#[derive(Debug)]
struct Hash {
    table: Arc<[EndpointId]>,
    /// Percent of its share that an endpoint may have; `u32::MAX` is no bound.
    bound: u32,
    /// Of the usable endpoints, which share the load.
    weight: u64,
}

impl Hash {
    fn new(cluster: &Cluster) -> Self {
        let hash = cluster.hash.as_ref();
        Self {
            table: hash.map_or_else(|| maglev::table(&cluster.endpoints), |hash| Arc::clone(&hash.table)),
            bound: hash.map_or(u32::MAX, |hash| hash.bounded_load),
            weight: cluster.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum(),
        }
    }

    /// Whether one more request leaves the endpoint within its share of all that would then run.
    fn is_within(&self, view: &View<'_>, id: EndpointId) -> bool {
        if self.bound == u32::MAX {
            return true;
        }
        let share =
            u64::from(self.bound) * (u64::from(view.shared.running()) + 1) * u64::from(view.weight(id));
        u64::from(view.running(id)) * 100 * self.weight < share
    }
}

impl Balancer for Hash {
    fn pick(&mut self, view: &View<'_>, hint: Hint) -> Option<EndpointId> {
        let mut key = hint.key;
        let mut busy = None;
        for _ in 0..HASH_PROBES {
            let id = *self.table.get(scale(key, self.table.len()))?;
            if view.eligible(id) {
                if self.is_within(view, id) {
                    return Some(id);
                }
                busy = busy.or(Some(id));
            }
            key = next(key);
        }
        // Nearly all are down or at a limit. Whoever is left will do, the same one for the same key.
        busy.or_else(|| view.first_from(scale(hint.key, view.len())))
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        *self = Self::new(cluster);
    }
    fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable) {
        let chosen = cluster.endpoints.iter().filter(|endpoint| usable.contains(endpoint.id));
        self.weight = chosen.map(|endpoint| u64::from(endpoint.weight)).sum();
    }
}

/// A key as a number below `bound`: the high half of the product.
fn scale(key: u64, bound: usize) -> usize {
    usize::try_from((u128::from(key) * bound as u128) >> 64).unwrap_or(0)
}

/// The hash after this one: SplitMix64 (Steele, Lea, Flood 2014).
fn next(key: u64) -> u64 {
    mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::shared::SharedCluster;
    use crate::cluster::{ClusterState, PickError, Tried, test_cluster};
    use crate::spec::{self, HashOn};

    const KEYS: u64 = 10_000;

    fn hint(key: u64) -> Hint {
        Hint { key: next(key), ..Hint::default() }
    }

    fn bounded(weights: &[u32], bounded_load: u32) -> Cluster {
        let mut cluster = test_cluster(weights);
        let table = maglev::table(&cluster.endpoints);
        cluster.balance = "hash";
        cluster.hash = Some(spec::Hash { on: HashOn::Source, bounded_load, table });
        cluster
    }

    fn shards(cluster: Cluster, count: u16) -> Vec<ClusterState> {
        let shared = Arc::new(SharedCluster::new(cluster.endpoints.len(), count));
        let cluster = Arc::new(cluster);
        (0..count).map(|n| ClusterState::new(cluster.clone(), shared.clone(), n, u64::from(n))).collect()
    }

    /// Where each key goes, one after the other.
    fn places(state: &mut ClusterState, tried: &Tried) -> Vec<EndpointId> {
        let place = |key| {
            let id = state.pick(tried, hint(key)).expect("none is full");
            state.end_request(id);
            id
        };
        (0..KEYS).map(place).collect()
    }

    #[test]
    fn a_key_has_its_endpoint_on_every_shard_and_shares_follow_weights() {
        let mut shards = shards(bounded(&[1, 2, 0, 1], u32::MAX), 3);
        let all: Vec<_> = shards.iter_mut().map(|shard| places(shard, &Tried::NONE)).collect();
        assert!(all[0] == all[1] && all[1] == all[2]);
        for (at, weight) in [(0, 1), (1, 2), (2, 0), (3, 1)] {
            let share = all[0].iter().filter(|id| id.0 == at).count() as u64;
            assert!(share.abs_diff(KEYS * weight / 4) <= KEYS / 50, "{at}: {share}");
        }
    }

    /// Five of them: what leaves is shared by the other four.
    #[test]
    fn an_endpoint_that_may_not_be_used_moves_its_own_keys_only() {
        let state = &mut shards(bounded(&[1; 5], u32::MAX), 1)[0];
        let before = places(state, &Tried::NONE);
        let mut tried = Tried::NONE;
        tried.add(EndpointId(3));
        let after = places(state, &tried);
        let mut moved = [0u64; 5];
        for (before, after) in before.iter().zip(&after) {
            if before.0 == 3 {
                moved[usize::from(after.0)] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(moved[3] == 0 && [0, 1, 2, 4].iter().all(|&at| moved[at].abs_diff(KEYS / 20) < KEYS / 100));
    }

    /// Every request has the same key: without a bound one endpoint takes them all.
    #[test]
    fn the_load_of_a_hot_key_is_bounded() {
        let loads = |bounded_load: u32| {
            let mut shards = shards(bounded(&[1, 1, 2], bounded_load), 2);
            for n in 0..400 {
                shards[n % 2].pick(&Tried::NONE, hint(7)).unwrap();
            }
            [0, 1, 2].map(|at| shards[0].shared().endpoint(EndpointId(at)).unwrap().running_requests())
        };
        let free = loads(u32::MAX);
        assert!(free.contains(&400), "{free:?}");
        assert_eq!(loads(100), [100, 100, 200], "the least bound is an even load");
        let half = loads(150);
        let most = [150, 150, 300];
        assert!(half.iter().zip(most).all(|(load, most)| *load <= most), "{half:?}");
        assert!(half.iter().zip(most).any(|(load, most)| *load == most), "{half:?}");
    }

    /// Counted where it is bounded, and given back.
    #[test]
    fn what_runs_at_the_cluster_is_what_runs_at_its_endpoints() {
        let mut cluster = bounded(&[1, 1], 125);
        cluster.endpoints.iter_mut().for_each(|endpoint| endpoint.max_requests = 3);
        let state = &mut shards(cluster, 1)[0];
        let ids: Vec<_> = (0..6).map(|n| state.pick(&Tried::NONE, hint(n)).unwrap()).collect();
        assert_eq!(state.pick(&Tried::NONE, hint(9)), Err(PickError::Full));
        assert_eq!(state.shared().running(), 6);
        ids.into_iter().for_each(|id| state.end_request(id));
        assert_eq!(state.shared().running(), 0);
    }

    /// One of 200 is left: found, whatever the key.
    #[test]
    fn the_last_one_left_is_found() {
        let mut weights = vec![1; 200];
        let mut cluster = bounded(&weights, u32::MAX);
        weights.fill(0);
        cluster
            .endpoints
            .iter_mut()
            .for_each(|endpoint| endpoint.max_requests = u32::from(endpoint.id.0 == 9));
        let state = &mut shards(cluster, 1)[0];
        assert!(places(state, &Tried::NONE).iter().all(|id| id.0 == 9));
    }
}
