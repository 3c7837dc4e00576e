//! Every timeout, just before it and just after: who is told what, when, and what was counted.
//!
//! Virtual time is exact, so a deadline may be neither early nor later than a tick of the timer wheel (4.2 ms).

use crate::bed::{Answer, Bed, millis, origin_address, say, seconds, wait};
use dataplane::conn::Conn;
use dataplane::conn::deadline::lifetime_by;
use dataplane::fault::{CloseReason, Refusal};
use dataplane::io::Mono;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Listener};
use dataplane::table::Id;
use std::time::Duration;

const LIMIT: Duration = Duration::from_millis(1000);
/// Just in time, and just too late.
const BEFORE: Duration = Duration::from_millis(999);
const AFTER: Duration = Duration::from_millis(1006);
/// A tick, and what segments and turns take.
const LATENESS: Duration = Duration::from_millis(5);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";

fn assert_on_time(name: &str, from: Mono, at: Mono, want: Duration) {
    let got = Duration::from_nanos(at.since(from));
    assert!(got >= want && got <= want + LATENESS, "{name}: after {got:?}, not {want:?}");
}

struct Row {
    name: &'static str,
    change: fn(&mut Listener, &mut Cluster),
    /// Empty: 200 with two bytes.
    origin: Vec<Act>,
    client: Vec<Act>,
    /// What the client was told, and what was counted once it had left.
    told: &'static str,
    counted: &'static str,
    /// When the client's connection ended, or, if it stays, when the last answer came.
    after: Option<Duration>,
}

fn check(row: Row) {
    let mut bed = Bed::new(row.change);
    if !row.origin.is_empty() {
        bed.io.world.answer = Answer::Script(row.origin);
    }
    let begin = bed.now();
    let client = bed.client(row.client);
    bed.run_script(client);
    bed.run_for(AFTER);
    let end = bed.end(client);
    assert_eq!(bed.told(client), row.told, "{}: {}", row.name, bed.counted());
    if let Some(after) = row.after {
        assert_on_time(row.name, begin, end.ended_at.unwrap_or(end.heard_at), after);
    }
    bed.leave(client);
    bed.check_empty().unwrap_or_else(|why| panic!("{}: {why}", row.name));
    assert_eq!(bed.counted(), row.counted, "{}", row.name);
}

fn check_all(change: fn(&mut Listener, &mut Cluster), rows: Vec<Row>) {
    rows.into_iter().for_each(|row| check(Row { change, ..row }));
}

type Expected = (&'static str, &'static str, Option<Duration>);

fn row(name: &'static str, origin: Vec<Act>, client: Vec<Act>, (told, counted, after): Expected) -> Row {
    Row { name, change: |_, _| {}, origin, client, told, counted, after }
}

#[test]
fn request_header() {
    let late: Expected = ("408 (end)", "request_header_timeout refused", Some(LIMIT));
    let good: Expected = ("200", "client_closed", None);
    check_all(
        |l, _| l.timeouts.request_header = LIMIT,
        vec![
            row("silence", vec![], vec![wait(AFTER)], (" (end)", "silent_timeout", Some(LIMIT))),
            row("whole just before", vec![], vec![say("GET / "), wait(BEFORE), say(&GET[6..])], good),
            row("whole just after", vec![], vec![say("GET / "), wait(AFTER), say(&GET[6..])], late),
            row(
                "each byte counts from the first",
                vec![],
                vec![say("G"), wait(millis(500)), say("E"), wait(millis(499)), say("T"), wait(AFTER)],
                late,
            ),
            row(
                "the second head has a deadline of its own",
                vec![],
                vec![say(GET), wait(seconds(5)), say("GET / "), wait(AFTER)],
                ("200 408 (end)", "request_header_timeout refused", Some(seconds(6))),
            ),
        ],
    );
}

