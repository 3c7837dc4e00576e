//! The wheel against a sorted map of deadlines.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const TICK: u64 = 1 << TICK_SHIFT;

fn fired(wheel: &mut TimerWheel, now: Mono) -> Vec<u64> {
    let mut keys = Vec::new();
    assert!(wheel.advance(now, usize::MAX, |key| keys.push(key)));
    keys
}

#[test]
fn fires_at_the_tick_after_its_deadline_and_once() {
    let start = Mono(987_654_321_987);
    let mut wheel = TimerWheel::new(start);
    assert_eq!(wheel.next(), Mono::MAX);
    let at = start.after(Duration::from_millis(100));
    let id = wheel.schedule(7, at);
    assert!(fired(&mut wheel, Mono(at.0 - 1)).is_empty());
    assert_eq!(fired(&mut wheel, Mono(at.0 + TICK)), [7]);
    assert!(fired(&mut wheel, Mono(at.0 * 2)).is_empty());
    assert!(wheel.reschedule(id, Mono(1)), "a fired timer is still its owner's");
    assert_eq!(wheel.next(), Mono(at.0 * 2 / TICK * TICK), "a past deadline is due at once");
    assert_eq!(fired(&mut wheel, Mono(at.0 * 2)), [7]);
    assert!(wheel.cancel(id));
    assert!(!wheel.cancel(id) && !wheel.reschedule(id, at) && wheel.is_empty());
}

#[test]
fn a_timer_that_is_off_never_fires() {
    let mut wheel = TimerWheel::new(Mono(0));
    let id = wheel.schedule(1, Mono::MAX);
    wheel.schedule(2, Mono(5 * TICK));
    assert_eq!(wheel.next(), Mono(5 * TICK));
    assert_eq!(fired(&mut wheel, Mono(u64::MAX - 1)), [2]);
    assert_eq!(wheel.next(), Mono::MAX);
    assert!(wheel.reschedule(id, Mono(0)));
    assert_eq!(fired(&mut wheel, Mono(u64::MAX - 1)), [1]);
}

#[test]
fn a_small_batch_loses_nothing() {
    let mut wheel = TimerWheel::new(Mono(0));
    for key in 0..1000 {
        wheel.schedule(key, Mono((100 + key % 300) * TICK));
    }
    let now = Mono(10_000 * TICK);
    let mut keys = Vec::new();
    let mut turns = 0;
    while !wheel.advance(now, 10, |key| keys.push(key)) {
        assert!(wheel.next() <= now, "what is left is due now");
        turns += 1;
    }
    assert!((100..1000).contains(&turns), "{turns}");
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..1000));
}

#[test]
fn following_next_reaches_a_far_deadline_in_few_steps() {
    let mut wheel = TimerWheel::new(Mono(3 * TICK + 17));
    let at = Mono(0).after(Duration::from_secs(30 * 24 * 3600));
    wheel.schedule(9, at);
    for step in 0..=LEVELS {
        let now = wheel.next();
        assert!(now.0 < at.0 + TICK);
        if fired(&mut wheel, now) == [9] {
            assert!(now >= at);
            return;
        }
        assert!(step < LEVELS);
    }
    panic!("never fired");
}

#[derive(Debug, Clone)]
enum Step {
    Schedule { after: u64 },
    Reschedule { which: usize, after: u64 },
    Off { which: usize },
    Cancel { which: usize },
    Advance { by: u64, batch: usize },
    ToNext,
}

fn span() -> impl Strategy<Value = u64> {
    // Every magnitude from nothing to 30 days.
    (0u32..52, any::<u64>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => span().prop_map(|after| Step::Schedule { after }),
        2 => (any::<usize>(), span()).prop_map(|(which, after)| Step::Reschedule { which, after }),
        1 => any::<usize>().prop_map(|which| Step::Off { which }),
        1 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        2 => (span(), 1usize..20).prop_map(|(by, batch)| Step::Advance { by, batch }),
        2 => Just(Step::ToNext),
    ]
}

/// The wheel and its model: key to timer and deadline (`None` = off or fired).
struct Pair {
    wheel: TimerWheel,
    model: BTreeMap<u64, (TimerId, Option<Mono>)>,
    now: Mono,
}

impl Pair {
    fn key(&self, which: usize) -> Option<u64> {
        let n = self.model.len();
        (n > 0).then(|| *self.model.keys().nth(which % n).unwrap())
    }

    fn advance(&mut self, batch: usize) {
        let (now, model) = (self.now, &mut self.model);
        let done = self.wheel.advance(now, batch, |key| {
            let set = model.get_mut(&key).expect("a cancelled timer fired").1.take();
            let at = set.expect("a timer fired that was not set");
            assert!(at <= now, "early: {at:?} at {now:?}");
        });
        if done {
            for (_, at) in self.model.values() {
                assert!(at.is_none_or(|at| at.0 > now.0 / TICK * TICK), "late: {at:?} at {now:?}");
            }
        }
    }

    fn apply(&mut self, n: u64, step: Step) {
        let now = self.now;
        let at = |after| Mono(now.0 + after);
        match step {
            Step::Schedule { after } => {
                let id = self.wheel.schedule(n, at(after));
                self.model.insert(n, (id, Some(at(after))));
            }
            Step::Reschedule { which, after } => {
                if let Some(key) = self.key(which) {
                    let entry = self.model.get_mut(&key).unwrap();
                    entry.1 = Some(at(after));
                    assert!(self.wheel.reschedule(entry.0, at(after)));
                }
            }
            Step::Off { which } => {
                if let Some(key) = self.key(which) {
                    let entry = self.model.get_mut(&key).unwrap();
                    entry.1 = None;
                    assert!(self.wheel.reschedule(entry.0, Mono::MAX));
                }
            }
            Step::Cancel { which } => {
                if let Some(key) = self.key(which) {
                    assert!(self.wheel.cancel(self.model.remove(&key).unwrap().0));
                }
            }
            Step::Advance { by, batch } => {
                self.now = at(by);
                self.advance(batch);
            }
            Step::ToNext => {
                let next = self.wheel.next();
                if next != Mono::MAX {
                    self.now = self.now.max(next);
                    self.advance(usize::MAX);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map(start in span(), steps in proptest::collection::vec(step(), 1..200)) {
        let now = Mono(start);
        let mut pair = Pair { wheel: TimerWheel::new(now), model: BTreeMap::new(), now };
        for (n, step) in steps.into_iter().enumerate() {
            pair.apply(n as u64, step);
            let earliest = pair.model.values().filter_map(|(_, at)| *at).min();
            let next = pair.wheel.next();
            match earliest {
                Some(at) => prop_assert!(next.0 < at.0.saturating_add(TICK), "{next:?} is too late for {at:?}"),
                None => prop_assert_eq!(next, Mono::MAX),
            }
        }
        let keys = pair.model.len();
        prop_assert_eq!(pair.wheel.len() as usize, keys);
    }
}
