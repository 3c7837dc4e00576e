//! Requests to origins and responses back: balance, keep-alive, pipelining, versions, fields, routes.

use crate::support::client::{Client, Framing};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Setup;
use crate::support::{assert_same, pattern};

/// Serial requests follow the sequence one shard would give, over however many shards they fall.
#[test]
fn three_origins_take_turns_exactly_over_eight_shards() {
    let origins = ["one", "two", "three"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let proxy = Setup { runtime: "shards = 8", endpoints: &endpoints, ..Setup::default() }.start();
    assert_eq!(proxy.ready["shards"], 8);
    let answers: Vec<String> = (0..300)
        .map(|_| {
            let response = Client::get(proxy.edge(), "/");
            assert_eq!(response.status, 200);
            response.text().to_owned()
        })
        .collect();
    for (i, three) in answers.chunks(3).enumerate() {
        let mut three = three.to_vec();
        three.sort();
        assert_eq!(three, ["one", "three", "two"], "requests {} to {}", 3 * i, 3 * i + 2);
    }
    assert_eq!(origins.each_ref().map(Origin::request_count), [100, 100, 100]);
}

#[test]
fn weights_share_exactly() {
    let origins = ["heavy", "light"].map(Origin::saying);
    let [heavy, light] = origins.each_ref().map(|origin| origin.address);
    let tables = format!(
        "[[cluster]]\nname = \"app\"\nendpoints = [{{ address = \"{heavy}\", weight = 3 }}, \"{light}\"]\n"
    );
    let proxy =
        Setup { runtime: "shards = 8", listener: "cluster = \"app\"", tables: &tables, ..Setup::default() }
            .start();
    for _ in 0..80 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
    assert_eq!(origins.each_ref().map(Origin::request_count), [60, 20]);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::echo();
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for n in 0..20 {
        let body = format!("body {n}");
        let request =
            format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let response = client.exchange(&request);
        assert_eq!((response.status, response.text()), (200, body.as_str()));
        assert_eq!(response.version, "HTTP/1.1");
    }
    assert_eq!(origin.connection_count(), 1, "one link for requests one after another");
    let another = Client::get(proxy.edge(), "/another");
    assert_eq!(another.status, 200);
    assert_eq!(origin.connection_count(), 1, "a later client reuses the idle link");
    let targets: Vec<_> = origin.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets[19..], ["/19", "/another"]);
}

/// Threat F14: answers in order, however many requests came in one segment.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| sized(200, request.target.as_bytes()));
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let count = 100;
    let requests: String = (0..count).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    for n in 0..count {
        assert_eq!(client.response("GET").text(), format!("/{n}"));
    }
    client.send(
        "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.response("GET").text(), "/last");
    client.expect_closed();
    assert!(origin.requests().iter().all(|request| request.target != "/never"));
}

#[test]
fn a_bad_request_behind_good_ones_is_answered_in_its_turn() {
    let origin = Origin::answering(|request| sized(200, request.target.as_bytes()));
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET  /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "/1");
    assert_eq!(client.response("GET").text(), "/2");
    assert_eq!(client.response("GET").status, 400);
    client.expect_closed();
    assert_eq!(origin.request_count(), 2);
}

#[test]
fn any_cut_of_a_request_gives_the_same_answer() {
    let origin = Origin::echo();
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let request = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nT: v\r\n\r\n";
    let mut client = Client::connect(proxy.edge());
    for at in 1..request.len() {
        client.send(&request[..at]);
        // A pause is not needed for correctness, only to make two segments likely; Nagle is off.
        std::thread::yield_now();
        client.send(&request[at..]);
        let response = client.response("POST");
        assert_eq!((response.status, response.text()), (200, "hello!"), "cut at {at}");
    }
    for byte in request {
        client.send([*byte]);
    }
    assert_eq!(client.response("POST").text(), "hello!");
}

