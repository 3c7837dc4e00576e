//! What drains, why, how far it is and by when it is over: the part of it that is only bookkeeping. `run::drain` acts on it.

use crate::admin::seconds;
use crate::config::{Pace, Paces};
use dataplane::io::Mono;
use dataplane::limits;
use dataplane::spec::{self, ListenerId, Order, Reason, Snapshot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The two clocks of one moment: control's, and the one that shards go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) mono: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `/ready` says no, and all else is as before, until then.
    Accepting(Instant),
    /// No new connections; what is there leaves.
    Leaving,
    /// Nothing is left.
    Drained,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepting(_) => "accepting",
            Self::Leaving => "leaving",
            Self::Drained => "drained",
        }
    }
}

/// The drain of the node or of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) reason: Reason,
    pub(crate) phase: Phase,
    pub(crate) since: Instant,
    pace: Pace,
    /// None before connections leave.
    order: Option<Order>,
    /// When it is over.
    pub(crate) until: Instant,
}

impl Drain {
    fn new(reason: Reason, pace: Pace, accept_for: Duration, number: u32, at: Moment) -> Self {
        let phase = Phase::Accepting(at.now + accept_for);
        let until = at.now + accept_for + pace.window;
        let mut drain = Self { reason, phase, since: at.now, pace, order: None, until };
        drain.go_on(number, at);
        drain
    }
    /// Connections leave if it is time for that. Whether they begin to.
    fn go_on(&mut self, number: u32, at: Moment) -> bool {
        let due = matches!(self.phase, Phase::Accepting(until) if until <= at.now);
        if due {
            let Pace { window, curve, .. } = self.pace;
            let (began, until) = (at.mono, at.mono.after(window));
            self.order = Some(Order { number, reason: self.reason, curve, began, until });
            self.until = at.now + window;
            self.phase = Phase::Leaving;
        }
        due
    }
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
    fn to_json(self, now: Instant) -> serde_json::Map<String, Value> {
        let left = if self.phase == Phase::Drained { Duration::ZERO } else { self.left(now) };
        let shown = [
            ("reason", json!(self.reason.name())),
            ("phase", json!(self.phase.name())),
            ("since_s", json!(seconds(now.saturating_duration_since(self.since)))),
            ("left_s", json!(seconds(left))),
        ];
        shown.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Everything that drains, but for clusters and endpoints.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    numbers: u32,
    pub(crate) node: Option<Drain>,
    listeners: BTreeMap<Arc<str>, Drain>,
    /// The shards were not told yet: a reload is under way.
    pub(crate) stale: bool,
    /// The shards were told to end, and nothing brings them back.
    pub(crate) ending: bool,
    /// A signal asked for the end.
    pub(crate) signalled: bool,
    /// Begun, by reason, in the order of `Reason::ALL`.
    pub(crate) begun: [u64; Reason::ALL.len()],
}

impl Drains {
    /// Whether the process ends when all has left.
    pub(crate) fn ends(&self) -> bool {
        self.node.is_some_and(|node| node.reason.ends())
    }
    /// When the process ends at the latest.
    pub(crate) fn ends_by(&self) -> Option<Instant> {
        let leaves = |node: &Drain| node.reason.ends() && node.phase == Phase::Leaving;
        self.node.filter(leaves).map(|node| node.until)
    }
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (&Arc<str>, &Drain)> {
        self.listeners.iter()
    }

