//! Connections that go from one process to the next.

use super::Plane;
pub use crate::conn::moving::Moved;
use crate::io::Fd;
use crate::shard::mailbox::Command;
use crate::sys::socket;
pub use crate::tunnel::moving::{MovedExchange, MovedSide, MovedTunnel};
pub use crate::tunnel::reach::Reached;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::mpsc;

/// Connections as they come from the shards, until all of those are gone.
#[derive(Debug)]
pub struct Movers(mpsc::Receiver<Moved>);

impl Iterator for Movers {
    type Item = Moved<OwnedFd>;
    /// Waits for the next one.
    fn next(&mut self) -> Option<Moved<OwnedFd>> {
        Some(self.0.recv().ok()?.map(socket::own))
    }
}

impl Plane {
    /// Tunnels, and http connections that wait for a request, leave their shards from now on, and so do those that come to be so:
    /// those of listeners that say so by their number.
    pub fn move_conns(&self, listeners: &[bool]) -> Movers {
        let (to, movers) = mpsc::channel();
        self.tell(|| Command::Move(to.clone(), listeners.into()));
        Movers(movers)
    }

    /// A connection of the process before this one goes on here, at the shard that has the fewest; closed where its listener is
    /// gone or full. Shards whose mailbox is full hear of it at the next call, or the next of [`Plane::send_unsent`].
    pub fn adopt(&self, moved: Moved<OwnedFd>) {
        let moved = moved.map(|socket| Fd(socket.into_raw_fd()));
        let loads = &self.present.borrow().shared.loads;
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let least = (0..shards).min_by_key(|shard| loads.get(*shard)).unwrap_or(0);
        // Counted here already, so that the next one sees it.
        loads.open(least);
        self.unsent.borrow_mut().push((least.into(), Command::Adopt(Box::new(moved))));
        self.send_unsent();
    }
}
