//! A tunnel that goes on in another process: both sockets, what is queued on either, pipes with what they hold, which halves
//! are closed, and how long it may still be idle.

use super::reach::{Reach, Reached};
use super::upgraded::{Names, Upgraded};
use super::{Fate, Side, Tunnel, ended, idle, unless_ended, with_half};
use crate::buf::{Class, Pool};
use crate::bulk::Bulk;
use crate::conn::Conn;
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Expect, Fd, Io, Kind, Mono, SocketOption};
use crate::limits;
use crate::link::{self, Link, Phase as LinkPhase};
use crate::spec::{ClusterId, EndpointId, ListenerId, RouteId};
use crate::stats::access_log::RECORD_BYTES_MAX;
use crate::stream::Stream;
use crate::table::{Id, Slab};
use std::time::Duration;

/// Neither cluster nor endpoint: of a link whose own are not in the configuration any more.
const NO_CLUSTER: ClusterId = ClusterId(u16::MAX);
const NO_ENDPOINT: EndpointId = EndpointId(u16::MAX);

/// What both queues of a tunnel hold at most.
const QUEUED_MAX: usize = 2 * limits::CHAIN_LEASES * limits::LEASE_LARGE_BYTES;
const _: () = assert!(
    limits::UPGRADE_CONN_BYTES
        >= QUEUED_MAX + RECORD_BYTES_MAX + limits::LEASE_LARGE_BYTES + limits::PROXY_V2_BYTES,
    "what a tunnel has queued, the record of its request, the name that it asked for, and TLVs"
);

/// A tunnel without a process. `S` is how the bearer holds descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTunnel<S = Fd> {
    /// The upstream socket.
    pub link: S,
    pub route: Option<RouteId>,
    /// None where the next process has no such cluster, or endpoint: then it goes on uncounted.
    pub cluster: Option<ClusterId>,
    pub endpoint: Option<EndpointId>,
    /// The client's side, and the endpoint's.
    pub sides: [MovedSide<S>; 2],
    /// How long it may still be without a byte; none where it may be for ever.
    pub idle_left: Option<Duration>,
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Of one without an exchange.
    pub reached: Option<Reached>,
    pub was: Option<MovedExchange>,
    /// As [`crate::conn::preface::Preface`] has them.
    pub name: Box<[u8]>,
    pub head_us: Option<u32>,
}

/// One side of a tunnel that moves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MovedSide<S = Fd> {
    /// Its FIN came.
    pub eof: bool,
    /// It has a FIN of ours, or gets one behind what is queued.
    pub finished: bool,
    /// Queued for it: no more than a queue's leases.
    pub queued: Vec<u8>,
    /// What came from it and is for the other side: a pipe's reader and writer, and how much is in it.
    pub pipe: Option<([S; 2], usize)>,
}

/// What is kept of the exchange that a tunnel was ([`Upgraded`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedExchange {
    pub send: Option<Duration>,
    /// Since it began.
    pub age: Duration,
    /// Its encoded record, whose names are those of the process that wrote it until [`adopt`].
    pub record: Option<Vec<u8>>,
}

impl<S> MovedTunnel<S> {
    /// The same with descriptors held otherwise: the link's, then the pipes' of the client's side and of the other.
    pub fn map<T>(self, mut f: impl FnMut(S) -> T) -> MovedTunnel<T> {
        let link = f(self.link);
        let sides = self.sides.map(|side| MovedSide {
            eof: side.eof,
            finished: side.finished,
            queued: side.queued,
            pipe: side.pipe.map(|(ends, held)| (ends.map(&mut f), held)),
        });
        let Self {
            route,
            cluster,
            endpoint,
            idle_left,
            up_bytes,
            down_bytes,
            reached,
            was,
            name,
            head_us,
            ..
        } = self;
        MovedTunnel {
            link,
            route,
            cluster,
            endpoint,
            sides,
            idle_left,
            up_bytes,
            down_bytes,
            reached,
            was,
            name,
            head_us,
        }
    }
}

/// Whether a tunnel may begin to move: its link is there, and it does not move yet.
pub fn may_move(tunnels: &Slab<Tunnel>, links: &Slab<Link>, id: Id<Tunnel>) -> bool {
    let tunnel = tunnels.get(id).filter(|tunnel| tunnel.is_open() && !tunnel.is_moving());
    let link = tunnel.and_then(|tunnel| links.get(tunnel.link?));
    link.is_some_and(|link| link.phase() == LinkPhase::Tunnel)
}

