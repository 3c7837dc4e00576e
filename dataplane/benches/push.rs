//! How long a change of health takes to reach all shards: from the call of `Plane::set_health` to the moment at which the
//! last of eight shards, each asleep in its ring, has acted on it.
//!
//! `cargo bench -p dataplane --bench push`. A pick needs no push: it compares the cluster's version, so that the first one
//! after the call obeys. What can be seen from outside is what a shard does when it is woken: it looks at the cluster as a
//! pick would, and closes its idle links to what is down. So each shard is given one idle link, and the time is that of the
//! last FIN at the origin. The origin's own waking is in the figure.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test equipment: it measures time and prints it, and a broken expectation must end the run"
)]

use dataplane::cluster::eligible::Health;
use dataplane::io::{Address, SocketAddress};
use dataplane::plane::Plane;
use dataplane::spec::{
    Cluster, ClusterId, Endpoint, EndpointId, Forwarded, ForwardedMode, Limits, ListenAddress, Listener,
    ListenerId, Protocol, Runtime, Snapshot, Steer, Timeouts,
};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const SHARDS: u16 = 8;
/// Connections of clients: with so many every shard has some.
const CLIENTS: usize = 64;
const ROUNDS: usize = 200;
const SECOND: Duration = Duration::from_secs(1);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// Everything goes there.
const FIRST: EndpointId = EndpointId(0);

fn snapshot(endpoints: u16, origin: SocketAddress) -> Snapshot {
    let listener = Listener {
        id: ListenerId(0),
        name: "edge".into(),
        addresses: vec![ListenAddress::Ip(SocketAddress::new([127, 0, 0, 1].into(), 0))],
        steer: Steer::Hash,
        protocol: Protocol::Http,
        max_connections: 1000,
        limits: Limits {
            request_line: 8192,
            header_block: 16384,
            header_fields: 100,
            request_body: u64::MAX,
            requests_per_connection: u64::MAX,
            pipelined: 16,
        },
        timeouts: Timeouts {
            request_header: 10 * SECOND,
            request_body: 30 * SECOND,
            min_rate: 500,
            send: 30 * SECOND,
            idle: 60 * SECOND,
            tunnel_idle: 60 * SECOND,
            max_lifetime: Duration::MAX,
            dead_peer: 120 * SECOND,
        },
        forwarded: Forwarded { mode: ForwardedMode::Replace, trusted: Vec::new(), trusts_unix: false },
        proxy_protocol: None,
        cluster: Some(ClusterId(0)),
        access_log: false,
        error_pages: Default::default(),
    };
    let endpoint = |id: u16| Endpoint::new(EndpointId(id), &format!("e{id}"), origin.into());
    let endpoints = (0..endpoints).map(endpoint).collect();
    let cluster = Cluster { balance: "first", ..Cluster::new(ClusterId(0), "app", endpoints) };
    Snapshot {
        runtime: Runtime { shards: SHARDS, node: "node".into(), drain_timeout: SECOND },
        listeners: vec![Some(Arc::new(listener))],
        routes: Vec::new().into(),
        clusters: vec![Some(Arc::new(cluster))],
        tracing: None,
    }
}

/// Answers every request, and says when a connection ended.
fn serve(listener: &TcpListener, ended: &mpsc::Sender<Instant>) {
    for stream in listener.incoming() {
        let (mut stream, ended) = (stream.expect("a connection"), ended.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|n| n > 0) {
                stream.write_all(ANSWER).expect("sent");
            }
            // Nobody listens once all is measured.
            let _ = ended.send(Instant::now());
        });
    }
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).expect("sent");
    let (mut bytes, mut read) = ([0; 4096], 0);
    while !bytes[..read].ends_with(b"\r\n\r\n") {
        let more = stream.read(&mut bytes[read..]).expect("an answer");
        assert!(more > 0 && bytes.starts_with(b"HTTP/1.1 204 "), "{}", bytes[..read].escape_ascii());
        read += more;
    }
}

/// Waits until no shard's loop has turned for a while.
fn until_all_sleep(plane: &Plane) {
    let (mut turns, mut since) = (plane.turns(), Instant::now());
    while since.elapsed() < Duration::from_millis(2) {
        std::thread::yield_now();
        let now = plane.turns();
        if now != turns {
            (turns, since) = (now, Instant::now());
        }
    }
}

/// Of one round after the other: how long the call took, and how long until the last shard had acted.
fn measure(endpoints: u16) -> Vec<(Duration, Duration)> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let origin = listener.local_addr().expect("an address");
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || serve(&listener, &sender));
    let snapshot = snapshot(endpoints, SocketAddress::new(origin.ip(), origin.port()));
    let plane = Plane::start(Arc::new(snapshot), |_| ()).expect("a plane");
    let Address::Ip(edge) = &plane.bound()[0].address else { unreachable!("an address of IP was bound") };
    let edge = SocketAddr::from(*edge);
    let connect = |_| TcpStream::connect(edge).expect("a connection");
    let mut clients: Vec<_> = (0..CLIENTS).map(connect).collect();
    let round = |_| {
        clients.iter_mut().for_each(ask);
        // One request at a time: a link for each shard.
        let links = || plane.open_links(ClusterId(0), FIRST);
        assert_eq!(links(), u32::from(SHARDS));
        until_all_sleep(&plane);
        let began = Instant::now();
        assert!(plane.set_health(ClusterId(0), FIRST, Health::Down));
        let called = began.elapsed();
        let times = (0..SHARDS).map(|_| ended.recv_timeout(SECOND).expect("every shard closes its link"));
        let last = times.max().expect("some");
        while links() > 0 {
            std::thread::yield_now();
        }
        assert!(plane.set_health(ClusterId(0), FIRST, Health::Up));
        (called, last.duration_since(began))
    };
    let rounds = (0..ROUNDS).map(round).collect();
    plane.stop();
    plane.join();
    rounds
}

fn main() {
    println!("{SHARDS} shards asleep, {ROUNDS} rounds, microseconds: median, 99th percentile, longest");
    for endpoints in [2, 1000, 10_000] {
        let rounds = measure(endpoints);
        for (what, mut times) in [
            ("the call", rounds.iter().map(|round| round.0).collect::<Vec<_>>()),
            ("the last shard", rounds.iter().map(|round| round.1).collect()),
        ] {
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
            println!("{endpoints:6} endpoints, {what}: {}, {}, {}", at(50), at(99), at(100));
        }
    }
}
