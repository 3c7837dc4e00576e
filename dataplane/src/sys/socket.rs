//! Sockets and eventfds by plain system calls: what a shard's ring and the main thread (which binds listeners) both use.

use super::enter::last_errno;
use crate::io::{Address, Errno, Family, Fd, PortRange, Shutdown, SocketAddress, SocketOption, UnixName};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr;
use std::time::Duration;

fn done(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn length<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// A socket address as the kernel reads it: sockaddr_in, sockaddr_in6, or sockaddr_un with the bytes of it that count.
#[derive(Clone, Copy)]
pub(super) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
    Unix(libc::sockaddr_un, libc::socklen_t),
}

impl RawAddress {
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(address) => ptr::from_ref(address).cast(),
            Self::V6(address) => ptr::from_ref(address).cast(),
            Self::Unix(address, _) => ptr::from_ref(address).cast(),
        }
    }
    pub(super) fn len(&self) -> libc::socklen_t {
        match self {
            Self::V4(_) => length::<libc::sockaddr_in>(),
            Self::V6(_) => length::<libc::sockaddr_in6>(),
            Self::Unix(_, len) => *len,
        }
    }
    /// One of the unix domain, without a name.
    pub(super) fn empty_unix() -> Self {
        let address = libc::sockaddr_un { sun_family: family_number(libc::AF_UNIX), sun_path: [0; 108] };
        Self::Unix(address, length::<libc::sockaddr_un>())
    }
    /// Takes the name that a unix socket is bound to, and says how many bytes of a sockaddr_un it fills.
    pub(super) fn fill_by_name_of(&mut self, fd: Fd) -> Result<libc::socklen_t, Errno> {
        let Self::Unix(address, _) = self else { return Err(Errno(libc::EAFNOSUPPORT)) };
        let mut len = length::<libc::sockaddr_un>();
        // SAFETY: `address` and `len` are valid for writing during the call, and `len` says how large `address` is.
        done(unsafe { libc::getsockname(fd.0, ptr::from_mut(address).cast(), &raw mut len) })?;
        Ok(len)
    }
}

fn family_number(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

impl From<&Address> for RawAddress {
    fn from(address: &Address) -> Self {
        match address {
            Address::Unix(name) => Self::unix(name),
            Address::Ip(address) => match address.ip() {
                Some(IpAddr::V4(ip)) => Self::V4(libc::sockaddr_in {
                    sin_family: family_number(libc::AF_INET),
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    sin_zero: [0; 8],
                }),
                Some(IpAddr::V6(ip)) => Self::V6(libc::sockaddr_in6 {
                    sin6_family: family_number(libc::AF_INET6),
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: 0,
                }),
                None => Self::empty_unix(),
            },
        }
    }
}

impl RawAddress {
    fn unix(name: &UnixName) -> Self {
        let mut raw = Self::empty_unix();
        if let Self::Unix(address, len) = &mut raw {
            // An abstract name has a NUL in front and counts its bytes; a path has one behind it, which counts too.
            let room = &mut address.sun_path[usize::from(name.is_abstract())..];
            for (to, from) in room.iter_mut().zip(name.bytes()) {
                *to = from.cast_signed();
            }
            let used = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.bytes().len();
            *len = libc::socklen_t::try_from(used).unwrap_or(*len);
        }
        raw
    }
}

type NameCall = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// getsockname or getpeername.
fn name(fd: Fd, call: NameCall) -> Result<SocketAddress, Errno> {
    // SAFETY: a sockaddr_storage is bytes and integers; all zeroes is one of family AF_UNSPEC.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = length::<libc::sockaddr_storage>();
    // SAFETY: `storage` and `len` are valid for writing during the call, and `len` says how large `storage` is.
    done(unsafe { call(fd.0, (&raw mut storage).cast(), &raw mut len) })?;
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel says that it wrote a sockaddr_in, which fits and is aligned in a sockaddr_storage.
            let raw = unsafe { (&raw const storage).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddress::new(IpAddr::V4(ip), u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with a sockaddr_in6.
            let raw = unsafe { (&raw const storage).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Ok(SocketAddress::new(IpAddr::V6(ip), u16::from_be(raw.sin6_port)))
        }
        libc::AF_UNIX => Ok(SocketAddress::UNIX),
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}

/// A stream socket, of TCP or the unix domain: blocking mode, close-on-exec.
pub fn socket(family: Family) -> Result<Fd, Errno> {
    let (domain, protocol) = match family {
        Family::V4 => (libc::AF_INET, libc::IPPROTO_TCP),
        Family::V6 => (libc::AF_INET6, libc::IPPROTO_TCP),
        Family::Unix => (libc::AF_UNIX, 0),
    };
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
    done(fd).map(|()| Fd(fd))
}

fn set<T>(fd: Fd, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let value = ptr::from_ref(value).cast();
    // SAFETY: `value` points to a `T` that outlives the call, and the length passed is its size.
    done(unsafe { libc::setsockopt(fd.0, level, option, value, length::<T>()) })
}

/// Sets one option.
pub fn set_option(fd: Fd, option: SocketOption) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    match option {
        SocketOption::ReusePort => {
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &on)
        }
        SocketOption::V6Only => set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on),
        SocketOption::NoDelay => set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &on),
        SocketOption::BindAddressNoPort => set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on),
        SocketOption::DeadPeer(Duration::MAX) => Ok(()),
        SocketOption::DeadPeer(within) => find_dead_peer(fd, Probes::within(within)),
        SocketOption::LocalPorts(ports) => set_ports(fd, ports),
        SocketOption::NonBlocking => {
            // SAFETY: no memory is passed. A socket of ours has no other file status flag to keep.
            done(unsafe { libc::fcntl(fd.0, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK) })
        }
        SocketOption::Deaf => super::deaf::make(fd),
        SocketOption::ResetOnClose => {
            set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
        }
    }
}

