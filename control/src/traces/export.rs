//! The traces thread: spans in batches to the collector, over one connection that is kept.

use super::{Counts, Endpoint, Settings, Waiting, span};
use axum::body::{Body, to_bytes};
use dataplane::limits;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long one try may take, connecting included (the default of OTEL_EXPORTER_OTLP_TIMEOUT).
const TRY: Duration = Duration::from_secs(10);
/// Between two tries, doubled each time, and how long a batch is tried for.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(16);
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long the end of the process waits for the last batches.
const LAST: Duration = Duration::from_millis(900);
/// Of an answer: it says how many spans were rejected, and why.
const ANSWER_BYTES: usize = 64 * 1024;

/// Sends what comes until nothing can come any more.
pub(super) async fn run(
    mut waiting: mpsc::Receiver<Waiting>,
    settings: &Settings,
    counts: &Counts,
    failing: &AtomicBool,
) {
    let mut to = Collector { settings, connection: None };
    let mut records = Vec::new();
    loop {
        let ended = collect(&mut waiting, &mut records).await;
        let spans: Vec<Span> =
            records.drain(..).filter_map(|one| span::of(&one.record, &one.names)).collect();
        let number = spans.len() as u64;
        if number > 0 {
            let until = Instant::now() + if ended { LAST } else { GIVE_UP };
            let done = to.deliver(request(settings, spans), until, &waiting).await;
            note(counts, number, &done, failing, settings);
        }
        if ended && waiting.is_empty() {
            return;
        }
    }
}

/// Takes a batch; true if no more can come than waits already.
async fn collect(waiting: &mut mpsc::Receiver<Waiting>, records: &mut Vec<Waiting>) -> bool {
    let Some(first) = waiting.recv().await else { return true };
    records.push(first);
    let until = Instant::now() + BATCH_WAIT;
    while records.len() < limits::SPANS_BATCH {
        match timeout_at(until, waiting.recv()).await {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return true,
            Err(_) => break,
        }
    }
    false
}

/// Counts a batch, and says so once where the collector begins to fail, and where it is well again.
fn note(
    counts: &Counts,
    number: u64,
    done: &Result<Taken, String>,
    failing: &AtomicBool,
    settings: &Settings,
) {
    let failed = failing.swap(done.is_err(), Relaxed);
    let url = settings.endpoint.url();
    match done {
        Ok(Taken { rejected, why }) => {
            let rejected = (*rejected).min(number);
            counts.exported.fetch_add(number - rejected, Relaxed);
            counts.rejected.fetch_add(rejected, Relaxed);
            if rejected > 0 && counts.rejected.load(Relaxed) == rejected {
                tracing::warn!(endpoint = url, rejected, why, "the collector rejects spans; said once");
            }
            if failed {
                tracing::info!(endpoint = url, "the collector takes spans again");
            }
        }
        Err(why) => {
            counts.not_sent.fetch_add(number, Relaxed);
            if !failed {
                let lost = number;
                tracing::warn!(
                    endpoint = url,
                    lost,
                    why,
                    "spans cannot be sent, and are lost; said again when they can"
                );
            }
        }
    }
}

