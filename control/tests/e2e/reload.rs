//! A reload: what changed follows, what did not is left alone, and what is wrong changes nothing.

use crate::support::client::{Broken, Client};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Ended, Proxy, call, ringway};
use crate::support::{assert_same, eventually, pattern};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A configuration with an admin API: `edge` leads to the cluster `app` with these keys, and more tables follow.
pub fn configuration(listener: &str, app: &str, more: &str) -> String {
    format!(
        "[runtime]\nshards = 2\ndrain_timeout = \"2s\"\n[admin]\naddress = \"127.0.0.1:0\"\n[[access_log]]\n[[listener]]\n\
         name = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n{listener}\n[[cluster]]\nname = \"app\"\n{app}\n{more}\n"
    )
}

fn endpoints(origins: &[&Origin]) -> String {
    let all: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect();
    format!("endpoints = [{}]", all.join(", "))
}

pub fn command(proxy: &Proxy, args: &[&str]) -> Ended {
    call(ringway().args(args).arg("--admin").arg(proxy.ready["admin"].as_str().unwrap()))
}

/// Reloads with `text` as the file; what the API says.
#[track_caller]
pub fn reload(proxy: &Proxy, text: &str) -> Value {
    std::fs::write(&proxy.file, text).unwrap();
    let ended = command(proxy, &["reload", "--json"]);
    assert_eq!(ended.code, 0, "{}\n{}\n{text}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn plan(proxy: &Proxy, text: &str) -> Value {
    let (_dir, path) = crate::support::proxy::file(text);
    let ended = command(proxy, &["plan", "--json", "-c", path.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn address_of(reloaded: &Value, listener: &str) -> SocketAddr {
    let listeners = reloaded["listeners"].as_array().unwrap();
    let found = listeners.iter().find(|one| one["name"] == listener).expect("the listener");
    found["address"].as_str().unwrap().parse().unwrap()
}

fn changes(answer: &Value) -> Vec<String> {
    let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let all = answer["changes"].as_array().unwrap().iter();
    all.map(|c| {
        format!("{} {} {}: {}", text(c, "kind"), text(c, "name"), text(c, "change"), text(c, "effect"))
    })
    .collect()
}

#[test]
fn what_changed_follows_and_connections_stay() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let first = configuration("", &endpoints(&[&one]), "");
    let proxy = Proxy::start(&first);
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(GET).text(), "one");
    let second = configuration(
        "",
        &endpoints(&[&two]),
        "[[route]]\nname = \"hello\"\nmatch = { path = \"/x\" }\nrespond = { status = 299 }\n",
    );
    let planned = plan(&proxy, &second);
    assert_eq!(client.exchange(GET).text(), "one", "a plan changes nothing");
    // Of what a file may be, little.
    let long = format!("{second}#{}\n", "x".repeat(3 << 20));
    assert_eq!(plan(&proxy, &long)["changes"], planned["changes"]);
    let done = reload(&proxy, &second);
    assert_eq!(planned["changes"], done["changes"]);
    let expected = [
        "route hello new: next exchange".to_owned(),
        "cluster app changed: drains".to_owned(),
        format!("endpoint app/{} gone: drains", one.address),
        format!("endpoint app/{} new: nothing", two.address),
    ];
    let mut got = changes(&done);
    got.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(got, expected);
    assert_eq!(address_of(&done, "edge"), proxy.edge(), "a port that the kernel chose is kept");
    assert_eq!(client.exchange(GET).text(), "two", "on the same connection");
    assert_eq!(client.exchange("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").status, 299);
    let line = proxy.log_line(|line| line["route"] == "hello");
    assert_eq!(line["status"], 299);
    assert!(changes(&reload(&proxy, &second)).is_empty());
    // A signal does the same, and tells how long it took.
    std::fs::write(&proxy.file, &first).unwrap();
    proxy.signal(Signal::HUP);
    eventually("the first again", || client.exchange(GET).text() == "one");
    assert_eq!(client.exchange("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").text(), "one");
    assert!(proxy.stderr.wait_for(|line| line.contains("reloaded") && line.contains("total_ms")).is_some());
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told() {
    let origin = Origin::saying("one");
    let good = configuration("", &endpoints(&[&origin]), "");
    let proxy = Proxy::start(&good);
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(GET).text(), "one");
    let bad = good.replace("cluster = \"app\"", "cluster = \"ap\"").replace("\"2s\"", "\"2x\"");
    std::fs::write(&proxy.file, &bad).unwrap();
    let ended = command(&proxy, &["reload"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("drain_timeout") && ended.stderr.contains("listener.cluster"),
        "{}",
        ended.stderr
    );
    proxy.signal(Signal::HUP);
    let told = |what: &'static str| {
        proxy.stderr.wait_for(move |line| line.contains("reload") && line.contains(what))
    };
    assert!(told("drain_timeout").is_some() && told("nothing changed").is_some());
    let (_dir, path) = crate::support::proxy::file(&bad);
    assert_eq!(command(&proxy, &["plan", "-c", path.to_str().unwrap()]).code, 1);
    // An address that somebody has fails all of it, and what was bound for it is let go.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        "[[route]]\nmatch = {{ path = \"/\" }}\nrespond = {{ status = 299 }}\n[[listener]]\nname = \"new\"\naddress = \"{free}\"\n\
         [[listener]]\nname = \"other\"\naddress = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    let text = configuration("", &endpoints(&[&origin]), &more);
    std::fs::write(&proxy.file, &text).unwrap();
    let ended = command(&proxy, &["reload"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("(listener other)") && ended.stderr.contains("nothing changed"),
        "{}",
        ended.stderr
    );
    assert!(TcpListener::bind(free).is_ok(), "it is free again");
    assert_eq!((client.exchange(GET).status, client.exchange(GET).text()), (200, "one"));
    drop(taken);
    reload(&proxy, &text);
    assert_eq!(client.exchange(GET).status, 299);
    assert_eq!(Client::get(free, "/").status, 299);
}

#[test]
fn a_listener_comes_moves_and_goes() {
    let (gate, origin) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let slow = {
        let (gate, asked) = (gate.clone(), origin.clone());
        Origin::answering(move |request| {
            if request.target.contains("slow") {
                asked.fetch_add(1, SeqCst);
                while !gate.load(SeqCst) {
                    crate::support::pause(Duration::from_millis(1));
                }
            }
            sized(200, b"done")
        })
    };
    let other = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n";
    let proxy = Proxy::start(&configuration("", &endpoints(&[&slow]), other));
    let at = proxy.address("other");
    let mut idle = Client::connect(at);
    assert_eq!(idle.exchange(GET).status, 200);
    let mut edge = Client::connect(proxy.edge());
    assert_eq!(edge.exchange(GET).status, 200);
    let mut running = Client::connect(at);
    running.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request at the origin", || origin.load(SeqCst) == 1);
    // Accepted or queued, and has asked nothing yet.
    let mut fresh = Client::connect(at);
    let moved = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.2:0\"\ncluster = \"app\"\n";
    let done = reload(&proxy, &configuration("", &endpoints(&[&slow]), moved));
    assert_eq!(changes(&done), ["listener other changed: drains"]);
    idle.expect_closed();
    assert_eq!(fresh.exchange(GET).field("connection"), Some("close"));
    let there = address_of(&done, "other");
    assert_eq!(Client::get(there, "/").status, 200);
    assert_eq!(edge.exchange(GET).status, 200, "of a listener that did not change");
    eventually("nobody listens at the old address", || {
        TcpStream::connect_timeout(&at, Duration::from_millis(100)).is_err()
    });
    gate.store(true, SeqCst);
    let answer = running.response("GET");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    // It goes altogether: a tunnel or request that does not end is cut when drain_timeout is over.
    gate.store(false, SeqCst);
    let mut stuck = Client::connect(there);
    stuck.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request at the origin", || origin.load(SeqCst) == 2);
    let done = reload(&proxy, &configuration("", &endpoints(&[&slow]), ""));
    assert_eq!(changes(&done), ["listener other gone: drains"]);
    assert!(matches!(stuck.try_response("GET"), Err(Broken::Closed { .. })));
    gate.store(true, SeqCst);
    assert_eq!(edge.exchange(GET).status, 200);
    // And comes back, where it was first, perhaps while the former is closing.
    let back = format!("[[listener]]\nname = \"other\"\naddress = \"{at}\"\ncluster = \"app\"\n");
    reload(&proxy, &configuration("", &endpoints(&[&slow]), &back));
    assert_eq!(Client::get(at, "/").status, 200);
}

#[test]
fn a_unix_socket_comes_and_goes() {
    let origin = Origin::saying("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let proxy = Proxy::start(&configuration("", &endpoints(&[&origin]), ""));
    let unix = |mode: &str| {
        format!(
            "[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\nsocket_mode = \"{mode}\"\ncluster = \"app\"\n",
            path.display()
        )
    };
    let mode = || {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777
    };
    reload(&proxy, &configuration("", &endpoints(&[&origin]), &unix("0600")));
    let ask = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    assert!(ask().unwrap().contains("200") && mode() == 0o600);
    reload(&proxy, &configuration("", &endpoints(&[&origin]), &unix("0666")));
    assert!(ask().unwrap().contains("200") && mode() == 0o666);
    reload(&proxy, &configuration("", &endpoints(&[&origin]), ""));
    assert!(ask().is_err() && !path.exists());
}

/// Not one request fails, whatever they are and whatever is reloaded.
#[test]
fn reloads_under_load_lose_nothing() {
    let origin = Origin::echo();
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let echo_at = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || {
                let mut both = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut both.0, &mut both.1);
            });
        }
    });
    let text = |n: usize| {
        let extra: String = (0..n % 3)
            .map(|m| {
                format!("[[listener]]\nname = \"extra{m}\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n")
            })
            .collect();
        let more = format!(
            "[[route]]\nname = \"r{n}\"\nmatch = {{ path = \"/never/{n}\" }}\nrespond = {{ status = 299 }}\n[[listener]]\nname = \"tcp\"\n\
             protocol = \"tcp\"\naddress = \"127.0.0.1:0\"\ncluster = \"echo\"\n[[cluster]]\nname = \"echo\"\nendpoints = [\"{echo_at}\"]\n\
             [[cluster]]\nname = \"c{}\"\nendpoints = [\"127.0.0.1:1\"]\n[[route]]\nmatch = {{ path = \"/c\" }}\ncluster = \"c{}\"\n{extra}",
            n % 5,
            n % 5
        );
        let app = format!(
            "balance = \"{}\"\n{}",
            ["round_robin", "random", "least_connections"][n % 3],
            endpoints(&[&origin])
        );
        configuration(&format!("max_connections = {}", 1000 + n), &app, &more)
    };
    let proxy = Proxy::start(&text(0));
    let (edge, tcp) = (proxy.edge(), proxy.address("tcp"));
    let over = AtomicBool::new(false);
    let upload = pattern(300_000, 7);
    let request = |body: &[u8]| {
        let mut request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        request
    };
    let (mut counts, over) = ([0; 4], &over);
    std::thread::scope(|scope| {
        let keep_alive = scope.spawn(|| {
            let (mut client, mut n) = (Client::connect(edge), 0);
            while !over.load(SeqCst) {
                client.send(request(b"hello"));
                assert_eq!(client.response("POST").text(), "hello");
                n += 1;
            }
            n
        });
        let new = scope.spawn(|| {
            let mut n = 0;
            while !over.load(SeqCst) {
                let mut client = Client::connect(edge);
                client.send(request(b"new"));
                assert_eq!(client.response("POST").text(), "new");
                n += 1;
            }
            n
        });
        let uploads = scope.spawn(|| {
            let (mut client, mut n) = (Client::connect(edge), 0);
            while !over.load(SeqCst) {
                client.send(request(&upload));
                assert_same(&client.response("POST").body, &upload, "an upload");
                n += 1;
            }
            n
        });
        let tunnel = scope.spawn(|| {
            let mut stream = TcpStream::connect(tcp).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut n, mut got) = (0u64, [0; 8]);
            while !over.load(SeqCst) {
                stream.write_all(&n.to_be_bytes()).unwrap();
                stream.read_exact(&mut got).unwrap();
                assert_eq!(u64::from_be_bytes(got), n);
                n += 1;
            }
            usize::try_from(n).unwrap()
        });
        for n in 1..=20 {
            reload(&proxy, &text(n));
        }
        over.store(true, SeqCst);
        counts = [keep_alive, new, uploads, tunnel].map(|thread| thread.join().unwrap());
    });
    assert!(counts.iter().all(|n| *n > 3), "{counts:?}");
}

