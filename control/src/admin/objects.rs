//! What the API shows of listeners, routes and shards, and of every limit that is counted: its fields are its contract.

use super::{Answer, Sight};
use crate::process;
use axum::http::StatusCode;
use dataplane::limits;
use dataplane::plane::numbers::Numbers;
use dataplane::spec::{Action, Listener, ListenerId, Protocol, Route};
use dataplane::stats::Stats;
use dataplane::stats::objects::Traffic;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListenerView<'a> {
    #[serde(skip)]
    pub(super) id: ListenerId,
    pub(super) name: &'a str,
    protocol: &'static str,
    /// As the configuration has them.
    addresses: Vec<String>,
    /// As they are bound.
    bound: Vec<String>,
    /// Its configuration is gone, or listens no more: only its connections are left.
    leaving: bool,
    connections: u32,
    max_connections: u32,
    /// Since the process started.
    accepted: u64,
    requests: u64,
    /// Where a request goes that no route takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteView<'a> {
    name: &'a str,
    /// Empty: every http listener.
    listeners: Vec<&'a str>,
    /// forward, respond or redirect.
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    in_maintenance: bool,
    /// Since the process started.
    requests: u64,
    connections: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShardView {
    shard: usize,
    connections: u64,
    links: u64,
    queued: u64,
    /// Since the process started.
    requests: u64,
    turns: u64,
    cpu_ms: Option<u64>,
    /// Receives that wait for a buffer.
    starved: u64,
    #[schema(value_type = Vec<BuffersView>)]
    buffers: [BuffersView; 3],
}

#[derive(Debug, Serialize, ToSchema)]
struct BuffersView {
    size: &'static str,
    free: u64,
    all: u64,
}

/// One bound, and how much of it is used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct LimitView {
    /// The key of the configuration, or the name in `dataplane::limits`.
    limit: &'static str,
    /// Whose it is; empty where it is the process's.
    of: String,
    used: u64,
    most: u64,
    percent: f64,
    /// Of logs: records or lines that it cost since the process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

impl LimitView {
    pub(super) fn new(limit: &'static str, of: impl Into<String>, used: u64, most: u64) -> Self {
        let percent = if most == 0 { 100.0 } else { (used as f64 / most as f64 * 1000.0).round() / 10.0 };
        Self { limit, of: of.into(), used, most, percent, lost: None }
    }
}

const SIZES: [&str; 3] = ["tiny", "small", "large"];

fn protocol(listener: &Listener) -> &'static str {
    match listener.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    }
}

fn requests(traffic: &Traffic) -> u64 {
    traffic.by_class().iter().sum()
}

impl<'a> Sight<'a> {
    /// Every listener, and those that are gone and have connections left.
    pub(crate) fn listeners(&self) -> Answer {
        Answer::json(StatusCode::OK, &json!({ "listeners": self.listener_views() }))
    }

