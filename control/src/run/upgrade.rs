//! A binary upgrade, as the process that is followed by another sees it: in steps between which it serves. `over` is what it does
//! once the next one has what listens.

mod over;

use super::{Running, told};
use crate::admin::Answer;
use crate::endpoints;
use crate::reload::Made;
use crate::upgrade::{Arrival, Bearer, Gift, Next, Speaks, Took, may_take_back};
use axum::http::StatusCode;
use dataplane::limits;
use dataplane::plane::{self, Fault, Handed, Plane};
use dataplane::spec::Listener;
use over::{Kept, Over};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, SendError};
use tokio::sync::oneshot;

/// Who asked for an upgrade, and waits for its answer.
type Asker = Option<oneshot::Sender<Answer>>;
type Started = Result<(Next, Bearer, Took), String>;
type Given = Result<(Next, Bearer), (String, Vec<Handed>)>;

/// Everything about upgrades.
#[derive(Debug)]
pub(super) struct Upgrades {
    /// The program's file: what is there when the time comes is started.
    program: Option<PathBuf>,
    stage: Stage,
    /// Of the process before this one, as long as it may take everything back.
    former: Option<OwnedFd>,
    /// Ticks for which accepts are still begun anew.
    anew: u32,
}

/// Three seconds of them.
const ANEW_TICKS: u32 = 30;

#[derive(Debug)]
enum Stage {
    Rests,
    Starts {
        started: oneshot::Receiver<Started>,
        asker: Asker,
    },
    /// It was told what is its own.
    Gives {
        given: oneshot::Receiver<Given>,
        over: Over,
    },
    Over(Over),
}

/// What an upgrade waits for.
#[derive(Debug)]
pub(super) enum Step {
    Started(Box<Started>),
    Given(Given),
}

impl Upgrades {
    pub(super) fn new(former: Option<OwnedFd>) -> Self {
        // To be asked now: once the file is replaced, the kernel calls it "(deleted)".
        Self { program: std::env::current_exe().ok(), stage: Stage::Rests, former, anew: 0 }
    }

    /// Whether one is under way, or over: the next process has read the file, and would miss what changes here.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Rests)
    }

    /// Waits for the next step; pending for ever while none is due. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Step {
        let died = || "the thread that spoke to it died".to_owned();
        match &mut self.stage {
            Stage::Rests | Stage::Over(_) => std::future::pending().await,
            Stage::Starts { started, .. } => {
                Step::Started(Box::new(started.await.unwrap_or_else(|_| Err(died()))))
            }
            Stage::Gives { given, .. } => {
                Step::Given(given.await.unwrap_or_else(|_| Err((died(), Vec::new()))))
            }
        }
    }
}

