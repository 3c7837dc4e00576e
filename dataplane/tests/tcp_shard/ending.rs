//! How a tunnel of a tcp listener ends: half-close and resets both ways, deadlines, drain.

use crate::bed::{Bed, millis, say, seconds, wait};
use dataplane::limits::FOLLOW_SLOTS;
use dataplane::sim::peers::{Act, Ended};
use dataplane::spec::Timeouts;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// An open tunnel: the client's end and the origin's.
fn open(bed: &mut Bed) -> (usize, usize) {
    let client = bed.client([]);
    bed.run_until("the link", |b| !b.accepted(0).is_empty());
    bed.run_for(millis(5));
    (client, bed.accepted(0)[0])
}

#[test]
fn half_close_each_way() {
    for client_first in [true, false] {
        let mut bed = Bed::new(|_, _| ());
        let (client, link) = open(&mut bed);
        let (first, second) = if client_first { (client, link) } else { (link, client) };
        bed.tell(second, [wait(seconds(3)), say("much later"), Act::Finish]);
        bed.tell(first, [say("question"), Act::Finish]);
        bed.run_until("the first FIN", |b| b.end(second).ended == Some(Ended::Eof));
        assert_eq!(bed.told(second), "question(end)");
        bed.run_until("the second FIN", |b| b.end(first).ended.is_some());
        assert_eq!(bed.told(first), "much later(end)");
        assert_eq!(bed.counted(), "tunnel_ended");
        bed.check_empty();
        let (up, down) = if client_first { (8, 10) } else { (10, 8) };
        let records = bed.records();
        let expected = format!("endpoint 0 attempts 1 connected up {up} down {down} ms 3");
        assert!(records.len() == 1 && records[0].starts_with(&expected), "{records:?}");
    }
}

#[test]
fn a_reset_goes_through() {
    for client_resets in [true, false] {
        // Also behind a FIN the other way: the transfer that goes on is cut all the same.
        for half_closed in [false, true] {
            let mut bed = Bed::new(|_, _| ());
            let (client, link) = open(&mut bed);
            let (one, other) = if client_resets { (client, link) } else { (link, client) };
            if half_closed {
                bed.io.world.ends[one].stays = true;
                bed.tell(other, [Act::Finish]);
                bed.run_until("the FIN", |b| b.end(one).ended.is_some());
            }
            bed.tell(one, [say("the first half"), wait(millis(5)), Act::Reset]);
            bed.run_until("the reset", |b| b.end(other).ended.is_some() || b.counted() == "tunnel_ended");
            assert_eq!(bed.told(other), "the first half(cut)", "{half_closed} {client_resets}");
            bed.run_for(seconds(10));
            bed.check_empty();
        }
    }
}

/// Far more bytes than everything on the way holds, to a side that reads none of them.
fn flood() -> Act {
    say(vec![b'x'; 2_000_000])
}

#[test]
fn a_side_that_takes_nothing() {
    let mut bed = Bed::new(|l, _| l.timeouts.send = LIMIT);
    bed.io.world.script = vec![flood()];
    let client = bed.deaf_client([]);
    let at = bed.run_until("its end", |b| b.counted() == "send_timeout").0 / 1_000_000_000;
    assert!((10..13).contains(&at), "after {at} s");
    let link = bed.accepted(0)[0];
    bed.run_until("the other's end", |b| b.end(link).ended.is_some());
    bed.hear(client);
    bed.run_for(seconds(1));
    assert_eq!((bed.end(link).ended, bed.end(client).ended), (Some(Ended::Broken), Some(Ended::Broken)));
    bed.check_empty();

    let mut bed = Bed::new(|_, c| c.timeouts.send = LIMIT);
    bed.io.world.deaf_origin = true;
    let client = bed.client([flood()]);
    let at = bed.run_until("its end", |b| b.counted() == "origin_send_timeout").0 / 1_000_000_000;
    assert!((10..13).contains(&at), "after {at} s");
    bed.run_until("the other's end", |b| b.end(client).ended.is_some());
    assert_eq!(bed.told(client), "(cut)");
    let link = bed.accepted(0)[0];
    bed.hear(link);
    bed.run_for(seconds(1));
    assert_eq!(bed.end(link).ended, Some(Ended::Broken));
    bed.check_empty();
}

