//! A circuit breaker: closed until requests fail too often in a row, then open, then half-open for one trial of the node.
//!
//! One word holds the state and until when it stays so; every change is a compare-and-swap of that word, so that of many
//! shards exactly one makes it. Time passes by itself: an open breaker whose time is over *is* half-open, and a trial of
//! which nothing was heard in time *is* an open one. Nobody has to wake up for that.

use super::eligible::Breaker;
use crate::io::Mono;
use crate::spec::CircuitBreaker;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A breaker, over all shards.
#[derive(Debug)]
pub(super) struct SharedBreaker {
    /// 0 is closed; else `until:62 | state:2`.
    word: AtomicU64,
    /// In a row, while it is closed.
    failures: AtomicU32,
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const TRYING: u64 = 2;
/// Half-open again, after a trial that decided nothing, or has not yet and makes way.
const AGAIN: u64 = 3;
const STATE_BITS: u64 = 0b11;

/// `Mono` within 62 bits: 146 years.
fn word(state: u64, until: Mono) -> u64 {
    until.0.min(u64::MAX >> 2) << 2 | state
}

/// A trial under way, by the word that it left in the breaker: while that stands nobody else has tried since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    word: u64,
    until: Mono,
}

impl Trial {
    /// When nothing that it finds counts any more.
    pub(super) fn until(self) -> Mono {
        self.until
    }
}

