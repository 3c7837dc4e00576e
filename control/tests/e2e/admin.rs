//! The admin API, its guards, and the commands that use it.

use crate::health::{Subject, checks, configuration, event};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Ended, Proxy, call, file, ringway};
use crate::support::{PATIENCE, closed_port, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

pub fn admin(proxy: &Proxy) -> SocketAddr {
    proxy.ready["admin"].as_str().expect("an admin address").parse().unwrap()
}

pub fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

/// A request to the API of `proxy`, with these lines between the Host and the body.
pub fn ask(to: SocketAddr, first: &str, fields: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let response = Client::once(
        to,
        &format!(
            "{first} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ),
    );
    (response.status, json(&response.body))
}

pub const JSON: &str = "Content-Type: application/json\r\n";

pub fn command(proxy: &Proxy, args: &[&str]) -> Ended {
    call(ringway().args(args).arg("--admin").arg(proxy.ready["admin"].as_str().unwrap()))
}

#[test]
fn an_endpoint_is_drained_and_brought_back_by_command() {
    let (one, two) = (Subject::new("one"), Subject::new("two"));
    let proxy = Proxy::start(&configuration(&[one.address(), two.address()], "", ""));
    let name = format!("app/{}", one.address());
    for state in ["drain", "maint"] {
        let ended = command(&proxy, &["set", &name, state]);
        assert_eq!((ended.code, ended.stdout), (0, format!("{name} is {state}")), "{}", ended.stderr);
        for _ in 0..6 {
            assert_eq!(Client::get(proxy.edge(), "/").text(), "two", "{state}");
        }
        let (status, clusters) = ask(admin(&proxy), "GET /v1/clusters", "", "");
        let cluster = &clusters["clusters"][0];
        assert_eq!((status, &cluster["name"], &cluster["active"]), (200, &"app".into(), &1.into()));
        let endpoint = &cluster["endpoints"][0];
        assert_eq!((&endpoint["state"], &endpoint["usable"]), (&state.into(), &false.into()));
        assert!(endpoint["port_capacity"].as_u64().unwrap() > 1000, "{endpoint}");
    }
    assert_eq!(command(&proxy, &["set", &name, "ready"]).code, 0);
    eventually("its turn", || Client::get(proxy.edge(), "/").text() == "one");
    let (_, events) = ask(admin(&proxy), "GET /v1/events", "", "");
    let states: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["drain", "maint", "ready"]);
}

#[test]
fn status_shows_checks_links_and_ports() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", &checks("")));
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    let shown = || command(&proxy, &["status"]);
    eventually("a check", || shown().stdout.contains("Layer7 check passed, code: 200"));
    let ended = shown();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stdout.contains("app: round_robin, 1 active and 0 backup endpoints, 0 waiting"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains(" of ") && ended.stdout.contains("ready"), "{}", ended.stdout);
    let as_json = json(command(&proxy, &["status", "--json"]).stdout.as_bytes());
    assert_eq!(as_json["clusters"][0]["endpoints"][0]["health"], "up");
    let path = format!("GET /v1/clusters/app/endpoints/{}", one.address().replace(':', "%3A"));
    assert_eq!(ask(admin(&proxy), &path, "", "").1["check"]["class"], "layer7_passed");
}