/// Who reads slowly but steadily is not cut off.
#[test]
fn a_side_that_takes_a_little() {
    let mut bed = Bed::new(|l, _| l.timeouts.send = LIMIT);
    bed.io.world.script = vec![flood(), Act::Finish];
    let client = bed.deaf_client([Act::Finish]);
    for _ in 0..5 {
        bed.run_for(seconds(6));
        bed.hear(client);
        bed.io.world.ends[client].received.clear();
    }
    bed.run_for(seconds(1));
    assert_eq!((bed.counted().as_str(), bed.end(client).ended), ("tunnel_ended", Some(Ended::Eof)));
    bed.check_empty();
}

#[test]
fn idle() {
    let mut bed = Bed::new(|l, _| l.timeouts.tunnel_idle = LIMIT);
    let (client, link) = open(&mut bed);
    let begun = bed.now();
    bed.tell(client, [wait(seconds(9)), say("x")]);
    bed.tell(link, [wait(seconds(18)), say("y")]);
    bed.run_until("its end", |b| b.end(client).ended.is_some());
    let at = bed.end(client).ended_at.unwrap().since(begun) / 1_000_000;
    assert!((28_000..28_100).contains(&at), "after {at} ms: both directions count");
    bed.run_for(seconds(1));
    assert_eq!((bed.told(client), bed.told(link)), ("y(cut)".into(), "x(cut)".into()));
    assert_eq!(bed.counted(), "tunnel_idle");
    bed.check_empty();
}

#[test]
fn lifetime_is_spread_over_its_last_tenth() {
    let mut bed = Bed::new(|l, _| l.timeouts.max_lifetime = LIMIT);
    let begun = bed.now();
    let clients: Vec<_> = (0..200).map(|_| bed.client([])).collect();
    let ended = |b: &Bed, at: &usize| b.end(*at).ended.is_some();
    bed.run_until("all their ends", |b| clients.iter().all(|at| ended(b, at)));
    let ages: Vec<_> =
        clients.iter().map(|at| bed.end(*at).ended_at.unwrap().since(begun) / 1_000_000).collect();
    assert!(ages.iter().all(|ms| (8_990..10_020).contains(ms)), "{ages:?}");
    for tenth in 0..10 {
        let here = ages.iter().filter(|ms| (9_000 + tenth * 100..9_100 + tenth * 100).contains(*ms)).count();
        assert!((5..50).contains(&here), "{here} of 200 in the tenth {tenth} of the spread: {ages:?}");
    }
    assert_eq!(bed.counted(), "lifetime*200");
    bed.check_empty();
}

#[test]
fn lifetime_ends_a_connect_too() {
    let mut bed = Bed::new(|l, _| l.timeouts.max_lifetime = LIMIT);
    bed.io.net.set_silent(crate::bed::origin_address(0), true);
    let client = bed.client([]);
    bed.run_until("its end", |b| b.end(client).ended.is_some());
    assert_eq!((bed.told(client), bed.counted()), ("(cut)".into(), "lifetime".into()));
    bed.check_empty();
}

