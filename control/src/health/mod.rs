//! Active checks: each endpoint of a cluster with `[cluster.health]` is asked from time to time whether it serves, once for
//! the whole process, and what changed is told.
//!
//! `spec` says what a check is, `check` makes one (over a `wire`, reading its `answer`, in which a `pattern` is found, giving a
//! `verdict`), `schedule` knows when the next is due, `streak` when an endpoint changes, `follow` who is checked. This file
//! runs them. Everything happens on the control
//! thread, as tasks of its runtime; a check holds no thread while it waits.

mod answer;
mod check;
mod follow;
mod schedule;
mod spec;
mod streak;
mod verdict;
mod wire;

pub(crate) use check::{Task, Transcript, probe};
pub use spec::{BodyMatch, Check, Http, Initial, Kind};
pub use verdict::{Passed, Reason, Verdict};

use check::{Made, make};
use dataplane::limits;
use dataplane::spec::{Cluster, ClusterId, EndpointId, Snapshot};
use schedule::Schedule;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use streak::Streak;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use wire::Wire;

/// Descriptors that checks of `endpoints` may hold at once, of the `descriptors` that the process may open: one for each
/// endpoint, up to their share.
pub(crate) fn descriptors(endpoints: usize, descriptors: u64) -> u64 {
    let share = (descriptors / limits::CHECK_DESCRIPTORS_DIVISOR).max(2);
    u64::try_from(endpoints).map_or(share, |endpoints| endpoints.min(share))
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    /// Checks that run.
    at_once: usize,
    /// Connections that wait for their endpoint's next check.
    kept: usize,
}

impl Room {
    /// For so many endpoints, with so many descriptors for all of them. An endpoint has one connection at most.
    fn of(endpoints: usize, descriptors: u64) -> Self {
        let all = usize::try_from(descriptors).unwrap_or(usize::MAX);
        if all >= endpoints {
            return Self { at_once: endpoints.clamp(1, limits::CHECKS_AT_ONCE), kept: endpoints };
        }
        let at_once = all.div_ceil(2).clamp(1, limits::CHECKS_AT_ONCE);
        Self { at_once, kept: all.saturating_sub(at_once) }
    }
}

/// One endpoint that is checked.
#[derive(Debug)]
struct Target {
    cluster: Arc<Cluster>,
    at: usize,
    check: Arc<Check>,
    streak: Streak,
    last: Option<Last>,
    /// From the last check, for the next.
    wire: Option<Wire>,
    /// When the check that is awaited was due.
    due: Instant,
    /// A check of it is being made.
    running: bool,
    /// It is no endpoint of its cluster any more.
    gone: bool,
    /// How many endpoints had this place before.
    life: u32,
}

/// The last check that was made of an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    pub(crate) ended: Instant,
}

/// A check that ended.
#[derive(Debug)]
pub(crate) struct Done {
    target: usize,
    life: u32,
    made: Made,
}

/// What the checks wait for.
#[derive(Debug)]
pub(crate) enum Happened {
    /// All that ended meanwhile, [`limits::CHECKS_AT_ONCE`] at most.
    Done(Vec<Done>),
    /// A check panicked: a fault of ours.
    Died(JoinError),
    Due,
}

/// An endpoint is up or down now, and was not.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) cluster: ClusterId,
    pub(crate) endpoint: EndpointId,
    pub(crate) up: bool,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

/// All checks of the process.
#[derive(Debug)]
pub(crate) struct Checks {
    /// One that is gone keeps its place, for whoever has its id next.
    targets: Vec<Target>,
    places: BTreeMap<(ClusterId, EndpointId), usize>,
    schedule: Schedule,
    /// Due, and more run already than may.
    waiting: VecDeque<usize>,
    running: JoinSet<Done>,
    room: Room,
    /// As they were followed last.
    clusters: Vec<Option<Arc<Cluster>>>,
    /// What the checks may hold.
    descriptors: u64,
    /// Connections between two checks.
    kept: usize,
    turn: u64,
    /// That checks run late was told, and they still do.
    late: bool,
}

impl Checks {
    /// Of the clusters of `snapshot` that have checks; `checks` is by cluster. `descriptors` is what they may hold.
    pub(crate) fn new(
        snapshot: &Snapshot,
        checks: &[Option<Arc<Check>>],
        descriptors: u64,
        now: Instant,
    ) -> Self {
        let mut all = Self {
            targets: Vec::new(),
            places: BTreeMap::new(),
            schedule: Schedule::default(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            room: Room::of(0, descriptors),
            clusters: Vec::new(),
            descriptors,
            kept: 0,
            turn: 0,
            late: false,
        };
        all.follow(snapshot, checks, now);
        all
    }

    /// Waits for the next thing to happen; pending for ever where there is nothing to check. May be dropped and asked again.
    pub(crate) async fn next(&mut self) -> Happened {
        let due = self.schedule.next();
        let is_due = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(first) = self.running.join_next() => self.ended(first),
            () = is_due => Happened::Due,
        }
    }

