//! One end of a simulated TCP connection, and what its owner may do with it. The rules are Linux's, probed on a real one.

use super::{ListenerId, Net};
use crate::io::{Errno, Fd, Mono, PortRange, Shutdown, SocketAddress};
use std::collections::VecDeque;

/// An end of a connection. Never reused within one simulation, so that a stale one cannot reach another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// Who acts on a socket or a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The shard under test, through a descriptor.
    Shard(Fd),
    /// A peer that lives in the simulator.
    Actor(u32),
    /// Nobody yet, or nobody any more.
    Nobody,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Segment {
    Data(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected, or the connect failed.
    Fresh,
    Connecting,
    Open,
    /// Reset by either side (TCP_CLOSE).
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fin {
    None,
    /// Behind the bytes that still wait.
    Queued,
    Sent,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) owner: Owner,
    pub(super) state: State,
    pub(super) local: SocketAddress,
    pub(super) remote: SocketAddress,
    pub(super) peer: Option<SocketId>,
    /// Written and not yet on the wire.
    pub(super) send: VecDeque<u8>,
    pub(super) send_room: usize,
    pub(super) fin: Fin,
    /// Arrived and not yet read.
    pub(super) recv: VecDeque<u8>,
    pub(super) recv_room: usize,
    /// On the wire towards this socket, in order.
    pub(super) inbound: VecDeque<(Mono, Segment)>,
    pub(super) inbound_bytes: usize,
    pub(super) fin_seen: bool,
    pub(super) read_shut: bool,
    /// sk_err: reported once, by whichever call comes first.
    pub(super) error: Option<Errno>,
    /// How the connect ended, until its owner asks.
    pub(super) connected: Option<Result<(), Errno>>,
    /// The owner closed it.
    pub(super) closed: bool,
    pub(super) reset_on_close: bool,
    /// The port is chosen at connect, by four-tuple.
    pub(super) late_port: bool,
    /// From these, as far as the machine's range has them.
    pub(super) ports: Option<PortRange>,
    /// A notice about it is queued already.
    pub(super) noticed: bool,
    /// The listener in whose accept queue it waits.
    pub(super) waits_in: Option<ListenerId>,
}

impl Socket {
    pub(super) fn new(owner: Owner, room: usize) -> Self {
        Self {
            owner,
            state: State::Fresh,
            local: SocketAddress::UNSPECIFIED,
            remote: SocketAddress::UNSPECIFIED,
            peer: None,
            send: VecDeque::new(),
            send_room: room,
            fin: Fin::None,
            recv: VecDeque::new(),
            recv_room: room,
            inbound: VecDeque::new(),
            inbound_bytes: 0,
            fin_seen: false,
            read_shut: false,
            error: None,
            connected: None,
            closed: false,
            reset_on_close: false,
            late_port: false,
            ports: None,
            noticed: false,
            waits_in: None,
        }
    }
    /// As TCP_CLOSE after both FINs or a reset: getpeername and shutdown say ENOTCONN.
    fn is_over(&self) -> bool {
        self.state != State::Open || (self.fin == Fin::Sent && self.fin_seen)
    }
}

/// Moves as many bytes as `into` has from the front of a queue.
pub(super) fn take(queue: &mut VecDeque<u8>, into: &mut [u8]) {
    let (front, back) = queue.as_slices();
    let n = front.len().min(into.len());
    into[..n].copy_from_slice(&front[..n]);
    let rest = into.len() - n;
    into[n..].copy_from_slice(&back[..rest]);
    queue.drain(..into.len());
}

/// What a read finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    Eof,
    /// Nothing yet.
    Empty,
}

