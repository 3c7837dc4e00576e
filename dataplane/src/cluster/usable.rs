//! Which endpoints of a cluster the next pick chooses among, as one shard last saw it: those that may be used, of the first
//! tier that has any.
//!
//! A pick compares two numbers and looks at no endpoint: the cluster's version, which every change of a condition raises,
//! and the time at which one changes by itself. Only when either says so are all conditions read again.

use super::condition::Condition;
use super::eligible::{Breaker, Eligible, Why};
use super::shared::SharedCluster;
use crate::io::Mono;
use crate::spec::{Cluster, Endpoint, EndpointId};

/// The usable endpoints of a cluster, as one shard sees them.
#[derive(Debug)]
pub struct Usable {
    /// The version that was looked at.
    version: u64,
    /// Nothing changes by itself before this.
    until: Mono,
    /// The cluster's own breaker.
    breaker: Breaker,
    /// Some of the chosen endpoints are half-open or have just come up, or the cluster's breaker is not closed: a pick may be
    /// a trial, or none, or go to another one.
    guarded: bool,
    /// Those of the chosen ones that came up a short time ago, and when; by id.
    slow: Vec<(EndpointId, Mono)>,
    /// When a breaker lets the next request try, where breakers leave nothing to choose; else never.
    reopens: Mono,
    /// By endpoint: what it may be used for.
    eligible: Box<[Eligible]>,
    /// By endpoint: whether picks choose among it.
    choices: Box<[Choice]>,
    count: u32,
}

/// Whether picks choose an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    No,
    /// As long as it is below its limits.
    Limited,
    /// It has no limit.
    Free,
}

impl Usable {
    /// Of a cluster at this moment.
    pub fn new(cluster: &Cluster, shared: &SharedCluster, now: Mono) -> Self {
        let endpoints = cluster.endpoints.len();
        let eligible = vec![Eligible::Yes; endpoints].into();
        let mut usable = Self {
            version: 0,
            until: Mono::MAX,
            breaker: Breaker::Closed,
            guarded: false,
            slow: Vec::new(),
            reopens: Mono::MAX,
            eligible,
            choices: vec![Choice::No; endpoints].into(),
            count: 0,
        };
        usable.look(cluster, shared, now);
        usable
    }

    /// Whether nothing changed since the last look.
    pub fn is_fresh(&self, shared: &SharedCluster, now: Mono) -> bool {
        self.version == shared.version() && now < self.until
    }

    /// Looks at every endpoint; off the steady path.
    pub fn look(&mut self, cluster: &Cluster, shared: &SharedCluster, now: Mono) {
        // Before the conditions: what changes while they are read raises the version again.
        self.version = shared.version();
        let (breaker, mut until) = shared.breaker(cluster, now);
        let (mut shut_until, mut is_shut) = (until, breaker.is_shut());
        let condition = |id: EndpointId| shared.condition(cluster, id, now);
        for (endpoint, eligible) in cluster.endpoints.iter().zip(&mut self.eligible) {
            let Some(condition) = condition(endpoint.id) else { continue };
            *eligible = condition.eligible();
            until = until.min(condition.until);
            if *eligible == Eligible::No(Why::BreakerOpen) && endpoint.weight > 0 {
                is_shut = true;
                shut_until = shut_until.min(condition.until);
            }
        }
        let eligible = |endpoint: &Endpoint| self.eligible[usize::from(endpoint.id.0)];
        let takes_new = |endpoint: &Endpoint| eligible(endpoint).takes_new();
        self.count = choose(&mut self.choices, &cluster.endpoints, takes_new);
        if self.count == 0 && cluster.fail_open {
            let trusted = |endpoint: &Endpoint| {
                condition(endpoint.id)
                    .is_some_and(|condition| condition.trusted().eligible() == Eligible::Yes)
            };
            choose(&mut self.choices, &cluster.endpoints, trusted);
        }
        let chosen = |endpoint: &&Endpoint| self.choices[usize::from(endpoint.id.0)] != Choice::No;
        let mut chosen = cluster.endpoints.iter().filter(chosen);
        self.guarded = breaker != Breaker::Closed || chosen.any(|e| eligible(e) == Eligible::Trial);
        self.slow.clear();
        if !cluster.slow_start.is_zero() {
            until = until.min(self.find_slow(cluster, condition, now));
        }
        (self.until, self.breaker) = (until, breaker);
        self.reopens = if is_shut { shut_until } else { Mono::MAX };
    }

