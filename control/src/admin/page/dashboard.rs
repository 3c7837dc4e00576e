//! What the dashboard shows, in one answer: what `/v1/clusters`, `listeners`, `shards`, `limits`, `drain` and `events` say,
//! with the counters and histograms of `/metrics` as they are, of which the page makes rates and percentiles. Nothing of it
//! asks a shard. Lists are bounded, those in trouble first, so that it is small however large the configuration is.

use super::history::{failed, uptime};
use super::{Asked, DIGEST, PointView};
use crate::admin::objects::{LimitView, ListenerView, ShardView};
use crate::admin::view::EndpointView;
use crate::admin::{Answer, Sight};
use crate::events::{self, Event};
use crate::process::began;
use axum::http::StatusCode;
use dataplane::cluster::eligible::Breaker;
use dataplane::cluster::shared::Counts;
use dataplane::fault::{CLOSE_REASONS, REFUSALS};
use dataplane::limits;
use dataplane::plane::numbers::Numbers;
use dataplane::spec::{Cluster, Endpoint};
use dataplane::stats::histogram::{Histogram, Merged, bound_us};
use dataplane::stats::objects::{Latency, OfEndpoint, Traffic};
use dataplane::stats::timings::Phase;
use dataplane::stats::{Counter, Stats};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use utoipa::ToSchema;

/// All of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DashboardView<'a> {
    process: ProcessView,
    /// False while it drains.
    ready: bool,
    /// As at `/v1/drain`.
    #[schema(value_type = Object)]
    drain: serde_json::Value,
    /// What the process runs short of since it started, in words.
    short: Option<String>,
    /// Keys of the file that wait for an upgrade or a restart.
    waits: &'a [String],
    /// Objects that were changed at run time, beside the file.
    drift: &'a [String],
    listeners: Vec<ListenerNumbersView<'a>>,
    /// How many more there are.
    listeners_left_out: usize,
    /// Those that are looked for, and those that something stands against; these first, where there are too many for all.
    clusters: Vec<ClusterNumbersView<'a>>,
    clusters_left_out: usize,
    /// Of all clusters.
    endpoints: usize,
    endpoints_in_use: usize,
    shards: Vec<ShardView>,
    /// The nearest to their bounds.
    limits: Vec<LimitView>,
    /// Reasons that there were, counted since the process began.
    refusals: Vec<ReasonView>,
    closes: Vec<ReasonView>,
    losses: LossesView,
    #[schema(value_type = Vec<Object>)]
    events: Vec<&'a Event>,
    history: &'a [PointView],
}

#[derive(Debug, Serialize, ToSchema)]
struct ProcessView {
    version: &'static str,
    pid: u32,
    /// UTC, RFC 3339.
    began: &'static str,
    now: String,
    uptime_ms: u64,
    /// Which page belongs to it.
    page: &'static str,
}

/// Buckets that something is in, each as the longest time that it holds, microseconds, and how many it holds.
type Times = Vec<(u64, u64)>;

/// Counted since the process began, as all that follows.
#[derive(Debug, Serialize, ToSchema)]
struct NumbersView {
    /// Requests by the class of their answer; `none` where the client was told nothing.
    answers: BTreeMap<&'static str, u64>,
    received_bytes: u64,
    sent_bytes: u64,
    /// How long they took, by phase, and `total`; each bucket as its longest time, microseconds, and its count.
    #[schema(value_type = BTreeMap<String, Vec<Vec<u64>>>)]
    times: BTreeMap<&'static str, Times>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListenerNumbersView<'a> {
    #[serde(flatten)]
    view: ListenerView<'a>,
    /// Answers of 5xx and those cut off, and connections of tcp listeners that got no link.
    failed: u64,
    #[serde(flatten)]
    numbers: NumbersView,
}

#[derive(Debug, Serialize, ToSchema)]
struct ClusterNumbersView<'a> {
    name: &'a str,
    /// Whether it, or an endpoint of it, is looked for. The others are there because something stands against them.
    found: bool,
    balance: &'a str,
    /// Usable endpoints that are no backup, and those that are.
    active: u64,
    backup: u64,
    breaker: &'static str,
    /// Requests that wait for a place.
    queued: u64,
    max_queued: u32,
    endpoints: Vec<EndpointNumbersView<'a>>,
    endpoints_left_out: usize,
    /// Of tcp listeners, that ended.
    connections: u64,
    #[serde(flatten)]
    numbers: NumbersView,
}

