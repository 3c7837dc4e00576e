//! What a cluster has left for new requests, and when that is nothing: one answer, whatever the reasons.

use super::eligible::{Admin, Breaker, Eligible, Why};
use super::shared::SharedCluster;
use crate::io::Mono;
use crate::spec::Cluster;

/// What a cluster has for new requests at a moment. Endpoints without weight are not counted, for they get none anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Endpoints of the lowest tier that may get new requests.
    pub active: u32,
    /// Those of the other tiers.
    pub backup: u32,
    /// Those of both that may get as many as come, and of which something says that they work: none is half-open, or back
    /// from an ejection only because its time was over.
    pub sure: u32,
    /// Those that may get none, by what stands against them.
    pub draining: u32,
    pub maint: u32,
    pub down: u32,
    pub ejected: u32,
    pub breaker_open: u32,
    /// Those that have no weight, and are counted nowhere else.
    pub weightless: u32,
    /// Those that a cluster which fails open uses although nothing may get new requests.
    pub trusted: u32,
    /// The cluster's own breaker.
    pub breaker: Breaker,
    /// The cluster's version that was looked at, and before when nothing changes by itself.
    version: u64,
    until: Mono,
}

impl Left {
    /// Of a cluster at this moment; looks at every endpoint.
    pub fn of(cluster: &Cluster, shared: &SharedCluster, now: Mono) -> Self {
        // Before the conditions: what changes while they are read raises the version again.
        let version = shared.version();
        let (breaker, until) = shared.breaker(cluster, now);
        let mut left = Self {
            active: 0,
            backup: 0,
            sure: 0,
            draining: 0,
            maint: 0,
            down: 0,
            ejected: 0,
            breaker_open: 0,
            weightless: 0,
            trusted: 0,
            breaker,
            version,
            until,
        };
        let weightless = cluster.present().filter(|endpoint| endpoint.weight == 0).count();
        left.weightless = u32::try_from(weightless).unwrap_or(u32::MAX);
        let weighed = || cluster.endpoints.iter().filter(|endpoint| endpoint.weight > 0);
        let first = weighed().map(|endpoint| endpoint.priority).min();
        for endpoint in weighed() {
            let Some(condition) = shared.condition(cluster, endpoint.id, now) else { continue };
            left.until = left.until.min(condition.until);
            let eligible = condition.eligible();
            let count = match eligible {
                Eligible::Yes | Eligible::Trial if Some(endpoint.priority) == first => &mut left.active,
                Eligible::Yes | Eligible::Trial => &mut left.backup,
                Eligible::StickyOnly => &mut left.draining,
                Eligible::No(Why::Maint) => &mut left.maint,
                Eligible::No(Why::Down) => &mut left.down,
                Eligible::No(Why::Ejected) => &mut left.ejected,
                Eligible::No(Why::BreakerOpen) if condition.admin == Admin::Drain => &mut left.draining,
                Eligible::No(Why::BreakerOpen) => &mut left.breaker_open,
            };
            *count += 1;
            left.trusted += u32::from(cluster.fail_open && condition.trusted().eligible() == Eligible::Yes);
            left.sure += u32::from(eligible == Eligible::Yes && condition.proven);
        }
        left
    }

    /// Whether nothing changed since.
    pub fn is_fresh(&self, shared: &SharedCluster, now: Mono) -> bool {
        self.version == shared.version() && now < self.until
    }

    /// Whether an outage begins: nothing may get new requests.
    pub fn is_nothing(&self) -> bool {
        self.active + self.backup == 0 || self.breaker.is_shut()
    }
    /// Whether an outage ends: something works, as far as anybody can tell. A trial, or an endpoint that is back because its
    /// time was over, is no sign of it yet.
    pub fn is_something(&self) -> bool {
        self.sure > 0 && self.breaker == Breaker::Closed
    }
    /// Whether requests that come in an outage are sent on all the same, because the cluster fails open.
    pub fn fails_open(&self) -> bool {
        self.trusted > 0 && !self.breaker.is_shut()
    }

