//! PROXY headers between ringway and others: raw ones, HAProxy's and nginx's, in front and behind.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::programs::{self, haproxy, nginx, port, program};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{eventually, pause, skip};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Where the clients of these tests connect from; no balancer does.
const CLIENT: &str = "127.0.0.5";
const REQUIRED: &str = "proxy_protocol = { accept = \"required\", from = [\"127.0.0.1\"] }";

fn client_ip() -> IpAddr {
    CLIENT.parse().unwrap()
}

/// Says whom the request came from.
fn telling() -> Origin {
    Origin::answering(|request| sized(200, request.field("x-forwarded-for").unwrap_or("nobody").as_bytes()))
}

fn edge(origin: &Origin) -> Proxy {
    Setup { listener: REQUIRED, endpoints: &[origin.address], ..Setup::default() }.start()
}

fn listens(address: SocketAddr) {
    eventually("a program's start", || TcpStream::connect(address).is_ok());
}

#[test]
fn a_header_names_the_client_byte_by_byte() {
    let origin = telling();
    let proxy = edge(&origin);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\xc6\x33\x64\x02\xc7\x38\x01\xbb";
    for (header, ip, port) in [
        (&b"PROXY TCP4 203.0.113.7 198.51.100.2 51000 443\r\n"[..], "203.0.113.7", 51000),
        (v2, "203.0.113.8", 51000),
    ] {
        let mut client = Client::connect(proxy.edge());
        for byte in header {
            client.send([*byte]);
        }
        for _ in 0..2 {
            assert_eq!(client.exchange(GET).text(), ip);
        }
        let line = proxy.log_line(|line| line["client"].as_str().is_some_and(|c| c.starts_with(ip)));
        assert_eq!(line["client"], format!("{ip}:{port}"));
    }
}

#[test]
fn a_wrong_header_is_closed_and_says_why_in_the_log() {
    let origin = telling();
    let proxy = Setup {
        listener: REQUIRED,
        timeouts: "request_header = \"300ms\"",
        endpoints: &[origin.address],
        ..Setup::default()
    }
    .start();
    for (sent, reason) in [
        (GET.as_bytes(), "proxy_header_missing"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "proxy_header_invalid"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "proxy_header_too_large"),
        (b"PROXY TCP4", "proxy_header_timeout"),
    ] {
        let mut client = Client::connect(proxy.edge());
        let local = client.stream.local_addr().unwrap().to_string();
        client.send(sent);
        client.expect_closed();
        let line = proxy.log_line(|line| line["client"] == local.as_str());
        assert_eq!((&line["close"], &line["status"]), (&reason.into(), &0.into()), "{line}");
    }
    let mut other = Client::connect_from(client_ip(), proxy.edge());
    other.expect_closed();
    proxy.log_line(|line| line["close"] == "proxy_peer_not_allowed");
    assert_eq!(origin.head_count(), 0);
}

/// Whoever drips holds nobody else up, and ends at the deadline whatever it sent.
#[test]
fn a_header_that_drips_ends_at_its_deadline() {
    let origin = telling();
    let proxy = Setup {
        listener: REQUIRED,
        timeouts: "request_header = \"400ms\"",
        endpoints: &[origin.address],
        ..Setup::default()
    }
    .start();
    let mut slow = Client::connect(proxy.edge());
    for byte in b"PROXY UNKNOWN and a great many more words" {
        slow.send_anyway([*byte]);
        pause(Duration::from_millis(20));
    }
    slow.expect_closed();
    proxy.log_line(|line| line["close"] == "proxy_header_timeout");
}

/// The first bytes that an endpoint got on each connection, up to a request's end; it answers each request.
fn recording() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&seen);
    let origin = Origin::scripted(move |connection| {
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = connection.stream.read(&mut piece) {
            got.extend_from_slice(&piece[..n]);
            if got.ends_with(b"\r\n\r\n") {
                theirs.lock().unwrap().push(String::from_utf8_lossy(&got).into_owned());
                connection.send(sized(200, b"ok"));
                got.clear();
            }
        }
    });
    (origin, seen)
}

#[test]
fn each_link_begins_with_a_header_of_its_client() {
    let (origin, seen) = recording();
    let endpoints = &[origin.address];
    let proxy = Setup { cluster: "send_proxy = \"v1\"", endpoints, ..Setup::default() }.start();
    let mut one = Client::connect_from(client_ip(), proxy.edge());
    let mut two = Client::connect(proxy.edge());
    for round in 0..3 {
        let client = if round == 1 { &mut two } else { &mut one };
        assert_eq!(client.exchange(GET).status, 200);
    }
    let seen = seen.lock().unwrap().clone();
    let begins = |client: &Client| {
        let local = client.stream.local_addr().unwrap();
        let edge = proxy.edge();
        format!("PROXY TCP4 {} {} {} {}\r\nGET ", local.ip(), edge.ip(), local.port(), edge.port())
    };
    assert_eq!(seen.len(), 3);
    for (got, client) in seen.iter().zip([&one, &two, &one]) {
        assert!(got.starts_with(&begins(client)), "{got:?}");
        assert_eq!(got.matches("PROXY").count(), 1, "{got:?}");
    }
    assert_eq!(origin.connection_count(), 3, "no link is shared");
}

