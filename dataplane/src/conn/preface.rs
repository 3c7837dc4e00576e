//! The preface of a conn: what must be read before anything is done with it. Bytes in front of its own, from a balancer
//! before us: a PROXY header (`[listener.proxy_protocol]`). On a tcp listener whose routes ask for it then the ClientHello,
//! which stays where it is and goes on unchanged.
//!
//! Whether a header is awaited is settled at accept, by the address that connected; only what a listener's `from` names is
//! ever read as a header. From then on the client is who the header says it is, in every decision and every record.
//! Whatever is wrong ends the conn without an answer, since nobody knows who would read it; its close reason says why.

use super::{Conn, Phase, close, deadline, http1, tcp};
use crate::buf::{Class, Lease};
use crate::core::Core;
use crate::exchange::record;
use crate::fault::CloseReason;
use crate::io::{Expect, Io, Kind, SocketAddress};
use crate::proto::client_hello::{self, Scan};
use crate::proto::proxy_header::{self, Header, Reading, passed_on};
use crate::route::RouteTable;
use crate::spec::{Listener, Protocol};
use crate::table::Id;
use crate::tunnel::moving::MovedTunnel;

/// What only a conn with a preface has. Kept after it on a tcp listener; on one of http only where there is something to pass
/// on.
#[derive(Debug)]
pub struct Preface {
    awaits: Awaits,
    /// Where the client connected to, as the PROXY header says.
    pub destination: Option<SocketAddress>,
    /// TLVs of the header that go on to endpoints, whole ones.
    pub tlvs: Box<[u8]>,
    /// The name that the ClientHello asks for, for the log; empty without one.
    pub name: Box<[u8]>,
    /// From accept until all of it had come, microseconds; of a tcp conn, and only then.
    pub took_us: Option<u32>,
}

/// What is read next.
#[derive(Debug)]
enum Awaits {
    /// `optional`: bytes that are no header are the conn's own.
    ProxyHeader {
        optional: bool,
    },
    ClientHello(Scan),
}

