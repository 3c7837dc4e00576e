//! A shard's part of a cluster: what is taken is given back, and limits hold over shards.

use super::*;
use crate::spec::{ClusterId, ClusterTimeouts, HostPolicy, Pool, SourceAddresses};
use std::time::Duration;

/// A cluster of endpoints of these weights without limits.
pub(super) fn test_cluster(weights: &[u32]) -> Cluster {
    let endpoint = |(id, &weight): (u16, &u32)| Endpoint {
        id: EndpointId(id),
        name: format!("e{id}").into(),
        address: crate::io::SocketAddress::new([127, 0, 0, 1].into(), 9000 + id).into(),
        authority: format!("127.0.0.1:{}", 9000 + id).into(),
        weight,
        max_connections: u32::MAX,
        max_requests: u32::MAX,
    };
    let second = Duration::from_secs(1);
    Cluster {
        id: ClusterId(0),
        name: "c".into(),
        balance: "round_robin",
        host: HostPolicy::Pass,
        source_addresses: SourceAddresses::default(),
        endpoints: (0u16..).zip(weights).map(endpoint).collect(),
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: second,
            response_header: second,
            response_body: second,
            send: second,
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 4, idle_timeout: second, requests_per_connection: u64::MAX },
        max_queued: 1024,
        send_proxy: None,
        pass_trailers: false,
    }
}

fn shards(cluster: Cluster, count: u16) -> Vec<ClusterState> {
    let shared = Arc::new(SharedCluster::new(cluster.endpoints.len(), count));
    let cluster = Arc::new(cluster);
    (0..count).map(|shard| ClusterState::new(cluster.clone(), shared.clone(), shard, 1)).collect()
}

#[test]
fn max_requests_holds_over_shards_and_is_reached() {
    for policy in POLICIES {
        let mut cluster = test_cluster(&[1, 3, 1]);
        cluster.balance = policy.name;
        cluster.endpoints.iter_mut().for_each(|endpoint| endpoint.max_requests = 2);
        let mut shards = shards(cluster, 3);
        let mut counts = [0; 3];
        for n in 0..6 {
            let id = shards[n % 3].pick(&Tried::NONE, Hint::default()).unwrap();
            counts[usize::from(id.0)] += 1;
        }
        assert_eq!(counts, [2, 2, 2], "{}", policy.name);
        for shard in &mut shards {
            assert_eq!(shard.pick(&Tried::NONE, Hint::default()), Err(PickError::Full), "{}", policy.name);
        }
        shards[0].end_request(EndpointId(1));
        assert_eq!(shards[2].pick(&Tried::NONE, Hint::default()), Ok(EndpointId(1)), "{}", policy.name);
    }
}

#[test]
fn none_and_full_are_told_apart() {
    let none = Err(PickError::NoEndpoint);
    let pick =
        |weights: &[u32], tried: &Tried| shards(test_cluster(weights), 1)[0].pick(tried, Hint::default());
    assert_eq!(pick(&[], &Tried::NONE), none);
    assert_eq!(pick(&[0, 0], &Tried::NONE), none);
    let mut tried = Tried::NONE;
    assert!(tried.add(EndpointId(0)));
    assert_eq!(pick(&[1, 0], &tried), none);
    assert_eq!(pick(&[1, 1], &tried), Ok(EndpointId(1)));
}

#[test]
fn at_max_connections_only_a_shard_with_an_idle_link_may_go_on() {
    let mut cluster = test_cluster(&[1]);
    cluster.endpoints[0].max_connections = 1;
    let [one, two] = &mut shards(cluster, 2)[..] else { unreachable!() };
    let id = one.pick(&Tried::NONE, Hint::default()).unwrap();
    assert!(one.open_link(id));
    assert_eq!(two.pick(&Tried::NONE, Hint::default()), Err(PickError::Full));
    one.end_request(id);
    assert!(one.park_link(id));
    assert_eq!(one.pick(&Tried::NONE, Hint::default()), Ok(id));
    one.unpark_link(id);
    assert!(!two.open_link(id), "the link is still open");
    assert_eq!((one.room(), two.room()), (Room::None, Room::None));
    assert!(one.park_link(id));
    assert_eq!((one.room(), two.room()), (Room::Idle(id), Room::None));
    assert_eq!((one.idle_elsewhere(), two.idle_elsewhere()), (None, Some(0)));
    one.unpark_link(id);
    one.close_link(id);
    assert_eq!((two.room(), two.idle_elsewhere()), (Room::Open, None));
    assert!(two.open_link(id));
}

#[test]
fn idle_links_are_bounded_over_shards() {
    let mut shards = shards(test_cluster(&[1, 1]), 2);
    for n in 0..4u16 {
        assert!(shards[usize::from(n % 2)].park_link(EndpointId(n / 2)));
    }
    assert!(!shards[0].park_link(EndpointId(0)) && !shards[1].park_link(EndpointId(1)));
    shards[1].unpark_link(EndpointId(0));
    assert!(shards[0].park_link(EndpointId(1)));
}

#[test]
fn sources_go_round_over_shards() {
    let mut cluster = test_cluster(&[1]);
    let kernel = Some((SourceId::KERNEL, None));
    assert_eq!(shards(cluster.clone(), 1)[0].next_source(false, |_| true), kernel);
    assert_eq!(shards(cluster.clone(), 1)[0].next_source(false, |_| false), None);
    let range = ("127.0.0.1".parse().unwrap(), "127.0.0.3".parse().unwrap());
    cluster.source_addresses.ranges.push(range);
    let shards = shards(cluster, 2);
    let next = |n: usize| shards[n].next_source(false, |_| true).unwrap().1.unwrap().to_string();
    assert_eq!([next(0), next(1), next(1), next(0)], ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    assert_eq!(shards[0].next_source(true, |_| true), kernel, "no address of that family");
    // Those that may not be tried are passed over.
    let second = shards[0].next_source(false, |id| id == SourceId(1));
    assert_eq!(second, Some((SourceId(1), shards[0].spec().source_addresses.at(1, false))));
    assert_eq!(shards[0].next_source(false, |_| false), None);
}

#[test]
fn tried_keeps_so_many_and_no_more() {
    let mut tried = Tried::default();
    assert!(tried.is_empty());
    for id in 0..8 {
        assert!(!tried.is_full() && tried.add(EndpointId(id)) && tried.add(EndpointId(id)));
    }
    assert!(tried.is_full() && !tried.add(EndpointId(8)));
    assert!(tried.contains(EndpointId(7)) && !tried.contains(EndpointId(8)));
    assert_eq!(tried.len(), 8);
}
