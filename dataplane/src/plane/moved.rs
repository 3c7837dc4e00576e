//! Connections that go from one process to the next.

use super::Plane;
use crate::conn::moving;
use crate::io::{Fd, SocketAddress};
use crate::shard::mailbox::Command;
use crate::spec::ListenerId;
use crate::sys::socket;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

/// A client's connection between two requests.
#[derive(Debug)]
pub struct Moved {
    pub socket: OwnedFd,
    pub listener: ListenerId,
    /// The client: who connected, or who the PROXY header said did.
    pub peer: SocketAddress,
    /// Since it was accepted.
    pub age: Duration,
    /// Requests so far.
    pub requests: u32,
    /// Received, and nobody's request yet.
    pub bytes: Vec<u8>,
}

/// Connections as they come from the shards, until all of those are gone.
#[derive(Debug)]
pub struct Movers(mpsc::Receiver<moving::Moved>);

impl Iterator for Movers {
    type Item = Moved;
    /// Waits for the next one.
    fn next(&mut self) -> Option<Moved> {
        let moving::Moved { fd, listener, peer, age, requests, bytes } = self.0.recv().ok()?;
        Some(Moved { socket: socket::own(fd), listener, peer, age, requests, bytes })
    }
}

impl Plane {
    /// Http connections that wait for a request leave their shards from now on, and so do those that come to wait.
    pub fn move_conns(&self) -> Movers {
        let (to, movers) = mpsc::channel();
        self.tell(|| Command::Move(to.clone()));
        Movers(movers)
    }

    /// A connection of the process before this one goes on here, at the shard that has the fewest; closed where its listener is
    /// gone or full. Shards whose mailbox is full hear of it at the next call, or the next of [`Plane::send_unsent`].
    pub fn adopt(&self, moved: Moved) {
        let Moved { socket, listener, peer, age, requests, bytes } = moved;
        let moved = moving::Moved { fd: Fd(socket.into_raw_fd()), listener, peer, age, requests, bytes };
        let loads = &self.present.borrow().shared.loads;
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let least = (0..shards).min_by_key(|shard| loads.get(*shard)).unwrap_or(0);
        // Counted here already, so that the next one sees it.
        loads.open(least);
        self.unsent.borrow_mut().push((least.into(), Command::Adopt(Box::new(moved))));
        self.send_unsent();
    }
}
