//! Configurations that can be no good and origins that answer checks badly: each ends as docs/operations/health.md says.

use crate::health::{checks, configuration, event};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Connection, Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use serde_json::Value;

/// The cluster `app`, as the admin API has it.
fn shown(proxy: &Proxy) -> Value {
    let admin = proxy.ready["admin"].as_str().expect("an admin address");
    let question = format!("GET /v1/clusters/app HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    serde_json::from_slice(&Client::once(admin.parse().unwrap(), &question).body).expect("JSON")
}

/// Every endpoint goes down, one alert says so, and what then happens is `fail_open`'s to say.
#[test]
fn a_check_that_no_answer_passes_takes_the_whole_cluster_down() {
    let origins = ["one", "two"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address.to_string());
    for (fail_open, health, reason) in [
        (false, "expect_status = 418", "layer7_wrong_status"),
        (true, "expect_body = { regex = \"^no such answer$\" }", "layer7_wrong_body"),
    ] {
        let cluster = format!("fail_open = {fail_open}");
        let proxy = Proxy::start(&configuration(&endpoints, &cluster, &checks(health)));
        event(&proxy, "cluster app has no endpoint available");
        let answer = Client::get(proxy.edge(), "/");
        let expected = if fail_open { (200, "") } else { (503, "no_endpoint") };
        assert_eq!((answer.status, if fail_open { "" } else { answer.reason() }), expected);
        let cluster = shown(&proxy);
        assert_eq!((&cluster["active"], &cluster["backup"]), (&0.into(), &0.into()));
        for endpoint in cluster["endpoints"].as_array().unwrap() {
            assert_eq!((&endpoint["health"], &endpoint["check"]["class"]), (&"down".into(), &reason.into()));
        }
    }
}

/// Whatever chooses, nobody is chosen: not where the cluster fails open either, for a weight is the operator's word.
#[test]
fn a_cluster_without_weight_takes_nothing() {
    let origin = Origin::saying("here");
    let endpoint = |name| format!("{{ name = \"{name}\", address = \"{}\", weight = 0 }}", origin.address);
    let endpoints = ["one", "two"].map(endpoint).join(", ");
    for policy in ["round_robin", "least_connections", "random", "peak_ewma", "first", "hash"] {
        for fail_open in [false, true] {
            let tables = format!(
                "[[cluster]]\nname = \"none\"\nfail_open = {fail_open}\nbalance = \"{policy}\"\nendpoints = [{endpoints}]\n"
            );
            let setup = Setup { listener: "cluster = \"none\"", tables: &tables, ..Setup::default() };
            let proxy = setup.start();
            let warned = proxy.stderr.wait_for(|line| line.contains("every weight is 0"));
            assert!(warned.is_some(), "{policy}");
            let alert = event(&proxy, "cluster none has no endpoint available");
            assert!(alert.ends_with("(2 of weight 0): what routes send to it is refused"), "{alert}");
            let answer = Client::get(proxy.edge(), "/");
            assert_eq!((answer.status, answer.reason()), (503, "no_endpoint"), "{policy}, {fail_open}");
        }
    }
    assert_eq!(origin.connection_count(), 0);
}

/// Sends `piece` for as long as it is taken.
fn for_ever(connection: &mut Connection, first: &str, piece: &str) {
    connection.request();
    connection.send(first);
    while connection.send(piece) {}
}

/// Each is down for its own reason, within its time, while the one that is well is used.
#[test]
fn answers_without_end_are_cut_off_where_they_are_too_large() {
    let origins = [
        (Origin::scripted(|c| for_ever(c, "HTTP/1.1 200 OK\r\n", "X: y\r\n")), "response_header_too_large"),
        (
            Origin::scripted(|c| for_ever(c, "", "HTTP/1.1 100 Continue\r\n\r\n")),
            "too many interim responses",
        ),
        (Origin::scripted(|c| for_ever(c, "HTTP/1.1 103 ", "x")), "response_header_too_large"),
        (
            Origin::scripted(|c| for_ever(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x")),
            "chunk_extension_too_long",
        ),
        (
            Origin::scripted(|c| {
                for_ever(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n");
            }),
            "trailer_too_large",
        ),
        (
            Origin::scripted(|c| {
                for_ever(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n")
            }),
            "Layer7 wrong body, code: 200, info: \"xxxx",
        ),
        (
            Origin::scripted(|c| {
                c.request();
                c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhealthy");
            }),
            "closed in the middle of the body",
        ),
        (
            Origin::scripted(|c| {
                c.request();
                c.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\nhealthy");
            }),
            "response_framing_invalid",
        ),
    ];
    let good = Origin::saying("healthy");
    let mut endpoints: Vec<_> = origins.iter().map(|(origin, _)| origin.address.to_string()).collect();
    endpoints.push(good.address.to_string());
    let health = checks("expect_body = { contains = \"healthy\" }");
    let proxy = Proxy::start(&configuration(&endpoints, "", &health));
    for (origin, reason) in &origins {
        let line = event(&proxy, &format!("app/{} is DOWN", origin.address));
        assert!(line.contains(reason), "{reason}: {line}");
    }
    for _ in 0..4 {
        assert_eq!(Client::get(proxy.edge(), "/").text(), "healthy");
    }
}

/// A byte now and then, in the head or in the body, does not extend a check: its timeout is for all of it.
#[test]
fn an_answer_that_drips_is_a_timeout() {
    let drip = |text: &'static str, rest: &'static str| {
        Origin::scripted(move |connection| {
            connection.request();
            connection.send(text);
            for byte in rest.bytes().cycle() {
                crate::support::pause(std::time::Duration::from_millis(10));
                if !connection.send([byte]) {
                    return;
                }
            }
        })
    };
    let origins = [
        drip("", "HTTP/1.1 200 OK\r\nX: y"),
        drip("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", "x"),
        drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
    ];
    let endpoints = origins.each_ref().map(|origin| origin.address.to_string());
    let health = checks("expect_body = { contains = \"healthy\" }").replace("\"5s\"", "\"100ms\"");
    let proxy = Proxy::start(&configuration(&endpoints, "", &health));
    for origin in &origins {
        event(&proxy, &format!("app/{} is DOWN, reason: Layer7 timeout", origin.address));
    }
}

/// What took the engine of routes 86 ms for each check is a table here, and one step for each byte.
#[test]
fn a_body_that_is_hard_to_search_is_searched_all_the_same() {
    let mut seed = 12345_u64;
    let mut digit = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'0' + u8::from(seed >> 63 == 1)
    };
    let mut body: Vec<_> = (0..60_000).map(|_| digit()).collect();
    let without = body.clone();
    body.extend_from_slice(b"1010101010x");
    let origins = [without, body].map(|body| Origin::answering(move |_| sized(200, &body)));
    let endpoints = origins.each_ref().map(|origin| origin.address.to_string());
    let health = checks("expect_body = { regex = \"[01]*1[01]{9}x\" }\ninitial = \"down\"");
    let proxy = Proxy::start(&configuration(&endpoints, "", &health));
    event(&proxy, &format!("app/{} is UP", endpoints[1]));
    eventually("some more checks", || origins[0].request_count() > 20);
    assert_eq!(shown(&proxy)["endpoints"][0]["check"]["class"], "layer7_wrong_body");
}
