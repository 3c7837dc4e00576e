//! A tcp listener: any protocol over it, byte for byte, with half-close, resets and a record for each connection.

use crate::support::client::Client;
use crate::support::origin::{Origin, reset};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{assert_same, closed_port, pattern};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

fn start(endpoints: &[SocketAddr]) -> Proxy {
    Setup { listener: "protocol = \"tcp\"", endpoints, ..Setup::default() }.start()
}

fn connect(proxy: &Proxy) -> TcpStream {
    Client::connect(proxy.edge()).stream
}

/// Reads to the end.
fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// As `socat - TCP:…` is used: all of the input, end of input, then all of the output.
#[test]
fn half_close_keeps_the_other_direction() {
    let origin = Origin::scripted(|connection| {
        let mut all = Vec::new();
        loop {
            let bytes = connection.raw();
            if bytes.is_empty() {
                break;
            }
            all.extend(bytes);
        }
        all.reverse();
        connection.send(all);
    });
    let proxy = start(&[origin.address]);
    let mut client = connect(&proxy);
    let data = pattern(300_000, 3);
    client.write_all(&data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = rest(&mut client).unwrap();
    got.reverse();
    assert_same(&got, &data, "turned round");
    let line = proxy.log_line(|line| line["close"].is_string());
    assert_eq!(
        (&line["protocol"], &line["close"], &line["listener"], &line["cluster"]),
        (&"tcp".into(), &"tunnel_ended".into(), &"edge".into(), &"app".into()),
        "{line}"
    );
    assert_eq!(line["endpoint"], origin.address.to_string(), "{line}");
    assert_eq!(line["client"], client.local_addr().unwrap().to_string(), "{line}");
    assert_eq!((&line["tunnel_up_bytes"], &line["tunnel_down_bytes"]), (&300_000.into(), &300_000.into()));
    assert_eq!(line["attempts"], 1, "{line}");
    assert!(line["connect_us"].as_u64() <= line["duration_us"].as_u64(), "{line}");
    for absent in ["method", "status", "version", "request_number", "reason"] {
        assert!(line.get(absent).is_none(), "{absent}: {line}");
    }
}

/// A server that greets, and then answers each small message: SMTP, or Redis without its pipelining.
#[test]
fn chatter_with_a_server_that_speaks_first() {
    let origin = Origin::scripted(|connection| {
        connection.send("220 ready\r\n");
        loop {
            let bytes = connection.raw();
            if bytes.is_empty() || !connection.send([b"+", &bytes[..]].concat()) {
                return;
            }
        }
    });
    let proxy = start(&[origin.address]);
    let mut client = connect(&proxy);
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    for n in 0..2000_u32 {
        let message = n.to_be_bytes();
        client.write_all(&message).unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], &answer[1..]), (b'+', &message[..]));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).unwrap().is_empty());
}

#[test]
fn much_both_ways_at_once() {
    const LEN: usize = 64 << 20;
    let origin = Origin::scripted(|connection| {
        let mut reading = connection.stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || rest(&mut reading).unwrap());
        connection.send(pattern(LEN, 5));
        connection.shutdown_write();
        assert_same(&reader.join().unwrap(), &pattern(LEN, 6), "upwards");
    });
    let proxy = start(&[origin.address]);
    let mut client = connect(&proxy);
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writing.write_all(&pattern(LEN, 6)).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    assert_same(&rest(&mut client).unwrap(), &pattern(LEN, 5), "downwards");
    writer.join().unwrap();
    let line = proxy.log_line(|line| line["close"].is_string());
    assert_eq!((&line["close"], &line["tunnel_up_bytes"]), (&"tunnel_ended".into(), &LEN.into()), "{line}");
}

/// An aborted transfer never looks like a clean end, whichever side aborts it.
#[test]
fn a_reset_stays_a_reset() {
    let (told, hears) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::scripted(move |connection| {
        connection.send("half of it");
        let first = connection.raw();
        if first == b"die" {
            return connection.reset_at_end();
        }
        let end = rest(&mut connection.stream.try_clone().unwrap());
        let _ = told.lock().unwrap().send(end.map_err(|e| e.kind()));
    });
    let proxy = start(&[origin.address]);
    let mut piece = [0; 10];

    let mut client = connect(&proxy);
    client.read_exact(&mut piece).unwrap();
    client.write_all(b"die").unwrap();
    assert_eq!(rest(&mut client).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(proxy.log_line(|line| line["tunnel_up_bytes"] == 3)["close"], "origin_reset");

    let mut client = connect(&proxy);
    client.write_all(b"live").unwrap();
    client.read_exact(&mut piece).unwrap();
    reset(client);
    let end = hears.recv_timeout(crate::support::PATIENCE).expect("the origin's end");
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_and_none_at_all_has_a_reason() {
    let origin = Origin::scripted(|connection| {
        connection.send("here");
    });
    let proxy = start(&[closed_port(), origin.address]);
    for _ in 0..4 {
        assert_eq!(rest(&mut connect(&proxy)).unwrap(), b"here");
    }
    let proxy = start(&[closed_port(), closed_port()]);
    // The reset may be quicker than the client's own connect.
    let error = match TcpStream::connect(proxy.edge()) {
        Ok(mut client) => rest(&mut client).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = proxy.log_line(|line| line["close"].is_string());
    assert_eq!((&line["close"], &line["reason"]), (&"no_link".into(), &"connect_failed".into()), "{line}");
    assert_eq!(line["attempts"], 2, "{line}");
}
