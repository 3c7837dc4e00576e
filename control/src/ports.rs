//! The machine's local ports, and a warning while those towards an endpoint run short.

use dataplane::cluster::capacity::{Capacity, LocalPorts};
use dataplane::io::PortRange;
use dataplane::limits::{PORTS_CALM_PERCENT, PORTS_WARN_PERCENT, SOURCE_CHECKS};
use dataplane::spec::{Cluster, ClusterId, EndpointId, Snapshot, SourceAddresses};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
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

/// Which source addresses are this machine's, as a bind tells: of so many looks, beyond which they are taken to be.
#[derive(Debug)]
pub(crate) struct SourceChecks {
    is_source: fn(IpAddr) -> bool,
    left: u64,
    /// Of each cluster whose addresses were looked at, how many are not the machine's, of IPv4 and of IPv6.
    strangers: BTreeMap<(ClusterId, bool), u64>,
}

impl SourceChecks {
    pub(crate) fn new(is_source: fn(IpAddr) -> bool) -> Self {
        Self { is_source, left: SOURCE_CHECKS, strangers: BTreeMap::new() }
    }

    /// [`Capacity::of`], without the source addresses that no link can come from.
    pub(crate) fn capacity(&mut self, cluster: &Cluster, v6: bool, ports: &LocalPorts) -> Option<Capacity> {
        let mut capacity = Capacity::of(cluster, v6, ports)?;
        let (is_source, left) = (self.is_source, &mut self.left);
        let strangers = self
            .strangers
            .entry((cluster.id, v6))
            .or_insert_with(|| count_strangers(&cluster.source_addresses, v6, left, is_source));
        capacity.addresses = capacity.addresses.saturating_sub(*strangers);
        Some(capacity)
    }
}

/// Addresses of a family that are not this machine's, in their order, of as many as there are looks `left`.
pub(crate) fn strangers(
    pool: &SourceAddresses,
    v6: bool,
    left: &mut u64,
    is_source: fn(IpAddr) -> bool,
) -> impl Iterator<Item = IpAddr> {
    let looks = pool.count(v6).min(*left);
    *left -= looks;
    (0..looks).filter_map(move |n| pool.at(n, v6)).filter(move |ip| !is_source(*ip))
}

/// One that is named twice is not counted twice.
fn count_strangers(pool: &SourceAddresses, v6: bool, left: &mut u64, is_source: fn(IpAddr) -> bool) -> u64 {
    let different: BTreeSet<_> = strangers(pool, v6, left, is_source).collect();
    u64::try_from(different.len()).unwrap_or(u64::MAX)
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
        // Where no address is there yet, nothing is used: that is told by the file's warnings.
        if used == 0 && !self.short {
            return None;
        }
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
    sources: SourceChecks,
    /// In the order of the snapshot, so of their ids.
    endpoints: Vec<Watched>,
}

impl PortWatch {
    /// Where `machine` is not known nothing is watched.
    pub(crate) fn new(
        snapshot: &Snapshot,
        machine: Option<LocalPorts>,
        is_source: fn(IpAddr) -> bool,
    ) -> Self {
        let mut watch = Self { machine, sources: SourceChecks::new(is_source), endpoints: Vec::new() };
        watch.follow(snapshot);
        watch
    }

    /// Watches the endpoints of `snapshot` from now on; of those that were watched before, a warning stands as it stood.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        self.sources = SourceChecks::new(self.sources.is_source);
        self.follow_endpoints(snapshot);
    }

    /// The same where endpoints alone came and went: source addresses are not tried again.
    pub(crate) fn follow_endpoints(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.endpoints);
        before.retain(|watched| watched.short);
        let checks = &mut self.sources;
        let known = self
            .machine
            .iter()
            .flat_map(|machine| snapshot.clusters.iter().flatten().map(move |cluster| (machine, cluster)));
        let pairs = known.flat_map(|(machine, cluster)| {
            let mut capacity =
                |v6| checks.capacity(cluster, v6, machine).map(|capacity| capacity.per_destination());
            let of_family = [capacity(false), capacity(true)];
            cluster.present().map(move |endpoint| (cluster, endpoint, of_family))
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
    use crate::config::{self, Environment};

    #[test]
    fn addresses_that_are_not_the_machines_have_no_ports() {
        const FILE: &str = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n\
            [[cluster]]\nname = \"app\"\nendpoints = [\"192.0.2.1:80\"]\n\
            source_addresses = [\"127.0.0.1-127.0.0.3\", \"192.0.2.7\", \"192.0.2.7-192.0.2.9\"]\n";
        let loaded = config::parse(FILE, "x", &Environment::of_tests()).unwrap();
        let ports = LocalPorts::parse("40000 40999", "").unwrap();
        let watch = PortWatch::new(&loaded.snapshot, Some(ports.clone()), |ip| ip.is_loopback());
        assert_eq!(watch.capacity(ClusterId(0), EndpointId(0)), Some(3000));
        let watch = PortWatch::new(&loaded.snapshot, Some(ports), |_| true);
        assert_eq!(watch.capacity(ClusterId(0), EndpointId(0)), Some(6000));
    }

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
        watched.capacity = 0;
        assert_eq!(watched.note(0), None, "no address is there yet");
        watched.capacity = 50;
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