    /// Finds the chosen endpoints that came up a short time ago, and says when the first of them has its whole share.
    fn find_slow(
        &mut self,
        cluster: &Cluster,
        condition: impl Fn(EndpointId) -> Option<Condition>,
        now: Mono,
    ) -> Mono {
        let mut until = Mono::MAX;
        for endpoint in cluster.endpoints.iter().filter(|e| self.choices[usize::from(e.id.0)] != Choice::No) {
            let since = condition(endpoint.id).map_or(Mono(0), |condition| condition.since);
            let whole = since.after(cluster.slow_start);
            if since > Mono(0) && now < whole {
                self.slow.push((endpoint.id, since));
                until = until.min(whole);
            }
        }
        self.guarded |= !self.slow.is_empty();
        until
    }
    /// When an endpoint came up that does not have its whole share yet.
    pub(super) fn slow_since(&self, id: EndpointId) -> Option<Mono> {
        let at = self.slow.binary_search_by_key(&id, |(slow, _)| *slow).ok()?;
        self.slow.get(at).map(|(_, since)| *since)
    }

    /// Whether a pick may be a trial, must not be made, or may have to be made again.
    pub(super) fn is_guarded(&self) -> bool {
        self.guarded
    }
    /// The cluster's own breaker.
    pub fn breaker(&self) -> Breaker {
        self.breaker
    }
    /// Where breakers keep requests from all that could take them: when one of them lets the next try, as far as is known;
    /// else `None`.
    pub fn reopens(&self) -> Option<Mono> {
        let shut = self.breaker == Breaker::Open || self.breaker == Breaker::Trying;
        (self.reopens < Mono::MAX && (shut || self.choices.iter().all(|choice| *choice == Choice::No)))
            .then_some(self.reopens)
    }
    /// Where picks may choose none: when that changes by itself, as the first ejection ends; `None` where it does not.
    pub fn returns(&self) -> Option<Mono> {
        (self.count == 0 && self.until < Mono::MAX).then_some(self.until)
    }
    /// Whether picks may choose an endpoint, as far as its limits allow: it may be used, has weight, and is of the tier in
    /// use; or nothing may be used, and the cluster fails open to it.
    pub fn contains(&self, id: EndpointId) -> bool {
        self.choice(id) != Choice::No
    }
    pub(super) fn choice(&self, id: EndpointId) -> Choice {
        self.choices.get(usize::from(id.0)).copied().unwrap_or(Choice::No)
    }
    /// What an endpoint may be used for, whatever its tier and weight.
    pub fn eligible(&self, id: EndpointId) -> Option<Eligible> {
        self.eligible.get(usize::from(id.0)).copied()
    }
    /// Endpoints of the tier in use that may be used and have weight; 0 where picks have none, or only those that the cluster
    /// fails open to, or its breaker is open.
    pub fn count(&self) -> u32 {
        if self.breaker.is_shut() { 0 } else { self.count }
    }
}

