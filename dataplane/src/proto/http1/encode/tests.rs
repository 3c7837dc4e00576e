//! Heads as they leave us.

use super::*;
use crate::proto::http1::{HeadLimits, Parsed, Scan, parse_request, parse_response};

const LIMITS: HeadLimits = HeadLimits { request_line: 8192, header_block: 16384, header_fields: 100 };

const EDITS: RequestEdits<'_> = RequestEdits {
    host: None,
    peer: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
    forwarded: ForwardedMode::Off,
    trusted: false,
    scheme: "http",
    via: "node",
    copy: None,
    framing: Framing::None,
    upgrade: false,
    te_trailers: false,
    hidden_cookie: None,
    span: None,
};

fn request(text: &str, edits: &RequestEdits<'_>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut head = RequestHead::default();
    let parsed = parse_request(&mut bytes, &mut Scan::default(), &LIMITS, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { len: bytes.len() }), "{text}");
    let mut out = [0; 2000];
    let len = encode_request(&head, &bytes, edits, &mut out).unwrap();
    assert_eq!(encode_request(&head, &bytes, edits, &mut out[..len]), Some(len));
    assert_eq!(encode_request(&head, &bytes, edits, &mut out[..len - 1]), None);
    String::from_utf8(out[..len].to_vec()).unwrap()
}

fn response(text: &str, method: Method, edits: &ResponseEdits<'_>) -> String {
    let mut head = ResponseHead::default();
    let parsed = parse_response(text.as_bytes(), &mut Scan::default(), method, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { len: text.len() }), "{text}");
    let mut out = [0; 2000];
    let edits = ResponseEdits { framing: head.framing, ..edits.clone() };
    let len = encode_response(&head, text.as_bytes(), &edits, &mut out).unwrap();
    assert_eq!(encode_response(&head, text.as_bytes(), &edits, &mut out[..len - 1]), None);
    String::from_utf8(out[..len].to_vec()).unwrap()
}

const ANSWER: ResponseEdits<'_> = ResponseEdits {
    version: Version::Http11,
    framing: Framing::None,
    close: false,
    keep_alive_10: false,
    upgrade: false,
    via: "node",
    date: b"Thu, 01 Jan 1970 00:00:00 GMT",
    sticky: None,
};

#[test]
fn a_request_is_regenerated() {
    assert_eq!(
        request("\r\nGET http://B:80/x/../y?q HTTP/1.0\r\nHost: a\r\nX-One:1\r\nX-Two: \t2 \r\n\r\n", &EDITS),
        "GET /y?q HTTP/1.1\r\nhost: b:80\r\nX-One: 1\r\nX-Two: 2\r\nvia: 1.0 node\r\n\r\n"
    );
    let other = RequestEdits { host: Some(b"origin.internal"), ..EDITS };
    assert!(request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &other).contains("\r\nhost: origin.internal\r\n"));
    assert!(request("GET / HTTP/1.0\r\n\r\n", &EDITS).contains("\r\nhost: \r\n"));
}

#[test]
fn framing_is_ours() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n";
    for (framing, line) in [
        (Framing::Length(7), "\r\ncontent-length: 7\r\n"),
        (Framing::Chunked, "\r\ntransfer-encoding: chunked\r\n"),
        (Framing::None, "\r\ncontent-length: 0\r\n"),
    ] {
        let text = request(post, &RequestEdits { framing, ..EDITS }).to_ascii_lowercase();
        assert!(text.contains(line), "{text}");
        assert_eq!(text.matches("content-length").count() + text.matches("transfer-encoding").count(), 1);
    }
    let get = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &EDITS);
    assert!(!get.contains("content-length"));
}

#[test]
fn h01_h02_h06_hop_by_hop_goes() {
    let text = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, cookie\r\nX-Mine: 1\r\nCookie: a=b\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: x\r\nProxy-Authorization: y\r\nTE: trailers, gzip\r\nTrailer: z\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAA\r\nProxy: http://evil\r\nX_Forwarded_For: 1\r\nx-real_ip: 2\r\nKept: k\r\nmy_own: l\r\n\r\n",
        &EDITS,
    );
    assert_eq!(text, "GET / HTTP/1.1\r\nhost: a\r\nKept: k\r\nmy_own: l\r\nvia: 1.1 node\r\n\r\n");
    let te = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &RequestEdits { te_trailers: true, ..EDITS });
    assert!(te.ends_with("\r\nconnection: te\r\nte: trailers\r\n\r\n"));
}

