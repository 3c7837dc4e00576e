//! How long a pick takes, with 3, 100 and 1,000 endpoints: by each policy, at a steady number of running requests, when all is
//! well and when it is not.
//!
//! `cargo bench -p dataplane --bench balance`. One step is a pick and the end of the request that was picked longest ago, so
//! that counts stay as they are; both are in the figure. Instructions of a pick are counted in `counts`.
#![allow(clippy::expect_used, missing_docs, reason = "test equipment: a broken expectation must end the run")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dataplane::cluster::balance::{Hint, POLICIES, maglev};
use dataplane::cluster::eligible::Health;
use dataplane::cluster::shared::SharedCluster;
use dataplane::cluster::{ClusterState, Tried};
use dataplane::io::Mono;
use dataplane::spec::{EndpointId, Hash, HashOn};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

#[path = "counts/cluster.rs"]
mod cluster;

/// Requests that run on each endpoint on the average.
const RUNNING: u16 = 4;

/// What is the matter with a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing, and no endpoint has a limit.
    Well,
    /// The first half of the endpoints are down.
    HalfDown,
    /// The first half came up just now, and have a tenth of their share: nine in ten picks of them are made again.
    SlowStart,
    /// Each endpoint has a limit of twice what runs on it; `first` fills the first half.
    Limited,
    /// No endpoint may have more than 1.25 times its share: for the policy `hash`.
    Bounded,
    /// One endpoint goes down or comes up before each pick, which so looks at all of them.
    Changing,
}

/// One shard's part of a cluster with requests that run.
struct Picks {
    state: ClusterState,
    running: VecDeque<EndpointId>,
    now: u64,
    changing: Option<Arc<SharedCluster>>,
}

impl Picks {
    fn new(policy: &'static str, count: u16, of: State) -> Self {
        let mut spec = cluster::of(policy, count);
        if of == State::Limited {
            spec.endpoints
                .iter_mut()
                .for_each(|endpoint| endpoint.max_requests = 2 * u32::from(RUNNING) * endpoint.weight);
        }
        if of == State::SlowStart {
            spec.slow_start = Duration::from_secs(3600);
        }
        if of == State::Bounded {
            let table = maglev::table(&spec.endpoints);
            spec.hash = Some(Hash { on: HashOn::Source, bounded_load: 125, table });
        }
        let shared = Arc::new(SharedCluster::new(usize::from(count), 1));
        if of == State::HalfDown {
            (0..count / 2).for_each(|id| assert!(shared.set_health(EndpointId(id), Health::Down, Mono(0))));
        }
        if of == State::SlowStart {
            for (health, at) in [(Health::Down, Mono(0)), (Health::Up, Mono(1))] {
                (0..count / 2).for_each(|id| assert!(shared.set_health(EndpointId(id), health, at)));
            }
        }
        let changing = (of == State::Changing).then(|| Arc::clone(&shared));
        let state = ClusterState::new(Arc::new(spec), shared, 0, 7);
        let all = usize::from(RUNNING * count);
        let mut picks = Self { state, running: VecDeque::with_capacity(all + 1), now: 0, changing };
        for n in 0..all {
            let id = picks.pick();
            picks.state.observe(id, 1_000_000 + n as u64 % 1000, Mono(n as u64));
        }
        picks
    }
    fn pick(&mut self) -> EndpointId {
        self.now += 1000;
        let hint = Hint { key: cluster::key(self.now), now: Mono(self.now), ..Hint::default() };
        let id = self.state.pick(black_box(&Tried::NONE), hint).expect("none is full");
        self.running.push_back(id);
        id
    }
    fn step(&mut self) -> EndpointId {
        if let Some(shared) = &self.changing {
            let health = if (self.now / 1000).is_multiple_of(2) { Health::Down } else { Health::Up };
            assert!(shared.set_health(EndpointId(1), health, Mono(self.now)));
        }
        let id = self.pick();
        if let Some(oldest) = self.running.pop_front() {
            self.state.end_request(oldest);
        }
        id
    }
}

fn picks(criterion: &mut Criterion) {
    for policy in POLICIES {
        let mut group = criterion.benchmark_group(policy.name);
        let well = [3, 100, 1000].map(|count| (State::Well, count));
        let others =
            [State::HalfDown, State::SlowStart, State::Limited, State::Changing].map(|of| (of, 1000));
        let bounded = (policy.name == "hash").then_some((State::Bounded, 1000));
        for (of, count) in well.into_iter().chain(others).chain(bounded) {
            let mut picks = Picks::new(policy.name, count, of);
            let id = BenchmarkId::new(format!("{of:?}"), count);
            group.bench_function(id, |b| b.iter(|| picks.step()));
        }
        group.finish();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
