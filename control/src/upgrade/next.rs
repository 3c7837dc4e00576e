//! The next process, as the one that starts it sees it.

use super::conns::{Arrival, Travelling};
use super::former::VARIABLE;
use super::message::{Endpoint, Message, Speaks, VERSION, Wire};
use dataplane::limits::{CHANGES_MAX, UPGRADE_ANSWER, UPGRADE_BATCH, UPGRADE_DESCRIPTORS, UPGRADE_READY};
use dataplane::plane::Handed;
use dataplane::plane::moved::Transit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use tokio::sync::mpsc;

/// A process that ends closes its end of the socket so much before it has ended, at most.
const ENDING: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// All that the next process is given.
#[derive(Debug)]
pub(crate) struct Gift {
    /// Names of the descriptors that this process was started with.
    pub(crate) inherited: Vec<String>,
    pub(crate) handed: Vec<Handed>,
    /// The admin API's socket, and its address as the configuration has it.
    pub(crate) admin: Option<(String, OwnedFd)>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Clusters that an operator drains.
    pub(crate) drained: Vec<String>,
    /// What was changed at run time, as [`crate::reload::Made`] in JSON; empty where nothing was.
    pub(crate) made: Vec<u8>,
}

/// What became of connections that began to move.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) moved: u64,
    /// They go on here, because of `why`.
    pub(crate) back: u64,
    pub(crate) why: Option<String>,
    /// Its end tells the next process that nothing is taken back.
    pub(crate) bearer: Option<Bearer>,
}

/// What the next process accepts on.
#[derive(Debug)]
pub(crate) struct Took {
    /// Places of [`Gift::handed`].
    pub(crate) taken: Vec<usize>,
    pub(crate) admin: bool,
    /// Of which connections may go there.
    pub(crate) listeners: Vec<Speaks>,
    /// Changes at run time that ended, because its file is another where they were.
    pub(crate) ended: Vec<String>,
}

/// The next process. Until it is told that everything is its own, it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Next {
    child: Child,
    /// What it was given, until all that it is given is its own: should it die, all is as it was.
    pub(crate) handed: Vec<Handed>,
    goes_on: bool,
}

/// Speaks to the next process, and bears connections there.
#[derive(Debug)]
pub(crate) struct Bearer {
    wire: Wire,
    /// The next process's end can be waited for by it.
    ends: Option<OwnedFd>,
}

