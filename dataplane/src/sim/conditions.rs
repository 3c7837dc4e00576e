//! What operators and checks say of endpoints while a seed runs, and what control writes down; at random moments, as the
//! plane would do it.

use super::random::Random;
use crate::cluster::eligible::{Admin, Health};
use crate::cluster::outlier::most_ejected;
use crate::cluster::shared::SharedCluster;
use crate::core::Shared;
use crate::io::Mono;
use crate::spec::{Cluster, ClusterId, Snapshot};
use std::sync::Arc;
use std::time::Duration;

/// Control, as far as endpoints are concerned.
#[derive(Debug)]
pub(super) struct Conditions {
    random: Random,
    clusters: Vec<(Arc<Cluster>, Arc<SharedCluster>)>,
    next: Mono,
}

impl Conditions {
    /// Of a seed; `active` says that anything changes at all.
    pub(super) fn new(seed: u64, active: bool, snapshot: &Snapshot, shared: &Shared) -> Self {
        let both = snapshot.clusters.iter().zip(&shared.clusters);
        let both = both
            .filter_map(|(spec, shared)| Some((Arc::clone(spec.as_ref()?), Arc::clone(shared.as_ref()?))));
        let next = if active { Mono(0) } else { Mono::MAX };
        Self { random: Random::new(seed ^ 0x636f_6e64), clusters: both.collect(), next }
    }
    /// Does what is due, and says which cluster the shards are to look at.
    pub(super) fn tick(&mut self, now: Mono) -> Option<ClusterId> {
        if now < self.next {
            return None;
        }
        let pause = self.random.between(20, 500);
        self.next = now.after(Duration::from_millis(pause));
        let at = self.random.below(self.clusters.len() as u64) as usize;
        let (spec, shared) = &self.clusters[at];
        let before = shared.version();
        shared.settle(spec, now);
        let id = spec.endpoints[self.random.below(spec.endpoints.len() as u64) as usize].id;
        match self.random.below(8) {
            0 => {
                let admin =
                    self.random.pick(&[Admin::Ready, Admin::Ready, Admin::Ready, Admin::Drain, Admin::Maint]);
                shared.set_admin(id, admin, now);
            }
            1 => {
                let health = self.random.pick(&[Health::Up, Health::Up, Health::Down]);
                shared.set_health(id, health, now);
            }
            _ => {}
        }
        if let Some(rules) = &spec.outlier {
            let out = spec.endpoints.iter().filter(|e| shared.ejected_until(e.id, now).is_some()).count();
            assert!(out as u32 <= most_ejected(spec, rules), "{out} endpoints are ejected");
        }
        (shared.version() != before).then_some(spec.id)
    }
    /// What happened in all, by kind.
    pub(super) fn tally(shared: &Shared) -> impl Iterator<Item = (String, u64)> {
        use crate::cluster::events::What;
        What::NAMES.into_iter().zip(shared.events.counts()).map(|(name, n)| (format!("event {name}"), n))
    }
}
