//! What a record of the access log costs: the shard that puts it into its ring, and the log thread that takes it out and
//! writes its line in each format.
//!
//! `cargo bench -p control --bench log`. Best of the rounds, so that what else the machine does counts little; lines go to
//! memory, since what a disk or pipe costs is its own affair.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test equipment: it measures time and prints it, and a broken expectation must end the run"
)]

use control::config::{Environment, parse};
use control::log::LineFormat;
use dataplane::io::SocketAddress;
use dataplane::spec::{ClusterId, EndpointId, ListenerId, Protocol, RouteId};
use dataplane::stats::access_log::{Record, ring};
use dataplane::stats::request_id::RequestId;
use dataplane::stats::timings::{Phase, Timings};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Records of one round, which fit a ring together.
const RECORDS: usize = 1500;
const ROUNDS: usize = 400;

const CONFIGURATION: &str = "
[[listener]]
name = \"edge\"
address = \"127.0.0.1:0\"
[[route]]
name = \"shop\"
cluster = \"app\"
[[cluster]]
name = \"app\"
endpoints = [\"127.0.0.1:9000\"]
";
const HTTPLOG: &str = "${client} [${time_common}] ${listener} ${cluster}/${endpoint} ${head_ms}/${queue_ms}/${connect_ms}/${response_ms}/${duration_ms} ${status} ${bytes_down} - - ${end} \"${request}\"";

/// A browser's request over a pooled link.
fn record(count: u64) -> Record<'static> {
    let mut timings = Timings::of_total(1840);
    for (phase, us) in [(Phase::Head, 0), (Phase::Response, 1400), (Phase::Transfer, 440)] {
        timings.set(phase, us);
    }
    let request_id = RequestId { process: 0x1f3a_2b4c, shard: 1, count };
    Record {
        protocol: Protocol::Http,
        wall_ns: 1_798_761_599_999_999_999,
        route: Some(RouteId(0)),
        cluster: Some(ClusterId(0)),
        endpoint: Some(EndpointId(0)),
        upstream_local: Some(SocketAddress::new([127, 0, 0, 3].into(), 40112)),
        method: b"GET",
        host: b"www.example.test",
        path: b"/shop/item/4711",
        query: Some(b"ref=start&lang=en"),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        referer: Some(b"https://www.example.test/shop/"),
        minor_version: 1,
        status: 200,
        response_body_bytes: 5120,
        timings,
        attempts: 1,
        link_reused: true,
        request_number: 7,
        ..Record::of_tcp(ListenerId(0), SocketAddress::new([192, 0, 2, 7].into(), 51820), request_id)
    }
}

fn per_record(time: Duration) -> u128 {
    time.as_nanos() / RECORDS as u128
}

fn main() {
    let loaded = parse(CONFIGURATION, "bench", &Environment::of_tests()).expect("a configuration");
    println!("{RECORDS} records a round, best of {ROUNDS} rounds, nanoseconds per record");
    for (name, format) in
        [("json", "json"), ("common", "common"), ("combined", "combined"), ("httplog", HTTPLOG)]
    {
        let format = LineFormat::parse(format).expect("a format");
        let (mut writer, mut reader) = ring();
        let mut lines = Vec::with_capacity(4 << 20);
        let (mut put, mut taken, mut bytes) = (Duration::MAX, Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            (0..RECORDS as u64).for_each(|n| writer.write(black_box(&record(n))));
            put = put.min(begun.elapsed());
            assert_eq!(writer.dropped(), 0, "they fit");
            lines.clear();
            let begun = Instant::now();
            let count = reader.drain(usize::MAX, |record| format.write(&mut lines, record, &loaded.snapshot));
            taken = taken.min(begun.elapsed());
            assert_eq!(count, RECORDS);
            bytes = black_box(&lines).len() / RECORDS;
        }
        println!(
            "{name:10} put {:4}  taken and written {:5}  ({bytes} bytes a line)",
            per_record(put),
            per_record(taken)
        );
    }
}
