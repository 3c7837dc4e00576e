//! `ringway explain`: what it says of a request is what becomes of it.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, call, ringway};
use serde_json::{Value, json};
use std::net::SocketAddr;

const ROUTES: &str = r#"
[[route]]
name = "old"
match = { host = "old.test", path_prefix = "/a" }
redirect = { to = "http://new.test${path}", status = 301 }
[[route]]
name = "deep"
match = { path_prefix = "/a/b", method = ["GET", "PUT"] }
cluster = "two"
[[route]]
name = "wild"
match = { host = "*.test", query = { q = "1" } }
cluster = "one"
[[route]]
name = "near"
match = { source = "127.0.0.2/31" }
cluster = "two"
[[route]]
name = "regex"
match = { path_regex = "^/[ab]+$", header = { x-kind = "k" } }
respond = { status = 204 }
[[route]]
name = "cookie"
match = { cookie = { c = "y" }, not = { method = "DELETE" } }
cluster = "one"
[[route]]
name = "dead"
match = { path = "/dead" }
cluster = "dead"
[[route]]
name = "bare"
match = { path = ["/", "/a"], host = "new.test" }
respond = { status = 200, body = "own" }
"#;

fn start(origins: &[Origin; 2]) -> Proxy {
    let [one, two] = origins.each_ref().map(|origin| origin.address);
    Proxy::start(&format!(
        "[runtime]\nshards = 2\n[admin]\naddress = \"127.0.0.1:0\"\n[[access_log]]\nto = \"stdout\"\n\
         [[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{ROUTES}\
         [[cluster]]\nname = \"one\"\nendpoints = [\"{one}\"]\n\
         [[cluster]]\nname = \"two\"\nbalance = \"hash\"\nendpoints = [\"{two}\", \"{one}\"]\n\
         [[cluster]]\nname = \"dead\"\nendpoints = [{{ address = \"{one}\", weight = 0 }}]\n"
    ))
}

/// A small generator whose seed is printed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