#[test]
fn http10_clients() {
    let origin = Origin::answering(|request| {
        if request.target == "/chunked" {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
        } else {
            sized(200, b"sized")
        }
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();

    let mut client = Client::connect(proxy.edge());
    let response = client.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.text()), (200, "sized"));
    client.expect_closed();

    // An HTTP/1.0 client cannot read chunks: the connection's end ends the body.
    let mut client = Client::connect(proxy.edge());
    let response = client.exchange("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((response.framing, response.text()), (Framing::UntilClose, "abc"));

    let mut client = Client::connect(proxy.edge());
    for _ in 0..2 {
        let response = client.exchange("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(response.text(), "sized");
        let kept = response.field("connection").unwrap_or_default().to_ascii_lowercase();
        assert_eq!(kept, "keep-alive", "an HTTP/1.0 client must be told that its connection is kept");
    }
    // Without Host, which HTTP/1.0 does not ask for.
    assert_eq!(Client::once(proxy.edge(), "GET / HTTP/1.0\r\n\r\n").status, 200);
    assert!(origin.requests().iter().all(|request| request.version == "HTTP/1.1"));
}

#[test]
fn http10_origins_and_bodies_that_end_with_the_connection() {
    let body = pattern(100_000, 1);
    let sent = body.clone();
    let origin = Origin::scripted(move |connection| {
        let Some(request) = connection.request() else { return };
        connection.send(if request.target == "/10" {
            "HTTP/1.0 200 OK\r\nX-A: b\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        });
        connection.send(&sent);
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for target in ["/10", "/11"] {
        let mut client = Client::connect(proxy.edge());
        for _ in 0..2 {
            let response = client.exchange(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(response.version, "HTTP/1.1");
            assert_eq!(response.framing, Framing::Chunked, "what keeps the client's connection");
            assert_same(&response.body, &body, target);
        }
    }
    assert_eq!(origin.connection_count(), 4, "none of those links can be pooled");
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".to_vec(),
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..2 {
        let response = client.exchange("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((response.status, response.field("content-length")), (200, Some("12345")));
        let response = client.exchange("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(response.status, 204);
        assert_eq!((response.field("content-length"), response.field("transfer-encoding")), (None, None));
        let response = client.exchange("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((response.status, response.field("etag")), (304, Some("\"x\"")));
    }
    assert_eq!(origin.connection_count(), 1, "such answers leave the link usable");
}

/// Threats H01, H02, H03, H06: what belongs to one hop stays there, and identity is ours to state.
#[test]
fn fields_of_one_hop_are_removed_and_ours_are_set() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
          X-End: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let response = client.exchange(
        "GET /p?q=1 HTTP/1.1\r\nHost: Example.COM:81\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: 300\r\nTE: trailers, gzip\r\nProxy-Connection: x\r\nProxy-Authorization: Basic x\r\n\
         Proxy: http://evil\r\nUpgrade: h2c\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         Accept: */*\r\nCookie: k=v\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    for gone in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(response.field(gone), None, "{gone}");
    }
    assert_eq!(response.field("x-end"), Some("2"));
    let cookies: Vec<_> = response.fields.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies.len(), 2, "{:?}", response.fields);
    assert!(response.field("date").is_some(), "RFC 9110 6.6.1: a recipient with a clock adds Date");

    let request = &origin.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/p?q=1"));
    for gone in
        ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "proxy", "upgrade", "forwarded"]
    {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    assert_eq!(request.field("host"), Some("example.com:81"), "in its normal form");
    assert_eq!(request.field("accept"), Some("*/*"));
    assert_eq!(request.field("cookie"), Some("k=v"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host").map(str::to_lowercase).as_deref(), Some("example.com:81"));
    assert!(!request.fields.iter().any(|(_, value)| value.contains("6.6.6.6")), "{:?}", request.fields);
    let via = request.field("via").expect("RFC 9110 7.6.3: a gateway sends Via");
    assert!(via.starts_with("1.1 "), "{via}");
}

#[test]
fn forwarding_fields_of_trusted_peers_are_appended_to() {
    let origin = Origin::saying("x");
    let setup = |forwarded| Setup { forwarded, endpoints: &[origin.address], ..Setup::default() }.start();
    let ask = |proxy: &crate::support::proxy::Proxy| {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n";
        assert_eq!(Client::once(proxy.edge(), request).status, 200);
        let requests = origin.requests();
        requests.last().unwrap().field("x-forwarded-for").map(str::to_owned)
    };
    let trusting = setup("mode = \"append\"\ntrusted = [\"127.0.0.0/8\"]");
    assert_eq!(ask(&trusting).as_deref(), Some("192.0.2.1, 127.0.0.1"));
    let wary = setup("mode = \"append\"\ntrusted = [\"10.0.0.0/8\"]");
    assert_eq!(ask(&wary).as_deref(), Some("127.0.0.1"));
    let off = setup("mode = \"off\"");
    assert_eq!(ask(&off), None);
}

/// Threat T02: the target's authority wins over Host, which is regenerated.
#[test]
fn absolute_form() {
    let origin = Origin::saying("x");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange("GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(client.exchange("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    let requests = origin.requests();
    assert_eq!((requests[0].target.as_str(), requests[0].field("host")), ("/x?y", Some("b:81")));
    assert_eq!((requests[1].method.as_str(), requests[1].target.as_str()), ("OPTIONS", "*"));
}

#[test]
fn routes_respond_redirect_and_choose_clusters() {
    let (app, api) = (Origin::saying("app"), Origin::saying("api"));
    let tables = format!(
        "[[route]]\nmatch = {{ path_prefix = \"/api\" }}\ncluster = \"api\"\n\
         [[route]]\nmatch = {{ host = \"old.example.com\" }}\nredirect = {{ status = 308, to = \"https://new.example.com${{path}}\" }}\n\
         [[route]]\nmatch = {{ path = \"/me\" }}\nrespond = {{ status = 200, body = \"${{remote_addr}}:${{remote_port}} --> ${{server_addr}}:${{server_port}}\\n\", headers = {{ \"x-a\" = \"${{host}}\" }} }}\n\
         [[cluster]]\nname = \"api\"\nendpoints = [\"{}\"]\n",
        api.address
    );
    let proxy = Setup { tables: &tables, endpoints: &[app.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let mut ask =
        |host: &str, path: &str| client.exchange(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(ask("a", "/").text(), "app");
    assert_eq!(ask("a", "/api").text(), "api");
    assert_eq!(ask("a", "/api/x").text(), "api");
    assert_eq!(ask("a", "/apix").text(), "app");
    let moved = ask("OLD.example.com:80", "/p/q");
    assert_eq!((moved.status, moved.field("location")), (308, Some("https://new.example.com/p/q")));
    let me = ask("a", "/me");
    assert_eq!((me.status, me.field("x-a")), (200, Some("a")));
    let local = client.stream.local_addr().unwrap();
    assert_eq!(me.text(), format!("{local} --> {}\n", proxy.edge()));
}

/// Threat F11: a body that nobody read is never taken for the next request.
#[test]
fn a_body_behind_an_answer_of_our_own_is_not_the_next_request() {
    let origin = Origin::saying("origin");
    let tables = "[[route]]\nmatch = { path = \"/here\" }\nrespond = { status = 200, body = \"ours\" }\n";
    let proxy = Setup { tables, endpoints: &[origin.address], ..Setup::default() }.start();
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let sized = format!("POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    let chunks = format!(
        "POST /here HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    for request in [sized, chunks] {
        let mut client = Client::connect(proxy.edge());
        client.send(&request);
        assert_eq!(client.response("POST").text(), "ours");
        client.send_anyway("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        // Kept or closed; what may not happen is an answer to the inner request.
        if let Ok(next) = client.try_response("GET") {
            assert_eq!(next.text(), "origin");
        }
    }
    assert!(origin.requests().iter().all(|request| request.target == "/after"));
}

#[test]
fn two_in_a_row_work_and_each_adds_its_via() {
    let origin = Origin::echo();
    let inner = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let outer = Setup { endpoints: &[inner.edge()], ..Setup::default() }.start();
    let body = pattern(200_000, 3);
    let mut client = Client::connect(outer.edge());
    for _ in 0..3 {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        let response = client.response("POST");
        assert_eq!(response.status, 200);
        assert_same(&response.body, &body, "through two");
    }
    let via = origin.requests()[0].field("via").unwrap().to_owned();
    assert_eq!(via.split(',').count(), 2, "{via}");
}

/// Threat H04: only our own pseudonym is a loop.
#[test]
fn a_request_that_comes_back_is_a_loop() {
    let proxy_address = std::sync::Arc::new(std::sync::OnceLock::new());
    let back = std::sync::Arc::clone(&proxy_address);
    let origin = Origin::answering(move |request| {
        let edge = *back.get().unwrap();
        let via = request.field("via").unwrap();
        let again = format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {via}\r\nConnection: close\r\n\r\n");
        let response = Client::once(edge, &again);
        sized(200, format!("{} {}", response.status, response.reason()).as_bytes())
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    proxy_address.set(proxy.edge()).unwrap();
    assert_eq!(Client::get(proxy.edge(), "/").text(), "508 loop");
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn another_proxys_via_is_no_loop() {
    let origin = Origin::saying("fine");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 ringway, 1.0 fred (x)\r\nConnection: close\r\n\r\n";
    assert_eq!(Client::once(proxy.edge(), request).text(), "fine");
    let via = origin.requests()[0].field("via").unwrap().to_owned();
    assert!(via.starts_with("1.1 ringway, 1.0 fred"), "{via}");
}

#[test]
fn source_addresses_go_round() {
    let origin = Origin::scripted(|connection| {
        while connection.request().is_some() {
            let peer = connection.stream.peer_addr().unwrap().ip().to_string();
            connection.send(sized(200, peer.as_bytes()));
        }
    });
    let proxy = Setup {
        runtime: "shards = 1",
        cluster: "source_addresses = [\"127.0.0.1-127.0.0.3\"]",
        pool: "idle = 0",
        endpoints: &[origin.address],
        ..Setup::default()
    }
    .start();
    let seen: Vec<_> = (0..6).map(|_| Client::get(proxy.edge(), "/").text().to_owned()).collect();
    for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        assert_eq!(seen.iter().filter(|peer| *peer == address).count(), 2, "{seen:?}");
    }
}