/// What was sent ahead counts from the end of the exchange before it.
#[test]
fn request_header_of_what_was_sent_ahead() {
    check_all(
        |l, _| l.timeouts.request_header = LIMIT,
        vec![row(
            "the origin takes three seconds for the first",
            vec![wait(seconds(3)), say(crate::bed::OK)],
            vec![say(GET), wait(millis(10)), say("GET / "), wait(seconds(5))],
            ("200 408 (end)", "request_header_timeout refused", Some(seconds(4))),
        )],
    );
}

#[test]
fn request_body() {
    let late: Expected = ("408 (end)", "request_body_timeout refused", Some(LIMIT));
    let good: Expected = ("200", "client_closed", None);
    let rest = || vec![wait(BEFORE), say("def"), wait(BEFORE), say("ghi")];
    let chunks = |pause| vec![say(CHUNKED), say("3\r\nabc\r\n"), wait(pause), say("0\r\n\r\n")];
    check_all(
        |l, _| l.timeouts.request_body = LIMIT,
        vec![
            row("each piece just before", vec![], [vec![say(POST), say("abc")], rest()].concat(), good),
            row("a piece just after", vec![], vec![say(POST), say("abc"), wait(AFTER), say("def")], late),
            row("no piece at all", vec![], vec![say(POST), wait(AFTER)], late),
            row("a last chunk just before", vec![], chunks(BEFORE), good),
            row("a last chunk just after", vec![], chunks(AFTER), late),
        ],
    );
}

/// After ten seconds of grace a body's bytes must be worth its age: 500 bytes at 1000 a second are worth half a second.
#[test]
fn min_rate() {
    let body = |n: usize| say("b".repeat(n));
    let head = || say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n");
    let late = |after| ("408 (end)", "request_body_too_slow refused", Some(after));
    check_all(
        |l, _| l.timeouts.min_rate = 1000,
        vec![
            row("slower", vec![], vec![head(), body(500), wait(seconds(20))], late(millis(10_500))),
            row(
                "just fast enough, then not",
                vec![],
                vec![head(), body(500), wait(millis(10_499)), body(1000), wait(seconds(5))],
                late(millis(11_500)),
            ),
            row(
                "just fast enough to the end",
                vec![],
                vec![head(), body(500), wait(millis(10_499)), body(1000), wait(millis(1000)), body(1500)],
                ("200", "client_closed", None),
            ),
        ],
    );
    check_all(
        |_, _| {},
        vec![row(
            "off",
            vec![],
            vec![head(), body(1), wait(seconds(60)), body(1), wait(seconds(60)), body(2998)],
            ("200", "client_closed", None),
        )],
    );
}

#[test]
fn idle() {
    check_all(
        |l, _| l.timeouts.idle = LIMIT,
        vec![
            row(
                "the next request just before",
                vec![],
                vec![say(GET), wait(BEFORE), say(GET), wait(millis(50))],
                ("200 200 (end)", "idle_timeout", Some(BEFORE + LIMIT)),
            ),
            row(
                "none",
                vec![],
                vec![say(GET), wait(AFTER), say(GET)],
                ("200 (end)", "idle_timeout", Some(LIMIT)),
            ),
            row(
                "a slow answer is not idleness",
                vec![wait(seconds(5)), say(crate::bed::OK)],
                vec![say(GET), wait(seconds(5))],
                ("200 (end)", "idle_timeout", Some(seconds(6))),
            ),
        ],
    );
}

