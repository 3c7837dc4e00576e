//! Conns that go to another process: which, with what, and that no byte is lost on the way.

use crate::bed::{Answer, Bed, OK, millis, say, seconds, wait};
use crate::tunnels::{LEN, LINK, arrived, bytes, open, pour};
use dataplane::conn::moving::{Moved, Moving, Transit, adopt};
use dataplane::limits;
use dataplane::sim::Fault;
use dataplane::sim::peers::{Act, Ended};
use dataplane::sim::random::{ALWAYS, Random};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn go(bed: &mut Bed) -> Receiver<Moved> {
    let (to, moved) = channel();
    bed.shard.core.moving = Some(Moving::new(to, Default::default(), [true].into()));
    moved
}

/// From now on this share of completions, and of cancels, comes late.
fn late(bed: &mut Bed, share: u32) {
    let faults = bed.io.net.faults.clone();
    bed.io.net.faults = faults.with(Fault::LateCompletion, share).with(Fault::CancelLate, share);
}

/// The same shard takes the place of the next process.
fn come(bed: &mut Bed, moved: Moved) {
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
    for one in first.into_iter().chain(second) {
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
        late(&mut bed, ALWAYS / 2);
        for client in &clients {
            let after = Duration::from_micros(random.below(200));
            bed.tell(*client, [wait(after), say(GET)]);
        }
        bed.run_for(Duration::from_micros(random.below(600)));
        let moved = go(&mut bed);
        for _ in 0..20 {
            bed.run_for(millis(10));
            let all: Vec<Moved> = moved.try_iter().collect();
            along += all.iter().filter(|one| !one.bytes.is_empty()).count();
            bed.shard.core.moving = None;
            all.into_iter().for_each(|one| come(&mut bed, one));
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

/// What a seed's moves met.
#[derive(Debug, Default)]
struct Met {
    moves: usize,
    queues: usize,
    pipes: usize,
    half_closed: usize,
}

impl Met {
    fn look(&mut self, moved: &Moved) {
        let Some(tunnel) = &moved.tunnel else { return };
        self.moves += 1;
        self.queues += usize::from(tunnel.sides.iter().any(|side| !side.queued.is_empty()));
        self.pipes += usize::from(tunnel.sides.iter().any(|side| side.pipe.is_some()));
        self.half_closed += usize::from(tunnel.sides.iter().any(|side| side.eof || side.finished));
    }
}

/// Where what leaves a shard goes, to come back.
struct Way(Sender<Moved>, Receiver<Moved>);

impl Way {
    fn new() -> Self {
        let (to, from) = channel();
        Self(to, from)
    }
    /// Has everything that may leave begin to do so, and come back a little later.
    fn there_and_back(&self, bed: &mut Bed, random: &mut Random, met: &mut Met) {
        bed.shard.core.moving = Some(Moving::new(self.0.clone(), Default::default(), [true].into()));
        bed.run_for(Duration::from_micros(random.below(600)));
        self.back(bed, met);
    }
    fn back(&self, bed: &mut Bed, met: &mut Met) {
        // What began to leave does, and nothing else.
        let transit = Arc::new(Transit::default());
        transit.close();
        bed.shard.core.moving = Some(Moving::new(self.0.clone(), transit, [true].into()));
        for one in self.1.try_iter() {
            met.look(&one);
            come(bed, one);
        }
    }
    /// Has everything that began to leave do so, and come back.
    fn settle(&self, bed: &mut Bed, met: &mut Met) {
        for _ in 0..10 {
            bed.run_for(millis(1));
            self.back(bed, met);
        }
    }
}

/// At whatever moments a tunnel moves, both directions arrive whole and in order, and its end is the one that was said.
#[test]
fn a_tunnel_that_pours_moves_again_and_again() {
    let mut met = Met::default();
    for seed in 0..5_u64 {
        let way = Way::new();
        let mut random = Random::new(seed);
        let mut bed = Bed::new(|_, _| {});
        late(&mut bed, ALWAYS / 4);
        let client = open(&mut bed, true);
        bed.stay(LINK);
        let mut up = pour(&bytes(b'a'));
        up.push(Act::Finish);
        bed.tell(client, up);
        bed.tell(LINK, pour(&bytes(b'B')));
        // Long enough for a pipe to hold what the client does not take.
        bed.run_for(millis(if seed == 0 { 1 } else { 20 }));
        let hears = random.below(20);
        for n in 0..30 {
            if n == hears {
                bed.hear(client);
            }
            way.there_and_back(&mut bed, &mut random, &mut met);
            // Every third time, until it is bulk again.
            bed.run_for(Duration::from_micros(random.below(if n % 3 == 0 { 10_000 } else { 1_000 })));
        }
        way.settle(&mut bed, &mut met);
        bed.run_for(seconds(1));
        assert!(arrived(&bed, client) == (&bytes(b'a')[..], &bytes(b'B')[..]), "seed {seed}");
        // Half-closed: the other direction goes on, also there.
        way.there_and_back(&mut bed, &mut random, &mut met);
        way.settle(&mut bed, &mut met);
        bed.tell(LINK, [say("last words"), Act::Close]);
        bed.run_for(seconds(1));
        assert!(bed.end(client).received.ends_with(b"last words"), "seed {seed}");
        assert!(bed.counted().starts_with("tunnel_ended moved"), "seed {seed}: {}", bed.counted());
        let counted = (bed.stats.tunnel_bytes_up.get(), bed.stats.tunnel_bytes_down.get());
        assert_eq!(counted, (LEN as u64, LEN as u64 + 10), "seed {seed}");
        assert_eq!(bed.ends(), "--", "seed {seed}: one record of all of it");
        bed.leave(client);
        bed.check_empty().unwrap();
        assert_eq!(bed.io.pipes_out(), 0, "seed {seed}");
    }
    println!("{met:?}");
    assert!(
        met.moves > 100
            && met.queues > 0
            && met.pipes > 0
            && met.half_closed > 0
            && met.half_closed < met.moves,
        "{met:?}"
    );
}

/// Whatever ends a tunnel while it is on its way ends both its sides.
#[test]
fn a_tunnel_that_is_reset_while_it_moves_ends() {
    for seed in 0..60_u64 {
        let way = Way::new();
        let mut random = Random::new(seed);
        let mut bed = Bed::new(|_, _| {});
        late(&mut bed, ALWAYS / 2);
        let client = open(&mut bed, false);
        let (one, other) = if random.below(2) == 0 { (client, LINK) } else { (LINK, client) };
        bed.tell(one, [say("half of it"), wait(Duration::from_micros(random.below(300))), Act::Reset]);
        for _ in 0..4 {
            way.there_and_back(&mut bed, &mut random, &mut Met::default());
        }
        way.settle(&mut bed, &mut Met::default());
        bed.run_for(seconds(1));
        assert_eq!(bed.end(other).ended(), Some(Ended::Broken), "seed {seed}: {}", bed.counted());
        bed.leave(other);
        bed.check_empty().unwrap();
    }
}

#[test]
fn a_tunnel_that_nobody_takes_is_cut() {
    let mut bed = Bed::new(|_, _| {});
    let client = open(&mut bed, false);
    drop(go(&mut bed));
    bed.run_for(millis(10));
    assert_eq!((bed.end(client).ended(), bed.end(LINK).ended()), (Some(Ended::Broken), Some(Ended::Broken)));
    assert_eq!(bed.counted(), "drain_cut");
    bed.check_empty().unwrap();
}

/// No more than a bounded number is on its way at once: the others are served meanwhile, and follow.
#[test]
fn who_cannot_leave_yet_is_served() {
    let mut bed = Bed::new(|_, _| {});
    let many = usize::try_from(limits::MOVES_AT_ONCE).unwrap() + 40;
    let clients: Vec<usize> = (0..many).map(|_| bed.client([])).collect();
    bed.run_for(millis(100));
    assert_eq!(bed.shard.core.conns.len(), u32::try_from(many).unwrap());
    let (transit, (to, moved)) = (Arc::new(Transit::default()), channel());
    bed.shard.core.moving = Some(Moving::new(to, Arc::clone(&transit), [true].into()));
    bed.run_for(millis(50));
    assert_eq!((moved.try_iter().count(), bed.shard.core.conns.len()), (many - 40, 40));
    assert!(!transit.is_walked(1));
    for client in &clients[many - 4..] {
        bed.tell(*client, [say(GET)]);
    }
    bed.run_for(millis(100));
    let served = clients.iter().filter(|client| bed.told(**client) == "200").count();
    assert_eq!((served, bed.shard.core.conns.len()), (4, 40));
    (0..20).for_each(|_| transit.end());
    bed.run_for(millis(50));
    assert_eq!((moved.try_iter().count(), bed.shard.core.conns.len()), (20, 20));
    (0..21).for_each(|_| transit.end());
    bed.run_for(millis(50));
    assert_eq!((moved.try_iter().count(), transit.is_walked(1)), (20, true));
    // Nobody begins any more.
    transit.close();
    let late = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    assert_eq!((bed.shard.core.conns.len(), moved.try_iter().count()), (1, 0));
    bed.leave(late);
}

/// A conn that comes to a shard whose listener drains, drains; to one whose conns move, moves on.
#[test]
fn who_comes_does_as_the_others_do() {
    let mut bed = Bed::new(|_, _| {});
    let idle = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    let first: Vec<Moved> = {
        let moved = go(&mut bed);
        bed.run_for(millis(10));
        moved.try_iter().collect()
    };
    let moved = go(&mut bed);
    first.into_iter().for_each(|one| come(&mut bed, one));
    bed.run_for(millis(10));
    let second: Vec<Moved> = moved.try_iter().collect();
    assert_eq!((second.len(), bed.shard.core.conns.len()), (1, 0));
    bed.shard.core.moving = None;
    bed.drain(seconds(5));
    second.into_iter().for_each(|one| come(&mut bed, one));
    bed.run_for(seconds(3));
    assert_eq!(bed.told(idle), "200 (end)", "{}", bed.counted());
}

/// Conns of a listener that the next process has not stay, and so do those that leave anyhow.
#[test]
fn listeners_that_do_not_go_on_keep_theirs() {
    let mut bed = Bed::new(|_, _| {});
    let idle = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    let (to, moved) = channel();
    bed.shard.core.moving = Some(Moving::new(to, Default::default(), [false].into()));
    bed.run_for(millis(10));
    assert_eq!((moved.try_iter().count(), bed.shard.core.conns.len()), (0, 1));
    bed.leave(idle);
}
