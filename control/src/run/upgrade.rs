//! A binary upgrade, as the process that is followed by another sees it: in steps between which it serves.

use super::{Running, told};
use crate::admin::Answer;
use crate::endpoints;
use crate::ready;
use crate::upgrade::{Gift, Next, Took, Travelling};
use axum::http::StatusCode;
use dataplane::fault::CloseReason;
use dataplane::limits::UPGRADE_MOVES;
use dataplane::plane::Handed;
use dataplane::spec::{Listener, Reason};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Who asked for an upgrade, and waits for its answer.
type Asker = Option<oneshot::Sender<Answer>>;
type Started = Result<(Next, Took), String>;
type Given = Result<Next, (String, Vec<Handed>)>;

/// Everything about upgrades.
#[derive(Debug)]
pub(super) struct Upgrades {
    /// The program's file: what is there when the time comes is started.
    program: Option<PathBuf>,
    stage: Stage,
}

/// What the next process has.
#[derive(Debug)]
struct Over {
    pid: u32,
    /// The admin API's address.
    admin: bool,
    /// By number: what this process's listener was.
    listeners: Vec<bool>,
}

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
        asker: Asker,
    },
    /// Another process has what listens, and is given connections.
    Over {
        pid: u32,
        admin: bool,
        sends: Option<oneshot::Receiver<u64>>,
        drains_at: Option<(Instant, Asker)>,
    },
}

/// What an upgrade waits for.
#[derive(Debug)]
pub(super) enum Step {
    Started(Box<Started>),
    Given(Given),
}

impl Upgrades {
    pub(super) fn new() -> Self {
        // To be asked now: once the file is replaced, the kernel calls it "(deleted)".
        Self { program: std::env::current_exe().ok(), stage: Stage::Rests }
    }

    /// Whether one is under way, or over: the next process has read the file, and would miss what changes here.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Rests)
    }

    /// Whether another process is the one that serves, and whether it has the admin API's address.
    pub(super) fn is_over(&self) -> Option<bool> {
        if let Stage::Over { admin, .. } = self.stage { Some(admin) } else { None }
    }

    /// Waits until the next process was given everything, for `within` at most.
    pub(super) async fn rest(&mut self, within: Duration) {
        if let Stage::Over { sends, .. } = &mut self.stage
            && let Some(sends) = sends.take()
        {
            // A next process that takes nothing any more is not waited for.
            let _ = tokio::time::timeout(within, sends).await;
        }
    }

    /// Waits for the next step; pending for ever while none is due. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Step {
        let died = || "the thread that spoke to it died".to_owned();
        match &mut self.stage {
            Stage::Rests | Stage::Over { .. } => std::future::pending().await,
            Stage::Starts { started, .. } => {
                Step::Started(Box::new(started.await.unwrap_or_else(|_| Err(died()))))
            }
            Stage::Gives { given, .. } => {
                Step::Given(given.await.unwrap_or_else(|_| Err((died(), Vec::new()))))
            }
        }
    }
}