/// Takes back what the kernel has of a tunnel that may move: what completes meanwhile is kept, and nothing new begins.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) {
    let Core { tunnels, conns, links, .. } = core;
    let Some(tunnel) = tunnels.get_mut(id) else { return };
    tunnel.bulk.iter_mut().for_each(Bulk::stop);
    let (Some(conn), Some(lid)) = (conns.get_mut(tunnel.conn), tunnel.link) else { return };
    let of_conn = [Kind::ConnRecv, Kind::ConnSend].map(|kind| tunnel.conn.token(kind));
    conn.stream.take_back(io, of_conn[0]);
    conn.stream.cancel(io, of_conn[0], of_conn[1], of_conn[0]);
    let of_link = [Kind::LinkRecv, Kind::LinkSend].map(|kind| lid.token(kind));
    if let Some(link) = links.get_mut(lid) {
        link.stream.take_back(io, of_link[0]);
        link.stream.cancel(io, of_link[0], of_link[1], of_link[0]);
    }
}

/// Whether a tunnel that moves has nothing with the kernel any more.
pub fn is_ready(core: &Core, id: Id<Tunnel>) -> bool {
    let quiet =
        super::sides(core, id).is_some_and(|(conn, link)| conn.stream.is_quiet() && link.stream.is_quiet());
    quiet && core.tunnels.get(id).is_some_and(Tunnel::is_moving)
}

/// Takes a tunnel that is ready out of this shard, with its link; the conn's queue too, while its socket stays the conn's.
pub fn leave(core: &mut Core, io: &mut impl Io, id: Id<Tunnel>) -> Option<MovedTunnel> {
    let now = core.now();
    let Core { tunnels, links, conns, snapshot, .. } = core;
    let (at, conn) = tunnels.get(id).and_then(|tunnel| Some((tunnel.link?, conns.get_mut(tunnel.conn)?)))?;
    let (mut tunnel, mut link) = (tunnels.remove(id)?, links.remove(at)?);
    let idle_by = tunnel.quiet_since.after(idle(snapshot, conn));
    core.stats.tunnels_ended.add(1);
    link.deadlines.cancel(&mut core.wheel);
    let pipes = tunnel.bulk.each_mut().map(|bulk| bulk.part_with(io));
    let side = |stream: &mut Stream, pool: &mut Pool, pipe| MovedSide {
        eof: stream.is_eof(),
        finished: stream.is_finished(),
        queued: stream.take_queue(pool),
        pipe,
    };
    let [of_conn, of_link] = pipes;
    let mut sides =
        [side(&mut conn.stream, &mut core.pool, of_conn), side(&mut link.stream, &mut core.pool, of_link)];
    // What came from one side and nobody asked for is for the other.
    for (from, fd) in [(Side::Conn, conn.stream.fd), (Side::Link, link.stream.fd)] {
        let mut ahead = io.take_ahead(fd, &mut core.pool);
        tunnel.count(from, ahead.len());
        sides[from.other() as usize].queued.append(&mut ahead);
    }
    let preface = conn.preface.as_mut();
    let (name, head_us) = preface.map(|p| (std::mem::take(&mut p.name), p.took_us)).unwrap_or_default();
    let reach = tunnel.reach.as_ref();
    let moved = MovedTunnel {
        link: link.stream.fd,
        route: reach.and_then(|reach| reach.route),
        cluster: Some(link.cluster),
        endpoint: Some(link.endpoint),
        sides,
        idle_left: (idle_by != Mono::MAX).then(|| Duration::from_nanos(idle_by.since(now))),
        up_bytes: tunnel.up_bytes,
        down_bytes: tunnel.down_bytes,
        reached: reach.and_then(Reach::reached),
        was: tunnel.was.take().map(|was| MovedExchange {
            send: was.send,
            age: Duration::from_nanos(now.since(was.started)),
            record: was.record.map(Vec::from),
        }),
        name,
        head_us,
    };
    let route = moved.was.as_ref().and_then(|was| was.record.as_deref()).and_then(Upgraded::route_of);
    if let Some(reach) = &tunnel.reach {
        super::reach::end_request(core, id, reach);
    }
    link::queue::close_link(core, link.cluster, link.endpoint);
    Some(MovedTunnel { route: moved.route.or(route), ..moved })
}

/// Nobody takes it: its link and its pipes are closed, and the endpoint sees that this is not the end.
pub fn discard(io: &mut impl Io, moved: MovedTunnel) {
    // Where the option cannot be set the socket is gone already.
    let _ = io.set_option(moved.link, SocketOption::ResetOnClose);
    io.discard(moved.link);
    for (ends, held) in moved.sides.into_iter().filter_map(|side| side.pipe) {
        if let Some(pipe) = io.adopt_pipe(ends, held) {
            io.give_pipe(pipe);
        }
    }
}

