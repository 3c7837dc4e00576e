//! Uploads that go by splice: whole, with requests behind them, cut short from either side, and to origins that are slow.

use crate::bed::{Bed, OK, millis, say, seconds, wait};
use dataplane::limits;
use dataplane::sim::peers::Act;

const LEN: usize = 600_000;
const GET: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn body() -> Vec<u8> {
    (0..LEN).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect()
}

fn head() -> String {
    format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n")
}

/// An upload of `sent` of the bytes that it promises, in pieces with pauses between them.
fn upload(sent: &[u8]) -> Vec<Act> {
    let mut acts = vec![say(head())];
    for piece in sent.chunks(70_000) {
        acts.extend([say(piece), wait(millis(1))]);
    }
    acts
}

fn spliced(bed: &Bed) -> usize {
    usize::try_from(bed.stats.spliced_bytes.get()).unwrap()
}

/// The origin's end of the first link.
const LINK: usize = 1;

fn leaves_nothing(mut bed: Bed, client: usize, counted: &str) {
    bed.leave(client);
    bed.check_empty().unwrap();
    assert_eq!(bed.io.pipes_out(), 0);
    assert_eq!(bed.counted(), counted);
}

#[test]
fn a_whole_body_arrives_and_both_connections_stay() {
    let mut bed = Bed::new(|_, _| {});
    let client = bed.client(upload(&body()));
    bed.run_script(client);
    bed.tell(client, upload(&body()));
    bed.run_script(client);
    assert_eq!(bed.told(client), "200 200");
    assert_eq!(bed.io.world.requests.len(), 2);
    assert!(bed.io.world.requests.iter().all(|(_, m)| m.body == body()));
    assert!(spliced(&bed) > 2 * LEN - 100_000, "{} bytes were spliced", spliced(&bed));
    assert_eq!((bed.idle_links(), bed.stats.links_reused.get()), (1, 1));
    leaves_nothing(bed, client, "client_closed");
}

/// Bytes behind the body are the next request: neither swallowed by the splice nor passed on as body (threat F11).
#[test]
fn what_follows_the_body_is_the_next_request() {
    for glued in [1, 2, 100, 1_000, 65_504, 70_000, 131_072, 200_000, LEN] {
        let mut bed = Bed::new(|_, _| {});
        let (first, last) = (body()[..LEN - glued].to_vec(), body()[LEN - glued..].to_vec());
        let mut acts = upload(&first);
        acts.push(say([&last, GET.as_bytes(), head().as_bytes(), &body()].concat()));
        let client = bed.client(acts);
        bed.run_script(client);
        bed.run_for(millis(100));
        assert_eq!(bed.told(client), "200 200 200", "{glued}");
        let seen: Vec<_> =
            bed.io.world.requests.iter().map(|(_, m)| (m.start.as_str(), m.body.len())).collect();
        let post = ("POST /up HTTP/1.1", LEN);
        assert_eq!(seen, [post, ("GET /next HTTP/1.1", 0), post], "{glued}");
        assert!(bed.io.world.requests.iter().all(|(_, m)| m.body.is_empty() || m.body == body()), "{glued}");
        assert!(spliced(&bed) > 0 && spliced(&bed) <= 2 * LEN, "{glued}");
        leaves_nothing(bed, client, "client_closed");
    }
}

/// The origin must not take what it got for the whole (threat F21).
#[test]
fn a_client_that_ends_early_leaves_an_incomplete_request() {
    for end in [Act::Finish, Act::Close, Act::Reset] {
        let mut bed = Bed::new(|_, _| {});
        let mut acts = upload(&body()[..LEN - 1]);
        acts.push(end.clone());
        let client = bed.client(acts);
        bed.run_script(client);
        bed.run_until("the conn is gone", |bed| bed.conn().is_none());
        assert!(spliced(&bed) > LEN / 2);
        assert!(bed.io.world.requests.is_empty(), "{end:?}");
        assert!(bed.end(LINK).ended().is_some(), "{end:?}: the link was kept");
        let counted = if end == Act::Reset { "client_reset" } else { "body_truncated client_aborted" };
        leaves_nothing(bed, client, counted);
    }
}

/// An upload up to its middle, and the client then silent.
fn half_way(
    change: impl FnOnce(&mut dataplane::spec::Listener, &mut dataplane::spec::Cluster),
) -> (Bed, usize) {
    let mut bed = Bed::new(change);
    let client = bed.client(upload(&body()[..LEN / 2]));
    bed.run_until("half of it is at the origin", |bed| {
        bed.io.world.ends.len() > LINK && bed.end(LINK).received.len() >= LEN / 2
    });
    assert!(spliced(&bed) > LEN / 4);
    (bed, client)
}

