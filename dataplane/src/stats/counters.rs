//! The counters of one shard: written by its thread alone, read by control at any time (invariant 13).

use super::retries::Retried;
use crate::fault::{CloseReason, Refusal};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer: a relaxed load and a relaxed store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything one shard counts. Aligned so that two shards never write one cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Stats {
    /// Turns of the loop; the watchdog wants it to move.
    pub turns: Counter,
    pub accepted: Counter,
    /// Conns that came from the process before this one.
    pub adopted: Counter,
    pub accept_errors: Counter,
    /// Accepted here and handed to a less loaded shard; those that did not get there are served here.
    pub handed: Counter,
    pub hand_failures: Counter,
    pub requests: Counter,
    pub responses: Counter,
    pub connects: Counter,
    pub connect_failures: Counter,
    /// Connects that found no free local port (EADDRNOTAVAIL), each a walk through the range in the kernel.
    pub port_searches_failed: Counter,
    /// Windows of ports searched, where many are in use.
    pub port_windows: Counter,
    pub links_reused: Counter,
    pub links_discarded_idle: Counter,
    pub link_idle_timeouts: Counter,
    /// Attempts after a first one, those of tcp conns included; hedges are not among them.
    pub retries: Counter,
    /// Hedges whose answer came first.
    pub hedges_won: Counter,
    /// Waits for a place at a full cluster that ended, well or not, and how long they took together, microseconds.
    pub queue_waits: Counter,
    pub queue_us: Counter,
    /// Waiting now.
    pub queued: Counter,
    pub evictions: Counter,
    /// Conns closed because descriptors were short.
    pub made_room: Counter,
    pub tunnels_started: Counter,
    pub tunnels_ended: Counter,
    pub tunnel_bytes_up: Counter,
    pub tunnel_bytes_down: Counter,
    /// Bytes that went by splice(2): of bodies and tunnels, both ways.
    pub spliced_bytes: Counter,
    /// Completions for an earlier life of a slot.
    pub stale_completions: Counter,
    /// Receives that had to wait for a buffer, at the last turn.
    pub starved: Counter,
    /// Buffers that nobody has, by class from the smallest, at the last turn; and all there are.
    pub buffers_free: [Counter; 3],
    pub buffers: [Counter; 3],
    /// Pipes that are lent, at the last turn.
    pub pipes_lent: Counter,
    /// Links, idle ones included, at the last turn; and exchanges and tunnels.
    pub links_open: Counter,
    pub exchanges_open: Counter,
    pub tunnels_open: Counter,
    pub conns_open: Counter,
    /// Conns whose recv was replaced by a poll because nothing came for long.
    pub parks: Counter,
    /// Parked conns to which something came.
    pub unparks: Counter,
    retried: [Counter; Retried::ALL.len()],
    refusals: [Counter; Refusal::COUNT],
    closes: [Counter; CloseReason::COUNT],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            turns: Counter::default(),
            accepted: Counter::default(),
            adopted: Counter::default(),
            accept_errors: Counter::default(),
            handed: Counter::default(),
            hand_failures: Counter::default(),
            requests: Counter::default(),
            responses: Counter::default(),
            connects: Counter::default(),
            connect_failures: Counter::default(),
            port_searches_failed: Counter::default(),
            port_windows: Counter::default(),
            links_reused: Counter::default(),
            links_discarded_idle: Counter::default(),
            link_idle_timeouts: Counter::default(),
            retries: Counter::default(),
            hedges_won: Counter::default(),
            queue_waits: Counter::default(),
            queue_us: Counter::default(),
            queued: Counter::default(),
            evictions: Counter::default(),
            made_room: Counter::default(),
            tunnels_started: Counter::default(),
            tunnels_ended: Counter::default(),
            tunnel_bytes_up: Counter::default(),
            tunnel_bytes_down: Counter::default(),
            spliced_bytes: Counter::default(),
            stale_completions: Counter::default(),
            starved: Counter::default(),
            buffers_free: Default::default(),
            buffers: Default::default(),
            pipes_lent: Counter::default(),
            links_open: Counter::default(),
            exchanges_open: Counter::default(),
            tunnels_open: Counter::default(),
            conns_open: Counter::default(),
            parks: Counter::default(),
            unparks: Counter::default(),
            retried: std::array::from_fn(|_| Counter::default()),
            refusals: std::array::from_fn(|_| Counter::default()),
            closes: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Stats {
    pub fn refusal(&self, refusal: Refusal) -> &Counter {
        &self.refusals[refusal as usize]
    }
    /// Requests that were sent again for a reason, or were not.
    pub fn retried(&self, why: Retried) -> &Counter {
        &self.retried[why as usize]
    }
    pub fn close(&self, reason: CloseReason) -> &Counter {
        &self.closes[reason as usize]
    }
}
