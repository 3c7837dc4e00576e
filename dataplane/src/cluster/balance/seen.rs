//! Loads of many endpoints as one shard last saw them, the least at hand: a tournament over all of them.
//!
//! Each inner node names the winner of its two sides, so the root names the endpoint with the least load, and a change is
//! played again on its way up only: at most log2 n comparisons. Between equal loads it is the turn of the endpoint whose
//! share is furthest behind (start-time fair queueing, Goyal et al., 1996).

use super::endpoint_id;
use crate::spec::EndpointId;

/// Load for its weight in the upper half, whose turn it is in the lower.
type Rank = u128;

/// Of an endpoint that is not to be picked.
const ASIDE: Rank = Rank::MAX;
/// One running request of an endpoint of weight 1: as large as 2^32 of them allow, so that rounding by weights does not
/// show.
const REQUEST: u64 = 1 << 31;
/// One turn of such an endpoint: so small that 2^48 of them can be counted.
const TURN: u64 = 1 << 16;

/// What one request, and one turn, of an endpoint count; 0 for one without weight.
#[derive(Debug, Clone, Copy)]
struct Share {
    request: u64,
    turn: u64,
}

#[derive(Debug)]
pub(super) struct Seen {
    shares: Box<[Share]>,
    /// Of each endpoint; one more, which never wins, stands for the places behind the last.
    ranks: Box<[Rank]>,
    /// When each endpoint's turn is next.
    turns: Box<[u64]>,
    /// Node 1 is the root, those below node n are 2n and 2n + 1; the second half are the endpoints in their order.
    winners: Box<[u16]>,
    /// The turn that is now.
    turn: u64,
}

impl Seen {
    /// Endpoints of these weights, none with anything to do. `first` puts the turns of different shards out of step.
    pub(super) fn new(weights: &[u32], first: u64) -> Self {
        let width = weights.len().next_power_of_two().max(1);
        let count = u16::try_from(weights.len()).unwrap_or(u16::MAX);
        let mut winners = vec![count; 2 * width];
        winners.iter_mut().skip(width).zip(0..count).for_each(|(winner, at)| *winner = at);
        let part = |whole: u64, weight: u32| whole.checked_div(u64::from(weight)).unwrap_or(0);
        let share = |&weight: &u32| Share { request: part(REQUEST, weight), turn: part(TURN, weight) };
        let shares: Box<[Share]> = weights.iter().map(share).collect();
        let offset = |(at, share): (usize, &Share)| {
            (first ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % share.turn.max(1)
        };
        let mut seen = Self {
            ranks: vec![ASIDE; weights.len() + 1].into(),
            turns: shares.iter().enumerate().map(offset).collect(),
            shares,
            winners: winners.into(),
            turn: 0,
        };
        (0..weights.len()).for_each(|at| seen.see(endpoint_id(at), 0));
        seen
    }

    pub(super) fn len(&self) -> usize {
        self.shares.len()
    }

    fn rank(&self, at: usize, running: u32) -> Rank {
        let load = u64::from(running) * self.shares[at].request;
        (Rank::from(load) << 64) | Rank::from(self.turns[at])
    }

    /// The endpoint with the least load, if any may be picked.
    pub(super) fn least(&self) -> Option<EndpointId> {
        let at = *self.winners.get(1)?;
        let rank = *self.ranks.get(usize::from(at))?;
        (rank != ASIDE).then_some(EndpointId(at))
    }

    /// Whether so many running requests are more than the endpoint was last seen with.
    pub(super) fn is_more(&self, id: EndpointId, running: u32) -> bool {
        let at = usize::from(id.0);
        at < self.len() && self.rank(at, running) >> 64 > self.ranks[at] >> 64
    }

    /// So many requests run on the endpoint. One without weight stays aside.
    pub(super) fn see(&mut self, id: EndpointId, running: u32) {
        let at = usize::from(id.0);
        if at < self.len() && self.shares[at].turn > 0 {
            self.set(at, self.rank(at, running));
        }
    }

    /// The endpoint is not to be picked until it is seen again, or put back.
    pub(super) fn put_aside(&mut self, id: EndpointId) {
        if usize::from(id.0) < self.len() {
            self.set(usize::from(id.0), ASIDE);
        }
    }

    /// The endpoint may be picked again, if it was put aside; how busy it is has yet to be seen.
    pub(super) fn put_back(&mut self, id: EndpointId) {
        if self.ranks.get(usize::from(id.0)) == Some(&ASIDE) {
            self.see(id, 0);
        }
    }

    /// The endpoint has its turn, on top of so many running requests.
    pub(super) fn take(&mut self, id: EndpointId, running: u32) {
        let at = usize::from(id.0);
        if at < self.len() {
            self.turn = self.turn.max(self.turns[at]);
            self.turns[at] = self.turn.saturating_add(self.shares[at].turn);
            self.see(id, running.saturating_add(1));
        }
    }

    fn set(&mut self, at: usize, rank: Rank) {
        if self.ranks[at] == rank {
            return;
        }
        self.ranks[at] = rank;
        let changed = endpoint_id(at).0;
        let (mut node, mut winner, mut best) = (self.winners.len() / 2 + at, changed, rank);
        while node > 1 {
            let other = self.winners[node ^ 1];
            let rank = self.ranks[usize::from(other)];
            if rank < best {
                (winner, best) = (other, rank);
            }
            node /= 2;
            let before = std::mem::replace(&mut self.winners[node], winner);
            if before == winner && winner != changed {
                // It lost here before and lost again: nothing above knows of it.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_follow_weights_while_nothing_runs() {
        let mut seen = Seen::new(&[1, 0, 3], 7);
        let mut counts = [0; 3];
        for _ in 0..400 {
            let id = seen.least().unwrap();
            counts[usize::from(id.0)] += 1;
            seen.take(id, 0);
            seen.see(id, 0);
        }
        assert!((99..=101).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    }

    #[test]
    fn none_is_least_where_all_are_aside() {
        assert_eq!(Seen::new(&[], 0).least(), None);
        assert_eq!(Seen::new(&[0, 0, 0], 0).least(), None);
        let mut seen = Seen::new(&[1], 0);
        assert_eq!(seen.least(), Some(EndpointId(0)));
        seen.put_aside(EndpointId(0));
        assert_eq!(seen.least(), None);
        seen.see(EndpointId(0), 5);
        assert_eq!(seen.least(), Some(EndpointId(0)));
        assert!(seen.is_more(EndpointId(0), 6) && !seen.is_more(EndpointId(0), 5));
        seen.see(EndpointId(9), 1);
        seen.put_aside(EndpointId(9));
        assert!(!seen.is_more(EndpointId(9), 1), "no endpoint of that id");
    }

    proptest! {
        /// After any changes the least is the least of a plain scan.
        #[test]
        fn the_root_is_the_least_of_all(
            weights in proptest::collection::vec(0u32..5, 1..70),
            changes in proptest::collection::vec((any::<u16>(), 0u32..9, 0u8..4), 0..200),
        ) {
            let mut seen = Seen::new(&weights, 1);
            for (at, running, what) in changes {
                let id = endpoint_id(usize::from(at) % weights.len());
                match what {
                    0 => seen.put_aside(id),
                    1 => seen.take(id, running),
                    _ => seen.see(id, running),
                }
                let least = seen.ranks.iter().min().copied().filter(|rank| *rank != ASIDE);
                prop_assert_eq!(seen.least().map(|id| seen.ranks[usize::from(id.0)]), least);
            }
        }
    }
}
