//! What a shard owns besides its ring: the tables of conns, exchanges, links and tunnels, the buffers, the clocks.
//!
//! Everything from `link` up takes `&mut Core`. It names the types of the layers above it, which is the one exception to
//! the layer rule: types together, behaviour apart. It decides nothing.

mod leaving;
mod shared;

pub use leaving::{Parties, Party};
pub use shared::{Shared, SharedRoutes};

use crate::buf::{Pool, PoolSize};
use crate::bulk::Share;
use crate::cluster::ClusterState;
use crate::cluster::budget::Budget;
use crate::cluster::delay::HedgeDelay;
use crate::cluster::exhausted::Exhausted;
use crate::cluster::shared::{Counts, SharedCluster};
use crate::conn::Conn;
use crate::conn::brief::Brief;
use crate::conn::follow::Following;
use crate::conn::moving::Moving;
use crate::conn::room::Descriptors;
use crate::exchange::Exchange;
use crate::exchange::beside::Beside;
use crate::io::{Clock, Mono};
use crate::limits;
use crate::link::Link;
use crate::link::pool::IdleList;
use crate::link::queue::{WaitList, Waiter};
use crate::listener::ListenerState;
use crate::post::Post;
use crate::proto::{RequestHead, ResponseHead};
use crate::route::RouteTable;
use crate::spec::{Cluster, ClusterId, Drains, ListenerId, RouteId, Snapshot};
use crate::stats::Stats;
use crate::stats::access_log::LogWriter;
use crate::stats::objects::{OfListener, OfRoute};
use crate::stats::request_id::RequestId;
use crate::table::{Id, Slab, TimerWheel};
use crate::tunnel::Tunnel;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One cluster as this shard runs it: its balancer, and its idle links by endpoint.
#[derive(Debug)]
pub struct ClusterRuntime {
    pub state: ClusterState,
    pub idle: Vec<IdleList>,
    pub queue: WaitList,
    /// What its second attempts may cost; without it they are bounded by each request.
    pub budget: Option<Budget>,
    /// When its hedges begin.
    pub hedge: Option<HedgeDelay>,
}

impl ClusterRuntime {
    /// At one shard of so many.
    pub fn new(
        spec: Arc<Cluster>,
        shared: Arc<SharedCluster>,
        (shard, shards): (u16, u16),
        seed: u64,
    ) -> Self {
        let idle = vec![IdleList::default(); spec.endpoints.len()];
        let (budget, hedge) = second_attempts(&spec, shards);
        let state = ClusterState::new(spec, shared, shard, seed);
        Self { state, idle, queue: WaitList::default(), budget, hedge }
    }

    /// Whether it counts by `shared`, and so is of that cluster: an id may be another's.
    pub fn is_of(&self, shared: Option<&Option<Arc<SharedCluster>>>) -> bool {
        let shared = shared.and_then(Option::as_ref);
        shared.is_some_and(|shared| std::ptr::eq(&raw const **shared, self.state.shared()))
    }
    /// Goes on by another specification, whose endpoints have the ids that they had.
    pub fn change(&mut self, spec: Arc<Cluster>, shards: u16, now: Mono) {
        let endpoints = self.idle.len().max(spec.endpoints.len());
        self.idle.resize(endpoints, IdleList::default());
        if spec.retry != self.state.spec().retry {
            (self.budget, self.hedge) = second_attempts(&spec, shards);
        }
        self.state.change(spec, now);
    }
}

fn second_attempts(spec: &Cluster, shards: u16) -> (Option<Budget>, Option<HedgeDelay>) {
    let retry = spec.retry.as_ref();
    let budget = retry.map(|r| Budget::new(r.budget_percent, r.budget_minimum, shards));
    (budget, retry.and_then(|r| r.hedge_after).map(HedgeDelay::new))
}

/// The text of the current second for Date fields (RFC 9110 5.6.7), written anew once a second.
#[derive(Debug)]
pub struct Date {
    second: u64,
    text: [u8; 29],
}

