//! Drains that may be called off: the order in which things end, how closes are spread, and what a drain that is called off
//! leaves as it was.

use crate::bed::{Answer, Bed, OK, listen_address, millis, say, seconds, wait};
use dataplane::io::{Io as _, SocketOption};
use dataplane::listener::{self, ListenerState, Socket};
use dataplane::shard::swap::{self, Swap};
use dataplane::sim::random::Random;
use dataplane::spec::{Curve, Drains, ListenerId, Order, Reason};
use std::sync::Arc;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const EDGE: ListenerId = ListenerId(0);

fn order(bed: &Bed, number: u32, curve: Curve, window: u64) -> Order {
    let began = bed.now();
    Order { number, reason: Reason::Rebalance, curve, began, until: began.after(seconds(window)) }
}

fn of_edge(order: Order) -> Drains {
    Drains { node: None, listeners: vec![(EDGE, order)] }
}

/// As the plane does it: the shard goes over to these drains and sockets.
fn go(bed: &mut Bed, drains: Drains, sockets: Option<Vec<Socket>>) {
    let core = &bed.shard.core;
    let (snapshot, routes, shared) =
        (Arc::clone(&core.snapshot), Arc::clone(&core.routes), Arc::clone(&core.shared));
    let sockets = sockets.map(|sockets| vec![sockets].into());
    let mut swap = Swap { snapshot, routes, shared, sockets, drains: Arc::new(drains) };
    swap::begin(&mut bed.shard.core, &mut bed.io, &mut swap);
}

/// Another socket at the listener's address.
fn socket(bed: &mut Bed, number: u32) -> Socket {
    let fd = bed.io.listener_socket();
    bed.io.set_option(fd, SocketOption::ReusePort).unwrap();
    bed.io.bind(fd, &listen_address().into()).unwrap();
    bed.io.listen(fd, 1024).unwrap();
    Socket { number, listener: EDGE, fd, address: listen_address(), alone: false, lent: false }
}

/// Clients that have had an answer, and now say nothing.
fn idle(bed: &mut Bed, count: usize) -> Vec<usize> {
    let mut clients = Vec::new();
    while clients.len() < count {
        // There are few buffers.
        let some: Vec<usize> = (0..10).map(|_| bed.client([say(GET)])).collect();
        bed.run_until("they are answered", |bed| some.iter().all(|client| bed.told(*client) == "200"));
        clients.extend(some);
    }
    bed.run_for(seconds(2));
    clients
}

/// When each was closed, in seconds since.
fn ends(bed: &Bed, clients: &[usize], since: dataplane::io::Mono) -> Vec<f64> {
    let end = |client: &usize| bed.end(*client).ended_at.map(|at| at.since(since) as f64 / 1e9);
    let mut all: Vec<f64> = clients.iter().filter_map(end).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn leave_all(bed: &mut Bed, clients: &[usize]) {
    clients.iter().for_each(|client| bed.leave(*client));
    bed.check_empty().unwrap();
}

/// Kolmogorov and Smirnov's distance between the times and the curve that they are to follow over three quarters of the window.
#[test]
fn idle_conns_are_closed_on_the_curve_and_not_at_one_time() {
    for (curve, window) in [(Curve::Linear, 40), (Curve::Early, 40), (Curve::Linear, 4)] {
        let mut bed = Bed::new(|_, _| {});
        let clients = idle(&mut bed, 300);
        let (since, order) = (bed.now(), order(&bed, 1, curve, window));
        go(&mut bed, of_edge(order), None);
        bed.run_until("all are closed", |bed| bed.shard.core.conns.is_empty());
        bed.run_for(millis(10));
        let times = ends(&bed, &clients, since);
        assert_eq!(times.len(), 300);
        let distance = times.iter().enumerate().map(|(at, time)| {
            let share = curve.share((time / (window as f64 * 0.75)).min(1.0));
            (share - at as f64 / 300.0).abs().max((share - (at + 1) as f64 / 300.0).abs())
        });
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 0.05, "{curve:?} over {window} s: {distance}, {times:?}");
        let together = times.windows(10).filter(|ten| ten[9] - ten[0] < 0.001).count();
        assert_eq!(together, 0, "{curve:?} over {window} s: {times:?}");
        assert_eq!(bed.counted(), "drained*300");
        leave_all(&mut bed, &clients);
    }
}

