//! What one core owns, and its loop. A shard is generic over the kernel at its functions: the ring or the simulator.

pub mod dispatch;
pub mod drain;
pub mod listing;
pub mod mailbox;
pub mod swap;

use crate::buf::Class;
use crate::conn;
use crate::conn::moving;
use crate::core::{Core, Setup};
use crate::io::{Clock, Completion, Errno, Fd, Interest, Io, Mono, SocketAddress};
use crate::io::{Kind, Token};
use crate::limits;
use crate::listener::{self, ListenerState, Socket};
use crate::spec::ListenerId;
use listing::Listing;
use mailbox::{Command, Failure, Receiver};
use rtrb::Producer;
use std::time::Duration;
use swap::Swap;

/// Timers run per turn at most; the rest wait for the next (invariant 8).
const TIMERS_PER_TURN: usize = 1024;

/// One shard: its state, and the completions of the current turn.
#[derive(Debug)]
pub struct Shard {
    pub core: Core,
    completions: Vec<Completion>,
    late: Vec<Completion>,
    timers: Vec<u64>,
    drain_by: Mono,
    /// A drain waits for nothing that was handed over and did not come beyond this.
    drain_ends: Mono,
    /// Control's commands, and the eventfd that wakes this shard for them.
    commands: Option<(Receiver<Command>, Fd)>,
    /// Takes what was swapped out, to be freed elsewhere.
    returns: Option<Producer<Box<Swap>>>,
    /// What control wants to know of the conns, and where the answer goes.
    listing: Option<Box<Listing>>,
    listed: Option<Producer<Box<Listing>>>,
    stopped: bool,
    evicted_at: Mono,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Goes,
    /// Drained: nothing is open and nothing is in flight.
    Ended,
}

impl Shard {
    /// A shard that will accept on `listeners`, which are bound and listening.
    pub fn new(setup: Setup, listeners: &[(ListenerId, Fd, SocketAddress)], clock: Clock) -> Self {
        let mut core = Core::new(setup, clock);
        core.listeners =
            listeners.iter().map(|&(id, fd, address)| ListenerState::new(id, fd, address)).collect();
        core.date.update(clock.wall);
        // Before the first turn, which may be late, all are free: nobody is to read that none is.
        count_free(&core);
        for (class, all) in Class::ALL.into_iter().zip(&core.stats.buffers) {
            all.set(core.pool.total(class) as u64);
        }
        Self {
            core,
            completions: Vec::with_capacity(1024),
            late: Vec::with_capacity(1024),
            timers: Vec::with_capacity(TIMERS_PER_TURN),
            drain_by: Mono::MAX,
            drain_ends: Mono::MAX,
            commands: None,
            returns: None,
            listing: None,
            listed: None,
            stopped: false,
            evicted_at: Mono(0),
        }
    }

    /// Accepts on `sockets`, of which the highest number is the last. What was there before is forgotten: to be called before
    /// [`Shard::start`].
    pub fn accept_on(&mut self, sockets: &[Socket]) {
        self.core.listeners = sockets.iter().map(ListenerState::of).collect();
    }

    /// Obeys `commands`, woken by `event`.
    pub fn listen_to(&mut self, io: &mut impl Io, commands: Receiver<Command>, event: Fd) {
        io.poll(event, Interest::Readable, Token::new(Kind::Mailbox, 0, 0));
        self.commands = Some((commands, event));
    }

    /// Gives what is swapped out back through `returns`, which has room for as many as are sent before one came back.
    pub fn return_to(&mut self, returns: Producer<Box<Swap>>) {
        self.returns = Some(returns);
    }

    /// Answers what control asks of its conns through `listed`, which has room for one: the next question follows the answer.
    pub fn list_to(&mut self, listed: Producer<Box<Listing>>) {
        self.listed = Some(listed);
    }

    /// Whether it ended because it was told to stop, not drained.
    pub fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// Begins to accept.
    pub fn start(&mut self, io: &mut impl Io) {
        listener::start(&mut self.core, io);
    }

