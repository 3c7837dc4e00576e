//! A tunnel: bytes both ways between a conn and a link, unread. Half-close is kept in both directions.
//!
//! One that begins with its conn, without an exchange, comes to its link by `reach`. Copies through leases; a direction
//! that proves to be bulk is spliced for as long as it is (`splice`). One may go on in another process (`moving`).

pub mod moving;
pub mod reach;
mod splice;
pub mod upgraded;

use crate::buf::{Lease, Pool};
use crate::bulk::{Bulk, Share};
use crate::conn::Conn;
use crate::core::Core;
use crate::deadlines::Deadlines;
use crate::fault::CloseReason;
use crate::io::{Errno, Expect, Io, Kind, Mono, Outcome, SocketOption, Token};
use crate::limits::{self, QUEUE_HIGH};
use crate::link::{self, Link};
use crate::spec::Snapshot;
use crate::stats::Stats;
use crate::stream::Stream;
use crate::table::Id;
use reach::Reach;
use std::time::Duration;
use upgraded::Upgraded;

#[derive(Debug)]
pub struct Tunnel {
    pub conn: Id<Conn>,
    /// None only while [`Tunnel::reach`] has no connect under way.
    pub link: Option<Id<Link>>,
    /// Since when no byte has passed, either way: the listener's words of now say for how long. Never, before [`start`].
    pub quiet_since: Mono,
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// How it comes, or came, to its link; none where an exchange became the tunnel.
    pub reach: Option<Reach>,
    /// What there is to know of the exchange that it was.
    was: Option<Box<Upgraded>>,
    /// By source ([`Side`]): how a direction's bytes go.
    pub bulk: [Bulk; 2],
}

const _: () = assert!(size_of::<Tunnel>() <= 112, "an idle tunnel is little more than its conn and its link");

impl Tunnel {
    /// Between a conn and a link that are both there: what an exchange became. `carried`: bytes up and down that are queued
    /// already.
    pub fn new(conn: Id<Conn>, link: Id<Link>, carried: (u64, u64), was: Option<Box<Upgraded>>) -> Self {
        Self {
            conn,
            link: Some(link),
            quiet_since: Mono::MAX,
            up_bytes: carried.0,
            down_bytes: carried.1,
            reach: None,
            was,
            bulk: Default::default(),
        }
    }
    /// Of a conn that goes without an exchange, on its way to a link.
    pub fn reaching(conn: Id<Conn>, reach: Reach) -> Self {
        Self {
            conn,
            link: None,
            quiet_since: Mono::MAX,
            up_bytes: 0,
            down_bytes: 0,
            reach: Some(reach),
            was: None,
            bulk: Default::default(),
        }
    }
    /// Its link was connected to: bytes pass, or may.
    pub fn is_open(&self) -> bool {
        self.reach.as_ref().is_none_or(Reach::is_done)
    }
    /// On its way to another process: nothing new begins here.
    fn is_moving(&self) -> bool {
        self.bulk.iter().any(Bulk::is_stopped)
    }
    /// `n` bytes came from a side.
    fn count(&mut self, from: Side, n: usize) {
        match from {
            Side::Conn => self.up_bytes += n as u64,
            Side::Link => self.down_bytes += n as u64,
        }
    }
}

/// A side of a tunnel; as a source, it names the direction of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Conn,
    Link,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Conn => Self::Link,
            Self::Link => Self::Conn,
        }
    }
}

/// Why a tunnel ends when reading from one of its sides, or writing to it, failed.
pub fn lost(side: Side, outcome: &Outcome) -> CloseReason {
    let dead = matches!(outcome, Outcome::Failed(errno) if errno.is_dead_peer());
    match (side, dead) {
        (Side::Conn, false) => CloseReason::TunnelReset,
        (Side::Conn, true) => CloseReason::DeadPeer,
        (Side::Link, false) => CloseReason::OriginReset,
        (Side::Link, true) => CloseReason::DeadOrigin,
    }
}

/// What became of a tunnel after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    Goes,
    /// Close both sides; the conn's reason.
    Ends(CloseReason),
}

