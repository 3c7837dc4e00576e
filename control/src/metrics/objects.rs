//! Metrics of what the configuration names: listeners, routes, clusters, endpoints. One that is gone has none.

use super::text::{Kind, Text, seconds};
use crate::admin::Sight;
use dataplane::cluster::eligible::{Admin, Breaker, Eligible, Health};
use dataplane::fault::CLOSE_REASONS;
use dataplane::plane::conditions::EndpointStatus;
use dataplane::plane::numbers::Numbers;
use dataplane::spec::{Cluster, Endpoint, Listener, Protocol, Snapshot};
use dataplane::stats::Counter;
use dataplane::stats::histogram::{Histogram, Merged};
use dataplane::stats::objects::{Latency, OfCluster, OfEndpoint, OfListener, OfRoute, Traffic};
use dataplane::stats::retries::Retried;
use dataplane::stats::timings::Phase;
use std::sync::Arc;

/// An object by its labels, and what each shard counts of it.
struct Counted<'a, T> {
    labels: Vec<(&'static str, &'a str)>,
    of: Vec<&'a T>,
}

impl<T> Counted<'_, T> {
    fn sum(&self, which: impl Fn(&T) -> &Counter) -> u64 {
        self.of.iter().map(|counts| which(counts).get()).fold(0, u64::wrapping_add)
    }
    fn merged(&self, which: impl Fn(&T) -> &Histogram) -> Merged {
        Merged::of(self.of.iter().map(|counts| which(counts)))
    }
    /// Its labels and another.
    fn with<'b>(&'b self, name: &'static str, value: &'b str) -> Vec<(&'b str, &'b str)> {
        self.labels.iter().copied().chain([(name, value)]).collect()
    }
}

pub(super) fn write(text: &mut Text, sight: &Sight<'_>) {
    let (snapshot, numbers) = (&*sight.loaded.snapshot, sight.plane.numbers());
    listeners(text, snapshot, &numbers);
    routes(text, snapshot, &numbers);
    clusters(text, sight, &numbers);
    endpoints(text, sight, &numbers);
}

fn listeners(text: &mut Text, snapshot: &Snapshot, numbers: &Numbers) {
    let all: Vec<&Arc<Listener>> = snapshot.listeners.iter().flatten().collect();
    let counted: Vec<Counted<'_, OfListener>> = all
        .iter()
        .map(|listener| Counted {
            labels: vec![("listener", &listener.name)],
            of: numbers.of_listener(listener.id).unwrap_or_default().iter().collect(),
        })
        .collect();
    let mut family = text.family(
        "ringway_listener_connections",
        Kind::Counter,
        "Connections accepted, those refused at once included.",
    );
    for one in &counted {
        family.put(&one.labels, one.sum(|counts| &counts.connections));
    }
    let mut family =
        text.family("ringway_listener_connections_open", Kind::Gauge, "Connections that are open.");
    for (one, listener) in counted.iter().zip(&all) {
        family.put(&one.labels, numbers.open(listener.id));
    }
    let mut family =
        text.family("ringway_listener_connections_limit", Kind::Gauge, "listener.max_connections.");
    for (one, listener) in counted.iter().zip(&all) {
        family.put(&one.labels, listener.max_connections);
    }
    let mut family = text.family(
        "ringway_listener_closed_connections",
        Kind::Counter,
        "Connections that ended, by reason; reasons that there were not have no sample.",
    );
    for one in &counted {
        for (reason, name, _) in CLOSE_REASONS {
            let count = one.sum(|counts| counts.close(*reason));
            if count > 0 {
                family.put(&one.with("reason", name), count);
            }
        }
    }
    let of_http: Vec<_> = all.iter().map(|listener| listener.protocol == Protocol::Http).collect();
    traffic(text, "ringway_listener", &counted, &of_http, |counts| &counts.traffic);
    latency(text, "ringway_listener", &counted, |counts| &counts.latency);
}