#[test]
fn a_probe_shows_the_exact_bytes() {
    let one = Subject::new("one");
    let text = configuration(
        &[one.address()],
        "",
        &checks("interval = \"1h\"").replace("interval = \"20ms\"\n", ""),
    );
    let proxy = Proxy::start(&text);
    let name = format!("app/{}", one.address());
    let ended = command(&proxy, &["probe", &name]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], name);
    assert_eq!(lines[1], "> GET /health HTTP/1.1\\r\\n");
    assert_eq!(lines[2], format!("> Host: {}\\r\\n", one.address()));
    assert!(lines[4..].starts_with(&["> \\r\\n", "< HTTP/1.1 200 X\\r\\n"]), "{}", ended.stdout);
    assert!(lines.contains(&"< healthy\\n"), "{}", ended.stdout);
    assert!(
        lines.last().unwrap().starts_with("Layer7 check passed, code: 200, check duration: "),
        "{}",
        ended.stdout
    );

    one.status.store(500, SeqCst);
    let ended = command(&proxy, &["probe", &name, "--json"]);
    let shown = json(ended.stdout.as_bytes());
    assert_eq!((ended.code, &shown["class"]), (1, &"layer7_wrong_status".into()));
    // Where nothing runs, this process makes the check; the file says an address that is nobody's.
    let (_dir, path) = file(&text.replace("[admin]\naddress = \"127.0.0.1:0\"", ""));
    for change in [None, Some(format!("[admin]\naddress = \"{}\"\n", closed_port()))] {
        let there = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change.unwrap_or_default() + &there).unwrap();
        let ended = call(ringway().args(["probe", &name, "-c"]).arg(&path));
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(
            ended.stdout.contains("Layer7 wrong status, code: 500, info: \"healthy\""),
            "{}",
            ended.stdout
        );
    }
    // A cluster without checks is connected to, and nothing is sent.
    let plain = Proxy::start(&configuration(&[one.address()], "", ""));
    let ended = command(&plain, &["probe", &name]);
    assert!(ended.code == 0 && ended.stdout.contains("Layer4 check passed"), "{}", ended.stdout);
}

#[test]
fn what_cannot_be_found_or_reached_has_its_exit_code() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    for name in ["app/nothing", "nothing/one"] {
        for args in [&["set", name, "drain"][..], &["probe", name]] {
            let ended = command(&proxy, args);
            assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
            assert!(ended.stderr.contains("nothing"), "{}", ended.stderr);
        }
    }
    let nobody = closed_port().to_string();
    for args in [&["status"][..], &["set", "app/one", "ready"], &["probe", "app/one"]] {
        let ended = call(ringway().args(args).args(["--admin", &nobody]));
        assert_eq!((ended.code, ended.stderr.contains(&nobody)), (69, true), "{}", ended.stderr);
        let ended = call(ringway().args(args).env("RINGWAY_ADMIN", &nobody));
        assert_eq!((ended.code, ended.stderr.contains(&nobody)), (69, true), "{}", ended.stderr);
    }
    assert_eq!(call(ringway().args(["status", "--admin", "nonsense"])).code, 2);
    // Somebody else's port.
    let stranger = Origin::saying("hello");
    let ended = call(ringway().args(["status", "--admin", &stranger.address.to_string()]));
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains(&stranger.address.to_string()), "{}", ended.stderr);
    let (status, body) = ask(admin(&proxy), "GET /v1/clusters/nothing", "", "");
    assert_eq!((status, &body["error"]), (404, &"no cluster is called \"nothing\"".into()));
    assert_eq!(ask(admin(&proxy), "GET /v1/clusters/app", "", "").1["name"], "app");
}

#[test]
fn a_page_of_another_site_reaches_nothing() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let to = admin(&proxy);
    let rebound =
        Client::once(to, "GET /v1/clusters HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.status, 421);
    let path = format!("PUT /v1/clusters/app/endpoints/{}/state", one.address());
    let body = "{\"state\": \"maint\"}";
    for fields in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"]
    {
        assert_eq!(ask(to, &path, fields, body).0, 415, "{fields:?}");
    }
    assert_eq!(ask(to, &path, JSON, "{\"state\": \"off\"}").0, 400);
    assert_eq!(ask(to, &path, JSON, &"x".repeat(70_000)).0, 413);
    assert_eq!(ask(to, "GET /v2", "", "").0, 404);
    assert_eq!(ask(to, "DELETE /v1/clusters", JSON, "").0, 405);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one", "nothing was changed");
    assert_eq!(ask(to, &path, JSON, body).0, 200);
    assert_eq!(Client::get(proxy.edge(), "/").status, 503);
}

