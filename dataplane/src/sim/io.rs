//! `SimIo`: the kernel as a shard sees it, over the simulated network and in virtual time.
//!
//! Stricter than the kernel where a shard must be right: a second operation of one kind on a descriptor, a close with
//! an operation in flight, and a buffer that changed under a send end the run at once.

#[cfg(test)]
mod tests;

use super::ahead::Ahead;
use super::completions::Ready;
use super::faults::{Fault, FaultPlan};
use super::net::{ListenerId, Net, Notice, Owner, SocketId};
use super::operations::{Descriptor, Submission, Thing, Verb};
use super::pipes::Pipes;
use super::sabotage::Sabotage;
use super::shards::Side;
use super::trace::{Event, Trace};
use crate::buf::{Chain, Class, Pool};
use crate::io::{
    Address, Clock, Completion, Errno, Expect, Family, Fd, Interest, Io, Kind, Message, Mono, Pipe, Shutdown,
    SocketAddress, SocketOption, Token,
};
use std::collections::{BTreeMap, BTreeSet};

/// The peers: everything at the far end of the network. Called when something of theirs happened.
pub trait World {
    /// A socket of `actor` changed: bytes, room, FIN, RST, or its connect ended.
    fn on_socket(&mut self, net: &mut Net, actor: u32, socket: SocketId);
    /// A connection waits in the accept queue of a listener of `actor`.
    fn on_listener(&mut self, net: &mut Net, actor: u32, listener: ListenerId);
    fn on_timer(&mut self, net: &mut Net, actor: u32, cookie: u64);
}

/// A world without peers.
impl World for () {
    fn on_socket(&mut self, _: &mut Net, _: u32, _: SocketId) {}
    fn on_listener(&mut self, _: &mut Net, _: u32, _: ListenerId) {}
    fn on_timer(&mut self, _: &mut Net, _: u32, _: u64) {}
}

/// Where the simulated network keeps an address: unix sockets by a hash (FNV-1a) of their names.
pub fn key(address: &Address) -> SocketAddress {
    match address {
        Address::Ip(address) => *address,
        Address::Unix(name) => {
            let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(name.is_abstract());
            SocketAddress::unix_key(name.bytes().iter().fold(seed, fold))
        }
    }
}

/// Descriptors begin here, as in a process with stdin, stdout and stderr.
const FIRST_FD: usize = 3;
/// What one turn costs, nanoseconds.
const TURN_COST: u64 = 2_000;
/// A turn without any event in sight ends here at the latest.
const LONGEST_TURN: u64 = 3_600_000_000_000;
/// 2026-01-01T00:00:00Z: the wall clock when the virtual clock says 0, nanoseconds.
const EPOCH: u64 = 1_767_225_600_000_000_000;

/// The simulated backend.
#[derive(Debug)]
pub struct SimIo<W: World = ()> {
    pub net: Net,
    pub world: W,
    pub trace: Trace,
    /// Descriptors a process may have.
    pub descriptor_limit: usize,
    pub sabotage: Option<Sabotage>,
    /// How often the sabotage struck.
    pub sabotaged: u64,
    pub turns: u64,
    /// Whose turn it is. What follows `descriptors` is this shard's; the others' is in `sides`.
    pub(super) shard: u16,
    /// By shard; its own place is empty while a shard has its turn.
    pub(super) sides: Vec<Side>,
    pub(super) descriptors: Vec<Option<Descriptor>>,
    /// Numbers below the length of `descriptors` that are free.
    pub(super) free: BTreeSet<usize>,
    /// Eventfds ever opened: nobody tells us when one is written to.
    pub(super) events: Vec<Fd>,
    pub(super) submissions: Vec<Submission>,
    /// Operations submitted whose terminal completion was not handed out yet.
    pub(super) live: BTreeMap<Token, (Fd, Verb)>,
    /// The completion queue, by when each may be seen.
    pub(super) ready: BTreeMap<(Mono, u64), Ready>,
    pub(super) sequence: u64,
    pub(super) starving: BTreeSet<Fd>,
    /// What is received ahead, by the token of the stream's receives.
    pub(super) ahead: BTreeMap<Token, Ahead>,
    /// Cancels that come late, and when.
    pub(super) late_cancels: Vec<(Mono, Token)>,
    /// For the stale-completion sabotage: slots whose generation ended with a receive outstanding in spirit.
    pub(super) former: BTreeMap<(u8, u32), u32>,
    /// What happened to this shard's descriptors during the others' turns.
    pub(super) missed: Vec<Notice>,
    pub(super) pipes: Pipes,
}

