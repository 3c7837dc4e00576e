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
    /// It has nothing left, and its requests go to what it has all the same.
    Open,
    /// It has nothing left.
    Empty,
}

impl Said {
    /// What is to be said now, if that is something else.
    fn next(self, left: &Left, have_decided: impl FnOnce() -> bool) -> Option<Self> {
        let outage = if left.fails_open() { Self::Open } else { Self::Empty };
        match self {
            Self::Nothing if !left.is_nothing() => Some(Self::Available),
            Self::Nothing => have_decided().then_some(outage),
            Self::Available => left.is_nothing().then_some(outage),
            Self::Open | Self::Empty if left.is_something() => Some(Self::Available),
            // Now it is worse. That it is better again than at its worst is told when it is over.
            Self::Open if left.is_nothing() && outage == Self::Empty => Some(Self::Empty),
            Self::Open | Self::Empty => None,
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
            let Some(cluster) = cluster.as_ref().filter(|cluster| !cluster.gone) else {
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
                let goes_on = before.said == Said::Open && said == Said::Empty;
                (known.said, known.since) = (said, if goes_on { before.since } else { now });
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

/// What becomes of what comes to a cluster in an outage. Its routes may send it elsewhere (`available`).
fn then(cluster: &Cluster, left: &Left) -> &'static str {
    if left.fails_open() {
        "goes to all of its lowest tier (fail_open)"
    } else if left.draining > 0 && cluster.sticky.is_some() && !left.breaker.is_shut() {
        "is refused, unless it sticks to one that drains"
    } else {
        "is refused"
    }
}

fn tell(cluster: &Cluster, before: &Known, now: &Known, events: &mut Events) {
    let Some(left) = &now.left else { return };
    let about = |event| About { event, cluster: Arc::clone(&cluster.name), endpoint: None };
    let (active, backup) = (Some(left.active.into()), Some(left.backup.into()));
    let details = Details { active, backup, ..Details::default() };
    let name = &cluster.name;
    match (before.said, now.said) {
        (_, Said::Open | Said::Empty) => {
            let why = left.why();
            let then = then(cluster, left);
            let line =
                format!("cluster {name} has no endpoint available ({why}): what routes send to it {then}");
            let details = Details { reason: Some(why), ..details };
            events.tell(Weight::Alert, about("cluster_empty"), line, details);
        }
        (Said::Open | Said::Empty, _) => {
            let after = now.since.duration_since(before.since).as_millis();
            let line = format!("cluster {name} has an endpoint available again, after {after} ms");
            events.tell(Weight::Notice, about("cluster_available"), line, details);
        }
        _ => {}
    }
}