/// How long a tunnel may be without a byte.
fn idle(snapshot: &Snapshot, conn: &Conn) -> Duration {
    let listener = snapshot.listener(conn.listener);
    listener.map_or(limits::TUNNEL_IDLE_TIMEOUT.default, |listener| listener.timeouts.tunnel_idle)
}

/// How long each of its sides may take nothing of what is sent to it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub conn_send: Duration,
    pub link_send: Duration,
}

/// The words of the conn's listener and of the link's cluster, or of the route that the tunnel's exchange took.
fn patience(snapshot: &Snapshot, tunnel: &Tunnel, conn: &Conn, link: &Link) -> Patience {
    let listener = snapshot.listener(conn.listener).map(|l| l.timeouts);
    let of_route = tunnel.was.as_ref().and_then(|was| was.send);
    let link_send = of_route.or_else(|| snapshot.cluster(link.cluster).map(|c| c.timeouts.send));
    Patience {
        conn_send: listener.map_or(limits::SEND_TIMEOUT.default, |t| t.send),
        link_send: link_send.unwrap_or(limits::SEND_TIMEOUT.default),
    }
}

/// Source and sink of one direction, and the tokens of their operations.
struct Half<'a> {
    from: Side,
    stats: &'a Stats,
    share: &'a mut Share,
    source: &'a mut Stream,
    recv: Token,
    sink: &'a mut Stream,
    send: Token,
    /// Of the sink, which may take nothing for `within`.
    deadlines: &'a mut Deadlines,
    within: Duration,
    /// As [`Tunnel::is_moving`].
    moving: bool,
}

impl Half<'_> {
    /// Sends what is queued, and begins the sink's deadline.
    fn flush(&mut self, io: &mut impl Io, pool: &Pool, now: Mono) {
        if self.moving {
            return;
        }
        self.sink.flush(io, pool, self.send);
        self.time_sink(now);
    }
    /// While something is in flight to the sink, its deadline runs.
    fn time_sink(&mut self, now: Mono) {
        if self.sink.is_sending() {
            self.deadlines.begin_write(now, self.within);
        }
    }
    /// Reads on while the sink keeps up.
    fn pull(&mut self, io: &mut impl Io, expect: Expect) {
        if self.sink.queued() < QUEUE_HIGH && !self.sink.is_finished() && !self.moving {
            self.source.arm_recv(io, expect, self.recv);
        }
    }
    /// The source ended: so does the sink, behind every byte. Unless the source did not finish: a reset is reported to one
    /// operation alone, and where a send was told of it, what reads beside it meets an end like any other. But then the
    /// socket has no peer any more (getpeername(2): ENOTCONN), as it has after a FIN until we sent ours too.
    fn finish(&mut self, io: &mut impl Io, pool: &Pool, now: Mono) -> Fate {
        if !self.source.is_finished() && io.peer_address(self.source.fd).is_err() {
            return Fate::Ends(lost(self.from, &Outcome::Eof));
        }
        self.sink.finish();
        self.flush(io, pool, now);
        Fate::Goes
    }
    /// Lets the direction go on, by splice or by the next recv, as far as its sink keeps up.
    fn go_on(&mut self, io: &mut impl Io, pool: &mut Pool, tunnel: &mut Tunnel, now: Mono) -> Fate {
        let bulk = &mut tunnel.bulk[self.from as usize];
        if self.moving {
            return Fate::Goes;
        }
        if bulk.is_promoted() || bulk.is_holding() {
            return splice::drive(self, io, pool, tunnel, now);
        }
        bulk.forget_readable();
        self.pull(io, Expect::Now);
        Fate::Goes
    }
}

