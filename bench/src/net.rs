//! What the servers and the generator share: sockets, pinning, limits, and the line that says where a server listens.

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// As many as `somaxconn` allows: a server here never refuses because its queue is full.
const BACKLOG: i32 = 65_535;
/// Descriptors asked for where the hard limit may be raised.
const DESCRIPTORS: u64 = 1_048_576;

/// A listener whose connections do not wait for more bytes to send, alone on its address or one of several. Blocking.
pub(crate) fn listen(address: SocketAddr, shared: bool) -> anyhow::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    bind(&socket, &address).with_context(|| format!("listening on {address}"))?;
    let listener = TcpListener::from(socket);
    rustix::net::listen(&listener, BACKLOG)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    Ok(listener)
}

/// Says where a server listens, as the one line of its standard output.
#[expect(clippy::print_stdout, reason = "whoever started the server reads the port here")]
pub(crate) fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    println!("{}", serde_json::json!({ "listening": listener.local_addr()? }));
    std::io::stdout().flush().context("standard output")
}

/// A connection to an origin. On loopback a blocking connect does not wait: the handshake is done within the call.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    sockopt::set_tcp_nodelay(&stream, true)?;
    Ok(stream)
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    let known = cpu < usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    anyhow::ensure!(
        known && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }),
        "there is no CPU {cpu} to run on"
    );
    Ok(())
}

/// Raises the limit of open descriptors as far as the system lets this process.
pub(crate) fn raise_descriptors() {
    let now = getrlimit(Resource::Nofile);
    let wanted = Some(now.maximum.unwrap_or(DESCRIPTORS).max(DESCRIPTORS));
    if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_err() {
        // Only up to the hard limit, then; a run that needs more says which connect failed.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
}
