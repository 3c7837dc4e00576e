//! `ringway-bench origin`: a server that costs as little as one can, so that a measurement is of what stands in front.
//!
//! * `answer`: the responses, each made once and then only sent.
//! * `head`: finds where a request ends and which answer it wants.
//! * `http`: one connection's requests, however they are cut.
//! * `serve`: the ring, its connections, and the raw kinds: echo, sink, source.

mod answer;
mod head;
mod http;
mod serve;

pub(crate) use answer::{Answers, SMALL, Wish};
pub(crate) use serve::{Role, serve};

use crate::net;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// Bytes instead of HTTP.
    #[arg(long)]
    raw: Option<Raw>,
    /// Each connection begins with a WebSocket handshake; the bytes are in the tunnel behind it.
    #[arg(long, requires = "raw")]
    upgrade: bool,
    /// Lets several processes listen on one address; the kernel spreads connections over them.
    #[arg(long)]
    reuse_port: bool,
}

/// What to do with bytes that are no HTTP.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Raw {
    /// Send back what comes.
    Echo,
    /// Read and drop.
    Sink,
    /// Send without end.
    Source,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(cpu) = args.cpu {
        net::pin(cpu)?;
    }
    net::raise_descriptors();
    let listener = net::listen(args.listen, args.reuse_port)?;
    net::announce(&listener)?;
    let role = match args.raw {
        None => Role::Http,
        Some(Raw::Echo) => Role::Echo,
        Some(Raw::Sink) => Role::Sink,
        Some(Raw::Source) => Role::Source,
    };
    serve(&listener, role, args.upgrade)
}
