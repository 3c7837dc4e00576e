//! The dashboard: its files and what a browser may do with them, the answer behind it, and its script over real answers.
//! `scripts/use-dashboard.py` uses it in Chromium, as a person would.

use crate::admin::{JSON, admin, ask, json};
use crate::health::{Subject, checks, configuration};
use crate::support::client::{Client, Response};
use crate::support::eventually;
use crate::support::origin::{Origin, sized};
use crate::support::programs::program;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{closed_port, skip};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
/// An endpoint whose name is markup, with what ends elements and attributes.
const HOSTILE: &str = "unix:/nowhere/</option></td><img src=x onerror='alert(1)'>\\\"&amp;.sock";

fn get(to: SocketAddr, method: &str, path: &str) -> Response {
    let mut client = Client::connect(to);
    client.exchange(&format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"))
}

fn dashboard(proxy: &Proxy, query: &str) -> Value {
    ask(admin(proxy), &format!("GET /v1/dashboard{query}"), "", "").1
}

/// The files that a text of the page names.
fn named(text: &str) -> Vec<String> {
    let own = text.split("/page/").skip(1).chain(text.split("from './").skip(1));
    own.map(|rest| rest.split(['"', '\'']).next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_is_served_whole_with_its_fences() {
    let proxy = Proxy::start(&configuration(&[closed_port().to_string()], "", ""));
    let to = admin(&proxy);
    let (mut open, mut seen) = (vec![String::new()], Vec::new());
    while let Some(file) = open.pop() {
        let path = if file.is_empty() { "/".to_owned() } else { format!("/page/{file}") };
        let response = get(to, "GET", &path);
        assert_eq!(response.status, 200, "{path}");
        let policy = response.field("content-security-policy").unwrap();
        for part in
            ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!["-inline", "-eval", "*"].iter().any(|loose| policy.contains(loose)), "{policy}");
        let kind = response.field("content-type").unwrap();
        let wanted = match path.rsplit('.').next() {
            Some("mjs") => "text/javascript",
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            _ => "text/html",
        };
        assert!(kind.starts_with(wanted), "{path}: {kind}");
        assert_eq!(response.field("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.field("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(response.field("referrer-policy"), Some("no-referrer"), "{path}");
        // Else a browser could show the page of the program before this one.
        assert_eq!(response.field("cache-control"), Some("no-store"), "{path}");
        let head = get(to, "HEAD", &path);
        let length = response.body.len().to_string();
        assert_eq!((head.status, head.body.len(), head.field("content-length")), (200, 0, Some(&*length)));
        open.extend(named(response.text()).into_iter().filter(|file| !seen.contains(file)));
        seen.push(file);
    }
    assert!(seen.len() > 6, "{seen:?}");
    assert_eq!(get(to, "GET", "/page/nothing.mjs").status, 404);
    assert_eq!(get(to, "GET", "/page/..%2fmod.rs").status, 404);
    assert_eq!(get(to, "POST", "/").status, 415);
    // Which page belongs to the answers.
    let digest = dashboard(&proxy, "")["process"]["page"].as_str().unwrap().to_owned();
    assert!(get(to, "GET", "/").text().contains(&format!("name=\"page\" content=\"{digest}\"")));
}

#[test]
fn the_page_is_open_and_its_data_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let token = "a-token-of-forty-three-characters-or-even-more";
    std::fs::write(&file, token).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = configuration(&[closed_port().to_string()], "", "").replace(
        "[admin]\n",
        &format!("[admin]\nprotect = \"all\"\ntoken = {{ file = {:?} }}\n", file.display().to_string()),
    );
    let proxy = Proxy::start(&text);
    for path in ["/", "/page/main.mjs"] {
        assert_eq!(get(admin(&proxy), "GET", path).status, 200, "{path}");
    }
    assert_eq!(get(admin(&proxy), "GET", "/v1/dashboard").status, 401);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask(admin(&proxy), "GET /v1/dashboard", &bearer, "").0, 200);
}

/// Two clusters and two listeners, traffic that is answered, refused and failed, and an endpoint with a hostile name.
fn busy() -> (Vec<Origin>, Proxy) {
    let answer = |request: &crate::support::origin::Request| {
        sized(if request.target == "/bad" { 503 } else { 200 }, b"body")
    };
    let origins = vec![Origin::answering(answer), Origin::answering(answer)];
    let tables = format!(
        "{ADMIN}[[cluster]]\nname = \"other\"\nendpoints = [{HOSTILE:?}, \"{}\"]\n\
         [[listener]]\nname = \"db\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:0\"\ncluster = \"other\"\n\
         [[route]]\nname = \"dead\"\nmatch = {{ path = \"/dead\" }}\ncluster = \"other\"\n",
        closed_port()
    );
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let setup = Setup { tables: &tables, endpoints: &addresses, ..Setup::default() };
    let proxy = setup.start();
    for _ in 0..20 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
    for path in ["/bad", "/dead"] {
        for _ in 0..6 {
            assert!(Client::get(proxy.edge(), path).status >= 500);
        }
    }
    assert_eq!(Client::once(proxy.edge(), "GET / HTTP/1.1\r\n\r\n").status, 400);
    (origins, proxy)
}

#[test]
fn one_answer_has_everything_and_only_what_is_new() {
    let (origins, proxy) = busy();
    eventually("two seconds", || dashboard(&proxy, "")["history"].as_array().unwrap().len() >= 2);
    let shown = dashboard(&proxy, "");
    let edge = &shown["listeners"][0];
    assert_eq!((&edge["name"], &edge["answers"]["2xx"]), (&json!("edge"), &json!(20)), "{edge}");
    assert_eq!((&edge["answers"]["5xx"], &edge["failed"]), (&json!(12), &json!(12)), "{edge}");
    let total: u64 =
        edge["times"]["total"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    // A head that was never whole is in no histogram.
    assert_eq!(total, 32, "{edge}");
    let app = &shown["clusters"][0];
    let attempts = |at: usize| app["endpoints"][at]["attempts"]["2xx"].as_u64().unwrap();
    assert_eq!((attempts(0) + attempts(1), app["endpoints"].as_array().unwrap().len()), (20, origins.len()));
    let refusals = shown["refusals"].as_array().unwrap();
    let found = |reason: &str| refusals.iter().find(|row| row["reason"] == reason);
    assert_eq!(found("host_missing").unwrap()["count"], 1);
    assert!(found("no_route").is_none(), "reasons that there were not are left out");
    assert_eq!(shown["shards"].as_array().unwrap().len(), 2);
    let sum = |field: &str| {
        shown["history"].as_array().unwrap().iter().map(|point| point[field].as_f64().unwrap()).sum::<f64>()
    };
    assert!(sum("requests") <= 34.0 && sum("sent") >= 0.0, "{}", shown["history"]);

    // Only what is new, and only what is looked for.
    let path = format!(
        "PUT /v1/clusters/app/endpoints/{}/state",
        origins[0].address.to_string().replace(':', "%3A")
    );
    assert_eq!(ask(admin(&proxy), &path, JSON, "{\"state\": \"maint\"}").0, 200);
    let all = dashboard(&proxy, "");
    let events = all["events"].as_array().unwrap();
    let last = events.last().unwrap()["number"].as_u64().unwrap();
    assert_eq!(events.last().unwrap()["event"], "endpoint_state");
    let newer = dashboard(&proxy, &format!("?events_after={}", last - 1));
    assert_eq!(newer["events"].as_array().unwrap().len(), 1);
    let at = all["history"].as_array().unwrap().last().unwrap()["at_ms"].as_u64().unwrap();
    let newer = dashboard(&proxy, &format!("?history_after={at}"));
    assert!(newer["history"].as_array().unwrap().iter().all(|point| point["at_ms"].as_u64().unwrap() > at));
    let found = dashboard(&proxy, "?find=NOWHERE");
    let names = |clusters: &Value| -> Vec<(String, bool, usize)> {
        let of = |one: &Value| {
            let endpoints = one["endpoints"].as_array().unwrap().len();
            (one["name"].as_str().unwrap().to_owned(), one["found"] == true, endpoints)
        };
        clusters.as_array().unwrap().iter().map(of).collect()
    };
    // What is looked for, and what something stands against: whoever looks for one thing is still told of the other.
    let expected = [("app".to_owned(), false, 1), ("other".to_owned(), true, 1)];
    assert_eq!(names(&found["clusters"]), expected);
    assert_eq!((&found["endpoints"], &found["endpoints_in_use"]), (&json!(4), &json!(3)));
    assert_eq!(ask(admin(&proxy), "GET /v1/dashboard?events_after=x", "", "").0, 400);
}

#[test]
fn a_large_configuration_makes_a_small_answer_with_the_broken_first() {
    let mut text =
        format!("{ADMIN}[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"c0\"\n");
    for cluster in 0..60 {
        let endpoints: Vec<_> = (1..=40).map(|at| format!("10.9.{cluster}.{at}:80")).collect();
        text += &format!("[[cluster]]\nname = \"c{cluster}\"\nendpoints = {endpoints:?}\n");
    }
    let proxy = Proxy::start(&text);
    for (cluster, endpoint) in [("c57", "10.9.57.39:80"), ("c57", "10.9.57.40:80"), ("c3", "10.9.3.40:80")] {
        let path = format!("PUT /v1/clusters/{cluster}/endpoints/{endpoint}/state");
        assert_eq!(ask(admin(&proxy), &path, JSON, "{\"state\": \"maint\"}").0, 200);
    }
    let response = get(admin(&proxy), "GET", "/v1/dashboard");
    assert!(response.body.len() < 600_000, "{} bytes", response.body.len());
    let shown = json(&response.body);
    assert_eq!((shown["clusters"].as_array().unwrap().len(), &shown["clusters_left_out"]), (40, &json!(20)));
    assert_eq!((&shown["clusters"][0]["name"], &shown["clusters"][1]["name"]), (&json!("c3"), &json!("c57")));
    let second = &shown["clusters"][1];
    assert_eq!(
        (second["endpoints"].as_array().unwrap().len(), &second["endpoints_left_out"]),
        (24, &json!(16))
    );
    assert_eq!(second["endpoints"][1]["name"], "10.9.57.40:80");
    let found = dashboard(&proxy, "?find=c59/10.9.59.4");
    let all = found["clusters"].as_array().unwrap();
    let (sought, broken): (Vec<_>, Vec<_>) = all.iter().partition(|one| one["found"] == true);
    // Itself, and 40.
    assert_eq!((sought.len(), sought[0]["endpoints"].as_array().unwrap().len()), (1, 2));
    assert_eq!((broken.len(), &found["clusters_left_out"]), (2, &json!(0)));
}

#[test]
fn the_script_reads_only_fields_that_answers_have() {
    let Some(node) = program(&["node", "nodejs"]) else { return skip("no node") };
    let (_origins, proxy) = busy();
    let first = dashboard(&proxy, "");
    let held = Client::connect(proxy.edge());
    eventually("a second", || dashboard(&proxy, "")["history"].as_array().unwrap().len() >= 2);
    for path in ["/", "/bad", "/dead"] {
        Client::get(proxy.edge(), path);
    }
    ask(admin(&proxy), "POST /v1/drain", JSON, "{\"cluster\": \"other\"}");
    let second = dashboard(&proxy, "");
    ask(admin(&proxy), "POST /v1/drain", JSON, "{\"cluster\": \"other\", \"abort\": true}");
    ask(admin(&proxy), "POST /v1/drain", JSON, "{\"listener\": \"db\"}");
    ask(admin(&proxy), "POST /v1/drain", JSON, "{\"node\": true, \"window\": \"1h\"}");
    let third = dashboard(&proxy, "");
    let mut connections = Value::Null;
    eventually("the others are closed", || {
        connections = ask(admin(&proxy), "GET /v1/connections", "", "").1;
        connections["connections"].as_array().unwrap().len() == 1
    });
    drop(held);
    // Checks, and what they find.
    let up = Subject::new("up");
    let checked = Proxy::start(&configuration(&[closed_port().to_string(), up.address()], "", &checks("")));
    eventually("a verdict", || {
        dashboard(&checked, "")["clusters"][0]["endpoints"][0]["eligible"] == "no: down"
    });
    let fourth = dashboard(&checked, "");

    let dir = tempfile::tempdir().unwrap();
    let answers = dir.path().join("answers.json");
    let all =
        json!({ "answers": [first, second, third, fourth], "connections": connections, "hostile": HOSTILE });
    std::fs::write(&answers, all.to_string()).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.join("tests/e2e/support/page.mjs");
    let output =
        Command::new(node).arg(script).arg(here.join("src/admin/page")).arg(answers).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("all well"), "{said}");
}

#[test]
fn connections_that_are_kept_end_when_another_process_answers() {
    // A request that runs keeps the process before it there.
    let silent = Origin::scripted(|connection| {
        connection.request();
        connection.until_closed();
    });
    let mut proxy = Proxy::start(&configuration(&[silent.address.to_string()], "", ""));
    let mut runs = Client::connect(proxy.edge());
    runs.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("its request", || silent.head_count() == 1);
    let to = admin(&proxy);
    let request = format!("GET /v1/dashboard HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let mut kept = Client::connect(to);
    let pid = |response: Response| json(&response.body)["process"]["pid"].as_u64().unwrap();
    assert_eq!(pid(kept.exchange(&request)), u64::from(proxy.child.id()));
    proxy.signal(Signal::USR2);
    // One that asks on and on is never idle.
    eventually("the end of the connection", || {
        kept.send_anyway(&request);
        kept.try_response("GET").is_err()
    });
    assert!(proxy.child.try_wait().unwrap().is_none(), "it finishes what it has");
    let next = pid(Client::connect(to).exchange(&request));
    assert_ne!(next, u64::from(proxy.child.id()));
    let next = rustix::process::Pid::from_raw(i32::try_from(next).unwrap()).unwrap();
    rustix::process::kill_process(next, Signal::KILL).unwrap();
}

/// What a person would do, where there is a browser. It is large, and not asked for where tests may not be skipped.
#[test]
fn the_page_is_used_as_a_person_would() {
    let (Some(chromium), Some(python)) = (program(&["chromium", "google-chrome"]), program(&["python3"]))
    else {
        eprintln!("skipped: no chromium");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/use-dashboard.py");
    let mut command = Command::new(python);
    command.arg(script).arg(env!("CARGO_BIN_EXE_ringway")).arg("--seconds").arg("1").arg("--chromium");
    let output = command.arg(chromium).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
