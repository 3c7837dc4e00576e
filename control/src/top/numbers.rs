//! Two answers of the process, an interval apart, as rates; and the last ten as quantiles.

use super::ask::Seen;
use super::counts::{Counts, Family};
use std::collections::VecDeque;
use std::time::Duration;

/// Answers whose times a quantile is made of.
const WINDOW: usize = 10;
/// Rates that are kept for the curve.
const HISTORY: usize = 600;
const TIMES: &[Family] = &[Family::ListenerTimes, Family::ClusterTimes];

/// What is known of the process now.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) now: Seen,
    /// The counts before, and how long before. None at first, after a gap, and where another process answers.
    before: Option<(Duration, Counts)>,
    /// Times as they were counted, oldest first.
    window: VecDeque<Counts>,
    /// Requests a second, oldest first; none where that is not known.
    pub(super) history: VecDeque<Option<f64>>,
    /// Another process answered since: its counters began anew.
    pub(super) restarts: u64,
}

impl Numbers {
    pub(super) fn new(now: Seen) -> Self {
        let window = VecDeque::from([now.counts.only(TIMES)]);
        Self { now, before: None, window, history: VecDeque::new(), restarts: 0 }
    }

    /// Goes on with what was answered now. After a gap nothing is compared with what was before it.
    pub(super) fn take(&mut self, now: Seen, after_gap: bool) {
        let began = |seen: &Seen| seen.counts.one(Family::Began, &[]);
        let is_another = began(&self.now) != began(&now);
        let former = std::mem::replace(&mut self.now, now);
        if is_another || after_gap {
            self.restarts += u64::from(is_another);
            self.before = None;
            self.window.clear();
        } else {
            let since = self.now.at.duration_since(former.at);
            self.before = Some((since, former.counts)).filter(|_| !since.is_zero());
        }
        self.window.push_back(self.now.counts.only(TIMES));
        if self.window.len() > WINDOW + 1 {
            self.window.pop_front();
        }
        self.history.push_back(self.rate(Family::ListenerRequests, &[]));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Since its start: all samples of a family whose labels begin with these values.
    pub(super) fn total(&self, family: Family, labels: &[&str]) -> f64 {
        self.now.counts.of(family, labels).map(|(_, value)| value).sum()
    }

    /// The same for each second of the last interval; none where that is not known.
    pub(super) fn rate(&self, family: Family, labels: &[&str]) -> Option<f64> {
        self.rate_if(family, labels, |_| true)
    }

    /// The same of samples whose labels are wanted.
    pub(super) fn rate_if(
        &self,
        family: Family,
        labels: &[&str],
        wanted: impl Fn(&[String]) -> bool,
    ) -> Option<f64> {
        let (since, before) = self.before.as_ref()?;
        let sum = |counts: &Counts| -> f64 {
            counts.of(family, labels).filter(|(labels, _)| wanted(labels)).map(|(_, value)| value).sum()
        };
        // An object that went takes its counts along.
        let grown = sum(&self.now.counts) - sum(before);
        (grown >= 0.0).then(|| grown / since.as_secs_f64())
    }

    /// The time, in seconds, within which this share of what ended in the last ten intervals was done; within a bucket times are taken
    /// as evenly spread. None where nothing ended.
    pub(super) fn quantile(&self, family: Family, name: &str, share: f64) -> Option<f64> {
        let oldest = self.window.front()?;
        let bound = |le: &str| if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap_or(f64::NAN) };
        let mut buckets: Vec<(f64, f64)> = self
            .now
            .counts
            .of(family, &[name])
            .filter_map(|(labels, count)| {
                let le = labels.get(1)?;
                let before = oldest.one(family, &[name, le]).unwrap_or(0.0);
                Some((bound(le), (count - before).max(0.0)))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = buckets.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
        let (wanted, mut below) = (all * share, (0.0, 0.0));
        for (bound, count) in buckets {
            if count >= wanted {
                // Longer than every bound: no more is known.
                let top = if bound.is_finite() { bound } else { below.0 };
                let within = (wanted - below.1) / (count - below.1).max(1.0);
                return Some(below.0 + (top - below.0) * within);
            }
            below = (bound, count);
        }
        None
    }
}