/// Runs `talk` on a thread of its own, as it waits for another process.
fn beside<T: Send + 'static>(
    talk: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, String> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("upgrade".to_owned());
    // Nobody waits for the result where this process ends meanwhile.
    let run = move || drop(done.send(talk()));
    thread.spawn(run).map(|_| result).map_err(|error| format!("no thread: {error}"))
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
        if self.drains.node.is_some() {
            return Err("the node drains: call that off first".to_owned());
        }
        if let Some((name, _)) = self.drains.listeners().next() {
            return Err(format!(
                "listener {name} drains, which the next process would not know of: call that off first"
            ));
        }
        if self.upgrades.is_under_way() {
            return Err("an upgrade is under way".to_owned());
        }
        if self.reloads.is_busy() {
            return Err("a reload is under way".to_owned());
        }
        let changes = self.reloads.changes.names();
        if !changes.is_empty() {
            return Err(format!(
                "the next process reads the file, in which these changes at run time are not: {}; put what `ringway export` \
                 prints in its place and reload, or take them back (`ringway drift --forget`)",
                changes.join(", ")
            ));
        }
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
        };
        beside(move || Next::start(&program, gift))
    }

    pub(super) fn upgrade_step(&mut self, step: Step) {
        match (step, std::mem::replace(&mut self.upgrades.stage, Stage::Rests)) {
            (Step::Started(started), Stage::Starts { asker, .. }) => match *started {
                Ok((next, took)) => self.give_up(next, &took, asker),
                Err(why) => refuse(asker, &why),
            },
            (Step::Given(Ok(next)), Stage::Gives { over, asker, .. }) => {
                self.hand_on(Some(next), &over, asker);
            }
            (Step::Given(Err((why, handed))), Stage::Gives { asker, .. }) => {
                let snapshot = self.plane.snapshot();
                match self.plane.take_back(handed, &snapshot) {
                    Ok(()) => self.plane.swap(snapshot),
                    Err(error) => tracing::error!(
                        "upgrade: what the next process had is not listened on any more: {}; restart",
                        told::explain(&error)
                    ),
                }
                refuse(asker, &why);
            }
            (_, stage) => self.upgrades.stage = stage,
        }
    }

    /// The next process is ready: nobody accepts here any more on what it took.
    fn give_up(&mut self, next: Next, took: &Took, asker: Asker) {
        self.plane.give_up(&took.taken);
        let names: Vec<&str> = took.taken.iter().map(|place| &*next.handed[*place].listener).collect();
        let of_ids = self.loaded.snapshot.listeners.iter();
        let goes_on = |listener: &Arc<Listener>| !listener.is_gone() && names.contains(&&*listener.name);
        let over = Over {
            pid: next.pid(),
            admin: took.admin,
            listeners: of_ids.map(|listener| listener.as_ref().is_some_and(goes_on)).collect(),
        };
        match beside(move || next.yours()) {
            Ok(given) => self.upgrades.stage = Stage::Gives { given, over, asker },
            // The next process accepts; that this one could not tell it changes nothing.
            Err(why) => {
                tracing::warn!("upgrade: the next process is not told that all is its own: {why}");
                self.hand_on(None, &over, asker);
            }
        }
    }

    /// The next process has all that listens. Tunnels and connections that wait for a request go there, and for a moment those
    /// that come to be so; then this one finishes what is left.
    fn hand_on(&mut self, next: Option<Next>, over: &Over, asker: Asker) {
        let Over { pid, admin, .. } = *over;
        ready::notify(&format!("MAINPID={pid}"));
        if let (true, Some(api)) = (admin, &self.api) {
            api.stop();
        }
        let sends = next.and_then(|next| {
            let (movers, snapshot) =
                (self.plane.move_conns(&over.listeners), Arc::clone(&self.loaded.snapshot));
            let named = movers.filter_map(move |moved| Travelling::of(moved, &snapshot));
            beside(move || next.send(named))
                .inspect_err(|why| tracing::error!("upgrade: connections are lost: {why}"))
                .ok()
        });
        let drains_at = Some((Instant::now() + UPGRADE_MOVES, asker));
        self.upgrades.stage = Stage::Over { pid, admin, sends, drains_at };
    }

    /// Each tick: what has not moved by now is finished here.
    pub(super) fn upgrade_tick(&mut self) {
        let Stage::Over { pid, drains_at, .. } = &mut self.upgrades.stage else { return };
        let pid = *pid;
        let Some((_, asker)) = drains_at.take_if(|(at, _)| *at <= Instant::now()) else { return };
        let moved: u64 = self.plane.stats().map(|stats| stats.close(CloseReason::Moved).get()).sum();
        let left = self.plane.left_open();
        tracing::info!(
            pid,
            moved,
            finishing = left.connections,
            requests = left.requests,
            tunnels = left.tunnels,
            "upgrade: process {pid} has taken over; this one finishes the connections that did not move"
        );
        if let Some(asker) = asker {
            let body = json!({ "pid": pid, "moved": moved, "finishing": left.connections });
            // Who asked may be gone.
            let _ = asker.send(Answer::json(StatusCode::OK, &body));
        }
        self.drain_node(Reason::Deploy, None);
    }

    /// A connection of the process before this one. One whose listener is gone is closed.
    pub(super) fn arrived(&self, arrived: Travelling) {
        if let Some(moved) = arrived.into_moved(&self.loaded.snapshot) {
            self.plane.adopt(moved);
        }
    }
}

fn refuse(asker: Asker, why: &str) {
    tracing::error!("upgrade: {why}; nothing changed");
    if let Some(asker) = asker {
        let why = format!("{why}; nothing changed");
        // Who asked may be gone.
        let _ = asker.send(Answer::refused(StatusCode::CONFLICT, &why));
    }
}
