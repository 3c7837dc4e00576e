//! What the API shows of connections, listeners, routes, shards and limits, and the end of one connection by command.

use crate::admin::{JSON, admin, ask, command, json};
use crate::health::{Subject, configuration};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};
use serde_json::Value;
use std::io::Read as _;

fn connections(proxy: &Proxy, query: &str) -> Vec<Value> {
    let (status, body) = ask(admin(proxy), &format!("GET /v1/connections{query}"), "", "");
    assert_eq!(status, 200, "{body}");
    body["connections"].as_array().unwrap().clone()
}

/// An origin that keeps every request waiting until the test ends.
fn slow() -> Origin {
    Origin::scripted(|connection| {
        connection.request();
        connection.until_closed();
    })
}

#[test]
fn a_connection_is_shown_with_both_address_pairs_and_killed() {
    let origin = slow();
    let proxy = Proxy::start(&configuration(&[origin.address.to_string()], "", ""));
    let mut client = Client::connect(proxy.edge());
    let request = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(request);
    let quiet = Client::connect(proxy.edge());
    eventually("its request", || origin.request_count() == 1);
    eventually("both", || connections(&proxy, "").len() == 2);
    let running = connections(&proxy, "?cluster=app");
    let [row] = running.as_slice() else { panic!("{running:?}") };
    assert_eq!(row["state"], "request");
    assert_eq!(row["peer"], client.stream.local_addr().unwrap().to_string());
    assert_eq!(row["local"], proxy.edge().to_string());
    assert_eq!((&row["listener"], &row["protocol"]), (&"edge".into(), &"http".into()));
    assert_eq!(row["link_peer"], origin.address.to_string());
    assert_ne!(row["link_local"], Value::Null);
    assert_eq!((&row["requests"], &row["up_bytes"]), (&1.into(), &request.len().into()));
    let endpoint = origin.address.to_string().replace(':', "%3A");
    assert_eq!(connections(&proxy, &format!("?cluster=app&endpoint={endpoint}&source=127.0.0.0/8")).len(), 1);
    assert_eq!(connections(&proxy, "?source=192.0.2.1").len(), 0);
    assert_eq!(connections(&proxy, "?listener=edge").len(), 2);

    let shown = command(&proxy, &["connections", "--cluster", "app"]);
    assert!(shown.code == 0 && shown.stdout.contains(row["peer"].as_str().unwrap()), "{}", shown.stdout);
    let id = row["id"].as_str().unwrap();
    assert_eq!(ask(admin(&proxy), &format!("GET /v1/connections/{id}"), "", "").1["id"], id);
    let ended = command(&proxy, &["connections", "--kill", id]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with(&format!("{id} of {} ", row["peer"].as_str().unwrap())),
        "{}",
        ended.stdout
    );
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = client.stream.read(&mut [0; 64]);
    assert!(end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "the client is reset");
    // Again, and of those who come after it, it is nobody's.
    let again = Client::connect(proxy.edge());
    eventually("another", || connections(&proxy, "").len() == 2);
    assert_eq!(command(&proxy, &["connections", "--kill", id]).code, 2);
    assert_eq!(ask(admin(&proxy), &format!("DELETE /v1/connections/{id}"), JSON, "").0, 404);
    assert_eq!(connections(&proxy, "").len(), 2, "it killed nobody");
    drop((quiet, again));
}

#[test]
fn pages_go_through_all_shards_and_each_connection_is_on_one() {
    let one = Subject::new("one");
    let text = configuration(&[one.address()], "", "");
    let proxy = Proxy::start(&text);
    let clients: Vec<_> = (0..40).map(|_| Client::connect(proxy.edge())).collect();
    eventually("all of them", || connections(&proxy, "?limit=1000").len() == 40);
    let (mut ids, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, body) = ask(admin(&proxy), &format!("GET /v1/connections?limit=7{after}"), "", "");
        let rows = body["connections"].as_array().unwrap();
        assert!(rows.len() <= 7);
        ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        pages += 1;
        match body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
        assert!(pages < 20, "{ids:?}");
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((all, ids.len()), (40, 40));
    assert!(ids.iter().any(|id| id.starts_with("0.")) && ids.iter().any(|id| id.starts_with("1.")));
    drop(clients);
    for wrong in
        ["limit=0", "limit=5000", "source=x", "after=9.9.9", "endpoint=one", "nonsense=1", "after=7.0"]
    {
        let (status, body) = ask(admin(&proxy), &format!("GET /v1/connections?{wrong}"), "", "");
        assert!(status == 400 && body["error"].is_string(), "{wrong}: {status} {body}");
    }
    for (wrong, code) in [("x", 400), ("0.1", 400), ("0.99999.1", 404), ("9.0.1", 404), ("0.0.0", 404)] {
        assert_eq!(ask(admin(&proxy), &format!("GET /v1/connections/{wrong}"), "", "").0, code, "{wrong}");
    }
    assert_eq!(ask(admin(&proxy), "GET /v1/connections?cluster=nothing", "", "").0, 404);
}

#[test]
fn a_tunnel_shows_what_it_carried() {
    let origin = Origin::scripted(|connection| {
        let bytes = connection.raw();
        connection.send(&bytes);
        connection.until_closed();
    });
    let text = configuration(&[origin.address.to_string()], "", "");
    let proxy = Proxy::start(&text.replacen("cluster = \"app\"", "protocol = \"tcp\"\ncluster = \"app\"", 1));
    let mut client = Client::connect(proxy.edge());
    client.send("hello");
    assert_eq!(client.raw(5), b"hello");
    eventually("its bytes", || {
        let rows = connections(&proxy, "?cluster=app");
        rows.len() == 1
            && (&rows[0]["state"], &rows[0]["protocol"]) == (&"tunnel".into(), &"tcp".into())
            && rows[0]["up_bytes"] == 5
            && rows[0]["down_bytes"].as_u64().is_some_and(|n| n >= 5)
    });
}

