//! `/metrics`: what it counts is what was sent, and its text is what it says it is.

use crate::support::client::{Client, Response};
use crate::support::origin::{Origin, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{PATIENCE, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn scrape(proxy: &Proxy, accept: &str) -> Response {
    let to: SocketAddr = proxy.ready["admin"].as_str().expect("an admin address").parse().unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: {to}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    Client::once(to, &request)
}

/// Samples by name and labels, after the text was held against what the formats have in common: each family has its HELP
/// and TYPE once and in front of its samples, which stand together, and no sample comes twice.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind, mut help) = ("", "", "");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a help text");
            assert!(words.ends_with('.') && families.insert(name), "{line}");
            help = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect("a type");
            assert!(family == help && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a sample");
            let name = key.split('{').next().unwrap();
            let rest = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} below {family}"));
            let may = match kind {
                "counter" => name.ends_with("_total") && ["", "_total"].contains(&rest),
                "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
                _ => rest.is_empty(),
            };
            assert!(may && (name.starts_with("ringway_") || name.starts_with("process_")), "{line}");
            assert!(samples.insert(key.to_owned(), value.parse().unwrap()).is_none(), "twice: {key}");
        }
    }
    samples
}

/// Two shards, a route that answers, one that nothing asks for, and an origin that says what it is asked to.
fn start() -> (Origin, Proxy) {
    let origin = Origin::answering(|request| {
        let status = if request.target == "/bad" { 503 } else { 200 };
        sized(status, b"body")
    });
    let tables = format!(
        "[[route]]\nname = \"own\"\nmatch = {{ path = \"/own\" }}\nrespond = {{ status = 204 }}\n\
         [[route]]\nname = \"never\"\nmatch = {{ path = \"/never\" }}\nrespond = {{ status = 204 }}\n{ADMIN}"
    );
    let setup = Setup { tables: &tables, endpoints: &[origin.address], ..Setup::default() };
    let proxy = setup.start();
    (origin, proxy)
}