impl SimIo<()> {
    /// A network without peers.
    pub fn new(faults: FaultPlan) -> Self {
        Self::with_world(faults, ())
    }
}

impl<W: World> SimIo<W> {
    pub fn with_world(faults: FaultPlan, world: W) -> Self {
        Self {
            net: Net::new(faults),
            world,
            trace: Trace::default(),
            descriptor_limit: 65_536,
            sabotage: None,
            sabotaged: 0,
            turns: 0,
            shard: 0,
            sides: vec![Side::default()],
            descriptors: (0..FIRST_FD).map(|_| None).collect(),
            free: BTreeSet::new(),
            events: Vec::new(),
            submissions: Vec::new(),
            live: BTreeMap::new(),
            ready: BTreeMap::new(),
            sequence: 0,
            starving: BTreeSet::new(),
            ahead: BTreeMap::new(),
            late_cancels: Vec::new(),
            former: BTreeMap::new(),
            missed: Vec::new(),
            pipes: Pipes::default(),
        }
    }
    /// An eventfd, for a mailbox's poll.
    pub fn event(&mut self) -> Fd {
        let fd = self.open(Thing::Event(false)).expect("descriptors are left for an eventfd");
        self.events.push(fd);
        fd
    }
    /// Writes to an eventfd, as another thread would.
    pub fn signal(&mut self, fd: Fd) {
        let descriptor = self.descriptor_mut(fd).expect("an open eventfd");
        descriptor.thing = Thing::Event(true);
    }
    /// Descriptors open now.
    pub fn open_descriptors(&self) -> usize {
        self.descriptors.len() - FIRST_FD - self.free.len()
    }
    /// The socket behind a descriptor.
    pub fn socket_of(&self, fd: Fd) -> Option<SocketId> {
        match self.descriptors.get(fd.0 as usize)?.as_ref()?.thing {
            Thing::Socket(id) => Some(id),
            Thing::Listener(_) | Thing::Event(_) => None,
        }
    }
    /// The listener behind a descriptor.
    pub fn listener_of(&self, fd: Fd) -> Option<ListenerId> {
        match self.descriptors.get(fd.0 as usize)?.as_ref()?.thing {
            Thing::Listener(id) => Some(id),
            Thing::Socket(_) | Thing::Event(_) => None,
        }
    }
    /// What is in flight, for a message when it should be nothing.
    pub fn in_flight_tokens(&self) -> Vec<(Token, Fd)> {
        self.live.iter().map(|(token, (fd, _))| (*token, *fd)).collect()
    }

    /// A socket to listen on, before any fault.
    pub fn listener_socket(&mut self) -> Fd {
        let fd = self.open(Thing::Event(false)).expect("descriptors are left for a listener");
        let id = self.net.socket(Owner::Shard(fd));
        self.descriptor_mut(fd).expect("just opened").thing = Thing::Socket(id);
        fd
    }
    /// Operations in flight that no conn or link knows of.
    pub fn in_flight_of_listeners(&self) -> usize {
        let theirs =
            |t: &Token| matches!(t.kind(), Kind::Accept | Kind::ListenerClose | Kind::Mailbox | Kind::Post);
        let queued = self.submissions.iter().filter_map(Submission::token).filter(theirs).count();
        self.live.keys().filter(|t| theirs(t)).count() + queued
    }

