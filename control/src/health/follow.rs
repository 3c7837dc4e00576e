//! Who is checked: the endpoints of clusters with checks, as they come and go.

use super::schedule::offset;
use super::{Check, Checks, Initial, Room, Streak, Target};
use dataplane::spec::{Cluster, Endpoint, Snapshot};
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
            pending: false,
            gone: false,
            life: 0,
        }
    }
}

impl Checks {
    /// Checks the endpoints of `snapshot` from now on: those that stay as before, those that come as at the start, those that
    /// are gone no more. `checks` is by cluster.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, checks: &[Option<Arc<Check>>], now: Instant) {
        for target in &mut self.targets {
            let Some(cluster) = snapshot.cluster(target.cluster.id) else { continue };
            if Arc::ptr_eq(cluster, &target.cluster) {
                continue;
            }
            let (old, new) = (target.cluster.endpoints.get(target.at), cluster.endpoints.get(target.at));
            let stays = old.zip(new).is_some_and(|(old, new)| !new.gone && old.address == new.address);
            target.cluster = Arc::clone(cluster);
            target.gone |= !stays;
            if target.gone && target.wire.take().is_some() {
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
        let new = Target::new(cluster, endpoint, check);
        match self.targets.get_mut(number) {
            // What is pending of the former finds out that it is another's.
            Some(target) => {
                *target = Target { life: target.life.wrapping_add(1), pending: target.pending, ..new }
            }
            None => self.targets.push(new),
        }
        let Some(target) = self.targets.get_mut(number) else { return };
        target.due = now + wait;
        if !std::mem::replace(&mut target.pending, true) {
            self.schedule.add(target.due, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{block_on, changes, check, snapshot};
    use super::super::{Kind, Verdict};
    use super::*;
    use dataplane::spec::EndpointId;
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
