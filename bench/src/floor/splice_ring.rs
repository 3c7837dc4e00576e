//! The bulk relay with the ring's own splice: IORING_OP_SPLICE always runs on a worker thread of the kernel's, which waits
//! there for bytes and for room. Beside F3 it shows what calling splice(2) after a poll saves.

use super::splice::{PIPE_BYTES, pipe};
use crate::net;
use crate::slots::Slots;
use crate::sys::{Event, Options, Uring};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};

/// Nothing is received into buffers here.
const OPTIONS: Options = Options { buffers: 1, buffer_bytes: 4096 };

/// One direction, with one splice in flight until it is done.
#[derive(Debug)]
struct Half {
    /// Its read end and its write end.
    pipe: (OwnedFd, OwnedFd),
    in_pipe: u32,
    done: bool,
}

#[derive(Debug)]
struct Pair {
    streams: [TcpStream; 2],
    /// By the side that is read; numbered slot * 2 and slot * 2 + 1.
    halves: [Half; 2],
}

pub(super) fn serve(listener: &TcpListener, origin: SocketAddr) -> anyhow::Result<()> {
    let mut ring = Uring::new(OPTIONS)?;
    let mut pairs: Slots<Pair> = Slots::new();
    ring.accept(listener.as_fd());
    loop {
        ring.wait()?;
        while let Some(event) = ring.next() {
            match event {
                Event::Accepted { result, more } => {
                    if let Ok(fd) = result
                        && let Ok(pair) = open(TcpStream::from(fd), origin)
                    {
                        let slot = pairs.add(pair);
                        if let Some(pair) = pairs.at(slot) {
                            (0..2).for_each(|side| pair.splice(&mut ring, slot, side));
                        }
                    }
                    if !more {
                        ring.accept(listener.as_fd());
                    }
                }
                Event::Spliced { slot: number, result } => {
                    let (slot, side) = (number / 2, (number % 2) as usize);
                    let Some(pair) = pairs.at(slot) else { continue };
                    pair.on_spliced(&mut ring, slot, side, result);
                    if pair.halves.iter().all(|half| half.done) {
                        pairs.remove(slot);
                    }
                }
                Event::Received { .. } | Event::Sent { .. } => {}
            }
        }
    }
}

fn open(client: TcpStream, origin: SocketAddr) -> anyhow::Result<Pair> {
    let half = || anyhow::Ok(Half { pipe: pipe()?, in_pipe: 0, done: false });
    Ok(Pair { streams: [client, net::connect(origin)?], halves: [half()?, half()?] })
}

impl Pair {
    /// Empties the pipe of a direction, or fills it.
    fn splice(&self, ring: &mut Uring, slot: u32, side: usize) {
        let half = &self.halves[side];
        let number = slot * 2 + u32::from(side == 1);
        if half.in_pipe > 0 {
            ring.splice(half.pipe.0.as_fd(), self.streams[1 - side].as_fd(), half.in_pipe, number);
        } else {
            let most = u32::try_from(PIPE_BYTES).unwrap_or(u32::MAX);
            ring.splice(self.streams[side].as_fd(), half.pipe.1.as_fd(), most, number);
        }
    }

    fn on_spliced(&mut self, ring: &mut Uring, slot: u32, side: usize, result: std::io::Result<u32>) {
        let half = &mut self.halves[side];
        match (half.in_pipe, result) {
            (0, Ok(len @ 1..)) => half.in_pipe = len,
            (held, Ok(len @ 1..)) => half.in_pipe = held - len,
            (0, Ok(0)) => {
                half.done = true;
                // The peer may have gone; then its own direction says so.
                let _ = self.streams[1 - side].shutdown(Shutdown::Write);
                return;
            }
            _ => {
                half.done = true;
                // Wakes the other direction, whose splice ends then.
                self.streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                return;
            }
        }
        self.splice(ring, slot, side);
    }
}