    pub(super) fn listener_views(&self) -> Vec<ListenerView<'a>> {
        let (numbers, bound) = (self.plane.numbers(), self.plane.bound());
        let view = |listener: &'a Arc<Listener>| {
            let counts = numbers.of_listener(listener.id).unwrap_or_default();
            let of_it = bound.iter().filter(|bound| bound.listener == listener.id);
            ListenerView {
                id: listener.id,
                name: &listener.name,
                protocol: protocol(listener),
                addresses: listener.addresses.iter().map(ToString::to_string).collect(),
                bound: of_it.map(|bound| bound.address.to_string()).collect(),
                leaving: listener.is_gone(),
                connections: self.plane.open_conns(listener.id),
                max_connections: listener.max_connections,
                accepted: counts.iter().map(|of| of.connections.get()).sum(),
                requests: counts.iter().map(|of| requests(&of.traffic)).sum(),
                cluster: listener.cluster.and_then(|id| self.loaded.snapshot.cluster(id)).map(|c| &*c.name),
            }
        };
        let all = self.loaded.snapshot.listeners.iter().flatten();
        let there = all.filter(|one| !one.is_gone() || self.plane.open_conns(one.id) > 0);
        there.map(view).collect()
    }

    /// Every route, in the order in which requests try them.
    pub(crate) fn routes(&self) -> Answer {
        #[derive(Serialize)]
        struct All<'a> {
            routes: Vec<RouteView<'a>>,
        }
        let numbers = self.plane.numbers();
        let routes: Vec<_> = self.loaded.snapshot.routes.iter().map(|r| self.route(r, &numbers)).collect();
        let bytes = 256 * routes.len();
        Answer::long_json(StatusCode::OK, &All { routes }, bytes)
    }

    /// One route.
    pub(crate) fn route_called(&self, name: &str) -> Answer {
        match self.loaded.snapshot.routes.iter().find(|route| *route.name == *name) {
            Some(route) => Answer::json(StatusCode::OK, &self.route(route, &self.plane.numbers())),
            None => Answer::refused(StatusCode::NOT_FOUND, &format!("no route is called {name:?}")),
        }
    }

    fn route(&self, route: &'a Arc<Route>, numbers: &Numbers) -> RouteView<'a> {
        let snapshot = &self.loaded.snapshot;
        let counts = numbers.of_route(route.id).unwrap_or_default();
        let (action, cluster, status) = match &route.action {
            Action::Forward { cluster, .. } => ("forward", snapshot.cluster(*cluster), None),
            Action::Respond(reply) => ("respond", None, Some(reply.status)),
            Action::Redirect(redirect) => ("redirect", None, Some(redirect.status)),
        };
        RouteView {
            name: &route.name,
            listeners: route.listeners.iter().filter_map(|id| Some(&*snapshot.listener(*id)?.name)).collect(),
            action,
            cluster: cluster.map(|cluster| &*cluster.name),
            status,
            in_maintenance: numbers.in_maintenance(route),
            requests: counts.iter().map(|of| requests(&of.traffic)).sum(),
            connections: counts.iter().map(|of| of.connections.get()).sum(),
        }
    }

    /// Every shard.
    pub(crate) fn shards(&self) -> Answer {
        Answer::json(StatusCode::OK, &json!({ "shards": self.shard_views() }))
    }

    pub(super) fn shard_views(&self) -> Vec<ShardView> {
        let view = |(shard, stats): (usize, &Stats)| ShardView {
            shard,
            connections: stats.conns_open.get(),
            links: stats.links_open.get(),
            queued: stats.queued.get(),
            requests: stats.requests.get(),
            turns: stats.turns.get(),
            cpu_ms: self.plane.cpu_time(shard).and_then(|time| u64::try_from(time.as_millis()).ok()),
            starved: stats.starved.get(),
            buffers: std::array::from_fn(|at| BuffersView {
                size: SIZES[at],
                free: stats.buffers_free[at].get(),
                all: stats.buffers[at].get(),
            }),
        };
        self.plane.stats().enumerate().map(view).collect()
    }

    /// Every limit that is counted, the nearest to its bound first. `own` are those of the API.
    pub(crate) fn limits(&self, own: &[LimitView]) -> Answer {
        Answer::json(StatusCode::OK, &json!({ "limits": self.limit_views(own) }))
    }

    pub(super) fn limit_views(&self, own: &[LimitView]) -> Vec<LimitView> {
        let mut all = own.to_vec();
        self.machine_limits(&mut all);
        self.log_limits(&mut all);
        self.object_limits(&mut all);
        self.size_limits(&mut all);
        all.sort_by(|one, other| {
            let by_name = || (one.limit, &one.of).cmp(&(other.limit, &other.of));
            other.percent.total_cmp(&one.percent).then_with(by_name)
        });
        all
    }

    fn machine_limits(&self, all: &mut Vec<LimitView>) {
        if let (Some(open), most) = process::descriptors() {
            all.push(LimitView::new("RLIMIT_NOFILE", "", open, most));
        }
        for (shard, stats) in self.plane.stats().enumerate() {
            let limits = ["POOL_TINY", "POOL_SMALL", "POOL_LARGE"];
            for ((limit, free), most) in limits.into_iter().zip(&stats.buffers_free).zip(&stats.buffers) {
                let used = most.get().saturating_sub(free.get());
                all.push(LimitView::new(limit, format!("shard {shard}"), used, most.get()));
            }
            let lent = stats.pipes_lent.get();
            all.push(LimitView::new("PIPES", format!("shard {shard}"), lent, limits::PIPES.into()));
        }
    }

    /// What waits for the logs, as of the log thread's last look, and what was lost for want of room.
    fn log_limits(&self, all: &mut Vec<LimitView>) {
        let numbers = self.log.numbers();
        let lost = |view, lost| LimitView { lost: Some(lost), ..view };
        let most = limits::LOG_RING_BYTES as u64;
        let ring = LimitView::new("LOG_RING_BYTES", "the fullest shard", numbers.ring_bytes as u64, most);
        let waiting = |of: String, bytes: usize| {
            LimitView::new("LOG_WAITING_BYTES", of, bytes as u64, limits::LOG_WAITING_BYTES as u64)
        };
        let process = waiting("process log".to_owned(), numbers.process_waiting_bytes);
        all.extend([lost(ring, numbers.ring_full), lost(process, numbers.process_lines)]);
        let access = numbers.outputs.into_iter();
        all.extend(access.map(|log| lost(waiting(log.to, log.waiting_bytes), log.lost)));
    }

    fn object_limits(&self, all: &mut Vec<LimitView>) {
        let (snapshot, numbers) = (&self.loaded.snapshot, self.plane.numbers());
        for listener in snapshot.listeners.iter().flatten().filter(|listener| !listener.is_gone()) {
            let (open, most) = (self.plane.open_conns(listener.id), listener.max_connections);
            all.push(LimitView::new("listener.max_connections", &*listener.name, open.into(), most.into()));
        }
        for cluster in snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone) {
            let (name, waiters) = (&*cluster.name, self.plane.waiters(cluster.id));
            if cluster.max_queued > 0 {
                all.push(LimitView::new(
                    "cluster.max_queued",
                    name,
                    waiters.into(),
                    cluster.max_queued.into(),
                ));
            }
            if cluster.pool.idle > 0 {
                let idle = numbers.idle_links(cluster.id);
                all.push(LimitView::new("cluster.pool.idle", name, idle.into(), cluster.pool.idle.into()));
            }
            // Where each endpoint has a bound, so has the cluster.
            let places = cluster.present().map(|one| Some(one.max_requests).filter(|most| *most != u32::MAX));
            let places = places.map(|most| most.map(u64::from)).sum::<Option<u64>>();
            if let Some(most @ 1..) = places {
                let running = self.running(cluster);
                all.push(LimitView::new("endpoint.max_requests", name, running, most));
            }
            for endpoint in cluster.present() {
                let Some(status) = self.plane.endpoint_status(cluster.id, endpoint.id) else { continue };
                let of = || format!("{name}/{}", endpoint.name);
                let (links, running) = (u64::from(status.open_links), u64::from(status.running));
                let most = endpoint.max_connections;
                if most != u32::MAX {
                    all.push(LimitView::new("endpoint.max_connections", of(), links, most.into()));
                }
                if endpoint.max_requests != u32::MAX {
                    let most = endpoint.max_requests.into();
                    all.push(LimitView::new("endpoint.max_requests", of(), running, most));
                }
                if let Some(ports) = self.ports.capacity(cluster.id, endpoint.id) {
                    all.push(LimitView::new("ports", of(), links, ports));
                }
            }
        }
    }

    /// How large the configuration is.
    fn size_limits(&self, all: &mut Vec<LimitView>) {
        let snapshot = &self.loaded.snapshot;
        let clusters = || snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone);
        let largest = clusters().max_by_key(|cluster| cluster.present().count());
        let names = self.loaded.sources.iter().flatten().map(|sources| sources.queries().count()).sum();
        let sizes = [
            ("LISTENERS_MAX", snapshot.listeners.iter().flatten().count(), limits::LISTENERS_MAX),
            ("ROUTES_MAX", snapshot.routes.len(), limits::ROUTES_MAX),
            ("CLUSTERS_MAX", clusters().count(), limits::CLUSTERS_MAX),
            ("NAMES_MAX", names, limits::NAMES_MAX),
        ];
        if let Some(largest) = largest {
            let (used, most) = (largest.present().count() as u64, limits::ENDPOINTS_MAX as u64);
            all.push(LimitView::new("ENDPOINTS_MAX", &*largest.name, used, most));
        }
        all.extend(sizes.map(|(limit, used, most)| LimitView::new(limit, "", used as u64, most as u64)));
    }
}
