//! The order in which weighted endpoints take turns: one whole cycle, computed once, as smooth as whole turns can be.
//!
//! In a cycle of S turns, turn k of an endpoint of weight w may come from time k S/w on and is due by (k+1) S/w; of the
//! turns that may come, the one due first does (Bennett and Zhang, "WF2Q", 1996). So after any number of picks no
//! endpoint is more than one turn off its share. A table lets any shard read pick number n by itself: whoever asks, the
//! n-th pick of all is the n-th of the cycle.
//!
//! While some endpoints are not usable their turns are left out, which keeps the shares of the others exact over what is
//! left of the cycle, and costs one pass over it.

use super::endpoint_id;
use crate::cluster::usable::Usable;
use crate::limits::ROUND_ROBIN_CYCLE;
use crate::spec::{Cluster, Endpoint, EndpointId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// One cycle of turns; empty if no endpoint has weight, or none of those that have is usable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Without the turns of those that are not usable.
    turns: Arc<[EndpointId]>,
    whole: Arc<[EndpointId]>,
}

/// The turns of these endpoints, at most [`ROUND_ROBIN_CYCLE`]. Takes up to a few hundred milliseconds where they are that many:
/// off the path.
pub fn table(endpoints: &[Endpoint]) -> Arc<[EndpointId]> {
    let weights: Vec<u64> = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).collect();
    turns_of(&weights)
}

impl Cycle {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let whole = cluster.cycle.as_ref().map_or_else(|| table(&cluster.endpoints), Arc::clone);
        Self { turns: Arc::clone(&whole), whole }
    }

    /// Leaves out the turns of endpoints that are not usable, and takes those that are back in.
    pub(super) fn keep(&mut self, usable: &Usable) {
        let is_left = |id: &EndpointId| usable.contains(*id);
        let all = self.whole.iter().all(is_left);
        self.turns = match all {
            true => Arc::clone(&self.whole),
            false => self.whole.iter().copied().filter(is_left).collect(),
        };
    }

    /// Whether every turn is the same endpoint's, so that nobody need know which number a pick has.
    pub(super) fn is_one(&self) -> bool {
        self.turns.len() == 1
    }

    /// Whose turn pick number `ticket` is; `None` if no endpoint has weight.
    pub(super) fn at(&self, ticket: u64) -> Option<EndpointId> {
        self.from(ticket).next()
    }

    /// Whose turn it is from pick number `ticket` on, for one cycle.
    pub(super) fn from(&self, ticket: u64) -> impl Iterator<Item = EndpointId> + '_ {
        let turns = &self.turns;
        let start =
            ticket.checked_rem(turns.len() as u64).and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
        let (before, after) = turns.split_at(start);
        after.iter().chain(before).copied()
    }
}

fn turns_of(weights: &[u64]) -> Arc<[EndpointId]> {
    let weights = reduce(weights);
    let turns: u64 = weights.iter().sum();
    let from = |at: usize, turn: u64| (turn * turns).div_ceil(weights[at]);
    // With 20 bits of fraction: of weights up to 256, different times differ by 2^-16 at least.
    let due = |at: usize, turn: u64| (((turn + 1) * turns) << 20) / weights[at];
    // Both heaps hold (when, endpoint, its turn); the least comes first.
    let mut waiting: BinaryHeap<_> =
        (0..weights.len()).filter(|&at| weights[at] > 0).map(|at| Reverse((0, at, 0))).collect();
    let mut ready = BinaryHeap::with_capacity(waiting.len());
    let mut cycle = Vec::with_capacity(usize::try_from(turns).unwrap_or(0));
    for now in 0..turns {
        while let Some(&Reverse((when, at, turn))) = waiting.peek()
            && when <= now
        {
            waiting.pop();
            ready.push(Reverse((due(at, turn), at, turn)));
        }
        if let Some(Reverse((_, at, turn))) = ready.pop() {
            cycle.push(endpoint_id(at));
            waiting.push(Reverse((from(at, turn + 1), at, turn + 1)));
        }
    }
    cycle.into()
}

/// Weights in lowest terms; where even those would make the table too long, as near as it allows, none below 1.
fn reduce(weights: &[u64]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let total = weights.iter().sum::<u64>() / divisor;
    let room = ROUND_ROBIN_CYCLE as u64;
    if total <= room {
        return weights.iter().map(|weight| weight / divisor).collect();
    }
    // Raising each to 1 at least adds less than one turn per endpoint.
    let room = room.saturating_sub(weights.len() as u64);
    weights
        .iter()
        .map(|&weight| if weight == 0 { 0 } else { (weight / divisor * room / total).max(1) })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ENDPOINT_WEIGHT, ENDPOINTS_MAX};
    use proptest::prelude::*;

    const _: () = assert!(ENDPOINTS_MAX < ROUND_ROBIN_CYCLE && ENDPOINTS_MAX < u16::MAX as usize);

    fn turns(weights: &[u64]) -> Vec<u16> {
        turns_of(weights).iter().map(|id| id.0).collect()
    }

    #[test]
    fn spreads_the_turns_of_the_heavy() {
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[4, 2]), [0, 1, 0]);
        assert_eq!(turns(&[5, 1, 1]), [0, 1, 0, 0, 2, 0, 0]);
        assert_eq!(turns(&[0, 3]), [1]);
        assert!(turns(&[0, 0]).is_empty() && turns(&[]).is_empty());
    }

    #[test]
    fn goes_round_from_any_ticket() {
        let turns = turns_of(&[1, 1, 1]);
        let cycle = Cycle { turns: turns.clone(), whole: turns };
        assert_eq!(cycle.from(u64::MAX).map(|id| id.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(cycle.from(4).map(|id| id.0).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(cycle.at(5), Some(EndpointId(2)));
        assert_eq!(Cycle::default().at(5), None);
    }

    #[test]
    fn the_largest_cluster_keeps_the_tables_bound() {
        let weights: Vec<u64> = (0..ENDPOINTS_MAX as u64).map(|n| 1 + n % ENDPOINT_WEIGHT.max).collect();
        let cycle = turns_of(&weights);
        assert!(cycle.len() <= ROUND_ROBIN_CYCLE && cycle.len() > ROUND_ROBIN_CYCLE * 9 / 10);
        let mut counts = vec![0u64; weights.len()];
        cycle.iter().for_each(|id| counts[usize::from(id.0)] += 1);
        assert!(counts.iter().all(|&n| n > 0));
        assert!(counts[254] > 200 * counts[0] / 2, "{} and {}", counts[254], counts[0]);
    }

    proptest! {
        /// After any number of picks each endpoint has had its share, to within one turn.
        #[test]
        fn no_endpoint_is_ever_more_than_a_turn_off(weights in proptest::collection::vec(0u64..20, 1..12)) {
            let total: u64 = weights.iter().sum();
            let mut counts = vec![0u64; weights.len()];
            for (n, id) in (1u64..).zip(turns(&weights)) {
                counts[usize::from(id)] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    prop_assert!((count * total).abs_diff(n * weight) <= total, "{weights:?} at {n}: {counts:?}");
                }
            }
            let cycle: u64 = counts.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * total, cycle * weight);
            }
        }
    }
}
