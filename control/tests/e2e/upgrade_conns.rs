//! What is established goes along in an upgrade: tunnels with what is on its way in them, connections between two requests. And
//! everything at once: upgrades and reloads under a load of all kinds.

use crate::reload::{command, configuration};
use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Proxy;
use crate::support::{assert_same, eventually, pattern, pause};
use crate::upgrade::{LIMIT, Next, cluster};
use rustix::process::Pid;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Between two new connections of one client: an origin of these tests keeps a descriptor of each.
const PACE: Duration = Duration::from_millis(20);

/// Origins of http, of WebSockets and of bare connections. All say what they hear; a bare one that hears the end says a last word
/// when it is told to.
pub struct Origins {
    http: Origin,
    pub ws: Origin,
    raw: Origin,
    go: mpsc::Sender<()>,
}

impl Origins {
    pub fn new() -> Self {
        let (go, told) = mpsc::channel();
        let told = Mutex::new(told);
        let ws = Origin::scripted(|connection| {
            if connection.request().is_some() && connection.send(SWITCH) {
                echo(connection);
            }
        });
        let raw = Origin::scripted(move |connection| {
            echo(connection);
            if told.lock().unwrap().recv_timeout(LIMIT).is_ok() {
                connection.send("the last word");
            }
        });
        Self { http: Origin::echo(), ws, raw, go }
    }
    pub fn configuration(&self, shards: usize, n: usize) -> String {
        let more = format!(
            "[[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \"raw\"\n\
             [[route]]\nname = \"ws\"\nmatch = {{ path = \"/ws\" }}\ncluster = \"ws\"\n\
             [[route]]\nmatch = {{ path = \"/n\" }}\nrespond = {{ status = 200, body = \"{n}\" }}\n\
             [[cluster]]\nname = \"ws\"\n{}\n[[cluster]]\nname = \"raw\"\n{}\n",
            cluster(&self.ws),
            cluster(&self.raw)
        );
        configuration("", &cluster(&self.http), &more).replace("shards = 2", &format!("shards = {shards}"))
    }
}

fn echo(connection: &mut crate::support::origin::Connection) {
    loop {
        let bytes = connection.raw();
        if bytes.is_empty() || !connection.send(&bytes) {
            return;
        }
    }
}

pub fn websocket(to: SocketAddr) -> Client {
    let mut client = Client::connect(to);
    assert_eq!(client.exchange(UPGRADE).status, 101);
    client
}

/// The next message of a conversation whose messages are numbered.
pub fn say(client: &mut Client, n: u32) {
    client.send(n.to_be_bytes());
    assert_eq!(client.raw(4), n.to_be_bytes(), "message {n}");
}

/// Pours `data` into a tunnel, and reads what comes back with pauses. `begun` hears of the first bytes.
fn pour(to: SocketAddr, data: &[u8], begun: &mpsc::Sender<()>) {
    let mut client = Client::connect(to).stream;
    let mut writing = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writing.write_all(data).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let (mut got, mut piece) = (Vec::new(), vec![0; 256 << 10]);
        while got.len() < data.len() {
            let n = client.read(&mut piece).unwrap();
            assert!(n > 0, "an end after {} bytes", got.len());
            got.extend_from_slice(&piece[..n]);
            if got.len() >= 1 << 20 {
                let _ = begun.send(());
                pause(Duration::from_millis(2));
            }
        }
        assert_same(&got, data, "what was poured");
    });
}

/// Upgrades; the answer, and who serves then.
#[track_caller]
pub fn upgrade(proxy: &Proxy) -> (Value, Next) {
    let ended = command(proxy, &["upgrade", "--json"]);
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let pid = i32::try_from(answer["pid"].as_i64().unwrap()).unwrap();
    (answer, Next(Pid::from_raw(pid).unwrap()))
}

