//! Connections of a tcp listener that are routed by their ClientHello: however it comes, whole and unchanged to the right
//! endpoint, or closed with the reason.

use crate::bed::{Bed, millis, say, seconds, wait};
use dataplane::limits::CLIENT_HELLO_BYTES;
use dataplane::sim::peers::{Act, Ended};
use dataplane::spec::{Cluster, ClusterId, Listener, Match};
use std::sync::Arc;

/// Asks for one.example.com.
const ONE: &[u8] = include_bytes!("../cases/hellos/openssl-tls13.bin");
/// Asks for frag.example.com, with many protocols, in three records.
const FRAGMENTED: &[u8] = include_bytes!("../cases/hellos/openssl-fragmented.bin");
const NAMELESS: &[u8] = include_bytes!("../cases/hellos/openssl-no-name.bin");
/// Asks for curl.example.com; offers h2 and http/1.1.
const CURL: &[u8] = include_bytes!("../cases/hellos/curl.bin");

fn sni(names: &[&str]) -> Match {
    Match { sni: names.iter().map(|name| Arc::from(*name)).collect(), ..Match::default() }
}
fn alpn(name: &str) -> Match {
    Match { alpn: vec![name.into()], ..Match::default() }
}
fn not(matcher: Match) -> Match {
    Match { not: Some(Box::new(matcher)), ..Match::default() }
}

/// The first bytes may take this long; everything else is as the bed has it.
fn timed(listener: &mut Listener, _: &mut Cluster) {
    listener.timeouts.request_header = seconds(10);
}

/// Which origin got the whole of `sent`, by a client that does `script`.
fn origin_of(matcher: Match, sent: &[u8], script: Vec<Act>) -> Option<u8> {
    let mut bed = Bed::with_routes([matcher], timed);
    bed.io.world.script = vec![wait(millis(500)), say("server"), Act::Finish];
    let client = bed.client(script);
    bed.run_for(seconds(2));
    let got = [0, 1].map(|n| bed.accepted(n));
    let (origin, link) = match (&got[0][..], &got[1][..]) {
        ([link], []) => (0, *link),
        ([], [link]) => (1, *link),
        ([], []) => return None,
        _ => panic!("one connection, not {got:?}"),
    };
    assert!(bed.end(link).received == sent, "{} bytes, not {}", bed.end(link).received.len(), sent.len());
    assert_eq!(bed.told(client), "server(end)");
    bed.run_for(seconds(1));
    assert_eq!(bed.counted(), "tunnel_ended");
    bed.check_empty();
    let records = bed.records();
    let expected = format!("endpoint 0 attempts 1 connected up {} down 6", sent.len());
    assert!(records.len() == 1 && records[0].starts_with(&expected), "{records:?}");
    Some(origin)
}

#[test]
fn a_hello_chooses_the_endpoint_and_goes_on_unchanged() {
    let last = format!("protocol-019-{}", "x".repeat(40));
    for (matcher, bytes, origin) in [
        (sni(&["one.example.com"]), ONE, 1),
        (sni(&["x.example", "*.example.com"]), ONE, 1),
        (sni(&["example.com"]), ONE, 0),
        (sni(&["*.example.com"]), FRAGMENTED, 1),
        (alpn(&last), FRAGMENTED, 1),
        (sni(&["*.example.com"]), NAMELESS, 0),
        (alpn("h2"), CURL, 1),
        (alpn("h3"), CURL, 0),
        (not(sni(&["*.example.com"])), CURL, 0),
        (not(sni(&["*.example.com"])), NAMELESS, 1),
    ] {
        let early = [bytes, &[23, 3, 3, 0, 2, 1, 2]].concat();
        for sent in [bytes.to_vec(), early] {
            assert_eq!(origin_of(matcher.clone(), &sent, vec![say(&sent)]), Some(origin), "{matcher:?}");
        }
    }
}

#[test]
fn every_cut_of_a_hello() {
    for split in 1..ONE.len() {
        let script = vec![say(&ONE[..split]), wait(millis(1)), say(&ONE[split..])];
        assert_eq!(origin_of(sni(&["one.example.com"]), ONE, script), Some(1), "cut at {split}");
    }
}

#[test]
fn a_hello_byte_by_byte() {
    for bytes in [ONE, FRAGMENTED] {
        let script = bytes.iter().flat_map(|byte| [say([*byte]), wait(millis(1))]).collect();
        assert_eq!(origin_of(sni(&["*.example.com"]), bytes, script), Some(1));
    }
}

/// A well-formed hello of `len` bytes in one record.
fn padded(len: usize) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let front = [&[3, 3][..], &[7; 32], &[0, 0, 4, 0x13, 1, 0x13, 2, 1, 0]].concat();
    let padding = vec![0; len - 5 - 4 - front.len() - 2 - 4];
    let extensions = vector(&[&[0x12, 0x34][..], &vector(&padding)].concat());
    let body = [front, extensions].concat();
    let message = [&[1], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], &body].concat();
    let bytes = [&[22, 3, 1], &vector(&message)[..]].concat();
    assert_eq!(bytes.len(), len);
    bytes
}

