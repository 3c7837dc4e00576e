//! The queue in front of full endpoints, with the real binary: many shards, one limit.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// `app` with one endpoint of these keys.
fn start(endpoint: SocketAddr, keys: &str, timeouts: &str) -> Proxy {
    let tables = format!(
        "[[cluster]]\nname = \"app\"\nendpoints = [{{ address = \"{endpoint}\", {keys} }}]\n\
         [cluster.timeouts]\n{timeouts}\n"
    );
    Setup { runtime: "shards = 8", listener: "cluster = \"app\"", tables: &tables, ..Setup::default() }
        .start()
}

/// An origin that counts its open connections, one by one: what it accepts counts until it has read the end. A single
/// thread, so that it never takes a connection for open whose end is there to be read.
fn counting_origin() -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (most, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (theirs, count) = (Arc::clone(&most), Arc::clone(&accepted));
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            // Accepts first: the end of a link that was closed for the new one came before it.
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                count.fetch_add(1, SeqCst);
                open.push(stream);
            }
            open.retain_mut(|stream| match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(n) => {
                    let requests = buffer[..n].windows(4).filter(|w| w == b"\r\n\r\n").count();
                    (0..requests).all(|_| stream.write_all(&sized(200, b"ok")).is_ok())
                }
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            });
            theirs.fetch_max(open.len(), SeqCst);
            crate::support::pause(Duration::from_micros(200));
        }
    });
    (address, most, accepted)
}

/// The test of the card: eight shards, three connections, two hundred clients, all served, never a fourth connection.
#[test]
fn two_hundred_clients_and_three_connections() {
    let (origin, most, accepted) = counting_origin();
    let proxy = start(origin, "max_connections = 3", "queue = \"30s\"");
    let edge = proxy.edge();
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(edge)).collect();
    let rounds = 5;
    for round in 0..rounds {
        clients.iter_mut().for_each(|client| client.send(GET));
        for (n, client) in clients.iter_mut().enumerate() {
            let response = client.response("GET");
            assert_eq!(response.status, 200, "client {n} in round {round}: {}", response.reason());
        }
    }
    assert_eq!(most.load(SeqCst), 3, "the limit is reached and not exceeded");
    let connects = accepted.load(SeqCst);
    println!("{connects} connections for {} requests", 200 * rounds);
    assert!(connects < 200 * rounds / 2, "{connects} connections for {} requests", 200 * rounds);
    let waited = proxy.log_line(|line| line["queue_us"].as_u64() > Some(0));
    assert_eq!(waited["status"], 200);
}

#[test]
fn running_requests_are_limited_over_all_shards() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let origin = Origin::answering(move |_| {
        peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        crate::support::pause(Duration::from_millis(1));
        now.fetch_sub(1, SeqCst);
        sized(200, b"ok")
    });
    let proxy = start(origin.address, "max_requests = 4", "queue = \"30s\"");
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(proxy.edge())).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    assert_eq!(most.load(SeqCst), 4);
}

#[test]
fn a_wait_ends_in_time() {
    let origin = Origin::scripted(|connection| {
        let _ = connection.request();
        connection.until_closed();
    });
    let proxy = start(origin.address, "max_connections = 1", "queue = \"300ms\"");
    let mut first = Client::connect(proxy.edge());
    first.send(GET);
    eventually("the request at the origin", || origin.request_count() == 1);
    let began = Instant::now();
    let response = Client::get(proxy.edge(), "/late");
    assert_eq!((response.status, response.reason()), (503, "queue_timeout"));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    let line = proxy.log_line(|line| line["path"] == "/late");
    assert!(line["queue_us"].as_u64() >= Some(300_000), "{line}");
    // The one that holds the place leaves, and the next has it.
    drop(first);
    eventually("the place to be free", || {
        let mut client = Client::connect(proxy.edge());
        client.send(GET);
        origin.request_count() == 2
    });
}

/// A keep-alive link at the limit is used again and again, by whichever shard asks.
#[test]
fn one_connection_serves_all_shards() {
    let origin = Origin::saying("one");
    let proxy = start(origin.address, "max_connections = 1", "queue = \"30s\"");
    for n in 0..50 {
        let began = Instant::now();
        assert_eq!(Client::get(proxy.edge(), "/").status, 200, "request {n}");
        assert!(began.elapsed() < Duration::from_secs(1), "request {n} waited for an idle link");
    }
    assert!(origin.connection_count() < 50, "{} connections", origin.connection_count());
}

/// A connection of a tcp listener needs a link of its own: those that wait idle for requests, whichever shard has them, give
/// their places up.
#[test]
fn idle_links_make_room_for_tcp() {
    let (origin, most, _) = counting_origin();
    let tables = format!(
        "[[cluster]]\nname = \"app\"\nendpoints = [{{ address = \"{origin}\", max_connections = 2 }}]\n\
         [[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \"app\"\n"
    );
    let proxy =
        Setup { runtime: "shards = 4", listener: "cluster = \"app\"", tables: &tables, ..Setup::default() }
            .start();
    for round in 0..40 {
        let mut requests = [Client::connect(proxy.edge()), Client::connect(proxy.edge())];
        requests.iter_mut().for_each(|client| client.send(GET));
        requests.iter_mut().for_each(|client| assert_eq!(client.response("GET").status, 200));
        // Both places are held by idle links now, of whichever shards.
        let mut raw = Client::connect(proxy.address("raw"));
        raw.send(GET);
        assert_eq!(raw.response("GET").status, 200, "round {round}");
        drop(raw);
    }
    assert!(most.load(SeqCst) <= 2);
}