#[test]
fn h03_forwarded_fields() {
    let client = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: evil\r\nForwarded: for=x\r\nX-Real-IP: 9\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n";
    let of = |forwarded, trusted| {
        let text = request(client, &RequestEdits { forwarded, trusted, ..EDITS });
        text.strip_prefix("GET / HTTP/1.1\r\nhost: a\r\n").unwrap().replace("via: 1.1 node\r\n\r\n", "")
    };
    let ours = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\n";
    assert_eq!(of(ForwardedMode::Replace, false), ours);
    assert_eq!(of(ForwardedMode::Replace, true), ours);
    assert_eq!(of(ForwardedMode::Append, false), ours);
    assert_eq!(of(ForwardedMode::Off, false), "");
    let kept = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=x\r\nX-Real-IP: 9\r\n";
    assert_eq!(
        of(ForwardedMode::Append, true),
        format!("{kept}x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7\r\n")
    );
    assert_eq!(of(ForwardedMode::Off, true), format!("{kept}x-forwarded-for: 1.1.1.1, 2.2.2.2\r\n"));
    let edits = RequestEdits { forwarded: ForwardedMode::Append, trusted: true, ..EDITS };
    assert!(request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &edits).contains(ours));
}

#[test]
fn a_span_of_ours_takes_the_place_of_the_clients() {
    let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let client = "GET / HTTP/1.1\r\nHost: a\r\nTraceParent: x\r\nTraceState: s\r\ntracestates: k\r\n\r\n";
    let of = |goes_on| {
        let span = Some(SpanEdits { parent, goes_on });
        let text = request(client, &RequestEdits { span, ..EDITS });
        text.strip_prefix("GET / HTTP/1.1\r\nhost: a\r\n").unwrap().replace("via: 1.1 node\r\n", "")
    };
    let ours = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    assert_eq!(of(true), format!("TraceState: s\r\ntracestates: k\r\n{ours}"));
    assert_eq!(of(false), format!("tracestates: k\r\n{ours}"));
}

#[test]
fn h04_via_and_max_forwards() {
    use crate::proto::http1::via_names;
    let text = "OPTIONS * HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred, 1.1 nodes (a b)\r\nVia:1.1\tnode\r\nMax-Forwards: 3\r\n\r\n";
    let mut bytes = text.as_bytes().to_vec();
    let mut head = RequestHead::default();
    parse_request(&mut bytes, &mut Scan::default(), &LIMITS, &mut head).unwrap();
    for (node, named) in
        [("node", true), ("nodes", true), ("nod", false), ("a", false), ("1.1", false), ("Node", true)]
    {
        assert_eq!(via_names(&head, &bytes, node), named, "{node}");
    }
    let sent = request(text, &EDITS);
    assert!(
        sent.contains("\r\nvia: 1.0 fred, 1.1 nodes (a b), 1.1\tnode, 1.1 node\r\nmax-forwards: 2\r\n"),
        "{sent}"
    );
    let get = request("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", &EDITS);
    assert!(get.contains("\r\nMax-Forwards: x\r\n"), "it means nothing for a GET");
}

#[test]
fn u02_u04_expect_and_upgrade() {
    let expect = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(request(expect, &EDITS).to_ascii_lowercase().matches("expect: 100-continue\r\n").count(), 1);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert!(!request(upgrade, &EDITS).to_ascii_lowercase().contains("upgrade"));
    let text = request(upgrade, &RequestEdits { upgrade: true, ..EDITS });
    assert!(text.ends_with("\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{text}");
}

#[test]
fn a_response_is_regenerated() {
    let text = "HTTP/1.0 299 Fine by me\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
        Proxy-Authenticate: x\r\nContent-Length: 05\r\nVia: 1.1 o\r\nServer: s\r\n\r\n";
    assert_eq!(
        response(text, Method::Get, &ANSWER),
        "HTTP/1.1 299 Fine by me\r\nServer: s\r\nvia: 1.1 o, 1.0 node\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         content-length: 5\r\n\r\n"
    );
    let dated = "HTTP/1.1 200 \r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        response(dated, Method::Get, &ResponseEdits { close: true, keep_alive_10: true, ..ANSWER }),
        "HTTP/1.1 200 OK\r\nDate: now\r\nvia: 1.1 node\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn f22_lengths_without_a_body() {
    let text = |status| format!("HTTP/1.1 {status} x\r\nDate: d\r\nContent-Length: 10\r\n\r\n");
    for (status, method, length) in [
        (200, Method::Head, true),
        (304, Method::Get, true),
        (204, Method::Get, false),
        (103, Method::Get, false),
        (200, Method::Get, true),
    ] {
        let sent = response(&text(status), method, &ANSWER);
        assert_eq!(sent.contains("content-length: 10\r\n"), length, "{status} {sent}");
    }
}

#[test]
fn u01_interim_and_101() {
    assert_eq!(
        response("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\n", Method::Get, &ANSWER),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nvia: 1.1 node\r\n\r\n"
    );
    let text =
        "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    let sent = response(text, Method::Get, &ResponseEdits { upgrade: true, ..ANSWER });
    assert!(
        sent.contains("\r\nSec-WebSocket-Accept: x\r\n")
            && sent.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n")
    );
}
