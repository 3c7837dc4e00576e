//! Endpoints that fail under a whole shard: ejected, kept from requests by a breaker, and taken back.

use crate::bed::{Answer, Bed, OK, millis, origin_address, say, seconds, wait};
use dataplane::cluster::events::What;
use dataplane::sim::peers::Act;
use dataplane::spec::{BreakerOf, CircuitBreaker, Cluster, EndpointId, Outlier, Statuses};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

fn outlier() -> Outlier {
    Outlier {
        consecutive_failures: 5,
        failure_rate: None,
        minimum_volume: 1,
        window: seconds(10),
        ejection_time: seconds(30),
        max_ejection_time: seconds(300),
        max_ejected_percent: 50,
        failure_status: Statuses::SERVER_ERRORS,
    }
}

fn breaker(of: BreakerOf) -> CircuitBreaker {
    CircuitBreaker {
        of,
        failure_threshold: 5,
        recovery_timeout: seconds(30),
        trial_timeout: seconds(10),
        failure_status: Statuses::SERVER_ERRORS,
    }
}

/// A bed whose first endpoint is dead.
fn with_dead(change: impl FnOnce(&mut Cluster)) -> Bed {
    Bed::new(|_, c| {
        let mut live = c.endpoints[0].clone();
        (live.id, live.name) = (EndpointId(1), "live".into());
        c.endpoints[0].address = origin_address().with_port(9).into();
        c.endpoints.push(live);
        change(c);
    })
}

/// One client after the other, each with one request: what they were told.
fn ask(bed: &mut Bed, count: usize) -> Vec<String> {
    let one = |_| {
        let client = bed.client([say(GET)]);
        bed.run_script(client);
        let told = bed.told(client);
        bed.leave(client);
        told
    };
    (0..count).map(one).collect()
}

fn events(bed: &Bed) -> Vec<What> {
    std::iter::from_fn(|| bed.shared.events.pop()).map(|event| event.what).collect()
}

#[test]
fn a_dead_endpoint_is_ejected_and_tried_again_in_time() {
    let mut bed = with_dead(|c| c.outlier = Some(outlier()));
    assert_eq!(ask(&mut bed, 20), ["200"; 20], "no client notices");
    assert_eq!(bed.stats.connect_failures.get(), 5);
    assert!(matches!(events(&bed)[..], [What::Ejected { time, times: 1, .. }] if time == seconds(30)));
    bed.run_for(seconds(30));
    assert_eq!(ask(&mut bed, 20), ["200"; 20]);
    assert_eq!(bed.stats.connect_failures.get(), 10);
    // It fails before control looks, which would have written down that it is back.
    let happened = events(&bed);
    assert!(
        matches!(happened[..], [What::Readmitted, What::Ejected { time, times: 2, .. }] if time == seconds(60)),
        "{happened:?}"
    );
    bed.check_empty().unwrap();
}

/// Everything that an origin can do to a request on a connection of its own.
#[test]
fn each_way_to_fail_counts() {
    let ways: [(&str, Vec<Act>, &str); 5] = [
        ("an error", vec![say(BROKEN)], "500"),
        ("a reset", vec![Act::Reset], "502"),
        ("a close", vec![Act::Close], "502"),
        ("nonsense", vec![say("HTP/1.1 200 OK\r\n\r\n")], "502"),
        ("silence", vec![wait(seconds(50)), say(OK)], "504"),
    ];
    for (what, acts, told) in ways {
        let mut bed = Bed::new(|_, c| {
            c.pool.idle = 0;
            c.timeouts.response_header = seconds(1);
            c.outlier = Some(Outlier { max_ejected_percent: 100, ..outlier() });
        });
        bed.io.world.answer = Answer::Script(acts);
        let clients: Vec<usize> = (0..6)
            .map(|_| {
                let client = bed.client([say(GET)]);
                bed.run_until("it was told", |bed| bed.told(client).len() >= 3);
                client
            })
            .collect();
        let all: Vec<_> = clients.iter().map(|client| bed.told(*client)[..3].to_owned()).collect();
        assert_eq!(all, [told, told, told, told, told, "503"], "{what}");
        assert!(bed.counted().contains("no_endpoint"), "{what}: {}", bed.counted());
        clients.into_iter().for_each(|client| bed.leave(client));
        bed.run_for(seconds(60));
        bed.check_empty().unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    }
}

