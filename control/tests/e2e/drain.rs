//! Drains: in which order things end, that nobody is failed by one, and that one which is called off leaves no trace.

use crate::reload::{command, configuration, reload};
use crate::support::client::{Broken, Client};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Lines, Proxy, exit_code, ringway};
use crate::support::{PATIENCE, eventually, pause};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Where bytes come back.
fn echo() -> SocketAddr {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || {
                let mut both = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut both.0, &mut both.1);
            });
        }
    });
    at
}

fn start(origin: &Origin, more: &str) -> Proxy {
    let tcp = format!(
        "[[listener]]\nname = \"tcp\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:0\"\ncluster = \"echo\"\n[[cluster]]\n\
         name = \"echo\"\nendpoints = [\"{}\"]\n{more}",
        echo()
    );
    Proxy::start(&configuration("", &format!("endpoints = [\"{}\"]", origin.address), &tcp))
}

fn api(proxy: &Proxy, path: &str) -> (u16, Value) {
    let to: SocketAddr = proxy.ready["admin"].as_str().unwrap().parse().unwrap();
    let response =
        Client::once(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"));
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

fn metric(proxy: &Proxy, line: &str) -> bool {
    let to: SocketAddr = proxy.ready["admin"].as_str().unwrap().parse().unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    Client::once(to, &request).text().lines().any(|one| one == line)
}

#[track_caller]
fn drain(proxy: &Proxy, args: &[&str]) -> String {
    let ended = command(proxy, &[&["drain"], args].concat());
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// What a load saw.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    /// Connections that ended by an answer that said so.
    told: usize,
    /// Connects in vain.
    shut: usize,
}

/// One request after the other on a connection for as long as it stays, then on the next; until `over`. Fails if a request does.
fn keep_alive(edge: SocketAddr, over: &AtomicBool) -> Seen {
    let (mut seen, mut client) = (Seen::default(), None);
    while !over.load(SeqCst) {
        let Some(mut on) = client.take().or_else(|| Client::try_connect(edge)) else {
            seen.shut += 1;
            pause(Duration::from_millis(5));
            continue;
        };
        let response = on.exchange(GET);
        assert_eq!(response.status, 200, "{}", response.text());
        seen.answers += 1;
        match response.field("connection") {
            Some("close") => seen.told += 1,
            _ => client = Some(on),
        }
    }
    seen
}

/// A connection for each request.
fn new_ones(edge: SocketAddr, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(SeqCst) {
        match Client::try_connect(edge) {
            Some(mut client) => {
                assert_eq!(client.exchange(GET).status, 200);
                seen.answers += 1;
            }
            None => {
                seen.shut += 1;
                pause(Duration::from_millis(5));
            }
        }
    }
    seen
}

/// Numbers through a tunnel and back: how many there were when it ended, and when that was; `None` while it stands.
fn count(tcp: SocketAddr, over: &AtomicBool) -> (u64, Option<Instant>) {
    let mut stream = TcpStream::connect(tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut n, mut got) = (0_u64, [0; 8]);
    while !over.load(SeqCst) {
        if stream.write_all(&n.to_be_bytes()).is_err() || stream.read_exact(&mut got).is_err() {
            return (n, Some(Instant::now()));
        }
        assert_eq!(u64::from_be_bytes(got), n, "a message was lost");
        n += 1;
    }
    (n, None)
}

/// Not ready at once; let in for `accept_for`; then nobody, and no request fails all the while; a tunnel goes on to the last.
#[test]
fn a_node_under_load_goes_without_a_failed_request() {
    let origin = Origin::saying("one");
    let drains = "[drain.shutdown]\naccept_for = \"800ms\"\nwindow = \"3s\"\n";
    let mut proxy = start(&origin, drains);
    let (edge, tcp) = (proxy.edge(), proxy.address("tcp"));
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads = [scope.spawn(|| keep_alive(edge, over)), scope.spawn(|| keep_alive(edge, over))];
        let new = scope.spawn(|| new_ones(edge, over));
        let tunnel = scope.spawn(|| count(tcp, over));
        pause(Duration::from_millis(200));
        assert_eq!(api(&proxy, "/ready").0, 200);
        let begun = Instant::now();
        proxy.signal(Signal::TERM);
        eventually("not ready", || api(&proxy, "/ready").0 == 503);
        let (_, shown) = api(&proxy, "/v1/drain");
        assert_eq!(
            (&shown["node"]["phase"], &shown["node"]["reason"]),
            (&"accepting".into(), &"shutdown".into())
        );
        assert_eq!(Client::get(edge, "/").status, 200, "who comes now is let in");
        assert!(
            metric(&proxy, "ringway_draining 1")
                && metric(&proxy, "ringway_drains_total{reason=\"shutdown\"} 1")
        );
        assert!(metric(&proxy, "ringway_listener_draining{listener=\"edge\"} 0"), "not yet");
        eventually("nobody is let in", || Client::try_connect(edge).is_none());
        assert!(begun.elapsed() >= Duration::from_millis(790), "{:?}", begun.elapsed());
        assert!(metric(&proxy, "ringway_listener_draining{listener=\"edge\"} 1"));
        let (_, shown) = api(&proxy, "/v1/drain");
        assert_eq!(
            (&shown["node"]["phase"], &shown["node"]["tunnels"]),
            (&"leaving".into(), &1.into()),
            "{shown}"
        );
        assert_eq!(proxy.exit_code(PATIENCE), 0);
        over.store(true, SeqCst);
        for load in loads {
            let seen = load.join().unwrap();
            assert!(seen.told >= 1 && seen.answers > 10, "{seen:?}");
        }
        let seen = new.join().unwrap();
        assert!(seen.answers > 10 && seen.shut > 0, "{seen:?}");
        let (messages, ended) = tunnel.join().unwrap();
        let stood = ended.expect("it was cut").duration_since(begun);
        assert!(messages > 10 && stood >= Duration::from_millis(3700), "{messages}, {stood:?}");
        assert!(stood < Duration::from_millis(5500), "{stood:?}");
    });
    let told = |what: &str| proxy.stderr.all().iter().any(|line| line.contains(what));
    assert!(told("reason=\"shutdown\"") || told("reason=shutdown"), "{:?}", proxy.stderr.all());
}

