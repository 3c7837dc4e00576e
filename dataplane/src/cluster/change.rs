//! Changes of conditions: what is said of endpoints, and what follows from how requests went. Each is made by exactly one
//! shard or by control, raises the cluster's version, and is an event.

use super::breaker::Trial;
use super::condition::{Condition, SharedCondition};
use super::eligible::{Admin, Breaker, Health};
use super::events::{Event, Failed, What};
use super::outcome::Outcome;
use super::outlier::{Ejection, Tally, most_ejected};
use super::shared::SharedCluster;
use crate::io::Mono;
use crate::spec::{CircuitBreaker, Cluster, EndpointId, Outlier};
use crate::stats::objects::OfEndpoint;
use crate::sync::Ordering;

/// Which breaker a trial is for: an endpoint's, or the cluster's.
pub(super) type Tried = Option<EndpointId>;

impl SharedCluster {
    /// Another one than before whenever the condition of an endpoint, or the cluster's breaker, changed; whoever sees it
    /// sees that change. What changes because time passed raises nothing: [`Condition::until`] says when.
    pub fn version(&self) -> u64 {
        self.version.0.load(Ordering::Acquire)
    }
    fn changed(&self) {
        self.version.0.fetch_add(1, Ordering::Release);
    }
    fn tell(&self, endpoint: Option<EndpointId>, what: What, at: Mono) {
        self.changed();
        self.events.push(Event { cluster: self.id, endpoint, what, at });
    }
    /// Forgets what was known of an endpoint whose id another has now, which begins with `health`. Nobody may refer to the
    /// former any more.
    pub fn renew(&self, id: EndpointId, health: Health, now: Mono) {
        if let Some(condition) = self.condition_of(id) {
            condition.renew(&self.ejected.0, health, now);
            self.changed();
        }
        // One that comes back before it was all gone counts on.
        if self.is_unused(id) {
            self.counts().iter().filter_map(|counts| counts.endpoint(id)).for_each(OfEndpoint::clear);
        }
    }
    /// An endpoint is gone: if it was ejected, another may be.
    pub fn on_gone(&self, id: EndpointId) {
        if let Some(condition) = self.condition_of(id) {
            condition.ejection.readmit(&self.ejected.0, true, Mono(0));
        }
    }
    fn condition_of(&self, id: EndpointId) -> Option<&SharedCondition> {
        self.endpoint(id).map(|endpoint| &endpoint.condition)
    }

    /// What is known of an endpoint.
    pub fn condition(&self, spec: &Cluster, id: EndpointId, now: Mono) -> Option<Condition> {
        Some(self.condition_of(id)?.at(spec, now))
    }
    /// Until when an endpoint is ejected; none if it is not.
    pub fn ejected_until(&self, id: EndpointId, now: Mono) -> Option<Mono> {
        self.condition_of(id)?.ejection.until(now)
    }
    /// What the cluster's own breaker is, and when it changes by itself.
    pub fn breaker(&self, spec: &Cluster, now: Mono) -> (Breaker, Mono) {
        let rules = spec.circuit_breaker.as_ref().filter(|rules| rules.is_of_cluster());
        rules.map_or((Breaker::Closed, Mono::MAX), |rules| self.breaker.0.at(rules, now))
    }

    /// Sets what the operator says of an endpoint; false if nothing changed.
    pub fn set_admin(&self, id: EndpointId, admin: Admin, now: Mono) -> bool {
        let changed = self.condition_of(id).is_some_and(|condition| condition.set_admin(admin, now));
        if changed {
            self.changed();
        }
        changed
    }
    /// Sets what the checks say of an endpoint; false if nothing changed. One that is ejected and found good is readmitted.
    pub fn set_health(&self, id: EndpointId, health: Health, now: Mono) -> bool {
        let Some(condition) = self.condition_of(id) else { return false };
        let changed = condition.set_health(health, now);
        if changed {
            self.changed();
        }
        let readmitted = health == Health::Up && condition.ejection.readmit(&self.ejected.0, true, now);
        if readmitted {
            self.tell(Some(id), What::ReadmittedByCheck, now);
        }
        changed || readmitted
    }

