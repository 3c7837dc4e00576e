//! Every limit, at one less, at itself and at one more.

use crate::bed::{Answer, Bed, OK, millis, say, seconds, wait};
use dataplane::link;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Listener};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What one client with one request is told, and what was counted once it had left.
fn ask(change: impl FnOnce(&mut Listener, &mut Cluster), sent: &str) -> (String, String) {
    let mut bed = Bed::new(change);
    let client = bed.client([say(sent), wait(millis(100))]);
    bed.run_script(client);
    let told = bed.told(client);
    bed.leave(client);
    bed.check_empty().unwrap();
    (told, bed.counted())
}

/// `request(n)` is taken for n up to 300 and refused with `status` and `word` for more.
fn check_size(
    change: fn(&mut Listener, &mut Cluster),
    limit: usize,
    request: impl Fn(usize) -> String,
    (status, word): (u16, &str),
) {
    let good = ("200".to_owned(), "client_closed".to_owned());
    let refused = (format!("{status} (end)"), format!("{word} refused"));
    for (n, want) in [(limit - 1, &good), (limit, &good), (limit + 1, &refused)] {
        assert_eq!(ask(change, &request(n)), *want, "{n} of {limit}");
    }
}

#[test]
fn request_line() {
    let request = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "p".repeat(n - 14));
    check_size(|l, _| l.limits.request_line = 300, 300, request, (414, "request_line_too_long"));
}

#[test]
fn header_block() {
    let request = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(n - 14));
    check_size(|l, _| l.limits.header_block = 600, 600, request, (431, "header_block_too_large"));
}

#[test]
fn header_fields() {
    let request = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
    check_size(|l, _| l.limits.header_fields = 9, 9, request, (431, "too_many_fields"));
}

#[test]
fn request_body_with_a_length() {
    let request =
        |n: usize| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{}", "b".repeat(n));
    check_size(|l, _| l.limits.request_body = 300, 300, request, (413, "request_body_too_large"));
}

/// The sum of the chunks counts, not their framing, and however many there are.
#[test]
fn request_body_in_chunks() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let one = |n: usize| format!("{head}{n:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(n));
    let many = |n: usize| format!("{head}{}0\r\n\r\n", "1\r\nb\r\n".repeat(n));
    check_size(|l, _| l.limits.request_body = 300, 300, one, (413, "request_body_too_large"));
    check_size(|l, _| l.limits.request_body = 300, 300, many, (413, "request_body_too_large"));
}

/// The third answer says close; what is behind it is not read.
#[test]
fn requests_per_connection() {
    for (n, told, counted) in [
        (2, "200 200", "client_closed"),
        (3, "200 200 200 (end)", "keep_alive_ended"),
        (4, "200 200 200 (end)", "keep_alive_ended"),
    ] {
        let change = |l: &mut Listener, _: &mut Cluster| l.limits.requests_per_connection = 3;
        // One after the other, and all at once.
        let mut bed = Bed::new(change);
        let client = bed.client((0..n).flat_map(|_| [say(GET), wait(millis(10))]));
        bed.run_script(client);
        let responses = bed.responses(client);
        let closes: Vec<bool> = responses.iter().map(|m| m.field("connection") == Some("close")).collect();
        assert_eq!((bed.told(client).as_str(), closes.get(2)), (told, (n > 2).then_some(&true)));
        assert_eq!(bed.io.world.requests.len(), n.min(3), "what reached the origin");
        bed.leave(client);
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), counted);
        assert_eq!(ask(change, &GET.repeat(n)), (told.to_owned(), counted.to_owned()));
    }
}

/// Requests that arrive one by one while the first is served: `pipelined` are read, that one included; the next stays
/// with the kernel, and none is refused or lost.
#[test]
fn pipelined() {
    for (sent, held, in_kernel) in [(3, 2, 0), (4, 3, 0), (5, 3, 1), (9, 3, 5)] {
        let mut bed = Bed::new(|l, _| l.limits.pipelined = 4);
        bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
        let client = bed.client((0..sent).flat_map(|_| [say(GET), wait(millis(10))]));
        bed.run_script(client);
        let conn = bed.conn().expect("it is served");
        let read = conn.rx.as_ref().map_or(0, |lease| lease.len());
        let socket = bed.io.socket_of(conn.stream.fd).expect("an open socket");
        let waiting = bed.io.net.readable(socket);
        assert_eq!((read, waiting), (held * GET.len(), in_kernel * GET.len()), "{sent} requests");
        bed.io.world.answer = Answer::Ok;
        bed.run_for(seconds(6));
        assert_eq!(bed.responses(client).len(), sent);
        bed.leave(client);
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), "client_closed");
    }
}

/// Answers after ten seconds, so that requests overlap.
fn slow() -> Answer {
    Answer::Script(vec![wait(seconds(10)), say(OK)])
}

/// `clients` at once, ten milliseconds apart; what each was told.
fn crowd(bed: &mut Bed, clients: usize, script: &[Act]) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..clients {
        all.push(bed.client(script.to_vec()));
        bed.run_script(all[all.len() - 1]);
    }
    bed.run_for(seconds(12));
    let told = all.iter().map(|client| bed.told(*client)).collect();
    all.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
    told
}

#[test]
fn endpoint_max_requests() {
    for (clients, told, counted) in [
        (1, vec!["200"], "client_closed"),
        (2, vec!["200", "200"], "client_closed*2"),
        (3, vec!["200", "200", "503"], "endpoints_full client_closed*3"),
    ] {
        let mut bed = Bed::new(|_, c| c.endpoints[0].max_requests = 2);
        bed.io.world.answer = slow();
        assert_eq!(crowd(&mut bed, clients, &[say(GET)]), told);
        assert_eq!(bed.counted(), counted);
    }
}

