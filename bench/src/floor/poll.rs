//! epoll for the floors that use readiness: what to watch, and the events of one wait.

pub(super) use rustix::event::epoll::EventFlags;
use rustix::event::epoll::{self, CreateFlags, Event, EventData};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

const EVENTS_MAX: usize = 512;
/// The number of the listener.
pub(super) const LISTENER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// Watches `listener` from the start.
    pub(super) fn new(listener: &TcpListener) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Self { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        poll.add(listener, LISTENER, EventFlags::IN)?;
        Ok(poll)
    }

    pub(super) fn add(&self, fd: impl AsFd, number: u64, flags: EventFlags) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(number), flags)
    }

    pub(super) fn change(&self, fd: impl AsFd, number: u64, flags: EventFlags) -> rustix::io::Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(number), flags)
    }

    /// Calls `act` for each event, for ever.
    pub(super) fn run(&self, mut act: impl FnMut(u64, EventFlags)) -> anyhow::Result<()> {
        let mut room = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        loop {
            match epoll::wait(&self.epoll, &mut room[..], None) {
                Ok((events, _)) => events.iter().for_each(|event| {
                    let (data, flags) = (event.data, event.flags);
                    act(data.u64(), flags);
                }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Every connection that waits, none of them blocking.
pub(super) fn accept_all(listener: &TcpListener, mut act: impl FnMut(TcpStream)) {
    use rustix::net::{SocketFlags, accept_with};
    // Any error ends this round: readiness is level-triggered, so a connection that is left is met again.
    while let Ok(fd) = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        act(TcpStream::from(fd));
    }
}
