//! A binary upgrade, as the process that is followed by another sees it: in steps between which it serves.

use super::{Running, told};
use crate::admin::Answer;
use crate::endpoints;
use crate::ready;
use crate::reload::Made;
use crate::upgrade::{Arrival, Gift, Next, Sent, Speaks, Took, Travelling};
use axum::http::StatusCode;
use dataplane::limits::{self, UPGRADE_MOVES, UPGRADE_MOVES_MAX};
use dataplane::plane::moved::{self, Transit};
use dataplane::plane::{self, Handed};
use dataplane::spec::{Listener, Reason};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Ticks for which accepts are still begun anew.
    anew: u32,
}

/// Three seconds of them.
const ANEW_TICKS: u32 = 30;

/// What became of changes at run time: those that last in the next process, and those that its file ends.
#[derive(Debug, Default)]
struct Kept {
    drift: Vec<String>,
    ended: Vec<String>,
}

/// What the next process has.
#[derive(Debug)]
struct Over {
    pid: u32,
    /// The admin API's address.
    admin: bool,
    kept: Kept,
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
        kept: Kept,
        moves: Moves,
        asker: Asker,
    },
}

/// How far connections have moved.
#[derive(Debug)]
enum Moves {
    /// Until so long after all were looked at, or at the latest until then.
    Under {
        transit: Arc<Transit>,
        sends: oneshot::Receiver<Sent>,
        until: Option<Instant>,
        at_last: Instant,
    },
    /// Those that began do so still.
    Ending {
        transit: Arc<Transit>,
        sends: oneshot::Receiver<Sent>,
    },
    /// What came back is on its way to the shards.
    Back(Sent),
    Ended,
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
        Self { program: std::env::current_exe().ok(), stage: Stage::Rests, anew: 0 }
    }

    /// Whether one is under way, or over: the next process has read the file, and would miss what changes here.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Rests)
    }

    /// Whether another process is the one that serves, and whether it has the admin API's address.
    pub(super) fn is_over(&self) -> Option<bool> {
        if let Stage::Over { admin, .. } = self.stage { Some(admin) } else { None }
    }

    /// Waits until the next process was given everything, for as long as that goes on; who asked has the answer then.
    pub(super) async fn rest(&mut self) {
        let Stage::Over { moves, .. } = &mut self.stage else { return };
        let sent = match moves {
            Moves::Ended => return,
            Moves::Back(sent) => std::mem::take(sent),
            Moves::Under { transit, sends, .. } | Moves::Ending { transit, sends } => {
                transit.close();
                let mut done = transit.done();
                loop {
                    match tokio::time::timeout(limits::UPGRADE_REST, &mut *sends).await {
                        Ok(sent) => break sent.unwrap_or_default(),
                        // A next process that takes nothing any more is not waited for.
                        Err(_) if transit.done() == done => return,
                        Err(_) => done = transit.done(),
                    }
                }
            }
        };
        self.answer(&sent, 0);
    }

    /// Everything that could move has.
    fn answer(&mut self, sent: &Sent, finishing: u64) {
        let Stage::Over { pid, kept, moves, asker, .. } = &mut self.stage else { return };
        *moves = Moves::Ended;
        let Kept { drift, ended } = kept;
        let Sent { moved, back, why } = sent;
        if let Some(why) = why {
            tracing::warn!(
                back,
                "upgrade: connections stay here, as the next process cannot be told of them: {why}"
            );
        }
        tracing::info!(
            pid = *pid,
            moved,
            finishing,
            "upgrade: connections went to the next process; this one finishes the rest"
        );
        if let Some(asker) = asker.take() {
            let body = json!({ "pid": *pid, "moved": moved, "finishing": finishing, "drift": drift, "ended": ended });
            // Who asked may be gone.
            let _ = asker.send(Answer::json(StatusCode::OK, &body));
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
        beside(move || {
            // The next process has the CPUs that whoever starts it may run on, and it wants shards on all of ours.
            let _ = plane::use_all_cpus();
            Next::start(&program, gift)
        })
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
                Ok((next, took)) => self.give_up(next, took, asker),
                Err(why) => {
                    // It may have accepted already.
                    self.accept_anew();
                    refuse(asker, &why);
                }
            },
            (Step::Given(Ok(next)), Stage::Gives { over, asker, .. }) => {
                self.hand_on(Some(next), over, asker);
            }
            (Step::Given(Err((why, handed))), Stage::Gives { asker, .. }) => {
                let snapshot = self.plane.snapshot();
                match self.plane.take_back(handed, &snapshot) {
                    Ok(()) => {
                        self.plane.swap(snapshot);
                        self.accept_anew();
                    }
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
    fn give_up(&mut self, next: Next, took: Took, asker: Asker) {
        self.plane.give_up(&took.taken);
        let taken: Vec<&str> = took.taken.iter().map(|place| &*next.handed[*place].listener).collect();
        let goes_on = |listener: &Arc<Listener>| {
            let there = took.listeners.contains(&Speaks::of(listener));
            there && !listener.is_gone() && taken.contains(&&*listener.name)
        };
        let mut drift = self.reloads.changes.names();
        drift.retain(|name| !took.ended.contains(name));
        let of_ids = self.loaded.snapshot.listeners.iter();
        let over = Over {
            pid: next.pid(),
            admin: took.admin,
            kept: Kept { drift, ended: took.ended },
            listeners: of_ids.map(|listener| listener.as_ref().is_some_and(goes_on)).collect(),
        };
        match beside(move || next.yours()) {
            Ok(given) => self.upgrades.stage = Stage::Gives { given, over, asker },
            // The next process accepts; that this one could not tell it changes nothing.
            Err(why) => {
                tracing::warn!("upgrade: the next process is not told that all is its own: {why}");
                self.hand_on(None, over, asker);
            }
        }
    }

    /// The next process has all that listens. Tunnels and connections that wait for a request go there, and for a moment those
    /// that come to be so; then this one finishes what is left.
    fn hand_on(&mut self, next: Option<Next>, over: Over, asker: Asker) {
        let Over { pid, admin, kept, listeners } = over;
        ready::notify(&format!("MAINPID={pid}"));
        if let (true, Some(api)) = (admin, &self.api) {
            api.stop();
        }
        let moves = match next.map(|next| self.begin_moves(next, &listeners)) {
            Some(Ok((transit, sends))) => {
                Moves::Under { transit, sends, until: None, at_last: Instant::now() + UPGRADE_MOVES_MAX }
            }
            Some(Err(why)) => {
                tracing::error!("upgrade: connections stay here: {why}");
                Moves::Ended
            }
            None => Moves::Ended,
        };
        tracing::info!(pid, "upgrade: process {pid} has taken over");
        let ended = matches!(moves, Moves::Ended);
        self.upgrades.stage = Stage::Over { pid, admin, kept, moves, asker };
        if ended {
            self.upgrades.answer(&Sent::default(), self.plane.left_open().connections);
            self.drain_node(Reason::Deploy, None);
        }
    }

    /// Has connections leave, once there is somebody who gives them to the next process.
    fn begin_moves(
        &self,
        next: Next,
        listeners: &[bool],
    ) -> Result<(Arc<Transit>, oneshot::Receiver<Sent>), String> {
        let (way, mut movers, transit) = moved::way();
        let (snapshot, back, of_thread) =
            (Arc::clone(&self.loaded.snapshot), self.came.clone(), Arc::clone(&transit));
        let sends = beside(move || {
            let next_one = |wait| loop {
                let moved = if wait { movers.next() } else { movers.try_next() }?;
                match Travelling::of(moved, &snapshot) {
                    None => of_thread.end(),
                    named => return named,
                }
            };
            next.send(next_one, &of_thread, &back)
        })?;
        self.plane.move_conns(&way, listeners);
        Ok((transit, sends))
    }

    /// Each tick: what has not moved by now is finished here.
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
        let Stage::Over { moves, .. } = &mut self.upgrades.stage else { return };
        let now = Instant::now();
        match std::mem::replace(moves, Moves::Ended) {
            Moves::Under { transit, sends, until, at_last } => {
                let walked =
                    || transit.is_walked(self.loaded.snapshot.runtime.shards.into()) || at_last <= now;
                let until = until.or_else(|| walked().then(|| now + UPGRADE_MOVES));
                if until.is_some_and(|until| until <= now) || transit.is_closed() {
                    transit.close();
                    *moves = Moves::Ending { transit, sends };
                } else {
                    *moves = Moves::Under { transit, sends, until, at_last };
                }
            }
            Moves::Ending { transit, mut sends } => match sends.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => *moves = Moves::Ending { transit, sends },
                sent => *moves = Moves::Back(sent.unwrap_or_default()),
            },
            Moves::Back(sent) if sent.back > 0 && !self.arrivals.is_empty() => *moves = Moves::Back(sent),
            Moves::Back(sent) => {
                self.upgrades.answer(&sent, self.plane.left_open().connections);
                self.drain_node(Reason::Deploy, None);
            }
            Moves::Ended => {}
        }
    }

    /// Another process may have been woken in place of this one (`dataplane::listener::accept_anew`): shards of it that have a long
    /// turn cancel a moment later, and rings of one that died are taken down by the kernel when it has the time. So for a while.
    fn accept_anew(&mut self) {
        self.plane.accept_anew();
        self.upgrades.anew = ANEW_TICKS;
    }

    /// A connection of the process before this one, or one that did not get to the next; or that the former accepts no more.
    pub(super) fn arrived(&mut self, arrived: Arrival) {
        let Arrival::Conn(conn) = arrived else { return self.accept_anew() };
        match conn.into_moved(&self.loaded.snapshot) {
            Ok(moved) => self.plane.adopt(moved),
            Err(why) => (self.lost, self.lost_why) = (self.lost + 1, why),
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
