//! All shards of a process: opens the listeners (`listening`), starts a pinned thread for each shard, and speaks to them for control.

pub mod conditions;
mod drains;
pub mod explain;
mod lent;
mod listening;
pub mod listing;
pub mod moved;
pub mod numbers;
pub mod swap;

use crate::buf::PoolSize;
use crate::cluster::shared::SharedEndpoint;
use crate::conn::room::Descriptors;
use crate::core::{Setup, Shared};
use crate::io::{Address, Errno, Fd, Io, Kind, Mono, Token};
use crate::limits;
use crate::listener::Socket;
use crate::route::RouteTable;
use crate::shard::mailbox::{Command, Failure, Receiver, Sender, mailbox};
use crate::shard::swap::Swap;
use crate::shard::{Shard, Turn};
use crate::spec::{ClusterId, Drains, EndpointId, ListenerId, Snapshot, SwitchId};
use crate::stats::access_log::{self, LogReader};
use crate::stats::{Stats, request_id};
use crate::sys::inherited::InheritedError;
pub use crate::sys::unix::SocketFile;
use crate::sys::{self, Ring, RingOptions, affinity, clock, socket};
pub use crate::sys::{Features, RingMemory, Unusable};
use conditions::Watched;
pub use drains::Left;
pub use lent::{link_socket, private_listener};
pub use listening::Handed;
use listening::Listening;
use listing::Listing;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use swap::{Step, Switching};

/// What the plane tells control.
#[derive(Debug)]
pub enum PlaneEvent {
    ShardEnded { shard: u16, how: ShardEnd },
}

/// How a shard's thread ended.
#[derive(Debug)]
pub enum ShardEnd {
    /// Nothing was left.
    Drained,
    /// As told, at once.
    Stopped,
    /// A bug; the message says where. The process must end with 70.
    Panicked(String),
    /// The kernel refused the ring further service.
    Failed(String),
}

/// One bound address of a listener, with its real port.
#[derive(Debug, Clone)]
pub struct Bound {
    pub listener: ListenerId,
    pub address: Address,
}

/// Why the plane did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener's address could not be had.
    Bind { listener: String, address: Address, errno: Errno },
    /// An inherited descriptor is not what it should be.
    Inherited { listener: String, fd: i32, why: InheritedError },
    /// The machine cannot run it; the text says why and what to change.
    Machine(String),
}

/// A failure to inject, for tests.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Panic,
    Stall,
}

/// What this machine lends the process, for values that a configuration leaves to us.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// One shard per usable CPU, within the control group's quota.
    pub shards: usize,
    /// Descriptors that may be open, after the soft limit was raised to the hard one.
    pub descriptors: u64,
    /// Bytes of memory that may be locked; `u64::MAX` is no limit.
    pub locked_memory: u64,
}

/// Whether a link can be connected from this address: it is the machine's, or net.ipv4.ip_nonlocal_bind allows any.
pub fn is_source(ip: std::net::IpAddr) -> bool {
    socket::is_bindable(ip)
}

/// Descriptors that this process may have open now.
pub fn descriptor_limit() -> u64 {
    sys::rlimit::descriptors()
}

/// Raises the descriptor limit as far as it may be, and says what there is.
pub fn resources() -> Resources {
    Resources {
        shards: affinity::shard_count_auto(),
        descriptors: sys::rlimit::raise_descriptor_limit(),
        locked_memory: sys::rlimit::memlock(),
    }
}

/// Keeps the calling thread, and those that it starts from now on, off the CPUs of so many shards, if that leaves any. Shards pin
/// themselves to theirs.
pub fn keep_off_shards(shards: u16) -> bool {
    affinity::keep_off_shards(shards)
}

/// Lets the calling thread run on every CPU of the process again: a process that it starts has those that it may run on.
pub fn use_all_cpus() -> bool {
    affinity::use_all()
}

/// What io_uring there is: asks for a small ring with everything a shard's has, and lets it go again.
pub fn probe() -> Result<Features, Unusable> {
    sys::probe()
}

/// The running shards.
pub struct Plane {
    /// What the shards run, or are about to.
    present: RefCell<Swap>,
    steps: Cell<Step>,
    /// Where shards listen. Control is one thread, as with the mailboxes.
    listening: RefCell<Listening>,
    shards: Vec<Running>,
    log_readers: Vec<LogReader>,
    /// Who has not been told yet to look at which cluster, because its mailbox was full.
    untold: RefCell<BTreeSet<(ClusterId, usize)>>,
    /// What shards could not be told to do yet, for the same reason; the oldest first.
    unsent: RefCell<Vec<(usize, Command)>>,
    watched: RefCell<Vec<Watched>>,
    ring_memory: RingMemory,
    /// What shards wait for before they accept: that all of them are there.
    gate: Cell<Option<Gate>>,
}

