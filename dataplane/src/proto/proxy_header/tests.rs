//! PROXY headers of both versions: examples of the text, every cut of them, every way to be wrong, and both ways round.

use super::*;
use crate::limits::{PROXY_V1_BYTES, PROXY_V2_BYTES};
use proptest::prelude::*;

fn ends(source: &str, destination: &str) -> Ends {
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
    Ends { source: address(source), destination: address(destination) }
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// A version 2 header with any bytes behind the fixed ones.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [v2::SIGNATURE, &[command, family], &len, block].concat()
}

/// As [`v2`], with a right checksum behind the block.
fn summed(family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = v2(0x21, family, &[block, &tlv(3, &[0; 4])].concat());
    let mut crc = crc32c::Crc32c::default();
    crc.add(&header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&crc.value().to_be_bytes());
    header
}

const INET_BLOCK: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xc7, 0x38, 0x01, 0xbb];

fn is_partial(reading: Result<Reading, CloseReason>) -> bool {
    matches!(reading, Ok(Reading::Undecided | Reading::Begun))
}

/// What comes of `bytes` that come in pieces of `step`, followed by nothing.
fn in_steps(bytes: &[u8], step: usize) -> Result<Reading, CloseReason> {
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        let reading = read(&bytes[..end]);
        if !is_partial(reading) || end == bytes.len() {
            return reading;
        }
    }
}

/// The outcome, the same at every split point and byte by byte.
#[track_caller]
fn outcome(bytes: &[u8]) -> Result<Reading, CloseReason> {
    let whole = read(bytes);
    for split in 0..bytes.len() {
        let first = read(&bytes[..split]);
        assert!(is_partial(first) || first == whole, "cut at {split}: {first:?}, not {whole:?}");
    }
    assert_eq!(in_steps(bytes, 1), whole);
    whole
}

#[track_caller]
fn whole(bytes: &[u8]) -> Header {
    let with_more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    let Ok(Reading::Whole(header)) = outcome(&with_more) else {
        panic!("{:?} of {}", outcome(&with_more), bytes.escape_ascii())
    };
    assert_eq!(header.len, bytes.len());
    header
}

#[test]
fn lines_of_version_1() {
    let header = whole(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!(header.ends, Some(ends("192.168.0.1:56324", "192.168.0.11:443")));
    let longest = b"PROXY TCP6 ffff:f000:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), 104);
    assert_eq!(whole(longest).ends.unwrap().source.port(), 65535);
    assert_eq!(whole(b"PROXY TCP6 2001:db8::1 ::1 1 0\r\n").ends, Some(ends("[2001:db8::1]:1", "[::1]:0")));
    assert_eq!(whole(b"PROXY UNKNOWN\r\n").ends, None);
    let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; PROXY_V1_BYTES - 16], b"\r\n"].concat();
    assert_eq!(whole(&longest).ends, None);
}

#[test]
fn wrong_lines_of_version_1() {
    for line in [
        "PROXY \r\n",
        "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2  2\r\n",
        "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY UNKNOWNx\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rGET / HTTP/1.1\r\n",
        "PROXY TCP4\t1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1\0 2.2.2.2 1 2\r\n",
        "PROXY UNKNOWN \u{e9}\r\n",
    ] {
        assert_eq!(outcome(line.as_bytes()), Err(CloseReason::ProxyHeaderInvalid), "{line:?}");
    }
    let long = |n: usize| [b"PROXY UNKNOWN ".as_slice(), &vec![b'x'; n], b"\r\n"].concat();
    assert_eq!(outcome(&long(PROXY_V1_BYTES - 15)), Err(CloseReason::ProxyHeaderTooLarge));
    assert_eq!(outcome(&long(1000)), Err(CloseReason::ProxyHeaderTooLarge));
}

