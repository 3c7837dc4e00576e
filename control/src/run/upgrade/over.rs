//! The next process has what listens: it is given connections, and watched until it has all that it is given. Should it die before
//! that, this one goes on as if it had never been, but for what went with it.

use super::{Asker, Running, Stage, Upgrades, beside, fail, fail_with};
use crate::admin::Answer;
use crate::ready;
use crate::upgrade::{Bearer, Next, Sent, Travelling};
use axum::http::StatusCode;
use dataplane::limits::{self, UPGRADE_MOVES, UPGRADE_MOVES_MAX};
use dataplane::plane::moved::{self, Transit};
use dataplane::spec::Reason;
use serde_json::json;
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What became of changes at run time: those that last in the next process, and those that its file ends.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) drift: Vec<String>,
    pub(super) ended: Vec<String>,
}

/// What the next process has.
#[derive(Debug)]
pub(super) struct Over {
    pid: u32,
    /// The admin API's address.
    admin: bool,
    kept: Kept,
    /// By number: what this process's listener was.
    listeners: Vec<bool>,
    pub(super) asker: Asker,
    moves: Moves,
    /// The process, as long as all would come back from it.
    next: Option<Next>,
    /// How it ended before that was over.
    died: Option<ExitStatus>,
    /// Whether this process serves again then, or why not.
    back: Result<(), String>,
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

impl Over {
    pub(super) fn new(pid: u32, admin: bool, kept: Kept, listeners: Vec<bool>, asker: Asker) -> Self {
        let moves = Moves::Ended;
        let back = Err("this one ends, too: nobody listens".to_owned());
        Self { pid, admin, kept, listeners, asker, moves, next: None, died: None, back }
    }

    /// Whether it died by itself. One that was told to end has, and takes the service with it.
    fn has_died(&self) -> bool {
        self.died.is_some_and(|status| !status.success())
    }

    /// How it ended, if it just has. Nothing more moves then.
    fn look(&mut self) -> bool {
        let Some(status) = self.next.as_mut().and_then(Next::ended) else { return false };
        self.died = Some(status);
        if let Moves::Under { transit, .. } | Moves::Ending { transit, .. } = &self.moves {
            transit.close();
        }
        true
    }

    /// Each tick: whether nothing is on its way any more, after what moved meanwhile. `shards` are to have looked at all of theirs, and
    /// `back` says whether what came back has arrived.
    fn moved(&mut self, shards: usize, back: bool) -> Option<Sent> {
        let now = Instant::now();
        match std::mem::replace(&mut self.moves, Moves::Ended) {
            Moves::Under { transit, sends, until, at_last } => {
                let walked = || transit.is_walked(shards) || at_last <= now;
                let until = until.or_else(|| walked().then(|| now + UPGRADE_MOVES));
                if until.is_some_and(|until| until <= now) || transit.is_closed() {
                    transit.close();
                    self.moves = Moves::Ending { transit, sends };
                } else {
                    self.moves = Moves::Under { transit, sends, until, at_last };
                }
            }
            Moves::Ending { transit, mut sends } => match sends.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => self.moves = Moves::Ending { transit, sends },
                sent => self.moves = Moves::Back(sent.unwrap_or_default()),
            },
            Moves::Back(sent) if sent.back > 0 && !back => self.moves = Moves::Back(sent),
            Moves::Back(sent) => return Some(sent),
            Moves::Ended => {}
        }
        None
    }

    /// Everything that could move has, or the next process is gone. Who asked is told.
    fn end(&mut self, sent: Sent, finishing: u64) {
        let (pid, asker) = (self.pid, self.asker.take());
        let Sent { moved, back, why, bearer } = sent;
        // From here on it is the service, whatever becomes of it, and is told so before whoever asked is.
        self.next = None;
        drop(bearer);
        match self.died {
            Some(status) if status.success() => {
                let why = format!("process {pid} had taken over, was told to end, and has: nobody listens");
                return fail(asker, &why);
            }
            Some(status) => {
                let (answer, now) = match &self.back {
                    Ok(()) => (StatusCode::CONFLICT, "this one serves again"),
                    Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.as_str()),
                };
                let why = format!(
                    "process {pid} had taken over and died ({status}), and with it {moved} connections that had \
                     gone there, and those that it had accepted; {now}"
                );
                return fail_with(asker, answer, &why);
            }
            None => ready::notify(&format!("MAINPID={pid}")),
        }
        if let Some(why) = why {
            tracing::warn!(
                back,
                "upgrade: connections stay here, as the next process cannot be told of them: {why}"
            );
        }
        tracing::info!(
            pid,
            moved,
            finishing,
            "upgrade: connections went to the next process; this one finishes the rest"
        );
        if let Some(asker) = asker {
            let Kept { drift, ended } = &self.kept;
            let body =
                json!({ "pid": pid, "moved": moved, "finishing": finishing, "drift": drift, "ended": ended });
            // Who asked may be gone.
            let _ = asker.send(Answer::json(StatusCode::OK, &body));
        }
    }
}

