//! Second attempts: what is tried again and where, what a client is told when nothing helps, and what it all costs.

use crate::bed::{Bed, OK, millis, origin_at, say, seconds, wait};
use dataplane::limits;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Endpoint, EndpointId, HedgeAfter, Retry, RetryOn, Statuses};
use dataplane::stats::retries::Retried;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nbusy\n";

fn policy() -> Retry {
    let mut statuses = Statuses::default();
    statuses.add(503);
    Retry {
        attempts: 1,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses },
        budget_percent: 20,
        budget_minimum: 10,
        replay_body: u32::try_from(limits::REPLAY_BODY.default).unwrap(),
        hedge_after: None,
    }
}

fn hedging(after: Duration) -> Retry {
    Retry { hedge_after: Some(HedgeAfter::Delay(after)), ..policy() }
}

fn endpoints(cluster: &mut Cluster, count: u16) {
    let endpoint = |n| Endpoint::new(EndpointId(n), &format!("origin-{n}"), origin_at(n).into());
    cluster.endpoints = (0..count).map(endpoint).collect();
}

/// So many origins behind a policy. Each request is sent to the next of them first.
fn bed(count: u16, retry: Option<Retry>) -> Bed {
    let mut bed = Bed::new(|_, cluster| {
        endpoints(cluster, count);
        cluster.timeouts.response_header = seconds(1);
        cluster.retry = retry;
    });
    bed.open_origins(count);
    bed
}

/// What one client is told that says this, and when the last of it came.
fn ask(bed: &mut Bed, script: impl IntoIterator<Item = Act>) -> (String, Duration) {
    let begin = bed.now();
    let client = bed.client(script);
    bed.run_script(client);
    let already = bed.responses(client).len();
    if already == 0 {
        bed.run_until("an answer", |bed| {
            !bed.responses(client).is_empty() || bed.end(client).ended().is_some()
        });
        bed.run_for(millis(20));
    }
    let told = bed.told(client);
    let took = Duration::from_nanos(bed.end(client).heard_at.since(begin));
    bed.leave(client);
    (told, took)
}

/// The same, with the bodies of the answers behind it.
fn ask_for_body(bed: &mut Bed, request: &str) -> String {
    let client = bed.client([say(request)]);
    bed.run_until("an answer", |bed| bed.responses(client).iter().any(|r| r.whole));
    let response = bed.responses(client).remove(0);
    bed.leave(client);
    format!("{} {}", response.status(), String::from_utf8_lossy(&response.body))
}

/// Where copies of requests came, and which of them said that they are not the first.
fn copies(bed: &Bed) -> String {
    let one = |(origin, message): (usize, &crate::message::Message)| {
        let copy = message.field("ringway-attempt").map_or_else(String::new, |n| format!(":{n}"));
        format!("{origin}{copy}")
    };
    bed.arrivals().into_iter().map(one).collect::<Vec<_>>().join(" ")
}

fn retried(bed: &Bed) -> String {
    let all = Retried::ALL.into_iter().map(|why| (why.name(), bed.stats.retried(why).get()));
    let some: Vec<_> = all.filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}*{n}")).collect();
    some.join(" ")
}

