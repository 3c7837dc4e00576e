//! Policies with the real binary: hashes that lead every shard to the same endpoint.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, Setup};
use std::collections::BTreeMap;

/// Eight shards before three origins that say their number.
fn start(balance: &str) -> ([Origin; 3], Proxy) {
    let origins = ["0", "1", "2"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let cluster = format!("balance = {balance}");
    let setup = Setup { runtime: "shards = 8", cluster: &cluster, endpoints: &endpoints, ..Setup::default() };
    let proxy = setup.start();
    (origins, proxy)
}

/// Where each of 60 users goes.
fn places(proxy: &Proxy) -> BTreeMap<u32, String> {
    let place = |user| {
        let request =
            format!("GET /{user} HTTP/1.1\r\nHost: a\r\nX-User: u{user}\r\nConnection: close\r\n\r\n");
        let response = Client::once(proxy.edge(), &request);
        assert_eq!(response.status, 200, "{}", response.reason());
        (user, response.text().to_owned())
    };
    (0..60).map(place).collect()
}

/// Over connections of their own on whichever shard, before and after an origin dies: its users move, and no others.
#[test]
fn users_have_their_endpoint_and_the_death_of_another_does_not_move_them() {
    let (origins, proxy) = start(r#"{ policy = "hash", on = "header:x-user" }"#);
    let before = places(&proxy);
    assert_eq!(before, places(&proxy));
    let share = |n: &str| before.values().filter(|at| *at == n).count();
    assert!(["0", "1", "2"].iter().all(|n| share(n) >= 8), "{before:?}");
    origins[1].kill();
    let after = places(&proxy);
    for (user, at) in &before {
        if at == "1" {
            assert_ne!(after[user], "1");
        } else {
            assert_eq!(after[user], *at, "user {user}");
        }
    }
}

/// Without a table, and for a tcp listener: a client's address is its key.
#[test]
fn an_address_has_its_endpoint() {
    let (_origins, proxy) = start("\"hash\"");
    let mut places = BTreeMap::new();
    for n in 1..40u8 {
        let ask = || {
            let mut client = Client::connect_from([127, 0, 0, n].into(), proxy.edge());
            client.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").text().to_owned()
        };
        let first = ask();
        assert!((0..3).all(|_| ask() == first), "127.0.0.{n}");
        *places.entry(first).or_insert(0) += 1;
    }
    assert_eq!(places.len(), 3, "{places:?}");

    let origins = ["0", "1", "2"].map(|name| {
        Origin::scripted(move |connection| {
            connection.send(name);
        })
    });
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let (listener, cluster) = ("protocol = \"tcp\"", "balance = \"hash\"");
    let setup = Setup { runtime: "shards = 8", listener, cluster, endpoints: &endpoints, ..Setup::default() };
    let proxy = setup.start();
    let ask = |n: u8| {
        let mut client = Client::connect_from([127, 0, 0, n].into(), proxy.edge());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut client.stream, &mut text).map(|_| text).unwrap_or_default()
    };
    let places: Vec<_> = (1..40).map(ask).collect();
    assert_eq!(places, (1..40).map(ask).collect::<Vec<_>>());
    assert!(["0", "1", "2"].iter().all(|n| places.iter().any(|at| at == n)), "{places:?}");
}

/// The origin that answers slowly gets few of the requests that come one after the other.
#[test]
fn peak_ewma_avoids_the_slow() {
    let slow = Origin::answering(|_| {
        crate::support::pause(std::time::Duration::from_millis(100));
        crate::support::origin::sized(200, b"slow")
    });
    let quick = Origin::saying("quick");
    let setup = Setup {
        runtime: "shards = 1",
        cluster: "balance = \"peak_ewma\"",
        endpoints: &[slow.address, quick.address],
        ..Setup::default()
    };
    let proxy = setup.start();
    for _ in 0..100 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
    // Half of them without it. On a busy machine the quick one has slow moments too, after which the other is tried.
    assert!(slow.request_count() <= 20, "{} of 100 were slow", slow.request_count());
}
