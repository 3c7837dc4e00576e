//! TLS that passes through by the name that its client asks for: captured hellos, and OpenSSL on both sides.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::programs::{Ours, haproxy, port, program};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{eventually, skip};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Asks for one.example.com.
const ONE: &[u8] = include_bytes!("../../../dataplane/tests/cases/hellos/openssl-tls13.bin");
/// Asks for frag.example.com, in three records.
const FRAGMENTED: &[u8] = include_bytes!("../../../dataplane/tests/cases/hellos/openssl-fragmented.bin");

/// A cluster of one endpoint, and a route of `edge` to it.
fn routed(name: &str, matches: &str, endpoint: SocketAddr) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nlisteners = [\"edge\"]\nmatch = {{ {matches} }}\ncluster = \"{name}\"\n\
         [[cluster]]\nname = \"{name}\"\nendpoints = [\"{endpoint}\"]\n"
    )
}

fn start(listener: &str, tables: &str) -> Proxy {
    let listener = format!("protocol = \"tcp\"\n{listener}");
    Setup { listener: &listener, timeouts: "request_header = \"1s\"", tables, ..Setup::default() }.start()
}

/// Says its name and then what it got.
fn repeating(name: &'static str) -> Origin {
    Origin::scripted(move |connection| {
        connection.send(name);
        loop {
            let bytes = connection.raw();
            if bytes.is_empty() || !connection.send(bytes) {
                return;
            }
        }
    })
}

#[test]
fn hellos_go_whole_and_unchanged_to_whom_they_name() {
    let (one, other) = (repeating("one:"), repeating("two:"));
    let tables = routed("a", "sni = \"one.example.com\"", one.address)
        + &routed("b", "sni = \"*.example.com\"", other.address);
    let proxy = start("", &tables);
    for (hello, said, route, name) in
        [(ONE, "one:", "a", "one.example.com"), (FRAGMENTED, "two:", "b", "frag.example.com")]
    {
        for step in [hello.len(), 1] {
            let mut client = Client::connect(proxy.edge());
            let local = client.stream.local_addr().unwrap().to_string();
            hello.chunks(step).for_each(|piece| client.send(piece));
            assert_eq!(client.raw(4), said.as_bytes());
            assert!(client.raw(hello.len()) == hello, "the same bytes");
            drop(client);
            let line = proxy.log_line(|line| line["client"] == local.as_str());
            assert_eq!((&line["route"], &line["sni"]), (&route.into(), &name.into()), "{line}");
        }
    }
}

#[test]
fn what_no_route_takes_is_closed_and_says_why_in_the_log() {
    let origin = repeating("one:");
    let proxy = start("", &routed("a", "sni = \"two.example.com\"", origin.address));
    for (sent, close, reason) in [
        (ONE, "no_link", Some("no_route")),
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls", None),
        (&ONE[..50], "client_hello_timeout", None),
        (b"", "silent_timeout", None),
    ] {
        let mut client = Client::connect(proxy.edge());
        let local = client.stream.local_addr().unwrap().to_string();
        client.send(sent);
        client.expect_closed();
        let line = proxy.log_line(|line| line["client"] == local.as_str());
        assert_eq!((line["close"].as_str(), line["reason"].as_str()), (Some(close), reason), "{line}");
    }
    assert_eq!(origin.connection_count(), 0);
}

/// A TLS server whose certificate is of `name`.
fn tls_origin(openssl: &Path, dir: &Path, name: &str) -> (SocketAddr, Ours) {
    let (key, certificate) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.crt")));
    let made = Command::new(openssl)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", &format!("/CN={name}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("start openssl").success(), "a certificate");
    let address = port();
    let mut command = Command::new(openssl);
    command.args(["s_server", "-www", "-quiet", "-accept", &address.to_string(), "-key"]).arg(key);
    command.arg("-cert").arg(certificate);
    let ours = Ours::start(&mut command);
    eventually("a TLS server's start", || TcpStream::connect(address).is_ok());
    (address, ours)
}

/// Whose certificate a client that asks for `name` is shown.
fn shown(openssl: &Path, to: SocketAddr, name: &str, more: &[&str]) -> String {
    let mut command = Command::new(openssl);
    command.args(["s_client", "-connect", &to.to_string(), "-servername", name]).args(more);
    let output = command.stdin(Stdio::null()).output().expect("start openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or("nobody").rsplit(['=', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn openssl_with_two_names_to_two_origins() {
    let Some(openssl) = program(&["openssl"]) else { return skip("no openssl") };
    let dir = tempfile::tempdir().unwrap();
    let (one, _one) = tls_origin(&openssl, dir.path(), "one.test");
    let (two, _two) = tls_origin(&openssl, dir.path(), "two.test");
    let (h2, _h2) = tls_origin(&openssl, dir.path(), "h2.test");
    let tables = routed("h2", "alpn = \"h2\"", h2)
        + &routed("one", "sni = [\"one.test\", \"*.one.test\"]", one)
        + &format!("[[cluster]]\nname = \"rest\"\nendpoints = [\"{two}\"]\n");
    let proxy = start("cluster = \"rest\"", &tables);
    let many = (0..40).map(|n| format!("protocol-{n:032}")).collect::<Vec<_>>().join(",");
    for (name, more, wanted) in [
        ("one.test", &[][..], "one.test"),
        ("WWW.One.Test", &["-tls1_2"], "one.test"),
        ("two.test", &[], "two.test"),
        ("unknown.test", &[], "two.test"),
        ("one.test", &["-alpn", "http/1.1,h2"], "h2.test"),
        ("one.test", &["-max_send_frag", "512", "-alpn", &many], "one.test"),
    ] {
        assert_eq!(shown(&openssl, proxy.edge(), name, more), wanted, "{name} {more:?}");
    }
}

/// HAProxy's PROXY header, then a client's TLS: taken off, routed by, and announced to a HAProxy behind.
#[test]
fn haproxys_header_in_front_of_tls() {
    let Some(openssl) = program(&["openssl"]) else { return skip("no openssl") };
    let Some(program) = program(&["haproxy"]) else { return skip("no haproxy") };
    let dir = tempfile::tempdir().unwrap();
    let (one, _one) = tls_origin(&openssl, dir.path(), "one.test");
    let (behind, front) = (port(), port());
    // It takes the header off again; a TLS server would take it for garbage.
    let section = format!("listen l\n  bind {behind} accept-proxy\n  server s {one}");
    let _behind = haproxy(&program, "tcp", &section);
    eventually("HAProxy's start", || TcpStream::connect(behind).is_ok());
    let tables =
        routed("one", "sni = \"one.test\"", behind).replace("endpoints", "send_proxy = \"v2\"\nendpoints");
    let proxy = start("proxy_protocol = { accept = \"required\", from = [\"127.0.0.1\"] }", &tables);
    let section = format!("listen l\n  bind {front}\n  server s {} send-proxy-v2", proxy.edge());
    let _front = haproxy(&program, "tcp", &section);
    eventually("HAProxy's start", || TcpStream::connect(front).is_ok());
    assert_eq!(shown(&openssl, front, "one.test", &[]), "one.test");
    assert_eq!(shown(&openssl, front, "two.test", &[]), "nobody");
}