    /// A check ended, and with it whatever else did: what follows from them costs something for each time that it is told.
    fn ended(&mut self, first: Result<Done, JoinError>) -> Happened {
        let others = std::iter::from_fn(|| self.running.try_join_next());
        match std::iter::once(first).chain(others).collect() {
            Ok(done) => Happened::Done(done),
            Err(died) => Happened::Died(died),
        }
    }

    /// Takes note of checks that ended, then starts those that are due. Returns who changed.
    pub(crate) fn take(&mut self, done: Vec<Done>, now: Instant) -> Vec<Change> {
        let changes = done.into_iter().filter_map(|done| self.note(done, now)).collect();
        while let Some((at, target)) = self.schedule.take(now) {
            // It is due at another time since its check was changed.
            if self.targets.get(target).is_some_and(|target| target.due == at) {
                self.waiting.push_back(target);
            }
        }
        while self.running.len() < self.room.at_once {
            let Some(target) = self.waiting.pop_front() else { break };
            self.start(target, now);
        }
        if self.waiting.is_empty() {
            self.late = false;
        }
        changes
    }

    fn start(&mut self, number: usize, now: Instant) {
        let Some(target) = self.targets.get_mut(number) else { return };
        // Due twice, since its check was changed meanwhile.
        if target.gone || std::mem::replace(&mut target.running, true) {
            return;
        }
        if !self.late && now.duration_since(target.due) > target.check.interval.max(Duration::from_secs(1)) {
            self.late = true;
            tracing::warn!(
                at_once = self.room.at_once,
                waiting = self.waiting.len(),
                "checks run late: more are due than may run at once; lengthen their interval, or shorten their timeout"
            );
        }
        target.due = now;
        let wire = target.wire.take();
        self.kept -= usize::from(wire.is_some());
        let task = Task {
            cluster: Arc::clone(&target.cluster),
            at: target.at,
            check: Arc::clone(&target.check),
            turn: self.turn,
        };
        self.turn = self.turn.wrapping_add(1);
        let life = target.life;
        self.running.spawn(async move {
            let made = make(&task, wire, None).await;
            Done { target: number, life, made }
        });
    }

    fn note(&mut self, done: Done, now: Instant) -> Option<Change> {
        let Done { target: number, life, made } = done;
        let target = self.targets.get_mut(number)?;
        target.running = false;
        if target.gone {
            return None;
        }
        if target.life != life {
            // It was of another endpoint.
            target.due = now;
            self.schedule.add(now, number);
            return None;
        }
        if let Some(wire) = made.wire
            && self.kept < self.room.kept
        {
            target.wire = Some(wire);
            self.kept += 1;
        }
        let counts = !matches!(made.verdict, Verdict::NotMade(_));
        let changed = counts && target.streak.note(made.verdict.has_passed(), &target.check);
        let first_failure =
            !counts && target.last.as_ref().is_none_or(|last| !matches!(last.verdict, Verdict::NotMade(_)));
        let wait = if target.streak.is_changing() && counts {
            target.check.fast_interval
        } else {
            target.check.interval
        };
        target.due = (target.due + wait).max(now);
        self.schedule.add(target.due, number);
        let endpoint = target.cluster.endpoints.get(target.at)?;
        if first_failure {
            tracing::warn!(
                cluster = &*target.cluster.name,
                endpoint = &*endpoint.name,
                "{}; what was known of it stands",
                made.verdict
            );
        }
        let change = Change {
            cluster: target.cluster.id,
            endpoint: endpoint.id,
            up: target.streak.is_up(),
            verdict: made.verdict.clone(),
            took: made.took,
        };
        target.last = Some(Last { verdict: made.verdict, took: made.took, ended: now });
        changed.then_some(change)
    }

    /// Whether an endpoint is up, as far as that is known of one that is checked.
    pub(crate) fn is_up(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<bool> {
        self.targets
            .get(*self.places.get(&(cluster, endpoint))?)
            .filter(|target| !target.gone)?
            .streak
            .known()
    }

    /// What another process found out of an endpoint. False where nothing checks it here.
    pub(crate) fn believe(&mut self, cluster: ClusterId, endpoint: EndpointId, up: bool) -> bool {
        let place = self.places.get(&(cluster, endpoint));
        let target = place.and_then(|place| self.targets.get_mut(*place)).filter(|target| !target.gone);
        target
            .map(|target| target.streak = Streak::new(if up { Initial::Up } else { Initial::Down }))
            .is_some()
    }

    /// Whether every endpoint of a cluster is known to be up or down.
    pub(crate) fn have_decided(&self, cluster: ClusterId) -> bool {
        let mut there = self.targets.iter().filter(|target| target.cluster.id == cluster && !target.gone);
        there.all(|target| target.last.is_some() && !target.streak.is_changing())
    }

    /// The word for what checks say of an endpoint, and the last of them; `None` where it is not checked.
    pub(crate) fn status(&self, cluster: ClusterId, at: usize) -> Option<(&'static str, Option<&Last>)> {
        let at = EndpointId(u16::try_from(at).ok()?);
        let target = self.targets.get(*self.places.get(&(cluster, at))?)?;
        (!target.gone).then(|| (target.streak.word(), target.last.as_ref()))
    }
}

#[cfg(test)]
mod tests;