/// Everything that fails one origin before its answer; what a client is told then, with a policy and without.
#[test]
fn what_fails_at_one_origin_succeeds_at_the_next() {
    let with = |retry: Option<Retry>, acts: &[Act], request: &str| {
        let mut bed = bed(2, retry);
        bed.answers(0, acts.iter().cloned());
        let (told, took) = ask(&mut bed, [say(request)]);
        let said = format!("{told} | {} | {}", copies(&bed), retried(&bed));
        bed.check_empty().unwrap_or_else(|why| panic!("{said}: {why}"));
        (said, took)
    };
    let said = |retry, acts: &[Act], request| with(retry, acts, request).0;
    let busy = [say(BUSY)];
    assert_eq!(said(Some(policy()), &busy, GET), "200 | 0 1:2 | status*1");
    assert_eq!(said(Some(policy()), &busy, POST), "503 | 0 | ");
    assert_eq!(said(None, &busy, GET), "503 | 0 | ");
    // A head alone is enough; the rest of such an answer is not waited for.
    let slow = [say(&BUSY[..BUSY.len() - 5]), wait(seconds(9)), say("busy\n")];
    let (told, took) = with(Some(policy()), &slow, GET);
    assert_eq!(told, "200 | 0 1:2 | status*1");
    assert!(took < millis(50), "{took:?}");
    assert_eq!(said(Some(policy()), &[Act::Reset], GET), "200 | 0 1:2 | reset*1");
    assert_eq!(said(Some(policy()), &[Act::Close], GET), "200 | 0 1:2 | reset*1");
    assert_eq!(said(Some(policy()), &[Act::Reset], POST), "502 | 0 | ");
    assert_eq!(said(None, &[Act::Reset], GET), "200 | 0 1:2 | reset*1");
    // Nothing is tried again behind the first byte of an answer.
    assert_eq!(said(Some(policy()), &[say("HTTP/1.1 2"), Act::Reset], GET), "502 | 0 | ");
    let silence = [wait(seconds(30))];
    let (told, took) = with(Some(policy()), &silence, GET);
    assert_eq!(told, "200 | 0 1:2 | timeout*1");
    assert!(took >= seconds(1) && took < millis(1_100), "{took:?}");
    assert_eq!(said(Some(policy()), &silence, POST), "504 | 0 | ");
    assert_eq!(said(None, &silence, GET), "504 | 0 | ");
    // Wanting nothing is a policy.
    let none = Retry { on: RetryOn::default(), ..policy() };
    for acts in [busy.as_slice(), &[Act::Reset], &silence] {
        assert!(!said(Some(none.clone()), acts, GET).starts_with("200"));
    }
}

#[test]
fn a_failed_connect_is_no_second_attempt() {
    let none = Retry { attempts: 0, budget_percent: 0, budget_minimum: 0, ..policy() };
    for request in [GET, POST] {
        let mut bed = bed(3, Some(none.clone()));
        bed.close_origin(0);
        bed.close_origin(1);
        assert_eq!(ask(&mut bed, [say(request)]).0, "200");
        assert_eq!((copies(&bed), retried(&bed)), ("2".into(), "connect*2".into()));
        bed.check_empty().unwrap();
    }
    // Not wanted.
    let mut bed = bed(3, Some(Retry { on: RetryOn { connect: false, ..policy().on }, ..policy() }));
    bed.close_origin(0);
    assert_eq!(ask(&mut bed, [say(GET)]).0, "502");
    bed.check_empty().unwrap();
}

