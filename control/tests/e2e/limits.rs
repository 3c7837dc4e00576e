//! Each limit of a listener at one below, at, and one above.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{chunked, eventually};

/// Sends `request(n)` for n around `limit`: accepted up to it, refused above with `status` and `reason`.
fn around(proxy: &Proxy, limit: usize, status: u16, reason: &str, request: impl Fn(usize) -> Vec<u8>) {
    for (n, good) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let mut client = Client::connect(proxy.edge());
        client.send_anyway(request(n));
        let response = client.response("POST");
        let expected = if good { (200, "") } else { (status, reason) };
        assert_eq!((response.status, response.reason()), expected, "{n} of {limit}");
    }
}

const REPLY: &str = "[[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200, body = \"ok\" }\n";

#[test]
fn request_line() {
    let proxy = Setup { limits: "request_line = \"300B\"", tables: REPLY, ..Setup::default() }.start();
    around(&proxy, 300, 414, "request_line_too_long", |n| {
        let target = "a".repeat(n - "GET / HTTP/1.1".len());
        format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    });
}

#[test]
fn header_block() {
    let proxy = Setup { limits: "header_block = \"600B\"", tables: REPLY, ..Setup::default() }.start();
    around(&proxy, 600, 431, "header_block_too_large", |n| {
        let value = "a".repeat(n - "Host: a\r\nX: \r\n".len());
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n").into_bytes()
    });
}

#[test]
fn header_fields() {
    let proxy = Setup { limits: "header_fields = 20", tables: REPLY, ..Setup::default() }.start();
    around(&proxy, 20, 431, "too_many_fields", |n| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1)).into_bytes()
    });
}

#[test]
fn request_body() {
    let origin = Origin::echo();
    let proxy =
        Setup { limits: "request_body = \"1000B\"", endpoints: &[origin.address], ..Setup::default() }
            .start();
    around(&proxy, 1000, 413, "request_body_too_large", |n| {
        let body = "a".repeat(n);
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{body}").into_bytes()
    });
    assert_eq!(origin.head_count(), 2, "a length above the limit is refused before an origin is asked");
    around(&proxy, 1000, 413, "request_body_too_large", |n| {
        let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        request.extend(chunked(&vec![b'a'; n], 100));
        request
    });
    assert!(origin.requests().iter().all(|request| request.body.len() <= 1000));
}

#[test]
fn requests_per_connection() {
    let proxy = Setup { limits: "requests_per_connection = 3", tables: REPLY, ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for n in 1..=3 {
        let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let told_to_close = response.field("connection") == Some("close");
        assert_eq!((response.status, told_to_close), (200, n == 3), "request {n}");
    }
    client.expect_closed();
}

#[test]
fn max_connections_over_all_shards() {
    let proxy =
        Setup { runtime: "shards = 8", listener: "max_connections = 5", tables: REPLY, ..Setup::default() }
            .start();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut open: Vec<_> = (0..5).map(|_| Client::connect(proxy.edge())).collect();
    for client in &mut open {
        assert_eq!(client.exchange(ask).status, 200);
    }
    let mut sixth = Client::connect(proxy.edge());
    sixth.send_anyway(ask);
    if let Ok(response) = sixth.try_response("GET") {
        assert_eq!((response.status, response.reason()), (503, "listener_full"));
    }
    for client in &mut open {
        assert_eq!(client.exchange(ask).status, 200, "those that are in stay in");
    }
    drop(open.pop());
    eventually("the free place to be taken", || {
        let mut client = Client::connect(proxy.edge());
        client.send_anyway(ask);
        client.try_response("GET").is_ok_and(|response| response.status == 200)
    });
}
