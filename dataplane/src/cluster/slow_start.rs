//! Slow start: an endpoint that came up has a share that grows, from a tenth to the whole, so that caches fill and code
//! warms before it has all of its requests.
//!
//! Its picks are thinned: of those that the policy gives it only a share stays with it, and the others are made again without
//! it. Which stay is said by a counter and the golden ratio (Weyl's sequence), which spreads them evenly.

use super::balance::Hint;
use super::{ClusterState, PickError, Tried};
use crate::io::Mono;
use crate::spec::EndpointId;
use std::time::Duration;

/// 2^32 divided by the golden ratio.
const STEP: u32 = 0x9e37_79b9;
/// The share of one that has just come up, in 2^32.
const FIRST: u64 = (1 << 32) / 10;

/// The share that an endpoint has that came up so long ago, in 2^32.
fn share(age: u64, whole: Duration) -> u64 {
    let whole = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX).max(1);
    let grown = u128::from(age.min(whole)) * u128::from((1 << 32) - FIRST) / u128::from(whole);
    FIRST + u64::try_from(grown).unwrap_or(0)
}

impl ClusterState {
    /// As [`ClusterState::choose`], with less for what has just come up.
    pub(super) fn choose_slowly(&mut self, tried: &Tried, hint: Hint) -> Result<EndpointId, PickError> {
        let picked = self.choose(tried, hint)?;
        let since = self.usable.slow_since(picked).filter(|_| hint.sticky != Some(picked));
        let Some(since) = since else { return Ok(picked) };
        if self.stays(since, hint.now) {
            return Ok(picked);
        }
        let mut others = *tried;
        if !others.add(picked) {
            return Ok(picked);
        }
        // Where no other of its tier has room, what is slow is better than none.
        let Ok(other) = self.choose(&others, hint) else { return Ok(picked) };
        let (taken, left) = if self.usable.contains(other) { (other, picked) } else { (picked, other) };
        self.end_request(left);
        Ok(taken)
    }
    fn stays(&mut self, since: Mono, now: Mono) -> bool {
        self.thinned = self.thinned.wrapping_add(STEP);
        u64::from(self.thinned) < share(now.since(since), self.cluster.slow_start)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::balance::POLICIES;
    use crate::cluster::eligible::{Admin, Health};
    use crate::cluster::shared::SharedCluster;
    use crate::cluster::test_cluster;
    use crate::spec::Cluster;
    use std::sync::Arc;

    fn at(milliseconds: u64) -> Mono {
        Mono(milliseconds * 1_000_000)
    }

    fn state(balance: &'static str, endpoints: usize) -> ClusterState {
        let slow_start = Duration::from_secs(10);
        let spec = Cluster { balance, slow_start, ..test_cluster(&vec![1; endpoints]) };
        let shared = Arc::new(SharedCluster::new(endpoints, 1));
        ClusterState::new(Arc::new(spec), shared, 0, 1)
    }
    /// How many of a thousand picks go to endpoint 0.
    fn of_thousand(state: &mut ClusterState, now: Mono) -> usize {
        let goes = |n: u64| {
            let hint = Hint { now, key: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Hint::default() };
            let picked = state.pick(&Tried::NONE, hint);
            picked.iter().for_each(|id| state.end_request(*id));
            picked == Ok(EndpointId(0))
        };
        (0..1_000).map(goes).filter(|goes| *goes).count()
    }

    #[test]
    fn a_share_grows_from_a_tenth() {
        let of = |age| (share(age, Duration::from_nanos(1_000)) * 1_000 + (1 << 31)) >> 32;
        assert_eq!([0, 500, 999, 1_000, 9_999].map(of), [100, 550, 999, 1_000, 1_000]);
    }

    #[test]
    fn who_came_up_has_little_and_then_more() {
        let mut state = state("round_robin", 2);
        assert_eq!(of_thousand(&mut state, at(5)), 500, "who was there at the start has all");
        state.shared.set_health(EndpointId(0), Health::Down, at(50_000));
        state.shared.set_health(EndpointId(0), Health::Up, at(100_000));
        // As if its weight were 0.1, 0.55 and 0.91 of the other's: a turn that it does not take is the other's next one.
        for (now, share) in [(100_000, 91), (105_000, 355), (109_000, 476), (110_000, 500)] {
            let got = of_thousand(&mut state, at(now));
            assert!(got.abs_diff(share) <= 3, "{got} of a thousand at {now} ms, not {share}");
        }
        state.shared.set_admin(EndpointId(0), Admin::Maint, at(200_000));
        state.shared.set_admin(EndpointId(0), Admin::Ready, at(200_001));
        assert!(of_thousand(&mut state, at(200_001)) < 100);
        state.shared.set_admin(EndpointId(0), Admin::Drain, at(300_000));
        state.shared.set_admin(EndpointId(0), Admin::Ready, at(300_001));
        assert_eq!(of_thousand(&mut state, at(300_001)), 500, "who drained was up all the time");
    }

    #[test]
    fn every_policy_gives_less_to_who_came_up() {
        for policy in POLICIES {
            let mut state = state(policy.name, 4);
            let before = of_thousand(&mut state, at(5));
            state.shared.set_health(EndpointId(0), Health::Down, at(50_000));
            state.shared.set_health(EndpointId(0), Health::Up, at(100_000));
            let slow = of_thousand(&mut state, at(100_000));
            assert!(slow <= before / 5 && slow > 0, "{}: {before}, then {slow}", policy.name);
            assert!(of_thousand(&mut state, at(110_000)) > before / 2, "{}", policy.name);
        }
    }

    #[test]
    fn who_is_alone_or_kept_by_a_cookie_has_all() {
        let mut alone = state("round_robin", 2);
        alone.shared.set_health(EndpointId(1), Health::Down, at(1));
        alone.shared.set_health(EndpointId(0), Health::Down, at(1));
        alone.shared.set_health(EndpointId(0), Health::Up, at(100_000));
        assert_eq!(of_thousand(&mut alone, at(100_000)), 1_000);
        // A backup takes nothing from it.
        let mut spec = Cluster { slow_start: Duration::from_secs(10), ..test_cluster(&[1, 1]) };
        spec.endpoints[1].priority = 1;
        let shared = Arc::new(SharedCluster::new(2, 1));
        let mut first = ClusterState::new(Arc::new(spec), shared, 0, 1);
        first.shared.set_health(EndpointId(0), Health::Down, at(1));
        first.shared.set_health(EndpointId(0), Health::Up, at(100_000));
        assert_eq!(of_thousand(&mut first, at(100_000)), 1_000);
        assert_eq!(first.shared.endpoint(EndpointId(1)).unwrap().running_requests(), 0);
        let mut kept = state("round_robin", 2);
        kept.shared.set_health(EndpointId(0), Health::Down, at(1));
        kept.shared.set_health(EndpointId(0), Health::Up, at(100_000));
        let hint = Hint { now: at(100_000), sticky: Some(EndpointId(0)), ..Hint::default() };
        assert!((0..50).all(|_| kept.pick(&Tried::NONE, hint) == Ok(EndpointId(0))));
    }

    /// The counts of running requests are those of the picks that were kept.
    #[test]
    fn what_is_picked_again_is_counted_once() {
        let mut state = state("round_robin", 2);
        state.shared.set_health(EndpointId(0), Health::Down, at(1));
        state.shared.set_health(EndpointId(0), Health::Up, at(100_000));
        let hint = Hint { now: at(101_000), ..Hint::default() };
        (0..100).for_each(|_| assert_ne!(state.pick(&Tried::NONE, hint), Err(PickError::Full)));
        let running = |id| state.shared.endpoint(EndpointId(id)).unwrap().running_requests();
        assert_eq!(running(0) + running(1), 100);
    }
}
