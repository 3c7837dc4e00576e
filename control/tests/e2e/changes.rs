//! Clusters, endpoints and routes that come and go at run time, the file of it all, and what a reload makes of it.

use crate::admin::{JSON, admin, ask, command, json};
use crate::health::{Subject, configuration};
use crate::support::client::Client;
use crate::support::programs::program;
use crate::support::proxy::{Proxy, call, file, ringway};
use crate::support::{eventually, skip};
use crate::upgrade::{LIMIT, upgraded};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

fn put(proxy: &Proxy, path: &str, body: &str) -> (u16, Value) {
    ask(admin(proxy), &format!("PUT {path}"), JSON, body)
}

fn delete(proxy: &Proxy, path: &str) -> (u16, Value) {
    ask(admin(proxy), &format!("DELETE {path}"), JSON, "")
}

fn drift(proxy: &Proxy) -> Vec<String> {
    let (_, body) = ask(admin(proxy), "GET /v1/drift", "", "");
    let word = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let changes = body["changes"].as_array().unwrap().iter();
    changes.map(|c| format!("{} {} {}", word(c, "kind"), word(c, "name"), word(c, "change"))).collect()
}

fn run(path: &std::path::Path) -> Proxy {
    Proxy::start(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn clusters_routes_and_endpoints_come_and_go_without_a_connection_lost() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let mut kept = Client::connect(proxy.edge());
    let request = "GET /b/x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(kept.exchange(request).text(), "one");

    let body = format!("{{\"endpoints\": [\"{}\"], \"pool\": {{\"idle\": 7}}}}", two.address());
    let (status, answer) = put(&proxy, "/v1/clusters/b", &body);
    assert_eq!((status, &answer["drift"][0]), (200, &"cluster b".into()), "{answer}");
    assert_eq!(
        (&answer["changes"][0]["kind"], &answer["changes"][0]["change"]),
        (&"cluster".into(), &"new".into())
    );
    let route = "{\"match\": {\"path_prefix\": \"/b\"}, \"cluster\": \"b\"}";
    assert_eq!(put(&proxy, "/v1/routes/to-b", route).0, 200);
    assert_eq!(kept.exchange(request).text(), "two", "the next request follows it");
    let front = "{\"match\": {\"path_prefix\": \"/b\"}, \"respond\": {\"status\": 299}}";
    assert_eq!(put(&proxy, "/v1/routes/front?before=to-b", front).0, 200);
    assert_eq!(kept.exchange(request).status, 299);
    let routes = ask(admin(&proxy), "GET /v1/routes", "", "").1;
    let names: Vec<_> =
        routes["routes"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["front", "to-b"]);
    assert_eq!(delete(&proxy, "/v1/routes/front").0, 200);

    // An endpoint more, another weight, and away.
    let path = format!("/v1/clusters/b/endpoints/{}", one.address());
    assert_eq!(put(&proxy, &path, "{}").0, 200);
    let both: std::collections::BTreeSet<_> =
        (0..8).map(|_| kept.exchange(request).text().to_owned()).collect();
    assert_eq!(both.len(), 2);
    assert_eq!(put(&proxy, &path, "{\"weight\": 0}").0, 200);
    assert!((0..8).all(|_| kept.exchange(request).text() == "two"));
    assert_eq!(delete(&proxy, &path).0, 200);
    assert_eq!(drift(&proxy), ["cluster b new", "route to-b new"]);
    let shown = command(&proxy, &["status"]);
    assert!(
        shown.stdout.contains("changed at run time, beside the file: cluster b, route to-b"),
        "{}",
        shown.stdout
    );

    // What would not be a configuration is refused as in a file, and changes nothing.
    for (path, body, code) in [
        ("/v1/clusters/b", "{\"endpoints\": [\"nonsense\"]}", 422),
        ("/v1/clusters/b", "{\"endpoint\": []}", 422),
        ("/v1/clusters/b", "{\"name\": \"c\", \"endpoints\": []}", 400),
        ("/v1/clusters/B%20b", "{\"endpoints\": []}", 422),
        ("/v1/routes/x", "{\"cluster\": \"nobody\"}", 422),
        ("/v1/routes/x?before=nobody", "{\"cluster\": \"b\"}", 404),
        ("/v1/routes/x?after=to-b", "{\"cluster\": \"b\"}", 400),
        ("/v1/clusters/x/endpoints/y", "{}", 404),
        ("/v1/clusters/b/endpoints/y", "{\"weight\": 1}", 422),
        ("/v1/clusters/b", "[1", 400),
    ] {
        let (status, answer) = put(&proxy, path, body);
        assert!(status == code && answer["error"].is_string(), "{path} {body}: {status} {answer}");
        assert_eq!(status == 422, answer["problems"][0]["what"].is_string(), "{answer}");
    }
    let (status, answer) = delete(&proxy, "/v1/clusters/b");
    assert!(
        status == 422 && answer.to_string().contains("no cluster is called"),
        "a route needs it: {answer}"
    );
    assert_eq!(delete(&proxy, "/v1/clusters/nobody").0, 404);
    assert_eq!(kept.exchange(request).text(), "two", "on the connection of the beginning");
}

#[test]
fn an_export_runs_as_it_is_and_a_reload_keeps_or_ends_changes() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let text = configuration(&[one.address()], "", "");
    let proxy = Proxy::start(&text);
    let path = proxy.file.clone();
    let ended = command(&proxy, &["export"]);
    assert_eq!((ended.code, ended.stdout.trim()), (0, text.trim()), "as it is while nothing was changed");
    let endpoint = format!("/v1/clusters/app/endpoints/{}", two.address());
    assert_eq!(put(&proxy, &endpoint, "{}").0, 200);
    assert_eq!(delete(&proxy, &format!("/v1/clusters/app/endpoints/{}", one.address())).0, 200);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    let exported = command(&proxy, &["export"]).stdout;
    let (_other, other) = file(&exported);
    assert_eq!(Client::get(run(&other).edge(), "/").text(), "two", "{exported}");

    // A file that is another elsewhere leaves them; one that says something of them holds.
    let reload = || command(&proxy, &["reload"]);
    std::fs::write(&path, format!("{text}max_queued = 77\n")).unwrap();
    let planned = command(&proxy, &["plan", "-c", path.to_str().unwrap(), "--json"]);
    let done = command(&proxy, &["reload", "--json"]);
    let (planned, done) = (json(planned.stdout.as_bytes()), json(done.stdout.as_bytes()));
    for key in ["changes", "drift", "ended"] {
        assert_eq!(planned[key], done[key], "{key}");
    }
    assert_eq!((done["drift"].as_array().unwrap().len(), done["ended"].as_array().unwrap().len()), (2, 0));
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    let weighted = format!("{{ address = \"{}\", weight = 3 }}", one.address());
    std::fs::write(&path, text.replace(&format!("{:?}", one.address()), &weighted)).unwrap();
    let ended = reload();
    assert!(ended.stdout.contains("is as the file says again"), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(drift(&proxy), [format!("endpoint app/{} new", two.address())]);

    // A right file that is none with the changes: nothing happens, and it says how to end them.
    assert_eq!(put(&proxy, "/v1/routes/r", "{\"cluster\": \"app\"}").0, 200);
    let renamed = text.replace("\"app\"", "\"web\"");
    std::fs::write(&path, &renamed).unwrap();
    let ended = reload();
    assert!(ended.code == 1 && ended.stderr.contains("drift --forget"), "{}", ended.stderr);
    let ended = command(&proxy, &["drift", "--forget"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(command(&proxy, &["drift"]).stdout, "all is as the file says");
    assert_eq!(reload().code, 0);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    assert_eq!(call(ringway().arg("check").arg("-c").arg(&other)).code, 0);
}

/// The commands with curl in docs/operations/admin.md, as they stand there, but for the address and files.
#[test]
fn the_examples_of_the_manual_do_what_they_say() {
    let Some(curl) = program(&["curl"]) else { return skip("there is no curl") };
    let manual = include_str!("../../../docs/operations/admin.md").replace("\\\n", " ");
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    let keys = format!("\"127.0.0.1:0\"\ntoken = {{ file = {token:?} }}");
    let text = configuration(&["10.0.0.1:8080".to_owned(), "10.0.0.3:8080".to_owned()], "", "");
    let text = text.replacen("\"127.0.0.1:0\"", &keys, 1);
    let proxy = Proxy::start(&format!("{text}\n[[route]]\nname = \"all\"\ncluster = \"app\"\n"));
    let lines: Vec<_> = manual.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 7, "{lines:?}");
    let mut statuses = Vec::new();
    for line in lines {
        let line = line
            .replace("http://127.0.0.1:9901", "http://ADMIN")
            .replace("http://10.0.0.9:9901", "http://ADMIN");
        let line = line.replace("ADMIN", &admin(&proxy).to_string());
        let line = line.replace("/etc/ringway/token", token.to_str().unwrap());
        let bearer = "-H 'Authorization: Bearer 0123456789abcdef'";
        let line = line.replacen(
            "curl ",
            &format!("{} -s -o /dev/null -w '%{{http_code}}' {bearer} ", curl.display()),
            1,
        );
        let done = std::process::Command::new("sh").arg("-c").arg(&line).output().unwrap();
        statuses.push((String::from_utf8_lossy(&done.stdout).into_owned(), line));
    }
    for (status, line) in &statuses {
        // Nobody has the connection of the example.
        let wanted = if line.contains("/v1/connections/0.") { "404" } else { "200" };
        assert_eq!(status, wanted, "{line}");
    }
    assert_eq!(drift(&proxy).len(), 3, "{:?}", drift(&proxy));
}

/// Asks without a pause until it is told to stop, on one connection and on new ones; how often it was answered otherwise than by 200.
struct Load {
    stops: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, usize)>>,
}

impl Load {
    fn start(to: SocketAddr) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let client = |keeps: bool| {
            let stops = Arc::clone(&stops);
            std::thread::spawn(move || {
                let (mut asked, mut failed, mut kept) = (0, 0, Client::connect(to));
                while !stops.load(SeqCst) {
                    let answer = if keeps {
                        kept.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    } else {
                        Client::get(to, "/")
                    };
                    asked += 1;
                    failed += usize::from(answer.status != 200);
                    if answer.field("connection") == Some("close") {
                        kept = Client::connect(to);
                    }
                }
                (asked, failed)
            })
        };
        let clients = [true, true, false].map(client).into();
        Self { stops, clients }
    }

    #[track_caller]
    fn ends_well(self) {
        self.stops.store(true, SeqCst);
        for client in self.clients {
            let (asked, failed) = client.join().expect("every request is answered");
            assert!(asked > 10 && failed == 0, "{failed} of {asked} failed");
        }
    }
}

