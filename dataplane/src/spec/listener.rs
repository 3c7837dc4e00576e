//! A listener: bound addresses, limits, timeouts, and whose forwarding fields it believes.

use super::{ClusterId, ErrorPages, ListenerId};
use crate::io::{SocketAddress, UnixName};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub id: ListenerId,
    pub name: Arc<str>,
    pub addresses: Vec<ListenAddress>,
    pub steer: Steer,
    pub protocol: Protocol,
    /// Connections open at once, over all shards.
    pub max_connections: u32,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub forwarded: Forwarded,
    /// Whether connections begin with a PROXY header; `None`: they do not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Takes a request that no route takes; where a tcp conn goes.
    pub cluster: Option<ClusterId>,
    /// Whether any access log wants this listener's records.
    pub access_log: bool,
    /// What refusals are answered with.
    pub error_pages: ErrorPages,
}

impl Listener {
    /// No longer one of the configuration's: it has no addresses, and is kept for the connections that it still has.
    pub fn is_gone(&self) -> bool {
        self.addresses.is_empty()
    }
    /// Whether connections that this listener accepted leave when `next` is in its place: it is gone, speaks something else, or
    /// no longer listens where they came in.
    pub fn drains_for(&self, next: &Self) -> bool {
        let is_left = |address: &ListenAddress| !next.addresses.iter().any(|other| other.is_at(address));
        self.protocol != next.protocol || self.addresses.iter().any(is_left)
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    Http,
    /// Bytes, unread: each conn becomes a tunnel to an endpoint. Routes and what is of requests do not apply.
    Tcp,
}

/// Where a listener's connections come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// Bound once by each shard; IPv6 is bound IPv6-only.
    Ip(SocketAddress),
    /// A path with these permissions, or an abstract name.
    Unix { name: Arc<UnixName>, mode: u32 },
    /// A listening socket that the process was started with.
    Inherited(i32),
}

impl ListenAddress {
    /// Whether both are the same place, whatever the permissions of a socket's file.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { name, .. }, Self::Unix { name: other, .. }) => name == other,
            _ => self == other,
        }
    }
    /// The IP address and port that are bound.
    pub fn as_ip(&self) -> Option<SocketAddress> {
        if let Self::Ip(address) = self { Some(*address) } else { None }
    }
}

/// As the configuration writes it.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { name, .. } => name.fmt(f),
            Self::Inherited(fd) => write!(f, "fd:{fd}"),
        }
    }
}

/// Who of those that listen on one address gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// As the kernel hashes the four-tuple; then evened out.
    Hash,
    /// The shard of the CPU that handles the packet.
    Cpu,
    /// One shard for each source address.
    Source,
}

/// `[listener.limits]`; units in docs/config.md. `u64::MAX` is "unlimited" where that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub request_line: u32,
    pub header_block: u32,
    pub header_fields: u32,
    pub request_body: u64,
    pub requests_per_connection: u64,
    pub pipelined: u32,
}

/// `[listener.timeouts]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub request_header: Duration,
    pub request_body: Duration,
    /// Bytes per second; 0 is off.
    pub min_rate: u64,
    pub send: Duration,
    pub idle: Duration,
    pub tunnel_idle: Duration,
    /// `Duration::MAX` is off.
    pub max_lifetime: Duration,
    /// A client that vanished is found within this; `Duration::MAX` is off.
    pub dead_peer: Duration,
}

/// `[listener.forwarded]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    pub mode: ForwardedMode,
    pub trusted: Vec<Network>,
    /// Peers on unix sockets are trusted.
    pub trusts_unix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedMode {
    /// Drop what the client sent; set our own.
    Replace,
    /// From a trusted peer append to what it sent; from others as `Replace`.
    Append,
    /// Add nothing; drop what the client sent unless it is trusted.
    Off,
}

/// `[listener.proxy_protocol]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Every connection must begin with a PROXY header; otherwise it may.
    pub required: bool,
    /// Who may send one: anybody else could claim to be any client.
    pub from: Vec<Network>,
    /// So may peers on unix sockets.
    pub from_unix: bool,
}

/// An address range, "10.0.0.0/8".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// Whether `ip` is in the range. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                u32::from(net).checked_shr(shift).unwrap_or(0)
                    == u32::from(ip).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                u128::from(net).checked_shr(shift).unwrap_or(0)
                    == u128::from(ip).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let net = |a: &str, prefix| Network { address: a.parse().unwrap(), prefix };
        assert!(net("10.0.0.0", 8).contains("10.9.8.7".parse().unwrap()));
        assert!(!net("10.0.0.0", 8).contains("11.0.0.1".parse().unwrap()));
        assert!(net("0.0.0.0", 0).contains("1.2.3.4".parse().unwrap()));
        assert!(net("10.0.0.0", 8).contains("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!net("10.0.0.0", 8).contains("::1".parse().unwrap()));
        assert!(net("2001:db8::", 32).contains("2001:db8::1".parse().unwrap()));
    }
}
