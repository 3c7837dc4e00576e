//! The first moments of a conn: a slot, a place among the listener's connections, the first recv.

use super::preface::{self, Entry};
use super::{Conn, Ends, Phase, close, deadline, reply, tcp};
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::{CloseReason, Refusal};
use crate::io::{Expect, Fd, Io, Kind, SocketAddress};
use crate::spec::{ListenerId, Protocol};
use crate::stream::Stream;

/// A descriptor was accepted, and counted into this shard's load; `leaves` if its listener is gone, or no longer listens there.
pub fn accept(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd, leaves: bool) {
    let now = core.now();
    let Some(spec) = core.snapshot.listener(listener) else {
        // Gone, with everybody it had, while another shard handed this one over.
        return turn_away(core, io, (listener, fd), None, CloseReason::Drained);
    };
    let leaves = leaves || spec.is_gone() || core.drains.of(listener).is_some();
    let (max_connections, request_header) = (spec.max_connections, spec.timeouts.request_header);
    let protocol = spec.protocol;
    let Ok(peer) = io.peer_address(fd) else {
        // The client is gone again (ENOTCONN), by a reset: after a FIN it still has its address.
        return turn_away(core, io, (listener, fd), None, CloseReason::ClientReset);
    };
    let entry = preface::entry(spec, &core.routes, peer);
    let shared = core.shared.listeners.get(usize::from(listener.0)).and_then(Option::as_ref);
    let counted = shared.is_some_and(|s| s.try_open(max_connections));
    let conn = Conn {
        stream: Stream::new(fd),
        phase: Phase::Open,
        protocol,
        counted,
        ends: Ends::NOT_YET,
        hurried: !counted,
        reason: (!counted).then_some(CloseReason::ListenerFull),
        listener,
        rx: None,
        scan: Default::default(),
        exchange: None,
        tunnel: None,
        peer,
        preface: None,
        deadlines: Deadlines::reading_by(now, now.after(request_header)),
        opened: now,
        requests: 0,
        linger_left: 0,
    };
    let Ok(id) = core.conns.insert(conn) else {
        if counted
            && let Some(shared) = core.shared.listeners.get(usize::from(listener.0)).and_then(Option::as_ref)
        {
            shared.close();
        }
        return turn_away(core, io, (listener, fd), Some(peer), CloseReason::ListenerFull);
    };
    if let Some(listener) = core.of_listener(listener) {
        listener.connections.add(1);
    }
    core.stats.conns_open.set(u64::from(core.conns.len()));
    if leaves {
        let party = core.party(listener);
        core.conns.get_mut(id).into_iter().for_each(|conn| conn.ends = Ends::with(party));
    }
    match (protocol, counted, entry) {
        (Protocol::Http, false, _) => return reply::refuse(core, io, id, Refusal::ListenerFull),
        (Protocol::Tcp, false, _) => {
            core.stats.refusal(Refusal::ListenerFull).add(1);
            return close::begin(core, io, id, CloseReason::ListenerFull);
        }
        (_, true, Entry::Refused(reason)) => return preface::end(core, io, id, reason),
        (_, true, Entry::Preface(preface)) => preface::begin(core, id, preface),
        (Protocol::Tcp, true, Entry::Plain) => return tcp::open(core, io, id, None),
        (Protocol::Http, true, Entry::Plain) => {}
    }
    if let Some(conn) = core.conns.get_mut(id) {
        conn.stream.arm_recv(io, Expect::Now, id.token(Kind::ConnRecv));
    }
    if core.draining || leaves {
        deadline::on_last_chance(core, id);
    }
    deadline::settle(core, id);
}

/// No descriptor is to spare: what was accepted ends before it is counted into a shard's load.
pub fn refuse(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd) {
    let peer = io.peer_address(fd).ok();
    core.shared.loads.open(core.shard);
    turn_away(core, io, (listener, fd), peer, CloseReason::Evicted);
}

/// Closes a descriptor that gets no conn, counted as any that ends. No peer is known of one that is gone already.
fn turn_away(
    core: &mut Core,
    io: &mut impl Io,
    (listener, fd): (ListenerId, Fd),
    peer: Option<SocketAddress>,
    reason: CloseReason,
) {
    let refusal = match reason {
        CloseReason::ListenerFull => Some(Refusal::ListenerFull),
        CloseReason::Evicted => Some(Refusal::DescriptorsExhausted),
        _ => None,
    };
    refusal.into_iter().for_each(|refusal| core.stats.refusal(refusal).add(1));
    core.stats.close(reason).add(1);
    if let Some(listener) = core.of_listener(listener) {
        listener.connections.add(1);
        listener.close(reason).add(1);
    }
    tcp::on_turned_away(core, listener, peer.unwrap_or(SocketAddress::UNSPECIFIED), (reason, refusal));
    core.shared.loads.close(core.shard);
    io.discard(fd);
}