#[test]
fn the_longest_hello() {
    let longest = padded(CLIENT_HELLO_BYTES);
    for step in [CLIENT_HELLO_BYTES, 3000, 100] {
        let script = longest.chunks(step).flat_map(|piece| [say(piece), wait(millis(1))]).collect();
        assert_eq!(origin_of(sni(&["a.example"]), &longest, script), Some(0), "in steps of {step}");
    }
    assert_eq!(closed(vec![say(padded(CLIENT_HELLO_BYTES + 1))]), "client_hello_too_large");
}

/// How a connection ends that reaches no endpoint: its counter, which is also its record's word.
fn closed(script: Vec<Act>) -> String {
    let mut bed = Bed::with_routes([sni(&["one.example.com"])], timed);
    let client = bed.client(script);
    bed.run_until("an end", |bed| !bed.counted().is_empty());
    assert!(bed.accepted(0).is_empty() && bed.accepted(1).is_empty(), "nobody was connected to");
    bed.check_empty();
    assert!(["(cut)", "(end)", ""].contains(&bed.told(client).as_str()), "{}", bed.told(client));
    let (counted, records) = (bed.counted(), bed.records());
    assert!(records.len() == 1 && records[0].ends_with(&format!("- {counted}")), "{records:?}, {counted}");
    counted
}

#[test]
fn what_is_no_hello_is_closed() {
    for (script, reason) in [
        (vec![say("GET / HTTP/1.1\r\n\r\n")], "not_tls"),
        (vec![say(b"\x80\x2e\x01\x03\x01")], "not_tls"),
        (vec![say(b"\x16\x03\x01\0\x10\x02")], "not_tls"),
        (vec![say([&ONE[..9], &[0; 400]].concat())], "client_hello_invalid"),
        (vec![say(b"\x16\x03\x01\0\x04\x01\xff\xff\xff")], "client_hello_too_large"),
        (vec![say(&ONE[..100]), Act::Finish], "client_aborted"),
        (vec![wait(millis(5)), Act::Finish], "client_closed"),
        (vec![say(&ONE[..100]), wait(millis(5)), Act::Reset], "client_reset"),
        // Nothing, too little, and a byte now and then.
        (vec![wait(seconds(30))], "silent_timeout"),
        (vec![say(&ONE[..ONE.len() - 1]), wait(seconds(30))], "client_hello_timeout"),
        (ONE.iter().flat_map(|b| [say([*b]), wait(millis(900))]).collect(), "client_hello_timeout"),
    ] {
        assert_eq!(closed(script), reason);
    }
}

#[test]
fn a_hello_has_one_deadline_from_accept_on() {
    let mut bed = Bed::with_routes([sni(&["one.example.com"])], timed);
    let began = bed.now();
    let drip = ONE.iter().flat_map(|b| [say([*b]), wait(millis(900))]);
    let slow = bed.client(drip);
    bed.client([wait(millis(9_900)), say(ONE)]);
    bed.run_until("an end", |bed| bed.end(slow).ended_at.is_some());
    let took = bed.end(slow).ended_at.unwrap().since(began) / 1_000_000;
    assert!((10_000..10_100).contains(&took), "{took} ms");
    bed.run_for(seconds(1));
    assert_eq!(bed.accepted(1).len(), 1, "and one just in time");
}

#[test]
fn without_a_match_and_without_a_cluster_it_is_closed_with_the_reason() {
    let mut bed = Bed::with_routes([sni(&["two.example.com"])], |listener, cluster| {
        timed(listener, cluster);
        listener.cluster = None;
    });
    let client = bed.client([say(ONE)]);
    bed.run_until("an end", |bed| bed.end(client).ended.is_some());
    assert_eq!((bed.end(client).ended, bed.counted()), (Some(Ended::Broken), "no_route no_link".into()));
    assert!(bed.accepted(0).is_empty() && bed.accepted(1).is_empty());
    assert!(bed.records()[0].ends_with("no_route no_link"));
    bed.check_empty();
}

/// No route looks at a hello: the endpoint is connected to at once, whatever the client does.
#[test]
fn a_server_may_speak_first_where_no_route_asks_for_a_hello() {
    let source = Match {
        source: vec![dataplane::spec::Network { address: [192, 0, 2, 0].into(), prefix: 24 }],
        ..Match::default()
    };
    for (matchers, origin) in [(vec![], 0), (vec![source], 1)] {
        let mut bed = Bed::with_routes(matchers, |listener, _| listener.cluster = Some(ClusterId(0)));
        bed.io.world.script = vec![say("220 ready\r\n")];
        let client = bed.client([]);
        bed.run_until("the greeting", |bed| bed.told(client) == "220 ready\r\n");
        assert_eq!(bed.accepted(origin).len(), 1);
    }
}

#[test]
fn a_drain_lets_a_hello_come() {
    let mut bed = Bed::with_routes([sni(&["one.example.com"])], timed);
    let client = bed.client([say(&ONE[..50])]);
    bed.run_for(millis(20));
    bed.drain(seconds(5));
    bed.run_for(millis(20));
    bed.tell(client, [say(&ONE[50..])]);
    bed.run_for(millis(200));
    let link = bed.accepted(1)[0];
    assert!(bed.end(link).received == ONE);
}
