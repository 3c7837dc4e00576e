//! PROXY headers on a tcp listener: read before anything else, and sent before anything else.

use crate::bed::{Bed, listen_address, millis, say, seconds, wait};
use dataplane::proto::proxy_header::{Ends, Version, write};
use dataplane::proto::proxy_header::{Reading, read};
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Listener, Match, Network, ProxyProtocol, SendProxy};

const V1: &str = "PROXY TCP4 203.0.113.7 198.51.100.2 51000 443\r\n";
const HELLO: &[u8] = include_bytes!("../cases/hellos/openssl-tls13.bin");

fn accept(required: bool) -> impl Fn(&mut Listener, &mut Cluster) {
    move |listener, _| {
        let from = vec![Network { address: [192, 0, 2, 0].into(), prefix: 24 }];
        listener.proxy_protocol = Some(ProxyProtocol { required, from, from_unix: false });
        listener.timeouts.request_header = seconds(10);
    }
}

fn ends(source: &str, destination: &str) -> Ends {
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
    Ends { source: address(source), destination: address(destination) }
}

fn header(version: Version, ends: Option<Ends>, tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let n = write(version, ends.as_ref(), tlvs, &mut bytes).unwrap();
    bytes.truncate(n);
    bytes
}

/// What the one endpoint got, when the client did `script` and then both said farewell.
fn passed(bed: &mut Bed, script: Vec<Act>) -> Vec<u8> {
    bed.io.world.script = vec![say("server"), wait(millis(500)), Act::Finish];
    let client = bed.client(script);
    bed.run_for(seconds(2));
    assert_eq!((bed.told(client).as_str(), bed.counted().as_str()), ("server(end)", "tunnel_ended"));
    bed.check_empty();
    let links = [bed.accepted(0), bed.accepted(1)].concat();
    assert_eq!(links.len(), 1);
    bed.end(links[0]).received.clone()
}

#[test]
fn a_header_is_taken_off_and_names_the_client() {
    let told = ends("203.0.113.9:1", "198.51.100.2:443");
    for (header, client) in [
        (V1.as_bytes().to_vec(), [203, 0, 113, 7]),
        (header(Version::V2, Some(told), b"\x05\0\x02id"), [203, 0, 113, 9]),
        (header(Version::V2, None, &[]), [192, 0, 2, 1]),
    ] {
        let all = [&header, &b"bytes of its own"[..]].concat();
        let cut = |step: usize| all.chunks(step).flat_map(|p| [say(p), wait(millis(1))]).collect::<Vec<_>>();
        let apart = vec![say(&header), wait(millis(50)), say("bytes of its own")];
        for script in [vec![say(&all)], cut(1), cut(7), apart] {
            let mut bed = Bed::new(accept(true));
            bed.client = client.into();
            assert_eq!(passed(&mut bed, script), b"bytes of its own");
            let records = bed.records();
            assert!(records[0].contains(" up 16 down 6 "), "{records:?}: the header is not the client's");
        }
    }
}

/// With the header said the server may speak first, and a client that finishes at once is half-closed, not gone.
#[test]
fn behind_a_header_the_server_may_speak_first() {
    let mut bed = Bed::new(accept(true));
    bed.io.world.script = vec![say("220 ready\r\n"), wait(millis(100)), Act::Finish];
    bed.client = [203, 0, 113, 7].into();
    let client = bed.client([say(V1), Act::Finish]);
    bed.run_until("the end", |bed| bed.end(client).ended.is_some());
    assert_eq!(bed.told(client), "220 ready\r\n(end)");
    bed.check_empty();
    assert_eq!(bed.counted(), "tunnel_ended");
}

#[test]
fn an_optional_header() {
    for bytes in ["GET /", "PROX", "P", "PROXYx"] {
        let mut bed = Bed::new(accept(false));
        assert_eq!(passed(&mut bed, vec![say(bytes), Act::Finish]), bytes.as_bytes());
    }
    // From elsewhere it is not even looked for: the server speaks first, and the header is the client's own bytes.
    let mut bed = Bed::new(|listener, _| {
        let from = vec![Network { address: [10, 0, 0, 0].into(), prefix: 8 }];
        listener.proxy_protocol = Some(ProxyProtocol { required: false, from, from_unix: false });
    });
    assert_eq!(passed(&mut bed, vec![wait(millis(200)), say(V1)]), V1.as_bytes());
}

#[test]
fn what_is_wrong_is_closed_with_a_record() {
    let nobody = |listener: &mut Listener, _: &mut Cluster| {
        listener.proxy_protocol = Some(ProxyProtocol { required: true, from: Vec::new(), from_unix: false });
    };
    type Change = Box<dyn Fn(&mut Listener, &mut Cluster)>;
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    let cases: [(Change, Vec<Act>, &str); 8] = [
        (Box::new(accept(true)), vec![say("GET / HTTP/1.1\r\n")], "proxy_header_missing"),
        (Box::new(accept(true)), vec![say("PROXY TCP4 x\r\n")], "proxy_header_invalid"),
        (Box::new(accept(true)), vec![say(long)], "proxy_header_too_large"),
        (Box::new(accept(true)), vec![say("PROXY"), wait(seconds(30))], "proxy_header_timeout"),
        (Box::new(accept(true)), vec![wait(seconds(30))], "silent_timeout"),
        (Box::new(accept(true)), vec![say("PROXY"), Act::Finish], "client_aborted"),
        (Box::new(accept(false)), vec![say("PROXY \r\n")], "proxy_header_invalid"),
        (Box::new(nobody), vec![say(V1)], "proxy_peer_not_allowed"),
    ];
    for (change, script, reason) in cases {
        let mut bed = Bed::new(change);
        bed.client(script);
        bed.run_until("an end", |bed| !bed.counted().is_empty());
        bed.check_empty();
        assert!(bed.accepted(0).is_empty(), "{reason}");
        let records = bed.records();
        assert!(records.len() == 1 && records[0].ends_with(&format!("- {reason}")), "{records:?}");
        assert_eq!(bed.counted(), reason);
    }
}