/// Lists that are asked for and not waited for, one upon the other, hold nobody up.
#[test]
fn lists_that_nobody_waits_for_do_no_harm() {
    let one = Subject::new("one");
    let proxy = Proxy::start(&configuration(&[one.address()], "", ""));
    let clients: Vec<_> = (0..200).map(|_| Client::connect(proxy.edge())).collect();
    let to = admin(&proxy);
    for _ in 0..100 {
        let mut asker = Client::connect(to);
        asker.send(format!("GET /v1/connections?limit=1000 HTTP/1.1\r\nHost: {to}\r\n\r\n"));
    }
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    assert!(connections(&proxy, "?limit=1000").len() >= 200);
    drop(clients);
}

#[test]
fn listeners_routes_shards_and_limits_are_counted() {
    let origin = slow();
    let text = configuration(&[origin.address.to_string()], "", "");
    let text = text.replacen("cluster = \"app\"", "max_connections = 4\ncluster = \"app\"", 1);
    let text = text.replacen("shards = 2", "shards = 1", 1);
    let endpoints = format!("\"{}\"", origin.address);
    let one = format!("{{ address = {endpoints}, max_requests = 8 }}");
    let text = text.replacen(&endpoints, &one, 1);
    let text = format!(
        "{text}\n[[route]]\nname = \"hello\"\nmatch = {{ path = \"/hello\" }}\nrespond = {{ status = 299 }}\n"
    );
    let proxy = Proxy::start(&text);
    let to = admin(&proxy);
    let get = |path: &str| {
        let (status, body) = ask(to, &format!("GET {path}"), "", "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    assert_eq!(Client::get(proxy.edge(), "/hello").status, 299);
    let held = Client::connect(proxy.edge());
    eventually("one open of two", || {
        let listener = &get("/v1/listeners")["listeners"][0];
        (&listener["accepted"], &listener["connections"]) == (&2.into(), &1.into())
    });
    let listener = &get("/v1/listeners")["listeners"][0];
    assert_eq!((&listener["name"], &listener["max_connections"]), (&"edge".into(), &4.into()));
    assert_eq!(listener["bound"][0], proxy.edge().to_string());
    assert_eq!((&listener["accepted"], &listener["requests"]), (&2.into(), &1.into()));
    let route = get("/v1/routes/hello");
    assert_eq!((&route["action"], &route["status"]), (&"respond".into(), &299.into()));
    assert_eq!((&route["requests"], &get("/v1/routes")["routes"][0]), (&1.into(), &route));
    assert_eq!(ask(to, "GET /v1/routes/nothing", "", "").0, 404);
    let shards = get("/v1/shards");
    assert_eq!(
        (shards["shards"].as_array().unwrap().len(), &shards["shards"][0]["connections"]),
        (1, &1.into())
    );
    let limits = get("/v1/limits");
    let all = limits["limits"].as_array().unwrap();
    let limit = |name: &str, of: &str| {
        let found = all.iter().find(|limit| limit["limit"] == name && limit["of"] == of);
        found.unwrap_or_else(|| panic!("{name} of {of:?}: {limits}")).clone()
    };
    let open = limit("listener.max_connections", "edge");
    assert_eq!((&open["used"], &open["most"], &open["percent"]), (&1.into(), &4.into(), &25.0.into()));
    for (name, of) in [("cluster.max_queued", "app"), ("cluster.pool.idle", "app"), ("RLIMIT_NOFILE", "")] {
        assert!(limit(name, of)["most"].as_u64().unwrap() > 0);
    }
    for (name, of) in [("PIPES", "shard 0"), ("LOG_RING_BYTES", "the fullest shard")] {
        assert_eq!(limit(name, of)["used"], 0, "{name}");
    }
    let waiting = limit("LOG_WAITING_BYTES", "process log");
    assert_eq!((&waiting["most"], &waiting["lost"]), (&(1 << 20).into(), &0.into()));
    // One that is asked for and not answered yet runs, at the endpoint and so in the cluster.
    let mut asks = Client::connect(proxy.edge());
    asks.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("one that runs", || get("/v1/clusters/app")["running"] == 1);
    let limits = get("/v1/limits");
    for of in ["app".to_owned(), format!("app/{}", origin.address)] {
        let mut all = limits["limits"].as_array().unwrap().iter();
        let found = all.find(|limit| limit["limit"] == "endpoint.max_requests" && limit["of"] == *of);
        assert_eq!(
            found.map(|of| (&of["used"], &of["most"])),
            Some((&1.into(), &8.into())),
            "{of}: {limits}"
        );
    }
    assert_eq!(limit("ROUTES_MAX", "")["used"], 1);
    assert_eq!(limit("ADMIN_CONNECTIONS", "")["used"], 1, "this one");
    let percents: Vec<f64> = all.iter().map(|limit| limit["percent"].as_f64().unwrap()).collect();
    assert!(percents.is_sorted_by(|one, other| one >= other), "the nearest first: {percents:?}");
    for part in ["listeners", "routes", "shards", "limits"] {
        let shown = command(&proxy, &["status", part]);
        assert!(
            shown.code == 0 && shown.stdout.lines().count() >= 2,
            "{part}: {}{}",
            shown.stdout,
            shown.stderr
        );
        assert!(json(command(&proxy, &["status", part, "--json"]).stdout.as_bytes())[part].is_array());
    }
    drop(held);
}
