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
/// From the start of the next process in an upgrade until it is ready; then it is given up. DNS and large files take their time.
pub const UPGRADE_READY: Duration = Duration::from_secs(60);
/// How long one of the two processes of an upgrade waits for a word of the other that is due at once.
pub const UPGRADE_ANSWER: Duration = Duration::from_secs(5);
/// One message between the two processes of an upgrade: less than the kernel lets a packet have by default (wmem_default, 208 KiB).
pub const UPGRADE_MESSAGE_BYTES: usize = 192 << 10;
/// The bytes that go with a connection, of which one message carries [`UPGRADE_PIECE_BYTES`] at most.
pub const UPGRADE_CONN_BYTES: usize = 1 << 20;
pub const UPGRADE_PIECE_BYTES: usize = 128 << 10;
/// The changes at run time that the next process is told of, with the file that they were made to. File and changes together are a
/// configuration, which is no longer than a file may be; as JSON it is longer.
pub const UPGRADE_CHANGES_BYTES: usize = 64 << 20;
/// Descriptors in one of them; the kernel takes 253 (SCM_MAX_FD of <net/scm.h>).
pub const UPGRADE_DESCRIPTORS: usize = 128;
/// For so long after all connections were looked at, those that come to wait for a request go to the next process of an upgrade; then
/// they are told to close.
pub const UPGRADE_MOVES: Duration = Duration::from_secs(1);
/// In all, where there are so many connections that looking at them takes longer: what has not moved by then is finished.
pub const UPGRADE_MOVES_MAX: Duration = Duration::from_secs(60);
/// Slots of conns that one turn looks at for those that move: each of them is several operations, and copies what is queued.
pub const MOVE_SLOTS: u32 = 256;
/// Slots of conns that one turn looks at for those whose timeouts became shorter: of a tunnel three places in memory, and its
/// place in the wheel.
pub const FOLLOW_SLOTS: u32 = 256;
/// Connections that have begun to move and are not with the next process yet: nobody reads from them meanwhile. And how soon a shard
/// looks again whether there are fewer.
pub const MOVES_AT_ONCE: u64 = 256;
pub const MOVE_LOOK: Duration = Duration::from_millis(1);
/// Connections that the next process takes at once: until it has said so they are the former's.
pub const UPGRADE_BATCH: usize = 32;
/// Connections that came from the process before this one and wait for a shard.
pub const UPGRADE_ARRIVALS: usize = 256;
/// At the end of a process after an upgrade: for whoever still waits for an answer of its admin API.
pub const UPGRADE_REST: Duration = Duration::from_secs(1);
/// Listeners that an operator drains at once.
pub const DRAINS_MAX: usize = 100;
/// Between two looks which conns are next to leave, at least: what is closed in one turn is closed at one time.
pub const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// Slots of conns that one turn looks at for those that leave (invariant 8).
pub const DRAIN_SLOTS: u32 = 4096;
/// A conn that leaves is left alone for so long after its last byte: who asks again within a second is answered, and told then
/// that it was the last time.
pub const DRAIN_QUIET: Duration = Duration::from_secs(1);
