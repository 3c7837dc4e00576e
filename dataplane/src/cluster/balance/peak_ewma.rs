//! Peak EWMA (Twitter's Finagle, then Linkerd): what an endpoint costs is an average of how long it takes to answer, which
//! follows a slow answer at once and forgets it over ten seconds, times the requests that run on it and the one to come.
//!
//! Latencies are each shard's own, for an answer is measured where it arrives; running requests are the node's. An endpoint
//! that this shard has no answer of yet is taken to be as quick as the others are on the average: so a fresh one is neither
//! flooded nor left out.

use super::draw::Draw;
use super::{Balancer, Hint, Policy, View, endpoint_id};
use crate::cluster::usable::Usable;
use crate::io::Mono;
use crate::spec::{Cluster, EndpointId};

pub(super) const POLICY: Policy = Policy {
    name: "peak_ewma",
    doc: "Of two endpoints drawn by weight, or of all where there are few, the one with the least product of its recent \
          latency and its running requests, for its weight.",
    build: |cluster, seed| Box::new(PeakEwma::new(cluster, seed)),
};

/// Endpoints that are all compared rather than two of them.
const FEW: usize = 4;
/// After so many nanoseconds an answer counts for 1/e: ten seconds.
const DECAY: f64 = 10e9;
/// The least that an answer counts for, nanoseconds: what is quicker than 10 us is equal, and the running requests decide.
const LEAST: f64 = 10e3;
/// Share of a new answer in the average of all endpoints.
const SHARE: f64 = 1.0 / 16.0;

/// A latency, and when it was last seen.
#[derive(Debug, Clone, Copy)]
struct Ewma {
    /// Nanoseconds.
    cost: f64,
    at: Mono,
}

impl Ewma {
    /// What is left of the cost.
    fn now(self, now: Mono) -> f64 {
        self.cost * (-(now.since(self.at) as f64) / DECAY).exp()
    }
    /// The average after one more answer.
    fn after(self, latency: f64, now: Mono) -> Self {
        let old = (-(now.since(self.at) as f64) / DECAY).exp();
        // A peak counts at once.
        let cost = if latency > self.cost { latency } else { self.cost * old + latency * (1.0 - old) };
        Self { cost, at: now }
    }
}

#[derive(Debug)]
struct PeakEwma {
    draw: Draw,
    /// By endpoint; none until it answered.
    seen: Box<[Option<Ewma>]>,
    /// Average of every answer.
    typical: f64,
}

impl PeakEwma {
    fn new(cluster: &Cluster, seed: u64) -> Self {
        let seen = vec![None; cluster.endpoints.len()].into();
        Self { draw: Draw::new(cluster, seed), seen, typical: 0.0 }
    }

    /// What one more request would cost on the endpoint, for its weight.
    fn cost(&self, view: &View<'_>, id: EndpointId, now: Mono) -> f64 {
        let seen = self.seen.get(usize::from(id.0)).copied().flatten();
        let cost = seen.map_or(self.typical, |seen| seen.now(now)).max(LEAST);
        cost * (f64::from(view.running(id)) + 1.0) / f64::from(view.weight(id).max(1))
    }
}