/// The header's address decides: a route by `source`, and the name behind it.
#[test]
fn routes_see_the_address_of_the_header_and_the_hello_behind_it() {
    let source = |address: [u8; 4]| Match {
        source: vec![Network { address: address.into(), prefix: 32 }],
        ..Match::default()
    };
    let named = |name: &str| Match { sni: vec![name.into()], ..source([203, 0, 113, 7]) };
    for (matcher, own, origin) in [
        (source([203, 0, 113, 7]), &b"own"[..], 1),
        (source([192, 0, 2, 1]), b"own", 0),
        (named("one.example.com"), HELLO, 1),
        (named("two.example.com"), HELLO, 0),
    ] {
        for step in [1000, 1] {
            let mut bed = Bed::with_routes([matcher.clone()], accept(true));
            bed.client = [203, 0, 113, 7].into();
            let all = [V1.as_bytes(), own].concat();
            let script = all.chunks(step).flat_map(|p| [say(p), wait(millis(1))]).collect();
            assert_eq!(passed(&mut bed, script), own);
            assert_eq!(bed.accepted(origin).len(), 1, "{matcher:?}");
        }
    }
    // A header, and then no hello, or the beginning of one.
    for (bytes, word) in [(&b""[..], "silent_timeout"), (&HELLO[..9], "client_hello_timeout")] {
        let mut bed = Bed::with_routes([named("a.example")], accept(true));
        bed.client([say([V1.as_bytes(), bytes].concat()), wait(seconds(30))]);
        bed.run_until("an end", |bed| !bed.counted().is_empty());
        assert_eq!(bed.counted(), word);
    }
}

#[test]
fn a_link_begins_with_a_header_of_its_client() {
    for (send, version) in [(SendProxy::V1, Version::V1), (SendProxy::V2, Version::V2)] {
        let only_send = move |_: &mut Listener, cluster: &mut Cluster| cluster.send_proxy = Some(send);
        let both = move |listener: &mut Listener, cluster: &mut Cluster| {
            accept(true)(listener, cluster);
            only_send(listener, cluster);
        };
        // The client's own ends. Its port is the network's choice, so it is read back.
        let mut bed = Bed::new(only_send);
        let got = passed(&mut bed, vec![say("bytes")]);
        let bytes = &got[..got.len() - 5];
        let Ok(Reading::Whole(read)) = read(bytes) else { panic!("{}", got.escape_ascii()) };
        let told = read.ends.unwrap();
        assert_eq!((told.source.ip(), told.destination), (Some([192, 0, 2, 1].into()), listen_address()));
        assert_eq!(header(version, Some(told), &[]), bytes);
        // What a balancer said, with its TLVs, in front of the first bytes; and where no byte comes at all.
        let told = ends("[2001:db8::7]:1", "[2001:db8::1]:443");
        let tlvs = b"\x01\0\x02h2";
        for bytes in [&b"bytes"[..], b""] {
            let mut bed = Bed::new(both);
            bed.client = told.source.ip().unwrap();
            let said = [&header(Version::V2, Some(told), tlvs), bytes].concat();
            let got = passed(&mut bed, vec![say(said)]);
            let kept = if version == Version::V2 { &tlvs[..] } else { &[] };
            assert_eq!(got, [&header(version, Some(told), kept), bytes].concat());
        }
    }
}

/// A header that names nobody of the internet leaves the peer's own address. Its TLVs go on behind that, but for those of LOCAL,
/// which the protocol has receivers discard.
#[test]
fn the_tlvs_of_a_header_without_addresses_go_on() {
    let tlvs = b"\x02\0\x04a.de\x04\0\x01x";
    let (local, proxy, unspec, unix) = (0x20, 0x21, 0x00, 0x31);
    for (command, family, addresses, kept) in [
        (proxy, unspec, 0, &tlvs[..7]),
        (proxy, unix, 216, &tlvs[..7]),
        (local, unspec, 0, &[]),
        (local, unix, 216, &[]),
    ] {
        let mut bed = Bed::new(|listener, cluster| {
            accept(true)(listener, cluster);
            cluster.send_proxy = Some(SendProxy::V2);
        });
        let block = [&vec![0; addresses], &tlvs[..]].concat();
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let said = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, &block, b"bytes"].concat();
        let got = passed(&mut bed, vec![say(said)]);
        let Ok(Reading::Whole(header)) = read(&got) else { panic!("{}", got.escape_ascii()) };
        let told = header.ends.unwrap();
        assert_eq!((told.source.ip(), told.destination), (Some([192, 0, 2, 1].into()), listen_address()));
        assert_eq!(
            (header.tlvs.of(&got), &got[header.len..]),
            (kept, &b"bytes"[..]),
            "{command:x} {family:x}"
        );
    }
}
