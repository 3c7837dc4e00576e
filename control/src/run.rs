//! A configuration at work: start the plane, say so, obey signals, watch the shards, end with the right code.
//!
//! `start` reads what is to run, `calls` are the commands that ask the running process, `event` is what control waits for,
//! `told` what it says of its start, `reload` how it goes over to another configuration, `reading` how that is read, `plan` what
//! it would change, `drift` what was changed at run time, `drain` how it sends connections away, `upgrade` how another process
//! takes its place, `end` how it ends.

mod calls;
mod drain;
mod drift;
mod end;
mod event;
mod logs;
mod plan;
mod reading;
mod reload;
mod start;
mod told;
mod upgrade;

use crate::admin::connections::Lists;
use crate::admin::page::Pulse;
use crate::admin::{self, Answer, Api, Ask, Question};
use crate::cli::complain;
use crate::config::{Environment, Loaded};
use crate::discovery::Discovery;
use crate::drains;
use crate::endpoints::{self, Watch};
use crate::exit::Exit;
use crate::health::{Checks, Happened};
use crate::log::Log;
use crate::maintenance::Files;
use crate::metrics;
use crate::ports::{self, PortWatch};
use crate::pressure::Pressure;
use crate::reload::Read;
use crate::upgrade::{Arrival, Former, Speaks, Took};
use crate::watchdog::{TICK, Watchdog};
use axum::http::StatusCode;
use dataplane::limits;
use dataplane::plane::{self, Fault, Plane, PlaneEvent, ShardEnd};
pub(crate) use drain::Shown as Drains;
use event::{Event, Own, Signals, next_event};
use logs::log_settings_of;
use reload::Reloads;
use start::environment;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use told::{announce, explain as explain_start, explain_api, warn_of_shortage};
use upgrade::Upgrades;

pub use calls::*;
pub use start::{check, demo, doctor, run};

/// Ticks between two looks at the local ports: one second.
const PORTS_TICKS: u64 = 10;

/// Runs what was read, of `file` or the demo, to the end of the process; in the place of another one, if there is a `former`.
fn serve(read: Read, file: Option<&Path>, environment: Environment, former: Option<Former>) -> Exit {
    let descriptors = plane::resources().descriptors;
    if descriptors < limits::DESCRIPTORS_MIN {
        let least = limits::DESCRIPTORS_MIN;
        return cannot(&format!(
            "the process may have {descriptors} descriptors and needs {least}: raise `ulimit -n`"
        ));
    }
    // Before any other thread starts, for they run where this one may. Where shards have every CPU, all run where there is room.
    let _ = plane::keep_off_shards(read.loaded.snapshot.runtime.shards);
    let log = match Log::start(&log_settings_of(&read.loaded.process)) {
        Ok(log) => log,
        Err(what) => return cannot(&what),
    };
    match runtime() {
        Ok(runtime) => {
            let exit = runtime.block_on(serve_with(read, file, environment, former, &log));
            // A look at a file that takes for ever holds nobody up.
            runtime.shutdown_background();
            exit
        }
        Err(e) => cannot(&format!("cannot start the control thread: {e}")),
    }
}

/// The control thread's: one thread, and a few that wait for files in its place.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(limits::FILE_THREADS).build()
}

fn cannot(what: &str) -> Exit {
    complain(what);
    Exit::Machine
}