#[test]
fn drain_lets_tunnels_go_on_until_its_deadline() {
    let mut bed = Bed::with_two(&[0, 1], |_, _| ());
    let (client, _) = open(&mut bed);
    let (ends, stays) = (client, bed.client([]));
    bed.run_for(millis(5));
    // One that is still being connected may come to its link.
    bed.io.net.set_silent(crate::bed::origin_address(0), true);
    let late = bed.client([say("late")]);
    bed.run_for(millis(5));
    bed.drain(seconds(5));
    bed.io.net.set_silent(crate::bed::origin_address(0), false);
    bed.run_for(seconds(2));
    let link = bed.accepted(0)[1];
    assert_eq!(bed.told(link), "late");
    bed.tell(ends, [say("x"), Act::Finish]);
    bed.tell(link, [say("answer")]);
    bed.run_for(seconds(1));
    assert_eq!(bed.counted(), "tunnel_ended");
    bed.run_for(seconds(10));
    assert!(bed.ended, "the shard ends at the deadline");
    assert_eq!(bed.counted(), "tunnel_ended drain_cut*2");
    assert_eq!((bed.told(late), bed.told(stays)), ("answer(cut)".into(), "(cut)".into()));
}

/// What came of a tunnel that is silent and whose listener's timeouts changed after three seconds: the counted words, and
/// after how many milliseconds it ended.
fn changed(before: impl Fn(&mut Timeouts), after: impl Fn(&mut Timeouts)) -> (String, u64) {
    let mut bed = Bed::new(|l, _| before(&mut l.timeouts));
    let begun = bed.now();
    let (client, _) = open(&mut bed);
    bed.run_for(seconds(3));
    bed.change(|listener| after(&mut listener.timeouts));
    bed.run_for(seconds(27));
    let ended = bed.end(client).ended_at.map_or(0, |at| at.since(begun) / 1_000_000);
    (bed.counted(), ended)
}

#[test]
fn other_timeouts_reach_who_is_silent() {
    let idle = |secs| move |timeouts: &mut Timeouts| timeouts.tunnel_idle = seconds(secs);
    let life = |secs| move |timeouts: &mut Timeouts| timeouts.max_lifetime = seconds(secs);
    let off = |timeouts: &mut Timeouts| timeouts.max_lifetime = Duration::MAX;
    for (what, (counted, ended), word, expected) in [
        ("idle shorter", changed(idle(100), idle(10)), "tunnel_idle", 9_900..10_100),
        ("idle over already", changed(idle(100), idle(2)), "tunnel_idle", 3_000..4_100),
        ("idle longer", changed(idle(10), idle(20)), "tunnel_idle", 19_900..20_100),
        ("idle much longer", changed(idle(10), idle(100)), "", 0..1),
        ("life shorter", changed(off, life(10)), "lifetime", 8_900..10_100),
        ("life over already", changed(off, life(2)), "lifetime", 3_000..4_100),
        ("life longer", changed(life(10), life(20)), "lifetime", 17_900..20_100),
        ("life for ever", changed(life(10), off), "", 0..1),
    ] {
        assert_eq!(counted, word, "{what}");
        assert!(expected.contains(&ended), "{what}: after {ended} ms");
    }
}

#[test]
fn shorter_timeouts_reach_everybody_a_slice_each_turn() {
    let mut bed = Bed::new(|_, _| ());
    let clients: Vec<_> = (0..600).map(|_| bed.client([])).collect();
    bed.run_until("the links", |b| b.accepted(0).len() == clients.len());
    bed.run_for(millis(5));
    bed.change(|listener| listener.timeouts.tunnel_idle = seconds(50));
    let timers = bed.shard.core.wheel.next();
    bed.turn();
    assert!(bed.shard.core.wheel.next() < timers, "the first slice is settled");
    // Shorter again before the walk is through: it goes over all of them once more.
    bed.change(|listener| listener.timeouts.tunnel_idle = seconds(10));
    let before = bed.io.turns;
    bed.run_for(seconds(1));
    let slots = u64::from(bed.shard.core.conns.slots());
    let turns = bed.io.turns - before;
    assert!(turns >= 2 * slots / u64::from(FOLLOW_SLOTS), "{turns} turns for {slots} slots, twice");
    assert_eq!(bed.counted(), "");
    bed.run_for(seconds(10));
    assert_eq!(bed.counted(), "tunnel_idle*600");
    bed.check_empty();
}
