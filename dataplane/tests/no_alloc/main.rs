//! No allocation on the steady path (invariant 12): a counting allocator watches this thread while it works.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails here, and may say why"
)]

mod counting;
mod real;
mod shard;

use counting::{allocations, weight};
use dataplane::cluster::balance::{Hint, POLICIES};
use dataplane::cluster::shared::SharedCluster;
use dataplane::cluster::{ClusterState, PickError, Tried};
use dataplane::io::{Mono, SocketAddress};
use dataplane::proto::{RequestHead, Span};
use dataplane::route::{Request, RouteTable};
use dataplane::spec::{
    Action, Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, ListenerId, Match, Pool, Route,
    RouteId, SourceAddresses,
};
use dataplane::table::{Slab, TimerWheel};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn the_counter_weighs() {
    let mut grown = vec![0_u8; 100];
    grown.reserve_exact(900);
    assert_eq!(weight((Box::new([0_u8; 24]), grown)), 1024);
}

fn cluster(balance: &'static str, endpoints: u16) -> Cluster {
    let second = Duration::from_secs(1);
    let address = SocketAddress::new([127, 0, 0, 1].into(), 9000);
    let endpoint = |id: u16| Endpoint {
        weight: u32::from(id % 3),
        max_connections: 10,
        max_requests: 10,
        ..Endpoint::new(EndpointId(id), &format!("e{id}"), address.into())
    };
    Cluster {
        balance,
        source_addresses: SourceAddresses {
            ranges: vec![([127, 0, 0, 1].into(), [127, 0, 0, 9].into())],
            ..SourceAddresses::default()
        },
        dead_peer: Duration::MAX,
        timeouts: ClusterTimeouts {
            connect: second,
            response_header: second,
            response_body: second,
            send: second,
            queue: Duration::ZERO,
        },
        pool: Pool { idle: 8, idle_timeout: second, requests_per_connection: u64::MAX },
        ..Cluster::new(ClusterId(0), "c", (0..endpoints).map(endpoint).collect())
    }
}

/// Up to every limit and beyond, and back, by every policy.
#[test]
fn picking_an_endpoint() {
    for policy in POLICIES {
        let shared = Arc::new(SharedCluster::new(30, 1));
        let mut state = ClusterState::new(Arc::new(cluster(policy.name, 30)), shared, 0, 7);
        let mut picked = Vec::with_capacity(1000);
        let count = allocations(|| {
            for round in 0..100 {
                let mut tried = Tried::NONE;
                tried.add(EndpointId(round % 30));
                while let Ok(id) = state.pick(&tried, Hint::default()) {
                    state.open_link(id);
                    black_box(state.next_source(false, |_| true));
                    picked.push(id);
                }
                assert_eq!(state.pick(&tried, Hint::default()), Err(PickError::Full));
                assert!(!picked.is_empty());
                for id in picked.drain(..) {
                    state.observe(id, 1_000_000, Mono(u64::from(round)));
                    state.end_request(id);
                    if state.park_link(id) {
                        state.unpark_link(id);
                    }
                    state.close_link(id);
                }
            }
        });
        assert_eq!(count, 0, "{}", policy.name);
    }
}

#[test]
fn finding_a_route() {
    let route = |n: u32| Route {
        id: RouteId(n),
        name: "r".into(),
        listeners: Vec::new(),
        matcher: Match {
            host: vec![format!("*.h{}.test", n / 10).into()],
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
    let bytes = b"a.b.h42.test/p7/x/y/z";
    let head = RequestHead {
        host: Span { start: 0, len: 12 },
        path: Span { start: 12, len: 9 },
        ..RequestHead::default()
    };
    let count = allocations(|| {
        let source = Some([127, 0, 0, 1].into());
        let request = Request { listener: ListenerId(0), head: &head, bytes, source, available: &[] };
        for _ in 0..1000 {
            assert_eq!(table.find(&request).map(|route| route.id), Some(RouteId(427)));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn tables_that_have_grown_once() {
    let mut slab: Slab<Vec<u8>> = Slab::new(100);
    let mut wheel = TimerWheel::new(Mono(0));
    let mut ids = Vec::with_capacity(100);
    let mut round = |now: u64| {
        for n in 0..100u64 {
            let Some(id) = slab.insert_with(|bytes| bytes.clear()) else { unreachable!("100 fit") };
            slab.get_mut(id).into_iter().for_each(|bytes| bytes.extend_from_slice(&[1; 64]));
            ids.push((id, wheel.schedule(n, Mono(now + (n << (n % 40))))));
        }
        wheel.advance(Mono(now + (1 << 40)), 60, |key| assert!(key < 100));
        for (id, timer) in ids.drain(..) {
            assert!(slab.release(id) && wheel.cancel(timer));
        }
    };
    round(0);
    assert_eq!(allocations(|| (1..50).for_each(|n| round(n << 41))), 0);
}
