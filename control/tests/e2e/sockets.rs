//! Unix sockets on both sides, and listening sockets that the process was started with.

use crate::shards::{REPLY, spread};
use crate::support::client::Client;
use crate::support::proxy::{Proxy, call, file, ringway};
use crate::support::{PATIENCE, assert_same, eventually, pattern};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

fn text(listener: &str, tables: &str) -> String {
    format!(
        "[runtime]\nshards = 2\n[[access_log]]\nto = \"stdout\"\n[[listener]]\nname = \"edge\"\n{listener}\n{tables}"
    )
}

/// One request on a connection of its own; the whole answer.
fn ask(path: &Path, request: &str) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

fn get(path: &Path, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    String::from_utf8(ask(path, &request)).unwrap()
}

/// An origin on a unix socket that answers each head with `body`, and tells what it was asked.
fn origin(path: &Path, body: Vec<u8>) -> Receiver<String> {
    let listener = UnixListener::bind(path).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (tell, body) = (tell.clone(), body.clone());
            std::thread::spawn(move || {
                answer(stream.unwrap(), &body, |head| tell.send(head).unwrap_or_default())
            });
        }
    });
    told
}

fn answer(stream: UnixStream, body: &[u8], tell: impl Fn(String)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().and_then(|length| length.parse().ok()).unwrap_or(0));
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent).unwrap();
        tell(format!("{lower}{}", sent.len()));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
    }
}

#[test]
fn a_unix_socket_is_listened_on_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.sock");
    let shown = path.display();
    let text = text(&format!("address = \"unix:{shown}\"\nsocket_mode = \"0600\"\n"), REPLY);
    let mut first = Proxy::start(&text);
    assert_eq!(first.ready["listeners"][0]["address"], format!("unix:{shown}"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = get(&path, "/one");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(first.log_line(|line| line["path"] == "/one")["client"], "unix:");
    // A second process finds somebody listening.
    let (_kept, config) = file(&text);
    let second = call(ringway().arg("run").arg("-c").arg(&config));
    assert!(second.code == 3 && second.stderr.contains("somebody listens there"), "{}", second.stderr);
    assert!(get(&path, "/").starts_with("HTTP/1.1 200"));
    // Killed, the first one leaves its file, which the next one replaces.
    first.signal(Signal::KILL);
    first.child.wait().unwrap();
    assert!(path.exists());
    // The kernel lets go of the sockets of a killed process's rings in its own time; half a second of it is waited for by itself.
    eventually("nobody listens", || UnixStream::connect(&path).is_err());
    let mut third = Proxy::start(&text);
    assert!(get(&path, "/").starts_with("HTTP/1.1 200"));
    third.signal(Signal::TERM);
    assert_eq!(third.exit_code(PATIENCE), 0);
    assert!(!path.exists());
    fs::write(&path, "a letter").unwrap();
    let fourth = call(ringway().arg("run").arg("-c").arg(&config));
    assert!(fourth.code == 3 && fourth.stderr.contains("no socket"), "{}", fourth.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
}

/// Only one shard can hold a unix socket: it hands on what it accepts.
#[test]
fn connections_of_a_unix_socket_are_spread_evenly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.sock");
    let text =
        text(&format!("address = \"unix:{}\"", path.display()), REPLY).replace("shards = 2", "shards = 8");
    let proxy = Proxy::start(&text);
    let mut clients = Vec::new();
    for n in 0..64 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(client, "GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        clients.push(client);
    }
    let spread = spread(&proxy, (0..64).map(|n| format!("/{n}")));
    let (most, least) = (spread.values().max().unwrap(), spread.values().min().unwrap());
    assert!(spread.len() == 8 && most - least <= 2, "{spread:?}");
}

#[test]
fn an_origin_on_a_unix_socket_is_asked_as_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let body = pattern(1 << 20, 7);
    let heads = origin(&path, body.clone());
    let cluster = format!(
        "[[cluster]]\nname = \"app\"\nhost = \"endpoint\"\nendpoints = [\"unix:{}\"]\n",
        path.display()
    );
    let proxy = Proxy::start(&text("address = \"127.0.0.1:0\"\ncluster = \"app\"\n", &cluster));
    let mut client = Client::connect(proxy.edge());
    for _ in 0..3 {
        let response = client.exchange("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(response.status, 200);
        assert_same(&response.body, &body, "a body by way of a unix socket");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        assert!(
            head.contains("\r\nhost: localhost\r\n") && head.contains("x-forwarded-for: 127.0.0.1"),
            "{head}"
        );
    }
    let upload = pattern(300_000, 8);
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", upload.len()));
    client.send(&upload);
    assert_eq!(client.response("POST").status, 200);
    assert!(heads.recv_timeout(PATIENCE).unwrap().ends_with("300000"));
    let record = proxy.log_line(|line| line["path"] == "/up");
    assert_eq!(
        (record["endpoint"].as_str(), record["upstream_local"].as_str(), record["link_reused"].as_bool()),
        (Some(format!("unix:{}", path.display()).as_str()), Some("unix:"), Some(true))
    );
}

#[test]
fn nobody_on_the_unix_socket_of_an_endpoint_is_a_502() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody.sock");
    let cluster = format!("[[cluster]]\nname = \"app\"\nendpoints = [\"unix:{}\"]\n", path.display());
    let proxy = Proxy::start(&text("address = \"127.0.0.1:0\"\ncluster = \"app\"\n", &cluster));
    for stale in [false, true] {
        if stale {
            drop(UnixListener::bind(&path).unwrap());
        }
        let response = Client::get(proxy.edge(), "/");
        assert_eq!((response.status, response.reason()), (502, "connect_failed"));
    }
}

