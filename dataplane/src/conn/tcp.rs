//! A conn of a tcp listener: from accept to an endpoint's link, then a tunnel, without an exchange.
//!
//! Three steps. `open`: the route is found, by what `preface` read where something was to be read; without routes nothing
//! is, and the endpoint may speak first. `begin`: the cluster is known, endpoints are tried (`tunnel::reach`), and what the
//! client sends meanwhile is held. `on_connect_ended`: the link is there, and bytes pass; or there is none, and the conn
//! ends.

use super::{Conn, Phase, close, deadline, http1, moving, preface};
use crate::buf::{Class, Lease};
use crate::core::Core;
use crate::fault::{At, CloseReason, End, Refusal};
use crate::io::{Errno, Expect, Io, Kind, Mono, Outcome, SocketAddress};
use crate::link;
use crate::proto::client_hello::Hello;
use crate::route::Opening;
use crate::spec::{Action, ListenerId, Protocol};
use crate::stats::access_log::Record;
use crate::stats::timings::{Phase as TimedPhase, Timings};
use crate::table::Id;
use crate::tunnel::reach::{self, Reach, Step};
use crate::tunnel::{self, Tunnel};

/// Everything is known that decides where a conn of a tcp listener goes. A `hello` is of the message in the scratch.
pub(super) fn open(core: &mut Core, io: &mut impl Io, id: Id<Conn>, hello: Option<&Hello>) {
    core.count_available();
    preface::on_read(core, id);
    let Some(conn) = core.conns.get(id) else { return };
    let hello = hello.map(|hello| (hello, core.scratch.hello.as_slice()));
    let (source, available) = (conn.peer.ip(), &core.available);
    let opening = Opening { listener: conn.listener, source, hello, available };
    let chosen = match core.routes.find_opening(&opening).map(|route| (route.id, &route.action)) {
        Some((route, Action::Forward { cluster, .. })) => Some((Some(route), *cluster)),
        // control lets no route of a tcp listener answer by itself.
        Some((_, Action::Respond(_) | Action::Redirect(_))) | None => {
            core.snapshot.listener(conn.listener).and_then(|l| l.cluster).map(|cluster| (None, cluster))
        }
    };
    match chosen {
        Some((route, cluster)) => begin(core, io, id, Reach::new(route, cluster)),
        None => no_link(core, io, id, Refusal::NoRoute),
    }
}

/// Where the conn goes is known. `conn.rx` may hold bytes: they are the first that the endpoint gets.
fn begin(core: &mut Core, io: &mut impl Io, id: Id<Conn>, reach: Reach) {
    let tunnel = Tunnel::reaching(id, reach);
    let Ok(tid) = core.tunnels.insert(tunnel) else { unreachable!("there are as many tunnels as conns") };
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.tunnel = Some(tid);
    conn.enter(Phase::Connecting);
    conn.deadlines.read_by = Mono::MAX;
    if conn.rx.is_none() {
        // One small lease at most: it says whether the client leaves, and what it sent goes out first.
        conn.stream.arm_recv_of(io, Class::Small, Expect::Now, id.token(Kind::ConnRecv));
    }
    let step = reach::start(core, io, tid);
    take_step(core, io, id, step);
}

/// Does what the way to a link asked for.
pub(super) fn take_step(core: &mut Core, io: &mut impl Io, id: Id<Conn>, step: Step) {
    match step {
        Step::Wait => deadline::settle(core, id),
        Step::Queue => {
            let Some(tid) = core.conns.get(id).and_then(|c| c.tunnel) else { return };
            match reach::wait(core, tid) {
                Ok(()) => deadline::settle(core, id),
                Err(refusal) => no_link(core, io, id, refusal),
            }
        }
        Step::Fail(refusal) => no_link(core, io, id, refusal),
    }
}

/// There is no link to be had: the conn ends with the reason.
pub(super) fn no_link(core: &mut Core, io: &mut impl Io, id: Id<Conn>, refusal: Refusal) {
    core.stats.refusal(refusal).add(1);
    if let Some(reach) = reach_of_mut(core, id) {
        reach.failure = Some(refusal);
    }
    close::begin(core, io, id, CloseReason::NoLink);
}

