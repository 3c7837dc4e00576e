//! Conditions of endpoints: what control says of them, and what it can see.

use super::Plane;
use crate::cluster::condition::Condition;
use crate::cluster::eligible::{Admin, Health};
use crate::cluster::shared::SharedCluster;
use crate::shard::mailbox::Command;
use crate::spec::{ClusterId, EndpointId};

/// An endpoint as the whole node has it at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointStatus {
    pub condition: Condition,
    /// Requests and tunnels.
    pub running: u32,
    /// Links, idle ones included.
    pub open_links: u32,
}

impl Plane {
    fn cluster(&self, cluster: ClusterId) -> Option<&SharedCluster> {
        self.shared.clusters.get(usize::from(cluster.0))?.as_deref()
    }

    /// Says what the operator wants of an endpoint: every pick from now on obeys. False if there is no such endpoint or it was
    /// so before.
    pub fn set_admin(&self, cluster: ClusterId, endpoint: EndpointId, admin: Admin) -> bool {
        let changed = self.cluster(cluster).is_some_and(|shared| shared.set_admin(endpoint, admin));
        self.look(cluster, changed)
    }
    /// Says what the active checks found of an endpoint: every pick from now on follows. False if there is no such endpoint
    /// or it was so before.
    pub fn set_health(&self, cluster: ClusterId, endpoint: EndpointId, health: Health) -> bool {
        let changed = self.cluster(cluster).is_some_and(|shared| shared.set_health(endpoint, health));
        self.look(cluster, changed)
    }
    /// What is known of an endpoint; none if there is no such endpoint.
    pub fn endpoint_status(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<EndpointStatus> {
        let shared = self.cluster(cluster)?.endpoint(endpoint)?;
        let (running, open_links) = (shared.running_requests(), shared.open_links());
        Some(EndpointStatus { condition: shared.condition(), running, open_links })
    }
    /// Those who wait for a place at a cluster, over all shards.
    pub fn waiters(&self, cluster: ClusterId) -> u32 {
        self.cluster(cluster).map_or(0, SharedCluster::waiters)
    }

    /// Tells every shard to look at the links and waiters of a cluster if something changed there; says whether it did.
    fn look(&self, cluster: ClusterId, changed: bool) -> bool {
        if changed {
            self.untold.borrow_mut().extend((0..self.shards.len()).map(|shard| (cluster, shard)));
            self.tell_untold();
        }
        changed
    }
    /// Tells those who had no room for it before. Control calls it now and then, as a mailbox empties within a turn.
    pub fn tell_untold(&self) {
        self.untold.borrow_mut().retain(|&(cluster, shard)| {
            let shard = self.shards.get(shard);
            shard.is_some_and(|s| s.commands.borrow_mut().send(Command::Look { cluster }).is_err())
        });
    }
}
