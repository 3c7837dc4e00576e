//! Reaching an endpoint: a socket, a source address where the cluster has some, a connect with its deadline.

use super::{Link, Owner, Phase, queue, settle};
use crate::cluster::exhausted::{Pair, SourceId};
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::Refusal;
use crate::io::{Address, Errno, Family, Fd, Io, Kind, Mono, PortRange, SocketAddress, SocketOption};
use crate::limits;
use crate::spec::{ClusterId, EndpointId};
use crate::stream::Stream;
use crate::table::Id;
use std::net::IpAddr;
use std::time::Duration;

/// Begins a connect for `owner`. The link takes one of the endpoint's `max_connections`, and returns it when it closes.
pub fn begin(
    core: &mut Core,
    io: &mut impl Io,
    (cluster, endpoint): (ClusterId, EndpointId),
    owner: Owner,
    timeout: Duration,
) -> Result<Id<Link>, Refusal> {
    if !core.cluster_mut(cluster).is_some_and(|runtime| runtime.state.open_link(endpoint)) {
        return Err(Refusal::EndpointsFull);
    }
    let begun = open(core, io, (cluster, endpoint), owner, timeout);
    if begun.is_err() {
        queue::close_link(core, cluster, endpoint);
    }
    begun
}

/// A socket, a slot, and the connect.
fn open(
    core: &mut Core,
    io: &mut impl Io,
    (cluster, endpoint): (ClusterId, EndpointId),
    owner: Owner,
    timeout: Duration,
) -> Result<Id<Link>, Refusal> {
    let now = core.clock.mono;
    let Some(spec) = core.snapshot.cluster(cluster) else { return Err(Refusal::NoEndpoint) };
    let Some(address) = spec.endpoints.get(usize::from(endpoint.0)).map(|e| e.address.clone()) else {
        return Err(Refusal::NoEndpoint);
    };
    let (ports, bound) = (spec.source_addresses.ports, !spec.source_addresses.ranges.is_empty());
    let dead_peer = spec.dead_peer;
    let range = crowded(core, cluster, endpoint, address.family());
    // Before a socket is made: where no port is free, refusing must cost next to nothing.
    let family = address.family();
    let source = next_source(core, cluster, endpoint, family).ok_or(Refusal::PortsExhausted)?;
    let fd = socket(io, family, ports, bound)?;
    // A kernel without the option searches as it always does.
    let crowded = range.is_some_and(|range| search_in(io, fd, window(core, range)).is_ok());
    if family != Family::Unix {
        // Without it a vanished endpoint is found late, by the deadlines alone.
        let _ = io.set_option(fd, SocketOption::DeadPeer(dead_peer));
    }
    let Some(source) = bind(core, io, fd, (cluster, endpoint), family, source) else {
        io.discard(fd);
        return Err(Refusal::PortsExhausted);
    };
    let link = Link {
        stream: Stream::new(fd),
        phase: Phase::Connecting,
        cluster,
        endpoint,
        owner,
        deadlines: Deadlines::reading_by(now, now.after(timeout)),
        local: None,
        source,
        windows: if crowded { limits::PORT_WINDOWS } else { 0 },
        requests: 1,
        wrote: false,
        private: false,
        newer: None,
        older: None,
    };
    let Ok(id) = core.links.insert(link) else {
        // As many links as the table holds: as good as out of descriptors. Nothing is in flight on the new one.
        core.exhausted.end(Pair { cluster, endpoint, source }, now);
        io.discard(fd);
        return Err(Refusal::DescriptorsExhausted);
    };
    core.stats.connects.add(1);
    if let Some(counts) = core.of_cluster(cluster).and_then(|counts| counts.endpoint(endpoint)) {
        counts.connects.add(1);
    }
    if let Some(link) = core.links.get_mut(id) {
        link.stream.connect(io, &address, id.token(Kind::LinkConnect));
    }
    settle(core, id);
    Ok(id)
}

/// A socket of a family, from these ports, which will be bound to an address or not.
fn socket(
    io: &mut impl Io,
    family: Family,
    ports: Option<PortRange>,
    will_be_bound: bool,
) -> Result<Fd, Refusal> {
    let fd = io.socket(family).map_err(refusal_of)?;
    if family == Family::Unix {
        return Ok(fd);
    }
    // A missing NODELAY costs latency, not correctness.
    let _ = io.set_option(fd, SocketOption::NoDelay);
    if let Some(ports) = ports {
        // The plane made sure that this kernel knows it, and control that the range is one.
        let _ = io.set_option(fd, SocketOption::LocalPorts(ports));
    }
    if will_be_bound {
        // Without this option every bind would take a port of its own out of the range, for all destinations at once.
        let _ = io.set_option(fd, SocketOption::BindAddressNoPort);
    }
    Ok(fd)
}

/// The ports towards an endpoint, where so many are in use that free ones are looked for in windows.
fn crowded(core: &Core, cluster: ClusterId, endpoint: EndpointId, family: Family) -> Option<PortRange> {
    let state = &core.clusters.get(usize::from(cluster.0))?.as_ref()?.state;
    let open = state.shared().endpoint(endpoint)?.open_links();
    state.spec().source_addresses.crowded(open, family == Family::V6).filter(|_| family != Family::Unix)
}