fn with_half<R>(
    core: &mut Core,
    id: Id<Tunnel>,
    from: Side,
    f: impl FnOnce(&mut Pool, &mut Tunnel, Half<'_>) -> R,
) -> Option<R> {
    let Core { pool, tunnels, conns, links, snapshot, stats, share, .. } = core;
    let tunnel = tunnels.get_mut(id)?;
    let (conn_id, link_id) = (tunnel.conn, tunnel.link?);
    let (conn, link) = (conns.get_mut(conn_id)?, links.get_mut(link_id)?);
    let Patience { conn_send, link_send } = patience(snapshot, tunnel, conn, link);
    let half = match from {
        Side::Conn => Half {
            from,
            stats,
            share,
            source: &mut conn.stream,
            recv: conn_id.token(Kind::ConnRecv),
            sink: &mut link.stream,
            send: link_id.token(Kind::LinkSend),
            deadlines: &mut link.deadlines,
            within: link_send,
            moving: tunnel.is_moving(),
        },
        Side::Link => Half {
            from,
            stats,
            share,
            source: &mut link.stream,
            recv: link_id.token(Kind::LinkRecv),
            sink: &mut conn.stream,
            send: conn_id.token(Kind::ConnSend),
            deadlines: &mut conn.deadlines,
            within: conn_send,
            moving: tunnel.is_moving(),
        },
    };
    Some(f(pool, tunnel, half))
}

/// Starts both directions. Bytes that are queued on either side already go first.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) {
    let now = core.now();
    core.stats.tunnels_started.add(1);
    for from in [Side::Conn, Side::Link] {
        with_half(core, id, from, |pool, tunnel, mut half| {
            tunnel.quiet_since = now;
            half.flush(io, pool, now);
            half.pull(io, Expect::Later);
        });
    }
}

/// Bytes came from one side: they go to the other, and the next recv is armed while that one keeps up.
pub fn on_received(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, from: Side, lease: Lease) -> Fate {
    let now = core.now();
    let mut lease = Some(lease);
    let fate = with_half(core, id, from, |pool, tunnel, mut half| {
        let Some(lease) = lease.take() else { return Fate::Goes };
        tunnel.quiet_since = now;
        tunnel.count(from, lease.len());
        tunnel.bulk[from as usize].on_copied(lease.len());
        half.source.on_received(&lease);
        half.sink.push(lease);
        half.flush(io, pool, now);
        half.go_on(io, pool, tunnel, now)
    });
    if let Some(lost) = lease {
        core.pool.give_back(lost);
    }
    fate.unwrap_or(Fate::Goes)
}

/// One side finished sending: the other is told once it has every byte.
pub fn on_eof(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, from: Side) -> Fate {
    let now = core.now();
    let fate = with_half(core, id, from, |pool, _, mut half| {
        half.source.on_eof();
        half.finish(io, pool, now)
    });
    unless_ended(core, id, fate)
}

/// The sink of a direction took bytes: `to` is that side.
pub fn on_sent(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, to: Side, n: u32) -> Fate {
    let now = core.now();
    let fate = with_half(core, id, to.other(), |pool, tunnel, mut half| {
        tunnel.quiet_since = now;
        half.sink.on_sent(n, pool);
        half.deadlines.end_write();
        half.flush(io, pool, now);
        half.go_on(io, pool, tunnel, now)
    });
    unless_ended(core, id, fate)
}

/// A poll in the place of a recv ended: of a direction that is spliced, or of a parked stream.
pub fn on_readable(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, from: Side) -> Fate {
    let now = core.now();
    let fate = with_half(core, id, from, |pool, tunnel, mut half| {
        if !half.source.is_parked() {
            tunnel.bulk[from as usize].set_readable();
        }
        half.source.on_readable();
        half.go_on(io, pool, tunnel, now)
    });
    unless_ended(core, id, fate)
}

/// The side `to` made room for what is to be spliced.
pub fn on_writable(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, to: Side) -> Fate {
    let now = core.now();
    let fate = with_half(core, id, to.other(), |pool, tunnel, mut half| {
        half.sink.on_writable();
        half.deadlines.end_write();
        half.go_on(io, pool, tunnel, now)
    });
    unless_ended(core, id, fate)
}

/// A receive of that side failed.
pub fn on_recv_failed(core: &mut Core, id: Id<Tunnel>, side: Side, outcome: &Outcome) -> Fate {
    let taken_back = with_half(core, id, side, |_, _, half| {
        half.source.on_recv_failed();
        half.moving && matches!(outcome, Outcome::Failed(Errno(libc::ECANCELED)))
    });
    if taken_back == Some(true) { Fate::Goes } else { Fate::Ends(lost(side, outcome)) }
}

