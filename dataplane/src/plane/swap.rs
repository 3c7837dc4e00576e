//! Another configuration for the running shards, and with it sockets that come and go: each is sent it, one at a time, and sends back what it had, which is freed
//! here and tells that the shard has gone over.

use super::{Plane, StartError};
use crate::cluster::shared::SharedEndpoint;
use crate::limits::LISTENER_REST;
use crate::route::RouteTable;
use crate::shard::mailbox::Command;
use crate::shard::swap::Swap;
use crate::spec::{ClusterId, EndpointId, Listener, ListenerId, Snapshot};
use crate::sys::clock;
use rtrb::Consumer;
use std::sync::Arc;

/// How far one shard has gone along with the swaps.
#[derive(Debug)]
pub(super) struct Switching {
    returned: Consumer<Box<Swap>>,
    /// What it runs by.
    done: Step,
    /// What it was sent and has not answered.
    under_way: Option<Step>,
}

/// How far the shards are told to go. Not every step is a swap: what drains is another at some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    number: u64,
    /// Swaps so far; 0 is what they began with.
    swaps: u64,
}

impl Switching {
    /// Whether it runs by that.
    pub(super) fn is_at(&self, step: Step) -> bool {
        self.done == step
    }
    pub(super) fn new(returned: Consumer<Box<Swap>>) -> Self {
        Self { returned, done: Step::default(), under_way: None }
    }
}

impl Plane {
    /// Swaps so far: the number of the last.
    pub fn swaps(&self) -> u64 {
        self.steps.get().swaps
    }

    /// Every shard goes over to `snapshot`, whose clusters and endpoints have the ids that they have now; one that is new has
    /// an id that was never used, or is free ([`Plane::is_free`]). Sockets are those of the last [`Plane::listen`].
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        let mut present = self.present.borrow_mut();
        let shared = Arc::new(present.shared.next(&present.snapshot, &snapshot, clock::now().mono));
        let routes = match has_same_routes(&present.snapshot, &snapshot) {
            true => Arc::clone(&present.routes),
            false => Arc::new(RouteTable::of(&snapshot)),
        };
        let (sockets, drains) = (present.sockets.clone(), Arc::clone(&present.drains));
        *present = Swap { snapshot, routes, shared, sockets, drains };
        drop(present);
        self.steps.set(Step { swaps: self.swaps() + 1, ..self.steps.get() });
        self.follow_watched();
        self.step();
    }

    /// Every shard goes over to what is present now.
    pub(super) fn step(&self) {
        let step = self.steps.get();
        self.steps.set(Step { number: step.number + 1, ..step });
        self.switch();
    }

    /// Binds what the listeners of `snapshot` listen on and what is not bound yet. The next [`Plane::swap`], which is to be of these
    /// listeners, has the shards accept there, and close what is not among it once its queue is empty. Every shard runs by the
    /// last swap.
    ///
    /// # Errors
    /// An address cannot be had, or the kernel lacks something: then nothing has changed.
    pub fn listen(&self, snapshot: &Snapshot) -> Result<(), StartError> {
        super::check_kernel(snapshot)?;
        let leave_by = clock::now().mono.after(snapshot.runtime.drain_timeout).after(LISTENER_REST);
        let drains = Arc::clone(&self.present.borrow().drains);
        let sockets = self.listening.borrow_mut().follow(snapshot, &drains, leave_by)?;
        self.present.borrow_mut().sockets = Some(sockets);
        Ok(())
    }

    /// Takes back what shards swapped out, and sends the last swap to those that have not got it yet: control calls it at each
    /// of its ticks.
    pub fn switch(&self) {
        let newest = self.steps.get();
        for shard in &self.shards {
            let mut switching = shard.switching.borrow_mut();
            if let Ok(before) = switching.returned.pop() {
                drop(before);
                switching.done = switching.under_way.take().unwrap_or(switching.done);
            }
            if switching.under_way.is_none() && switching.done != newest {
                let swap = Command::Swap(Box::new(self.present.borrow().clone()));
                // In vain where its mailbox is full: again at the next tick.
                if shard.commands.borrow_mut().send(swap).is_ok() {
                    switching.under_way = Some(newest);
                }
            }
        }
    }

    /// Whether every shard runs by swap number `swap` or a later one.
    pub fn has_switched(&self, swap: u64) -> bool {
        self.shards.iter().all(|shard| shard.switching.borrow().done.swaps >= swap)
    }

    /// Conns that a listener has, over all shards; those it had before it was gone included.
    pub fn open_conns(&self, listener: ListenerId) -> u32 {
        let present = self.present.borrow();
        let shared = present.shared.listeners.get(usize::from(listener.0)).and_then(Option::as_ref);
        shared.map_or(0, |shared| shared.open())
    }
    /// Whether nothing is open at a cluster, nothing runs there and nobody waits for it.
    pub fn is_unused(&self, cluster: ClusterId) -> bool {
        let Some(shared) = self.shared_cluster(cluster) else { return true };
        let used = |e: &SharedEndpoint| e.open_links() > 0 || e.running_requests() > 0;
        shared.waiters() == 0 && !shared.endpoints().any(used)
    }
    /// What the shards run, or are about to.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.present.borrow().snapshot)
    }

    /// Whether nobody refers any more to an endpoint that is gone since swap number `since`: another may have its id.
    pub fn is_free(&self, cluster: ClusterId, endpoint: EndpointId, since: u64) -> bool {
        let Some(shared) = self.shared_cluster(cluster) else { return false };
        shared.is_unused(endpoint) && self.has_switched(since)
    }
}

/// Whether both lead requests and conns the same way, object by object.
fn has_same_routes(one: &Snapshot, other: &Snapshot) -> bool {
    let mut listeners = one.listeners.iter().zip(&other.listeners);
    let protocol = |listener: &Option<Arc<Listener>>| listener.as_ref().map(|listener| listener.protocol);
    one.routes.are(&other.routes)
        && one.listeners.len() == other.listeners.len()
        && listeners.all(|(one, other)| protocol(one) == protocol(other))
}