    /// Why what is not left is not, in words: `2 down, 1 ejected`.
    pub fn why(&self) -> String {
        if self.breaker.is_shut() {
            return "its circuit breaker is open".to_owned();
        }
        let reasons = [
            (self.down, "down"),
            (self.ejected, "ejected"),
            (self.breaker_open, "with an open circuit breaker"),
            (self.draining, "draining"),
            (self.maint, "in maintenance"),
            (self.weightless, "of weight 0"),
        ];
        let reasons: Vec<_> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
        if reasons.is_empty() { "it has none".to_owned() } else { reasons.join(", ") }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::eligible::Health;
    use crate::cluster::events::Failed;
    use crate::cluster::outcome::Outcome;
    use crate::cluster::test_cluster;
    use crate::cluster::usable::Usable;
    use crate::spec::{BreakerOf, CircuitBreaker, EndpointId as Id, Outlier, Statuses};
    use std::time::Duration;

    const RULES: Outlier = Outlier {
        consecutive_failures: 1,
        failure_rate: None,
        minimum_volume: 20,
        window: Duration::from_secs(10),
        ejection_time: Duration::from_secs(1),
        max_ejection_time: Duration::from_secs(1),
        max_ejected_percent: 100,
        failure_status: Statuses::SERVER_ERRORS,
    };

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }
    /// Active, backup, whether that is nothing, whether it is something, and why.
    fn seen(cluster: &Cluster, shared: &SharedCluster, now: Mono) -> (u32, u32, bool, bool, String) {
        let left = Left::of(cluster, shared, now);
        (left.active, left.backup, left.is_nothing(), left.is_something(), left.why())
    }

    #[test]
    fn every_reason_counts_and_is_named() {
        let mut cluster = test_cluster(&[1, 1, 1, 1, 0]);
        cluster.endpoints[3].priority = 1;
        cluster.outlier = Some(RULES);
        let shared = SharedCluster::new(5, 1);
        let (weightless, why) = ("1 of weight 0", |why: &str| format!("{why}, 1 of weight 0"));
        assert_eq!(
            seen(&cluster, &shared, at(1)),
            (3, 1, false, true, weightless.to_owned()),
            "all are there"
        );
        shared.set_health(Id(0), Health::Down, at(1));
        shared.set_admin(Id(1), Admin::Maint, at(1));
        shared.set_admin(Id(2), Admin::Drain, at(1));
        let three = why("1 down, 1 draining, 1 in maintenance");
        assert_eq!(seen(&cluster, &shared, at(1)), (0, 1, false, true, three));
        assert!(shared.eject(&cluster, &RULES, Id(3), Failed::InARow(1), at(1)));
        let four = why("1 down, 1 ejected, 1 draining, 1 in maintenance");
        assert_eq!(seen(&cluster, &shared, at(1)), (0, 0, true, false, four));
        shared.set_health(Id(0), Health::Up, at(1));
        assert_eq!(seen(&cluster, &shared, at(1)).0, 1);
        let nobody = test_cluster(&[]);
        assert_eq!(seen(&nobody, &shared, at(1)), (0, 0, true, false, "it has none".to_owned()));
        let mut weightless = test_cluster(&[0, 0, 0]);
        weightless.endpoints[1].gone = true;
        assert_eq!(seen(&weightless, &shared, at(1)), (0, 0, true, false, "2 of weight 0".to_owned()));
    }

    /// It does exactly when picks have something to choose then: of any tier, but not past operators and breakers.
    #[test]
    fn whether_it_fails_open_is_what_picks_do() {
        let rules = CircuitBreaker {
            failure_threshold: 1,
            recovery_timeout: Duration::from_secs(1),
            trial_timeout: Duration::from_secs(5),
            of: BreakerOf::Both,
            failure_status: Statuses::SERVER_ERRORS,
        };
        let mut cluster = test_cluster(&[1, 1, 0]);
        (cluster.fail_open, cluster.circuit_breaker) = (true, Some(rules));
        cluster.endpoints[1].priority = 1;
        let shared = SharedCluster::new(3, 1);
        let is = |now| {
            let left = Left::of(&cluster, &shared, now);
            let usable = Usable::new(&cluster, &shared, now);
            let picks = !usable.breaker().is_shut() && (0..3).any(|id| usable.contains(Id(id)));
            assert_eq!(left.is_nothing(), usable.count() == 0);
            assert!(!left.is_nothing() || left.fails_open() == picks, "{left:?} {usable:?}");
            (left.is_nothing(), left.fails_open())
        };
        (0..3).for_each(|id| assert!(shared.set_health(Id(id), Health::Down, at(1))));
        assert_eq!(is(at(1)), (true, true), "all are down");
        shared.set_admin(Id(0), Admin::Maint, at(1));
        assert_eq!(is(at(1)), (true, true), "the other tier");
        shared.set_admin(Id(1), Admin::Drain, at(1));
        assert_eq!(is(at(1)), (true, false), "what the operator said holds");
        shared.set_admin(Id(1), Admin::Ready, at(1));
        assert_eq!(is(at(1)), (true, true));
        shared.report(&cluster, Id(1), Outcome::Lost, at(2));
        assert_eq!(is(at(2)), (true, false), "so do breakers");
        assert_eq!(is(at(3)), (true, false), "one may try, but it is still down");
        shared.set_health(Id(1), Health::Up, at(3));
        assert!(!is(at(3)).0);
    }

