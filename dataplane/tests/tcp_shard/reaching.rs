//! From accept to a link: who speaks first, what is held meanwhile, endpoints that fail, and all of them failing.

use crate::bed::{Bed, listen_address, millis, origin_address, say, seconds, wait};
use dataplane::cluster::eligible::Health;
use dataplane::conn::Phase;
use dataplane::sim::peers::Act;
use dataplane::spec::{Available, BreakerOf, CircuitBreaker, ClusterId, EndpointId, Match, Statuses};

fn phase(bed: &Bed) -> Option<Phase> {
    bed.shard.core.conns.iter().map(|(_, conn)| conn.phase()).next()
}

#[test]
fn a_server_may_speak_first() {
    let mut bed = Bed::new(|_, _| ());
    bed.io.world.script = vec![say("220 ready\r\n")];
    let client = bed.client([]);
    bed.run_until("the greeting", |b| b.told(client) == "220 ready\r\n");
    assert_eq!(bed.counts(0), (1, 1), "a tunnel is a running request of its endpoint");
    bed.tell(client, [Act::Finish]);
    let link = bed.accepted(0)[0];
    bed.run_until("the end", |b| b.end(client).ended.is_some());
    assert_eq!((bed.told(client), bed.told(link)), ("220 ready\r\n(end)".into(), "(end)".into()));
    assert_eq!(bed.counted(), "tunnel_ended");
    bed.check_empty();
}

/// The kernel asks again after one second: until then the link is not there.
fn bed_with_a_late_link() -> Bed {
    let mut bed = Bed::new(|_, _| ());
    bed.io.net.set_silent(origin_address(0), true);
    bed
}
fn let_link_come(bed: &mut Bed) {
    assert_eq!(phase(bed), Some(Phase::Connecting));
    bed.io.net.set_silent(origin_address(0), false);
}

#[test]
fn what_a_client_sends_before_its_link_is_there_goes_first() {
    let mut bed = bed_with_a_late_link();
    let client = bed.client([say("early "), wait(millis(20)), say("bird")]);
    bed.run_for(millis(100));
    let held: Vec<_> = bed.shard.core.conns.iter().map(|(_, c)| c.rx.as_ref().map(|l| l.len())).collect();
    assert_eq!(held, [Some(6)], "one lease is held, and no more is read");
    let_link_come(&mut bed);
    bed.run_until("the link", |b| !b.accepted(0).is_empty());
    let link = bed.accepted(0)[0];
    bed.run_until("all of it", |b| b.told(link) == "early bird");
    bed.tell(link, [say("worm"), Act::Finish]);
    bed.tell(client, [Act::Finish]);
    bed.run_until("the end", |b| b.end(client).ended.is_some() && b.end(link).ended.is_some());
    assert_eq!((bed.told(client), bed.told(link)), ("worm(end)".into(), "early bird(end)".into()));
    assert_eq!(bed.counted(), "tunnel_ended");
    bed.check_empty();
    assert_eq!(bed.stats.tunnel_bytes_up.get(), 10);
}

#[test]
fn a_fin_while_connecting_is_a_half_close() {
    for bytes in ["", "all of it"] {
        let mut bed = bed_with_a_late_link();
        bed.io.world.script = vec![wait(millis(500)), say("answer"), Act::Finish];
        let client = bed.client([wait(millis(5)), say(bytes), Act::Finish]);
        bed.run_for(millis(100));
        let_link_come(&mut bed);
        bed.run_until("the answer", |b| b.end(client).ended.is_some());
        let link = bed.accepted(0)[0];
        assert_eq!((bed.told(client), bed.told(link)), ("answer(end)".into(), format!("{bytes}(end)")));
        assert_eq!(bed.counted(), "tunnel_ended");
        bed.check_empty();
    }
}

#[test]
fn a_client_that_resets_while_connecting_ends_the_attempt() {
    for bytes in ["", "early"] {
        let mut bed = bed_with_a_late_link();
        bed.client([say(bytes), wait(millis(50)), Act::Reset]);
        bed.run_until("the attempt", |b| b.counts(0) == (1, 1));
        if bytes.is_empty() {
            bed.run_until("the end", |b| b.counted() == "client_reset");
        } else {
            // Its bytes are held, so nothing reads: the reset shows once there is a link.
            bed.run_for(millis(100));
            let_link_come(&mut bed);
            bed.run_until("the end", |b| b.counted() == "tunnel_reset");
        }
        bed.check_empty();
    }
}

