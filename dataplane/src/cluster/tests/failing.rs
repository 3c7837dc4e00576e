//! Endpoints that fail: ejections and breakers, as picks of several shards see them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use super::super::eligible::Breaker;
use super::super::events::{Event, Events, Failed, What};
use super::super::outcome::Outcome;
use super::*;
use crate::spec::{BreakerOf, CircuitBreaker, Outlier, Statuses};
use std::thread;

const OUTLIER: Outlier = Outlier {
    consecutive_failures: 5,
    failure_rate: None,
    minimum_volume: 10,
    window: Duration::from_secs(10),
    ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(300),
    max_ejected_percent: 50,
    failure_status: Statuses::SERVER_ERRORS,
};
const BREAKER: CircuitBreaker = CircuitBreaker {
    of: BreakerOf::Endpoint,
    failure_threshold: 5,
    recovery_timeout: Duration::from_secs(30),
    trial_timeout: Duration::from_secs(10),
    failure_status: Statuses::SERVER_ERRORS,
};

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

/// Some shards before one cluster, and what happened there.
struct Node {
    shards: Vec<ClusterState>,
    shared: Arc<SharedCluster>,
    spec: Arc<Cluster>,
    events: Arc<Events>,
    picks: u64,
}

impl Node {
    fn new(spec: Cluster, count: u16) -> Self {
        let events = Arc::new(Events::new());
        let shared = Arc::new(SharedCluster::of(&spec, count, Arc::clone(&events)));
        let spec = Arc::new(spec);
        let shard = |n| ClusterState::new(Arc::clone(&spec), Arc::clone(&shared), n, 1);
        Self { shards: (0..count).map(shard).collect(), shared, spec, events, picks: 0 }
    }
    fn with(endpoints: usize, outlier: Option<Outlier>, circuit_breaker: Option<CircuitBreaker>) -> Self {
        let spec = test_cluster(&vec![1; endpoints]);
        Self::new(Cluster { outlier, circuit_breaker, ..spec }, 8)
    }
    /// A pick on a shard, and who made it.
    fn pick(&mut self, shard: usize, now: Mono) -> Result<(EndpointId, u64), PickError> {
        self.picks += 1;
        let key = self.picks.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hint = Hint { now, who: self.picks, key, ..Hint::default() };
        self.shards[shard].pick(&Tried::NONE, hint).map(|id| (id, hint.who))
    }
    fn end(&mut self, shard: usize, (id, who): (EndpointId, u64), outcome: Outcome, now: Mono) {
        self.shards[shard].report(id, who, outcome, now);
        self.shards[shard].end_request(id);
    }
    /// So many requests, shard by shard, of which those at `bad` fail; where they went.
    fn serve(&mut self, count: usize, bad: Option<u16>, now: Mono) -> Vec<u16> {
        let served = (0..count).map(|n| {
            let picked = self.pick(n % 8, now).unwrap();
            let good = Some(picked.0.0) != bad;
            let outcome = if good { Outcome::Answered(200) } else { Outcome::Answered(500) };
            self.end(n % 8, picked, outcome, now);
            picked.0.0
        });
        served.collect()
    }
    fn told(&self) -> Vec<(Option<u16>, What)> {
        let next = || self.events.pop();
        let short = |Event { endpoint, what, .. }: Event| (endpoint.map(|id| id.0), what);
        std::iter::from_fn(next).map(short).collect()
    }
    /// One shard's breaker of endpoint 0 opens at `now`.
    fn open(&mut self, now: Mono) {
        for _ in 0..5 {
            let picked = loop {
                match self.pick(0, now).unwrap() {
                    picked if picked.0 == EndpointId(0) => break picked,
                    other => self.end(0, other, Outcome::Unknown, now),
                }
            };
            self.end(0, picked, Outcome::ConnectFailed, now);
        }
        assert_eq!(self.told(), [(Some(0), What::Opened { failures: 5 })]);
    }
}