/// Some neighbouring ports of a range, others each time.
fn window(core: &Core, range: PortRange) -> PortRange {
    let tries = core.stats.connects.get() + core.stats.port_windows.get();
    // Fibonacci hashing (Knuth, The Art of Computer Programming 6.4), and shards begin apart.
    let draw = (tries << 16 | u64::from(core.shard)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    core.stats.port_windows.add(1);
    range.window(limits::PORT_WINDOW, draw)
}

fn search_in(io: &mut impl Io, fd: Fd, ports: PortRange) -> Result<(), Errno> {
    io.set_option(fd, SocketOption::LocalPorts(ports))
}

/// No port was free in the window that a link searched: searches the next, in the end the whole range. False where that
/// is what it searched.
pub fn try_next_window(core: &mut Core, io: &mut impl Io, id: Id<Link>) -> bool {
    let Some(link) = core.links.get(id) else { return false };
    let (at, fd, left) = ((link.cluster, link.endpoint), link.stream.fd, link.windows.saturating_sub(1));
    if link.windows == 0 || link.phase() != Phase::Connecting {
        return false;
    }
    let Some(spec) = core.snapshot.cluster(at.0) else { return false };
    let Some(address) = spec.endpoints.get(usize::from(at.1.0)).map(|e| e.address.clone()) else {
        return false;
    };
    let Some(range) = spec.source_addresses.range else { return false };
    let ports = if left == 0 { range } else { window(core, range) };
    if search_in(io, fd, ports).is_err() {
        return false;
    }
    let Some(link) = core.links.get_mut(id) else { return false };
    link.windows = left;
    link.stream.on_connect_ended();
    link.stream.connect(io, &address, id.token(Kind::LinkConnect));
    true
}

/// A source that is not known to have no port left towards the endpoint. To a unix socket links come from nowhere.
fn next_source(
    core: &mut Core,
    cluster: ClusterId,
    endpoint: EndpointId,
    family: Family,
) -> Option<(SourceId, Option<IpAddr>)> {
    let now = core.now();
    if family == Family::Unix {
        return Some((SourceId::KERNEL, None));
    }
    let v6 = family == Family::V6;
    let Core { clusters, exhausted, .. } = core;
    let state = &clusters.get(usize::from(cluster.0))?.as_ref()?.state;
    state.next_source(v6, |source| exhausted.may_try(Pair { cluster, endpoint, source }, now))
}

/// Binds to `source`, or to the next that can be bound to; `None` where there is none.
fn bind(
    core: &mut Core,
    io: &mut impl Io,
    fd: Fd,
    (cluster, endpoint): (ClusterId, EndpointId),
    family: Family,
    mut source: (SourceId, Option<IpAddr>),
) -> Option<SourceId> {
    let now = core.now();
    for _ in 0..limits::SOURCE_TRIES {
        let pair = Pair { cluster, endpoint, source: source.0 };
        match source.1.map_or(Ok(()), |ip| io.bind(fd, &Address::Ip(SocketAddress::new(ip, 0)))) {
            Ok(()) => {
                core.exhausted.begin(pair, now);
                return Some(source.0);
            }
            Err(Errno(libc::EADDRINUSE | libc::EADDRNOTAVAIL)) => core.exhausted.add(pair, now),
            Err(_) => return None,
        }
        source = next_source(core, cluster, endpoint, family)?;
    }
    None
}

/// No port was free from the link's source (EADDRNOTAVAIL): remembers that, and connects from the next one, on the same
/// socket. False where none is left; the link's deadline bounds how long it looks for one.
pub fn try_next_source(core: &mut Core, io: &mut impl Io, id: Id<Link>) -> bool {
    let now = core.now();
    let Some(link) = core.links.get_mut(id) else { return false };
    let (pair, fd) = (link.pair(), link.stream.fd);
    core.exhausted.add(pair, now);
    core.stats.port_searches_failed.add(1);
    if link.phase() != Phase::Connecting {
        return false;
    }
    let at = (pair.cluster, pair.endpoint);
    let Some(address) = core
        .snapshot
        .cluster(at.0)
        .and_then(|c| c.endpoints.get(usize::from(at.1.0)))
        .map(|e| e.address.clone())
    else {
        return false;
    };
    let Some(source) = next_source(core, at.0, at.1, address.family()) else { return false };
    let Some(source) = bind(core, io, fd, at, address.family(), source) else { return false };
    let Some(link) = core.links.get_mut(id) else { return false };
    link.source = source;
    link.stream.connect(io, &address, id.token(Kind::LinkConnect));
    true
}

/// Which refusal a failed socket or connect earns once no endpoint is left.
pub fn refusal_of(errno: Errno) -> Refusal {
    match errno.0 {
        libc::EMFILE | libc::ENFILE => Refusal::DescriptorsExhausted,
        libc::ENOBUFS | libc::ENOMEM => Refusal::MemoryExhausted,
        libc::EADDRNOTAVAIL => Refusal::PortsExhausted,
        libc::ETIMEDOUT => Refusal::ConnectTimeout,
        _ => Refusal::ConnectFailed,
    }
}

/// The connect ended, well or not.
pub fn on_ended(core: &mut Core, io: &mut impl Io, id: Id<Link>, connected: bool) {
    let now = core.now();
    if let Some(link) = core.links.get_mut(id) {
        core.exhausted.end(link.pair(), now);
        link.stream.on_connect_ended();
        link.local = if connected { io.local_address(link.stream.fd).ok() } else { None };
        if connected && link.phase() == Phase::Connecting {
            link.enter(if let Owner::Tunnel(_) = link.owner { Phase::Tunnel } else { Phase::Leased });
            link.deadlines.read_by = Mono::MAX;
        }
    }
}
