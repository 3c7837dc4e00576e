//! A listener on one shard: its sockets, who may come in, and how a socket goes away without a reset for who is in its queue.

pub mod even;

use crate::conn;
use crate::core::Core;
use crate::io::{Errno, Fd, Io, Kind, Mono, SocketAddress, SocketOption, Token};
use crate::limits;
use crate::spec::ListenerId;
use crate::table::TimerId;

/// One bound socket, as control gives it to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Its own for as long as the process lives; later ones have higher numbers.
    pub number: u32,
    pub listener: ListenerId,
    pub fd: Fd,
    pub address: SocketAddress,
    /// No other shard accepts there: a unix socket, or an inherited one that cannot be multiplied.
    pub alone: bool,
    /// Somebody else may accept there after us: whoever lent it to this process.
    pub lent: bool,
}

/// One bound address of a listener as this shard accepts on it.
#[derive(Debug)]
pub struct ListenerState {
    pub id: ListenerId,
    pub fd: Fd,
    pub address: SocketAddress,
    /// No other shard accepts there: a unix socket, or an inherited one that cannot be multiplied.
    pub alone: bool,
    number: u32,
    lent: bool,
    phase: Phase,
    /// Of one that goes away: since when nobody has been accepted.
    quiet_since: Option<Mono>,
    timer: Option<TimerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepting,
    /// Waiting after EMFILE and its like, or not begun.
    Paused,
    /// The accept was cancelled; the descriptor closes when it has ended.
    Stopping,
    Closed,
}

impl ListenerState {
    pub fn new(id: ListenerId, fd: Fd, address: SocketAddress) -> Self {
        Self::of(&Socket { number: 0, listener: id, fd, address, alone: false, lent: false })
    }
    /// What control gave.
    pub fn of(socket: &Socket) -> Self {
        let Socket { number, listener: id, fd, address, alone, lent } = *socket;
        Self { id, fd, address, alone, number, lent, phase: Phase::Paused, quiet_since: None, timer: None }
    }
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}

fn token(kind: Kind, index: usize) -> Token {
    Token::new(kind, u32::try_from(index).unwrap_or(u32::MAX), 0)
}

/// Begins to accept on every socket.
pub fn start(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.listeners.len() {
        accept(core, io, index);
    }
}

fn accept(core: &mut Core, io: &mut impl Io, index: usize) {
    let listener = &mut core.listeners[index];
    if listener.phase == Phase::Paused {
        listener.phase = Phase::Accepting;
        io.accept(listener.fd, token(Kind::Accept, index));
    }
}

/// A completion of the accept of socket `index`.
pub fn on_accept(core: &mut Core, io: &mut impl Io, index: usize, result: Result<Fd, Errno>, more: bool) {
    let Some(listener) = core.listeners.get_mut(index) else { return };
    let (id, alone, stopping) = (listener.id, listener.alone, listener.phase == Phase::Stopping);
    let leaves = listener.quiet_since.is_some();
    match result {
        Ok(fd) => {
            listener.quiet_since = listener.quiet_since.and(Some(core.clock.mono));
            core.stats.accepted.add(1);
            if !conn::room::may_stay(core, io, fd) {
                conn::open::refuse(core, io, id, fd);
            } else if leaves && !core.draining {
                even::see_off(core, io, id, fd);
            } else {
                even::place(core, io, (id, alone), fd);
            }
        }
        Err(errno) if stopping || errno == Errno(libc::ECANCELED) => {}
        // Of a unix socket: its queue is empty, and nobody new gets in.
        Err(Errno(libc::EINVAL)) if leaves => listener.phase = Phase::Stopping,
        Err(errno) => {
            core.stats.accept_errors.add(1);
            on_error(core, io, index, errno);
        }
    }
    let Some(listener) = core.listeners.get_mut(index) else { return };
    if !more {
        if listener.phase == Phase::Stopping {
            close(core, io, index);
        } else if listener.phase == Phase::Accepting {
            // A multishot accept may end for reasons of its own (a full completion queue): go on.
            listener.phase = Phase::Paused;
            accept(core, io, index);
        }
    }
}

/// Accept failed. Out of descriptors or memory it pauses, so that it neither spins nor starves what is established
/// (threat D05), and conns that are of little use make room.
fn on_error(core: &mut Core, io: &mut impl Io, index: usize, errno: Errno) {
    match errno.0 {
        // accept(2): an error of the connection that was being accepted; the next one may be well.
        libc::ECONNABORTED
        | libc::EPROTO
        | libc::EINTR
        | libc::EAGAIN
        | libc::EPERM
        | libc::ENETDOWN
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH => {}
        _ => {
            conn::room::make_for_links(core, io);
            let now = core.now();
            core.listeners[index].phase = Phase::Paused;
            look_at(core, index, now.after(limits::ACCEPT_BACKOFF));
        }
    }
}

