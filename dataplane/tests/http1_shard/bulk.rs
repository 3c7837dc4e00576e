//! Bodies that go by splice: whole, cut short, with bytes behind them, and to clients that read slowly or not at all.

use crate::bed::{Answer, Bed, millis, say, seconds, wait};
use dataplane::sim::peers::Act;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LEN: usize = 600_000;

fn body() -> Vec<u8> {
    (0..LEN).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect()
}

/// A response whose body is `sent` of the bytes it promises, in pieces with pauses between them.
fn response(sent: &[u8]) -> Vec<Act> {
    let mut acts = vec![say(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))];
    for piece in sent.chunks(70_000) {
        acts.extend([say(piece), wait(millis(1))]);
    }
    acts
}

/// One GET to an origin that answers with `acts`; returns the bed and its client once things have settled.
fn asked(acts: Vec<Act>) -> (Bed, usize) {
    let mut bed = Bed::new(|listener, _| listener.timeouts.send = seconds(1));
    bed.io.world.answer = Answer::Script(acts);
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    bed.run_for(millis(500));
    (bed, client)
}

fn spliced(bed: &Bed) -> usize {
    usize::try_from(bed.stats.spliced_bytes.get()).unwrap()
}

fn leaves_nothing(mut bed: Bed, client: usize, counted: &str) {
    bed.leave(client);
    bed.check_empty().unwrap();
    assert_eq!(bed.io.pipes_out(), 0);
    assert_eq!(bed.counted(), counted);
}

#[test]
fn a_whole_body_arrives_and_both_connections_stay() {
    let (mut bed, client) = asked(response(&body()));
    let answers = bed.responses(client);
    assert!(answers.len() == 1 && answers[0].whole && answers[0].body == body());
    assert!(spliced(&bed) > LEN / 2, "{} bytes were spliced", spliced(&bed));
    assert_eq!(bed.idle_links(), 1);
    bed.tell(client, [say(GET)]);
    bed.run_for(millis(500));
    assert_eq!((bed.told(client), bed.stats.links_reused.get()), ("200 200".to_owned(), 1));
    leaves_nothing(bed, client, "client_closed");
}

/// Nobody has read them when the body ends: they must not become the answer to the next request (threat F22).
#[test]
fn bytes_behind_the_body_discard_the_link() {
    let mut acts = response(&body()[..LEN - 1000]);
    acts.push(say([&body()[LEN - 1000..], b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"].concat()));
    let mut bed = Bed::new(|_, _| {});
    bed.io.world.answer = Answer::Script(acts);
    // Both at once: the second is begun in the very step that ends the first.
    let client = bed.client([say(GET.repeat(2))]);
    bed.run_script(client);
    bed.run_for(seconds(1));
    let answers = bed.responses(client);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|a| a.body == body()), "an answer that nobody asked for was passed on");
    assert_eq!((bed.stats.links_reused.get(), bed.idle_links()), (0, 0));
    leaves_nothing(bed, client, "client_closed");
}

#[test]
fn an_origin_that_ends_early_is_a_visible_cut() {
    let mut acts = response(&body()[..LEN - 1]);
    acts.push(Act::Close);
    let (bed, client) = asked(acts);
    assert!(spliced(&bed) > LEN / 2);
    assert_eq!(bed.told(client), "200 (end)");
    assert!(!bed.responses(client)[0].whole);
    leaves_nothing(bed, client, "origin_closed origin_aborted");
}

#[test]
fn a_client_that_takes_nothing_is_closed_by_the_send_deadline() {
    let mut bed = Bed::new(|listener, _| listener.timeouts.send = seconds(1));
    bed.io.world.answer = Answer::Script(response(&body()));
    let client = bed.deaf_client([say(GET)]);
    let stuck = bed.run_until("a pipe holds what the client does not take", |bed| bed.io.pipes_out() == 1);
    let ended = bed.run_until("the client is given up", |bed| bed.conn().is_none());
    let waited = ended.since(stuck);
    assert!((990_000_000..1_050_000_000).contains(&waited), "after {waited} ns, not after a second");
    leaves_nothing(bed, client, "send_timeout");
}