#[test]
fn failures_in_a_row_eject_and_time_readmits() {
    for policy in POLICIES {
        let mut node =
            Node::new(Cluster { balance: policy.name, outlier: Some(OUTLIER), ..test_cluster(&[1; 3]) }, 8);
        let served = node.serve(300, Some(0), at(100));
        assert_eq!(served.iter().filter(|id| **id == 0).count(), 5, "{}", policy.name);
        let (why, time) = (Failed::InARow(5), Duration::from_secs(30));
        assert_eq!(node.told(), [(Some(0), What::Ejected { why, time, times: 1 })]);
        assert!(!node.serve(30, None, Mono(at(130).0 - 1)).contains(&0));
        assert!(node.serve(30, Some(0), at(130)).contains(&0), "nobody had to write it down");
        let again = What::Ejected { why, time: Duration::from_secs(60), times: 2 };
        assert_eq!(node.told(), [(Some(0), What::Readmitted), (Some(0), again)]);
        node.shared.settle(&node.spec, at(190));
        assert_eq!(node.told(), [(Some(0), What::Readmitted)]);
        assert_eq!(node.shared.ejected_until(EndpointId(0), at(190)), None);
    }
}

#[test]
fn a_success_in_between_resets_the_count() {
    let mut node = Node::with(1, Some(Outlier { max_ejected_percent: 100, ..OUTLIER }), Some(BREAKER));
    for _ in 0..20 {
        node.serve(4, Some(0), at(1));
        node.serve(1, None, at(1));
    }
    assert!(node.told().is_empty());
    assert_eq!(node.serve(5, Some(0), at(1)), [0; 5]);
    let what = node.told();
    assert!(
        matches!(what[..], [(Some(0), What::Ejected { .. }), (Some(0), What::Opened { failures: 5 })]),
        "{what:?}"
    );
}

#[test]
fn no_more_than_the_share_is_ejected() {
    let mut node = Node::with(5, Some(OUTLIER), None);
    for _ in 0..100 {
        for shard in 0..8 {
            let picked = node.pick(shard, at(9)).unwrap();
            node.end(shard, picked, Outcome::Timeout, at(9));
        }
    }
    assert_eq!(node.told().len(), 2, "half of five");
    let left: std::collections::BTreeSet<_> = node.serve(50, None, at(9)).into_iter().collect();
    assert_eq!(left.len(), 3);
    // A check that is good brings one back, and makes room for another.
    let ejected = (0..5).map(EndpointId).find(|id| node.shared.ejected_until(*id, at(9)).is_some()).unwrap();
    assert!(
        node.shared.set_health(ejected, Health::Up, at(10))
            && !node.shared.set_health(ejected, Health::Up, at(10))
    );
    assert_eq!(node.told(), [(Some(ejected.0), What::ReadmittedByCheck)]);
    assert!(node.serve(50, None, at(10)).contains(&ejected.0));
}

#[test]
fn what_says_nothing_counts_as_nothing() {
    let mut node = Node::with(1, Some(Outlier { max_ejected_percent: 100, ..OUTLIER }), Some(BREAKER));
    node.serve(4, Some(0), at(1));
    for outcome in [Outcome::Unknown, Outcome::Answered(404), Outcome::Unknown, Outcome::Lost] {
        let picked = node.pick(3, at(1)).unwrap();
        node.end(3, picked, outcome, at(1));
    }
    assert!(node.told().is_empty(), "a 404 is an answer");
}

/// A hedge hides how slow an endpoint is: no request there ever fails. One that hedges overtake for as long as an answer may take
/// is ejected; a pause that passes, and a tail among answers, are not.
#[test]
fn who_is_overtaken_for_long_is_ejected() {
    let patience = test_cluster(&[1]).timeouts.response_header;
    let late = at(100).after(patience);
    let node = || Node::with(1, Some(Outlier { max_ejected_percent: 100, ..OUTLIER }), Some(BREAKER));
    let overtake = |node: &mut Node, count: usize, now: Mono| {
        for n in 0..count {
            let picked = node.pick(n % 8, now).unwrap();
            node.end(n % 8, picked, Outcome::Overtaken, now);
        }
    };
    let mut sick = node();
    overtake(&mut sick, 50, at(100));
    assert!(sick.told().is_empty(), "a pause may pass");
    overtake(&mut sick, 1, late);
    assert!(matches!(sick.told()[..], [(Some(0), What::Ejected { why: Failed::InARow(51), .. })]));
    let mut well = node();
    overtake(&mut well, 50, at(100));
    well.serve(1, None, at(100));
    overtake(&mut well, 50, late);
    assert!(well.told().is_empty(), "it answered in between");
    let mut rare = node();
    overtake(&mut rare, 3, at(100));
    overtake(&mut rare, 1, late);
    assert!(rare.told().is_empty(), "fewer than `consecutive_failures`");
}

