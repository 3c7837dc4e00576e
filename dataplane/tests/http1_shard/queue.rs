//! The queue in front of full endpoints: who waits, for how long, in which order, and how each way out of it ends.

use crate::bed::{Answer, Bed, OK, millis, origin_address, say, seconds, wait};
use dataplane::fault::Refusal;
use dataplane::shard::drain;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Listener};

/// One endpoint that takes `places` requests at a time and needs a second for each.
fn bed(places: u32, change: impl FnOnce(&mut Cluster)) -> Bed {
    let mut bed = Bed::new(|_: &mut Listener, c: &mut Cluster| {
        c.endpoints[0].max_requests = places;
        c.timeouts.queue = seconds(5);
        change(c);
    });
    bed.io.world.answer = Answer::Script(vec![wait(seconds(1)), say(OK)]);
    bed
}

/// Clients that come one after the other.
fn line_up(bed: &mut Bed, count: usize) -> Vec<usize> {
    (0..count)
        .map(|n| {
            let client = bed.client([say(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))]);
            let requests = bed.stats.requests.get();
            bed.run_until("the request is read", |bed| bed.stats.requests.get() > requests);
            client
        })
        .collect()
}

fn waiting(bed: &Bed) -> u32 {
    bed.shard.core.waiters.len()
}

#[test]
fn the_oldest_is_served_first() {
    for limit_links in [false, true] {
        let mut bed = bed(if limit_links { u32::MAX } else { 1 }, |c| {
            if limit_links {
                c.endpoints[0].max_connections = 1;
            }
        });
        let clients = line_up(&mut bed, 4);
        assert_eq!(waiting(&bed), 3);
        assert_eq!(bed.stats.queued.get(), 3);
        bed.run_until("all are served", |bed| bed.stats.responses.get() == 4);
        bed.run_for(millis(10));
        let order: Vec<_> = bed.io.world.requests.iter().map(|(_, m)| m.start.clone()).collect();
        let expected: Vec<_> = (0..4).map(|n| format!("GET /{n} HTTP/1.1")).collect();
        assert_eq!(order, expected);
        assert_eq!(bed.stats.connects.get(), 1, "the link is kept for the next");
        assert_eq!((bed.stats.queue_waits.get(), bed.stats.queued.get()), (3, 0));
        // One, two and three seconds.
        assert!((5_990_000..6_100_000).contains(&bed.stats.queue_us.get()), "{}", bed.stats.queue_us.get());
        clients.into_iter().for_each(|client| bed.leave(client));
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), "client_closed*4");
    }
}

#[test]
fn who_waits_too_long_is_refused() {
    let mut bed = bed(1, |c| c.timeouts.queue = millis(2_500));
    let clients = line_up(&mut bed, 4);
    let began = bed.now();
    let refused = |bed: &Bed| bed.stats.refusal(Refusal::QueueTimeout).get() == 1;
    let at = bed.run_until("one is refused", refused);
    assert!((2_490_000_000..2_510_000_000).contains(&at.since(began)), "{}", at.since(began));
    bed.run_for(seconds(2));
    let told: Vec<_> = clients.iter().map(|client| bed.told(*client)).collect();
    assert_eq!(told, ["200", "200", "200", "503"]);
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
    assert_eq!(bed.counted(), "queue_timeout client_closed*4");
}

#[test]
fn the_queue_is_bounded() {
    for (most, told, counted) in [
        (0, ["200", "503", "503", "503"], "endpoints_full*3 client_closed*4"),
        (1, ["200", "200", "503", "503"], "queue_full*2 client_closed*4"),
        (3, ["200", "200", "200", "200"], "client_closed*4"),
    ] {
        let mut bed = bed(1, |c| c.max_queued = most);
        let clients = line_up(&mut bed, 4);
        bed.run_for(seconds(5));
        assert_eq!(clients.iter().map(|client| bed.told(*client)).collect::<Vec<_>>(), told, "{most}");
        clients.into_iter().for_each(|client| bed.leave(client));
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), counted);
    }
}

