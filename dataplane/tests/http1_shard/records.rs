//! What the access log's records say: how long each phase took, and how the exchange ended.

use crate::bed::{Bed, OK, millis, say, seconds, wait};
use dataplane::sim::peers::Act;
use dataplane::stats::timings::{Phase, Timings};

/// To ten milliseconds, which delays of the network do not change.
fn ms(us: u64) -> u64 {
    (us + 5_000) / 10_000 * 10
}

/// The phases in milliseconds, those that are there.
fn told(timings: &Timings) -> String {
    let phase = |phase: Phase| timings.get(phase).map(|us| format!("{} {}", phase.name(), ms(us)));
    Phase::ALL.into_iter().filter_map(phase).collect::<Vec<_>>().join(", ")
}

fn sum(timings: &Timings) -> u64 {
    Phase::ALL.into_iter().filter_map(|phase| timings.get(phase)).sum()
}

#[test]
fn the_phases_of_an_exchange_add_up() {
    let mut bed = Bed::new(|_, _| {});
    let first = say(&OK[..30]);
    bed.answers(0, [wait(millis(200)), first, wait(millis(100)), say(&OK[30..])]);
    let client = bed.client([say("GET / HT"), wait(millis(50)), say("TP/1.1\r\nHost: a\r\n\r\n")]);
    bed.run_until("the answer", |bed| bed.stats.responses.get() == 1);
    let all = bed.timings();
    assert_eq!(told(&all[0]), "head 50, connect 0, response 200, transfer 100");
    assert_eq!(sum(&all[0]), all[0].total_us);
    // Over the link that is kept there is no connect, and the next head came at once.
    bed.answers(0, [wait(millis(20)), say(OK)]);
    bed.tell(client, [say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")]);
    bed.run_until("the answer", |bed| bed.stats.responses.get() == 2);
    let all = bed.timings();
    assert_eq!(told(&all[0]), "head 0, response 20, transfer 0");
    assert_eq!(sum(&all[0]), all[0].total_us);
}

#[test]
fn waits_and_attempts_that_came_to_nothing_are_told() {
    let mut bed = Bed::new(|_, c| {
        c.endpoints[0].max_requests = 1;
        c.timeouts.queue = seconds(5);
        c.timeouts.response_header = millis(700);
    });
    bed.answers(0, [wait(seconds(9))]);
    let get = || say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    bed.client([get()]);
    bed.client([wait(millis(100)), get()]);
    bed.run_until("both are refused", |bed| bed.stats.responses.get() == 2);
    let all = bed.timings();
    // The phase in which it ended is not told, nor any behind it: the rest of the total was spent there.
    assert_eq!((told(&all[0]).as_str(), ms(all[0].total_us)), ("head 0, connect 0", 700));
    assert_eq!((told(&all[1]).as_str(), ms(all[1].total_us)), ("head 0, queue 600, connect 0", 1300));
    assert_eq!(all[1].first_byte_us(), None);
}

#[test]
fn a_head_that_never_came_whole_tells_how_long_it_was_awaited() {
    let mut bed = Bed::new(|l, _| l.timeouts.request_header = seconds(3));
    bed.client([wait(millis(500)), say("GET / HT"), wait(seconds(60)), Act::Close]);
    bed.run_until("the refusal", |bed| bed.counted().contains("request_header_timeout"));
    let all = bed.timings();
    assert!((3_000_000..3_020_000).contains(&all[0].total_us), "{}", all[0].total_us);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn each_way_to_end_has_its_letters() {
    let cut = [say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), wait(millis(50))];
    let half = |last: Act| cut.iter().cloned().chain([last]).collect::<Vec<_>>();
    let leaving = |after: u64| vec![say(GET), wait(millis(after)), Act::Reset];
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    for (answer, client, ends) in [
        (vec![say(OK)], vec![say(GET)], "--"),
        (vec![say(OK)], vec![say("GET /\n")], "PR"),
        (vec![say("nonsense\r\n\r\n")], vec![say(GET)], "PH"),
        (vec![Act::Reset], vec![say(GET)], "SH"),
        (half(Act::Reset), vec![say(GET)], "SD"),
        (half(Act::Close), vec![say(GET)], "SD"),
        (half(wait(seconds(100))), vec![say(GET)], "sD"),
        (vec![wait(seconds(100))], vec![say(GET)], "sH"),
        (vec![wait(seconds(100))], leaving(500), "CH"),
        (half(wait(seconds(100))), leaving(500), "CD"),
        (vec![wait(seconds(100))], vec![say(post), wait(millis(100)), Act::Close], "CD"),
        (vec![wait(seconds(100))], vec![say(post), wait(seconds(100))], "cD"),
    ] {
        let mut bed = Bed::new(|l, c| {
            (c.timeouts.response_header, c.timeouts.response_body) = (seconds(2), seconds(2));
            l.timeouts.request_body = seconds(1);
        });
        bed.answers(0, answer);
        let at = bed.client(client);
        bed.run_for(seconds(5));
        assert_eq!(bed.ends(), ends, "{}", bed.counted());
        bed.leave(at);
    }
}

#[test]
fn what_never_came_to_an_endpoint_has_its_letters() {
    // The place is taken, and who waits for it goes, or waits too long.
    let mut bed = Bed::new(|_, c| {
        c.endpoints[0].max_requests = 1;
        c.timeouts.queue = seconds(2);
    });
    bed.answers(0, [wait(seconds(100))]);
    bed.client([say(GET)]);
    bed.client([wait(millis(10)), say(GET), wait(millis(100)), Act::Reset]);
    bed.client([wait(millis(20)), say(GET)]);
    bed.run_for(seconds(5));
    assert_eq!(bed.ends(), "CQ sQ");
    let mut bed = Bed::new(|_, _| {});
    bed.close_origin(0);
    bed.client([say(GET)]);
    bed.run_for(seconds(5));
    assert_eq!(bed.ends(), "SC");
}
