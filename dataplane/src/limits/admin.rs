//! Bounds of the admin API (control's admin).

use super::{Bound, bound, secs};
use std::time::Duration;

/// Connections to it. One more takes the place of who has waited longest for its next request to come whole.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Bytes of a request's head, and of its body.
pub const ADMIN_HEAD_BYTES: usize = 16 * 1024;
pub const ADMIN_BODY_BYTES: usize = 64 * 1024;
/// Permissions of the file of its socket, and bytes of its token: what is shorter can be guessed.
pub const ADMIN_SOCKET_MODE: u32 = 0o600;
pub const ADMIN_TOKEN_BYTES: Bound<usize> = bound(16, 43, 1024);
/// To send a request's head, or its body; also the longest that a connection waits for its next request.
pub const ADMIN_REQUEST_TIMEOUT: Duration = secs(10);
/// To take an answer, before a client that does not loses its place to another.
pub const ADMIN_TAKES: Duration = secs(1);
/// A connection's life: a peer that reads slowly holds one no longer.
pub const ADMIN_LIFETIME: Duration = secs(300);
/// Plans that are made at once.
pub const PLANS_AT_ONCE: usize = 4;
/// Questions of the API that wait for control's turn.
pub const ADMIN_QUESTIONS: usize = 64;
/// Bytes of an answer that a command of ours reads, and how long it waits for one.
pub const ADMIN_ANSWER_BYTES: usize = 64 << 20;
pub const ADMIN_ANSWER_TIMEOUT: Duration = secs(310);
/// Statuses of a route in maintenance.
pub const MAINTENANCE_STATUS: Bound<u64> = bound(200, 503, 599);
/// Files whose presence says so, all of which are looked for every 500 ms.
pub const MAINTENANCE_FILES: usize = 1024;
/// The last events, kept for those who ask.
pub const EVENTS_KEPT: usize = 256;
/// What the dashboard shows of objects at once, those that something stands against first; it finds the others by name. Half a
/// megabyte of JSON a second, with all of them.
pub const DASHBOARD_LISTENERS: usize = 32;
pub const DASHBOARD_CLUSTERS: usize = 40;
/// Of one cluster.
pub const DASHBOARD_ENDPOINTS: usize = 24;
/// The nearest to their bounds.
pub const DASHBOARD_LIMITS: usize = 20;
/// One of each of the last seconds.
pub const DASHBOARD_POINTS: usize = 300;