    /// The lowest free number, as the kernel gives it.
    pub(super) fn open(&mut self, thing: Thing) -> Result<Fd, Errno> {
        if self.open_descriptors() >= self.descriptor_limit {
            return Err(Errno(libc::EMFILE));
        }
        let at = self.free.pop_first().unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[at] = Some(Descriptor::new(thing));
        Ok(Fd(at as i32))
    }
    pub(super) fn descriptor_mut(&mut self, fd: Fd) -> Result<&mut Descriptor, Errno> {
        self.descriptors.get_mut(fd.0 as usize).and_then(Option::as_mut).ok_or(Errno(libc::EBADF))
    }
    pub(super) fn socket_at(&mut self, fd: Fd) -> Result<SocketId, Errno> {
        match self.descriptor_mut(fd)?.thing {
            Thing::Socket(id) => Ok(id),
            Thing::Listener(_) | Thing::Event(_) => Err(Errno(libc::ENOTCONN)),
        }
    }
    pub(super) fn note(&mut self, what: &'static str, token: Token, fd: Fd, value: i64) {
        self.trace.add(Event { at: self.net.now, what, token, fd, value });
    }
    /// Notes an immediate operation.
    fn did<T>(&mut self, what: &'static str, fd: Fd, result: Result<T, Errno>) -> Result<T, Errno> {
        let value = result.as_ref().err().map_or(0, |e| -i64::from(e.0));
        self.note(what, Token(0), fd, value);
        result
    }

    /// Lets everything happen that is due by now.
    fn settle(&mut self, pool: &mut Pool) {
        self.cancel_late();
        self.feed_starving(pool);
        for notice in std::mem::take(&mut self.missed) {
            self.tell(notice, Some(pool));
        }
        while let Some(notice) = self.net.step() {
            self.tell(notice, Some(pool));
        }
        self.serve_events();
    }
    /// Tells a socket's or listener's owner that something happened. A shard without its turn (and all of them, where
    /// there is no `pool`) hears of it when it has its turn.
    pub(super) fn tell(&mut self, notice: Notice, pool: Option<&mut Pool>) {
        let owner = match notice {
            Notice::Socket(id) => self.net.owner(id),
            Notice::Listener(id) => self.net.listener_owner(id),
            Notice::Timer(actor, _) => Owner::Actor(actor),
        };
        match (owner, notice) {
            (Owner::Actor(actor), Notice::Socket(id)) => self.world.on_socket(&mut self.net, actor, id),
            (Owner::Actor(actor), Notice::Listener(id)) => self.world.on_listener(&mut self.net, actor, id),
            (Owner::Actor(actor), Notice::Timer(_, cookie)) => {
                self.world.on_timer(&mut self.net, actor, cookie);
            }
            (Owner::Shard(fd), _) => {
                let Some(shard) = self.descriptor_mut(fd).ok().map(|d| d.shard) else { return };
                match (pool, notice) {
                    (Some(pool), Notice::Socket(_)) if shard == self.shard => self.serve_socket(fd, pool),
                    (Some(_), _) if shard == self.shard => self.serve_accept(fd),
                    _ => self.miss(shard, notice),
                }
            }
            (Owner::Nobody, _) => {}
        }
    }
    /// When something may happen next.
    fn next_at(&self) -> Option<Mono> {
        let ready = self.ready.first_key_value().map(|((at, _), _)| *at);
        let late = self.late_cancels.iter().map(|(at, _)| *at).min();
        [ready, late, self.net.next_at(), self.next_meal()].into_iter().flatten().min()
    }
    /// Where the virtual clock stands.
    pub fn clock(&self) -> Clock {
        Clock { mono: self.net.now, wall: EPOCH + self.net.now.0 }
    }
}

impl<W: World> Io for SimIo<W> {
    fn turn(&mut self, pool: &mut Pool, until: Mono, out: &mut Vec<Completion>) -> Result<Clock, Errno> {
        self.turns += 1;
        for submission in std::mem::take(&mut self.submissions) {
            self.start(submission, pool);
        }
        self.end_loose(pool);
        let stall =
            if self.net.faults.hit(Fault::Stall) { self.net.faults.random().below(20_000_000) } else { 0 };
        // Nothing happens while the thread is away; then all of it at once, in order.
        self.net.now = Mono(self.net.now.0 + TURN_COST + stall);
        let until = until.min(Mono(self.net.now.0 + LONGEST_TURN));
        let most = if self.net.faults.hit(Fault::QueueFull) {
            self.net.faults.random().between(1, 3) as usize
        } else {
            usize::MAX
        };
        loop {
            self.settle(pool);
            if self.hand_out(pool, most, out) > 0 {
                break;
            }
            if self.sides.len() > 1 {
                // Another shard may have something to do before: whoever is next is told when that is.
                self.sides[usize::from(self.shard)].sleeps_until = until;
                break;
            }
            match self.next_at() {
                Some(next) if next <= until => self.net.now = self.net.now.max(next),
                _ => {
                    self.net.now = self.net.now.max(until);
                    break;
                }
            }
        }
        Ok(self.clock())
    }