impl Next {
    /// Starts the program at `program` with the arguments that this process has, and waits until it is ready.
    ///
    /// # Errors
    /// A sentence of why it is not: it could not be started, it ended, or it took longer than [`UPGRADE_READY`]. It is gone then.
    pub(crate) fn start(program: &PathBuf, gift: Gift) -> Result<(Self, Bearer, Took), String> {
        let made = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = made.map_err(|errno| format!("no socket to speak by: {errno}"))?;
        let child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, VERSION.to_string())
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let ends = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        let mut bearer = Bearer { wire: Wire::new(ours), ends };
        let mut next = Self { child, handed: Vec::new(), goes_on: false };
        match give(&bearer.wire, &gift).and_then(|()| bearer.hear_ready(gift.handed.len())) {
            Ok(took) => {
                next.handed = gift.handed;
                Ok((next, bearer, took))
            }
            Err(why) => Err(next.why_it_failed(&bearer, &why)),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says that nobody else accepts any more on what it took. What it did not take this process keeps for itself.
    ///
    /// # Errors
    /// A sentence of why it has not said that it does: then it is gone, and what it was given comes back.
    pub(crate) fn yours(
        mut self,
        mut bearer: Bearer,
        taken: &[usize],
    ) -> Result<(Self, Bearer), (String, Vec<Handed>)> {
        let told = bearer.wire.say(&Message::Yours, &[]).and_then(|()| bearer.wire.hear(UPGRADE_ANSWER));
        let why = match told {
            Ok((Message::Mine, _)) => {
                self.goes_on = true;
                let mut at = 0..;
                self.handed.retain(|_| at.next().is_some_and(|at| taken.contains(&at)));
                return Ok((self, bearer));
            }
            Ok((other, _)) => format!("it said {other:?}"),
            Err(why) => why,
        };
        let why = self.why_it_failed(&bearer, &why);
        Err((why, std::mem::take(&mut self.handed)))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it, and says how it ended if it did by itself.
    fn why_it_failed(&mut self, bearer: &Bearer, why: &str) -> String {
        self.goes_on = true;
        bearer.wait_a_little();
        if let Some(status) = self.ended() {
            return format!("the next process ended ({status}); its messages say why");
        }
        // In vain where it ends already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        format!("the next process: {why}; it was killed")
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if !self.goes_on {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Bearer {
    /// What it took of what was at so many places, once it is ready.
    fn hear_ready(&mut self, places: usize) -> Result<Took, String> {
        let mut ended = Vec::new();
        loop {
            match self.wire.hear(UPGRADE_READY)?.0 {
                Message::Ended { name } if ended.len() < CHANGES_MAX => ended.push(name),
                Message::Ready { taken, admin, listeners } if taken.iter().all(|place| *place < places) => {
                    return Ok(Took { taken, admin, listeners, ended });
                }
                other => return Err(format!("it said {other:?}")),
            }
        }
    }

    /// Gives connections as `next` has them (or waits for one, if it is told to), until there are no more. Those that the next process
    /// does not take, and all after the first of them, go `back`.
    pub(crate) fn send(
        mut self,
        mut next: impl FnMut(bool) -> Option<Travelling>,
        transit: &Transit,
        back: &mpsc::Sender<Arrival>,
    ) -> Sent {
        let mut sent = Sent::default();
        while let Some(first) = next(true) {
            let mut batch = vec![first];
            while batch.len() < UPGRADE_BATCH
                && let Some(conn) = next(false)
            {
                batch.push(conn);
            }
            let told = match sent.why {
                None => self.give(&batch),
                Some(_) => Err(String::new()),
            };
            let count = batch.len() as u64;
            match told {
                Ok(()) => sent.moved += count,
                Err(why) => {
                    transit.close();
                    sent.why.get_or_insert(why);
                    sent.back += count;
                    // Nobody receives any more where this process ends.
                    batch.into_iter().for_each(|conn| drop(back.blocking_send(Arrival::Conn(conn))));
                }
            }
            (0..count).for_each(|_| transit.end());
        }
        if sent.why.is_some() {
            // Whether it has ended is looked at next.
            self.wait_a_little();
        }
        sent.bearer = Some(self);
        sent
    }

    /// Whether the next process has taken them: exactly then they are not this one's any more.
    fn give(&mut self, batch: &[Travelling]) -> Result<(), String> {
        let told = batch
            .iter()
            .try_for_each(|conn| self.tell(conn))
            .and_then(|()| self.wire.say(&Message::Take, &[]))
            .and_then(|()| self.wire.hear(UPGRADE_ANSWER));
        match told {
            Ok((Message::Got, _)) => Ok(()),
            _ if self.wire.end_with(&Message::Got) => Ok(()),
            Ok((other, _)) => Err(format!("it said {other:?}")),
            Err(why) => Err(why),
        }
    }

    fn tell(&self, conn: &Travelling) -> Result<(), String> {
        let Travelling { conn, sockets, bytes } = conn;
        self.wire.say_bytes(bytes)?;
        let descriptors: Vec<_> = sockets.iter().map(OwnedFd::as_fd).collect();
        self.wire.say(&Message::Conn(conn.clone()), &descriptors)
    }

    /// For the next process's end, if that is near.
    fn wait_a_little(&self) {
        let Some(ends) = &self.ends else { return };
        // Whether it has is asked by who calls this.
        let _ = poll(&mut [PollFd::new(ends, PollFlags::IN)], Some(&ENDING));
    }
}

/// Tells everything that is given.
pub(super) fn give(wire: &Wire, gift: &Gift) -> Result<(), String> {
    wire.say(&Message::Hello { version: VERSION, inherited: gift.inherited.clone() }, &[])?;
    for (place, handed) in gift.handed.iter().enumerate() {
        let Handed { listener, asked, sockets } = handed;
        let all: Vec<_> = sockets.iter().map(OwnedFd::as_fd).collect();
        for some in all.chunks(UPGRADE_DESCRIPTORS) {
            let (listener, asked) = (listener.clone(), asked.clone());
            wire.say(&Message::Listener { place, listener, asked }, some)?;
        }
    }
    if let Some((asked, socket)) = &gift.admin {
        wire.say(&Message::Admin { asked: asked.clone() }, &[socket.as_fd()])?;
    }
    for endpoint in &gift.endpoints {
        wire.say(&Message::Endpoint(endpoint.clone()), &[])?;
    }
    for cluster in &gift.drained {
        wire.say(&Message::Drains { cluster: cluster.clone() }, &[])?;
    }
    if !gift.made.is_empty() {
        wire.say_bytes(&gift.made)?;
        wire.say(&Message::Changes, &[])?;
    }
    wire.say(&Message::All, &[])
}

#[cfg(test)]
mod tests {
    use super::super::former::Former;
    use super::super::message::pair;
    use super::*;
    use crate::reload::{Changes, Made};
    use dataplane::limits::UPGRADE_MESSAGE_BYTES;
    use std::net::TcpListener;

    #[test]
    fn what_is_given_is_heard() {
        let (former, next) = pair();
        let many: Vec<TcpListener> =
            (0..UPGRADE_DESCRIPTORS + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = many.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let handed =
            |name: &str, sockets| Handed { listener: name.into(), asked: format!("{name}:80"), sockets };
        let endpoint = Endpoint {
            cluster: "app".into(),
            endpoint: "unix:/run/x".into(),
            state: Some("drain".into()),
            up: None,
        };
        // Longer than one message, with characters that JSON writes otherwise.
        let file = "# \"a\"\t\u{e9}\n".repeat(UPGRADE_MESSAGE_BYTES / 8);
        let made = Made { file: file.into(), changes: Changes::default() };
        let gift = Gift {
            inherited: vec!["web".into()],
            handed: vec![
                handed("edge", many.into_iter().map(OwnedFd::from).collect()),
                handed("other", vec![TcpListener::bind("127.0.0.1:0").unwrap().into()]),
            ],
            admin: Some(("127.0.0.1:0".into(), TcpListener::bind("127.0.0.1:0").unwrap().into())),
            endpoints: vec![endpoint.clone()],
            drained: vec!["app".into()],
            made: serde_json::to_vec(&made).unwrap(),
        };
        let listens = std::thread::spawn(move || Former::hear_from(next));
        give(&former, &gift).unwrap();
        let heard = listens.join().unwrap().unwrap();
        assert_eq!(heard.inherited, ["web"]);
        assert_eq!(heard.endpoints, [endpoint]);
        assert_eq!(heard.drained, ["app"]);
        assert_eq!(heard.made, made);
        assert_eq!(heard.admin.unwrap().0, "127.0.0.1:0");
        let found: Vec<(String, usize)> =
            heard.handed.iter().map(|one| (one.listener.clone(), one.sockets.len())).collect();
        assert_eq!(found, [("edge".to_owned(), UPGRADE_DESCRIPTORS + 3), ("other".to_owned(), 1)]);
        let [edge, _other] = <[Handed; 2]>::try_from(heard.handed).unwrap();
        let of = |socket| TcpListener::from(socket).local_addr().unwrap().port();
        assert_eq!(edge.sockets.into_iter().map(of).collect::<Vec<_>>(), ports, "in their order");
    }

    #[test]
    fn another_version_is_refused() {
        let (former, next) = pair();
        former.say(&Message::Hello { version: VERSION + 1, inherited: Vec::new() }, &[]).unwrap();
        assert!(Former::hear_from(next).unwrap_err().contains("restart instead"));
    }
}
