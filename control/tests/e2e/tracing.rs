//! Requests as spans: what a collector gets, what the origin and the log are told of it, and that neither a collector that is gone nor
//! one that stands still is anybody's trouble.

use crate::admin::{admin, ask};
use crate::reload::{command, reload};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Origin, Request, sized};
use crate::support::proxy::{Proxy, Setup};
use crate::upgrade::LIMIT;
use crate::upgrade_conns::{Origins, say, upgrade, websocket};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

fn tables(collector: SocketAddr, keys: &str) -> String {
    format!("[tracing]\nendpoint = \"http://{collector}\"\n{keys}\n[admin]\naddress = \"127.0.0.1:0\"\n")
}

fn start(origin: &Origin, collector: SocketAddr, keys: &str) -> Proxy {
    let tables = tables(collector, keys);
    Setup { tables: &tables, endpoints: &[origin.address], ..Setup::default() }.start()
}

fn collector() -> Origin {
    Origin::answering(|_| sized(200, b""))
}

/// The spans of one message, and the name of its service.
fn spans_of(request: &Request) -> (String, Vec<Span>) {
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
    assert_eq!(request.field("content-type"), Some("application/x-protobuf"));
    let message = ExportTraceServiceRequest::decode(&request.body[..]).expect("an OTLP message");
    let mut all = Vec::new();
    let mut service = String::new();
    for of_resource in message.resource_spans {
        let resource = of_resource.resource.expect("a resource");
        service = text(&resource.attributes, "service.name").expect("a name");
        all.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    (service, all)
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// All spans that came, once there are as many.
fn spans(collector: &Origin, number: usize) -> Vec<Span> {
    let all = || collector.requests().iter().flat_map(|request| spans_of(request).1).collect::<Vec<_>>();
    eventually("the spans come", || all().len() >= number);
    all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `/metrics` says of this one.
fn metric(proxy: &Proxy, name: &str) -> u64 {
    let to: SocketAddr = proxy.ready["admin"].as_str().unwrap().parse().unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let answer = Client::once(to, &request);
    let line =
        answer.text().lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim().parse().unwrap()
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}Connection: close\r\n\r\n")
}

#[test]
fn collector_origin_and_log_are_told_of_the_same_span() {
    let (origin, collector) = (Origin::saying("ok"), collector());
    let proxy = start(&origin, collector.address, "service = \"edge of the shop\"\nrespect_parent = true");
    assert_eq!(Client::once(proxy.edge(), &get("/begins?a=1", "tracestate: x=1\r\n")).status, 200);
    let goes_on = format!("traceparent: {PARENT}1\r\ntracestate: x=1\r\n");
    assert_eq!(Client::once(proxy.edge(), &get("/goes-on", &goes_on)).status, 200);
    let not_kept = format!("traceparent: {PARENT}0\r\n");
    assert_eq!(Client::once(proxy.edge(), &get("/not-kept", &not_kept)).status, 200);

    assert_eq!(Client::once(proxy.edge(), &get("/last", "")).status, 200);

    let all = spans(&collector, 3);
    assert_eq!(all.len(), 3, "one is not kept by its client");
    assert_eq!(spans_of(&collector.requests()[0]).0, "edge of the shop");
    for (path, parent) in [("/begins", ""), ("/goes-on", "b7ad6b7169203331")] {
        let of_path = |span: &&Span| text(&span.attributes, "url.path").as_deref() == Some(path);
        let span = all.iter().find(of_path).expect("a span of it");
        let line = proxy.log_line(|line| line["path"] == path);
        let requests = origin.requests();
        let request = requests.iter().find(|request| request.target.starts_with(path)).unwrap();
        let (trace_id, span_id) = (hex(&span.trace_id), hex(&span.span_id));
        let told = request.field("traceparent").expect("told");
        assert!(told.starts_with(&format!("00-{trace_id}-{span_id}-0")), "{told}");
        assert_eq!(
            (line["trace_id"].as_str(), line["span_id"].as_str()),
            (Some(&*trace_id), Some(&*span_id))
        );
        assert_eq!(hex(&span.parent_span_id), parent);
        assert_eq!(line["parent_id"].as_str().unwrap_or_default(), parent);
        let state = if parent.is_empty() { None } else { Some("x=1") };
        assert_eq!(request.field("tracestate"), state, "a state of no trace goes");
        for (key, value) in [
            ("http.response.status_code", "200".to_owned()),
            ("server.address", "shop.test".to_owned()),
            ("ringway.listener", "edge".to_owned()),
            ("ringway.cluster", "app".to_owned()),
            ("ringway.endpoint", origin.address.to_string()),
            ("ringway.request_id", line["request_id"].as_str().unwrap().to_owned()),
        ] {
            assert_eq!(text(&span.attributes, key), Some(value), "{key}");
        }
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
        assert_eq!(Some(took), line["duration_us"].as_u64());
    }
    eventually("they are counted", || metric(&proxy, "ringway_spans_exported_total ") == 3);
}

#[test]
fn a_share_is_taken_and_clients_do_not_decide_unless_they_may() {
    let (origin, collector) = (Origin::saying("ok"), collector());
    let proxy = start(&origin, collector.address, "sample = 0.5");
    for n in 0..200 {
        let field = format!("traceparent: {PARENT}1\r\n");
        assert_eq!(Client::once(proxy.edge(), &get(&format!("/{n}"), &field)).status, 200);
    }
    let told = |request: &&Request| !request.field("traceparent").unwrap().contains("b7ad6b7169203331");
    let number = origin.requests().iter().filter(told).count();
    assert!((60..140).contains(&number), "{number} of 200 at 0.5");
    assert_eq!(spans(&collector, number).len(), number);
}

/// A client that says that its field is for us alone (RFC 9110 7.6.1): the origin hears of our span once, and of the client's never.
#[test]
fn a_parent_that_is_named_in_connection_stays_here_and_ours_goes() {
    let (origin, collector) = (Origin::saying("ok"), collector());
    let proxy = start(&origin, collector.address, "respect_parent = true");
    for (path, flag, more) in
        [("/kept", '1', ""), ("/not-kept", '0', ""), ("/with-state", '1', ", TraceState"), ("/two", '1', "")]
    {
        let again = if path == "/two" { format!("TraceParent: {PARENT}1\r\n") } else { String::new() };
        let fields = format!(
            "traceparent: {PARENT}{flag}\r\ntracestate: x=1\r\n{again}Connection: close, TraceParent{more}\r\n"
        );
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(Client::once(proxy.edge(), &request).status, 200);
    }
    for request in origin.requests() {
        let path = request.target.as_str();
        let of_name = |name: &str| {
            let fields = request.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
            fields.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let (told, line) = (of_name("traceparent"), proxy.log_line(|line| line["path"] == path));
        if path == "/not-kept" {
            assert_eq!((told.len(), line["span_id"].as_str()), (0, None), "{request:?} {line}");
            continue;
        }
        let ours = ["trace_id", "span_id"].map(|key| line[key].as_str().expect("an id"));
        assert_eq!(told.len(), 1, "{request:?}");
        assert!(told[0].starts_with(&format!("00-{}-{}-0", ours[0], ours[1])), "{told:?} {line}");
        assert!(path != "/with-state" || of_name("tracestate").is_empty(), "{request:?}");
    }
    assert_eq!(origin.request_count(), 4);
}

/// A tunnel that moves is one span, of its whole life, which the process sends that sees its end.
#[test]
fn the_span_of_a_tunnel_that_moved_comes_once_and_at_its_end() {
    let (origins, collector) = (Origins::new(), collector());
    let tracing = format!("[tracing]\nendpoint = \"http://{}\"\n", collector.address);
    let mut proxy = Proxy::start(&(tracing + &origins.configuration(2, 1)));
    let edge = proxy.edge();
    let mut talk = websocket(edge);
    say(&mut talk, 1);
    let (answer, next) = upgrade(&proxy);
    assert_eq!(answer["moved"], 1, "{answer}");
    assert_eq!(proxy.exit_code(LIMIT), 0);
    assert_eq!(collector.request_count(), 0, "the former sends what waits as it ends, and it has no span");
    say(&mut talk, 2);
    talk.shutdown_write();
    talk.expect_closed();
    let line = proxy.log_line(|line| line["close"] == "tunnel_ended");
    // Spans of one process come in their order: whatever there was of the tunnel has come before this one.
    assert_eq!(Client::get(edge, "/last").status, 200);
    let path = |span: &Span| text(&span.attributes, "url.path").unwrap();
    eventually("the last one comes", || spans(&collector, 1).iter().any(|span| path(span) == "/last"));
    let all = spans(&collector, 2);
    assert_eq!(all.iter().map(path).collect::<Vec<_>>(), ["/ws", "/last"]);
    let span = &all[0];
    let requests = origins.ws.requests();
    let told = requests[0].field("traceparent").expect("told");
    assert!(told.starts_with(&format!("00-{}-{}-0", hex(&span.trace_id), hex(&span.span_id))), "{told}");
    assert_eq!(line["span_id"].as_str(), Some(&*hex(&span.span_id)), "{line}");
    for (key, value) in [
        ("http.response.status_code", "101"),
        ("ringway.close", "tunnel_ended"),
        ("ringway.route", "ws"),
        ("ringway.cluster", "ws"),
        ("ringway.tunnel_up_bytes", "8"),
        ("ringway.tunnel_down_bytes", "8"),
    ] {
        assert_eq!(text(&span.attributes, key).as_deref(), Some(value), "{key}");
    }
    // Latecomers alone have a second in an upgrade: it began before that.
    let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
    assert!(took > 1_000_000 && Some(took) == line["duration_us"].as_u64(), "{took} {line}");
    assert!(next.lives());
}

#[test]
fn a_collector_that_is_gone_costs_spans_and_nothing_else() {
    let origin = Origin::saying("ok");
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut proxy = start(&origin, gone, "");
    let mut client = Client::connect(proxy.edge());
    // More than may wait and are being sent.
    for _ in 0..6000 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    }
    let lost = |cause: &str| metric(&proxy, &format!("ringway_spans_lost_total{{cause=\"{cause}\"}}"));
    eventually("those that do not fit are lost, and counted", || lost("queue_full") > 0);
    assert_eq!(metric(&proxy, "ringway_spans_exported_total "), 0);
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    drop(client);
    assert_eq!(proxy.exit_code(Duration::from_secs(20)), 0);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_collector_that_stands_still_holds_nobody_up() {
    let origin = Origin::saying("ok");
    // Accepts by its queue, and never reads.
    let still = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = start(&origin, still.local_addr().unwrap(), "");
    for _ in 0..100 {
        assert_eq!(Client::once(proxy.edge(), &get("/", "")).status, 200);
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(Duration::from_secs(20)), 0);
}

#[test]
fn what_a_collector_asks_for_later_it_gets_later_and_what_it_refuses_is_counted() {
    let origin = Origin::saying("ok");
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let collector = Origin::answering(move |request| match count.fetch_add(1, SeqCst) {
        0 => b"HTTP/1.1 503 X\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec(),
        1 => {
            let rejected = ExportTracePartialSuccess { rejected_spans: 1, error_message: "no".to_owned() };
            assert_eq!(spans_of(request).1.len(), 1);
            sized(200, &ExportTraceServiceResponse { partial_success: Some(rejected) }.encode_to_vec())
        }
        2 => sized(400, b"never"),
        3 => b"HTTP/1.1 503 X\r\nRetry-After: 18446744073709551615\r\nContent-Length: 0\r\n\r\n".to_vec(),
        // The status counts, whatever is behind it.
        _ => sized(200, &[0xff; 100_000]),
    });
    let proxy = start(&origin, collector.address, "");
    let mut client = Client::connect(proxy.edge());
    let mut ask = || client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let lost = |cause: &str| metric(&proxy, &format!("ringway_spans_lost_total{{cause=\"{cause}\"}}"));
    ask();
    eventually("it answers the second try, and rejects", || lost("rejected") == 1);
    assert_eq!((lost("not_sent"), tries.load(SeqCst)), (0, 2));
    ask();
    eventually("a 400 is not tried again", || lost("not_sent") == 1);
    assert_eq!(tries.load(SeqCst), 3);
    // Longer than anybody waits: the batch is given up, and nothing else ends.
    ask();
    eventually("nor is what may be tried again in ages", || lost("not_sent") == 2);
    ask();
    eventually("the next is taken", || metric(&proxy, "ringway_spans_exported_total ") == 1);
}

#[test]
fn the_last_spans_are_sent_when_the_process_ends() {
    let (origin, collector) = (Origin::saying("ok"), collector());
    let mut proxy = start(&origin, collector.address, "");
    for _ in 0..10 {
        assert_eq!(Client::once(proxy.edge(), &get("/", "")).status, 200);
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(Duration::from_secs(20)), 0);
    assert_eq!(spans(&collector, 10).len(), 10);
}

#[test]
fn a_reload_begins_moves_and_ends_them() {
    let (origin, one, other) = (Origin::saying("ok"), collector(), collector());
    let text = |tracing: &str| {
        format!(
            "[runtime]\nshards = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{tracing}\n[[listener]]\nname = \"edge\"\n\
             address = \"127.0.0.1:0\"\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
            origin.address
        )
    };
    let to = |collector: &Origin| text(&format!("[tracing]\nendpoint = \"http://{}\"", collector.address));
    let proxy = Proxy::start(&text(""));
    let mut client = Client::connect(proxy.edge());
    let mut ask = |path: &str| {
        assert_eq!(client.exchange(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
    };
    ask("/without");
    std::fs::write(&proxy.file, to(&one)).unwrap();
    let plan = command(&proxy, &["plan", "-c", proxy.file.to_str().unwrap()]);
    assert!(plan.stdout.contains("tracing") && plan.stdout.contains("endpoint"), "{}", plan.stdout);
    reload(&proxy, &to(&one));
    ask("/one");
    assert_eq!(spans(&one, 1).len(), 1);
    reload(&proxy, &to(&other));
    ask("/other");
    assert_eq!(spans(&other, 1).len(), 1);
    reload(&proxy, &text(""));
    ask("/none");
    let told: Vec<bool> =
        origin.requests().iter().map(|request| request.field("traceparent").is_some()).collect();
    assert_eq!(told, [false, true, true, false]);
    assert_eq!(metric(&proxy, "ringway_spans_exported_total "), 2);
}

#[test]
fn a_collector_that_fails_is_not_told_of_the_one_after_it() {
    let origin = Origin::saying("ok");
    let (refuses, takes) = (Origin::answering(|_| sized(400, b"")), collector());
    let text = |collector: &Origin| {
        format!(
            "[runtime]\nshards = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[tracing]\nendpoint = \"http://{}\"\n[[listener]]\n\
             name = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
            collector.address, origin.address
        )
    };
    let proxy = Proxy::start(&text(&refuses));
    let failing = || ask(admin(&proxy), "GET /v1/logs", "", "").1["logs"]["spans"]["failing"].clone();
    assert_eq!(failing(), false);
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    eventually("it refuses", || failing() == true);
    reload(&proxy, &text(&takes));
    assert_eq!(failing(), false, "nothing was sent to this one yet");
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    eventually("it takes one", || metric(&proxy, "ringway_spans_exported_total ") == 1);
    assert_eq!(failing(), false);
}