impl Default for Date {
    fn default() -> Self {
        Self { second: u64::MAX, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl Date {
    pub fn update(&mut self, wall: u64) {
        let second = wall / 1_000_000_000;
        if second != self.second {
            self.second = second;
            let time = std::time::UNIX_EPOCH + Duration::from_secs(second);
            // Writes exactly 29 bytes; an error could only mean that it does not fit, and then the old text stays.
            let _ = std::io::Write::write_fmt(
                &mut self.text.as_mut_slice(),
                format_args!("{}", httpdate::HttpDate::from(time)),
            );
        }
    }
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Memory that is used within one event and kept for its capacity.
#[derive(Debug, Default)]
pub struct Scratch {
    pub request: RequestHead,
    pub response: ResponseHead,
    /// A whole answer of our own, its body, and its fields' values.
    pub reply: Vec<u8>,
    pub body: Vec<u8>,
    pub values: Vec<u8>,
    /// The handshake message of a ClientHello.
    pub hello: Vec<u8>,
}

pub struct Core {
    pub shard: u16,
    /// Of the balancers' random draws.
    pub seed: u64,
    pub clock: Clock,
    pub date: Date,
    pub snapshot: Arc<Snapshot>,
    pub routes: Arc<RouteTable>,
    pub shared: Arc<Shared>,
    pub listeners: Vec<ListenerState>,
    pub conns: Slab<Conn>,
    pub exchanges: Slab<Exchange>,
    /// What some of them have beside their attempt.
    pub besides: Slab<Beside>,
    pub links: Slab<Link>,
    pub tunnels: Slab<Tunnel>,
    /// Those who wait for a place at a full cluster.
    pub waiters: Slab<Waiter>,
    /// Clusters at which a place may have become free for one who waits; looked at when the turn ends.
    pub stirred: Vec<ClusterId>,
    /// When all with waiters are looked at again.
    pub queue_look: Mono,
    /// Messages to other shards that may still fail.
    pub posts: Slab<Post>,
    pub clusters: Vec<Option<ClusterRuntime>>,
    /// By cluster, how many of its endpoints are usable; right for those that routes ask about after [`Core::count_available`].
    pub available: Vec<u32>,
    /// Sources without a free port towards an endpoint.
    pub exhausted: Exhausted,
    pub pool: Pool,
    pub wheel: TimerWheel,
    pub stats: Arc<Stats>,
    pub log: LogWriter,
    pub scratch: Scratch,
    /// Set once: nothing new is accepted, and every connection ends at its next boundary.
    pub draining: bool,
    /// Listeners whose conns leave though the process goes on, or as long as it does.
    pub drains: Arc<Drains>,
    /// Conns that leave with their listener, and by when.
    pub parties: Parties,
    /// Conns that wait for a request go to another process.
    pub moving: Option<Moving>,
    /// Shorter timeouts on their way to the conns that are silent.
    pub following: Following,
    /// From which numbers on the process's descriptors are short.
    pub descriptors: Descriptors,
    /// A link found no descriptor: room is made when the turn ends.
    pub lacks_descriptors: bool,
    /// Before then nobody is looked for who could make room: none was found just now.
    pub room_look: Mono,
    /// How many of its conns will last.
    pub brief: Brief,
    /// How long a conn waits for a request before it is parked.
    pub park_after: Duration,
    /// Numbers this shard's requests; with node and shard it makes the request id.
    pub next_request: u64,
    /// Of a turn, among the flows that are spliced.
    pub share: Share,
    /// The process's part of its request ids.
    pub process_tag: u32,
    /// Tables of heads that ended exchanges left, so that the steady path allocates none.
    pub spare_heads: Vec<(RequestHead, ResponseHead)>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("shard", &self.shard)
            .field("conns", &self.conns.len())
            .finish_non_exhaustive()
    }
}

/// Conns that a shard has slots for.
fn conns_max(snapshot: &Snapshot) -> u32 {
    let most: u32 =
        snapshot.listeners.iter().flatten().map(|l| l.max_connections).fold(0, u32::saturating_add);
    // Refused connections take a slot while they are answered, so there are a few more slots than connections.
    most.saturating_add(most / 8).saturating_add(1024).min(1 << 24)
}

/// What a shard is given to start with.
#[derive(Debug)]
pub struct Setup {
    pub shard: u16,
    pub snapshot: Arc<Snapshot>,
    pub routes: Arc<RouteTable>,
    pub shared: Arc<Shared>,
    pub stats: Arc<Stats>,
    pub log: LogWriter,
    pub pool: PoolSize,
    /// Seed of the balancers' random draws.
    pub seed: u64,
    /// From `request_id::process_tag`.
    pub process_tag: u32,
}

impl Core {
    pub fn new(setup: Setup, clock: Clock) -> Self {
        let Setup { shard, snapshot, routes, shared, stats, log, pool, seed, process_tag } = setup;
        let conns_max = conns_max(&snapshot);
        let cluster = |(index, spec): (usize, &Option<Arc<Cluster>>)| {
            let (spec, shared) = (spec.as_ref()?, shared.clusters.get(index)?.as_ref()?);
            let at = (shard, snapshot.runtime.shards);
            Some(ClusterRuntime::new(spec.clone(), shared.clone(), at, seed))
        };
        let clusters: Vec<_> = snapshot.clusters.iter().enumerate().map(cluster).collect();
        Self {
            shard,
            seed,
            clock,
            date: Date::default(),
            routes,
            listeners: Vec::new(),
            conns: Slab::new(conns_max),
            exchanges: Slab::new(conns_max),
            besides: Slab::new(conns_max),
            links: Slab::new(conns_max.saturating_mul(2)),
            tunnels: Slab::new(conns_max),
            waiters: Slab::new(conns_max),
            stirred: Vec::with_capacity(clusters.len()),
            queue_look: Mono(0),
            posts: Slab::new(limits::POSTS),
            available: vec![0; clusters.len()],
            clusters,
            exhausted: Exhausted::new(),
            pool: Pool::new(pool),
            wheel: TimerWheel::new(clock.mono),
            stats,
            log,
            scratch: Scratch {
                reply: vec![0; limits::RESPOND_BODY + limits::RESPOND_VALUES + limits::HEAD_ADDED_BYTES * 2],
                body: vec![0; limits::RESPOND_BODY],
                values: vec![0; limits::RESPOND_VALUES],
                hello: Vec::with_capacity(limits::CLIENT_HELLO_BYTES),
                ..Scratch::default()
            },
            draining: false,
            drains: Arc::default(),
            parties: Parties::default(),
            moving: None,
            following: Following::default(),
            descriptors: Descriptors::default(),
            lacks_descriptors: false,
            room_look: Mono(0),
            brief: Brief::default(),
            park_after: limits::PARK_AFTER,
            next_request: 0,
            share: Share::default(),
            process_tag,
            spare_heads: Vec::new(),
            snapshot,
            shared,
        }
    }

    /// There is room for the conns that this configuration allows.
    pub fn make_room(&mut self) {
        let most = conns_max(&self.snapshot);
        self.conns.raise(most);
        self.exchanges.raise(most);
        self.besides.raise(most);
        self.links.raise(most.saturating_mul(2));
        self.tunnels.raise(most);
        self.waiters.raise(most);
    }
    /// Whom a conn of this listener leaves with: those of its drain, or of a reload that was just now.
    pub fn party(&mut self, listener: ListenerId) -> Party {
        match self.drains.of(listener) {
            Some(order) => self.parties.join(order, self.conns.slots(), self.seed),
            None => self.parties.join_reload(self.now().after(self.snapshot.runtime.drain_timeout)),
        }
    }

    pub fn cluster_mut(&mut self, id: ClusterId) -> Option<&mut ClusterRuntime> {
        self.clusters.get_mut(usize::from(id.0))?.as_mut()
    }
    pub fn listener_spec(&self, id: ListenerId) -> Option<&Arc<crate::spec::Listener>> {
        self.snapshot.listener(id)
    }
    /// What this shard counts of a listener.
    pub fn of_listener(&self, id: ListenerId) -> Option<&OfListener> {
        let shared = self.shared.listeners.get(usize::from(id.0))?.as_ref()?;
        shared.counts().get(usize::from(self.shard))
    }
    /// What this shard counts of a route.
    pub fn of_route(&self, id: RouteId) -> Option<&OfRoute> {
        self.shared.routes.counts(id)?.get(usize::from(self.shard))
    }
    /// What this shard counts of a cluster and its endpoints.
    pub fn of_cluster(&self, id: ClusterId) -> Option<&Counts> {
        self.clusters.get(usize::from(id.0))?.as_ref()?.state.counts()
    }
    /// The conn that an exchange belongs to.
    pub fn conn_of(&self, exchange: Id<Exchange>) -> Option<Id<Conn>> {
        self.exchanges.get(exchange).map(|x| x.conn)
    }
    /// The id of request `count` of this shard.
    pub fn request_id(&self, count: u64) -> RequestId {
        RequestId { process: self.process_tag, shard: self.shard, count }
    }
    pub fn now(&self) -> Mono {
        self.clock.mono
    }
    /// Counts the usable endpoints of the clusters that routes ask about: to be done before a route is looked for.
    pub fn count_available(&mut self) {
        let now = self.now();
        let Self { routes, clusters, available, .. } = self;
        for id in routes.asks_about() {
            let at = usize::from(id.0);
            if let (Some(Some(runtime)), Some(count)) = (clusters.get_mut(at), available.get_mut(at)) {
                runtime.state.refresh(now);
                *count = runtime.state.usable().count();
            }
        }
    }
}
