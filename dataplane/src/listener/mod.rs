//! A listener on one shard: its sockets, and who may come in.

pub mod even;

use crate::conn;
use crate::core::Core;
use crate::io::{Errno, Fd, Io, Kind, SocketAddress, Token};
use crate::limits;
use crate::spec::ListenerId;
use crate::table::TimerId;

/// One bound address of a listener as this shard accepts on it.
#[derive(Debug)]
pub struct ListenerState {
    pub id: ListenerId,
    pub fd: Fd,
    pub address: SocketAddress,
    /// No other shard accepts there: a unix socket, or an inherited one that cannot be multiplied.
    pub alone: bool,
    phase: Phase,
    timer: Option<TimerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepting,
    /// Waiting after EMFILE and its like.
    Paused,
    /// The accept was cancelled; the descriptor closes when it has ended.
    Stopping,
    Closed,
}

impl ListenerState {
    pub fn new(id: ListenerId, fd: Fd, address: SocketAddress) -> Self {
        Self { id, fd, address, alone: false, phase: Phase::Paused, timer: None }
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
    match result {
        Ok(fd) => {
            if conn::room::may_stay(core, io, fd) {
                core.stats.accepted.add(1);
                even::place(core, io, (id, alone), fd);
            } else {
                io.discard(fd);
            }
        }
        Err(_) if stopping => {}
        Err(errno) => {
            core.stats.accept_errors.add(1);
            on_error(core, io, index, errno);
        }
    }
    let Some(listener) = core.listeners.get_mut(index) else { return };
    if !more {
        if listener.phase == Phase::Stopping {
            listener.phase = Phase::Closed;
            io.close(listener.fd, token(Kind::ListenerClose, index));
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
            let listener = &mut core.listeners[index];
            listener.phase = Phase::Paused;
            let at = now.after(limits::ACCEPT_BACKOFF);
            match listener.timer {
                Some(timer) => {
                    core.wheel.reschedule(timer, at);
                }
                None => listener.timer = Some(core.wheel.schedule(token(Kind::AcceptTimer, index).0, at)),
            }
        }
    }
}

/// The pause of socket `index` is over.
pub fn on_timer(core: &mut Core, io: &mut impl Io, index: usize) {
    accept(core, io, index);
}

/// Accepts no more: cancels, then closes. What is in the accept queue by now was accepted before the cancel took hold.
pub fn stop(core: &mut Core, io: &mut impl Io) {
    for index in 0..core.listeners.len() {
        let listener = &mut core.listeners[index];
        match listener.phase {
            Phase::Accepting => {
                listener.phase = Phase::Stopping;
                io.cancel(token(Kind::Accept, index));
            }
            Phase::Paused => {
                listener.phase = Phase::Closed;
                io.close(listener.fd, token(Kind::ListenerClose, index));
            }
            Phase::Stopping | Phase::Closed => {}
        }
    }
}
