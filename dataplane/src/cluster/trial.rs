//! Picks past a breaker that is not closed: of the whole node one request tries, and what becomes of it decides.

use super::balance::Hint;
use super::breaker::Trial;
use super::eligible::{Breaker, Eligible};
use super::outcome::Outcome;
use super::{ClusterState, PickError, Tried};
use crate::io::Mono;
use crate::spec::EndpointId;

/// A request of this shard that is a trial.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnderWay {
    who: u64,
    endpoint: EndpointId,
    /// Of the endpoint's breaker, and of the cluster's; one at least.
    of_endpoint: Option<Trial>,
    of_cluster: Option<Trial>,
}

impl UnderWay {
    fn until(&self) -> Mono {
        let end = |trial: Option<Trial>| trial.map_or(Mono(0), Trial::until);
        end(self.of_endpoint).max(end(self.of_cluster))
    }
}

/// Trials that a pick may find somebody else has begun.
const LOST_TRIALS: u32 = 8;

impl ClusterState {
    /// As [`ClusterState::pick`], where the cluster's breaker or that of an endpoint is not closed, or one has just come up.
    #[cold]
    pub(super) fn pick_guarded(&mut self, tried: &Tried, hint: Hint) -> Result<EndpointId, PickError> {
        let Some(rules) = self.cluster.circuit_breaker else { return self.choose_slowly(tried, hint) };
        // What was not heard of in time decides nothing any more.
        self.trials.retain(|trial| hint.now < trial.until());
        for _ in 0..LOST_TRIALS {
            let breaker = self.usable.breaker();
            if breaker.is_shut() {
                return Err(PickError::CircuitOpen);
            }
            // Before anything is tried: where nobody can be, nothing changes.
            let endpoint = self.choose_slowly(tried, hint)?;
            let cluster_asks = breaker == Breaker::HalfOpen;
            let endpoint_asks = self.usable.eligible(endpoint) == Some(Eligible::Trial);
            if !cluster_asks && !endpoint_asks {
                return Ok(endpoint);
            }
            let begin = |of| self.shared.begin_trial(&rules, of, hint.now);
            let of_cluster = if cluster_asks { begin(None) } else { None };
            let is_ours = of_cluster.is_some() == cluster_asks;
            let of_endpoint = if is_ours && endpoint_asks { begin(Some(endpoint)) } else { None };
            if is_ours && of_endpoint.is_some() == endpoint_asks {
                self.trials.push(UnderWay { who: hint.who, endpoint, of_endpoint, of_cluster });
                return Ok(endpoint);
            }
            // Somebody else tries.
            if let Some(trial) = of_cluster {
                self.shared.end_trial(&rules, None, trial, None, hint.now);
            }
            self.end_request(endpoint);
            self.refresh(hint.now);
        }
        Err(PickError::Full)
    }

    /// How an attempt at an endpoint went; exactly once for each pick, by the same `who`.
    pub fn report(&mut self, id: EndpointId, who: u64, outcome: Outcome, now: Mono) {
        if let Some(counts) = self.counts().and_then(|counts| counts.endpoint(id)) {
            counts.ended(outcome.place());
        }
        if self.cluster.outlier.is_none() && self.cluster.circuit_breaker.is_none() {
            return;
        }
        self.decide(id, who, outcome, now);
        self.shared.report(&self.cluster, id, outcome, now);
        if let Some(rules) = &self.cluster.outlier
            && rules.failure_rate.is_some()
            && let Some(good) = outcome.is_good(&rules.failure_status)
        {
            self.shared.tally(self.shard, id, !good);
        }
    }
    /// What a trial found, as soon as that is known: its result does not wait for the end of a long answer. Nothing happens
    /// if `who` is no trial.
    pub fn decide(&mut self, id: EndpointId, who: u64, outcome: Outcome, now: Mono) {
        if !self.trials.is_empty() {
            self.end_trial(id, who, outcome, now);
        }
    }
    /// Whether a request of this shard is a trial, or was one until shortly.
    pub fn has_trials(&self) -> bool {
        !self.trials.is_empty()
    }
    /// The client of `who` has finished sending, and may be gone: if `who` is a trial, the next request may try at once. Its
    /// own answer still decides if it comes before that.
    #[cold]
    pub fn yield_trials(&mut self, who: u64, now: Mono) {
        let Self { trials, shared, .. } = self;
        for trial in trials.iter_mut().filter(|trial| trial.who == who) {
            for (of, trial) in [(Some(trial.endpoint), &mut trial.of_endpoint), (None, &mut trial.of_cluster)]
            {
                *trial = trial.map(|trial| shared.yield_trial(of, trial, now).unwrap_or(trial));
            }
        }
    }
    #[cold]
    fn end_trial(&mut self, id: EndpointId, who: u64, outcome: Outcome, now: Mono) {
        let Some(rules) = self.cluster.circuit_breaker else { return };
        let Some(at) = self.trials.iter().position(|trial| trial.who == who && trial.endpoint == id) else {
            return;
        };
        let trial = self.trials.swap_remove(at);
        let good = outcome.is_good(&rules.failure_status);
        for (of, trial) in [(Some(id), trial.of_endpoint), (None, trial.of_cluster)] {
            if let Some(trial) = trial {
                self.shared.end_trial(&rules, of, trial, good, now);
            }
        }
    }
}