/// The timer of socket `index` fires at that time.
fn look_at(core: &mut Core, index: usize, at: Mono) {
    let listener = &mut core.listeners[index];
    match listener.timer {
        Some(timer) => {
            core.wheel.reschedule(timer, at);
        }
        None => listener.timer = Some(core.wheel.schedule(token(Kind::AcceptTimer, index).0, at)),
    }
}

/// The pause of socket `index` is over, or it may have been quiet for long enough to be closed.
pub fn on_timer(core: &mut Core, io: &mut impl Io, index: usize) {
    let now = core.now();
    let Some(listener) = core.listeners.get(index) else { return };
    let quiet_by = listener.quiet_since.map(|since| since.after(limits::LISTENER_REST));
    match (listener.phase, quiet_by) {
        (Phase::Accepting, Some(by)) if by <= now => stop(core, io, index),
        (Phase::Accepting, Some(by)) => look_at(core, index, by),
        (Phase::Paused, quiet_by) => {
            accept(core, io, index);
            if quiet_by.is_some() {
                look_at(core, index, now.after(limits::LISTENER_REST));
            }
        }
        _ => {}
    }
}

/// The sockets of this shard are `sockets` from now on, the highest number last: those that are new are accepted on, those that
/// are not among them any more go away, and one may be another listener's.
pub fn follow(core: &mut Core, io: &mut impl Io, sockets: &[Socket]) {
    let known = core.listeners.iter().map(|listener| listener.number).max();
    for index in 0..core.listeners.len() {
        let listener = &mut core.listeners[index];
        match sockets.binary_search_by_key(&listener.number, |socket| socket.number) {
            Ok(at) => listener.id = sockets[at].listener,
            Err(_) => leave(core, io, index),
        }
    }
    for socket in sockets.iter().filter(|socket| known.is_none_or(|known| socket.number > known)) {
        let new = ListenerState::of(socket);
        let index = match core.listeners.iter().position(ListenerState::is_closed) {
            Some(index) => {
                core.listeners[index] = new;
                index
            }
            None => {
                core.listeners.push(new);
                core.listeners.len() - 1
            }
        };
        accept(core, io, index);
    }
}

/// Every socket goes away: what is queued is accepted, then it is closed.
pub fn leave_all(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.listeners.len() {
        leave(core, io, index);
    }
}

/// Accepts no more on any socket, whatever is queued there.
pub fn stop_all(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.listeners.len() {
        stop(core, io, index);
    }
}

/// Accepts no more on the sockets of these numbers; who waits there is another process's.
pub fn give_up(core: &mut Core, io: &mut impl Io, numbers: &[u32]) {
    for index in 0..core.listeners.len() {
        if numbers.contains(&core.listeners[index].number) {
            stop(core, io, index);
        }
    }
}

/// Another process accepts no more on the sockets that both had. Who came while its accept was being cancelled woke that accept and not
/// ours, as the kernel wakes one of those that wait (epoll_ctl(2), EPOLLEXCLUSIVE), and waits unseen. An accept that begins looks
/// at the queue first: each is ended, and begun anew when it has.
pub fn accept_anew(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.listeners.len() {
        if core.listeners[index].phase == Phase::Accepting {
            io.cancel(token(Kind::Accept, index));
        }
    }
}

fn leave(core: &mut Core, io: &mut impl Io, index: usize) {
    let now = core.now();
    let listener = &mut core.listeners[index];
    if listener.quiet_since.is_some() || matches!(listener.phase, Phase::Stopping | Phase::Closed) {
        return;
    }
    if !listener.lent {
        // Where the kernel has no memory for that, who comes now is accepted, and perhaps the last of them reset.
        let _ = io.set_option(listener.fd, SocketOption::Deaf);
    }
    listener.quiet_since = Some(now);
    look_at(core, index, now.after(limits::LISTENER_REST));
}

/// Accepts no more: cancels, then closes. Who is in the accept queue by now was accepted before the cancel took hold, or is left to
/// the other process that has the socket ([`accept_anew`]).
fn stop(core: &mut Core, io: &mut impl Io, index: usize) {
    let listener = &mut core.listeners[index];
    match listener.phase {
        Phase::Accepting => {
            listener.phase = Phase::Stopping;
            io.cancel(token(Kind::Accept, index));
        }
        Phase::Paused => close(core, io, index),
        Phase::Stopping | Phase::Closed => {}
    }
}

fn close(core: &mut Core, io: &mut impl Io, index: usize) {
    let listener = &mut core.listeners[index];
    listener.phase = Phase::Closed;
    if let Some(timer) = listener.timer.take() {
        core.wheel.cancel(timer);
    }
    io.close(listener.fd, token(Kind::ListenerClose, index));
}
