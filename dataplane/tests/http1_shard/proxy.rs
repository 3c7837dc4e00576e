//! PROXY headers through a whole shard: who is believed, what ends a connection, and what endpoints are told.

use crate::bed::{Bed, millis, say, seconds, wait};
use dataplane::fault::CloseReason;
use dataplane::limits::{PROXY_V1_BYTES, PROXY_V2_BYTES};
use dataplane::proto::proxy_header::{Ends, Reading, Version, passed_on, read, write};
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, ForwardedMode, Listener, Network, ProxyProtocol, SendProxy};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 203.0.113.7 198.51.100.2 51000 443\r\n";
/// The bed's clients connect from 192.0.2.1.
const CLIENTS: &str = "192.0.2.0";

fn network(address: &str, prefix: u8) -> Network {
    Network { address: address.parse().expect("an address"), prefix }
}

fn accept(required: bool) -> impl Fn(&mut Listener, &mut Cluster) {
    move |listener, _| {
        listener.proxy_protocol =
            Some(ProxyProtocol { required, from: vec![network(CLIENTS, 24)], from_unix: false });
    }
}

fn v2(ends: Option<(&str, &str)>, tlvs: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address").into();
    let ends =
        ends.map(|(source, destination)| Ends { source: address(source), destination: address(destination) });
    let mut bytes = vec![0; PROXY_V2_BYTES * 2];
    let n = write(Version::V2, ends.as_ref(), tlvs, &mut bytes).expect("room");
    bytes.truncate(n);
    bytes
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("a short value").to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// What the client is told, what the origin is told of it, and what is counted.
fn ask(change: impl FnOnce(&mut Listener, &mut Cluster), script: Vec<Act>) -> (String, Vec<String>, String) {
    let mut bed = Bed::new(change);
    let client = bed.client(script);
    bed.run_script(client);
    let told = bed.told(client);
    let requests = bed.io.world.requests.iter();
    let named = requests.map(|(_, m)| m.field("x-forwarded-for").unwrap_or("nobody").to_owned()).collect();
    bed.leave(client);
    bed.check_empty().expect("nothing is left");
    (told, named, bed.counted())
}

/// One byte at a time.
fn dripping(bytes: &[u8]) -> Vec<Act> {
    bytes.iter().flat_map(|b| [say([*b]), wait(millis(1))]).collect()
}

#[test]
fn the_client_is_who_the_header_says() {
    let six = v2(Some(("[2001:db8::7]:1", "[2001:db8::1]:443")), &tlv(0x20, b"anything"));
    for (what, header, client) in [
        ("version 1", V1.as_bytes().to_vec(), "203.0.113.7"),
        ("version 2", v2(Some(("203.0.113.8:1", "198.51.100.2:443")), &[]), "203.0.113.8"),
        ("version 2, IPv6, a TLV", six, "2001:db8::7"),
        ("LOCAL", v2(None, &[]), "192.0.2.1"),
        ("UNKNOWN", b"PROXY UNKNOWN 1 2 3\r\n".to_vec(), "192.0.2.1"),
    ] {
        for required in [true, false] {
            let want = ("200".to_owned(), vec![client.to_owned()], "client_closed".to_owned());
            let all = [&header, GET.as_bytes()].concat();
            let apart = vec![say(&header), wait(millis(50)), say(GET), wait(millis(50))];
            for script in [vec![say(&all), wait(millis(50))], dripping(&all), apart] {
                assert_eq!(ask(accept(required), script), want, "{what}, required: {required}");
            }
            // It holds for every request of the connection.
            let script = vec![say(&all), wait(millis(50)), say(GET), wait(millis(50))];
            let (told, named, _) = ask(accept(required), script);
            assert_eq!((told.as_str(), named), ("200 200", vec![client.to_owned(); 2]), "{what}");
        }
    }
}

#[test]
fn every_cut_of_a_header_and_a_request() {
    for header in [V1.as_bytes().to_vec(), v2(Some(("203.0.113.7:1", "198.51.100.2:443")), &tlv(5, b"id"))] {
        let all = [&header, GET.as_bytes()].concat();
        for split in 1..all.len() {
            let script = vec![say(&all[..split]), wait(millis(5)), say(&all[split..]), wait(millis(50))];
            let (told, named, counted) = ask(accept(true), script);
            let got = (told.as_str(), named.join(" "), counted.as_str());
            assert_eq!(got, ("200", "203.0.113.7".to_owned(), "client_closed"), "cut at {split}");
        }
    }
}

#[test]
fn a_wrong_or_missing_header_closes_in_silence() {
    let block = |len: usize| v2(Some(("1.1.1.1:1", "2.2.2.2:2")), &tlv(0xe0, &vec![0; len - 16 - 12 - 3]));
    let mut sum = v2(Some(("1.1.1.1:1", "2.2.2.2:2")), &tlv(3, &[1, 2, 3, 4]));
    sum.extend_from_slice(GET.as_bytes());
    let long = format!("PROXY UNKNOWN {}", "x".repeat(PROXY_V1_BYTES));
    let missing = [GET.as_bytes(), b"\x16\x03\x01\x02\0", b"\0", b"\r\n\r\nGET"];
    let invalid =
        [&b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n"[..], b"PROXY \r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", &sum];
    let large = [long.as_bytes(), &block(PROXY_V2_BYTES + 1)];
    for (all, reason) in [
        (&missing[..], CloseReason::ProxyHeaderMissing),
        (&invalid[..], CloseReason::ProxyHeaderInvalid),
        (&large[..], CloseReason::ProxyHeaderTooLarge),
    ] {
        for bytes in all {
            for script in [vec![say(bytes), wait(millis(50))], dripping(&bytes[..bytes.len().min(200)])] {
                if script.len() > 2 && bytes.len() > 200 {
                    continue;
                }
                let (told, named, counted) = ask(accept(true), script);
                assert!(told == " (end)" || told == " (cut)", "{told:?} to {}", bytes.escape_ascii());
                assert_eq!((named.len(), counted.as_str()), (0, reason.name()), "{}", bytes.escape_ascii());
            }
        }
    }
    let (told, _, _) =
        ask(accept(true), vec![say([block(PROXY_V2_BYTES), GET.into()].concat()), wait(millis(50))]);
    assert_eq!(told, "200", "the longest header");
}

/// A header that was begun is a header, optional or not; what is none is the client's own.
#[test]
fn an_optional_header() {
    let (told, named, counted) = ask(accept(false), vec![say(GET), wait(millis(50))]);
    assert_eq!(
        (told.as_str(), named.join(" ").as_str(), counted.as_str()),
        ("200", "192.0.2.1", "client_closed")
    );
    let find = "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (told, named, _) = ask(accept(false), dripping(find.as_bytes()));
    assert_eq!((told.as_str(), named.len()), ("200", 1), "a method that begins alike");
    let (told, _, counted) =
        ask(accept(false), vec![say("PROXY / HTTP/1.1\r\nHost: a\r\n\r\n"), wait(millis(50))]);
    assert!(["(end)", "(cut)"].contains(&told.trim_start()), "{told:?}");
    assert_eq!(counted, "proxy_header_invalid");
    // "PR" and an end is neither a header nor a request.
    let (_, _, counted) = ask(accept(false), vec![say("PR"), Act::Finish, wait(millis(50))]);
    assert_eq!(counted, "client_aborted");
}

#[test]
fn a_second_header_is_a_bad_request() {
    let (told, named, counted) = ask(accept(true), vec![say([V1, V1, GET].concat()), wait(millis(50))]);
    assert_eq!((told.as_str(), named.len()), ("400 (end)", 0));
    assert_eq!(counted, "bad_request_line refused");
}

#[test]
fn only_from_its_networks() {
    let elsewhere = |required| {
        move |listener: &mut Listener, _: &mut Cluster| {
            let from = vec![network("10.0.0.0", 8), network("192.0.2.2", 32)];
            listener.proxy_protocol = Some(ProxyProtocol { required, from, from_unix: false });
        }
    };
    for sent in [[V1, GET].concat(), GET.to_owned()] {
        let (told, named, counted) = ask(elsewhere(true), vec![say(&sent), wait(millis(50))]);
        assert!(told == " (end)" || told == " (cut)", "{told:?}");
        assert_eq!((named.len(), counted.as_str()), (0, "proxy_peer_not_allowed"));
    }
    // Optional: not read as a header, so a request, and a bad one.
    let (told, named, counted) = ask(elsewhere(false), vec![say([V1, GET].concat()), wait(millis(50))]);
    assert_eq!((told.as_str(), named.len(), counted.as_str()), ("400 (end)", 0, "bad_request_line refused"));
    let (told, named, _) = ask(elsewhere(false), vec![say(GET), wait(millis(50))]);
    assert_eq!((told.as_str(), named.join(" ").as_str()), ("200", "192.0.2.1"));
    // And where no header is expected at all.
    let (told, named, _) = ask(|_, _| (), vec![say([V1, GET].concat()), wait(millis(50))]);
    assert_eq!((told.as_str(), named.len()), ("400 (end)", 0));
}

/// The header has the time of a request's head, from accept on; no byte extends it.
#[test]
fn a_slow_header() {
    let limited = |listener: &mut Listener, cluster: &mut Cluster| {
        accept(true)(listener, cluster);
        listener.timeouts.request_header = seconds(1);
        listener.timeouts.idle = seconds(3);
    };
    for (script, reason) in [
        (vec![wait(seconds(5))], CloseReason::SilentTimeout),
        (vec![say("P"), wait(seconds(5))], CloseReason::ProxyHeaderTimeout),
        (
            vec![
                say("PROXY"),
                wait(millis(600)),
                say(" TCP4"),
                wait(millis(300)),
                say(" "),
                wait(seconds(5)),
            ],
            CloseReason::ProxyHeaderTimeout,
        ),
        (vec![say(&V1[..V1.len() - 1]), wait(seconds(5))], CloseReason::ProxyHeaderTimeout),
        // Behind the header the connection may wait for its first request as for any other.
        (vec![say(V1), wait(seconds(5))], CloseReason::IdleTimeout),
    ] {
        let mut bed = Bed::new(limited);
        let began = bed.now();
        let client = bed.client(script);
        bed.run_until("an end", |bed| bed.end(client).ended_at.is_some());
        let ended = bed.end(client).ended_at.expect("an end");
        let took = ended.since(began) / 1_000_000;
        let limit = if reason == CloseReason::IdleTimeout { 3000 } else { 1000 };
        assert!((limit..limit + 100).contains(&took), "{reason:?} after {took} ms");
        bed.check_empty().expect("nothing is left");
        assert_eq!(bed.counted(), reason.name());
    }
    // Just in time, and then the request's own time begins.
    let script =
        vec![say("PROXY UNKNOWN\r"), wait(millis(990)), say("\nGET / "), wait(millis(990)), say(&GET[6..])];
    let (told, _, counted) = ask(limited, script);
    assert_eq!((told.as_str(), counted.as_str()), ("200", "client_closed"));
}

#[test]
fn a_peer_that_leaves_in_its_header() {
    for (script, reason) in [
        (vec![Act::Finish, wait(millis(20))], CloseReason::ClientClosed),
        (vec![say(&V1[..20]), Act::Finish, wait(millis(20))], CloseReason::ClientAborted),
        (vec![say(&V1[..20]), wait(millis(5)), Act::Reset], CloseReason::ClientReset),
        (vec![say(V1), Act::Finish, wait(millis(20))], CloseReason::ClientClosed),
    ] {
        assert_eq!(ask(accept(true), script).2, reason.name());
    }
    // A whole request and a FIN behind the header is answered.
    let (told, _, _) = ask(accept(true), vec![say([V1, GET].concat()), Act::Finish, wait(millis(20))]);
    assert_eq!(told, "200 (end)");
}

/// A balancer of layer 4 passes on what the client wrote: believing it for the balancer's address would be believing the
/// client.
#[test]
fn trust_is_decided_on_the_address_of_the_header() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n";
    for (trusted, named) in
        [(network(CLIENTS, 24), "203.0.113.7"), (network("203.0.113.7", 32), "9.9.9.9, 203.0.113.7")]
    {
        let change = |listener: &mut Listener, cluster: &mut Cluster| {
            accept(true)(listener, cluster);
            listener.forwarded.mode = ForwardedMode::Append;
            listener.forwarded.trusted = vec![trusted];
        };
        let (_, got, _) = ask(change, vec![say([V1, get].concat()), wait(millis(50))]);
        assert_eq!(got, [named]);
    }
}

/// What endpoints are told first, on which of their connections, for a client's script.
fn announced(version: SendProxy, required: Option<bool>, script: Vec<Act>) -> Vec<(Ends, Vec<u8>)> {
    let mut bed = Bed::new(|listener, cluster| {
        if let Some(required) = required {
            accept(required)(listener, cluster);
        }
        cluster.send_proxy = Some(version);
    });
    bed.io.world.announced = true;
    let client = bed.client(script);
    bed.run_script(client);
    assert!(bed.told(client).split(' ').all(|status| status == "200"), "{}", bed.told(client));
    let links: Vec<usize> = bed.io.world.requests.iter().map(|(link, _)| *link).collect();
    assert!(links.windows(2).all(|two| two[0] != two[1]), "a link served twice: {links:?}");
    assert_eq!(bed.idle_links(), 0, "such a link is not kept");
    bed.leave(client);
    bed.check_empty().expect("nothing is left");
    let headers = bed.io.world.headers.iter().map(|bytes| match read(bytes) {
        Ok(Reading::Whole(header)) => {
            let tlvs = passed_on(header.tlvs.of(bytes)).collect::<Vec<_>>().concat();
            (header.ends.expect("addresses"), tlvs)
        }
        other => panic!("{other:?}"),
    });
    headers.collect()
}

#[test]
fn each_link_begins_with_who_its_client_is() {
    let tlvs = [tlv(1, b"h2"), tlv(0xea, &[7; 300])].concat();
    let sent = v2(Some(("203.0.113.7:1", "198.51.100.2:443")), &[tlvs.clone(), tlv(4, b"pad")].concat());
    for version in [SendProxy::V1, SendProxy::V2] {
        // Two requests of one client: two links, the same words.
        let script =
            vec![say([&sent, GET.as_bytes()].concat()), wait(millis(50)), say(GET), wait(millis(50))];
        let got = announced(version, Some(true), script);
        assert_eq!(got.len(), 2);
        for (ends, kept) in got {
            assert_eq!(ends.source.to_string(), "203.0.113.7:1");
            assert_eq!(ends.destination.to_string(), "198.51.100.2:443");
            assert_eq!(kept, if version == SendProxy::V2 { tlvs.clone() } else { Vec::new() });
        }
        // No header came: the socket's own ends.
        for (required, script) in [
            (None, vec![say(GET), wait(millis(50))]),
            (Some(false), vec![say(GET), wait(millis(50))]),
            (Some(true), vec![say([v2(None, &[]), GET.into()].concat()), wait(millis(50))]),
        ] {
            let got = announced(version, required, script);
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].0.source.ip().unwrap().to_string(), "192.0.2.1");
            assert_eq!(got[0].0.destination, crate::bed::listen_address());
        }
    }
}

