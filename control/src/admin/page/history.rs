//! What became of the node in the last minutes: one point for each second, which control counts whether anybody looks or
//! not, so that whoever opens the page after something happened sees it.

use crate::admin::{Ask, Sight};
use crate::process::began;
use dataplane::fault::CloseReason;
use dataplane::limits;
use dataplane::spec::Protocol;
use dataplane::stats::histogram::{Merged, bound_us};
use dataplane::stats::objects::OfListener;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use utoipa::ToSchema;

/// The last points, oldest first.
pub(in crate::admin) type Points = VecDeque<PointView>;

const EVERY: Duration = Duration::from_secs(1);

/// Since the process began, milliseconds.
pub(super) fn uptime(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(began().at).as_millis()).unwrap_or(u64::MAX)
}

/// One second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(in crate::admin) struct PointView {
    /// Its end, since the process began.
    at_ms: u64,
    /// Open at its end.
    connections: u64,
    /// These are per second.
    accepted: f64,
    requests: f64,
    /// Answers of 5xx and those cut off, and connections of tcp listeners that got no link.
    failed: f64,
    /// Bytes of bodies and tunnels, as of when requests and tunnels end.
    received: f64,
    sent: f64,
    /// Requests of that second took at most so long, of 100 that many; none if there were none.
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// What is counted of the whole node at a moment.
#[derive(Debug)]
pub(crate) struct Pulse {
    at: Instant,
    connections: u64,
    /// Since the process began.
    accepted: u64,
    requests: u64,
    failed: u64,
    received: u64,
    sent: u64,
    /// Of http listeners: a connection of a tcp listener takes as long as its client likes.
    times: Merged,
}

/// What went wrong of what came to a listener: answers of 5xx and those cut off, and connections without a link.
pub(super) fn failed(of: &OfListener) -> u64 {
    let by_close = [CloseReason::NoLink, CloseReason::OriginAborted].map(|reason| of.close(reason).get());
    of.traffic.by_class()[5] + by_close.iter().sum::<u64>()
}

impl Pulse {
    pub(crate) fn of(sight: &Sight<'_>) -> Self {
        let numbers = sight.plane.numbers();
        let listeners = || sight.loaded.snapshot.listeners.iter().flatten();
        let counts = || listeners().flat_map(|one| numbers.of_listener(one.id).unwrap_or_default());
        let sum = |of: &dyn Fn(&OfListener) -> u64| counts().map(of).fold(0, u64::wrapping_add);
        let http = listeners().filter(|one| one.protocol == Protocol::Http);
        let timed = http.flat_map(|one| numbers.of_listener(one.id).unwrap_or_default());
        Self {
            at: sight.now,
            connections: listeners().map(|one| u64::from(numbers.open(one.id))).sum(),
            accepted: sum(&|of| of.connections.get()),
            requests: sum(&|of| of.traffic.by_class().iter().sum()),
            failed: sum(&failed),
            received: sum(&|of| of.traffic.up_bytes.get()),
            sent: sum(&|of| of.traffic.down_bytes.get()),
            times: Merged::of(timed.map(|of| &of.latency.total)),
        }
    }

    /// What was between that moment and this one. Where an object went away its numbers went with it: that is no traffic.
    fn since(&self, before: &Self) -> PointView {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |of: fn(&Self) -> u64| {
            (of(self).saturating_sub(of(before)) as f64 / seconds * 10.0).round() / 10.0
        };
        let (now, then) = (&self.times.buckets, &before.times.buckets);
        let times: Vec<u64> = now.iter().zip(then).map(|(now, then)| now.saturating_sub(*then)).collect();
        PointView {
            at_ms: uptime(self.at),
            connections: self.connections,
            accepted: rate(|of| of.accepted),
            requests: rate(|of| of.requests),
            failed: rate(|of| of.failed),
            received: rate(|of| of.received),
            sent: rate(|of| of.sent),
            p50_us: at_most(&times, 50),
            p99_us: at_most(&times, 99),
        }
    }
}

