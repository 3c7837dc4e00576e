//! Maintenance by a file, and two ringways in a row: the outer one hears of it and sends nothing new.

use crate::health::{checks, configuration, event};
use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};
use rustix::process::Signal;
use std::path::Path;
use std::sync::mpsc;

/// A balancer in front of `origin`, with a health route that a file turns.
fn inner(name: &str, origin: &Origin, file: &Path) -> Proxy {
    Proxy::start(&format!(
        "[runtime]\nshards = 1\nnode = \"{name}\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n\
         [[route]]\nname = \"health\"\nmatch = {{ path = \"/health\" }}\nrespond = {{ body = \"healthy\\n\" }}\n\
         maintenance_file = \"{}\"\nmaintenance = {{ status = 200 }}\n\
         [[route]]\nmatch = {{ path = \"/who\" }}\nrespond = {{ body = \"${{node}}\" }}\n\
         [[cluster]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
        file.display(),
        origin.address
    ))
}

#[test]
fn a_file_turns_a_route_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("maintenance");
    let origin = Origin::saying("served");
    let text = |more: &str| {
        format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nmatch = {{ path_prefix = \"/app\" }}\ncluster = \"app\"\nmaintenance_file = \"{}\"\n{more}\n\
             [[route]]\nrespond = {{ body = \"fine\" }}\nmaintenance_file = \"{}\"\n\
             [[cluster]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
            file.display(),
            file.display(),
            origin.address
        )
    };
    let own =
        "maintenance = { status = 200, body = \"back at ${host}\\n\", headers = { retry-after = \"60\" } }";
    let proxy = Proxy::start(&text(own));
    let get = |path: &str| {
        let response = Client::get(proxy.edge(), path);
        (response.status, response.text().to_owned())
    };
    assert_eq!((get("/app"), get("/")), ((200, "served".to_owned()), (200, "fine".to_owned())));
    std::fs::write(&file, "").unwrap();
    eventually("maintenance", || get("/").0 == 503);
    assert_eq!((get("/"), get("/app")), ((503, "maintaining\n".to_owned()), (200, "back at a\n".to_owned())));
    assert_eq!(Client::get(proxy.edge(), "/app").field("retry-after"), Some("60"));
    event(&proxy, "the maintenance file is there");
    // A process that starts meanwhile knows from its first answer.
    let other = Proxy::start(&text(""));
    let first = Client::get(other.edge(), "/app");
    assert_eq!((first.status, first.text()), (503, "maintaining\n"));
    std::fs::remove_file(&file).unwrap();
    eventually("service", || get("/").0 == 200);
    assert_eq!(get("/app"), (200, "served".to_owned()));
}

#[test]
fn the_outer_of_two_sends_nothing_new_and_what_runs_ends_gracefully() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("maintenance");
    // The origin's slow answer comes when the test says so.
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::answering(move |request| {
        if request.target == "/slow" {
            let _ = gone.lock().unwrap().recv_timeout(PATIENCE);
        }
        sized(200, b"whole")
    });
    let other = dir.path().join("never");
    let mut first = inner("first", &origin, &file);
    let second = inner("second", &origin, &other);
    let endpoints = [&first, &second].map(|proxy| proxy.edge().to_string());
    let health = checks("expect_body = { contains = \"healthy\" }");
    let outer = Proxy::start(&configuration(&endpoints, "", &health));
    let who = || Client::get(outer.edge(), "/who").text().to_owned();

    // A request that runs through the first one.
    let mut slow = Client::connect(outer.edge());
    while who() != "second" {}
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the slow request", || origin.request_count() >= 1);

    std::fs::write(&file, "").unwrap();
    let line = event(&outer, "is DOWN");
    let wanted =
        format!("app/{} is DOWN, reason: Layer7 wrong body, code: 200, info: \"maintaining\"", first.edge());
    assert!(line.contains(&wanted) && line.contains("1 active"), "{line}");
    assert!(line.contains("1 sessions active"), "the slow request: {line}");
    for _ in 0..10 {
        assert_eq!(who(), "second");
    }
    // What runs may end: the first one drains, and waits for it.
    first.signal(Signal::TERM);
    event(&first, "draining");
    go.send(()).unwrap();
    let answer = slow.response("GET");
    assert_eq!((answer.status, answer.text()), (200, "whole"));
    assert_eq!(first.exit_code(PATIENCE), 0);
    assert_eq!(who(), "second");
}