#[test]
fn immediate_is_at_once() {
    let mut bed = Bed::new(|_, _| {});
    let clients = idle(&mut bed, 50);
    let order = order(&bed, 1, Curve::Immediate, 40);
    go(&mut bed, of_edge(order), None);
    bed.run_for(millis(20));
    assert!(bed.shard.core.conns.is_empty());
    leave_all(&mut bed, &clients);
}

/// Answers say that they are the last; a body that is on its way ends; what has not asked yet may once; a tunnel and what is
/// stuck are cut at the end and not before.
#[test]
fn everything_ends_in_its_turn() {
    let mut bed = Bed::new(|_, _| {});
    bed.io.world.answer = Answer::Script(vec![say(SWITCH)]);
    let tunnel = bed.client([say(UPGRADE)]);
    bed.run_until("the tunnel stands", |bed| !bed.shard.core.tunnels.is_empty());
    bed.io.world.answer = Answer::Script(vec![wait(seconds(6)), say(OK)]);
    let running = bed.client([say(GET)]);
    bed.run_for(millis(10));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(100)), say(OK)]);
    let stuck = bed.client([say(GET)]);
    bed.run_for(millis(10));
    bed.io.world.answer = Answer::Ok;
    let asks = bed.client([say(GET), wait(seconds(3)), say(GET)]);
    let fresh = bed.client([wait(seconds(1)), say(GET)]);
    bed.run_for(millis(500));
    let (since, order) = (bed.now(), order(&bed, 1, Curve::Linear, 16));
    go(&mut bed, of_edge(order), Some(Vec::new()));
    bed.run_until("the new one is answered", |bed| bed.told(fresh).starts_with("200"));
    bed.run_for(millis(10));
    assert_eq!(bed.told(fresh), "200 (end)", "its first was its last");
    bed.run_until("the running one is answered", |bed| bed.told(running) == "200 (end)");
    let last = &bed.responses(running)[0];
    assert!(last.head.to_ascii_lowercase().windows(17).any(|w| w == b"connection: close"), "it is told");
    // It was closed on the curve, or answered once more if that was first.
    let asked = bed.told(asks);
    assert!(["200 (end)", "200 200 (end)"].contains(&asked.as_str()), "{asked}");
    bed.run_for(seconds(7));
    assert_eq!((bed.shard.core.tunnels.len(), bed.shard.core.conns.len()), (1, 2), "not before their time");
    let over = bed.run_until("they are cut", |bed| bed.shard.core.conns.is_empty());
    assert_eq!(over.since(since) / 100_000_000, 160, "at the end of the window");
    assert!(bed.counted().ends_with("drained*3 drain_cut*2"), "{}", bed.counted());
    assert!(bed.ends().contains('K'), "a record says that it was killed");
    leave_all(&mut bed, &[tunnel, running, stuck, asks, fresh]);
}

/// Who asks again and again is never closed between two requests: an answer tells.
#[test]
fn who_asks_within_a_second_is_told_by_an_answer() {
    let mut bed = Bed::new(|_, _| {});
    let busy: Vec<usize> = (0..10).map(|_| bed.client([say(GET)])).collect();
    bed.run_until("all are answered", |bed| busy.iter().all(|client| bed.told(*client) == "200"));
    let order = order(&bed, 1, Curve::Early, 80);
    go(&mut bed, of_edge(order), None);
    for client in &busy {
        bed.tell(*client, [wait(millis(200)), say(GET)]);
    }
    bed.run_until("all are closed", |bed| bed.shard.core.conns.is_empty());
    bed.run_for(millis(10));
    let told: Vec<String> = busy.iter().map(|client| bed.told(*client)).collect();
    assert!(told.iter().all(|told| told == "200 200 (end)"), "{told:?}");
    leave_all(&mut bed, &busy);
}