/// So long took that many of a hundred at most: the bound of the bucket that the last of them is in.
fn at_most(buckets: &[u64], of_hundred: u64) -> Option<u64> {
    let count: u64 = buckets.iter().sum();
    let wanted = (count * of_hundred).div_ceil(100).max(1);
    let mut below = 0;
    let at = buckets.iter().position(|bucket| {
        below += bucket;
        below >= wanted
    });
    at.map(bound_us)
}

/// Begins to count, until control's loop answers no more.
pub(in crate::admin) fn count(asks: mpsc::Sender<Ask>) -> watch::Receiver<Points> {
    let (points, read) = watch::channel(Points::with_capacity(limits::DASHBOARD_POINTS));
    tokio::spawn(each_second(asks, points));
    read
}

async fn each_second(asks: mpsc::Sender<Ask>, points: watch::Sender<Points>) {
    let mut second = interval(EVERY);
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before: Option<Pulse> = None;
    loop {
        second.tick().await;
        let (sender, answer) = oneshot::channel();
        if asks.send(Ask::Pulse(sender)).await.is_err() {
            return;
        }
        let Ok(pulse) = answer.await else { return };
        if let Some(before) = &before {
            let point = pulse.since(before);
            points.send_modify(|points| {
                if points.len() == limits::DASHBOARD_POINTS {
                    points.pop_front();
                }
                points.push_back(point);
            });
        }
        before = Some(pulse);
    }
}

/// Points that ended later than `ms` since the process began.
pub(super) fn after(points: &Points, ms: u64) -> Vec<PointView> {
    let from = points.partition_point(|point| point.at_ms <= ms);
    points.range(from..).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::stats::histogram::{BUCKETS, Histogram};

    fn pulse(at: Instant, counts: u64, times: &Histogram) -> Pulse {
        Pulse {
            at,
            connections: 3,
            accepted: counts,
            requests: counts * 2,
            failed: counts / 2,
            received: counts * 100,
            sent: counts * 1000,
            times: Merged::of([times].into_iter()),
        }
    }

    #[test]
    fn a_second_has_what_came_in_it() {
        let (times, at) = (Histogram::default(), Instant::now());
        times.record(1_000_000);
        let before = pulse(at, 10, &times);
        (1..=100).for_each(|us| times.record(us));
        let point = pulse(at + Duration::from_secs(2), 30, &times).since(&before);
        assert_eq!((point.accepted, point.requests, point.failed), (10.0, 20.0, 5.0));
        assert_eq!((point.connections, point.received, point.sent), (3, 1000.0, 10_000.0));
        // The 50th of 1 to 100 us is in the bucket up to 56, the 99th in that up to 112; what was there before is not among them.
        assert_eq!((point.p50_us, point.p99_us), (Some(56), Some(112)));
        // An object went away.
        let point = pulse(at + Duration::from_secs(3), 5, &Histogram::default()).since(&before);
        assert_eq!((point.requests, point.p99_us), (0.0, None));
    }

    #[test]
    fn of_a_hundred_that_many() {
        let mut buckets = [0; BUCKETS];
        assert_eq!(at_most(&buckets, 50), None);
        (buckets[4], buckets[8]) = (99, 1);
        assert_eq!((at_most(&buckets, 50), at_most(&buckets, 99)), (Some(bound_us(4)), Some(bound_us(4))));
        buckets[8] = 2;
        assert_eq!(at_most(&buckets, 99), Some(bound_us(8)));
        (buckets[4], buckets[8]) = (1, 0);
        assert_eq!(at_most(&buckets, 1), Some(bound_us(4)));
    }

    #[test]
    fn only_later_seconds_are_told() {
        let point = |at_ms| {
            let at = Instant::now();
            let same = pulse(at, 1, &Histogram::default());
            PointView { at_ms, ..same.since(&pulse(at, 1, &Histogram::default())) }
        };
        let points: Points = [1000, 2000, 3000].map(point).into();
        let told = |ms| after(&points, ms).iter().map(|point| point.at_ms).collect::<Vec<_>>();
        assert_eq!((told(0), told(2000), told(9000)), (vec![1000, 2000, 3000], vec![3000], vec![]));
    }
}
