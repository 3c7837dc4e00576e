//! A scripted peer: one far end of a connection, with a list of things to say and a pace for reading.

use super::net::{Net, Owner, Read, SocketId};
use crate::io::{Mono, Shutdown, SocketAddress};
use std::collections::VecDeque;

/// One step of a peer's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Say(Vec<u8>),
    /// Nanoseconds of silence.
    Wait(u64),
    /// Half-close: FIN behind what was said.
    Finish,
    /// FIN, or RST over bytes that were not read.
    Close,
    Reset,
}

/// How a connection ended, as the peer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// FIN from the other side.
    Eof,
    /// RST, or an error.
    Broken,
    /// The peer itself closed.
    Left,
}

/// Timer cookies of a peer; its owner may use others.
pub const SPEAK: u64 = 1;
pub const LISTEN: u64 = 2;

/// One far end of a connection.
#[derive(Debug)]
pub struct Peer {
    actor: u32,
    pub socket: Option<SocketId>,
    script: VecDeque<Act>,
    /// Bytes of the first `Say` already written.
    said: usize,
    wait_until: Option<Mono>,
    /// Bytes written in all.
    pub written: u64,
    /// Read at most so many bytes, then pause so long (nanoseconds).
    pub pace: Option<(usize, u64)>,
    listen_again: Option<Mono>,
    pub ended: Option<Ended>,
    connecting: bool,
    broken: bool,
    /// When it said that it has nothing more to say.
    pub finished_at: Option<Mono>,
}

impl Peer {
    pub fn new(actor: u32) -> Self {
        Self {
            actor,
            socket: None,
            script: VecDeque::new(),
            said: 0,
            wait_until: None,
            written: 0,
            pace: None,
            listen_again: None,
            ended: None,
            connecting: false,
            broken: false,
            finished_at: None,
        }
    }
    pub fn connect(&mut self, net: &mut Net, to: SocketAddress) {
        let socket = net.socket(Owner::Actor(self.actor));
        self.socket = Some(socket);
        self.connecting = true;
        if net.connect(socket, to).is_err() {
            self.fail(net);
        }
    }
    /// Takes over an accepted socket.
    pub fn adopt(&mut self, socket: SocketId) {
        self.socket = Some(socket);
    }
    pub fn push(&mut self, act: Act) {
        self.script.push_back(act);
    }
    pub fn actor(&self) -> u32 {
        self.actor
    }
    /// Nothing left to say.
    pub fn is_silent(&self) -> bool {
        self.script.is_empty()
    }
    /// Still part of a connection.
    pub fn is_open(&self) -> bool {
        self.socket.is_some() && !self.connecting && self.ended.is_none()
    }
    fn fail(&mut self, net: &mut Net) {
        if self.ended.is_none() {
            self.ended = Some(Ended::Broken);
        }
        self.drop_socket(net);
    }
    fn drop_socket(&mut self, net: &mut Net) {
        self.script.clear();
        if let Some(socket) = self.socket.take() {
            net.close(socket);
        }
    }
    /// Leaves at once.
    pub fn leave(&mut self, net: &mut Net, reset: bool) {
        if self.ended.is_none() {
            self.ended = Some(Ended::Left);
        }
        self.script.clear();
        if let Some(socket) = self.socket.take() {
            if reset {
                net.reset(socket);
            } else {
                net.close(socket);
            }
        }
    }
    /// Goes on with the script as far as socket and clock allow.
    pub fn speak(&mut self, net: &mut Net) {
        let Some(socket) = self.socket else { return };
        if self.connecting {
            match net.take_connected(socket) {
                Some(Ok(())) => self.connecting = false,
                Some(Err(_)) => return self.fail(net),
                None => return,
            }
        }
        while let Some(act) = self.script.front() {
            match act {
                Act::Say(bytes) => {
                    match net.write(socket, &bytes[self.said..]) {
                        Ok(n) => {
                            self.said += n;
                            self.written += n as u64;
                        }
                        // What was received before may still be read; the reader will see the end.
                        Err(errno) => {
                            self.broken |= errno.0 == libc::ECONNRESET;
                            return self.script.clear();
                        }
                    }
                    if self.said < bytes.len() {
                        return;
                    }
                    self.said = 0;
                }
                Act::Wait(nanos) => match self.wait_until {
                    None => {
                        let until = Mono(net.now.0 + nanos);
                        self.wait_until = Some(until);
                        return net.timer(self.actor, until, SPEAK);
                    }
                    Some(until) if until > net.now => return,
                    Some(_) => self.wait_until = None,
                },
                Act::Finish => {
                    self.finished_at = Some(net.now);
                    let _ = net.shutdown(socket, Shutdown::Write);
                }
                Act::Close => return self.leave(net, false),
                Act::Reset => return self.leave(net, true),
            }
            self.script.pop_front();
        }
    }
    /// Reads what is there, at this peer's pace. Sets [`Peer::ended`] at the end.
    pub fn listen(&mut self, net: &mut Net) -> Vec<u8> {
        let Some(socket) = self.socket.filter(|_| !self.connecting && self.ended.is_none()) else {
            return Vec::new();
        };
        let most = match (self.pace, self.listen_again) {
            (Some(_), Some(at)) if at > net.now => return Vec::new(),
            (Some((most, _)), _) => most,
            (None, _) => usize::MAX,
        };
        match net.read_up_to(socket, most) {
            Ok((Read::Bytes(_), bytes)) => {
                if let Some((_, pause)) = self.pace {
                    let at = Mono(net.now.0 + pause);
                    self.listen_again = Some(at);
                    net.timer(self.actor, at, LISTEN);
                }
                bytes
            }
            Ok((Read::Empty, _)) => Vec::new(),
            Ok((Read::Eof, _)) => {
                // The error was told to the writer; then reading ends as if in order.
                self.ended = Some(if self.broken { Ended::Broken } else { Ended::Eof });
                Vec::new()
            }
            Err(_) => {
                self.fail(net);
                Vec::new()
            }
        }
    }
}
