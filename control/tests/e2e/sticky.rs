//! Cookies of ours with the real binary: sibling processes agree, and restarts.

use crate::support::client::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, Setup, call, file, ringway};
use std::path::Path;

const KEY: &str = "0123456789abcdef";

fn setup<'a>(endpoints: &'a [std::net::SocketAddr], tables: &'a str) -> Setup<'a> {
    Setup { runtime: "shards = 4", endpoints, tables, ..Setup::default() }
}

fn ask(proxy: &Proxy, cookie: Option<&str>) -> Response {
    let field = cookie.map_or_else(String::new, |cookie| format!("Cookie: x=y; {cookie}\r\n"));
    Client::once(proxy.edge(), &format!("GET / HTTP/1.1\r\nHost: a\r\n{field}Connection: close\r\n\r\n"))
}

/// "name=value" of the cookie that a response sets.
fn cookie(response: &Response) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    set.split(';').next().unwrap_or_default().to_owned()
}

/// A hundred requests with the cookie go where the first went, through a sibling too, and after a restart.
#[test]
fn processes_with_one_key_agree() {
    let origins = ["0", "1", "2"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let tables = format!("[cluster.sticky]\ncookie = \"SOMUI\"\nindirect = true\nkey = \"{KEY}\"\n");
    let [one, two] = [0; 2].map(|_| setup(&endpoints, &tables).start());
    let first = ask(&one, None);
    let cookie = cookie(&first);
    assert!(first.field("set-cookie").unwrap().ends_with("; Path=/; HttpOnly; SameSite=Lax"));
    for n in 0..100 {
        let again = ask(if n % 2 == 0 { &one } else { &two }, Some(&cookie));
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None), "request {n}");
    }
    drop(one);
    let restarted = setup(&endpoints, &tables).start();
    assert_eq!(ask(&restarted, Some(&cookie)).text(), first.text());
    let seen = origins.iter().flat_map(Origin::requests).filter_map(|r| r.field("cookie").map(str::to_owned));
    assert!(seen.into_iter().all(|cookie| cookie == "x=y"), "origins saw it");

    // Without a key: a warning, and nobody else agrees.
    let tables = "[cluster.sticky]\ncookie = \"SOMUI\"\n";
    let random = setup(&endpoints, tables).start();
    assert!(random.stderr.wait_for(|line| line.contains("cluster.sticky: without `key`")).is_some());
    assert!(ask(&random, Some(&cookie)).field("set-cookie").is_some());
}

#[test]
fn an_endpoint_that_dies_loses_its_clients_to_another() {
    let origins = ["0", "1"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let tables = format!("[cluster.sticky]\ncookie = \"SOMUI\"\nnocache = true\nkey = \"{KEY}\"\n");
    let proxy = setup(&endpoints, &tables).start();
    let first = ask(&proxy, None);
    assert_eq!(first.field("cache-control"), Some("private"));
    let (old, at) = (cookie(&first), first.text().parse::<usize>().unwrap());
    origins[at].kill();
    let second = ask(&proxy, Some(&old));
    assert_eq!((second.status, second.text()), (200, ["1", "0"][at]));
    let new = cookie(&second);
    assert_ne!(new, old);
    assert_eq!(ask(&proxy, Some(&new)).field("set-cookie"), None);
}

/// The example of docs/recipes/balance-and-stick.md: accepted without a word, and at work with our own addresses.
#[test]
fn the_recipes_example_does_what_it_says() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes/balance-and-stick.md");
    let text = std::fs::read_to_string(recipe).unwrap();
    let (_, behind) = text.split_once("<!-- checked by").expect("the mark");
    let example =
        behind.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let (_dir, path) = file(example);
    let checked = call(ringway().args(["check", "-c"]).arg(&path));
    assert_eq!((checked.code, &*checked.stderr), (0, ""));

    let origins = ["sr1", "sr2", "sr3", "sr4"].map(Origin::saying);
    let mut ours = example.replace("0.0.0.0:8080", "127.0.0.1:0").replace("\"www\"", "\"edge\"");
    for (origin, n) in origins.iter().zip(1..) {
        ours = ours.replace(&format!("10.0.0.{n}:7210"), &origin.address.to_string());
    }
    let proxy = Proxy::start(&ours);
    let first = ask(&proxy, None);
    assert!(cookie(&first).starts_with("SOMUI=") && ["sr1", "sr2"].contains(&first.text()), "{first:?}");
    assert_eq!(first.field("cache-control"), Some("private"));
    let stuck = ask(&proxy, Some(&cookie(&first)));
    assert_eq!((stuck.text(), stuck.field("set-cookie")), (first.text(), None));
    // Both of the first tier die: the second takes over, and its clients stay there.
    origins[0].kill();
    origins[1].kill();
    let moved = ask(&proxy, Some(&cookie(&first)));
    assert!(["sr3", "sr4"].contains(&moved.text()), "{moved:?}");
    let again = ask(&proxy, Some(&cookie(&moved)));
    assert_eq!((again.text(), again.field("set-cookie")), (moved.text(), None));
    let seen = origins.iter().flat_map(Origin::requests).filter_map(|r| r.field("cookie").map(str::to_owned));
    assert!(seen.into_iter().all(|cookie| cookie == "x=y"), "origins saw it");
}
