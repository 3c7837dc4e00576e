//! Who is checked: the endpoints of clusters with checks, as they come and go.

use super::schedule::offset;
use super::{Check, Checks, Initial, Room, Streak, Target};
use dataplane::spec::{Cluster, ClusterId, Endpoint, EndpointId, Snapshot};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Target {
    fn new(cluster: &Arc<Cluster>, endpoint: &Endpoint, check: &Arc<Check>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            at: endpoint.id.0.into(),
            check: Arc::clone(check),
            streak: Streak::new(check.initial),
            last: None,
            wire: None,
            due: Instant::now(),
            running: false,
            gone: false,
            life: 0,
        }
    }
}

impl Checks {
    /// Checks the endpoints of `snapshot` from now on: those that stay as before, those that come as at the start, those that
    /// are gone no more. `checks` is by cluster; one that is another than before is made at once. Returns the endpoints that are
    /// checked no more and still there: nobody says any longer that they are down.
    pub(crate) fn follow(
        &mut self,
        snapshot: &Snapshot,
        checks: &[Option<Arc<Check>>],
        now: Instant,
    ) -> Vec<(ClusterId, EndpointId)> {
        let mut released = Vec::new();
        for (number, target) in self.targets.iter_mut().enumerate().filter(|(_, target)| !target.gone) {
            let cluster = snapshot.cluster(target.cluster.id);
            let check = checks.get(usize::from(target.cluster.id.0)).and_then(Option::as_ref);
            let new = cluster.and_then(|cluster| cluster.endpoints.get(target.at));
            let old = target.cluster.endpoints.get(target.at);
            let stays = old.zip(new).is_some_and(|(old, new)| !new.gone && old.address == new.address);
            if let Some(cluster) = cluster.filter(|cluster| !Arc::ptr_eq(cluster, &target.cluster)) {
                target.cluster = Arc::clone(cluster);
            }
            match check {
                Some(check) if stays => {
                    if !Arc::ptr_eq(check, &target.check) {
                        target.check = Arc::clone(check);
                        if !target.running {
                            target.due = now;
                            self.schedule.add(now, number);
                        }
                    }
                    continue;
                }
                None if stays => released.extend(new.map(|endpoint| (target.cluster.id, endpoint.id))),
                _ => {}
            }
            target.gone = true;
            if target.wire.take().is_some() {
                self.kept -= 1;
            }
        }
        for cluster in snapshot.clusters.iter().flatten() {
            let Some(check) = checks.get(usize::from(cluster.id.0)).and_then(Option::as_ref) else {
                continue;
            };
            for endpoint in cluster.present() {
                self.begin(cluster, endpoint, check, now);
            }
        }
        let there = self.targets.iter().filter(|target| !target.gone).count();
        self.room = Room::of(there, self.descriptors);
        self.clusters.clone_from(&snapshot.clusters);
        released
    }

    /// Of a configuration that was read anew.
    pub(crate) fn set_descriptors(&mut self, descriptors: u64) {
        self.descriptors = descriptors;
    }

    /// Whether an endpoint served before anything checked it.
    fn has_served(&self, cluster: &Cluster, endpoint: &Endpoint) -> bool {
        let before = self.clusters.get(usize::from(cluster.id.0)).and_then(Option::as_ref);
        before.is_some_and(|before| before.has(endpoint.id) && !before.starts_down)
    }

    /// Begins to check an endpoint, unless it is checked already.
    fn begin(&mut self, cluster: &Arc<Cluster>, endpoint: &Endpoint, check: &Arc<Check>, now: Instant) {
        let number = *self.places.entry((cluster.id, endpoint.id)).or_insert(self.targets.len());
        if self.targets.get(number).is_some_and(|target| !target.gone) {
            return;
        }
        let wait = match check.initial {
            Initial::Probing => Duration::ZERO,
            Initial::Up | Initial::Down => offset(&cluster.name, &endpoint.name, check.interval),
        };
        let mut new = Target::new(cluster, endpoint, check);
        if check.initial == Initial::Down && self.has_served(cluster, endpoint) {
            new.streak = Streak::new(Initial::Up);
        }
        match self.targets.get_mut(number) {
            // What runs of the former finds out that it is another's, and what was scheduled for it is due no more.
            Some(target) => {
                *target = Target { life: target.life.wrapping_add(1), running: target.running, ..new }
            }
            None => self.targets.push(new),
        }
        let Some(target) = self.targets.get_mut(number) else { return };
        target.due = now + wait;
        if !target.running {
            self.schedule.add(target.due, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{block_on, changes, check, snapshot};
    use super::super::{Kind, Verdict};
    use super::*;
    use tokio::net::TcpListener;

    /// The same cluster, with other endpoints under other ids.
    fn with(before: &Snapshot, change: impl FnOnce(&mut Cluster)) -> Arc<Snapshot> {
        let mut next = before.clone();
        let mut cluster = (**next.clusters[0].as_ref().unwrap()).clone();
        change(&mut cluster);
        next.clusters[0] = Some(Arc::new(cluster));
        Arc::new(next)
    }

    #[test]
    fn who_comes_is_checked_and_who_is_gone_is_not() {
        block_on(async {
            let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let two = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = |listener: &TcpListener| listener.local_addr().unwrap();
            let first = snapshot(&[at(&one).to_string()]);
            let specs = [Some(check(Kind::Tcp, Initial::Probing))];
            let mut checks = Checks::new(&first, &specs, 100, Instant::now());
            assert_eq!(changes(&mut checks, 1).await, [(0, true, "layer4_passed")]);
            let address = dataplane::io::SocketAddress::from(at(&two));
            let next = with(&first, |cluster| {
                cluster.endpoints[0].gone = true;
                cluster.endpoints.push(Endpoint::new(EndpointId(1), "two", address.into()));
            });
            checks.follow(&next, &specs, Instant::now());
            assert_eq!(changes(&mut checks, 1).await, [(1, true, "layer4_passed")]);
            let gone = checks.targets[0].last.clone().map(|last| last.ended);
            // The id of the first is the second's own address now, under the check of whatever was pending.
            let last = with(&next, |cluster| {
                cluster.endpoints[0] = Endpoint::new(EndpointId(0), "again", address.into());
                cluster.endpoints[1].gone = true;
            });
            checks.follow(&last, &specs, Instant::now());
            assert_eq!(changes(&mut checks, 1).await, [(0, true, "layer4_passed")]);
            let target = &checks.targets[0];
            assert!(target.life == 1 && target.last.as_ref().map(|last| last.ended) > gone);
            assert!(matches!(target.last.as_ref().unwrap().verdict, Verdict::Passed(_)));
            assert_eq!(checks.targets.len(), 2);
        });
    }
}