#[test]
fn changes_go_along_in_an_upgrade() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let text = configuration(&[one.address()], "", "");
    let mut proxy = Proxy::start(&text);
    let path = |subject: &Subject| format!("/v1/clusters/app/endpoints/{}", subject.address());
    let load = Load::start(proxy.edge());
    assert_eq!(put(&proxy, &path(&one), "{\"weight\": 3}").0, 200);
    assert_eq!(put(&proxy, &path(&two), "{}").0, 200);
    let new = "{\"match\": {\"path\": \"/new\"}, \"respond\": {\"status\": 299}}";
    assert_eq!(put(&proxy, "/v1/routes/new", new).0, 200);
    let export = |proxy: &Proxy| command(proxy, &["export"]).stdout;
    let before = (drift(&proxy), export(&proxy));
    let changed =
        [format!("endpoint app/{} changed", one.address()), format!("endpoint app/{} new", two.address())];
    assert_eq!(before.0, [changed[0].as_str(), changed[1].as_str(), "route new new"]);

    let (answer, next) = upgraded(&proxy);
    assert_eq!((answer["drift"].as_array().unwrap().len(), &answer["ended"]), (3, &Value::Array(Vec::new())));
    assert_eq!(proxy.exit_code(LIMIT), 0);
    assert_eq!((drift(&proxy), export(&proxy)), before);
    assert_eq!(Client::get(proxy.edge(), "/new").status, 299);
    let cluster = ask(admin(&proxy), "GET /v1/clusters/app", "", "").1;
    let endpoints = cluster["endpoints"].as_array().unwrap();
    let weights: Vec<_> =
        endpoints.iter().map(|one| (one["name"].as_str().unwrap(), &one["weight"])).collect();
    assert_eq!(weights, [(one.address().as_str(), &3.into()), (two.address().as_str(), &1.into())]);
    load.ends_well();

    // The file is another where one of them was made: it ends, and the others go on, in the next of the next.
    let touched = format!(
        "{text}[[route]]\nname = \"new\"\nmatch = {{ path = \"/new\" }}\nrespond = {{ status = 298 }}\n"
    );
    std::fs::write(&proxy.file, &touched).unwrap();
    let (answer, last) = upgraded(&proxy);
    assert_eq!((answer["drift"].as_array().unwrap().len(), &answer["ended"]), (2, &vec!["route new"].into()));
    let told = proxy.stderr.wait_for(|line| line.contains("upgrade: the file is another where route new"));
    assert!(told.is_some(), "{:?}", proxy.stderr.all());
    assert_eq!(drift(&proxy), changed);
    assert_eq!(Client::get(proxy.edge(), "/new").status, 298);
    eventually("the end of the one before", || !next.lives());

    // A file that is right, but not with the changes: the next process is not ready, and all goes on.
    assert_eq!(put(&proxy, "/v1/routes/r", "{\"cluster\": \"app\", \"match\": {\"path\": \"/r\"}}").0, 200);
    std::fs::write(&proxy.file, touched.replace("\"app\"", "\"web\"")).unwrap();
    let ended = command(&proxy, &["upgrade"]);
    assert!(ended.code == 1 && ended.stderr.contains("exit status: 1"), "{}{}", ended.stdout, ended.stderr);
    let told = proxy.stderr.wait_for(|line| line.contains("not with what was changed at run time"));
    assert!(told.is_some_and(|line| line.contains("route r")), "{:?}", proxy.stderr.all());
    assert_eq!((drift(&proxy).len(), Client::get(proxy.edge(), "/r").status), (3, 200));
    assert!(last.lives());
}

