//! `ringway-bench floor`: the least that a proxy of a kind could do. Each is a small program that parses nothing.
//!
//! * `epoll`, `uring`, `splice`: relays of one client connection to one origin connection.
//! * `accept`: one answer per connection, with and without a connection to the origin.
//! * `idle`: connections held. Over a ring that is the origin's server with one answer for everything.

mod accept;
mod epoll;
mod idle;
mod poll;
mod splice;
mod uring;

use crate::net;
use crate::origin::{Role, serve};
use anyhow::Context as _;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    kind: Kind,
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the relays and accept-connect connect to.
    #[arg(long)]
    origin: Option<SocketAddr>,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// How the ring relay receives.
    #[arg(long, default_value = "multishot")]
    recv: Recv,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// F1: readiness, recv and send through one buffer.
    Epoll,
    /// F2: a ring, provided buffers, one call of the kernel per turn.
    Uring,
    /// F3: splice(2) through a pipe in each direction.
    Splice,
    /// F5: accept, recv, send, close.
    Accept,
    /// F6: the same, with a connection to the origin for each accepted one.
    AcceptConnect,
    /// F7: connections held by readiness.
    IdleEpoll,
    /// F7: connections held by armed receives.
    IdleUring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Recv {
    /// Once, and only when there is something: asked for again with the send.
    PollFirst,
    /// Armed for good.
    Multishot,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let origin = || args.origin.context("this floor needs --origin");
    if let Some(cpu) = args.cpu {
        net::pin(cpu)?;
    }
    net::raise_descriptors();
    let listener = net::listen(args.listen, false)?;
    net::announce(&listener)?;
    match args.kind {
        Kind::Epoll => epoll::serve(listener, origin()?),
        Kind::Uring => uring::serve(&listener, origin()?, args.recv),
        Kind::Splice => splice::serve(listener, origin()?),
        Kind::Accept => accept::serve(listener, None),
        Kind::AcceptConnect => accept::serve(listener, Some(origin()?)),
        Kind::IdleEpoll => idle::serve(listener),
        Kind::IdleUring => serve(&listener, Role::Canned, false),
    }
}