fn routes(text: &mut Text, snapshot: &Snapshot, numbers: &Numbers) {
    let is_tcp = |id| snapshot.listener(id).is_some_and(|listener| listener.protocol == Protocol::Tcp);
    let counted: Vec<Counted<'_, OfRoute>> = snapshot
        .routes
        .iter()
        .map(|route| Counted {
            labels: vec![("route", &route.name)],
            of: numbers.of_route(route.id).unwrap_or_default().iter().collect(),
        })
        .collect();
    let on = |http: bool| {
        let some = |route: &Arc<_>| {
            let route: &dataplane::spec::Route = route;
            let mut listeners = route.listeners.iter();
            if http {
                route.listeners.is_empty() || listeners.any(|id| !is_tcp(*id))
            } else {
                listeners.any(|id| is_tcp(*id))
            }
        };
        snapshot.routes.iter().map(some).collect::<Vec<_>>()
    };
    let mut family =
        text.family("ringway_route_connections", Kind::Counter, "Connections of tcp listeners that ended.");
    for (one, _) in counted.iter().zip(on(false)).filter(|(_, of_tcp)| *of_tcp) {
        family.put(&one.labels, one.sum(|counts| &counts.connections));
    }
    traffic(text, "ringway_route", &counted, &on(true), |counts| &counts.traffic);
}

