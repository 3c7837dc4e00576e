//! Listening sockets that go from one process to the next, which neither closes nor binds them: whoever waits in their queues is
//! accepted by one of the two.

use super::{Listening, Open, prepare};
use crate::io::{Address, Errno, Fd, SocketAddress};
use crate::plane::{Plane, StartError};
use crate::shard::mailbox::Command;
use crate::spec::{ListenAddress, Listener, Snapshot};
use crate::sys::unix::SocketFile;
use crate::sys::{deaf, inherited};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};

/// What one address of a listener is accepted on.
#[derive(Debug)]
pub struct Handed {
    /// The listener's name.
    pub listener: String,
    /// The address as the configuration writes it.
    pub asked: String,
    /// In the order in which they began to listen.
    pub sockets: Vec<OwnedFd>,
}

impl Handed {
    /// Whether somebody new gets there. The process that had it may have made it deaf before it died; what systemd passed never is.
    pub(super) fn hears(&self, asked: &ListenAddress) -> bool {
        matches!(asked, ListenAddress::Inherited(_))
            || self.sockets.iter().all(|socket| deaf::undo(Fd(socket.as_raw_fd())))
    }
}

impl Plane {
    /// Everything that listens, for another process: descriptors of its own.
    ///
    /// # Errors
    /// EMFILE where descriptors have run out.
    pub fn hand_over(&self) -> Result<Vec<Handed>, Errno> {
        self.listening.borrow().hand_over(&self.snapshot())
    }

    /// Which of those that this plane was started with it accepts on, by their places.
    pub fn taken(&self) -> Vec<usize> {
        self.listening.borrow().taken()
    }

    /// No shard accepts any more on what is at these places of [`Plane::hand_over`], and nothing is done to who waits there:
    /// another process has it.
    pub fn give_up(&self, taken: &[usize]) {
        let numbers: Box<[u32]> = self.listening.borrow_mut().give_up(taken).into();
        self.tell(|| Command::GiveUp(numbers.clone()));
    }

    /// No other process takes back any more what this plane was started with: files of unix sockets are this one's to remove.
    pub fn own_files(&self) {
        self.listening.borrow_mut().own_files();
    }

    /// The other process accepts no more on what both had: shards look whether somebody waits there unseen.
    pub fn accept_anew(&self) {
        self.tell(|| Command::AcceptAnew);
    }

    /// The other process is gone: the next [`Plane::swap`] to `snapshot` has the shards accept again on what was given up, by sockets
    /// of new numbers.
    ///
    /// # Errors
    /// As [`Plane::listen`]; then it stays given up.
    pub fn take_back(&self, handed: Vec<Handed>, snapshot: &Snapshot) -> Result<(), StartError> {
        self.listening.borrow_mut().handed = handed.into_iter().map(Some).collect();
        self.listen(snapshot).map(|()| self.own_files())
    }
}

impl Listening {
    /// Which of what another process gave is accepted on, by their places.
    fn taken(&self) -> Vec<usize> {
        self.taken.clone()
    }

    /// All sockets, for another process.
    fn hand_over(&self, snapshot: &Snapshot) -> Result<Vec<Handed>, Errno> {
        let of = |open: &Open| {
            let name = snapshot.listener(open.listener).map(|listener| listener.name.to_string());
            let sockets = open.sockets.iter().map(|(_, one)| inherited::duplicate(one.fd));
            let sockets = sockets.collect::<Result<_, Errno>>()?;
            Ok(Handed { listener: name.unwrap_or_default(), asked: open.asked.to_string(), sockets })
        };
        self.open.iter().map(of).collect()
    }

    /// Forgets what is at these places. Returns the numbers of its sockets.
    fn give_up(&mut self, places: &[usize]) -> Vec<u32> {
        let mut at = 0..;
        let (given, kept) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|_| at.next().is_some_and(|at| places.contains(&at)));
        self.open = kept;
        let mut given: Vec<Open> = given;
        given.iter_mut().filter_map(|open| open.file.take()).for_each(SocketFile::leave);
        given.iter().flat_map(|open| &open.sockets).map(|(_, socket)| socket.number).collect()
    }

    fn own_files(&mut self) {
        self.open.iter_mut().filter_map(|open| open.file.as_mut()).for_each(SocketFile::own);
    }

    /// What another process gave for this address. A port that the kernel chose stays with its listener.
    pub(super) fn handed_for(&mut self, listener: &Listener, asked: &ListenAddress) -> Option<Handed> {
        let text = asked.to_string();
        let any_port = asked.as_ip().is_some_and(|address| address.port() == 0);
        let suits = |handed: &Handed, of_same: bool| {
            handed.asked == text
                && !handed.sockets.is_empty()
                && (*handed.listener == *listener.name || !of_same)
        };
        let find =
            |of_same| self.handed.iter().position(|one| one.as_ref().is_some_and(|one| suits(one, of_same)));
        let at = find(true).or_else(|| if any_port { None } else { find(false) })?;
        self.taken.push(at);
        self.handed[at].take()
    }

    /// What another process gave goes on as this address: with a socket for each shard, several for some where there were more
    /// shards, and others that join where there were fewer.
    pub(super) fn go_on(
        &mut self,
        open: &mut Open,
        listener: &Listener,
        handed: Handed,
        opened: &[(usize, Open)],
    ) -> Result<(), StartError> {
        let name = || listener.name.to_string();
        let inherited = |fd: Fd| move |why| StartError::Inherited { listener: name(), fd: fd.0, why };
        let mut multiplies = true;
        for one in &handed.sockets {
            let fd = Fd(one.as_raw_fd());
            let taken = inherited::take(fd).map_err(inherited(fd))?;
            multiplies &= taken.multiplies;
            if let Some(address @ Address::Ip(_)) = &taken.address {
                let failed = |errno| StartError::Bind { listener: name(), address: address.clone(), errno };
                prepare(fd, listener).map_err(failed)?;
            }
            open.address = taken.address.unwrap_or(Address::Ip(SocketAddress::UNIX));
        }
        if let ListenAddress::Unix { name, mode } = &open.asked {
            open.address = Address::Unix(name.clone());
            open.file = SocketFile::of(name);
            if let Some(file) = &open.file {
                let _ = file.set_mode(*mode);
            }
        }
        open.steer = None;
        let group: Vec<Fd> = handed.sockets.into_iter().map(|one| Fd(one.into_raw_fd())).collect();
        let address = if let Address::Ip(address) = open.address { address } else { SocketAddress::UNIX };
        let is_shared = multiplies && self.multiply(open, listener, &group, address).is_ok();
        if !is_shared {
            group.into_iter().for_each(|fd| self.give_to_one(open, fd, address, opened));
        }
        Ok(())
    }
}