    /// One turn: submit what the last one queued, wait, read the clock once, dispatch, run timers.
    pub fn turn(&mut self, io: &mut impl Io) -> Result<Turn, Errno> {
        let until =
            self.core.wheel.next().min(self.core.clock.mono.after(limits::TURN_WAIT)).min(self.drain_by);
        let until = until.min(self.core.parties.due(self.core.clock.mono));
        let until = until.min(moving::due(&self.core)).min(conn::follow::due(&self.core));
        let until = if self.core.stirred.is_empty() && self.listing.is_none() { until } else { Mono(0) };
        let sleeps = self.commands.as_mut().is_none_or(|(commands, _)| commands.fall_asleep());
        let clock =
            io.turn(&mut self.core.pool, if sleeps { until } else { Mono(0) }, &mut self.completions)?;
        self.core.clock = clock;
        self.core.date.update(clock.wall);
        self.core.stats.turns.add(1);
        self.dispatch(io);
        self.run_timers(io);
        self.relieve(io);
        self.obey(io);
        listing::go_on(self, io);
        conn::queue::look(&mut self.core, io);
        conn::room::look(&mut self.core, io);
        moving::walk(&mut self.core, io);
        conn::follow::walk(&mut self.core);
        drain::walk(&mut self.core, io);
        drain::cut_leaving(&mut self.core, io);
        if drain::advance(self, io) { Ok(Turn::Ended) } else { Ok(Turn::Goes) }
    }

    fn obey(&mut self, io: &mut impl Io) {
        let Some((mut commands, event)) = self.commands.take() else { return };
        commands.wake_up();
        while let Some(command) = commands.receive() {
            match command {
                Command::Drain { within } => {
                    let by = self.core.clock.mono.after(within);
                    drain::begin(self, io, by);
                }
                Command::Stop => {
                    self.stopped = true;
                    let now = self.core.clock.mono;
                    drain::begin(self, io, now);
                }
                Command::Look { cluster } => conn::queue::on_change(&mut self.core, io, cluster),
                Command::Swap(mut swap) => {
                    swap::begin(&mut self.core, io, &mut swap);
                    let returned = self.returns.as_mut().map(|returns| returns.push(swap));
                    debug_assert!(matches!(returned, Some(Ok(()))), "a shard has one swap at a time");
                }
                Command::Move(moving) => self.core.moving = Some(*moving),
                Command::Adopt(moved) => moving::adopt(&mut self.core, io, *moved),
                Command::GiveUp(numbers) => listener::give_up(&mut self.core, io, &numbers),
                Command::AcceptAnew => listener::accept_anew(&mut self.core, io),
                Command::List(listing) => self.listing = Some(listing),
                Command::Inject(Failure::Panic) => panic!("a panic was injected"),
                Command::Inject(Failure::Stall) => loop {
                    std::hint::spin_loop();
                },
            }
        }
        self.commands = Some((commands, event));
    }

    /// Idle links first: when a request and the FIN of one come in one batch, the request must not be sent on it.
    fn dispatch(&mut self, io: &mut impl Io) {
        let Self { core, completions, late, .. } = self;
        for completion in completions.drain(..) {
            if completion.token.kind() == Kind::Mailbox {
                if let Some((_, event)) = &self.commands {
                    io.clear_event(*event);
                    io.poll(*event, Interest::Readable, completion.token);
                }
            } else if dispatch::ends_idle_link(core, completion.token) {
                dispatch::completion(core, io, completion);
            } else {
                late.push(completion);
            }
        }
        for completion in late.drain(..) {
            dispatch::completion(core, io, completion);
        }
    }

    fn run_timers(&mut self, io: &mut impl Io) {
        let Self { core, timers, .. } = self;
        core.wheel.advance(core.clock.mono, TIMERS_PER_TURN, |key| timers.push(key));
        for key in timers.drain(..) {
            dispatch::timer(core, io, key);
        }
    }

    /// Receives wait for buffers and none is free: the conn longest without progress makes room, one at a time.
    fn relieve(&mut self, io: &mut impl Io) {
        const PAUSE: Duration = Duration::from_millis(10);
        let starved = io.starved();
        self.core.stats.starved.set(starved as u64);
        count_free(&self.core);
        self.core.stats.pipes_lent.set(io.pipes_lent() as u64);
        self.core.stats.links_open.set(u64::from(self.core.links.len()));
        self.core.stats.exchanges_open.set(u64::from(self.core.exchanges.len()));
        self.core.stats.tunnels_open.set(u64::from(self.core.tunnels.len()));
        let now = self.core.clock.mono;
        // Small buffers stand in for large ones, so only these count.
        let (free, total) = (self.core.pool.free(Class::Small), self.core.pool.total(Class::Small));
        let dry = free * limits::POOL_RESERVE_DIVISOR as usize <= total;
        if starved > 0 && dry && now >= self.evicted_at.after(PAUSE) {
            self.evicted_at = now;
            conn::close::evict(&mut self.core, io);
        }
    }
}

/// Says how many buffers nobody has.
fn count_free(core: &Core) {
    for (class, free) in Class::ALL.into_iter().zip(&core.stats.buffers_free) {
        free.set(core.pool.free(class) as u64);
    }
}
