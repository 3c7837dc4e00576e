//! A cluster with nothing left: one alert for each outage, whatever the reasons, and one line when it has something again.

use crate::health::{Subject, checks, configuration, event};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, call, ringway};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const ALERT: &str = "has no endpoint available";
const OVER: &str = "has an endpoint available again";

fn count(proxy: &Proxy, wanted: &str) -> usize {
    proxy.stderr.all().iter().filter(|line| line.contains(wanted)).count()
}

/// How many alerts there were, and how many lines that it was over.
fn told(proxy: &Proxy) -> (usize, usize) {
    (count(proxy, ALERT), count(proxy, OVER))
}

fn set(proxy: &Proxy, name: &str, state: &str) {
    let admin = proxy.ready["admin"].as_str().expect("an admin address");
    let ended = call(ringway().args(["set", name, state, "--admin", admin]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// The alert as the admin API keeps it.
fn kept(proxy: &Proxy, event: &str) -> Vec<serde_json::Value> {
    let admin = proxy.ready["admin"].as_str().expect("an admin address");
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let answer = Client::once(admin.parse().unwrap(), &request);
    let events: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let events = events["events"].as_array().expect("events").iter();
    events.filter(|kept| kept["event"] == event).cloned().collect()
}

/// Live traffic fails for many rounds of ejection, or of trials: that is one outage, which ends when a request goes well.
#[test]
fn an_outage_by_live_traffic_is_told_once_however_often_it_is_tried_again() {
    let ejection = "outlier = { consecutive_failures = 1, max_ejected_percent = 100, ejection_time = \"100ms\", \
                    max_ejection_time = \"100ms\" }";
    let breaker = |of| {
        format!(
            "circuit_breaker = {{ failure_threshold = 1, recovery_timeout = \"100ms\", trial_timeout = \"5s\", of = \"{of}\" }}"
        )
    };
    for (cluster, round, why) in [
        (ejection.to_owned(), "ejected for", "1 ejected"),
        (breaker("endpoint"), "breaker opened", "1 with an open circuit breaker"),
        (breaker("cluster"), "breaker opened", "its circuit breaker is open"),
    ] {
        let bad = Arc::new(AtomicBool::new(true));
        let is_bad = Arc::clone(&bad);
        let origin = Origin::answering(move |_| sized(if is_bad.load(SeqCst) { 500 } else { 200 }, b"said"));
        let proxy = Proxy::start(&configuration(&[origin.address.to_string()], &cluster, ""));
        eventually("five rounds", || {
            Client::get(proxy.edge(), "/");
            count(&proxy, round) >= 5
        });
        event(&proxy, ALERT);
        assert_eq!(told(&proxy), (1, 0), "{cluster}: {:#?}", proxy.stderr.all());
        bad.store(false, SeqCst);
        eventually("it is over", || {
            Client::get(proxy.edge(), "/");
            told(&proxy) == (1, 1)
        });
        let alerts = kept(&proxy, "cluster_empty");
        assert_eq!((alerts.len(), kept(&proxy, "cluster_available").len()), (1, 1));
        assert_eq!((&alerts[0]["cluster"], &alerts[0]["reason"]), (&"app".into(), &why.into()));
        assert!(!kept(&proxy, if round == "ejected for" { "ejected" } else { "breaker_opened" }).is_empty());
    }
}

/// Several reasons make one outage, and one that is over ends it.
#[test]
fn operators_and_checks_together_make_one_outage() {
    let subjects = [Subject::new("one"), Subject::new("two"), Subject::new("three")];
    let endpoints = subjects.each_ref().map(Subject::address);
    let proxy = Proxy::start(&configuration(&endpoints, "", &checks("fall = 2")));
    let name = |n: usize| format!("app/{}", endpoints[n]);
    set(&proxy, &name(0), "maint");
    set(&proxy, &name(1), "drain");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "three");
    subjects[2].status.store(500, SeqCst);
    let line = event(&proxy, ALERT);
    assert!(line.contains("ERROR") && line.contains("(1 down, 1 draining, 1 in maintenance)"), "{line}");
    assert_eq!(Client::get(proxy.edge(), "/").reason(), "no_endpoint");
    // It goes on for other reasons.
    set(&proxy, &name(2), "maint");
    subjects[2].status.store(200, SeqCst);
    event(&proxy, "is UP");
    assert_eq!(told(&proxy), (1, 0));
    set(&proxy, &name(1), "ready");
    event(&proxy, OVER);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    set(&proxy, &name(1), "maint");
    eventually("a second outage", || told(&proxy) == (2, 1));
}

/// What a cluster fails open to can be taken away too. That is told, and one line says that all of it is over.
#[test]
fn an_outage_of_a_cluster_that_fails_open_can_get_worse() {
    let subjects = [Subject::new("one"), Subject::new("two")];
    let endpoints = subjects.each_ref().map(Subject::address);
    let sticky = "fail_open = true\nsticky = { cookie = \"S\", key = \"0123456789abcdef0123456789abcdef\" }";
    let proxy = Proxy::start(&configuration(&endpoints, sticky, &checks("")));
    let name = |n: usize| format!("app/{}", endpoints[n]);
    subjects.iter().for_each(|subject| subject.status.store(500, SeqCst));
    let line = event(&proxy, ALERT);
    assert!(
        line.ends_with("(2 down): what routes send to it goes to all of its lowest tier (fail_open)"),
        "{line}"
    );
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    set(&proxy, &name(0), "maint");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    set(&proxy, &name(1), "maint");
    let line = event(&proxy, "(2 in maintenance)");
    assert!(line.contains("ERROR") && line.ends_with(": what routes send to it is refused"), "{line}");
    assert_eq!(Client::get(proxy.edge(), "/").reason(), "no_endpoint");
    // Not so bad any more, but not over.
    set(&proxy, &name(1), "ready");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    subjects[1].status.store(200, SeqCst);
    event(&proxy, OVER);
    assert_eq!(told(&proxy), (2, 1));
    // Who sticks is served where it drains.
    set(&proxy, &name(1), "drain");
    let line = event(&proxy, "(1 draining, 1 in maintenance)");
    assert!(line.ends_with("is refused, unless it sticks to one that drains"), "{line}");
}

/// A list of endpoints that becomes empty, and is filled again.
#[test]
fn a_cluster_whose_endpoints_are_gone_has_nothing_left() {
    let origin = Origin::saying("here");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("endpoints");
    let put = |text: &str| {
        let new = dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &list).unwrap();
    };
    put(&format!("{}\n", origin.address));
    let proxy = Proxy::start(&format!(
        "[runtime]\nshards = 2\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nmatch = {{ available = {{ cluster = \"app\", below = 1 }} }}\nrespond = {{ body = \"sorry\" }}\n\
         [[route]]\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints_file = \"{}\"\n",
        list.display()
    ));
    let ask = || Client::get(proxy.edge(), "/").text().to_owned();
    assert_eq!(ask(), "here");
    put("# nobody\n");
    let line = event(&proxy, ALERT);
    assert!(line.contains("(it has none)"), "{line}");
    eventually("every shard to know", || (0..8).all(|_| ask() == "sorry"));
    put(&format!("{}\n", origin.address));
    event(&proxy, OVER);
    eventually("every shard to know", || (0..8).all(|_| ask() == "here"));
    assert_eq!(told(&proxy), (1, 1));
}

/// At the start there is an outage only when the first checks have decided.
#[test]
fn first_checks_that_fail_are_an_outage_only_if_all_do() {
    for initial in ["probing", "down"] {
        let (slow, dead) = (Arc::new(AtomicBool::new(true)), Subject::new("dead"));
        dead.status.store(500, SeqCst);
        let holds = Arc::clone(&slow);
        let alive = Origin::answering(move |_| {
            eventually("its turn", || !holds.load(SeqCst));
            sized(200, b"healthy")
        });
        let health = checks(&format!("initial = \"{initial}\"\nrise = 1"));
        let proxy = Proxy::start(&configuration(&[dead.address(), alive.address.to_string()], "", &health));
        eventually("checks of the dead one", || dead.origin.request_count() >= 5);
        slow.store(false, SeqCst);
        eventually("the other one", || Client::get(proxy.edge(), "/").status == 200);
        assert_eq!(told(&proxy), (0, 0), "{initial}");
        let proxy = Proxy::start(&configuration(&[dead.address()], "", &health));
        event(&proxy, ALERT);
        dead.status.store(200, SeqCst);
        event(&proxy, OVER);
        assert_eq!(told(&proxy), (1, 1), "{initial}");
    }
}
