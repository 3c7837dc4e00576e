//! The sockets that shards accept on: bound for each shard, or held by one of them that hands on what it accepts.

use super::{Bound, StartError};
use crate::io::{Address, Errno, Fd, SocketAddress, SocketOption};
use crate::limits::LISTEN_BACKLOG;
use crate::spec::{ListenAddress, Listener, ListenerId, Snapshot, Steer};
use crate::sys::unix::SocketFile;
use crate::sys::{inherited, socket, steer, unix};

/// One shard's listening sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) all: Vec<(ListenerId, Fd, SocketAddress)>,
    /// Which of them no other shard has.
    pub(super) alone: Vec<usize>,
}

/// Everything that listens.
#[derive(Debug)]
pub(super) struct Listening {
    /// By shard.
    pub(super) sockets: Vec<Sockets>,
    pub(super) bound: Vec<Bound>,
    pub(super) files: Vec<SocketFile>,
}

/// Opens every listener's sockets. The first socket of an address chooses the port where it is 0.
pub(super) fn open(snapshot: &Snapshot, shards: u16) -> Result<Listening, StartError> {
    let sockets = (0..shards).map(|_| Sockets::default()).collect();
    let mut listening = Listening { sockets, bound: Vec::new(), files: Vec::new() };
    let listeners = || snapshot.listeners.iter().flatten();
    // Inherited ones first: another of our sockets must not have got such a number.
    for inherited in [true, false] {
        for listener in listeners() {
            for address in &listener.addresses {
                if matches!(address, ListenAddress::Inherited(_)) == inherited {
                    listening.add(listener, address)?;
                }
            }
        }
    }
    // As the file has them.
    listening.bound.sort_by_key(|bound| bound.listener);
    Ok(listening)
}

impl Listening {
    fn add(&mut self, listener: &Listener, address: &ListenAddress) -> Result<(), StartError> {
        let at = |address: Address| {
            move |errno| StartError::Bind { listener: listener.name.to_string(), address, errno }
        };
        let address = match address {
            ListenAddress::Ip(address) => {
                let failed = |errno| at((*address).into())(errno);
                is_free(address).map_err(failed)?;
                let real = self.multiply(listener, None, *address).map_err(failed)?;
                let group = self.sockets.first().and_then(|first| first.all.last()).map(|(_, fd, _)| *fd);
                if let Some(fd) = group {
                    self.steer(fd, listener.steer, &real).map_err(failed)?;
                }
                real.into()
            }
            ListenAddress::Unix { name, mode } => {
                let address = Address::Unix(name.clone());
                let (fd, file) = unix::listener(name, *mode, LISTEN_BACKLOG).map_err(at(address.clone()))?;
                self.files.extend(file);
                self.give_to_one(listener.id, fd, SocketAddress::UNIX);
                address
            }
            ListenAddress::Inherited(fd) => self.take(listener, *fd)?,
        };
        self.bound.push(Bound { listener: listener.id, address });
        Ok(())
    }

    /// A socket for each shard on one address: `first` for the first shard, or a new one.
    fn multiply(
        &mut self,
        listener: &Listener,
        first: Option<Fd>,
        address: SocketAddress,
    ) -> Result<SocketAddress, Errno> {
        let (mut real, own) = (address, usize::from(first.is_none()));
        let mut group: Vec<Fd> = first.into_iter().collect();
        while group.len() < self.sockets.len() {
            let joined =
                socket::listener(&real, LISTEN_BACKLOG).map_err(|error| error.errno).and_then(|fd| {
                    group.push(fd);
                    prepare(fd, listener)?;
                    socket::local_address(fd)
                });
            match joined {
                Ok(address) => real = address,
                Err(errno) => {
                    group.drain(1 - own..).for_each(socket::close);
                    return Err(errno);
                }
            }
        }
        for (of_shard, fd) in self.sockets.iter_mut().zip(group) {
            of_shard.all.push((listener.id, fd, real));
        }
        Ok(real)
    }

    /// A socket that cannot be multiplied belongs to the shard that has the fewest.
    fn give_to_one(&mut self, id: ListenerId, fd: Fd, address: SocketAddress) {
        if let Some(of_shard) = self.sockets.iter_mut().min_by_key(|sockets| sockets.all.len()) {
            of_shard.alone.push(of_shard.all.len());
            of_shard.all.push((id, fd, address));
        }
    }

    fn take(&mut self, listener: &Listener, fd: i32) -> Result<Address, StartError> {
        let taken = inherited::take(Fd(fd)).map_err(|why| StartError::Inherited {
            listener: listener.name.to_string(),
            fd,
            why,
        })?;
        let address = match &taken.address {
            Some(Address::Ip(address)) => *address,
            _ => SocketAddress::UNIX,
        };
        if let Some(Address::Ip(address)) = taken.address {
            prepare(taken.fd, listener).map_err(|errno| StartError::Bind {
                listener: listener.name.to_string(),
                address: address.into(),
                errno,
            })?;
        }
        // Another user's socket (systemd binds as root) lets nobody join it: then one shard has it.
        if !taken.multiplies || self.multiply(listener, Some(taken.fd), address).is_err() {
            self.give_to_one(listener.id, taken.fd, address);
        }
        Ok(taken.address.unwrap_or(Address::Ip(SocketAddress::UNIX)))
    }

    fn steer(&self, group: Fd, by: Steer, address: &SocketAddress) -> Result<(), Errno> {
        let sockets = u32::try_from(self.sockets.len()).unwrap_or(u32::MAX);
        steer::attach(group, by, address.is_v6(), sockets)
    }
}

/// What connections inherit from the socket that accepts them.
fn prepare(fd: Fd, listener: &Listener) -> Result<(), Errno> {
    socket::set_option(fd, SocketOption::DeadPeer(listener.timeouts.dead_peer))
}

/// SO_REUSEPORT would let us join another process's group of the same user without a word: bind once without it first.
fn is_free(address: &SocketAddress) -> Result<(), Errno> {
    if address.port() == 0 {
        return Ok(());
    }
    socket::probe_free(address)
}