async fn serve_with(
    read: Read,
    file: Option<&Path>,
    environment: Environment,
    mut former: Option<Former>,
    log: &Log,
) -> Exit {
    let Read { loaded, file: text, changes, ended, .. } = read;
    let loaded = &loaded;
    for name in &ended {
        tracing::warn!("upgrade: {}", told::ended(name));
    }
    // Before the plane, so that no signal that follows the ready line is missed.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return cannot(&format!("cannot listen for signals: {e}")),
    };
    // Before the plane too: a taken address is told before anybody is served.
    let given = former.as_mut().and_then(|former| former.admin.take());
    let (api, took_admin) = match start_api(loaded, given) {
        Ok(started) => started,
        Err(why) => return cannot(&why),
    };
    let (notify, mut events) = mpsc::unbounded_channel();
    let (discovery, snapshot) = Discovery::start(loaded).await;
    let handed = former.as_mut().map(|former| std::mem::take(&mut former.handed));
    let started = Plane::prepare(Arc::clone(&snapshot), handed, move |event| {
        // Nobody listens once the process ends.
        let _ = notify.send(event);
    });
    let mut plane = match started {
        Ok(plane) => plane,
        Err(error) => return cannot(&explain_start(&error)),
    };
    log.follow(plane.take_log_readers(), Arc::clone(&snapshot));
    warn_of_shortage(&plane);
    let (came, arrivals) = mpsc::channel(limits::UPGRADE_ARRIVALS);
    let mut running = Running {
        plane: &plane,
        loaded: Loaded { snapshot: Arc::clone(&snapshot), ..loaded.clone() },
        log,
        checks: Checks::new(&snapshot, &loaded.checks, loaded.check_descriptors, Instant::now()),
        files: Files::new(&loaded.maintenance_files.iter().cloned().map(Some).collect::<Vec<_>>()),
        watch: Watch::new(log_settings_of(&loaded.process).format),
        watchdog: Watchdog::default(),
        discovery,
        ports: PortWatch::new(&snapshot, ports::of_machine(), plane::is_source),
        pressure: Pressure::new(),
        ticks: 0,
        alive: usize::from(loaded.snapshot.runtime.shards),
        drains: drains::Drains::default(),
        closed_before: (0, 0),
        reloads: Reloads::new(file.map(Path::to_owned), environment, loaded, (text, changes)),
        upgrades: Upgrades::new(former.as_ref().and_then(Former::watch)),
        arrivals,
        came: came.clone(),
        lost: 0,
        lost_why: String::new(),
        lists: Lists::default(),
        api,
    };
    if let Some(former) = &former {
        let Running { watch, checks, .. } = &mut running;
        endpoints::believe(former, &snapshot, &plane, watch, checks);
    }
    plane.begin();
    announce(&plane, loaded, running.api.as_ref(), file.is_none());
    if let Some(former) = former {
        let listeners = snapshot.listeners.iter().flatten().map(|listener| Speaks::of(listener)).collect();
        former.ready(Took { taken: plane.taken(), admin: took_admin, listeners, ended }, came);
    }
    inject_asked_fault(&plane);
    let exit = running.serve(&mut events, &mut signals).await;
    let (alive, api) = (running.alive, running.api.take());
    let mut upgrades = running.upgrades;
    end::end(plane, &mut events, alive, exit == Exit::Clean, (&mut upgrades, api)).await;
    exit
}

/// The admin API, where there is one, and whether it goes on with what another process listened on.
fn start_api(loaded: &Loaded, given: Option<(String, OwnedFd)>) -> Result<(Option<Api>, bool), String> {
    let Some(to) = &loaded.process.admin else { return Ok((None, false)) };
    let goes_on = given.as_ref().is_some_and(|(asked, _)| *asked == to.address.to_string());
    let api = Api::start(to, given).map_err(|error| explain_api(&to.address, &error))?;
    Ok((Some(api), goes_on))
}

/// The process while it serves.
struct Running<'a> {
    plane: &'a Plane,
    /// With the endpoints of this moment.
    loaded: Loaded,
    log: &'a Log,
    checks: Checks,
    watch: Watch,
    files: Files,
    watchdog: Watchdog,
    discovery: Discovery,
    ports: PortWatch,
    pressure: Pressure,
    ticks: u64,
    /// Shards that have not ended.
    alive: usize,
    drains: drains::Drains,
    /// What had ended because of drains when the node's began: by itself, and cut off.
    closed_before: (u64, u64),
    reloads: Reloads,
    upgrades: Upgrades,
    arrivals: mpsc::Receiver<Arrival>,
    came: mpsc::Sender<Arrival>,
    /// Connections that arrived and could not go on, since the last tick; and why the last of them could not.
    lost: u64,
    lost_why: String,
    /// Questions about connections.
    lists: Lists,
    api: Option<Api>,
}

