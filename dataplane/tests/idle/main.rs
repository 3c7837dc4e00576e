//! What an idle connection costs a shard: bytes of its tables, held to a bound. `benches/idle_million` says what a million
//! of them cost, in memory and in time.
#![allow(clippy::print_stderr, reason = "the counter says who allocates, when asked")]

#[path = "../http1_shard/bed.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod bed;
#[path = "../no_alloc/counting.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod counting;
mod crowd;
#[path = "../http1_shard/message.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod message;

use crowd::{Kind, bytes_each, crowd};

const COUNT: usize = 10_000;

/// Bytes counted when this was written, and what they may grow by: a field more in a table is meant to be seen here.
fn hold(kind: Kind, counted: f64) {
    let (tables, leases) = bytes_each(kind, crowd(kind, COUNT, COUNT), COUNT);
    let each = tables + leases;
    assert!(each < counted + 16.0, "{kind:?}: {each:.0} bytes each, {counted} were counted before");
    assert!(
        each > counted - 32.0,
        "{kind:?}: {each:.0} bytes each, less than {counted}: write that down here"
    );
}

#[test]
fn bytes_of_an_idle_client() {
    hold(Kind::KeepAlive, 228.0);
}

#[test]
fn bytes_of_an_idle_tunnel() {
    hold(Kind::Tunnel, 465.0);
}

#[test]
fn bytes_of_an_idle_tunnel_behind_an_upgrade() {
    // As above, and 197 for the record that the access log will have.
    hold(Kind::Upgraded, 610.0);
}
