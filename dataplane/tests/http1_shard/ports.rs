//! Local ports: every address of a pool is used, an exhausted one is left alone, and what cannot be had is refused at once.

use crate::bed::{Answer, Bed, OK, millis, say, seconds, wait};
use dataplane::buf::PoolSize;
use dataplane::io::PortRange;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Listener, SourceAddresses};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Links from 127.0.1.1 up to 127.0.1.`addresses`, ten ports each.
fn bed(addresses: u8) -> Bed {
    let sources = SourceAddresses {
        ranges: vec![([127, 0, 1, 1].into(), [127, 0, 1, addresses].into())],
        ports: PortRange::new(40_000, 40_009),
        ..SourceAddresses::default()
    };
    let mut bed = Bed::new(|_: &mut Listener, c: &mut Cluster| {
        c.source_addresses = sources;
        c.pool.idle = 100;
    });
    // The origin holds every request for ten seconds and then ends the connection itself.
    bed.io.world.answer = Answer::Script(vec![wait(seconds(10)), say(OK), Act::Close]);
    bed
}

fn clients(bed: &mut Bed, count: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..count).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(millis(50));
    all
}

#[test]
fn every_port_of_every_address_is_used_and_no_more() {
    let mut bed = bed(3);
    let all = clients(&mut bed, 30);
    let mut links: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (_, link) in bed.shard.core.links.iter() {
        let local = link.local.expect("each is connected");
        assert!((40_000..=40_009).contains(&local.port()));
        *links.entry(local.ip().unwrap()).or_default() += 1;
    }
    let ip = |n| IpAddr::from([127, 0, 1, n]);
    assert_eq!(links, BTreeMap::from([(ip(1), 10), (ip(2), 10), (ip(3), 10)]));
    // The thirty-first is told at once.
    let late = clients(&mut bed, 1)[0];
    assert_eq!(bed.told(late), "503");
    assert_eq!(bed.counted(), "ports_exhausted");
    bed.run_for(seconds(11));
    for client in all.into_iter().chain([late]) {
        assert!(bed.told(client).starts_with(if client == late { "503" } else { "200" }));
        bed.leave(client);
    }
    bed.check_empty().unwrap();
}

/// Where many ports are in use they are searched in windows, and the last is found all the same.
#[test]
fn crowded_ports_are_found_in_windows_to_the_last() {
    let ports = PortRange::new(40_000, 40_599);
    let sources = SourceAddresses { ranges: Vec::new(), ports, range: ports };
    let pool = PoolSize { tiny: 1024, small: 1024, large: 16 };
    let mut bed = Bed::with_pool(pool, |_, c| c.source_addresses = sources);
    bed.io.world.answer = Answer::Script(vec![wait(seconds(10)), say(OK), Act::Close]);
    let mut all = clients(&mut bed, 200);
    assert_eq!(bed.stats.port_windows.get(), 0, "a third is not many");
    all.extend(clients(&mut bed, 400));
    let used: BTreeSet<u16> =
        bed.shard.core.links.iter().filter_map(|(_, l)| l.local).map(|a| a.port()).collect();
    assert_eq!(used.len(), 600);
    let (windows, failed) = (bed.stats.port_windows.get(), bed.stats.port_searches_failed.get());
    assert!((399..399 * 8).contains(&windows) && failed == 0, "{windows} windows, {failed} searches failed");
    let late = clients(&mut bed, 1)[0];
    assert_eq!((bed.told(late), bed.stats.port_searches_failed.get()), ("503".to_owned(), 1));
    bed.run_for(seconds(11));
    all.into_iter().chain([late]).for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Ten times what there is, in a few crowds: those who come while a pair rests cost no search.
#[test]
fn an_exhausted_pair_is_searched_once_in_its_time() {
    let mut bed = bed(2);
    let mut all = clients(&mut bed, 20);
    // Those of the first turn, before the first of them knew.
    all.extend(clients(&mut bed, 20));
    let (first, began) = (bed.stats.port_searches_failed.get(), bed.now());
    assert!((2..=40).contains(&first), "{first}");
    for _ in 0..9 {
        all.extend(clients(&mut bed, 20));
    }
    let most = 2 * (bed.now().since(began) / 100_000_000 + 1);
    let searches = bed.stats.port_searches_failed.get() - first;
    assert!(searches > 0 && searches <= most, "{searches} searches, {most} allowed");
    assert_eq!(bed.counted(), "ports_exhausted*200");
    bed.run_for(seconds(11));
    all.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// The origin ends a connection: its port is free, and the next request gets it without waiting for the 100 ms.
#[test]
fn a_port_that_frees_is_used_at_once() {
    let mut bed = bed(1);
    bed.io.world.answer = Answer::Script(vec![wait(millis(50)), say(OK), Act::Close]);
    let all: Vec<usize> = (0..10).map(|_| bed.client([say(GET)])).collect();
    bed.run_until("ten links", |bed| bed.stats.connects.get() == 10);
    let refused = bed.client([say(GET)]);
    let full_at = bed.run_until("it is refused", |bed| bed.told(refused) == "503");
    bed.run_until("a link has ended", |bed| bed.shard.core.links.len() < 10);
    let fresh = bed.client([say(GET)]);
    let at = bed.run_until("a link from the same address", |bed| bed.stats.connects.get() == 12);
    assert!(at.since(full_at) < 100_000_000, "the port was not free for its own sake");
    bed.run_for(seconds(2));
    assert!(bed.told(fresh).starts_with("200"));
    all.into_iter().chain([refused, fresh]).for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Another endpoint is another destination: the same ports serve it once more.
#[test]
fn the_kernels_choice_may_run_out_too() {
    let mut bed = Bed::new(|_, c| c.source_addresses.ports = PortRange::new(40_000, 40_001));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(10)), say(OK)]);
    let all = clients(&mut bed, 5);
    assert_eq!(
        (bed.counted().as_str(), bed.stats.port_searches_failed.get() < 4),
        ("ports_exhausted*3", true)
    );
    all.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}