impl Running<'_> {
    /// Serves until the process is to end, and says how.
    async fn serve(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<PlaneEvent>,
        signals: &mut Signals,
    ) -> Exit {
        let mut ticks = interval(TICK);
        // After a pause of the whole process one tick follows, not all that were missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Running { checks, api, reloads, upgrades, arrivals, lists, drains, .. } = self;
            let drain_until = drains.ends_by();
            let own = Own { checks, api, reloads, upgrades, arrivals, lists, drain_until };
            let event = next_event(events, signals, &mut ticks, own).await;
            if let Some(exit) = self.obey(event) {
                return exit;
            }
        }
    }

    /// Carries out one event. Returns how the process ends, if it is to end.
    fn obey(&mut self, event: Event) -> Option<Exit> {
        match event {
            Event::Shard(shard, how) => return self.shard_ended(shard, how),
            Event::Stop => {
                tracing::info!("stopping at once");
                return Some(Exit::Clean);
            }
            Event::Drain => return self.on_drain_signal(),
            Event::DrainTimedOut => {
                tracing::warn!("the time of the drain is over; what still runs is cut off");
                return Some(Exit::Clean);
            }
            Event::Reload => self.reload(None),
            Event::Reloads(step) => self.step(step),
            Event::Upgrade => self.upgrade(None),
            Event::Upgrades(step) => self.upgrade_step(step),
            Event::Arrived(arrived) => self.arrived(arrived),
            Event::ReopenLogs => self.log.reopen(),
            Event::Asked(Ask::Answer(question, to)) => {
                // Who asked may be gone.
                let _ = to.send(self.answer(&question));
            }
            Event::Asked(Ask::Connections(wants, to)) => {
                self.lists.ask(wants, to, self.plane, &self.loaded.snapshot);
            }
            Event::Asked(Ask::Pulse(to)) => {
                let _ = to.send(Pulse::of(&self.sight()));
            }
            Event::Lists => self.lists.look(self.plane, &self.loaded.snapshot),
            Event::Asked(Ask::Change(wanted, to)) => self.change(wanted, to),
            Event::Asked(Ask::Reload(to)) => self.reload(Some(to)),
            Event::Asked(Ask::Plan(asked, to)) => self.plan(asked, to),
            Event::Asked(Ask::Upgrade(to)) => self.upgrade(Some(to)),
            Event::Asked(Ask::Probe(name, to)) => {
                let _ = to.send(endpoints::task(&name, &self.loaded));
            }
            Event::Checks(happened) => return self.check(happened),
            Event::Tick => {
                self.ticks += 1;
                if !self.reloads.is_under_way() {
                    self.swap();
                }
                self.plane.send_unsent();
                self.upgrade_tick();
                self.drain_tick();
                self.watch_file();
                self.watch.tick(self.plane, &self.loaded.snapshot, &self.checks);
                self.files.tick(self.ticks, self.plane);
                if self.ticks.is_multiple_of(PORTS_TICKS) {
                    self.pressure.look(self.plane.stats(), Instant::now());
                    self.ports.look(|cluster, endpoint| self.plane.open_links(cluster, endpoint));
                }
                if let Some(shard) =
                    self.watchdog.tick(&self.plane.turns(), |shard| self.plane.cpu_time(shard))
                {
                    // Never serve with a hole among the shards.
                    tracing::error!(
                        shard,
                        "a shard has stalled: no turn of its loop for 2 s of work, or 20 s in all; the process ends"
                    );
                    return Some(Exit::Internal);
                }
            }
        }
        None
    }

    /// Has everybody go over to the endpoints that discovery found.
    fn swap(&mut self) {
        let Some(snapshot) = self.discovery.tick(self.plane, self.log) else { return };
        let before = std::mem::replace(&mut self.loaded.snapshot, Arc::clone(&snapshot));
        self.ports.follow_endpoints(&snapshot);
        self.checks.follow(&snapshot, &self.loaded.checks, Instant::now());
        self.watch.follow(self.plane, &before, &snapshot);
    }

    fn check(&mut self, happened: Happened) -> Option<Exit> {
        let done = match happened {
            Happened::Done(done) => done,
            Happened::Due => Vec::new(),
            Happened::Died(died) => {
                tracing::error!("a check died: {died}; the process ends");
                return Some(Exit::Internal);
            }
        };
        let changes = self.checks.take(done, Instant::now());
        self.watch.on_changes(self.plane, &self.loaded.snapshot, &changes);
        None
    }

    fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::Ready => {
                let ready = self.drains.node.is_none();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Answer::json(status, &serde_json::json!({ "ready": ready, "draining": !ready }))
            }
            Question::Clusters => self.sight().clusters(),
            Question::Cluster(name) => self.sight().cluster_called(name),
            Question::Endpoint(name) => self.sight().endpoint(name),
            Question::Listeners => self.sight().listeners(),
            Question::Routes => self.sight().routes(),
            Question::Route(name) => self.sight().route_called(name),
            Question::Shards => self.sight().shards(),
            Question::Limits(own) => self.sight().limits(own),
            Question::SetState(..) if self.upgrades.is_under_way() => {
                Answer::refused(StatusCode::CONFLICT, "an upgrade is under way")
            }
            Question::SetState(name, state) => {
                match endpoints::find(&self.loaded.snapshot, name) {
                    Ok((cluster, endpoint)) => self.watch.set_state(self.plane, cluster, endpoint, *state),
                    Err(unknown) => return Answer::refused(StatusCode::NOT_FOUND, &unknown),
                }
                self.sight().endpoint(name)
            }
            Question::Logs => {
                Answer::json(StatusCode::OK, &serde_json::json!({ "logs": self.log.numbers() }))
            }
            Question::Export => Answer::text("application/toml", self.export()),
            Question::Drift => self.drift(),
            Question::Explain(asked) => admin::explain::answer(&self.sight(), asked),
            Question::Events => {
                Answer::json(StatusCode::OK, &serde_json::json!({ "events": self.watch.events.kept() }))
            }
            Question::Drains => self.drains_shown(),
            Question::Drain(asked) => self.answer_drain(asked),
            Question::Dashboard(asked) => self.sight().dashboard(asked, self.watch.events.kept()),
            Question::Metrics(format) => metrics::answer(&self.sight(), *format),
        }
    }

    fn shard_ended(&mut self, shard: u16, how: ShardEnd) -> Option<Exit> {
        self.alive = self.alive.saturating_sub(1);
        self.watchdog.ended(shard);
        match how {
            ShardEnd::Drained | ShardEnd::Stopped if self.drains.ending => {
                if self.alive == 0 {
                    let since = self.drains.node.map(|node| node.since.elapsed());
                    self.tell_over(since.unwrap_or_default());
                    return Some(Exit::Clean);
                }
                None
            }
            ShardEnd::Drained | ShardEnd::Stopped => self.fault(shard, "it ended though nobody asked"),
            ShardEnd::Panicked(why) => self.fault(shard, &format!("it panicked: {why}")),
            ShardEnd::Failed(why) => self.fault(shard, &why),
        }
    }

    fn fault(&self, shard: u16, why: &str) -> Option<Exit> {
        tracing::error!(shard, alive = self.alive, "a shard died: {why}; the process ends");
        Some(Exit::Internal)
    }
}

/// For the tests of a shard that dies or stalls: `RINGWAY_INJECT=panic` or `stall` in the environment makes the first
/// shard do that. Read once, here; a shard knows it only as a command in its mailbox.
fn inject_asked_fault(plane: &Plane) {
    let Ok(asked) = std::env::var("RINGWAY_INJECT") else { return };
    match asked.as_str() {
        "panic" => plane.inject(Fault::Panic),
        "stall" => plane.inject(Fault::Stall),
        // Not a shard's: `crate::upgrade` and `reading`.
        asked if asked.starts_with("upgrade") || asked == "read" => {}
        _ => tracing::warn!("RINGWAY_INJECT is none of panic, stall, upgrade and read"),
    }
}
