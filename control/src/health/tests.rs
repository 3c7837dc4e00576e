//! Checks at work: which changes they tell, and that they keep within their room.

use super::*;
use crate::config;
use std::future::Future;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A snapshot of one cluster `app` with these endpoints.
pub(super) fn snapshot(endpoints: &[String]) -> Arc<Snapshot> {
    let text = format!(
        "[[listener]]\nname = 'edge'\naddress = '127.0.0.1:0'\ncluster = 'app'\n\
         [[cluster]]\nname = 'app'\nendpoints = {endpoints:?}"
    );
    config::parse(&text, "test", &config::Environment::of_tests())
        .unwrap_or_else(|report| panic!("{report}"))
        .snapshot
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await.expect("in time") })
}

pub(super) fn check(kind: Kind, initial: Initial) -> Arc<Check> {
    let soon = Duration::from_millis(10);
    Arc::new(Check {
        kind,
        interval: soon,
        fast_interval: soon,
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        initial,
    })
}

/// Runs the checks until `wanted` changes were told.
pub(super) async fn changes(checks: &mut Checks, wanted: usize) -> Vec<(u16, bool, &'static str)> {
    let mut told = Vec::new();
    while told.len() < wanted {
        let done = match checks.next().await {
            Happened::Done(done) => done,
            Happened::Due => Vec::new(),
            Happened::Died(died) => panic!("{died}"),
        };
        let changes = checks.take(done, Instant::now());
        told.extend(changes.iter().map(|change| (change.endpoint.0, change.up, change.verdict.class())));
        assert!(checks.running.len() <= checks.room.at_once && checks.kept <= checks.room.kept);
    }
    told
}

#[test]
fn an_endpoint_that_dies_and_comes_back_is_told_once_each() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let snapshot = snapshot(&[address.to_string()]);
        let spec = check(Kind::Tcp, Initial::Up);
        let mut checks = Checks::new(&snapshot, &[Some(spec)], 100, Instant::now());
        assert_eq!(checks.status(ClusterId(0), 0).map(|status| status.0), Some("up"));
        drop(listener);
        assert_eq!(changes(&mut checks, 1).await, [(0, false, "layer4_refused")]);
        assert_eq!(checks.status(ClusterId(0), 0).map(|status| status.0), Some("down"));
        let _again = TcpListener::bind(address).await.unwrap();
        assert_eq!(changes(&mut checks, 1).await, [(0, true, "layer4_passed")]);
        assert_eq!(checks.status(ClusterId(0), 1).map(|status| status.0), None);
        assert_eq!(checks.status(ClusterId(9), 0).map(|status| status.0), None);
    });
}

/// Ten endpoints in room for two checks and two connections between them.
#[test]
fn checks_wait_for_their_turn_and_all_are_made() {
    block_on(async {
        let mut endpoints = Vec::new();
        for _ in 0..10 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(listener.local_addr().unwrap().to_string());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut bytes = vec![0; 4096];
                        while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                        }
                    });
                }
            });
        }
        let http = Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            statuses: vec![(200, 200)],
            body: None,
        };
        let snapshot = snapshot(&endpoints);
        let spec = check(Kind::Http(http), Initial::Probing);
        let mut checks = Checks::new(&snapshot, &[Some(spec)], 4, Instant::now());
        assert_eq!(checks.room, Room { at_once: 2, kept: 2 });
        let mut told = changes(&mut checks, 10).await;
        told.sort_unstable();
        let all: Vec<_> = (0..10).map(|id| (id, true, "layer7_passed")).collect();
        assert_eq!(told, all);
    });
}

#[test]
fn what_checks_may_hold_is_a_share_of_what_there_is() {
    assert_eq!((descriptors(0, 1024), descriptors(10, 1024), descriptors(1000, 1024)), (0, 10, 128));
    assert_eq!(descriptors(1000, 0), 2);
    assert_eq!(Room::of(10, 10), Room { at_once: 10, kept: 10 });
    assert_eq!(
        Room::of(20_000, 10_000),
        Room { at_once: limits::CHECKS_AT_ONCE, kept: 10_000 - limits::CHECKS_AT_ONCE }
    );
    assert_eq!(Room::of(10, 0), Room { at_once: 1, kept: 0 });
}