/// The tunnel of a conn that came from the process before this one: both directions go on. What is there is first what was on
/// its way.
pub fn adopt(core: &mut Core, io: &mut impl Io, id: Id<Conn>, mut moved: MovedTunnel) -> Fate {
    let now = core.now();
    let Some(listener) = core.conns.get(id).map(|conn| conn.listener) else { return Fate::Goes };
    let Some(tid) = insert(core, io, id, listener, &moved) else {
        discard(io, moved);
        return Fate::Ends(CloseReason::Evicted);
    };
    core.stats.tunnels_started.add(1);
    let pipes = moved.sides.each_mut().map(|side| side.pipe.take());
    let pipes = pipes.map(|pipe| pipe.map(|(ends, held)| io.adopt_pipe(ends, held)));
    if pipes.contains(&Some(None)) {
        pipes.into_iter().flatten().flatten().for_each(|pipe| io.give_pipe(pipe));
        return Fate::Ends(CloseReason::Evicted);
    }
    if let Some(tunnel) = core.tunnels.get_mut(tid) {
        for (bulk, pipe) in tunnel.bulk.iter_mut().zip(pipes) {
            pipe.flatten().into_iter().for_each(|pipe| bulk.adopt(pipe));
        }
    }
    for (to, side) in [Side::Conn, Side::Link].into_iter().zip(&moved.sides) {
        let queued = with_half(core, tid, to.other(), |pool, _, half| {
            let all = queue(pool, half.sink, &side.queued);
            if side.finished {
                half.sink.finish();
            }
            all
        });
        if queued != Some(true) {
            return Fate::Ends(CloseReason::Evicted);
        }
    }
    let idle = core.conns.get(id).map_or(Duration::ZERO, |conn| idle(&core.snapshot, conn));
    let quiet = moved.idle_left.map_or(Duration::ZERO, |left| idle.saturating_sub(left));
    let quiet_since = Mono(now.0.saturating_sub(u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX)));
    for from in [Side::Conn, Side::Link] {
        let fate = with_half(core, tid, from, |pool, tunnel, mut half| {
            tunnel.quiet_since = quiet_since;
            half.flush(io, pool, now);
            if tunnel.bulk[from as usize].is_holding() {
                return match half.sink.allow_splice_out(io) {
                    true => half.go_on(io, pool, tunnel, now),
                    // What the pipe holds could not go first.
                    false => Fate::Ends(CloseReason::Evicted),
                };
            }
            half.pull(io, Expect::Later);
            Fate::Goes
        });
        if let fate @ Fate::Ends(_) = unless_ended(core, tid, fate) {
            return fate;
        }
    }
    ended(core, tid)
}

/// The tunnel and its link in their tables, counted at the endpoint; none where a table is full.
fn insert(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    listener: ListenerId,
    moved: &MovedTunnel,
) -> Option<Id<Tunnel>> {
    let now = core.now();
    let tunnel = Tunnel {
        conn: id,
        link: None,
        quiet_since: Mono::MAX,
        up_bytes: moved.up_bytes,
        down_bytes: moved.down_bytes,
        reach: None,
        was: None,
        bulk: Default::default(),
    };
    let tid = core.tunnels.insert(tunnel).ok()?;
    let of_cluster = moved.cluster.and_then(|cluster| core.cluster_mut(cluster));
    let runs = moved.reached.is_some();
    let endpoint = moved.endpoint.filter(|at| of_cluster.is_some_and(|of| of.state.adopt_link(*at, runs)));
    let at = (moved.cluster.unwrap_or(NO_CLUSTER), endpoint.unwrap_or(NO_ENDPOINT));
    let stream = Stream::adopted(moved.link, moved.sides[1].eof);
    let local = io.local_address(moved.link).ok();
    let Ok(lid) = core.links.insert(Link::adopted(stream, at, tid, local)) else {
        core.tunnels.remove(tid);
        link::queue::close_link(core, at.0, at.1);
        if runs && endpoint.is_some() {
            link::queue::end_request(core, at.0, at.1);
        }
        return None;
    };
    let names = Names { listener, route: moved.route, cluster: moved.cluster, endpoint: moved.endpoint };
    let tunnel = core.tunnels.get_mut(tid)?;
    tunnel.link = Some(lid);
    tunnel.reach = moved
        .reached
        .map(|reached| Reach::adopted((moved.route, at.0, moved.endpoint), endpoint.is_some(), reached));
    tunnel.was = moved.was.as_ref().and_then(|was| {
        let age = u64::try_from(was.age.as_nanos()).unwrap_or(u64::MAX);
        Upgraded::adopted(was.send, Mono(now.0.saturating_sub(age)), was.record.as_deref(), names)
    });
    if let Some(conn) = core.conns.get_mut(id) {
        conn.tunnel = Some(tid);
    }
    Some(tid)
}

/// Queues `bytes` to be sent; false where no leases are to be had, or more of them than a queue holds.
fn queue(pool: &mut Pool, sink: &mut Stream, bytes: &[u8]) -> bool {
    bytes.chunks(Class::Large.capacity()).all(|piece| {
        let lease = if sink.room() > 0 { pool.take_copy(piece) } else { None };
        lease.map(|lease| sink.push(lease)).is_some()
    })
}
