//! A drain as shards carry it out: whose conns leave, why, how fast, and by when.

use super::ListenerId;
use crate::io::Mono;
use crate::limits;
use std::time::Duration;

/// Why conns are sent away. Each has its own pace in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The process ends, and nobody takes its place here.
    Shutdown,
    /// The process ends, and another one has its sockets already: they are not made deaf.
    Deploy,
    /// An operator wants the load elsewhere; the process stays.
    Rebalance,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Shutdown, Self::Deploy, Self::Rebalance];

    pub fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Deploy => "deploy",
            Self::Rebalance => "rebalance",
        }
    }
    /// Whether the process ends when nothing is left.
    pub fn ends(self) -> bool {
        self != Self::Rebalance
    }
}

/// How conns that wait for a request are closed within the time that a drain has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// All at once.
    Immediate,
    /// Three times as fast as linear at first, then ever slower: half of them in the first fifth.
    Early,
    /// As many in each second as in any other.
    Linear,
}

impl Curve {
    pub const ALL: [Self; 3] = [Self::Immediate, Self::Early, Self::Linear];

    pub fn name(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Early => "early",
            Self::Linear => "linear",
        }
    }
    /// The share of them that is closed once `part` of the time is over; both from 0 to 1.
    pub fn share(self, part: f64) -> f64 {
        match self {
            Self::Immediate => 1.0,
            Self::Early => 1.0 - (1.0 - part).powi(3),
            Self::Linear => part,
        }
    }
}

/// That conns leave: what waits for a request is closed on the curve, an answer is the last, and what is left at the end is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its own for as long as the process lives.
    pub number: u32,
    pub reason: Reason,
    pub curve: Curve,
    pub began: Mono,
    pub until: Mono,
}

impl Order {
    /// Nothing that waits is closed in the last quarter of the time: a request that came just before would have no time to be
    /// answered.
    fn spread(&self) -> u64 {
        self.until.since(self.began) / 4 * 3
    }
    /// The share of those that wait which is closed by `now`, from 0 to 1.
    pub fn share(&self, now: Mono) -> f64 {
        let spread = self.spread();
        let part = if spread == 0 { 1.0 } else { now.since(self.began) as f64 / spread as f64 };
        self.curve.share(part.min(1.0))
    }
    /// Between two looks, where so many are looked at within the time.
    pub fn look(&self, of: u32) -> Duration {
        Duration::from_nanos(self.spread() / u64::from(of.max(1)))
            .clamp(limits::DRAIN_LOOK, limits::TURN_WAIT)
    }
    /// A conn on which something moved so shortly ago is not closed yet: its next request may be on its way, and an answer to
    /// that can say that it is the last.
    pub fn quiet(&self) -> Duration {
        match self.curve {
            Curve::Immediate => Duration::ZERO,
            Curve::Early | Curve::Linear => {
                limits::DRAIN_QUIET.min(Duration::from_nanos(self.until.since(self.began) / 8))
            }
        }
    }
}

/// Everything that drains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    /// All listeners, also those that come.
    pub node: Option<Order>,
    pub listeners: Vec<(ListenerId, Order)>,
}

impl Drains {
    /// By which order the conns of a listener leave: the one that is over first.
    pub fn of(&self, listener: ListenerId) -> Option<Order> {
        let own = self.listeners.iter().find(|(id, _)| *id == listener).map(|(_, order)| *order);
        match (self.node, own) {
            (Some(node), Some(own)) => Some(if own.until < node.until { own } else { node }),
            (node, own) => node.or(own),
        }
    }
    /// Whether conns may still leave by the order of this number.
    pub fn has(&self, number: u32) -> bool {
        self.node.is_some_and(|order| order.number == number)
            || self.listeners.iter().any(|(_, order)| order.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn order(number: u32, curve: Curve, until: u64) -> Order {
        Order { number, reason: Reason::Rebalance, curve, began: Mono(0), until: Mono(until * SECOND) }
    }

    #[test]
    fn curves_begin_at_nothing_and_end_with_all() {
        for curve in Curve::ALL {
            let order = order(1, curve, 40);
            let shares: Vec<f64> = (0..=40).map(|at| order.share(Mono(at * SECOND))).collect();
            assert!(shares.is_sorted(), "{curve:?}: {shares:?}");
            assert!(shares[30..].iter().all(|share| (share - 1.0).abs() < 1e-9), "{curve:?}: {shares:?}");
            let half = shares.iter().position(|share| *share >= 0.5);
            let want = match curve {
                Curve::Immediate => 0,
                Curve::Early => 7,
                Curve::Linear => 15,
            };
            assert_eq!(half, Some(want), "{curve:?}: {shares:?}");
        }
        assert!((order(1, Curve::Linear, 0).share(Mono(0)) - 1.0).abs() < 1e-9, "no time is all at once");
    }

    #[test]
    fn the_order_that_is_over_first_is_obeyed() {
        let (node, long, short) =
            (order(1, Curve::Linear, 30), order(2, Curve::Linear, 60), order(3, Curve::Linear, 5));
        let drains =
            Drains { node: Some(node), listeners: vec![(ListenerId(0), long), (ListenerId(1), short)] };
        let of = |listener| drains.of(ListenerId(listener)).map(|order| order.number);
        assert_eq!([of(0), of(1), of(2)], [Some(1), Some(3), Some(1)]);
        let drains = Drains { node: None, ..drains };
        assert_eq!(drains.of(ListenerId(0)), Some(long));
        assert_eq!(drains.of(ListenerId(2)), None);
    }
}
