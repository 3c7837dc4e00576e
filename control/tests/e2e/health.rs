//! Active checks: who gets requests while endpoints come, go and lie.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Proxy;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};

/// Quick checks of `/health`, and what else they should do.
pub fn checks(keys: &str) -> String {
    format!(
        "[cluster.health]\nkind = \"http\"\npath = \"/health\"\ninterval = \"20ms\"\ntimeout = \"5s\"\n{keys}\n"
    )
}

/// A process with an edge, an admin API and the cluster `app`.
pub fn configuration(endpoints: &[String], cluster: &str, health: &str) -> String {
    format!(
        "[runtime]\nshards = 2\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"edge\"\n\
         address = \"127.0.0.1:0\"\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints = {endpoints:?}\n{cluster}\n\
         {health}"
    )
}

/// An origin with a switchable health route, which else says its name.
pub struct Subject {
    pub origin: Origin,
    /// What `/health` answers.
    pub status: Arc<AtomicU16>,
    /// Requests of clients.
    pub served: Arc<AtomicUsize>,
}

impl Subject {
    pub fn new(name: &'static str) -> Self {
        let (status, served) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (of_origin, count) = (Arc::clone(&status), Arc::clone(&served));
        let origin = Origin::answering(move |request| match request.target.as_str() {
            "/health" => sized(of_origin.load(SeqCst), b"healthy\n"),
            _ => {
                count.fetch_add(1, SeqCst);
                sized(200, name.as_bytes())
            }
        });
        Self { origin, status, served }
    }
    pub fn address(&self) -> String {
        self.origin.address.to_string()
    }
}

#[track_caller]
pub fn event(proxy: &Proxy, wanted: &str) -> String {
    let line = proxy.stderr.wait_for(|line| line.contains(wanted));
    line.unwrap_or_else(|| panic!("no line with {wanted:?}: {:#?}", proxy.stderr.all()))
}

fn count(proxy: &Proxy, wanted: &str) -> usize {
    proxy.stderr.all().iter().filter(|line| line.contains(wanted)).count()
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_nothing_until_it_passes_again() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let proxy = Proxy::start(&configuration(&[one.address(), two.address()], "", &checks("")));
    let ask = || Client::get(proxy.edge(), "/").text().to_owned();
    assert_ne!(ask(), ask(), "both take their turns");
    one.status.store(500, SeqCst);
    let line = event(&proxy, "is DOWN");
    let wanted = format!("endpoint app/{} is DOWN, reason: Layer7 wrong status, code: 500", one.address());
    assert!(line.contains(&wanted), "{line}");
    assert!(
        line.contains("1 active and 0 backup endpoints left. 0 sessions active, 0 requeued, 0 remaining"),
        "{line}"
    );
    let before = one.served.load(SeqCst);
    for _ in 0..10 {
        assert_eq!(ask(), "two");
    }
    assert_eq!(one.served.load(SeqCst), before);
    one.status.store(204, SeqCst);
    let line = event(&proxy, "is UP");
    assert!(line.contains("reason: Layer7 check passed, code: 204") && line.contains("2 active"), "{line}");
    assert_ne!(ask(), ask(), "both take their turns again");
}

#[test]
fn one_alert_when_nothing_is_left() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let proxy = Proxy::start(&configuration(&[one.address(), two.address()], "", &checks("")));
    one.status.store(503, SeqCst);
    two.status.store(503, SeqCst);
    let alert = event(&proxy, "has no endpoint available");
    assert!(alert.contains("ERROR") && alert.contains("cluster app"), "{alert}");
    let refused = Client::get(proxy.edge(), "/");
    assert_eq!((refused.status, refused.reason()), (503, "no_endpoint"));
    two.status.store(200, SeqCst);
    event(&proxy, "has an endpoint available again");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    assert_eq!(count(&proxy, "has no endpoint available"), 1);
}

