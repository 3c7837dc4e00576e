//! Descriptors run short: who gives way, and who does not.

use crate::bed::{Bed, millis, say, seconds, wait};
use dataplane::conn::room::Descriptors;
use dataplane::fault::Refusal;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Five clients that ask every half second, and `crowd` times an attacker that says `first` and no more.
fn established_beside(crowd: usize, first: &str) {
    let mut bed = Bed::new(|_, _| ());
    bed.shard.core.descriptors = Descriptors::of_limit(64);
    let script = || (0..8).flat_map(|_| [say(GET), wait(millis(500))]);
    let workers: Vec<usize> = (0..5).map(|_| bed.client(script())).collect();
    bed.run_for(millis(100));
    for n in 0..crowd {
        let attacker = [say(first)].into_iter().filter(|_| !first.is_empty());
        bed.client(attacker);
        if n % 3 == 0 {
            bed.run_for(millis(20));
        }
    }
    bed.run_for(seconds(5));
    for worker in workers {
        // Once it asks no more it is as good as the others.
        let told = bed.told(worker);
        assert!(told.starts_with(&["200"; 8].join(" ")), "beside {crowd} of {first:?}: {told}");
    }
    let made_room = bed.stats.made_room.get();
    assert!(made_room > 0 && bed.io.open_descriptors() < 64, "{made_room}, {}", bed.io.open_descriptors());
}

#[test]
fn who_never_asked_makes_room_for_who_does() {
    established_beside(100, "");
    established_beside(100, "GET / HT");
}

#[test]
fn who_rests_makes_room_for_who_does_not() {
    established_beside(100, GET);
}

/// None is of little use, and newcomers are turned away before what is spared for links is gone.
#[test]
fn the_spare_ones_are_for_links() {
    let mut bed = Bed::new(|_, _| ());
    bed.io.world.answer = crate::bed::Answer::Script(vec![wait(seconds(3)), say(crate::bed::OK)]);
    bed.shard.core.descriptors = Descriptors::of_limit(64);
    let mut served = 0;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.extend((0..5).map(|_| bed.client([say(GET)])));
        bed.run_for(millis(20));
    }
    bed.run_for(seconds(4));
    for client in &all {
        served += usize::from(bed.told(*client).starts_with("200"));
    }
    let refused = bed.stats.refusal(Refusal::DescriptorsExhausted).get();
    assert!((20..40).contains(&served) && refused > 0, "{served} served, {refused} refused");
    assert!(bed.stats.connect_failures.get() == 0);
}
