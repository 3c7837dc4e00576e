//! What the API shows of clusters and endpoints: its fields are its contract.

use super::{Answer, Name};
use crate::config::Loaded;
use crate::endpoints;
use crate::health::{Checks, Verdict};
use crate::locked;
use crate::log::Log;
use crate::ports::PortWatch;
use crate::run::Drains;
use axum::http::StatusCode;
use dataplane::cluster::eligible::{Admin, Breaker, Eligible};
use dataplane::io::Address;
use dataplane::plane::Plane;
use dataplane::spec::{Cluster, Endpoint};
use serde::{Serialize, Serializer};
use std::fmt::Display;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Where all that is shown comes from.
#[derive(Debug, Clone)]
pub(crate) struct Sight<'a> {
    pub(crate) plane: &'a Plane,
    pub(crate) loaded: &'a Loaded,
    pub(crate) checks: &'a Checks,
    pub(crate) ports: &'a PortWatch,
    pub(crate) log: &'a Log,
    /// Keys of the file that wait for an upgrade or a restart.
    pub(crate) waits: &'a [String],
    pub(crate) drains: Drains<'a>,
    /// Objects that were changed at run time, beside the file.
    pub(crate) drift: Vec<String>,
    pub(crate) now: Instant,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterView<'a> {
    name: &'a str,
    balance: &'a str,
    /// Usable endpoints that are no backup, and those that are.
    active: u64,
    backup: u64,
    /// The cluster's own circuit breaker: while it is open, none of them gets requests.
    breaker: &'static str,
    /// Running requests, or connections of tcp listeners, of its endpoints together.
    running: u64,
    /// Requests that wait for a place.
    queued: u64,
    endpoints: Vec<EndpointView<'a>>,
}

/// What is written as its words are.
#[derive(Debug)]
struct Words<'a, T>(&'a T);

impl<T: Display> Serialize for Words<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndpointView<'a> {
    name: &'a str,
    #[schema(value_type = String)]
    address: Words<'a, Address>,
    weight: u32,
    /// What an operator said: ready, drain or maint.
    state: &'static str,
    /// What checks say: up, going down, down, going up, probing; or unchecked.
    health: &'static str,
    /// The tier: used while no endpoint of a lower number may be.
    priority: u8,
    ejected: bool,
    breaker: &'static str,
    /// Whether it may get new requests.
    pub(super) usable: bool,
    /// The same in words, with what stands against it.
    eligible: &'static str,
    /// Running requests, or connections of a tcp listener.
    running: u32,
    /// Open links, idle ones included.
    links: u32,
    /// Links that local ports allow to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_capacity: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckView<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CheckView<'a> {
    #[schema(value_type = String)]
    result: Words<'a, Verdict>,
    class: &'static str,
    took_ms: f64,
    ago_ms: u64,
}

/// What the answer of a cluster takes, roughly.
fn bytes_of(cluster: &Cluster) -> usize {
    1024 + 512 * cluster.endpoints.len()
}

impl<'a> Sight<'a> {
    /// Every cluster with its endpoints.
    pub(crate) fn clusters(&self) -> Answer {
        #[derive(Serialize)]
        struct All<'a> {
            /// What the process runs short of since it started, in words.
            #[serde(skip_serializing_if = "Option::is_none")]
            short: Option<String>,
            /// Keys of the file that wait for an upgrade or a restart.
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            waits: &'a [String],
            /// As at `/v1/drain`.
            drain: serde_json::Value,
            /// Objects that were changed at run time, beside the file.
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            drift: &'a [String],
            clusters: Vec<ClusterView<'a>>,
        }
        let clusters = self.loaded.snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone);
        let bytes = clusters.clone().map(|cluster| bytes_of(cluster)).sum();
        let clusters = clusters.map(|cluster| self.cluster(cluster)).collect();
        let short = self.short();
        Answer::long_json(
            StatusCode::OK,
            &All { short, waits: self.waits, drain: self.drains.to_json(), drift: &self.drift, clusters },
            bytes,
        )
    }

    /// What the process runs short of since it started, in words.
    pub(super) fn short(&self) -> Option<String> {
        let short = locked::shortage(&self.plane.ring_memory());
        short.map(|shortage| format!("{shortage}; mend: {}", locked::MEND))
    }

    /// One cluster with its endpoints.
    pub(crate) fn cluster_called(&self, name: &str) -> Answer {
        match endpoints::find_cluster(&self.loaded.snapshot, name) {
            Ok(cluster) => Answer::long_json(StatusCode::OK, &self.cluster(cluster), bytes_of(cluster)),
            Err(unknown) => Answer::refused(StatusCode::NOT_FOUND, &unknown),
        }
    }

    /// One endpoint.
    pub(crate) fn endpoint(&self, name: &Name) -> Answer {
        match endpoints::find(&self.loaded.snapshot, name) {
            Ok((cluster, endpoint)) => Answer::json(StatusCode::OK, &self.view(cluster, endpoint)),
            Err(unknown) => Answer::refused(StatusCode::NOT_FOUND, &unknown),
        }
    }

    /// Its own circuit breaker.
    pub(super) fn breaker(&self, cluster: &Cluster) -> &'static str {
        self.plane.left(cluster.id).map_or(Breaker::Closed, |left| left.breaker).name()
    }

    /// Running requests, or connections of tcp listeners, at the endpoints of a cluster.
    pub(super) fn running(&self, cluster: &Cluster) -> u64 {
        let statuses = cluster.present().filter_map(|one| self.plane.endpoint_status(cluster.id, one.id));
        statuses.map(|status| u64::from(status.running)).sum()
    }

    fn cluster(&self, cluster: &'a Cluster) -> ClusterView<'a> {
        let left = self.plane.left(cluster.id);
        ClusterView {
            name: &cluster.name,
            balance: cluster.balance,
            active: left.as_ref().map_or(0, |left| left.active.into()),
            backup: left.as_ref().map_or(0, |left| left.backup.into()),
            breaker: self.breaker(cluster),
            running: self.running(cluster),
            queued: self.plane.waiters(cluster.id).into(),
            endpoints: cluster.present().map(|endpoint| self.view(cluster, endpoint)).collect(),
        }
    }

    pub(super) fn view(&self, cluster: &'a Cluster, endpoint: &'a Endpoint) -> EndpointView<'a> {
        let at = usize::from(endpoint.id.0);
        let (health, last) = self.checks.status(cluster.id, at).unwrap_or(("unchecked", None));
        let status = self.plane.endpoint_status(cluster.id, endpoint.id);
        // Every endpoint of the snapshot has one.
        let condition = status.map(|status| status.condition);
        let eligible = condition.map_or(Eligible::Yes, |condition| condition.eligible());
        EndpointView {
            name: &endpoint.name,
            address: Words(&endpoint.address),
            weight: endpoint.weight,
            state: condition.map_or(Admin::Ready, |condition| condition.admin).name(),
            health,
            priority: endpoint.priority,
            ejected: condition.is_some_and(|condition| condition.ejected),
            breaker: condition.map_or(Breaker::Closed, |condition| condition.breaker).name(),
            usable: endpoint.weight > 0 && eligible.takes_new(),
            eligible: eligible.name(),
            running: status.map_or(0, |status| status.running),
            links: status.map_or(0, |status| status.open_links),
            port_capacity: self.ports.capacity(cluster.id, endpoint.id),
            check: last.map(|last| CheckView {
                result: Words(&last.verdict),
                class: last.verdict.class(),
                took_ms: super::ms(last.took),
                ago_ms: u64::try_from(self.now.duration_since(last.ended).as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}
