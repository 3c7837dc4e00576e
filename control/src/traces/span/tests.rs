//! Records of several kinds, and what collectors are told of them.

use super::*;
use crate::log::access::tests::record;
use dataplane::fault::{At, CloseReason, End, Refusal};
use dataplane::proto::trace::TraceParent;
use dataplane::stats::retries::Retries;
use dataplane::stats::timings::Timings;
use dataplane::stats::traced::Traced;

const SPAN: Traced = Traced { trace_id: [7; 16], span_id: [9; 8] };

fn span(record: &Record<'_>) -> Option<Span> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    of(&bytes, &Names { route: Some("shop".into()), ..Names::default() })
}

/// A record that ended well.
fn well() -> Record<'static> {
    let mut timings = Timings::of_total(10);
    for (phase, us) in [(Phase::Head, 1), (Phase::Connect, 2), (Phase::Response, 3), (Phase::Transfer, 4)] {
        timings.set(phase, us);
    }
    Record {
        span: Some(SPAN),
        status: 200,
        refusal: None,
        close: None,
        end: End::WELL,
        timings,
        query: Some(b"a=1"),
        ..record()
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::ArrayValue(list) => format!("{} values", list.values.len()),
        other => format!("{other:?}"),
    })
}

#[test]
fn what_is_no_span_is_none_and_what_does_not_decode_neither() {
    assert_eq!(span(&record()), None);
    assert_eq!(of(b"nonsense", &Names::default()), None);
}

#[test]
fn a_request_is_a_span_of_a_server_with_its_phases_as_events() {
    let span = span(&well()).unwrap();
    assert_eq!((&span.trace_id[..], &span.span_id[..]), (&[7; 16][..], &[9; 8][..]));
    assert_eq!((span.parent_span_id.len(), span.flags), (0, 0x101));
    assert_eq!((span.name.as_str(), span.kind, &span.status), ("GET shop", SpanKind::Server as i32, &None));
    let begin = well().wall_ns;
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (begin, begin + 10_000));
    let events: Vec<_> =
        span.events.iter().map(|event| (event.name.as_str(), event.time_unix_nano - begin)).collect();
    assert_eq!(events, [("head.end", 1000), ("connect.end", 3000), ("response.end", 6000)]);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/"),
        ("url.query", "a=1"),
        ("server.address", "a"),
        ("client.address", "127.0.0.1"),
        ("client.port", "5"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "7"),
        ("ringway.request_id", "00000001-002000000000003"),
        ("ringway.link_reused", "true"),
        ("ringway.end", "--"),
    ] {
        assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
    }
    let absent = ["error.type", "ringway.reason", "ringway.retries", "http.request.method_original"];
    assert!(absent.iter().all(|key| attribute(&span, key).is_none()));
}

#[test]
fn a_clients_span_is_the_parent() {
    let trace = TraceParent { trace_id: [7; 16], parent_id: [3; 8], flags: 1 };
    let span = span(&Record { trace: Some(trace), ..well() }).unwrap();
    assert_eq!((&span.parent_span_id[..], span.flags), (&[3; 8][..], 0x301));
}

#[test]
fn whose_fault_it_is_decides_whether_it_is_an_error() {
    let refused = |refusal: Refusal| Record {
        status: refusal.status(),
        refusal: Some(refusal),
        end: End::of_refusal(refusal, At::Request),
        ..well()
    };
    let broken = |close| Record { close: Some(close), end: End::of_close(close, At::Data), ..well() };
    for (record, error) in [
        (refused(Refusal::BareLf), None),
        (refused(Refusal::NoEndpoint), Some("no_endpoint")),
        (broken(CloseReason::OriginReset), Some("origin_reset")),
        (broken(CloseReason::ClientReset), None),
        (Record { status: 500, ..well() }, Some("500")),
        (Record { status: 404, ..well() }, None),
    ] {
        let span = span(&record).unwrap();
        assert_eq!(attribute(&span, "error.type").as_deref(), error, "{record:?}");
        let code = span.status.map_or(StatusCode::Unset as i32, |status| status.code);
        assert_eq!(code == StatusCode::Error as i32, error.is_some(), "{record:?}");
    }
}

#[test]
fn clients_name_no_spans_and_strings_are_utf_8() {
    let mut retries = Retries::NONE;
    retries.add(Retried::Status);
    retries.add(Retried::BudgetEmpty);
    let record = Record { method: b"B\xffREW", path: b"/\xff", user_agent: Some(b"a\0b"), retries, ..well() };
    let span = span(&record).unwrap();
    assert_eq!(span.name, "HTTP shop");
    assert_eq!(attribute(&span, "http.request.method").as_deref(), Some("_OTHER"));
    assert_eq!(attribute(&span, "http.request.method_original").as_deref(), Some("B\u{fffd}REW"));
    assert_eq!(attribute(&span, "url.path").as_deref(), Some("/\u{fffd}"));
    assert_eq!(attribute(&span, "ringway.retries").as_deref(), Some("2 values"));
}