impl Balancer for PeakEwma {
    fn pick(&mut self, view: &View<'_>, hint: Hint) -> Option<EndpointId> {
        if view.len() <= FEW {
            let may = (0..view.len()).map(endpoint_id).filter(|&id| view.eligible(id));
            let costs = may.map(|id| (id, self.cost(view, id, hint.now)));
            return costs.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id);
        }
        let (first, second) = self.draw.two(view)?;
        let better =
            |&other: &EndpointId| self.cost(view, other, hint.now) < self.cost(view, first, hint.now);
        Some(second.filter(better).unwrap_or(first))
    }
    fn observe(&mut self, id: EndpointId, latency: u64, now: Mono) {
        let Some(seen) = self.seen.get_mut(usize::from(id.0)) else { return };
        let latency = latency as f64;
        *seen = Some(match *seen {
            Some(before) => before.after(latency, now),
            None => Ewma { cost: latency, at: now },
        });
        self.typical += (latency - self.typical) * if self.typical > 0.0 { SHARE } else { 1.0 };
    }
    fn on_endpoints_changed(&mut self, cluster: &Cluster) {
        self.draw.on_endpoints_changed(cluster);
        // What is gone leaves nothing to whoever has its id next.
        let before = |at: usize| self.seen.get(at).copied().flatten();
        let endpoints = cluster.endpoints.iter().enumerate();
        self.seen = endpoints.map(|(at, endpoint)| before(at).filter(|_| !endpoint.gone)).collect();
    }
    fn on_usable_changed(&mut self, cluster: &Cluster, usable: &Usable) {
        self.draw.on_usable_changed(cluster, usable);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::Tried;
    use crate::cluster::shared::SharedCluster;
    use crate::cluster::test_cluster;

    const MS: u64 = 1_000_000;

    /// Picks of 100 requests one after the other, at `now`.
    fn picks(balancer: &mut PeakEwma, cluster: &Cluster, now: Mono) -> Vec<u32> {
        let (count, tried) = (cluster.endpoints.len(), Tried::NONE);
        let (shared, idle) = (SharedCluster::new(count, 1), vec![0; count]);
        let usable = Usable::new(cluster, &shared, Mono(0));
        let view = View { cluster, shared: &shared, usable: &usable, idle: &idle, tried: &tried };
        let mut counts = vec![0; count];
        for _ in 0..100 {
            let id = balancer.pick(&view, Hint { now, ..Hint::default() }).expect("one is eligible");
            counts[usize::from(id.0)] += 1;
        }
        counts
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten() {
        let cluster = test_cluster(&[1, 1]);
        let mut balancer = PeakEwma::new(&cluster, 1);
        balancer.observe(EndpointId(0), MS, Mono(0));
        balancer.observe(EndpointId(1), 2 * MS, Mono(0));
        assert_eq!(picks(&mut balancer, &cluster, Mono(1)), [100, 0]);
        balancer.observe(EndpointId(0), 500 * MS, Mono(2));
        assert_eq!(picks(&mut balancer, &cluster, Mono(3)), [0, 100], "a peak counts at once");
        // Quick answers bring it back slowly: after a second, a tenth of the way.
        balancer.observe(EndpointId(0), MS, Mono(1000 * MS));
        assert_eq!(picks(&mut balancer, &cluster, Mono(1000 * MS)), [0, 100]);
        // Kept at 2 ms the other one stays; the peak fades to below that within 10 s x ln 250.
        let later = Mono(60_000 * MS);
        balancer.observe(EndpointId(1), 2 * MS, later);
        assert_eq!(picks(&mut balancer, &cluster, later), [100, 0]);
    }

    #[test]
    fn an_endpoint_without_an_answer_is_as_quick_as_the_others_are() {
        let cluster = test_cluster(&[1, 1, 1]);
        let mut balancer = PeakEwma::new(&cluster, 1);
        balancer.observe(EndpointId(0), 9 * MS, Mono(0));
        balancer.observe(EndpointId(1), MS, Mono(0));
        let cost = |running: u32| {
            let (shared, idle, tried) = (SharedCluster::new(3, 1), [0; 3], Tried::NONE);
            (0..running).for_each(|_| assert!(shared.endpoint(EndpointId(2)).unwrap().try_start(u32::MAX)));
            let usable = Usable::new(&cluster, &shared, Mono(0));
            let view =
                View { cluster: &cluster, shared: &shared, usable: &usable, idle: &idle, tried: &tried };
            [0, 1, 2].map(|at| balancer.cost(&view, EndpointId(at), Mono(0)))
        };
        let [slow, quick, fresh] = cost(0);
        assert!(quick < fresh && fresh < slow, "{quick} {fresh} {slow}");
        assert!(cost(1)[2] > slow, "one request at a time is enough to learn from");
    }

    /// Of many, the quick are preferred, but no two draws see them all.
    #[test]
    fn of_many_the_quicker_of_two_takes_it() {
        let cluster = test_cluster(&[1; 10]);
        let mut balancer = PeakEwma::new(&cluster, 1);
        (0..10).for_each(|at| balancer.observe(EndpointId(at), u64::from(at + 1) * MS, Mono(0)));
        let counts = picks(&mut balancer, &cluster, Mono(0));
        assert!(counts[0] > counts[5] && counts[9] == 0, "{counts:?}");
    }

    #[test]
    fn no_latency_and_no_time_upset_it() {
        let cluster = test_cluster(&[1, 2]);
        let mut balancer = PeakEwma::new(&cluster, 1);
        for (latency, now) in [(0, 5), (u64::MAX, 5), (1, 0), (u64::MAX, u64::MAX), (0, 1)] {
            balancer.observe(EndpointId(0), latency, Mono(now));
            balancer.observe(EndpointId(7), latency, Mono(now));
            assert_eq!(picks(&mut balancer, &cluster, Mono(now)).iter().sum::<u32>(), 100);
        }
    }
}
