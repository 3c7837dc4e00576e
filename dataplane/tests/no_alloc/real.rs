//! A whole shard on the real ring, on this thread, between blocking clients and an origin on threads of their own.

use dataplane::buf::{Chain, Class, Pool, PoolSize};
use dataplane::core::{Setup, Shared};
use dataplane::io::{
    Address, Clock, Completion, Errno, Expect, Family, Fd, Interest, Io, Message, Mono, Pipe, Shutdown,
    SocketAddress, SocketOption, Token,
};
use dataplane::route::RouteTable;
use dataplane::shard::{Shard, Turn, drain};
use dataplane::spec::{
    BodyForm, Cluster, ClusterId, ClusterTimeouts, Endpoint, EndpointId, ErrorPage, Forwarded, ForwardedMode,
    HedgeAfter, Limits, ListenAddress, Listener, ListenerId, Page, Pool as LinkPool, Protocol, Retry,
    RetryOn, Runtime, Snapshot, Statuses, Steer, Template, TemplatePart, Timeouts, Tracing, Variable,
};
use dataplane::stats::{Stats, access_log};
use dataplane::sys::{self, Ring, RingOptions, clock, socket};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// A test that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// One exchange, over and over: what each side sends.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    /// Of the listener: through a tcp one the same bytes go unread.
    pub(crate) protocol: Protocol,
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
}

/// The ring, with its system calls other than io_uring_enter counted.
#[derive(Debug)]
pub(crate) struct Counted {
    ring: Ring,
    /// Calls of every other kind.
    pub(crate) calls: u64,
}

impl Counted {
    pub(crate) fn enters(&self) -> u64 {
        self.ring.enters()
    }
    fn call(&mut self) -> &mut Ring {
        self.calls += 1;
        &mut self.ring
    }
}

impl Io for Counted {
    fn turn(&mut self, pool: &mut Pool, until: Mono, out: &mut Vec<Completion>) -> Result<Clock, Errno> {
        self.ring.turn(pool, until, out)
    }
    fn accept(&mut self, listener: Fd, token: Token) {
        self.ring.accept(listener, token);
    }
    fn recv(&mut self, fd: Fd, class: Class, expect: Expect, token: Token) {
        self.ring.recv(fd, class, expect, token);
    }
    fn send(&mut self, fd: Fd, chain: &Chain, pool: &Pool, token: Token) {
        self.ring.send(fd, chain, pool, token);
    }
    fn connect(&mut self, fd: Fd, to: &Address, token: Token) {
        self.ring.connect(fd, to, token);
    }
    fn poll(&mut self, fd: Fd, interest: Interest, token: Token) {
        self.ring.poll(fd, interest, token);
    }
    fn close(&mut self, fd: Fd, token: Token) {
        self.ring.close(fd, token);
    }
    fn post(&mut self, shard: u16, message: Message, token: Token) {
        self.ring.post(shard, message, token);
    }
    fn cancel(&mut self, target: Token) {
        self.ring.cancel(target);
    }
    fn socket(&mut self, family: Family) -> Result<Fd, Errno> {
        self.call().socket(family)
    }
    fn set_option(&mut self, fd: Fd, option: SocketOption) -> Result<(), Errno> {
        self.call().set_option(fd, option)
    }
    fn bind(&mut self, fd: Fd, to: &Address) -> Result<(), Errno> {
        self.call().bind(fd, to)
    }
    fn listen(&mut self, fd: Fd, backlog: i32) -> Result<(), Errno> {
        self.call().listen(fd, backlog)
    }
    fn shutdown(&mut self, fd: Fd, how: Shutdown) -> Result<(), Errno> {
        self.call().shutdown(fd, how)
    }
    fn local_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        self.call().local_address(fd)
    }
    fn peer_address(&mut self, fd: Fd) -> Result<SocketAddress, Errno> {
        self.call().peer_address(fd)
    }
    fn carried(&mut self, fd: Fd) -> Result<(u64, u64), Errno> {
        self.call().carried(fd)
    }
    fn unacknowledged(&mut self, fd: Fd) -> Result<u32, Errno> {
        self.call().unacknowledged(fd)
    }
    fn unread(&mut self, fd: Fd) -> Result<u32, Errno> {
        self.call().unread(fd)
    }
    fn take_pipe(&mut self) -> Option<Pipe> {
        self.ring.take_pipe()
    }
    fn give_pipe(&mut self, pipe: Pipe) {
        self.ring.give_pipe(pipe);
    }
    fn pipes_lent(&self) -> usize {
        self.ring.pipes_lent()
    }
    fn held(&self, pipe: &Pipe) -> usize {
        self.ring.held(pipe)
    }
    fn splice_in(&mut self, from: Fd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        self.call().splice_in(from, pipe, most)
    }
    fn splice_out(&mut self, pipe: &Pipe, to: Fd) -> Result<usize, Errno> {
        self.call().splice_out(pipe, to)
    }
    fn unload(&mut self, pipe: &Pipe, to: &mut [u8]) -> Result<usize, Errno> {
        self.call().unload(pipe, to)
    }
    fn part_with(&mut self, pipe: Pipe) -> ([Fd; 2], usize) {
        self.ring.part_with(pipe)
    }
    fn adopt_pipe(&mut self, ends: [Fd; 2], held: usize) -> Option<Pipe> {
        self.ring.adopt_pipe(ends, held)
    }
    fn discard(&mut self, fd: Fd) {
        self.call().discard(fd);
    }
    fn clear_event(&mut self, fd: Fd) {
        self.call().clear_event(fd);
    }
    fn stands(&self, recv: Token) -> bool {
        self.ring.stands(recv)
    }
    fn ahead(&self, fd: Fd) -> usize {
        self.ring.ahead(fd)
    }
    fn take_ahead(&mut self, fd: Fd, pool: &mut Pool) -> Vec<u8> {
        self.ring.take_ahead(fd, pool)
    }
    fn starved(&self) -> usize {
        self.ring.starved()
    }
    fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }
}

