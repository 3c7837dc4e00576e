//! The scenarios, their cases, who takes part, and the gates: `http` has those of requests (K), `tcp` those of bytes (L).

mod http;
mod tcp;

use super::generator::Load;
use super::origin::Role;
use super::peer::Protocol;

/// What is done with a peer in one case.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Load(Load),
    /// A share of the reference's best rate at K1, by the clock.
    Paced(Load, f64),
    /// By the clock, with another load beside it on the same shard or worker, or alone.
    Beside(Load, Option<Load>),
    /// System calls counted under this load, not timed.
    Count(Load),
    /// So many clients that stay, each after one request, or one message, behind an upgrade where the origin wants one.
    Idle(u32),
}

/// One case of a scenario: the same work for each peer that takes part.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) scenario: &'static str,
    pub(super) name: &'static str,
    pub(super) work: Work,
    /// What a request brings, where bytes are counted by requests.
    pub(super) body_bytes: f64,
    /// What the peers are configured to carry, and who is behind them.
    pub(super) protocol: Protocol,
    pub(super) origin: Role,
    pub(super) peers: &'static [&'static str],
}

/// The figure that a gate looks at, and which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Case {
    /// Whether a rival must be there for a gate of this case; ringway, the reference and the floors always must.
    pub(super) fn is_gated(&self, peer: &str) -> bool {
        let rival = !peer.starts_with("floor-") && !["ringway", "baseline", REFERENCE].contains(&peer);
        let decides = |gate: &Gate| {
            (gate.scenario, gate.case) == (self.scenario, self.name)
                && gate.limit.is_some()
                && matches!(gate.against, Against::Peer(name) if name == peer)
        };
        !rival || gates().iter().any(decides)
    }
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
    (
        "K8",
        "p99 of small requests by the clock, 400 a second: alone, and beside four flows of 1 MiB bodies, 300 a second",
    ),
    ("L1", "bytes per CPU-second through a TCP listener; one stream and four"),
    ("L2", "messages of 64 bytes, there and back, per CPU-second through a TCP listener; 64 connections"),
    ("L3", "connections per CPU-second through a TCP listener: connect, one small exchange, close"),
    ("L4", "memory per idle tunnel of a TCP listener, both sides"),
    ("L5", "L1, L2 and L4 in a tunnel behind an Upgrade, held against our own TCP listener"),
];

/// All cases, in the order in which they run: K4 needs the rate of K1.
pub(super) fn cases() -> Vec<Case> {
    [http::cases(), tcp::cases()].concat()
}

/// The rows of the table, gates and what stands beside them.
pub(super) fn gates() -> Vec<Gate> {
    [http::gates(), tcp::gates()].concat()
}

/// A gate for each pair of what our figure is held against and its limit.
fn rows(
    scenario: &'static str,
    case: &'static str,
    metric: &'static str,
    better: Better,
    rows: &[(Against, Option<f64>)],
) -> Vec<Gate> {
    let row =
        |&(against, limit): &(Against, Option<f64>)| Gate { scenario, case, metric, against, better, limit };
    rows.iter().map(row).collect()
}

/// Peers that stand beside the gates.
fn beside<const N: usize>(peers: [&'static str; N]) -> [(Against, Option<f64>); N] {
    peers.map(|peer| (Against::Peer(peer), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_has_who_is_gated() {
        let all = cases();
        let case = |scenario| all.iter().find(|c| c.scenario == scenario).unwrap();
        assert!(["nginx", "sozu", "ringway", "floor-uring"].iter().all(|peer| case("K1").is_gated(peer)));
        assert!(case("K3").is_gated("haproxy") && !case("K3").is_gated("sozu"));
        assert!(case("K4").is_gated("nginx") && !case("K4").is_gated("haproxy"));
    }

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