fn reach_of_mut(core: &mut Core, id: Id<Conn>) -> Option<&mut Reach> {
    let tunnel = core.conns.get(id)?.tunnel?;
    core.tunnels.get_mut(tunnel)?.reach.as_mut()
}

/// Bytes came while the link is being connected to: held, and no more are read until it is there.
pub(super) fn hold(core: &mut Core, id: Id<Conn>, mut lease: Lease) {
    http1::shrink_lease(&mut core.pool, &mut lease);
    match core.conns.get_mut(id) {
        Some(conn) => {
            debug_assert!(conn.rx.is_none(), "a recv was armed over bytes that are held");
            conn.rx = Some(lease);
        }
        None => core.pool.give_back(lease),
    }
}

/// The connect of the link of a tunnel to be ended, well or not.
pub(super) fn on_connect_ended(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Conn>,
    tid: Id<Tunnel>,
    outcome: &Outcome,
) {
    match outcome {
        Outcome::Connected => start(core, io, id, tid),
        outcome => {
            core.stats.connect_failures.add(1);
            let errno = if let Outcome::Failed(errno) = outcome { *errno } else { Errno(libc::EIO) };
            on_lost(core, io, id, tid, link::connect::refusal_of(errno));
        }
    }
}

/// No connect within `cluster.timeouts.connect`, or none at all.
pub(super) fn on_lost(core: &mut Core, io: &mut impl Io, id: Id<Conn>, tid: Id<Tunnel>, refusal: Refusal) {
    let step = reach::on_lost(core, io, tid, refusal);
    take_step(core, io, id, step);
}

/// The link is there: what is held goes first, and a FIN that came is passed on behind it.
fn start(core: &mut Core, io: &mut impl Io, id: Id<Conn>, tid: Id<Tunnel>) {
    reach::on_connected(core, tid);
    if let Some(link) = core.tunnels.get(tid).and_then(|t| t.link)
        && let Err(refusal) = link::announce::announce(core, io, link, id)
    {
        return no_link(core, io, id, refusal);
    }
    let Core { conns, links, tunnels, .. } = core;
    let (Some(conn), Some(tunnel)) = (conns.get_mut(id), tunnels.get_mut(tid)) else { return };
    let Some(link) = tunnel.link.and_then(|l| links.get_mut(l)) else { return };
    if let Some(held) = conn.rx.take() {
        tunnel.up_bytes += held.len() as u64;
        link.stream.push(held);
    }
    if conn.stream.is_eof() {
        link.stream.finish();
    }
    conn.enter(Phase::Tunnel);
    tunnel::start(core, io, tid);
    deadline::settle(core, id);
    moving::begin(core, io, id);
}

/// How long the phases of a conn took that ends now.
fn timings(core: &Core, conn: &Conn) -> Timings {
    let mut timings = Timings::of_total(core.now().since(conn.opened) / 1000);
    if let Some(us) = conn.preface.as_ref().and_then(|preface| preface.took_us) {
        timings.set(TimedPhase::Head, u64::from(us));
    }
    if let Some(reach) = conn.tunnel.and_then(|t| core.tunnels.get(t)).and_then(|t| t.reach.as_ref()) {
        reach.time(&mut timings);
    }
    timings
}

fn measure(core: &Core, id: Id<Conn>) {
    let Some(conn) = core.conns.get(id) else { return };
    let timings = timings(core, conn);
    let tunnel = conn.tunnel.and_then(|t| core.tunnels.get(t));
    let (up, down) = tunnel.map_or((0, 0), |t| (t.up_bytes, t.down_bytes));
    if let Some(listener) = core.of_listener(conn.listener) {
        listener.traffic.carried(up, down);
        listener.latency.record(&timings);
        listener.latency.total.record(timings.total_us);
    }
    let Some(reach) = tunnel.and_then(|t| t.reach.as_ref()) else { return };
    if let Some(route) = reach.route.and_then(|route| core.of_route(route)) {
        route.connections.add(1);
        route.traffic.carried(up, down);
    }
    if let Some(counts) = core.of_cluster(reach.cluster) {
        counts.cluster.connections.add(1);
        counts.cluster.traffic.carried(up, down);
        counts.cluster.latency.record(&timings);
        counts.cluster.latency.total.record(timings.total_us);
    }
}

