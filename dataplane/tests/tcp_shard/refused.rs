//! Who comes and gets no further: gone before it was looked at, or one too many for the process.

use crate::bed::{Bed, millis, say};
use dataplane::conn::room::Descriptors;
use dataplane::fault::CloseReason;
use dataplane::io::Io;
use dataplane::shard::dispatch;
use dataplane::sim::peers::Act;
use dataplane::spec::ListenerId;
use std::net::Ipv4Addr;

/// What the listener counted: connections, and those of them that ended for `reason`.
fn of_listener(bed: &Bed, reason: CloseReason) -> (u64, u64) {
    let counts = bed.shard.core.of_listener(ListenerId(0)).unwrap();
    (counts.connections.get(), counts.close(reason).get())
}

#[test]
fn who_is_gone_before_it_was_looked_at_has_reset() {
    let mut bed = Bed::new(|listener, _| listener.max_connections = 1);
    bed.client([say("hello"), Act::Reset]);
    // It was accepted, and has left when the shard comes to look.
    let (by, mut accepted) = (bed.now().after(millis(100)), Vec::new());
    bed.io.turn(&mut bed.shard.core.pool, by, &mut accepted).unwrap();
    let mut more = Vec::new();
    bed.io.turn(&mut bed.shard.core.pool, by, &mut more).unwrap();
    assert_eq!((accepted.len(), more.len()), (1, 0));
    for completion in accepted {
        dispatch::completion(&mut bed.shard.core, &mut bed.io, completion);
    }
    assert_eq!(bed.counted(), "client_reset");
    assert_eq!(of_listener(&bed, CloseReason::ClientReset), (1, 1));
    // Nobody knows its address any more.
    bed.client = Ipv4Addr::UNSPECIFIED.into();
    assert_eq!(bed.records(), ["endpoint - attempts 0 - up 0 down 0 ms 0 - client_reset"]);
    bed.check_empty();
}

#[test]
fn newcomers_without_a_descriptor_to_spare_are_counted() {
    let mut bed = Bed::new(|_, _| ());
    bed.shard.core.descriptors = Descriptors::of_limit(64);
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(bed.client([]));
        // Its link takes a descriptor too.
        bed.run_for(millis(2));
    }
    let evicted = bed.stats.close(CloseReason::Evicted).get();
    assert!((5..30).contains(&evicted), "{evicted} of 40 found no descriptor");
    assert_eq!(bed.counted(), format!("descriptors_exhausted*{evicted} evicted*{evicted}"));
    assert_eq!(of_listener(&bed, CloseReason::Evicted), (40, evicted));
    let records = bed.records();
    assert_eq!(records.len() as u64, evicted);
    assert!(
        records.iter().all(|r| r == "endpoint - attempts 0 - up 0 down 0 ms 0 descriptors_exhausted evicted")
    );
    clients.iter().for_each(|client| bed.tell(*client, [Act::Close]));
    bed.check_empty();
}
