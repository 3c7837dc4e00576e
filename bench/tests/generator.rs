//! The generator, the origin and the floors as processes: nothing is lost on the way, and a stall is seen as what it is.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const BENCH: &str = env!("CARGO_BIN_EXE_ringway-bench");
const QUICK: [&str; 6] = ["--seconds", "0.6", "--warm-up", "0.1", "--connections", "8"];
/// How many windows a run is given, should the machine be busy elsewhere.
const WINDOWS: u32 = 5;

/// A process that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test saw as an error of its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(args: &[&str]) -> Server {
    let mut child = Command::new(BENCH).args(args).stdout(Stdio::piped()).spawn().expect("a server");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its line");
    let said: Value = serde_json::from_str(&line).expect("where it listens, as JSON");
    Server { child, address: said["listening"].as_str().expect("an address").to_owned() }
}

fn last_line(output: &[u8]) -> Value {
    let text = String::from_utf8_lossy(output);
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a report, as JSON")
}

/// Runs the generator. A window in which nothing at all happened, not even an error, is one in which the machine gave no
/// time to one of the processes: it is run again.
fn load(target: &str, args: &[&str]) -> Value {
    let mut said = Vec::new();
    for _ in 0..WINDOWS {
        let output = Command::new(BENCH)
            .args(["load", "--target", target])
            .args(QUICK)
            .args(args)
            .output()
            .expect("the generator");
        said.push(String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(!output.stdout.is_empty(), "{args:?}: {}: {said:?}", output.status);
        let report = last_line(&output.stdout);
        if output.status.success() {
            return report;
        }
        without_errors(&report);
    }
    panic!("{args:?}: nothing happened in {WINDOWS} windows: {said:?}");
}

fn without_errors(report: &Value) {
    let errors = report["errors"].as_object().expect("errors");
    assert!(errors.values().all(|n| n == 0), "{report}");
}

fn requests(report: &Value) -> u64 {
    without_errors(report);
    report["requests"].as_u64().expect("a count")
}

const RELAYS: [&[&str]; 4] = [&["epoll"], &["uring"], &["uring", "--recv", "multishot"], &["splice"]];

fn floor(kind: &[&str], origin: &Server) -> Server {
    serve(&[&["floor"], kind, &["--origin", &origin.address]].concat())
}

#[test]
fn relays_lose_nothing() {
    let origin = serve(&["origin"]);
    for kind in RELAYS {
        let relay = floor(kind, &origin);
        assert!(requests(&load(&relay.address, &[])) > 0, "{kind:?}");
        let bodies = load(&relay.address, &["--path", "/bytes/300000", "--upload", "200000"]);
        let (count, down) = (requests(&bodies), bodies["bytes_down"].as_u64().unwrap_or(0));
        assert!(count > 0 && down > count * 300_000, "{kind:?}: {bodies}");
    }
}

#[test]
fn relays_echo_and_carry_bulk() {
    let [echo, sink, source] = ["echo", "sink", "source"].map(|raw| serve(&["origin", "--raw", raw]));
    for kind in RELAYS {
        let relay = floor(kind, &echo);
        assert!(requests(&load(&relay.address, &["--mode", "ping-pong"])) > 0, "{kind:?}");
        for (origin, direction, bytes) in [(&sink, "up", "bytes_up"), (&source, "down", "bytes_down")] {
            let relay = floor(kind, origin);
            let report = load(&relay.address, &["--mode", "stream", "--direction", direction]);
            without_errors(&report);
            assert!(report[bytes].as_u64() > Some(1 << 20), "{kind:?}: {report}");
        }
    }
}

#[test]
fn tunnels_behind_an_upgrade_carry_messages_and_bulk() {
    let [echo, source] = ["echo", "source"].map(|raw| serve(&["origin", "--raw", raw, "--upgrade"]));
    for kind in RELAYS {
        let relay = floor(kind, &echo);
        assert!(requests(&load(&relay.address, &["--mode", "ping-pong", "--upgrade"])) > 0, "{kind:?}");
        let relay = floor(kind, &source);
        let report = load(&relay.address, &["--mode", "stream", "--upgrade"]);
        without_errors(&report);
        assert!(report["bytes_down"].as_u64() > Some(1 << 20), "{kind:?}: {report}");
    }
    // An origin that takes no upgrade is an error, not a tunnel.
    let http = serve(&["origin"]);
    let mut command = Command::new(BENCH);
    command.args(["load", "--target", &http.address]).args(QUICK).args(["--mode", "stream", "--upgrade"]);
    let output = command.stderr(Stdio::null()).output().expect("the generator");
    assert!(last_line(&output.stdout)["errors"]["connect"].as_u64() > Some(0) && !output.status.success());
}

#[test]
fn several_origins_share_an_address() {
    let first = serve(&["origin", "--reuse-port"]);
    let _second = serve(&["origin", "--reuse-port", "--listen", &first.address]);
    assert!(requests(&load(&first.address, &["--mode", "close"])) > 0);
}

#[test]
fn a_connection_per_request_is_one_answer_each() {
    let origin = serve(&["origin"]);
    for server in [&origin, &serve(&["floor", "accept"]), &floor(&["accept-connect"], &origin)] {
        assert!(requests(&load(&server.address, &["--mode", "close"])) > 0);
    }
}

#[test]
fn idle_connections_are_held_until_standard_input_closes() {
    let servers: [(&[&str], &[&str]); 4] = [
        (&["floor", "idle-epoll"], &[]),
        (&["floor", "idle-uring"], &[]),
        (&["origin", "--raw", "echo"], &["--message"]),
        (&["origin", "--raw", "echo", "--upgrade"], &["--upgrade"]),
    ];
    for (kind, asks) in servers {
        let server = serve(kind);
        let mut generator = Command::new(BENCH)
            .args(["load", "--target", &server.address, "--mode", "idle", "--connections", "300"])
            .args(asks)
            .args(["--seconds", "60", "--source-addresses", "127.0.0.1-127.0.0.3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the generator");
        let mut output = BufReader::new(generator.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "{\"idle\":300}", "{kind:?}");
        drop(generator.stdin.take());
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).expect("the report");
        assert_eq!(requests(&last_line(&rest)), 300);
        assert!(generator.wait().expect("its end").success());
    }
}

#[test]
fn some_connections_can_be_idle_beside_the_active_ones() {
    let origin = serve(&["origin"]);
    assert!(requests(&load(&origin.address, &["--connections", "50", "--active", "5"])) > 0);
}

/// Answers on one connection, and stops for 300 ms once, in the middle.
fn stall(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("the generator's connection");
    let (_open, pause) = mpsc::channel::<()>();
    let (mut buffer, mut answered) = ([0; 4096], 0);
    while stream.read(&mut buffer).is_ok_and(|len| len > 0) {
        answered += 1;
        if answered == 60 {
            let _ = pause.recv_timeout(Duration::from_millis(300));
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

#[test]
fn a_stall_is_charged_to_every_request_that_came_due_in_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let target = listener.local_addr().expect("its address").to_string();
    let server = std::thread::spawn(move || stall(&listener));
    let args = ["--connections", "1", "--rate", "200", "--seconds", "1"];
    let mut command = Command::new(BENCH);
    command.args(["load", "--target", &target, "--warm-up", "0.1"]).args(args).stderr(Stdio::null());
    let report = last_line(&command.output().expect("the generator").stdout);
    server.join().expect("the server");
    assert_eq!(requests(&report), 200, "{report}");
    let latency = |name: &str| report["latency_us"][name].as_f64().expect("a latency");
    assert!(latency("max") >= 250_000.0, "{report}");
    // 300 ms of 200 requests/s: 60 of 200 requests waited, half of them above 150 ms. A generator that waits with its
    // target would have seen one.
    assert!(latency("p90") >= 100_000.0, "{report}");
}

#[test]
fn validation_names_the_limit() {
    let origin = serve(&["origin"]);
    let report = load(&origin.address, &["--validate", &origin.address, "--rate", "500"]);
    assert!(report["direct_rps"].as_f64() > Some(0.0) && report["generator_is_limit"] == false, "{report}");
}

#[test]
fn nothing_listening_is_a_failure() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    let mut command = Command::new(BENCH);
    command.args(["load", "--target", &free]).args(QUICK).stderr(Stdio::null());
    let output = command.output().expect("the generator");
    let report = last_line(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["errors"]["connect"].as_u64() > Some(0), "{report}");
}

#[test]
fn requests_in_pieces_are_answered_once() {
    let origin = serve(&["origin"]);
    let mut stream = TcpStream::connect(&origin.address).expect("a connection");
    let pieces: [&[u8]; 4] = [
        b"GET /bytes/",
        b"3 HTTP/1.1\r\nHost: a\r",
        b"\n\r\nGET /status/404 HTTP/1.1\r\nConn",
        b"ection: close\r\n\r\n",
    ];
    stream.set_nodelay(true).expect("no delay");
    for piece in pieces {
        stream.write_all(piece).expect("a piece sent");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nxxxHTTP/1.1 404"), "{answer}");
    assert!(answer.ends_with("Content-Length: 0\r\n\r\n"), "{answer}");
}
