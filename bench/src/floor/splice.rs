//! F3, the bulk relay: splice(2) from a socket into a pipe and on into the other socket, no byte copied to user space.

use super::poll::{EventFlags, LISTENER, Poll, accept_all};
use crate::net;
use crate::slots::Slots;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

const PIPE_BYTES: usize = 1 << 20;

/// One direction.
#[derive(Debug)]
struct Half {
    pipe: (OwnedFd, OwnedFd),
    in_pipe: usize,
    ended: bool,
    done: bool,
}

#[derive(Debug)]
struct Pair {
    streams: [TcpStream; 2],
    /// By the side that is read.
    halves: [Half; 2],
}

fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    // Fails where the user's pipes together are above the system's limit: the pipe is then a small one.
    let _ = fcntl_setpipe_size(&pipe.0, PIPE_BYTES);
    Ok(pipe)
}

fn half() -> rustix::io::Result<Half> {
    Ok(Half { pipe: pipe()?, in_pipe: 0, ended: false, done: false })
}

pub(super) fn serve(listener: TcpListener, origin: SocketAddr) -> anyhow::Result<()> {
    let poll = Poll::new(&listener)?;
    let mut pairs: Slots<Pair> = Slots::new();
    poll.run(|event, _| {
        if event == LISTENER {
            accept_all(&listener, |client| {
                let Ok(pair) = open(client, origin) else { return };
                let slot = pairs.add(pair);
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                let watched = pairs
                    .at(slot)
                    .is_some_and(|p| p.streams.iter().all(|s| poll.add(s, u64::from(slot), flags).is_ok()));
                if !watched {
                    pairs.remove(slot);
                }
            });
            return;
        }
        let slot = u32::try_from(event).unwrap_or(u32::MAX);
        let Some(pair) = pairs.at(slot) else { return };
        let Pair { streams: [client, upstream], halves: [up, down] } = pair;
        let failed = pump(client, upstream, up).is_err() || pump(upstream, client, down).is_err();
        if failed || (up.done && down.done) {
            pairs.remove(slot);
        }
    })
}

fn open(client: TcpStream, origin: SocketAddr) -> std::io::Result<Pair> {
    let upstream = net::connect(origin)?;
    upstream.set_nonblocking(true)?;
    Ok(Pair { streams: [client, upstream], halves: [half()?, half()?] })
}

/// Moves bytes until neither end of the pipe can: readiness is edge-triggered.
fn pump(from: &TcpStream, to: &TcpStream, half: &mut Half) -> Result<(), Errno> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        let mut moved = false;
        if !half.ended && half.in_pipe < PIPE_BYTES {
            match splice(from, None, &half.pipe.1, None, PIPE_BYTES - half.in_pipe, flags) {
                Ok(0) => half.ended = true,
                Ok(len) => {
                    half.in_pipe += len;
                    moved = true;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        if half.in_pipe > 0 {
            match splice(&half.pipe.0, None, to, None, half.in_pipe, flags) {
                Ok(len) => {
                    half.in_pipe -= len;
                    moved |= len > 0;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        if half.ended && half.in_pipe == 0 && !half.done {
            half.done = true;
            // The peer may have gone; then its own direction says so.
            let _ = to.shutdown(Shutdown::Write);
        }
        if !moved {
            return Ok(());
        }
    }
}
