//! Outages: a cluster has nothing for new requests, and has something again. Each is told once, whatever the reasons are:
//! checks, live traffic, breakers, operators, or names that lead nowhere.

use crate::events::{About, Details, Events, Weight};
use crate::health::Checks;
use dataplane::cluster::left::Left;
use dataplane::plane::Plane;
use dataplane::spec::{Cluster, ClusterId, Snapshot};
use std::sync::Arc;
use tokio::time::Instant;

/// What was said of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Its endpoints are down until their first checks, which have not decided.
    Nothing,
    /// Or nothing was wrong at the start.
    Available,
    Empty,
}

impl Said {
    /// What is to be said now, if that is something else.
    fn next(self, left: &Left, have_decided: impl FnOnce() -> bool) -> Option<Self> {
        match self {
            Self::Nothing if !left.is_nothing() => Some(Self::Available),
            Self::Nothing => have_decided().then_some(Self::Empty),
            Self::Available => left.is_nothing().then_some(Self::Empty),
            Self::Empty => left.is_something().then_some(Self::Available),
        }
    }
}

/// What is known of one cluster.
#[derive(Debug, Clone, Copy)]
struct Known {
    said: Said,
    since: Instant,
    /// As it was last looked at.
    left: Option<Left>,
}

/// Which clusters have nothing left.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    /// By cluster.
    known: Vec<Option<Known>>,
}

impl Outages {
    /// Looks at every cluster of which something may have changed.
    pub(crate) fn look(&mut self, plane: &Plane, snapshot: &Snapshot, checks: &Checks, events: &mut Events) {
        let now = Instant::now();
        self.known.resize(self.known.len().max(snapshot.clusters.len()), None);
        for (cluster, known) in snapshot.clusters.iter().zip(&mut self.known) {
            let Some(cluster) = cluster else {
                *known = None;
                continue;
            };
            let begin = || Known {
                said: if cluster.starts_down { Said::Nothing } else { Said::Available },
                since: now,
                left: None,
            };
            let known = known.get_or_insert_with(begin);
            let left = match &known.left {
                Some(before) => plane.left_since(cluster.id, before),
                None => plane.left(cluster.id),
            };
            known.left = left.or(known.left);
            let Some(left) = known.left else { continue };
            let before = *known;
            if let Some(said) = before.said.next(&left, || checks.have_decided(cluster.id)) {
                (known.said, known.since) = (said, now);
                tell(cluster, &before, known, events);
            }
        }
    }

    /// The endpoints of a cluster are others: what was seen of it holds no more.
    pub(crate) fn forget(&mut self, cluster: ClusterId) {
        if let Some(Some(known)) = self.known.get_mut(usize::from(cluster.0)) {
            known.left = None;
        }
    }
}

fn tell(cluster: &Cluster, before: &Known, now: &Known, events: &mut Events) {
    let Some(left) = &now.left else { return };
    let about = |event| About { event, cluster: Arc::clone(&cluster.name), endpoint: None };
    let (active, backup) = (Some(left.active.into()), Some(left.backup.into()));
    let details = Details { active, backup, ..Details::default() };
    let name = &cluster.name;
    match (before.said, now.said) {
        (_, Said::Empty) => {
            let then = match cluster.fail_open {
                true => "requests go to all of its lowest tier (fail_open)",
                false => "requests are answered 503",
            };
            let why = left.why();
            let line = format!("cluster {name} has no endpoint available ({why}): {then}");
            let details = Details { reason: Some(why), ..details };
            events.tell(Weight::Alert, about("cluster_empty"), line, details);
        }
        (Said::Empty, _) => {
            let after = now.since.duration_since(before.since).as_millis();
            let line = format!("cluster {name} has an endpoint available again, after {after} ms");
            events.tell(Weight::Notice, about("cluster_available"), line, details);
        }
        _ => {}
    }
}
