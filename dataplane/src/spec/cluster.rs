//! A cluster: endpoints with one policy.

use super::{ClusterId, EndpointId};
use crate::io::SocketAddress;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: Arc<str>,
    /// Name of a policy in `cluster::balance::POLICIES`.
    pub balance: &'static str,
    pub host: HostPolicy,
    pub source_addresses: SourceAddresses,
    pub endpoints: Vec<Endpoint>,
    pub timeouts: ClusterTimeouts,
    /// An endpoint that vanished from under a link is found within this (`[cluster.timeouts]`); `Duration::MAX` is off.
    pub dead_peer: Duration,
    pub pool: Pool,
    /// Pass trailers on (both ways) instead of dropping them.
    pub pass_trailers: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub name: Arc<str>,
    pub address: SocketAddress,
    /// `address` as a Host, for `HostPolicy::Endpoint`.
    pub authority: Arc<str>,
    /// 0 takes nothing.
    pub weight: u32,
    /// Open links, idle ones included, over all shards; `u32::MAX` is none.
    pub max_connections: u32,
    /// Running requests, over all shards; `u32::MAX` is none.
    pub max_requests: u32,
}

/// What Host the origin is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    Pass,
    /// The endpoint's address.
    Endpoint,
    Name(Arc<str>),
}

/// Local addresses to connect from, taken in turn; empty = the kernel's choice. Ranges are inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceAddresses {
    pub ranges: Vec<(IpAddr, IpAddr)>,
}

impl SourceAddresses {
    /// The `n`th address in turn of the family of `to`, wrapping around; `None` if there is none.
    pub fn nth(&self, n: u64, v6: bool) -> Option<IpAddr> {
        let size = |&(from, to): &(IpAddr, IpAddr)| -> u128 {
            match (from, to) {
                (IpAddr::V4(a), IpAddr::V4(b)) if !v6 => {
                    u128::from(u32::from(b).saturating_sub(u32::from(a))) + 1
                }
                (IpAddr::V6(a), IpAddr::V6(b)) if v6 => {
                    u128::from(b).saturating_sub(u128::from(a)).saturating_add(1)
                }
                _ => 0,
            }
        };
        let total = self.ranges.iter().map(size).fold(0u128, u128::saturating_add);
        let mut at = u128::from(n).checked_rem(total)?;
        for range in &self.ranges {
            let here = size(range);
            if at < here {
                return Some(match range.0 {
                    IpAddr::V4(a) => IpAddr::V4((u32::from(a) + u32::try_from(at).unwrap_or(0)).into()),
                    IpAddr::V6(a) => IpAddr::V6((u128::from(a) + at).into()),
                });
            }
            at -= here;
        }
        None
    }
}

/// `[cluster.timeouts]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTimeouts {
    pub connect: Duration,
    pub response_header: Duration,
    /// Between two pieces of a response body.
    pub response_body: Duration,
    pub send: Duration,
}

/// `[cluster.pool]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Idle links kept, over all shards; 0 closes each link after its exchange.
    pub idle: u32,
    pub idle_timeout: Duration,
    /// Requests on one link; `u64::MAX` is unlimited.
    pub requests_per_connection: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_go_round() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let pool = SourceAddresses {
            ranges: vec![
                (ip("127.0.0.1"), ip("127.0.0.3")),
                (ip("::1"), ip("::1")),
                (ip("127.0.1.0"), ip("127.0.1.0")),
            ],
        };
        let v4: Vec<_> = (0..5).map(|n| pool.nth(n, false).unwrap().to_string()).collect();
        assert_eq!(v4, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.1.0", "127.0.0.1"]);
        assert_eq!(pool.nth(7, true), Some(ip("::1")));
        assert_eq!(SourceAddresses::default().nth(0, false), None);
    }
}
