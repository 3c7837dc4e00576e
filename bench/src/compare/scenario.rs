//! The scenarios, their cases, who takes part, and the gates.

use super::generator::Load;

/// What is done with a peer in one case.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Load(Load),
    /// A share of the reference's best rate at K1, by the clock.
    Paced(Load, f64),
    /// System calls counted under this load, not timed.
    Count(Load),
    /// So many clients that stay after one request each.
    Idle(u32),
}

/// One case of a scenario: the same work for each peer that takes part.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) scenario: &'static str,
    pub(super) name: &'static str,
    pub(super) work: Work,
    pub(super) body_bytes: f64,
    pub(super) peers: &'static [&'static str],
}

/// The figure that a gate looks at, and which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// What the figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// The same case of a peer.
    Peer(&'static str),
    /// Our own figure in another case.
    Own(&'static str, &'static str),
    /// The figure itself.
    Nothing,
}

/// One row of the table. Without a limit it is shown beside the others and decides nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    pub(super) scenario: &'static str,
    pub(super) case: &'static str,
    pub(super) metric: &'static str,
    pub(super) against: Against,
    pub(super) better: Better,
    pub(super) limit: Option<f64>,
}

pub(super) const REFERENCE: &str = "nginx";
pub(super) const SCENARIOS: &[(&str, &str)] = &[
    ("K1", "requests per CPU-second; keep-alive, small GET, 64 connections"),
    ("K2", "the same with many active connections"),
    ("K3", "one request per connection"),
    ("K4", "latency by the clock at half of nginx's best rate"),
    ("K5", "bytes of response bodies per CPU-second"),
    ("K6", "counted per request under the load of K1: system calls, user CPU"),
    ("K7", "memory per idle keep-alive client"),
];

const HTTP: &[&str] = &["nginx", "haproxy", "sozu", "pingora", "ringway"];

/// The floor stands beside us: what more connections cost a relay that parses nothing, no proxy can win back.
const MANY: &[&str] = &["nginx", "floor-uring", "ringway"];

fn load(connections: u32, path: &str) -> Load {
    Load { connections, path: path.to_owned(), close: false, rate: None, seconds: 0.0, warm_up: 0.0 }
}

/// All cases, in the order in which they run: K4 needs the rate of K1.
pub(super) fn cases() -> Vec<Case> {
    let case = |scenario, name, work, peers| Case { scenario, name, work, body_bytes: 128.0, peers };
    let small = load(64, "/");
    let close = Load { close: true, ..small.clone() };
    let bulk = |name, path: &str, body_bytes| Case {
        scenario: "K5",
        name,
        work: Work::Load(load(32, path)),
        body_bytes,
        peers: &[
            "nginx",
            "haproxy",
            "haproxy-splice",
            "haproxy-splice-1m",
            "sozu",
            "pingora",
            "floor-splice",
            "ringway",
        ],
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
        case(
            "K7",
            "15000",
            Work::Idle(15_000),
            &["nginx", "haproxy", "sozu", "pingora", "floor-idle-epoll", "floor-idle-uring", "ringway"],
        ),
    ]
}

/// The rows of the table, gates and what stands beside them.
pub(super) fn gates() -> Vec<Gate> {
    use Against::{Nothing, Own, Peer};
    use Better::{Less, More};
    let mut gates = Vec::new();
    let mut row = |scenario, case, metric, better, rows: &[(Against, Option<f64>)]| {
        gates.extend(rows.iter().map(|&(against, limit)| Gate {
            scenario,
            case,
            metric,
            against,
            better,
            limit,
        }));
    };
    let requests = "requests_per_cpu_second";
    let rivals = [("nginx", 1.3), ("haproxy", 1.5), ("sozu", 2.5), ("pingora", 2.5), ("floor-uring", 0.8)];
    row("K1", "64", requests, More, &rivals.map(|(peer, limit)| (Peer(peer), Some(limit))));
    row("K1", "64", requests, More, &[(Peer("floor-epoll"), None), (Peer("baseline"), None)]);
    for case in ["1000", "8000"] {
        row(
            "K2",
            case,
            requests,
            More,
            &[
                (Own("K1", "64"), Some(0.9)),
                (Peer("nginx"), None),
                (Peer("floor-uring"), None),
                (Peer("baseline"), None),
            ],
        );
    }
    row("K3", "close", requests, More, &[(Peer("nginx"), Some(1.0)), (Peer("haproxy"), Some(1.0))]);
    let beside = ["sozu", "pingora", "floor-accept", "floor-accept-connect", "baseline"];
    row("K3", "close", requests, More, &beside.map(|peer| (Peer(peer), None)));
    row("K4", "half", "p99", Less, &[(Peer("nginx"), Some(0.8))]);
    row(
        "K4",
        "half",
        "p99",
        Less,
        &["haproxy", "sozu", "pingora", "baseline"].map(|peer| (Peer(peer), None)),
    );
    row("K4", "half", "p99.9", Less, &["nginx", "haproxy", "baseline"].map(|peer| (Peer(peer), None)));
    for case in ["64KiB", "1MiB"] {
        let bytes = "bytes_per_cpu_second";
        row("K5", case, bytes, More, &[(Peer("nginx"), Some(1.5)), (Peer("haproxy-splice"), Some(1.0))]);
        let beside = ["haproxy", "haproxy-splice-1m", "sozu", "pingora", "floor-splice", "baseline"];
        row("K5", case, bytes, More, &beside.map(|peer| (Peer(peer), None)));
    }
    row(
        "K6",
        "64",
        "calls_per_request",
        Less,
        &[(Nothing, Some(0.3)), (Peer("nginx"), None), (Peer("haproxy"), None)],
    );
    row(
        "K1",
        "64",
        "user_us_per_request",
        Less,
        &[(Nothing, Some(2.0)), (Peer("nginx"), None), (Peer("haproxy"), None)],
    );
    let beside = ["haproxy", "sozu", "pingora", "floor-idle-epoll", "floor-idle-uring", "baseline"];
    row("K7", "15000", "user_bytes_per_connection", Less, &[(Nothing, Some(512.0)), (Peer("nginx"), None)]);
    row("K7", "15000", "bytes_per_connection", Less, &[(Peer("nginx"), Some(1.0))]);
    row("K7", "15000", "bytes_per_connection", Less, &beside.map(|peer| (Peer(peer), None)));
    gates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_names_a_case_and_its_peer() {
        let cases = cases();
        for gate in gates() {
            let case = cases.iter().find(|c| c.scenario == gate.scenario && c.name == gate.case);
            let case = case.unwrap_or_else(|| panic!("{gate:?}: no such case"));
            match gate.against {
                Against::Peer("baseline") | Against::Nothing => {}
                Against::Peer(peer) => assert!(case.peers.contains(&peer), "{gate:?}"),
                Against::Own(s, c) => {
                    assert!(cases.iter().any(|k| k.scenario == s && k.name == c), "{gate:?}")
                }
            }
        }
    }
}