/// Counts and tells of one that ended as it was accepted and never was a conn, if its listener is a tcp one. Its peer is
/// unspecified where it was gone already.
pub(super) fn on_turned_away(
    core: &mut Core,
    listener: ListenerId,
    peer: SocketAddress,
    (reason, refusal): (CloseReason, Option<Refusal>),
) {
    let Some(spec) = core.snapshot.listener(listener).filter(|l| l.protocol == Protocol::Tcp) else { return };
    let timings = Timings::of_total(0);
    if let Some(counts) = core.of_listener(listener) {
        counts.latency.record(&timings);
        counts.latency.total.record(timings.total_us);
    }
    if !spec.access_log {
        return;
    }
    let number = core.next_request;
    core.next_request += 1;
    core.log.write(&Record {
        wall_ns: core.clock.wall,
        refusal,
        close: Some(reason),
        end: End::of_close(reason, At::Request),
        ..Record::of_tcp(listener, peer, core.request_id(number))
    });
}

/// A conn of a tcp listener ends: it is counted and told of. Its tunnel, if it got so far, still stands.
pub(super) fn on_end(core: &mut Core, id: Id<Conn>, reason: CloseReason) {
    let Some(conn) = core.conns.get(id) else { return };
    let (tunnel, phase) = (conn.tunnel, conn.phase());
    let reach = tunnel.and_then(|t| core.tunnels.get(t)).and_then(|t| t.reach.as_ref());
    let at = match phase {
        Phase::Connecting if reach.is_some_and(Reach::is_waiting) => At::Queue,
        Phase::Connecting => At::Connect,
        Phase::Tunnel => At::Data,
        Phase::Open | Phase::Preface | Phase::Serving | Phase::Lingering | Phase::Closing => At::Request,
    };
    // How long it waited is part of what is told.
    tunnel.into_iter().for_each(|tunnel| reach::end_wait(core, tunnel));
    measure(core, id);
    write_record(core, id, reason, at);
}

fn write_record(core: &mut Core, id: Id<Conn>, reason: CloseReason, at: At) {
    let Some(conn) = core.conns.get(id) else { return };
    if !core.snapshot.listener(conn.listener).is_some_and(|l| l.access_log) {
        return;
    }
    let tunnel = conn.tunnel.and_then(|t| core.tunnels.get(t));
    let reach = tunnel.and_then(|t| t.reach.as_ref());
    let link = tunnel.and_then(|t| t.link).and_then(|l| core.links.get(l));
    let refusal = match reason {
        CloseReason::NoLink => Some(reach.and_then(|r| r.failure).unwrap_or(Refusal::NoRoute)),
        CloseReason::ListenerFull => Some(Refusal::ListenerFull),
        _ => None,
    };
    let number = core.next_request;
    let mut record = Record::of_tcp(conn.listener, conn.peer, core.request_id(number));
    record.wall_ns = core.clock.wall.saturating_sub(core.now().since(conn.opened));
    record.timings = timings(core, conn);
    record.route = reach.and_then(|r| r.route);
    record.host = conn.preface.as_ref().map_or(&[][..], |preface| &preface.name);
    record.cluster = reach.map(|r| r.cluster);
    record.endpoint = reach.and_then(|r| r.endpoint);
    record.attempts = reach.map_or(0, |r| r.attempts);
    record.upstream_local = link.and_then(|l| l.local);
    record.tunnel_up_bytes = tunnel.map_or(0, |t| t.up_bytes);
    record.tunnel_down_bytes = tunnel.map_or(0, |t| t.down_bytes);
    record.refusal = refusal;
    record.close = Some(reason);
    record.end = refusal.map_or_else(|| End::of_close(reason, at), |refusal| End::of_refusal(refusal, at));
    core.log.write(&record);
    core.next_request = number + 1;
}