#[test]
fn what_is_no_header_is_known_by_its_first_wrong_byte() {
    for bytes in
        ["G", "PROPFIND / HTTP/1.1", "PROXY\t", "PRI * HTTP/2.0", "proxy TCP4", "\r\n\r\nG", "\x16", "\0"]
    {
        assert_eq!(outcome(bytes.as_bytes()), Ok(Reading::Absent), "{bytes:?}");
    }
    for bytes in ["", "P", "PROXY", "\r", "\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(outcome(bytes.as_bytes()), Ok(Reading::Undecided), "{bytes:?}");
    }
    for bytes in ["PROXY ", "PROXY TCP4", "\r\n\r\n\0\r\nQUIT\n", "\r\n\r\n\0\r\nQUIT\n\x21\x11"] {
        assert_eq!(outcome(bytes.as_bytes()), Ok(Reading::Begun), "{bytes:?}");
    }
}

#[test]
fn headers_of_version_2() {
    let expected = Some(ends("192.0.2.1:51000", "198.51.100.2:443"));
    assert_eq!(whole(&v2(0x21, 0x11, INET_BLOCK)).ends, expected);
    assert_eq!(whole(&v2(0x21, 0x12, INET_BLOCK)).ends, expected, "a datagram's ends");
    let six: Vec<u8> = (0..32).chain([1, 2, 3, 4]).collect();
    let header = whole(&v2(0x21, 0x21, &six));
    assert_eq!(
        header.ends,
        Some(ends("[1:203:405:607:809:a0b:c0d:e0f]:258", "[1011:1213:1415:1617:1819:1a1b:1c1d:1e1f]:772"))
    );
    for (family, block) in [(0x00, &[][..]), (0x01, &[]), (0x10, INET_BLOCK), (0x31, &[0; 216])] {
        assert_eq!(whole(&v2(0x21, family, block)).ends, None, "{family:x}");
    }
    // The whole block of LOCAL is skipped, whatever it says.
    for (family, block) in [(0x00, &[][..]), (0x11, INET_BLOCK), (0xff, &[1, 2, 3])] {
        let header = whole(&v2(0x20, family, block));
        assert_eq!((header.ends, header.tlvs), (None, Span::default()), "{family:x}");
    }
}

#[test]
fn tlvs_are_kept_but_for_checksum_and_padding() {
    let kept = [tlv(1, b"h2"), tlv(2, b"example.com"), tlv(0x20, &[1, 0, 0, 0, 0]), tlv(0xea, &[])].concat();
    let block = [INET_BLOCK, &tlv(4, &[0; 9]), &kept, &tlv(4, &[])].concat();
    for header in [v2(0x21, 0x11, &block), summed(0x11, &block)] {
        let tlvs = whole(&header).tlvs;
        assert_eq!(passed_on(tlvs.of(&header)).collect::<Vec<_>>().concat(), kept);
    }
    let header = v2(0x21, 0x00, &kept);
    assert_eq!(whole(&header).tlvs.of(&header), kept);
}

#[test]
fn wrong_headers_of_version_2() {
    let block = |tlvs: &[u8]| [INET_BLOCK, tlvs].concat();
    let mut bad_sum = summed(0x11, &block(&tlv(5, b"id")));
    bad_sum[17] ^= 1;
    for (what, header) in [
        ("version 1", v2(0x11, 0x11, INET_BLOCK)),
        ("version 3", v2(0x31, 0x11, INET_BLOCK)),
        ("command 2", v2(0x22, 0x11, INET_BLOCK)),
        ("family 4", v2(0x21, 0x41, INET_BLOCK)),
        ("transport 3", v2(0x21, 0x13, INET_BLOCK)),
        ("no address", v2(0x21, 0x11, &[])),
        ("a byte too few", v2(0x21, 0x11, &INET_BLOCK[..11])),
        ("IPv4 as IPv6", v2(0x21, 0x21, INET_BLOCK)),
        ("half a TLV", v2(0x21, 0x11, &block(&[1]))),
        ("a TLV beyond the end", v2(0x21, 0x11, &block(&[1, 0, 2, 0]))),
        ("the longest TLV", v2(0x21, 0x11, &block(&[1, 0xff, 0xff, 0]))),
        ("a wrong checksum", bad_sum),
        ("a short checksum", v2(0x21, 0x11, &block(&tlv(3, &[0; 3])))),
        ("two checksums", summed(0x11, &block(&tlv(3, &[0; 4])))),
    ] {
        assert_eq!(outcome(&header), Err(CloseReason::ProxyHeaderInvalid), "{what}");
    }
}

