//! Upgrade: a tunnel after the origin's 101, and only then; bytes both ways with half-close.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{assert_same, pattern};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, greets, then echoes until the client's half ends, and says how much there was.
fn echo() -> (Origin, Proxy) {
    let origin = Origin::scripted(|connection| {
        let Some(request) = connection.request() else { return };
        if request.field("upgrade") != Some("websocket") {
            // Closed after it, and said so: an end unannounced may meet the next request, and a POST is not repeated.
            connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nplain");
            return;
        }
        // The greeting is glued to the head.
        connection.send(format!("{SWITCH}hello"));
        let mut total = 0;
        loop {
            let bytes = connection.raw();
            if bytes.is_empty() {
                break;
            }
            total += bytes.len();
            if !connection.send(&bytes) {
                return;
            }
        }
        connection.send(format!("bye after {total:08}"));
        connection.shutdown_write();
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    (origin, proxy)
}

#[test]
fn an_upgrade_becomes_a_tunnel_with_half_close() {
    let (_origin, proxy) = echo();
    let mut client = Client::connect(proxy.edge());
    // Data glued to the request is the tunnel's once it is one (threat U05).
    client.send(format!("{UPGRADE}early"));
    let response = client.response("GET");
    assert_eq!((response.status, response.field("upgrade")), (101, Some("websocket")));
    assert!(response.field("sec-websocket-accept").is_some());
    assert_eq!(client.raw(10), b"helloearly");
    // Enough to be spliced both ways.
    let data = pattern(8 << 20, 11);
    let mut sender = client.stream.try_clone().unwrap();
    let sent = data.clone();
    let sending = std::thread::spawn(move || {
        use std::io::Write as _;
        sender.write_all(&sent)
    });
    assert_same(&client.raw(data.len()), &data, "through the tunnel");
    sending.join().unwrap().unwrap();
    for n in 0..1000_u32 {
        client.send(n.to_be_bytes());
        assert_eq!(client.raw(4), n.to_be_bytes());
    }
    client.shutdown_write();
    let total = data.len() + 5 + 4000;
    assert_eq!(client.raw(18), format!("bye after {total:08}").as_bytes());
    client.expect_closed();
    let line = proxy.log_line(|line| line["path"] == "/ws");
    assert_eq!((&line["status"], &line["close"]), (&101.into(), &"tunnel_ended".into()), "{line}");
    assert_eq!(line["tunnel_up_bytes"], total, "{line}");
    assert_eq!(line["tunnel_down_bytes"], total + 5 + 18, "{line}");
}

/// Threat U03: before the 101 there is no tunnel, and what follows is the next request.
#[test]
fn without_a_101_the_connection_stays_http() {
    let origin = Origin::answering(|request| sized(200, request.target.as_bytes()));
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(format!("{UPGRADE}GET  /admin HTTP/1.1\r\n\r\n"));
    assert_eq!(client.response("GET").text(), "/ws");
    let response = client.response("GET");
    assert_eq!(response.status, 400, "what follows is checked as a request");
    client.expect_closed();
    assert_eq!(origin.request_count(), 1);
}

/// Threat U04: only websocket is switched to; anything else goes on as plain HTTP, without its Upgrade.
#[test]
fn other_upgrades_are_stripped() {
    let (origin, proxy) = echo();
    let cases = [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi",
    ];
    for request in cases {
        let response = Client::once(proxy.edge(), request);
        assert_eq!((response.status, response.text()), (200, "plain"), "{request}");
    }
    for request in origin.requests() {
        assert_eq!(request.field("upgrade"), None, "{:?}", request.fields);
        assert_eq!(request.field("http2-settings"), None, "{:?}", request.fields);
    }
}

#[test]
fn an_idle_tunnel_ends() {
    let origin = Origin::scripted(|connection| {
        let _ = connection.request();
        connection.send(SWITCH);
        connection.until_closed();
    });
    let timeouts = "tunnel_idle = \"200ms\"";
    let proxy = Setup { timeouts, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(UPGRADE).status, 101);
    let begun = std::time::Instant::now();
    client.expect_closed();
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(proxy.log_line(|line| line["path"] == "/ws")["close"], "tunnel_idle");
}

#[test]
fn a_reset_on_one_side_ends_the_other() {
    let (left, gone) = std::sync::mpsc::channel::<()>();
    let left = std::sync::Mutex::new(left);
    let origin = Origin::scripted(move |connection| {
        let Some(request) = connection.request() else { return };
        connection.send(SWITCH);
        if request.target == "/die" {
            connection.reset_at_end();
        } else {
            connection.until_closed();
            let _ = left.lock().unwrap().send(());
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(UPGRADE).status, 101);
    client.reset();
    gone.recv_timeout(crate::support::PATIENCE).expect("the link's end");
    let mut client = Client::connect(proxy.edge());
    client.send(UPGRADE.replacen("/ws", "/die", 1));
    assert_eq!(client.head().map(|head| head.1), Ok(101));
    client.expect_closed();
}