/// The shard and its ring. The shard is dropped last: its memory outlives what the kernel may write.
pub(crate) struct Real {
    pub(crate) io: Counted,
    pub(crate) shard: Shard,
    done: Arc<AtomicU64>,
    begun: Mono,
}

impl Real {
    /// Turns until `count` exchanges were made in all.
    pub(crate) fn run_to(&mut self, count: u64) {
        while self.done.load(Relaxed) < count {
            self.turn();
        }
    }
    fn turn(&mut self) -> Turn {
        let turn = self.shard.turn(&mut self.io).unwrap();
        assert!(self.shard.core.clock.mono < self.begun.after(LONGEST), "it hangs");
        turn
    }
}

fn snapshot(protocol: Protocol, listen: SocketAddress, origin: SocketAddress) -> Snapshot {
    let listener = Listener {
        id: ListenerId(0),
        name: "edge".into(),
        addresses: vec![ListenAddress::Ip(listen)],
        steer: Steer::Hash,
        protocol,
        max_connections: 1000,
        limits: Limits {
            request_line: 8192,
            header_block: 16384,
            header_fields: 100,
            request_body: u64::MAX,
            requests_per_connection: u64::MAX,
            pipelined: 16,
        },
        timeouts: Timeouts {
            request_header: 10 * SECOND,
            request_body: 30 * SECOND,
            min_rate: 500,
            send: 30 * SECOND,
            idle: 60 * SECOND,
            tunnel_idle: 60 * SECOND,
            max_lifetime: Duration::MAX,
            dead_peer: 120 * SECOND,
        },
        forwarded: Forwarded { mode: ForwardedMode::Replace, trusted: Vec::new(), trusts_unix: false },
        proxy_protocol: None,
        cluster: Some(ClusterId(0)),
        access_log: true,
        error_pages: [error_page()].into(),
    };
    let cluster = Cluster {
        dead_peer: 120 * SECOND,
        timeouts: ClusterTimeouts {
            connect: 2 * SECOND,
            response_header: 60 * SECOND,
            response_body: 60 * SECOND,
            send: 30 * SECOND,
            queue: Duration::ZERO,
        },
        pool: LinkPool { idle: 256, idle_timeout: 60 * SECOND, requests_per_connection: u64::MAX },
        retry: Some(policy()),
        ..Cluster::new(ClusterId(0), "app", vec![Endpoint::new(EndpointId(0), "origin", origin.into())])
    };
    Snapshot {
        runtime: Runtime { shards: 1, node: "node".into(), drain_timeout: SECOND },
        listeners: vec![Some(Arc::new(listener))],
        routes: Vec::new().into(),
        clusters: vec![Some(Arc::new(cluster))],
        // Each request is a span: that must cost no allocation either.
        tracing: Some(Tracing { key: [1, 2], share: 1.0, respect_parent: true }),
    }
}

/// What a request that comes back to us is answered with.
fn error_page() -> ErrorPage {
    let mut statuses = Statuses::default();
    assert!(statuses.add(508));
    let text = |text: &str| TemplatePart::Text(text.into());
    let variable = TemplatePart::Variable;
    let body = vec![text("<p>"), variable(Variable::Path), text(" "), variable(Variable::RequestId)];
    let headers = vec![("cache-control".into(), Template(vec![text("no-store")]))];
    ErrorPage { statuses, page: Page { body: Template(body), form: BodyForm::Html, headers } }
}

/// Everything that second attempts need is kept: bodies, counts, times.
fn policy() -> Retry {
    Retry {
        attempts: 1,
        on: RetryOn { connect: true, reset: true, timeout: true, ..RetryOn::default() },
        budget_percent: 20,
        budget_minimum: 10,
        replay_body: 16 << 10,
        hedge_after: Some(HedgeAfter::Percentile(95)),
    }
}