impl Upgrades {
    /// Whether another process is the one that serves, and whether it has the admin API's address.
    pub(in crate::run) fn is_over(&self) -> Option<bool> {
        match &self.stage {
            Stage::Over(over) if !over.has_died() => Some(over.admin),
            _ => None,
        }
    }

    /// Waits until the next process was given everything, for as long as that goes on; who asked has the answer then.
    pub(in crate::run) async fn rest(&mut self) {
        let Stage::Over(over) = &mut self.stage else { return };
        let sent = match &mut over.moves {
            Moves::Ended => return,
            Moves::Back(sent) => Some(std::mem::take(sent)),
            Moves::Under { transit, sends, .. } | Moves::Ending { transit, sends } => {
                transit.close();
                let mut done = transit.done();
                loop {
                    match tokio::time::timeout(limits::UPGRADE_REST, &mut *sends).await {
                        Ok(sent) => break Some(sent.unwrap_or_default()),
                        // A next process that takes nothing any more is not waited for.
                        Err(_) if transit.done() == done => break None,
                        Err(_) => done = transit.done(),
                    }
                }
            }
        };
        over.moves = Moves::Ended;
        over.look();
        match sent {
            None if over.died.is_none() => ready::notify(&format!("MAINPID={}", over.pid)),
            sent => over.end(sent.unwrap_or_default(), 0),
        }
    }
}

impl Running<'_> {
    /// The next process has all that listens. Tunnels and connections that wait for a request go there, and for a moment those
    /// that come to be so; then this one finishes what is left.
    pub(super) fn hand_on(&mut self, (next, bearer): (Next, Bearer), mut over: Over) {
        if let (true, Some(api)) = (over.admin, &self.api) {
            api.stop();
        }
        over.next = Some(next);
        over.moves = match self.begin_moves(bearer, &over.listeners) {
            Ok((transit, sends)) => {
                Moves::Under { transit, sends, until: None, at_last: Instant::now() + UPGRADE_MOVES_MAX }
            }
            Err(why) => {
                tracing::error!("upgrade: connections stay here: {why}");
                Moves::Back(Sent::default())
            }
        };
        let pid = over.pid;
        tracing::info!(pid, "upgrade: process {pid} has taken over");
        self.upgrades.stage = Stage::Over(over);
    }

    /// Has connections leave, once there is somebody who gives them to the next process.
    fn begin_moves(
        &self,
        bearer: Bearer,
        listeners: &[bool],
    ) -> Result<(Arc<Transit>, oneshot::Receiver<Sent>), String> {
        let (way, mut movers, transit) = moved::way();
        let (snapshot, back, of_thread) =
            (Arc::clone(&self.loaded.snapshot), self.came.clone(), Arc::clone(&transit));
        let sends = beside(bearer, move |bearer| {
            let next_one = |wait| loop {
                let moved = if wait { movers.next() } else { movers.try_next() }?;
                match Travelling::of(moved, &snapshot) {
                    None => of_thread.end(),
                    named => return named,
                }
            };
            bearer.send(next_one, &of_thread, &back)
        });
        let sends = sends.map_err(|(why, _)| why)?;
        self.plane.move_conns(&way, listeners);
        Ok((transit, sends))
    }

    /// Each tick: what has not moved by now is finished here, or this is the process that serves again.
    pub(super) fn over_tick(&mut self) {
        let Stage::Over(over) = &mut self.upgrades.stage else { return };
        let ended = over.look();
        if ended && over.has_died() {
            let back = self.serve_again();
            if let Stage::Over(over) = &mut self.upgrades.stage {
                over.back = back;
            }
        }
        let Stage::Over(over) = &mut self.upgrades.stage else { return };
        let shards = self.loaded.snapshot.runtime.shards.into();
        let Some(sent) = over.moved(shards, self.arrivals.is_empty()) else { return };
        over.end(sent, self.plane.left_open().connections);
        if over.has_died() {
            self.upgrades.stage = Stage::Rests;
        } else if !self.drains.ends() {
            self.drain_node(Reason::Deploy, None);
        }
    }

    /// The next process died: everything that it had is this one's again.
    ///
    /// # Errors
    /// A sentence of what is not.
    fn serve_again(&mut self) -> Result<(), String> {
        let Stage::Over(over) = &mut self.upgrades.stage else { return Ok(()) };
        let (admin, next) = (over.admin, over.next.take());
        let handed = next.map(|mut next| std::mem::take(&mut next.handed));
        let back = self.take_back(handed.unwrap_or_default());
        let api = match (admin, &mut self.api) {
            (true, Some(api)) => api.go_on(),
            _ => Ok(()),
        };
        let api =
            api.map_err(|error| format!("this one serves again without its admin API: {error}; restart"));
        if self.drains.ends() {
            return Err("this one drains, and ends: nobody listens then".to_owned());
        }
        back.and(api)
    }
}
