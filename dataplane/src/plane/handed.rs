//! Listening sockets that go from one process to the next, which neither closes nor binds them: whoever waits in their queues is
//! accepted by one of the two.

use super::Plane;
use super::listening::Sockets;
use crate::io::Errno;
use crate::shard::mailbox::Command;
use crate::spec::Snapshot;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
        let numbers: Arc<[u32]> = self.listening.borrow_mut().give_up(taken).into();
        self.tell(|| Command::GiveUp(Arc::clone(&numbers)));
    }

    /// The other process is gone: the next [`Plane::swap`], to this `snapshot`, has the shards accept on what was given up.
    pub fn take_back(&self, handed: Vec<Handed>, snapshot: &Snapshot) {
        let sockets: Sockets = self.listening.borrow_mut().take_back(handed, snapshot);
        self.present.borrow_mut().sockets = Some(sockets);
    }
}
