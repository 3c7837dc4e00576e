//! The process before this one, as this one sees it: what it gives, and what it is told.

use super::conns::{Arrival, Travelling};
use super::message::{Endpoint, Message, VERSION, Wire};
use super::next::Took;
use crate::reload::Made;
use dataplane::limits::{
    UPGRADE_ANSWER, UPGRADE_BATCH, UPGRADE_CHANGES_BYTES, UPGRADE_CONN_BYTES, UPGRADE_READY,
};
use dataplane::plane::Handed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::sync::mpsc;

/// Set for a process that another one starts in an upgrade.
pub(super) const VARIABLE: &str = "RINGWAY_UPGRADE";

/// What the process before this one gave.
#[derive(Debug)]
pub(crate) struct Former {
    wire: Wire,
    /// Names of the descriptors that it was started with.
    pub(crate) inherited: Vec<String>,
    pub(crate) handed: Vec<Handed>,
    /// The admin API's socket, and its address as the configuration had it.
    pub(crate) admin: Option<(String, OwnedFd)>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Clusters that an operator drains.
    pub(crate) drained: Vec<String>,
    /// What was changed at run time.
    pub(crate) made: Made,
}

impl Former {
    /// Hears everything, if this process was started in an upgrade.
    ///
    /// # Errors
    /// A sentence of what is wrong.
    pub(crate) fn hear() -> Result<Option<Self>, String> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = std::io::stdin().as_fd().try_clone_to_owned();
        let is_ours = |socket: &OwnedFd| matches!(socket_type(socket), Ok(SocketType::SEQPACKET));
        let Some(socket) = socket.ok().filter(is_ours) else {
            return Err(format!(
                "{VARIABLE} is set, but nobody upgrades: standard input is not the former process's; unset it"
            ));
        };
        // Nothing reads standard input, and only one descriptor is to be the socket, so that its end is seen.
        let nothing = std::fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|errno| format!("standard input: {errno}"))?;
        Self::hear_from(Wire::new(socket))
            .map(Some)
            .map_err(|why| format!("the process before this one: {why}"))
    }

    pub(super) fn hear_from(mut wire: Wire) -> Result<Self, String> {
        let inherited = match wire.hear(UPGRADE_ANSWER)?.0 {
            Message::Hello { version: VERSION, inherited } => inherited,
            Message::Hello { version, .. } => {
                return Err(format!(
                    "it speaks version {version} of the upgrade, this one {VERSION}: restart instead"
                ));
            }
            other => return Err(format!("it began with {other:?}")),
        };
        let mut former = Self {
            wire,
            inherited,
            handed: Vec::new(),
            admin: None,
            endpoints: Vec::new(),
            drained: Vec::new(),
            made: Made::default(),
        };
        let mut bytes = Vec::new();
        loop {
            let (message, piece, mut sockets) = former.wire.hear_all(UPGRADE_ANSWER)?;
            let known = former.handed.len();
            match message {
                Message::Listener { place, listener, asked } => match former.handed.get_mut(place) {
                    Some(same) => same.sockets.extend(sockets),
                    None if place == known => former.handed.push(Handed { listener, asked, sockets }),
                    None => return Err(format!("it left out what comes before place {place}")),
                },
                Message::Admin { asked } => former.admin = sockets.pop().map(|socket| (asked, socket)),
                Message::Endpoint(endpoint) => former.endpoints.push(endpoint),
                Message::Drains { cluster } => former.drained.push(cluster),
                Message::Bytes if bytes.len() + piece.len() <= UPGRADE_CHANGES_BYTES => bytes.extend(piece),
                Message::Changes => {
                    let made = serde_json::from_slice(&std::mem::take(&mut bytes));
                    former.made = made.map_err(|error| format!("what was changed at run time: {error}"))?;
                }
                Message::All => return Ok(former),
                other => return Err(format!("it said {other:?} too early")),
            }
        }
    }

    /// Whoever has it sees whether the process before this one may still take everything back ([`may_take_back`]).
    pub(crate) fn watch(&self) -> Option<OwnedFd> {
        self.wire.share()
    }

    /// Says that every shard accepts, and on what of what was given. Beside the caller, as it waits for the answer; and for
    /// connections, which go to `arrivals`, as does that the former accepts no more, and at last that it takes nothing back.
    pub(crate) fn ready(self, took: Took, arrivals: mpsc::Sender<Arrival>) {
        let mut wire = self.wire;
        let at_last = arrivals.clone();
        let tell = move || {
            let Took { taken, admin, listeners, ended } = took;
            ended.into_iter().try_for_each(|name| wire.say(&Message::Ended { name }, &[]))?;
            wire.say(&Message::Ready { taken, admin, listeners }, &[])?;
            match wire.hear(UPGRADE_READY)?.0 {
                Message::Yours => {
                    die_if_asked("upgrade");
                    wire.say(&Message::Mine, &[])?;
                    die_if_asked("upgrade-mine");
                    Ok(())
                }
                other => Err(format!("it said {other:?}")),
            }?;
            // Nobody receives any more where this process ends: so below.
            drop(arrivals.blocking_send(Arrival::Sockets));
            tracing::info!(
                "upgrade: this process has what the one before it had; that one finishes the rest"
            );
            let (mut conns, mut bytes, mut batch) = (0, Vec::new(), Vec::new());
            while let Some((message, piece, sockets)) = wire.hear_next()? {
                match message {
                    Message::Bytes if bytes.len() + piece.len() <= UPGRADE_CONN_BYTES => bytes.extend(piece),
                    Message::Conn(conn) if batch.len() < UPGRADE_BATCH => {
                        die_if_asked(if conns < SOME_CONNS { "upgrade-conns" } else { "upgrade-half" });
                        batch.push(Travelling { conn, sockets, bytes: std::mem::take(&mut bytes) });
                    }
                    Message::Take => {
                        // Where this is not heard any more they are still the former's.
                        wire.say(&Message::Got, &[])?;
                        conns += batch.len();
                        for conn in batch.drain(..) {
                            drop(arrivals.blocking_send(Arrival::Conn(conn)));
                        }
                    }
                    other => return Err(format!("it said {other:?} among its connections")),
                }
            }
            tracing::info!(
                connections = conns,
                "upgrade: that many connections came from the process before this one"
            );
            Ok::<(), String>(())
        };
        let talk = move || {
            if let Err(why) = tell() {
                // All that it listened on is ours all the same.
                tracing::warn!("upgrade: the process before this one: {why}");
            }
            drop(at_last.blocking_send(Arrival::Alone));
        };
        if let Err(error) = std::thread::Builder::new().name("upgrade".to_owned()).spawn(talk) {
            tracing::error!("upgrade: the process before this one cannot be told: no thread: {error}");
        }
    }
}

/// Whether the process before this one has not closed its end.
pub(crate) fn may_take_back(wire: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(wire, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !(poll(&mut ends, Some(&now)).is_ok() && ends[0].revents().contains(PollFlags::HUP))
}

/// Half of those that a test has move.
const SOME_CONNS: usize = 250;

/// For the tests of a next process that dies: `RINGWAY_INJECT=MOMENT`, or `MOMENT=FILE` for one that dies once, as it removes the file.
fn die_if_asked(moment: &str) {
    let asked = std::env::var("RINGWAY_INJECT").unwrap_or_default();
    let (asked, file) = asked.split_once('=').map_or((&*asked, None), |(asked, file)| (asked, Some(file)));
    if asked == moment && file.is_none_or(|file| std::fs::remove_file(file).is_ok()) {
        // It does not return.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