#[test]
fn what_was_set_of_an_endpoint_that_is_gone_can_be_forgotten() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let text = configuration(&[one.address(), two.address()], "", "");
    let proxy = Proxy::start(&text);
    let (stays, goes) = (format!("app/{}", one.address()), format!("app/{}", two.address()));
    for name in [&stays, &goes] {
        assert_eq!(command(&proxy, &["set", name, "drain"]).code, 0);
    }
    std::fs::write(&proxy.file, configuration(&[one.address()], "", "")).unwrap();
    assert_eq!(command(&proxy, &["reload"]).code, 0);
    let states = || ask(admin(&proxy), "GET /v1/drift", "", "").1["states"].clone();
    let state =
        |name: &str, gone: bool| serde_json::json!({ "endpoint": name, "state": "drain", "gone": gone });
    let mut expected = vec![state(&stays, false), state(&goes, true)];
    expected.sort_by_key(|state| state["endpoint"].as_str().map(str::to_owned));
    assert_eq!(states(), Value::Array(expected));
    let shown = command(&proxy, &["drift"]).stdout;
    assert!(shown.contains(&format!("endpoint {goes}: set to drain, and gone")), "{shown}");
    let ended = command(&proxy, &["drift", "--forget"]);
    assert!(
        ended.code == 0 && ended.stdout.contains(&format!("{goes} is gone")),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    assert_eq!(
        states(),
        Value::Array(vec![state(&stays, false)]),
        "what an operator says of one that is there holds"
    );
    // It comes back as anybody.
    std::fs::write(&proxy.file, text).unwrap();
    assert_eq!(command(&proxy, &["reload"]).code, 0);
    let (_, endpoint) =
        ask(admin(&proxy), &format!("GET /v1/clusters/app/endpoints/{}", two.address()), "", "");
    assert_eq!(endpoint["state"], "ready", "{endpoint}");
}
