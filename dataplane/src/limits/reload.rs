//! Bounds of going over to another configuration, and of going away.

use std::time::Duration;

/// How long a listening socket that is going away has to be silent before it is closed: who sent the first packet of a
/// handshake before nobody new was let in has that long for the last one.
pub const LISTENER_REST: Duration = Duration::from_millis(250);
/// Between two looks at the configuration's file, where it is watched; it is read when two looks in a row saw the same.
pub const CONFIG_LOOK: Duration = Duration::from_secs(1);
/// The body of a question what a reload would change: a configuration as a string of JSON, in which a byte may take six.
pub const ADMIN_PLAN_BYTES: usize = 64 << 20;
/// The body of a cluster, endpoint or route that is changed at run time, and how many such changes last at once; how many wait for
/// their turn.
pub const ADMIN_OBJECT_BYTES: usize = 4 << 20;
pub const CHANGES_MAX: usize = 10_000;
pub const CHANGES_WAITING: usize = 64;
/// Ids of listeners, and of clusters, those included that are gone and not free yet.
pub const IDS_MAX: usize = u16::MAX as usize;
/// Routes that are gone and whose names are kept, for what they began and what is still to be logged of it; or as many as
/// there are routes, if those are more.
pub const ROUTES_GONE: usize = 4096;