impl SharedBreaker {
    /// Closed.
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(CLOSED), failures: AtomicU32::new(0) }
    }

    /// Another endpoint's from now on: closed.
    pub(super) fn renew(&self) {
        self.word.store(CLOSED, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// What it is now, and until when it stays so by itself.
    pub(super) fn at(&self, rules: &CircuitBreaker, now: Mono) -> (Breaker, Mono) {
        Self::read(self.word.load(Ordering::Relaxed), rules, now)
    }
    fn read(word: u64, rules: &CircuitBreaker, now: Mono) -> (Breaker, Mono) {
        let until = Mono(word >> 2);
        match word & STATE_BITS {
            CLOSED => (Breaker::Closed, Mono::MAX),
            TRYING if now < until => (Breaker::Trying, until),
            state => {
                // Nothing was heard of a trial: open since its end.
                let until = if state == TRYING { until.after(rules.recovery_timeout) } else { until };
                if now < until { (Breaker::Open, until) } else { (Breaker::HalfOpen, Mono::MAX) }
            }
        }
    }
    fn swap(&self, from: u64, to: u64) -> bool {
        self.word.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A request went well. Writes nothing unless some failed before.
    pub(super) fn succeed(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
    /// A request failed. After how many in a row it opens with this one, if it does.
    pub(super) fn fail(&self, rules: &CircuitBreaker, now: Mono) -> Option<u32> {
        if self.word.load(Ordering::Relaxed) != CLOSED {
            return None;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opens = failures >= rules.failure_threshold
            && self.swap(CLOSED, word(OPEN, now.after(rules.recovery_timeout)));
        if opens {
            self.failures.store(0, Ordering::Relaxed);
        }
        opens.then_some(failures)
    }
    /// Whether the last trial since it opened decided nothing.
    pub(super) fn is_tried_again(&self) -> bool {
        self.word.load(Ordering::Relaxed) & STATE_BITS == AGAIN
    }
    /// Begins the one trial of a half-open breaker; none if it is not, or somebody was faster.
    pub(super) fn begin_trial(&self, rules: &CircuitBreaker, now: Mono) -> Option<Trial> {
        let before = self.word.load(Ordering::Relaxed);
        let until = now.after(rules.trial_timeout).min(Mono(u64::MAX >> 2));
        let half_open = Self::read(before, rules, now).0 == Breaker::HalfOpen;
        let trial = Trial { word: word(TRYING, until), until };
        (half_open && self.swap(before, trial.word)).then_some(trial)
    }
    /// The trial makes way: another may begin at once, and until one does this one may still decide. None if it has made way
    /// before, or its time is over.
    pub(super) fn yield_trial(&self, trial: Trial, now: Mono) -> Option<Trial> {
        let yields = trial.word & STATE_BITS == TRYING && now < trial.until;
        let yielded = Trial { word: word(AGAIN, now), ..trial };
        (yields && self.swap(trial.word, yielded.word)).then_some(yielded)
    }
    /// The trial went well, or not, or says nothing, and then another may begin at once. False if its time was over before, or
    /// another began.
    pub(super) fn end_trial(
        &self,
        rules: &CircuitBreaker,
        trial: Trial,
        good: Option<bool>,
        now: Mono,
    ) -> bool {
        let next = match good {
            Some(true) => CLOSED,
            Some(false) => word(OPEN, now.after(rules.recovery_timeout)),
            None => word(AGAIN, now),
        };
        if good == Some(true) {
            self.failures.store(0, Ordering::Relaxed);
        }
        now < trial.until && self.swap(trial.word, next)
    }
    /// Writes down that a trial of which nothing was heard is over, and when that was; for the one who does.
    pub(super) fn end_silence(&self, rules: &CircuitBreaker, now: Mono) -> Option<Mono> {
        let before = self.word.load(Ordering::Relaxed);
        let until = Mono(before >> 2);
        let over = before & STATE_BITS == TRYING && now >= until;
        (over && self.swap(before, word(OPEN, until.after(rules.recovery_timeout)))).then_some(until)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::spec::{BreakerOf, Statuses};
    use std::time::Duration;

    const RULES: CircuitBreaker = CircuitBreaker {
        of: BreakerOf::Endpoint,
        failure_threshold: 3,
        recovery_timeout: Duration::from_secs(30),
        trial_timeout: Duration::from_secs(10),
        failure_status: Statuses::SERVER_ERRORS,
    };
    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * SECOND)
    }
    /// One that opened at 100 s.
    fn open() -> SharedBreaker {
        let breaker = SharedBreaker::new();
        let opened: Vec<_> = (0..3).map(|_| breaker.fail(&RULES, at(100))).collect();
        assert_eq!(opened, [None, None, Some(3)]);
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_and_no_others() {
        let breaker = SharedBreaker::new();
        for _ in 0..5 {
            assert_eq!((breaker.fail(&RULES, at(1)), breaker.fail(&RULES, at(1))), (None, None));
            breaker.succeed();
        }
        assert_eq!(breaker.at(&RULES, at(1)), (Breaker::Closed, Mono::MAX));
        let breaker = open();
        assert_eq!(breaker.at(&RULES, at(100)), (Breaker::Open, at(130)));
        assert_eq!(breaker.fail(&RULES, at(101)), None, "what was under way moves nothing");
        breaker.succeed();
        assert_eq!(breaker.at(&RULES, Mono(at(130).0 - 1)), (Breaker::Open, at(130)));
        assert_eq!(breaker.at(&RULES, at(130)), (Breaker::HalfOpen, Mono::MAX));
        assert_eq!(breaker.begin_trial(&RULES, at(129)), None);
    }

    #[test]
    fn one_trial_decides() {
        for good in [true, false] {
            let breaker = open();
            let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
            assert_eq!(breaker.begin_trial(&RULES, at(131)), None, "there is one");
            assert_eq!(breaker.at(&RULES, at(132)), (Breaker::Trying, at(141)));
            assert_eq!(breaker.fail(&RULES, at(132)), None, "only the trial counts");
            assert!(breaker.end_trial(&RULES, trial, Some(good), at(132)));
            let after = if good { (Breaker::Closed, Mono::MAX) } else { (Breaker::Open, at(162)) };
            assert_eq!(breaker.at(&RULES, at(132)), after);
            assert!(!breaker.end_trial(&RULES, trial, Some(true), at(132)), "it was heard already");
            assert_eq!(breaker.at(&RULES, at(132)), after);
            assert!(!good || (breaker.fail(&RULES, at(133)), breaker.fail(&RULES, at(133))) == (None, None));
        }
    }

    #[test]
    fn a_trial_that_says_nothing_makes_way_for_another() {
        let breaker = open();
        let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
        assert!(breaker.end_trial(&RULES, trial, None, at(132)));
        assert_eq!(breaker.at(&RULES, at(132)).0, Breaker::HalfOpen);
        assert!(breaker.begin_trial(&RULES, at(132)).is_some());
    }

    #[test]
    fn a_trial_that_makes_way_decides_as_long_as_nobody_else_tries() {
        for good in [true, false] {
            let breaker = open();
            let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
            let yielded = breaker.yield_trial(trial, at(132)).unwrap();
            assert_eq!(breaker.yield_trial(yielded, at(132)), None, "once");
            assert_eq!(breaker.at(&RULES, at(132)).0, Breaker::HalfOpen);
            assert!(!breaker.end_trial(&RULES, trial, Some(good), at(133)), "it goes by another word now");
            assert!(breaker.end_trial(&RULES, yielded, Some(good), at(133)));
            assert_eq!(breaker.at(&RULES, at(133)).0, if good { Breaker::Closed } else { Breaker::Open });
        }
        let breaker = open();
        let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
        let yielded = breaker.yield_trial(trial, at(131)).unwrap();
        let other = breaker.begin_trial(&RULES, at(131)).unwrap();
        assert!(!breaker.end_trial(&RULES, yielded, Some(true), at(132)), "another tries");
        assert!(breaker.end_trial(&RULES, other, Some(false), at(132)));
        let breaker = open();
        let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
        assert_eq!(breaker.yield_trial(trial, at(141)), None, "too late");
        let breaker = open();
        let trial = breaker.begin_trial(&RULES, at(131)).unwrap();
        let yielded = breaker.yield_trial(trial, at(140)).unwrap();
        assert!(!breaker.end_trial(&RULES, yielded, Some(false), at(141)), "too late");
        assert_eq!(
            (breaker.end_silence(&RULES, at(141)), breaker.at(&RULES, at(141)).0),
            (None, Breaker::HalfOpen)
        );
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_opens_again() {
        let breaker = open();
        let lost = breaker.begin_trial(&RULES, at(131)).unwrap();
        assert_eq!(breaker.end_silence(&RULES, at(140)), None);
        assert_eq!(breaker.at(&RULES, at(141)), (Breaker::Open, at(171)));
        let silences = [141, 142].map(|now| breaker.end_silence(&RULES, at(now)));
        assert_eq!(silences, [Some(at(141)), None], "once");
        assert_eq!(breaker.at(&RULES, at(170)), (Breaker::Open, at(171)));
        // The clock of the shard that tried is behind.
        assert!(!breaker.end_trial(&RULES, lost, Some(true), at(140)), "too late");
        let second = breaker.begin_trial(&RULES, at(171)).unwrap();
        assert!(!breaker.end_trial(&RULES, lost, Some(true), at(140)), "that is another's");
        assert!(breaker.end_trial(&RULES, second, Some(true), at(172)));
        // The same where nobody wrote it down.
        let breaker = open();
        let lost = breaker.begin_trial(&RULES, at(131)).unwrap();
        assert_eq!((lost.until(), breaker.begin_trial(&RULES, at(170))), (at(141), None));
        assert!(!breaker.end_trial(&RULES, lost, Some(true), at(141)), "too late");
        assert!(breaker.begin_trial(&RULES, at(171)).is_some());
    }
}
