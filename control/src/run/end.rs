//! The end of the process.

use super::upgrade::Upgrades;
use crate::admin::Api;
use crate::ready;
use dataplane::limits;
use dataplane::plane::{Plane, PlaneEvent};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long shards that were told to stop may take before the process ends without them.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Who asked has an answer, shards stop, the next process has what it is given.
pub(super) async fn end(
    plane: Plane,
    events: &mut mpsc::UnboundedReceiver<PlaneEvent>,
    mut alive: usize,
    stops: bool,
    (upgrades, api): (&mut Upgrades, Option<Api>),
) {
    upgrades.rest().await;
    match (upgrades.is_over(), api) {
        // Another process speaks to whoever started this one.
        (Some(true), Some(api)) => api.leave(limits::UPGRADE_REST).await,
        (Some(_), api) => drop(api),
        (None, _) => ready::notify("STOPPING=1"),
    }
    if stops {
        alive = stop(&plane, events, alive).await;
    }
    if alive == 0 {
        plane.join();
    } else {
        // A shard that does not end is not waited for: the process ends around it.
        let _ = std::mem::ManuallyDrop::new(plane);
    }
}

/// Tells all shards to stop, and waits a little. Returns how many have not ended.
async fn stop(plane: &Plane, events: &mut mpsc::UnboundedReceiver<PlaneEvent>, mut alive: usize) -> usize {
    plane.stop();
    let deadline = Instant::now() + STOP_WAIT;
    while alive > 0 {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Some(PlaneEvent::ShardEnded { .. })) => alive -= 1,
            Ok(None) | Err(_) => break,
        }
    }
    alive
}