/// A client on a unix socket has no address: X-Forwarded-For gets none, and says what a trusted one said.
#[test]
fn forwarding_fields_of_a_unix_client() {
    let directory = tempfile::tempdir().unwrap();
    let (edge, app) = (directory.path().join("edge.sock"), directory.path().join("app.sock"));
    let heads = origin(&app, b"ok".to_vec());
    let cluster = format!("[[cluster]]\nname = \"app\"\nendpoints = [\"unix:{}\"]\n", app.display());
    for (forwarded, said) in [
        ("mode = \"replace\"", None),
        ("mode = \"append\"\ntrusted = [\"10.0.0.0/8\"]", None),
        ("mode = \"append\"\ntrusted = [\"0.0.0.0/0\"]", None),
        ("mode = \"append\"\ntrusted = [\"unix:\"]", Some("x-forwarded-for: 192.0.2.9\r\n")),
    ] {
        let listener = format!(
            "address = \"unix:{}\"\ncluster = \"app\"\n[listener.forwarded]\n{forwarded}\n",
            edge.display()
        );
        let _proxy = Proxy::start(&text(&listener, &cluster));
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9\r\nConnection: close\r\n\r\n";
        assert!(ask(&edge, request).ends_with(b"ok"));
        let head = heads.recv_timeout(PATIENCE).unwrap();
        let found = head.split_inclusive("\r\n").find(|line| line.starts_with("x-forwarded-for"));
        assert_eq!(found, said, "{forwarded}");
        assert!(head.contains("x-forwarded-proto: http\r\n"), "{head}");
    }
}

/// No network holds a unix client: not even all of IPv4.
#[test]
fn a_route_by_source_does_not_take_a_unix_client() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.sock");
    let routes = "[[route]]\nmatch = { source = [\"0.0.0.0/0\", \"::/0\"] }\nrespond = { status = 200, body = \"by address\" }\n\
                  [[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200, body = \"${remote_addr} ${remote_port}.\" }\n";
    let _proxy = Proxy::start(&text(&format!("address = \"unix:{}\"", path.display()), routes));
    assert!(get(&path, "/").ends_with("unix: ."));
}