/// Chooses those with weight that `may` be used, of the first tier that has any; how many.
fn choose(choices: &mut [Choice], endpoints: &[Endpoint], may: impl Fn(&Endpoint) -> bool) -> u32 {
    let may = |endpoint: &&Endpoint| endpoint.weight > 0 && may(endpoint);
    let tier = endpoints.iter().filter(may).map(|endpoint| endpoint.priority).min();
    let mut count = 0;
    for (endpoint, choice) in endpoints.iter().zip(choices) {
        let limited = endpoint.max_requests != u32::MAX || endpoint.max_connections != u32::MAX;
        let chosen = Some(endpoint.priority) == tier && may(&endpoint);
        *choice = match (chosen, limited) {
            (false, _) => Choice::No,
            (true, true) => Choice::Limited,
            (true, false) => Choice::Free,
        };
        count += u32::from(chosen);
    }
    count
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::eligible::{Admin, Health};
    use crate::cluster::test_cluster;

    const NOW: Mono = Mono(1);

    /// Two endpoints of tier 0, two of tier 1, one of tier 7 and one without weight.
    fn tiers() -> (Cluster, SharedCluster) {
        let mut cluster = test_cluster(&[1, 1, 1, 1, 1, 0]);
        for (endpoint, tier) in cluster.endpoints.iter_mut().zip([0, 0, 1, 1, 7, 0]) {
            endpoint.priority = tier;
        }
        let shared = SharedCluster::new(cluster.endpoints.len(), 1);
        (cluster, shared)
    }

    fn chosen(usable: &Usable) -> Vec<u16> {
        (0..6).filter(|id| usable.contains(EndpointId(*id))).collect()
    }

    #[test]
    fn the_first_tier_with_a_usable_endpoint_is_used() {
        let (cluster, shared) = tiers();
        let mut usable = Usable::new(&cluster, &shared, NOW);
        assert_eq!((chosen(&usable), usable.count()), (vec![0, 1], 2));
        // What goes down or comes up, and what is chosen then.
        let steps: [(u16, Health, &[u16]); 7] = [
            (1, Health::Down, &[0]),
            (0, Health::Down, &[2, 3]),
            (2, Health::Down, &[3]),
            (3, Health::Down, &[4]),
            (4, Health::Down, &[]),
            (2, Health::Up, &[2]),
            (1, Health::Up, &[1]),
        ];
        for (id, health, expected) in steps {
            assert!(shared.set_health(EndpointId(id), health, NOW) && !usable.is_fresh(&shared, NOW));
            usable.look(&cluster, &shared, NOW);
            assert!(usable.is_fresh(&shared, NOW));
            assert_eq!(
                (chosen(&usable), usable.count()),
                (expected.to_vec(), u32::try_from(expected.len()).unwrap())
            );
        }
        assert!(!shared.set_health(EndpointId(1), Health::Up, NOW) && usable.is_fresh(&shared, NOW));
    }

    #[test]
    fn failing_open_obeys_the_operator() {
        let (mut cluster, shared) = tiers();
        cluster.fail_open = true;
        let mut usable = Usable::new(&cluster, &shared, NOW);
        (0..5).for_each(|id| assert!(shared.set_health(EndpointId(id), Health::Down, NOW)));
        usable.look(&cluster, &shared, NOW);
        assert_eq!((chosen(&usable), usable.count()), (vec![0, 1], 0), "the first tier, though it is down");
        assert!(
            shared.set_admin(EndpointId(0), Admin::Maint, Mono(1))
                && shared.set_admin(EndpointId(1), Admin::Drain, Mono(1))
        );
        usable.look(&cluster, &shared, NOW);
        assert_eq!(chosen(&usable), [2, 3], "neither in maintenance nor draining");
        (2..5).for_each(|id| assert!(shared.set_admin(EndpointId(id), Admin::Maint, Mono(1))));
        usable.look(&cluster, &shared, NOW);
        assert_eq!(chosen(&usable), [0; 0]);
    }

    #[test]
    fn those_who_stick_may_go_where_others_may_not() {
        let (cluster, shared) = tiers();
        let mut usable = Usable::new(&cluster, &shared, NOW);
        shared.set_admin(EndpointId(0), Admin::Drain, Mono(1));
        usable.look(&cluster, &shared, NOW);
        assert_eq!(usable.eligible(EndpointId(0)), Some(Eligible::StickyOnly));
        assert_eq!(usable.eligible(EndpointId(2)), Some(Eligible::Yes), "of another tier");
        assert_eq!(usable.eligible(EndpointId(6)), None);
        assert_eq!(chosen(&usable), [1]);
    }
}