#[derive(Debug, Serialize, ToSchema)]
struct EndpointNumbersView<'a> {
    #[serde(flatten)]
    view: EndpointView<'a>,
    /// Attempts that ended, by what came of them, where there were any.
    attempts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReasonView {
    reason: &'static str,
    meaning: &'static str,
    /// Of refusals: what the client is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    count: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct LossesView {
    ring_full: u64,
    not_written: u64,
    process_log: u64,
    events: u64,
}

/// What the answer takes for each object, roughly.
const BYTES: usize = 4096;

impl<'a> Sight<'a> {
    /// What the dashboard shows.
    pub(crate) fn dashboard(&self, asked: &Asked, kept: &VecDeque<Event>) -> Answer {
        let numbers = self.plane.numbers();
        let (listeners, listeners_left_out) = self.listeners_counted(&numbers);
        let (clusters, [wanted, endpoints, endpoints_in_use]) = self.clusters_counted(&numbers, &asked.find);
        let clusters_left_out = wanted - clusters.iter().filter(|one| one.found).count();
        let mut nearest = self.limit_views(&asked.limits);
        nearest.truncate(limits::DASHBOARD_LIMITS);
        let sum = |of: &dyn Fn(&Stats) -> u64| self.plane.stats().map(of).fold(0, u64::wrapping_add);
        let refusals = REFUSALS.iter().map(|row| ReasonView {
            reason: row.name,
            meaning: row.meaning,
            status: Some(row.status),
            count: sum(&|stats| stats.refusal(row.refusal).get()),
        });
        let closes = CLOSE_REASONS.iter().map(|(reason, name, meaning)| ReasonView {
            reason: name,
            meaning,
            status: None,
            count: sum(&|stats| stats.close(*reason).get()),
        });
        let there_were = |row: &ReasonView| row.count > 0;
        let [ring_full, not_written, process_log] = self.log.losses();
        let bytes = BYTES * (4 + listeners.len() + 2 * clusters.len());
        let view = DashboardView {
            process: ProcessView {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                began: &began().time,
                now: events::time(),
                uptime_ms: uptime(self.now),
                page: &DIGEST,
            },
            ready: self.drains.is_ready(),
            drain: self.drains.to_json(),
            short: self.short(),
            waits: self.waits,
            drift: &self.drift,
            listeners,
            listeners_left_out,
            clusters,
            clusters_left_out,
            endpoints,
            endpoints_in_use,
            shards: self.shard_views(),
            limits: nearest,
            refusals: refusals.filter(there_were).collect(),
            closes: closes.filter(there_were).collect(),
            losses: LossesView { ring_full, not_written, process_log, events: self.plane.lost_events() },
            events: kept.iter().filter(|event| event.number > asked.events_after).collect(),
            history: &asked.history,
        };
        Answer::long_json(StatusCode::OK, &view, bytes)
    }

