//! A cluster: endpoints with one policy.

use super::{ClusterId, EndpointId, SourceAddresses};
use crate::io::Address;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: Arc<str>,
    /// Name of a policy in `cluster::balance::POLICIES`.
    pub balance: &'static str,
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
    /// Pass trailers on (both ways) instead of dropping them.
    pub pass_trailers: bool,
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