/// What an origin said is worth more than our own words, however the other attempts end.
#[test]
fn the_last_origin_that_answered_is_passed_on() {
    let halves = || [say(&BUSY[..BUSY.len() - 3]), wait(millis(30)), say("sy\n")];
    let others: [(&str, Option<Vec<Act>>); 4] = [
        ("it answers the same", Some(vec![say(BUSY.replace("busy", "full"))])),
        ("it resets", Some(vec![Act::Reset])),
        ("it is silent", Some(vec![wait(seconds(30))])),
        ("it cannot be connected to", None),
    ];
    for first in [vec![say(BUSY)], halves().to_vec()] {
        for (what, other) in &others {
            let mut bed = bed(2, Some(policy()));
            bed.answers(0, first.clone());
            match other {
                Some(acts) => bed.answers(1, acts.clone()),
                None => bed.close_origin(1),
            }
            let told = ask_for_body(&mut bed, GET);
            let last = if what.contains("same") { "503 full\n" } else { "503 busy\n" };
            assert_eq!(told, last, "{what}");
            bed.check_empty().unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
    // One endpoint: there is nowhere to go, and nothing is spent on it.
    let mut bed = bed(1, Some(policy()));
    bed.answers(0, [say(BUSY)]);
    assert_eq!(ask_for_body(&mut bed, GET), "503 busy\n");
    assert_eq!((copies(&bed), retried(&bed)), ("0".into(), String::new()));
    bed.check_empty().unwrap();
}

/// A connection whose answer was put aside whole is kept, another is closed; the client keeps its own in any case.
#[test]
fn connections_outlive_what_was_put_aside() {
    let mut bed = bed(2, Some(policy()));
    bed.answers(0, [say(BUSY)]);
    let client = bed.client([say(GET.repeat(20))]);
    bed.run_until("all answers", |bed| bed.responses(client).len() == 20);
    assert!(bed.told(client).split(' ').all(|status| status == "200"), "{}", bed.told(client));
    bed.leave(client);
    assert_eq!(bed.stats.connects.get(), 2, "one to each origin");
    bed.check_empty().unwrap();
}

#[test]
fn as_often_as_allowed_and_no_more() {
    for attempts in 0..=3 {
        let mut bed = bed(6, Some(Retry { attempts, ..policy() }));
        for n in 0..6 {
            bed.answers(n, [say(BUSY)]);
        }
        assert_eq!(ask(&mut bed, [say(GET)]).0, "503");
        let wanted: Vec<_> =
            (0..=attempts).map(|n| if n == 0 { "0".into() } else { format!("{n}:{}", n + 1) }).collect();
        assert_eq!(copies(&bed), wanted.join(" "));
        bed.check_empty().unwrap();
    }
}

/// A proxy in front counts its attempts too: what comes as its second one is passed on, and is not tried again here.
#[test]
fn another_proxys_second_attempt_is_not_repeated() {
    let second = "GET / HTTP/1.1\r\nHost: a\r\nRingway-Attempt: 7\r\n\r\n";
    for acts in [vec![say(BUSY)], vec![Act::Reset], vec![wait(seconds(30))]] {
        let mut bed = bed(2, Some(hedging(millis(50))));
        bed.answers(0, acts);
        assert!(!ask(&mut bed, [say(second)]).0.starts_with("200"));
        assert_eq!((copies(&bed), retried(&bed)), ("0:7".into(), String::new()));
        bed.check_empty().unwrap();
    }
    // But a failed connect is.
    let mut bed = bed(2, Some(policy()));
    bed.close_origin(0);
    assert_eq!(ask(&mut bed, [say(second)]).0, "200");
    assert_eq!(copies(&bed), "1:7");
    bed.check_empty().unwrap();
}

/// Every origin fails, a thousand requests a second: the origins see a fifth more, and what they said is passed on.
#[test]
fn a_failing_cluster_is_not_sent_much_more() {
    let mut bed = bed(3, Some(Retry { attempts: 3, ..policy() }));
    for n in 0..3 {
        bed.answers(n, [say(BUSY)]);
    }
    let (requests, clients) = (5_000, 10);
    let script = |n: usize| {
        let mut acts = vec![wait(millis(n as u64))];
        for _ in 0..requests / clients {
            acts.extend([say(GET), wait(millis(clients as u64))]);
        }
        acts
    };
    let all: Vec<_> = (0..clients).map(|n| bed.client(script(n))).collect();
    bed.run_for(seconds(6));
    for client in all {
        assert_eq!(bed.responses(client).len(), requests / clients);
        assert!(bed.told(client).split(' ').all(|status| status == "503"));
        bed.leave(client);
    }
    let seen = bed.arrivals().len();
    assert!(seen <= requests + requests / 5 && seen > requests + requests / 6, "{seen} of {requests}");
    assert_eq!(seen - requests, usize::try_from(bed.stats.retries.get()).unwrap());
    assert!(bed.stats.retried(Retried::BudgetEmpty).get() > 1_000, "{}", retried(&bed));
    bed.check_empty().unwrap();
}

/// An idempotent request's body is sent again as it was, however it came, and only if all of it was held.
#[test]
fn bodies_are_replayed() {
    let body: String = (0..16 * 1024).map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap())).collect();
    let sized = |method: &str, len: usize| {
        format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}", &body[..len])
    };
    let chunked = |len: usize| {
        let chunks: String = body.as_bytes()[..len]
            .chunks(1000)
            .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
            .collect();
        format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    let rows = [
        (sized("PUT", 1), "200", 2),
        (sized("PUT", 8 * 1024), "200", 2),
        (sized("DELETE", 16 * 1024), "200", 2),
        (chunked(3), "200", 2),
        (chunked(16 * 1024), "200", 2),
        (chunked(0), "200", 2),
        // Too large to be held, or not to be sent twice.
        (sized("PUT", 16 * 1024).replace("16384", "16385") + "x", "502", 1),
        (chunked(16 * 1024).replace("\r\n0\r\n", "\r\n1\r\nx\r\n0\r\n"), "502", 1),
        (sized("POST", 10), "502", 1),
    ];
    for (request, told, count) in rows {
        // At once, and in pieces with pauses.
        for step in [request.len(), 3_000] {
            for first in [vec![Act::Reset], vec![say(BUSY)]] {
                let told = if first == [say(BUSY)] && told == "502" { "503" } else { told };
                let mut bed = bed(2, Some(policy()));
                bed.answers(0, first);
                let pieces = request.as_bytes().chunks(step).flat_map(|piece| [say(piece), wait(millis(3))]);
                let what = &request[..60.min(request.len())];
                assert_eq!(ask(&mut bed, pieces.collect::<Vec<_>>()).0, told, "{what:?}");
                let arrivals = bed.arrivals();
                assert_eq!(arrivals.len(), count, "{what:?}");
                assert!(arrivals.iter().all(|(_, m)| m.body == arrivals[0].1.body), "{what:?}");
                bed.check_empty().unwrap_or_else(|why| panic!("{what:?}: {why}"));
            }
        }
    }
}