#[test]
fn an_origin_that_dies_is_a_502_and_no_second_attempt() {
    let (mut bed, client) = half_way(|_, _| {});
    bed.tell(LINK, [Act::Reset]);
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    assert!(bed.told(client).starts_with("502"));
    assert_eq!(bed.stats.connects.get(), 1, "a body that was passed on cannot be sent again");
    bed.run_for(seconds(4));
    leaves_nothing(bed, client, "origin_reset refused");
}

#[test]
fn an_early_answer_is_passed_on_and_a_long_rest_given_up() {
    let (mut bed, client) = half_way(|_, _| {});
    bed.tell(LINK, [say(OK)]);
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    bed.run_for(seconds(4));
    assert_eq!(bed.told(client), "200 (end)");
    assert_eq!(bed.idle_links(), 0, "a link with half a request on it");
    leaves_nothing(bed, client, "keep_alive_ended");
}

/// What is left of the body is dropped, and what follows it is a request.
#[test]
fn an_early_answer_keeps_the_connection_where_little_is_left() {
    let mut bed = Bed::new(|_, _| {});
    let cut = LEN - 20_000;
    let client = bed.client(upload(&body()[..cut]));
    bed.run_until("most of it is at the origin", |bed| {
        bed.io.world.ends.len() > LINK && bed.end(LINK).received.len() >= cut
    });
    bed.tell(LINK, [say(OK)]);
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    bed.tell(client, [say([&body()[cut..], GET.as_bytes()].concat())]);
    bed.run_for(seconds(1));
    assert_eq!(bed.told(client), "200 200");
    let starts: Vec<_> = bed.io.world.requests.iter().map(|(_, m)| m.start.clone()).collect();
    assert_eq!(starts, ["GET /next HTTP/1.1"]);
    leaves_nothing(bed, client, "client_closed");
}

#[test]
fn a_client_that_stalls_is_told_so() {
    let (mut bed, client) = half_way(|listener, _| listener.timeouts.request_body = seconds(1));
    let since = bed.end(LINK).heard_at;
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    let waited = bed.end(client).heard_at.since(since);
    assert!((950_000_000..1_050_000_000).contains(&waited), "after {waited} ns, not after a second");
    assert!(bed.told(client).starts_with("408"));
    bed.run_for(seconds(4));
    leaves_nothing(bed, client, "request_body_timeout refused");
}

#[test]
fn a_client_below_the_rate_floor_is_told_so() {
    let (mut bed, client) = half_way(|listener, _| listener.timeouts.min_rate = 20_000);
    for _ in 0..100 {
        bed.tell(client, [say([b'x'; 100]), wait(millis(500))]);
    }
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    assert!(bed.told(client).starts_with("408"));
    bed.run_for(seconds(4));
    leaves_nothing(bed, client, "request_body_too_slow refused");
}

/// While the origin takes nothing the client is not slow, and the origin's own time runs.
#[test]
fn an_origin_that_takes_nothing_is_given_up_by_the_send_deadline() {
    let mut bed = Bed::new(|listener, cluster| {
        listener.timeouts.request_body = seconds(2);
        cluster.timeouts.send = seconds(5);
    });
    bed.io.world.deaf_origin = true;
    let client = bed.client(upload(&body()));
    let stuck = bed.run_until("a pipe holds what the origin does not take", |bed| bed.io.pipes_out() == 1);
    assert_eq!(bed.stats.pipes_lent.get(), 1);
    bed.run_until("the client was answered", |bed| !bed.responses(client).is_empty());
    let waited = bed.end(client).heard_at.since(stuck);
    assert!((4_950_000_000..5_050_000_000).contains(&waited), "after {waited} ns, not after 5 s");
    assert_eq!((bed.io.pipes_out(), bed.stats.pipes_lent.get()), (0, 0));
    assert!(bed.told(client).starts_with("504"), "{}", bed.told(client));
    bed.run_for(seconds(4));
    leaves_nothing(bed, client, "origin_send_timeout linger_ended");
}

/// With one pipe left, a flow that stalls keeps its bytes in leases, and the pipe is there for the next.
#[test]
fn the_last_pipe_is_never_held() {
    let mut bed = Bed::new(|_, _| {});
    bed.io.limit_pipes(1);
    bed.io.world.deaf_origin = true;
    let client = bed.client(upload(&body()));
    bed.run_for(seconds(3));
    assert!(bed.io.last_pipe_lent() > 0);
    assert_eq!(bed.io.pipes_out(), 0, "a flow that stalls holds the last pipe");
    let held: usize = bed.shard.core.links.iter().map(|(_, l)| l.stream.queued()).sum();
    assert!((1..=limits::CHAIN_LEASES).contains(&held), "{held} leases");
    bed.io.world.deaf_origin = false;
    bed.hear(LINK);
    bed.run_for(seconds(3));
    assert_eq!(bed.told(client), "200");
    assert!(bed.io.world.requests[0].1.body == body());
    leaves_nothing(bed, client, "client_closed");
}
