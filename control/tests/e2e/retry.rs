//! Origins that fail under load, and how little of it clients see: killed, stopped, resetting, busy, slow.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::programs::{self, Ours, port, program};
use crate::support::proxy::Setup;
use crate::support::{eventually, pause, skip};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const BODY: usize = 2_000;

/// A process of somebody else's making, which can be told to misbehave.
struct Real {
    kind: &'static str,
    address: SocketAddr,
    dir: tempfile::TempDir,
    process: Option<Ours>,
}

impl Real {
    fn new(kind: &'static str) -> Self {
        let mut origin = Self { kind, address: port(), dir: tempfile::tempdir().unwrap(), process: None };
        origin.start();
        origin
    }
    fn start(&mut self) {
        let (dir, port) = (self.dir.path(), self.address.port().to_string());
        let script = |name: &str| format!("{}/tests/e2e/support/{name}", env!("CARGO_MANIFEST_DIR"));
        let run = |with: &str, file: &str| {
            Ours::start(Command::new(program(&[with]).unwrap()).arg(script(file)).arg(&port).arg(dir))
        };
        self.process = Some(match self.kind {
            "python" => run("python3", "origin.py"),
            "node" => run("node", "origin.js"),
            _ => {
                let place = dir.display();
                let blocks = format!(
                    "http {{ {} log_format one '$request_method $uri $content_length'; access_log {place}/log one; \
                     keepalive_requests 100000; server {{ listen {}; \
                     if (-f {place}/reset) {{ return 444; }} if (-f {place}/busy) {{ return 503; }} \
                     location / {{ return 200 'ok\n'; }} }} }}",
                    programs::NGINX_HTTP.replace("access_log off;", ""),
                    self.address
                );
                programs::nginx(&program(&["nginx"]).unwrap(), "", &blocks)
            }
        });
        let address = self.address;
        eventually("an origin's start", || std::net::TcpStream::connect(address).is_ok());
    }
    fn kill(&mut self) {
        self.process = None;
    }
    fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }
    /// While the file is there, it misbehaves so.
    fn misbehave(&self, how: &str, does: bool) {
        let file = self.dir.path().join(how);
        if does { std::fs::write(file, "").unwrap() } else { std::fs::remove_file(file).unwrap() }
    }
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// What a load came to.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    idempotent: AtomicUsize,
    errors: AtomicUsize,
    posts: AtomicUsize,
}

impl Load {
    /// One client after the other's pace: mostly GET, every tenth a PUT and every tenth a POST, each with a name of its own.
    fn client(&self, edge: SocketAddr, number: usize) {
        let mut connection = None;
        for n in 0.. {
            if self.stop.load(SeqCst) {
                return;
            }
            let (method, body) = match n % 10 {
                0 => ("POST", "p".repeat(BODY)),
                5 => ("PUT", "q".repeat(BODY)),
                _ => ("GET", String::new()),
            };
            let request = format!(
                "{method} /{number}-{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let client = connection.get_or_insert_with(|| Client::connect(edge));
            client.send_anyway(request);
            let status = client.try_response(method).map_or(0, |response| response.status);
            if status == 0 {
                connection = None;
            }
            if method == "POST" {
                self.posts.fetch_add(1, SeqCst);
            } else {
                self.idempotent.fetch_add(1, SeqCst);
                if status != 200 {
                    eprintln!("{method} /{number}-{n}: {status}");
                    self.errors.fetch_add(1, SeqCst);
                }
            }
            pause(Duration::from_millis(8));
        }
    }
    /// Runs `events` under the load of eight clients.
    fn during(&self, edge: SocketAddr, events: impl FnOnce()) {
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || self.client(edge, number));
            }
            events();
            self.stop.store(true, SeqCst);
        });
    }
}

/// The names of POSTs that origins were asked more than once. A PUT's body came whole each time.
fn posts_seen_twice(origins: &[Real]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for origin in origins {
        for line in origin.log().lines() {
            let [method, path, bytes] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(method == "GET" || bytes == BODY.to_string(), "{}: {line}", origin.kind);
            if method == "POST" {
                *seen.entry(path.to_owned()).or_default() += 1;
            }
        }
    }
    assert!(seen.len() > 100, "only {} POSTs came", seen.len());
    seen.into_iter().filter(|(_, n)| *n > 1).map(|(path, _)| path).collect()
}