/// What is held of a body goes out again behind the head, and the rest follows as it comes.
#[test]
fn a_link_lost_in_the_middle_of_a_body_is_replaced() {
    for framing in ["Content-Length: 9000", "Transfer-Encoding: chunked"] {
        let mut bed = bed(2, Some(policy()));
        let body = "b".repeat(9000);
        let client = bed.client([say(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))]);
        let wire = |part: &str| match framing.starts_with('C') {
            true => part.to_owned(),
            false => format!("{:x}\r\n{part}\r\n", part.len()),
        };
        bed.tell(client, [say(wire(&body[..4000]))]);
        bed.run_for(millis(20));
        let link = bed.io.world.ends.iter().position(|end| end.unfinished().len() > 4000).unwrap();
        bed.tell(link, [Act::Reset]);
        // Bytes may come while the next connection is being made.
        bed.tell(client, [say(wire(&body[4000..8000]))]);
        bed.run_for(millis(20));
        let end = if framing.starts_with('C') { "" } else { "0\r\n\r\n" };
        bed.tell(client, [say(wire(&body[8000..])), say(end)]);
        bed.run_for(millis(50));
        assert_eq!(bed.told(client), "200", "{framing}");
        let arrivals = bed.arrivals();
        assert_eq!((arrivals.len(), arrivals[0].0), (1, 1), "{framing}");
        assert!(arrivals[0].1.body == body.as_bytes(), "{framing}");
        bed.leave(client);
        bed.check_empty().unwrap();
    }
}

/// What each of two origins does, and what comes of it: the status, after how many milliseconds, how many copies there were,
/// and hedges that won.
type HedgeRow = (&'static str, Vec<Act>, Vec<Act>, (&'static str, u64, usize, u64));

fn after(ms: u64, act: Act) -> Vec<Act> {
    vec![wait(millis(ms)), act]
}
fn ok(ms: u64) -> Vec<Act> {
    after(ms, say(OK))
}

/// A hedge begins after 50 ms.
fn first_attempts() -> Vec<HedgeRow> {
    let (reset, busy, nonsense, never) = (Act::Reset, say(BUSY), say("no\r\n\r\n"), wait(seconds(30)));
    vec![
        ("in time", ok(40), ok(0), ("200", 40, 1, 0)),
        ("slow", ok(800), ok(0), ("200", 50, 2, 1)),
        ("slow, and the hedge slower", ok(100), ok(200), ("200", 100, 2, 0)),
        ("never", vec![never.clone()], ok(300), ("200", 350, 2, 1)),
        ("resets meanwhile", after(80, reset.clone()), ok(100), ("200", 150, 2, 0)),
        ("fails meanwhile", after(80, busy.clone()), ok(100), ("200", 150, 2, 0)),
        ("talks nonsense meanwhile", after(80, nonsense), ok(100), ("200", 150, 2, 0)),
        ("both fail", after(80, reset.clone()), after(80, reset), ("502", 130, 2, 0)),
        ("both are busy", after(80, busy.clone()), after(80, busy), ("503", 130, 2, 0)),
        ("both are silent", vec![never.clone()], vec![never], ("504", 1050, 2, 0)),
    ]
}