#[test]
fn a_refused_connect_moves_to_the_next_endpoint() {
    let mut bed = Bed::with_two(&[1], |_, _| ());
    for n in 0..4 {
        let client = bed.client([say("hello"), Act::Finish]);
        bed.run_until("the link", |b| b.accepted(1).len() == n + 1);
        let link = bed.accepted(1)[n];
        bed.run_until("the end", |b| b.end(client).ended.is_some());
        assert_eq!((bed.told(client), bed.told(link)), ("(end)".into(), "hello(end)".into()));
    }
    bed.check_empty();
    assert_eq!(
        (bed.stats.connect_failures.get(), bed.stats.retries.get()),
        (4, 4),
        "each first pick is of 0"
    );
    let records = bed.records();
    let expected = "endpoint 1 attempts 2 connected up 5 down 0 ms 0";
    assert!(records.len() == 4 && records.iter().all(|r| r.starts_with(expected)), "{records:?}");
}

#[test]
fn a_slow_connect_moves_to_the_next_endpoint() {
    let mut bed = Bed::with_two(&[0, 1], |_, c| {
        c.timeouts.connect = millis(300);
        c.endpoints[1].weight = 100;
    });
    bed.io.net.set_silent(origin_address(1), true);
    let begun = bed.now();
    let client = bed.client([say("hello")]);
    bed.run_until("the link", |b| !b.accepted(0).is_empty());
    assert!((300..320).contains(&(bed.now().since(begun) / 1_000_000)), "{:?}", bed.now());
    assert_eq!((bed.counts(0), bed.counts(1)), ((1, 1), (0, 0)));
    bed.tell(client, [Act::Close]);
    bed.run_until("the end", |b| b.counted() == "tunnel_ended");
    bed.check_empty();
}

#[test]
fn when_every_endpoint_fails_the_client_is_cut_off_with_a_reason() {
    let refused = (&[][..], 0, "connect_failed no_link", 2);
    let silent = (&[0, 1][..], 600, "connect_timeout no_link", 2);
    for (open, ms, counted, attempts) in [refused, silent] {
        let mut bed = Bed::with_two(open, |_, c| c.timeouts.connect = millis(300));
        for n in open {
            bed.io.net.set_silent(origin_address(*n), true);
        }
        let begun = bed.now();
        let client = bed.client([say("hello")]);
        bed.run_until("the end", |b| b.end(client).ended.is_some());
        let at = bed.end(client).ended_at.unwrap().since(begun) / 1_000_000;
        assert!((ms..ms + 40).contains(&at), "after {at} ms");
        assert_eq!((bed.told(client), bed.counted()), ("(cut)".into(), counted.into()));
        bed.check_empty();
        let records = bed.records();
        let expected = format!(" attempts {attempts} - up 0 down 0 ms {at} {counted}");
        assert!(records.len() == 1 && records[0].ends_with(&expected), "{records:?}, not {expected}");
        assert_eq!(bed.stats.tunnels_started.get(), 0);
    }
}

#[test]
fn attempts_are_bounded() {
    let mut bed = Bed::new(|_, c| {
        let first = c.endpoints[0].clone();
        for n in 1..20 {
            let id = EndpointId(n);
            c.endpoints.push(dataplane::spec::Endpoint {
                id,
                address: listen_address().with_port(n).into(),
                ..first.clone()
            });
        }
        c.endpoints[0].weight = 0;
    });
    let client = bed.client([]);
    bed.run_until("the end", |b| b.end(client).ended.is_some());
    assert_eq!(bed.counted(), "connect_failed no_link");
    assert_eq!(bed.stats.connects.get(), u64::from(dataplane::limits::CONNECT_ATTEMPTS));
    bed.check_empty();
}