/// Who is told the rings of all shards, and those.
type Gate = (Vec<mpsc::Sender<Arc<[Fd]>>>, Arc<[Fd]>);

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").field("bound", &self.bound()).finish_non_exhaustive()
    }
}

struct Running {
    thread: JoinHandle<()>,
    /// Control is one thread; the cell spares its callers a `mut`.
    commands: RefCell<Sender<Command>>,
    stats: Arc<Stats>,
    switching: RefCell<Switching>,
    /// What it lists, and whether it has a question.
    listed: RefCell<rtrb::Consumer<Box<Listing>>>,
    is_listing: Cell<bool>,
}

impl Plane {
    /// As [`Plane::prepare`], and each shard accepts.
    pub fn start(
        snapshot: Arc<Snapshot>,
        notify: impl Fn(PlaneEvent) + Send + Clone + 'static,
    ) -> Result<Self, StartError> {
        Self::prepare(snapshot, None, notify).inspect(Self::begin)
    }

    /// Binds every listener once per shard and starts the shards, which accept once they are told to begin. `notify` is called on the
    /// shards' threads. `handed` is what the process before this one listened on, if there was one.
    pub fn prepare(
        snapshot: Arc<Snapshot>,
        handed: Option<Vec<Handed>>,
        notify: impl Fn(PlaneEvent) + Send + Clone + 'static,
    ) -> Result<Self, StartError> {
        let features = sys::probe().map_err(|why| StartError::Machine(why.to_string()))?;
        check_kernel(&snapshot)?;
        let count = snapshot.runtime.shards.max(1);
        let mut listening = Listening::new(count, handed);
        let sockets = listening.follow(&snapshot, &Drains::default(), Mono(0))?;
        let routes = Arc::new(RouteTable::of(&snapshot));
        let shared = Arc::new(Shared::new(&snapshot));
        let wall = clock::now().wall;
        let tag = request_id::process_tag(&snapshot.runtime.node, wall);
        let lockable = sys::rlimit::lockable();
        let sizes = RingOptions::of_shards(count, lockable);
        let (ready, started) = mpsc::channel();
        let (mut shards, mut log_readers, mut go) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, sockets) in (0u16..).zip(sockets.iter().cloned()) {
            let (log, reader) = access_log::ring();
            let stats = Arc::new(Stats::default());
            let event = event()?;
            let (sender, receiver) = mailbox(limits::MAILBOX_COMMANDS, move || socket::signal_event(event));
            let (returns, returned) = rtrb::RingBuffer::new(1);
            let (listings, listed) = rtrb::RingBuffer::new(1);
            let setup = Setup {
                shard,
                snapshot: snapshot.clone(),
                routes: routes.clone(),
                shared: shared.clone(),
                stats: stats.clone(),
                log,
                pool: PoolSize::default(),
                seed: wall ^ u64::from(shard) << 48,
                process_tag: tag,
            };
            let (all_there, rings) = mpsc::channel();
            go.push(all_there);
            let (commands, cpu) = (receiver, affinity::cpu_of(shard));
            let start =
                Start { setup, sockets, cpu, features, sizes, commands, returns, listings, event, rings };
            let thread = spawn(start, ready.clone(), notify.clone())?;
            let switching = RefCell::new(Switching::new(returned));
            let (commands, listed) = (RefCell::new(sender), RefCell::new(listed));
            let is_listing = Cell::new(false);
            shards.push(Running { thread, commands, stats, switching, listed, is_listing });
            log_readers.push(reader);
        }
        drop(ready);
        let (rings, ring_memory) = gather(&started, count, lockable)?;
        let (watched, gate) = (RefCell::new(Watched::all(&snapshot, &shared)), Cell::new(Some((go, rings))));
        let present = Swap { snapshot, routes, shared, sockets: Some(sockets), drains: Arc::default() };
        let (present, listening) = (RefCell::new(present), RefCell::new(listening));
        let (steps, untold, unsent) = Default::default();
        Ok(Self {
            present,
            steps,
            listening,
            shards,
            log_readers,
            untold,
            unsent,
            watched,
            ring_memory,
            gate,
        })
    }

    /// Every shard accepts from now on.
    pub fn begin(&self) {
        let (go, rings) = self.gate.take().unwrap_or_default();
        for shard in go {
            // One that is gone already is reported through `notify`.
            let _ = shard.send(Arc::clone(&rings));
        }
    }

    /// One entry for each bound address.
    pub fn bound(&self) -> Vec<Bound> {
        self.listening.borrow().bound()
    }
    /// The reading ends of the shards' access-log rings; once.
    pub fn take_log_readers(&mut self) -> Vec<LogReader> {
        std::mem::take(&mut self.log_readers)
    }
    /// What the rings were made of.
    pub fn ring_memory(&self) -> RingMemory {
        self.ring_memory
    }
    /// What each shard counts.
    pub fn stats(&self) -> impl Iterator<Item = &Stats> + Clone {
        self.shards.iter().map(|s| &*s.stats)
    }
    /// Links open to an endpoint, idle ones included, over all shards; each holds a local port.
    pub fn open_links(&self, cluster: ClusterId, endpoint: EndpointId) -> u32 {
        let shared = self.shared_cluster(cluster);
        shared.and_then(|shared| shared.endpoint(endpoint).map(SharedEndpoint::open_links)).unwrap_or(0)
    }
    /// Turns of each shard's loop so far, for the watchdog.
    pub fn turns(&self) -> Vec<u64> {
        self.stats().map(|s| s.turns.get()).collect()
    }
    /// What a shard's thread has had of its CPU so far, for the watchdog; `None` once it has ended.
    pub fn cpu_time(&self, shard: usize) -> Option<Duration> {
        clock::cpu_time(&self.shards.get(shard)?.thread)
    }
    /// Every shard stops accepting, finishes what runs within `within`, and ends.
    pub fn drain(&self, within: Duration) {
        self.listening.borrow_mut().hide();
        self.tell(|| Command::Drain { within });
    }
    /// Every shard closes what it has and ends.
    pub fn stop(&self) {
        self.listening.borrow_mut().hide();
        self.tell(|| Command::Stop);
    }
    /// Turns a switch of the snapshot's; every request from now on follows. One that does not exist is not turned.
    pub fn set_switch(&self, switch: SwitchId, on: bool) {
        if let Some(switch) = self.present.borrow().shared.switches.get(usize::from(switch.0)) {
            switch.set(on);
        }
    }
    /// Makes the first shard fail, for the tests of what then happens.
    pub fn inject(&self, fault: Fault) {
        let failure = match fault {
            Fault::Panic => Failure::Panic,
            Fault::Stall => Failure::Stall,
        };
        if let Some(first) = self.shards.first() {
            // A full mailbox is a shard that is stuck, which is what was asked for.
            let _ = first.commands.borrow_mut().send(Command::Inject(failure));
        }
    }
    /// Tells every shard; one whose mailbox is full hears it at one of the next ticks.
    fn tell(&self, command: impl Fn() -> Command) {
        self.unsent.borrow_mut().extend((0..self.shards.len()).map(|shard| (shard, command())));
        self.send_unsent();
    }
    /// Tells shards what they could not be told, as far as their mailboxes have room.
    pub fn send_unsent(&self) {
        let unsent = std::mem::take(&mut *self.unsent.borrow_mut());
        for (at, command) in unsent {
            let Some(shard) = self.shards.get(at) else { continue };
            if let Err(command) = shard.commands.borrow_mut().send(command) {
                self.unsent.borrow_mut().push((at, command));
            }
        }
    }
    /// Waits for every shard's thread to end.
    pub fn join(self) {
        for shard in self.shards {
            // A panic was reported through `notify` already.
            let _ = shard.thread.join();
        }
    }
}

