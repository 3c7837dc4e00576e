//! A million idle connections in one shard: heap bytes of each, what a turn costs while they rest, and what it costs to
//! close them all when their time is up. `cargo bench -p dataplane --bench idle_million [-- COUNT]`
//!
//! The simulator stands for kernel and peers, and needs some 2 GB itself. Its own work is in the times: they are upper bounds.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "test equipment: it prints what it measured, by the clock, and a broken expectation must end the run"
)]

#[path = "../../tests/http1_shard/bed.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod bed;
#[path = "../../tests/no_alloc/counting.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod counting;
#[path = "../../tests/idle/crowd.rs"]
mod crowd;
#[path = "../../tests/http1_shard/message.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod message;

use bed::Bed;
use crowd::{IDLE, Kind, bytes_each, crowd};
use std::time::{Duration, Instant};

/// Virtual time for which the shard is watched at rest.
const REST: Duration = Duration::from_secs(600);

/// How long turns took.
#[derive(Debug, Default)]
struct Turns {
    nanos: Vec<u64>,
}

impl Turns {
    fn turn(&mut self, bed: &mut Bed) {
        let began = Instant::now();
        bed.turn();
        self.nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.iter().sum())
    }
    /// Of all turns, the one in the middle and the longest, microseconds.
    fn say(&self) -> String {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let at = |i: usize| sorted.get(i).map_or(0.0, |n| *n as f64 / 1e3);
        let (middle, longest) = (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)));
        format!("{} turns, median {middle:.1} us, longest {longest:.0} us", sorted.len())
    }
}

fn measure(kind: Kind, count: usize) {
    let began = Instant::now();
    let mut bed = crowd(kind, count, count);
    println!("{kind:?}: {count} opened, answered and at rest in {:.1} s", began.elapsed().as_secs_f64());
    let mut turns = Turns::default();
    let until = bed.now().after(REST);
    while bed.now() < until {
        turns.turn(&mut bed);
    }
    let share = turns.total().as_secs_f64() / REST.as_secs_f64() * 100.0;
    println!("  at rest, {} s: {}; {share:.4} % of a core", REST.as_secs(), turns.say());
    let (tables, leases) = bytes_each(kind, bed, count);
    println!("  {tables:.1} bytes of tables each, {leases:.1} of leases");
    let (mut bed, mut turns) = (crowd(kind, count, count), Turns::default());
    // Up to the first deadline nothing happens; then all of them pass within the time in which the clients came.
    bed.run_for(IDLE.saturating_sub(Duration::from_secs(60)));
    while !bed.shard.core.conns.is_empty() {
        turns.turn(&mut bed);
    }
    let each = turns.total().as_secs_f64() / count as f64 * 1e6;
    println!("  closed for idleness: {}; {each:.2} us each", turns.say());
}

fn main() {
    // `cargo bench` passes its own flags.
    let count = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let count = count.map_or(1_000_000, |n| n.parse().expect("a number of connections"));
    measure(Kind::KeepAlive, count);
    // Two connections each.
    measure(Kind::Tunnel, count / 2);
    measure(Kind::Upgraded, count / 2);
}
