//! What control sees of a shard's conns, page by page, and how it ends one.

use crate::bed::{Answer, Bed, OK, listen_address, millis, origin_address, say, seconds, wait};
use dataplane::buf::PoolSize;
use dataplane::fault::CloseReason;
use dataplane::limits::{LISTING_ROWS_PER_TURN, LISTING_SLOTS_PER_TURN};
use dataplane::shard::listing::{Listing, Place, Row, Wanted};
use dataplane::sim::peers::Ended;
use dataplane::spec::{ClusterId, EndpointId, ListenerId, Network};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Asks as a shard does, a turn's part at a time, and says how many parts there were.
fn ask(bed: &mut Bed, mut listing: Listing) -> (Vec<Row>, Option<u32>, u32) {
    let mut parts = 1;
    while !listing.advance(&mut bed.shard.core, &mut bed.io) {
        parts += 1;
        assert!(parts < 100_000, "it comes to no end");
    }
    (listing.rows().to_vec(), listing.next(), parts)
}

fn all(bed: &mut Bed, wanted: Wanted) -> Vec<Row> {
    ask(bed, Listing::page(wanted, 0, 1000)).0
}

#[test]
fn a_conn_is_shown_with_both_sides_of_what_it_runs() {
    let mut bed = Bed::new(|_, _| ());
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let idle = bed.client([say(GET)]);
    bed.run_for(seconds(3));
    let busy = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    let rows = all(&mut bed, Wanted::default());
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), ["idle", "request"]);
    let row = &rows[1];
    assert_eq!((row.listener, row.requests, row.local), (ListenerId(0), 1, Some(listen_address())));
    assert!(row.age >= millis(900) && row.age < seconds(2), "{row:?}");
    let upstream = row.upstream.expect("where its request is");
    assert_eq!((upstream.cluster, upstream.endpoint), (ClusterId(0), Some(EndpointId(0))));
    let local = upstream.local.expect("the link's address");
    assert_ne!(local, origin_address());
    assert_eq!(rows[0].upstream, None, "nothing runs on it");
    assert!(rows[0].age > rows[1].age && rows[0].quiet < rows[0].age);

    let of = |wanted: Wanted, bed: &mut Bed| all(bed, wanted).iter().map(|row| row.state).collect::<Vec<_>>();
    let wanted = Wanted::default;
    assert_eq!(of(Wanted { cluster: Some(ClusterId(0)), ..wanted() }, &mut bed), ["request"]);
    assert_eq!(of(Wanted { endpoint: Some(EndpointId(1)), ..wanted() }, &mut bed), [""; 0]);
    assert_eq!(of(Wanted { listener: Some(ListenerId(1)), ..wanted() }, &mut bed), [""; 0]);
    let source = |row: &Row, prefix| {
        let network = Network { address: row.peer.ip().unwrap(), prefix };
        Wanted { source: Some(network), ..wanted() }
    };
    assert_eq!(of(source(&rows[0], 8), &mut bed), ["idle", "request"]);
    let other = Network { address: [9, 9, 9, 9].into(), prefix: 32 };
    assert_eq!(of(Wanted { source: Some(other), ..wanted() }, &mut bed), [""; 0]);
    bed.leave(idle);
    bed.leave(busy);
    bed.run_for(seconds(10));
}

#[test]
fn pages_follow_each_other_and_a_turn_has_a_bound() {
    let mut bed = Bed::with_pool(PoolSize { tiny: 256, small: 256, large: 16 }, |_, _| ());
    let clients: Vec<_> = (0..50).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(seconds(1));
    assert_eq!(bed.shard.core.conns.len(), 50, "{}", bed.counted());
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (rows, next, _) = ask(&mut bed, Listing::page(Wanted::default(), at, 7));
        assert!(rows.len() == 7 || next.is_none(), "{} rows, then {next:?}", rows.len());
        seen.extend(rows.iter().map(|row| row.place.slot));
        from = next;
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.is_sorted_by(|one, other| one < other), "each once: {seen:?}");
    let (rows, next, parts) = ask(&mut bed, Listing::page(Wanted::default(), 0, 1000));
    assert_eq!((rows.len(), next), (50, None));
    let slots = bed.shard.core.conns.slots();
    let least = (50 / LISTING_ROWS_PER_TURN).max(slots / LISTING_SLOTS_PER_TURN);
    assert!(parts >= least, "{parts} parts for {slots} slots");
    assert_eq!(ask(&mut bed, Listing::page(Wanted::default(), u32::MAX, 10)).0.len(), 0);
    assert_eq!(ask(&mut bed, Listing::page(Wanted::default(), 0, 0)).1, Some(0), "there are more than none");
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.run_for(seconds(10));
}

#[test]
fn a_killed_conn_is_reset_and_nobody_else() {
    let mut bed = Bed::new(|_, _| ());
    bed.io.world.answer = Answer::Script(vec![wait(seconds(60)), say(OK)]);
    let (one, other) = (bed.client([say(GET)]), bed.client([say(GET)]));
    bed.run_for(seconds(1));
    let rows = all(&mut bed, Wanted::default());
    let place = rows[0].place;
    for wrong in [
        Place { generation: place.generation + 1, ..place },
        Place { generation: 0, ..place },
        Place { slot: u32::MAX, ..place },
        Place { slot: place.slot + 500, ..place },
    ] {
        assert_eq!(ask(&mut bed, Listing::kill(wrong)).0.len(), 0, "{wrong:?} names nobody");
    }
    assert_eq!(ask(&mut bed, Listing::one(place)).0.len(), 1);
    assert_eq!(ask(&mut bed, Listing::kill(place)).0.len(), 1);
    assert_eq!(ask(&mut bed, Listing::kill(place)).0.len(), 0, "it is closing");
    bed.run_for(seconds(1));
    assert_eq!(bed.end(one).ended(), Some(Ended::Broken));
    assert_eq!(bed.end(other).ended(), None);
    assert_eq!(bed.stats.close(CloseReason::Killed).get(), 1);
    // Its slot's next conn is another.
    let next = bed.client([say(GET)]);
    bed.run_for(seconds(1));
    let rows = all(&mut bed, Wanted::default());
    assert!(rows.iter().any(|row| row.place.slot == place.slot), "the slot is used again");
    assert_eq!(ask(&mut bed, Listing::kill(place)).0.len(), 0, "a stale id kills nobody");
    bed.run_for(seconds(1));
    assert_eq!((bed.end(other).ended(), bed.end(next).ended()), (None, None));
    bed.leave(other);
    bed.leave(next);
    bed.run_for(seconds(70));
    bed.check_empty().unwrap();
}