/// An answer that was on its way when the order came said nothing of an end: the conn stays for a moment, in which the client may
/// ask once more and is told.
#[test]
fn an_answer_that_said_nothing_is_not_the_last() {
    let mut bed = Bed::new(|_, _| {});
    let pieces = ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", "cd"];
    bed.io.world.answer = Answer::Script(vec![say(pieces[0]), wait(seconds(3)), say(pieces[1])]);
    let clients = [bed.client([say(GET)]), bed.client([say(GET)])];
    bed.run_until("both have a part", |bed| {
        clients.iter().all(|client| bed.end(*client).received.ends_with(b"ab"))
    });
    let order = order(&bed, 1, Curve::Immediate, 40);
    go(&mut bed, of_edge(order), None);
    bed.run_until("both have the rest", |bed| {
        clients.iter().all(|client| bed.end(*client).received.ends_with(b"cd"))
    });
    assert_eq!(bed.shard.core.conns.len(), 2);
    bed.io.world.answer = Answer::Ok;
    bed.tell(clients[0], [say(GET)]);
    bed.run_for(seconds(3));
    assert_eq!(clients.map(|client| bed.told(client)), ["200 200 (end)", "200 (end)"]);
    assert_eq!(bed.counted(), "drained*2");
    leave_all(&mut bed, &clients);
}

/// At whatever time it is called off, what is left stays: it is answered again, without a word of an end, also long after the
/// drain would have been over, and new connections are let in at the same address.
#[test]
fn a_drain_that_is_called_off_leaves_the_rest_as_it_was() {
    for seed in 0..24_u64 {
        let mut random = Random::new(seed);
        let mut bed = Bed::new(|_, _| {});
        let clients = idle(&mut bed, 40);
        bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
        let running = bed.client([say(GET)]);
        bed.run_for(millis(10));
        bed.io.world.answer = Answer::Ok;
        let fresh = bed.client([]);
        bed.run_for(millis(10));
        let order = order(&bed, 1, Curve::Linear, 20);
        let before = bed.shard.core.listeners.len();
        go(&mut bed, of_edge(order), Some(Vec::new()));
        // Before a turn, while sockets are deaf, while they close, and in the middle.
        let after = [0, 1, 100, 249, 250, 260, 1000, 4000][usize::try_from(seed % 8).unwrap()];
        if after > 0 {
            bed.run_for(millis(after + random.below(50)));
        }
        let anew = socket(&mut bed, 1);
        go(&mut bed, Drains::default(), Some(vec![anew]));
        bed.run_for(millis(10));
        let left: Vec<usize> =
            clients.iter().copied().filter(|client| bed.end(*client).ended().is_none()).collect();
        assert!(left.len() >= 25, "seed {seed}: {} of 40 are left after {after} ms", left.len());
        bed.run_for(seconds(30));
        if after < 900 {
            bed.tell(fresh, [say(GET)]);
        }
        let late = bed.client([say(GET)]);
        for some in left.chunks(10) {
            some.iter().for_each(|client| bed.tell(*client, [say(GET)]));
            bed.run_for(millis(500));
        }
        assert!(left.iter().all(|client| bed.told(*client) == "200 200"), "seed {seed}");
        assert_eq!(bed.told(late), "200", "seed {seed}");
        assert_eq!(bed.told(running), "200", "seed {seed}: it did not leave");
        if after < 900 {
            assert_eq!(bed.told(fresh), "200", "seed {seed}");
        }
        assert!(bed.shard.core.listeners.len() <= before + 1, "seed {seed}");
        assert_eq!(bed.shard.core.parties.due(bed.now()), dataplane::io::Mono::MAX, "seed {seed}");
        let all: Vec<usize> = clients.into_iter().chain([running, fresh, late]).collect();
        leave_all(&mut bed, &all);
    }
}

