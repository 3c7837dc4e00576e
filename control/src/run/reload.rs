//! A reload of the running process, in steps between which it serves: the file is read beside the control thread, what follows from
//! it is made ready, the shards go over, and once all of them have, whoever asked is told. Until the shards are told, anything that
//! fails leaves all as it was.

use super::reading::{Reader, Reading, Unread};
use super::told::{Told, explain, explain_api, unprocessable, wrong};
use super::{Running, log_settings_of};
use crate::admin::{Answer, Api};
use crate::config::{Environment, Loaded};
use crate::log::{Log, Opened, OpenedTraces};
use crate::reload::{Changes, Next, Present, Read, Refused, Wanted, Watch};
use crate::traces;
use axum::http::StatusCode;
use dataplane::cluster::eligible::Health;
use dataplane::limits;
use dataplane::spec::Snapshot;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Who asked for a reload, and waits for its answer.
pub(super) type Asker = Option<oneshot::Sender<Answer>>;

/// Between two looks whether the shards have gone over, and for the log to take note of what comes.
const PAUSE: Duration = Duration::from_millis(1);

/// Everything about reloads.
#[derive(Debug)]
pub(super) struct Reloads {
    path: Option<PathBuf>,
    pub(super) environment: Environment,
    pub(super) present: Present,
    pub(super) reader: Reader,
    watch: Option<Watch>,
    stage: Stage,
    /// What took too long to read and was not waited for: the file, and a change.
    lost: [Option<Reading<Result<Read, Refused>>>; 2],
    /// Who asked while one was under way, and wants what is in the file then.
    waiting: Vec<Asker>,
    /// Changes that wait for their turn.
    changing: VecDeque<(Wanted, Asker)>,
    /// The file that runs, without what was changed at run time, and that.
    pub(super) file: Arc<str>,
    pub(super) changes: Changes,
    /// Keys of the file that wait for a restart or an upgrade.
    pub(super) waits: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    Rests,
    Reads {
        reading: Reading<Result<Read, Refused>>,
        /// And not the file that runs with a change.
        file: bool,
        askers: Vec<Asker>,
    },
    /// Read, and waits until every shard has gone over to what came before.
    HasRead {
        file: Box<Read>,
        read: Duration,
        begun: Instant,
        askers: Vec<Asker>,
    },
    /// Ready: the log is told, and the shards are next.
    Ready(Box<Ready>),
    Switches {
        told: Box<Told>,
        swap: u64,
        since: Instant,
    },
}

#[derive(Debug)]
struct Ready {
    next: Next,
    snapshot: Arc<Snapshot>,
    file: Arc<str>,
    changes: Changes,
    /// Another one is in its place; none has none.
    api: Option<Option<Api>>,
    told: Told,
}

/// What a reload waits for.
#[derive(Debug)]
pub(super) enum Step {
    Read(Result<Result<Box<Read>, Refused>, Unread>),
    Next,
}

impl Reloads {
    /// Of a process that starts with `loaded`, which is this file with these changes.
    pub(super) fn new(
        path: Option<PathBuf>,
        environment: Environment,
        loaded: &Loaded,
        (file, changes): (Arc<str>, Changes),
    ) -> Self {
        // From now on a file is read while others are served.
        let environment = Environment { pipes: false, ..environment };
        let watch = path.clone().filter(|_| loaded.process.watch).map(Watch::new);
        Self {
            path,
            environment,
            present: Present::first(loaded),
            reader: Reader::new(),
            watch,
            stage: Stage::Rests,
            lost: [None, None],
            waiting: Vec::new(),
            changing: VecDeque::new(),
            file,
            changes,
            waits: Vec::new(),
        }
    }

    fn watch_if(&mut self, wanted: bool) {
        match (wanted, &self.path) {
            (true, Some(path)) if self.watch.is_none() => self.watch = Some(Watch::later(path.clone())),
            (true, Some(_)) => {}
            _ => self.watch = None,
        }
    }

