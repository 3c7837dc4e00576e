//! Records survive the ring unchanged; a full ring loses whole records and counts them.

use super::*;
use crate::fault::At;
use proptest::prelude::*;

/// A record with every optional part absent and every string empty.
fn empty() -> Record<'static> {
    Record {
        protocol: Protocol::Http,
        wall_ns: 0,
        request_id: RequestId { process: 0, shard: 0, count: 0 },
        listener: ListenerId(0),
        route: None,
        cluster: None,
        endpoint: None,
        peer: SocketAddress::UNSPECIFIED,
        upstream_local: None,
        method: b"",
        host: b"",
        path: b"",
        query: None,
        user_agent: None,
        referer: None,
        trace: None,
        span: None,
        minor_version: 1,
        status: 0,
        request_body_bytes: 0,
        response_body_bytes: 0,
        timings: Timings::of_total(0),
        attempts: 0,
        retries: Retries::NONE,
        link_reused: false,
        refusal: None,
        close: None,
        end: End::WELL,
        request_number: 1,
        tunnel_up_bytes: 0,
        tunnel_down_bytes: 0,
    }
}

/// Method, host, path, query, user agent, Referer.
type Texts = (Vec<u8>, Vec<u8>, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

/// What `Record` borrows, owned.
#[derive(Debug, Clone)]
struct Made {
    numbers: [u64; 14],
    small: [u8; 3],
    ids: (u32, u16, u16, Option<u32>, Option<u16>, Option<u16>),
    peer: (bool, [u8; 16], u16),
    local: Option<(bool, [u8; 16], u16)>,
    trace: Option<([u8; 16], [u8; 8], u8)>,
    texts: Texts,
    refusal: Option<usize>,
    close: Option<usize>,
}

fn address((v6, bytes, port): (bool, [u8; 16], u16)) -> SocketAddress {
    let v4 = [bytes[0], bytes[1], bytes[2], bytes[3]];
    SocketAddress::new(if v6 { IpAddr::from(bytes) } else { IpAddr::from(v4) }, port)
}

impl Made {
    fn record(&self) -> Record<'_> {
        let n = &self.numbers;
        Record {
            protocol: if n[0].is_multiple_of(2) { Protocol::Http } else { Protocol::Tcp },
            wall_ns: n[0],
            request_id: RequestId { process: self.ids.0, shard: self.ids.1, count: n[1] },
            listener: ListenerId(self.ids.2),
            route: self.ids.3.filter(|id| *id != u32::MAX).map(RouteId),
            cluster: self.ids.4.filter(|id| *id != u16::MAX).map(ClusterId),
            endpoint: self.ids.5.filter(|id| *id != u16::MAX).map(EndpointId),
            peer: address(self.peer),
            upstream_local: self.local.map(address),
            method: &self.texts.0,
            host: &self.texts.1,
            path: &self.texts.2,
            query: self.texts.3.as_deref(),
            user_agent: self.texts.4.as_deref(),
            referer: self.texts.5.as_deref(),
            trace: self.trace.map(|(trace_id, parent_id, flags)| TraceParent { trace_id, parent_id, flags }),
            span: self
                .trace
                .filter(|(_, _, flags)| flags & 1 == 0)
                .map(|(trace_id, span_id, _)| Traced { trace_id, span_id }),
            minor_version: self.small[0],
            status: self.peer.2,
            request_body_bytes: n[2],
            response_body_bytes: n[3],
            timings: Timings::from_numbers([n[4], n[5], n[6], n[10], n[11], n[12], n[13]]),
            attempts: self.small[1],
            retries: Retries::from_bits(self.small[0]),
            link_reused: self.small[2] & 1 == 1,
            refusal: self.refusal.map(|i| REFUSALS[i].refusal),
            close: self.close.map(|i| CLOSE_REASONS[i].0),
            end: End::of_close(CLOSE_REASONS[self.close.unwrap_or(0)].0, At::Connect),
            request_number: n[7],
            tunnel_up_bytes: n[8],
            tunnel_down_bytes: n[9],
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    let text = || proptest::collection::vec(any::<u8>(), 0..200);
    let address = any::<(bool, [u8; 16], u16)>;
    (
        any::<[u64; 14]>(),
        any::<[u8; 3]>(),
        any::<(u32, u16, u16, Option<u32>, Option<u16>, Option<u16>)>(),
        address(),
        proptest::option::of(address()),
        any::<Option<([u8; 16], [u8; 8], u8)>>(),
        (
            text(),
            text(),
            text(),
            proptest::option::of(text()),
            proptest::option::of(text()),
            proptest::option::of(text()),
        ),
        proptest::option::of(0..Refusal::COUNT),
        proptest::option::of(0..CloseReason::COUNT),
    )
        .prop_map(|(numbers, small, ids, peer, local, trace, texts, refusal, close)| Made {
            numbers,
            small,
            ids,
            peer,
            local,
            trace,
            texts,
            refusal,
            close,
        })
}

proptest! {
    #[test]
    fn decode_is_the_inverse_of_encode(made in made()) {
        let mut bytes = Vec::new();
        made.record().encode(&mut bytes);
        prop_assert_eq!(Record::decode(&bytes), Some(made.record()));
        // No shorter and no longer text is taken for a record.
        prop_assert_eq!(Record::decode(&bytes[..bytes.len() - 1]), None);
        bytes.push(0);
        prop_assert_eq!(Record::decode(&bytes), None);
    }

    #[test]
    fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn a_small_ring_keeps_order_and_counts_what_it_lost(
        steps in proptest::collection::vec((any::<bool>(), 0_usize..300), 1..200)
    ) {
        let (mut writer, mut reader) = ring_of(1000);
        let (mut next, mut lost, mut kept) = (0, 0, std::collections::VecDeque::new());
        for (write, len) in steps {
            if write {
                let path = vec![b'x'; len];
                writer.write(&Record { wall_ns: next, path: &path, ..empty() });
                if writer.dropped() == lost { kept.push_back((next, len)) } else { lost += 1 }
                next += 1;
            } else {
                reader.drain(1, |record| {
                    assert_eq!(kept.pop_front(), Some((record.wall_ns, record.path.len())));
                });
            }
        }
        reader.drain(usize::MAX, |record| {
            assert_eq!(kept.pop_front(), Some((record.wall_ns, record.path.len())));
        });
        prop_assert!(kept.is_empty(), "left in the ring: {:?}", kept);
        prop_assert_eq!(reader.dropped(), lost);
    }
}

#[test]
fn long_strings_are_cut_and_the_longest_record_fits() {
    let long = vec![b'a'; 100_000];
    let v6 = address((true, [7; 16], 1));
    let record = Record {
        peer: v6,
        upstream_local: Some(v6),
        trace: Some(TraceParent { trace_id: [1; 16], parent_id: [2; 8], flags: 3 }),
        span: Some(Traced { trace_id: [1; 16], span_id: [4; 8] }),
        method: &long,
        host: &long,
        path: &long,
        query: Some(&long),
        user_agent: Some(&long),
        referer: Some(&long),
        ..empty()
    };
    let (mut writer, mut reader) = ring();
    writer.write(&record);
    assert!(writer.scratch.len() <= RECORD_BYTES_MAX, "{}", writer.scratch.len());
    assert!(writer.scratch.capacity() == RECORD_BYTES_MAX, "the scratch grew");
    let mut seen = 0;
    reader.drain(10, |record| {
        seen += 1;
        assert_eq!(record.path, &long[..LOG_STRING_BYTES]);
        assert_eq!(record.user_agent, Some(&long[..LOG_STRING_BYTES]));
    });
    assert_eq!(seen, 1);
}

#[test]
fn a_reader_learns_that_the_writer_is_gone() {
    let (mut writer, mut reader) = ring_of(4096);
    writer.write(&empty());
    assert!(!reader.writer_gone());
    drop(writer);
    assert!(reader.writer_gone());
    assert_eq!(reader.drain(usize::MAX, |_| ()), 1);
}

#[test]
fn two_threads_agree() {
    let (mut writer, mut reader) = ring_of(2000);
    let total = 20_000;
    let writing = std::thread::spawn(move || {
        for n in 0..total {
            writer.write(&Record { wall_ns: n, path: b"/some/path", ..empty() });
        }
        writer.dropped()
    });
    let (mut seen, mut last) = (0, None);
    while !reader.writer_gone() || !reader.ring.is_empty() {
        reader.drain(100, |record| {
            assert!(last < Some(record.wall_ns), "out of order");
            assert_eq!(record.path, b"/some/path");
            last = Some(record.wall_ns);
            seen += 1;
        });
        std::thread::yield_now();
    }
    let dropped = writing.join().unwrap();
    assert_eq!((seen + dropped, reader.dropped()), (total, dropped));
}

/// Records of tunnels go from process to process in an upgrade, and the next one may be of another version. When this fails,
/// raise `VERSION` in control/src/upgrade/message.rs, and then change what is expected here.
#[test]
fn another_encoding_is_another_version_of_the_upgrade() {
    let record = Record {
        peer: SocketAddress::new([192, 0, 2, 1].into(), 443),
        route: Some(RouteId(3)),
        host: b"a.example",
        query: Some(b"q"),
        status: 101,
        tunnel_up_bytes: 300,
        ..empty()
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "00000000000000000000000000000000000000000000000003000000ffffffff04c0000201bb010065000100000000ff\
         ff040001010000000000000102ad020100000900612e6578616d706c650000010071ffffffff";
    assert_eq!(hex, expected);
}
