//! How long a pick takes, with 3, 100 and 1,000 endpoints: by each policy, at a steady number of running requests.
//!
//! `cargo bench -p dataplane --bench balance`. One step is a pick and the end of the request that was picked longest ago, so
//! that counts stay as they are; both are in the figure. Instructions of a pick are counted in `counts`.
#![allow(clippy::expect_used, missing_docs, reason = "test equipment: a broken expectation must end the run")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dataplane::cluster::balance::{Hint, POLICIES};
use dataplane::cluster::shared::SharedCluster;
use dataplane::cluster::{ClusterState, Tried};
use dataplane::io::Mono;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

#[path = "counts/cluster.rs"]
mod cluster;

/// Requests that run on each endpoint on the average.
const RUNNING: usize = 4;

fn picks(criterion: &mut Criterion) {
    for policy in POLICIES {
        let mut group = criterion.benchmark_group(policy.name);
        for count in [3u16, 100, 1000] {
            let spec = Arc::new(cluster::of(policy.name, count));
            let shared = Arc::new(SharedCluster::new(usize::from(count), 1));
            let mut state = ClusterState::new(spec, shared, 0, 7);
            let mut running = VecDeque::with_capacity(RUNNING * usize::from(count) + 1);
            let mut now = 0;
            let mut step = |state: &mut ClusterState, ends: bool| {
                now += 1000;
                let hint = Hint { key: cluster::key(now), now: Mono(now), ..Hint::default() };
                let id = state.pick(black_box(&Tried::NONE), hint).expect("none is full");
                running.push_back(id);
                if ends && let Some(id) = running.pop_front() {
                    state.end_request(id);
                }
                id
            };
            for n in 0..RUNNING * usize::from(count) {
                let id = step(&mut state, false);
                state.observe(id, 1_000_000 + n as u64 % 1000, Mono(n as u64));
            }
            group.bench_function(BenchmarkId::from_parameter(count), |b| b.iter(|| step(&mut state, true)));
        }
        group.finish();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
