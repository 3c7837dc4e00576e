//! What a log is written to, and how without waiting: each kind of descriptor has its own way.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `to` of an `[[access_log]]`; standard error is the process log's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
    /// Datagrams of RFC 5424 over UDP (RFC 5426).
    Syslog {
        host: String,
        port: u16,
    },
    /// The same to a socket of this machine, as /dev/log.
    SyslogUnix(PathBuf),
}

/// Bytes that a pipe takes whole or not at all (PIPE_BUF, pipe(7)); when poll(2) says that it takes some, it takes these. One
/// that is empty takes as many as it holds.
const PIPE_BYTES: usize = 4096;

/// How a target is written to.
#[derive(Debug)]
pub(super) enum Way {
    /// A regular file or a device: it takes what it has room for, and a slow disk is waited for by this thread alone.
    File(File),
    /// A pipe, and how much it holds.
    Pipe(File, usize),
    Terminal(File),
    /// A stream socket, which systemd may have made standard output.
    Socket(OwnedFd),
    /// A datagram for each line, without its newline.
    Udp(UdpSocket),
    Local(UnixDatagram),
}

impl Target {
    /// As the configuration says it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".to_owned(),
            Self::Stderr => "stderr".to_owned(),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Syslog { host, port } => format!("syslog:{host}:{port}"),
            Self::SyslogUnix(path) => format!("syslog:unix:{}", path.display()),
        }
    }

    /// Whether each line begins with a header of syslog.
    pub(super) fn is_syslog(&self) -> bool {
        matches!(self, Self::Syslog { .. } | Self::SyslogUnix(_))
    }

    pub(super) fn open(&self) -> io::Result<Way> {
        match self {
            // Descriptors of our own: std's handle would buffer by lines.
            Self::Stdout => Way::of(io::stdout().as_fd().try_clone_to_owned()?),
            Self::Stderr => Way::of(io::stderr().as_fd().try_clone_to_owned()?),
            Self::File(path) => {
                // Of a FIFO that nobody reads the opening would wait, and the writing later.
                let mut options = File::options();
                Way::of(options.create(true).append(true).custom_flags(libc::O_NONBLOCK).open(path)?.into())
            }
            Self::Syslog { host, port } => {
                let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
                let to = addresses
                    .next()
                    .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "it has no address"))?;
                let from: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(from)?;
                socket.set_nonblocking(true)?;
                socket.connect(to)?;
                Ok(Way::Udp(socket))
            }
            Self::SyslogUnix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Way::Local(socket))
            }
        }
    }
}

impl Way {
    fn of(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let kind = file.metadata()?.file_type();
        Ok(if kind.is_socket() {
            Self::Socket(file.into())
        } else if kind.is_fifo() {
            let holds = rustix::pipe::fcntl_getpipe_size(&file).unwrap_or(PIPE_BYTES);
            Self::Pipe(file, holds)
        } else if kind.is_char_device() && file.is_terminal() {
            Self::Terminal(file)
        } else {
            Self::File(file)
        })
    }

