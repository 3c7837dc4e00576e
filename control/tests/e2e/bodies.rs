//! Bodies both ways: sized, chunked, large, early, interrupted, with interim responses and trailers.

use crate::support::client::{Broken, Client, Framing};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Setup;
use crate::support::{assert_same, chunked, eventually, pattern};
use std::time::Duration;

const MIB: usize = 1 << 20;

#[test]
fn a_mebibyte_up_and_down_however_it_is_framed() {
    let origin = Origin::answering(|request| {
        if request.target == "/chunked" {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            answer.extend(chunked(&request.body, 10_000));
            answer
        } else {
            sized(200, &request.body)
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let body = pattern(MIB, 7);
    let mut client = Client::connect(proxy.edge());
    for target in ["/sized", "/chunked"] {
        for chunk in [None, Some(17), Some(4096), Some(MIB)] {
            // Small chunks of a whole mebibyte would only be slow.
            let body = if chunk == Some(17) { &body[..50_000] } else { &body[..] };
            let mut upload = client.stream.try_clone().unwrap();
            let (head, bytes) = match chunk {
                None => (format!("Content-Length: {}", body.len()), body.to_vec()),
                Some(size) => ("Transfer-Encoding: chunked".to_owned(), chunked(body, size)),
            };
            let request = format!("PUT {target} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
            let sender = std::thread::spawn(move || {
                use std::io::Write as _;
                upload.write_all(request.as_bytes()).and_then(|()| upload.write_all(&bytes))
            });
            let response = client.response("PUT");
            sender.join().unwrap().unwrap();
            assert_eq!(response.status, 200);
            let expected = if target == "/chunked" { Framing::Chunked } else { Framing::Length };
            assert_eq!(response.framing, expected);
            assert_same(&response.body, body, &format!("{target}, chunks of {chunk:?}"));
        }
    }
    for request in origin.requests() {
        assert_same(&request.body, &body[..request.body.len()], "at the origin");
    }
}

/// Threat F11: the body is spliced, and a splice that took one byte too many would swallow the next request's first.
#[test]
fn what_follows_a_long_upload_is_the_next_request() {
    let origin = Origin::answering(|request| sized(200, &request.body));
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for len in [24_577, 65_536, 300_001, 3 * MIB] {
        let body = pattern(len, 3);
        let head = format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = [head.as_bytes(), &body, next, head.as_bytes(), &body].concat();
        let mut upload = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            use std::io::Write as _;
            upload.write_all(&bytes)
        });
        assert_same(&client.response("PUT").body, &body, "the first");
        assert!(client.response("GET").body.is_empty());
        assert_same(&client.response("PUT").body, &body, "the last");
        sender.join().unwrap().unwrap();
    }
    let targets: Vec<_> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/up", "/next", "/up"].repeat(4));
}

#[test]
fn a_slow_reader_holds_the_origin_back_and_loses_nothing() {
    let body = pattern(8 * MIB, 5);
    let answer = sized(200, &body);
    let origin = Origin::answering(move |_| answer.clone());
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Nothing is read meanwhile; another client is served.
    assert_eq!(
        Client::once(proxy.edge(), "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status,
        200
    );
    assert_same(&client.response("GET").body, &body, "read late");
}

/// Asks for 100 Continue, or refuses at `/no` without reading the body.
fn expecting() -> Origin {
    Origin::scripted(|connection| {
        while let Some(mut request) = connection.head() {
            assert_eq!(request.field("expect"), Some("100-continue"));
            if request.target == "/no" {
                connection.send("HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return;
            }
            connection.send("HTTP/1.1 100 Continue\r\n\r\n");
            if connection.body(&mut request).is_none() {
                return;
            }
            connection.send(sized(200, &request.body));
        }
    })
}

fn expect_head(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
}

#[test]
fn expect_100_is_the_origins_to_answer() {
    let origin = expecting();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..2 {
        client.send(expect_head("/yes"));
        assert_eq!(client.head().unwrap().1, 100);
        client.send("hello");
        assert_eq!(client.response("POST").text(), "hello");
    }
    // Threat U02: an unknown expectation.
    let refused = Client::once(proxy.edge(), "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n");
    assert_eq!((refused.status, refused.reason()), (417, "expectation_unknown"));
}

/// Refused before a byte of the body: it may or may not follow, so the connection cannot stay, and the answer is the last.
#[test]
fn an_expectation_refused_ends_the_connection() {
    let origin = expecting();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(expect_head("/no"));
    let response = client.response("POST");
    assert_eq!((response.status, response.interim.as_slice()), (413, &[][..]));
    client.expect_closed();
}

/// The answer was whole and the body behind it stops coming: no second answer is sent for that.
#[test]
fn a_body_that_stops_after_its_answer_gets_no_second_one() {
    let origin = Origin::scripted(|connection| {
        let Some(_) = connection.head() else { return };
        connection.send(sized(403, b"enough"));
        connection.until_closed();
    });
    let timeouts = "request_body = \"200ms\"";
    let proxy = Setup { timeouts, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nfirst bytes");
    assert_eq!(client.response("POST").text(), "enough");
    client.expect_closed();
}

/// Threats U01: interim responses pass to HTTP/1.1 and not to HTTP/1.0.
#[test]
fn interim_responses() {
    let origin = Origin::answering(|request| {
        let interim = if request.target == "/flood" { 1000 } else { 2 };
        let mut answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(interim);
        answer.extend(sized(200, b"final"));
        answer
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let response = Client::get(proxy.edge(), "/");
    assert_eq!((response.text(), response.interim.as_slice()), ("final", &[103, 103][..]));
    let old = Client::once(proxy.edge(), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.text(), old.interim.as_slice()), ("final", &[][..]));
    let flood = Client::once(proxy.edge(), "GET /flood HTTP/1.0\r\n\r\n");
    assert_eq!((flood.status, flood.reason()), (502, "response_too_many_interim"));
}

/// Threat B04: the answer comes at once and the rest of the upload is not taken for a request.
#[test]
fn an_early_answer_stops_the_upload() {
    let origin = Origin::scripted(|connection| {
        let Some(_) = connection.head() else { return };
        connection.send(sized(403, b"enough"));
        connection.until_closed();
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nfirst bytes");
    let response = client.response("POST");
    assert_eq!((response.status, response.text()), (403, "enough"));
    // 100 MB are more than what is read and dropped for a connection's sake.
    client.send_anyway("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
    assert_eq!(origin.head_count(), 1);
}

#[test]
fn trailers_are_dropped_unless_the_cluster_passes_them() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n".to_vec()
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..2 {
        let response = client.exchange(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 9\r\nHost: evil\r\n\r\n",
        );
        assert_eq!(response.text(), "ok");
    }
    for request in origin.requests() {
        assert_eq!((request.body.as_slice(), request.trailers.len()), (&b"x"[..], 0));
        assert_eq!(request.field("host"), Some("a"), "a trailer is never a field");
    }
}

/// Threat B02: a body cut short never ends cleanly.
#[test]
fn an_origin_that_dies_in_mid_body_is_not_a_clean_end() {
    let origin = Origin::scripted(|connection| {
        let Some(request) = connection.request() else { return };
        connection.send(match request.target.as_str() {
            "/sized" | "/sized/rst" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfive!",
        });
        if request.target.ends_with("rst") {
            connection.reset_at_end();
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for target in ["/sized", "/chunked", "/sized/rst", "/chunked/rst"] {
        let mut client = Client::connect(proxy.edge());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let broken = client.try_response("GET").expect_err(target);
        assert!(matches!(broken, Broken::Closed { .. }), "{target}: {broken:?}");
        let line = proxy.log_line(|line| line["path"] == target);
        assert_eq!(line["close"], "origin_aborted", "{line}");
    }
    // The same to an HTTP/1.0 client, whose body only the connection's end delimits: it must be a reset.
    let mut client = Client::connect(proxy.edge());
    client.send("GET /chunked HTTP/1.0\r\n\r\n");
    let broken = client.try_response("GET").expect_err("an HTTP/1.0 client");
    assert!(matches!(broken, Broken::Closed { reset: true, .. }), "{broken:?}");
}

/// Threat F21: what the client did not finish never reaches an origin as finished.
#[test]
fn a_client_that_leaves_in_mid_body_aborts_the_request() {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = std::sync::Arc::clone(&ended);
    let origin = Origin::scripted(move |connection| {
        while let Some(request) = connection.request() {
            connection.send(sized(200, &request.body));
        }
        counting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let cut = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive!",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfive!",
    ];
    for (n, request) in cut.iter().enumerate() {
        for reset in [false, true] {
            let mut client = Client::connect(proxy.edge());
            client.send(request);
            let heads = 2 * n + usize::from(reset) + 1;
            eventually("the head at the origin", || origin.head_count() == heads);
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            eventually("the link's end", || ended.load(std::sync::atomic::Ordering::SeqCst) == heads);
        }
    }
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn a_client_that_leaves_while_the_origin_thinks_frees_the_link() {
    let (left, gone) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let origin = Origin::scripted(move |connection| {
        let Some(_) = connection.request() else { return };
        connection.until_closed();
        let _ = left.lock().unwrap().send(());
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request at the origin", || origin.request_count() == 1);
    client.reset();
    gone.recv_timeout(Duration::from_secs(10)).expect("the link's end");
}

#[test]
fn an_empty_body_and_bodies_on_unusual_methods() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        let target = "/x";
        let response = client.exchange(&format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000003\r\n\r\nabc"
        ));
        assert_eq!(response.text(), "abc", "{method}");
        let response = client.exchange(&format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"
        ));
        assert_eq!(response.text(), "", "{method}");
    }
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.chunked || request.field("content-length") == Some("3"))
    );
}
