//! What control asks about a shard's conns: a page of them, one of them, or the end of one.
//!
//! A page is walked a bounded number of slots at a time, one piece each turn, so that nobody who is served waits for it; while
//! one is under way the shard does not sleep. Its memory is control's, and goes back with the answer.

use super::Shard;
use crate::conn::{Conn, Phase, close};
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Io, SocketAddress};
use crate::limits::{LISTING_ROWS, LISTING_ROWS_PER_TURN, LISTING_SLOTS_PER_TURN};
use crate::link::Link;
use crate::spec::{ClusterId, EndpointId, ListenerId, Network, RouteId};
use crate::table::Id;
use std::time::Duration;

/// Which life of which slot of a shard's table of conns: of a conn that has ended it names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub slot: u32,
    pub generation: u32,
}

/// The far side of a conn: where its request, or tunnel, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    pub cluster: ClusterId,
    /// None while an endpoint is waited for.
    pub endpoint: Option<EndpointId>,
    /// The link's own address, once it is connected.
    pub local: Option<SocketAddress>,
}

/// One conn as it is at a moment.
#[derive(Debug, Clone)]
pub struct Row {
    pub place: Place,
    pub listener: ListenerId,
    /// Where it is in its life, in a word.
    pub state: &'static str,
    /// Who connected, or who the PROXY header says did.
    pub peer: SocketAddress,
    /// Where it came in.
    pub local: Option<SocketAddress>,
    pub route: Option<RouteId>,
    pub upstream: Option<Upstream>,
    pub age: Duration,
    /// Since the last byte either way between it and its client, in steps of a millisecond.
    pub quiet: Duration,
    pub requests: u32,
    /// Bytes from the client and to it since the connection began, as TCP counts them: those to it are those that it
    /// acknowledged. None of a unix socket.
    pub carried: Option<(u64, u64)>,
}

/// Which conns are wanted; what is not said does not matter.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub listener: Option<ListenerId>,
    pub cluster: Option<ClusterId>,
    pub endpoint: Option<EndpointId>,
    pub source: Option<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// From this slot on.
    Walk,
    Show(Place),
    Kill(Place),
}

/// A question about conns, and its answer.
#[derive(Debug)]
pub struct Listing {
    task: Task,
    wanted: Wanted,
    /// The next slot to look at.
    at: u32,
    most: usize,
    rows: Vec<Row>,
    more: bool,
}

impl Listing {
    /// The first conns from slot `from` on that are `wanted`, at most `most` or `LISTING_ROWS`.
    pub fn page(wanted: Wanted, from: u32, most: usize) -> Self {
        let most = most.min(LISTING_ROWS);
        Self { task: Task::Walk, wanted, at: from, most, rows: Vec::with_capacity(most), more: false }
    }
    /// One conn.
    pub fn one(place: Place) -> Self {
        Self { task: Task::Show(place), ..Self::page(Wanted::default(), 0, 1) }
    }
    /// Closes one conn at once; its row is how it was before.
    pub fn kill(place: Place) -> Self {
        Self { task: Task::Kill(place), ..Self::page(Wanted::default(), 0, 1) }
    }
    /// What was found, in the order of slots.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
    /// The slot from which the next page goes on; none behind the last.
    pub fn next(&self) -> Option<u32> {
        self.more.then_some(self.at)
    }

    /// Does one turn's part; true once it is answered.
    pub fn advance(&mut self, core: &mut Core, io: &mut impl Io) -> bool {
        match self.task {
            Task::Walk => return self.walk(core, io),
            Task::Show(place) => _ = self.take(core, io, place),
            Task::Kill(place) => {
                if let Some(id) = self.take(core, io, place) {
                    close::begin(core, io, id, CloseReason::Killed);
                }
            }
        }
        true
    }

    fn take(&mut self, core: &Core, io: &mut impl Io, place: Place) -> Option<Id<Conn>> {
        let id = Id::new(place.slot, place.generation)?;
        let conn = core.conns.get(id).filter(|conn| conn.phase() != Phase::Closing)?;
        self.rows.push(row(core, io, id, conn));
        Some(id)
    }