    /// How an attempt at an endpoint went. Writes nothing if it went well and the one before did.
    pub(super) fn report(&self, spec: &Cluster, id: EndpointId, outcome: Outcome, now: Mono) {
        let Some(condition) = self.condition_of(id) else { return };
        if let Some(rules) = &spec.outlier {
            match outcome.is_good(&rules.failure_status) {
                Some(true) if condition.ejection.succeed() => self.changed(),
                Some(true) => {}
                None if outcome != Outcome::Overtaken => {}
                Some(false) | None => self.count_failure(spec, rules, id, outcome, now),
            }
        }
        if let Some(rules) = &spec.circuit_breaker {
            let good = outcome.is_good(&rules.failure_status);
            if rules.is_of_endpoints() {
                self.count(rules, Some(id), good, now);
            }
            if rules.is_of_cluster() {
                self.count(rules, None, good, now);
            }
        }
    }
    #[cold]
    fn count_failure(&self, spec: &Cluster, rules: &Outlier, id: EndpointId, outcome: Outcome, now: Mono) {
        let patience = spec.timeouts.response_header;
        let failures = self.condition_of(id).map_or(0, |condition| match outcome {
            Outcome::Overtaken => condition.ejection.overtaken(patience, now),
            _ => condition.ejection.fail(now),
        });
        if failures >= rules.consecutive_failures {
            self.eject(spec, rules, id, Failed::InARow(failures), now);
        }
    }
    /// Ejects an endpoint, unless it is ejected or as many as may be are.
    pub fn eject(&self, spec: &Cluster, rules: &Outlier, id: EndpointId, why: Failed, now: Mono) -> bool {
        // One that is gone gets no requests, and would take the place of one that does.
        let Some(condition) = self.condition_of(id).filter(|_| spec.has(id)) else { return false };
        let ejected = condition.ejection.eject(rules, &self.ejected.0, most_ejected(spec, rules), now);
        if let Some(Ejection { time, times, over_since }) = ejected {
            // It failed again before control came to write down that it was back.
            if let Some(since) = over_since {
                self.tell(Some(id), What::Readmitted, since);
            }
            self.tell(Some(id), What::Ejected { why, time, times }, now);
        }
        ejected.is_some()
    }
    fn count(&self, rules: &CircuitBreaker, of: Tried, good: Option<bool>, now: Mono) {
        let Some(breaker) = self.breaker_of(of) else { return };
        match good {
            Some(true) => breaker.succeed(),
            Some(false) => {
                if let Some(failures) = breaker.fail(rules, now) {
                    self.tell(of, What::Opened { failures }, now);
                }
            }
            None => {}
        }
    }
    fn breaker_of(&self, of: Tried) -> Option<&super::breaker::SharedBreaker> {
        match of {
            Some(id) => Some(&self.condition_of(id)?.breaker),
            None => Some(&self.breaker.0),
        }
    }
    /// Begins the one trial of a half-open breaker.
    pub(super) fn begin_trial(&self, rules: &CircuitBreaker, of: Tried, now: Mono) -> Option<Trial> {
        let breaker = self.breaker_of(of)?;
        // The one before may have been over for so long that the breaker is half-open again, and nobody wrote that down.
        if let Some(since) = breaker.end_silence(rules, now) {
            self.tell(of, What::OpenedBySilence, since);
        }
        let told = breaker.is_tried_again();
        let trial = breaker.begin_trial(rules, now)?;
        // Trials that decide nothing may be many.
        if told {
            self.changed()
        } else {
            self.tell(of, What::HalfOpened, now)
        }
        Some(trial)
    }
    /// A trial makes way for another, and may still decide until one begins.
    pub(super) fn yield_trial(&self, of: Tried, trial: Trial, now: Mono) -> Option<Trial> {
        let yielded = self.breaker_of(of)?.yield_trial(trial, now)?;
        self.changed();
        Some(yielded)
    }
    /// Ends a trial: well, or not, or without a result.
    pub(super) fn end_trial(
        &self,
        rules: &CircuitBreaker,
        of: Tried,
        trial: Trial,
        good: Option<bool>,
        now: Mono,
    ) {
        if !self.breaker_of(of).is_some_and(|breaker| breaker.end_trial(rules, trial, good, now)) {
            return;
        }
        match good {
            Some(true) => {
                if let Some(condition) = of.and_then(|id| self.condition_of(id)) {
                    condition.come_up(now);
                }
                self.tell(of, What::Closed, now);
            }
            Some(false) => self.tell(of, What::OpenedByTrial, now),
            // Another may begin at once.
            None => self.changed(),
        }
    }
    /// Writes down what ended because time passed: ejections, and trials of which nothing was heard.
    pub fn settle(&self, spec: &Cluster, now: Mono) {
        let rules = spec.circuit_breaker.as_ref();
        for id in spec.endpoints.iter().map(|endpoint| endpoint.id) {
            let Some(condition) = self.condition_of(id) else { continue };
            if spec.outlier.is_some() && condition.ejection.readmit(&self.ejected.0, false, now) {
                self.tell(Some(id), What::Readmitted, now);
            }
            let of_endpoints = rules.filter(|rules| rules.is_of_endpoints());
            if let Some(since) = of_endpoints.and_then(|rules| condition.breaker.end_silence(rules, now)) {
                self.tell(Some(id), What::OpenedBySilence, since);
            }
        }
        let of_cluster = rules.filter(|rules| rules.is_of_cluster());
        if let Some(since) = of_cluster.and_then(|rules| self.breaker.0.end_silence(rules, now)) {
            self.tell(None, What::OpenedBySilence, since);
        }
    }

    /// Counts a request that ended on `shard`, whose thread alone may call this.
    pub(super) fn tally(&self, shard: u16, id: EndpointId, failed: bool) {
        let Some(tallies) = self.tallies.get().and_then(|all| all.get(usize::from(shard))) else { return };
        if let Some([ended, failures]) = tallies.0.get(usize::from(id.0)) {
            ended.store(ended.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            let failures_now = failures.load(Ordering::Relaxed).wrapping_add(u64::from(failed));
            failures.store(failures_now, Ordering::Relaxed);
        }
    }
    /// What all shards together counted of an endpoint.
    pub fn tallied(&self, id: EndpointId) -> Tally {
        let of_endpoint =
            self.tallies.get().into_iter().flatten().filter_map(|tallies| tallies.0.get(usize::from(id.0)));
        of_endpoint.fold(Tally::default(), |all, [ended, failed]| Tally {
            ended: all.ended.wrapping_add(ended.load(Ordering::Relaxed)),
            failed: all.failed.wrapping_add(failed.load(Ordering::Relaxed)),
        })
    }
}
