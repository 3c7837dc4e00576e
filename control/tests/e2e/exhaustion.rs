//! What runs out: local ports and descriptors. New work is shed with a reason, established flows go on, nothing spins.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{eventually, pause};
use rustix::process::{Resource, Rlimit, prlimit};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// CPU time of the process and all its threads so far, in the kernel too.
pub(super) fn cpu(proxy: &Proxy) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.child.id())).expect("its threads");
    let nanos = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Requests to `path`, one after the other over a few connections; what all of them were told, and the CPU of one.
fn cost_of_each(proxy: &Proxy, path: &str, told: (u16, &str)) -> Duration {
    const EACH: u32 = 200;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(proxy.edge())).collect();
    let before = cpu(proxy);
    for client in &mut clients {
        for _ in 0..EACH {
            let response = client.exchange(&request);
            assert_eq!((response.status, response.reason()), told);
        }
    }
    (cpu(proxy) - before) / (EACH * 10)
}

/// Threat D06: two addresses of fifty ports each are filled; twenty times as many requests are refused at once, and each
/// costs little more than any other refusal. A connection that ends makes room for one.
#[test]
fn local_ports_run_out_and_come_back() {
    // More than there are ports; some of those may be another socket's that is bound to all addresses.
    const ASKED: usize = 120;
    let held = Arc::new(AtomicBool::new(true));
    let hold = Arc::clone(&held);
    let origin = Origin::scripted(move |connection| {
        let Some(request) = connection.request() else { return };
        while request.target == "/held" && hold.load(SeqCst) {
            pause(Duration::from_millis(5));
        }
        connection.send(sized(200, b"ok"));
        // It ends the connection, so that the port is free at once.
    });
    let cluster = "source_addresses = [\"127.0.66.1-127.0.66.2\"]\nsource_ports = \"40000-40049\"";
    let tables = "[[route]]\nmatch = { path_prefix = \"/none\" }\nrespond = { status = 404 }\n";
    let proxy = Setup { endpoints: &[origin.address], cluster, tables, ..Setup::default() }.start();
    let mut all: Vec<_> = (0..ASKED).map(|_| Client::connect(proxy.edge())).collect();
    for client in &mut all {
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let refusals = || proxy.log_lines().iter().filter(|line| line["reason"] == "ports_exhausted").count();
    eventually("all ports to be used", || origin.head_count() + refusals() == ASKED);
    let held_by_us = origin.head_count();
    assert!((85..=100).contains(&held_by_us), "{held_by_us} of 100 ports");
    let began = Instant::now();
    let refused = cost_of_each(&proxy, "/", (503, "ports_exhausted"));
    assert!(began.elapsed() < Duration::from_secs(20));
    let plain = cost_of_each(&proxy, "/none", (404, ""));
    println!("CPU of a refusal without ports {refused:?}, of an answer of our own {plain:?}");
    assert!(
        refused < plain * 3 + Duration::from_micros(50),
        "{refused:?} for a refusal, {plain:?} for an answer"
    );
    let warned = proxy.stderr.wait_for(|line| line.contains("local ports run short"));
    assert!(
        warned.is_some_and(|line| line.contains("100")),
        "a warning names what is used and what there is"
    );
    held.store(false, SeqCst);
    let served = all.iter_mut().map(|client| client.response("GET")).filter(|r| r.status == 200).count();
    assert_eq!(served, held_by_us, "established flows end well");
    eventually("a port to be free", || Client::get(proxy.edge(), "/").status == 200);
    assert!(proxy.stderr.wait_for(|line| line.contains("no longer run short")).is_some());
}

/// Threat D05: an attacker takes every descriptor. Established connections go on, new ones wait or are refused, the
/// shards do not spin, and when the attacker leaves all is as before.
#[test]
fn descriptors_taken_by_an_attacker() {
    let origin = Origin::saying("one");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut established: Vec<_> = (0..10).map(|_| Client::connect(proxy.edge())).collect();
    for client in &mut established {
        assert_eq!(client.exchange(GET).status, 200);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).expect("its descriptors").count();
    let limit = Rlimit { current: Some(open as u64 + 40), maximum: Some(open as u64 + 40) };
    prlimit(Some(proxy.pid()), Resource::Nofile, limit).expect("a lower limit for the child");
    let attack: Vec<_> = (0..400).filter_map(|_| TcpStream::connect(proxy.edge()).ok()).collect();
    assert!(attack.len() > 100, "the kernel's backlog takes them");
    eventually("no descriptor to be left", || {
        std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).expect("its descriptors").count()
            >= open + 38
    });
    let before = cpu(&proxy);
    let began = Instant::now();
    for round in 0..20 {
        for (n, client) in established.iter_mut().enumerate() {
            let response = client.exchange(GET);
            let told = (response.status, response.reason());
            // A link that was closed to free its descriptor cannot be opened anew: a reason, and the connection stays.
            assert!(told == (200, "") || told.0 == 503, "client {n} in round {round}: {told:?}");
        }
        pause(Duration::from_millis(50));
    }
    let (used, took) = (cpu(&proxy) - before, began.elapsed());
    println!("{used:?} of CPU in {took:?} without descriptors");
    assert!(used * 4 < took, "{used:?} of CPU in {took:?}: it spins");
    drop(attack);
    eventually("everything to be as before", || {
        established.iter_mut().all(|client| client.exchange(GET).status == 200)
            && Client::get(proxy.edge(), "/").status == 200
    });
}