#[test]
fn a_token_guards_what_changes_and_a_reload_takes_another() {
    let one = Subject::new("one");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("token");
    let token = |text: &str| {
        std::fs::write(&secret, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    token("first-token-0123456789");
    let admin_of = |address: &str, more: &str| {
        let keys = format!("\"{address}\"\ntoken = {{ file = {secret:?} }}\n{more}");
        configuration(&[one.address()], "", "").replacen("\"127.0.0.1:0\"", &keys, 1)
    };
    // Where other machines could ask, too: they need the token.
    let proxy = Proxy::start(&admin_of("0.0.0.0:0", ""));
    event(&proxy, "the token goes there unencrypted");
    let to: SocketAddr = format!("127.0.0.1:{}", admin(&proxy).port()).parse().unwrap();
    let name = format!("app/{}", one.address());
    assert_eq!(ask(to, "GET /v1/clusters", "", "").0, 200);
    let path = format!("PUT /v1/clusters/app/endpoints/{}/state", one.address());
    let bearer = |token: &str| format!("{JSON}Authorization: Bearer {token}\r\n");
    for fields in [JSON.to_owned(), bearer("wrong-token-0123456789"), bearer("first-token-012345678")] {
        let (status, body) = ask(to, &path, &fields, "{\"state\": \"maint\"}");
        assert!(status == 401 && body["error"].as_str().unwrap().contains("admin.token"), "{body}");
    }
    let set = |extra: &[&str]| {
        call(ringway().args(["set", &name, "maint", "--admin", &to.to_string()]).args(extra))
    };
    let ended = set(&[]);
    assert_eq!((ended.code, ended.stderr.contains("--token-file")), (1, true), "{}", ended.stderr);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one", "nothing was changed");
    let ended = set(&["--token-file", secret.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ended = call(
        ringway()
            .args(["set", &name, "ready", "--admin", &to.to_string()])
            .env("RINGWAY_TOKEN_FILE", &secret),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(set(&["--token-file", "/nowhere"]).code, 2);
    token("other-token-0123456789");
    let reload = |fields: &str| ask(to, "POST /v1/reload", fields, "").0;
    assert_eq!(
        (reload(&bearer("other-token-0123456789")), reload(&bearer("first-token-0123456789"))),
        (401, 200)
    );
    assert_eq!(
        (reload(&bearer("first-token-0123456789")), reload(&bearer("other-token-0123456789"))),
        (401, 200)
    );
}

#[test]
fn all_of_the_api_may_need_the_token() {
    let one = Subject::new("one");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("token");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let keys = format!("\"127.0.0.1:0\"\nprotect = \"all\"\ntoken = {{ file = {secret:?} }}");
    let proxy = Proxy::start(&configuration(&[one.address()], "", "").replacen("\"127.0.0.1:0\"", &keys, 1));
    let to = admin(&proxy);
    let status = |path: &str, fields: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{fields}\r\n");
        Client::once(to, &head).status
    };
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    for path in ["/metrics", "/v1/clusters", "/v1/connections", "/v1/limits", "/v1/events", "/v2"] {
        assert_eq!(status(path, ""), 401, "{path}");
        assert_ne!(status(path, token), 401, "{path}");
    }
    assert_eq!((status("/live", ""), status("/ready", "")), (200, 200));
}

/// Whoever may reach listeners reaches nothing of the API by them.
#[test]
fn no_data_listener_leads_to_the_api() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let edge = proxy.edge();
    for path in
        ["/live", "/ready", "/metrics", "/v1/clusters", "/v1/connections", "/v1/export", "//v1/clusters"]
    {
        assert_eq!(Client::get(edge, path).text(), "one", "{path}");
    }
    let absolute = format!(
        "GET http://{}/v1/clusters HTTP/1.1\r\nHost: {0}\r\nConnection: close\r\n\r\n",
        admin(&proxy)
    );
    assert_eq!(Client::once(edge, &absolute).text(), "one");
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nConnection: close\r\n\r\n", admin(&proxy));
    assert!(Client::once(edge, &connect).status >= 400);
    let before = one.served.load(SeqCst);
    let put = format!(
        "PUT /v1/clusters/app HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{JSON}Content-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(Client::once(edge, &put).text(), "one");
    assert_eq!(one.served.load(SeqCst), before + 1, "the origin had it");
}

/// What is no request of the API costs a bounded time, and nobody else anything.
#[test]
fn hostile_input_ends_and_harms_nobody() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let to = admin(&proxy);
    let chunk = format!("ffffffffffffffff\r\n{}", "x".repeat(100_000));
    let deep = "[".repeat(60_000);
    for bytes in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\0".repeat(50_000),
        "GET /v1/clusters HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: {to}\r\n\r\n", "a".repeat(100_000)),
        format!("POST /v1/explain HTTP/1.1\r\nHost: {to}\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("POST /v1/explain HTTP/1.1\r\nHost: {to}\r\n{JSON}Content-Length: 60000\r\n\r\n{deep}"),
        format!(
            "POST /v1/explain HTTP/1.1\r\nHost: {to}\r\n{JSON}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        format!("DELETE /v1/connections/{} HTTP/1.1\r\nHost: {to}\r\n{JSON}\r\n", "9".repeat(9000)),
        format!("GET /v1/clusters/%ff%fe HTTP/1.1\r\nHost: {to}\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be refused in the midst of it.
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let shown = &bytes[..bytes.len().min(60)];
        let timed_out = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "{shown:?} holds the connection");
        assert!(
            !answer.starts_with(b"HTTP/1.1 2") && !answer.starts_with(b"HTTP/1.1 5"),
            "{shown:?}: {}",
            answer.escape_ascii()
        );
    }
    assert_eq!(ask(to, "GET /v1/clusters", "", "").0, 200);
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
}

#[test]
fn a_unix_socket_is_for_its_user_alone() {
    let one = Subject::new("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let address = format!("unix:{}", path.display());
    let text = configuration(&[one.address()], "", "").replacen("127.0.0.1:0", &address, 1);
    let mut proxy = Proxy::start(&text);
    assert_eq!(proxy.ready["admin"], address.as_str());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let ended = command(&proxy, &["set", &format!("app/{}", one.address()), "maint"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(Client::get(proxy.edge(), "/").status, 503);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"live\":true}"), "{answer}");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(PATIENCE), 0);
    assert!(!path.exists());
}

#[test]
fn ready_until_the_drain() {
    let slow = Origin::scripted(|connection| {
        connection.request();
        // Answers when the test lets go of its client.
        connection.until_closed();
    });
    let proxy = Proxy::start(&configuration(&[slow.address.to_string()], "", ""));
    let to = admin(&proxy);
    assert_eq!((ask(to, "GET /ready", "", "").0, ask(to, "GET /live", "", "").0), (200, 200));
    let mut client = Client::connect(proxy.edge());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("its request", || slow.request_count() == 1);
    proxy.signal(Signal::TERM);
    eventually("the drain", || ask(to, "GET /ready", "", "").0 == 503);
    assert_eq!(ask(to, "GET /live", "", "").0, 200);
}

#[test]
fn a_taken_admin_address_is_one_line_that_names_it() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().to_string();
    let one = Subject::new("one");
    let text = configuration(&[one.address()], "", "").replacen("127.0.0.1:0", &taken, 1);
    let (_dir, path) = file(&text);
    let ended = call(ringway().arg("run").arg("-c").arg(&path));
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{}", ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("cannot listen")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&taken) && lines[0].contains("admin"), "{}", ended.stderr);
}

#[test]
fn heads_are_bounded() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let to = admin(&proxy);
    let mut huge = TcpStream::connect(to).unwrap();
    huge.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /live HTTP/1.1\r\nHost: {to}\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let _ = huge.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
}

/// Those who connect and say nothing, or not all of it, keep nobody out.
#[test]
fn clients_that_wait_hold_up_no_probe() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let to = admin(&proxy);
    let get = format!("GET /live HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let half_body = format!("POST /v1/plan HTTP/1.1\r\nHost: {to}\r\n{JSON}Content-Length: 100\r\n\r\n{{");
    let kinds = [
        ("silent", String::new(), ""),
        ("half a head", "GET /live HTTP/1.1\r\nHost:".to_owned(), ""),
        ("half a body", half_body, ""),
        ("idle between two requests", get, "{\"live\":true}"),
    ];
    for (kind, sent, answer) in kinds {
        let held: Vec<TcpStream> = (0..70)
            .map(|_| {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(sent.as_bytes()).unwrap();
                let mut got = Vec::new();
                while !got.ends_with(answer.as_bytes()) {
                    let mut piece = [0; 1024];
                    let n = stream.read(&mut piece).unwrap();
                    assert!(n > 0, "{kind}: {}", got.escape_ascii());
                    got.extend_from_slice(&piece[..n]);
                }
                stream
            })
            .collect();
        for path in ["/ready", "/live", "/metrics"] {
            let began = Instant::now();
            let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
            assert_eq!(Client::once(to, &head).status, 200, "{path}");
            assert!(began.elapsed() < Duration::from_secs(1), "{path}, {kind}: {:?}", began.elapsed());
        }
        let (_, limits) = ask(to, "GET /v1/limits", "", "");
        let of_api =
            limits["limits"].as_array().unwrap().iter().find(|row| row["limit"] == "ADMIN_CONNECTIONS");
        // All but those of probes that end: each of these may have got a place of its own.
        assert!(of_api.unwrap()["used"].as_u64().unwrap() >= 60, "{kind}: the places are taken");
        // Who came last has its place still, and who came first gave it up.
        let mut first = &held[0];
        let ended = first.read(&mut [0; 1]);
        let reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.map_or_else(reset, |n| n == 0), "{kind}");
        let last = &held[69];
        last.set_nonblocking(true).unwrap();
        let still = (&mut &*last).read(&mut [0; 1]);
        assert!(still.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "{kind}");
    }
}

#[test]
fn what_changes_nothing_needs_no_token_unless_all_does() {
    let one = Subject::new("one");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("token");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let get = serde_json::json!({ "method": "GET", "url": "/" }).to_string();
    let text = configuration(&[one.address()], "", "");
    let plan = serde_json::json!({ "name": "f", "text": text }).to_string();
    for (protect, of_explain) in [("changes", 200), ("all", 401)] {
        let keys = format!("\"127.0.0.1:0\"\nprotect = \"{protect}\"\ntoken = {{ file = {secret:?} }}");
        let proxy = Proxy::start(&text.replacen("\"127.0.0.1:0\"", &keys, 1));
        let to = admin(&proxy);
        let status = |first: &str, fields: &str, body: &str| ask(to, first, fields, body).0;
        assert_eq!(status("POST /v1/explain", JSON, &get), of_explain, "{protect}");
        assert_eq!(
            status("POST /v1/explain", "", &get),
            if of_explain == 200 { 415 } else { 401 },
            "no form sends it"
        );
        let endpoint = format!("/v1/clusters/app/endpoints/{}", one.address());
        // A plan reads the files that its text names, and a check goes to an origin.
        let guarded = [
            ("POST /v1/plan".to_owned(), &*plan),
            (format!("POST {endpoint}/probe"), ""),
            ("POST /v1/reload".to_owned(), ""),
        ];
        for (first, body) in guarded {
            assert_eq!(status(&first, JSON, body), 401, "{first}");
            let bearer = format!("{JSON}Authorization: Bearer 0123456789abcdef\r\n");
            assert_eq!(status(&first, &bearer, body), 200, "{first}");
        }
        assert_eq!(status("POST /v1/none", JSON, ""), 401);
    }
}

#[test]
fn the_api_describes_itself() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let (status, described) = ask(admin(&proxy), "GET /v1/openapi.json", "", "");
    assert_eq!(status, 200);
    assert_eq!(described, json(include_bytes!("../../../docs/openapi.json")));
    // Each path that only reads and needs no name answers as it says.
    for (path, methods) in described["paths"].as_object().unwrap() {
        let Some(get) = methods.get("get").filter(|_| !path.contains('{')) else { continue };
        let to = admin(&proxy);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        let response = Client::once(to, &head);
        assert_eq!(response.status, 200, "{path}");
        let content = get["responses"]["200"]["content"].as_object().unwrap();
        let kind = response.field("content-type").unwrap_or_default();
        assert!(content.keys().any(|one| kind.starts_with(one.as_str())), "{path}: {kind}");
    }
}