/// How the kernel is told to find a peer that vanished, in seconds: a first probe after `idle` of silence, then one every
/// `interval`, and the end when `count` of them went unanswered (tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probes {
    idle: libc::c_int,
    interval: libc::c_int,
    count: libc::c_int,
}

impl Probes {
    /// Three probes, an eighth of the time apart, that give up at seven eighths of it. The last eighth is the kernel's: its
    /// timers are rounded up by up to an eighth of their length (kernel/time/timer.c).
    fn within(time: Duration) -> Self {
        let seconds = libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
        let (count, interval) = (3, (seconds / 8).max(1));
        Self { idle: (seconds.saturating_mul(7) / 8 - count * interval).max(1), interval, count }
    }
    /// From the last word of the peer to the end.
    fn total(self) -> libc::c_int {
        self.idle + self.count * self.interval
    }
}

/// Silence is probed (SO_KEEPALIVE); bytes that are not acknowledged, or a window that stays shut, end the connection after
/// the same time (TCP_USER_TIMEOUT). Once that is set it, and not the count of probes, says when to give up: it is their sum,
/// so that both agree (Cloudflare, "When TCP sockets refuse to die"; tcp_keepalive_timer in net/ipv4/tcp_timer.c).
fn find_dead_peer(fd: Fd, probes: Probes) -> Result<(), Errno> {
    let (on, milliseconds): (libc::c_int, libc::c_int) = (1, probes.total().saturating_mul(1000));
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &on)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &probes.idle)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &probes.interval)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &probes.count)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &milliseconds)
}

/// Leaves it to the system again whether a peer that vanished is found.
pub fn forget_dead_peers(fd: Fd) -> Result<(), Errno> {
    let off: libc::c_int = 0;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &off)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &off)
}

/// IP_LOCAL_PORT_RANGE (ip(7), from Linux 6.3): the first port in the low half of an u32, the last in the high one. libc has
/// no name for it.
fn set_ports(fd: Fd, ports: PortRange) -> Result<(), Errno> {
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let value = u32::from(ports.last()) << 16 | u32::from(ports.first());
    set(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &value)
}

/// Whether this kernel knows [`SocketOption::LocalPorts`].
pub fn has_local_ports() -> bool {
    let (Ok(fd), Some(all)) = (socket(Family::V4), PortRange::new(1, u16::MAX)) else { return false };
    let known = set_ports(fd, all).is_ok();
    close(fd);
    known
}

/// Whether a socket can be bound to this address: it is the machine's, or net.ipv4.ip_nonlocal_bind allows any. So it is said to be
/// where there is no socket to try it with (EMFILE, ENFILE, ENOBUFS, ENOMEM).
pub fn is_bindable(ip: IpAddr) -> bool {
    let fd = match socket(if ip.is_ipv6() { Family::V6 } else { Family::V4 }) {
        Ok(fd) => fd,
        Err(Errno(no)) => return matches!(no, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM),
    };
    let found = set_option(fd, SocketOption::BindAddressNoPort)
        .and_then(|()| bind(fd, &Address::Ip(SocketAddress::new(ip, 0))))
        .is_ok();
    close(fd);
    found
}

/// Binds to an address; port 0 lets the kernel choose.
pub fn bind(fd: Fd, to: &Address) -> Result<(), Errno> {
    let raw = RawAddress::from(to);
    // SAFETY: `raw` outlives the call, and its length is the one passed.
    done(unsafe { libc::bind(fd.0, raw.as_ptr(), raw.len()) })
}