impl Net {
    /// Reads up to `into.len()` bytes.
    pub fn read(&mut self, id: SocketId, into: &mut [u8]) -> Result<Read, Errno> {
        let socket = self.socket_mut(id);
        if !socket.recv.is_empty() {
            let n = into.len().min(socket.recv.len());
            take(&mut socket.recv, &mut into[..n]);
            if let Some(peer) = socket.peer {
                self.pump(peer);
            }
            return Ok(Read::Bytes(n));
        }
        if socket.fin_seen {
            return Ok(Read::Eof);
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        match socket.state {
            _ if socket.read_shut => Ok(Read::Eof),
            State::Dead => Ok(Read::Eof),
            State::Fresh => Err(Errno(libc::ENOTCONN)),
            State::Connecting | State::Open => Ok(Read::Empty),
        }
    }
    /// All bytes there are, up to `most`; for peers.
    pub fn read_up_to(&mut self, id: SocketId, most: usize) -> Result<(Read, Vec<u8>), Errno> {
        let mut bytes = vec![0; self.readable(id).min(most)];
        let read = self.read(id, &mut bytes)?;
        Ok((read, bytes))
    }
    /// Bytes that a read would find.
    pub fn readable(&self, id: SocketId) -> usize {
        self.socket_ref(id).recv.len()
    }
    /// Whether the other end has read everything that was written here.
    pub fn is_flushed(&self, id: SocketId) -> bool {
        let socket = self.socket_ref(id);
        let read = |peer: SocketId| {
            let peer = self.socket_ref(peer);
            peer.recv.is_empty() && peer.inbound_bytes == 0
        };
        socket.send.is_empty() && socket.peer.is_none_or(read)
    }
    /// Whether its owner shut it down for reading.
    pub fn is_shut(&self, id: SocketId) -> bool {
        self.socket_ref(id).read_shut
    }
    /// Bytes written here that have not left yet.
    pub fn unsent(&self, id: SocketId) -> usize {
        self.socket_ref(id).send.len()
    }
    /// Whether a poll for reading would return at once.
    pub fn is_ready(&self, id: SocketId) -> bool {
        let socket = self.socket_ref(id);
        !socket.recv.is_empty()
            || socket.fin_seen
            || socket.read_shut
            || socket.error.is_some()
            || socket.state == State::Dead
    }
    /// Whether a poll for writing would return at once: a third of the buffer is free (sk_stream_is_writeable), or a write
    /// would fail.
    pub fn has_room(&self, id: SocketId) -> bool {
        let socket = self.socket_ref(id);
        let open = socket.state == State::Open && socket.fin == Fin::None && socket.error.is_none();
        let free = socket.send_room.saturating_sub(socket.send.len());
        if open { free > 0 && free >= socket.send_room / 3 } else { socket.state != State::Connecting }
    }
    /// How many bytes the send buffer has room for; an error that a write would meet.
    pub fn writable(&mut self, id: SocketId) -> Result<usize, Errno> {
        let socket = self.socket_mut(id);
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.fin != Fin::None || socket.state == State::Dead || socket.state == State::Fresh {
            return Err(Errno(libc::EPIPE));
        }
        if socket.state == State::Connecting {
            return Ok(0);
        }
        Ok(socket.send_room.saturating_sub(socket.send.len()))
    }
    /// Writes what fits; 0 is "no room now".
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) -> Result<usize, Errno> {
        let n = self.writable(id)?.min(bytes.len());
        if n > 0 {
            self.socket_mut(id).send.extend(&bytes[..n]);
            self.pump(id);
        }
        Ok(n)
    }
    pub fn shutdown(&mut self, id: SocketId, how: Shutdown) -> Result<(), Errno> {
        let socket = self.socket_mut(id);
        if socket.is_over() {
            return Err(Errno(libc::ENOTCONN));
        }
        if how == Shutdown::Both {
            socket.read_shut = true;
        }
        if socket.fin == Fin::None {
            socket.fin = Fin::Queued;
        }
        self.notice(id);
        self.pump(id);
        Ok(())
    }
    /// Lets go: FIN behind what is queued, or RST over bytes that nobody read.
    pub fn close(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        assert!(!socket.closed, "a socket was closed twice");
        socket.closed = true;
        socket.owner = Owner::Nobody;
        if socket.state == State::Open {
            if socket.reset_on_close || !socket.recv.is_empty() {
                self.emit_reset(id);
            } else {
                if socket.fin == Fin::None {
                    socket.fin = Fin::Queued;
                }
                self.pump(id);
            }
        }
        self.free_port(id);
    }
    /// Closes with RST.
    pub fn reset(&mut self, id: SocketId) {
        self.socket_mut(id).reset_on_close = true;
        self.close(id);
    }
    /// How the connect ended, once.
    pub fn take_connected(&mut self, id: SocketId) -> Option<Result<(), Errno>> {
        self.socket_mut(id).connected.take()
    }
    pub fn local_address(&self, id: SocketId) -> SocketAddress {
        self.socket_ref(id).local
    }
    pub fn peer_address(&self, id: SocketId) -> Result<SocketAddress, Errno> {
        let socket = self.socket_ref(id);
        if socket.is_over() { Err(Errno(libc::ENOTCONN)) } else { Ok(socket.remote) }
    }
    pub fn set_reset_on_close(&mut self, id: SocketId) {
        self.socket_mut(id).reset_on_close = true;
    }
    pub fn set_ports(&mut self, id: SocketId, ports: PortRange) {
        self.socket_mut(id).ports = Some(ports);
    }
    pub fn set_late_port(&mut self, id: SocketId) {
        self.socket_mut(id).late_port = true;
    }
    /// Sets the size of both socket buffers, bytes.
    pub fn set_room(&mut self, id: SocketId, room: usize) {
        let socket = self.socket_mut(id);
        (socket.send_room, socket.recv_room) = (room, room);
    }
    pub fn set_owner(&mut self, id: SocketId, owner: Owner) {
        self.socket_mut(id).owner = owner;
    }
    pub fn owner(&self, id: SocketId) -> Owner {
        self.socket_ref(id).owner
    }
}