fn hedges() -> Vec<HedgeRow> {
    let interims = |n| say("HTTP/1.1 103 E\r\n\r\n".repeat(n));
    let late = ("200", 200, 2, 0);
    vec![
        ("resets", ok(200), vec![Act::Reset], late),
        ("is busy", ok(200), vec![say(BUSY)], late),
        ("talks nonsense", ok(200), vec![say("no\r\n\r\n")], late),
        ("begins and stalls", ok(200), vec![say("HTTP/1.1 20")], late),
        ("switches protocols", ok(200), vec![say("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n")], late),
        ("has interims", ok(800), vec![interims(3), say(OK)], ("200", 50, 2, 1)),
        ("has too many", ok(200), vec![interims(30), say(OK)], late),
        ("comes in two", ok(800), vec![say(&OK[..9]), wait(millis(50)), say(&OK[9..])], ("200", 100, 2, 1)),
    ]
}

/// A hedge begins when it is time and wins if its answer is first; whoever loses is let go.
#[test]
fn a_hedge_begins_beside_a_slow_attempt() {
    for (what, first, second, (told, at, count, won)) in first_attempts().into_iter().chain(hedges()) {
        for warm in [false, true] {
            if warm && what == "both fail" {
                // The second was lost on a pooled connection, and is replaced.
                continue;
            }
            let mut bed = bed(2, Some(Retry { attempts: 0, ..hedging(millis(50)) }));
            if warm {
                // Both have an idle link, so that the hedge need not connect.
                assert_eq!(ask(&mut bed, [say(GET.repeat(2)), wait(millis(50))]).0, "200 200");
            }
            let before = bed.arrivals().len();
            bed.answers(0, first.clone());
            bed.answers(1, second.clone());
            let (said, took) = ask(&mut bed, [say(GET)]);
            assert_eq!(said, told, "{what}: {}", bed.counted());
            let (least, most) = (millis(at), millis(at + 12));
            assert!(took >= least && took <= most, "{what}: after {took:?}, not {least:?}");
            assert_eq!(bed.arrivals().len() - before, count, "{what}");
            assert_eq!(bed.stats.hedges_won.get(), won, "{what}");
            let hedges = bed.stats.retried(Retried::Hedge).get();
            assert_eq!(hedges, count as u64 - 1, "{what}");
            bed.check_empty().unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
}

/// The bytes of an answer that broke off are not the begin of another's.
#[test]
fn part_of_an_answer_is_joined_with_no_other() {
    let part = say("HTTP/1.1 200 OK\r\nX: a");
    for (first, after) in [(Act::Reset, 80), (say(BUSY), 80), (Act::Reset, 200)] {
        let mut bed = bed(3, Some(hedging(millis(50))));
        bed.answers(0, [wait(millis(after)), first]);
        bed.answers(1, [part.clone(), wait(millis(100)), Act::Reset]);
        let told = ask(&mut bed, [say(GET)]).0;
        assert!(told == "200" || told == "502" || told == "503", "{told}");
        assert!(!bed.counted().contains("response_head"), "{}", bed.counted());
        bed.check_empty().unwrap();
    }
}

/// Neither the first endpoint nor the hedge's is asked once more.
#[test]
fn after_a_hedge_that_failed_too_a_third_is_asked() {
    for first in [Act::Reset, say(BUSY)] {
        let mut bed = bed(3, Some(hedging(millis(50))));
        bed.answers(0, [wait(millis(80)), first]);
        bed.answers(1, [wait(millis(80)), Act::Reset]);
        assert_eq!(ask(&mut bed, [say(GET)]).0, "200", "{}", bed.counted());
        assert_eq!(copies(&bed), "0 1:2 2:3", "{}", bed.counted());
        bed.check_empty().unwrap();
    }
}

#[test]
fn a_hedge_that_cannot_connect_is_let_go() {
    let mut bed = bed(2, Some(Retry { attempts: 0, ..hedging(millis(50)) }));
    bed.answers(0, [wait(millis(80)), say(OK)]);
    bed.close_origin(1);
    assert_eq!(ask(&mut bed, [say(GET)]).0, "200");
    assert_eq!(bed.stats.connect_failures.get(), 1);
    bed.check_empty().unwrap();
}

#[test]
fn nothing_is_left_of_a_hedge_when_its_client_leaves() {
    for at in [10, 52, 60, 200, 600] {
        let mut bed = bed(2, Some(hedging(millis(50))));
        bed.answers(0, [wait(millis(500)), say(OK)]);
        bed.answers(1, [wait(millis(500)), say(OK)]);
        let client = bed.client([say(GET)]);
        bed.run_for(millis(at));
        bed.leave(client);
        bed.check_empty().unwrap_or_else(|why| panic!("after {at} ms: {why}"));
    }
}

/// What may not be sent twice is not hedged, nor is what another proxy tries a second time.
#[test]
fn what_is_not_hedged() {
    let requests = [
        POST.to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nRingway-Attempt: 2\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{}", "b".repeat(20_000)),
    ];
    for request in requests {
        let mut bed = bed(2, Some(hedging(millis(50))));
        bed.answers(0, [wait(millis(300)), say(OK)]);
        assert_eq!(ask(&mut bed, [say(&request)]).0, "200");
        assert_eq!(bed.arrivals().len(), 1, "{request:.30}");
        bed.check_empty().unwrap();
    }
    // With a body that is held it is.
    let mut bed = bed(2, Some(hedging(millis(50))));
    bed.answers(0, [wait(millis(300)), say(OK)]);
    let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{}", "b".repeat(9_000));
    assert_eq!(ask(&mut bed, [say(put)]).0, "200");
    assert_eq!((copies(&bed).as_str(), bed.stats.hedges_won.get()), ("0 1:2", 1));
    assert!(bed.arrivals().iter().all(|(_, m)| m.body.len() == 9_000));
    bed.check_empty().unwrap();
}

/// One of three origins is slow every tenth time: with hedges after the 90th percentile few requests are, for at most a
/// fifth more of them.
#[test]
fn hedges_cut_the_tail() {
    let slow_share = |retry: Option<Retry>| {
        let mut bed = bed(3, retry);
        let (requests, clients) = (6_000, 20);
        for n in 0..3 {
            bed.answers(n, [wait(millis(5)), say(OK)]);
        }
        let script = |n: u64| {
            let mut acts = vec![wait(millis(n))];
            for _ in 0..requests / clients {
                acts.extend([say(GET), wait(millis(40))]);
            }
            acts
        };
        let all: Vec<_> = (0..clients as u64).map(|n| bed.client(script(n))).collect();
        let mut slow = Vec::new();
        let mut turns = 0u64;
        // From time to time the first origin takes 30 times as long.
        while bed.now().0 < 17_000_000_000 {
            let pause = if turns % 10 == 9 { 150 } else { 5 };
            bed.answers(0, [wait(millis(pause)), say(OK)]);
            bed.run_for(millis(20));
            slow.extend(bed.first_bytes());
            turns += 1;
        }
        for client in all {
            assert_eq!(bed.responses(client).len(), requests / clients);
            bed.leave(client);
        }
        slow.extend(bed.first_bytes());
        slow.sort_unstable();
        let arrivals = bed.arrivals().len();
        bed.check_empty().unwrap();
        (Duration::from_micros(slow[slow.len() * 99 / 100]), arrivals - requests)
    };
    let (without, none) = slow_share(None);
    let (with, more) = slow_share(Some(Retry { hedge_after: Some(HedgeAfter::Percentile(90)), ..policy() }));
    println!("p99 {without:?} without hedges, {with:?} with {more} of them in 6000");
    assert_eq!(none, 0);
    assert!(without > millis(100), "{without:?}");
    assert!(with < millis(30), "{with:?}");
    assert!(more > 50 && more <= 1_200, "{more}");
}
