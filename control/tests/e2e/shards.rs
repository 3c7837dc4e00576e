//! Connections over shards: who serves them. The shard of an answer stands in its request id.

use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) const REPLY: &str =
    "[[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200, body = \"ok\" }\n";

/// The shard that wrote a record: digits 10 to 12 of the request id.
pub(crate) fn shard_of(record: &Value) -> u16 {
    let id = record["request_id"].as_str().expect("an id");
    u16::from_str_radix(&id[9..12], 16).expect("a shard")
}

/// How many of the requests `paths` each shard answered.
pub(crate) fn spread(proxy: &Proxy, paths: impl Iterator<Item = String>) -> BTreeMap<u16, u32> {
    let mut spread = BTreeMap::new();
    for path in paths {
        let record = proxy.log_line(|line| line["path"] == path.as_str());
        *spread.entry(shard_of(&record)).or_default() += 1;
    }
    spread
}

#[test]
fn sixty_four_long_connections_are_spread_evenly_over_eight_shards() {
    let proxy = Setup { runtime: "shards = 8\n", tables: REPLY, ..Setup::default() }.start();
    let mut clients: Vec<_> = (0..64).map(|_| Client::connect(proxy.edge())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
    }
    let spread = spread(&proxy, (0..64).map(|n| format!("/{n}")));
    let (most, least) = (spread.values().max().unwrap(), spread.values().min().unwrap());
    assert!(spread.len() == 8 && most - least <= 2, "{spread:?}");
}

/// Twice as many as may come in: as many as may are served, by whichever shard, and the drain lets go of all of them.
#[test]
fn a_limit_and_a_drain_hold_while_connections_move() {
    let setup = Setup {
        runtime: "shards = 8\ndrain_timeout = \"4s\"\n",
        listener: "max_connections = 20",
        tables: REPLY,
        ..Setup::default()
    };
    let mut proxy = setup.start();
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(proxy.edge())).collect();
    let mut answered = 0;
    for client in &mut clients {
        client.send_anyway("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response("GET");
        assert!(response.status == 200 || response.reason() == "listener_full", "{response:?}");
        answered += u32::from(response.status == 200);
    }
    assert_eq!(answered, 20);
    proxy.signal(rustix::process::Signal::TERM);
    clients.iter_mut().for_each(Client::expect_closed);
    assert_eq!(proxy.exit_code(crate::support::PATIENCE), 0);
}

/// With `steer = "source"` all connections of one address are on one shard, and those of many are on several.
#[test]
fn a_source_address_stays_on_one_shard() {
    let proxy =
        Setup { runtime: "shards = 4\n", listener: "steer = \"source\"", tables: REPLY, ..Setup::default() }
            .start();
    let mut clients = Vec::new();
    for n in 0..32 {
        // Twelve of one address, kept open, so that evening out would have moved some; then one each of twenty others.
        let source = if n < 12 { 5 } else { n };
        let mut client = Client::connect_from([127, 0, 0, source].into(), proxy.edge());
        assert_eq!(client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
        clients.push(client);
    }
    let one = spread(&proxy, (0..12).map(|n| format!("/{n}")));
    assert_eq!(one.len(), 1, "{one:?}");
    let many = spread(&proxy, (12..32).map(|n| format!("/{n}")));
    assert!(many.len() > 1, "{many:?}");
}

/// By CPU: loopback handles a packet on the CPU of its sender, so that one pinned client reaches one shard.
#[test]
fn a_cpu_has_its_shard() {
    let proxy =
        Setup { runtime: "shards = 4\n", listener: "steer = \"cpu\"", tables: REPLY, ..Setup::default() }
            .start();
    let mut cpus = rustix::thread::CpuSet::new();
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus).unwrap();
    let mut clients = Vec::new();
    for n in 0..12 {
        let mut client = Client::connect(proxy.edge());
        assert_eq!(client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
        clients.push(client);
    }
    rustix::thread::sched_setaffinity(None, &all).unwrap();
    let spread = spread(&proxy, (0..12).map(|n| format!("/{n}")));
    assert_eq!(spread.keys().copied().collect::<Vec<_>>(), [(cpu % 4) as u16], "{spread:?}");
}
