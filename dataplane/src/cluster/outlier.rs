//! Passive checks: an endpoint at which live requests fail is ejected, that is left alone for a while.
//!
//! Failures in a row are counted by whoever sees them; the rate of failures is watched by control, from what each shard
//! counts by itself. Either way it is one compare-and-swap that ejects, after one that takes a place among those that may
//! be out at once.

use super::shared::Count;
use crate::io::Mono;
use crate::limits::RATE_STEPS;
use crate::spec::{Cluster, EndpointId, Outlier};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How many endpoints of a cluster may be out at once: the share of those with weight, rounded down, so that a cluster of
/// one keeps it unless the share is the whole.
pub fn most_ejected(cluster: &Cluster, rules: &Outlier) -> u32 {
    let count = cluster.endpoints.iter().filter(|endpoint| endpoint.weight > 0).count();
    let most = count as u64 * u64::from(rules.max_ejected_percent) / 100;
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Set in the failures in a row of an endpoint that is back because its time was over, until a request goes well there.
const UNPROVEN: u32 = 1 << 31;

/// That an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ejection {
    pub(super) time: Duration,
    /// The how many-th time in a row it is.
    pub(super) times: u32,
    /// When the time of the one before was over, if nobody wrote that down: then whoever ejects tells of it.
    pub(super) over_since: Option<Mono>,
}

/// An endpoint's ejections, over all shards.
#[derive(Debug)]
pub(super) struct SharedEjection {
    /// Failures in a row, and whether it is unproven.
    failures: AtomicU32,
    /// When hedges began to overtake it, if none of its answers came first since; 0 is never.
    overtaken_since: AtomicU64,
    /// How often it was ejected, less one for each `ejection_time` that it behaved.
    times: AtomicU32,
    /// 0 is not ejected. It stays when the time is over, until somebody writes the readmission down.
    until: AtomicU64,
    /// When it was last readmitted.
    back_since: AtomicU64,
}

impl SharedEjection {
    /// Not ejected.
    pub(super) fn new() -> Self {
        Self {
            failures: AtomicU32::new(0),
            overtaken_since: AtomicU64::new(0),
            times: AtomicU32::new(0),
            until: AtomicU64::new(0),
            back_since: AtomicU64::new(0),
        }
    }

    /// Another endpoint's from now on.
    pub(super) fn renew(&self, ejected: &Count) {
        if self.until.swap(0, Ordering::Relaxed) != 0 {
            ejected.give_back();
        }
        self.begin_row(0);
        self.times.store(0, Ordering::Relaxed);
        self.back_since.store(0, Ordering::Relaxed);
    }

    /// Until when it is ejected; `None` if it is not.
    pub(super) fn until(&self, now: Mono) -> Option<Mono> {
        Some(Mono(self.until.load(Ordering::Relaxed))).filter(|until| now < *until)
    }

    /// When its time was over, if nobody has written down that it is back.
    fn over_since(&self, now: Mono) -> Option<Mono> {
        Some(Mono(self.until.load(Ordering::Relaxed))).filter(|until| *until > Mono(0) && *until <= now)
    }
    /// When it was last readmitted, whether or not anybody wrote that down; `Mono(0)` is never.
    pub(super) fn back_since(&self, now: Mono) -> Mono {
        self.over_since(now).unwrap_or_else(|| Mono(self.back_since.load(Ordering::Relaxed)))
    }

    /// Whether something besides the time says that it is good, if it was ejected.
    pub(super) fn is_proven(&self, now: Mono) -> bool {
        self.over_since(now).is_none() && self.failures.load(Ordering::Relaxed) & UNPROVEN == 0
    }