/// What a configuration asks of the kernel and not every kernel has.
fn check_kernel(snapshot: &Snapshot) -> Result<(), StartError> {
    let asks = snapshot.clusters.iter().flatten().find(|c| c.source_addresses.ports.is_some());
    match asks {
        Some(cluster) if !socket::has_local_ports() => {
            let name = &cluster.name;
            Err(StartError::Machine(format!(
                "cluster {name} has `source_ports`, for which this kernel is too old: they need Linux 6.3 \
                 (IP_LOCAL_PORT_RANGE); leave them out and set net.ipv4.ip_local_port_range instead"
            )))
        }
        _ => Ok(()),
    }
}

/// A shard's ring and the bytes that it locks, or why it has none.
type Ready = (u16, Result<(Fd, u64), String>);

/// The rings of all shards, once each has one: none may be unknown to another when connections come. And what they are made of.
fn gather(
    started: &mpsc::Receiver<Ready>,
    shards: u16,
    lockable: u64,
) -> Result<(Arc<[Fd]>, RingMemory), StartError> {
    let mut rings = vec![Fd(-1); usize::from(shards)];
    let asked = RingOptions::default().bytes();
    let mut memory = RingMemory { shards, asked, got: asked, lockable };
    for _ in 0..shards {
        match started.recv() {
            Ok((shard, Ok((ring, bytes)))) => {
                rings[usize::from(shard)] = ring;
                memory.got = memory.got.min(bytes);
            }
            Ok((_, Err(why))) => return Err(StartError::Machine(why)),
            Err(_) => return Err(StartError::Machine("a shard ended while it started".to_owned())),
        }
    }
    Ok((rings.into(), memory))
}