/// The message of a batch.
fn request(settings: &Settings, spans: Vec<Span>) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let attributes = vec![
        text("service.name", &settings.service),
        text("service.instance.id", &settings.node),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("telemetry.sdk.name", "ringway"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let scope = InstrumentationScope {
        name: "ringway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let of_scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let resource = Resource { attributes, ..Resource::default() };
    let of_resource =
        ResourceSpans { resource: Some(resource), scope_spans: vec![of_scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
}

/// What the collector says of a batch that it took.
#[derive(Debug, Default)]
struct Taken {
    rejected: u64,
    why: String,
}

/// Why a try came to nothing.
#[derive(Debug)]
enum Failed {
    /// Another try may do better, after so long if it said so.
    ForNow(String, Option<Duration>),
    ForGood(String),
}

struct Collector<'a> {
    settings: &'a Settings,
    connection: Option<Connection>,
}

/// A connection, and the task that drives it.
struct Connection {
    sender: SendRequest<Body>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector<'_> {
    /// Sends a batch, again and again until `until`, or less where the process ends.
    async fn deliver(
        &mut self,
        body: Vec<u8>,
        until: Instant,
        waiting: &mpsc::Receiver<Waiting>,
    ) -> Result<Taken, String> {
        let body = hyper::body::Bytes::from(body);
        let mut pause = PAUSE;
        let mut until = until;
        loop {
            let tried = timeout_at(until.min(Instant::now() + TRY), self.send(body.clone())).await;
            let failed =
                tried.unwrap_or_else(|_| Err(Failed::ForNow("it did not answer in time".to_owned(), None)));
            let (why, asked) = match failed {
                Ok(taken) => return Ok(taken),
                Err(Failed::ForGood(why)) => return Err(why),
                Err(Failed::ForNow(why, asked)) => (why, asked),
            };
            if waiting.is_closed() {
                until = until.min(Instant::now() + LAST);
            }
            // One that asks for less than a pause, as with a date that is over, is not asked without one.
            let next = Instant::now() + asked.unwrap_or(pause).clamp(PAUSE, GIVE_UP);
            if next >= until {
                return Err(why);
            }
            // In pieces, so that the end of the process is noticed.
            while Instant::now() < next && !waiting.is_closed() {
                sleep(PAUSE.min(next.saturating_duration_since(Instant::now()))).await;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn send(&mut self, body: hyper::body::Bytes) -> Result<Taken, Failed> {
        let for_now =
            |what: &str, error: &dyn std::error::Error| Failed::ForNow(format!("{what}: {error}"), None);
        let Endpoint { authority, path, .. } = &self.settings.endpoint;
        let request = Request::post(path.as_str())
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .body(Body::from(body))
            .map_err(|error| Failed::ForGood(format!("the request cannot be made: {error}")))?;
        let kept = self.connection.take().filter(|connection| !connection.sender.is_closed());
        let mut connection = match kept {
            Some(kept) => kept,
            None => connect(&self.settings.endpoint).await?,
        };
        let answer = connection
            .sender
            .send_request(request)
            .await
            .map_err(|error| for_now("it ended the connection", &error))?;
        let (status, fields) = (answer.status(), answer.headers().clone());
        // The status decides: who took spans and says no more than that has them.
        let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES).await;
        if body.is_ok() && connection.sender.ready().await.is_ok() {
            self.connection = Some(connection);
        }
        if status.is_success() {
            let answer = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body).ok());
            let answer = answer.unwrap_or_default();
            let partial = answer.partial_success.unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            return Ok(Taken { rejected, why: partial.error_message });
        }
        let why = format!("it answers {status}");
        // OTLP/HTTP Response, "Retryable Response Codes".
        let retryable = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !retryable.contains(&status) {
            return Err(Failed::ForGood(why));
        }
        let after = fields.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now()));
        Err(Failed::ForNow(why, after))
    }
}

/// How long a collector wants to be left alone: seconds, or until a date (RFC 9110 10.2.3). One that is over is now.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[allow(clippy::disallowed_methods, reason = "the traces thread is no shard, and a collector names a date")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn connect(to: &Endpoint) -> Result<Connection, Failed> {
    let for_now =
        |error: &dyn std::error::Error| Failed::ForNow(format!("it cannot be reached: {error}"), None);
    let stream = timeout(TRY, TcpStream::connect((to.host.as_str(), to.port)))
        .await
        .map_err(|error| for_now(&error))?
        .map_err(|error| for_now(&error))?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| for_now(&error))?;
    // What ends it is told to whoever sends.
    let task = tokio::spawn(async move { drop(driver.await) });
    Ok(Connection { sender, task })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_may_name_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |text| retry_after(text, now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        for date in
            ["Sun, 06 Nov 1994 08:49:47 GMT", "Sunday, 06-Nov-94 08:49:47 GMT", "Sun Nov  6 08:49:47 1994"]
        {
            assert_eq!(after(date), Some(Duration::from_secs(10)), "{date}");
        }
        assert_eq!(after("Sun, 06 Nov 1994 08:49:36 GMT"), Some(Duration::ZERO), "over");
        for wrong in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:47 CET"] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }
}
