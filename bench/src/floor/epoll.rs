//! F1, the readiness relay: recv from one side, send to the other, through one buffer for all.

use super::poll::{EventFlags, LISTENER, Poll, accept_all};
use crate::net;
use crate::slots::Slots;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

const BUFFER_BYTES: usize = 16 * 1024;

/// Two connections, and for each what it has yet to be sent.
#[derive(Debug)]
struct Pair {
    streams: [TcpStream; 2],
    pending: [Vec<u8>; 2],
    ended: [bool; 2],
}

fn number(slot: u32, side: usize) -> u64 {
    u64::from(slot) << 1 | side as u64
}

pub(super) fn serve(listener: TcpListener, origin: SocketAddr) -> anyhow::Result<()> {
    let poll = Poll::new(&listener)?;
    let mut pairs: Slots<Pair> = Slots::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    poll.run(|event, flags| {
        if event == LISTENER {
            accept_all(&listener, |client| open(&poll, &mut pairs, client, origin));
            return;
        }
        let (slot, side) = (u32::try_from(event >> 1).unwrap_or(u32::MAX), usize::from(event & 1 == 1));
        let Some(pair) = pairs.at(slot) else { return };
        let goes_on = (!flags.contains(EventFlags::OUT) || flush(&poll, pair, slot, side))
            && (!flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
                || relay(&poll, pair, slot, side, &mut buffer));
        if !goes_on {
            pairs.remove(slot);
        }
    })
}

fn open(poll: &Poll, pairs: &mut Slots<Pair>, client: TcpStream, origin: SocketAddr) {
    // Where the origin refuses, the client sees its connection close.
    let Ok(upstream) = net::connect(origin) else { return };
    let slot =
        pairs.add(Pair { streams: [client, upstream], pending: [Vec::new(), Vec::new()], ended: [false; 2] });
    let Some(pair) = pairs.at(slot) else { return };
    let watched = pair.streams[1].set_nonblocking(true).is_ok()
        && (0..2).all(|side| poll.add(&pair.streams[side], number(slot, side), EventFlags::IN).is_ok());
    if !watched {
        pairs.remove(slot);
    }
}

/// One recv and one send. False ends the pair.
fn relay(poll: &Poll, pair: &mut Pair, slot: u32, side: usize, buffer: &mut [u8]) -> bool {
    let other = 1 - side;
    if pair.ended[side] {
        return false; // HUP: both directions are over.
    }
    if !pair.pending[other].is_empty() {
        return true;
    }
    let len = match pair.streams[side].read(buffer) {
        Ok(len) => len,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    if len == 0 {
        pair.ended[side] = true;
        return !pair.ended[other]
            && pair.streams[other].shutdown(Shutdown::Write).is_ok()
            && watch(poll, pair, slot, side);
    }
    let sent = match pair.streams[other].write(&buffer[..len]) {
        Ok(sent) => sent,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(_) => return false,
    };
    if sent == len {
        return true;
    }
    pair.pending[other].extend_from_slice(&buffer[sent..len]);
    watch(poll, pair, slot, side) && watch(poll, pair, slot, other)
}

/// Sends what did not fit earlier.
fn flush(poll: &Poll, pair: &mut Pair, slot: u32, side: usize) -> bool {
    match pair.streams[side].write(&pair.pending[side]) {
        Ok(sent) => drop(pair.pending[side].drain(..sent)),
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    }
    !pair.pending[side].is_empty() || (watch(poll, pair, slot, side) && watch(poll, pair, slot, 1 - side))
}

/// Watches for what this side can still do. Only the slow path changes it.
fn watch(poll: &Poll, pair: &Pair, slot: u32, side: usize) -> bool {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, !pair.ended[side] && pair.pending[1 - side].is_empty());
    flags.set(EventFlags::OUT, !pair.pending[side].is_empty());
    poll.change(&pair.streams[side], number(slot, side), flags).is_ok()
}
