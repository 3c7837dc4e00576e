//! Hostile requests by their bytes (threats 2.1 to 2.5): refused, closed, and nothing of them at the origin.

use crate::support::client::{Broken, Client};
use crate::support::origin::Origin;
use crate::support::proxy::Setup;
use std::time::Duration;

/// The second request that some of these try to hide.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A POST whose framing fields are `framing` (whole lines), then `body`.
fn post(framing: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n{body}").into_bytes()
}

/// Refused by their heads: the origin sees nothing at all.
fn hostile_heads() -> Vec<(&'static str, Vec<u8>)> {
    let zero = "0\r\n\r\n";
    let te = |value: &str| post(&format!("Transfer-Encoding:{value}\r\n"), zero);
    let cl = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    let field = |line: &str| post(&format!("{line}\r\n"), "");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let mut cases = vec![
        ("F01 CL.TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG")),
        ("F02 TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\nGPOST")),
        ("F03 xchunked", te(" xchunked")),
        ("F03 chunked, identity", te(" chunked, identity")),
        ("F03 identity, chunked", te(" identity, chunked")),
        ("F03 chunked, chunked", te(" chunked, chunked")),
        ("F03 quoted", te(" \"chunked\"")),
        ("F03 single-quoted", te(" 'chunked'")),
        ("F03 chunk", te(" chunk")),
        ("F03 vertical tab", te("\x0bchunked")),
        ("F03 form feed", te("\x0cchunked")),
        ("F03 parameter", te(" chunked;q=1")),
        ("F03 leading comma", te(" ,chunked")),
        ("F03 trailing comma", te(" chunked,")),
        ("F03 empty", te("")),
        ("F03 identity", te(" identity")),
        ("F03 twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", zero)),
        (
            "F03 identity and chunked",
            post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", zero),
        ),
        ("F03 chunked and cow", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", zero)),
        ("F04 space before colon", post("Transfer-Encoding : chunked\r\n", zero)),
        ("F04 tab before colon", post("Transfer-Encoding\t: chunked\r\n", zero)),
        ("F04 leading space", post(" Transfer-Encoding: chunked\r\n", zero)),
        ("F04 CR inside", post("Transfer\rEncoding: chunked\r\n", zero)),
        ("F04 underscore", post("Transfer_Encoding: chunked\r\n", zero)),
        ("F04 behind LF", post("X: y\nTransfer-Encoding: chunked\r\n", zero)),
        ("F04 behind CR", post("X: y\rTransfer-Encoding: chunked\r\n", zero)),
        ("F06 differing", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        ("F06 same", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("F06 list", cl(" 5, 5")),
        (
            "F09 TE in 1.0",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("L02 LF only", b"GET / HTTP/1.1\nHost: a\n\n".to_vec()),
        ("L02 LF after line", b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec()),
        ("L02 LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec()),
        ("L03 CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".to_vec()),
        ("L03 CR in value", field("X: a\rb")),
        ("L04 space after line", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n".to_vec()),
        ("L05 fold", field("X: a\r\n b")),
        ("L05 fold in Host", b"GET / HTTP/1.1\r\nHost: a\r\n .evil\r\n\r\n".to_vec()),
        ("L05 fold in TE", post("Transfer-Encoding:\r\n chunked\r\n", zero)),
        ("L06 NUL in value", field("X: a\0b")),
        ("L06 NUL in name", field("X\0: a")),
        ("L06 escape in value", field("X: \x1b[2J")),
        ("L07 no colon", field("nothing")),
        ("L07 empty name", field(": v")),
        ("L07 space in name", field("X Y: v")),
        ("L07 bracket in name", field("X[]: v")),
        ("L08 HTTP/1", line("GET / HTTP/1")),
        ("L08 HTTP/01.1", line("GET / HTTP/01.1")),
        ("L08 lower case", line("GET / http/1.1")),
        ("L08 overflow", line("GET / HTTP/4294967297.1")),
        ("L08 trailing space", line("GET / HTTP/1.1 ")),
        ("L08 0.9", b"GET /\r\n\r\n".to_vec()),
        ("L09 tab separators", line("GET\t/\tHTTP/1.1")),
        ("L09 two spaces", line("GET  / HTTP/1.1")),
        ("L09 bad method", line("G{T / HTTP/1.1")),
        ("L09 no target", line("GET HTTP/1.1")),
        ("L10 h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("L10 ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("T01 Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_vec()),
        ("T01 Host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_vec()),
        ("T01 Host userinfo", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_vec()),
        ("T01 Host path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec()),
        ("T01 Host port", b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n".to_vec()),
        ("T01 Host bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".to_vec()),
        ("T02 ftp", line("GET ftp://a/ HTTP/1.1")),
        ("T03 authority form", line("GET a:80 HTTP/1.1")),
        ("T03 asterisk", line("GET * HTTP/1.1")),
        ("T03 CONNECT", line("CONNECT a:443 HTTP/1.1")),
        ("T04 userinfo", line("GET http://u:p@a/ HTTP/1.1")),
        ("T05 above the root", line("GET /../../admin HTTP/1.1")),
        ("T05 encoded slash", line("GET /a/..%2fadmin HTTP/1.1")),
        ("T05 encoded NUL", line("GET /admin%00 HTTP/1.1")),
        ("T05 backslash", line("GET /\\admin HTTP/1.1")),
        ("T05 bad escape", line("GET /%zz HTTP/1.1")),
        ("T05 cut escape", line("GET /%2 HTTP/1.1")),
        ("T05 fragment", line("GET /a#b HTTP/1.1")),
        ("H01 names Host", field("Connection: close, Host")),
        ("H01 names Content-Length", field("Connection: close, Content-Length")),
        ("H01 names Transfer-Encoding", field("Connection: keep-alive, transfer-encoding")),
    ];
    cases.push((
        "F03 0xa0",
        [&b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n"[..]].concat(),
    ));
    cases.push((
        "F03 NUL",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n".to_vec(),
    ));
    cases.push((
        "F04 0x82 in name",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransf\x82r-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
    ));
    cases.push((
        "F04 0x85 in name",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\x85: 5\r\n\r\nhello".to_vec(),
    ));
    for value in [
        " +5",
        " -1",
        " -0",
        " 0x5",
        " 1_0",
        " 5.0",
        " 5e0",
        " 5 6",
        " 5;",
        "",
        " ,5",
        " 5,",
        " 18446744073709551616",
        " 18446744073709551621",
        " 9223372036854775808",
        " 99999999999999999999999999",
    ] {
        cases.push(("F07 Content-Length syntax", cl(value)));
    }
    cases
}

/// Refused in their bodies: the origin may have seen the head, never a whole request.
fn hostile_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let te = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    vec![
        ("F15 -1", te("-1\r\nhello\r\n0\r\n\r\n")),
        ("F15 +5", te("+5\r\nhello\r\n0\r\n\r\n")),
        ("F15 0x5", te("0x5\r\nhello\r\n0\r\n\r\n")),
        ("F15 space before", te(" 5\r\nhello\r\n0\r\n\r\n")),
        ("F15 tab before", te("\t5\r\nhello\r\n0\r\n\r\n")),
        ("F15 5_0", te("5_0\r\nhello\r\n0\r\n\r\n")),
        ("F15 g", te("g\r\nhello\r\n0\r\n\r\n")),
        ("F15 empty", te("\r\nhello\r\n0\r\n\r\n")),
        ("F15 17 digits", te("00000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("F15 all ones", te("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n")),
        ("F15 overflow", te("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("F16 CR X", te("5\rXhello\r\n0\r\n\r\n")),
        ("F16 LF", te("5\nhello\r\n0\r\n\r\n")),
        ("F16 LF behind data", te("5\r\nhello\n0\r\n\r\n")),
        ("F16 XX behind data", te("5\r\nhelloXX0\r\n\r\n")),
        ("F16 CR X at the end", te("0\r\n\rX")),
        ("F16 LF LF", te("0\n\n")),
        ("F17 LF in extension", te("5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n")),
        ("F17 LF behind semicolon", te("5;\nhello\r\n0\r\n\r\n")),
        ("F17 CR in extension", te("5;a\r\rhello\r\n0\r\n\r\n")),
        ("F17 NUL", te("5;\0x\r\nhello\r\n0\r\n\r\n")),
        ("F17 long", te(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000)))),
        ("F19 folded trailer", te("0\r\nX: a\r\n b\r\n\r\n")),
        ("F19 bad trailer", te("0\r\nX : a\r\n\r\n")),
        ("F19 many trailers", te(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(1000)))),
    ]
}

fn refused(client: &mut Client, name: &str) {
    match client.try_response("POST") {
        Ok(response) => {
            assert!((400..=599).contains(&response.status), "{name}: {response:?}");
            assert!(!response.reason().is_empty(), "{name}: not our own answer: {response:?}");
            assert_eq!(response.field("connection"), Some("close"), "{name}");
        }
        // A refusal in a body whose answer has begun can only close.
        Err(Broken::Closed { bytes: 0, .. }) => (),
        Err(other) => panic!("{name}: {other:?}"),
    }
    client.send_anyway(NEXT);
    match client.try_response("GET") {
        Err(Broken::Closed { bytes: 0, .. }) => (),
        other => panic!("{name}: the connection goes on: {other:?}"),
    }
}

#[test]
fn hostile_heads_are_refused_and_nothing_reaches_the_origin() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let cases = hostile_heads();
    assert!(cases.len() >= 60);
    for (name, bytes) in &cases {
        let mut client = Client::connect(proxy.edge());
        client.send_anyway([bytes, NEXT.as_bytes()].concat());
        refused(&mut client, &format!("{name}: {:?}", String::from_utf8_lossy(bytes)));
        assert_eq!(origin.head_count(), 0, "{name}: {:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(Client::get(proxy.edge(), "/fine").status, 200);
}

#[test]
fn hostile_bodies_are_refused_and_no_whole_request_reaches_the_origin() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for (name, bytes) in &hostile_bodies() {
        let mut client = Client::connect(proxy.edge());
        client.send_anyway([bytes, NEXT.as_bytes()].concat());
        refused(&mut client, name);
        assert_eq!(origin.request_count(), 0, "{name}: {:?}", origin.requests());
    }
    assert_eq!(Client::get(proxy.edge(), "/fine").status, 200);
}

/// Behind a good request on the same connection, the same: the good one is answered, the bad one refused.
#[test]
fn hostile_heads_behind_a_good_request() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for (n, (name, bytes)) in hostile_heads().iter().enumerate() {
        let mut client = Client::connect(proxy.edge());
        client.send([b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", &bytes[..]].concat());
        assert_eq!(client.response("POST").text(), "hi", "{name}");
        refused(&mut client, name);
        assert_eq!(origin.head_count(), n + 1, "{name}");
    }
}

/// Threats F08, F10, F20: legal framings that others read differently are read in one way.
#[test]
fn legal_framings_take_exactly_their_body() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let length = format!("Content-Length: {}\r\n", NEXT.len());
    let chunk = format!("{:x}\r\n{NEXT}\r\n0\r\n\r\n", NEXT.len());
    let cases = [
        ("GET", length.as_str(), NEXT),
        ("GET", "Transfer-Encoding: chunked\r\n", chunk.as_str()),
        ("POST", "Content-Length: 0\r\n", ""),
        ("POST", "Transfer-Encoding:  chunked \r\n", "0\r\n\r\n"),
        ("POST", "tRANSFER-eNCODING: CHUNKED\r\n", "0;x\r\nContent-Length: 50\r\n\r\n"),
        ("POST", "", ""),
    ];
    for (method, framing, body) in cases {
        let mut client = Client::connect(proxy.edge());
        client.send(format!("{method} /one HTTP/1.1\r\nHost: a\r\n{framing}\r\n{body}"));
        client.send("GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
        let expected = if method == "GET" { NEXT } else { "" };
        assert_eq!(client.response(method).text(), expected, "{method} {framing:?}");
        assert_eq!(client.response("GET").status, 200);
        let last = origin.requests().last().unwrap().target.clone();
        assert_eq!(last, "/two");
    }
    assert!(origin.requests().iter().all(|request| request.target != "/smuggled"));

    // HTTP/1.0 without a length has no body; what follows is not one.
    let mut client = Client::connect(proxy.edge());
    client.send(format!("POST /old HTTP/1.0\r\nHost: a\r\n\r\n{NEXT}"));
    assert_eq!(client.response("POST").text(), "");
    client.expect_closed();
    assert!(origin.requests().iter().all(|request| request.target != "/smuggled"));
}

#[test]
fn empty_lines_before_a_request() {
    let origin = Origin::saying("ok");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    assert_eq!(
        Client::once(proxy.edge(), "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status,
        200
    );
    let three = Client::once(proxy.edge(), "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((three.status, three.reason()), (400, "too_many_empty_lines"));
}

/// Threat F22: bytes behind an origin's answer are nobody's.
#[test]
fn bytes_behind_an_answer_reach_no_client() {
    let origin = Origin::scripted(|connection| {
        while connection.request().is_some() {
            let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}"));
        }
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..10 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "ok");
    }
    client.expect_silence(Duration::from_millis(50));
}