#[test]
fn endpoint_max_connections() {
    for (clients, told, counted) in [
        (1, vec!["200"], "client_closed"),
        (2, vec!["200", "200"], "client_closed*2"),
        (3, vec!["200", "200", "503"], "endpoints_full client_closed*3"),
    ] {
        let mut bed = Bed::new(|_, c| c.endpoints[0].max_connections = 2);
        bed.io.world.answer = slow();
        assert_eq!(crowd(&mut bed, clients, &[say(GET)]), told);
        assert_eq!((bed.counted().as_str(), bed.stats.connects.get()), (counted, clients.min(2) as u64));
    }
}

/// An idle link counts as a connection, and is used, not refused.
#[test]
fn an_idle_link_is_within_max_connections() {
    let mut bed = Bed::new(|_, c| c.endpoints[0].max_connections = 1);
    assert_eq!(crowd(&mut bed, 5, &[say(GET)]), ["200"; 5]);
    assert_eq!(bed.stats.connects.get(), 1);
}

#[test]
fn listener_max_connections() {
    for (clients, told, counted) in [
        (1, vec!["200"], "client_closed"),
        (2, vec!["200", "200"], "client_closed*2"),
        (3, vec!["200", "200", "503 (end)"], "listener_full client_closed*2 listener_full"),
    ] {
        let mut bed = Bed::new(|l, _| l.max_connections = 2);
        assert_eq!(crowd(&mut bed, clients, &[say(GET)]), told);
        assert_eq!(bed.counted(), counted);
    }
}

/// A place is free again as soon as its connection has ended.
#[test]
fn a_place_of_a_listener_is_given_back() {
    let mut bed = Bed::new(|l, _| l.max_connections = 1);
    for _ in 0..5 {
        assert_eq!(crowd(&mut bed, 1, &[say(GET)]), ["200"]);
    }
    assert_eq!(bed.counted(), "client_closed*5");
}

/// Of three links at once, `idle` are kept.
#[test]
fn pool_idle() {
    for (idle, kept) in [(0, 0), (2, 2), (3, 3), (4, 3)] {
        let mut bed = Bed::new(|_, c| c.pool.idle = idle);
        bed.io.world.answer = slow();
        let clients: Vec<usize> = (0..3).map(|_| bed.client([say(GET)])).collect();
        bed.run_for(seconds(12));
        let links = bed.shard.core.links.iter();
        assert_eq!(links.filter(|(_, l)| l.phase() == link::Phase::Idle).count(), kept, "{idle}");
        assert_eq!(bed.shard.core.links.len() as usize, kept);
        clients.into_iter().for_each(|client| bed.leave(client));
        bed.check_empty().unwrap();
    }
}

#[test]
fn pool_requests_per_connection() {
    for (requests, connects) in [(2, 1), (3, 1), (4, 2), (7, 3)] {
        let mut bed = Bed::new(|_, c| c.pool.requests_per_connection = 3);
        let client = bed.client((0..requests).flat_map(|_| [say(GET), wait(millis(10))]));
        bed.run_script(client);
        assert_eq!(bed.responses(client).len(), requests);
        assert_eq!(bed.stats.connects.get(), connects, "{requests} requests");
        bed.leave(client);
        bed.check_empty().unwrap();
    }
}

/// One conn fetches megabytes and another sends a thousand requests ahead: in one turn the shard does a bounded piece
/// of work for each, and a third is answered in as few turns as if it were alone.
#[test]
fn a_busy_connection_does_not_starve_others() {
    const LARGE: usize = 8_000_000;
    let turns_of_one_get = |bed: &mut Bed| {
        let before = bed.io.turns;
        let client = bed.client([say(GET)]);
        bed.run_until("an answer", |bed| !bed.end(client).received.is_empty());
        let turns = bed.io.turns - before;
        assert_eq!(bed.told(client), "200");
        bed.leave(client);
        turns
    };
    let alone = turns_of_one_get(&mut Bed::new(|_, _| {}));

    let mut bed = Bed::new(|_, _| {});
    bed.io.world.answer = Answer::Script(vec![say(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n{}",
        "b".repeat(LARGE)
    ))]);
    let bulk = bed.client([say(GET)]);
    bed.run_until("the bulk flows", |bed| bed.end(bulk).received.len() > 100_000);
    bed.io.world.answer = Answer::Ok;
    let ahead = bed.client([say(GET.repeat(1000))]);
    bed.run_until("the first of many", |bed| !bed.end(ahead).received.is_empty());
    let before = (bed.end(bulk).received.len(), bed.stats.requests.get(), bed.io.turns);
    let crowded = turns_of_one_get(&mut bed);
    let turns = bed.io.turns - before.2;
    let bytes = (bed.end(bulk).received.len() - before.0) as u64;
    let requests = bed.stats.requests.get() - before.1;
    // Turns are shorter when there is more to do, because one does not wait for all: allow some for each neighbour.
    assert!(crowded <= 6 * alone, "{crowded} turns instead of {alone}");
    assert!(bytes <= turns * 4 * 65_536, "{bytes} bytes for one conn in {turns} turns");
    assert!(requests <= turns + 1, "{requests} requests in {turns} turns");
    let done = |bed: &Bed| bed.end(bulk).received.len() > LARGE && bed.responses(ahead).len() == 1000;
    assert!(!done(&bed), "the busy ones went on meanwhile");
    bed.run_until("all of it", |bed| bed.end(bulk).received.len() > LARGE);
    bed.run_until("each of them", |bed| bed.responses(ahead).len() == 1000);
    [bulk, ahead].into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}
