//! The whole configuration as the shards use it: checked, with defaults applied, immutable (invariant 11).
//!
//! control builds it; nothing here knows TOML or serde. Every object is an `Arc`, so that what a reload did not change
//! is pointer-equal in the next snapshot.

pub mod balance;
pub mod cluster;
pub mod drain;
pub mod failures;
pub mod listener;
pub mod pattern;
pub mod retry;
pub mod route;
pub mod source;
pub mod statuses;
pub mod sticky;
pub mod tracing;

pub use balance::{Hash, HashOn};
pub use cluster::{Cluster, ClusterTimeouts, Endpoint, HostPolicy, Pool, SendProxy};
pub use drain::{Curve, Drains, Order, Reason};
pub use failures::{BreakerOf, CircuitBreaker, Outlier};
pub use listener::{
    Forwarded, ForwardedMode, Limits, ListenAddress, Listener, Network, Protocol, ProxyProtocol, Steer,
    Timeouts,
};
pub use pattern::{NoPattern, Pattern};
pub use retry::{HedgeAfter, Retry, RetryOn};
pub use route::{
    Action, Available, BodyForm, ErrorPage, ErrorPages, FieldMatch, Maintenance, Match, Page, Redirect,
    Reply, Route, Routes, Template, TemplatePart, TextMatch, Variable,
};
pub use source::SourceAddresses;
pub use statuses::Statuses;
pub use sticky::{Sticky, StickyValue};
pub use tracing::Tracing;

use std::sync::Arc;
use std::time::Duration;

/// Small ids given by control, never reused while anything refers to them. Each indexes the snapshot's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u16);
/// An endpoint's place in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// A switch that control turns while the snapshot stays: one of `Maintenance`. Numbered from 0 without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchId(pub u16);

/// What concerns the process as a whole.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Shards to start: one pinned thread each.
    pub shards: u16,
    /// This process's pseudonym in Via, and the front of every request id.
    pub node: Arc<str>,
    pub drain_timeout: Duration,
}

/// The whole configuration. Tables are indexed by the ids above; a hole is an object that is gone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub runtime: Runtime,
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// In file order: the first whose match holds takes the request.
    pub routes: Routes,
    pub clusters: Vec<Option<Arc<Cluster>>>,
    /// `None`: no request is recorded as a span.
    pub tracing: Option<Tracing>,
}

impl Snapshot {
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        self.listeners.get(usize::from(id.0)).and_then(Option::as_ref)
    }
    /// The listener of that name: the one of the configuration, or else one that is gone.
    pub fn listener_called(&self, name: &str) -> Option<&Arc<Listener>> {
        let called = || self.listeners.iter().flatten().filter(|listener| *listener.name == *name);
        called().find(|listener| !listener.is_gone()).or_else(|| called().next())
    }
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(usize::from(id.0)).and_then(Option::as_ref)
    }
}
