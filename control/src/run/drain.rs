//! A drain of the running process, of one of its listeners, or of a cluster: begun, told of, called off, brought to its end.
//!
//! The order of a node's drain: `/ready` fails; `accept_for` later no new connections are taken and those that there are leave;
//! when none is left, or the window is over, the shards end and so does the process, if that is what the drain is for.

use super::Running;
use super::told::explain;
use crate::admin::{Answer, DrainAsked, DrainScope, Sight};
use crate::drains::{self, Moment};
use crate::endpoints;
use crate::exit::Exit;
use axum::http::StatusCode;
use dataplane::cluster::eligible::Admin;
use dataplane::fault::CloseReason;
use dataplane::plane::Plane;
use dataplane::spec::{Reason, Snapshot};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Ticks between two lines of the log about how far a node's drain is: five seconds.
const TELL_TICKS: u64 = 50;

impl Running<'_> {
    fn moment(&self) -> Moment {
        Moment { now: Instant::now(), mono: self.plane.now() }
    }

    /// SIGTERM or SIGQUIT; a second one ends the process at once.
    pub(super) fn on_drain_signal(&mut self) -> Option<Exit> {
        if std::mem::replace(&mut self.drains.signalled, true) {
            tracing::info!("a second signal: stopping at once");
            return Some(Exit::Clean);
        }
        if self.drains.ends() {
            tracing::info!("a signal to end: the process drains already");
        } else {
            self.drain_node(Reason::Shutdown, None);
        }
        None
    }

    /// The node drains.
    pub(super) fn drain_node(&mut self, reason: Reason, window: Option<Duration>) {
        let (paces, at) = (self.loaded.process.drains, self.moment());
        self.closed_before = closed(self.plane);
        self.drains.begin_node(reason, window, &paces, at);
        if let Some(node) = self.drains.node {
            let (reason, window) = (node.reason.name(), node.left(at.now));
            tracing::info!(reason, over_in = ?window, "draining: not ready any more");
        }
        self.follow_drains();
    }

    /// The shards follow what drains now, or do so when a reload is done with them.
    fn follow_drains(&mut self) {
        if let Err(why) = self.try_follow_drains() {
            // Sockets are closed by this and not opened.
            tracing::error!("draining: {why}");
        }
    }

    fn try_follow_drains(&mut self) -> Result<(), String> {
        self.drains.stale = self.reloads.is_under_way();
        if self.drains.stale || self.drains.ending {
            return Ok(());
        }
        let orders = self.drains.orders(&self.plane.snapshot());
        if *self.plane.drains() == orders {
            return Ok(());
        }
        self.plane.set_drains(orders).map_err(|error| explain(&error))
    }

    /// Each tick: goes on to the next phase, tells how far it is, and ends what has nothing left.
    pub(super) fn drain_tick(&mut self) {
        let at = self.moment();
        let forgot = self.drains.follow(&self.loaded.snapshot);
        if self.drains.tick(at) {
            tracing::info!("draining: no new connections; what is there leaves");
        }
        if forgot || self.drains.stale || self.drains.node.is_some() {
            self.follow_drains();
        }
        if self.drains.stale || !self.plane.is_settled() {
            return;
        }
        self.end_shards(at.now);
        let (plane, snapshot) = (self.plane, &self.loaded.snapshot);
        let over =
            self.drains.over(at.now, || plane.left_open().connections, |name| open(plane, snapshot, name));
        for (name, drain) in over {
            let took = at.now.saturating_duration_since(drain.since);
            match name {
                Some(name) => tracing::info!(listener = &*name, ?took, "drained"),
                None => self.tell_over(took),
            }
        }
        if self.ticks.is_multiple_of(TELL_TICKS)
            && let Some(node) = self.drains.node.filter(|node| node.phase == drains::Phase::Leaving)
        {
            let left = self.plane.left_open();
            tracing::info!(
                connections = left.connections,
                requests = left.requests,
                tunnels = left.tunnels,
                over_in = ?node.left(at.now),
                "draining"
            );
        }
    }

    /// Nothing is left of what the process is to end with: its shards do. Who is queued still is served first.
    fn end_shards(&mut self, now: Instant) {
        let Some(until) = self.drains.ends_by().filter(|_| !self.drains.ending) else { return };
        if self.plane.left_open().connections == 0 {
            self.drains.ending = true;
            self.plane.drain(until.saturating_duration_since(now));
        }
    }

    /// What became of the node's connections.
    pub(super) fn tell_over(&self, took: Duration) {
        let (left, before) = (closed(self.plane), self.closed_before);
        let (by_themselves, cut) = (left.0 - before.0, left.1 - before.1);
        match cut {
            0 => tracing::info!(drained = by_themselves, ?took, "drained: nothing is left"),
            _ => tracing::warn!(
                drained = by_themselves,
                drain_cut = cut,
                ?took,
                "drained: what still ran when the time was over was cut off"
            ),
        }
    }

    pub(super) fn answer_drain(&mut self, asked: &DrainAsked) -> Answer {
        match asked.read() {
            Ok((scope, window)) => match self.drain(&scope, window, asked.abort) {
                Ok(()) => self.drains_shown(),
                Err((status, why)) => Answer::refused(status, &why),
            },
            Err(why) => Answer::refused(StatusCode::BAD_REQUEST, &why),
        }
    }

    fn drain(
        &mut self,
        scope: &DrainScope,
        window: Option<Duration>,
        abort: bool,
    ) -> Result<(), (StatusCode, String)> {
        let unknown = |why| (StatusCode::NOT_FOUND, why);
        let conflict = |why: String| (StatusCode::CONFLICT, why);
        let begins_node = matches!(scope, DrainScope::Node(_)) && !abort;
        if self.drains.ending && !(begins_node && window.is_none()) {
            return Err(conflict("nothing is left, and the process ends".to_owned()));
        }
        if self.upgrades.is_under_way() {
            return Err(conflict("an upgrade is under way, or over".to_owned()));
        }
        match scope {
            DrainScope::Node(_) if abort => self.abort(None).map_err(conflict),
            DrainScope::Node(reason) => self.ask_node(*reason, window).map_err(conflict),
            DrainScope::Listener(name) => {
                let found = self.loaded.snapshot.listener_called(name).filter(|one| !one.is_gone());
                let found = found.map(|listener| Arc::clone(&listener.name));
                let name = found.ok_or_else(|| unknown(format!("no listener is called {name:?}")))?;
                if abort {
                    return self.abort(Some(&name)).map_err(conflict);
                }
                let (paces, at) = (self.loaded.process.drains, self.moment());
                self.drains.begin_listener(&name, window, &paces, at).map_err(conflict)?;
                tracing::info!(listener = &*name, "draining: no new connections; what is there leaves");
                self.follow_drains();
                Ok(())
            }
            DrainScope::Cluster(name) => {
                let snapshot = Arc::clone(&self.loaded.snapshot);
                let cluster = endpoints::find_cluster(&snapshot, name).map_err(unknown)?;
                self.watch.drain_cluster(self.plane, cluster, !abort);
                Ok(())
            }
            DrainScope::Endpoint(name) => {
                let snapshot = Arc::clone(&self.loaded.snapshot);
                let (cluster, endpoint) = endpoints::find(&snapshot, name).map_err(unknown)?;
                let drains = self.watch.said(cluster, endpoint) == Admin::Drain;
                match (abort, drains) {
                    (false, _) => self.watch.set_state(self.plane, cluster, endpoint, Admin::Drain),
                    (true, true) => self.watch.set_state(self.plane, cluster, endpoint, Admin::Ready),
                    (true, false) => {}
                }
                Ok(())
            }
        }
    }

    /// Somebody wants the node to drain. Where it does so to end, whoever wants it to stay is shown that.
    fn ask_node(&mut self, reason: Reason, window: Option<Duration>) -> Result<(), String> {
        let ends = self.drains.node.filter(|node| node.reason.ends());
        match ends {
            Some(_) if self.drains.ending => {}
            Some(node) if !reason.ends() => {
                let now = node.reason.name();
                if window.is_some() {
                    return Err(format!(
                        "the node drains for {now} already, and the process ends then: `--reason {now}` gives that \
                         another window, and `--abort` calls it off"
                    ));
                }
            }
            _ => self.drain_node(reason, window),
        }
        Ok(())
    }

    /// The node, or a listener, drains no longer. Its addresses are had again, or all stays as it is.
    fn abort(&mut self, listener: Option<&Arc<str>>) -> Result<(), String> {
        if self.reloads.is_under_way() {
            return Err("a reload is under way: ask again".to_owned());
        }
        let signalled = self.drains.signalled;
        let was = match listener {
            None => self.drains.abort_node(),
            Some(name) => self.drains.abort_listener(name),
        };
        let Some(was) = was else { return Ok(()) };
        if let Err(why) = self.try_follow_drains() {
            self.drains.put_back(listener, was);
            self.drains.signalled = signalled;
            return Err(format!("{why}; it drains on"));
        }
        match listener {
            None => tracing::info!(reason = was.reason.name(), "the drain is called off: ready again"),
            Some(name) => tracing::info!(listener = &**name, "the drain is called off"),
        }
        Ok(())
    }

    /// Everything that drains.
    pub(super) fn drains_shown(&self) -> Answer {
        Answer::json(StatusCode::OK, &self.sight().drains.to_json())
    }
}

