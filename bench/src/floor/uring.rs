//! F2, the ring relay: provided buffers go from a receive to a send, and one call of the kernel ends a turn.

use super::Recv;
use crate::net;
use crate::slots::Slots;
use crate::sys::{Event, Lease, Options, Uring};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

const OPTIONS: Options = Options { buffers: 1024, buffer_bytes: 16 * 1024 };
/// Buffers that wait for the send in front of them, in one direction, before its receive pauses.
const QUEUE_MAX: usize = 4;

/// One socket, and what it has yet to be sent.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    queue: VecDeque<Lease>,
    receiving: bool,
    sending: bool,
    /// Its stream ended.
    ended: bool,
}

/// Sides are numbered slot * 2 and slot * 2 + 1.
#[derive(Debug)]
struct Pair {
    sides: [Side; 2],
    closing: bool,
}

struct Relay {
    ring: Uring,
    pairs: Slots<Pair>,
    starved: Vec<u32>,
    recv: Recv,
}

pub(super) fn serve(listener: &TcpListener, origin: SocketAddr, recv: Recv) -> anyhow::Result<()> {
    let mut relay = Relay { ring: Uring::new(OPTIONS)?, pairs: Slots::new(), starved: Vec::new(), recv };
    relay.ring.accept(listener.as_fd());
    loop {
        relay.ring.wait()?;
        while let Some(event) = relay.ring.next() {
            match event {
                Event::Accepted { result, more } => {
                    if let Ok(fd) = result {
                        relay.open(TcpStream::from(fd), origin);
                    }
                    if !more {
                        relay.ring.accept(listener.as_fd());
                    }
                }
                Event::Received { slot, result, more } => relay.received(slot, result, more),
                Event::Sent { slot, result, lease } => relay.sent(slot, &result, lease),
            }
        }
        while relay.ring.has_buffers()
            && let Some(number) = relay.starved.pop()
        {
            relay.receive(number, false);
        }
    }
}

fn side(stream: TcpStream) -> Side {
    Side { stream, queue: VecDeque::new(), receiving: false, sending: false, ended: false }
}

impl Relay {
    fn open(&mut self, client: TcpStream, origin: SocketAddr) {
        // Where the origin refuses, the client sees its connection close.
        let Ok(upstream) = net::connect(origin) else { return };
        let slot = self.pairs.add(Pair { sides: [side(client), side(upstream)], closing: false });
        self.receive(slot * 2, false);
        self.receive(slot * 2 + 1, true);
    }

    /// Asks for bytes of a side, unless the other side has enough to send.
    fn receive(&mut self, number: u32, poll_first: bool) {
        let Some(pair) = self.pairs.at(number / 2) else { return };
        let (this, other) = ((number & 1) as usize, (number & 1 ^ 1) as usize);
        if pair.closing || pair.sides[other].queue.len() >= QUEUE_MAX {
            return;
        }
        let side = &mut pair.sides[this];
        if side.receiving || side.ended {
            return;
        }
        side.receiving = true;
        self.ring.recv(side.stream.as_fd(), number, self.recv == Recv::Multishot, poll_first);
    }

    fn send(&mut self, number: u32) {
        let Some(pair) = self.pairs.at(number / 2) else { return };
        let (this, other) = ((number & 1) as usize, (number & 1 ^ 1) as usize);
        if pair.closing || pair.sides[this].sending {
            return;
        }
        let over = pair.sides[other].ended;
        let side = &mut pair.sides[this];
        if let Some(lease) = side.queue.pop_front() {
            side.sending = true;
            self.ring.send_lease(side.stream.as_fd(), number, lease);
        } else if over {
            // The peer may have gone; then its own direction says so.
            let _ = side.stream.shutdown(Shutdown::Write);
            if side.ended {
                self.end(number);
            }
        }
    }

    fn received(&mut self, number: u32, result: io::Result<Option<Lease>>, more: bool) {
        let Some(pair) = self.pairs.at(number / 2) else { return };
        let this = (number & 1) as usize;
        pair.sides[this].receiving = more;
        match result {
            Ok(Some(lease)) if pair.closing => {
                self.ring.give_back(lease);
                self.end(number);
            }
            Ok(Some(lease)) => {
                pair.sides[1 - this].queue.push_back(lease);
                // Sent before the receive is asked for: what it answers cannot be here before.
                self.send(number ^ 1);
                self.receive(number, true);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && !pair.closing => {
                self.starved.push(number);
            }
            Ok(None) if !pair.closing => {
                pair.sides[this].ended = true;
                self.send(number ^ 1);
            }
            _ => self.end(number),
        }
    }

    fn sent(&mut self, number: u32, result: &io::Result<u32>, lease: Option<Lease>) {
        lease.into_iter().for_each(|lease| self.ring.give_back(lease));
        let Some(pair) = self.pairs.at(number / 2) else { return };
        pair.sides[(number & 1) as usize].sending = false;
        if result.is_err() || pair.closing {
            self.end(number);
        } else {
            self.send(number);
            self.receive(number ^ 1, true);
        }
    }

    /// Ends both sides, which ends what is in flight; the last event of the pair frees its slot.
    fn end(&mut self, number: u32) {
        let Some(pair) = self.pairs.at(number / 2) else { return };
        let mut in_flight = false;
        for side in &mut pair.sides {
            side.queue.drain(..).for_each(|lease| self.ring.give_back(lease));
            if !pair.closing {
                let _ = side.stream.shutdown(Shutdown::Both);
            }
            in_flight |= side.receiving || side.sending;
        }
        pair.closing = true;
        if !in_flight {
            self.pairs.remove(number / 2);
        }
    }
}