#[test]
fn what_needs_an_upgrade_waits_and_the_rest_applies() {
    let origin = Origin::saying("one");
    let first = configuration("", &endpoints(&[&origin]), "");
    let proxy = Proxy::start(&first);
    let more =
        first.replace("shards = 2", "shards = 1") + "[[route]]\nname = \"r\"\nrespond = { status = 299 }\n";
    let done = reload(&proxy, &more);
    assert_eq!(done["waits"], serde_json::json!(["runtime.shards"]));
    assert_eq!(Client::get(proxy.edge(), "/").status, 299);
    assert!(changes(&done).contains(&"runtime  changed: needs an upgrade".to_owned()), "{done}");
    let status = command(&proxy, &["status"]);
    assert!(status.stdout.contains("runtime.shards"), "{}", status.stdout);
    // It waits still after another reload, and no more when the file says what runs.
    assert_eq!(reload(&proxy, &more)["waits"], serde_json::json!(["runtime.shards"]));
    assert_eq!(reload(&proxy, &first)["waits"], serde_json::json!([]));
    assert!(!command(&proxy, &["status"]).stdout.contains("runtime.shards"));
}

#[test]
fn states_that_were_set_outlast_a_reload() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let first = configuration("", &endpoints(&[&one, &two]), "");
    let proxy = Proxy::start(&first);
    let name = format!("app/{}", one.address);
    assert_eq!(command(&proxy, &["set", &name, "maint"]).code, 0);
    // Of a cluster that did not change, and of one that did: another order, another policy, one more.
    let three = Origin::saying("three");
    let changed = format!("balance = \"random\"\n{}", endpoints(&[&three, &two, &one]));
    for text in [
        first.clone() + "[[route]]\nmatch = { path = \"/x\" }\nrespond = { status = 299 }\n",
        configuration("", &changed, ""),
    ] {
        reload(&proxy, &text);
        for _ in 0..12 {
            assert_ne!(Client::get(proxy.edge(), "/").text(), "one");
        }
    }
    assert!(three.request_count() > 0);
    // It is gone, and comes back under its name.
    reload(&proxy, &configuration("", &endpoints(&[&two]), ""));
    reload(&proxy, &first);
    for _ in 0..6 {
        assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    }
    assert_eq!(command(&proxy, &["set", &name, "ready"]).code, 0);
    eventually("it serves again", || Client::get(proxy.edge(), "/").text() == "one");
}