#[test]
fn tunnels_go_along() {
    let origins = Origins::new();
    let mut proxy = Proxy::start(&origins.configuration(2, 1));
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    let mut talks: Vec<Client> = (0..10).map(|_| websocket(edge)).collect();
    talks.extend((0..10).map(|_| Client::connect(raw)));
    for talk in &mut talks {
        (0..3).for_each(|n| say(talk, n));
    }
    let mut half = Client::connect(raw);
    say(&mut half, 7);
    half.shutdown_write();
    let data = pattern(16 << 20, 3);
    let (begun, begins) = mpsc::channel();
    let next = std::thread::scope(|scope| {
        let pours = [scope.spawn(|| pour(raw, &data, &begun)), scope.spawn(|| pour(raw, &data, &begun))];
        begins.recv_timeout(LIMIT).unwrap();
        // With fewer shards: what were two shards' is one's.
        std::fs::write(&proxy.file, origins.configuration(1, 2)).unwrap();
        let (answer, next) = upgrade(&proxy);
        assert_eq!((&answer["moved"], &answer["finishing"]), (&Value::from(23), &Value::from(0)), "{answer}");
        // The same connections go on.
        for talk in &mut talks {
            (3..6).for_each(|n| say(talk, n));
        }
        for pour in pours {
            origins.go.send(()).unwrap();
            pour.join().unwrap();
        }
        next
    });
    assert_eq!(proxy.exit_code(LIMIT), 0, "nothing is left there");
    assert_eq!(Client::get(edge, "/n").text(), "2");
    let shown = command(&proxy, &["connections", "--json"]);
    assert_eq!(shown.stdout.matches("\"state\":\"tunnel\"").count(), 21, "{}", shown.stdout);
    origins.go.send(()).unwrap();
    assert_eq!(half.raw(13), b"the last word");
    half.expect_closed();
    drop(talks);
    // One record for each, of all of it, by the names of things.
    let mut tunnels = 0;
    while tunnels < 23 {
        let line = proxy.log_line(|line| line["close"] == "tunnel_ended");
        let is_raw = line["listener"] == "raw";
        let (up, down) = (&line["tunnel_up_bytes"], &line["tunnel_down_bytes"]);
        match up.as_u64().unwrap() {
            24 => assert_eq!(down, &Value::from(24), "{line}"),
            4 => assert_eq!(down, &Value::from(17), "{line}"),
            up => assert_eq!((up, is_raw), (16 << 20, true), "{line}"),
        }
        let of = if is_raw { ("raw", &origins.raw) } else { ("ws", &origins.ws) };
        assert_eq!((&line["cluster"], &line["endpoint"]), (&of.0.into(), &of.1.address.to_string().into()));
        assert_eq!(line["route"], if is_raw { Value::Null } else { "ws".into() }, "{line}");
        tunnels += 1;
    }
    assert!(next.lives());
}

/// Where the new file has neither listener nor cluster any more, tunnels of the one end with the former process's window, and
/// those of the other go on, as at a reload.
#[test]
fn tunnels_without_a_listener_stay_and_without_a_cluster_go() {
    let origins = Origins::new();
    let text = origins.configuration(2, 1);
    let mut proxy = Proxy::start(&text);
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    let (mut stays, mut goes) = (Client::connect(raw), websocket(edge));
    say(&mut stays, 1);
    say(&mut goes, 1);
    let listener = text.find("[[listener]]\nname = \"raw\"").unwrap();
    let after = text[listener..].find("[[route]]").unwrap() + listener;
    let route = after..text[after + 1..].find("[[route]]").unwrap() + after + 1;
    let without = format!("{}{}", &text[..listener], &text[route.end..]);
    let without = without.split("[[cluster]]\nname = \"ws\"").next().unwrap().to_owned();
    std::fs::write(&proxy.file, without).unwrap();
    let (answer, _next) = upgrade(&proxy);
    assert_eq!((&answer["moved"], &answer["finishing"]), (&Value::from(1), &Value::from(1)), "{answer}");
    say(&mut stays, 2);
    say(&mut goes, 2);
    assert_eq!(proxy.exit_code(LIMIT), 0);
    stays.expect_closed();
    say(&mut goes, 3);
}

