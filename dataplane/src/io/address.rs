//! A socket address in 20 bytes: small enough for a slot.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv4 or IPv6 address and port. IPv4 is kept apart from IPv4-mapped IPv6 by a flag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketAddress {
    bytes: [u8; 16],
    port: u16,
    v6: bool,
}

impl SocketAddress {
    /// 0.0.0.0:0.
    pub const UNSPECIFIED: Self = Self { bytes: [0; 16], port: 0, v6: false };

    pub fn new(ip: IpAddr, port: u16) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                Self { bytes, port, v6: false }
            }
            IpAddr::V6(v6) => Self { bytes: v6.octets(), port, v6: true },
        }
    }
    pub fn ip(&self) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(self.bytes))
        } else {
            IpAddr::V4(Ipv4Addr::new(self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]))
        }
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn is_v6(&self) -> bool {
        self.v6
    }
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(a: SocketAddr) -> Self {
        Self::new(a.ip(), a.port())
    }
}
impl From<SocketAddress> for SocketAddr {
    fn from(a: SocketAddress) -> Self {
        Self::new(a.ip(), a.port())
    }
}
impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}
impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