/// Up to a tenth earlier than the limit, always the same for the first conn of a shard.
#[test]
fn max_lifetime() {
    let first = Id::<Conn>::new(0, 1).expect("a generation");
    let end = Duration::from_nanos(lifetime_by(0, first, Mono(0), LIMIT).0);
    assert!(end > LIMIT * 9 / 10 && end < LIMIT, "{end:?}");
    let (before, after) = (end - millis(1), end + millis(6));
    check_all(
        |l, _| l.timeouts.max_lifetime = LIMIT,
        vec![
            row("silent", vec![], vec![wait(after)], (" (end)", "lifetime", Some(end))),
            row("idle", vec![], vec![say(GET), wait(after)], ("200 (end)", "lifetime", Some(end))),
            row(
                "in an exchange, which may finish",
                vec![wait(before), say(crate::bed::OK)],
                vec![say(GET), wait(millis(10)), say(GET), wait(seconds(3))],
                ("200 200 (end)", "lifetime", Some(before * 2)),
            ),
            row(
                "a tunnel",
                vec![say(SWITCH)],
                vec![say(UPGRADE), wait(before), say("x"), wait(after)],
                ("101 (cut)", "lifetime", Some(end)),
            ),
        ],
    );
}

#[test]
fn tunnel_idle() {
    check_all(
        |l, _| l.timeouts.tunnel_idle = LIMIT,
        vec![
            row(
                "nothing",
                vec![say(SWITCH)],
                vec![say(UPGRADE), wait(AFTER)],
                ("101 (cut)", "tunnel_idle", Some(LIMIT)),
            ),
            row(
                "a byte just before",
                vec![say(SWITCH)],
                vec![say(UPGRADE), wait(BEFORE), say("x"), wait(AFTER)],
                ("101 (cut)", "tunnel_idle", Some(BEFORE + LIMIT)),
            ),
        ],
    );
}

/// Connects are retried by the kernel after one second: just in time, or just too late.
#[test]
fn connect() {
    for (timeout, told, counted) in
        [(millis(1010), "200", "client_closed"), (millis(990), "504", "connect_timeout client_closed")]
    {
        let mut bed = Bed::new(|_, c| c.timeouts.connect = timeout);
        bed.io.net.set_silent(origin_address(), true);
        let begin = bed.now();
        let client = bed.client([say(GET)]);
        bed.run_for(millis(50));
        bed.io.net.set_silent(origin_address(), false);
        bed.run_until("an answer", |bed| !bed.end(client).received.is_empty());
        let at = bed.end(client).heard_at;
        assert_eq!(bed.told(client), told);
        if told == "504" {
            assert_on_time(told, begin, at, timeout);
        }
        bed.leave(client);
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), counted);
    }
}

#[test]
fn response_header() {
    let good: Expected = ("200", "client_closed", None);
    let late: Expected = ("504", "response_header_timeout client_closed", Some(LIMIT));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    check_all(
        |_, c| c.timeouts.response_header = LIMIT,
        vec![
            row("just before", vec![wait(BEFORE), say(crate::bed::OK)], vec![say(GET), wait(AFTER)], good),
            row("just after", vec![wait(AFTER), say(crate::bed::OK)], vec![say(GET), wait(AFTER)], late),
            row(
                "a head that drips",
                vec![
                    say("HTTP/1.1 "),
                    wait(BEFORE),
                    say("200 OK\r\n"),
                    wait(BEFORE),
                    say("Content-Length: 0\r\n\r\n"),
                ],
                vec![say(GET), wait(seconds(3))],
                late,
            ),
            row(
                "an interim response is no answer",
                vec![say(interim), wait(BEFORE), say(interim), wait(AFTER)],
                vec![say(GET), wait(seconds(3))],
                ("103 103 504", "response_header_timeout client_closed", Some(LIMIT)),
            ),
            row(
                "a client that waits for the origin's word",
                vec![],
                vec![
                    say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"),
                    wait(AFTER),
                ],
                ("504 (end)", "response_header_timeout refused", Some(LIMIT)),
            ),
            row(
                "from the end of the request, just after",
                vec![wait(AFTER), say(crate::bed::OK)],
                vec![say(POST), say("abc"), wait(seconds(3)), say("defghi"), wait(AFTER)],
                ("504", "response_header_timeout client_closed", Some(seconds(4))),
            ),
            row(
                "an upload that goes on",
                vec![wait(BEFORE), say(crate::bed::OK)],
                vec![say(POST), say("abc"), wait(BEFORE), say("def"), wait(BEFORE), say("ghi"), wait(AFTER)],
                good,
            ),
        ],
    );
}