    fn walk(&mut self, core: &Core, io: &mut impl Io) -> bool {
        let (end, mut taken) = (core.conns.slots(), 0);
        for _ in 0..LISTING_SLOTS_PER_TURN {
            if self.at >= end {
                return true;
            }
            let id = core.conns.id_at(self.at);
            if let Some((id, conn)) = id.and_then(|id| Some((id, core.conns.get(id)?)))
                && self.wanted.takes(core, conn)
            {
                if self.rows.len() >= self.most {
                    self.more = true;
                    return true;
                }
                self.rows.push(row(core, io, id, conn));
                taken += 1;
            }
            self.at += 1;
            if taken >= LISTING_ROWS_PER_TURN {
                return false;
            }
        }
        false
    }
}

impl Wanted {
    fn takes(&self, core: &Core, conn: &Conn) -> bool {
        let is = |wanted: Option<bool>| wanted.unwrap_or(true);
        let source = |network: Network| conn.peer.ip().is_some_and(|ip| network.contains(ip));
        if !is(self.listener.map(|id| id == conn.listener)) || !is(self.source.map(source)) {
            return false;
        }
        if self.cluster.is_none() && self.endpoint.is_none() {
            return true;
        }
        upstream(core, conn).1.is_some_and(|upstream| {
            is(self.cluster.map(|id| id == upstream.cluster))
                && is(self.endpoint.map(|id| Some(id) == upstream.endpoint))
        })
    }
}

/// The route that a conn's request, or the conn itself, took, and where that leads.
fn upstream(core: &Core, conn: &Conn) -> (Option<RouteId>, Option<Upstream>) {
    let of_link = |id: Id<Link>| {
        let link = core.links.get(id)?;
        Some(Upstream { cluster: link.cluster, endpoint: Some(link.endpoint), local: link.local })
    };
    if let Some(tunnel) = conn.tunnel.and_then(|id| core.tunnels.get(id)) {
        let reach = tunnel.reach.as_ref();
        let waits = || reach.map(|r| Upstream { cluster: r.cluster, endpoint: r.endpoint, local: None });
        return (reach.and_then(|reach| reach.route), tunnel.link.and_then(of_link).or_else(waits));
    }
    let Some(x) = conn.exchange.and_then(|id| core.exchanges.get(id)) else { return (None, None) };
    let waits = || x.cluster.map(|cluster| Upstream { cluster, endpoint: x.endpoint, local: None });
    (x.route, x.link.and_then(of_link).or_else(waits))
}

fn state(conn: &Conn) -> &'static str {
    match conn.phase() {
        Phase::Open => "open",
        Phase::Preface => "preface",
        Phase::Serving if conn.exchange.is_some() => "request",
        Phase::Serving if conn.rx.is_some() => "head",
        Phase::Serving => "idle",
        Phase::Connecting => "connecting",
        Phase::Tunnel => "tunnel",
        Phase::Lingering => "lingering",
        Phase::Closing => "closing",
    }
}

fn row(core: &Core, io: &mut impl Io, id: Id<Conn>, conn: &Conn) -> Row {
    let now = core.now();
    let (route, upstream) = upstream(core, conn);
    Row {
        place: Place { slot: id.slot(), generation: id.generation() },
        listener: conn.listener,
        state: state(conn),
        peer: conn.peer,
        local: io.local_address(conn.stream.fd).ok(),
        route,
        upstream,
        age: Duration::from_nanos(now.since(conn.opened)),
        quiet: Duration::from_nanos(now.since(conn.deadlines.progress.before(now))),
        requests: conn.requests,
        carried: io.carried(conn.stream.fd).ok(),
    }
}

/// Once a turn: goes on with the page that is under way.
pub(super) fn go_on(shard: &mut Shard, io: &mut impl Io) {
    let Some(mut listing) = shard.listing.take() else { return };
    if !listing.advance(&mut shard.core, io) {
        shard.listing = Some(listing);
        return;
    }
    let returned = shard.listed.as_mut().map(|listed| listed.push(listing));
    debug_assert!(matches!(returned, Some(Ok(()))), "a shard has one listing at a time");
}