/// Half-open, and every shard picks: one request of the node reaches the endpoint.
#[test]
fn exactly_one_request_of_all_shards_tries() {
    for (good, events) in [(true, What::Closed), (false, What::OpenedByTrial)] {
        let mut node = Node::with(2, None, Some(BREAKER));
        node.open(at(100));
        assert!(!node.serve(40, None, at(129)).contains(&0));
        let picks: Vec<_> = (0..40).map(|n| (n % 8, node.pick(n % 8, at(131)).unwrap())).collect();
        let tries: Vec<_> = picks.iter().filter(|(_, picked)| picked.0 == EndpointId(0)).collect();
        assert_eq!((tries.len(), node.told()), (1, vec![(Some(0), What::HalfOpened)]));
        // What others do meanwhile moves nothing.
        for (shard, picked) in picks.iter().filter(|(_, picked)| picked.0 != EndpointId(0)) {
            node.end(*shard, *picked, Outcome::Answered(200), at(132));
        }
        assert!(node.told().is_empty());
        let outcome = if good { Outcome::Answered(200) } else { Outcome::Answered(503) };
        node.end(tries[0].0, tries[0].1, outcome, at(133));
        assert_eq!(node.told(), [(Some(0), events)]);
        assert_eq!(node.serve(40, None, at(134)).contains(&0), good);
        assert!(node.serve(40, None, at(163)).contains(&0), "tried again after its time");
    }
}

