//! Our own answers: their status, Date, request id and reason, the same in the access log.

use crate::support::client::{Client, Response};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{closed_port, eventually};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What every answer of our own carries (and its line in the access log).
#[track_caller]
fn check(proxy: &Proxy, response: &Response, status: u16, reason: &str) {
    assert_eq!((response.status, response.reason()), (status, reason), "{response:?}");
    let date = response.field("date").expect("Date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "IMF-fixdate, not {date:?}");
    let id = response.field("x-request-id").expect("x-request-id").to_owned();
    assert!((16..=24).contains(&id.len()), "{id}");
    let line = proxy.log_line(|line| line["request_id"] == id.as_str());
    assert_eq!(line["status"], status, "{line}");
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["listener"], "edge", "{line}");
}

#[test]
fn of_the_head() {
    let origin = Origin::saying("x");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    let large_block = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    let cases: &[(&str, u16, &str)] = &[
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
        ("GET / HTTP/1.1\r\n\r\n", 400, "host_missing"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501, "method_not_allowed"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method_not_allowed"),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, "wrong_scheme"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "encoding_unknown"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417, "expectation_unknown"),
        (&long_target, 414, "request_line_too_long"),
        (&large_block, 431, "header_block_too_large"),
        (&many_fields, 431, "too_many_fields"),
    ];
    for (request, status, reason) in cases {
        let mut client = Client::connect(proxy.edge());
        let response = client.exchange(request);
        let reason = if reason.is_empty() { response.reason().to_owned() } else { (*reason).to_owned() };
        assert!(!reason.is_empty(), "{request:.60}");
        check(&proxy, &response, *status, &reason);
    }
    assert_eq!(origin.head_count(), 0);
}

/// What was understood of a request before it was refused stands in the log.
#[test]
fn a_refused_head_is_logged_as_far_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dir.path().join("log");
    let more = &format!(
        "[[access_log]]\nto = \"file:{}\"\nformat = \"told ${{reason}} ${{method}} ${{host}} ${{path_and_query}}\"\n",
        texts.display()
    );
    let timeouts = "request_header = \"1s\"";
    let origin = Origin::saying("x");
    let setup = Setup { endpoints: &[origin.address], timeouts, tables: more, ..Setup::default() };
    let proxy = setup.start();
    let large = format!("PUT /up HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    let cases: &[(&str, &str, [&str; 4])] = &[
        (
            "GET /a/../b?c=1 HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n\r\n",
            "control_character",
            ["GET", "", "/b", "c=1"],
        ),
        ("GET /b HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n", "bad_field_name", ["GET", "", "/b", ""]),
        ("GET /t HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n", "underscore_twin", ["GET", "", "/t", ""]),
        (
            "POST /e HTTP/1.1\r\nHost: A.b\r\nTransfer-Encoding: gzip\r\n\r\n",
            "encoding_unknown",
            ["POST", "a.b", "/e", ""],
        ),
        ("GET /x HTTP/2.0\r\nHost: a\r\n\r\n", "unsupported_version", ["GET", "", "/x", ""]),
        ("GET /<b> HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", ["GET", "", "", ""]),
        ("POST /slow?x HTTP/1.1\r\nHost: a\r\nX: y", "request_header_timeout", ["POST", "", "/slow", "x"]),
        ("(no) / HTTP/1.1\r\n\r\n", "bad_method", ["", "", "", ""]),
        (&large, "header_block_too_large", ["PUT", "", "/up", ""]),
        (&long, "request_line_too_long", ["GET", "", "", ""]),
    ];
    for (request, reason, expected) in cases {
        let mut client = Client::connect(proxy.edge());
        // Another request of another connection, of which nothing may be told here.
        assert_eq!(Client::get(proxy.edge(), "/other").status, 200);
        let response = client.exchange(request);
        assert_eq!(response.reason(), *reason, "{request:.60}");
        let line = proxy.log_line(|line| line["reason"] == *reason);
        let told =
            ["method", "host", "path", "query"].map(|key| line[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(told, *expected, "{line}");
        let absent = ["method", "host", "path"].into_iter().filter(|key| line[key].is_null()).count();
        assert_eq!(
            absent,
            expected[..3].iter().filter(|text| text.is_empty()).count(),
            "null where nothing is known: {line}"
        );
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let query = if expected[3].is_empty() { String::new() } else { format!("?{}", expected[3]) };
        let words = format!(
            "told {reason} {} {} {}{query}",
            or_none(expected[0]),
            or_none(expected[1]),
            or_none(expected[2])
        );
        eventually(&words, || std::fs::read_to_string(&texts).unwrap().contains(&words));
    }
}

/// A refusal of a request with a body still reaches its client: the connection lingers instead of being reset.
#[test]
fn a_refused_client_that_still_sends_gets_its_answer() {
    let proxy = Setup { limits: "request_body = \"1KiB\"", tables: REPLY, ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n");
    client.send(vec![b'x'; 40_000]);
    let response = client.response("POST");
    check(&proxy, &response, 413, "request_body_too_large");
    assert_eq!(response.field("connection"), Some("close"));
    client.expect_closed();
}

const REPLY: &str = "[[route]]\nmatch = { path = \"/\" }\nrespond = { status = 200, body = \"ok\" }\n";

#[test]
fn of_routing() {
    let proxy = Setup { tables: REPLY, ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let response = client.exchange("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    check(&proxy, &response, 404, "no_route");
    // Nothing is wrong with the connection.
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}

#[test]
fn of_endpoints_that_cannot_be_reached() {
    let dead = closed_port();
    let proxy = Setup { endpoints: &[dead], ..Setup::default() }.start();
    check(&proxy, &Client::get(proxy.edge(), "/"), 502, "connect_failed");

    let unused =
        format!("[[cluster]]\nname = \"app\"\nendpoints = [{{ address = \"{dead}\", weight = 0 }}]\n");
    let proxy = Setup { listener: "cluster = \"app\"", tables: &unused, ..Setup::default() }.start();
    check(&proxy, &Client::get(proxy.edge(), "/"), 503, "no_endpoint");
}

#[test]
fn of_an_endpoint_that_never_accepts() {
    let (_full, address) = never_accepts();
    let proxy =
        Setup { endpoints: &[address], cluster_timeouts: "connect = \"100ms\"", ..Setup::default() }.start();
    let begun = Instant::now();
    check(&proxy, &Client::get(proxy.edge(), "/"), 504, "connect_timeout");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A listening socket whose queue is full, so that the kernel drops every further SYN.
fn never_accepts() -> (Vec<rustix::fd::OwnedFd>, SocketAddr) {
    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listening = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listening, &any).unwrap();
    listen(&listening, 0).unwrap();
    let address: SocketAddr = getsockname(&listening).unwrap().try_into().unwrap();
    let mut kept = vec![listening];
    for _ in 0..4 {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let filler = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let _ = connect(&filler, &address);
        kept.push(filler);
    }
    (kept, address)
}

#[test]
fn of_a_full_endpoint() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::answering(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(10));
        sized(200, b"at last")
    });
    let tables = format!(
        "[[cluster]]\nname = \"app\"\nendpoints = [{{ address = \"{}\", max_requests = 1 }}]\n\
         [cluster.timeouts]\nqueue = \"0ms\"\n",
        origin.address
    );
    let proxy =
        Setup { runtime: "shards = 8", listener: "cluster = \"app\"", tables: &tables, ..Setup::default() }
            .start();
    let mut first = Client::connect(proxy.edge());
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request at the origin", || origin.request_count() == 1);
    for _ in 0..8 {
        check(&proxy, &Client::get(proxy.edge(), "/"), 503, "endpoints_full");
    }
    release.send(()).unwrap();
    assert_eq!(first.response("GET").text(), "at last");
    release.send(()).unwrap();
    eventually("the place to be free again", || {
        Client::get(proxy.edge(), "/").status == 200 || {
            let _ = release.send(());
            false
        }
    });
}

/// What the origin may answer, and why it is refused (threats F22, H05, U01, B01, B04).
#[test]
fn of_origins_that_misbehave() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(60_000));
    let answers: Vec<(&str, Vec<u8>, &str)> = vec![
        ("/garbage", b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), "response_invalid"),
        ("/09", b"<html>hello</html>\r\n\r\n".to_vec(), "response_invalid"),
        ("/version", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        ("/status", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        ("/status4", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        ("/colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        ("/space", b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        ("/nul", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_vec(), "response_invalid"),
        (
            "/cr",
            b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "response_invalid",
        ),
        (
            "/both",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            "response_framing_invalid",
        ),
        (
            "/lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_vec(),
            "response_framing_invalid",
        ),
        ("/sign", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello".to_vec(), "response_framing_invalid"),
        (
            "/coding",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n".to_vec(),
            "response_encoding_unknown",
        ),
        (
            "/101",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
            "response_unexpected_upgrade",
        ),
        ("/huge", huge.into_bytes(), "response_header_too_large"),
    ];
    let script = answers.clone();
    let origin = Origin::scripted(move |connection| {
        let Some(request) = connection.request() else { return };
        if let Some((_, answer, _)) = script.iter().find(|(target, ..)| *target == request.target) {
            connection.send(answer);
            connection.until_closed();
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for (target, _, reason) in &answers {
        let response = client.exchange(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        check(&proxy, &response, 502, reason);
    }
    assert_eq!(origin.connection_count(), answers.len(), "no such link is used again");
}

#[test]
fn of_origins_that_end_without_an_answer() {
    let origin = Origin::scripted(|connection| {
        let Some(request) = connection.request() else { return };
        match request.target.as_str() {
            "/rst" => connection.reset_at_end(),
            "/partial" => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Le");
            }
            _ => (),
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for (target, reason) in
        [("/fin", "origin_closed"), ("/rst", "origin_reset"), ("/partial", "origin_closed")]
    {
        // POST: never tried again once a byte was written.
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let before = origin.request_count();
        check(&proxy, &Client::once(proxy.edge(), &request), 502, reason);
        assert_eq!(origin.request_count(), before + 1, "{target}");
    }
}

#[test]
fn of_an_origin_that_does_not_answer_in_time() {
    let origin = Origin::scripted(|connection| {
        let _ = connection.request();
        connection.until_closed();
    });
    let cluster_timeouts = "response_header = \"150ms\"";
    let proxy = Setup { endpoints: &[origin.address], cluster_timeouts, ..Setup::default() }.start();
    let begun = Instant::now();
    check(&proxy, &Client::get(proxy.edge(), "/"), 504, "response_header_timeout");
    let took = begun.elapsed();
    assert!((Duration::from_millis(150)..Duration::from_secs(2)).contains(&took), "{took:?}");
}
