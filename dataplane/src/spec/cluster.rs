//! A cluster: endpoints with one policy.

use super::{CircuitBreaker, ClusterId, EndpointId, Hash, Outlier, Retry, SourceAddresses, Sticky};
use crate::io::Address;
use crate::limits;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: Arc<str>,
    /// Name of a policy in `cluster::balance::POLICIES`.
    pub balance: &'static str,
    /// The turns of a cluster that is balanced by `round_robin` (`cluster::balance::cycle::table`); without them each shard
    /// makes them itself.
    pub cycle: Option<Arc<[EndpointId]>>,
    /// Of a cluster that is balanced by `hash`.
    pub hash: Option<Hash>,
    /// The cookie by which clients come back to their endpoints.
    pub sticky: Option<Sticky>,
    pub host: HostPolicy,
    pub source_addresses: SourceAddresses,
    pub endpoints: Vec<Endpoint>,
    pub timeouts: ClusterTimeouts,
    /// An endpoint that vanished from under a link is found within this (`[cluster.timeouts]`); `Duration::MAX` is off.
    pub dead_peer: Duration,
    pub pool: Pool,
    /// Those who may wait for a place, over all shards.
    pub max_queued: u32,
    /// Each link begins with a PROXY header of this version, and then belongs to one client.
    pub send_proxy: Option<SendProxy>,
    /// Second attempts; `None` is those that cost no origin anything.
    pub retry: Option<Retry>,
    /// Pass trailers on (both ways) instead of dropping them.
    pub pass_trailers: bool,
    /// Where no endpoint may be used because checks or live traffic say so, use them all the same.
    pub fail_open: bool,
    /// For so long an endpoint that came up has a share that grows, from a tenth; `Duration::ZERO` is off.
    pub slow_start: Duration,
    /// Ejecting endpoints at which live requests fail.
    pub outlier: Option<Outlier>,
    pub circuit_breaker: Option<CircuitBreaker>,
    /// No longer one of the configuration's: it is kept for what still runs at its endpoints, which are gone too.
    pub gone: bool,
    /// Endpoints are down when the shards start, until control says otherwise.
    pub starts_down: bool,
}

impl Cluster {
    /// As a configuration has it that says no more than this.
    pub fn new(id: ClusterId, name: &str, endpoints: Vec<Endpoint>) -> Self {
        Self {
            id,
            name: name.into(),
            balance: "round_robin",
            cycle: None,
            hash: None,
            sticky: None,
            host: HostPolicy::Pass,
            source_addresses: SourceAddresses::default(),
            endpoints,
            timeouts: ClusterTimeouts {
                connect: limits::CONNECT_TIMEOUT.default,
                response_header: limits::RESPONSE_HEADER_TIMEOUT.default,
                response_body: limits::RESPONSE_BODY_TIMEOUT.default,
                send: limits::SEND_TIMEOUT.default,
                queue: limits::QUEUE_TIMEOUT.default,
            },
            dead_peer: limits::DEAD_PEER.default,
            pool: Pool {
                idle: u32::try_from(limits::POOL_IDLE.default).unwrap_or(u32::MAX),
                idle_timeout: limits::POOL_IDLE_TIMEOUT.default,
                requests_per_connection: limits::REQUESTS_PER_CONNECTION.default,
            },
            max_queued: u32::try_from(limits::MAX_QUEUED.default).unwrap_or(u32::MAX),
            send_proxy: None,
            pass_trailers: false,
            fail_open: false,
            retry: None,
            slow_start: Duration::ZERO,
            outlier: None,
            circuit_breaker: None,
            gone: false,
            starts_down: false,
        }
    }

    /// The endpoints that are there: not those of which only the id is left.
    pub fn present(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| !endpoint.gone)
    }
    /// Whether an endpoint is there.
    pub fn has(&self, id: EndpointId) -> bool {
        self.endpoints.get(usize::from(id.0)).is_some_and(|endpoint| !endpoint.gone)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub name: Arc<str>,
    pub address: Address,
    /// `address` as a Host, for `HostPolicy::Endpoint`; "localhost" of a unix socket.
    pub authority: Arc<str>,
    /// 0 takes nothing.
    pub weight: u32,
    /// Open links, idle ones included, over all shards; `u32::MAX` is none.
    pub max_connections: u32,
    /// Running requests, over all shards; `u32::MAX` is none.
    pub max_requests: u32,
    /// Its tier: used while no endpoint of a lower number may be.
    pub priority: u8,
    /// No longer one of the cluster's, and without weight: it is kept for the links and requests that it still has.
    pub gone: bool,
}

impl Endpoint {
    /// As a configuration has it that says no more than this.
    pub fn new(id: EndpointId, name: &str, address: Address) -> Self {
        Self {
            id,
            name: name.into(),
            authority: match &address {
                Address::Ip(address) => address.to_string().into(),
                // A path is no Host (RFC 9110 4.2.1).
                Address::Unix(_) => "localhost".into(),
            },
            address,
            weight: 1,
            max_connections: u32::MAX,
            max_requests: u32::MAX,
            priority: 0,
            gone: false,
        }
    }
}

/// What Host the origin is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    Pass,
    /// The endpoint's address.
    Endpoint,
    Name(Arc<str>),
}

/// The version of the PROXY header that links begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxy {
    V1,
    V2,
}

/// `[cluster.timeouts]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTimeouts {
    pub connect: Duration,
    pub response_header: Duration,
    /// Between two pieces of a response body.
    pub response_body: Duration,
    pub send: Duration,
    /// To wait for a place while every endpoint is full; 0 is refused at once.
    pub queue: Duration,
}

/// `[cluster.pool]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Idle links kept, over all shards; 0 closes each link after its exchange.
    pub idle: u32,
    pub idle_timeout: Duration,
    /// Requests on one link; `u64::MAX` is unlimited.
    pub requests_per_connection: u64,
}
