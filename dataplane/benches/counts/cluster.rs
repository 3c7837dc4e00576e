//! Clusters to pick from.

use dataplane::io::SocketAddress;
use dataplane::spec::{Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, Pool};
use std::time::Duration;

/// So many endpoints, of which two weigh double.
pub(crate) fn of(balance: &'static str, count: u16) -> Cluster {
    let second = Duration::from_secs(1);
    let address = SocketAddress::new([127, 0, 0, 1].into(), 9000);
    let endpoint = |id: u16| Endpoint {
        weight: 1 + u32::from(id < 2),
        ..Endpoint::new(EndpointId(id), &format!("e{id}"), address.into())
    };
    Cluster {
        balance,
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: second,
            response_header: second,
            response_body: second,
            send: second,
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 8, idle_timeout: second, requests_per_connection: u64::MAX },
        ..Cluster::new(ClusterId(0), "c", (0..count).map(endpoint).collect())
    }
}

/// A key that is another for each number.
pub(crate) fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