/// The new file calls a listener otherwise: who connected to it under its former name stays, and is told to leave.
#[test]
fn connections_of_a_listener_that_is_renamed_stay() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let unix = |name: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"unix:{}\"\ncluster = \"app\"\n", path.display())
    };
    // It may be told to leave at any moment of the window, and is to have asked before.
    let text = origins.configuration(2, 1).replace("drain_timeout = \"2s\"", "drain_timeout = \"5m\"");
    assert!(text.contains("5m"), "{text}");
    let mut proxy = Proxy::start(&format!("{text}{}", unix("local")));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let ask = |from: &mut std::os::unix::net::UnixStream| {
        from.write_all(b"GET /n HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (mut answer, mut piece) = (String::new(), [0; 4096]);
        while !answer.ends_with("\r\n\r\n1") {
            let n = from.read(&mut piece).unwrap();
            assert!(n > 0, "an end after {answer}");
            answer.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
        answer
    };
    ask(&mut stream);
    std::fs::write(&proxy.file, format!("{text}{}", unix("renamed"))).unwrap();
    let (answer, _next) = upgrade(&proxy);
    assert_eq!((&answer["moved"], &answer["finishing"]), (&Value::from(0), &Value::from(1)), "{answer}");
    assert!(ask(&mut stream).to_lowercase().contains("connection: close"));
    assert_eq!(proxy.exit_code(LIMIT), 0);
    // The socket is the next process's.
    ask(&mut std::os::unix::net::UnixStream::connect(&path).unwrap());
}

/// Who the client is, where it connected to, and TLVs are known as before the upgrade to the log, the origin and the next balancer.
#[test]
fn what_a_proxy_header_said_goes_along() {
    const HEADER: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\xcb\0\x71\x08\xc6\x33\x64\x02\xc7\x38\x01\xbb\x05\0\x03abc";
    const ACCEPTS: &str = "proxy_protocol = { accept = \"required\", from = [\"127.0.0.1\"] }";
    let telling = Origin::answering(|request| {
        sized(200, request.field("x-forwarded-for").unwrap_or("nobody").as_bytes())
    });
    let (heard, hears) = mpsc::channel();
    let balancer = Origin::scripted(move |connection| {
        let mut got = connection.raw();
        while !got.ends_with(b"\r\n\r\n") {
            got.extend(connection.raw());
        }
        let begin = got.windows(5).position(|five| five == b"GET /").unwrap();
        heard.send(got[..begin].to_vec()).unwrap();
        connection.send(sized(200, b"balanced"));
    });
    let raw = Origin::scripted(echo);
    let more = format!(
        "[[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \"raw\"\n{ACCEPTS}\n\
         [[route]]\nmatch = {{ path = \"/on\" }}\ncluster = \"on\"\n\
         [[cluster]]\nname = \"on\"\nsend_proxy = \"v2\"\n{}\n[[cluster]]\nname = \"raw\"\n{}\n",
        cluster(&balancer),
        cluster(&raw)
    );
    let mut proxy = Proxy::start(&configuration(ACCEPTS, &cluster(&telling), &more));
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(proxy.edge())).collect();
    clients.iter_mut().for_each(|client| client.send(HEADER));
    let mut talk = Client::connect(proxy.address("raw"));
    talk.send(HEADER);
    say(&mut talk, 1);
    let ask = |client: &mut Client| {
        assert_eq!(client.exchange(GET).text(), "203.0.113.8");
        assert_eq!(client.exchange("GET /on HTTP/1.1\r\nHost: a\r\n\r\n").text(), "balanced");
        hears.recv_timeout(LIMIT).unwrap()
    };
    // The other one has not asked yet.
    assert_eq!(ask(&mut clients[0]), HEADER);
    eventually("both are known by their header", || {
        let shown = command(&proxy, &["connections", "--json"]).stdout;
        shown.matches("203.0.113.8:51000").count() == 3
    });
    let (answer, _next) = upgrade(&proxy);
    assert_eq!((&answer["moved"], &answer["finishing"]), (&Value::from(3), &Value::from(0)), "{answer}");
    assert_eq!(proxy.exit_code(LIMIT), 0);
    for client in &mut clients {
        assert_eq!(ask(client), HEADER, "as it came, byte by byte");
    }
    say(&mut talk, 2);
    talk.shutdown_write();
    talk.expect_closed();
    let line = proxy.log_line(|line| line["listener"] == "raw");
    assert_eq!(line["client"], "203.0.113.8:51000", "{line}");
    // Shards write when they come to it.
    let mut of_edge = Vec::new();
    eventually("records of all requests", || {
        of_edge = proxy.log_lines();
        of_edge.retain(|line| line["listener"] == "edge");
        of_edge.len() == 6
    });
    assert!(of_edge.iter().all(|line| line["client"] == "203.0.113.8:51000"), "{of_edge:?}");
}

