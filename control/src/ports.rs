//! The machine's local ports, and a warning while those towards an endpoint run short.

use dataplane::cluster::capacity::{Capacity, LocalPorts};
use dataplane::io::PortRange;
use dataplane::limits::{PORTS_CALM_PERCENT, PORTS_WARN_PERCENT};
use dataplane::spec::{ClusterId, EndpointId, Snapshot};
use std::sync::Arc;

/// The machine's ports as its sysctls say; `None` where they cannot be read.
pub fn of_machine() -> Option<LocalPorts> {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    LocalPorts::parse(
        &read("ip_local_port_range").ok()?,
        &read("ip_local_reserved_ports").unwrap_or_default(),
    )
}

/// net.ipv4.ip_local_port_range, where it can be read.
pub fn range_of_machine() -> Option<PortRange> {
    let (first, last) = of_machine()?.ends();
    PortRange::new(first.max(1), last)
}

/// One endpoint and the links that local ports allow to it.
#[derive(Debug)]
struct Watched {
    cluster: ClusterId,
    endpoint: EndpointId,
    cluster_name: Arc<str>,
    endpoint_name: Arc<str>,
    capacity: u64,
    short: bool,
}

/// What changed about an endpoint's ports.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// From below `PORTS_WARN_PERCENT` to that or more.
    Short,
    /// Below `PORTS_CALM_PERCENT` again.
    Enough,
}

impl Watched {
    /// Takes note of the links that are open now.
    fn note(&mut self, used: u64) -> Option<Change> {
        let percent = used.saturating_mul(100).checked_div(self.capacity).unwrap_or(u64::MAX);
        let change = match self.short {
            false if percent >= PORTS_WARN_PERCENT => Change::Short,
            true if percent < PORTS_CALM_PERCENT => Change::Enough,
            _ => return None,
        };
        self.short = change == Change::Short;
        Some(change)
    }
}

/// Compares the open links of each endpoint with what local ports allow, and says once when they run short and once when
/// they no longer do. Others' sockets and those in TIME_WAIT hold ports too and are not seen here.
#[derive(Debug)]
pub(crate) struct PortWatch {
    machine: Option<LocalPorts>,
    /// In the order of the snapshot, so of their ids.
    endpoints: Vec<Watched>,
}

impl PortWatch {
    /// Where `machine` is not known nothing is watched.
    pub(crate) fn new(snapshot: &Snapshot, machine: Option<LocalPorts>) -> Self {
        let mut watch = Self { machine, endpoints: Vec::new() };
        watch.follow(snapshot);
        watch
    }

    /// Watches the endpoints of `snapshot` from now on; of those that were watched before, a warning stands as it stood.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.endpoints);
        before.retain(|watched| watched.short);
        let pairs = self.machine.iter().flat_map(|machine| {
            snapshot.clusters.iter().flatten().flat_map(move |cluster| {
                let capacity = |v6| Capacity::of(cluster, v6, machine).map(|c| c.per_destination());
                let of_family = [capacity(false), capacity(true)];
                cluster.present().map(move |endpoint| (cluster, endpoint, of_family))
            })
        });
        let endpoints = pairs.filter_map(|(cluster, endpoint, of_family)| {
            Some(Watched {
                cluster: cluster.id,
                endpoint: endpoint.id,
                cluster_name: Arc::clone(&cluster.name),
                endpoint_name: Arc::clone(&endpoint.name),
                capacity: of_family[usize::from(endpoint.address.as_ip()?.is_v6())]?,
                short: before.iter().any(|old| {
                    (old.cluster, old.endpoint, &old.endpoint_name)
                        == (cluster.id, endpoint.id, &endpoint.name)
                }),
            })
        });
        self.endpoints = endpoints.collect();
    }

    /// Links that local ports allow to an endpoint; `None` where there are none to count.
    pub(crate) fn capacity(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<u64> {
        let key = |watched: &Watched| (watched.cluster, watched.endpoint);
        let at = self.endpoints.binary_search_by_key(&(cluster, endpoint), key).ok()?;
        self.endpoints.get(at).map(|watched| watched.capacity)
    }

    /// One look; `open_links` says how many links each endpoint has.
    pub(crate) fn look(&mut self, open_links: impl Fn(ClusterId, EndpointId) -> u32) {
        for watched in &mut self.endpoints {
            let used = u64::from(open_links(watched.cluster, watched.endpoint));
            let change = watched.note(used);
            let (cluster, endpoint, capacity) =
                (&*watched.cluster_name, &*watched.endpoint_name, watched.capacity);
            match change {
                Some(Change::Short) => tracing::warn!(
                    cluster,
                    endpoint,
                    used,
                    capacity,
                    "local ports run short: when all are used, requests are refused with ports_exhausted; add \
                     source_addresses or endpoints, or widen net.ipv4.ip_local_port_range"
                ),
                Some(Change::Enough) => {
                    tracing::info!(cluster, endpoint, used, capacity, "local ports no longer run short");
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_stands_from_80_percent_until_below_70() {
        let name: Arc<str> = "x".into();
        let mut watched = Watched {
            cluster: ClusterId(0),
            endpoint: EndpointId(0),
            cluster_name: Arc::clone(&name),
            endpoint_name: name,
            capacity: 50,
            short: false,
        };
        let rows = [
            (39, None),
            (40, Some(Change::Short)),
            (50, None),
            (35, None),
            (41, None),
            (34, Some(Change::Enough)),
            (39, None),
            (60, Some(Change::Short)),
        ];
        for (n, (used, change)) in rows.into_iter().enumerate() {
            assert_eq!(watched.note(used), change, "look {n}");
        }
    }
}