/// The same where threads run at once.
#[test]
fn exactly_one_thread_tries() {
    for round in 0..50 {
        let mut node = Node::with(2, None, Some(BREAKER));
        node.open(at(100));
        let picked = thread::scope(|scope| {
            let threads: Vec<_> = (0u64..)
                .zip(&mut node.shards)
                .map(|(who, shard)| {
                    scope.spawn(move || {
                        let hint = Hint { now: at(131 + round), who, ..Hint::default() };
                        let picks = (0..4).map(|_| shard.pick(&Tried::NONE, hint).unwrap().0);
                        picks.filter(|id| *id == 0).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(picked, 1);
    }
}

#[test]
fn an_abandoned_trial_makes_way_and_a_silent_one_opens_again() {
    let mut node = Node::with(1, None, Some(BREAKER));
    node.open(at(100));
    assert_eq!(node.pick(0, at(110)), Err(PickError::CircuitOpen));
    assert_eq!(node.shards[0].usable().reopens(), Some(at(130)));
    let trial = node.pick(1, at(130)).unwrap();
    assert_eq!(node.pick(2, at(131)), Err(PickError::CircuitOpen), "one at a time");
    node.end(1, trial, Outcome::Unknown, at(132));
    let second = node.pick(2, at(132)).unwrap();
    assert_eq!(node.told(), [(Some(0), What::HalfOpened)], "told once, however often it is tried");
    // Of this one nothing is heard: open again, from its end on.
    assert_eq!(node.pick(3, at(142)), Err(PickError::CircuitOpen));
    assert_eq!(node.shards[3].usable().reopens(), Some(at(172)));
    node.shared.settle(&node.spec, at(143));
    assert_eq!(node.told(), [(Some(0), What::OpenedBySilence)]);
    node.end(2, second, Outcome::Answered(200), at(150));
    assert_eq!(node.pick(3, at(171)), Err(PickError::CircuitOpen), "it came too late");
    let third = node.pick(3, at(172)).unwrap();
    node.shards[3].decide(third.0, third.1, Outcome::Answered(200), at(173));
    assert_eq!(node.told(), [(Some(0), What::HalfOpened), (Some(0), What::Closed)]);
    assert_eq!(
        node.pick(4, at(173)).unwrap().0,
        EndpointId(0),
        "closed by the head, though its body may go on"
    );
    node.end(3, third, Outcome::Lost, at(180));
    assert_eq!(node.shared.condition(&node.spec, EndpointId(0), at(180)).unwrap().breaker, Breaker::Closed);
}

#[test]
fn the_breaker_of_a_cluster_stops_all_of_it() {
    let breaker = CircuitBreaker { of: BreakerOf::Cluster, ..BREAKER };
    let mut node = Node::with(3, None, Some(breaker));
    for n in 0..5 {
        let picked = node.pick(n, at(100)).unwrap();
        node.end(n, picked, Outcome::Answered(500), at(100));
    }
    assert_eq!(node.told(), [(None, What::Opened { failures: 5 })]);
    for shard in 0..8 {
        assert_eq!(node.pick(shard, at(101)), Err(PickError::CircuitOpen));
        assert_eq!(
            (node.shards[shard].usable().reopens(), node.shards[shard].usable().count()),
            (Some(at(130)), 0)
        );
        assert_eq!(node.shards[shard].room(), Room::Open, "who waits learns it");
    }
    let trial = node.pick(5, at(130)).unwrap();
    assert!((0..8).all(|shard| node.pick(shard, at(131)) == Err(PickError::CircuitOpen)));
    node.end(5, trial, Outcome::Answered(200), at(132));
    assert_eq!(node.told(), [(None, What::HalfOpened), (None, What::Closed)]);
    let served: std::collections::BTreeSet<_> = node.serve(30, None, at(133)).into_iter().collect();
    assert_eq!(served.len(), 3);
}

/// Both kinds: one request is the trial of both.
#[test]
fn one_request_may_be_two_trials() {
    let breaker = CircuitBreaker { of: BreakerOf::Both, ..BREAKER };
    let mut node = Node::with(1, None, Some(breaker));
    node.serve(5, Some(0), at(100));
    assert_eq!(node.told(), [(Some(0), What::Opened { failures: 5 }), (None, What::Opened { failures: 5 })]);
    let trial = node.pick(0, at(130)).unwrap();
    assert_eq!(node.pick(1, at(130)), Err(PickError::CircuitOpen));
    node.end(0, trial, Outcome::Answered(200), at(131));
    let told = node.told();
    assert_eq!(told.iter().filter(|(_, what)| *what == What::HalfOpened).count(), 2);
    assert_eq!(told.iter().filter(|(_, what)| *what == What::Closed).count(), 2);
    assert_eq!(node.serve(3, None, at(132)), [0; 3]);
    // A trial of the cluster's that finds no endpoint gives its turn back.
    node.serve(5, Some(0), at(200));
    node.shared.set_health(EndpointId(0), Health::Down, at(201));
    assert_eq!(node.pick(2, at(230)), Err(PickError::NoEndpoint));
    assert_eq!(node.shared.breaker(&node.spec, at(230)).0, Breaker::HalfOpen);
}

/// A primary whose breaker is half-open gets its trial, and its backup everything else.
#[test]
fn a_trial_does_not_take_the_tier_with_it() {
    let mut spec = test_cluster(&[1, 1]);
    (spec.endpoints[1].priority, spec.circuit_breaker) = (1, Some(BREAKER));
    let mut node = Node::new(spec, 8);
    node.open(at(100));
    assert_eq!(node.serve(16, None, at(110)), [1; 16]);
    let picks: Vec<_> = (0..16).map(|n| node.pick(n % 8, at(131)).unwrap().0.0).collect();
    assert_eq!(picks.iter().filter(|id| **id == 0).count(), 1, "{picks:?}");
}

/// What is full of its limit is no trial until it has room.
#[test]
fn a_trial_that_finds_no_room_is_none() {
    let mut spec = test_cluster(&[1]);
    (spec.endpoints[0].max_requests, spec.circuit_breaker) = (6, Some(BREAKER));
    let mut node = Node::new(spec, 8);
    node.open(at(100));
    for _ in 0..6 {
        assert!(node.shared.endpoint(EndpointId(0)).unwrap().try_start(6));
    }
    assert_eq!(node.pick(0, at(131)), Err(PickError::Full));
    assert!(node.told().is_empty());
    node.shared.endpoint(EndpointId(0)).unwrap().end();
    assert_eq!(node.pick(0, at(131)).unwrap().0, EndpointId(0));
}

#[test]
fn rates_are_tallied_by_shard_and_summed() {
    let outlier = Outlier { failure_rate: Some(0.5), consecutive_failures: u32::MAX, ..OUTLIER };
    let mut node = Node::with(2, Some(outlier), None);
    node.serve(80, Some(1), at(1));
    let tally = |id| node.shared.tallied(EndpointId(id));
    assert_eq!((tally(0).ended, tally(0).failed), (40, 0));
    assert_eq!((tally(1).ended, tally(1).failed), (40, 40));
    assert!(node.told().is_empty());
    let why = Failed::Rate(10_000);
    assert!(node.shared.eject(&node.spec, &outlier, EndpointId(1), why, at(2)));
    assert!(!node.shared.eject(&node.spec, &outlier, EndpointId(0), why, at(2)), "one of two");
    assert!(!node.serve(20, None, at(3)).contains(&1));
}
