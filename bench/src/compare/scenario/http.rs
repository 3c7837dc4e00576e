//! K: what a proxy of requests is measured by.

use super::{Against, Better, Case, Gate, Work, beside, rows};
use crate::compare::generator::{Load, What};
use crate::compare::origin::Role;
use crate::compare::peer::Protocol;

const HTTP: &[&str] = &["nginx", "haproxy", "sozu", "pingora", "ringway"];

/// The floor stands beside us: what more connections cost a relay that parses nothing, no proxy can win back.
const MANY: &[&str] = &["nginx", "floor-uring", "ringway"];

fn load(connections: u32, path: &str) -> Load {
    Load { path: path.to_owned(), ..Load::new(connections, What::Requests) }
}

/// What the ends of the flows do to the small requests beside them, they do to those of every peer.
const BESIDE: &[&str] = &["nginx", "haproxy-splice", "floor-uring", "ringway"];

fn case(scenario: &'static str, name: &'static str, work: Work, peers: &'static [&'static str]) -> Case {
    Case { scenario, name, work, body_bytes: 128.0, protocol: Protocol::Http, origin: Role::Http, peers }
}

pub(super) fn cases() -> Vec<Case> {
    // Below 500 a second a generator sleeps in between, and leaves its CPU to the other and to the origin.
    let paced = |connections, path: &str, rate| Load { rate: Some(rate), ..load(connections, path) };
    let small = load(64, "/");
    let close = Load { close: true, ..small.clone() };
    let peers = &[
        "nginx",
        "haproxy",
        "haproxy-splice",
        "haproxy-forced-1m",
        "sozu",
        "pingora",
        "floor-splice",
        "ringway",
    ];
    let bulk = |name, path: &str, body_bytes| {
        let work = Work::Load(load(32, path));
        Case { body_bytes, ..case("K5", name, work, peers) }
    };
    vec![
        case(
            "K1",
            "64",
            Work::Load(small.clone()),
            &["nginx", "haproxy", "sozu", "pingora", "floor-epoll", "floor-uring", "ringway"],
        ),
        case("K2", "1000", Work::Load(load(1000, "/")), MANY),
        case("K2", "8000", Work::Load(load(8000, "/")), MANY),
        case(
            "K3",
            "close",
            Work::Load(close),
            &["nginx", "haproxy", "sozu", "pingora", "floor-accept", "floor-accept-connect", "ringway"],
        ),
        case("K4", "half", Work::Paced(small.clone(), 0.5), HTTP),
        bulk("64KiB", "/bytes/65536", 65_536.0),
        bulk("1MiB", "/bytes/1048576", 1_048_576.0),
        case("K6", "64", Work::Count(small), HTTP),
        case("K8", "alone", Work::Beside(paced(64, "/", 400.0), None), BESIDE),
        case(
            "K8",
            "bulk-4",
            Work::Beside(paced(64, "/", 400.0), Some(paced(4, "/bytes/1048576", 300.0))),
            BESIDE,
        ),
        case(
            "K7",
            "15000",
            Work::Idle(15_000),
            &["nginx", "haproxy", "sozu", "pingora", "floor-idle-epoll", "floor-idle-uring", "ringway"],
        ),
    ]
}

pub(super) fn gates() -> Vec<Gate> {
    use Against::{Nothing, Own, Peer};
    use Better::{Less, More};
    let requests = "requests_per_cpu_second";
    let bytes = "bytes_per_cpu_second";
    let rivals = [("nginx", 1.3), ("haproxy", 1.5), ("sozu", 2.5), ("pingora", 2.5), ("floor-uring", 0.8)];
    let mut gates = vec![
        rows("K1", "64", requests, More, &rivals.map(|(peer, limit)| (Peer(peer), Some(limit)))),
        rows("K1", "64", requests, More, &beside(["floor-epoll", "baseline"])),
    ];
    for case in ["1000", "8000"] {
        gates.push(rows("K2", case, requests, More, &[(Own("K1", "64"), Some(0.9))]));
        gates.push(rows("K2", case, requests, More, &beside(["nginx", "floor-uring", "baseline"])));
    }
    let limits = [(Peer("nginx"), Some(1.0)), (Peer("haproxy"), Some(1.0))];
    gates.push(rows("K3", "close", requests, More, &limits));
    let others = beside(["sozu", "pingora", "floor-accept", "floor-accept-connect", "baseline"]);
    gates.push(rows("K3", "close", requests, More, &others));
    gates.push(rows("K4", "half", "p99", Less, &[(Peer("nginx"), Some(0.8))]));
    gates.push(rows("K4", "half", "p99", Less, &beside(["haproxy", "sozu", "pingora", "baseline"])));
    gates.push(rows("K4", "half", "p99.9", Less, &beside(["nginx", "haproxy", "baseline"])));
    for case in ["64KiB", "1MiB"] {
        let limits = [(Peer("nginx"), Some(1.5)), (Peer("haproxy-splice"), Some(1.0))];
        gates.push(rows("K5", case, bytes, More, &limits));
        let others = ["haproxy", "haproxy-forced-1m", "sozu", "pingora", "floor-splice", "baseline"];
        gates.push(rows("K5", case, bytes, More, &beside(others)));
    }
    let counted = |limit| [(Nothing, Some(limit)), (Peer("nginx"), None), (Peer("haproxy"), None)];
    gates.push(rows("K8", "bulk-4", "p99", Less, &[(Own("K8", "alone"), Some(1.5))]));
    for case in ["alone", "bulk-4"] {
        gates.push(rows(
            "K8",
            case,
            "p99",
            Less,
            &beside(["nginx", "haproxy-splice", "floor-uring", "baseline"]),
        ));
    }
    gates.push(rows("K6", "64", "calls_per_request", Less, &counted(0.3)));
    gates.push(rows("K1", "64", "user_us_per_request", Less, &counted(2.0)));
    let limits = [(Nothing, Some(512.0)), (Peer("nginx"), None)];
    gates.push(rows("K7", "15000", "user_bytes_per_connection", Less, &limits));
    gates.push(rows("K7", "15000", "bytes_per_connection", Less, &[(Peer("nginx"), Some(1.0))]));
    let others = ["haproxy", "sozu", "pingora", "floor-idle-epoll", "floor-idle-uring", "baseline"];
    gates.push(rows("K7", "15000", "bytes_per_connection", Less, &beside(others)));
    gates.concat()
}