/// The header, the head and the body's first bytes leave together and in order.
#[test]
fn bodies_follow_the_header() {
    let body = "b".repeat(5000);
    let sized = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{body}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"
    );
    for request in [sized, chunked] {
        let got = announced(SendProxy::V2, None, vec![say(request), wait(millis(50))]);
        assert_eq!(got.len(), 1);
    }
}

/// Draining: a connection of a balancer that has said whom it is for is owed its first request (threat B07).
#[test]
fn a_drain_waits_a_moment_for_the_first_request_behind_a_header() {
    for first in [Vec::new(), vec![say(&V1[..10])], vec![say(V1)]] {
        let mut bed = Bed::new(accept(true));
        let sent: usize =
            first.iter().map(|act| if let Act::Say(bytes) = act { bytes.len() } else { 0 }).sum();
        let client = bed.client(first);
        bed.run_for(millis(20));
        let by = bed.now().after(seconds(5));
        if sent < V1.len() {
            dataplane::shard::drain::begin(&mut bed.shard, &mut bed.io, by);
            bed.run_for(millis(20));
        }
        bed.tell(client, [say([&V1[sent..], GET].concat())]);
        bed.run_for(millis(200));
        assert_eq!(bed.responses(client).len(), 1, "{sent} bytes before");
    }
}
