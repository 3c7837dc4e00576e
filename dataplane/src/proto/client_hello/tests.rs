//! Hellos of real clients and made ones: every cut of them, in pieces and in records, and every way to be wrong.

use super::*;
use proptest::prelude::*;

/// Captured from OpenSSL 3.0 (`s_client`, and `-max_send_frag 512`), curl 7.88 and Python 3.11.
const CAPTURED: &[(&str, &[u8], Option<&str>, usize)] = &[
    ("tls 1.3", include_bytes!("../../../tests/cases/hellos/openssl-tls13.bin"), Some("one.example.com"), 0),
    (
        "tls 1.2",
        include_bytes!("../../../tests/cases/hellos/openssl-tls12-alpn.bin"),
        Some("two.example.com"),
        2,
    ),
    ("no name", include_bytes!("../../../tests/cases/hellos/openssl-no-name.bin"), None, 0),
    (
        "three records",
        include_bytes!("../../../tests/cases/hellos/openssl-fragmented.bin"),
        Some("frag.example.com"),
        20,
    ),
    ("curl", include_bytes!("../../../tests/cases/hellos/curl.bin"), Some("curl.example.com"), 2),
    ("python", include_bytes!("../../../tests/cases/hellos/python.bin"), Some("db.example.com"), 1),
];

fn vector(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(data)].concat()
}

/// A ServerNameList of names with their types.
fn names(list: &[(u8, &str)]) -> Vec<u8> {
    vector(
        &list
            .iter()
            .flat_map(|(kind, name)| [vec![*kind], vector(name.as_bytes())].concat())
            .collect::<Vec<_>>(),
    )
}

fn server_name(name: &str) -> Vec<u8> {
    extension(SERVER_NAME, &names(&[(HOST_NAME, name)]))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list = protocols.iter().flat_map(|p| [&[u8::try_from(p.len()).unwrap()], *p].concat());
    extension(ALPN, &vector(&list.collect::<Vec<_>>()))
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[CLIENT_HELLO], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], body].concat()
}

/// A hello with these extensions.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let front = [&[3, 3][..], &[7; 32], &[0], &vector(&[0x13, 1, 0x13, 2]), &[1, 0]].concat();
    message(&[front, vector(&extensions.concat())].concat())
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, MAJOR, 1], &vector(fragment)[..]].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

type Outcome = Result<Option<(Option<String>, Vec<Vec<u8>>)>, CloseReason>;

