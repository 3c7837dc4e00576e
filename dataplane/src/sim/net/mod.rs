//! A simulated TCP network in virtual time: sockets with bounded buffers, listeners with backlogs, FIN and RST apart.
//!
//! Both sides of a connection live here; the shard reaches its side through `SimIo`, peers theirs directly. Whoever owns
//! a socket hears of every change of it through [`Net::step`] and looks for itself what it can do now.

mod socket;
#[cfg(test)]
mod tests;
mod wire;

use super::faults::{Fault, FaultPlan};
use crate::io::{Errno, Family, Mono, PortRange, SocketAddress};
pub use socket::{Owner, Read, SocketId};
use socket::{Socket, State};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// A bound, listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

#[derive(Debug)]
struct Listener {
    address: SocketAddress,
    owner: Owner,
    queue: VecDeque<SocketId>,
    backlog: usize,
    open: bool,
    noticed: bool,
}

/// What the network has in store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Deliver(SocketId),
    /// A connection request arrives at its destination for the nth time.
    Knock(SocketId, u32),
    Timer(u32, u64),
}

/// What an owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The socket's state, bytes or room changed.
    Socket(SocketId),
    /// A connection waits in the accept queue.
    Listener(ListenerId),
    /// An actor's timer, and what it said about it.
    Timer(u32, u64),
}

/// Retries of an unanswered connect: 1, 2, 4 … seconds, ETIMEDOUT after 127 (tcp_syn_retries = 6).
const KNOCKS: u32 = 6;
const KNOCK_PAUSE: u64 = 1_000_000_000;
/// Socket buffers on loopback, bytes; smaller than Linux's so that back-pressure is met often.
const ROOM: usize = 128 * 1024;

/// The network.
#[derive(Debug)]
pub struct Net {
    pub now: Mono,
    pub faults: FaultPlan,
    sockets: Vec<Socket>,
    listeners: Vec<Listener>,
    due: BinaryHeap<Reverse<(Mono, u64, Happening)>>,
    /// Ties in time resolve in the order of scheduling.
    order: u64,
    notices: VecDeque<Notice>,
    /// Connects to these are never answered.
    silent: BTreeSet<SocketAddress>,
    /// Local ports in use, by four-tuple; a port bound early takes them all.
    ports: BTreeMap<(SocketAddress, SocketAddress), SocketId>,
    /// Ephemeral ports, first and last.
    pub port_range: (u16, u16),
    next_port: u16,
    /// Connection requests that found a full backlog.
    pub overflows: u64,
}

