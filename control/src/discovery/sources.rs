//! Where the endpoints of a cluster come from, as its configuration says.

use dataplane::spec::{Cluster, Endpoint, StickyValue};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What resolvers are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// The addresses of a host (A and AAAA), each with this port.
    Host { name: Arc<str>, port: u16 },
    /// The targets of a service (SRV, RFC 2782), and their addresses.
    Service(Arc<str>),
}

/// As the configuration writes it.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
        }
    }
}

/// One of a cluster's `endpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name, weight and limits; its address too, unless there is a query for it.
    pub endpoint: Endpoint,
    pub query: Option<Query>,
}

/// The sources of a cluster that has others than addresses.
#[derive(Clone, PartialEq, Default)]
pub struct Sources {
    /// `endpoints`, in the order of the configuration.
    pub entries: Vec<Entry>,
    /// `endpoints_file`.
    pub file: Option<PathBuf>,
    /// What the values of its cookie are made with, if it has one.
    pub(crate) sticky_key: Option<Vec<u8>>,
}

impl Sources {
    /// Those of a cluster whose endpoints are all written down.
    pub(crate) fn plain(cluster: &Cluster) -> Self {
        let entry = |endpoint: &Endpoint| Entry { endpoint: endpoint.clone(), query: None };
        Self { entries: cluster.present().map(entry).collect(), file: None, sticky_key: None }
    }
    /// The entries that ask for a name, by their place.
    pub fn queries(&self) -> impl Iterator<Item = (usize, &Query)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| Some((at, entry.query.as_ref()?)))
    }
    /// Nothing leads to an endpoint, and nothing ever will.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.file.is_none()
    }
    /// What the cookie says of an endpoint.
    pub(crate) fn sticky_value(&self, name: &str) -> StickyValue {
        crate::config::sticky_value(self.sticky_key.as_deref().unwrap_or_default(), name)
    }
}

/// Without the key, which is a secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("entries", &self.entries)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