/// Ends the load, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn times(variable: &str, usually: usize) -> usize {
    std::env::var(variable).map_or(usually, |text| text.parse().expect("a number"))
}

/// Not one connection is refused, reset or left without an answer, and not one message is lost, while processes follow each
/// other and each of them reloads. `RINGWAY_UPGRADES` and `RINGWAY_RELOADS` say how often; a test of every day has few.
#[test]
fn upgrades_and_reloads_under_a_mixed_load_lose_nothing() {
    let (upgrades, reloads) = (times("RINGWAY_UPGRADES", 3), times("RINGWAY_RELOADS", 9));
    let origins = Origins::new();
    let proxy = Proxy::start(&origins.configuration(2, 0));
    let (edge, raw, over) = (proxy.edge(), proxy.address("raw"), AtomicBool::new(false));
    let until_over = |mut each: Box<dyn FnMut(u32) + '_>| {
        let mut n = 0;
        while !over.load(SeqCst) {
            each(n);
            n += 1;
        }
        n
    };
    let post = |client: &mut Client, body: &[u8]| {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(body);
        let answer = client.response("POST");
        assert_same(&answer.body, body, "an echo");
        answer.field("connection") == Some("close")
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let _over = Over(&over);
        let mut load = Vec::new();
        for _ in 0..2 {
            // A connection that is kept: a request that is answered at once never costs it.
            load.push(scope.spawn(|| {
                let mut client = Client::connect(edge);
                until_over(Box::new(|_| assert!(!post(&mut client, b"kept!"))))
            }));
            load.push(scope.spawn(|| {
                until_over(Box::new(|_| {
                    post(&mut Client::connect(edge), b"new");
                    pause(PACE);
                }))
            }));
            // Uploads may be told that theirs was the last request of its connection.
            load.push(scope.spawn(|| {
                let (mut client, upload) = (Client::connect(edge), pattern(400_000, 9));
                until_over(Box::new(|_| {
                    if post(&mut client, &upload) {
                        client = Client::connect(edge);
                    }
                }))
            }));
            load.push(scope.spawn(|| {
                let mut client = websocket(edge);
                until_over(Box::new(|n| say(&mut client, n)))
            }));
            load.push(scope.spawn(|| {
                let mut client = Client::connect(raw);
                until_over(Box::new(|n| say(&mut client, n)))
            }));
            load.push(scope.spawn(|| {
                until_over(Box::new(|n| {
                    say(&mut Client::connect(raw), n);
                    pause(PACE);
                }))
            }));
        }
        for at in 0..upgrades {
            for n in 0..reloads.div_ceil(upgrades) {
                let text = origins.configuration(1 + at % 2, at * 100 + n);
                std::fs::write(&proxy.file, text).unwrap();
                // Another number of shards waits for the upgrade.
                let ended = command(&proxy, &["reload"]);
                assert!(ended.code <= 1, "{}\n{}", ended.stdout, ended.stderr);
                assert_eq!(Client::get(edge, "/n").text(), (at * 100 + n).to_string());
            }
            all.push(upgrade(&proxy).1);
        }
        over.store(true, SeqCst);
        let counts: Vec<u32> = load.into_iter().map(|one| one.join().unwrap()).collect();
        println!("{upgrades} upgrades, {reloads} reloads; requests and messages of each: {counts:?}");
        assert!(counts.iter().all(|count| *count > 0));
    });
    let last = all.pop().unwrap();
    eventually("the ends of those before", || all.iter().all(|next| !next.lives()));
    assert!(last.lives());
}
