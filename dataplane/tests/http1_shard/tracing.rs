//! Requests that are spans: what the origin is told of them, and what the record says.

use crate::bed::{Bed, OK, origin_at, say, seconds};
use crate::message::Message;
use dataplane::proto::trace::TraceParent;
use dataplane::spec::{Cluster, Endpoint, EndpointId, Listener, Retry, RetryOn, Snapshot, Statuses, Tracing};
use dataplane::stats::traced::Traced;
use std::sync::Arc;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

fn bed(share: f64, respect_parent: bool, change: impl FnOnce(&mut Listener, &mut Cluster)) -> Bed {
    let mut bed = Bed::new(change);
    let tracing = Some(Tracing { key: [3, 4], share, respect_parent });
    let snapshot = Snapshot::clone(&bed.shard.core.snapshot);
    bed.shard.core.snapshot = Arc::new(Snapshot { tracing, ..snapshot });
    bed
}

/// What the last request said to its origin: traceparent and tracestate, one of each at most.
fn told(bed: &Bed) -> (Option<TraceParent>, Option<String>) {
    let arrivals = bed.arrivals();
    let (_, request) = arrivals.last().expect("a request");
    let lines = |name: &str| {
        let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        request.fields.iter().filter(named).count()
    };
    assert!(lines("traceparent") <= 1 && lines("tracestate") <= 1, "{:?}", request.fields);
    let field = |request: &Message, name: &str| request.field(name).map(str::to_owned);
    let parent =
        field(request, "traceparent").map(|value| TraceParent::parse(value.as_bytes()).expect("a valid one"));
    (parent, field(request, "tracestate"))
}

fn ask(bed: &mut Bed, lines: &str) -> Option<Traced> {
    let client = bed.client([say(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))]);
    bed.run_script(client);
    bed.leave(client);
    bed.spans().pop().expect("a record")
}

#[test]
fn the_origin_and_the_record_are_told_of_the_same_span() {
    let mut bed = bed(1.0, true, |_, _| {});
    // A client without a trace: one begins here, and a state of none goes.
    let span = ask(&mut bed, "TraceState: a=1\r\n").expect("a span");
    let (parent, state) = told(&bed);
    let parent = parent.expect("told");
    assert_eq!((parent.trace_id, parent.parent_id, parent.flags), (span.trace_id, span.span_id, 3));
    assert_eq!(state, None);
    // A client's trace goes on, with its state.
    let next = ask(&mut bed, &format!("traceparent: {PARENT}1\r\ntracestate: a=1\r\n")).expect("a span");
    let (parent, state) = told(&bed);
    let parent = parent.expect("told");
    assert_eq!(next.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    assert_eq!((parent.trace_id, parent.parent_id, parent.flags), (next.trace_id, next.span_id, 1));
    assert_eq!(state.as_deref(), Some("a=1"));
    assert_ne!(next.span_id, span.span_id);
    // What names no trace is replaced.
    for bad in
        [format!("traceparent: {PARENT}1\r\ntraceparent: {PARENT}1\r\n"), "traceparent: 00-x\r\n".to_owned()]
    {
        let span = ask(&mut bed, &bad).expect("a span");
        assert_eq!(
            told(&bed).0.map(|parent| (parent.trace_id, parent.parent_id)),
            Some((span.trace_id, span.span_id))
        );
    }
}

#[test]
fn a_client_that_does_not_keep_its_span_decides_where_it_may() {
    let keeps_not = format!("traceparent: {PARENT}0\r\ntracestate: a=1\r\n");
    let mut bed1 = bed(1.0, true, |_, _| {});
    assert_eq!(ask(&mut bed1, &keeps_not), None);
    let (parent, state) = told(&bed1);
    assert_eq!(
        (parent.map(|p| p.text()), state.as_deref()),
        (TraceParent::parse(format!("{PARENT}0").as_bytes()).map(|p| p.text()), Some("a=1"))
    );
    let mut bed2 = bed(1.0, false, |_, _| {});
    let span = ask(&mut bed2, &keeps_not).expect("a span");
    assert_eq!(told(&bed2).0.map(|parent| (parent.parent_id, parent.flags)), Some((span.span_id, 1)));
    let mut bed3 = bed(0.0, true, |_, _| {});
    assert_eq!(ask(&mut bed3, ""), None);
    assert_eq!(told(&bed3), (None, None));
    assert!(ask(&mut bed3, &format!("traceparent: {PARENT}1\r\n")).is_some());
    let mut bed4 = bed(0.0, false, |_, _| {});
    assert_eq!(ask(&mut bed4, &format!("traceparent: {PARENT}1\r\n")), None);
}

#[test]
fn a_span_is_recorded_without_an_access_log_and_nothing_else_is() {
    let mut bed = bed(0.0, true, |listener, _| listener.access_log = false);
    let client = bed.client([say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")]);
    bed.run_script(client);
    assert_eq!(bed.spans(), []);
    assert!(ask(&mut bed, &format!("traceparent: {PARENT}1\r\n")).is_some());
}

#[test]
fn every_copy_of_a_request_is_the_same_span_and_so_is_a_refusal() {
    let mut statuses = Statuses::default();
    statuses.add(503);
    let on = RetryOn { connect: true, reset: true, timeout: true, statuses };
    let mut bed = bed(1.0, true, |listener, cluster| {
        listener.limits.request_body = 5;
        let endpoint = |n| Endpoint::new(EndpointId(n), &format!("origin-{n}"), origin_at(n).into());
        cluster.endpoints = (0..2).map(endpoint).collect();
        cluster.timeouts.response_header = seconds(1);
        cluster.retry = Some(Retry {
            attempts: 1,
            on,
            budget_percent: 100,
            budget_minimum: 10,
            replay_body: 0,
            hedge_after: None,
        });
    });
    bed.open_origins(2);
    bed.answers(0, [say("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nbusy\n")]);
    bed.answers(1, [say(OK)]);
    let span = ask(&mut bed, "").expect("a span");
    let of = |request: &Message| TraceParent::parse(request.field("traceparent").expect("one").as_bytes());
    let told: Vec<_> =
        bed.arrivals().iter().map(|(_, request)| of(request).expect("valid").parent_id).collect();
    assert_eq!(told, [span.span_id; 2]);
    // What is refused with a whole head is one too; nobody else hears of it.
    assert!(ask(&mut bed, "Content-Length: 6\r\n").is_some());
    assert_eq!(bed.arrivals().len(), 2);
}
