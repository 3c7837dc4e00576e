//! A listening socket that nobody new gets into, so that it can be emptied and closed without a reset.
//!
//! close(2) resets what waits to be accepted. So before that, SYNs alone are dropped, by a classic BPF program on the socket
//! (socket(7), SO_ATTACH_FILTER): a handshake that has begun is finished, and what it makes is queued. Who is dropped knocks
//! again after a second, and by then nobody listens there, or somebody else. In the unix domain, shutdown(2) of reading does
//! it: connect(2) is refused, and accept(2) goes on until the queue is empty. All who have the socket have it deaf.

use super::enter::last_errno;
use super::socket;
use crate::io::{Errno, Fd};

// <linux/filter.h>. What a filter of a TCP socket is shown begins with the TCP header.
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Of the flags in a TCP header, and the one of a SYN (RFC 9293 3.1).
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;

/// Keeps new connections out of the queue of `fd`, which listens, until [`undo`].
///
/// # Errors
/// What setsockopt(2) or shutdown(2) say; ENOMEM where the filter takes more than net.core.optmem_max.
pub(super) fn make(fd: Fd) -> Result<(), Errno> {
    if socket::local_address(fd)?.is_unix() {
        // SAFETY: no memory is passed.
        let done = unsafe { libc::shutdown(fd.0, libc::SHUT_RD) };
        return if done < 0 { Err(last_errno()) } else { Ok(()) };
    }
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_BYTE, 0, 0, FLAGS),
        step(JUMP_IF_SET, 0, 1, SYN),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    // SAFETY: `program` and the steps that it points to outlive the call, which copies them; the length is its size.
    let done = unsafe {
        libc::setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), len)
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Lets new connections into the queue of `fd` again, whether it was deaf or not. False where they do not get there: what was shut down
/// stays so.
pub fn undo(fd: Fd) -> bool {
    if socket::local_address(fd).is_ok_and(|address| address.is_unix()) {
        let mut poll = libc::pollfd { fd: fd.0, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one pollfd, valid during the call.
        return unsafe { libc::poll(&raw mut poll, 1, 0) } == 0;
    }
    let nothing: libc::c_int = 0;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the option has no value; the int that is passed outlives the call.
    let done = unsafe {
        libc::setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, (&raw const nothing).cast(), len)
    };
    done == 0 || last_errno() == Errno(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SocketAddress, UnixName};
    use crate::sys::unix;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsRawFd as _, FromRawFd as _};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;
    use std::time::Duration;

    /// What is queued is served, its later bytes too; who comes later finds nobody; and nobody is reset.
    #[test]
    fn a_deaf_socket_keeps_its_queue_and_gets_nobody_new() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let address = SocketAddress::from(at.parse::<SocketAddr>().unwrap());
            let fd = match socket::listener(&address, 16) {
                Ok(fd) => fd,
                Err(error) if address.is_v6() => {
                    assert!(std::env::var_os("RINGWAY_NO_SKIP").is_none(), "{error}");
                    return println!("skipped: no IPv6 on this machine ({error})");
                }
                Err(error) => panic!("{error}"),
            };
            // SAFETY: the descriptor was just opened and nobody else has it.
            let listener = unsafe { TcpListener::from_raw_fd(fd.0) };
            let at = listener.local_addr().unwrap();
            let mut queued: Vec<_> = (0..8).map(|_| TcpStream::connect(at).unwrap()).collect();
            make(fd).unwrap();
            let late = TcpStream::connect_timeout(&at, Duration::from_millis(50)).unwrap_err();
            assert_eq!(late.kind(), std::io::ErrorKind::TimedOut, "{at}");
            assert!(undo(fd) && undo(fd), "{at}");
            queued.push(TcpStream::connect(at).unwrap());
            make(fd).unwrap();
            for client in &mut queued {
                client.write_all(b"request").unwrap();
                let (mut accepted, _) = listener.accept().unwrap();
                accepted.write_all(b"answer").unwrap();
            }
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{at}");
            drop(listener);
            for client in &mut queued {
                let mut got = [0; 6];
                client.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"answer");
            }
        }
    }

    #[test]
    fn in_the_unix_domain_too() {
        let name = format!("@ringway-deaf-{}", std::process::id());
        let name = Arc::new(UnixName::new(name.as_bytes()).unwrap());
        let (fd, _file) = unix::listener(&name, 0o600, 16).unwrap();
        // SAFETY: the descriptor was just opened and nobody else has it.
        let listener = unsafe { UnixListener::from_raw_fd(fd.0) };
        let connect = || {
            use std::os::linux::net::SocketAddrExt as _;
            let at = std::os::unix::net::SocketAddr::from_abstract_name(name.bytes()).unwrap();
            UnixStream::connect_addr(&at)
        };
        let mut queued = connect().unwrap();
        assert!(undo(Fd(listener.as_raw_fd())), "it is not deaf");
        make(Fd(listener.as_raw_fd())).unwrap();
        assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(!undo(Fd(listener.as_raw_fd())), "it stays so");
        queued.write_all(b"request").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::EINVAL), "the queue is empty");
        let mut asked = [0; 7];
        accepted.read_exact(&mut asked).unwrap();
        accepted.write_all(b"answer").unwrap();
        drop((accepted, listener));
        let mut got = String::new();
        queued.read_to_string(&mut got).unwrap();
        assert_eq!(got, "answer");
    }
}
