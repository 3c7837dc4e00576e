//! The only counts that cross shards: per listener, cluster and endpoint. Exact: a limit is never exceeded, and is
//! reached at saturation. Touched at most once per pick, acquire and release; all other statistics have one writer.
//!
//! All orderings are relaxed, because a count guards no other memory: what matters is that each change of one number
//! is atomic. `tests/loom.rs` checks every interleaving.

use crate::spec::EndpointId;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, Padded};

/// How many of something are out, over all shards.
#[derive(Debug)]
struct Count(AtomicU32);

impl Count {
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    /// Takes one unless `limit` are out; `u32::MAX` is no limit. Compares and swaps: adding first and undoing later
    /// would refuse others in between although there was room.
    fn try_take(&self, limit: u32) -> bool {
        let next = |n: u32| (n < limit).then(|| n.saturating_add(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
    fn give_back(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more given back than taken");
    }
}

/// One listener's open connections, over all shards.
#[derive(Debug)]
pub struct SharedListener {
    open: Padded<Count>,
}

impl SharedListener {
    pub fn new() -> Self {
        Self { open: Padded(Count::new()) }
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

impl Default for SharedListener {
    fn default() -> Self {
        Self::new()
    }
}

/// One cluster's numbers, over all shards.
#[derive(Debug)]
pub struct SharedCluster {
    pick_ticket: Padded<AtomicU64>,
    source_ticket: Padded<AtomicU64>,
    idle_links: Padded<Count>,
    endpoints: Box<[Padded<SharedEndpoint>]>,
}

/// One endpoint's numbers, over all shards.
#[derive(Debug)]
pub struct SharedEndpoint {
    open_links: Count,
    running_requests: Count,
    /// A link was refused at the limit since a link was last closed for its sake.
    wanted: AtomicBool,
}

impl SharedCluster {
    pub fn new(endpoints: usize) -> Self {
        let endpoint = |_| {
            Padded(SharedEndpoint {
                open_links: Count::new(),
                running_requests: Count::new(),
                wanted: AtomicBool::new(false),
            })
        };
        Self {
            pick_ticket: Padded(AtomicU64::new(0)),
            source_ticket: Padded(AtomicU64::new(0)),
            idle_links: Padded(Count::new()),
            endpoints: (0..endpoints).map(endpoint).collect(),
        }
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<&SharedEndpoint> {
        self.endpoints.get(usize::from(id.0)).map(|padded| &padded.0)
    }
    /// The next pick's number: all shards together count 0, 1, 2, ….
    pub fn take_pick_ticket(&self) -> u64 {
        self.pick_ticket.0.fetch_add(1, Ordering::Relaxed)
    }
    /// The next number of a source address.
    pub fn take_source_ticket(&self) -> u64 {
        self.source_ticket.0.fetch_add(1, Ordering::Relaxed)
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

impl SharedEndpoint {
    /// Counts a link in (from the start of its connect to its close), unless `limit` are open.
    pub fn try_open_link(&self, limit: u32) -> bool {
        let taken = self.open_links.try_take(limit);
        if !taken {
            self.wanted.store(true, Ordering::Relaxed);
        }
        taken
    }
    pub fn close_link(&self) {
        self.open_links.give_back();
    }
    /// Whether a link was refused at the limit; answers one caller, who closes a link instead of keeping it idle where
    /// another shard cannot use it.
    pub fn take_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed)
    }
    /// Counts a request in, unless `limit` are running.
    pub fn try_start(&self, limit: u32) -> bool {
        self.running_requests.try_take(limit)
    }
    pub fn end(&self) {
        self.running_requests.give_back();
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
        let listener = SharedListener::new();
        assert!(listener.try_open(2) && listener.try_open(2) && !listener.try_open(2));
        listener.close();
        assert!(listener.try_open(2));
        assert_eq!(listener.open(), 2);
        assert!(!SharedListener::new().try_open(0));
        assert!(SharedListener::new().try_open(u32::MAX));
    }

    #[test]
    fn threads_together_take_exactly_the_limit() {
        let cluster = SharedCluster::new(1);
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
    fn a_refused_link_is_wanted_once() {
        let cluster = SharedCluster::new(1);
        let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
        assert!(endpoint.try_open_link(1) && !endpoint.take_wanted());
        assert!(!endpoint.try_open_link(1) && endpoint.take_wanted() && !endpoint.take_wanted());
        endpoint.close_link();
        assert_eq!(endpoint.open_links(), 0);
        assert!(cluster.endpoint(EndpointId(1)).is_none());
    }
}