/// What is no fault of the endpoint's does not count: clients that leave, and pooled links that the origin closed meanwhile.
#[test]
fn what_clients_do_does_not_count() {
    let mut bed = Bed::new(|_, c| c.outlier = Some(Outlier { max_ejected_percent: 100, ..outlier() }));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
    for _ in 0..20 {
        let client = bed.client([say(GET)]);
        bed.run_for(millis(10));
        bed.leave(client);
        bed.run_for(millis(10));
    }
    bed.run_for(seconds(10));
    bed.io.world.answer = Answer::Ok;
    assert_eq!(ask(&mut bed, 1), ["200"]);
    assert_eq!(events(&bed), []);
    bed.check_empty().unwrap();
}

/// The test of the card: five failures open it; while it is open nothing reaches the origin and the answer comes at once,
/// with the time after which asking again may help; then exactly one request tries.
#[test]
fn a_breaker_opens_and_closes() {
    for of in [BreakerOf::Endpoint, BreakerOf::Cluster, BreakerOf::Both] {
        let mut bed = Bed::new(|_, c| c.circuit_breaker = Some(breaker(of)));
        bed.io.world.answer = Answer::Script(vec![say(BROKEN)]);
        assert_eq!(ask(&mut bed, 5), ["500"; 5]);
        let (asked, opened) = (bed.io.world.requests.len(), bed.now());
        let client = bed.client([say(GET)]);
        let began = bed.now();
        bed.run_until("it is refused", |bed| bed.told(client) == "503");
        let took = bed.end(client).heard_at.since(began);
        assert!(took < 5_000_000, "it took {took} ns");
        let answer = String::from_utf8_lossy(&bed.end(client).received).to_lowercase();
        assert!(answer.contains("ringway-reason: circuit_open\r\n"), "{answer}");
        assert!(answer.contains("retry-after: 30\r\n"), "{answer}");
        bed.leave(client);
        assert_eq!(ask(&mut bed, 10), ["503"; 10]);
        assert_eq!((bed.io.world.requests.len(), bed.shard.core.links.len()), (asked, 1), "nothing goes up");
        // Half-open: of many that come at once one tries, and the rest are refused until its answer is there.
        bed.run_for(seconds(31).saturating_sub(std::time::Duration::from_nanos(bed.now().since(opened))));
        bed.io.world.answer = Answer::Script(vec![wait(seconds(1)), say(OK)]);
        let crowd: Vec<usize> = (0..20).map(|_| bed.client([say(GET)])).collect();
        bed.run_for(seconds(2));
        assert_eq!(bed.io.world.requests.len(), asked + 1, "exactly one");
        let served = crowd.iter().filter(|client| bed.told(**client) == "200").count();
        assert_eq!(served, 1);
        bed.io.world.answer = Answer::Ok;
        assert_eq!(ask(&mut bed, 5), ["200"; 5]);
        let each = if of == BreakerOf::Both { 2 } else { 1 };
        let happened = events(&bed);
        for what in [What::Opened { failures: 5 }, What::HalfOpened, What::Closed] {
            assert_eq!(happened.iter().filter(|happened| **happened == what).count(), each, "{happened:?}");
        }
        crowd.into_iter().for_each(|client| bed.leave(client));
        bed.check_empty().unwrap();
    }
}