#[test]
fn the_longest_header_of_version_2() {
    let of = |len: usize| v2(0x21, 0x11, &[INET_BLOCK, &tlv(0xe0, &vec![0; len - 16 - 12 - 3])].concat());
    assert_eq!(whole(&of(PROXY_V2_BYTES)).len, PROXY_V2_BYTES);
    assert_eq!(outcome(&of(PROXY_V2_BYTES + 1)), Err(CloseReason::ProxyHeaderTooLarge));
    // Refused by what it announces, LOCAL too.
    for command in [0x20, 0x21] {
        let announced = [v2::SIGNATURE, &[command, 0x11, 0xff, 0xff]].concat();
        assert_eq!(outcome(&announced), Err(CloseReason::ProxyHeaderTooLarge));
    }
}

#[test]
fn written_headers() {
    let mut to = [0; 256];
    let mut written = |version, ends: Option<&Ends>, tlvs: &[u8]| {
        let n = write(version, ends, tlvs, &mut to).unwrap();
        to[..n].to_vec()
    };
    let four = ends("192.0.2.1:51000", "198.51.100.2:443");
    assert_eq!(written(Version::V1, Some(&four), &[]), b"PROXY TCP4 192.0.2.1 198.51.100.2 51000 443\r\n");
    assert_eq!(written(Version::V1, None, &[]), b"PROXY UNKNOWN\r\n");
    assert_eq!(written(Version::V2, Some(&four), &[]), v2(0x21, 0x11, INET_BLOCK));
    assert_eq!(written(Version::V2, None, &[]), v2(0x20, 0, &[]));
    let mixed = ends("192.0.2.1:1", "[::1]:2");
    assert_eq!(written(Version::V1, Some(&mixed), &[]), b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
    assert_eq!(write(Version::V1, Some(&four), &[], &mut [0; 20]), None);
    assert_eq!(write(Version::V2, Some(&four), &[], &mut [0; 27]), None);
    assert_eq!(write(Version::V2, Some(&four), &tlv(1, b"h2"), &mut [0; 32]), None);
}

fn any_address(v6: bool) -> impl Strategy<Value = SocketAddress> {
    (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(bytes, port)| {
        let ip =
            if v6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) };
        SocketAddress::new(ip, port)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (source, destination) in any::<bool>().prop_flat_map(|v6| (any_address(v6), any_address(v6))),
        tlvs in prop::collection::vec((5u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let ends = Ends { source, destination };
        let tlvs = tlvs.iter().map(|(kind, value)| tlv(*kind, value)).collect::<Vec<_>>().concat();
        for version in [Version::V1, Version::V2] {
            let mut to = [0; 512];
            let n = write(version, Some(&ends), &tlvs, &mut to).unwrap();
            let header = whole(&to[..n]);
            prop_assert_eq!(header.ends, Some(ends));
            if version == Version::V2 {
                prop_assert_eq!(header.tlvs.of(&to[..n]), &tlvs[..]);
            }
        }
    }

    #[test]
    fn no_bytes_are_read_in_two_ways(
        command in prop::sample::select(vec![0x20u8, 0x21, 0x21, 0x21, 0x22]),
        family in prop::sample::select(vec![0x00u8, 0x11, 0x12, 0x21, 0x31, 0x13]),
        block in prop::collection::vec(any::<u8>(), 0..64),
        behind in prop::collection::vec(any::<u8>(), 0..8),
        cut in 0usize..96,
    ) {
        let mut bytes = [v2(command, family, &block), behind].concat();
        let _ = outcome(&bytes);
        bytes.truncate(cut);
        let _ = outcome(&bytes);
    }
}

/// Neither version has a word for a client without an address that a TCP connection could have.
#[test]
fn an_end_on_a_unix_socket_is_not_written() {
    let ends = Ends { source: SocketAddress::UNIX, destination: SocketAddress::UNIX };
    for version in [Version::V1, Version::V2] {
        let (mut with, mut without) = ([0; 64], [0; 64]);
        assert_eq!(write(version, Some(&ends), b"", &mut with), write(version, None, b"", &mut without));
        assert_eq!(with, without);
    }
}