/// Requests by the class of their answer, where there may be any, and bytes.
fn traffic<T>(
    text: &mut Text,
    of: &str,
    counted: &[Counted<'_, T>],
    of_http: &[bool],
    which: impl Fn(&T) -> &Traffic,
) {
    let name = format!("{of}_requests");
    let help = "Requests that are over, by the class of the status that the client was told.";
    let mut family = text.family(&name, Kind::Counter, help);
    for (one, _) in counted.iter().zip(of_http).filter(|(_, of_http)| **of_http) {
        let mut sums = [0_u64; Traffic::CLASSES.len()];
        for counts in &one.of {
            for (sum, count) in sums.iter_mut().zip(which(counts).by_class()) {
                *sum = sum.wrapping_add(count);
            }
        }
        for (class, sum) in Traffic::CLASSES.iter().zip(sums) {
            family.put(&one.with("status", class), sum);
        }
    }
    for (direction, of_direction) in [
        ("received", (|traffic| &traffic.up_bytes) as fn(&Traffic) -> &Counter),
        ("sent", |traffic| &traffic.down_bytes),
    ] {
        let name = format!("{of}_{direction}_bytes");
        let help = format!(
            "Bytes of bodies {direction}, and of tunnels of tcp listeners, as of when requests and tunnels end."
        );
        let mut family = text.family(&name, Kind::Counter, &help);
        for one in counted {
            family.put(&one.labels, one.sum(|counts| of_direction(which(counts))));
        }
    }
}

/// Histograms of the phases that there were, and of the whole.
fn latency<T>(text: &mut Text, of: &str, counted: &[Counted<'_, T>], which: impl Fn(&T) -> &Latency) {
    let name = format!("{of}_phase_duration_seconds");
    let help = "How long each phase took of requests, and of connections of tcp listeners, that are over.";
    let mut family = text.family(&name, Kind::Histogram, help);
    for one in counted {
        for phase in Phase::ALL {
            let merged = one.merged(|counts| which(counts).phase(phase));
            if merged.count() > 0 {
                family.put_histogram(&one.with("phase", phase.name()), &merged);
            }
        }
    }
    let name = format!("{of}_duration_seconds");
    let help =
        "From the first byte of requests, or the accept of connections of tcp listeners, to their end.";
    let mut family = text.family(&name, Kind::Histogram, help);
    for one in counted {
        family.put_histogram(&one.labels, &one.merged(|counts| &which(counts).total));
    }
}

fn clusters(text: &mut Text, sight: &Sight<'_>, numbers: &Numbers) {
    let all: Vec<&Arc<Cluster>> = sight.loaded.snapshot.clusters.iter().flatten().collect();
    let counted: Vec<Counted<'_, OfCluster>> = all
        .iter()
        .map(|cluster| Counted {
            labels: vec![("cluster", &cluster.name)],
            of: numbers.of_cluster(cluster.id).unwrap_or_default().iter().map(|c| &c.cluster).collect(),
        })
        .collect();
    let mut gauge = |name, help, of: &dyn Fn(&Cluster) -> u64| {
        let mut family = text.family(name, Kind::Gauge, help);
        for (one, cluster) in counted.iter().zip(&all) {
            family.put(&one.labels, of(cluster));
        }
    };
    let left: Vec<_> = all.iter().map(|cluster| sight.plane.left(cluster.id)).collect();
    let of_left = |cluster: &Cluster| {
        let at = all.iter().position(|other| other.id == cluster.id);
        at.and_then(|at| left.get(at).copied().flatten())
    };
    gauge("ringway_cluster_active_endpoints", "Endpoints of the first tier that may get requests.", &|c| {
        of_left(c).map_or(0, |left| left.active.into())
    });
    gauge("ringway_cluster_backup_endpoints", "Endpoints of other tiers that may get requests.", &|c| {
        of_left(c).map_or(0, |left| left.backup.into())
    });
    gauge("ringway_cluster_breaker_open", "1 while the cluster's own circuit breaker is not closed.", &|c| {
        of_left(c).is_some_and(|left| left.breaker != Breaker::Closed).into()
    });
    gauge("ringway_cluster_queued", "Requests and connections that wait for a place.", &|c| {
        sight.plane.waiters(c.id).into()
    });
    gauge("ringway_cluster_queued_limit", "cluster.max_queued.", &|c| c.max_queued.into());
    gauge("ringway_cluster_idle_links", "Links that wait for a request.", &|c| {
        numbers.idle_links(c.id).into()
    });
    gauge("ringway_cluster_idle_links_limit", "cluster.pool.idle.", &|c| c.pool.idle.into());

    let help = "Connections of tcp listeners that ended.";
    let mut family = text.family("ringway_cluster_connections", Kind::Counter, help);
    for one in &counted {
        family.put(&one.labels, one.sum(|counts| &counts.connections));
    }
    let help = "Requests that were sent again by reason; budget_empty: that would have been.";
    let mut family = text.family("ringway_cluster_retries", Kind::Counter, help);
    for one in &counted {
        for why in Retried::ALL {
            family.put(&one.with("reason", why.name()), one.sum(|counts| counts.retried(why)));
        }
    }
    let mut family =
        text.family("ringway_cluster_hedges_won", Kind::Counter, "Hedges whose answer came first.");
    for one in &counted {
        family.put(&one.labels, one.sum(|counts| &counts.hedges_won));
    }
    let help = "Waits for a place that ended, well or not.";
    let mut family = text.family("ringway_cluster_queue_waits", Kind::Counter, help);
    for one in &counted {
        family.put(&one.labels, one.sum(|counts| &counts.queue_waits));
    }
    let help = "How long those waits took together.";
    let mut family = text.family("ringway_cluster_queue_wait_seconds", Kind::Counter, help);
    for one in &counted {
        family.put(&one.labels, seconds(one.sum(|counts| &counts.queue_us)));
    }
    traffic(text, "ringway_cluster", &counted, &vec![true; counted.len()], |counts| &counts.traffic);
    latency(text, "ringway_cluster", &counted, |counts| &counts.latency);
}

/// An endpoint as it is now.
struct Shown<'a> {
    counted: Counted<'a, OfEndpoint>,
    endpoint: &'a Endpoint,
    status: Option<EndpointStatus>,
    port_capacity: Option<u64>,
}

/// A gauge of an endpoint; none where it does not apply.
type Gauge = (&'static str, &'static str, fn(&Shown<'_>) -> Option<u64>);

static GAUGES: &[Gauge] = &[
    ("ringway_endpoint_running", "Running requests, or connections of tcp listeners.", |e| {
        Some(e.status?.running.into())
    }),
    ("ringway_endpoint_running_limit", "endpoint.max_requests, where there is one.", |e| {
        limit(e.endpoint.max_requests)
    }),
    ("ringway_endpoint_links_open", "Open links, idle ones included.", |e| Some(e.status?.open_links.into())),
    ("ringway_endpoint_links_limit", "endpoint.max_connections, where there is one.", |e| {
        limit(e.endpoint.max_connections)
    }),
    ("ringway_endpoint_port_capacity", "Links that local ports allow to it, where that is known.", |e| {
        e.port_capacity
    }),
    ("ringway_endpoint_weight", "Its weight.", |e| Some(e.endpoint.weight.into())),
    ("ringway_endpoint_up", "0 while active checks find it down.", |e| {
        Some((e.status?.condition.health == Health::Up).into())
    }),
    ("ringway_endpoint_ejected", "1 while it is ejected.", |e| Some(e.status?.condition.ejected.into())),
    ("ringway_endpoint_breaker_open", "1 while its circuit breaker is not closed.", |e| {
        Some((e.status?.condition.breaker != Breaker::Closed).into())
    }),
    ("ringway_endpoint_usable", "1 while it may get new requests.", |e| {
        let eligible: Eligible = e.status?.condition.eligible();
        Some((e.endpoint.weight > 0 && eligible.takes_new()).into())
    }),
];

fn limit(most: u32) -> Option<u64> {
    (most != u32::MAX).then_some(most.into())
}

fn endpoints(text: &mut Text, sight: &Sight<'_>, numbers: &Numbers) {
    let clusters = || sight.loaded.snapshot.clusters.iter().flatten();
    let mut all = Vec::with_capacity(clusters().map(|cluster| cluster.endpoints.len()).sum());
    for cluster in clusters() {
        let shards = numbers.of_cluster(cluster.id).unwrap_or_default();
        all.extend(cluster.present().map(|endpoint| Shown {
            counted: Counted {
                labels: vec![("cluster", &cluster.name), ("endpoint", &endpoint.name)],
                of: shards.iter().filter_map(|counts| counts.endpoint(endpoint.id)).collect(),
            },
            endpoint,
            status: sight.plane.endpoint_status(cluster.id, endpoint.id),
            port_capacity: sight.ports.capacity(cluster.id, endpoint.id),
        }));
    }
    for (name, help, of) in GAUGES {
        let mut family = text.family(name, Kind::Gauge, help);
        for shown in &all {
            if let Some(value) = of(shown) {
                family.put(&shown.counted.labels, value);
            }
        }
    }
    let help = "What an operator said of it: 1 for one of the states, 0 for the others.";
    let mut family = text.family("ringway_endpoint_state", Kind::Gauge, help);
    for shown in &all {
        let admin = shown.status.map_or(Admin::Ready, |status| status.condition.admin);
        for state in Admin::ALL {
            family.put(&shown.counted.with("state", state.name()), u8::from(admin == state));
        }
    }
    let mut family = text.family("ringway_endpoint_connects", Kind::Counter, "Links begun.");
    for shown in &all {
        family.put(&shown.counted.labels, shown.counted.sum(|counts| &counts.connects));
    }
    let help = "Attempts of requests, and connections of tcp listeners, by the class of the endpoint's answer or what came in \
                its place; unknown says nothing of the endpoint.";
    let mut family = text.family("ringway_endpoint_attempts", Kind::Counter, help);
    for shown in &all {
        let mut sums = [0_u64; OfEndpoint::RESULTS.len()];
        for counts in &shown.counted.of {
            for (sum, count) in sums.iter_mut().zip(counts.attempts()) {
                *sum = sum.wrapping_add(count);
            }
        }
        for (result, sum) in OfEndpoint::RESULTS.iter().zip(sums) {
            family.put(&shown.counted.with("result", result), sum);
        }
    }
}