impl Net {
    pub fn new(faults: FaultPlan) -> Self {
        Self {
            now: Mono(1_000_000_000),
            faults,
            sockets: Vec::new(),
            listeners: Vec::new(),
            due: BinaryHeap::new(),
            order: 0,
            notices: VecDeque::new(),
            silent: BTreeSet::new(),
            ports: BTreeMap::new(),
            port_range: (32_768, 60_999),
            next_port: 32_768,
            overflows: 0,
        }
    }
    fn socket_mut(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0 as usize]
    }
    fn socket_ref(&self, id: SocketId) -> &Socket {
        &self.sockets[id.0 as usize]
    }
    fn schedule(&mut self, at: Mono, happening: Happening) {
        self.order += 1;
        self.due.push(Reverse((at, self.order, happening)));
    }
    fn notice(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        if !socket.noticed && socket.owner != Owner::Nobody {
            socket.noticed = true;
            self.notices.push_back(Notice::Socket(id));
        }
    }
    fn notice_listener(&mut self, id: ListenerId) {
        let listener = &mut self.listeners[id.0 as usize];
        if !listener.noticed {
            listener.noticed = true;
            self.notices.push_back(Notice::Listener(id));
        }
    }
    /// A fresh socket.
    pub fn socket(&mut self, owner: Owner) -> SocketId {
        let room = if self.faults.hit(Fault::SmallWindow) {
            self.faults.random().between(512, 4096) as usize
        } else {
            ROOM
        };
        self.sockets.push(Socket::new(owner, room));
        SocketId((self.sockets.len() - 1) as u32)
    }
    pub fn timer(&mut self, actor: u32, at: Mono, cookie: u64) {
        self.schedule(at, Happening::Timer(actor, cookie));
    }
    /// When the next thing happens; `now` if an owner is still to be told of the last.
    pub fn next_at(&self) -> Option<Mono> {
        if self.notices.is_empty() { self.due.peek().map(|Reverse((at, ..))| *at) } else { Some(self.now) }
    }
    /// The next notice, due by now, for the owner to act on; `None` when all is quiet until later.
    pub fn step(&mut self) -> Option<Notice> {
        loop {
            match self.notices.pop_front() {
                Some(Notice::Socket(id)) => {
                    self.socket_mut(id).noticed = false;
                    return Some(Notice::Socket(id));
                }
                Some(Notice::Listener(id)) => {
                    self.listeners[id.0 as usize].noticed = false;
                    return Some(Notice::Listener(id));
                }
                other @ Some(Notice::Timer(..)) => return other,
                None => {}
            }
            match self.due.peek() {
                Some(Reverse((at, ..))) if *at <= self.now => {}
                _ => return None,
            }
            match self.due.pop() {
                Some(Reverse((_, _, Happening::Deliver(id)))) => self.deliver(id),
                Some(Reverse((_, _, Happening::Knock(id, n)))) => self.knock(id, n),
                Some(Reverse((_, _, Happening::Timer(actor, cookie)))) => {
                    return Some(Notice::Timer(actor, cookie));
                }
                None => {}
            }
        }
    }

    /// Listens. Several may share an address (SO_REUSEPORT).
    pub fn listen(&mut self, address: SocketAddress, backlog: usize, owner: Owner) -> ListenerId {
        let address = if address.port() == 0 && !address.is_unix() {
            address.with_port(self.free_listen_port())
        } else {
            address
        };
        let listener =
            Listener { address, owner, queue: VecDeque::new(), backlog, open: true, noticed: false };
        self.listeners.push(listener);
        ListenerId((self.listeners.len() - 1) as u32)
    }
    fn free_listen_port(&self) -> u16 {
        let taken: BTreeSet<u16> = self.listeners.iter().map(|l| l.address.port()).collect();
        (20_000..=30_000).find(|port| !taken.contains(port)).unwrap_or(30_001)
    }
    pub fn listener_owner(&self, id: ListenerId) -> Owner {
        self.listeners[id.0 as usize].owner
    }
    pub fn listener_address(&self, id: ListenerId) -> SocketAddress {
        self.listeners[id.0 as usize].address
    }
    /// Connections that wait to be accepted.
    pub fn pending(&self, id: ListenerId) -> usize {
        self.listeners[id.0 as usize].queue.len()
    }
    pub fn accept(&mut self, id: ListenerId, owner: Owner) -> Option<SocketId> {
        let socket = self.listeners[id.0 as usize].queue.pop_front()?;
        self.socket_mut(socket).waits_in = None;
        self.socket_mut(socket).owner = owner;
        self.notice(socket);
        Some(socket)
    }
    /// Nobody new gets into the queue. Who knocks is refused at once, where a kernel lets them knock again until the socket is
    /// closed, and then refuses them.
    pub fn deafen(&mut self, id: ListenerId) {
        self.listeners[id.0 as usize].open = false;
    }
    /// Stops listening; what waits in the queue is reset.
    pub fn close_listener(&mut self, id: ListenerId) {
        self.listeners[id.0 as usize].open = false;
        while let Some(socket) = self.listeners[id.0 as usize].queue.pop_front() {
            self.reset(socket);
        }
    }
    /// Connects to `address` get no answer at all from now on.
    pub fn set_silent(&mut self, address: SocketAddress, silent: bool) {
        if silent {
            self.silent.insert(address);
        } else {
            self.silent.remove(&address);
        }
    }

    pub fn bind(&mut self, id: SocketId, to: SocketAddress) -> Result<(), Errno> {
        let late = self.socket_ref(id).late_port;
        let port = match to.port() {
            0 if late => 0,
            0 => self.free_port_to(to, None, self.socket_ref(id).ports).ok_or(Errno(libc::EADDRINUSE))?,
            port => port,
        };
        let local = to.with_port(port);
        if port != 0 {
            let key = (local, SocketAddress::UNSPECIFIED);
            if self.ports.contains_key(&key) {
                return Err(Errno(libc::EADDRINUSE));
            }
            self.ports.insert(key, id);
        }
        self.socket_mut(id).local = local;
        Ok(())
    }
    pub fn is_listening(&self, at: SocketAddress) -> bool {
        self.listeners.iter().any(|l| l.open && l.address == at)
    }
    /// Binds what will listen; several may share the address (SO_REUSEPORT).
    pub fn bind_to_listen(&mut self, id: SocketId, to: SocketAddress) {
        let to = if to.port() == 0 && !to.is_unix() { to.with_port(self.free_listen_port()) } else { to };
        self.socket_mut(id).local = to;
    }
    /// An ephemeral port of `local`'s address that is free towards `remote`, or altogether; one of `ports`, where those
    /// are given.
    fn free_port_to(
        &mut self,
        local: SocketAddress,
        remote: Option<SocketAddress>,
        ports: Option<PortRange>,
    ) -> Option<u16> {
        let machine = PortRange::new(self.port_range.0, self.port_range.1)?;
        let range = ports.map_or(machine, |ports| ports.within(machine));
        let (first, last) = (range.first(), range.last());
        for _ in first..=last {
            if !(first..last).contains(&self.next_port) {
                self.next_port = first;
            } else {
                self.next_port += 1;
            }
            let local = local.with_port(self.next_port);
            let early = self.ports.contains_key(&(local, SocketAddress::UNSPECIFIED));
            if !early && remote.is_none_or(|to| !self.ports.contains_key(&(local, to))) {
                return Some(self.next_port);
            }
        }
        None
    }
    fn free_port(&mut self, id: SocketId) {
        let (local, remote) = (self.socket_ref(id).local, self.socket_ref(id).remote);
        for key in [(local, remote), (local, SocketAddress::UNSPECIFIED)] {
            if self.ports.get(&key) == Some(&id) {
                self.ports.remove(&key);
            }
        }
    }
    /// Starts to connect; [`Net::take_connected`] tells how it ended, after a notice.
    pub fn connect(&mut self, id: SocketId, to: SocketAddress) -> Result<(), Errno> {
        let faulty = matches!(self.socket_ref(id).owner, Owner::Shard(_));
        if faulty && !to.is_unix() && self.faults.hit(Fault::PortsExhausted) {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        if self.socket_ref(id).state != State::Fresh {
            return Err(Errno(libc::EISCONN));
        }
        let mut local = self.socket_ref(id).local;
        if local == SocketAddress::UNSPECIFIED {
            local = match to.family() {
                Family::V6 => to.with_port(0),
                Family::V4 => SocketAddress::new([127, 0, 0, 1].into(), 0),
                Family::Unix => SocketAddress::UNIX,
            };
        }
        if local.port() == 0 && !local.is_unix() {
            let ports = self.socket_ref(id).ports;
            let port = self.free_port_to(local, Some(to), ports).ok_or(Errno(libc::EADDRNOTAVAIL))?;
            local = local.with_port(port);
            self.ports.insert((local, to), id);
        }
        let socket = self.socket_mut(id);
        (socket.state, socket.local, socket.remote) = (State::Connecting, local, to);
        let (mut at, mut n) = (self.arrival(), 0);
        if faulty && self.faults.hit(Fault::ConnectNoMemory) {
            self.fail_connect(id, libc::ENOMEM);
            return Ok(());
        }
        if faulty && self.faults.hit(Fault::ConnectRefused) {
            self.fail_connect(id, libc::ECONNREFUSED);
            return Ok(());
        }
        if faulty && self.faults.hit(Fault::ConnectSilent) {
            (at, n) = (Mono(self.now.0 + (KNOCK_PAUSE << (KNOCKS + 1))), KNOCKS + 1);
        } else if faulty && self.faults.hit(Fault::ConnectSlow) {
            at = Mono(at.0 + self.faults.random().below(4 * KNOCK_PAUSE));
        }
        self.schedule(at, Happening::Knock(id, n));
        Ok(())
    }
    fn fail_connect(&mut self, id: SocketId, errno: i32) {
        let socket = self.socket_mut(id);
        socket.state = State::Fresh;
        socket.connected = Some(Err(Errno(errno)));
        self.notice(id);
    }
    /// The listener for `to`: of those that share the address, one by the source's port, as the kernel hashes.
    fn find_listener(&self, to: SocketAddress, source: u16) -> Option<ListenerId> {
        let matching = |exact: bool| {
            self.listeners.iter().enumerate().filter(move |(_, l)| {
                l.open
                    && l.address.port() == to.port()
                    && if exact {
                        l.address == to
                    } else {
                        l.address.ip().is_some_and(|ip| ip.is_unspecified())
                    }
            })
        };
        [true, false].into_iter().find_map(|exact| {
            let n = matching(exact).count();
            let (at, _) = matching(exact).nth(usize::from(source).checked_rem(n)?)?;
            Some(ListenerId(at as u32))
        })
    }
    /// A connection request arrives.
    fn knock(&mut self, id: SocketId, n: u32) {
        let socket = self.socket_ref(id);
        let (to, from) = (socket.remote, socket.local);
        if socket.closed || socket.state != State::Connecting {
            return;
        }
        if n > KNOCKS {
            return self.fail_connect(id, libc::ETIMEDOUT);
        }
        let listener = self.find_listener(to, from.port());
        let full = listener.is_some_and(|l| self.pending(l) >= self.listeners[l.0 as usize].backlog);
        if self.silent.contains(&to) || full {
            self.overflows += u64::from(full);
            let at = Mono(self.now.0 + (KNOCK_PAUSE << n));
            return self.schedule(at, Happening::Knock(id, n + 1));
        }
        let Some(listener) = listener else { return self.fail_connect(id, libc::ECONNREFUSED) };
        let accepted = self.socket(Owner::Nobody);
        let other = self.socket_mut(accepted);
        (other.state, other.local, other.remote) = (State::Open, to, from);
        (other.peer, other.waits_in) = (Some(id), Some(listener));
        let socket = self.socket_mut(id);
        (socket.state, socket.peer, socket.connected) = (State::Open, Some(accepted), Some(Ok(())));
        self.listeners[listener.0 as usize].queue.push_back(accepted);
        self.notice(id);
        self.notice_listener(listener);
    }
    /// Tells the listener's owner again that connections wait, after an accept failed.
    pub fn remind(&mut self, id: ListenerId) {
        if self.pending(id) > 0 {
            self.notice_listener(id);
        }
    }
    /// Sockets not closed by their owner, for the final account.
    pub fn open_sockets(&self, of: impl Fn(Owner) -> bool) -> usize {
        self.sockets.iter().filter(|s| !s.closed && of(s.owner)).count()
    }
}
