//! The ring of the origin: one thread, one call of the kernel per turn, receives armed for good, buffers only while bytes
//! are looked at.

use super::answer::{Answer, Answers};
use super::http::Requests;
use crate::slots::Slots;
use crate::sys::{Event, Lease, Options, Uring};
use crate::upgrade::{self, Head};
use std::collections::VecDeque;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

/// Answers that wait behind the one being sent; who pipelines more is cut off.
const QUEUE_MAX: usize = 1024;
/// The bytes of a source, sent again and again.
const SOURCE_BYTES: usize = 256 * 1024;

/// What a connection does with what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Http,
    /// The small answer to whatever comes, without looking at it.
    Canned,
    Echo,
    Sink,
    Source,
}

impl Role {
    /// Small requests want many buffers, bulk wants large ones.
    fn options(self) -> Options {
        match self {
            Self::Http | Self::Canned => Options { buffers: 1024, buffer_bytes: 4096 },
            Self::Echo | Self::Sink | Self::Source => Options { buffers: 256, buffer_bytes: 65_536 },
        }
    }
}

#[derive(Debug)]
enum Output {
    Answer(Answer),
    Lease(Lease),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    requests: Requests,
    /// The handshake that has yet to end, where there is one.
    handshake: Option<Box<Head>>,
    queue: VecDeque<Output>,
    receiving: bool,
    sending: bool,
    /// Nothing more is sent after what is being sent.
    ends: bool,
}

#[derive(Debug)]
struct Server {
    ring: Uring,
    role: Role,
    /// Connections begin with a handshake.
    upgrades: bool,
    answers: Answers,
    connections: Slots<Connection>,
    /// Connections whose receive found no buffer.
    starved: Vec<u32>,
    source: &'static [u8],
}

/// Serves until the process ends; each connection begins with a WebSocket handshake if it `upgrades`.
pub(crate) fn serve(listener: &TcpListener, role: Role, upgrades: bool) -> anyhow::Result<()> {
    let source: &'static [u8] = if role == Role::Source { vec![b'x'; SOURCE_BYTES].leak() } else { &[] };
    let mut server = Server {
        ring: Uring::new(role.options())?,
        role,
        upgrades,
        answers: Answers::new(),
        connections: Slots::new(),
        starved: Vec::new(),
        source,
    };
    server.ring.accept(listener.as_fd());
    loop {
        server.ring.wait()?;
        while let Some(event) = server.ring.next() {
            match event {
                Event::Accepted { result, more } => {
                    if let Ok(fd) = result {
                        server.open(TcpStream::from(fd));
                    }
                    if !more {
                        server.ring.accept(listener.as_fd());
                    }
                }
                Event::Received { slot, result, more } => server.received(slot, result, more),
                Event::Sent { slot, result, lease } => server.sent(slot, result, lease),
            }
        }
        while server.ring.has_buffers()
            && let Some(slot) = server.starved.pop()
        {
            server.receive(slot);
        }
    }
}

impl Server {
    fn open(&mut self, stream: TcpStream) {
        let connection = Connection {
            stream,
            requests: Requests::default(),
            handshake: self.upgrades.then(Box::default),
            queue: VecDeque::new(),
            receiving: false,
            sending: false,
            ends: false,
        };
        let slot = self.connections.add(connection);
        self.receive(slot);
        self.send(slot);
    }

    fn receive(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        // A starved slot may have ended since, and even serve another connection.
        if connection.receiving || connection.ends {
            return;
        }
        connection.receiving = true;
        self.ring.recv(connection.stream.as_fd(), slot, true, false);
    }

    fn received(&mut self, slot: u32, result: std::io::Result<Option<Lease>>, more: bool) {
        let Some(connection) = self.connections.at(slot) else { return };
        connection.receiving = more;
        match result {
            Ok(Some(lease)) => {
                self.take(slot, lease);
                self.send(slot);
                if !more {
                    self.receive(slot);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.starved.push(slot),
            Ok(None) | Err(_) => self.end(slot),
        }
    }

    /// Does with received bytes what the role says.
    fn take(&mut self, slot: u32, lease: Lease) {
        let Some(connection) = self.connections.at(slot) else { return };
        let queue = &mut connection.queue;
        match self.role {
            _ if connection.ends => self.ring.give_back(lease),
            _ if connection.handshake.is_some() => self.shake(slot, lease),
            Role::Echo => queue.push_back(Output::Lease(lease)),
            Role::Sink | Role::Source => self.ring.give_back(lease),
            Role::Canned => {
                queue.push_back(Output::Answer(Answer { bytes: self.answers.small(), close: false }));
                self.ring.give_back(lease);
            }
            Role::Http => {
                let piece = self.ring.bytes(&lease);
                let fine = connection.requests.read(piece, &mut self.answers, |answer| {
                    queue.push_back(Output::Answer(answer));
                });
                self.ring.give_back(lease);
                if !fine || connection.queue.len() > QUEUE_MAX {
                    self.end(slot);
                }
            }
        }
    }

    /// Takes a piece of the handshake, and answers its end. A client that sends more before it has the answer is cut off.
    fn shake(&mut self, slot: u32, lease: Lease) {
        let Some(connection) = self.connections.at(slot) else { return };
        let Some(head) = &mut connection.handshake else { return };
        let ended = head.feed(self.ring.bytes(&lease));
        self.ring.give_back(lease);
        match ended {
            Ok(None) => {}
            Ok(Some(0)) => {
                connection.handshake = None;
                connection.queue.push_back(Output::Answer(Answer { bytes: upgrade::ANSWER, close: false }));
            }
            Ok(Some(_)) | Err(()) => self.end(slot),
        }
    }

    /// Sends what is next, if nothing is on its way.
    fn send(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.sending || connection.ends || connection.handshake.is_some() {
            return;
        }
        let fd = connection.stream.as_fd();
        match connection.queue.pop_front() {
            Some(Output::Answer(answer)) => {
                self.ring.send_static(fd, slot, answer.bytes);
                connection.ends = answer.close;
            }
            Some(Output::Lease(lease)) => self.ring.send_lease(fd, slot, lease),
            None if self.role == Role::Source => self.ring.send_static(fd, slot, self.source),
            None => return,
        }
        connection.sending = true;
    }

    fn sent(&mut self, slot: u32, result: std::io::Result<u32>, lease: Option<Lease>) {
        lease.into_iter().for_each(|lease| self.ring.give_back(lease));
        let Some(connection) = self.connections.at(slot) else { return };
        connection.sending = false;
        if result.is_err() || connection.ends {
            self.end(slot);
        } else {
            self.send(slot);
        }
    }

    /// Ends both directions, which ends what is in flight; the last event of the connection frees its slot.
    fn end(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else { return };
        connection.ends = true;
        for output in connection.queue.drain(..) {
            if let Output::Lease(lease) = output {
                self.ring.give_back(lease);
            }
        }
        if connection.receiving || connection.sending {
            // Fails only where the peer was faster, and then the events come as well.
            let _ = connection.stream.shutdown(Shutdown::Both);
        } else {
            self.connections.remove(slot);
        }
    }
}