    fn listeners_counted(&self, numbers: &Numbers) -> (Vec<ListenerNumbersView<'a>>, usize) {
        let mut all = self.listener_views();
        let left_out = all.len().saturating_sub(limits::DASHBOARD_LISTENERS);
        all.truncate(limits::DASHBOARD_LISTENERS);
        let counted = |view: ListenerView<'a>| {
            let counts = numbers.of_listener(view.id).unwrap_or_default();
            ListenerNumbersView {
                failed: counts.iter().map(failed).sum(),
                numbers: numbers_of(counts, |of| &of.traffic, |of| &of.latency),
                view,
            }
        };
        (all.into_iter().map(counted).collect(), left_out)
    }

    /// Those that are looked for and those that something stands against, as many as there is room for; and of all clusters
    /// how many are looked for, how many endpoints there are and how many of these are in use.
    fn clusters_counted(&self, numbers: &Numbers, find: &str) -> (Vec<ClusterNumbersView<'a>>, [usize; 3]) {
        let all = self.loaded.snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone);
        let mut all: Vec<_> = all.map(|cluster| self.seen(cluster, find)).collect();
        let wanted = all.iter().filter(|seen| seen.found).count();
        let endpoints = all.iter().map(|seen| seen.endpoints.len()).sum();
        let in_use = all.iter().map(|seen| seen.in_use as usize).sum();
        all.retain(|seen| seen.found || !seen.sound);
        if all.len() > limits::DASHBOARD_CLUSTERS {
            all.sort_by_key(|seen| (!seen.found, seen.in_use > 0, seen.sound));
            all.truncate(limits::DASHBOARD_CLUSTERS);
        }
        let shown = all.into_iter().map(|seen| self.cluster_counted(seen, numbers)).collect();
        (shown, [wanted, endpoints, in_use])
    }

    fn seen(&self, cluster: &'a Cluster, find: &str) -> Seen<'a> {
        let in_use = self.plane.left(cluster.id).map_or(0, |left| left.active + left.backup);
        let whole = cluster.name.contains(find);
        let found = |endpoint: &Endpoint| {
            whole
                || endpoint.name.contains(find)
                || format!("{}/{}", cluster.name, endpoint.name).contains(find)
        };
        let endpoints = cluster.present().map(|one| (found(one), self.view(cluster, one), one));
        let endpoints: Vec<_> = endpoints.collect();
        let shut = self.breaker(cluster) != Breaker::Closed.name();
        let sound = in_use > 0
            && !shut
            && self.plane.waiters(cluster.id) == 0
            && endpoints.iter().all(|(_, view, _)| view.usable);
        let found = whole || endpoints.iter().any(|(found, ..)| *found);
        Seen { cluster, found, sound, in_use, endpoints }
    }

    fn cluster_counted(&self, seen: Seen<'a>, numbers: &Numbers) -> ClusterNumbersView<'a> {
        let Seen { cluster, found, mut endpoints, .. } = seen;
        let all = endpoints.len();
        endpoints.retain(|(found, view, _)| *found || !view.usable);
        if endpoints.len() > limits::DASHBOARD_ENDPOINTS {
            endpoints.sort_by_key(|(found, view, _)| (!found, view.usable));
            endpoints.truncate(limits::DASHBOARD_ENDPOINTS);
        }
        let endpoints_left_out = all - endpoints.len();
        let counts = numbers.of_cluster(cluster.id).unwrap_or_default();
        let counted = |(_, view, endpoint): (bool, EndpointView<'a>, &Endpoint)| EndpointNumbersView {
            view,
            attempts: attempts(counts, endpoint),
        };
        let left = self.plane.left(cluster.id);
        ClusterNumbersView {
            name: &cluster.name,
            found,
            balance: cluster.balance,
            active: left.as_ref().map_or(0, |left| left.active.into()),
            backup: left.as_ref().map_or(0, |left| left.backup.into()),
            breaker: self.breaker(cluster),
            queued: self.plane.waiters(cluster.id).into(),
            max_queued: cluster.max_queued,
            endpoints: endpoints.into_iter().map(counted).collect(),
            endpoints_left_out,
            connections: counts.iter().map(|of| of.cluster.connections.get()).sum(),
            numbers: numbers_of(counts, |of| &of.cluster.traffic, |of| &of.cluster.latency),
        }
    }
}

/// A cluster, what is looked for in it, and whether nothing stands against it.
struct Seen<'a> {
    cluster: &'a Cluster,
    found: bool,
    sound: bool,
    /// Endpoints for new requests.
    in_use: u32,
    endpoints: Vec<(bool, EndpointView<'a>, &'a Endpoint)>,
}

fn numbers_of<T>(
    shards: &[T],
    traffic: impl Fn(&T) -> &Traffic,
    latency: impl Fn(&T) -> &Latency,
) -> NumbersView {
    let sum = |of: fn(&Traffic) -> &Counter| shards.iter().map(|one| of(traffic(one)).get()).sum();
    let mut answers = BTreeMap::from(Traffic::CLASSES.map(|class| (class, 0)));
    for one in shards {
        for (class, count) in Traffic::CLASSES.iter().zip(traffic(one).by_class()) {
            *answers.entry(*class).or_default() += count;
        }
    }
    let times = |which: &dyn Fn(&Latency) -> &Histogram| -> Times {
        let merged = Merged::of(shards.iter().map(|one| which(latency(one))));
        let buckets = merged.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        buckets.map(|(at, count)| (bound_us(at), *count)).collect()
    };
    let phases = Phase::ALL.map(|phase| (phase.name(), times(&|latency| latency.phase(phase))));
    let mut all: BTreeMap<_, _> = phases.into_iter().filter(|(_, times)| !times.is_empty()).collect();
    all.insert("total", times(&|latency| &latency.total));
    NumbersView {
        answers,
        received_bytes: sum(|traffic| &traffic.up_bytes),
        sent_bytes: sum(|traffic| &traffic.down_bytes),
        times: all,
    }
}

fn attempts(shards: &[Counts], endpoint: &Endpoint) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for counts in shards.iter().filter_map(|counts| counts.endpoint(endpoint.id)) {
        for (result, count) in OfEndpoint::RESULTS.iter().zip(counts.attempts()) {
            if count > 0 {
                *all.entry(*result).or_default() += count;
            }
        }
    }
    all
}