/// Who is queued at the socket is served, once, and nobody is reset.
#[test]
fn nobody_who_was_let_in_is_reset() {
    for seed in 0..8_u64 {
        let mut random = Random::new(seed);
        let mut bed = Bed::new(|_, _| {});
        let clients: Vec<usize> =
            (0..30).map(|_| bed.client([wait(millis(random.below(200))), say(GET)])).collect();
        bed.run_until("some are let in", |bed| bed.stats.accepted.get() > 0);
        let order = order(&bed, 1, Curve::Linear, 20);
        go(&mut bed, of_edge(order), Some(Vec::new()));
        bed.run_for(seconds(3));
        let told: Vec<String> = clients.iter().map(|client| bed.told(*client)).collect();
        let served = told.iter().filter(|told| *told == "200 (end)").count();
        assert_eq!(served as u64, bed.stats.accepted.get(), "seed {seed}: {told:?}");
        assert!(served > 0, "seed {seed}");
        bed.run_for(seconds(20));
        assert!(bed.shard.core.conns.is_empty(), "seed {seed}");
        leave_all(&mut bed, &clients);
    }
}

/// A drain of the node that is over sooner takes a listener's conns along, and gives them back to it when it is called off.
#[test]
fn of_two_orders_the_one_that_is_over_first_holds() {
    let mut bed = Bed::new(|_, _| {});
    bed.io.world.answer = Answer::Script(vec![say(SWITCH)]);
    let tunnels = [bed.client([say(UPGRADE)]), bed.client([say(UPGRADE)])];
    bed.run_until("the tunnels stand", |bed| bed.shard.core.tunnels.len() == 2);
    let (since, long) = (bed.now(), order(&bed, 1, Curve::Linear, 60));
    go(&mut bed, of_edge(long), None);
    bed.run_for(seconds(2));
    let node = Some(order(&bed, 2, Curve::Early, 5));
    go(&mut bed, Drains { node, ..of_edge(long) }, None);
    bed.run_for(seconds(2));
    go(&mut bed, of_edge(long), None);
    bed.run_for(seconds(10));
    assert_eq!(bed.shard.core.tunnels.len(), 2, "called off");
    bed.leave(tunnels[0]);
    let node = Some(order(&bed, 3, Curve::Early, 5));
    go(&mut bed, Drains { node, ..of_edge(long) }, None);
    let begun = bed.now();
    let over = bed.run_until("the other is cut", |bed| bed.shard.core.conns.is_empty());
    assert_eq!(over.since(begun) / 100_000_000, 50);
    assert!(over.since(since) < 30_000_000_000);
    leave_all(&mut bed, &tunnels);
}

#[test]
fn an_accept_that_begins_anew_loses_nobody_and_is_no_error() {
    let mut bed = Bed::new(|_, _| {});
    let before = idle(&mut bed, 3);
    for _ in 0..3 {
        let waits = bed.client([say(GET)]);
        listener::accept_anew(&mut bed.shard.core, &mut bed.io);
        bed.run_until("it is answered", |bed| bed.told(waits) == "200");
    }
    let accepted = before.len() as u64 + 3;
    assert_eq!((bed.stats.accepted.get(), bed.stats.accept_errors.get()), (accepted, 0));
    assert!(before.iter().all(|client| bed.end(*client).ended_at.is_none()));
    // One that goes away meanwhile stays gone.
    let drains = Drains { node: Some(order(&bed, 1, Curve::Immediate, 5)), listeners: Vec::new() };
    go(&mut bed, drains, Some(Vec::new()));
    listener::accept_anew(&mut bed.shard.core, &mut bed.io);
    bed.run_for(seconds(8));
    assert!(bed.shard.core.listeners.iter().all(ListenerState::is_closed));
}