#[test]
fn an_abstract_name_works_on_both_sides() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("ringway-e2e-{}", std::process::id());
    let tables = format!(
        "{REPLY}[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\n[[cluster]]\nname = \"app\"\nendpoints = [\"unix:@{name}\"]\n"
    )
    .replace("[[route]]\n", "[[route]]\nlisteners = [\"edge\"]\n")
    .replace("name = \"front\"\n", "name = \"front\"\ncluster = \"app\"\n");
    let proxy = Proxy::start(&text(&format!("address = \"unix:@{name}\""), &tables));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    drop(UnixStream::connect_addr(&address).unwrap());
    assert_eq!(Client::get(proxy.address("front"), "/").text(), "ok");
}

/// Lets `command` inherit a descriptor, under its own number.
pub fn pass(fd: &impl AsFd) {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
}

#[test]
fn an_inherited_socket_is_served_by_all_shards() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    pass(&listener);
    // Made before the process starts: it waits in the backlog.
    let mut early = Client::connect(at);
    let listens = format!("address = \"fd:{}\"", listener.as_raw_fd());
    let mut proxy = Proxy::start(&text(&listens, REPLY).replace("shards = 2", "shards = 4"));
    assert_eq!(proxy.edge(), at);
    assert_eq!(early.exchange("GET /early HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    let mut clients: Vec<_> = (0..31).map(|_| Client::connect(at)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
    }
    let spread = spread(&proxy, (0..31).map(|n| format!("/{n}")));
    assert!(spread.len() == 4 && spread.values().all(|n| (6..=10).contains(n)), "{spread:?}");
    drop((early, clients));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    // It is still ours: the next process takes it over.
    let _next = Proxy::start(&text(&listens, REPLY));
    assert_eq!(Client::get(at, "/").status, 200);
}

/// As systemd passes them: named, in the environment, for this process only.
#[test]
fn sockets_of_a_systemd_unit_are_found_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let (web, other) =
        (UnixListener::bind(&path).unwrap(), UnixListener::bind(directory.path().join("o")).unwrap());
    pass(&web);
    pass(&other);
    let last = web.as_raw_fd().max(other.as_raw_fd());
    let name = |fd: i32| if fd == web.as_raw_fd() { "web" } else { "other" };
    let names = (3..=last).map(name).collect::<Vec<_>>().join(":");
    let text = text("address = \"fd:web\"", REPLY);
    let (_kept, config) = file(&text);
    let (count, names) = ((last - 2).to_string(), names.as_str());
    let unit = |command: &mut Command, pid: &str| {
        let inner = command.get_program().to_owned();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("LISTEN_PID={pid} exec \"$0\" \"$@\"")])
            .arg(inner)
            .args(["run", "-c"])
            .arg(&config);
        shell.env("LISTEN_FDS", &count).env("LISTEN_FDNAMES", names);
        shell.stdin(std::process::Stdio::null());
        shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        shell
    };
    let _proxy = Proxy::start_with(&text, |command| *command = unit(command, "$$"));
    assert!(get(&path, "/").starts_with("HTTP/1.1 200"));
    // Meant for somebody else, they are not looked at.
    let refused = call(&mut unit(&mut ringway(), "1"));
    assert!(
        refused.code == 1 && refused.stderr.contains("no inherited socket is called \"web\""),
        "{}",
        refused.stderr
    );
    // And a check needs none.
    assert_eq!(call(ringway().arg("check").arg("-c").arg(&config)).code, 0);
}

#[test]
fn what_cannot_be_accepted_on_is_named() {
    let stream = UnixStream::pair().unwrap().0;
    pass(&stream);
    for (fd, why) in [(stream.as_raw_fd(), "does not listen"), (987, "is not open")] {
        let (_kept, config) = file(&text(&format!("address = \"fd:{fd}\""), REPLY));
        let refused = call(ringway().arg("run").arg("-c").arg(&config));
        assert!(refused.code == 3 && refused.stderr.contains(why), "{}: {}", refused.code, refused.stderr);
        assert!(refused.stderr.contains(&format!("fd:{fd} (listener edge)")), "{}", refused.stderr);
    }
}