pub fn listen(fd: Fd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::listen(fd.0, backlog) })
}

/// shutdown(2). ENOTCONN says that the connection is already gone.
pub fn shutdown(fd: Fd, how: Shutdown) -> Result<(), Errno> {
    let how = match how {
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is passed.
    done(unsafe { libc::shutdown(fd.0, how) })
}

pub fn local_address(fd: Fd) -> Result<SocketAddress, Errno> {
    name(fd, libc::getsockname)
}

pub fn peer_address(fd: Fd) -> Result<SocketAddress, Errno> {
    name(fd, libc::getpeername)
}

/// close(2), for descriptors that no ring knows. The descriptor is gone even where the call says EINTR or EIO.
pub fn close(fd: Fd) {
    // SAFETY: no memory is passed; that nobody else uses the descriptor is the caller's promise.
    unsafe { libc::close(fd.0) };
}

/// A descriptor that no ring knows, as one that closes itself. That nobody else closes it is the caller's promise.
pub fn own(fd: Fd) -> OwnedFd {
    // SAFETY: the descriptor is open and, as promised, nobody's but the result's.
    unsafe { OwnedFd::from_raw_fd(fd.0) }
}

/// Bytes that came from the peer, and bytes of ours that it acknowledged, since the connection began (tcp(7), TCP_INFO). Zeros
/// before Linux 4.2.
pub fn carried(fd: Fd) -> Result<(u64, u64), Errno> {
    /// Where `struct tcp_info` (linux/tcp.h) has `tcpi_bytes_acked`; `tcpi_bytes_received` follows. The structure only grows.
    const BYTES_ACKED: usize = 120 / 8;
    let mut info = [0u64; BYTES_ACKED + 2];
    let mut len = length::<[u64; BYTES_ACKED + 2]>();
    let option = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: `info` and `len` are valid for writing during the call, and `len` says how large `info` is.
    done(unsafe { libc::getsockopt(fd.0, option.0, option.1, info.as_mut_ptr().cast(), &raw mut len) })?;
    Ok((info[BYTES_ACKED + 1], info[BYTES_ACKED]))
}

/// Bytes sent or waiting to be sent that the peer's kernel has not acknowledged (tcp(7), SIOCOUTQ).
pub fn unacknowledged(fd: Fd) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which outlives the call.
    done(unsafe { libc::ioctl(fd.0, libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// Bytes that have arrived and were not received yet (tcp(7), SIOCINQ).
pub fn unread(fd: Fd) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which outlives the call.
    done(unsafe { libc::ioctl(fd.0, libc::FIONREAD, &raw mut bytes) })?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// A listening socket could not be had: which call failed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenError {
    pub call: &'static str,
    pub errno: Errno,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = match self.errno.0 {
            libc::EADDRINUSE => "; another socket holds this address and port",
            libc::EADDRNOTAVAIL => "; this machine has no such address",
            libc::EACCES => "; a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE",
            libc::EAFNOSUPPORT => "; this kernel has IPv6 switched off",
            libc::EMFILE => "; the descriptor limit of the process (ulimit -n) is reached",
            libc::ENFILE => "; the descriptor limit of the machine (fs.file-max) is reached",
            _ => "",
        };
        write!(f, "{}: {}{hint}", self.call, self.errno)
    }
}
impl std::error::Error for ListenError {}

/// A listening socket on `to` in a group of SO_REUSEPORT sockets, IPv6 without its IPv4 half, with TCP_NODELAY for what
/// it accepts. Port 0 lets the kernel choose: see [`local_address`].
pub fn listener(to: &SocketAddress, backlog: i32) -> Result<Fd, ListenError> {
    let failed = |call| move |errno| ListenError { call, errno };
    let fd = socket(to.family()).map_err(failed("socket"))?;
    let ready = || {
        set_option(fd, SocketOption::ReusePort).map_err(failed("setsockopt(SO_REUSEPORT)"))?;
        if to.is_v6() {
            set_option(fd, SocketOption::V6Only).map_err(failed("setsockopt(IPV6_V6ONLY)"))?;
        }
        set_option(fd, SocketOption::NoDelay).map_err(failed("setsockopt(TCP_NODELAY)"))?;
        bind(fd, &Address::Ip(*to)).map_err(failed("bind"))?;
        listen(fd, backlog).map_err(failed("listen"))
    };
    match ready() {
        Ok(()) => Ok(fd),
        Err(error) => {
            close(fd);
            Err(error)
        }
    }
}

/// Whether an address could be bound by somebody who shares it with nobody: EADDRINUSE if any socket listens there.
pub fn probe_free(to: &SocketAddress) -> Result<(), Errno> {
    let fd = socket(to.family())?;
    let on: libc::c_int = 1;
    let free = set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)
        .and_then(|()| if to.is_v6() { set_option(fd, SocketOption::V6Only) } else { Ok(()) })
        .and_then(|()| bind(fd, &Address::Ip(*to)));
    close(fd);
    free
}

/// An eventfd, by which another thread wakes a shard.
pub fn event() -> Result<Fd, Errno> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    done(fd).map(|()| Fd(fd))
}