/// Runs `talk` with `value` on a thread of its own, as it waits for another process. Where there is no thread the value comes back.
fn beside<V: Send + 'static, T: Send + 'static>(
    value: V,
    talk: impl FnOnce(V) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, (String, V)> {
    let (done, result) = oneshot::channel();
    let (give, given) = mpsc::channel();
    let run = move || {
        if let Ok(value) = given.recv() {
            // Nobody waits for the result where this process ends meanwhile.
            drop(done.send(talk(value)));
        }
    };
    // It is given only to a thread that there is.
    match std::thread::Builder::new().name("upgrade".to_owned()).spawn(run) {
        Err(error) => Err((format!("no thread: {error}"), value)),
        Ok(_) => match give.send(value) {
            Ok(()) => Ok(result),
            Err(SendError(value)) => Err(("the thread ended".to_owned(), value)),
        },
    }
}

impl Running<'_> {
    /// Somebody wants the next process to take over.
    pub(super) fn upgrade(&mut self, asker: Asker) {
        match self.begin_upgrade() {
            Ok(started) => {
                tracing::info!("upgrade: the next process starts");
                self.upgrades.stage = Stage::Starts { started, asker };
            }
            Err(why) => refuse(asker, &why),
        }
    }

    fn begin_upgrade(&self) -> Result<oneshot::Receiver<Started>, String> {
        if let Some(node) = self.drains.node {
            let ends = if node.reason.ends() { ", and the process ends then" } else { "" };
            let reason = node.reason.name();
            return Err(format!(
                "the node drains for {reason}{ends}: `ringway drain --abort` calls that off"
            ));
        }
        if let Some((name, _)) = self.drains.listeners().next() {
            return Err(format!(
                "listener {name} drains, which the next process would not know of: call that off first"
            ));
        }
        if self.upgrades.is_under_way() {
            return Err("an upgrade is under way".to_owned());
        }
        if self.upgrades.former.as_ref().is_some_and(may_take_back) {
            return Err(
                "the process before this one may still take everything back: ask again when the upgrade \
                        that it was asked for is answered"
                    .to_owned(),
            );
        }
        if let Some(why) = self.reloads.is_busy() {
            return Err(why);
        }
        let made = self.made()?;
        let program = self.upgrades.program.clone().ok_or("the program's file is not known")?;
        let out = |why: String| format!("what listens cannot be handed over: {why}");
        let handed = self.plane.hand_over().map_err(|errno| out(errno.to_string()))?;
        let admin = self.api.as_ref().map(|api| api.hand_over()).transpose();
        let gift = Gift {
            inherited: self.reloads.inherited(),
            handed,
            admin: admin.map_err(|error| out(error.to_string()))?,
            endpoints: endpoints::known(&self.loaded.snapshot, &self.watch, &self.checks),
            drained: self.watch.drained_clusters(),
            made,
        };
        let started = beside((program, gift), |(program, gift)| {
            // The next process has the CPUs that whoever starts it may run on, and it wants shards on all of ours.
            let _ = plane::use_all_cpus();
            Next::start(&program, gift)
        });
        started.map_err(|(why, _)| why)
    }

    /// What was changed at run time, for the next process.
    fn made(&self) -> Result<Vec<u8>, String> {
        let (file, changes) = (Arc::clone(&self.reloads.file), self.reloads.changes.clone());
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let made = serde_json::to_vec(&Made { file, changes }).map_err(|error| error.to_string())?;
        if made.len() > limits::UPGRADE_CHANGES_BYTES {
            return Err(format!(
                "the file and what was changed at run time are {} bytes, of which the next process can be told {} \
                 (UPGRADE_CHANGES_BYTES): put what `ringway export` prints in the file's place and reload",
                made.len(),
                limits::UPGRADE_CHANGES_BYTES
            ));
        }
        Ok(made)
    }

    pub(super) fn upgrade_step(&mut self, step: Step) {
        match (step, std::mem::replace(&mut self.upgrades.stage, Stage::Rests)) {
            (Step::Started(started), Stage::Starts { asker, .. }) => match *started {
                Ok((next, bearer, took)) => self.give_up((next, bearer), took, asker),
                Err(why) => {
                    // It may have accepted already.
                    self.accept_anew();
                    refuse(asker, &why);
                }
            },
            (Step::Given(Ok(given)), Stage::Gives { over, .. }) => self.hand_on(given, over),
            (Step::Given(Err((why, handed))), Stage::Gives { over, .. }) => {
                let back = self.take_back(handed);
                refuse_after(over.asker, &why, back);
            }
            (_, stage) => self.upgrades.stage = stage,
        }
    }

    /// The next process is ready: nobody accepts here any more on what it took.
    fn give_up(&mut self, next: (Next, Bearer), took: Took, asker: Asker) {
        self.plane.give_up(&took.taken);
        let handed = &next.0.handed;
        let taken: Vec<&str> = took.taken.iter().map(|place| &*handed[*place].listener).collect();
        let goes_on = |listener: &Arc<Listener>| {
            let there = took.listeners.contains(&Speaks::of(listener));
            there && !listener.is_gone() && taken.contains(&&*listener.name)
        };
        let mut drift = self.reloads.changes.names();
        drift.retain(|name| !took.ended.contains(name));
        let of_ids = self.loaded.snapshot.listeners.iter();
        let listeners = of_ids.map(|listener| listener.as_ref().is_some_and(goes_on)).collect();
        let kept = Kept { drift, ended: took.ended };
        let over = Over::new(next.0.pid(), took.admin, kept, listeners, asker);
        let places = took.taken;
        match beside(next, move |(next, bearer)| next.yours(bearer, &places)) {
            Ok(given) => self.upgrades.stage = Stage::Gives { given, over },
            Err((why, (mut next, _))) => {
                let handed = std::mem::take(&mut next.handed);
                // It ends with that.
                drop(next);
                let back = self.take_back(handed);
                let why = format!("the next process was not told that all is its own: {why}");
                refuse_after(over.asker, &why, back);
            }
        }
    }

    /// The next process is gone: what it was given is accepted on again here.
    ///
    /// # Errors
    /// A sentence of why it is not.
    fn take_back(&mut self, handed: Vec<Handed>) -> Result<(), String> {
        let snapshot = self.plane.snapshot();
        self.plane.take_back(handed, &snapshot).map_err(|error| {
            let why = told::explain(&error);
            format!("this one does not listen on what it had given: {why}; restart")
        })?;
        self.plane.swap(snapshot);
        self.accept_anew();
        Ok(())
    }

    /// Each tick.
    pub(super) fn upgrade_tick(&mut self) {
        if self.upgrades.anew > 0 {
            self.upgrades.anew -= 1;
            self.plane.accept_anew();
        }
        if let lost @ 1.. = std::mem::take(&mut self.lost) {
            tracing::warn!(
                lost,
                "upgrade: connections of the process before this one were closed: {}",
                self.lost_why
            );
        }
        self.over_tick();
    }

    /// Another process may have been woken in place of this one (`dataplane::listener::accept_anew`): shards of it that have a long
    /// turn cancel a moment later, and rings of one that died are taken down by the kernel when it has the time. So for a while.
    fn accept_anew(&mut self) {
        self.plane.accept_anew();
        self.upgrades.anew = ANEW_TICKS;
    }

    /// A connection of the process before this one, or one that did not get to the next; or that the former accepts no more, and takes
    /// nothing back.
    pub(super) fn arrived(&mut self, arrived: Arrival) {
        match arrived {
            Arrival::Conn(conn) => match conn.into_moved(&self.loaded.snapshot) {
                Ok(moved) => self.plane.adopt(moved),
                Err(why) => (self.lost, self.lost_why) = (self.lost + 1, why),
            },
            Arrival::Sockets => {
                self.accept_anew();
                inject_panic_if_asked(self.plane);
            }
            Arrival::Alone => {
                // By now the former accepts no more on any of its shards.
                self.accept_anew();
                self.upgrades.former = None;
                self.plane.own_files();
                if let Some(api) = &mut self.api {
                    api.own_file();
                }
            }
        }
    }
}

/// For the test of a next process that dies by itself once it has everything: `RINGWAY_INJECT=upgrade-panic`.
fn inject_panic_if_asked(plane: &Plane) {
    if std::env::var("RINGWAY_INJECT").is_ok_and(|asked| asked == "upgrade-panic") {
        plane.inject(Fault::Panic);
    }
}

fn refuse(asker: Asker, why: &str) {
    fail(asker, &format!("{why}; nothing changed"));
}

/// Nothing changed if what the next process was given came back.
fn refuse_after(asker: Asker, why: &str, back: Result<(), String>) {
    match back {
        Ok(()) => refuse(asker, why),
        Err(gone) => fail_with(asker, StatusCode::INTERNAL_SERVER_ERROR, &format!("{why}; {gone}")),
    }
}

/// There is no next process.
fn fail(asker: Asker, why: &str) {
    fail_with(asker, StatusCode::CONFLICT, why);
}

fn fail_with(asker: Asker, status: StatusCode, why: &str) {
    tracing::error!("upgrade: {why}");
    if let Some(asker) = asker {
        // Who asked may be gone.
        let _ = asker.send(Answer::refused(status, why));
    }
}