/// What a shard's thread takes along.
struct Start {
    setup: Setup,
    sockets: Vec<Socket>,
    cpu: usize,
    features: Features,
    sizes: RingOptions,
    commands: Receiver<Command>,
    returns: rtrb::Producer<Box<Swap>>,
    listings: rtrb::Producer<Box<Listing>>,
    event: Fd,
    /// Tells the rings of all shards, or closes because one has none.
    rings: mpsc::Receiver<Arc<[Fd]>>,
}

/// What wakes a shard that sleeps.
fn event() -> Result<Fd, StartError> {
    socket::event().map_err(|errno| StartError::Machine(format!("eventfd: {errno}")))
}

/// Starts a shard's thread.
fn spawn(
    start: Start,
    ready: mpsc::Sender<Ready>,
    notify: impl Fn(PlaneEvent) + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let shard = start.setup.shard;
    let run = move || {
        let how = run(start, &ready);
        notify(PlaneEvent::ShardEnded { shard, how });
    };
    let thread = std::thread::Builder::new().name(format!("shard-{shard}"));
    thread.spawn(run).map_err(|error| StartError::Machine(format!("cannot start a thread: {error}")))
}

/// A shard's thread, from its pinning to its end.
fn run(start: Start, ready: &mpsc::Sender<Ready>) -> ShardEnd {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(start, ready)));
    outcome.unwrap_or_else(|panic| ShardEnd::Panicked(message_of(&*panic)))
}

fn serve(start: Start, ready: &mpsc::Sender<Ready>) -> ShardEnd {
    let Start { setup, sockets, cpu, features, sizes, commands, returns, listings, event, rings } = start;
    let number = setup.shard;
    // A container may forbid it: slower, not wrong.
    let _ = affinity::pin(cpu);
    // Declared before the ring, so that it is dropped after it: the pool's memory outlives what the kernel may write.
    let mut shard = Shard::new(setup, &[], clock::now());
    shard.accept_on(&sockets);
    shard.core.descriptors = Descriptors::of_limit(sys::rlimit::descriptors());
    let mut ring = match Ring::new(features, sizes) {
        Ok(ring) => ring,
        Err(why) => {
            let _ = ready.send((number, Err(why.to_string())));
            return ShardEnd::Failed(why.to_string());
        }
    };
    let _ = ready.send((number, Ok((ring.fd(), ring.sizes().bytes()))));
    let Ok(rings) = rings.recv() else {
        return ShardEnd::Failed("another shard did not start".to_owned());
    };
    ring.connect_shards(rings);
    shard.listen_to(&mut ring, commands, event);
    shard.return_to(returns);
    shard.list_to(listings);
    // What is queued now is submitted by the first turn; the sockets listen already.
    shard.start(&mut ring);
    let how = loop {
        match shard.turn(&mut ring) {
            Ok(Turn::Goes) => {}
            Ok(Turn::Ended) if shard.was_stopped() => break ShardEnd::Stopped,
            Ok(Turn::Ended) => break ShardEnd::Drained,
            Err(errno) => break ShardEnd::Failed(format!("io_uring_enter: {errno}")),
        }
    };
    if !quiesce(&mut shard, &mut ring) {
        // The kernel still holds something: losing the memory is the safe way out (invariant 15).
        std::mem::forget(shard);
    }
    how
}

/// Invariant 15: ring and memory go only when the kernel holds nothing of theirs. False if it does not let go.
fn quiesce(shard: &mut Shard, ring: &mut Ring) -> bool {
    const TRIES: u32 = 100;
    ring.cancel(Token::new(Kind::Mailbox, 0, 0));
    let mut rest = Vec::new();
    for _ in 0..TRIES {
        if ring.in_flight() == 0 {
            break;
        }
        let until = clock::now().mono.after(Duration::from_millis(10));
        if ring.turn(&mut shard.core.pool, until, &mut rest).is_err() {
            break;
        }
    }
    ring.reclaim(&mut shard.core.pool)
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