/// Makes an eventfd readable, from any thread. A counter that is full is readable already.
pub fn signal_event(fd: Fd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the eight bytes outlive the call.
    unsafe { libc::write(fd.0, one.as_ptr().cast(), one.len()) };
}

/// Makes an eventfd unreadable again. An empty one stays so.
pub fn clear_event(fd: Fd) {
    let mut count = [0u8; 8];
    // SAFETY: the eight bytes are valid for writing during the call.
    unsafe { libc::read(fd.0, count.as_mut_ptr().cast(), count.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let fd = match listener(&SocketAddress::new(ip, 0), 8) {
                Ok(fd) => fd,
                Err(error) if ip.is_ipv6() => {
                    assert!(std::env::var_os("RINGWAY_NO_SKIP").is_none(), "{error}");
                    println!("skipped: no IPv6 on this machine ({error})");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let local = local_address(fd).unwrap();
            assert_eq!((local.ip(), local.port() != 0), (Some(ip), true));
            assert_eq!(peer_address(fd), Err(Errno(libc::ENOTCONN)));
            let twin = listener(&local, 8).unwrap();
            assert_eq!(local_address(twin), Ok(local), "a second socket joins the group");
            [fd, twin].into_iter().for_each(close);
        }
    }

    #[test]
    fn a_listener_that_cannot_be_says_which_call_failed() {
        let elsewhere = SocketAddress::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
        let error = listener(&elsewhere, 8).unwrap_err();
        assert_eq!((error.call, error.errno), ("bind", Errno(libc::EADDRNOTAVAIL)));
        assert!(error.to_string().contains("no such address"), "{error}");
    }

    #[test]
    fn probes_end_in_time() {
        for seconds in 5..=3600 {
            let time = Duration::from_secs(seconds);
            let probes = Probes::within(time);
            assert!(probes.idle >= 1 && probes.interval >= 1, "{probes:?}");
            // With the kernel's rounding, and a second for what it rounds itself.
            let latest = f64::from(probes.total()) * 1.125;
            assert!(
                latest <= time.as_secs_f64() && latest >= time.as_secs_f64() * 0.75,
                "{time:?}: {probes:?}"
            );
        }
        let probes = Probes { idle: 60, interval: 15, count: 3 };
        assert_eq!(Probes::within(Duration::from_secs(120)), probes);
    }

    fn option_of(fd: i32, level: libc::c_int, option: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = -1;
        let mut len = length::<libc::c_int>();
        // SAFETY: `value` and `len` are valid for writing during the call, and `len` says how large `value` is.
        let result = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0, "{}", last_errno());
        value
    }

    /// No manual page promises it: Linux copies a listener's socket for each connection (inet_csk_clone_lock), and starts its
    /// keep-alive timer (tcp_create_openreq_child).
    #[test]
    fn what_a_listener_accepts_inherits_its_options() {
        use std::os::fd::AsRawFd as _;
        let fd = listener(&SocketAddress::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), 8).unwrap();
        set_option(fd, SocketOption::DeadPeer(Duration::from_secs(120))).unwrap();
        let to = local_address(fd).unwrap();
        let client = std::net::TcpStream::connect(std::net::SocketAddr::from(to)).unwrap();
        // SAFETY: no memory is passed.
        let accepted = unsafe { libc::accept(fd.0, ptr::null_mut(), ptr::null_mut()) };
        assert!(accepted >= 0, "{}", last_errno());
        let options = [
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 105_000),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        ];
        for (level, option, value) in options {
            assert_eq!(option_of(accepted, level, option), value, "option {option}");
        }
        assert_eq!(
            option_of(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            0,
            "a client of nobody's"
        );
        [fd, Fd(accepted)].into_iter().for_each(close);
    }

    #[test]
    fn an_event_is_readable_between_signal_and_clear() {
        let fd = event().unwrap();
        let readable = || {
            let mut poll = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, valid during the call.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        };
        assert!(!readable());
        signal_event(fd);
        signal_event(fd);
        assert!(readable());
        clear_event(fd);
        assert!(!readable());
        clear_event(fd);
        close(fd);
    }
}