fn ip(address: SocketAddr) -> SocketAddress {
    SocketAddress::new(address.ip(), address.port())
}

/// Reads one message: a head, then as much as its Content-Length says, or to the last chunk. False at the end.
fn read_message(stream: &mut TcpStream, held: &mut Vec<u8>) -> bool {
    let mut piece = [0; 16384];
    loop {
        if let Some(head) = held.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
            let field = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let len = if field("transfer-encoding:").is_some() {
                held[head..].windows(5).position(|w| w == b"0\r\n\r\n").map(|at| head + at + 5)
            } else {
                Some(head + 4 + field("content-length:").map_or(0, |n| n.parse::<usize>().unwrap()))
            };
            if let Some(len) = len.filter(|len| held.len() >= *len) {
                held.drain(..len);
                return true;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(n) => held.extend_from_slice(&piece[..n]),
        }
    }
}

/// One thread for each connection; ends with the connection that carries no request.
fn serve(listener: &TcpListener, response: &[u8]) {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut held = Vec::new();
            let mut first = [0];
            stream.set_nodelay(true).unwrap();
            if stream.peek(&mut first).unwrap_or(0) == 0 {
                return;
            }
            scope.spawn(move || {
                while read_message(&mut stream, &mut held) {
                    stream.write_all(response).unwrap();
                }
            });
        }
    });
}

/// Makes `count` exchanges, and keeps its connection until the other clients have made theirs.
fn ask(to: SocketAddress, request: &[u8], count: u64, done: &AtomicU64, all: &Barrier) {
    let mut stream = TcpStream::connect(SocketAddr::from(to)).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut held = Vec::new();
    for _ in 0..count {
        if stream.write_all(request).is_err() || !read_message(&mut stream, &mut held) {
            break;
        }
        // Bytes behind an answer would be taken for the next one, and the counts at the end would not agree.
        done.fetch_add(1, Relaxed);
    }
    all.wait();
}

/// Runs `clients` that make `count` exchanges each, and `work` with the shard that serves them, on this thread.
/// The kernel's memory for sockets is the only thing shared with other tests.
pub(crate) fn with_shard(clients: u64, count: u64, exchange: &Exchange, work: impl FnOnce(&mut Real)) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin_address = origin.local_addr().unwrap();
    let fd = socket::listener(&SocketAddress::new([127, 0, 0, 1].into(), 0), 1024).unwrap();
    let listen = socket::local_address(fd).unwrap();
    let snapshot = Arc::new(snapshot(exchange.protocol, listen, ip(origin_address)));
    let (log, mut reader) = access_log::ring();
    let stats = Arc::new(Stats::default());
    let setup = Setup {
        shard: 0,
        routes: Arc::new(RouteTable::of(&snapshot)),
        shared: Arc::new(Shared::new(&snapshot)),
        snapshot,
        stats: stats.clone(),
        log,
        pool: PoolSize { tiny: 512, small: 2048, large: 256 },
        seed: 1,
        process_tag: 7,
    };
    let shard = Shard::new(setup, &[(ListenerId(0), fd, listen)], clock::now());
    let ring = Ring::new(sys::probe().unwrap(), RingOptions::default()).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let io = Counted { ring, calls: 0 };
    let begun = shard.core.clock.mono;
    let mut real = Real { io, shard, done: done.clone(), begun };
    real.shard.start(&mut real.io);
    let all = Barrier::new(usize::try_from(clients).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&origin, &exchange.response));
        for _ in 0..clients {
            scope.spawn(|| ask(listen, &exchange.request, count, &done, &all));
        }
        // A test that fails must not leave threads that wait for the shard.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            work(&mut real);
            real.run_to(clients * count);
        }));
        // The links close with the drain, and then the origin's threads end.
        let by = real.shard.core.clock.mono.after(SECOND);
        drain::begin(&mut real.shard, &mut real.io, by);
        while real.turn() == Turn::Goes {}
        drop(TcpStream::connect(origin_address).unwrap());
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    });
    let (exchanges, tunnels) = match exchange.protocol {
        Protocol::Http => (clients * count, 0),
        Protocol::Tcp => (0, clients),
    };
    assert_eq!((stats.requests.get(), stats.responses.get()), (exchanges, exchanges));
    assert_eq!((stats.tunnels_started.get(), stats.tunnels_ended.get()), (tunnels, tunnels));
    let mut records = 0;
    reader.drain(usize::MAX, |_| records += 1);
    assert_eq!(
        records + reader.dropped(),
        exchanges + tunnels,
        "one record for each exchange, or tcp connection"
    );
    for class in Class::ALL {
        assert_eq!(real.shard.core.pool.leased(class), 0, "{class:?}");
    }
    let mut rest = Vec::new();
    while real.io.in_flight() > 0 {
        let until = real.shard.core.clock.mono;
        real.io.turn(&mut real.shard.core.pool, until, &mut rest).unwrap();
    }
    assert!(real.io.ring.reclaim(&mut real.shard.core.pool));
}
