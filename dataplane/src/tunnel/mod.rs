//! A tunnel: bytes both ways between a conn and a link, unread. Half-close is kept in both directions.
//!
//! Copies through leases. Where bulk flows will be spliced, `Half` is what changes: its source and sink stay.

use crate::buf::Lease;
use crate::conn::Conn;
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Expect, Io, Kind, Mono};
use crate::limits::QUEUE_HIGH;
use crate::link::{self, Link};
use crate::stream::Stream;
use crate::table::Id;
use std::time::Duration;

#[derive(Debug)]
pub struct Tunnel {
    pub conn: Id<Conn>,
    pub link: Id<Link>,
    pub idle: Duration,
    /// No byte either way until then ends the tunnel.
    pub idle_by: Mono,
    pub up_bytes: u64,
    pub down_bytes: u64,
}

const _: () = assert!(size_of::<Tunnel>() <= 64);

/// A side of a tunnel; as a source, it names the direction of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Conn,
    Link,
}

/// What became of a tunnel after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    Goes,
    /// Close both sides; the conn's reason.
    Ends(CloseReason),
}

/// Source and sink of one direction, and the tokens of their operations.
struct Half<'a> {
    source: &'a mut Stream,
    recv: crate::io::Token,
    sink: &'a mut Stream,
    send: crate::io::Token,
}

fn with_half<R>(
    core: &mut Core,
    id: Id<Tunnel>,
    from: Side,
    f: impl FnOnce(&mut crate::buf::Pool, &mut Tunnel, Half<'_>) -> R,
) -> Option<R> {
    let Core { pool, tunnels, conns, links, .. } = core;
    let tunnel = tunnels.get_mut(id)?;
    let (conn_id, link_id) = (tunnel.conn, tunnel.link);
    let (conn, link) = (conns.get_mut(conn_id)?, links.get_mut(link_id)?);
    let half = match from {
        Side::Conn => Half {
            source: &mut conn.stream,
            recv: conn_id.token(Kind::ConnRecv),
            sink: &mut link.stream,
            send: link_id.token(Kind::LinkSend),
        },
        Side::Link => Half {
            source: &mut link.stream,
            recv: link_id.token(Kind::LinkRecv),
            sink: &mut conn.stream,
            send: conn_id.token(Kind::ConnSend),
        },
    };
    Some(f(pool, tunnel, half))
}

/// Starts both directions. Bytes that are queued on either side already go first.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) {
    for from in [Side::Conn, Side::Link] {
        with_half(core, id, from, |pool, _, half| {
            half.sink.flush(io, pool, half.send);
            if half.sink.queued() < QUEUE_HIGH {
                half.source.arm_recv(io, Expect::Later, half.recv);
            }
        });
    }
}

/// Bytes came from one side: they go to the other, and the next recv is armed while that one keeps up.
pub fn on_received(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, from: Side, lease: Lease) -> Fate {
    let now = core.now();
    let mut lease = Some(lease);
    with_half(core, id, from, |pool, tunnel, half| {
        let Some(lease) = lease.take() else { return };
        tunnel.idle_by = now.after(tunnel.idle);
        let n = lease.len() as u64;
        match from {
            Side::Conn => tunnel.up_bytes += n,
            Side::Link => tunnel.down_bytes += n,
        }
        half.source.on_received(&lease);
        half.sink.push(lease);
        half.sink.flush(io, pool, half.send);
        if half.sink.queued() < QUEUE_HIGH {
            half.source.arm_recv(io, Expect::Now, half.recv);
        }
    });
    if let Some(lost) = lease {
        core.pool.give_back(lost);
    }
    Fate::Goes
}

/// One side finished sending: the other is told once it has every byte.
pub fn on_eof(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, from: Side) -> Fate {
    with_half(core, id, from, |pool, _, half| {
        half.source.on_eof();
        half.sink.finish();
        half.sink.flush(io, pool, half.send);
    });
    ended(core, id)
}

/// The sink of a direction took bytes: `to` is that side.
pub fn on_sent(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, to: Side, n: u32) -> Fate {
    let now = core.now();
    let from = if to == Side::Conn { Side::Link } else { Side::Conn };
    with_half(core, id, from, |pool, tunnel, half| {
        tunnel.idle_by = now.after(tunnel.idle);
        half.sink.on_sent(n, pool);
        half.sink.flush(io, pool, half.send);
        if half.sink.queued() < QUEUE_HIGH && !half.sink.is_finished() {
            half.source.arm_recv(io, Expect::Now, half.recv);
        }
    });
    ended(core, id)
}

/// Both directions have ended and nothing is left to send.
fn ended(core: &Core, id: Id<Tunnel>) -> Fate {
    let Some(tunnel) = core.tunnels.get(id) else { return Fate::Goes };
    let (Some(conn), Some(link)) = (core.conns.get(tunnel.conn), core.links.get(tunnel.link)) else {
        return Fate::Goes;
    };
    let over =
        conn.stream.is_eof() && link.stream.is_eof() && conn.stream.is_drained() && link.stream.is_drained();
    if over { Fate::Ends(CloseReason::TunnelEnded) } else { Fate::Goes }
}

/// Takes a tunnel apart: its link closes; the conn is the caller's to close. Returns the bytes it carried up and down.
pub fn end(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> (u64, u64) {
    let Some(tunnel) = core.tunnels.remove(id) else { return (0, 0) };
    core.stats.tunnels_ended.add(1);
    core.stats.tunnel_bytes_up.add(tunnel.up_bytes);
    core.stats.tunnel_bytes_down.add(tunnel.down_bytes);
    link::close(core, io, tunnel.link);
    (tunnel.up_bytes, tunnel.down_bytes)
}
