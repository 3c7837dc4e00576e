//! Tunnels of a tcp listener that go to another process: what goes along beside the bytes.

use crate::bed::{Bed, millis, say, seconds, wait};
use dataplane::conn::moving::{Moved, Moving, adopt};
use dataplane::sim::peers::{Act, Ended};
use dataplane::spec::{ClusterId, EndpointId};
use std::sync::mpsc::channel;

/// An open tunnel: the client's end and the origin's.
fn open(bed: &mut Bed) -> (usize, usize) {
    let client = bed.client([]);
    bed.run_until("the link", |b| !b.accepted(0).is_empty());
    bed.run_for(millis(5));
    (client, bed.accepted(0)[0])
}

/// All tunnels leave the shard.
fn leave(bed: &mut Bed) -> Vec<Moved> {
    let (to, moved) = channel();
    bed.shard.core.moving = Some(Moving::new(to, Default::default(), [true].into()));
    bed.run_for(millis(5));
    bed.shard.core.moving = None;
    assert_eq!((bed.shard.core.conns.len(), bed.shard.core.links.len()), (0, 0));
    assert_eq!(counted(bed), (0, 0, 0));
    moved.try_iter().collect()
}

/// The same shard takes the place of the next process.
fn come(bed: &mut Bed, moved: Vec<Moved>) {
    for one in moved {
        bed.shard.core.shared.loads.open(bed.shard.core.shard);
        adopt(&mut bed.shard.core, &mut bed.io, one);
    }
}

/// Open connections of the listener; open links and running requests of the endpoint.
fn counted(bed: &Bed) -> (u32, u32, u32) {
    let listener = bed.shared.listeners[0].as_ref().unwrap().open();
    let cluster = bed.shared.clusters[0].as_ref().unwrap();
    let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
    (listener, endpoint.open_links(), endpoint.running_requests())
}

#[test]
fn half_closes_counts_and_the_record_go_along() {
    for client_first in [true, false] {
        let mut bed = Bed::new(|_, _| ());
        let (client, link) = open(&mut bed);
        let (first, second) = if client_first { (client, link) } else { (link, client) };
        let moved = leave(&mut bed);
        assert!(bed.records().is_empty(), "it has not ended");
        come(&mut bed, moved);
        assert_eq!(counted(&bed), (1, 1, 1));
        bed.tell(second, [wait(seconds(3)), say("much later"), Act::Finish]);
        bed.tell(first, [say("question"), Act::Finish]);
        bed.run_until("the first FIN", |b| b.end(second).ended == Some(Ended::Eof));
        assert_eq!(bed.told(second), "question(end)");
        let moved = leave(&mut bed);
        let sides = &moved[0].tunnel.as_ref().unwrap().sides;
        let half = (sides[0].eof, sides[0].finished, sides[1].eof, sides[1].finished);
        assert_eq!(half, (client_first, !client_first, !client_first, client_first));
        come(&mut bed, moved);
        bed.run_until("the second FIN", |b| b.end(first).ended.is_some());
        assert_eq!(bed.told(first), "much later(end)");
        bed.check_empty();
        let (up, down) = if client_first { (8, 10) } else { (10, 8) };
        let records = bed.records();
        let expected = format!("endpoint 0 attempts 1 connected up {up} down {down} ms 3");
        assert!(records.len() == 1 && records[0].starts_with(&expected), "{records:?}");
        assert_eq!(counted(&bed), (0, 0, 0));
    }
}

#[test]
fn what_is_left_of_deadlines_goes_along() {
    let mut bed = Bed::new(|l, _| l.timeouts.tunnel_idle = seconds(10));
    let (client, _) = open(&mut bed);
    bed.run_for(seconds(6));
    let moved = leave(&mut bed);
    // Between two processes no time counts.
    bed.run_for(seconds(1));
    come(&mut bed, moved);
    bed.run_for(seconds(3));
    assert_eq!(bed.end(client).ended, None);
    bed.run_for(seconds(2));
    assert!(bed.end(client).ended.is_some() && bed.counted().contains("tunnel_idle"), "{}", bed.counted());
    // And the age, which a lifetime counts from.
    let mut bed = Bed::new(|l, _| l.timeouts.max_lifetime = seconds(10));
    let (client, _) = open(&mut bed);
    bed.run_for(seconds(6));
    let moved = leave(&mut bed);
    come(&mut bed, moved);
    bed.run_for(seconds(5));
    assert!(bed.end(client).ended.is_some() && bed.counted().contains("lifetime"), "{}", bed.counted());
}

/// The next process's file may know neither cluster nor endpoint any more: a reload would not end the tunnel either.
#[test]
fn without_its_cluster_it_goes_on_uncounted() {
    for cluster in [None, Some(ClusterId(0))] {
        let mut bed = Bed::new(|_, _| ());
        let (client, link) = open(&mut bed);
        let mut moved = leave(&mut bed);
        let tunnel = moved[0].tunnel.as_mut().unwrap();
        (tunnel.cluster, tunnel.endpoint, tunnel.route) = (cluster, None, None);
        come(&mut bed, moved);
        assert_eq!(counted(&bed), (1, 0, 0));
        bed.tell(link, [wait(seconds(1)), say("yes"), Act::Finish]);
        bed.tell(client, [say("still there?"), Act::Finish]);
        bed.run_until("the answer", |b| b.end(client).ended.is_some());
        assert_eq!((bed.told(link), bed.told(client)), ("still there?(end)".into(), "yes(end)".into()));
        assert_eq!(bed.records().len(), 1);
        assert_eq!(counted(&bed), (0, 0, 0));
    }
}

/// What is established is not closed for limits: who comes next is.
#[test]
fn limits_do_not_close_what_comes() {
    let mut bed = Bed::new(|l, c| {
        l.max_connections = 1;
        c.endpoints[0].max_connections = 1;
    });
    let (first, _) = open(&mut bed);
    let moved = leave(&mut bed);
    let (second, _) = open(&mut bed);
    come(&mut bed, moved);
    assert_eq!(counted(&bed), (2, 2, 2));
    bed.run_for(seconds(1));
    assert_eq!((bed.end(first).ended, bed.end(second).ended), (None, None));
    let third = bed.client([]);
    bed.run_until("a refusal", |b| b.end(third).ended.is_some());
    bed.tell(first, [Act::Close]);
    bed.tell(second, [Act::Close]);
    bed.run_for(seconds(1));
    assert_eq!(counted(&bed), (0, 0, 0));
}