#[test]
fn what_is_counted_is_what_was_sent() {
    let (origin, proxy) = start();
    for _ in 0..7 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
    for _ in 0..3 {
        assert_eq!(Client::get(proxy.edge(), "/bad").status, 503);
    }
    assert_eq!(Client::get(proxy.edge(), "/own").status, 204);
    let upload = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(Client::once(proxy.edge(), upload).status, 200);
    assert_eq!(Client::once(proxy.edge(), "GET / HTTP/1.1\r\n\r\n").status, 400);
    // A client has its answer before the shard has closed its connection.
    let open = "ringway_listener_connections_open{listener=\"edge\"}";
    eventually("their ends", || samples(scrape(&proxy, "").text())[open] == 0.0);

    let response = scrape(&proxy, "text/plain");
    assert_eq!(response.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = samples(response.text());
    let endpoint = format!("cluster=\"app\",endpoint=\"{}\"", origin.address);
    let expected = [
        ("ringway_listener_connections_total{listener=\"edge\"}", 13.0),
        ("ringway_listener_requests_total{listener=\"edge\",status=\"2xx\"}", 9.0),
        ("ringway_listener_requests_total{listener=\"edge\",status=\"4xx\"}", 1.0),
        ("ringway_listener_requests_total{listener=\"edge\",status=\"5xx\"}", 3.0),
        ("ringway_listener_requests_total{listener=\"edge\",status=\"none\"}", 0.0),
        ("ringway_listener_received_bytes_total{listener=\"edge\"}", 5.0),
        ("ringway_listener_sent_bytes_total{listener=\"edge\"}", 44.0),
        ("ringway_route_requests_total{route=\"own\",status=\"2xx\"}", 1.0),
        ("ringway_cluster_requests_total{cluster=\"app\",status=\"2xx\"}", 8.0),
        ("ringway_cluster_requests_total{cluster=\"app\",status=\"5xx\"}", 3.0),
        ("ringway_cluster_active_endpoints{cluster=\"app\"}", 1.0),
        (&format!("ringway_endpoint_attempts_total{{{endpoint},result=\"2xx\"}}"), 8.0),
        (&format!("ringway_endpoint_attempts_total{{{endpoint},result=\"5xx\"}}"), 3.0),
        (&format!("ringway_endpoint_running{{{endpoint}}}"), 0.0),
        (&format!("ringway_endpoint_usable{{{endpoint}}}"), 1.0),
        (&format!("ringway_endpoint_state{{{endpoint},state=\"ready\"}}"), 1.0),
        ("ringway_refusals_total{reason=\"host_missing\"}", 1.0),
        ("ringway_refusals_total{reason=\"no_route\"}", 0.0),
        // Twelve exchanges, of which eleven went to an origin.
        ("ringway_listener_duration_seconds_count{listener=\"edge\"}", 12.0),
        ("ringway_listener_phase_duration_seconds_count{listener=\"edge\",phase=\"head\"}", 12.0),
        ("ringway_cluster_phase_duration_seconds_count{cluster=\"app\",phase=\"response\"}", 11.0),
        (
            "ringway_cluster_phase_duration_seconds_bucket{cluster=\"app\",phase=\"response\",le=\"+Inf\"}",
            11.0,
        ),
        ("ringway_log_lost_total{cause=\"ring_full\"}", 0.0),
    ];
    for (key, value) in expected {
        assert_eq!(samples.get(key), Some(&value), "{key}");
    }
    assert!(samples.contains_key("ringway_route_requests_total{route=\"never\",status=\"2xx\"}"));
    let sum = |front: &str| {
        samples.iter().filter(|(key, _)| key.starts_with(front)).map(|(_, value)| value).sum::<f64>()
    };
    assert_eq!(sum("ringway_shard_accepted_connections_total{"), 13.0);
    assert_eq!(sum("ringway_closed_connections_total{"), 13.0);
    assert_eq!(sum("ringway_listener_closed_connections_total{"), 13.0);
    assert_eq!(sum("ringway_endpoint_connects_total{"), origin.connection_count() as f64);
    assert!(samples["ringway_listener_duration_seconds_sum{listener=\"edge\"}"] > 0.0);
    let began = samples["process_start_time_seconds"];
    #[allow(clippy::disallowed_methods, reason = "a test beside the process asks how long it has run")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(began <= now && now < began + PATIENCE.as_secs_f64(), "{began} and {now}");
    assert!(samples["process_max_fds"] >= samples["process_open_fds"] && samples["process_open_fds"] > 10.0);
    let memory = samples["process_resident_memory_bytes"];
    assert!(memory > 1e6 && memory < samples["process_virtual_memory_bytes"]);
    let cpu = samples["process_cpu_seconds_total"];
    let later = self::samples(scrape(&proxy, "").text());
    assert!(cpu > 0.0 && cpu < later["process_cpu_seconds_total"]);
    assert_eq!(later["process_start_time_seconds"], began);
}

#[test]
fn a_connection_of_a_tcp_listener_is_counted_too() {
    let origin = Origin::saying("hi");
    let tables = format!(
        "{ADMIN}[[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \"app\"\n"
    );
    let proxy = Setup { tables: &tables, endpoints: &[origin.address], ..Setup::default() }.start();
    assert_eq!(Client::get(proxy.address("raw"), "/").text(), "hi");
    let count = "ringway_listener_duration_seconds_count{listener=\"raw\"}";
    eventually("its end", || samples(scrape(&proxy, "").text())[count] == 1.0);
    let samples = samples(scrape(&proxy, "").text());
    let up = "ringway_listener_received_bytes_total{listener=\"raw\"}";
    assert!(
        samples[up] > 20.0
            && !samples.keys().any(|key| key.starts_with("ringway_listener_requests_total{listener=\"raw\""))
    );
    assert_eq!(samples["ringway_cluster_connections_total{cluster=\"app\"}"], 1.0);
    let attempts = format!("cluster=\"app\",endpoint=\"{}\",result=\"2xx\"", origin.address);
    assert_eq!(samples[&format!("ringway_endpoint_attempts_total{{{attempts}}}")], 1.0);
}

/// Both formats, of one moment in which nothing happens, have the same samples.
#[test]
fn open_metrics_are_the_same_with_other_words() {
    let (_origin, proxy) = start();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let open = scrape(&proxy, accept);
    let kind = Some("application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!((open.status, open.field("content-type")), (200, kind));
    assert!(open.text().ends_with("\n# EOF\n") && open.text().contains("# TYPE ringway_refusals counter\n"));
    let names = |text: &str| samples(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(open.text()), names(scrape(&proxy, "*/*").text()));
}

/// The manual names every family there is, and no other. `X` stands for three objects there.
#[test]
fn the_manual_names_every_metric() {
    let (_origin, proxy) = start();
    let text = scrape(&proxy, "");
    let told: BTreeSet<&str> =
        text.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let manual = include_str!("../../../docs/operations/metrics.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split("` | ").next());
    let mut named = BTreeSet::new();
    for name in rows.flat_map(|cell| cell.split("`, `")).map(str::to_owned) {
        match name.contains("_X_") {
            true => named
                .extend(["listener", "route", "cluster"].map(|of| name.replace("_X_", &format!("_{of}_")))),
            false => _ = named.insert(name),
        }
    }
    let missing: Vec<_> = told.iter().filter(|name| !named.contains(**name)).collect();
    let too_many: Vec<_> = named.iter().filter(|name| !told.contains(name.as_str())).collect();
    assert!(
        missing.is_empty() && too_many.is_empty(),
        "not in the manual: {missing:?}; only there: {too_many:?}"
    );
}

/// What the dashboard and the alert rules ask for is there.
#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let (_origin, proxy) = start();
    let text = scrape(&proxy, "");
    let told: BTreeSet<&str> =
        text.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let dashboard = include_str!("../../../docs/operations/monitoring/grafana.json");
    let _: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    let alerts = include_str!("../../../docs/operations/monitoring/alerts.yml");
    for file in [dashboard, alerts] {
        let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: BTreeSet<&str> = words.filter(|word| word.starts_with("ringway_")).collect();
        assert!(names.len() > 8, "{names:?}");
        for name in names {
            assert!(told.contains(name.strip_suffix("_bucket").unwrap_or(name)), "{name}");
        }
    }
}
