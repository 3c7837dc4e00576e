//! Draws of endpoints by weight, for the policies that compare two of them.

use super::{View, endpoint_id};
use crate::cluster::usable::Usable;
use crate::mix::mix;
use crate::spec::{Cluster, EndpointId};

/// Draws that may meet an ineligible endpoint before the rest are searched in order.
const DRAWS: u32 = 8;

#[derive(Debug)]
pub(super) struct Draw {
    /// Endpoint i owns the numbers from the end before it up to `ends[i]`: as many as its weight, none if it is not usable.
    ends: Box<[u64]>,
    state: u64,
}

impl Draw {
    pub(super) fn new(cluster: &Cluster, seed: u64) -> Self {
        Self { ends: ends(cluster, |_| true), state: seed }
    }

    pub(super) fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        self.ends = ends(cluster, |_| true);
    }

    pub(super) fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable) {
        self.ends = ends(cluster, |id| usable.contains(id));
    }

    /// Two different eligible endpoints; one where no other is found.
    pub(super) fn two(&mut self, view: &View<'_>) -> Option<(EndpointId, Option<EndpointId>)> {
        let first = self.one(view, None)?;
        Some((first, self.one(view, Some(first))))
    }

    /// An eligible endpoint by weight, other than `not`.
    fn one(&mut self, view: &View<'_>, not: Option<EndpointId>) -> Option<EndpointId> {
        // The numbers of `not` are left out, so that every draw is of another endpoint.
        let (from, weight) = not.map_or((0, 0), |id| {
            let at = usize::from(id.0);
            let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            (from, self.ends[at] - from)
        });
        let total = self.ends.last()? - weight;
        if total == 0 {
            return None;
        }
        let mut drawn = EndpointId(0);
        for _ in 0..DRAWS {
            let number = self.below(total);
            drawn = self.owner(if number < from { number } else { number + weight });
            if view.eligible(drawn) {
                return Some(drawn);
            }
        }
        view.first_from(usize::from(drawn.0)).filter(|&id| Some(id) != not)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), scaled to below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The high half of the product is below `bound`.
        ((u128::from(mix(self.state)) * u128::from(bound)) >> 64) as u64
    }

    /// The endpoint that owns a number.
    fn owner(&self, number: u64) -> EndpointId {
        endpoint_id(self.ends.partition_point(|&end| end <= number))
    }
}

fn ends(cluster: &Cluster, usable: impl Fn(EndpointId) -> bool) -> Box<[u64]> {
    let mut total = 0;
    cluster
        .endpoints
        .iter()
        .map(|endpoint| {
            total += if usable(endpoint.id) { u64::from(endpoint.weight) } else { 0 };
            total
        })
        .collect()
}
