//! Conns that go to another process: which, with what, and that no byte is lost on the way.

use crate::bed::{Answer, Bed, OK, millis, say, seconds, wait};
use dataplane::conn::moving::{Moved, Moving, adopt};
use dataplane::sim::Fault;
use dataplane::sim::random::{ALWAYS, Random};
use std::sync::mpsc::{Receiver, channel};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn go(bed: &mut Bed) -> Receiver<Moved> {
    let (to, moved) = channel();
    bed.shard.core.moving = Some(Moving::new(to));
    moved
}

/// The same shard takes the place of the next process.
fn come(bed: &mut Bed, moved: &Moved) {
    bed.shard.core.shared.loads.open(bed.shard.core.shard);
    adopt(&mut bed.shard.core, &mut bed.io, moved);
}

#[test]
fn what_waits_moves_and_what_runs_follows_when_it_has_its_answer() {
    let mut bed = Bed::new(|_, _| {});
    let idle = bed.client([say(GET)]);
    let fresh = bed.client([]);
    bed.run_for(seconds(1));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let running = bed.client([say(GET)]);
    let begun = bed.client([say("GET / HTTP/1.1\r\n")]);
    bed.run_for(millis(10));
    let moved = go(&mut bed);
    bed.run_for(millis(10));
    let first: Vec<Moved> = moved.try_iter().collect();
    assert_eq!(first.iter().map(|one| one.requests).collect::<Vec<_>>(), [1, 0]);
    assert!(first.iter().all(|one| one.bytes.is_empty()));
    assert_eq!((bed.shard.core.conns.len(), bed.counted()), (2, "moved*2".to_owned()));
    bed.run_for(seconds(3));
    let second: Vec<Moved> = moved.try_iter().collect();
    assert_eq!((second.len(), second[0].requests, bed.told(running)), (1, 1, "200".to_owned()));
    assert_eq!(bed.shard.core.conns.len(), 1, "what has begun is read to its end here");
    // Nobody was told of anything, and all of it goes on.
    bed.io.world.answer = Answer::Ok;
    bed.shard.core.moving = None;
    for one in first.iter().chain(&second) {
        come(&mut bed, one);
    }
    for client in [idle, fresh, running] {
        bed.tell(client, [say(GET)]);
    }
    bed.tell(begun, [say("Host: a\r\n\r\n")]);
    bed.run_for(seconds(1));
    assert_eq!(
        [idle, fresh, running, begun].map(|client| bed.told(client)),
        ["200 200", "200", "200 200", "200"]
    );
    [idle, fresh, running, begun].into_iter().for_each(|client| bed.leave(client));
}

/// At whatever moment conns move, each request is answered once.
#[test]
fn bytes_that_come_meanwhile_go_along() {
    let mut along = 0;
    for seed in 0..60_u64 {
        let mut random = Random::new(seed);
        let mut bed = Bed::new(|_, _| {});
        let clients: Vec<usize> = (0..4).map(|_| bed.client([say(GET)])).collect();
        bed.run_for(seconds(1));
        // What ends by itself before it is taken back brings bytes along.
        let faults = bed.io.net.faults.clone();
        bed.io.net.faults =
            faults.with(Fault::LateCompletion, ALWAYS / 2).with(Fault::CancelLate, ALWAYS / 2);
        for client in &clients {
            let after = std::time::Duration::from_micros(random.below(200));
            bed.tell(*client, [wait(after), say(GET)]);
        }
        bed.run_for(std::time::Duration::from_micros(random.below(600)));
        let moved = go(&mut bed);
        for _ in 0..20 {
            bed.run_for(millis(10));
            let all: Vec<Moved> = moved.try_iter().collect();
            along += all.iter().filter(|one| !one.bytes.is_empty()).count();
            bed.shard.core.moving = None;
            all.iter().for_each(|one| come(&mut bed, one));
        }
        bed.run_for(seconds(1));
        assert!(clients.iter().all(|client| bed.told(*client) == "200 200"), "seed {seed}");
        clients.into_iter().for_each(|client| bed.leave(client));
    }
    assert!(along > 0, "no seed had a request arrive while its conn left");
}

#[test]
fn nobody_who_takes_them_is_a_close() {
    let mut bed = Bed::new(|_, _| {});
    let idle = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    drop(go(&mut bed));
    bed.run_for(millis(10));
    assert_eq!((bed.told(idle).as_str(), bed.shard.core.conns.len()), ("200 (end)", 0));
}
