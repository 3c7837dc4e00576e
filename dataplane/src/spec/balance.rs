//! What a cluster's policy needs beside its name.

use super::EndpointId;
use std::sync::Arc;

/// What a hash is taken of. A request that has none of it is hashed by its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    Source,
    /// Path and query, as they are forwarded.
    Uri,
    /// The first value of the field of this name, which is in lower case.
    Header(Arc<str>),
    /// The first value of this cookie.
    Cookie(Arc<str>),
}

/// Of a cluster whose policy is `hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    pub on: HashOn,
    /// Percent of the mean load that an endpoint may have, for its weight; `u32::MAX` is no bound.
    pub bounded_load: u32,
    /// Whose each slot is: `cluster::balance::maglev::table` of the cluster's endpoints. Built once, read by all shards.
    pub table: Arc<[EndpointId]>,
}

impl Hash {
    /// Whether endpoints are held to a share of the load.
    pub fn is_bounded(&self) -> bool {
        self.bounded_load != u32::MAX
    }
}
