//! Which socket of a SO_REUSEPORT group gets a connection: a classic BPF program instead of the kernel's hash of the
//! four-tuple (socket(7), SO_ATTACH_REUSEPORT_CBPF). It returns the socket's place in the group, which is the order in
//! which they began to listen, and so the shard.

use super::enter::last_errno;
use crate::io::{Errno, Fd};
use crate::spec::Steer;

// <linux/filter.h>: classes, sizes, modes and operations of an instruction.
const LD: u16 = 0x00;
const ALU: u16 = 0x04;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const W_ABS: u16 = 0x20;
const MUL: u16 = 0x20;
const RSH: u16 = 0x70;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;
const BY_X: u16 = 0x08;
const A: u16 = 0x10;
const TAX: u16 = 0x00;
/// SKF_AD_OFF + SKF_AD_CPU: the CPU that handles the packet.
const AT_CPU: u32 = (-0x1000i32 + 36).cast_unsigned();
/// SKF_NET_OFF: the network header.
const AT_NETWORK: u32 = (-0x10_0000i32).cast_unsigned();
/// Of the source address in an IPv4 header, and in an IPv6 one.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
/// Multiplier of Fibonacci hashing (2^32 / golden ratio); the upper half of the product is well mixed.
const MULTIPLIER: u32 = 0x9e37_79b9;

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// The program for so many sockets of one family.
fn program(by: Steer, v6: bool, sockets: u32) -> Vec<libc::sock_filter> {
    let mut steps = match by {
        Steer::Hash => Vec::new(),
        Steer::Cpu => vec![step(LD | W_ABS, AT_CPU)],
        Steer::Source if v6 => {
            let word = |n: u32| step(LD | W_ABS, AT_NETWORK.wrapping_add(SOURCE_V6 + 4 * n));
            let mut steps = vec![word(0)];
            for n in 1..4 {
                steps.extend([step(MISC | TAX, 0), word(n), step(ALU | XOR | BY_X, 0)]);
            }
            steps
        }
        Steer::Source => vec![step(LD | W_ABS, AT_NETWORK.wrapping_add(SOURCE_V4))],
    };
    if by == Steer::Source {
        steps.extend([step(ALU | MUL, MULTIPLIER), step(ALU | RSH, 16)]);
    }
    steps.extend([step(ALU | MOD, sockets.max(1)), step(RET | A, 0)]);
    steps
}

/// Leaves it to the kernel which socket of the group gets a connection; no error where it was.
fn detach(fd: Fd) -> Result<(), Errno> {
    let nothing: libc::c_int = 0;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the option has no value; the int that is passed outlives the call.
    let done = unsafe {
        libc::setsockopt(
            fd.0,
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const nothing).cast(),
            len,
        )
    };
    match done {
        0 => Ok(()),
        _ => match last_errno() {
            Errno(libc::ENOENT) => Ok(()),
            errno => Err(errno),
        },
    }
}

/// Steers the group of `fd`, in which `sockets` listen; whatever steered it before does so no more.
pub fn attach(fd: Fd, by: Steer, v6: bool, sockets: u32) -> Result<(), Errno> {
    if by == Steer::Hash {
        return detach(fd);
    }
    let mut steps = program(by, v6, sockets);
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).map_err(|_| Errno(libc::EINVAL))?,
        filter: steps.as_mut_ptr(),
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    // SAFETY: `program` and the steps that it points to outlive the call, which copies them; the length is its size.
    let done = unsafe {
        libc::setsockopt(
            fd.0,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            len,
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SocketAddress;
    use crate::sys::socket;
    use std::collections::BTreeSet;
    use std::net::{SocketAddr, TcpStream};

    /// Groups of four sockets; which of them have connections to accept after some came from each of the addresses.
    fn reached(by: Steer, at: &str, from: &[&str]) -> Vec<BTreeSet<usize>> {
        let mut address: SocketAddress = at.parse::<SocketAddr>().unwrap().into();
        let group: Vec<Fd> = (0..4)
            .map(|_| {
                let fd = socket::listener(&address, 64).unwrap();
                address = socket::local_address(fd).unwrap();
                fd
            })
            .collect();
        attach(group[0], by, address.is_v6(), 4).unwrap();
        let waits = |fd: &Fd| {
            let mut poll = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, valid during the call.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        };
        let mut all = Vec::new();
        for source in from {
            let mut clients = Vec::new();
            for _ in 0..16 {
                clients.push(connect_from(source, address));
            }
            all.push((0..4).filter(|at| waits(&group[*at])).collect());
            drop(clients);
            for fd in &group {
                while waits(fd) {
                    // SAFETY: no memory is passed.
                    let accepted = unsafe {
                        libc::accept4(fd.0, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
                    };
                    socket::close(Fd(accepted));
                }
            }
        }
        group.into_iter().for_each(socket::close);
        all
    }

    fn connect_from(source: &str, to: SocketAddress) -> TcpStream {
        use std::os::fd::FromRawFd;
        let source = SocketAddress::new(source.parse().unwrap(), 0);
        let fd = socket::socket(source.family()).unwrap();
        socket::bind(fd, &source.into()).unwrap();
        let raw = socket::RawAddress::from(&to.into());
        // SAFETY: `raw` outlives the call, and its length is the one passed.
        assert_eq!(unsafe { libc::connect(fd.0, raw.as_ptr(), raw.len()) }, 0);
        // SAFETY: the descriptor was just opened and nobody else has it.
        unsafe { TcpStream::from_raw_fd(fd.0) }
    }

    #[test]
    fn a_source_address_always_reaches_the_same_socket() {
        let sources: Vec<String> = (1..=16).map(|n| format!("127.0.0.{n}")).collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let reached = reached(Steer::Source, "127.0.0.1:0", &sources);
        assert!(reached.iter().all(|sockets| sockets.len() == 1), "{reached:?}");
        let all: BTreeSet<_> = reached.into_iter().flatten().collect();
        assert_eq!(all.len(), 4, "sixteen addresses reach every socket");
    }

    #[test]
    fn without_a_program_the_ports_count() {
        let reached = reached(Steer::Hash, "127.0.0.1:0", &["127.0.0.1"]);
        assert!(reached[0].len() > 1, "{reached:?}");
    }

    #[test]
    fn one_ipv6_address_reaches_one_socket() {
        if let Err(error) = socket::listener(&SocketAddress::new("::1".parse().unwrap(), 0), 8) {
            assert!(std::env::var_os("RINGWAY_NO_SKIP").is_none(), "{error}");
            return println!("skipped: no IPv6 on this machine ({error})");
        }
        let reached = reached(Steer::Source, "[::1]:0", &["::1"]);
        assert_eq!(reached[0].len(), 1, "{reached:?}");
    }

    /// On loopback the CPU is that of the client's thread.
    #[test]
    fn a_cpu_always_reaches_the_same_socket() {
        assert!(crate::sys::affinity::pin(crate::sys::affinity::cpus()[0]));
        let reached = reached(Steer::Cpu, "127.0.0.1:0", &["127.0.0.1", "127.0.0.2"]);
        assert!(reached[0].len() == 1 && reached[0] == reached[1], "{reached:?}");
        assert!(reached[0].contains(&(crate::sys::affinity::cpus()[0] % 4)));
    }
}