#[test]
fn response_body() {
    check_all(
        |_, c| c.timeouts.response_body = LIMIT,
        vec![
            row(
                "each piece just before",
                vec![say(OK), say("abc"), wait(BEFORE), say("def"), wait(BEFORE), say("ghi")],
                vec![say(GET), wait(seconds(3))],
                ("200", "client_closed", None),
            ),
            row(
                "a piece just after",
                vec![say(OK), say("abc"), wait(AFTER), say("def"), wait(BEFORE), say("ghi")],
                vec![say(GET), wait(seconds(3))],
                ("200 (end)", "response_body_timeout origin_aborted", Some(LIMIT)),
            ),
        ],
    );
}

fn large_answer() -> Vec<Act> {
    vec![say(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "b".repeat(1_000_000)))]
}

/// A client that takes nothing: its connection ends, the origin's answer is thrown away.
#[test]
fn listener_send() {
    let mut bed = Bed::new(|l, _| l.timeouts.send = LIMIT);
    bed.io.world.answer = Answer::Script(large_answer());
    let begin = bed.now();
    let client = bed.deaf_client([say(GET)]);
    let at = bed.run_until("the end", |bed| bed.stats.close(CloseReason::SendTimeout).get() == 1);
    // The last byte was taken within a millisecond.
    assert_on_time("a deaf client", begin, at, LIMIT);
    bed.leave(client);
    bed.check_empty().unwrap();
    assert_eq!(bed.counted(), "send_timeout");
}

/// A client that takes a little now and then goes on.
#[test]
fn listener_send_counts_from_the_last_progress() {
    let mut bed = Bed::new(|l, _| l.timeouts.send = LIMIT);
    bed.io.world.answer = Answer::Script(large_answer());
    let client = bed.client_of_pace(100_000, BEFORE, [say(GET)]);
    bed.run_until("all of it", |bed| bed.end(client).received.len() > 1_000_000);
    bed.run_for(millis(50));
    assert_eq!(bed.told(client), "200");
    bed.leave(client);
    bed.check_empty().unwrap();
    assert_eq!(bed.counted(), "client_closed");
}

#[test]
fn cluster_send() {
    let mut bed = Bed::new(|_, c| c.timeouts.send = LIMIT);
    bed.io.world.deaf_origin = true;
    let begin = bed.now();
    let body = "b".repeat(1_000_000);
    let client =
        bed.client([say(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{body}"))]);
    let at = bed.run_until("the answer", |bed| bed.stats.refusal(Refusal::OriginSendTimeout).get() == 1);
    assert_on_time("a deaf origin", begin, at, LIMIT);
    bed.run_for(seconds(3));
    assert!(bed.told(client).starts_with("504 ("), "{}", bed.told(client));
    bed.leave(client);
    bed.check_empty().unwrap();
    // The client still had 600 kB to send, more than lingering takes.
    assert_eq!(bed.counted(), "origin_send_timeout linger_ended");
}

#[test]
fn pool_idle_timeout() {
    for (pause, connects) in [(BEFORE, 1), (AFTER, 2)] {
        let mut bed = Bed::new(|_, c| c.pool.idle_timeout = LIMIT);
        let begin = bed.now();
        let client = bed.client([say(GET), wait(pause), say(GET)]);
        bed.run_script(client);
        let at = bed.run_until("no link", |bed| bed.shard.core.links.is_empty());
        assert_eq!((bed.stats.connects.get(), bed.told(client).as_str()), (connects, "200 200"));
        assert_eq!(bed.stats.link_idle_timeouts.get(), connects);
        assert_on_time("an idle link", begin, at, pause + LIMIT);
        bed.leave(client);
        bed.check_empty().unwrap();
    }
}