/// A client that leaves makes room in the queue, and the one behind it moves up.
#[test]
fn a_client_that_leaves_is_taken_out() {
    for reset in [true, false] {
        let mut bed = bed(1, |c| c.max_queued = 2);
        // Longer than a client that finished sending is given to take its answer.
        bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
        let clients = line_up(&mut bed, 3);
        bed.tell(clients[1], [if reset { Act::Reset } else { Act::Close }]);
        bed.run_until("it is gone", |bed| waiting(bed) == 1);
        let late = line_up(&mut bed, 1)[0];
        assert_eq!(waiting(&bed), 2);
        bed.run_until("the others are served", |bed| bed.stats.responses.get() == 3);
        bed.run_for(millis(10));
        assert_eq!(bed.io.world.requests.len(), 3, "nothing was asked for the one that left");
        [clients[0], clients[2], late].into_iter().for_each(|client| {
            assert_eq!(bed.told(client), "200");
            bed.leave(client);
        });
        bed.check_empty().unwrap();
    }
}

/// With its body still to come a request waits as well; what is sent meanwhile is held.
#[test]
fn a_request_with_a_body_waits() {
    let mut bed = bed(1, |_| {});
    let first = line_up(&mut bed, 1)[0];
    let post = bed.client([
        say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"),
        wait(millis(100)),
        say("abc"),
        wait(seconds(2)),
        say("def"),
    ]);
    bed.run_until("both are served", |bed| bed.stats.responses.get() == 2);
    bed.run_for(millis(10));
    assert_eq!(
        (bed.told(post).as_str(), bed.io.world.requests[1].1.body.as_slice()),
        ("200", &b"abcdef"[..])
    );
    [first, post].into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Nobody overtakes those who wait, and a place that frees by a failure is given on too.
#[test]
fn a_dying_origin_frees_its_places() {
    let mut bed = bed(1, |_| {});
    bed.io.world.answer = Answer::Script(vec![wait(seconds(1)), Act::Reset]);
    let post = |n: usize| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let clients: Vec<usize> = (0..3).map(|n| bed.client([say(post(n))])).collect();
    bed.run_until("each was told", |bed| clients.iter().all(|client| bed.told(*client) == "502"));
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
    assert_eq!(bed.counted(), "origin_reset*3 client_closed*3");
}

/// A drain serves those who wait for as long as it may, and cuts the rest.
#[test]
fn a_drain_empties_the_queue() {
    for (within, served) in [(seconds(10), 4), (millis(2_500), 2)] {
        let mut bed = bed(1, |_| {});
        let clients = line_up(&mut bed, 4);
        let by = bed.now().after(within);
        drain::begin(&mut bed.shard, &mut bed.io, by);
        bed.run_until("nobody is left", |bed| bed.shard.core.conns.is_empty());
        let told = clients.iter().filter(|client| bed.told(**client).starts_with("200")).count();
        assert_eq!((told, waiting(&bed)), (served, 0));
        clients.into_iter().for_each(|client| bed.leave(client));
        bed.run_for(seconds(1));
        assert!(bed.shard.core.exchanges.is_empty() && bed.shard.core.links.is_empty());
    }
}

/// Whoever finds one endpoint dead and the other full waits for that one.
#[test]
fn a_second_attempt_waits_too() {
    let mut bed = bed(1, |c| {
        let mut dead = c.endpoints[0].clone();
        dead.id = dataplane::spec::EndpointId(1);
        dead.name = "dead".into();
        dead.address = origin_address().with_port(9).into();
        dead.max_requests = u32::MAX;
        c.endpoints.push(dead);
    });
    let clients = line_up(&mut bed, 4);
    bed.run_until("all are served", |bed| bed.stats.responses.get() == 4);
    bed.run_for(millis(10));
    clients.into_iter().for_each(|client| {
        assert_eq!(bed.told(client), "200");
        bed.leave(client);
    });
    assert!(bed.stats.queue_waits.get() >= 3);
    bed.check_empty().unwrap();
}
