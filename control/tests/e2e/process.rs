//! The process: calls and exit codes, the ready line, signals, drain, faults, a machine that refuses.

use crate::support::client::{Broken, Client};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Lines, Setup, call, exit_code, file, ringway};
use crate::support::{PATIENCE, closed_port, eventually, pause, seccomp, skip};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const REPLY: &str = "[[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200, body = \"ok\" }\n";
const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_wrong_configuration_exits_1_with_every_line_and_column() {
    let (_dir, path) =
        file("[runtime]\nshards = \"many\"\n[[listener]]\nname = \"edge\"\nadress = \"127.0.0.1:0\"\n");
    for command in ["run", "check"] {
        let ended = call(ringway().arg(command).arg("-c").arg(&path));
        assert_eq!(ended.code, 1, "{command}: {}", ended.stderr);
        for place in [":2:10: error: ", ":5:1: error: "] {
            let wanted = format!("{}{place}", path.display());
            assert!(ended.stderr.contains(&wanted), "{command}: {wanted} in {}", ended.stderr);
        }
        assert!(ended.stderr.contains("nearest: address"), "{}", ended.stderr);
    }
    let ended = call(ringway().args(["check", "--json", "-c"]).arg(&path));
    assert_eq!(ended.code, 1);
    let _: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(call(ringway().args(["run", "-c", "/nonexistent/ringway.toml"])).code, 1);
}

#[test]
fn a_right_configuration_checks_with_0() {
    let (_dir, path) = file(&Setup { tables: REPLY, ..Setup::default() }.text());
    let ended = call(ringway().arg("check").arg("-c").arg(&path));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn wrong_calls_exit_2() {
    for args in [&["serve"][..], &["run"], &["plan"], &["doctor", "--profile", "fast"], &["--what"]] {
        let ended = call(ringway().args(args));
        assert_eq!(ended.code, 2, "{args:?}");
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{args:?}");
    }
    let version = call(ringway().arg("--version"));
    assert_eq!((version.code, version.stdout.starts_with("ringway ")), (0, true));
    assert!(call(ringway().arg("--help")).stdout.contains("Exit codes"));
}

#[test]
fn the_ready_line_names_every_address() {
    let text = format!(
        "[runtime]\nshards = 3\n[[listener]]\nname = \"one\"\naddress = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\n\
         [[listener]]\nname = \"two\"\naddress = \"127.0.0.1:0\"\n{REPLY}"
    );
    let proxy = crate::support::proxy::Proxy::start(&text);
    let line = proxy.stdout.all()[0].clone();
    assert!(
        line.starts_with("{\"ready\":true,\"listeners\":[{\"name\":\"one\",\"address\":\"127.0.0.1:"),
        "{line}"
    );
    assert!(line.ends_with("],\"admin\":null,\"shards\":3,\"backend\":\"io_uring\"}"), "{line}");
    let listeners = proxy.ready["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 3);
    for listener in listeners {
        let address = listener["address"].as_str().unwrap().parse().unwrap();
        assert_eq!(Client::get(address, "/").text(), "ok", "{listener}");
    }
}

#[test]
fn systemd_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = Setup { tables: REPLY, ..Setup::default() }.text();
    let proxy = crate::support::proxy::Proxy::start_with(&text, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let mut told = [0; 64];
    let mut hear = || {
        let n = socket.recv(&mut told).expect("a notice");
        String::from_utf8_lossy(&told[..n]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    proxy.signal(Signal::INT);
    assert_eq!(hear(), "STOPPING=1");
}

/// Taken by a stranger, and by another ringway, whose SO_REUSEPORT must not let us share its traffic.
#[test]
fn a_taken_port_is_one_line_that_names_it() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = Setup { tables: REPLY, ..Setup::default() }.start();
    for address in [stranger.local_addr().unwrap(), other.edge()] {
        let (_dir, path) = file(&format!("[[listener]]\nname = \"edge\"\naddress = \"{address}\"\n{REPLY}"));
        let ended = call(ringway().arg("run").arg("-c").arg(&path));
        assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{}", ended.stderr);
        let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("cannot listen")).collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains(&address.to_string()) && lines[0].contains("edge"), "{}", lines[0]);
    }
    assert_eq!(Client::get(other.edge(), "/").status, 200);
}

#[test]
fn a_machine_that_refuses_io_uring_exits_3_and_says_what_to_change() {
    let (_dir, path) = file(&Setup { tables: REPLY, ..Setup::default() }.text());
    let mut command = ringway();
    command.arg("run").arg("-c").arg(&path);
    seccomp::refuse_io_uring(&mut command);
    let ended = call(&mut command);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{}", ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("io_uring")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    assert!(lines[0].contains("seccomp"), "{}", lines[0]);
}

/// Ports 8080 and 9000 are the demo's, so this test may find them taken.
#[test]
fn the_demo() {
    let mut child = ringway().spawn().unwrap();
    let stdout = Lines::read(child.stdout.take().unwrap());
    let stderr = Lines::read(child.stderr.take().unwrap());
    if stdout.wait_for(|line| line.contains("curl -i http://127.0.0.1:8080/")).is_none() {
        let told = stderr.all().join("\n");
        assert_eq!(exit_code(&mut child, PATIENCE), 3, "{told}");
        assert!(told.contains("cannot listen on 127.0.0."), "{told}");
        return skip("a port of the demo is taken");
    }
    let edge = "127.0.0.1:8080".parse().unwrap();
    let mut bodies: Vec<_> = (0..3).map(|_| Client::get(edge, "/").text().to_owned()).collect();
    assert!(bodies.iter().all(|body| body.contains(" -->> 127.0.0.")), "{bodies:?}");
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 3, "three origins: {bodies:?}");
    let begun = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(exit_code(&mut child, PATIENCE), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// An origin whose answers wait for the test: the sender lets one go.
fn gated() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::answering(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        sized(200, b"finished")
    });
    (origin, release)
}

