//! Own error pages: which page a refusal gets, what stands in it, and when a client may ask again.

use crate::support::client::{Client, Response};
use crate::support::closed_port;
use crate::support::origin::Origin;
use crate::support::proxy::Setup;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn id(response: &Response) -> String {
    response.field("x-request-id").expect("an id").to_owned()
}

#[test]
fn a_refusal_gets_the_page_of_its_route_or_listener() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    std::fs::write(&file, "<h1>${status} ${reason}</h1><p title='${path}'>${request_id}</p>\n").unwrap();
    let listener = format!(
        "[[listener.error_page]]\nstatus = [400, \"500-599\"]\nbody = {{ file = \"{}\" }}\n\
         headers = {{ \"cache-control\" = \"no-store\", \"x-of\" = \"${{listener}}\" }}\n",
        file.display()
    );
    let tables = "[[route]]\nname = \"api\"\nmatch = { path_prefix = \"/api\" }\ncluster = \"app\"\n\
        [[route.error_page]]\nstatus = 502\nbody = '{\"error\":\"${reason}\",\"path\":\"${path}\",\"request\":\"${request_id}\"}'\n\
        [[route]]\nmatch = { path = \"/own\" }\nrespond = { status = 502, body = \"its own\" }\n\
        [[route]]\nmatch = { path_prefix = \"/app\" }\ncluster = \"app\"\n";
    let dead = [closed_port()];
    let text = Setup { listener: "", tables, endpoints: &dead, ..Setup::default() }.text();
    // Behind the listener's other keys, and with no cluster of its own.
    let text = text.replacen("cluster = \"app\"\n", "", 1).replacen(
        "[[cluster]]",
        &format!("{listener}[[cluster]]"),
        1,
    );
    let proxy = crate::support::proxy::Proxy::start(&text);

    let page = Client::once(proxy.edge(), &get("/app/%3Cscript%3E'&amp;"));
    assert_eq!((page.status, page.reason()), (502, "connect_failed"));
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((page.field("cache-control"), page.field("x-of")), (Some("no-store"), Some("edge")));
    assert!(page.text().starts_with("<h1>502 connect_failed</h1><p title='/app/"), "{}", page.text());
    assert!(!page.text().contains("<script") && page.text().contains("&#39;&amp;amp;"), "{}", page.text());
    assert!(page.text().contains(&id(&page)));
    let line = proxy.log_line(|line| line["status"] == 502);
    assert_eq!((&line["request_id"], &line["reason"]), (&id(&page).into(), &"connect_failed".into()));
    assert_eq!(line["response_body_bytes"], page.body.len());

    // The route's comes first, and only for its statuses.
    let page = Client::once(proxy.edge(), &get("/api/x"));
    let value: serde_json::Value = serde_json::from_slice(&page.body).expect("JSON");
    assert_eq!((&value["error"], &value["path"]), (&"connect_failed".into(), &"/api/x".into()));
    assert_eq!(
        (value["request"].as_str(), page.field("content-type")),
        (Some(&*id(&page)), Some("application/json"))
    );
    // What a route says is no refusal.
    assert_eq!(Client::once(proxy.edge(), &get("/own")).text(), "its own");
    // One without a page says what it is, in plain text.
    let plain = Client::once(proxy.edge(), &get("/nowhere"));
    assert_eq!((plain.status, plain.field("content-type")), (404, Some("text/plain")));
    assert!(
        plain.text().starts_with("404 no_route\n")
            && plain.text().ends_with(&format!("\nrequest {}\n", id(&plain)))
    );
    // A head that never was a request, and a HEAD.
    let page = Client::once(proxy.edge(), "GET / HTTP/1.1\nHost: a\n\n");
    assert!(page.text().starts_with("<h1>400 bare_lf</h1><p title=''>"), "{}", page.text());
    let head = Client::once(proxy.edge(), &get("/app/x").replace("GET", "HEAD"));
    assert_eq!((head.status, head.body.len()), (502, 0));
    assert!(head.field("content-length").unwrap().parse::<usize>().unwrap() > 20);
}

/// Retry-After: of 503 only, our own value unless the page has one; until the ejection's end where nothing else is the matter.
#[test]
fn clients_are_told_when_to_ask_again() {
    let broken = Origin::saying("x");
    let dead = [closed_port()];
    let cluster =
        "[cluster.outlier]\nconsecutive_failures = 1\nejection_time = \"50s\"\nmax_ejected_percent = 100\n";
    let proxy = Setup { endpoints: &dead, cluster, ..Setup::default() }.start();
    let first = Client::once(proxy.edge(), &get("/"));
    assert_eq!((first.status, first.field("retry-after")), (502, None));
    let second = Client::once(proxy.edge(), &get("/"));
    assert_eq!((second.status, second.reason()), (503, "no_endpoint"));
    let after: u32 = second.field("retry-after").expect("a time").parse().unwrap();
    assert!((40..=51).contains(&after), "{after}");

    let tables = "[[route]]\nmatch = { path = \"/busy\" }\nrespond = { status = 503, headers = { retry-after = \"7\" } }\n";
    let proxy = Setup { endpoints: &[broken.address], tables, ..Setup::default() }.start();
    assert_eq!(Client::once(proxy.edge(), &get("/busy")).field("retry-after"), Some("7"));
}