    fn accept(&mut self, listener: Fd, token: Token) {
        self.submissions.push(Submission::Accept(listener, token));
    }
    fn recv(&mut self, fd: Fd, class: Class, expect: Expect, token: Token) {
        self.submissions.push(Submission::Recv(fd, class, expect == Expect::Often, token));
    }
    fn send(&mut self, fd: Fd, chain: &Chain, pool: &Pool, token: Token) {
        let sights: Vec<_> = chain.iter().map(|lease| pool.sight(lease)).collect();
        assert!(sights.iter().any(|s| !s.is_empty()), "a send of nothing");
        self.submissions.push(Submission::Send(fd, sights, token));
    }
    fn connect(&mut self, fd: Fd, to: &Address, token: Token) {
        self.submissions.push(Submission::Connect(fd, key(to), token));
    }
    fn poll(&mut self, fd: Fd, interest: Interest, token: Token) {
        self.submissions.push(Submission::Poll(fd, interest, token));
    }
    fn close(&mut self, fd: Fd, token: Token) {
        self.submissions.push(Submission::Close(fd, token));
    }
    fn post(&mut self, shard: u16, message: Message, token: Token) {
        self.submissions.push(Submission::Post(shard, message, token));
    }
    fn cancel(&mut self, target: Token) {
        self.submissions.push(Submission::Cancel(target));
    }

