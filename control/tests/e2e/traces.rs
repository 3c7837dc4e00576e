//! W3C Trace Context: the fields go through as they came, and the access log says which trace a request was part of.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Setup;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn is_of_trace(name: &str) -> bool {
    ["traceparent", "tracestate"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

#[test]
fn whatever_a_request_says_of_its_trace_reaches_the_origin_and_what_is_valid_the_log() {
    let origin = Origin::answering(|_| {
        let answer = sized(200, b"ok");
        let answer = String::from_utf8(answer).unwrap();
        answer.replacen("\r\n", "\r\ntraceparent: of the origin\r\nTracestate: o=1\r\n", 1).into_bytes()
    });
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let other = PARENT.replace("-01", "-00");
    // Lines as they are sent, and whether the log says their trace.
    let cases: [(&str, Vec<String>, bool); 9] = [
        (
            "both",
            vec![
                format!("traceparent: {PARENT}"),
                "tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7".to_owned(),
            ],
            true,
        ),
        (
            "order",
            vec![
                "Tracestate: a=1".to_owned(),
                format!("TraceParent: {PARENT}"),
                "tracestate: b@c=2,,".to_owned(),
                "TRACESTATE: a=3".to_owned(),
            ],
            true,
        ),
        ("later", vec![format!("traceparent: {}-more", PARENT.replace("00-", "cc-"))], true),
        ("not-sampled", vec![format!("traceparent: {other}")], true),
        ("state-alone", vec!["tracestate: congo=t61rcWkgMzE".to_owned()], false),
        ("two", vec![format!("traceparent: {PARENT}"), format!("traceparent: {other}")], false),
        ("invalid", vec!["traceparent: 00-x".to_owned(), "tracestate: =".to_owned()], false),
        ("capital", vec![format!("traceparent: {}", PARENT.to_uppercase())], false),
        ("empty", vec!["traceparent: ".to_owned(), "tracestate: ".to_owned()], false),
    ];
    let mut client = Client::connect(proxy.edge());
    for (name, lines, is_logged) in &cases {
        let response =
            client.exchange(&format!("GET /{name} HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n")));
        assert_eq!(
            (response.status, response.field("traceparent"), response.field("tracestate")),
            (200, Some("of the origin"), Some("o=1"))
        );
        let request =
            origin.requests().into_iter().rev().find(|request| request.target == format!("/{name}")).unwrap();
        let came = request.fields.iter().filter(|(name, _)| is_of_trace(name));
        let came: Vec<String> = came.map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(came, *lines, "{name}");
        let line = proxy.log_line(|line| line["path"] == format!("/{name}"));
        let logged = (line["trace_id"].as_str(), line["parent_id"].as_str());
        let wanted = (Some("0af7651916cd43dd8448eb211c80319c"), Some("b7ad6b7169203331"));
        assert_eq!(logged, if *is_logged { wanted } else { (None, None) }, "{name}");
    }
}

#[test]
fn a_request_without_a_trace_gets_none() {
    let origin = Origin::saying("ok");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    Client::get(proxy.edge(), "/");
    assert!(origin.requests()[0].fields.iter().all(|(name, _)| !is_of_trace(name)));
    let line = proxy.log_line(|line| line["path"] == "/");
    assert!(line.get("trace_id").is_none() && line.get("parent_id").is_none(), "{line}");
}

#[test]
fn every_copy_of_a_request_is_of_the_same_trace() {
    // The first attempt fails, wherever it goes; the second goes to the other one.
    let count = Arc::new(AtomicUsize::new(0));
    let origins = [(); 2].map(|()| {
        let count = Arc::clone(&count);
        Origin::answering(move |_| sized(if count.fetch_add(1, SeqCst) == 0 { 503 } else { 200 }, b"ok"))
    });
    let tables = "[cluster.retry]\nattempts = 2\non = [503]\n";
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let proxy = Setup { endpoints: &endpoints, tables, ..Setup::default() }.start();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(Client::once(proxy.edge(), &request).status, 200);
    let requests = origins.each_ref().map(|origin| origin.requests().remove(0));
    for request in requests {
        assert_eq!((request.field("traceparent"), request.field("tracestate")), (Some(PARENT), Some("a=1")));
    }
}
