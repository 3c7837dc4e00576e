//! Drains that may be called off: whose sockets go and whose conns leave, while the process stays.

use super::{Plane, StartError};
use crate::io::Mono;
use crate::limits::LISTENER_REST;
use crate::spec::Drains;
use crate::sys::clock;
use std::sync::Arc;

/// What clients have open, over all shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    pub connections: u64,
    /// Of them, those with a request, and tunnels. As of each shard's last turn.
    pub requests: u64,
    pub tunnels: u64,
}

impl Plane {
    /// These drain, and nothing else does: listeners that come to it have no sockets from now on, and those that were called
    /// off get theirs again, at the addresses that they had.
    ///
    /// # Errors
    /// An address cannot be had: then nothing has changed.
    pub fn set_drains(&self, drains: Drains) -> Result<(), StartError> {
        let snapshot = self.snapshot();
        let now = clock::now().mono;
        let ends = drains.listeners.iter().map(|(_, order)| order).chain(&drains.node).map(|o| o.until);
        let leave_by = ends.fold(now, Mono::max).after(LISTENER_REST);
        let sockets = self.listening.borrow_mut().follow(&snapshot, &drains, leave_by)?;
        let mut present = self.present.borrow_mut();
        present.sockets = Some(sockets);
        present.drains = Arc::new(drains);
        drop(present);
        self.step();
        Ok(())
    }
    /// What drains now.
    pub fn drains(&self) -> Arc<Drains> {
        Arc::clone(&self.present.borrow().drains)
    }
    /// Whether every shard has been told of all that changed.
    pub fn is_settled(&self) -> bool {
        self.shards.iter().all(|shard| shard.switching.borrow().is_at(self.steps.get()))
    }
    /// What is left to drain.
    pub fn left_open(&self) -> Left {
        let sum = |of: fn(&crate::stats::Stats) -> u64| self.stats().map(of).sum();
        let (exchanges, tunnels) =
            (sum(|stats| stats.exchanges_open.get()), sum(|stats| stats.tunnels_open.get()));
        Left { connections: sum(|stats| stats.conns_open.get()), requests: exchanges, tunnels }
    }
    /// The time by which orders are given.
    pub fn now(&self) -> Mono {
        clock::now().mono
    }
}