/// Checks begin, change and end; logs, their level and their format follow; so do maintenance files.
#[test]
fn what_control_does_follows_too() {
    let (one, two) = (Origin::saying("one"), Origin::answering(|_| sized(500, b"bad")));
    let first = configuration("", &endpoints(&[&one, &two]), "");
    let proxy = Proxy::start(&first);
    let dir = tempfile::tempdir().unwrap();
    let health =
        "[cluster.health]\nkind = \"http\"\npath = \"/health\"\ninterval = \"100ms\"\nrise = 1\nfall = 1\n";
    let file = dir.path().join("maint");
    let log = dir.path().join("access.log");
    let routed = format!(
        "{health}[[route]]\nname = \"m\"\nmatch = {{ path = \"/m\" }}\nrespond = {{ status = 200 }}\nmaintenance_file = \"{}\"\n\
         [[access_log]]\nto = \"file:{}\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n",
        file.display(),
        log.display()
    );
    reload(&proxy, &configuration("", &endpoints(&[&one, &two]), &routed));
    assert!(proxy.stderr.wait_for(|line| line.starts_with('{') && line.contains("reloaded")).is_some());
    eventually("checks take the second down", || {
        (0..6).all(|_| Client::get(proxy.edge(), "/").text() == "one")
    });
    assert_eq!(Client::get(proxy.edge(), "/m").status, 200);
    std::fs::write(&file, "").unwrap();
    eventually("maintenance", || Client::get(proxy.edge(), "/m").status == 503);
    eventually("a line in the file", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"path\":\"/m\""))
    });
    reload(&proxy, &first);
    assert!(proxy.stderr.wait_for(|line| !line.starts_with('{') && line.contains("reloaded")).is_some());
    eventually("nobody says that it is down", || Client::get(proxy.edge(), "/").text() == "bad");
    assert_ne!(Client::get(proxy.edge(), "/m").status, 503);
}