    /// Whether one is under way: nothing else may have the shards go over then.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Rests | Stage::Reads { .. })
    }

    /// That somebody waits for one, or that what it read hangs.
    pub(super) fn is_busy(&self) -> Option<String> {
        let rests = matches!(self.stage, Stage::Rests) && self.waiting.is_empty();
        if rests { self.hangs(true) } else { Some("a reload is under way".to_owned()) }
    }

    /// That the last reading was not waited for, and goes on: of the file, or of a change.
    fn hangs(&self, file: bool) -> Option<String> {
        self.lost[usize::from(!file)].as_ref().and_then(Reading::hangs)
    }

    /// Names of the descriptors that the process was started with.
    pub(super) fn inherited(&self) -> Vec<String> {
        self.environment.inherited.clone().unwrap_or_default()
    }

    /// Waits for the next step; pending for ever while none is due. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Step {
        match &mut self.stage {
            Stage::Rests => std::future::pending().await,
            Stage::Reads { reading, .. } => Step::Read(reading.end().await.map(|read| read.map(Box::new))),
            Stage::HasRead { .. } | Stage::Ready(_) | Stage::Switches { .. } => {
                sleep(PAUSE).await;
                Step::Next
            }
        }
    }
}

impl Running<'_> {
    /// Somebody wants the file to be read anew.
    pub(super) fn reload(&mut self, asker: Asker) {
        let refused = if self.drains.ends() {
            Some("the process drains: it reloads no more".to_owned())
        } else if self.upgrades.is_under_way() {
            Some("an upgrade is under way".to_owned())
        } else if self.reloads.path.is_none() {
            Some("this is the built-in demo: there is no file to reload".to_owned())
        } else {
            self.reloads.hangs(true)
        };
        if let Some(why) = refused {
            return refuse(vec![asker], StatusCode::CONFLICT, &why);
        }
        self.reloads.waiting.push(asker);
        self.begin_reload();
    }

    /// Reads the file, if somebody waits for that and nothing is under way.
    fn begin_reload(&mut self) {
        let reloads = &mut self.reloads;
        if !matches!(reloads.stage, Stage::Rests) {
            return;
        }
        let waits = !reloads.waiting.is_empty();
        let Some(path) = reloads.path.as_ref().filter(|_| waits) else { return self.begin_change() };
        let (changes, file) = (reloads.changes.clone(), Arc::clone(&reloads.file));
        let (path, environment) = (path.clone(), reloads.environment.clone());
        let askers = std::mem::take(&mut reloads.waiting);
        // Of a reading that was given up while these waited.
        if let Some(why) = reloads.hangs(true) {
            refuse(askers, StatusCode::CONFLICT, &why);
            return self.begin_change();
        }
        let name = path.display().to_string();
        let read = move || changes.reload(&path, &file, &environment);
        if !self.begin_reading(name, read, true, askers) {
            self.begin_change();
        }
    }

    /// Reads the file that runs with the change whose turn it is.
    fn begin_change(&mut self) {
        while let Some((wanted, asker)) = self.reloads.changing.pop_front() {
            let reloads = &self.reloads;
            if let Some(why) = reloads.hangs(false) {
                refuse(vec![asker], StatusCode::CONFLICT, &why);
                continue;
            }
            let (changes, file) = (reloads.changes.clone(), Arc::clone(&reloads.file));
            let environment = reloads.environment.clone();
            let path = reloads.path.as_ref().map(|path| path.display().to_string());
            let name = format!("{} with a change", path.as_deref().unwrap_or("the demo"));
            let read = move || changes.change(&wanted, &file, &environment);
            if self.begin_reading(name, read, false, vec![asker]) {
                return;
            }
        }
    }

    /// False where it cannot begin, which the askers are told.
    fn begin_reading(
        &mut self,
        name: String,
        read: impl FnOnce() -> Result<Read, Refused> + Send + 'static,
        file: bool,
        askers: Vec<Asker>,
    ) -> bool {
        match self.reloads.reader.begin(name, read) {
            Ok(reading) => {
                self.reloads.stage = Stage::Reads { reading, file, askers };
                true
            }
            Err(unread) => {
                refuse_unread(askers, &unread);
                false
            }
        }
    }

    /// Somebody changes something at run time.
    pub(super) fn change(&mut self, wanted: Wanted, asker: oneshot::Sender<Answer>) {
        let full = self.reloads.changing.len() >= limits::CHANGES_WAITING;
        let refused = if self.drains.ends() {
            Some((StatusCode::CONFLICT, "the process drains: it changes no more"))
        } else if self.upgrades.is_under_way() {
            Some((StatusCode::CONFLICT, "an upgrade is under way"))
        } else if full {
            Some((StatusCode::SERVICE_UNAVAILABLE, "too many changes wait (CHANGES_WAITING)"))
        } else {
            None
        };
        if let Some((status, why)) = refused {
            return answer(Some(asker), &Answer::refused(status, why));
        }
        match &wanted {
            Wanted::Edit(edit) => tracing::info!("asked to change {}", edit.target),
            Wanted::Weight(target, weight) => tracing::info!("asked to give {target} the weight {weight}"),
            Wanted::Forget => tracing::info!("asked to go back to the file"),
        }
        self.reloads.changing.push_back((wanted, Some(asker)));
        self.begin_reload();
    }

    /// One tick: looks at the file, where that is asked for.
    pub(super) fn watch_file(&mut self) {
        let watch = self.reloads.watch.as_mut();
        let is_last = self.drains.ends() || self.upgrades.is_under_way();
        if !is_last && watch.is_some_and(|watch| watch.tick(Instant::now())) {
            tracing::info!("the configuration's file is another: reloading");
            self.reload(None);
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match (step, std::mem::replace(&mut self.reloads.stage, Stage::Rests)) {
            (Step::Read(Ok(read)), Stage::Reads { reading, askers, .. }) => {
                self.on_read(read, reading.begun(), askers);
            }
            (Step::Read(Err(unread)), Stage::Reads { reading, file, askers }) => {
                refuse_unread(askers, &unread);
                // One that died has ended, or does so at once: it holds nobody up.
                if matches!(unread, Unread::Hangs(_)) {
                    self.reloads.lost[usize::from(!file)] = Some(reading);
                }
            }
            (Step::Next, Stage::HasRead { file, read, begun, askers }) => {
                self.make_ready(file, read, begun, askers);
            }
            (Step::Next, Stage::Ready(ready)) => self.go_over(*ready),
            (Step::Next, Stage::Switches { told, swap, since }) => {
                self.plane.switch();
                if self.plane.has_switched(swap) {
                    self.tell_reload(*told, since.elapsed());
                } else {
                    self.reloads.stage = Stage::Switches { told, swap, since };
                }
            }
            (_, stage) => self.reloads.stage = stage,
        }
        self.begin_reload();
    }

    fn on_read(&mut self, read: Result<Box<Read>, Refused>, begun: Instant, askers: Vec<Asker>) {
        match read {
            Ok(file) => self.make_ready(file, begun.elapsed(), begun, askers),
            Err(Refused::Unknown(what)) => answer_all(askers, &Answer::refused(StatusCode::NOT_FOUND, &what)),
            Err(refused) => {
                let (why, report) = wrong(&refused);
                for problem in report.iter().flat_map(|report| &report.problems) {
                    tracing::error!("reload: {problem}");
                }
                tracing::error!("reload: {why}; nothing changed");
                answer_all(askers, &unprocessable(&format!("{why}; nothing changed"), report));
            }
        }
    }

    /// The file is right: makes all ready, once no other swap is under way.
    fn make_ready(&mut self, file: Box<Read>, read: Duration, begun: Instant, askers: Vec<Asker>) {
        self.plane.switch();
        if !self.plane.is_settled() {
            self.reloads.stage = Stage::HasRead { file, read, begun, askers };
            return;
        }
        if self.drains.ends() {
            let why = "the process drains: it reloads no more";
            return answer_all(askers, &Answer::refused(StatusCode::CONFLICT, why));
        }
        let Read { loaded, file, changes, ended, forgets } = *file;
        match self.prepare(&loaded) {
            Ok((next, snapshot, api)) => {
                let told = Told {
                    askers,
                    plan: next.plan.clone(),
                    warnings: loaded.warnings.to_json(),
                    ended,
                    forgets,
                    forgotten: Vec::new(),
                    begun,
                    read,
                    prepared: begun.elapsed().saturating_sub(read),
                };
                for warning in &loaded.warnings.problems {
                    tracing::warn!("reload: {warning}");
                }
                self.reloads.stage =
                    Stage::Ready(Box::new(Ready { next, snapshot, file, changes, api, told }));
            }
            Err(why) => {
                refuse(askers, StatusCode::CONFLICT, &why);
            }
        }
    }

    /// Makes all ready that can fail, then what follows from it, and tells the log of what comes.
    #[allow(clippy::type_complexity, reason = "one use, as it is kept")]
    fn prepare(&mut self, file: &Loaded) -> Result<(Next, Arc<Snapshot>, Option<Option<Api>>), String> {
        let swap = self.plane.swaps() + 1;
        let live = Arc::clone(self.discovery.snapshot());
        let rested = self.discovery.rested();
        let present = &self.reloads.present;
        // Texts are parsed there, too: a fault of ours in that is no reason to end the process.
        let next = catch_unwind(AssertUnwindSafe(|| present.next(file, &live, (swap, rested), self.plane)));
        let next = next.map_err(|_| "internal error while comparing; please report it".to_owned())??;
        let before = &self.reloads.present.configured.process;
        let (outputs, traces) = self.open_logs(file, next.present.configured.process.traces.as_ref())?;
        let api = match &file.process.admin {
            same if same.as_ref().map(|to| &to.address) == before.admin.as_ref().map(|to| &to.address) => {
                None
            }
            None => Some(None),
            Some(to) => Some(Some(Api::start(to, None).map_err(|error| explain_api(&to.address, &error))?)),
        };
        self.plane.listen(&next.snapshot).map_err(|error| explain(&error))?;
        let lists = (next.changed.as_slice(), next.gone.as_slice());
        let sources = &next.present.configured.sources;
        let snapshot = self.discovery.follow(next.snapshot.clone(), sources, lists, swap, self.plane);
        let log = log_settings_of(&file.process);
        self.log.change(outputs, traces, log.level, log.format);
        self.log.follow(Vec::new(), Arc::clone(&snapshot));
        // A line wakes the log: it knows the names when the first record comes.
        tracing::info!("reload: {}", next.plan.summary());
        Ok((next, snapshot, api))
    }

    /// Other access logs and another collector, if they are others.
    fn open_logs(
        &self,
        file: &Loaded,
        traces: Option<&traces::Settings>,
    ) -> Result<(Option<Opened>, Option<OpenedTraces>), String> {
        let before = log_settings_of(&self.reloads.present.configured.process);
        let after = log_settings_of(&file.process);
        let outputs = if before.access == after.access { None } else { Some(Log::open(&after.access)?) };
        let same = before.traces.as_ref() == traces;
        let traces = if same { None } else { Some(self.log.open_traces(traces)?) };
        Ok((outputs, traces))
    }

    /// Has the shards go over, and everybody else.
    fn go_over(&mut self, ready: Ready) {
        let Ready { next, snapshot, file, changes, api, mut told } = ready;
        (self.reloads.file, self.reloads.changes) = (file, changes);
        let since = Instant::now();
        self.plane.swap(Arc::clone(&snapshot));
        self.discovery.on_swapped(self.plane);
        let Next { present, plan, .. } = next;
        let before = std::mem::replace(&mut self.loaded.snapshot, Arc::clone(&snapshot));
        let configured = &present.configured;
        self.loaded.checks.clone_from(&configured.checks);
        self.loaded.sources.clone_from(&configured.sources);
        self.loaded.process = configured.process.clone();
        self.checks.set_descriptors(configured.check_descriptors);
        let released = self.checks.follow(&snapshot, &configured.checks, Instant::now());
        self.plane.set_healths(released.into_iter().map(|(cluster, id)| (cluster, id, Health::Up)));
        self.ports.follow(&snapshot);
        self.watch.follow(self.plane, &before, &snapshot);
        if told.forgets {
            told.forgotten = self.watch.forget_gone(&snapshot);
        }
        self.watch.events.set_format(log_settings_of(&configured.process).format);
        self.files.follow(&configured.files, self.plane);
        match (api, &self.api, &configured.process.admin) {
            // Whoever asked by the former gets their answer: connections outlive it.
            (Some(api), _, _) => self.api = api,
            (None, Some(api), Some(settings)) => api.follow(settings),
            (None, ..) => {}
        }
        self.reloads.waits = plan.waits();
        self.reloads.watch_if(configured.process.watch);
        self.reloads.present = present;
        let swap = self.plane.swaps();
        self.reloads.stage = Stage::Switches { told: Box::new(told), swap, since };
    }
}

/// Tells the log and whoever asked why nothing was done.
fn refuse(askers: Vec<Asker>, status: StatusCode, why: &str) {
    tracing::warn!("reload: {why}; nothing changed");
    answer_all(askers, &Answer::refused(status, &format!("{why}; nothing changed")));
}

fn refuse_unread(askers: Vec<Asker>, unread: &Unread) {
    refuse(askers, unread.status(), unread.why());
}

pub(super) fn answer_all(askers: Vec<Asker>, with: &Answer) {
    askers.into_iter().for_each(|asker| answer(asker, with));
}

fn answer(asker: Asker, with: &Answer) {
    if let Some(asker) = asker {
        // Who asked may be gone.
        let _ = asker.send(with.clone());
    }
}