impl Preface {
    /// What is known of one that was read in another process, if anything is.
    pub fn adopted(
        announced: Option<(SocketAddress, Box<[u8]>)>,
        tunnel: Option<&MovedTunnel>,
    ) -> Option<Box<Self>> {
        let mut preface = Self::new(Awaits::ProxyHeader { optional: true });
        let of_header = announced.is_some();
        if let Some((destination, tlvs)) = announced {
            (preface.destination, preface.tlvs) = (Some(destination), tlvs);
        }
        if let Some(tunnel) = tunnel {
            (preface.name, preface.took_us) = (tunnel.name.clone(), tunnel.head_us);
        }
        (of_header || !preface.name.is_empty() || preface.took_us.is_some()).then_some(preface)
    }
    fn new(awaits: Awaits) -> Box<Self> {
        Box::new(Self {
            awaits,
            destination: None,
            tlvs: Box::default(),
            name: Box::default(),
            took_us: None,
        })
    }
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
pub(super) fn entry(listener: &Listener, routes: &RouteTable, peer: SocketAddress) -> Entry {
    if let Some(expected) = &listener.proxy_protocol {
        let trusted = match peer.ip() {
            Some(ip) => expected.from.iter().any(|network| network.contains(ip)),
            None => expected.from_unix,
        };
        if trusted {
            return Entry::Preface(Preface::new(Awaits::ProxyHeader { optional: !expected.required }));
        }
        if expected.required {
            return Entry::Refused(CloseReason::ProxyPeerNotAllowed);
        }
    }
    if listener.protocol == Protocol::Tcp && routes.asks_for_hello(listener.id) {
        return Entry::Preface(Preface::new(Awaits::ClientHello(Scan::default())));
    }
    Entry::Plain
}

/// A conn begins with a preface.
pub(super) fn begin(core: &mut Core, id: Id<Conn>, preface: Box<Preface>) {
    if let Some(conn) = core.conns.get_mut(id) {
        conn.preface = Some(preface);
        conn.enter(Phase::Preface);
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

/// Reads what is awaited out of what is held, or waits for more.
fn advance(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Core { conns, pool, scratch, .. } = &mut *core;
    let Some(conn) = conns.get_mut(id) else { return };
    let (Some(lease), Some(preface)) = (&conn.rx, &mut conn.preface) else { return };
    let (bytes, eof) = (pool.bytes(lease), conn.stream.is_eof());
    match &mut preface.awaits {
        Awaits::ProxyHeader { optional } => match (proxy_header::read(bytes), *optional) {
            (Ok(Reading::Whole(header)), _) => on_header(core, io, id, &header),
            (Ok(Reading::Absent), true) => on_own_bytes(core, io, id),
            (Ok(Reading::Absent), false) => end(core, io, id, CloseReason::ProxyHeaderMissing),
            // Nothing will come that could make it one.
            (Ok(Reading::Undecided), true) if eof => on_own_bytes(core, io, id),
            (Ok(Reading::Undecided | Reading::Begun), _) => wait(core, io, id),
            (Err(reason), _) => end(core, io, id, reason),
        },
        Awaits::ClientHello(scan) => match client_hello::read(bytes, scan, &mut scratch.hello) {
            Ok(Some(hello)) => {
                preface.name = hello.name(&scratch.hello).unwrap_or_default().into();
                tcp::open(core, io, id, Some(&hello));
            }
            Ok(None) => wait(core, io, id),
            Err(reason) => end(core, io, id, reason),
        },
    }
}

/// More is needed.
fn wait(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    if core.conns.get(id).is_some_and(|conn| conn.stream.is_eof()) {
        return close::begin(core, io, id, CloseReason::ClientAborted);
    }
    http1::shrink(core, id);
    if let Some(conn) = core.conns.get_mut(id) {
        conn.stream.arm_recv_of(io, Class::Small, Expect::Later, id.token(Kind::ConnRecv));
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
    }
    let tlvs = header.tlvs.of(pool.bytes(&lease));
    preface.tlvs = passed_on(tlvs).flatten().copied().collect();
    lease.advance(header.len);
    if lease.is_empty() {
        pool.give_back(lease);
    } else {
        conn.rx = Some(lease);
    }
    on_own_bytes(core, io, id);
}

/// From here on the bytes are the conn's own.
fn on_own_bytes(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    let asks = conn.protocol == Protocol::Tcp && core.routes.asks_for_hello(conn.listener);
    if asks {
        if let Some(preface) = &mut conn.preface {
            preface.awaits = Awaits::ClientHello(Scan::default());
        }
        if conn.rx.is_some() {
            return advance(core, io, id);
        }
        return await_own_bytes(core, io, id);
    }
    match conn.protocol {
        Protocol::Tcp => tcp::open(core, io, id, None),
        Protocol::Http => {
            conn.preface.take_if(|preface| preface.destination.is_none() && preface.tlvs.is_empty());
            conn.enter(Phase::Serving);
            if conn.rx.is_some() {
                http1::on_head_began(core, id);
                return http1::advance(core, io, id);
            }
            // The first request may be on its way: while draining its moment goes on (threat B07).
            let goes = core.draining || conn.ends.leaves();
            let listener = core.snapshot.listener(conn.listener).filter(|_| !goes);
            if let Some(listener) = listener {
                conn.deadlines.read_by = core.clock.mono.after(listener.timeouts.idle);
            }
            await_own_bytes(core, io, id);
        }
    }
}

/// All that is to be read of a tcp conn before its link is reached has come.
pub(super) fn on_read(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    if let Some(conn) = core.conns.get_mut(id)
        && let Some(preface) = &mut conn.preface
    {
        preface.took_us = Some(u32::try_from(now.since(conn.opened) / 1000).unwrap_or(u32::MAX));
    }
}

fn await_own_bytes(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get_mut(id) else { return };
    if conn.stream.is_eof() {
        return close::begin(core, io, id, CloseReason::ClientClosed);
    }
    conn.stream.arm_recv(io, Expect::Now, id.token(Kind::ConnRecv));
    deadline::settle(core, id);
}

/// `request_header` has passed since accept, and the preface is not whole.
pub(super) fn on_deadline(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let Some(conn) = core.conns.get(id) else { return };
    let reason = match conn.preface.as_deref() {
        Some(Preface { awaits: Awaits::ProxyHeader { .. }, .. }) if conn.rx.is_some() => {
            CloseReason::ProxyHeaderTimeout
        }
        Some(Preface { awaits: Awaits::ClientHello(_), .. }) if conn.rx.is_some() => {
            CloseReason::ClientHelloTimeout
        }
        _ => return close::begin(core, io, id, CloseReason::SilentTimeout),
    };
    end(core, io, id, reason);
}

/// Ends a conn whose preface is wrong, with a record of its own: it has no request to tell of it.
pub(super) fn end(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reason: CloseReason) {
    // On a tcp listener every conn has its record.
    if let Some(conn) = core.conns.get(id).filter(|conn| conn.protocol == Protocol::Http) {
        record::write_closed(core, conn.listener, conn.peer, reason);
    }
    close::begin(core, io, id, reason);
}
