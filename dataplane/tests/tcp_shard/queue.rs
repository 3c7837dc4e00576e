//! Connections of a tcp listener wait in the same queue as requests do.

use crate::bed::{Bed, millis, say, seconds};
use dataplane::sim::peers::Act;

fn bed(max_queued: u32) -> Bed {
    Bed::new(|_, c| {
        c.endpoints[0].max_connections = 1;
        c.timeouts.queue = seconds(5);
        c.max_queued = max_queued;
    })
}

fn waiting(bed: &Bed) -> u32 {
    bed.shard.core.waiters.len()
}

/// The next has its link when the one before it ends; what it said meanwhile goes first.
#[test]
fn connections_wait_for_one_another() {
    let mut bed = bed(8);
    let clients: Vec<usize> = (0..4)
        .map(|n| {
            let client = bed.client([say(format!("hello {n}"))]);
            bed.run_for(millis(10));
            client
        })
        .collect();
    for ((n, client), behind) in clients.into_iter().enumerate().zip([3, 2, 1, 0]) {
        bed.run_until("its link", |b| b.accepted(0).len() == n + 1);
        bed.run_for(millis(10));
        let link = bed.accepted(0)[n];
        assert_eq!((bed.told(link), waiting(&bed)), (format!("hello {n}"), behind));
        assert_eq!(bed.counts(0), (1, 1));
        bed.tell(client, [Act::Close]);
    }
    bed.run_for(seconds(1));
    assert_eq!((bed.counted().as_str(), bed.stats.queue_waits.get()), ("tunnel_ended*4", 3));
    bed.check_empty();
}

#[test]
fn a_wait_ends_with_its_time_or_its_client() {
    let mut bed = bed(2);
    let first = bed.client([]);
    bed.run_for(millis(10));
    let (leaves, waits) = (bed.client([]), bed.client([say("hello")]));
    bed.run_until("both wait", |b| waiting(b) == 2);
    let began = bed.now();
    let beyond = bed.client([]);
    bed.run_until("the queue is full", |b| b.end(beyond).ended.is_some());
    bed.run_until("a second later", |b| b.now().since(began) > 1_000_000_000);
    bed.tell(leaves, [Act::Reset]);
    bed.run_until("one left", |b| waiting(b) == 1);
    let at = bed.run_until("the other's time is over", |b| waiting(b) == 0);
    assert!(at.since(began) < 5_100_000_000);
    bed.run_for(seconds(1));
    assert_eq!((bed.told(beyond), bed.told(waits)), ("(cut)".into(), "(cut)".into()));
    bed.tell(first, [Act::Close]);
    bed.run_for(seconds(1));
    assert_eq!(bed.counted(), "queue_full queue_timeout client_reset tunnel_ended no_link*2");
    // Each that waited says how long, however that ended.
    let waits = bed.waits();
    assert_eq!(waits.iter().map(|wait| wait.0.as_str()).collect::<Vec<_>>(), ["RQ", "CQ", "sQ", "--"]);
    let waited = waits.iter().map(|wait| wait.1.map(|ms| ms / 1000)).collect::<Vec<_>>();
    assert_eq!(waited, [None, Some(1), Some(5), None]);
    bed.check_empty();
}