    /// An outage does not end because time passed: a request has to go well.
    #[test]
    fn who_is_back_by_time_proves_itself_by_a_request() {
        let mut cluster = test_cluster(&[1]);
        cluster.outlier = Some(RULES);
        let shared = SharedCluster::new(1, 1);
        let is = |now| {
            let left = Left::of(&cluster, &shared, now);
            (left.is_nothing(), left.is_something())
        };
        for round in 0..3 {
            let start = round * 10;
            shared.report(&cluster, Id(0), Outcome::Lost, at(start + 1));
            assert_eq!(is(at(start + 1)), (true, false));
            assert_eq!(is(at(start + 2)), (false, false), "nobody wrote it down yet");
            shared.settle(&cluster, at(start + 2));
            assert_eq!(is(at(start + 2)), (false, false));
        }
        let before = Left::of(&cluster, &shared, at(30));
        shared.report(&cluster, Id(0), Outcome::Answered(200), at(30));
        assert!(!before.is_fresh(&shared, at(30)), "it is told");
        assert_eq!(is(at(30)), (false, true));
        let before = Left::of(&cluster, &shared, at(30));
        shared.report(&cluster, Id(0), Outcome::Answered(200), at(30));
        assert!(before.is_fresh(&shared, at(30)), "and nothing is written any more");
        // A check is as good as a request.
        shared.report(&cluster, Id(0), Outcome::Lost, at(31));
        assert_eq!(is(at(31)), (true, false));
        assert!(shared.set_health(Id(0), Health::Up, at(31)));
        assert_eq!(is(at(31)), (false, true));
    }

    #[test]
    fn a_trial_does_not_end_an_outage_and_its_success_does() {
        let rules = CircuitBreaker {
            failure_threshold: 1,
            recovery_timeout: Duration::from_secs(1),
            trial_timeout: Duration::from_secs(5),
            of: BreakerOf::Cluster,
            failure_status: Statuses::SERVER_ERRORS,
        };
        for of in [BreakerOf::Cluster, BreakerOf::Endpoint] {
            let rules = CircuitBreaker { of, ..rules };
            let mut cluster = test_cluster(&[1]);
            cluster.circuit_breaker = Some(rules);
            let shared = SharedCluster::new(1, 1);
            let whose = (of == BreakerOf::Endpoint).then_some(Id(0));
            let is = |now| {
                let left = Left::of(&cluster, &shared, now);
                (left.is_nothing(), left.is_something())
            };
            assert_eq!(is(at(1)), (false, true));
            shared.report(&cluster, Id(0), Outcome::Lost, at(1));
            let left = Left::of(&cluster, &shared, at(1));
            assert!(left.is_nothing() && !left.is_something() && left.why().contains("circuit breaker"));
            assert!(left.is_fresh(&shared, at(1)) && !left.is_fresh(&shared, at(2)), "it half-opens");
            assert_eq!(is(at(2)), (false, false));
            let trial = shared.begin_trial(&rules, whose, at(2)).unwrap();
            assert_eq!(is(at(2)), (true, false));
            shared.end_trial(&rules, whose, trial, Some(true), at(3));
            assert_eq!(is(at(3)), (false, true));
        }
    }
}
