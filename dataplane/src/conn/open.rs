//! The first moments of a conn: a slot, a place among the listener's connections, the first recv.

use super::preface::{self, Entry};
use super::{Conn, Ends, Phase, close, deadline, reply, tcp};
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::{CloseReason, Refusal};
use crate::io::{Expect, Fd, Io, Kind};
use crate::spec::{ListenerId, Protocol};
use crate::stream::Stream;

/// A descriptor was accepted, and counted into this shard's load; `leaves` if its listener is gone, or no longer listens there.
pub fn accept(core: &mut Core, io: &mut impl Io, listener: ListenerId, fd: Fd, leaves: bool) {
    let now = core.now();
    let Some(spec) = core.snapshot.listener(listener) else { return discard(core, io, fd) };
    let leaves = leaves || spec.is_gone() || core.drains.of(listener).is_some();
    let (max_connections, request_header) = (spec.max_connections, spec.timeouts.request_header);
    let protocol = spec.protocol;
    // An error means that the client is gone again (ENOTCONN).
    let Ok(peer) = io.peer_address(fd) else { return discard(core, io, fd) };
    let entry = preface::entry(spec, &core.routes, peer);
    let shared = core.shared.listeners.get(usize::from(listener.0)).and_then(Option::as_ref);
    let counted = shared.is_some_and(|s| s.try_open(max_connections));
    if let Some(listener) = core.of_listener(listener) {
        listener.connections.add(1);
    }
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
        return discard(core, io, fd);
    };
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

/// Closes a descriptor that gets no conn.
fn discard(core: &Core, io: &mut impl Io, fd: Fd) {
    core.stats.close(CloseReason::ListenerFull).add(1);
    core.shared.loads.close(core.shard);
    io.discard(fd);
}
