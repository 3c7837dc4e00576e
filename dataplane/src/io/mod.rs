//! The one seam between a shard and the kernel: `trait Io`, implemented by the ring (`sys/ring.rs`) and the simulator.
//!
//! Two groups of verbs. *Submitted* ones queue work and end in completions that carry their token; *immediate* ones
//! never block and answer at once. EINTR, EAGAIN, a provided-buffer ring that ran dry, and the kernel's varied answers
//! to a cancel all end inside the backend.

pub mod address;
pub mod message;
pub mod pipe;
pub mod ports;
pub mod token;

use crate::buf::{Chain, Class, Lease, Pool};
pub use address::{Address, SocketAddress, UnixName};
pub use message::Message;
pub use pipe::Pipe;
pub use ports::PortRange;
use std::fmt;
use std::time::Duration;
pub use token::{Kind, Token};

/// A descriptor number. The one who holds it closes it, through [`Io::close`], once nothing is in flight on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd{}", self.0)
    }
}

/// An errno of the kernel, positive. Constants are `libc`'s.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// A connection ended because its peer was not heard of: probes, retransmissions or TCP_USER_TIMEOUT gave up (tcp(7)), or
    /// the network on the way said meanwhile that it cannot be reached, which the kernel then tells instead of ETIMEDOUT.
    pub fn is_dead_peer(self) -> bool {
        matches!(self.0, libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETUNREACH)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// Monotonic time in nanoseconds since some start; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mono(pub u64);

impl Mono {
    pub const MAX: Self = Self(u64::MAX);

    /// `self + d`; never, where `d` is the `Duration::MAX` of a limit that is off.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).map_or(u64::MAX, |n| self.0.saturating_add(n)))
    }
    /// Nanoseconds from `earlier` to `self`, 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A monotonic time in steps of 2^20 ns (1.05 ms), for a slot: enough to say which of two is older, for 52 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coarse(u32);

impl From<Mono> for Coarse {
    fn from(time: Mono) -> Self {
        Self((time.0 >> 20 & 0xffff_ffff) as u32)
    }
}

impl Coarse {
    /// Steps from this time to `now`; the count wraps.
    pub fn age(self, now: Self) -> u32 {
        now.0.wrapping_sub(self.0)
    }
    /// The time itself, at most a step too early; `now` is later by less than 52 days.
    pub fn before(self, now: Mono) -> Mono {
        Mono(now.0.saturating_sub(u64::from(self.age(now.into())) << 20))
    }
}

/// Both clocks, read once per turn (invariant 7).
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    pub mono: Mono,
    /// Nanoseconds since 1970-01-01 UTC, for Date and the logs only; no deadline uses it.
    pub wall: u64,
}

/// Whether data is likely to be there already when a recv is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Try at once (a fresh connection, a body in full flow).
    Now,
    /// Wait for readiness first; saves a failed attempt (IORING_RECVSEND_POLL_FIRST).
    Later,
    /// As `Later`, and what comes is a head whose body goes on by splice: as few bytes as [`crate::limits::HEAD_ALONE`] at a time.
    Head,
    /// Small messages will come again and again: the backend may go on receiving by itself once it has them
    /// ([`Io::stands`]). For small leases only.
    Often,
}

/// What one completion says.
#[derive(Debug)]
pub enum Outcome {
    /// A new descriptor (blocking mode, close-on-exec). `Completion::more` tells whether the accept goes on.
    Accepted(Fd),
    Connected,
    /// One to `lease.len()` bytes. The receiver owns the lease.
    Received(Lease),
    /// The peer sent FIN (or the socket was shut down for reading).
    Eof,
    /// So many bytes of the chain were taken, at least 1; fewer than asked is normal: send the rest again.
    Sent(u32),
    /// The descriptor of a poll is readable, or writable, or its connection is over.
    Ready,
    Closed,
    /// A message is the other shard's now: it gets it, whatever becomes of us.
    Posted,
    /// Another shard's message. No operation of ours: its token is of [`Kind::Message`], and says nothing.
    Message(Message),
    /// Failed; ECANCELED after [`Io::cancel`].
    Failed(Errno),
}

#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    pub outcome: Outcome,
    /// True only for an accept that goes on: this was not its terminal completion.
    pub more: bool,
}

