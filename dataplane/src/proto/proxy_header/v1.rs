//! Version 1 (the text, 2.1): `PROXY TCP4 192.0.2.1 198.51.100.2 51000 443` and CRLF.

use super::{Ends, Header, Reading};
use crate::fault::CloseReason;
use crate::io::SocketAddress;
use crate::limits::PROXY_V1_BYTES;
use crate::proto::Span;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// `bytes` begin with the signature.
pub(super) fn read(bytes: &[u8]) -> Result<Reading, CloseReason> {
    let within = &bytes[..bytes.len().min(PROXY_V1_BYTES)];
    // A line of printable ASCII, and nothing else, ends in CRLF.
    let Some(end) = within.iter().position(|b| !matches!(b, b' '..=b'~')) else { return more(within) };
    if within[end] != b'\r' {
        return Err(CloseReason::ProxyHeaderInvalid);
    }
    match within.get(end + 1) {
        None => return more(within),
        Some(b'\n') => {}
        Some(_) => return Err(CloseReason::ProxyHeaderInvalid),
    }
    let line = std::str::from_utf8(&within[SIGNATURE.len()..end]).unwrap_or_default();
    let ends = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        // "The receiver must ignore anything presented before the CRLF."
        None
    } else {
        Some(ends(line).ok_or(CloseReason::ProxyHeaderInvalid)?)
    };
    Ok(Reading::Whole(Header { len: end + 2, ends, tlvs: Span::default() }))
}

fn more(within: &[u8]) -> Result<Reading, CloseReason> {
    if within.len() < PROXY_V1_BYTES { Ok(Reading::Begun) } else { Err(CloseReason::ProxyHeaderTooLarge) }
}

/// The fields of a line, one space between two.
fn ends(line: &str) -> Option<Ends> {
    let mut parts = line.split(' ');
    let mut next = || parts.next();
    let address: fn(&str) -> Option<IpAddr> = match next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (source, destination) = (address(next()?)?, address(next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if next().is_some() {
        return None;
    }
    Some(Ends {
        source: SocketAddress::new(source, source_port),
        destination: SocketAddress::new(destination, destination_port),
    })
}

/// Plain digits; a leading zero could be read as octal elsewhere.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

pub(super) fn write(ends: Option<&Ends>, to: &mut [u8]) -> Option<usize> {
    let room = to.len();
    let mut left = to;
    match ends.and_then(|ends| Some((ends, ends.in_one_family()?))) {
        None => left.write_all(b"PROXY UNKNOWN\r\n").ok()?,
        Some((ends, (source, destination))) => {
            let family = if source.is_ipv4() { 4 } else { 6 };
            let ports = (ends.source.port(), ends.destination.port());
            let (from, to) = ports;
            write!(left, "PROXY TCP{family} {source} {destination} {from} {to}\r\n").ok()?;
        }
    }
    Some(room - left.len())
}