#[test]
fn nothing_to_connect_to() {
    let mut bed = Bed::new(|_, c| c.endpoints[0].weight = 0);
    let client = bed.client([say("hello")]);
    bed.run_until("the end", |b| b.end(client).ended.is_some());
    assert_eq!((bed.told(client), bed.counted()), ("(cut)".into(), "no_endpoint no_link".into()));
    bed.check_empty();
    assert_eq!(bed.records(), ["endpoint - attempts 0 - up 0 down 0 ms 0 no_endpoint no_link"]);
}

/// Of connections and of requests alike: a tunnel is one of each for its whole life.
#[test]
fn an_endpoints_limits_hold_and_its_places_come_back() {
    let limits: [fn(&mut dataplane::spec::Endpoint); 2] = [|e| e.max_connections = 2, |e| e.max_requests = 2];
    for limit in limits {
        let mut bed = Bed::new(|_, c| limit(&mut c.endpoints[0]));
        let clients = [bed.client([]), bed.client([])];
        bed.run_for(millis(10));
        let third = bed.client([]);
        bed.run_until("the third's end", |b| b.end(third).ended.is_some());
        assert_eq!((bed.told(third), bed.counted()), ("(cut)".into(), "endpoints_full no_link".into()));
        assert_eq!(bed.counts(0), (2, 2));
        bed.tell(clients[0], [Act::Close]);
        bed.run_until("its place", |b| b.counts(0) == (1, 1));
        let fourth = bed.client([say("hello")]);
        bed.run_until("its link", |b| b.accepted(0).len() == 3);
        bed.tell(fourth, [Act::Close]);
        bed.tell(clients[1], [Act::Reset]);
        bed.run_for(millis(10));
        assert_eq!(bed.counted(), "endpoints_full tunnel_ended*2 tunnel_reset no_link");
        bed.check_empty();
    }
}

#[test]
fn a_full_listener_cuts_off() {
    let mut bed = Bed::new(|l, _| l.max_connections = 1);
    let first = bed.client([]);
    bed.run_for(millis(10));
    let second = bed.client([say("hello")]);
    bed.run_until("the second's end", |b| b.end(second).ended.is_some());
    assert_eq!((bed.told(second), bed.counted()), ("(cut)".into(), "listener_full listener_full".into()));
    assert_eq!(bed.records(), ["endpoint - attempts 0 - up 0 down 0 ms 0 listener_full listener_full"]);
    bed.tell(first, [Act::Close]);
    bed.run_for(seconds(1));
    bed.check_empty();
}

/// A route that stands in for a cluster takes connections while that has nothing usable, on a listener of tcp alone.
#[test]
fn a_route_stands_in_for_a_cluster_that_has_nothing_left() {
    let stand_in = Available { cluster: ClusterId(0), at_least: 0, below: 1 };
    let matcher = Match { available: Some(stand_in), ..Match::default() };
    let mut bed = Bed::with_routes([matcher], |_, _| ());
    bed.io.world.script = vec![say("here"), Act::Finish];
    for (health, accepted) in [(Health::Up, (1, 0)), (Health::Down, (1, 1)), (Health::Up, (2, 1))] {
        let now = bed.shard.core.now();
        let shared = bed.shared.clusters[0].as_ref().unwrap();
        shared.set_health(EndpointId(0), health, now);
        let client = bed.client([Act::Finish]);
        bed.run_until("the end", |b| b.end(client).ended.is_some());
        assert_eq!((bed.accepted(0).len(), bed.accepted(1).len()), accepted, "{health:?}");
    }
    bed.check_empty();
}

/// The connect that failed is what ended it, also where that opened the breaker; the next one is not tried at all.
#[test]
fn a_breaker_that_opened_is_the_word_of_the_next_alone() {
    let mut bed = Bed::with_two(&[], |_, c| {
        c.circuit_breaker = Some(CircuitBreaker {
            of: BreakerOf::Cluster,
            failure_threshold: 1,
            recovery_timeout: seconds(60),
            trial_timeout: seconds(10),
            failure_status: Statuses::SERVER_ERRORS,
        });
    });
    for word in ["connect_failed", "circuit_open"] {
        let client = bed.client([]);
        bed.run_until("the end", |b| b.end(client).ended.is_some());
        let records = bed.records();
        assert!(records.len() == 1 && records[0].ends_with(&format!("{word} no_link")), "{records:?}");
    }
    bed.check_empty();
}
