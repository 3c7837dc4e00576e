//! Checks across a network that fails: dropped, refused and unreachable are told apart.

use crate::health::{configuration, event};
use crate::support::client::Client;
use crate::support::namespace::{FAR, NEAR, Namespaces};
use crate::support::origin::{Origin, sized};
use crate::support::programs::program;
use crate::support::proxy::Proxy;
use crate::support::skip;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

const HEALTH: &str = "[cluster.health]\ninterval = \"20ms\"\ntimeout = \"300ms\"\n";

/// Runs a command in the namespace of the caller's thread.
fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An origin on the far side.
fn far_origin(network: &Namespaces) -> SocketAddr {
    network.far(|| {
        let listener = TcpListener::bind((FAR, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    use std::io::{Read as _, Write as _};
                    let mut stream = stream;
                    while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                        let _ = stream.write_all(&sized(200, b"far"));
                    }
                });
            }
        });
        address
    })
}

#[test]
fn a_network_that_drops_refuses_or_has_no_route() {
    let Some(network) = Namespaces::new() else { return };
    let far = far_origin(&network);
    network.near(|| {
        let local = Origin::saying("near");
        let endpoints = [far.to_string(), local.address.to_string()];
        let proxy = Proxy::start(&configuration(&endpoints, "", HEALTH));
        let ask = || Client::get(proxy.edge(), "/").text().to_owned();
        assert_ne!(ask(), ask(), "both serve");
        let only_near = || (0..6).for_each(|_| assert_eq!(ask(), "near"));
        // No route there: the kernel says so at once.
        run("ip", &format!("route add unreachable {FAR}/32"));
        event(
            &proxy,
            &format!("app/{far} is DOWN, reason: Layer4 connection problem, info: \"No route to host\""),
        );
        only_near();
        run("ip", &format!("route del unreachable {FAR}/32"));
        event(&proxy, &format!("app/{far} is UP, reason: Layer4 check passed"));
        // It vanishes: nobody says anything.
        network.vanish();
        event(&proxy, &format!("app/{far} is DOWN, reason: Layer4 timeout"));
        only_near();
    });
}

#[test]
fn a_firewall_that_drops_is_a_timeout_and_one_that_rejects_is_refused() {
    if program(&["nft"]).is_none() {
        return skip("no nft");
    }
    let Some(network) = Namespaces::new() else { return };
    for (verdict, reason) in [
        ("drop", "Layer4 timeout"),
        ("reject with tcp reset", "Layer4 refused, info: \"Connection refused\""),
        ("reject with icmp type host-unreachable", "Layer4 connection problem, info: \"No route to host\""),
    ] {
        let far = far_origin(&network);
        network.far(|| {
            run("nft", "flush ruleset");
            run("nft", "add table inet test");
            run("nft", "add chain inet test input { type filter hook input priority 0 ; }");
        });
        network.near(|| {
            let proxy = Proxy::start(&configuration(&[far.to_string()], "", HEALTH));
            assert_eq!(Client::get(proxy.edge(), "/").text(), "far");
            let rule = format!("add rule inet test input ip saddr {NEAR} tcp dport {} {verdict}", far.port());
            network.far(|| run("nft", &rule));
            let line = event(&proxy, "is DOWN");
            assert!(line.contains(reason), "{verdict}: {line}");
            network.far(|| run("nft", "flush chain inet test input"));
            event(&proxy, "is UP");
        });
    }
}