/// Threats of slow clients at shutdown: one that never reads holds nobody up beyond the window, and its record says what happened.
#[test]
fn a_client_that_never_reads_is_cut_at_the_end() {
    let origin = Origin::answering(|_| sized(200, &vec![b'x'; 64 << 20]));
    let mut proxy = start(&origin, "[drain.shutdown]\nwindow = \"1s\"\n");
    let mut stuck = Client::connect(proxy.edge());
    stuck.send(GET);
    eventually("the answer begins", || origin.request_count() == 1);
    pause(Duration::from_millis(300));
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(Duration::from_secs(5)), 0);
    let took = begun.elapsed();
    assert!((Duration::from_millis(990)..Duration::from_secs(3)).contains(&took), "{took:?}");
    let line = proxy.log_line(|line| line["listener"] == "edge");
    assert_eq!((&line["close"], &line["end"]), (&"drain_cut".into(), &"KD".into()), "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once_in_each_phase() {
    for (keys, phase) in [("accept_for = \"60s\"", "accepting"), ("window = \"60s\"", "leaving")] {
        let origin = Origin::saying("one");
        let mut proxy = start(&origin, &format!("[drain.shutdown]\n{keys}\n"));
        let _tunnel = TcpStream::connect(proxy.address("tcp")).unwrap();
        eventually("the tunnel", || api(&proxy, "/v1/drain").1["node"].is_null());
        proxy.signal(Signal::TERM);
        eventually("it drains", || api(&proxy, "/v1/drain").1["node"]["phase"] == phase);
        let begun = Instant::now();
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.exit_code(PATIENCE), 0);
        assert!(begun.elapsed() < Duration::from_secs(2), "{phase}: {:?}", begun.elapsed());
    }
}