/// The trial is given up by its client, not answered in time, answered with an error, or its answer is long.
#[test]
fn each_end_of_a_trial() {
    let half_open = |change: fn(&mut Cluster)| {
        let mut bed = Bed::new(|_, c| {
            c.circuit_breaker = Some(breaker(BreakerOf::Endpoint));
            change(c);
        });
        bed.io.world.answer = Answer::Script(vec![say(BROKEN)]);
        assert_eq!(ask(&mut bed, 5), ["500"; 5]);
        bed.run_for(seconds(31));
        assert_eq!(events(&bed).len(), 1);
        bed
    };
    // Its client leaves: the next request tries.
    let mut bed = half_open(|_| {});
    bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
    let client = bed.client([say(GET)]);
    bed.run_for(millis(10));
    bed.leave(client);
    bed.run_for(seconds(2));
    bed.io.world.answer = Answer::Ok;
    assert_eq!(ask(&mut bed, 3), ["200"; 3]);
    assert_eq!(events(&bed), [What::HalfOpened, What::Closed]);
    bed.check_empty().unwrap();
    // It is answered with an error.
    let mut bed = half_open(|_| {});
    assert_eq!(ask(&mut bed, 2), ["500", "503"]);
    assert_eq!(events(&bed), [What::HalfOpened, What::OpenedByTrial]);
    bed.check_empty().unwrap();
    // Nothing is heard of it in time; what comes later changes nothing.
    let mut bed = half_open(|_| {});
    bed.io.world.answer = Answer::Script(vec![wait(seconds(20)), say(OK)]);
    let client = bed.client([say(GET)]);
    bed.run_for(seconds(15));
    assert_eq!(ask(&mut bed, 1), ["503"]);
    bed.run_until("the trial is answered", |bed| bed.told(client) == "200");
    assert_eq!(ask(&mut bed, 1), ["503"]);
    bed.run_for(seconds(25));
    bed.io.world.answer = Answer::Ok;
    assert_eq!(ask(&mut bed, 1), ["200"]);
    bed.leave(client);
    bed.check_empty().unwrap();
    // The same twice, and control looks only then: each is told.
    let mut bed = half_open(|_| {});
    bed.io.world.answer = Answer::Script(vec![wait(seconds(100)), say(OK)]);
    let clients = [0, 1].map(|_| {
        let client = bed.client([say(GET)]);
        bed.run_for(seconds(45));
        client
    });
    assert_eq!(events(&bed), [What::HalfOpened, What::OpenedBySilence, What::HalfOpened]);
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.run_for(seconds(2));
    bed.check_empty().unwrap();
    // Its answer goes on for long: the head decides.
    let mut bed = half_open(|_| {});
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
    bed.io.world.answer = Answer::Script(vec![say(long), wait(seconds(60)), say("cd")]);
    let client = bed.client([say(GET)]);
    bed.run_for(millis(10));
    assert_eq!(events(&bed), [What::HalfOpened, What::Closed]);
    bed.io.world.answer = Answer::Ok;
    assert_eq!(ask(&mut bed, 2), ["200"; 2]);
    bed.run_for(seconds(61));
    assert!(bed.end(client).received.ends_with(b"abcd"));
    bed.leave(client);
    bed.check_empty().unwrap();
}