/// Nobody knows it yet, and it is dead: it must get no request at all.
#[test]
fn an_endpoint_that_is_dead_at_the_start_gets_no_request_where_it_is_probed_first() {
    let (dead, alive) = (Subject::new("dead"), Subject::new("alive"));
    dead.status.store(500, SeqCst);
    let health = checks("initial = \"probing\"");
    let proxy = Proxy::start(&configuration(&[dead.address(), alive.address()], "", &health));
    eventually("the first check", || Client::get(proxy.edge(), "/").status == 200);
    for _ in 0..20 {
        assert_eq!(Client::get(proxy.edge(), "/").text(), "alive");
    }
    assert_eq!(dead.served.load(SeqCst), 0);
    let down = checks("initial = \"down\"\nrise = 3");
    let proxy = Proxy::start(&configuration(&[alive.address()], "", &down));
    eventually("three checks", || Client::get(proxy.edge(), "/").status == 200);
    event(&proxy, "is UP");
}

#[test]
fn one_that_alternates_never_changes_and_one_connection_serves_all_checks() {
    let (asked, origin) = {
        let asked = Arc::new(AtomicUsize::new(0));
        let of_origin = Arc::clone(&asked);
        let origin = Origin::answering(move |_| {
            let n = of_origin.fetch_add(1, SeqCst);
            sized(if n.is_multiple_of(2) { 500 } else { 200 }, b"")
        });
        (asked, origin)
    };
    let proxy =
        Proxy::start(&configuration(&[origin.address.to_string()], "", &checks("fall = 3\nrise = 2")));
    eventually("forty checks", || asked.load(SeqCst) >= 40);
    assert_eq!((count(&proxy, "is DOWN"), origin.connection_count()), (0, 1));
}

#[test]
fn a_body_decides_where_the_status_does_not() {
    let maintaining = Origin::saying("maintaining\n");
    let healthy = Origin::saying("all is healthy\n");
    let endpoints = [maintaining.address.to_string(), healthy.address.to_string()];
    for body in ["{ contains = \"healthy\" }", "{ regex = \"(?m)^all .+y$\" }"] {
        let health = checks(&format!("expect_body = {body}\nexpect_status = [200, \"202-204\"]"));
        let proxy = Proxy::start(&configuration(&endpoints, "", &health));
        let line = event(&proxy, "is DOWN");
        assert!(line.contains("reason: Layer7 wrong body, code: 200, info: \"maintaining\""), "{line}");
        for _ in 0..4 {
            assert_eq!(Client::get(proxy.edge(), "/").text(), "all is healthy\n");
        }
    }
}

/// What a slow, an endless and a talkative origin do to their checks, told side by side.
#[test]
fn origins_that_drip_or_babble_are_down_and_hold_nobody_up() {
    let silent = Origin::scripted(|connection| connection.until_closed());
    let endless = Origin::scripted(|connection| {
        connection.request();
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n");
        while connection.send([b'x'; 4096]) {}
    });
    let garbage = Origin::scripted(|connection| {
        connection.send(b"220 mail.example.com ESMTP\r\n");
        connection.until_closed();
    });
    let good = Origin::saying("healthy");
    let endpoints = [&silent, &endless, &garbage, &good].map(|origin| origin.address.to_string());
    let health = checks("expect_body = { contains = \"healthy\" }").replace("\"5s\"", "\"100ms\"");
    let proxy = Proxy::start(&configuration(&endpoints, "", &health));
    for (origin, reason) in [
        (&silent, "Layer7 timeout"),
        (&endless, "Layer7 wrong body, code: 200, info: \"xxxx"),
        (&garbage, "Layer7 invalid response, info: \"response_invalid: 220 mail"),
    ] {
        event(&proxy, &format!("app/{} is DOWN, reason: {reason}", origin.address));
    }
    for _ in 0..4 {
        assert_eq!(Client::get(proxy.edge(), "/").text(), "healthy");
    }
}

#[test]
fn checks_say_that_they_are_nobodys_connection_and_come_from_the_clusters_addresses() {
    let origin = Origin::scripted(|connection| {
        let peer = connection.stream.peer_addr().unwrap().ip();
        let bytes = connection.raw();
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /health";
        let good = peer.to_string() == "127.0.0.7" && bytes.starts_with(local);
        connection.send(sized(if good { 200 } else { 500 }, b""));
    });
    let cluster = "source_addresses = \"127.0.0.7\"\nsend_proxy = \"v2\"";
    let health = checks("initial = \"down\"");
    let proxy = Proxy::start(&configuration(&[origin.address.to_string()], cluster, &health));
    event(&proxy, "is UP");
}
