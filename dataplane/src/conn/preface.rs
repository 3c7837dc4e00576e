//! The preface of a conn: bytes in front of its own, from a balancer before us: a PROXY header (`[listener.proxy_protocol]`).
//!
//! Whether one is awaited is settled at accept, by the address that connected; only what a listener's `from` names is ever
//! read as a header. From then on the client is who the header says it is, in every decision and every record. Whatever
//! is wrong ends the conn without an answer, since nobody knows who would read it; its close reason says why.

use super::{Conn, Phase, close, deadline, http1};
use crate::buf::{Class, Lease};
use crate::core::Core;
use crate::exchange::record;
use crate::fault::CloseReason;
use crate::io::{Expect, Io, Kind, SocketAddress};
use crate::proto::proxy_header::{self, Header, Reading, passed_on};
use crate::spec::Listener;
use crate::table::Id;

/// What only a conn with a preface has. Kept after it only where there is something to pass on.
#[derive(Debug)]
pub struct Preface {
    /// Bytes that are no header are the conn's own.
    optional: bool,
    /// Where the client connected to, as the header says.
    pub destination: Option<SocketAddress>,
    /// TLVs of the header that go on to endpoints, whole ones.
    pub tlvs: Box<[u8]>,
}

/// How a conn begins.
#[derive(Debug)]
pub(super) enum Entry {
    /// With its own bytes.
    Plain,
    Preface(Box<Preface>),
    /// Not at all.
    Refused(CloseReason),
}

/// How a conn from `peer` begins.
pub(super) fn entry(listener: &Listener, peer: SocketAddress) -> Entry {
    let Some(expected) = &listener.proxy_protocol else { return Entry::Plain };
    match (expected.from.iter().any(|network| network.contains(peer.ip())), expected.required) {
        (true, required) => {
            Entry::Preface(Box::new(Preface { optional: !required, destination: None, tlvs: Box::default() }))
        }
        (false, true) => Entry::Refused(CloseReason::ProxyPeerNotAllowed),
        (false, false) => Entry::Plain,
    }
}

/// Bytes came.
pub(super) fn on_bytes(core: &mut Core, io: &mut impl Io, id: Id<Conn>, lease: Lease) {
    if http1::hold(core, id, lease) {
        advance(core, io, id);
    } else {
        close::begin(core, io, id, CloseReason::Evicted);
    }
}

/// The peer finished sending.
pub(super) fn on_eof(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    if core.conns.get(id).is_some_and(|conn| conn.rx.is_none()) {
        return close::begin(core, io, id, CloseReason::ClientClosed);
    }
    advance(core, io, id);
}

/// Reads the header out of what is held, or waits for more.
fn advance(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Core { conns, pool, .. } = &mut *core;
    let Some(conn) = conns.get_mut(id) else { return };
    let (Some(lease), Some(preface)) = (&conn.rx, &conn.preface) else { return };
    let (optional, eof) = (preface.optional, conn.stream.is_eof());
    match proxy_header::read(pool.bytes(lease)) {
        Ok(Reading::Whole(header)) => on_header(core, io, id, &header),
        Ok(Reading::Absent) if optional => go_on(core, io, id),
        Ok(Reading::Absent) => end(core, io, id, CloseReason::ProxyHeaderMissing),
        // Nothing will come that could make it one.
        Ok(Reading::Undecided) if optional && eof => go_on(core, io, id),
        Ok(Reading::Undecided | Reading::Begun) if eof => {
            close::begin(core, io, id, CloseReason::ClientAborted)
        }
        Ok(Reading::Undecided | Reading::Begun) => {
            http1::shrink(core, id);
            if let Some(conn) = core.conns.get_mut(id) {
                conn.stream.arm_recv_of(io, Class::Small, Expect::Later, id.token(Kind::ConnRecv));
            }
        }
        Err(reason) => end(core, io, id, reason),
    }
}

/// The header is whole: the conn's own bytes begin behind it.
fn on_header(core: &mut Core, io: &mut impl Io, id: Id<Conn>, header: &Header) {
    let Core { conns, pool, .. } = &mut *core;
    let Some(conn) = conns.get_mut(id) else { return };
    let (Some(mut lease), Some(preface)) = (conn.rx.take(), &mut conn.preface) else { return };
    // LOCAL and its like leave the peer as it is: the balancer itself asks, to see whether we are well.
    if let Some(ends) = header.ends {
        conn.peer = ends.source;
        preface.destination = Some(ends.destination);
        let tlvs = header.tlvs.of(pool.bytes(&lease));
        preface.tlvs = passed_on(tlvs).flatten().copied().collect();
    }
    lease.advance(header.len);
    if lease.is_empty() {
        pool.give_back(lease);
    } else {
        conn.rx = Some(lease);
    }
    go_on(core, io, id);
}

/// From here on the bytes are the conn's own.
fn go_on(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, snapshot, draining, .. } = &mut *core;
    let Some(conn) = conns.get_mut(id) else { return };
    conn.preface.take_if(|preface| preface.destination.is_none());
    conn.enter(Phase::Serving);
    if conn.rx.is_some() {
        http1::on_head_began(core, id);
        return http1::advance(core, io, id);
    }
    if conn.stream.is_eof() {
        return close::begin(core, io, id, CloseReason::ClientClosed);
    }
    // The first request may be on its way: while draining its moment goes on (threat B07).
    if let Some(spec) = snapshot.listener(conn.listener)
        && !*draining
    {
        conn.deadlines.read_by = now.after(spec.timeouts.idle);
    }
    conn.stream.arm_recv(io, Expect::Now, id.token(Kind::ConnRecv));
    deadline::settle(core, id);
}

/// `request_header` has passed since accept, and the preface is not whole.
pub(super) fn on_deadline(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    if core.conns.get(id).is_some_and(|conn| conn.rx.is_none()) {
        return close::begin(core, io, id, CloseReason::SilentTimeout);
    }
    end(core, io, id, CloseReason::ProxyHeaderTimeout);
}

/// Ends a conn whose preface is wrong, with a record of its own: it has no request to tell of it.
pub(super) fn end(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: CloseReason) {
    if let Some((listener, peer)) = core.conns.get(id).map(|conn| (conn.listener, conn.peer)) {
        record::write_closed(core, listener, peer, reason);
    }
    close::begin(core, io, id, reason);
}
