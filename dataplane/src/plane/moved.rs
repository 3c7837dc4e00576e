//! Connections that go from one process to the next.

use super::Plane;
use crate::conn::moving::Moving;
pub use crate::conn::moving::{Moved, Transit};
use crate::io::Fd;
use crate::shard::mailbox::Command;
use crate::sys::socket;
pub use crate::tunnel::moving::{MovedExchange, MovedSide, MovedTunnel};
pub use crate::tunnel::reach::Reached;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Connections as they come from the shards, until no more may and none is on its way. Whoever has one tells [`Transit::end`] when it
/// is where it goes.
#[derive(Debug)]
pub struct Movers {
    from: mpsc::Receiver<Moved>,
    transit: Arc<Transit>,
}

/// Between two looks whether there will be no more.
const LOOK: Duration = Duration::from_millis(20);

impl Iterator for Movers {
    type Item = Moved<OwnedFd>;
    /// Waits for the next one.
    fn next(&mut self) -> Option<Moved<OwnedFd>> {
        loop {
            match self.from.recv_timeout(LOOK) {
                Ok(moved) => return Some(moved.map(socket::own)),
                Err(mpsc::RecvTimeoutError::Timeout) if !self.transit.is_over() => {}
                Err(_) => return None,
            }
        }
    }
}

impl Movers {
    /// One that is there already.
    pub fn try_next(&mut self) -> Option<Moved<OwnedFd>> {
        self.from.try_recv().ok().map(|moved| moved.map(socket::own))
    }
}

impl Drop for Movers {
    fn drop(&mut self) {
        self.transit.close();
        // Descriptors are plain numbers on the way.
        self.from.try_iter().for_each(|moved| drop(moved.map(socket::own)));
    }
}

/// How connections begin to move: see [`Plane::move_conns`].
#[derive(Debug)]
pub struct Way {
    to: mpsc::Sender<Moved>,
    transit: Arc<Transit>,
}

/// A way for connections to leave their shards, and its other end.
pub fn way() -> (Way, Movers, Arc<Transit>) {
    let (to, from) = mpsc::channel();
    let transit = Arc::new(Transit::default());
    (Way { to, transit: Arc::clone(&transit) }, Movers { from, transit: Arc::clone(&transit) }, transit)
}

impl Plane {
    /// Tunnels, and http connections that wait for a request, leave their shards from now on, and so do those that come to be so:
    /// those of listeners that say so by their number.
    pub fn move_conns(&self, way: &Way, listeners: &[bool]) {
        self.tell(|| {
            let moving = Moving::new(way.to.clone(), Arc::clone(&way.transit), listeners.into());
            Command::Move(Box::new(moving))
        });
    }

    /// A connection of the process before this one goes on here, at the shard that has the fewest; closed where its listener
    /// is not known. Shards whose mailbox is full hear of it at the next call, or the next of [`Plane::send_unsent`].
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
