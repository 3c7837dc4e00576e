//! A shard's part of a cluster: what is taken is given back, and limits hold over shards.

mod failing;

use super::eligible::{Admin, Health};
use super::*;
use crate::spec::{ClusterId, ClusterTimeouts, Pool};
use std::time::Duration;

/// A cluster of endpoints of these weights without limits.
pub(super) fn test_cluster(weights: &[u32]) -> Cluster {
    let address = |id| crate::io::SocketAddress::new([127, 0, 0, 1].into(), 9000 + id).into();
    let endpoint = |(id, &weight): (u16, &u32)| Endpoint {
        weight,
        ..Endpoint::new(EndpointId(id), &format!("e{id}"), address(id))
    };
    let second = Duration::from_secs(1);
    Cluster {
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: second,
            response_header: second,
            response_body: second,
            send: second,
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 4, idle_timeout: second, requests_per_connection: u64::MAX },
        ..Cluster::new(ClusterId(0), "c", (0u16..).zip(weights).map(endpoint).collect())
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

/// Every policy, over shards: what is down is not picked, on no shard, from the very next pick on.
#[test]
fn a_change_of_condition_holds_at_the_next_pick_of_every_shard() {
    for policy in POLICIES {
        let mut cluster = test_cluster(&[1, 1, 1]);
        cluster.balance = policy.name;
        let mut shards = shards(cluster, 4);
        let shared = shards[0].shared.clone();
        let mut pick = |n: usize| shards[n % 4].pick(&Tried::NONE, Hint::default());
        (0..12).for_each(|n| assert_ne!(pick(n), Err(PickError::NoEndpoint)));
        shared.set_health(EndpointId(0), Health::Down, Mono(0));
        shared.set_admin(EndpointId(2), Admin::Drain, Mono(1));
        (0..12).for_each(|n| assert_eq!(pick(n), Ok(EndpointId(1)), "{}", policy.name));
        shared.set_admin(EndpointId(1), Admin::Maint, Mono(1));
        (0..12).for_each(|n| assert_eq!(pick(n), Err(PickError::NoEndpoint), "{}", policy.name));
        shared.set_health(EndpointId(0), Health::Up, Mono(0));
        (0..12).for_each(|n| assert_eq!(pick(n), Ok(EndpointId(0)), "{}", policy.name));
    }
}

/// A request that found the whole tier in use dead goes to the next, full ones apart, for which it waits.
#[test]
fn who_tried_a_whole_tier_goes_to_the_next() {
    let mut cluster = test_cluster(&[1, 1, 1, 1, 0]);
    for (endpoint, tier) in cluster.endpoints.iter_mut().zip([0, 0, 3, 3, 1]) {
        (endpoint.priority, endpoint.max_requests) = (tier, 1);
    }
    let mut state = shards(cluster, 1).remove(0);
    let mut tried = Tried::NONE;
    tried.add(state.pick(&tried, Hint::default()).unwrap());
    tried.add(state.pick(&tried, Hint::default()).unwrap());
    assert!(tried.contains(EndpointId(0)) && tried.contains(EndpointId(1)));
    assert_eq!(
        state.pick(&Tried::NONE, Hint::default()),
        Err(PickError::Full),
        "a tier that is full keeps its requests"
    );
    state.shared.set_health(EndpointId(2), Health::Down, Mono(0));
    assert_eq!(state.pick(&tried, Hint::default()), Ok(EndpointId(3)));
    assert_eq!(state.pick(&tried, Hint::default()), Err(PickError::Full));
    tried.add(EndpointId(3));
    assert_eq!(state.pick(&tried, Hint::default()), Err(PickError::NoEndpoint));
}

#[test]
fn only_links_on_which_requests_may_come_are_kept() {
    let mut cluster = test_cluster(&[1, 1]);
    cluster.endpoints[1].priority = 1;
    let mut state = shards(cluster, 1).remove(0);
    let kept = |state: &mut ClusterState| {
        state.refresh(Mono(0));
        [0, 1].map(|id| state.keeps_links(EndpointId(id)))
    };
    assert_eq!(kept(&mut state), [true, true], "another tier's turn may come");
    state.shared.set_admin(EndpointId(0), Admin::Drain, Mono(1));
    assert_eq!(kept(&mut state), [false, true]);
    state.shared.set_admin(EndpointId(0), Admin::Ready, Mono(1));
    state.shared.set_health(EndpointId(1), Health::Down, Mono(0));
    assert_eq!(kept(&mut state), [true, false]);
    assert!(!state.keeps_links(EndpointId(2)));
}

#[test]
fn places_are_looked_for_at_usable_endpoints() {
    let mut cluster = test_cluster(&[1, 1]);
    cluster.endpoints.iter_mut().for_each(|e| e.max_requests = 1);
    let mut state = shards(cluster, 1).remove(0);
    let mut room = |id, health| {
        state.shared.set_health(EndpointId(id), health, Mono(0));
        state.refresh(Mono(0));
        state.room()
    };
    assert_eq!(room(0, Health::Down), Room::Open);
    assert_eq!(room(1, Health::Down), Room::Open, "who waits learns that there is nobody");
    assert_eq!(room(0, Health::Up), Room::Open);
    assert_eq!(state.pick(&Tried::NONE, Hint::default()), Ok(EndpointId(0)));
    assert_eq!(state.room(), Room::None, "what is down has room and is none");
}
