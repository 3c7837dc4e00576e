//! What is counted without a shard: heads read and written, a route found, an endpoint picked.

use crate::{ROUNDS, cluster, count_this};
use dataplane::cluster::balance::{Hint, policy};
use dataplane::cluster::shared::SharedCluster;
use dataplane::cluster::{ClusterState, Tried};
use dataplane::io::Mono;
use dataplane::proto::http1::{
    ForwardedMode, HeadLimits, Parsed, RequestEdits, ResponseEdits, Scan, encode_request, encode_response,
    parse_request, parse_response,
};
use dataplane::proto::{Framing, Method, RequestHead, ResponseHead, Version};
use dataplane::route::{Request, RouteTable};
use dataplane::spec::{Action, ClusterId, EndpointId, ListenerId, Match, Route, RouteId};
use std::hint::black_box;
use std::sync::Arc;

const LIMITS: HeadLimits = HeadLimits { request_line: 8192, header_block: 16384, header_fields: 100 };

pub(crate) const SMALL: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// As a browser asks for a page.
pub(crate) const BROWSER: &str = "GET /shop/item/4711?ref=start&lang=en HTTP/1.1\r\n\
    Host: www.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.test/shop/\r\n\
    Connection: keep-alive\r\n\
    Cookie: sid=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Cache-Control: max-age=0\r\n\r\n";
/// As an origin answers.
const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Server: origin/1.0\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 5120\r\n\
    Cache-Control: private, max-age=60\r\n\
    ETag: \"5f3c-1400-62b1c8a0\"\r\n\
    Vary: Accept-Encoding\r\n\r\n";

fn request_head(text: &str) -> (Vec<u8>, RequestHead) {
    let (mut bytes, mut head) = (text.as_bytes().to_vec(), RequestHead::default());
    let parsed = parse_request(&mut bytes, &mut Scan::default(), &LIMITS, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { len: text.len() }));
    (bytes, head)
}

fn parse(text: &str) {
    let (mut bytes, mut head) = request_head(text);
    count_this(&mut || {
        for _ in 0..ROUNDS {
            let mut scan = Scan::default();
            let parsed = parse_request(black_box(&mut bytes), &mut scan, &LIMITS, black_box(&mut head));
            assert!(matches!(parsed, Ok(Parsed::Complete { .. })));
        }
    });
}

pub(crate) fn parse_request_small() {
    parse(SMALL);
}

pub(crate) fn parse_request_browser() {
    parse(BROWSER);
}

pub(crate) fn parse_a_response() {
    let mut head = ResponseHead::default();
    let mut once = || {
        let bytes = black_box(RESPONSE.as_bytes());
        parse_response(bytes, &mut Scan::default(), Method::Get, black_box(&mut head)).is_ok()
    };
    assert!(once());
    count_this(&mut || (0..ROUNDS).for_each(|_| assert!(once())));
}

pub(crate) fn encode_a_request() {
    let (bytes, head) = request_head(BROWSER);
    let edits = RequestEdits {
        host: None,
        peer: Some([192, 0, 2, 7].into()),
        forwarded: ForwardedMode::Replace,
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
    let mut out = [0; 4096];
    count_this(&mut || {
        for _ in 0..ROUNDS {
            let len = encode_request(black_box(&head), &bytes, black_box(&edits), black_box(&mut out));
            assert!(len.is_some());
        }
    });
}

pub(crate) fn encode_a_response() {
    let (bytes, mut head) = (RESPONSE.as_bytes(), ResponseHead::default());
    let parsed = parse_response(bytes, &mut Scan::default(), Method::Get, &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { len: bytes.len() }));
    let edits = ResponseEdits {
        version: Version::Http11,
        framing: head.framing,
        close: false,
        keep_alive_10: false,
        upgrade: false,
        via: "node",
        date: b"Thu, 01 Jan 2026 00:00:00 GMT",
        sticky: None,
    };
    let mut out = [0; 4096];
    count_this(&mut || {
        for _ in 0..ROUNDS {
            let len = encode_response(black_box(&head), bytes, black_box(&edits), black_box(&mut out));
            assert!(len.is_some());
        }
    });
}

/// A hundred hosts with ten prefixes each; the request matches the last prefix of its host.
pub(crate) fn route_of_1000() {
    let route = |n: u32| Route {
        id: RouteId(n),
        name: "r".into(),
        listeners: Vec::new(),
        matcher: Match {
            host: vec![format!("www.h{}.test", n / 10).into()],
            path_prefix: vec![format!("/p{}", n % 10).into()],
            ..Match::default()
        },
        action: Action::Forward {
            cluster: ClusterId(0),
            response_header: None,
            response_body: None,
            send: None,
            connect: None,
            queue: None,
        },
        maintenance: None,
        error_pages: Default::default(),
    };
    let routes: Vec<_> = (0..1000).map(|n| Arc::new(route(n))).collect();
    let table = RouteTable::build(&routes);
    let (bytes, head) = request_head("GET /p9/x/y/z HTTP/1.1\r\nHost: www.h42.test\r\n\r\n");
    let source = Some([127, 0, 0, 1].into());
    let request = Request { listener: ListenerId(0), head: &head, bytes: &bytes, source, available: &[] };
    count_this(&mut || {
        for _ in 0..ROUNDS {
            assert_eq!(table.find(black_box(&request)).map(|route| route.id), Some(RouteId(429)));
        }
    });
}

/// Picks, and the end of each request before the next pick.
fn pick(balance: &str, count: u16) {
    let name = policy(balance).map(|policy| policy.name).expect("a policy of that name");
    let shared = Arc::new(SharedCluster::new(usize::from(count), 1));
    let mut state = ClusterState::new(Arc::new(cluster::of(name, count)), shared, 0, 7);
    (0..count).for_each(|at| state.observe(EndpointId(at), 1_000_000 + u64::from(at), Mono(0)));
    count_this(&mut || {
        for round in 0..ROUNDS as u64 {
            let hint = Hint { key: cluster::key(round), now: Mono(round), ..Hint::default() };
            let picked = state.pick(black_box(&Tried::NONE), hint);
            assert!(picked.is_ok_and(|id| id.0 < count));
            picked.into_iter().for_each(|id| state.end_request(id));
        }
    });
}

pub(crate) fn pick_round_robin() {
    pick("round_robin", 10);
}

pub(crate) fn pick_least_connections() {
    pick("least_connections", 10);
}

pub(crate) fn pick_random() {
    pick("random", 10);
}

pub(crate) fn pick_peak_ewma() {
    pick("peak_ewma", 10);
}

pub(crate) fn pick_hash() {
    pick("hash", 10);
}

pub(crate) fn pick_least_connections_of_1000() {
    pick("least_connections", 1000);
}

pub(crate) fn pick_random_of_1000() {
    pick("random", 1000);
}

pub(crate) fn pick_round_robin_of_1000() {
    pick("round_robin", 1000);
}

pub(crate) fn pick_peak_ewma_of_1000() {
    pick("peak_ewma", 1000);
}

pub(crate) fn pick_first_of_1000() {
    pick("first", 1000);
}

pub(crate) fn pick_hash_of_1000() {
    pick("hash", 1000);
}
