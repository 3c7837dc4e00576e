//! What a configuration needs of the machine: descriptors, memory, ports, pipes, the right to its ports.

use super::finding::{Finding, State, bytes, grouped};
use super::machine::{Capability, Machine};
use crate::config::{self, Environment, Loaded};
use crate::ports::SourceChecks;
use dataplane::cluster::capacity::{Capacity, LocalPorts};
use dataplane::limits;
use dataplane::plane::Resources;
use dataplane::spec::{Cluster, Endpoint, ListenAddress, Listener};
use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

/// Kernel memory of one idle TCP socket, rounded up: a quarter of the 22.2 KB of slabs that an idle tunnel on loopback takes, which
/// has four ends there (docs/performance.md, a million connections). A keep-alive client's has 4.3 KB.
const SOCKET_BYTES: u64 = 5_600;
/// Our own memory for one idle connection, client's or link's, rounded up: half of a tunnel's 749 bytes (the same). A keep-alive
/// client has 243.
const STATE_BYTES: u64 = 380;
/// All leases of one shard.
const ARENA_BYTES: u64 = (limits::POOL_TINY as u64) * (limits::LEASE_TINY_BYTES as u64)
    + (limits::POOL_SMALL as u64) * (limits::LEASE_SMALL_BYTES as u64)
    + (limits::POOL_LARGE as u64) * (limits::LEASE_LARGE_BYTES as u64);
/// Pages are of this size wherever ringway runs.
const PAGE_BYTES: u64 = 4096;

const CONNECTIONS: &str = "what the configuration asks for";
const PORTS: &str = "ports: source addresses x ports x destinations";

/// A descriptor limit that every kernel lets a service manager set: fs.nr_open, or its default.
pub(super) fn ordinary_descriptors(machine: &Machine) -> u64 {
    machine.sysctl("fs.nr_open").number().unwrap_or(1 << 20)
}

/// Everything that `loaded` needs.
pub(super) fn of(
    loaded: &Loaded,
    environment: &Environment,
    machine: &Machine,
    resources: &Resources,
) -> Vec<Finding> {
    let listeners: Vec<_> = loaded.snapshot.listeners.iter().flatten().collect();
    let clusters: Vec<_> = loaded.snapshot.clusters.iter().flatten().collect();
    let counts = Counts::of(&listeners, &clusters, environment, loaded);
    let mut findings = vec![
        asked(&counts),
        descriptors(&counts, machine, resources),
        memory(&counts, machine),
        connection_tracking(&counts, machine),
        pipes(&counts, machine),
    ];
    findings.extend(privileged_ports(&listeners, machine));
    findings.extend(ports(&listeners, &clusters, &counts, machine, environment.is_source));
    findings
}

/// Connections that the configuration lets be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Of clients, by the `max_connections` of listeners that give a number.
    clients: u64,
    /// To endpoints, by their `max_connections` where they give one.
    links: u64,
    /// Of those links, which end at a listener of this process again.
    returned: u64,
    /// Clients that can be served each with a link: what both sides ask for.
    pairs: u64,
    shards: u64,
    /// Listening sockets.
    sockets: u64,
    /// Connections of active checks.
    checks: u64,
}

impl Counts {
    fn of(
        listeners: &[&Arc<Listener>],
        clusters: &[&Arc<Cluster>],
        environment: &Environment,
        loaded: &Loaded,
    ) -> Self {
        let (shards, checks) = (loaded.snapshot.runtime.shards, loaded.check_descriptors);
        let auto = config::auto_connections(environment, checks);
        let asked = listeners.iter().map(|listener| listener.max_connections).filter(|most| *most != auto);
        let clients = asked.map(u64::from).sum();
        let endpoints = || clusters.iter().flat_map(|cluster| &cluster.endpoints);
        let limit = |endpoint: &Endpoint| match endpoint.max_connections {
            u32::MAX => 0,
            most => u64::from(most),
        };
        let own: BTreeSet<_> =
            listeners.iter().flat_map(|listener| &listener.addresses).map(ToString::to_string).collect();
        let links = endpoints().map(limit).sum();
        let returned =
            endpoints().filter(|endpoint| own.contains(&endpoint.address.to_string())).map(limit).sum();
        let sockets = u64::try_from(own.len()).unwrap_or(u64::MAX);
        let pairs = match u64::max(clients, links) {
            0 => u64::from(auto),
            most => most,
        };
        Self { clients, links, returned, pairs, shards: shards.into(), sockets, checks }
    }