#[test]
fn a_watched_file_is_reloaded() {
    let origin = Origin::saying("one");
    let text =
        configuration("", &endpoints(&[&origin]), "").replace("shards = 2", "shards = 2\nwatch = true");
    let proxy = Proxy::start(&text);
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    let next = proxy.file.with_extension("next");
    std::fs::write(&next, text + "[[route]]\nrespond = { status = 299 }\n").unwrap();
    std::fs::rename(&next, &proxy.file).unwrap();
    eventually("it is in force", || Client::get(proxy.edge(), "/").status == 299);
}

#[test]
fn the_admin_api_moves() {
    let origin = Origin::saying("one");
    let first = configuration("", &endpoints(&[&origin]), "");
    let proxy = Proxy::start(&first);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let text = first.replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"unix:{}\"", path.display()),
    );
    reload(&proxy, &text);
    let status = |at: &str| call(ringway().args(["status", "--admin", at])).code;
    assert_eq!(status(&format!("unix:{}", path.display())), 0);
    assert_eq!(status(proxy.ready["admin"].as_str().unwrap()), 69);
}

/// Descriptors and memory stay where they are, with connections open throughout; `scripts/measure-reloads.py` does it with thousands.
#[test]
fn reloads_leave_nothing_behind() {
    let origin = Origin::echo();
    let text = |n: usize| {
        let more = format!(
            "[[listener]]\nname = \"l{n}\"\naddress = \"127.0.0.1:0\"\ncluster = \"c{n}\"\n[[cluster]]\nname = \"c{n}\"\n{}\n",
            endpoints(&[&origin])
        );
        configuration("", &endpoints(&[&origin]), &more)
    };
    let proxy = Proxy::start(&text(0));
    let _conns: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(proxy.edge()).unwrap()).collect();
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).map(Iterator::count).unwrap_or(0);
    for n in 1..10 {
        reload(&proxy, &text(n));
    }
    eventually("the first are closed", || descriptors() > 0);
    let before = descriptors();
    for n in 10..60 {
        let done = reload(&proxy, &text(n));
        assert_eq!(Client::get(address_of(&done, &format!("l{n}")), "/").status, 200);
    }
    eventually("no more descriptors than before", || descriptors() <= before + 4);
}
