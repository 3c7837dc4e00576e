//! The sockets that shards accept on: bound for each shard, or held by one of them that hands on what it accepts.
//!
//! What is open follows the configuration. An address that two configurations have keeps its sockets, and so its port where
//! that was left to the kernel; what is new is bound before anything of the old goes.

mod handed;

pub use handed::Handed;

use super::{Bound, StartError};
use crate::io::{Address, Errno, Fd, Mono, SocketAddress, SocketOption};
use crate::limits::LISTEN_BACKLOG;
use crate::listener::Socket;
use crate::spec::{Drains, ListenAddress, Listener, ListenerId, Snapshot, Steer};
use crate::sys::inherited::{self, InheritedError};
use crate::sys::unix::SocketFile;
use crate::sys::{clock, socket, steer, unix};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// One bound address.
#[derive(Debug)]
struct Open {
    /// As the configuration has it.
    asked: ListenAddress,
    listener: ListenerId,
    address: Address,
    /// By which shard each is held.
    sockets: Vec<(usize, Socket)>,
    /// None where another process said.
    steer: Option<Steer>,
    dead_peer: Duration,
    file: Option<SocketFile>,
}

/// Everything that listens.
#[derive(Debug)]
pub(super) struct Listening {
    shards: usize,
    open: Vec<Open>,
    /// The number of the next socket.
    next: u32,
    /// Ports of sockets that were told to go away, and when they are gone.
    leaving: Vec<(u16, Mono)>,
    /// What drains.
    shut: Vec<Shut>,
    /// What another process gave; those that are taken are gone from here.
    handed: Vec<Option<Handed>>,
    taken: Vec<usize>,
    /// Descriptors that the process was started with have their numbers no more.
    started: bool,
}

/// An address whose sockets went because its listener drains: it gets them again, where it was.
#[derive(Debug)]
struct Shut {
    listener: ListenerId,
    asked: ListenAddress,
    address: Address,
    /// What the process was started with.
    lent: Option<OwnedFd>,
}

/// By shard, in the order of their numbers.
pub(super) type Sockets = Arc<[Vec<Socket>]>;

impl Listening {
    /// `handed` is what the process before this one gave, if there was one.
    pub(super) fn new(shards: u16, handed: Option<Vec<Handed>>) -> Self {
        Self {
            shards: shards.into(),
            open: Vec::new(),
            next: 0,
            leaving: Vec::new(),
            shut: Vec::new(),
            started: handed.is_some(),
            handed: handed.unwrap_or_default().into_iter().map(Some).collect(),
            taken: Vec::new(),
        }
    }

    fn by_shard(&self) -> Sockets {
        let mut sockets = vec![Vec::new(); self.shards];
        for (shard, socket) in self.open.iter().flat_map(|open| open.sockets.iter().copied()) {
            sockets[shard].push(socket);
        }
        sockets.iter_mut().for_each(|sockets: &mut Vec<Socket>| sockets.sort_by_key(|s| s.number));
        sockets.into()
    }

    /// One entry for each bound address, in the order of the listeners and of their addresses.
    pub(super) fn bound(&self) -> Vec<Bound> {
        let bound = |open: &Open| Bound { listener: open.listener, address: open.address.clone() };
        self.open.iter().map(bound).collect()
    }

    /// Removes the files of unix sockets: nobody new is to come.
    pub(super) fn hide(&mut self) {
        self.open.iter_mut().for_each(|open| open.file = None);
    }

