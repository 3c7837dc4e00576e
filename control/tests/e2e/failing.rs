//! Endpoints that fail live requests, with the real binary and eight shards: ejected, shut off by a breaker, replaced by a
//! backup; and what the process log says of it.

use crate::support::client::{Client, Response};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{closed_port, eventually, pause};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn start(origins: &[&Origin], tables: &str) -> Proxy {
    let endpoints: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    Setup { runtime: "shards = 8", endpoints: &endpoints, tables, ..Setup::default() }.start()
}

/// So many clients, one after the other, each with a connection of its own.
fn ask(proxy: &Proxy, count: usize) -> Vec<Response> {
    (0..count).map(|_| Client::get(proxy.edge(), "/")).collect()
}

fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

/// An origin that answers 500 while it is told to.
fn moody() -> (Origin, Arc<AtomicBool>) {
    let bad = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&bad);
    let answer = move |_: &_| sized(if told.load(SeqCst) { 500 } else { 200 }, b"moody");
    (Origin::answering(answer), bad)
}

fn expect_log(proxy: &Proxy, words: &str) {
    let line = proxy.stderr.wait_for(|line| line.contains(words));
    assert!(line.is_some(), "no line says {words:?}: {:?}", proxy.stderr.all());
}

#[test]
fn errors_in_a_row_eject_and_time_readmits() {
    let ((bad, is_bad), good) = (moody(), Origin::saying("good"));
    let rules = "[cluster.outlier]\nconsecutive_failures = 3\nejection_time = \"1s\"\n";
    let proxy = start(&[&bad, &good], rules);
    let responses = ask(&proxy, 60);
    assert_eq!((count(&responses, 500), count(&responses, 200)), (3, 57));
    expect_log(&proxy, "ejected for 1000 ms after 3 failures in a row");
    is_bad.store(false, SeqCst);
    expect_log(&proxy, "readmitted, its time is over");
    let asked = bad.request_count();
    assert_eq!(count(&ask(&proxy, 20), 200), 20);
    assert!(bad.request_count() >= asked + 8, "it takes its share again");
}

#[test]
fn a_high_rate_of_errors_ejects() {
    let turn = AtomicUsize::new(0);
    let bad = Origin::answering(move |_| {
        sized(if turn.fetch_add(1, SeqCst).is_multiple_of(3) { 200 } else { 503 }, b"bad")
    });
    let good = Origin::saying("good");
    let rules = "[cluster.outlier]\nconsecutive_failures = \"off\"\nfailure_rate = 0.5\nminimum_volume = 20\n\
                 window = \"5s\"\nejection_time = \"60s\"\n";
    let proxy = start(&[&bad, &good], rules);
    eventually("it is ejected", || {
        ask(&proxy, 20);
        proxy.stderr.all().iter().any(|line| line.contains("% of its requests failed"))
    });
    assert_eq!(count(&ask(&proxy, 30), 200), 30);
}

/// Eight shards, a hundred clients at once: while the breaker is open nothing reaches the origin, and the half-open one lets
/// exactly one request through.
#[test]
fn one_trial_for_the_whole_node() {
    let (bad, slow) = (Arc::new(AtomicBool::new(true)), Duration::from_millis(700));
    let told = Arc::clone(&bad);
    let origin = Origin::answering(move |_| {
        if told.load(SeqCst) {
            return sized(500, b"bad");
        }
        pause(slow);
        sized(200, b"well again")
    });
    let rules = "[cluster.circuit_breaker]\nfailure_threshold = 5\nrecovery_timeout = \"2s\"\n";
    let proxy = start(&[&origin], rules);
    assert_eq!(count(&ask(&proxy, 5), 500), 5);
    let began = Instant::now();
    let refused = ask(&proxy, 40);
    let each = began.elapsed() / 40;
    assert_eq!((count(&refused, 503), origin.request_count()), (40, 5));
    assert!(refused.iter().all(|r| r.reason() == "circuit_open"));
    assert!(refused.iter().all(|r| matches!(r.field("retry-after"), Some("1" | "2"))));
    assert!(each < Duration::from_millis(50), "{each:?} for each, a new connection included");
    bad.store(false, SeqCst);
    pause(Duration::from_millis(2_200).saturating_sub(began.elapsed()));
    let edge = proxy.edge();
    let clients: Vec<_> = (0..100).map(|_| std::thread::spawn(move || Client::get(edge, "/"))).collect();
    let responses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!((count(&responses, 200), count(&responses, 503), origin.request_count()), (1, 99, 6));
    for words in
        ["opened after 5 failures in a row", "half-open, one request tries", "closed, the trial went well"]
    {
        expect_log(&proxy, words);
    }
    assert_eq!(count(&ask(&proxy, 5), 200), 5);
}

#[test]
fn a_backup_serves_while_the_primary_is_dead() {
    let (dead, backup) = (closed_port(), Origin::saying("backup"));
    let tables = format!(
        "[[cluster]]\nname = \"app\"\noutlier = {{ max_ejected_percent = 100 }}\n\
         endpoints = [\"{dead}\", {{ address = \"{}\", backup = true }}]\n",
        backup.address
    );
    let listener = "cluster = \"app\"";
    let proxy = Setup { runtime: "shards = 8", listener, tables: &tables, ..Setup::default() }.start();
    assert_eq!(count(&ask(&proxy, 50), 200), 50);
    expect_log(&proxy, "ejected for 30000 ms after 5 failures in a row");
    let attempts: Vec<_> = proxy.log_lines().iter().filter_map(|line| line["attempts"].as_u64()).collect();
    assert!(attempts.iter().filter(|n| **n == 2).count() >= 5, "{attempts:?}");
    assert_eq!(attempts.last(), Some(&1), "nobody tries what is ejected: {attempts:?}");
}

/// A cluster stands in for another while that has no endpoint left, on http and on tcp listeners.
#[test]
fn a_cluster_stands_in_for_another() {
    let (dead, stand_in) = (closed_port(), Origin::saying("stand-in"));
    let tables = format!(
        "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \"www\"\n\
         [[route]]\nmatch = {{ available = {{ cluster = \"www\", below = 1 }} }}\ncluster = \"backup\"\n\
         [[route]]\nlisteners = [\"plain\"]\nmatch = {{ not = {{ available = {{ cluster = \"www\", at_least = 1 }} }} }}\n\
         cluster = \"backup\"\n\
         [[route]]\ncluster = \"www\"\n\
         [[cluster]]\nname = \"www\"\nendpoints = [\"{dead}\"]\n\
         outlier = {{ consecutive_failures = 1, max_ejected_percent = 100, ejection_time = \"1s\" }}\n\
         [[cluster]]\nname = \"backup\"\nendpoints = [\"{}\"]\n",
        stand_in.address
    );
    let proxy = Setup { runtime: "shards = 8", tables: &tables, ..Setup::default() }.start();
    assert_eq!(Client::get(proxy.edge(), "/").status, 502, "it is not known yet that it is dead");
    let began = Instant::now();
    assert_eq!(count(&ask(&proxy, 20), 200), 20);
    assert_eq!(Client::get(proxy.address("plain"), "/").text(), "stand-in");
    pause(Duration::from_millis(1_100).saturating_sub(began.elapsed()));
    assert_eq!(Client::get(proxy.edge(), "/").status, 502, "its time is over: it is tried again");
    assert_eq!(count(&ask(&proxy, 20), 200), 20);
}
