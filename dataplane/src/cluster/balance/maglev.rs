//! The lookup table of consistent hashing: Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4).
//!
//! Each endpoint has an order of its own in which it would like to have the slots, drawn from its name; in turns each takes
//! the next one that is free. So slots are shared by weight, and endpoints that come or go change few slots of the others.
//! Names alone decide, in whatever order they are listed: every process with the same endpoints has the same table.

use crate::limits::HASH_SLOTS;
use crate::spec::{Endpoint, EndpointId};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Seeds of the two numbers that a name gives.
const OFFSET: u64 = 0;
const SKIP: u64 = 1;

/// A slot that is nobody's yet; there are far fewer endpoints than this.
const FREE: EndpointId = EndpointId(u16::MAX);

/// An endpoint while the table is filled.
struct Taker {
    id: EndpointId,
    weight: u64,
    /// The slot that it would like next, and how far it is to the one after.
    next: u64,
    skip: u64,
    /// Takes part in a round when its weight times the round has come to this.
    due: u64,
}

/// The table of these endpoints, [`HASH_SLOTS`] long; empty if none has weight. Takes milliseconds: off the path.
pub fn table(endpoints: &[Endpoint]) -> Arc<[EndpointId]> {
    let slots = HASH_SLOTS as u64;
    let mut takers: Vec<(&str, Taker)> = endpoints
        .iter()
        .filter(|endpoint| endpoint.weight > 0)
        .map(|endpoint| {
            let draw = |seed| xxh3_64_with_seed(endpoint.name.as_bytes(), seed);
            // The number of slots is a prime, so every skip leads to all of them.
            let (next, skip) = (draw(OFFSET) % slots, draw(SKIP) % (slots - 1) + 1);
            let taker = Taker { id: endpoint.id, weight: u64::from(endpoint.weight), next, skip, due: 0 };
            (&*endpoint.name, taker)
        })
        .collect();
    takers.sort_by_key(|(name, _)| *name);
    let Some(heaviest) = takers.iter().map(|(_, taker)| taker.weight).max() else { return Arc::default() };
    let mut table = vec![FREE; HASH_SLOTS];
    let mut left = HASH_SLOTS;
    let mut round = 0;
    while left > 0 {
        for (_, taker) in &mut takers {
            if round * taker.weight < taker.due || left == 0 {
                continue;
            }
            taker.due += heaviest;
            let slot = loop {
                let at = taker.next;
                taker.next = (at + taker.skip) % slots;
                match usize::try_from(at).ok().and_then(|at| table.get_mut(at)) {
                    Some(slot) if *slot == FREE => break slot,
                    _ => {}
                }
            };
            *slot = taker.id;
            left -= 1;
        }
        round += 1;
    }
    table.into()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::test_cluster;
    use crate::limits::{ENDPOINT_WEIGHT, ENDPOINTS_MAX};

    fn shares(table: &[EndpointId], endpoints: usize) -> Vec<usize> {
        let mut shares = vec![0; endpoints];
        table.iter().for_each(|id| shares[usize::from(id.0)] += 1);
        shares
    }

    #[test]
    fn slots_are_shared_by_weight() {
        let endpoints = test_cluster(&[1, 2, 0, 4, 1]).endpoints;
        let shares = shares(&table(&endpoints), 5);
        for (share, weight) in shares.iter().zip([1, 2, 0, 4, 1]) {
            assert!(share.abs_diff(HASH_SLOTS * weight / 8) <= 2, "{shares:?}");
        }
        assert!(table(&[]).is_empty() && table(&test_cluster(&[0, 0]).endpoints).is_empty());
    }

    #[test]
    fn the_lightest_of_the_largest_cluster_has_a_slot() {
        let mut weights = vec![u32::try_from(ENDPOINT_WEIGHT.max).unwrap(); ENDPOINTS_MAX];
        weights[4321] = 1;
        let shares = shares(&table(&test_cluster(&weights).endpoints), ENDPOINTS_MAX);
        assert!(shares[4321] == 1 && shares.iter().all(|n| *n >= 1), "{}", shares[4321]);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let endpoints = test_cluster(&[1, 1, 3]).endpoints;
        let mut turned = endpoints.clone();
        turned.reverse();
        assert_eq!(table(&endpoints), table(&turned));
    }

    /// One of ten that goes: its slots are shared by the others, and few others change hands.
    #[test]
    fn few_slots_change_hands() {
        let endpoints = test_cluster(&[1; 10]).endpoints;
        let (before, after) = (table(&endpoints), table(&endpoints[..9]));
        let gone = before.iter().filter(|id| id.0 == 9).count();
        let moved = before.iter().zip(&*after).filter(|(b, a)| b.0 != 9 && b != a).count();
        assert!(gone.abs_diff(HASH_SLOTS / 10) <= 1, "{gone}");
        assert!(moved < HASH_SLOTS / 20, "{moved} of {HASH_SLOTS}");
    }

    /// What a process of another version has must be the same: another table would send every client elsewhere.
    #[test]
    fn the_table_is_what_it_has_always_been() {
        let table = table(&test_cluster(&[1, 2, 3]).endpoints);
        let bytes: Vec<u8> = table.iter().flat_map(|id| id.0.to_le_bytes()).collect();
        let at = [0, 1, 2, 3, 1000, 65_536].map(|slot| table[slot].0);
        assert_eq!((at, xxh3_64_with_seed(&bytes, 0)), ([0, 2, 0, 0, 1, 1], 11_212_635_401_479_667_711));
    }
}