/// What a poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, FIN or an error.
    Readable,
    /// Room to send, or an error.
    Writable,
}

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
    Unix,
}

/// Which directions to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    Write,
    Both,
}

/// Socket options a shard sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOption {
    /// SO_REUSEADDR and SO_REUSEPORT, before bind.
    ReusePort,
    /// IPV6_V6ONLY, before bind.
    V6Only,
    /// TCP_NODELAY; on a listener it is inherited by what is accepted.
    NoDelay,
    /// IP_BIND_ADDRESS_NO_PORT, before bind to a source address with port 0: the port is chosen at connect, by four-tuple.
    BindAddressNoPort,
    /// IP_LOCAL_PORT_RANGE (Linux 6.3), before connect: the port is chosen from these, as far as the machine's own range
    /// (net.ipv4.ip_local_port_range) has them.
    LocalPorts(PortRange),
    /// SO_LINGER of zero: close sends RST.
    ResetOnClose,
    /// A peer that vanished is found within this: keep-alive probes while nothing is sent, TCP_USER_TIMEOUT while something
    /// is. On a listener it is inherited by what is accepted; before connect it bounds that too. `Duration::MAX` leaves the
    /// system's own values.
    DeadPeer(Duration),
    /// O_NONBLOCK: what [`Io::splice_out`] needs of its socket, and no submitted operation minds.
    NonBlocking,
    /// Of a listening socket: nobody new gets into its queue, and what is queued, or half of whose handshake is made, may still
    /// be accepted. For ever: the socket is to be closed.
    Deaf,
}

/// The kernel, as a shard sees it.
///
/// Contract: every submitted operation ends in exactly one terminal completion carrying its token. At most one recv,
/// one send and one connect are in flight per descriptor, and [`Io::close`] is called only when none is. A submitted
/// operation never fails by return value: what could not be started completes with `Failed` (EBUSY: as many operations
/// are in flight as the backend can hold completions, invariant 3; a close is never refused). The slots of tokens are
/// small dense numbers: a backend may keep an array by them.
pub trait Io {
    /// Submits what is queued, waits until something completes or `until` is reached (not at all if it is past), moves
    /// every completion that is there to the end of `out`, and reads the clock. Lends the kernel free buffers of `pool`.
    fn turn(&mut self, pool: &mut Pool, until: Mono, out: &mut Vec<Completion>) -> Result<Clock, Errno>;

    /// Accepts until it fails or is cancelled (multishot).
    fn accept(&mut self, listener: Fd, token: Token);
    /// Receives once. The backend picks a lease of `class` when bytes exist, or keeps the request waiting while none is
    /// free ([`Io::starved`] counts those); where none of a large class is left it may be a smaller one.
    fn recv(&mut self, fd: Fd, class: Class, expect: Expect, token: Token);
    /// Sends the front of `chain` (MSG_NOSIGNAL); one completion, perhaps short. The leases stay untouched until then.
    fn send(&mut self, fd: Fd, chain: &Chain, pool: &Pool, token: Token);
    /// Connects. EADDRNOTAVAIL says that no local port is free towards `to`: a socket whose port is chosen at connect may
    /// then be bound to another address and connected again.
    fn connect(&mut self, fd: Fd, to: &Address, token: Token);
    /// Waits once until `fd` is as `interest` says. Where the backend has received on that stream ahead, a poll for bytes under
    /// the token of its recv ends in those, or in what befell it, as the recv would.
    fn poll(&mut self, fd: Fd, interest: Interest, token: Token);
    /// Closes a descriptor with nothing in flight on it.
    fn close(&mut self, fd: Fd, token: Token);
    /// Tells another shard something, which ends its sleep. Ends in [`Outcome::Posted`], or in `Failed`, and then the other
    /// never sees it: it has ended (EBADF, EBADFD, EOWNERDEAD), or the kernel has no memory. Messages need not arrive in
    /// the order in which they were posted. They are no operations of the one who gets them, who may therefore end with
    /// some on their way: where that must not be, both count them ([`crate::cluster::shared`]).
    fn post(&mut self, shard: u16, message: Message, token: Token);
    /// Asks to end the operation of `target`. Its own completion still comes, with ECANCELED or with what won the race.
    fn cancel(&mut self, target: Token);

