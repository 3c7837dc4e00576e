//! Bounds of going over to another configuration, and of going away.

use std::time::Duration;

/// How long a listening socket that is going away has to be silent before it is closed: who sent the first packet of a
/// handshake before nobody new was let in has that long for the last one.
pub const LISTENER_REST: Duration = Duration::from_millis(250);
/// Between two looks at the configuration's file, where it is watched; it is read when two looks in a row saw the same.
pub const CONFIG_LOOK: Duration = Duration::from_secs(1);
/// The body of a question what a reload would change: a configuration as a string of JSON, in which a byte may take six.
pub const ADMIN_PLAN_BYTES: usize = 64 << 20;
/// Ids of listeners, and of clusters, those included that are gone and not free yet.
pub const IDS_MAX: usize = u16::MAX as usize;
/// Routes that are gone and whose names are kept, for what they began and what is still to be logged of it; or as many as
/// there are routes, if those are more.
pub const ROUTES_GONE: usize = 4096;
/// From the start of the next process in an upgrade until it is ready; then it is given up. DNS and large files take their time.
pub const UPGRADE_READY: Duration = Duration::from_secs(60);
/// How long one of the two processes of an upgrade waits for a word of the other that is due at once.
pub const UPGRADE_ANSWER: Duration = Duration::from_secs(5);
/// One message between the two processes of an upgrade.
pub const UPGRADE_MESSAGE_BYTES: usize = 64 << 10;
/// Descriptors in one of them; the kernel takes 253 (SCM_MAX_FD of <net/scm.h>).
pub const UPGRADE_DESCRIPTORS: usize = 128;
/// At the end of a process after an upgrade: for whoever still waits for an answer of its admin API.
pub const UPGRADE_REST: Duration = Duration::from_secs(1);