/// What comes of `bytes` when so many are there at each time.
fn in_pieces(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Outcome {
    let (mut scan, mut message) = (Scan::default(), Vec::new());
    for end in ends.into_iter().chain([bytes.len()]) {
        if let Some(hello) = read(&bytes[..end], &mut scan, &mut message)? {
            let name = hello.name(&message).map(|name| String::from_utf8(name.to_vec()).unwrap());
            return Ok(Some((name, hello.protocols(&message).map(<[u8]>::to_vec).collect())));
        }
    }
    Ok(None)
}

/// The outcome, the same however the bytes are cut in two, and byte by byte.
#[track_caller]
fn outcome(bytes: &[u8]) -> Outcome {
    let whole = in_pieces(bytes, []);
    for split in 0..bytes.len() {
        assert_eq!(in_pieces(bytes, [split]), whole, "cut at {split}");
    }
    assert_eq!(in_pieces(bytes, 0..bytes.len()), whole, "byte by byte");
    whole
}

#[track_caller]
fn name_of(extensions: &[Vec<u8>]) -> Option<String> {
    outcome(&record(&hello(extensions))).unwrap().expect("a whole hello").0
}

#[test]
fn hellos_of_real_clients() {
    for (what, bytes, name, protocols) in CAPTURED {
        let (got, list) = outcome(bytes).unwrap().expect("a whole hello");
        assert_eq!((got.as_deref(), list.len()), (*name, *protocols), "{what}");
        // In records of other sizes, and with data of the client's behind it.
        let mut message = Vec::new();
        read(bytes, &mut Scan::default(), &mut message).unwrap();
        for size in [1, 2, 3, 4, 5, 100] {
            let mut cut = records(&message, size);
            assert_eq!(in_pieces(&cut, []), Ok(Some((got.clone(), list.clone()))), "{what}, {size}");
            cut.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
            assert_eq!(outcome(&cut), Ok(Some((got.clone(), list.clone()))), "{what}, {size}");
        }
        for end in 0..bytes.len() {
            assert_eq!(in_pieces(&bytes[..end], []), Ok(None), "{what}, up to {end}");
        }
    }
}

#[test]
fn names_are_put_in_their_normal_form() {
    assert_eq!(name_of(&[server_name("WWW.Example.COM.")]).as_deref(), Some("www.example.com"));
    assert_eq!(name_of(&[]), None);
    assert_eq!(name_of(&[server_name("192.0.2.1")]), None, "an address is no name");
    // A type of name that is yet to be invented, beside the one that we know.
    let both = extension(SERVER_NAME, &names(&[(9, "x"), (HOST_NAME, "a.example")]));
    assert_eq!(name_of(&[both]).as_deref(), Some("a.example"));
    assert_eq!(name_of(&[extension(SERVER_NAME, &names(&[(9, "x")]))]), None);
}

#[test]
fn unknown_extensions_and_grease_pass() {
    let grease = [extension(0x0a0a, &[]), extension(0xfafa, &[0]), extension(0xfe0d, &[1; 300])].concat();
    let protocols: &[&[u8]] = &[&[0x1a, 0x1a], b"h2", b"http/1.1"];
    let bytes = record(&hello(&[grease.clone(), alpn(protocols), server_name("a.example"), grease]));
    let (name, list) = outcome(&bytes).unwrap().unwrap();
    assert_eq!(name.as_deref(), Some("a.example"));
    assert_eq!(list, protocols);
    // No extensions at all, as clients of TLS 1.0 did it.
    let bare = message(&[&[3, 1][..], &[7; 32], &[0], &vector(&[0, 5]), &[1, 0]].concat());
    assert_eq!(outcome(&record(&bare)), Ok(Some((None, Vec::new()))));
}

#[test]
fn what_is_not_tls_is_known_by_its_first_wrong_byte() {
    for (bytes, at) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 1),
        // A hello of SSL 2.0: two bytes of length, type 1, version.
        (b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", 1),
        (b"\x17\x03\x03\0\x10", 1),
        (b"\x15\x03\x01\0\x02\x02\x28", 1),
        (b"\x16\x02\0\0\x10", 2),
        (b"\x16\xfe\xff\0\0", 2),
        (b"\x16\x03\x01\0\0", 5),
        (b"\x16\x03\x01\x40\x01", 5),
        (b"\x16\x03\x01\0\x04\x02\0\0\0", 6),
    ] {
        assert_eq!(outcome(bytes), Err(CloseReason::NotTls), "{}", bytes.escape_ascii());
        assert_eq!(outcome(&bytes[..at - 1]), Ok(None), "{}", bytes.escape_ascii());
        assert_eq!(outcome(&bytes[..at]), Err(CloseReason::NotTls), "{}", bytes.escape_ascii());
    }
}