    /// A stream socket, of TCP or the unix domain: blocking mode, close-on-exec.
    fn socket(&mut self, family: Family) -> Result<Fd, Errno>;
    fn set_option(&mut self, fd: Fd, option: SocketOption) -> Result<(), Errno>;
    fn bind(&mut self, fd: Fd, to: &Address) -> Result<(), Errno>;
    fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno>;
    /// `Both` ends a recv that waits for bytes, or for a buffer, with [`Outcome::Eof`].
    fn shutdown(&mut self, fd: Fd, how: Shutdown) -> Result<(), Errno>;
    /// Bytes that came from the peer, and bytes that it acknowledged, since the connection began; EOPNOTSUPP of a unix socket.
    fn carried(&mut self, fd: Fd) -> Result<(u64, u64), Errno>;
    fn local_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno>;
    fn peer_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno>;
    /// Bytes given to a socket that its peer's kernel has not acknowledged yet (SIOCOUTQ): what a slow peer is held to.
    fn unacknowledged(&mut self, fd: Fd) -> Result<u32, Errno>;
    /// Bytes that have arrived on a socket and were not received yet (SIOCINQ), or were ahead of being asked for.
    fn unread(&mut self, fd: Fd) -> Result<u32, Errno>;
    /// An empty pipe, or none: then bytes are copied. The last one there is is lent for one step only ([`Pipe::is_last`]).
    fn take_pipe(&mut self) -> Option<Pipe>;
    /// Takes a pipe back; what it still holds is lost, and nobody meets it.
    fn give_pipe(&mut self, pipe: Pipe);
    /// Pipes that are lent, of [`crate::limits::PIPES`]; adopted ones are not among them.
    fn pipes_lent(&self) -> usize;
    /// Bytes in a pipe.
    fn held(&self, pipe: &Pipe) -> usize;
    /// Moves up to `most` bytes, at least 1, that have arrived on a socket into an empty pipe; 0 is its FIN. To be called
    /// only once a poll said that the socket is readable, and with nothing receiving on it: else it may block (splice(2)).
    /// EAGAIN also where bytes were received ahead, or may be: a poll ends in those.
    fn splice_in(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno>;
    /// Moves what a pipe holds to a socket that is [`SocketOption::NonBlocking`], perhaps in part; EAGAIN where the socket
    /// has no room at all. Nothing may be sending on it.
    fn splice_out(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno>;
    /// Copies what a pipe holds, as much as fits into `to`, which is not empty: a pipe that is wanted elsewhere gives up
    /// the bytes of a flow that stalls.
    fn unload(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno>;
    /// Gives up a pipe that holds something: its reader and its writer are the caller's from now on, and so is what they hold.
    fn part_with(&mut self, pipe: Pipe) -> ([Fd; 2], usize);
    /// Takes over what another shard, perhaps of another process, parted with: reader and writer of a pipe, which holds so many
    /// bytes. It is one more than the shard has, and closed when it is given back; none, and closed, where there are
    /// [`crate::limits::PIPES_ADOPTED`].
    fn adopt_pipe(&mut self, ends: [Fd; 2], held: usize) -> Option<Pipe>;
    /// Closes at once a descriptor on which nothing was ever submitted.
    fn discard(&mut self, fd: Fd);
    /// Empties an eventfd after its poll said [`Outcome::Ready`].
    fn clear_event(&mut self, fd: Fd);

    /// Whether bytes of a stream may be taken from its socket although no recv is in flight, for one that was asked for with
    /// [`Expect::Often`]: at most until the end of the turn after the one that brought bytes. `recv` is the token of its receives.
    /// To make an end of it, receive once more, and cancel that.
    fn stands(&self, recv: Token) -> bool;
    /// Bytes that were received on a stream and that nobody asked for yet: its next recv brings them.
    fn ahead(&self, fd: Fd) -> usize;
    /// Takes all of them, where the stream goes elsewhere.
    fn take_ahead(&mut self, fd: Fd, pool: &mut Pool) -> Vec<u8>;

    /// Receives that wait for a free lease.
    fn starved(&self) -> usize;
    /// Operations in flight, of all kinds; 0 means that the backend may be dropped (invariant 15).
    fn in_flight(&self) -> usize;
}