/// One origin of three fails at a time, in each way that there is. Half of the requests may be tried again: without checks or
/// ejection a third of them meets the one that fails.
#[test]
fn clients_do_not_see_that_an_origin_fails() {
    for needed in ["nginx", "python3", "node"] {
        if program(&[needed]).is_none() {
            return skip(&format!("no {needed}"));
        }
    }
    let mut origins = ["nginx", "python", "node"].map(Real::new);
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let proxy = Setup {
        endpoints: &addresses,
        cluster_timeouts: "response_header = \"500ms\"",
        tables: "[cluster.retry]\nattempts = 2\nbudget_percent = 60\non = [\"connect\", \"reset\", \"timeout\", 503]\n",
        ..Setup::default()
    }
    .start();
    let load = Load::default();
    let a_while = || pause(Duration::from_millis(300));
    load.during(proxy.edge(), || {
        a_while();
        for origin in &mut origins {
            origin.kill();
            a_while();
            origin.start();
            origin.misbehave("busy", true);
            a_while();
            origin.misbehave("busy", false);
            origin.misbehave("reset", true);
            a_while();
            origin.misbehave("reset", false);
            origin.signal(Signal::STOP);
            // Longer than an answer may take.
            pause(Duration::from_millis(1_000));
            origin.signal(Signal::CONT);
        }
        a_while();
    });
    let (total, errors) = (load.idempotent.load(SeqCst), load.errors.load(SeqCst));
    println!("{errors} errors of {total} idempotent requests, beside {} POSTs", load.posts.load(SeqCst));
    assert!(total > 1_000, "only {total} requests");
    assert!(errors * 10_000 <= total, "{errors} of {total} idempotent requests failed");
    assert_eq!(posts_seen_twice(&origins), Vec::<String>::new());
}

/// Everything is answered 503: origins are asked a fifth more often, clients get what they said, and the log says why.
#[test]
fn the_budget_bounds_what_failing_origins_are_sent() {
    let origins = [(); 3].map(|()| Origin::answering(|_| sized(503, b"busy")));
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let tables = "[cluster.retry]\nattempts = 3\non = [503]\nbudget_minimum = 1\n";
    let proxy = Setup { endpoints: &addresses, tables, ..Setup::default() }.start();
    const REQUESTS: usize = 2_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.edge());
                for _ in 0..REQUESTS / 4 {
                    let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!((response.status, response.text()), (503, "busy"));
                }
            });
        }
    });
    let seen: usize = origins.iter().map(Origin::request_count).sum();
    assert!(seen > REQUESTS && seen <= REQUESTS + REQUESTS / 5, "{seen} of {REQUESTS}");
    let words = |line: &serde_json::Value| line["retries"].to_string();
    let tried = proxy.log_line(|line| words(line).contains("\"status\""));
    assert!(tried["attempts"].as_u64() >= Some(2), "{tried}");
    proxy.log_line(|line| words(line).contains("\"budget_empty\"") && line["attempts"] == 1);
}

/// The second copy of a request says so, wherever it goes, and keeps its body.
#[test]
fn copies_say_which_they_are() {
    let resets = Origin::scripted(|connection| {
        let _ = connection.request();
        connection.reset_at_end();
    });
    let good = Origin::echo();
    let addresses = [resets.address, good.address];
    let tables = "[cluster.retry]\n";
    let proxy = Setup { endpoints: &addresses, tables, ..Setup::default() }.start();
    for body in ["", "some body"] {
        let put = format!(
            "PUT /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for _ in 0..2 {
            assert_eq!(Client::once(proxy.edge(), &put).text(), body);
        }
    }
    let marks: Vec<_> =
        good.requests().iter().map(|r| r.field("ringway-attempt").map(str::to_owned)).collect();
    assert_eq!(marks.len(), 4);
    let second = marks.iter().filter(|mark| mark.as_deref() == Some("2")).count();
    assert!(second > 0 && second == resets.request_count(), "{marks:?}");
    assert!(marks.iter().flatten().all(|mark| mark == "2"), "{marks:?}");
    let line = proxy.log_line(|line| line["attempts"] == 2);
    assert_eq!(line["retries"].to_string(), "[\"reset\"]", "{line}");
}

/// One of three origins takes its time now and then: hedges cut what clients see of it.
#[test]
fn hedges_cut_the_tail() {
    const SLOW: Duration = Duration::from_millis(300);
    let tail = |retry: &str| {
        let origins: Vec<_> = (0..3)
            .map(|n| {
                let count = AtomicUsize::new(0);
                Origin::answering(move |_| {
                    if n == 0 && count.fetch_add(1, SeqCst) % 10 == 9 {
                        pause(SLOW);
                    }
                    sized(200, b"ok")
                })
            })
            .collect();
        let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
        let proxy = Setup { endpoints: &addresses, tables: retry, ..Setup::default() }.start();
        let took = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut client = Client::connect(proxy.edge());
                    for _ in 0..120 {
                        let began = Instant::now();
                        let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                        took.lock().unwrap().push(began.elapsed());
                        assert_eq!(response.status, 200);
                        pause(Duration::from_millis(4));
                    }
                });
            }
        });
        let mut took = took.into_inner().unwrap();
        took.sort_unstable();
        let seen: usize = origins.iter().map(Origin::head_count).sum();
        (took[took.len() * 99 / 100], seen - took.len())
    };
    let (without, none) = tail("");
    let (with, more) = tail("[cluster.retry]\nhedge_after = \"30ms\"\n");
    println!("p99 {without:?} without hedges, {with:?} with {more} more requests on 720");
    assert_eq!(none, 0);
    assert!(without >= SLOW, "{without:?}");
    assert!(with < SLOW / 2, "{with:?}");
    assert!(more > 0 && more <= 144, "{more}");
}