/// What drains, for answers and metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(super) drains: &'a drains::Drains,
    pub(super) watch: &'a endpoints::Watch,
    pub(super) plane: &'a Plane,
    pub(super) snapshot: &'a Snapshot,
}

impl Shown<'_> {
    pub(crate) fn is_ready(&self) -> bool {
        self.drains.node.is_none()
    }
    /// Drains begun, by reason.
    pub(crate) fn begun(&self) -> [u64; Reason::ALL.len()] {
        self.drains.begun
    }
    /// Seconds until the node's drain is over; 0 where it does not drain.
    pub(crate) fn left_s(&self) -> f64 {
        self.drains.node.map_or(0.0, |node| node.left(Instant::now()).as_secs_f64())
    }
    /// Whether a listener takes no new connections because it drains.
    pub(crate) fn is_drained(&self, listener: &str) -> bool {
        self.plane.drains().node.is_some() || self.drains.listeners().any(|(name, _)| **name == *listener)
    }
    pub(crate) fn to_json(self) -> Value {
        let Self { drains, watch, plane, snapshot } = self;
        let left = || {
            let left = plane.left_open();
            [("connections", left.connections), ("requests", left.requests), ("tunnels", left.tunnels)]
        };
        let (node, mut listeners) = drains.to_json(Instant::now(), left, |name| open(plane, snapshot, name));
        // Those that a reload took away.
        for listener in snapshot.listeners.iter().flatten().filter(|listener| listener.is_gone()) {
            let connections = plane.open_conns(listener.id);
            if connections > 0 {
                listeners.push(json!({
                    "name": &*listener.name, "reason": "reload", "phase": "leaving", "connections": connections,
                }));
            }
        }
        let (clusters, endpoints) = watch.drained(plane, snapshot);
        json!({ "node": node, "listeners": listeners, "clusters": clusters, "endpoints": endpoints })
    }
}

/// Connections of the listener of that name.
fn open(plane: &Plane, snapshot: &Snapshot, name: &str) -> u64 {
    drains::find(snapshot, name).map_or(0, |listener| plane.open_conns(listener).into())
}

/// Connections that ended because something drained: by themselves, and cut off.
fn closed(plane: &Plane) -> (u64, u64) {
    let sum = |reason| plane.stats().map(|stats| stats.close(reason).get()).sum();
    (sum(CloseReason::Drained), sum(CloseReason::DrainCut))
}

impl Running<'_> {
    pub(super) fn sight(&self) -> Sight<'_> {
        let drains = Shown {
            drains: &self.drains,
            watch: &self.watch,
            plane: self.plane,
            snapshot: &self.loaded.snapshot,
        };
        Sight {
            plane: self.plane,
            loaded: &self.loaded,
            checks: &self.checks,
            ports: &self.ports,
            log: self.log,
            waits: &self.reloads.waits,
            drift: self.reloads.changes.names(),
            drains,
            now: Instant::now(),
        }
    }
}