#[test]
fn a_drain_lets_what_runs_finish_and_takes_nothing_new() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let (origin, release) = gated();
        let tables = "[drain.shutdown]\ncurve = \"immediate\"\n";
        let mut proxy = Setup { endpoints: &[origin.address], tables, ..Setup::default() }.start();
        let edge = proxy.edge();
        let mut idle = Client::connect(edge);
        idle.send(ASK);
        release.send(()).unwrap();
        assert_eq!(idle.response("GET").text(), "finished");
        let mut running = Client::connect(edge);
        running.send(ASK);
        eventually("the request at the origin", || origin.request_count() == 2);
        proxy.signal(signal);
        // An idle connection is closed at once, a new one is not accepted.
        idle.expect_closed();
        eventually("no new connections", || std::net::TcpStream::connect(edge).is_err());
        assert!(proxy.child.try_wait().unwrap().is_none(), "it waits for what runs");
        release.send(()).unwrap();
        let response = running.response("GET");
        assert_eq!((response.text(), response.field("connection")), ("finished", Some("close")));
        running.expect_closed();
        assert_eq!(proxy.exit_code(PATIENCE), 0);
    }
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let (origin, _release) = gated();
    let runtime = "drain_timeout = \"300ms\"";
    let mut proxy = Setup { runtime, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(ASK);
    eventually("the request at the origin", || origin.request_count() == 1);
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(Duration::from_secs(4)), 0);
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert!(matches!(client.try_response("GET"), Err(Broken::Closed { .. })));
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let (origin, _release) = gated();
    let mut proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(ASK);
    eventually("the request at the origin", || origin.request_count() == 1);
    proxy.signal(Signal::TERM);
    assert!(proxy.stderr.wait_for(|line| line.contains("draining")).is_some());
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn int_ends_at_once() {
    let (origin, _release) = gated();
    let mut proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(ASK);
    eventually("the request at the origin", || origin.request_count() == 1);
    let begun = Instant::now();
    proxy.signal(Signal::INT);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(matches!(client.try_response("GET"), Err(Broken::Closed { .. })));
}

#[test]
fn an_idle_process_drains_at_once() {
    let mut proxy = Setup { tables: REPLY, ..Setup::default() }.start();
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(Duration::from_secs(3)), 0);
}

/// It never serves with a hole among its shards.
#[test]
fn a_shard_that_panics_or_stalls_ends_the_process_with_70() {
    for (fault, word) in [("panic", "panic"), ("stall", "stalled")] {
        let text = Setup { tables: REPLY, ..Setup::default() }.text();
        let mut proxy = crate::support::proxy::Proxy::start_with(&text, |command| {
            command.env("RINGWAY_INJECT", fault);
        });
        assert_eq!(proxy.exit_code(Duration::from_secs(8)), 70, "{fault}");
        let told = proxy.stderr.wait_for(|line| line.contains("ERROR") && line.contains(word));
        assert!(told.is_some(), "{fault}: {:?}", proxy.stderr.all());
        if fault == "panic" {
            let place = proxy.stderr.wait_for(|line| line.contains(".rs:"));
            assert!(place.is_some(), "where: {:?}", proxy.stderr.all());
        }
    }
}

/// Threat D10: a stopped process is not a stalled shard.
#[test]
fn a_stopped_process_goes_on_where_it_was() {
    let proxy = Setup { tables: REPLY, ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(ASK).status, 200);
    proxy.signal(Signal::STOP);
    pause(Duration::from_millis(2500));
    proxy.signal(Signal::CONT);
    assert_eq!(client.exchange(ASK).status, 200);
    // Longer than the watchdog's next looks.
    pause(Duration::from_millis(400));
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
}

#[test]
fn an_access_log_that_cannot_be_opened_exits_3() {
    let text = format!("{REPLY}[[access_log]]\nto = \"file:/nonexistent/access.log\"\n");
    let (_dir, path) = file(&Setup { tables: &text, ..Setup::default() }.text());
    let ended = call(ringway().arg("run").arg("-c").arg(&path));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("/nonexistent/access.log"), "{}", ended.stderr);
}

#[test]
fn a_dead_cluster_does_not_keep_it_from_starting() {
    let proxy = Setup { endpoints: &[closed_port()], ..Setup::default() }.start();
    assert_eq!(Client::get(proxy.edge(), "/").status, 502);
}
