//! Clients and origins that are slow: each deadline ends the one, and nobody else notices.

use crate::support::client::{Broken, Client};
use crate::support::origin::{Origin, sized};
use crate::support::pause;
use crate::support::proxy::Setup;
use std::time::{Duration, Instant};

const REPLY: &str = "[[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200, body = \"ok\" }\n";

/// Threat D01: the deadline of a head is not moved by its bytes.
#[test]
fn a_head_that_drips_is_408_at_its_deadline_and_others_go_on() {
    let proxy = Setup { timeouts: "request_header = \"400ms\"", tables: REPLY, ..Setup::default() }.start();
    let begun = Instant::now();
    let mut slow = Client::connect(proxy.edge());
    slow.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut others = 0;
    let response = loop {
        slow.send_anyway("X");
        let mut other = Client::connect(proxy.edge());
        let asked = Instant::now();
        assert_eq!(other.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        assert!(asked.elapsed() < Duration::from_millis(300), "others wait: {:?}", asked.elapsed());
        others += 1;
        match slow.try_response("GET") {
            Ok(response) => break response,
            Err(Broken::TimedOut { .. }) => assert!(begun.elapsed() < Duration::from_secs(5), "no 408"),
            Err(other) => panic!("{other:?}"),
        }
    };
    let took = begun.elapsed();
    assert_eq!((response.status, response.reason()), (408, "request_header_timeout"));
    assert!((Duration::from_millis(390)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    assert!(others > 3);
}

#[test]
fn silent_and_idle_connections_are_closed() {
    let timeouts = "request_header = \"150ms\"\nidle = \"250ms\"";
    let proxy = Setup { timeouts, tables: REPLY, ..Setup::default() }.start();
    let begun = Instant::now();
    let mut silent = Client::connect(proxy.edge());
    let mut idle = Client::connect(proxy.edge());
    assert_eq!(idle.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    silent.expect_closed();
    assert!(begun.elapsed() >= Duration::from_millis(140), "{:?}", begun.elapsed());
    idle.expect_closed();
    let took = begun.elapsed();
    assert!((Duration::from_millis(240)..Duration::from_millis(1500)).contains(&took), "{took:?}");
}

#[test]
fn a_body_that_stops_is_408() {
    let origin = Origin::echo();
    let timeouts = "request_body = \"200ms\"";
    let proxy = Setup { timeouts, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let response = client.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive!");
    assert_eq!((response.status, response.reason()), (408, "request_body_timeout"));
    client.expect_closed();
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn a_body_that_goes_on_outlives_its_timeout() {
    let origin = Origin::echo();
    let timeouts = "request_body = \"300ms\"\nrequest_header = \"300ms\"";
    let proxy = Setup { timeouts, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        pause(Duration::from_millis(60));
        client.send("x");
    }
    assert_eq!(client.response("POST").text(), "xxxxxxxx");
}

#[test]
fn a_response_body_that_stops_ends_the_connection() {
    let origin = Origin::scripted(|connection| {
        let _ = connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!");
        connection.until_closed();
    });
    let cluster_timeouts = "response_body = \"200ms\"";
    let proxy = Setup { cluster_timeouts, endpoints: &[origin.address], ..Setup::default() }.start();
    let begun = Instant::now();
    let mut client = Client::connect(proxy.edge());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let broken = client.try_response("GET").expect_err("a whole response of half its bytes");
    assert!(matches!(broken, Broken::Closed { .. }), "{broken:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Threat D03: a client that reads nothing is closed by `send`, not fed for ever.
#[test]
fn a_client_that_reads_nothing_is_closed() {
    let answer = sized(200, &vec![b'x'; 32 << 20]);
    let origin = Origin::answering(move |_| answer.clone());
    let proxy =
        Setup { timeouts: "send = \"300ms\"", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("GET /unread HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = proxy.log_line(|line| line["path"] == "/unread");
    assert_eq!(line["close"], "send_timeout", "{line}");
}

#[test]
fn a_lifetime_ends_a_connection_between_requests() {
    let proxy = Setup { timeouts: "max_lifetime = \"200ms\"", tables: REPLY, ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let begun = Instant::now();
    loop {
        client.send_anyway("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.try_response("GET") {
            Ok(response) => assert_eq!(response.status, 200),
            Err(Broken::Closed { bytes: 0, .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "it lives for ever");
        pause(Duration::from_millis(20));
    }
    // Up to a tenth earlier, and the connection was there before its first request.
    assert!(begun.elapsed() >= Duration::from_millis(170), "{:?}", begun.elapsed());
}
