//! Sockets that control uses itself and that need what only `sys` can ask of the kernel.

use super::SocketFile;
use crate::io::{Address, Errno, Fd, SocketAddress, SocketOption, UnixName};
use crate::spec::SourceAddresses;
use crate::sys::{socket, unix};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Connections that wait to be accepted from a private listener.
const BACKLOG: i32 = 128;

/// A socket as a link to `to` would have it, not yet connected: not blocking, and from one of its cluster's `sources`, where
/// there are some. `turn` numbers the sockets, so that each address has its own in turn.
///
/// # Errors
/// What socket(2), setsockopt(2) or bind(2) say; EAFNOSUPPORT for a unix socket.
pub fn link_socket(sources: &SourceAddresses, to: &SocketAddress, turn: u64) -> Result<OwnedFd, Errno> {
    if to.is_unix() {
        return Err(Errno(libc::EAFNOSUPPORT));
    }
    let fd = socket::socket(to.family())?;
    // From here on it closes itself.
    let owned = socket::own(fd);
    prepare(fd, sources, to.is_v6(), turn).map(|()| owned)
}

fn prepare(fd: Fd, sources: &SourceAddresses, v6: bool, turn: u64) -> Result<(), Errno> {
    socket::set_option(fd, SocketOption::NonBlocking)?;
    socket::set_option(fd, SocketOption::NoDelay)?;
    if let Some(ports) = sources.ports {
        socket::set_option(fd, SocketOption::LocalPorts(ports))?;
    }
    let source = turn.checked_rem(sources.count(v6)).and_then(|at| sources.at(at, v6));
    let Some(source) = source else { return Ok(()) };
    socket::set_option(fd, SocketOption::BindAddressNoPort)?;
    socket::bind(fd, &Address::Ip(SocketAddress::new(source, 0)))
}

/// A listening unix socket to which those may connect who may write to its file, which has the permissions `mode`, and that file. A file that nobody
/// listens on any more is replaced.
///
/// # Errors
/// As of a listener: EADDRINUSE if somebody listens there, ENOTSOCK if a file is there that is no socket.
pub fn private_listener(name: &Arc<UnixName>, mode: u32) -> Result<(OwnedFd, Option<SocketFile>), Errno> {
    let (fd, file) = unix::listener(name, mode, BACKLOG)?;
    Ok((socket::own(fd), file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn a_socket_comes_from_each_source_in_turn() {
        let ip = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let sources = SourceAddresses { ranges: vec![(ip(3), ip(4))], ..SourceAddresses::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        for (turn, source) in [(0, ip(3)), (1, ip(4)), (2, ip(3))] {
            let fd = link_socket(&sources, &to.into(), turn).unwrap();
            assert_eq!(TcpStream::from(fd).local_addr().unwrap().ip(), source, "turn {turn}");
        }
        assert_eq!(link_socket(&sources, &SocketAddress::UNIX, 0).unwrap_err(), Errno(libc::EAFNOSUPPORT));
    }
}
