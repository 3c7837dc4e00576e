//! Whole exchanges on one shard in the simulator, whose own work is in the count: it is the same each time.

use crate::bed::{Bed, say};
use crate::cases::BROWSER;
use crate::{ROUNDS, count_this};

/// Rounds before the steady state, not counted.
const WARM_UP: usize = 5;

/// One turn, counted if `counts`: what comes before the steady state does not.
fn turn(bed: &mut Bed, counts: bool) {
    let mut work = || {
        bed.shard.turn(&mut bed.io).expect("the simulator turns");
    };
    if counts { count_this(&mut work) } else { work() }
}

/// Turns until each client has one answer more.
fn run(bed: &mut Bed, clients: &[usize], counts: bool) {
    let before: Vec<usize> = clients.iter().map(|at| bed.end(*at).received.len()).collect();
    let answered = |bed: &Bed, (at, before): (&usize, &usize)| {
        let received = &bed.end(*at).received;
        received.len() > *before && received.ends_with(b"\r\n\r\nok")
    };
    while !clients.iter().zip(&before).all(|client| answered(bed, client)) {
        assert!(bed.io.turns < 20_000, "some are not answered: {}", bed.counted());
        turn(bed, counts);
    }
}

/// Requests of one client, one after the other, on a connection and a link that are kept.
pub(crate) fn exchange_kept() {
    busy(1, ROUNDS);
}

/// The same with ten clients that ask at once: what a turn costs is shared.
pub(crate) fn exchange_busy() {
    busy(10, ROUNDS / 10);
}

fn busy(clients: usize, rounds: usize) {
    let mut bed = Bed::new(|_, cluster| cluster.pool.idle = 64);
    let clients: Vec<usize> = (0..clients).map(|_| bed.client([])).collect();
    for round in 1..=rounds + WARM_UP {
        for at in &clients {
            bed.tell(*at, [say(BROWSER)]);
        }
        run(&mut bed, &clients, round > WARM_UP);
    }
}

/// A connection each: accept, one exchange on a kept link, close.
pub(crate) fn exchange_fresh() {
    let mut bed = Bed::new(|_, _| ());
    let last = BROWSER.replace("keep-alive", "close");
    for round in 1..=ROUNDS + WARM_UP {
        let at = bed.client([say(&last)]);
        let counts = round > WARM_UP;
        run(&mut bed, &[at], counts);
        while bed.conn().is_some() {
            bed.leave(at);
            turn(&mut bed, counts);
        }
    }
}