    /// A request went well; true if that proves it. Writes nothing unless some failed before, or it was unproven.
    pub(super) fn succeed(&self) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures != 0 {
            self.begin_row(0);
        }
        failures & UNPROVEN != 0
    }
    fn begin_row(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
        self.overtaken_since.store(0, Ordering::Relaxed);
    }
    /// A request failed: how many did in a row. One that ends while the endpoint is out was begun before, and counts for
    /// nothing: else a single failure after the ejection would bring the next one, where nobody wrote the readmission down.
    pub(super) fn fail(&self, now: Mono) -> u32 {
        if self.until(now).is_some() {
            return 0;
        }
        (self.failures.fetch_add(1, Ordering::Relaxed) & !UNPROVEN).saturating_add(1)
    }
    /// A hedge overtook a request: how many in a row failed or were overtaken, once that has gone on for `patience`. Before, it
    /// may be a pause that passes.
    pub(super) fn overtaken(&self, patience: Duration, now: Mono) -> u32 {
        let (failures, now_or_1) = (self.fail(now), now.0.max(1));
        if failures == 0 {
            return 0;
        }
        let began = self.overtaken_since.compare_exchange(0, now_or_1, Ordering::Relaxed, Ordering::Relaxed);
        match began {
            Err(since) if Mono(since).after(patience) <= now => failures,
            _ => 0,
        }
    }
    /// Ejects the endpoint; none if it is ejected, or `most` are.
    pub(super) fn eject(&self, rules: &Outlier, ejected: &Count, most: u32, now: Mono) -> Option<Ejection> {
        let before = self.until.load(Ordering::Relaxed);
        if now.0 < before || (before == 0 && !ejected.try_take(most)) {
            return None;
        }
        // One whose readmission nobody wrote down yet still has its place.
        let back_since = if before == 0 { self.back_since.load(Ordering::Relaxed) } else { before };
        let base = u64::try_from(rules.ejection_time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let calm = u32::try_from(now.since(Mono(back_since)) / base).unwrap_or(u32::MAX);
        let times = self.times.load(Ordering::Relaxed).saturating_sub(calm).saturating_add(1);
        let time = rules.ejection_time.saturating_mul(times).min(rules.max_ejection_time);
        let until = now.after(time).0.max(1);
        if self.until.compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            if before == 0 {
                ejected.give_back();
            }
            return None;
        }
        self.times.store(times, Ordering::Relaxed);
        self.begin_row(0);
        Some(Ejection { time, times, over_since: (before != 0).then_some(Mono(before)) })
    }
    /// Lets the endpoint back in, if its time is over or `early`; true for the one who does.
    pub(super) fn readmit(&self, ejected: &Count, early: bool, now: Mono) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 || (now.0 < until && !early) {
            return false;
        }
        // Before the door opens: what failed meanwhile was begun before.
        self.begin_row(if early { 0 } else { UNPROVEN });
        self.back_since.store(now.0.min(until), Ordering::Relaxed);
        let readmits = self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if readmits {
            ejected.give_back();
        }
        readmits
    }
}

/// Requests of an endpoint that ended, and how many of them failed, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub ended: u64,
    pub failed: u64,
}

impl Tally {
    fn since(self, earlier: Self) -> Self {
        Self {
            ended: self.ended.saturating_sub(earlier.ended),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
    /// Failures in ten thousand, where there were enough requests and the rules say that it is too many.
    fn is_too_bad(self, rules: &Outlier) -> Option<u32> {
        let rate = rules.failure_rate?;
        // Both are far below 2^52.
        let share = self.failed as f64 / self.ended.max(1) as f64;
        let bad = self.failed > 0 && self.ended >= u64::from(rules.minimum_volume) && share >= rate;
        let of_ten_thousand = self.failed.saturating_mul(10_000) / self.ended.max(1);
        bad.then(|| u32::try_from(of_ten_thousand).unwrap_or(u32::MAX))
    }
}

const STEPS: usize = RATE_STEPS as usize;

/// Watches the rates of failures of a cluster's endpoints over a window that slides in steps.
#[derive(Debug)]
pub struct RateWatch {
    /// By endpoint, what was counted at the last steps; the oldest is next to be written.
    past: Box<[[Tally; STEPS]]>,
    at: usize,
    next_step: Mono,
}

impl RateWatch {
    /// Of so many endpoints, from now on.
    pub fn new(endpoints: usize) -> Self {
        Self { past: vec![[Tally::default(); STEPS]; endpoints].into(), at: 0, next_step: Mono(0) }
    }
    /// Watches so many endpoints from now on; of each that comes, [`RateWatch::forget`] what was before.
    pub fn grow(&mut self, endpoints: usize) {
        let known = self.past.iter().copied();
        let new = std::iter::repeat([Tally::default(); STEPS]);
        self.past = known.chain(new).take(endpoints.max(self.past.len())).collect();
    }
    /// An endpoint came, or its id is another's from now on: what was counted before is not held against it.
    pub fn forget(&mut self, id: EndpointId, tally: Tally) {
        if let Some(past) = self.past.get_mut(usize::from(id.0)) {
            *past = [tally; STEPS];
        }
    }
    /// When the window slides next.
    pub fn next_step(&self) -> Mono {
        self.next_step
    }
    /// Slides the window. Tells `bad` of each endpoint whose failures in ten thousand within it are too many; what was counted
    /// of one that `bad` ejects is forgotten.
    pub fn step(
        &mut self,
        rules: &Outlier,
        now: Mono,
        tally: impl Fn(EndpointId) -> Tally,
        mut bad: impl FnMut(EndpointId, u32) -> bool,
    ) {
        self.next_step = now.after(rules.window / RATE_STEPS);
        for (id, past) in (0u16..).map(EndpointId).zip(&mut self.past) {
            let total = tally(id);
            let too_bad = total.since(past[self.at]).is_too_bad(rules);
            past[self.at] = total;
            if too_bad.is_some_and(|rate| bad(id, rate)) {
                *past = [total; STEPS];
            }
        }
        self.at = (self.at + 1) % STEPS;
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
