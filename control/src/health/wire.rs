//! A check's connection. TLS will be a third kind of it, which `check::run` makes of one of these behind the PROXY header.

use dataplane::io::Address;
use dataplane::plane;
use dataplane::spec::Cluster;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// Connected to an endpoint.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Connects as a link of `cluster` to `to` would; `turn` chooses the source address.
    pub(super) async fn connect(cluster: &Cluster, to: &Address, turn: u64) -> io::Result<Self> {
        match to {
            Address::Ip(to) => {
                let socket = plane::link_socket(&cluster.source_addresses, to, turn);
                let socket = socket.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
                let socket = TcpSocket::from_std_stream(socket.into());
                socket.connect(SocketAddr::from(*to)).await.map(Self::Tcp)
            }
            Address::Unix(name) => {
                let front: &[u8] = if name.is_abstract() { b"\0" } else { b"" };
                let path = OsString::from_vec([front, name.bytes()].concat());
                UnixStream::connect(PathBuf::from(path)).await.map(Self::Unix)
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    /// Appends what is there to `room`, into the capacity that it has; 0 is the end.
    pub(super) async fn recv(&mut self, room: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(room).await,
            Self::Unix(stream) => stream.read_buf(room).await,
        }
    }

    /// Whether it waits for a request, with no byte and no end come meanwhile.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let came = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
        };
        came.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Closes so that nothing of it stays in TIME_WAIT here: for a connection that carried no byte.
    pub(super) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // At worst it waits there for a minute.
            let _ = stream.set_zero_linger();
        }
    }
}