/// A signal's drain is told for what it is by whatever is asked meanwhile, waited for, and called off as any other.
#[test]
fn a_drain_by_a_signal_is_told_and_waited_for_and_may_be_called_off() {
    let origin = Origin::saying("one");
    let mut proxy = start(&origin, "[drain.shutdown]\nwindow = \"60s\"\n");
    let tunnel = TcpStream::connect(proxy.address("tcp")).unwrap();
    let leaves = || {
        proxy.signal(Signal::TERM);
        eventually("it leaves", || api(&proxy, "/v1/drain").1["node"]["phase"] == "leaving");
        assert_eq!(api(&proxy, "/v1/drain").1["node"]["by_signal"], true);
    };
    eventually("the tunnel", || metric(&proxy, "ringway_listener_connections_open{listener=\"tcp\"} 1"));
    leaves();
    let told = "node drains for shutdown already: the process ends when nothing is left\nnode: leaving, for shutdown; 1 ";
    assert!(drain(&proxy, &[]).starts_with(told), "{}", drain(&proxy, &[]));
    for (args, why) in [
        (
            &["drain", "--window", "5s"][..],
            "the node drains for shutdown already, and the process ends then: `--reason shutdown`",
        ),
        (
            &["upgrade"],
            "the node drains for shutdown, and the process ends then: `ringway drain --abort` calls that off",
        ),
        (&["reload"], "the process drains: it reloads no more"),
    ] {
        let ended = command(&proxy, args);
        assert!(ended.code == 1 && ended.stderr.contains(why), "{args:?}: {}", ended.stderr);
    }
    let said = drain(&proxy, &["--abort"]);
    assert!(said.starts_with("node does not drain any more; a signal had asked for its end"), "{said}");
    assert_eq!(api(&proxy, "/ready").0, 200);
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    assert_eq!(drain(&proxy, &["--abort"]), "node does not drain: there is nothing to call off");
    // A second signal after that is a first one.
    leaves();
    let admin = proxy.ready["admin"].as_str().unwrap();
    let mut waits = ringway().args(["drain", "--wait", "--admin", admin]).spawn().unwrap();
    let said = Lines::read(waits.stdout.take().unwrap());
    assert!(said.wait_for(|line| line.starts_with("node: leaving, for shutdown")).is_some());
    drop(tunnel);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    assert_eq!(exit_code(&mut waits, PATIENCE), 0);
    assert!(said.wait_for(|line| line == "node: the process has ended").is_some(), "{:?}", said.all());
}

/// In each phase, and twice: ready again, at the same address, with the same tunnel, and no request failed.
#[test]
fn a_drain_under_load_that_is_called_off_leaves_no_trace() {
    let origin = Origin::saying("one");
    let drains = "[drain.rebalance]\naccept_for = \"300ms\"\nwindow = \"60s\"\n";
    let proxy = start(&origin, drains);
    let (edge, tcp) = (proxy.edge(), proxy.address("tcp"));
    let over = &AtomicBool::new(false);
    let mut still = Client::connect(edge);
    assert_eq!(still.exchange(GET).status, 200);
    std::thread::scope(|scope| {
        let loads = [scope.spawn(|| keep_alive(edge, over)), scope.spawn(|| keep_alive(edge, over))];
        let new = scope.spawn(|| new_ones(edge, over));
        let tunnel = scope.spawn(|| count(tcp, over));
        for phase in ["accepting", "leaving", "accepting", "leaving"] {
            assert!(drain(&proxy, &["--node"]).starts_with("node: accepting, for rebalance"));
            assert_eq!(api(&proxy, "/ready").0, 503);
            if phase == "leaving" {
                eventually("nobody is let in", || Client::try_connect(edge).is_none());
            }
            assert_eq!(api(&proxy, "/v1/drain").1["node"]["phase"], phase);
            assert_eq!(drain(&proxy, &["--abort"]), "node does not drain any more");
            assert_eq!(api(&proxy, "/ready").0, 200);
            eventually("let in again", || Client::try_connect(edge).is_some());
            assert_eq!(Client::get(edge, "/").status, 200);
            pause(Duration::from_millis(300));
        }
        over.store(true, SeqCst);
        for load in loads {
            let seen = load.join().unwrap();
            assert!(seen.answers > 20 && seen.told > 0, "{seen:?}");
        }
        let seen = new.join().unwrap();
        assert!(seen.answers > 20 && seen.shut > 0, "{seen:?}");
        let (messages, ended) = tunnel.join().unwrap();
        assert!(messages > 20 && ended.is_none(), "{messages}");
    });
    // One that waited for a request is on the curve, of which little is over: most likely it is still there.
    still.send_anyway(GET);
    match still.try_response("GET") {
        Ok(response) => assert_eq!(response.field("connection"), None, "it stays"),
        Err(broken) => assert!(matches!(broken, Broken::Closed { bytes: 0, .. }), "{broken:?}"),
    }
    assert!(metric(&proxy, "ringway_drains_total{reason=\"rebalance\"} 4"));
}

