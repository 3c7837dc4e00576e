//! L: what a proxy of bytes is measured by.

use super::{Against, Better, Case, Gate, Work, beside, rows};
use crate::compare::generator::{Load, What};
use crate::compare::origin::Role;
use crate::compare::peer::Protocol;

/// Both sides of each have a descriptor in the proxy, which may have 20,000.
const TUNNELS: u32 = 9_000;

fn case(
    scenario: &'static str,
    name: &'static str,
    load: Load,
    origin: Role,
    peers: &'static [&'static str],
) -> Case {
    Case { scenario, name, work: Work::Load(load), body_bytes: 0.0, protocol: Protocol::Tcp, origin, peers }
}

pub(super) fn cases() -> Vec<Case> {
    let bulk = &[
        "nginx",
        "haproxy",
        "haproxy-splice",
        "haproxy-splice-1m",
        "haproxy-forced-1m",
        "floor-splice",
        "ringway",
    ];
    let small = &["nginx", "haproxy", "floor-epoll", "floor-uring", "ringway"];
    let (stream, messages) = (Load::new(1, What::Bytes), Load::new(64, What::Messages));
    let upgrade = |load: &Load| Load { upgrade: true, ..load.clone() };
    let tunnel = |name, load: &Load, origin| Case {
        protocol: Protocol::Http,
        ..case("L5", name, upgrade(load), origin, &["ringway"])
    };
    vec![
        // What is held against one of our own runs comes right behind it: a shared machine changes within minutes.
        case("L1", "1", stream.clone(), Role::Source, bulk),
        tunnel("stream", &stream, Role::UpgradedSource),
        case("L1", "4", Load::new(4, What::Bytes), Role::Source, bulk),
        case("L2", "64", messages.clone(), Role::Echo, small),
        tunnel("messages", &messages, Role::UpgradedEcho),
        case("L3", "close", Load { close: true, ..Load::new(64, What::Requests) }, Role::Http, small),
        Case { work: Work::Idle(TUNNELS), ..case("L4", "9000", messages.clone(), Role::Echo, small) },
        Case { work: Work::Idle(TUNNELS), ..tunnel("9000", &messages, Role::UpgradedEcho) },
    ]
}

pub(super) fn gates() -> Vec<Gate> {
    use Against::{Nothing, Own, Peer};
    use Better::{Less, More};
    let (bytes, messages) = ("bytes_per_cpu_second", "requests_per_cpu_second");
    let (user, all) = ("user_bytes_per_connection", "bytes_per_connection");
    let mut gates = Vec::new();
    for case in ["1", "4"] {
        let limits = [
            (Peer("nginx"), Some(4.0)),
            (Peer("haproxy-splice-1m"), Some(1.0)),
            // Stricter than what was asked: auto does not splice a steady flow at all.
            (Peer("haproxy-forced-1m"), Some(1.0)),
        ];
        gates.push(rows("L1", case, bytes, More, &limits));
        let others = beside(["haproxy", "haproxy-splice", "floor-splice", "baseline"]);
        gates.push(rows("L1", case, bytes, More, &others));
    }
    for (scenario, case, limit) in [("L2", "64", 1.3), ("L3", "close", 1.0)] {
        let limits = [(Peer("nginx"), Some(limit)), (Peer("haproxy"), Some(limit))];
        gates.push(rows(scenario, case, messages, More, &limits));
        gates.push(rows(scenario, case, messages, More, &beside(["floor-epoll", "floor-uring", "baseline"])));
    }
    gates.push(rows("L4", "9000", user, Less, &[(Nothing, Some(768.0))]));
    gates.push(rows("L4", "9000", user, Less, &beside(["nginx", "haproxy"])));
    let others = beside(["nginx", "haproxy", "floor-epoll", "floor-uring", "baseline"]);
    gates.push(rows("L4", "9000", all, Less, &others));
    gates.push(rows("L5", "stream", bytes, More, &[(Own("L1", "1"), Some(0.9)), (Peer("baseline"), None)]));
    gates.push(rows(
        "L5",
        "messages",
        messages,
        More,
        &[(Own("L2", "64"), Some(0.9)), (Peer("baseline"), None)],
    ));
    gates.push(rows("L5", "9000", user, Less, &[(Own("L4", "9000"), Some(1.1)), (Peer("baseline"), None)]));
    gates.concat()
}