    /// Descriptors for all of it: a client and a link each, what comes back, listening sockets and pipes of each shard,
    /// and what the process keeps for itself.
    fn descriptors(&self) -> u64 {
        let each_shard = self.sockets + 2 * u64::from(limits::PIPES);
        2 * self.pairs + self.returned + self.shards * each_shard + self.checks + limits::RESERVED_DESCRIPTORS
    }
}

fn asked(counts: &Counts) -> Finding {
    let clients = match counts.clients {
        0 => "clients as descriptors allow (what max_connections = \"auto\" comes to)".to_owned(),
        n => format!("{} clients", grouped(n)),
    };
    let links = match counts.links {
        0 => "links as they need".to_owned(),
        n => format!("{} links", grouped(n)),
    };
    let pairs = grouped(counts.pairs);
    let what =
        format!("{clients}, {links}, {} shards: up to {pairs} pairs of client and link", counts.shards);
    Finding::new(State::Note, CONNECTIONS, "connections", what)
}

fn descriptors(counts: &Counts, machine: &Machine, resources: &Resources) -> Finding {
    let (have, auto) = (resources.descriptors, counts.clients == 0 && counts.links == 0);
    let need = counts.descriptors();
    let returned = match counts.returned {
        0 => String::new(),
        n => format!(" + {} that come back to listeners of this file", grouped(n)),
    };
    let checks = match counts.checks {
        0 => String::new(),
        n => format!(" + {} of checks", grouped(n)),
    };
    let sum = format!(
        "2 x {} pairs{returned} + {} shards x ({} listening + {} of pipes){checks} + {} reserved = {}",
        grouped(counts.pairs),
        counts.shards,
        counts.sockets,
        2 * limits::PIPES,
        limits::RESERVED_DESCRIPTORS,
        grouped(need)
    );
    if auto {
        // It follows the limit, so it cannot fall short of it.
        let pairs = 2 * counts.pairs + limits::RESERVED_DESCRIPTORS + counts.checks;
        let what = format!(
            "2 x {} pairs{checks} + {} reserved = {}; {} may be open, and pipes in use ({} shards x {} at most) take the place of pairs",
            grouped(counts.pairs),
            limits::RESERVED_DESCRIPTORS,
            grouped(pairs),
            grouped(have),
            counts.shards,
            2 * limits::PIPES,
        );
        return Finding::new(State::Good, CONNECTIONS, "descriptors", what);
    }
    if have >= need {
        return Finding::new(
            State::Good,
            CONNECTIONS,
            "descriptors",
            format!("{sum}; {} may be open", grouped(have)),
        );
    }
    let nr_open = ordinary_descriptors(machine);
    let first = if need > nr_open { format!("sysctl -w fs.nr_open={need}, then ") } else { String::new() };
    let file_max = machine.sysctl("fs.file-max").number().filter(|max| *max < need);
    let second = file_max.map_or_else(String::new, |_| format!("sysctl -w fs.file-max={need}, then "));
    Finding::new(
        State::Short,
        CONNECTIONS,
        "descriptors",
        format!("{sum}, but only {} may be open", grouped(have)),
    )
    .mend(format!("{first}{second}ulimit -n {need} (systemd: LimitNOFILE={need})"))
}

/// Idle connections, and all buffers at once. What the kernel queues for slow peers comes on top: see tcp_notsent_lowat.
fn memory(counts: &Counts, machine: &Machine) -> Finding {
    let sockets = 2 * counts.pairs + counts.returned;
    let idle = sockets * (SOCKET_BYTES + STATE_BYTES);
    let buffers = counts.shards * ARENA_BYTES;
    let sum = format!(
        "{} connections x ({} of the kernel + {} of ours) = {} while they wait, and at most {} shards x {} of buffers",
        grouped(sockets),
        bytes(SOCKET_BYTES),
        bytes(STATE_BYTES),
        bytes(idle),
        counts.shards,
        bytes(ARENA_BYTES)
    );
    let found = |state, what| Finding::new(state, CONNECTIONS, "memory", what);
    match machine.memory() {
        Some(have) if idle + buffers > have => {
            found(State::Short, format!("{sum}; there is {}", bytes(have)))
                .mend("more memory, or a lower max_connections of the listeners")
        }
        Some(have) => found(State::Good, format!("{sum}; there is {}", bytes(have))),
        None => found(State::Note, sum),
    }
}