#[test]
fn a_listener_drains_alone_and_is_shown() {
    let origin = Origin::saying("one");
    let other = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n";
    let proxy = start(&origin, other);
    let (edge, other) = (proxy.edge(), proxy.address("other"));
    let mut asks = Client::connect(edge);
    assert_eq!(asks.exchange(GET).field("connection"), None);
    let mut beside = Client::connect(other);
    assert_eq!(beside.exchange(GET).status, 200);
    let said = drain(&proxy, &["--listener", "edge", "--window", "60s"]);
    assert!(said.starts_with("listener edge: leaving, for rebalance; 1 connections left"), "{said}");
    eventually("nobody is let in", || Client::try_connect(edge).is_none());
    let status = command(&proxy, &["status"]).stdout;
    assert!(status.contains("drains: listener edge: leaving"), "{status}");
    assert_eq!(asks.exchange(GET).field("connection"), Some("close"));
    asks.expect_closed();
    assert_eq!(api(&proxy, "/ready").0, 200, "the node is ready");
    assert_eq!(beside.exchange(GET).field("connection"), None);
    let said = drain(&proxy, &["--listener", "edge", "--window", "60s", "--wait"]);
    assert!(said.ends_with("listener edge: drained, for rebalance; 0 connections left"), "{said}");
    // A reload leaves it closed, and does not forget where it was.
    let text = std::fs::read_to_string(&proxy.file).unwrap();
    reload(
        &proxy,
        &format!(
            "{text}\n[[route]]\nname = \"r\"\nmatch = {{ path = \"/r\" }}\nrespond = {{ status = 299 }}\n"
        ),
    );
    assert!(Client::try_connect(edge).is_none());
    assert_eq!(drain(&proxy, &["--listener", "edge", "--abort"]), "listener edge does not drain any more");
    assert_eq!(Client::get(edge, "/r").status, 299, "at once, at the port that it had");
    assert!(!command(&proxy, &["status"]).stdout.contains("drains:"));
    assert_eq!(command(&proxy, &["drain", "--listener", "nobody"]).code, 2);
    // One that a reload takes away is shown as long as it has connections.
    let mut slow = TcpStream::connect(proxy.address("tcp")).unwrap();
    slow.write_all(b"x").unwrap();
    slow.read_exact(&mut [0]).unwrap();
    let (head, rest) = text.split_once("[[listener]]\nname = \"tcp\"").unwrap();
    let (_, rest) = rest.split_once("cluster = \"echo\"\n").unwrap();
    reload(&proxy, &format!("{head}{rest}"));
    let status = command(&proxy, &["status"]).stdout;
    assert!(status.contains("drains: listener tcp: leaving, for reload; 1 connections left"), "{status}");
}

/// Where somebody took the address meanwhile, it goes on draining, and says why.
#[test]
fn an_address_that_is_taken_meanwhile_is_told() {
    let origin = Origin::saying("one");
    let proxy = start(&origin, "");
    let edge = proxy.edge();
    drain(&proxy, &["--listener", "edge", "--wait"]);
    let mut taken = None;
    eventually("the address is free", || {
        taken = TcpListener::bind(edge).ok();
        taken.is_some()
    });
    let ended = command(&proxy, &["drain", "--listener", "edge", "--abort"]);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(
        ended.stderr.contains("it drains on") && ended.stderr.contains("(listener edge)"),
        "{}",
        ended.stderr
    );
    assert_eq!(api(&proxy, "/v1/drain").1["listeners"][0]["name"], "edge");
    drop(taken);
    drain(&proxy, &["--listener", "edge", "--abort"]);
    assert_eq!(Client::get(edge, "/").status, 200);
}