/// The client of a trial finishes sending, and with that it may be gone: the next request tries at once, however short
/// `trial_timeout` is. An answer that comes all the same decides, unless another tries by then.
#[test]
fn a_trial_makes_way_when_its_client_finishes_sending() {
    for of in [BreakerOf::Endpoint, BreakerOf::Cluster, BreakerOf::Both] {
        let each = if of == BreakerOf::Both { 2 } else { 1 };
        let (half, closed, failed) = (What::HalfOpened, What::Closed, What::OpenedByTrial);
        let short = CircuitBreaker { trial_timeout: millis(500), ..breaker(of) };
        // How long the trial takes, and the next request, which fails or not; what the client of the trial is told; and what
        // happened then.
        for (first, second, answer, told, happened) in [
            (5000, 0, OK, " (end)", [half, closed]),
            (5000, 0, BROKEN.as_bytes(), " (end)", [half, failed]),
            (200, 100_000, OK, "200 (end)", [half, closed]),
            (200, 100, BROKEN.as_bytes(), "200 (end)", [half, failed]),
        ] {
            let mut bed = Bed::new(|_, c| c.circuit_breaker = Some(short));
            bed.io.world.answer = Answer::Script(vec![say(BROKEN)]);
            assert_eq!(ask(&mut bed, 5), ["500"; 5]);
            bed.run_for(seconds(31));
            events(&bed);
            bed.io.world.answer = Answer::Script(vec![wait(millis(first)), say(OK)]);
            let asked = bed.io.world.requests.len();
            let trial = bed.client([say(GET), Act::Finish]);
            let next = (second < 1000).then(|| bed.client([wait(millis(50)), say(GET)]));
            bed.run_until("the trial is asked", |bed| bed.io.world.requests.len() > asked);
            bed.io.world.answer = Answer::Script(vec![wait(millis(second)), say(answer)]);
            bed.run_for(millis(1500));
            assert_eq!(bed.told(trial), told);
            let expected: Vec<_> = happened.into_iter().flat_map(|what| vec![what; each]).collect();
            assert_eq!(events(&bed), expected, "{of:?}: {first} ms, {second} ms");
            [Some(trial), next].into_iter().flatten().for_each(|client| bed.leave(client));
            bed.run_for(seconds(2));
            bed.check_empty().unwrap();
        }
    }
}

/// One endpoint of two is shut off by its breaker: nobody is refused.
#[test]
fn a_breaker_of_one_endpoint_spares_the_others() {
    let mut bed = with_dead(|c| c.circuit_breaker = Some(breaker(BreakerOf::Endpoint)));
    assert_eq!(ask(&mut bed, 30), ["200"; 30]);
    assert_eq!(bed.stats.connect_failures.get(), 5);
    bed.run_for(seconds(31));
    assert_eq!(ask(&mut bed, 10), ["200"; 10]);
    assert_eq!(bed.stats.connect_failures.get(), 6, "one trial, and its request went elsewhere");
    let happened = events(&bed);
    assert_eq!(happened, [What::Opened { failures: 5 }, What::HalfOpened, What::OpenedByTrial]);
    bed.check_empty().unwrap();
}

/// Requests that wait for a place are refused when the breaker opens: the place that they wait for will not be theirs.
#[test]
fn who_waits_is_refused_when_the_breaker_opens() {
    let mut bed = Bed::new(|_, c| {
        c.circuit_breaker = Some(CircuitBreaker { failure_threshold: 1, ..breaker(BreakerOf::Cluster) });
        c.endpoints[0].max_requests = 1;
        c.timeouts.queue = seconds(50);
    });
    bed.io.world.answer = Answer::Script(vec![wait(seconds(1)), say(BROKEN)]);
    let clients: Vec<usize> = (0..4).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(seconds(2));
    let told: Vec<_> = clients.iter().map(|client| bed.told(*client)).collect();
    assert_eq!(told.iter().filter(|told| *told == "500").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|told| *told == "503").count(), 3, "{told:?}");
    assert_eq!(bed.counted(), "circuit_open*3");
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Whose own failure opens the breaker is told of that; who comes then, that it is open.
#[test]
fn who_opens_a_breaker_is_told_what_failed() {
    let mut bed = Bed::new(|_, c| {
        c.endpoints[0].address = origin_address().with_port(9).into();
        c.circuit_breaker = Some(CircuitBreaker { failure_threshold: 1, ..breaker(BreakerOf::Cluster) });
    });
    assert_eq!(ask(&mut bed, 1), ["502"]);
    assert!(bed.counted().starts_with("connect_failed"), "{}", bed.counted());
    assert_eq!(ask(&mut bed, 1), ["503"]);
    assert!(bed.counted().starts_with("circuit_open connect_failed"), "{}", bed.counted());
}