fn connection_tracking(counts: &Counts, machine: &Machine) -> Finding {
    const KEY: &str = "net.netfilter.nf_conntrack_max";
    let found = |state, what: String| Finding::new(state, CONNECTIONS, "connection tracking", what);
    let Some(most) = machine.sysctl(KEY).number() else {
        return found(State::Good, "no connection tracking, so no table of it to overflow".to_owned());
    };
    let need = 2 * counts.pairs;
    let what = format!("{} entries, one for each connection; {KEY} is {}", grouped(need), grouped(most));
    match most >= need {
        true => found(State::Good, what),
        false => found(State::Short, format!("{what}, and beyond it packets are dropped"))
            .mend(format!("sysctl -w {KEY}={need}, or a notrack rule for the proxy's ports")),
    }
}

/// Bulk flows use pipes of 1 MiB as long as their user may have so many pages of them (pipe(7)).
fn pipes(counts: &Counts, machine: &Machine) -> Finding {
    const KEY: &str = "fs.pipe-user-pages-soft";
    let pipe = u64::try_from(limits::PIPE_BYTES).unwrap_or(u64::MAX) / PAGE_BYTES;
    let need = counts.shards * u64::from(limits::PIPES) * pipe;
    let what = format!(
        "{} shards x {} pipes x {pipe} pages = {} pages for splicing",
        counts.shards,
        limits::PIPES,
        grouped(need)
    );
    let found = |state, what: String| Finding::new(state, CONNECTIONS, "pipes", what);
    if machine.may(Capability::SysResource) || machine.may(Capability::SysAdmin) {
        return found(State::Good, format!("{what}; this user is privileged, to whom {KEY} does not apply"));
    }
    match machine.sysctl(KEY).number() {
        Some(most) if most == 0 || most >= need => {
            found(State::Good, format!("{what}; {KEY} is {}", grouped(most)))
        }
        Some(most) => {
            found(State::Short, format!("{what}; {KEY} is {}, and later pipes are smaller", grouped(most)))
                .mend(format!("sysctl -w {KEY}={need}"))
        }
        None => found(State::Note, format!("{what}; {KEY} cannot be read")),
    }
}

fn privileged_ports(listeners: &[&Arc<Listener>], machine: &Machine) -> Vec<Finding> {
    const KEY: &str = "net.ipv4.ip_unprivileged_port_start";
    let first = machine.sysctl(KEY).number().unwrap_or(1024);
    if machine.may(Capability::NetBindService) {
        return Vec::new();
    }
    let low = |port: u16| port > 0 && u64::from(port) < first;
    let addresses =
        listeners.iter().flat_map(|l| l.addresses.iter().filter_map(move |a| Some((l, a.as_ip()?))));
    addresses
        .filter(|(_, address)| low(address.port()))
        .map(|(listener, address)| {
            let what = format!("{address} is below {first}, and this process may not bind such ports");
            let mend = format!("CAP_NET_BIND_SERVICE, or sysctl -w {KEY}={}", address.port());
            Finding::new(State::Short, CONNECTIONS, format!("listener {}", listener.name), what).mend(mend)
        })
        .collect()
}

fn ports(
    listeners: &[&Arc<Listener>],
    clusters: &[&Arc<Cluster>],
    counts: &Counts,
    machine: &Machine,
    is_source: fn(IpAddr) -> bool,
) -> Vec<Finding> {
    let range = machine.sysctl("net.ipv4.ip_local_port_range");
    let reserved = machine.sysctl("net.ipv4.ip_local_reserved_ports");
    let range =
        range.value().and_then(|range| LocalPorts::parse(range, reserved.value().unwrap_or_default()));
    let Some(range) = range else {
        let what = "net.ipv4.ip_local_port_range cannot be read, so nothing is known of ports";
        return vec![Finding::new(State::Short, PORTS, "ip_local_port_range", what)];
    };
    let mut findings = Vec::new();
    let mut checks = SourceChecks::new(is_source);
    for cluster in clusters {
        for v6 in [false, true] {
            let capacity = checks.capacity(cluster, v6, &range);
            findings.extend(capacity.map(|capacity| links(cluster, v6, capacity, counts)));
        }
    }
    findings.extend(clusters.iter().flat_map(|cluster| missing(cluster)));
    findings.extend(stolen(listeners, clusters, &range, reserved.value().unwrap_or_default()));
    findings
}