#[test]
fn a_unix_socket_is_there_again() {
    let origin = Origin::saying("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let local =
        format!("[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\ncluster = \"app\"\n", path.display());
    let proxy = start(&origin, &local);
    let ask = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    assert!(ask().unwrap().contains("200"));
    drain(&proxy, &["--listener", "local"]);
    assert!(ask().is_err() && !path.exists());
    drain(&proxy, &["--listener", "local", "--abort"]);
    eventually("it answers", || ask().is_ok_and(|answer| answer.contains("200")));
}

/// Somebody else's socket is not made deaf: who comes meanwhile waits in its queue, and is served when it is over.
#[test]
fn an_inherited_socket_is_taken_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    crate::sockets::pass(&listener);
    let origin = Origin::saying("one");
    let lent = format!(
        "[[listener]]\nname = \"lent\"\naddress = \"fd:{}\"\ncluster = \"app\"\n",
        listener.as_raw_fd()
    );
    let proxy = start(&origin, &lent);
    for _ in 0..2 {
        assert_eq!(Client::get(at, "/").status, 200);
        drain(&proxy, &["--listener", "lent", "--wait"]);
        // Until then the socket may be accepted from: its queue is emptied before it is let go.
        pause(Duration::from_millis(600));
        let mut waits = Client::connect(at);
        waits.send(GET);
        waits.expect_silence(Duration::from_millis(100));
        drain(&proxy, &["--listener", "lent", "--abort"]);
        assert_eq!(waits.response("GET").status, 200);
    }
}

#[test]
fn a_cluster_or_endpoint_drains_and_what_runs_there_ends() {
    let origin = Origin::saying("one");
    let proxy = start(&origin, "");
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(GET).text(), "one");
    let mut tunnel = TcpStream::connect(proxy.address("tcp")).unwrap();
    tunnel.write_all(b"x").unwrap();
    tunnel.read_exact(&mut [0]).unwrap();
    let said = drain(&proxy, &["--cluster", "app", "--wait"]);
    assert!(said.contains("cluster app: drained; 0 running"), "{said}");
    let refused = client.exchange(GET);
    assert_eq!((refused.status, refused.reason()), (503, "no_endpoint"));
    eventually("pooled links are closed", || api(&proxy, "/v1/drain").1["clusters"][0]["links"] == 0);
    // What was said of an endpoint meanwhile holds afterwards, and not before.
    let name = format!("app/{}", origin.address);
    assert_eq!(command(&proxy, &["set", &name, "ready"]).code, 0);
    assert_eq!(client.exchange(GET).status, 503);
    drain(&proxy, &["--cluster", "echo"]);
    tunnel.write_all(b"x").unwrap();
    tunnel.read_exact(&mut [0]).unwrap();
    let shown = api(&proxy, "/v1/drain").1;
    assert_eq!(shown["clusters"][1]["running"], 1, "{shown}");
    assert_eq!(shown["clusters"][1]["phase"], "leaving", "{shown}");
    assert_eq!(drain(&proxy, &["--cluster", "app", "--abort"]), "cluster app does not drain any more");
    let again = drain(&proxy, &["--cluster", "app", "--abort"]);
    assert_eq!(again, "cluster app does not drain: there is nothing to call off");
    assert_eq!(client.exchange(GET).text(), "one", "on the same connection");
    // One word and one mechanism for an endpoint, whoever says it.
    drain(&proxy, &["--endpoint", &name]);
    let endpoint = format!("/v1/clusters/app/endpoints/{}", origin.address);
    assert_eq!(api(&proxy, &endpoint).1["state"], "drain");
    assert_eq!(client.exchange(GET).status, 503);
    drain(&proxy, &["--endpoint", &name, "--abort"]);
    assert_eq!(
        (api(&proxy, &endpoint).1["state"].clone(), client.exchange(GET).status),
        ("ready".into(), 200)
    );
    assert_eq!(command(&proxy, &["drain", "--cluster", "nobody"]).code, 2);
}

/// `--wait` stays until the process is gone; `rebalance` leaves it there, and SIGTERM ends it from there.
#[test]
fn the_reason_decides_what_is_at_the_end() {
    let origin = Origin::saying("one");
    for reason in ["shutdown", "deploy"] {
        let mut proxy = start(&origin, "");
        let said = drain(&proxy, &["--node", "--reason", reason, "--wait"]);
        assert!(said.ends_with("node: the process has ended"), "{said}");
        assert_eq!(proxy.exit_code(PATIENCE), 0);
    }
    let mut proxy = start(&origin, "");
    let said = drain(&proxy, &["--wait"]);
    assert!(
        said.ends_with("node: drained, for rebalance; 0 connections, 0 requests, 0 tunnels left"),
        "{said}"
    );
    assert!(Client::try_connect(proxy.edge()).is_none());
    assert_eq!(api(&proxy, "/live").0, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    // Nobody answers any more.
    let admin = proxy.ready["admin"].as_str().unwrap().to_owned();
    let ended = crate::support::proxy::call(ringway().args(["drain", "--admin", &admin]));
    assert_eq!(ended.code, 69);
}