#[test]
fn haproxy_in_front() {
    let Some(program) = program(&["haproxy"]) else { return skip("no haproxy") };
    let origin = telling();
    let proxy = edge(&origin);
    for how in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let address = port();
        let _front = haproxy(
            &program,
            "tcp",
            &format!("listen l\n  bind {address}\n  server s {} {how}", proxy.edge()),
        );
        listens(address);
        let mut client = Client::connect_from(client_ip(), address);
        for _ in 0..2 {
            assert_eq!(client.exchange(GET).text(), CLIENT, "{how}");
        }
    }
    // Its health checks say LOCAL, and are nobody's requests.
    let address = port();
    let check = format!(
        "listen l\n  bind {address}\n  server s {} send-proxy-v2 check inter 50ms\n  option httpchk GET /check",
        proxy.edge()
    );
    let _front = haproxy(&program, "http", &check);
    eventually("a check", || origin.requests().iter().any(|r| r.target == "/check"));
    let requests = origin.requests();
    let request = requests.iter().find(|r| r.target == "/check").unwrap();
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn haproxy_behind() {
    let Some(program) = program(&["haproxy"]) else { return skip("no haproxy") };
    let address = port();
    let says = format!(
        "frontend f\n  bind {address} accept-proxy\n  http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_unique_id]\""
    );
    let _behind = haproxy(&program, "http", &says);
    listens(address);
    for version in ["v1", "v2"] {
        let cluster = format!("send_proxy = \"{version}\"");
        let proxy = Setup { cluster: &cluster, endpoints: &[address], ..Setup::default() }.start();
        let mut client = Client::connect_from(client_ip(), proxy.edge());
        let (local, edge) = (client.stream.local_addr().unwrap(), proxy.edge());
        let want = format!("{} {} {} {} ", local.ip(), local.port(), edge.ip(), edge.port());
        for _ in 0..2 {
            assert_eq!(client.exchange(GET).text(), want, "{version}");
        }
    }
}

/// HAProxy, ringway, HAProxy: the client and the TLVs arrive at the end.
#[test]
fn haproxy_on_both_sides() {
    let Some(program) = program(&["haproxy"]) else { return skip("no haproxy") };
    let (front, behind) = (port(), port());
    let says = format!(
        "frontend f\n  bind {behind} accept-proxy\n  http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[dst_port] %[fc_pp_unique_id]\""
    );
    let _behind = haproxy(&program, "http", &says);
    listens(behind);
    let setup = Setup {
        listener: REQUIRED,
        cluster: "send_proxy = \"v2\"",
        endpoints: &[behind],
        ..Setup::default()
    };
    let proxy = setup.start();
    let sections = format!(
        "listen l\n  bind {front}\n  unique-id-format id-%ci\n  \
         server s {} send-proxy-v2 proxy-v2-options unique-id,crc32c",
        proxy.edge()
    );
    let _front = haproxy(&program, "tcp", &sections);
    listens(front);
    let mut client = Client::connect_from(client_ip(), front);
    assert_eq!(client.exchange(GET).text(), format!("{CLIENT} {} id-{CLIENT}", front.port()));
}

#[test]
fn nginx_in_front() {
    let Some(program) = program(&["nginx"]) else { return skip("no nginx") };
    let Some(module) = programs::nginx_stream() else { return skip("no stream module of nginx") };
    let origin = telling();
    let proxy = edge(&origin);
    let address = port();
    let stream = format!(
        "stream {{ server {{ listen {address}; proxy_pass {}; proxy_protocol on; }} }}",
        proxy.edge()
    );
    let _front = nginx(&program, &format!("load_module {};", module.display()), &stream);
    listens(address);
    let mut client = Client::connect_from(client_ip(), address);
    for _ in 0..2 {
        assert_eq!(client.exchange(GET).text(), CLIENT);
    }
}

#[test]
fn nginx_behind() {
    let Some(program) = program(&["nginx"]) else { return skip("no nginx") };
    let address = port();
    let server = format!(
        "server {{ listen {address} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr \
         $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }} }}"
    );
    let _behind = nginx(&program, "", &format!("http {{ {} {server} }}", programs::NGINX_HTTP));
    listens(address);
    for version in ["v1", "v2"] {
        let cluster = format!("send_proxy = \"{version}\"");
        let proxy = Setup { cluster: &cluster, endpoints: &[address], ..Setup::default() }.start();
        let mut client = Client::connect_from(client_ip(), proxy.edge());
        let (local, edge) = (client.stream.local_addr().unwrap(), proxy.edge());
        let want = format!("{} {} {} {}", local.ip(), local.port(), edge.ip(), edge.port());
        for _ in 0..2 {
            assert_eq!(client.exchange(GET).text(), want, "{version}");
        }
    }
}