/// Whether the ports suffice for the links that a cluster may have.
fn links(cluster: &Cluster, v6: bool, capacity: Capacity, counts: &Counts) -> Finding {
    let Capacity { addresses, ports, destinations } = capacity;
    let (each, all) = (capacity.per_destination(), capacity.links());
    let endpoints = || {
        cluster.endpoints.iter().filter(|endpoint| endpoint.address.as_ip().is_some_and(|a| a.is_v6() == v6))
    };
    let limited: u64 = endpoints().map(|e| u64::from(e.max_connections).min(each)).sum();
    let capped = if limited < all {
        format!("; max_connections makes that {}", grouped(limited))
    } else {
        String::new()
    };
    let what = format!(
        "{} x {} x {} = {} links, {} to one destination{capped}",
        grouped(addresses),
        grouped(ports.into()),
        grouped(destinations),
        grouped(all),
        grouped(each)
    );
    let found = |state, what| Finding::new(state, PORTS, format!("cluster {}", cluster.name), what);
    let beyond = endpoints().find(|e| e.max_connections != u32::MAX && u64::from(e.max_connections) > each);
    let (why, wanted) = match beyond {
        Some(endpoint) => {
            let most = u64::from(endpoint.max_connections);
            (format!("endpoint {} may have {} links", endpoint.name, grouped(most)), most)
        }
        None if counts.clients > all => {
            let clients = grouped(counts.clients);
            (format!("{clients} clients may want a link each"), counts.clients.div_ceil(destinations.max(1)))
        }
        None => return found(State::Good, what),
    };
    let enough = wanted.div_ceil(u64::from(ports).max(1));
    found(State::Short, format!("{what}; {why}")).mend(format!(
        "source_addresses of {} addresses, or sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
        grouped(enough)
    ))
}

/// Source addresses that this machine does not have. Of each range the first and the last are tried, with a datagram
/// socket that sends nothing.
fn missing(cluster: &Cluster) -> Vec<Finding> {
    let ends = cluster.source_addresses.ranges.iter().flat_map(|&(from, to)| [from, to]);
    let lacks =
        |ip: &IpAddr| UdpSocket::bind((*ip, 0)).is_err_and(|e| e.raw_os_error() == Some(libc::EADDRNOTAVAIL));
    let lacking: BTreeSet<_> = ends.filter(lacks).collect();
    let told = |ip: IpAddr| {
        let what = format!("this machine has no {ip}, so no link can come from it");
        let length = if ip.is_ipv4() { 32 } else { 128 };
        Finding::new(State::Short, PORTS, format!("source_addresses of {}", cluster.name), what)
            .mend(format!("ip address add {ip}/{length} dev INTERFACE"))
    };
    lacking.into_iter().map(told).collect()
}

/// Ports of listeners, and of endpoints on loopback, that a connecting socket may hold when their program restarts.
fn stolen(
    listeners: &[&Arc<Listener>],
    clusters: &[&Arc<Cluster>],
    range: &LocalPorts,
    reserved: &str,
) -> Option<Finding> {
    let own = listeners.iter().flat_map(|listener| &listener.addresses).filter_map(ListenAddress::as_ip);
    let endpoints = clusters
        .iter()
        .flat_map(|cluster| &cluster.endpoints)
        .filter_map(|endpoint| endpoint.address.as_ip());
    let ports = own.chain(endpoints.filter(|address| address.ip().is_some_and(|ip| ip.is_loopback())));
    let ports: BTreeSet<_> =
        ports.map(|address| address.port()).filter(|port| range.contains(*port)).collect();
    if ports.is_empty() {
        return None;
    }
    let (first, last) = range.ends();
    let list = as_ranges(&ports);
    let what = format!(
        "{list} may be taken by a connecting socket ({first} to {last}) while the program that listens there is down"
    );
    let before = if reserved.is_empty() { String::new() } else { format!("{reserved},") };
    let mend = format!("sysctl -w net.ipv4.ip_local_reserved_ports={before}{list}");
    Some(Finding::new(State::Short, PORTS, "ports that listen", what).mend(mend))
}

/// As the kernel writes a set of ports: `8080,9000-9009`.
fn as_ranges(ports: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let written =
        ranges.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    written.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