    /// Opens what `snapshot` asks for and is not open, and lets go of what it does not ask for: shards that are told so close it,
    /// by `leave_by`. What drains has none. Where something cannot be opened, all is as it was.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        drains: &Drains,
        leave_by: Mono,
    ) -> Result<Sockets, StartError> {
        let now = clock::now().mono;
        self.leaving.retain(|(_, until)| *until > now);
        let wanted: Vec<(&Arc<Listener>, &ListenAddress)> = snapshot
            .listeners
            .iter()
            .flatten()
            .filter(|listener| drains.of(listener.id).is_none())
            .flat_map(|listener| listener.addresses.iter().map(move |address| (listener, address)))
            .collect();
        let kept = self.find(&wanted);
        let new = self.open_new(&wanted, &kept)?;
        let mut before: Vec<Option<Open>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        let mut new = new.into_iter();
        for ((listener, asked), kept) in wanted.iter().zip(kept) {
            let mut open = match kept.and_then(|at| before.get_mut(at)?.take()) {
                Some(open) => open,
                None => match new.next() {
                    Some(open) => open,
                    None => continue,
                },
            };
            open.become_of(listener, asked, self.shards);
            self.open.push(open);
        }
        for gone in before.into_iter().flatten() {
            if let Address::Ip(address) = gone.address {
                self.leaving.push((address.port(), leave_by));
            }
            self.shut.push(gone.shut());
        }
        self.shut.retain(|shut| {
            let listener = snapshot.listener(shut.listener);
            drains.of(shut.listener).is_some()
                && listener.is_some_and(|listener| listener.addresses.iter().any(|to| to.is_at(&shut.asked)))
        });
        self.started = true;
        self.handed.clear();
        Ok(self.by_shard())
    }

    /// The place of what is open already, for each that is wanted: of the same listener, or of another; but a port that the
    /// kernel chose stays with the listener.
    fn find(&self, wanted: &[(&Arc<Listener>, &ListenAddress)]) -> Vec<Option<usize>> {
        let mut found = vec![None; wanted.len()];
        let mut free = vec![true; self.open.len()];
        for of_same in [true, false] {
            for ((listener, asked), found) in
                wanted.iter().zip(&mut found).filter(|(_, found)| found.is_none())
            {
                let any_port = asked.as_ip().is_some_and(|address| address.port() == 0);
                let suits = |(at, open): &(usize, &Open)| {
                    let of_it = open.listener == listener.id || !of_same && !any_port;
                    free[*at] && of_it && open.asked.is_at(asked)
                };
                *found = self.open.iter().enumerate().find(suits).map(|(at, _)| at);
                found.iter().for_each(|at| free[*at] = false);
            }
        }
        found
    }

    /// Opens all that is wanted and not kept, or nothing.
    fn open_new(
        &mut self,
        wanted: &[(&Arc<Listener>, &ListenAddress)],
        kept: &[Option<usize>],
    ) -> Result<Vec<Open>, StartError> {
        let missing = || wanted.iter().zip(kept).enumerate().filter(|(_, (_, kept))| kept.is_none());
        let mut opened: Vec<(usize, Open)> = Vec::new();
        // Inherited ones first: another of our sockets must not have got such a number.
        for inherited in [true, false] {
            for (at, ((listener, asked), _)) in missing() {
                if matches!(asked, ListenAddress::Inherited(_)) != inherited {
                    continue;
                }
                match self.open_one(listener, asked, &opened) {
                    Ok(open) => opened.push((at, open)),
                    Err(error) => {
                        let sockets = opened.iter().flat_map(|(_, open)| &open.sockets);
                        sockets.for_each(|(_, one)| socket::close(one.fd));
                        return Err(error);
                    }
                }
            }
        }
        opened.sort_by_key(|(at, _)| *at);
        Ok(opened.into_iter().map(|(_, open)| open).collect())
    }

    fn open_one(
        &mut self,
        listener: &Listener,
        asked: &ListenAddress,
        opened: &[(usize, Open)],
    ) -> Result<Open, StartError> {
        let at = |address: Address| {
            move |errno| StartError::Bind { listener: listener.name.to_string(), address, errno }
        };
        let mut open = Open::new(listener, asked);
        // A unix socket that stays deaf is closed by this, and its name is free.
        if let Some(handed) = self.handed_for(listener, asked).filter(|handed| handed.hears(asked)) {
            return self.go_on(&mut open, listener, handed, opened).map(|()| open);
        }
        match asked {
            ListenAddress::Ip(asked) => {
                let address = match self.shut(listener.id, &open.asked).map(|shut| &shut.address) {
                    Some(Address::Ip(address)) => *address,
                    _ => *asked,
                };
                let failed = |errno| at(address.into())(errno);
                self.is_free(&address).map_err(failed)?;
                open.address = self.multiply(&mut open, listener, &[], address).map_err(failed)?.into();
            }
            ListenAddress::Unix { name, mode } => {
                open.address = Address::Unix(name.clone());
                let made = unix::listener(name, *mode, LISTEN_BACKLOG).map_err(at(open.address.clone()));
                let (fd, file) = made?;
                open.file = file;
                self.give_to_one(&mut open, fd, SocketAddress::UNIX, opened);
            }
            ListenAddress::Inherited(fd) => self.take(&mut open, listener, *fd, opened)?,
        }
        Ok(open)
    }

    fn shut(&self, listener: ListenerId, asked: &ListenAddress) -> Option<&Shut> {
        self.shut.iter().find(|shut| shut.listener == listener && shut.asked.is_at(asked))
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A socket for each shard on one address: those of `first`, and new ones.
    fn multiply(
        &mut self,
        open: &mut Open,
        listener: &Listener,
        first: &[Fd],
        address: SocketAddress,
    ) -> Result<SocketAddress, Errno> {
        let mut real = address;
        let mut group = first.to_vec();
        while group.len() < self.shards {
            let joined =
                socket::listener(&real, LISTEN_BACKLOG).map_err(|error| error.errno).and_then(|fd| {
                    group.push(fd);
                    prepare(fd, listener)?;
                    socket::local_address(fd)
                });
            match joined {
                Ok(address) => real = address,
                Err(errno) => {
                    group.drain(first.len()..).for_each(socket::close);
                    return Err(errno);
                }
            }
        }
        let is_inherited = matches!(open.asked, ListenAddress::Inherited(_));
        for (at, fd) in group.into_iter().enumerate() {
            let lent = is_inherited && first.first() == Some(&fd);
            let number = self.number();
            let socket = Socket { number, listener: listener.id, fd, address: real, alone: false, lent };
            open.sockets.push((at % self.shards, socket));
        }
        Ok(real)
    }

    /// A socket that cannot be multiplied belongs to the shard that has the fewest.
    fn give_to_one(&mut self, open: &mut Open, fd: Fd, address: SocketAddress, opened: &[(usize, Open)]) {
        let lent = matches!(open.asked, ListenAddress::Inherited(_));
        let socket =
            Socket { number: self.number(), listener: open.listener, fd, address, alone: true, lent };
        let all = || self.open.iter().chain(opened.iter().map(|(_, open)| open)).chain([&*open]);
        let count = |shard: &usize| all().flat_map(|o| &o.sockets).filter(|(of, _)| of == shard).count();
        open.sockets.push(((0..self.shards).min_by_key(count).unwrap_or(0), socket));
    }

    fn take(
        &mut self,
        open: &mut Open,
        listener: &Listener,
        fd: i32,
        opened: &[(usize, Open)],
    ) -> Result<(), StartError> {
        let name = || listener.name.to_string();
        let inherited = |why| StartError::Inherited { listener: name(), fd, why };
        let again = self.shut(listener.id, &open.asked).and_then(|shut| shut.lent.as_ref());
        let again = again.and_then(|lent| Some(Fd(lent.try_clone().ok()?.into_raw_fd())));
        if self.started && again.is_none() {
            // What has that number now may be anything.
            return Err(inherited(InheritedError::TooLate));
        }
        let taken = inherited::take(again.unwrap_or(Fd(fd))).map_err(inherited)?;
        let address = match &taken.address {
            Some(Address::Ip(address)) => *address,
            _ => SocketAddress::UNIX,
        };
        if let Some(Address::Ip(address)) = taken.address {
            prepare(taken.fd, listener).map_err(|errno| StartError::Bind {
                listener: name(),
                address: address.into(),
                errno,
            })?;
        }
        // Another user's socket (systemd binds as root) lets nobody join it: then one shard has it.
        if !taken.multiplies || self.multiply(open, listener, &[taken.fd], address).is_err() {
            self.give_to_one(open, taken.fd, address, opened);
        }
        open.address = taken.address.unwrap_or(Address::Ip(SocketAddress::UNIX));
        Ok(())
    }

    /// SO_REUSEPORT would let us join another process's group of the same user without a word: bind once without it first. What
    /// holds the port may also be ours: another address of this machine, or what goes away.
    fn is_free(&self, address: &SocketAddress) -> Result<(), Errno> {
        if address.port() == 0 {
            return Ok(());
        }
        let is_port =
            |open: &Open| matches!(&open.address, Address::Ip(held) if held.port() == address.port());
        // What another process gave is ours, and closes with that process at the latest if nobody takes it.
        let was_port = |handed: &Handed| {
            let held = handed.sockets.first().map(|one| socket::local_address(Fd(one.as_raw_fd())));
            held.is_some_and(|held| held.is_ok_and(|held| held.port() == address.port()))
        };
        let ours = self.open.iter().any(is_port)
            || self.handed.iter().flatten().any(was_port)
            || self.leaving.iter().any(|(port, _)| *port == address.port());
        match socket::probe_free(address) {
            Err(Errno(libc::EADDRINUSE)) if ours => Ok(()),
            other => other,
        }
    }
}

