//! Listening sockets that the process was started with, or starts another with: what they must be, and what is done to them.

use super::enter::last_errno;
use super::socket::{self, RawAddress};
use crate::io::{Address, Errno, Fd, SocketOption, UnixName};
use std::fmt;
use std::mem::offset_of;
use std::os::fd::OwnedFd;

/// An inherited socket that can be accepted on.
#[derive(Debug)]
pub struct Inherited {
    pub fd: Fd,
    /// Where it is bound; none of an unnamed or oddly named unix socket.
    pub address: Option<Address>,
    /// It has SO_REUSEPORT: others may be bound beside it.
    pub multiplies: bool,
}

/// Why a descriptor is no socket to accept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InheritedError {
    NotOpen,
    /// The process serves already.
    TooLate,
    NotASocket,
    NotAStream,
    NotListening,
    /// Of this address family (AF_*).
    Family(i32),
    Failed(Errno),
}

impl fmt::Display for InheritedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str(
                "is not open: start ringway with a listening socket there, or by a systemd socket unit",
            ),
            Self::TooLate => f.write_str("can only be taken when ringway starts: restart it"),
            Self::NotASocket => f.write_str("is no socket"),
            Self::NotAStream => f.write_str("is no stream socket (systemd: ListenStream=)"),
            Self::NotListening => f.write_str("does not listen (systemd: Accept=no)"),
            Self::Family(family) => {
                write!(f, "is neither of IPv4, of IPv6 nor of the unix domain (family {family})")
            }
            Self::Failed(errno) => write!(f, "cannot be looked at: {errno}"),
        }
    }
}
impl std::error::Error for InheritedError {}

fn option(fd: Fd, option: libc::c_int) -> Result<libc::c_int, InheritedError> {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: `value` and `len` are valid for writing during the call, and `len` says how large `value` is.
    let got =
        unsafe { libc::getsockopt(fd.0, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len) };
    if got == 0 {
        return Ok(value);
    }
    Err(match last_errno() {
        Errno(libc::EBADF) => InheritedError::NotOpen,
        Errno(libc::ENOTSOCK) => InheritedError::NotASocket,
        errno => InheritedError::Failed(errno),
    })
}

/// Checks descriptor `fd` of this process, and prepares it: closed on exec, in blocking mode (else a ring could not wait
/// on it), and with TCP_NODELAY for what it accepts.
pub fn take(fd: Fd) -> Result<Inherited, InheritedError> {
    if option(fd, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Err(InheritedError::NotAStream);
    }
    let family = option(fd, libc::SO_DOMAIN)?;
    if ![libc::AF_INET, libc::AF_INET6, libc::AF_UNIX].contains(&family) {
        return Err(InheritedError::Family(family));
    }
    if option(fd, libc::SO_ACCEPTCONN)? == 0 {
        return Err(InheritedError::NotListening);
    }
    let failed = InheritedError::Failed;
    // SAFETY: no memory is passed.
    let marked = unsafe { libc::fcntl(fd.0, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: no memory is passed.
    let flags = unsafe { libc::fcntl(fd.0, libc::F_GETFL) };
    // SAFETY: no memory is passed.
    let waits = || unsafe { libc::fcntl(fd.0, libc::F_SETFL, flags & !libc::O_NONBLOCK) };
    if marked < 0 || flags < 0 || (flags & libc::O_NONBLOCK != 0 && waits() < 0) {
        return Err(failed(last_errno()));
    }
    if family == libc::AF_UNIX {
        return Ok(Inherited { fd, address: unix_name(fd).map(Address::from), multiplies: false });
    }
    socket::set_option(fd, SocketOption::NoDelay).map_err(failed)?;
    let address = socket::local_address(fd).map_err(failed)?;
    Ok(Inherited { fd, address: Some(address.into()), multiplies: option(fd, libc::SO_REUSEPORT)? != 0 })
}

/// Another descriptor of the same socket, closed on exec.
///
/// # Errors
/// EMFILE where descriptors have run out (fcntl(2), F_DUPFD_CLOEXEC).
pub fn duplicate(fd: Fd) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is passed.
    match unsafe { libc::fcntl(fd.0, libc::F_DUPFD_CLOEXEC, 3) } {
        made if made < 0 => Err(last_errno()),
        made => Ok(socket::own(Fd(made))),
    }
}

/// The name that a unix socket is bound to.
fn unix_name(fd: Fd) -> Option<UnixName> {
    let mut raw = RawAddress::empty_unix();
    let len = raw.fill_by_name_of(fd).ok()?;
    let RawAddress::Unix(raw, _) = raw else { return None };
    let len = usize::try_from(len).ok()?.checked_sub(offset_of!(libc::sockaddr_un, sun_path))?;
    let name: Vec<u8> = raw.sun_path.get(..len)?.iter().map(|c| c.cast_unsigned()).collect();
    match name.split_first() {
        Some((0, name)) => UnixName::new(&[b"@", name].concat()).ok(),
        _ => UnixName::new(name.split(|byte| *byte == 0).next()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Family, SocketAddress};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_listening_socket_is_named() {
        let why = |fd: i32| take(Fd(fd)).map(|_| ()).unwrap_err();
        assert_eq!(why(987_654), InheritedError::NotOpen);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(why(file.as_raw_fd()), InheritedError::NotASocket);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(why(udp.as_raw_fd()), InheritedError::NotAStream);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(why(stream.as_raw_fd()), InheritedError::NotListening);
        let (pair, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(why(pair.as_raw_fd()), InheritedError::NotListening);
    }

    #[test]
    fn a_listening_socket_is_taken_as_it_is_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at: SocketAddress = listener.local_addr().unwrap().into();
        let taken = take(Fd(listener.as_raw_fd())).unwrap();
        assert_eq!((taken.address, taken.multiplies), (Some(at.into()), false));
        // SAFETY: no memory is passed.
        let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0, "a ring could not wait on it");

        let shared = socket::listener(&SocketAddress::new([127, 0, 0, 1].into(), 0), 8).unwrap();
        assert!(take(shared).unwrap().multiplies);
        socket::close(shared);

        let path = std::env::temp_dir().join(format!("ringway-inherited-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let taken = take(Fd(listener.into_raw_fd())).unwrap();
        assert_eq!(taken.address.map(|a| a.to_string()), Some(format!("unix:{}", path.display())));
        socket::close(taken.fd);
        std::fs::remove_file(path).unwrap();
        let unnamed = socket::socket(Family::Unix).unwrap();
        assert_eq!(unix_name(unnamed), None);
        socket::close(unnamed);
    }
}
