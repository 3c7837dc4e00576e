//! Control's part in a seed whose endpoints come and go: now and then it changes the clusters, or has listeners drain and calls
//! that off, and each shard goes over when it looks into its mailbox.

use super::random::Random;
use crate::cluster::roster::Roster;
use crate::core::Shared;
use crate::io::Mono;
use crate::shard::swap::Swap;
use crate::spec::{Cluster, Curve, Drains, Endpoint, Order, Reason, Snapshot};
use std::sync::Arc;
use std::time::Duration;

/// A shard goes over within this after control told it.
const LATE_NS: u64 = 300_000_000;
/// Between two changes, once every shard has gone over.
const PAUSE_NS: u64 = 1_500_000_000;

/// The clusters of a seed while they change.
#[derive(Debug)]
pub(super) struct Churn {
    random: Random,
    /// Of drains.
    moods: Random,
    rosters: Vec<Roster>,
    /// What each cluster is drawn from.
    origins: Vec<Vec<Endpoint>>,
    present: Swap,
    swaps: u64,
    next: Mono,
    /// By shard, the swap that it runs by, and when it goes over to the last.
    shards: Vec<(u64, Mono)>,
    may_empty: bool,
    came: u64,
    went: u64,
    anew: u64,
    drained: u64,
}

impl Churn {
    pub(super) fn new(seed: u64, present: Swap, may_empty: bool) -> Self {
        let clusters = || present.snapshot.clusters.iter().flatten();
        let roster = |cluster: &Arc<Cluster>| {
            let mut roster = Roster::default();
            roster.update(cluster.endpoints.iter().map(|e| (0, e.clone())), 0, |_, _| false);
            roster
        };
        Self {
            random: Random::new(seed ^ 0x6368_7572),
            moods: Random::new(seed ^ 0x6472_6169),
            rosters: clusters().map(roster).collect(),
            origins: clusters().map(|cluster| cluster.endpoints.clone()).collect(),
            shards: vec![(0, Mono(0)); usize::from(present.snapshot.runtime.shards)],
            present,
            swaps: 0,
            next: Mono(0),
            may_empty,
            came: 0,
            went: 0,
            anew: 0,
            drained: 0,
        }
    }
    /// The last change was made.
    pub(super) fn stop(&mut self) {
        self.next = Mono::MAX;
    }
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.present.shared.clone()
    }
    /// What a shard goes over to now, if it does.
    pub(super) fn due(&mut self, shard: u16, now: Mono) -> Option<Swap> {
        let (done, at) = &mut self.shards[usize::from(shard)];
        (*done < self.swaps && now >= *at).then(|| {
            *done = self.swaps;
            self.present.clone()
        })
    }
    /// Changes the clusters if it is time to and every shard has gone along; says whether it did.
    pub(super) fn tick(&mut self, now: Mono) -> bool {
        if now < self.next || self.shards.iter().any(|(done, _)| *done < self.swaps) {
            return false;
        }
        self.swaps += 1;
        let mut next = Snapshot::clone(&self.present.snapshot);
        for at in 0..self.rosters.len() {
            let Some(spec) = next.clusters[at].clone() else { continue };
            let wanted = self.draw(at);
            next.clusters[at] = Some(Arc::new(self.change(at, &spec, wanted)));
        }
        let shared = Arc::new(self.present.shared.next(&self.present.snapshot, &next, now));
        let routes = self.present.routes.clone();
        let drains = self.drains(now);
        self.present = Swap { snapshot: Arc::new(next), routes, shared, sockets: None, drains };
        for (_, at) in &mut self.shards {
            *at = now.after(Duration::from_nanos(self.random.below(LATE_NS)));
        }
        self.next = now.after(Duration::from_nanos(self.random.between(1, PAUSE_NS)));
        true
    }
    /// What drains from now on: as before, nothing any more, or some listeners whose sockets stay for this. Half of them have
    /// time enough for all that is to end.
    fn drains(&mut self, now: Mono) -> Arc<Drains> {
        let Self { moods, present, swaps, may_empty, .. } = self;
        // Who is judged strictly is not to be sent away between two requests.
        if !*may_empty || !moods.one_in(2) {
            return Arc::clone(&present.drains);
        }
        let mut drains = Drains::default();
        if moods.one_in(2) {
            return drains.into();
        }
        for listener in present.snapshot.listeners.iter().flatten() {
            let seconds = if moods.one_in(2) { 3600 } else { moods.below(8) };
            let order = Order {
                number: *swaps as u32 * 16 + u32::from(listener.id.0),
                reason: moods.pick(&Reason::ALL),
                curve: moods.pick(&Curve::ALL),
                began: now,
                until: now.after(Duration::from_secs(seconds)),
            };
            match moods.below(3) {
                0 => {}
                1 => drains.node = Some(order),
                _ => drains.listeners.push((listener.id, order)),
            }
            self.drained += 1;
        }
        drains.into()
    }
    /// Some of a cluster's origins, each from one of two entries of a configuration.
    fn draw(&mut self, at: usize) -> Vec<(u16, Endpoint)> {
        let Self { random, origins, .. } = self;
        let origins = &origins[at];
        let sure = if self.may_empty { origins.len() } else { random.below(origins.len() as u64) as usize };
        let chosen = origins.iter().enumerate().filter(|(n, _)| *n == sure || random.one_in(2));
        let chosen: Vec<_> = chosen.map(|(_, endpoint)| endpoint.clone()).collect();
        chosen.into_iter().map(|endpoint| (random.below(2) as u16, endpoint)).collect()
    }
    fn change(&mut self, at: usize, spec: &Cluster, wanted: Vec<(u16, Endpoint)>) -> Cluster {
        let shared = self.present.shared.clusters[at].clone();
        let is_free = |id, _| shared.as_ref().is_none_or(|shared| shared.is_unused(id));
        let update = self.rosters[at].update(wanted, self.swaps, is_free);
        let mut cluster = self.rosters[at].cluster(spec);
        let value = |name: &str| std::array::from_fn(|at| name.as_bytes().get(at).copied().unwrap_or(b'0'));
        cluster.sticky = spec.sticky.as_ref().and_then(|s| s.with_endpoints(&cluster.endpoints, value).ok());
        let is_another =
            |(old, new): &(&Endpoint, &Endpoint)| old.gone && !new.gone && old.address != new.address;
        self.anew += spec.endpoints.iter().zip(&cluster.endpoints).filter(is_another).count() as u64;
        self.came += update.came as u64;
        self.went += update.went as u64;
        cluster
    }
    /// What was met.
    pub(super) fn words(&self) -> [(String, u64); 4] {
        [
            ("endpoints came", self.came),
            ("endpoints went", self.went),
            ("endpoints with another's id", self.anew),
            ("listeners that drained", self.drained),
        ]
        .map(|(what, n)| (what.to_owned(), n))
    }
}
