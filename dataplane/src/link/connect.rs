//! Reaching an endpoint: a socket, a source address where the cluster has some, a connect with its deadline.

use super::{Link, Owner, Phase, settle};
use crate::cluster::ClusterState;
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::Refusal;
use crate::io::{Errno, Family, Fd, Io, Kind, Mono, SocketAddress, SocketOption};
use crate::spec::{ClusterId, EndpointId};
use crate::stream::Stream;
use crate::table::Id;
use std::time::Duration;

/// How many source addresses are tried for one connect before the cluster counts as out of ports.
const SOURCE_TRIES: u32 = 8;

/// Begins a connect for `owner`. The link takes one of the endpoint's `max_connections`, and returns it when it closes.
pub fn begin(
    core: &mut Core,
    io: &mut impl Io,
    (cluster, endpoint): (ClusterId, EndpointId),
    owner: Owner,
    timeout: Duration,
) -> Result<Id<Link>, Refusal> {
    let now = core.clock.mono;
    let Some(runtime) = core.cluster_mut(cluster) else { return Err(Refusal::NoEndpoint) };
    let Some(address) = runtime.state.spec().endpoints.get(usize::from(endpoint.0)).map(|e| e.address) else {
        return Err(Refusal::NoEndpoint);
    };
    if !runtime.state.open_link(endpoint) {
        return Err(Refusal::EndpointsFull);
    }
    let fd = match socket(&runtime.state, io, address) {
        Ok(fd) => fd,
        Err(refusal) => {
            runtime.state.close_link(endpoint);
            return Err(refusal);
        }
    };
    let link = Link {
        stream: Stream::new(fd),
        phase: Phase::Connecting,
        cluster,
        endpoint,
        owner,
        deadlines: Deadlines::reading_by(now.after(timeout)),
        local: None,
        requests: 1,
        wrote: false,
        newer: None,
        older: None,
    };
    let Ok(id) = core.links.insert(link) else {
        // As many links as the table holds: as good as out of descriptors. Nothing is in flight on the new one.
        io.discard(fd);
        if let Some(runtime) = core.cluster_mut(cluster) {
            runtime.state.close_link(endpoint);
        }
        return Err(Refusal::DescriptorsExhausted);
    };
    core.stats.connects.add(1);
    if let Some(link) = core.links.get_mut(id) {
        link.stream.connect(io, &address, id.token(Kind::LinkConnect));
    }
    settle(core, id);
    Ok(id)
}

/// A socket towards `to`, bound to the next source address of the cluster where it has some.
fn socket(state: &ClusterState, io: &mut impl Io, to: SocketAddress) -> Result<Fd, Refusal> {
    let family = if to.is_v6() { Family::V6 } else { Family::V4 };
    let fd = io.socket(family).map_err(refusal_of)?;
    // A missing NODELAY costs latency, not correctness.
    let _ = io.set_option(fd, SocketOption::NoDelay);
    // Without it a vanished endpoint is found late, by the deadlines alone.
    let _ = io.set_option(fd, SocketOption::DeadPeer(state.spec().dead_peer));
    for _ in 0..SOURCE_TRIES {
        let Some(source) = state.next_source(to.is_v6()) else { return Ok(fd) };
        // Without this option every bind would take a port of its own out of the range, for all destinations at once.
        let _ = io.set_option(fd, SocketOption::BindAddressNoPort);
        match io.bind(fd, &SocketAddress::new(source, 0)) {
            Ok(()) => return Ok(fd),
            Err(Errno(libc::EADDRINUSE | libc::EADDRNOTAVAIL)) => {}
            Err(_) => break,
        }
    }
    io.discard(fd);
    Err(Refusal::PortsExhausted)
}

/// Which refusal a failed socket or connect earns once no endpoint is left.
pub fn refusal_of(errno: Errno) -> Refusal {
    match errno.0 {
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Refusal::DescriptorsExhausted,
        libc::EADDRNOTAVAIL => Refusal::PortsExhausted,
        libc::ETIMEDOUT => Refusal::ConnectTimeout,
        _ => Refusal::ConnectFailed,
    }
}

/// The connect ended, well or not.
pub fn on_ended(core: &mut Core, io: &mut impl Io, id: Id<Link>, connected: bool) {
    if let Some(link) = core.links.get_mut(id) {
        link.stream.on_connect_ended();
        link.local = if connected { io.local_address(link.stream.fd).ok() } else { None };
        if connected && link.phase() == Phase::Connecting {
            link.enter(if let Owner::Tunnel(_) = link.owner { Phase::Tunnel } else { Phase::Leased });
            link.deadlines.read_by = Mono::MAX;
        }
    }
}
