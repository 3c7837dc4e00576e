//! The last request of a client, behind which nothing is received until its answer takes long.

use crate::bed::{Answer, Bed, OK, millis, say, seconds, wait};
use dataplane::limits;
use dataplane::sim::peers::Act;
use std::time::Duration;

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";

fn slow(answer: Duration) -> Bed {
    let mut bed = Bed::new(|_, _| {});
    bed.io.world.answer = Answer::Script(vec![wait(answer), say(OK)]);
    bed
}

/// An answer that comes soon needs two receives: of the request and of the answer. Nothing is cancelled.
#[test]
fn an_answer_that_comes_soon_is_sent_and_the_connection_closed() {
    for request in [LAST, OLD] {
        let mut bed = slow(limits::WATCH_AFTER / 2);
        let client = bed.client([say(request)]);
        bed.run_until("it is answered", |bed| bed.stats.responses.get() == 1);
        assert!(bed.conn().is_none_or(|conn| !conn.stream.is_receiving()));
        bed.run_for(millis(10));
        assert_eq!(bed.told(client), "200 (end)");
        bed.leave(client);
        bed.check_empty().unwrap();
        assert_eq!(bed.counted(), "keep_alive_ended");
    }
}

/// A client that leaves is noticed, and the origin's work given up, even though nothing is received at once.
#[test]
fn a_client_that_leaves_is_noticed() {
    for (gone, within) in [(Act::Reset, Duration::ZERO), (Act::Close, limits::CLIENT_GONE_GRACE)] {
        for at in [millis(1), limits::WATCH_AFTER * 3] {
            let mut bed = slow(seconds(30));
            let begin = bed.now();
            bed.client([say(LAST), wait(at), gone.clone()]);
            let end =
                bed.run_until("nobody is there", |bed| bed.stats.conns_open.get() == 0 && bed.now() > begin);
            let took = Duration::from_nanos(end.since(begin));
            let due = at.max(limits::WATCH_AFTER) + within;
            assert!(took >= due && took < due + millis(20), "{gone:?} at {at:?}: {took:?}");
            assert_eq!(bed.stats.responses.get(), 0);
        }
    }
}

/// Bytes behind the last request mean nothing, but a close on top of them would destroy the answer.
#[test]
fn what_follows_the_last_request_costs_no_answer() {
    for answer in [millis(1), limits::WATCH_AFTER * 2] {
        for pause in [Duration::ZERO, millis(1)] {
            let mut bed = slow(answer);
            let client = bed.client([say(LAST), wait(pause), say("\r\n")]);
            bed.run_until("it is answered", |bed| bed.stats.responses.get() == 1);
            bed.run_for(millis(10));
            assert_eq!(bed.told(client), "200 (end)", "{answer:?} {pause:?}");
            bed.leave(client);
            bed.check_empty().unwrap();
        }
    }
}