impl Open {
    fn new(listener: &Listener, asked: &ListenAddress) -> Self {
        Self {
            asked: asked.clone(),
            listener: listener.id,
            address: Address::Ip(SocketAddress::UNIX),
            sockets: Vec::new(),
            steer: Some(Steer::Hash),
            dead_peer: listener.timeouts.dead_peer,
            file: None,
        }
    }
    /// To be kept while its listener drains. The shards close its sockets, so that what is lent is kept by another number.
    fn shut(self) -> Shut {
        let lent = self.sockets.iter().find(|(_, socket)| socket.lent);
        let lent = lent.and_then(|(_, socket)| inherited::duplicate(socket.fd).ok());
        Shut { listener: self.listener, asked: self.asked, address: self.address, lent }
    }

    /// It is that listener's from now on, as that asks for. What cannot be set on a socket that listens already stays as it is.
    fn become_of(&mut self, listener: &Listener, asked: &ListenAddress, shards: usize) {
        self.listener = listener.id;
        self.sockets.iter_mut().for_each(|(_, socket)| socket.listener = listener.id);
        let first = self.sockets.first().map(|(_, socket)| socket.fd);
        let is_ip = matches!(self.asked, ListenAddress::Ip(_));
        if let (Some(fd), true, Address::Ip(address)) = (first, is_ip, &self.address)
            && self.steer != Some(listener.steer)
        {
            let sockets = u32::try_from(shards).unwrap_or(u32::MAX);
            let _ = steer::attach(fd, listener.steer, address.is_v6(), sockets);
            self.steer = Some(listener.steer);
        }
        if self.dead_peer != listener.timeouts.dead_peer && !matches!(self.address, Address::Unix(_)) {
            self.dead_peer = listener.timeouts.dead_peer;
            for (_, socket) in &self.sockets {
                let _ = socket::forget_dead_peers(socket.fd).and_then(|()| prepare(socket.fd, listener));
            }
        }
        if let (ListenAddress::Unix { mode: before, .. }, ListenAddress::Unix { mode, .. }) =
            (&self.asked, asked)
            && before != mode
            && let Some(file) = &self.file
        {
            let _ = file.set_mode(*mode);
        }
        self.asked = asked.clone();
    }
}

/// What connections inherit from the socket that accepts them.
fn prepare(fd: Fd, listener: &Listener) -> Result<(), Errno> {
    socket::set_option(fd, SocketOption::DeadPeer(listener.timeouts.dead_peer))
}
