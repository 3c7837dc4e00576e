//! The only counts that cross shards: per listener, cluster and endpoint. Exact: a limit is never exceeded, and is
//! reached at saturation. Touched at most once per pick, acquire and release (twice where a policy needs what runs at the
//! whole cluster); all other statistics have one writer.
//!
//! Orderings are relaxed, because a count guards no other memory: what matters is that each change of one number is
//! atomic. A cluster's version is raised after what it announces, and read before (release and acquire). One pair of numbers must be seen together: who frees a place looks for those who wait, and who waits looks
//! for a free place. [`SharedCluster::meet`] stands between the two steps on both sides, so that at least one sees the
//! other. `tests/loom.rs` checks every interleaving.

mod loads;

pub use loads::SharedLoads;

use super::breaker::SharedBreaker;
use super::condition::SharedCondition;
use super::events::Events;
use super::grown::Grown;
use crate::spec::{Cluster, ClusterId, EndpointId};
use crate::stats::objects::{OfCluster, OfEndpoint, OfListener};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded, fence};
use std::sync::{Arc, OnceLock};

/// How many of something are out, over all shards.
#[derive(Debug)]
pub(super) struct Count(AtomicU32);

impl Count {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    /// Takes one unless `limit` are out; `u32::MAX` is no limit. Compares and swaps: adding first and undoing later
    /// would refuse others in between although there was room.
    pub(super) fn try_take(&self, limit: u32) -> bool {
        let next = |n: u32| (n < limit).then(|| n.saturating_add(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
    /// Gives one back; how many are left.
    pub(super) fn give_back(&self) -> u32 {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more given back than taken");
        before.wrapping_sub(1)
    }
    /// Gives one back unless none is out.
    fn give_back_if_any(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}

/// One listener's open connections, over all shards, and what each counts.
#[derive(Debug)]
pub struct SharedListener {
    open: Padded<Count>,
    /// By shard, which alone writes its own.
    counts: Box<[OfListener]>,
}

impl SharedListener {
    pub fn new(shards: u16) -> Self {
        let counts = (0..shards).map(|_| OfListener::default()).collect();
        Self { open: Padded(Count::new()), counts }
    }
    /// What each shard counts of it.
    pub fn counts(&self) -> &[OfListener] {
        &self.counts
    }
    /// Counts a connection in, unless `limit` are open.
    pub fn try_open(&self, limit: u32) -> bool {
        self.open.0.try_take(limit)
    }
    /// Counts a connection out.
    pub fn close(&self) {
        self.open.0.give_back();
    }
    pub fn open(&self) -> u32 {
        self.open.0.get()
    }
}

/// A set of shards, a bit each.
#[derive(Debug)]
struct ShardSet(Box<[AtomicU64]>);

impl ShardSet {
    fn new(shards: u16) -> Self {
        Self((0..usize::from(shards).div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }
    fn word(&self, shard: u16) -> Option<(&AtomicU64, u64)> {
        self.0.get(usize::from(shard) / 64).map(|word| (word, 1 << (shard % 64)))
    }
    fn add(&self, shard: u16) {
        if let Some((word, bit)) = self.word(shard) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
    fn remove(&self, shard: u16) {
        if let Some((word, bit)) = self.word(shard) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }
    /// The first member after `shard`, going round; `shard` itself comes last.
    fn next_after(&self, shard: u16) -> Option<u16> {
        let members = || {
            self.0.iter().zip(0u16..).flat_map(|(word, at)| {
                let mut left = word.load(Ordering::Relaxed);
                std::iter::from_fn(move || {
                    let bit = u16::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
                    left &= left - 1;
                    Some(at * 64 + bit)
                })
            })
        };
        members().find(|member| *member > shard).or_else(|| members().next())
    }
}

/// One cluster's numbers, over all shards.
#[derive(Debug)]
pub struct SharedCluster {
    pub(super) id: ClusterId,
    pub(super) events: Arc<Events>,
    /// Raised by every change of a condition; read at every pick, and nearly never written.
    pub(super) version: Padded<AtomicU64>,
    /// The cluster's own.
    pub(super) breaker: Padded<SharedBreaker>,
    /// Endpoints that are ejected, those included whose readmission nobody wrote down yet.
    pub(super) ejected: Padded<Count>,
    /// By shard, which alone writes its own. None until the cluster watches rates.
    pub(super) tallies: OnceLock<Box<[Padded<Tallies>]>>,
    pick_ticket: Padded<AtomicU64>,
    source_ticket: Padded<AtomicU64>,
    /// Counted only where the policy asks for it.
    running: Padded<Count>,
    idle_links: Padded<Count>,
    queue: Padded<SharedQueue>,
    endpoints: Grown<Padded<SharedEndpoint>>,
    shards: u16,
    /// By shard, which alone writes its own.
    counts: Box<[Counts]>,
}

/// What one shard counts of a cluster and its endpoints.
#[derive(Debug)]
pub struct Counts {
    pub cluster: OfCluster,
    endpoints: Grown<OfEndpoint>,
}

impl Counts {
    fn new(endpoints: usize) -> Self {
        Self { cluster: OfCluster::default(), endpoints: Grown::new(endpoints, |_| OfEndpoint::default()) }
    }
    pub fn endpoint(&self, id: EndpointId) -> Option<&OfEndpoint> {
        self.endpoints.get(usize::from(id.0))
    }
}

/// By endpoint: requests that ended, and how many of them failed.
pub(super) type Tallies = Grown<[AtomicU64; 2]>;

fn tally(_: usize) -> [AtomicU64; 2] {
    [AtomicU64::new(0), AtomicU64::new(0)]
}

/// Those who wait for a place at a cluster.
#[derive(Debug)]
struct SharedQueue {
    waiters: Count,
    /// Waiters that any place would serve: whoever comes now waits behind them.
    eager: Count,
    /// On which shards.
    shards: ShardSet,
    /// The shard whose turn was last.
    last: AtomicU32,
}

/// One endpoint's numbers, over all shards.
#[derive(Debug)]
pub struct SharedEndpoint {
    open_links: Count,
    running_requests: Count,
    /// Shards with an idle link to it; kept where `max_connections` is a number.
    idle: ShardSet,
    pub(super) condition: SharedCondition,
}

impl SharedCluster {
    /// Of `spec`, which tells `events` what happens.
    pub fn of(spec: &Cluster, shards: u16, events: Arc<Events>) -> Self {
        let shared = Self { id: spec.id, events, ..Self::new(spec.endpoints.len(), shards) };
        shared.follow(spec);
        shared
    }
    /// Counts what `spec` asks for. By control alone, before a shard is told of it.
    pub fn follow(&self, spec: &Cluster) {
        if spec.outlier.is_some_and(|rules| rules.failure_rate.is_some()) {
            let of_shard = |_| Padded(Grown::new(spec.endpoints.len(), tally));
            self.tallies.get_or_init(|| (0..self.shards).map(of_shard).collect());
        }
    }
    /// Of a cluster of so many endpoints that no rules hold for, and of which nobody is told anything.
    pub fn new(endpoints: usize, shards: u16) -> Self {
        Self {
            id: ClusterId(0),
            events: Arc::new(Events::with_slots(2)),
            version: Padded(AtomicU64::new(0)),
            breaker: Padded(SharedBreaker::new()),
            ejected: Padded(Count::new()),
            tallies: OnceLock::new(),
            pick_ticket: Padded(AtomicU64::new(0)),
            source_ticket: Padded(AtomicU64::new(0)),
            running: Padded(Count::new()),
            idle_links: Padded(Count::new()),
            queue: Padded(SharedQueue {
                waiters: Count::new(),
                eager: Count::new(),
                shards: ShardSet::new(shards),
                last: AtomicU32::new(u32::from(shards.saturating_sub(1))),
            }),
            endpoints: Grown::new(endpoints, |_| Padded(SharedEndpoint::new(shards))),
            shards,
            counts: (0..shards).map(|_| Counts::new(endpoints)).collect(),
        }
    }

    /// What each shard counts of it.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }
    pub(super) fn counts_of(&self, shard: u16) -> Option<&Counts> {
        self.counts.get(usize::from(shard))
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<&SharedEndpoint> {
        self.endpoints.get(usize::from(id.0)).map(|padded| &padded.0)
    }
    /// Makes room for endpoints of ids below `endpoints`; those that are there keep all their numbers. By control alone,
    /// before a shard is told of them.
    pub fn grow(&self, endpoints: usize) {
        self.endpoints.grow(endpoints, |_| Padded(SharedEndpoint::new(self.shards)));
        self.tallies.get().into_iter().flatten().for_each(|tallies| tallies.0.grow(endpoints, tally));
        for counts in &self.counts {
            counts.endpoints.grow(endpoints, |_| OfEndpoint::default());
        }
    }
    /// Whether nothing is open at an endpoint, and nothing runs there.
    pub fn is_unused(&self, id: EndpointId) -> bool {
        self.endpoint(id).is_none_or(|e| e.open_links() == 0 && e.running_requests() == 0)
    }
    /// Every endpoint that there is room for; one that no cluster has an endpoint for counts nothing.
    pub fn endpoints(&self) -> impl Iterator<Item = &SharedEndpoint> {
        self.endpoints.iter().map(|padded| &padded.0)
    }
    /// The next pick's number: all shards together count 0, 1, 2, ….
    pub fn take_pick_ticket(&self) -> u64 {
        self.pick_ticket.0.fetch_add(1, Ordering::Relaxed)
    }
    /// The next number of a source address.
    pub fn take_source_ticket(&self) -> u64 {
        self.source_ticket.0.fetch_add(1, Ordering::Relaxed)
    }
    /// Counts a request in.
    pub fn start(&self) {
        self.running.0.try_take(u32::MAX);
    }
    /// Counts a request out, if it was counted in: another policy may have been the cluster's then.
    pub fn end(&self) {
        self.running.0.give_back_if_any();
    }
    /// Requests that run at the cluster, where they are counted.
    pub fn running(&self) -> u32 {
        self.running.0.get()
    }
    /// Counts an idle link in, unless `limit` are kept.
    pub fn try_park(&self, limit: u32) -> bool {
        self.idle_links.0.try_take(limit)
    }
    /// Counts an idle link out.
    pub fn unpark(&self) {
        self.idle_links.0.give_back();
    }
    pub fn idle_links(&self) -> u32 {
        self.idle_links.0.get()
    }
}

/// Places and those who wait for one.
impl SharedCluster {
    /// Between the two steps of whoever frees a place or begins to wait: what was written before is seen by all who come
    /// here later, and what is read after is no older.
    pub fn meet(&self) {
        fence(Ordering::SeqCst);
    }
    /// Counts a waiter of `shard` in, unless `limit` wait. `eager`: any place would serve it.
    pub fn try_wait(&self, shard: u16, eager: bool, limit: u32) -> bool {
        let queue = &self.queue.0;
        if !queue.waiters.try_take(limit) {
            return false;
        }
        if eager {
            queue.eager.try_take(u32::MAX);
        }
        queue.shards.add(shard);
        true
    }
    /// Counts a waiter of `shard` out; `last` says that no other of that shard waits.
    pub fn end_wait(&self, shard: u16, eager: bool, last: bool) {
        let queue = &self.queue.0;
        if last {
            queue.shards.remove(shard);
        }
        if eager {
            queue.eager.give_back();
        }
        queue.waiters.give_back();
    }
    pub fn waiters(&self) -> u32 {
        self.queue.0.waiters.get()
    }
    /// Whether somebody waits whom any place would serve.
    pub fn is_queue_eager(&self) -> bool {
        self.queue.0.eager.get() > 0
    }
    /// Whether anybody waits.
    pub fn has_waiters(&self) -> bool {
        !self.queue.0.shards.is_empty()
    }
    /// The shard with waiters whose turn is next.
    pub fn next_waiting(&self) -> Option<u16> {
        let queue = &self.queue.0;
        queue.shards.next_after(u16::try_from(queue.last.load(Ordering::Relaxed)).unwrap_or(0))
    }
    /// As [`SharedCluster::next_waiting`], and the turn is that shard's: who asks next is told the one after it.
    pub fn take_turn(&self) -> Option<u16> {
        let queue = &self.queue.0;
        let mut last = queue.last.load(Ordering::Relaxed);
        loop {
            let next = queue.shards.next_after(u16::try_from(last).unwrap_or(0))?;
            let (seen, order) = (u32::from(next), Ordering::Relaxed);
            match queue.last.compare_exchange(last, seen, order, order) {
                Ok(_) => return Some(next),
                Err(other) => last = other,
            }
        }
    }
}

impl SharedEndpoint {
    fn new(shards: u16) -> Self {
        Self {
            open_links: Count::new(),
            running_requests: Count::new(),
            idle: ShardSet::new(shards),
            condition: SharedCondition::new(),
        }
    }
    /// Counts a link in (from the start of its connect to its close), unless `limit` are open.
    pub fn try_open_link(&self, limit: u32) -> bool {
        self.open_links.try_take(limit)
    }
    pub fn close_link(&self) {
        self.open_links.give_back();
    }
    /// `shard` has its first idle link, or no idle link any more.
    pub fn set_idle(&self, shard: u16, some: bool) {
        if some { self.idle.add(shard) } else { self.idle.remove(shard) }
    }
    /// A shard with an idle link, the next after `shard`; perhaps `shard` itself.
    pub fn idle_after(&self, shard: u16) -> Option<u16> {
        self.idle.next_after(shard)
    }
    /// Counts a request in, unless `limit` are running.
    pub fn try_start(&self, limit: u32) -> bool {
        self.running_requests.try_take(limit)
    }
    /// Counts a request out; how many are left.
    pub fn end(&self) -> u32 {
        self.running_requests.give_back()
    }
    pub fn open_links(&self) -> u32 {
        self.open_links.get()
    }
    pub fn running_requests(&self) -> u32 {
        self.running_requests.get()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_limit_is_reached_and_not_exceeded() {
        let listener = SharedListener::new(1);
        assert!(listener.try_open(2) && listener.try_open(2) && !listener.try_open(2));
        listener.close();
        assert!(listener.try_open(2));
        assert_eq!(listener.open(), 2);
        assert!(!SharedListener::new(1).try_open(0));
        assert!(SharedListener::new(1).try_open(u32::MAX));
    }

    #[test]
    fn threads_together_take_exactly_the_limit() {
        let cluster = SharedCluster::new(1, 1);
        let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| endpoint.try_start(2500)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, endpoint.running_requests()), (2500, 2500));
    }

    #[test]
    fn shards_that_wait_take_turns() {
        let cluster = SharedCluster::new(0, 130);
        assert_eq!((cluster.next_waiting(), cluster.take_turn(), cluster.has_waiters()), (None, None, false));
        for shard in [0, 63, 64, 129] {
            assert!(cluster.try_wait(shard, true, 8));
        }
        assert_eq!(
            (cluster.next_waiting(), cluster.next_waiting()),
            (Some(0), Some(0)),
            "looking changes nothing"
        );
        let turns: Vec<_> = (0..6).filter_map(|_| cluster.take_turn()).collect();
        assert_eq!(turns, [0, 63, 64, 129, 0, 63]);
        cluster.end_wait(64, true, true);
        assert_eq!(cluster.take_turn(), Some(129));
    }

    #[test]
    fn waiters_are_bounded_and_counted() {
        let cluster = SharedCluster::new(0, 2);
        assert!(cluster.try_wait(0, false, 2) && !cluster.is_queue_eager() && cluster.has_waiters());
        assert!(cluster.try_wait(0, true, 2) && cluster.is_queue_eager());
        assert!(!cluster.try_wait(1, true, 2));
        assert_eq!((cluster.waiters(), cluster.take_turn(), cluster.take_turn()), (2, Some(0), Some(0)));
        cluster.end_wait(0, true, false);
        assert!(!cluster.is_queue_eager() && cluster.has_waiters());
        cluster.end_wait(0, false, true);
        assert_eq!((cluster.waiters(), cluster.has_waiters()), (0, false));
    }

    #[test]
    fn idle_links_are_found() {
        let cluster = SharedCluster::new(1, 4);
        let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
        assert_eq!(endpoint.idle_after(0), None);
        endpoint.set_idle(2, true);
        endpoint.set_idle(0, true);
        assert_eq!(
            (endpoint.idle_after(0), endpoint.idle_after(2), endpoint.idle_after(3)),
            (Some(2), Some(0), Some(0))
        );
        endpoint.set_idle(2, false);
        assert_eq!(endpoint.idle_after(0), Some(0));
        assert!(cluster.endpoint(EndpointId(1)).is_none());
    }
}