    fn socket(&mut self, _: Family) -> Result<Fd, Errno> {
        if self.net.faults.hit(Fault::SocketEmfile) {
            let errno = self.nothing_left();
            return self.did("socket", Fd(-1), Err(errno));
        }
        let fd = match self.open(Thing::Event(false)) {
            Ok(fd) => fd,
            Err(errno) => return self.did("socket", Fd(-1), Err(errno)),
        };
        let id = self.net.socket(Owner::Shard(fd));
        self.descriptor_mut(fd)?.thing = Thing::Socket(id);
        self.did("socket", fd, Ok(fd))
    }
    fn set_option(&mut self, fd: Fd, option: SocketOption) -> Result<(), Errno> {
        if let (SocketOption::Deaf, Thing::Listener(id)) = (option, &self.descriptor_mut(fd)?.thing) {
            let id = *id;
            self.net.deafen(id);
            return Ok(());
        }
        let id = self.socket_at(fd)?;
        match option {
            SocketOption::Deaf => return Err(Errno(libc::EINVAL)),
            SocketOption::ReusePort => self.descriptor_mut(fd)?.reuse_port = true,
            SocketOption::BindAddressNoPort => self.net.set_late_port(id),
            SocketOption::LocalPorts(ports) => self.net.set_ports(id, ports),
            // The unix domain knows no RST: the option has no effect there.
            SocketOption::ResetOnClose if self.net.local_address(id).is_unix() => {}
            SocketOption::ResetOnClose => self.net.set_reset_on_close(id),
            SocketOption::NonBlocking => self.descriptor_mut(fd)?.non_blocking = true,
            // Nobody vanishes here: who is gone has sent FIN or RST.
            SocketOption::V6Only | SocketOption::NoDelay | SocketOption::DeadPeer(_) => {}
        }
        Ok(())
    }
    fn bind(&mut self, fd: Fd, to: &Address) -> Result<(), Errno> {
        let (id, to) = (self.socket_at(fd)?, &key(to));
        let bound = if self.descriptor_mut(fd)?.reuse_port || (to.is_unix() && !self.net.is_listening(*to)) {
            self.net.bind_to_listen(id, *to);
            Ok(())
        } else if self.net.is_listening(*to) {
            Err(Errno(libc::EADDRINUSE))
        } else {
            self.net.bind(id, *to)
        };
        self.did("bind", fd, bound)
    }
    fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno> {
        let id = self.socket_at(fd)?;
        let address = self.net.local_address(id);
        self.net.close(id);
        let listener = self.net.listen(address, backlog.max(1) as usize, Owner::Shard(fd));
        self.descriptor_mut(fd)?.thing = Thing::Listener(listener);
        self.did("listen", fd, Ok(()))
    }
    fn shutdown(&mut self, fd: Fd, how: Shutdown) -> Result<(), Errno> {
        let id = self.socket_at(fd)?;
        let result = self.net.shutdown(id, how);
        self.did("shutdown", fd, result)
    }
    fn local_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        match self.descriptor_mut(fd)?.thing {
            Thing::Socket(id) => Ok(self.net.local_address(id).without_key()),
            Thing::Listener(id) => Ok(self.net.listener_address(id).without_key()),
            Thing::Event(_) => Err(Errno(libc::ENOTSOCK)),
        }
    }
    fn carried(&mut self, _: Fd) -> Result<(u64, u64), Errno> {
        // The simulated network keeps no such count; control/tests/e2e/connections.rs compares the kernel's.
        Err(Errno(libc::EOPNOTSUPP))
    }
    fn peer_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        let id = self.socket_at(fd)?;
        self.net.peer_address(id).map(SocketAddress::without_key)
    }
    fn unacknowledged(&mut self, fd: Fd) -> Result<u32, Errno> {
        let id = self.socket_at(fd)?;
        Ok(u32::try_from(self.net.unsent(id)).unwrap_or(u32::MAX))
    }
    fn unread(&mut self, fd: Fd) -> Result<u32, Errno> {
        let id = self.socket_at(fd)?;
        let there = self.net.readable(id) + Io::ahead(self, fd);
        Ok(u32::try_from(there).unwrap_or(u32::MAX))
    }
    fn take_pipe(&mut self) -> Option<Pipe> {
        self.pipe()
    }
    fn give_pipe(&mut self, pipe: Pipe) {
        self.return_pipe(&pipe);
    }
    fn pipes_lent(&self) -> usize {
        self.pipes.lent_count()
    }
    fn held(&self, pipe: &Pipe) -> usize {
        self.held_by(pipe)
    }
    fn splice_in(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        let result = match self.ahead_on(from) {
            Some(_) => Err(Errno(libc::EAGAIN)),
            None => self.fill_pipe(from, pipe, most),
        };
        self.did("splice_in", from, result)
    }
    fn splice_out(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno> {
        let result = self.drain_pipe(pipe, to);
        self.did("splice_out", to, result)
    }
    fn unload(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno> {
        let result = self.empty_pipe(pipe, to);
        self.did("unload", Fd(-1), result)
    }
    fn part_with(&mut self, pipe: Pipe) -> ([Fd; 2], usize) {
        self.pipes.part_with(&pipe)
    }
    fn adopt_pipe(&mut self, ends: [Fd; 2], held: usize) -> Option<Pipe> {
        self.pipes.adopt(ends, held)
    }
    fn discard(&mut self, fd: Fd) {
        self.note("discard", Token::new(Kind::Backend, 0, 0), fd, 0);
        self.drop_descriptor(fd, 0);
    }
    fn clear_event(&mut self, fd: Fd) {
        if let Ok(Descriptor { thing: Thing::Event(set), .. }) = self.descriptor_mut(fd) {
            *set = false;
        }
    }

    fn stands(&self, recv: Token) -> bool {
        self.stands_now(recv)
    }
    fn ahead(&self, fd: Fd) -> usize {
        self.ahead_on(fd).map_or(0, |recv| self.ahead_of(recv))
    }
    fn take_ahead(&mut self, fd: Fd, pool: &mut Pool) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(lease) = self.ahead_on(fd).and_then(|recv| self.take_kept(recv)) {
            bytes.extend_from_slice(pool.bytes(&lease));
            pool.give_back(lease);
        }
        bytes
    }

    fn starved(&self) -> usize {
        self.starving.len()
    }
    fn in_flight(&self) -> usize {
        // What is queued counts: the next turn submits it.
        self.live.len() + self.submissions.iter().filter_map(Submission::token).count()
    }
}
