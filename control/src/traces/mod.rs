//! Requests as spans for a collector: OTLP over HTTP (opentelemetry.io/docs/specs/otlp, "OTLP/HTTP", binary).
//!
//! Which requests those are a shard decides (`dataplane::stats::traced`), and says so in their records. The log thread hands these
//! to a thread of their own through a bounded channel (`Spans`), which makes spans of them (`span`) and sends them (`export`). Where
//! the collector is slow or gone, spans are lost and counted; nobody waits.

mod export;
mod span;

use dataplane::limits;
use dataplane::spec::{EndpointId, Snapshot};
use dataplane::stats::access_log::Record;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Where spans go, and as whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    /// `service.name` of the resource.
    pub(crate) service: String,
    /// `service.instance.id` of the resource.
    pub(crate) node: String,
}

/// `http://HOST[:PORT]/PATH` in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// For Host.
    pub(crate) authority: String,
    /// Where spans are posted.
    pub(crate) path: String,
}

impl Endpoint {
    /// As it was asked for.
    fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.path)
    }
}

/// What became of spans since the process started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    exported: AtomicU64,
    queue_full: AtomicU64,
    not_sent: AtomicU64,
    rejected: AtomicU64,
}

/// The same, to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// Spans that the collector took.
    pub exported: u64,
    /// Lost because the collector was slower than they came.
    pub queue_full: u64,
    /// Lost because the collector could not be reached, or did not take them.
    pub not_sent: u64,
    /// Lost because the collector took the others only.
    pub rejected: u64,
    /// The last try to send some to the collector of now failed.
    pub failing: bool,
}

impl Counts {
    /// With whether the collector of now fails.
    pub(crate) fn numbers(&self, failing: bool) -> Numbers {
        Numbers {
            exported: self.exported.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            not_sent: self.not_sent.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            failing,
        }
    }
}

/// A record that is a span, and whom its ids name: snapshots themselves would stay for as long as it waits.
#[derive(Debug)]
struct Waiting {
    record: Box<[u8]>,
    names: Names,
}

#[derive(Debug, Default)]
struct Names {
    listener: Option<Arc<str>>,
    route: Option<Arc<str>>,
    cluster: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
}

impl Names {
    fn of(record: &Record<'_>, snapshot: &Snapshot) -> Self {
        let cluster = record.cluster.and_then(|id| snapshot.cluster(id));
        let endpoint = |id: EndpointId| cluster?.endpoints.get(usize::from(id.0));
        Self {
            listener: snapshot.listener(record.listener).map(|listener| Arc::clone(&listener.name)),
            route: record.route.and_then(|id| snapshot.routes.named(id)).map(|route| Arc::clone(&route.name)),
            cluster: cluster.map(|cluster| Arc::clone(&cluster.name)),
            endpoint: record.endpoint.and_then(endpoint).map(|endpoint| Arc::clone(&endpoint.name)),
        }
    }
}

/// The log thread's end: takes records, never waits.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: mpsc::Sender<Waiting>,
    counts: Arc<Counts>,
}

impl Spans {
    /// Takes a record if it is a span, or counts it as lost.
    pub(crate) fn take(&self, record: &Record<'_>, snapshot: &Snapshot) {
        if record.span.is_none() {
            return;
        }
        let Ok(place) = self.queue.try_reserve() else {
            if self.counts.queue_full.fetch_add(1, Relaxed) == 0 {
                tracing::warn!(
                    most = limits::SPANS_WAITING,
                    "spans come faster than the collector takes them, and are lost (SPANS_WAITING): sample less; said once, then \
                     counted as queue_full"
                );
            }
            return;
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        place.send(Waiting { record: bytes.into(), names: Names::of(record, snapshot) });
    }
}

/// Control's end: ends, and what waits is sent within a moment, when [`Spans`] is gone.
#[derive(Debug)]
pub(crate) struct Exporter {
    done: std_mpsc::Receiver<()>,
    /// Its last try failed: one that sends what is left of a former configuration says nothing of the one of now.
    failing: Arc<AtomicBool>,
}

/// Starts the thread.
///
/// # Errors
/// Why it cannot be started, in words.
pub(crate) fn start(settings: &Settings, counts: &Arc<Counts>) -> Result<(Spans, Exporter), String> {
    let (queue, waiting) = mpsc::channel(limits::SPANS_WAITING);
    let (tell, done) = std_mpsc::channel();
    let cannot = |error: std::io::Error| format!("cannot start the traces thread: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(cannot)?;
    let (settings, of_thread) = (settings.clone(), Arc::clone(counts));
    let failing = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&failing);
    let run = move || {
        runtime.block_on(export::run(waiting, &settings, &of_thread, &told));
        // A name that is still looked up holds nobody up.
        runtime.shutdown_background();
        let _ = tell.send(());
    };
    std::thread::Builder::new().name("traces".to_owned()).spawn(run).map_err(cannot)?;
    Ok((Spans { queue, counts: Arc::clone(counts) }, Exporter { done, failing }))
}

impl Exporter {
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        !matches!(self.done.try_recv(), Err(std_mpsc::TryRecvError::Empty))
    }

    /// Waits until what was taken is sent or given up, no longer than `patience`.
    pub(crate) fn finish(&self, patience: Duration) {
        let _ = self.done.recv_timeout(patience);
    }
}