    /// The node drains from now on, or for another reason than before; then its connections leave at once if they did already.
    pub(crate) fn begin_node(&mut self, reason: Reason, window: Option<Duration>, paces: &Paces, at: Moment) {
        let pace = with(paces.of(reason), window);
        let accept_for = match self.node.map(|node| node.phase) {
            Some(Phase::Leaving | Phase::Drained) => Duration::ZERO,
            Some(Phase::Accepting(until)) => pace.accept_for.min(until.saturating_duration_since(at.now)),
            None => pace.accept_for,
        };
        let since = self.node.map_or(at.now, |node| node.since);
        let number = self.number(reason);
        self.node = Some(Drain { since, ..Drain::new(reason, pace, accept_for, number, at) });
    }
    /// A listener drains from now on; again with another window, that holds.
    ///
    /// # Errors
    /// Too many do.
    pub(crate) fn begin_listener(
        &mut self,
        name: &Arc<str>,
        window: Option<Duration>,
        paces: &Paces,
        at: Moment,
    ) -> Result<(), String> {
        if self.listeners.len() >= limits::DRAINS_MAX && !self.listeners.contains_key(name) {
            return Err(format!("{} listeners drain already", limits::DRAINS_MAX));
        }
        let pace = with(paces.of(Reason::Rebalance), window);
        let number = self.number(Reason::Rebalance);
        let drain = Drain::new(Reason::Rebalance, pace, Duration::ZERO, number, at);
        self.listeners.insert(Arc::clone(name), drain);
        Ok(())
    }
    fn number(&mut self, reason: Reason) -> u32 {
        self.numbers += 1;
        self.begun[reason as usize] += 1;
        self.numbers
    }
    /// The node's drain is called off. What it was.
    pub(crate) fn abort_node(&mut self) -> Option<Drain> {
        self.signalled = false;
        self.node.take()
    }
    pub(crate) fn abort_listener(&mut self, name: &str) -> Option<Drain> {
        self.listeners.remove(name)
    }
    /// It goes on after all.
    pub(crate) fn put_back(&mut self, name: Option<&Arc<str>>, drain: Drain) {
        match name {
            None => self.node = Some(drain),
            Some(name) => _ = self.listeners.insert(Arc::clone(name), drain),
        }
    }
    /// Forgets listeners that are gone. Whether one was.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|name, _| find(snapshot, name).is_some());
        before != self.listeners.len()
    }
    /// A while later: whether connections begin to leave somewhere.
    pub(crate) fn tick(&mut self, at: Moment) -> bool {
        let number = self.numbers + 1;
        let leaves = self.node.as_mut().is_some_and(|node| node.go_on(number, at));
        self.numbers += u32::from(leaves);
        leaves
    }
    /// Whose connections are gone, or should be: they are not asked about any more. Their names; none is the node.
    pub(crate) fn over(
        &mut self,
        now: Instant,
        of_node: impl FnOnce() -> u64,
        of_listener: impl Fn(&str) -> u64,
    ) -> Vec<(Option<Arc<str>>, Drain)> {
        let mut over = Vec::new();
        if let Some(node) =
            self.node.as_mut().filter(|node| node.phase == Phase::Leaving && !node.reason.ends())
            && (node.until <= now || of_node() == 0)
        {
            node.phase = Phase::Drained;
            over.push((None, *node));
        }
        for (name, drain) in &mut self.listeners {
            if drain.phase == Phase::Leaving && (drain.until <= now || of_listener(name) == 0) {
                drain.phase = Phase::Drained;
                over.push((Some(Arc::clone(name)), *drain));
            }
        }
        over
    }
    /// What the shards are to do, by the ids that listeners have now.
    pub(crate) fn orders(&self, snapshot: &Snapshot) -> spec::Drains {
        let listeners = self.listeners.iter().filter_map(|(name, drain)| {
            let listener: ListenerId = find(snapshot, name)?;
            Some((listener, drain.order?))
        });
        spec::Drains { node: self.node.and_then(|node| node.order), listeners: listeners.collect() }
    }
    /// What is told of the node, with `left`, and of each listener, with its connections.
    pub(crate) fn to_json(
        &self,
        now: Instant,
        left: impl FnOnce() -> [(&'static str, u64); 3],
        connections: impl Fn(&str) -> u64,
    ) -> (Value, Vec<Value>) {
        let node = self.node.map_or(Value::Null, |node| {
            let mut shown = node.to_json(now);
            shown.insert("by_signal".to_owned(), json!(self.signalled));
            shown.extend(left().map(|(key, count)| (key.to_owned(), json!(count))));
            Value::Object(shown)
        });
        let listeners = self.listeners.iter().map(|(name, drain)| {
            let mut shown = drain.to_json(now);
            shown.insert("name".to_owned(), json!(name));
            shown.insert("connections".to_owned(), json!(connections(name)));
            Value::Object(shown)
        });
        (node, listeners.collect())
    }
}

fn with(pace: Pace, window: Option<Duration>) -> Pace {
    Pace { window: window.unwrap_or(pace.window), ..pace }
}

/// The id of a listener by its name; none of one that is gone.
pub(crate) fn find(snapshot: &Snapshot, name: &str) -> Option<ListenerId> {
    snapshot.listener_called(name).filter(|listener| !listener.is_gone()).map(|listener| listener.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn paces(text: &str) -> (Paces, Arc<Snapshot>) {
        let text = format!(
            "{text}\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n\
             [[cluster]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\"]\n"
        );
        let loaded = config::parse(&text, "test", &Environment::of_tests()).unwrap();
        (loaded.process.drains, loaded.snapshot)
    }
    fn at(base: Instant, seconds: u64) -> Moment {
        let passed = Duration::from_secs(seconds);
        Moment { now: base + passed, mono: Mono(0).after(passed) }
    }

    #[test]
    fn readiness_fails_first_and_connections_leave_when_others_noticed() {
        let (paces, snapshot) = paces("[drain.shutdown]\naccept_for = \"5s\"\nwindow = \"20s\"");
        let (base, mut drains) = (Instant::now(), Drains::default());
        drains.begin_node(Reason::Shutdown, None, &paces, at(base, 0));
        assert_eq!(drains.node.unwrap().phase.name(), "accepting");
        assert_eq!(drains.orders(&snapshot), spec::Drains::default(), "the shards know nothing of it");
        assert_eq!(drains.ends_by(), None);
        assert!(!drains.tick(at(base, 4)) && drains.tick(at(base, 5)) && !drains.tick(at(base, 6)));
        let order = drains.orders(&snapshot).node.unwrap();
        assert_eq!(order.until.since(order.began), 20_000_000_000);
        assert_eq!(order.curve, spec::Curve::Early);
        assert_eq!(drains.ends_by(), Some(at(base, 25).now));
        assert!(drains.abort_node().is_some());
        assert_eq!(drains.orders(&snapshot), spec::Drains::default());
    }

    #[test]
    fn another_reason_takes_over_where_the_first_one_is() {
        let (paces, snapshot) = paces(
            "[drain.shutdown]\naccept_for = \"5s\"\nwindow = \"20s\"\n[drain.rebalance]\naccept_for = \"2s\"\nwindow = \"90s\"",
        );
        let (base, mut drains) = (Instant::now(), Drains::default());
        drains.begin_node(Reason::Rebalance, None, &paces, at(base, 0));
        drains.begin_node(Reason::Shutdown, None, &paces, at(base, 1));
        assert!(drains.tick(at(base, 2)), "it is not ready since two seconds");
        assert_eq!(drains.ends_by(), Some(at(base, 22).now));
        let (base, mut drains) = (Instant::now(), Drains::default());
        drains.begin_node(Reason::Rebalance, None, &paces, at(base, 0));
        assert!(drains.tick(at(base, 2)));
        let first = drains.orders(&snapshot).node.unwrap();
        drains.begin_node(Reason::Shutdown, Some(Duration::from_secs(3)), &paces, at(base, 10));
        let second = drains.orders(&snapshot).node.unwrap();
        assert!(first.number != second.number && first.until > second.until);
        assert_eq!(drains.ends_by(), Some(at(base, 13).now));
        assert_eq!(drains.begun, [1, 0, 1]);
    }

    #[test]
    fn a_listener_is_over_when_it_is_empty_and_forgotten_when_it_is_gone() {
        let (paces, snapshot) = paces("[drain.rebalance]\nwindow = \"10s\"");
        let (base, mut drains) = (Instant::now(), Drains::default());
        let edge: Arc<str> = "edge".into();
        drains.begin_listener(&edge, None, &paces, at(base, 0)).unwrap();
        assert_eq!(drains.orders(&snapshot).listeners.len(), 1);
        assert!(drains.over(at(base, 1).now, || 1, |_| 1).is_empty());
        assert_eq!(drains.over(at(base, 2).now, || 1, |_| 0).len(), 1);
        assert!(drains.over(at(base, 3).now, || 1, |_| 0).is_empty(), "once");
        assert_eq!(drains.orders(&snapshot).listeners.len(), 1, "it stays closed");
        assert!(!drains.follow(&snapshot));
        let mut without = Snapshot::clone(&snapshot);
        without.listeners = vec![None];
        assert!(drains.follow(&without));
        assert_eq!(drains.orders(&snapshot), spec::Drains::default());
        for n in 0..limits::DRAINS_MAX {
            drains.begin_listener(&format!("l{n}").into(), None, &paces, at(base, 4)).unwrap();
        }
        assert!(drains.begin_listener(&edge, None, &paces, at(base, 4)).is_err());
    }
}