fn explain(client: &mut Client, host: SocketAddr, asked: &Value) -> Value {
    let body = asked.to_string();
    let response = client.exchange(&format!(
        "POST /v1/explain HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(response.status, 200, "{asked}: {}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

/// A thousand requests: explained first, then sent, then looked up in the access log.
#[test]
fn what_is_explained_is_what_happens() {
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("RINGWAY_SEED={seed}");
    let mut random = Random(seed);
    let origins = ["one", "two"].map(Origin::saying);
    let proxy = start(&origins);
    let admin: SocketAddr = proxy.ready["admin"].as_str().unwrap().parse().unwrap();
    let mut api = Client::connect(admin);
    let mut explained = Vec::new();
    for n in 0..1000 {
        let method = random.of(&["GET", "GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "b@d"]);
        let host = random.of(&["old.test", "new.test", "x.new.test", "other", "NEW.test:80", "a b"]);
        let path = random.of(&["/", "/a", "/a/b", "/a/bc", "/a/../a/b/c", "/ab", "/dead", "/%2e/a", "/x%zz"]);
        let query = random.of(&["", "q=1&", "q=2&", "q&"]);
        let mut fields: Vec<_> = [
            "x-kind: k",
            "x-kind: other",
            "cookie: a=b; c=y",
            "Max-Forwards: 0",
            "content-length: 0",
            "content-length: x",
        ]
        .into_iter()
        .filter(|_| random.below(4) == 0)
        .collect();
        fields.push("connection: close");
        let source = format!("127.0.0.{}", 1 + random.below(4));
        // The number finds the line of the log: in the query where there may be one, else in the agent.
        let target = format!("{path}?{query}n={n}");
        let agent = format!("user-agent: n{n}");
        fields.push(&agent);
        let asked = json!({
            "method": method, "url": target, "source": source,
            "headers": fields.iter().map(|line| (*line).to_owned()).chain([format!("host: {host}")]).collect::<Vec<_>>(),
        });
        let said = explain(&mut api, admin, &asked);
        let mut client = Client::connect_from(source.parse().unwrap(), proxy.edge());
        let lines: String = fields.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("{method} {target} HTTP/1.1\r\n{lines}host: {host}\r\n\r\n");
        client.send(&request);
        // CONNECT and HEAD have no body; what matters is the status.
        let status = client.head().map_or(0, |(_, status, _)| status);
        explained.push((asked, said, status));
    }
    eventually("their lines", || proxy.log_lines().len() == explained.len());
    let lines = proxy.log_lines();
    let (mut routed, mut refused) = (0, 0);
    for (n, (asked, said, status)) in explained.iter().enumerate() {
        // One request at a time, but two shards: a head that was refused has nothing else that names it.
        let agent = format!("n{n}");
        let named = lines.iter().find(|line| line["user_agent"] == agent.as_str());
        let (action, told) = (said["action"].as_str().unwrap(), said["status"].as_u64());
        assert_eq!(told.is_none(), action == "forward", "{said}");
        assert_eq!(told.unwrap_or(200), u64::from(*status), "seed {seed}: {asked}\n{said}");
        let Some(line) = named else {
            assert!(action == "refuse" && said["route"].is_null(), "seed {seed}: no line of {asked}\n{said}");
            refused += 1;
            continue;
        };
        routed += 1;
        for key in ["route", "cluster"] {
            assert_eq!(said[key], line[key], "seed {seed}: {key} of {asked}\n{said}\n{line}");
        }
        if let Some(endpoint) = said["endpoint"].as_str() {
            assert_eq!(line["endpoint"], endpoint, "seed {seed}: {asked}\n{said}\n{line}");
        }
        if action == "refuse" {
            assert_eq!(line["reason"], said["refusal"], "seed {seed}: {asked}\n{said}\n{line}");
        }
    }
    assert!(routed > 300 && refused > 100, "{routed} {refused}");
}

#[test]
fn the_command_says_why() {
    let origins = ["one", "two"].map(Origin::saying);
    let proxy = start(&origins);
    let ask = |args: &[&str]| {
        let admin = proxy.ready["admin"].as_str().unwrap();
        call(ringway().arg("explain").args(args).args(["--admin", admin]))
    };
    let ended = ask(&["DELETE", "http://new.test/a/b", "-H", "cookie: c=y", "--source", "10.0.0.1"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (
            0,
            "DELETE http://new.test/a/b from 10.0.0.1 at listener edge\n\
             \x20 route old: passed over, host does not hold\n\
             \x20 route deep: passed over, method does not hold\n\
             \x20 route wild: passed over, query does not hold\n\
             \x20 route near: passed over, source does not hold\n\
             \x20 route regex: passed over, path_regex does not hold\n\
             \x20 route cookie: passed over, not does not hold\n\
             \x20 route dead: passed over, path does not hold\n\
             \x20 route bare: passed over, path does not hold\n\
             \x20 no route takes it\n\
             refused: 404 no_route"
        ),
        "{}",
        ended.stderr
    );
    let name = format!("one/{}", origins[0].address);
    let forwarded = ask(&["GET", "/x?q=1", "-H", "host: a.test"]);
    assert!(forwarded.stdout.contains("forwarded to cluster one (round_robin)"), "{}", forwarded.stdout);
    assert!(forwarded.stdout.contains("may take it"), "{}", forwarded.stdout);
    let admin = proxy.ready["admin"].as_str().unwrap();
    assert_eq!(call(ringway().args(["set", &name, "maint", "--admin", admin])).code, 0);
    let ended = ask(&["GET", "/x?q=1", "-H", "host: a.test", "--json"]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&said["refusal"], &said["endpoints"][0]["why"]),
        (&"no_endpoint".into(), &"no: maint".into())
    );
    assert!(origins.iter().all(|origin| origin.request_count() == 0), "nothing is sent");
    for (args, words) in [
        (&["GET", "nowhere"][..], "a URL is"),
        (&["GET", "/", "--listener", "none"], "no listener is called"),
        (&["GET", "/", "-H", "nothing"], "is no field"),
    ] {
        let ended = ask(args);
        assert!(ended.code == 2 && ended.stderr.contains(words), "{args:?}: {} {}", ended.code, ended.stderr);
    }
}

/// What it says of a connection is what becomes of one: by captured hellos that name the same.
#[test]
fn connections_of_tcp_listeners_are_explained_too() {
    const ONE: &[u8] = include_bytes!("../../../dataplane/tests/cases/hellos/openssl-tls13.bin");
    const TWO: &[u8] = include_bytes!("../../../dataplane/tests/cases/hellos/openssl-tls12-alpn.bin");
    let named = |name: &'static str| {
        Origin::scripted(move |connection| {
            connection.send(name);
            connection.until_closed();
        })
    };
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::start(&format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nname = \"a\"\nlisteners = [\"edge\"]\nmatch = {{ sni = \"one.example.com\" }}\ncluster = \"a\"\n\
         [[route]]\nname = \"b\"\nlisteners = [\"edge\"]\nmatch = {{ sni = \"*.example.com\", alpn = \"h2\", source = \"127.0.0.0/8\" }}\ncluster = \"b\"\n\
         [[cluster]]\nname = \"a\"\nendpoints = [\"{}\"]\n[[cluster]]\nname = \"b\"\nendpoints = [\"{}\"]\n",
        a.address, b.address
    ));
    let asked = |args: &[&str]| {
        let admin = proxy.ready["admin"].as_str().unwrap();
        let ended = call(
            ringway().args(["explain", "--listener", "edge", "--admin", admin]).args(args).arg("--json"),
        );
        (ended.code, serde_json::from_str::<Value>(&ended.stdout).unwrap_or_default())
    };
    for (hello, args, said) in [
        (ONE, &["--sni", "one.example.com"][..], "a"),
        (TWO, &["--sni", "TWO.example.com", "--alpn", "h2", "--alpn", "http/1.1"], "b"),
    ] {
        let mut client = Client::connect(proxy.edge());
        client.send(hello);
        assert_eq!(client.raw(1), said.as_bytes());
        let (code, body) = asked(args);
        let found = (&body["route"], &body["cluster"], &body["action"]);
        assert_eq!((code, found), (0, (&said.into(), &said.into(), &"forward".into())), "{body}");
        assert_eq!(body["endpoints"][0]["takes"], true, "{body}");
    }
    let keys = |body: &Value| -> Vec<String> {
        body["passed_over"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect()
    };
    for (args, expected) in [
        (&[][..], ["sni", "sni"]),
        (&["--sni", "x.example.com"], ["sni", "alpn"]),
        (&["--sni", "x.example.com", "--alpn", "h2", "--source", "192.0.2.1"], ["sni", "source"]),
    ] {
        let (code, body) = asked(args);
        assert_eq!(
            (code, keys(&body), &body["refusal"]),
            (0, expected.map(str::to_owned).to_vec(), &"no_route".into())
        );
    }
    assert_eq!(asked(&["--sni", "a b"]).0, 2, "no client may send that");
    assert_eq!(asked(&["GET", "/"]).0, 2, "it takes connections");
}