    /// Writes some of `lines`, at most as much as goes without waiting; how many bytes went. Lines that nobody will get are
    /// added to `lost`.
    pub(super) fn write_some(&self, lines: &[u8], lost: &AtomicU64) -> io::Result<usize> {
        match self {
            Self::File(file) => (&*file).write(lines),
            Self::Pipe(file, holds) => {
                if rustix::io::ioctl_fionread(file).is_ok_and(|unread| unread == 0) {
                    return (&*file).write(at_once(lines, *holds));
                }
                wait_for_none(file)?;
                (&*file).write(at_once(lines, PIPE_BYTES))
            }
            Self::Terminal(file) => {
                wait_for_none(file)?;
                (&*file).write(at_once(lines, PIPE_BYTES))
            }
            Self::Socket(fd) => {
                use rustix::net::{SendFlags, send};
                Ok(send(fd, lines, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            }
            Self::Udp(socket) => datagram(lines, lost, |line| match socket.send(line) {
                // Told of an earlier one, which nobody took; once for each such.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    lost.fetch_add(1, Relaxed);
                    socket.send(line)
                }
                sent => sent,
            }),
            Self::Local(socket) => datagram(lines, lost, |line| socket.send(line)),
        }
    }

    /// Another one after `error`, where that is of use: whoever listened on a socket's path may have begun anew.
    pub(super) fn renewed(&self, target: &Target, error: &io::Error) -> Option<Self> {
        let gone = [ErrorKind::ConnectionRefused, ErrorKind::NotConnected, ErrorKind::ConnectionReset];
        let local = matches!(self, Self::Local(_)) && gone.contains(&error.kind());
        if local { target.open().ok() } else { None }
    }
}

/// An error unless `file` takes something now.
fn wait_for_none(file: &File) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(file, PollFlags::OUT)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// The whole lines at the front of `lines` within so many bytes; of a line that is longer, its begin.
fn at_once(lines: &[u8], most: usize) -> &[u8] {
    let most = &lines[..lines.len().min(most)];
    let end = most.iter().rposition(|byte| *byte == b'\n').map_or(most.len(), |at| at + 1);
    &most[..end]
}

/// Sends the first of `lines` as a datagram. One that is too long for any is lost.
fn datagram(lines: &[u8], lost: &AtomicU64, send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let len = lines.iter().position(|byte| *byte == b'\n').unwrap_or(lines.len());
    match send(&lines[..len]) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
            lost.fetch_add(1, Relaxed);
        }
        Err(e) => return Err(e),
    }
    Ok((len + 1).min(lines.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_called_as_the_configuration_says() {
        let syslog = Target::Syslog { host: "log.test".to_owned(), port: 514 };
        let all = [
            Target::Stdout,
            Target::File("/var/log/a".into()),
            syslog,
            Target::SyslogUnix("/dev/log".into()),
        ];
        let names = ["stdout", "file:/var/log/a", "syslog:log.test:514", "syslog:unix:/dev/log"];
        assert_eq!(all.map(|target| target.name()), names);
    }

    #[test]
    fn pipes_get_whole_lines() {
        let long = [b'x'; 5000];
        assert_eq!(at_once(&long, PIPE_BYTES).len(), PIPE_BYTES);
        let mut lines = vec![b'x'; 4000];
        lines.extend_from_slice(b"\nyy\n");
        lines.extend_from_slice(&[b'z'; 200]);
        assert_eq!(at_once(&lines, PIPE_BYTES).len(), 4004);
        assert_eq!(at_once(b"a\nb\n", 100), b"a\nb\n");
    }

    /// Who is down, or takes no line of that length, costs counted lines and stops nobody.
    #[test]
    fn datagrams_that_nobody_takes_are_counted() {
        let lost = AtomicU64::new(0);
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Target::Syslog { host: "127.0.0.1".into(), port }.open().unwrap();
        assert_eq!(way.write_some(b"one\ntwo\n", &lost).unwrap(), 4);
        let mut piece = [0; 100];
        let n = listener.recv(&mut piece).unwrap();
        assert_eq!(&piece[..n], b"one");
        let long = [&[b'x'; 70_000][..], b"\n"].concat();
        assert_eq!((way.write_some(&long, &lost).unwrap(), lost.load(Relaxed)), (long.len(), 1));
        drop(listener);
        for _ in 0..5 {
            assert_eq!(way.write_some(b"three\n", &lost).unwrap(), 6);
        }
        assert!(lost.load(Relaxed) >= 3, "{}", lost.load(Relaxed));
    }

    #[test]
    fn a_socket_of_this_machine_that_began_anew_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let target = Target::SyslogUnix(path.clone());
        target.open().unwrap_err();
        let first = UnixDatagram::bind(&path).unwrap();
        let lost = AtomicU64::new(0);
        let way = target.open().unwrap();
        assert_eq!(way.write_some(b"one\n", &lost).unwrap(), 4);
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        // A process that another test just starts holds the first one too, until it runs its program.
        let error = loop {
            match way.write_some(b"two\n", &lost) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break error,
                _ => std::thread::yield_now(),
            }
        };
        let way = way.renewed(&target, &error).unwrap();
        assert_eq!(way.write_some(b"two\n", &lost).unwrap(), 4);
        let mut piece = [0; 100];
        let n = second.recv(&mut piece).unwrap();
        assert_eq!((&piece[..n], lost.load(Relaxed)), (&b"two"[..], 0));
    }
}
