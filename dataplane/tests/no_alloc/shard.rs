//! What a whole shard costs per request on the real ring: no allocation, and a part of a system call.

use crate::counting::allocations;
use crate::real::{Exchange, Real, with_shard};
use dataplane::spec::Protocol;

const CLIENTS: u64 = 4;
const WARM: u64 = 500;
const MEASURED: u64 = 10_000;

const GET: &[u8] =
    b"GET /some/path?x=y HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world";

/// `MEASURED` exchanges are watched, all on connections that stay: the first that closes makes a table longer.
fn assert_allocates_nothing(exchange: &Exchange) {
    assert_allocates_nothing_in(MEASURED, exchange);
}

fn assert_allocates_nothing_in(measured: u64, exchange: &Exchange) {
    assert_allocates_nothing_by(CLIENTS, measured, exchange);
}

fn assert_allocates_nothing_by(clients: u64, measured: u64, exchange: &Exchange) {
    with_shard(clients, (WARM + measured + WARM) / clients, exchange, |real| {
        real.run_to(WARM);
        let count = allocations(|| real.run_to(WARM + measured));
        assert_eq!(count, 0, "allocations in {measured} exchanges");
    });
}

#[test]
fn exchanges_with_sized_responses() {
    assert_allocates_nothing(&Exchange {
        protocol: Protocol::Http,
        request: GET.to_vec(),
        response: OK.to_vec(),
    });
}

/// Our node is in Via: a refusal that keeps the connection. Of one client: such exchanges are over so soon that they overlap
/// rarely, and the first that do take memory for good.
#[test]
fn exchanges_with_error_pages() {
    let request = b"GET /a%20b HTTP/1.1\r\nHost: a\r\nVia: 1.1 node\r\n\r\n".to_vec();
    let exchange = Exchange { protocol: Protocol::Http, request, response: OK.to_vec() };
    assert_allocates_nothing_by(1, MEASURED, &exchange);
}

#[test]
fn exchanges_with_chunked_responses() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = format!("{head}5\r\nhello\r\n400\r\n{}\r\n1\r\n!\r\n0\r\n\r\n", "b".repeat(0x400));
    assert_allocates_nothing(&Exchange {
        protocol: Protocol::Http,
        request: GET.to_vec(),
        response: response.into_bytes(),
    });
}

/// Bodies long enough to be spliced.
#[test]
fn exchanges_with_bulk_responses() {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n{}", "b".repeat(65536));
    assert_allocates_nothing(&Exchange {
        protocol: Protocol::Http,
        request: GET.to_vec(),
        response: response.into_bytes(),
    });
}

#[test]
fn exchanges_with_uploads() {
    let body = "b".repeat(8192);
    let sized = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n{body}");
    assert_allocates_nothing(&Exchange {
        protocol: Protocol::Http,
        request: sized.into_bytes(),
        response: OK.to_vec(),
    });
}

/// Bodies that are held to be sent again.
#[test]
fn exchanges_with_held_uploads() {
    for len in [300, 8192, 16_384] {
        let put = format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}", "b".repeat(len));
        let exchange =
            Exchange { protocol: Protocol::Http, request: put.into_bytes(), response: OK.to_vec() };
        assert_allocates_nothing_in(3_000, &exchange);
    }
}

/// Bodies long enough to be spliced, and some of them with more behind what is copied with the head.
#[test]
fn exchanges_with_bulk_uploads() {
    for len in [24_576, 65_536, 300_000] {
        let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
        let request = [head.into_bytes(), vec![b'b'; len]].concat();
        let exchange = Exchange { protocol: Protocol::Http, request, response: OK.to_vec() };
        assert_allocates_nothing_in(2_000, &exchange);
    }
}

#[test]
fn exchanges_with_uploads_in_chunks() {
    let body = "b".repeat(4096);
    let chunked = format!(
        "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{body}\r\n1000\r\n{body}\r\n0\r\n\r\n"
    );
    assert_allocates_nothing(&Exchange {
        protocol: Protocol::Http,
        request: chunked.into_bytes(),
        response: OK.to_vec(),
    });
}

/// Small messages and ones of several leases, both ways, unread.
#[test]
fn tunnels() {
    for len in [64, 16 * 1024] {
        let body = "b".repeat(len);
        let request = format!("POST / HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes();
        assert_allocates_nothing(&Exchange { protocol: Protocol::Tcp, request, response });
    }
}

/// Messages that promote a direction each time, and demote it again.
#[test]
fn tunnels_that_pour() {
    let body = "b".repeat(300_000);
    let request = format!("POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n{body}").into_bytes();
    let exchange = Exchange { protocol: Protocol::Tcp, request, response: OK.to_vec() };
    with_shard(CLIENTS, (WARM + 2_000 + WARM) / CLIENTS, &exchange, |real| {
        real.run_to(WARM);
        let count = allocations(|| real.run_to(WARM + 2_000));
        assert_eq!(count, 0);
        assert!(real.shard.core.stats.spliced_bytes.get() > 100_000 * 2_000, "it was copied");
    });
}

/// A busy shard enters the kernel less than once for each request, and makes no other system call for one.
#[test]
fn system_calls_of_a_busy_shard() {
    const CLIENTS: u64 = 64;
    let exchange = Exchange { protocol: Protocol::Http, request: GET.to_vec(), response: OK.to_vec() };
    with_shard(CLIENTS, 200, &exchange, |real| {
        // Until every client has a connection and nearly every link is made.
        real.run_to(CLIENTS * 50);
        let connects = |real: &Real| real.shard.core.stats.connects.get();
        let before = (real.io.enters(), real.io.calls, connects(real));
        real.run_to(CLIENTS * 150);
        let (enters, calls) = (real.io.enters() - before.0, real.io.calls - before.1);
        let requests = CLIENTS * 100;
        assert!(enters * 10 < requests * 9, "{enters} io_uring_enter for {requests} requests");
        // A new link costs its socket, an option and five more for a peer that vanishes, and its address.
        let links = connects(real) - before.2;
        assert!(calls <= 8 * links, "{calls} other system calls for {requests} requests and {links} links");
    });
}
