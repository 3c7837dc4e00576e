//! The PROXY protocol, versions 1 and 2: what a balancer in front says of a connection before its first byte.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt` (2020-03-05), called *the text* here. Strict: what the text forbids is
//! refused, and nothing is guessed. The outcome never depends on how the bytes were cut.

mod crc32c;
mod v1;
mod v2;

use super::Span;
use crate::fault::CloseReason;
use crate::io::SocketAddress;
use std::net::{IpAddr, Ipv4Addr};

pub use v2::passed_on;

/// Which version is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One line of text; addresses only.
    V1,
    /// Binary; may carry TLVs.
    V2,
}

/// Both ends of a connection as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddress,
    pub destination: SocketAddress,
}

impl Ends {
    /// Both addresses in one family: an IPv4 address beside an IPv6 one is written as `::ffff:a.b.c.d`. None where an end is
    /// on a unix socket.
    fn in_one_family(self) -> Option<(IpAddr, IpAddr)> {
        let mapped = |ip| match ip {
            IpAddr::V4(v4) => IpAddr::V6(Ipv4Addr::to_ipv6_mapped(&v4)),
            v6 @ IpAddr::V6(_) => v6,
        };
        let (source, destination) = (self.source.ip()?, self.destination.ip()?);
        Some(if source.is_ipv4() == destination.is_ipv4() {
            (source, destination)
        } else {
            (mapped(source), mapped(destination))
        })
    }
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows them is the connection's own.
    pub len: usize,
    /// `None` where the sender speaks for itself (LOCAL: a health check), or does not know the client (UNKNOWN,
    /// UNSPEC), or knows it by an address that a TCP connection has not (UNIX): the socket's own addresses count then.
    pub ends: Option<Ends>,
    /// Version 2: the TLVs as they came, well-formed; none of LOCAL, whose whole block is to be discarded (the text, 2.2).
    /// [`passed_on`] says which of them go on.
    pub tlvs: Span,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The beginning of a signature, or nothing yet.
    Undecided,
    /// A signature, and what follows as far as it goes.
    Begun,
    /// No header: the byte is there that none of the two signatures has.
    Absent,
    Whole(Header),
}

/// Reads the header at the front of `bytes`, which begin with the first byte of the connection. To be asked again with
/// more while it is [`Reading::Undecided`] or [`Reading::Begun`]; looks at 107 bytes at most until the header is whole.
///
/// # Errors
/// [`CloseReason::ProxyHeaderInvalid`] and [`CloseReason::ProxyHeaderTooLarge`], once the signature was read.
pub fn read(bytes: &[u8]) -> Result<Reading, CloseReason> {
    let begins = |signature: &[u8]| {
        let n = bytes.len().min(signature.len());
        (bytes[..n] == signature[..n]).then_some(n == signature.len())
    };
    match (begins(v1::SIGNATURE), begins(v2::SIGNATURE)) {
        (Some(true), _) => v1::read(bytes),
        (_, Some(true)) => v2::read(bytes),
        (None, None) => Ok(Reading::Absent),
        _ => Ok(Reading::Undecided),
    }
}

/// Writes a header of `version` for a connection between `ends`; with none, or where an end
/// is on a unix socket, the one that leaves the socket's own addresses in force (LOCAL, `PROXY UNKNOWN`). `tlvs` are whole ones, for version 2 with ends only. Returns the bytes
/// written; `None` if `to` is too small.
pub fn write(version: Version, ends: Option<&Ends>, tlvs: &[u8], to: &mut [u8]) -> Option<usize> {
    match version {
        Version::V1 => v1::write(ends, to),
        Version::V2 => v2::write(ends, tlvs, to),
    }
}

#[cfg(test)]
mod tests;