/// A send to that side failed.
pub fn on_send_failed(core: &mut Core, id: Id<Tunnel>, side: Side, outcome: &Outcome) -> Fate {
    let taken_back = with_half(core, id, side.other(), |pool, _, half| {
        let taken_back = half.moving && matches!(outcome, Outcome::Failed(Errno(libc::ECANCELED)));
        if taken_back {
            half.sink.on_send_cancelled()
        } else {
            half.sink.on_send_failed(pool)
        }
        taken_back
    });
    if taken_back == Some(true) { Fate::Goes } else { Fate::Ends(lost(side, outcome)) }
}

fn unless_ended(core: &Core, id: Id<Tunnel>, fate: Option<Fate>) -> Fate {
    match fate {
        Some(ends @ Fate::Ends(_)) => ends,
        Some(Fate::Goes) | None => ended(core, id),
    }
}

/// Both directions have ended and nothing is left to send.
fn ended(core: &Core, id: Id<Tunnel>) -> Fate {
    let Some((conn, link)) = sides(core, id) else { return Fate::Goes };
    let over =
        conn.stream.is_eof() && link.stream.is_eof() && conn.stream.is_drained() && link.stream.is_drained();
    if over { Fate::Ends(CloseReason::TunnelEnded) } else { Fate::Goes }
}

fn sides(core: &Core, id: Id<Tunnel>) -> Option<(&Conn, &Link)> {
    let tunnel = core.tunnels.get(id)?;
    Some((core.conns.get(tunnel.conn)?, core.links.get(tunnel.link?)?))
}

/// By when something of the tunnel must be looked at again, but for what its conn's own deadlines say.
pub fn due(core: &Core, id: Id<Tunnel>) -> Mono {
    let Some((conn, link)) = sides(core, id) else { return Mono::MAX };
    let Some(tunnel) = core.tunnels.get(id) else { return Mono::MAX };
    tunnel.quiet_since.after(idle(&core.snapshot, conn)).min(link.deadlines.write_by())
}

/// Whether a deadline of the tunnel has passed, its conn's own ones apart. To be asked when the wheel fired for the conn.
pub fn on_timer(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> Fate {
    let now = core.now();
    let Core { tunnels, conns, links, snapshot, .. } = core;
    let Some(tunnel) = tunnels.get(id) else { return Fate::Goes };
    let (Some(conn), Some(link)) = (conns.get(tunnel.conn), tunnel.link.and_then(|l| links.get_mut(l)))
    else {
        return Fate::Goes;
    };
    let send = patience(snapshot, tunnel, conn, link).link_send;
    if tunnel.is_open() && link.deadlines.is_write_over(io, link.stream.fd, now, send) {
        Fate::Ends(CloseReason::OriginSendTimeout)
    } else if tunnel.quiet_since.after(idle(snapshot, conn)) <= now {
        Fate::Ends(CloseReason::TunnelIdle)
    } else {
        Fate::Goes
    }
}

/// Takes a tunnel apart: its link closes, by a reset if the tunnel was `cut`; the conn, which ends for `reason`, is the
/// caller's to close. The record of one that was an exchange is written.
pub fn end(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>, cut: bool, reason: CloseReason) {
    reach::end_wait(core, id);
    let Some(mut tunnel) = core.tunnels.remove(id) else { return };
    tunnel.bulk.iter_mut().for_each(|bulk| bulk.drop_pipe(io));
    if tunnel.is_moving() {
        core.moving.iter().for_each(|moving| moving.gave_up());
    }
    if tunnel.is_open() {
        core.stats.tunnels_ended.add(1);
        core.stats.tunnel_bytes_up.add(tunnel.up_bytes);
        core.stats.tunnel_bytes_down.add(tunnel.down_bytes);
    }
    if let Some(reach) = &tunnel.reach {
        reach::end_request(core, id, reach);
    }
    if let Some(link) = tunnel.link {
        if let Some(fd) = core.links.get(link).map(|l| l.stream.fd)
            && cut
        {
            // What was cut must not look whole to the endpoint. Where the option cannot be set the socket is gone already.
            let _ = io.set_option(fd, SocketOption::ResetOnClose);
        }
        link::close(core, io, link);
    }
    if let Some(was) = &tunnel.was {
        was.write(core, reason, (tunnel.up_bytes, tunnel.down_bytes));
    }
}