#[test]
fn malformed_hellos() {
    let front = |version: u8, id: &[u8], suites: &[u8], compression: &[u8]| {
        let short = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
        [&[version, 3][..], &[7; 32], &short(id), &vector(suites), &short(compression)].concat()
    };
    let good = front(3, &[], &[0x13, 1], &[0]);
    let long_label = format!("{}.example", "a".repeat(64));
    for (what, wrong) in [
        ("empty", message(&[])),
        ("version 2", message(&front(2, &[], &[0x13, 1], &[0]))),
        ("a long id", message(&front(3, &[0; 33], &[0x13, 1], &[0]))),
        ("no suites", message(&front(3, &[], &[], &[0]))),
        ("half a suite", message(&front(3, &[], &[0x13, 1, 2], &[0]))),
        ("no compression", message(&front(3, &[], &[0x13, 1], &[]))),
        ("half a length", message(&[good.clone(), vec![0]].concat())),
        ("extensions that end early", message(&[good.clone(), vec![0, 0, 0]].concat())),
        ("extensions that end late", message(&[good.clone(), vec![0, 4, 0, 0, 0]].concat())),
        ("half an extension", hello(&[vec![0, 0, 0]])),
        ("an extension beyond the end", hello(&[vec![0x0a, 0x0a, 0, 1]])),
        ("two names", hello(&[server_name("a.example"), server_name("a.example")])),
        ("two names in one list", hello(&[extension(0, &names(&[(0, "a"), (0, "b")]))])),
        ("an empty extension of names", hello(&[extension(0, &[])])),
        ("an empty list of names", hello(&[extension(0, &vector(&[]))])),
        ("bytes behind the names", hello(&[extension(0, &[names(&[(0, "a")]), vec![0]].concat())])),
        ("an empty name", hello(&[server_name("")])),
        ("a name with NUL", hello(&[server_name("a.example\0.evil")])),
        ("a name with a port", hello(&[server_name("a.example:443")])),
        ("a pattern", hello(&[server_name("*.example")])),
        ("an IPv6 address", hello(&[server_name("::1")])),
        ("a long label", hello(&[server_name(&long_label)])),
        ("two lists of protocols", hello(&[alpn(&[b"h2"]), alpn(&[b"h2"])])),
        ("no protocols", hello(&[alpn(&[])])),
        ("an empty protocol", hello(&[alpn(&[b"h2", b""])])),
        ("a protocol beyond the end", hello(&[extension(ALPN, &vector(&[3, b'h', b'2']))])),
        ("a second record that is an alert", Vec::new()),
    ] {
        let bytes = if wrong.is_empty() {
            [record(&hello(&[])[..9]), vec![21, 3, 3, 0, 2, 2, 40]].concat()
        } else {
            record(&wrong)
        };
        assert_eq!(outcome(&bytes), Err(CloseReason::ClientHelloInvalid), "{what}");
    }
}

#[test]
fn the_longest_hello() {
    let padded =
        |len: usize| hello(&[extension(0x1234, &vec![0; len - hello(&[extension(0x1234, &[])]).len()])]);
    let message = padded(CLIENT_HELLO_BYTES - RECORD_HEADER);
    assert_eq!(in_pieces(&records(&message, RECORD_MAX), []), Ok(Some((None, Vec::new()))));
    // One byte more, or one record more.
    let longer = padded(CLIENT_HELLO_BYTES - RECORD_HEADER + 1);
    for bytes in [records(&longer, RECORD_MAX), records(&message, RECORD_MAX / 2)] {
        assert_eq!(in_pieces(&bytes, []), Err(CloseReason::ClientHelloTooLarge));
        assert_eq!(in_pieces(&bytes, 0..bytes.len()), Err(CloseReason::ClientHelloTooLarge));
    }
    // Refused by what it announces, and however small its records are.
    let announced = record(&[CLIENT_HELLO, 0xff, 0xff, 0xff]);
    assert_eq!(outcome(&announced), Err(CloseReason::ClientHelloTooLarge));
    let tiny = records(&padded(8000), 1);
    assert_eq!(in_pieces(&tiny, 0..tiny.len()), Err(CloseReason::ClientHelloTooLarge));
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_hello(
        which in 0..CAPTURED.len(),
        size in 1usize..600,
        mut ends in prop::collection::vec(0usize..3000, 0..12),
        flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut message = Vec::new();
        read(CAPTURED[which].1, &mut Scan::default(), &mut message).unwrap();
        let mut bytes = records(&message, size);
        if let Some((at, with)) = flip {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        ends.retain(|end| *end <= bytes.len());
        ends.sort_unstable();
        prop_assert_eq!(in_pieces(&bytes, ends), in_pieces(&bytes, []));
    }
}
