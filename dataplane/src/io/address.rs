//! Addresses of sockets: where one is, in 20 bytes that fit a slot, and where one is to be, with a path if it has one.

use super::Family;
use crate::limits::UNIX_NAME_BYTES;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// An IPv4 or IPv6 address and port, or the word that a socket is of the unix domain: its name, where it has one, stands
/// in the snapshot. IPv4 is kept apart from IPv4-mapped IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketAddress {
    bytes: [u8; 16],
    port: u16,
    family: Family,
}

const _: () = assert!(size_of::<SocketAddress>() == 20);

impl SocketAddress {
    /// 0.0.0.0:0.
    pub const UNSPECIFIED: Self = Self { bytes: [0; 16], port: 0, family: Family::V4 };
    /// A socket of the unix domain.
    pub const UNIX: Self = Self { bytes: [0; 16], port: 0, family: Family::Unix };

    pub fn new(ip: IpAddr, port: u16) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                Self { bytes, port, family: Family::V4 }
            }
            IpAddr::V6(v6) => Self { bytes: v6.octets(), port, family: Family::V6 },
        }
    }
    /// None of a unix socket: it matches no network.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.family {
            Family::V4 => {
                Some(Ipv4Addr::new(self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]).into())
            }
            Family::V6 => Some(Ipv6Addr::from(self.bytes).into()),
            Family::Unix => None,
        }
    }
    /// 0 of a unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn family(&self) -> Family {
        self.family
    }
    pub fn is_v6(&self) -> bool {
        self.family == Family::V6
    }
    pub fn is_unix(&self) -> bool {
        self.family == Family::Unix
    }
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
    /// The simulated network keeps unix sockets apart by a hash of their names.
    #[cfg(feature = "sim")]
    pub(crate) fn unix_key(hash: u64) -> Self {
        let mut key = Self::UNIX;
        key.bytes[..8].copy_from_slice(&hash.to_be_bytes());
        key
    }
    /// As the kernel tells it: without the key of a simulated unix socket.
    #[cfg(feature = "sim")]
    #[must_use]
    pub(crate) fn without_key(self) -> Self {
        if self.is_unix() { Self::UNIX } else { self }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(a: SocketAddr) -> Self {
        Self::new(a.ip(), a.port())
    }
}
/// A unix socket, which has no such address, becomes 0.0.0.0:0.
impl From<SocketAddress> for SocketAddr {
    fn from(a: SocketAddress) -> Self {
        Self::new(a.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), a.port())
    }
}
/// `127.0.0.1:80`, `[::1]:80`, or `unix:`.
impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => f.pad("unix:"),
        }
    }
}
impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a unix socket: a path, or an abstract name, which is written `@name` and belongs to no file system
/// (unix(7)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName {
    /// 1 to `UNIX_NAME_BYTES` bytes without NUL.
    name: Box<[u8]>,
    is_abstract: bool,
}

/// Why a text names no unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnixNameError {
    Empty,
    /// So many bytes, more than `UNIX_NAME_BYTES`.
    TooLong(usize),
    Nul,
}

impl fmt::Display for UnixNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a unix socket needs a path, or \"@\" and a name"),
            Self::TooLong(n) => {
                write!(f, "the name of a unix socket has at most {UNIX_NAME_BYTES} bytes, and this has {n}")
            }
            Self::Nul => write!(f, "the name of a unix socket holds no NUL"),
        }
    }
}

impl UnixName {
    /// `/run/x.sock`, or `@x` for an abstract name.
    pub fn new(text: &[u8]) -> Result<Self, UnixNameError> {
        let (name, is_abstract) = text.strip_prefix(b"@").map_or((text, false), |name| (name, true));
        match name.len() {
            0 => Err(UnixNameError::Empty),
            n if n > UNIX_NAME_BYTES => Err(UnixNameError::TooLong(n)),
            _ if name.contains(&0) => Err(UnixNameError::Nul),
            _ => Ok(Self { name: name.into(), is_abstract }),
        }
    }
    /// The path, of one that is no abstract name.
    pub fn path(&self) -> Option<&[u8]> {
        (!self.is_abstract).then_some(&self.name)
    }
    /// The name without its "@".
    pub fn bytes(&self) -> &[u8] {
        &self.name
    }
    pub fn is_abstract(&self) -> bool {
        self.is_abstract
    }
}

/// As the configuration writes it: `unix:/run/x.sock`, `unix:@x`.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = if self.is_abstract { "@" } else { "" };
        write!(f, "unix:{at}{}", String::from_utf8_lossy(&self.name))
    }
}
impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a socket is to be bound or connected.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddress),
    Unix(Arc<UnixName>),
}

impl Address {
    pub fn family(&self) -> Family {
        match self {
            Self::Ip(address) => address.family(),
            Self::Unix(_) => Family::Unix,
        }
    }
    /// The IP address and port, if it is not of the unix domain.
    pub fn as_ip(&self) -> Option<SocketAddress> {
        if let Self::Ip(address) = self { Some(*address) } else { None }
    }
}

impl From<SocketAddress> for Address {
    fn from(address: SocketAddress) -> Self {
        Self::Ip(address)
    }
}
impl From<UnixName> for Address {
    fn from(name: UnixName) -> Self {
        Self::Unix(Arc::new(name))
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
        }
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unix_sockets_have_bounds() {
        let long = |n| vec![b'x'; n];
        assert_eq!(UnixName::new(&long(UNIX_NAME_BYTES)).unwrap().bytes().len(), UNIX_NAME_BYTES);
        assert_eq!(
            UnixName::new(&long(UNIX_NAME_BYTES + 1)),
            Err(UnixNameError::TooLong(UNIX_NAME_BYTES + 1))
        );
        let at = [b"@".to_vec(), long(UNIX_NAME_BYTES)].concat();
        assert!(UnixName::new(&at).is_ok_and(|name| name.is_abstract() && name.path().is_none()));
        assert_eq!(UnixName::new(b""), Err(UnixNameError::Empty));
        assert_eq!(UnixName::new(b"@"), Err(UnixNameError::Empty));
        assert_eq!(UnixName::new(b"/a\0b"), Err(UnixNameError::Nul));
        assert_eq!(UnixName::new(b"/run/x").unwrap().to_string(), "unix:/run/x");
        assert_eq!(UnixName::new(b"@x").unwrap().to_string(), "unix:@x");
    }

    #[test]
    fn a_unix_socket_has_no_ip() {
        assert_eq!((SocketAddress::UNIX.ip(), SocketAddress::UNIX.to_string()), (None, "unix:".to_owned()));
        assert_eq!(SocketAddress::UNSPECIFIED.to_string(), "0.0.0.0:0");
    }
}
