//! Recipes of docs/recipes do what they say: the very configurations that they show, with our own addresses.

use crate::health::event;
use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, call, file, ringway};
use crate::support::{PATIENCE, eventually, recipe, with};
use rustix::process::Signal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const TICK: (&str, &str) = ("interval = \"2s\"", "interval = \"20ms\"");

/// A configuration as it stands is accepted without a word.
#[track_caller]
fn check(text: &str) {
    let (_dir, path) = file(text);
    let checked = call(ringway().args(["check", "-c"]).arg(&path));
    assert_eq!((checked.code, &*checked.stderr), (0, ""));
}

fn down(proxy: &Proxy, name: &str) {
    event(proxy, &format!("endpoint {name} is DOWN"));
}

/// HAProxy's nbsrv, over the whole life of both clusters.
#[test]
fn a_cluster_stands_in_for_another_as_the_recipe_says() {
    let example = recipe("a-cluster-in-place-of-another", 0);
    check(&example);
    check(&recipe("a-cluster-in-place-of-another", 1));
    let origins = ["sr1", "sr2", "sr3", "sr4"].map(Origin::saying);
    let ours = origins.each_ref().map(|origin| origin.address.to_string());
    let addresses = [1, 2, 3, 4].map(|n| format!("10.0.0.{n}:7210"));
    let mut swaps = vec![("0.0.0.0:8080", "127.0.0.1:0"), ("\"www\"", "\"edge\""), TICK];
    swaps.extend(addresses.iter().zip(&ours).map(|(from, to)| (&**from, &**to)));
    let proxy = Proxy::start(&with(&example, &swaps));
    let ask = |host: &str, cookie: Option<&str>| {
        let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        Client::once(
            proxy.edge(),
            &format!("GET / HTTP/1.1\r\nHost: {host}\r\n{cookie}Connection: close\r\n\r\n"),
        )
    };
    let cookie = |response: &crate::support::client::Response| {
        let set = response.field("set-cookie").expect("a cookie").to_owned();
        set.split(';').next().unwrap().to_owned()
    };

    // All is well.
    let first = ask("myapp.example.org", None);
    assert!(["sr1", "sr2"].contains(&first.text()) && cookie(&first).starts_with("SOMUI="), "{first:?}");
    let kept = cookie(&first);
    assert_eq!(ask("uat-myapp.example.org", Some(&kept)).text(), first.text());
    assert_eq!(ask("other.example.org", None).status, 404);

    // One dies: nobody notices, and its clients have another.
    let (one, other) = if first.text() == "sr1" { (0, 1) } else { (1, 0) };
    origins[one].kill();
    let moved = ask("myapp.example.org", Some(&kept));
    assert_eq!((moved.status, moved.text()), (200, ["sr1", "sr2"][other]));
    assert_ne!(cookie(&moved), kept);
    down(&proxy, &format!("www-myapp/sr{}", one + 1));
    (0..10).for_each(|_| assert_eq!(ask("myapp", None).text(), ["sr1", "sr2"][other]));

    // Both are dead: the others stand in.
    origins[other].kill();
    event(&proxy, "cluster www-myapp has no endpoint available (2 down)");
    let stand_in = ask("myapp.example.org", Some(&cookie(&moved)));
    assert!(["sr3", "sr4"].contains(&stand_in.text()), "{stand_in:?}");
    let there = cookie(&stand_in);
    for _ in 0..10 {
        assert!(["sr3", "sr4"].contains(&ask("uat-myapp", None).text()));
        let again = ask("myapp", Some(&there));
        assert_eq!((again.text(), again.field("set-cookie")), (stand_in.text(), None));
    }

    // One of the first is back: new requests go there, and nothing is left to the cookie of the others.
    let back = Origin::saying_at(origins[0].address, "sr1");
    event(&proxy, "cluster www-myapp has an endpoint available again");
    let home = ask("myapp.example.org", Some(&there));
    assert_eq!(home.text(), "sr1");
    assert_ne!(cookie(&home), there);
    (0..10).for_each(|_| assert_eq!(ask("myapp", None).text(), "sr1"));

    // And when all are dead there is one alert more for each.
    [&back, &origins[2], &origins[3]].into_iter().for_each(Origin::kill);
    event(&proxy, "cluster www-myapp-backup has no endpoint available (2 down)");
    eventually("503", || ask("myapp", None).reason() == "no_endpoint");
    let alerts = proxy.stderr.all().iter().filter(|line| line.contains("has no endpoint available")).count();
    assert_eq!(alerts, 3);
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An origin that echoes in tunnels, holds `/slow` until it is told, and says its name.
fn origin(name: &'static str, go: mpsc::Receiver<()>) -> Origin {
    let go = Mutex::new(go);
    Origin::scripted(move |connection| {
        while let Some(request) = connection.request() {
            if request.field("upgrade") == Some("websocket") {
                connection.send(SWITCH);
                loop {
                    let bytes = connection.raw();
                    if bytes.is_empty() || !connection.send(&bytes) {
                        return;
                    }
                }
            }
            if request.target == "/slow" {
                let _ = go.lock().unwrap().recv_timeout(PATIENCE);
            }
            if !connection.send(sized(200, name.as_bytes())) {
                return;
            }
        }
    })
}

/// The inner ringway of the recipe before one origin.
fn inner(example: &str, origin: &Origin, switch: &Path, at: &str, drain: &str) -> Proxy {
    let (origin, switch) = (format!("[\"{}\"]", origin.address), switch.display().to_string());
    let at = format!("\"{at}\"");
    Proxy::start(&with(
        example,
        &[
            ("\"10.0.0.11:8080\"", &*at),
            ("[\"10.0.1.1:9000\", \"10.0.1.2:9000\"]", &*origin),
            ("/etc/ringway/maintenance", &*switch),
            ("drain_timeout = \"30s\"", &*format!("drain_timeout = \"{drain}\"")),
        ],
    ))
}

/// Clients that ask without a pause, on connections of their own, until told to stop: each answer that was not 200.
fn load(proxy: &Proxy, stop: &Arc<AtomicBool>) -> thread::JoinHandle<(usize, Vec<u16>)> {
    let (edge, stop) = (proxy.edge(), Arc::clone(stop));
    thread::spawn(move || {
        let (mut client, mut asked, mut bad) = (Client::connect(edge), 0, Vec::new());
        while !stop.load(SeqCst) {
            asked += 1;
            let status = client.exchange(GET).status;
            if status != 200 {
                bad.push(status);
            }
        }
        (asked, bad)
    })
}

/// Waits until an endpoint has only so many links left.
fn wait_for_links(proxy: &Proxy, name: &str, links: u64) {
    let admin = proxy.ready["admin"].as_str().expect("an admin address");
    let path = format!("/v1/clusters/{}", name.replace('/', "/endpoints/"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    eventually("what was under way to end", || {
        let answer = Client::once(admin.parse().unwrap(), &request);
        let endpoint: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        endpoint["links"].as_u64().expect("a count") == links
    });
}

/// Two ringways in a row, with steady load on the outer one: it sends nothing new to the inner one that says "maintaining",
/// by the file or by the operator of the outer one, and what is established ends by itself or within the waiting time.
#[test]
fn two_in_a_row_do_what_the_recipe_says() {
    let (inner_text, outer_text) = (recipe("maintenance-by-a-file", 0), recipe("maintenance-by-a-file", 1));
    check(&inner_text);
    check(&outer_text);
    let dir = tempfile::tempdir().unwrap();
    let switches = ["first", "second"].map(|name| dir.path().join(name));
    let (go, [one, two]) = {
        let ((go, first), (_, second)) = (mpsc::channel(), mpsc::channel());
        (go, [origin("first", first), origin("second", second)])
    };
    let mut first = inner(&inner_text, &one, &switches[0], "127.0.0.1:0", "30s");
    let mut second = inner(&inner_text, &two, &switches[1], "127.0.0.1:0", "300ms");
    let edges = [&first, &second].map(|proxy| format!("\"{}\"", proxy.edge()));
    let outer = Proxy::start(&with(
        &outer_text,
        &[
            ("127.0.0.1:9901", "127.0.0.1:0"),
            ("0.0.0.0:80", "127.0.0.1:0"),
            ("\"10.0.0.11:8080\"", &*edges[0]),
            ("\"10.0.0.12:8080\"", &*edges[1]),
            TICK,
        ],
    ));
    let who = || Client::get(outer.edge(), "/").text().to_owned();
    let name = |inner: &Proxy| format!("balancers/{}", inner.edge());
    eventually("both take their turns", || who() == "first" && who() == "second");
    let stop = Arc::new(AtomicBool::new(false));
    let clients = [load(&outer, &stop), load(&outer, &stop)];

    // Established through the first: a tunnel, and a slow answer.
    let tunnel = |inner: &Proxy, origin: &Origin| loop {
        let before = origin.requests().iter().filter(|request| request.target == "/ws").count();
        let mut client = Client::connect(outer.edge());
        client.send(UPGRADE);
        assert_eq!(client.response("GET").status, 101);
        if origin.requests().iter().filter(|request| request.target == "/ws").count() > before {
            return (client, name(inner));
        }
    };
    let (mut held, first_name) = tunnel(&first, &one);
    let mut slow = Client::connect(outer.edge());
    let slow_at =
        |origin: &Origin| origin.requests().iter().filter(|request| request.target == "/slow").count();
    for round in 1.. {
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the slow request", || slow_at(&one) + slow_at(&two) == round);
        if slow_at(&one) == 1 {
            break;
        }
        slow.response("GET");
    }

    // The file: nothing new, and what runs goes on.
    std::fs::write(&switches[0], "").unwrap();
    down(&outer, &first_name);
    // The tunnel and the slow answer.
    wait_for_links(&outer, &first_name, 2);
    let before = one.request_count();
    (0..50).for_each(|_| assert_eq!(who(), "second"));
    assert_eq!(one.request_count(), before, "nothing new");
    held.send("still here");
    assert_eq!(held.raw(10), b"still here");

    // It is stopped: it waits for what runs, which ends well.
    first.signal(Signal::TERM);
    event(&first, "draining");
    go.send(()).unwrap();
    let answer = slow.response("GET");
    assert_eq!((answer.status, answer.text()), (200, "first"));
    held.send("and now");
    assert_eq!(held.raw(7), b"and now");
    held.shutdown_write();
    held.expect_closed();
    assert_eq!(first.exit_code(PATIENCE), 0);

    // Back at its address, in service again when the file is gone.
    let at = first_name.trim_start_matches("balancers/").to_owned();
    let first = inner(&inner_text, &one, &switches[0], &at, "30s");
    assert_eq!(who(), "second");
    std::fs::remove_file(&switches[0]).unwrap();
    eventually("the first one is back", || who() == "first");

    // The same by the word of the outer one's operator; a tunnel that does not end is cut off when the time is over.
    let (mut held, second_name) = tunnel(&second, &two);
    let admin = outer.ready["admin"].as_str().expect("an admin address");
    assert_eq!(call(ringway().args(["set", &second_name, "drain", "--admin", admin])).code, 0);
    wait_for_links(&outer, &second_name, 1);
    let before = two.request_count();
    (0..50).for_each(|_| assert_eq!(who(), "first"));
    assert_eq!(two.request_count(), before, "nothing new");
    held.send("still here");
    assert_eq!(held.raw(10), b"still here");
    second.signal(Signal::TERM);
    assert_eq!(second.exit_code(PATIENCE), 0);
    held.expect_closed();
    assert_eq!(who(), "first");

    stop.store(true, SeqCst);
    for client in clients {
        let (asked, bad) = client.join().unwrap();
        assert!(asked > 50 && bad.is_empty(), "{asked} requests, bad: {bad:?}");
    }
    drop(first);
}
