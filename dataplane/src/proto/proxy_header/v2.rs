//! Version 2 (the text, 2.2): twelve bytes of signature, version and command, family, length, addresses, TLVs.

use super::{Ends, Header, Reading, crc32c::Crc32c};
use crate::fault::CloseReason;
use crate::io::SocketAddress;
use crate::limits::PROXY_V2_BYTES;
use crate::proto::Span;
use std::net::IpAddr;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// High half of the family's byte.
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
/// Low half: what the client spoke; a datagram's ends are laid out as a stream's.
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
/// Type and length of a TLV.
const TLV_FIXED: usize = 3;
const TLV_CRC32C: u8 = 0x03;
const TLV_NOOP: u8 = 0x04;

/// `bytes` begin with the signature.
pub(super) fn read(bytes: &[u8]) -> Result<Reading, CloseReason> {
    const INVALID: CloseReason = CloseReason::ProxyHeaderInvalid;
    // "Receivers must drop connections presenting unexpected values here", of each of these bytes as it comes.
    let command = bytes.get(SIGNATURE.len()).copied();
    if !matches!(command, None | Some(LOCAL | PROXY)) {
        return Err(INVALID);
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Ok(Reading::Begun) };
    let local = command == Some(LOCAL);
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 15);
    // Of LOCAL the whole block is discarded, "including the family which is ignored".
    if !local && (family > UNIX || transport > DATAGRAM) {
        return Err(INVALID);
    }
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + len > PROXY_V2_BYTES {
        return Err(CloseReason::ProxyHeaderTooLarge);
    }
    let Some(block) = rest.get(..len) else { return Ok(Reading::Begun) };
    let whole = |ends, tlvs| Ok(Reading::Whole(Header { len: FIXED + len, ends, tlvs }));
    if local {
        return whole(None, Span::default());
    }
    let (addresses, tlvs) = block.split_at_checked(address_bytes(family)).ok_or(INVALID)?;
    let at = FIXED + addresses.len();
    check_tlvs(&bytes[..FIXED + len], at).ok_or(INVALID)?;
    let known = transport == STREAM || transport == DATAGRAM;
    whole(ends(addresses).filter(|_| known), Span::between(at, at + tlvs.len()))
}

fn address_bytes(family: u8) -> usize {
    match family {
        INET => 4 + 4 + 2 + 2,
        INET6 => 16 + 16 + 2 + 2,
        UNIX => 108 + 108,
        _ => 0,
    }
}

/// Told apart by their length.
fn ends(addresses: &[u8]) -> Option<Ends> {
    fn two<const N: usize>(addresses: &[u8]) -> Option<Ends>
    where
        IpAddr: From<[u8; N]>,
    {
        let (source, rest) = addresses.split_first_chunk::<N>()?;
        let (destination, ports) = rest.split_first_chunk::<N>()?;
        let &[a, b, c, d] = ports else { return None };
        Some(Ends {
            source: SocketAddress::new(IpAddr::from(*source), u16::from_be_bytes([a, b])),
            destination: SocketAddress::new(IpAddr::from(*destination), u16::from_be_bytes([c, d])),
        })
    }
    match addresses.len() {
        12 => two::<4>(addresses),
        36 => two::<16>(addresses),
        _ => None,
    }
}

/// Each TLV with its type; the last item is `None` if what is left is none.
fn each(mut tlvs: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        if tlvs.is_empty() {
            return None;
        }
        let len = |fixed: &[u8]| TLV_FIXED + usize::from(u16::from_be_bytes([fixed[1], fixed[2]]));
        let tlv = tlvs.get(..TLV_FIXED).map(len).and_then(|len| tlvs.get(..len));
        tlvs = tlv.map_or(&[], |tlv| &tlvs[tlv.len()..]);
        Some(tlv.map(|tlv| (tlv[0], tlv)))
    })
}

/// The TLVs from `at` on fill the header exactly, and the checksum, if there is one, is right (the text, 2.2.3).
fn check_tlvs(header: &[u8], at: usize) -> Option<()> {
    let mut place = at;
    let mut sum: Option<usize> = None;
    for tlv in each(&header[at..]) {
        let (kind, tlv) = tlv?;
        // Two of them could not both have been computed over the other as zeros.
        if kind == TLV_CRC32C && (tlv.len() != TLV_FIXED + 4 || sum.replace(place + TLV_FIXED).is_some()) {
            return None;
        }
        place += tlv.len();
    }
    let Some(sum) = sum else { return Some(()) };
    let (before, rest) = header.split_at(sum);
    let (stated, behind) = rest.split_first_chunk::<4>()?;
    let mut crc = Crc32c::default();
    for part in [before, &[0; 4], behind] {
        crc.add(part);
    }
    (crc.value() == u32::from_be_bytes(*stated)).then_some(())
}

/// The TLVs that are passed on to the next receiver: all but the checksum, which was of that header, and padding.
pub fn passed_on(tlvs: &[u8]) -> impl Iterator<Item = &[u8]> {
    each(tlvs).flatten().filter(|(kind, _)| !matches!(*kind, TLV_CRC32C | TLV_NOOP)).map(|(_, tlv)| tlv)
}

pub(super) fn write(ends: Option<&Ends>, tlvs: &[u8], to: &mut [u8]) -> Option<usize> {
    let Some((ends, (source, destination))) = ends.and_then(|ends| Some((ends, ends.in_one_family()?)))
    else {
        return put(to, &[SIGNATURE, &[LOCAL, 0, 0, 0]]);
    };
    let octets = |ip| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let v4 = source.is_ipv4();
    let (family, from) = if v4 { (INET, 12) } else { (INET6, 0) };
    let (source, destination) = (octets(source), octets(destination));
    let ports = [ends.source.port().to_be_bytes(), ends.destination.port().to_be_bytes()];
    let len = u16::try_from(address_bytes(family) + tlvs.len()).ok()?;
    let fixed = [PROXY, family << 4 | STREAM];
    put(
        to,
        &[
            SIGNATURE,
            &fixed,
            &len.to_be_bytes(),
            &source[from..],
            &destination[from..],
            ports.as_flattened(),
            tlvs,
        ],
    )
}

/// Writes the parts one behind the other.
fn put(to: &mut [u8], parts: &[&[u8]]) -> Option<usize> {
    let mut at = 0;
    for part in parts {
        to.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(at)
}
