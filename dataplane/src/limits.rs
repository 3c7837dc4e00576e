//! Every bound of the data path, each with its reason. Configuration may lower or raise what says so, within these.

#![allow(
    clippy::cast_possible_truncation,
    reason = "constants; usize is 64 bits on every machine this runs on"
)]

mod admin;
mod checks;
mod log;
mod reload;
mod replies;

pub use admin::*;
pub use log::*;
pub use reload::*;
pub use replies::*;
use std::time::Duration;

/// An inclusive range that a configuration key may take, and its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<T> {
    pub min: T,
    pub default: T,
    pub max: T,
}

const fn bound<T: Copy>(min: T, default: T, max: T) -> Bound<T> {
    Bound { min, default, max }
}

const KIB: u64 = 1024;
const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

// --- buffers (buf/) -------------------------------------------------------------------------------------------

/// Bytes kept free in front of every lease, so that a chunk-size line can be written there without a copy.
pub const LEASE_HEADROOM: usize = 16;
/// Bytes kept free behind every lease: CRLF and the last chunk ("\r\n0\r\n\r\n", 7 bytes).
pub const LEASE_TAILROOM: usize = 16;
/// Smallest lease: what a partial head of a slow client holds, so that 100,000 of them cost 50 MB, not 400.
pub const LEASE_TINY_BYTES: usize = 512;
/// Ordinary lease: the head of nearly every request, and small bodies.
pub const LEASE_SMALL_BYTES: usize = 4096;
/// Large lease: the largest head, and bulk bodies.
pub const LEASE_LARGE_BYTES: usize = 65536;
/// Leases of each size in one shard's arena (address space; a page is touched only when first used).
pub const POOL_TINY: u32 = 32768;
pub const POOL_SMALL: u32 = 16384;
pub const POOL_LARGE: u32 = 1024;
/// Share of a class kept for heads and sends already begun when receiving would empty it (invariant 18): one eighth.
pub const POOL_RESERVE_DIVISOR: u32 = 8;
/// Share of a class that must be free for what can be done without: bodies that are held to be sent again.
pub const POOL_SPARE_DIVISOR: u32 = 2;
/// Leases queued for one direction of one connection; the sender of the other side waits beyond that.
pub const CHAIN_LEASES: usize = 4;
/// Leases queued towards a slow side before the fast side is no longer read (back-pressure).
pub const QUEUE_HIGH: usize = 2;
/// Buffers of each size that the kernel may hold at once for receiving.
pub const RING_SMALL_BUFFERS: u16 = 512;
pub const RING_LARGE_BUFFERS: u16 = 64;
/// What a standing receive brings at most, but for one buffer more: a bound of what may come unasked from one connection.
pub const STANDING_BYTES: u32 = 8 * 1024;
/// One that has brought nothing for so long makes room for a receive by itself.
pub const STANDING_PATIENCE: Duration = Duration::from_secs(1);
/// Buffers of a size that the kernel is lent first; doubled each time it ran out, up to the bounds above.
pub const RING_BUFFERS_FIRST: u16 = 8;

// --- splice (bulk.rs, sys/pipe.rs) -------------------------------------------------------------------------------

/// Bytes of a body still to come from which on they are spliced rather than copied; docs/performance-notes.md has the
/// figures of this and of what follows.
pub const SPLICE_MIN: u64 = 20 * KIB;
/// Bytes that one flow moves by splice in one turn at most: large steps cost less for each byte.
pub const SPLICE_STEP_MAX: usize = 1 << 20;
/// What flows that move in the same turn share, so that turns stay short for everyone else; but none gets less than
/// `SPLICE_STEP_MIN`.
pub const SPLICE_TURN: usize = 1 << 20;
pub const SPLICE_STEP_MIN: usize = 256 << 10;
/// Of a flow that has the last pipe: what is in it must fit the leases of a chain.
pub const SPLICE_STEP_LAST: usize = 128 << 10;
/// A tunnel's direction is bulk after so many receives in a row of at least so many bytes.
pub const PROMOTE_RECEIVES: u8 = 2;
pub const PROMOTE_BYTES: usize = 16 << 10;
/// And no longer after so many splices in a row of fewer bytes.
pub const DEMOTE_SPLICES: u8 = 4;
pub const DEMOTE_BYTES: usize = 8 << 10;
/// Size asked for a pipe. It may come out smaller, and hold more.
pub const PIPE_BYTES: usize = 1 << 20;
/// Pipes of one shard, two descriptors each. One is held only while a flow's sink is slower than its source, the last one
/// never beyond a step.
pub const PIPES: u16 = 64;
/// Pipes with bytes inside that a shard takes over from the process before this one, beside its own.
pub const PIPES_ADOPTED: u16 = 4096;

// --- the ring (sys/) ------------------------------------------------------------------------------------------

/// Submission queue entries of a shard's ring; a fuller batch is submitted early.
pub const RING_SUBMISSION_ENTRIES: u32 = 2048;
/// Completion queue entries; operations in flight never exceed it (invariant 3).
pub const RING_COMPLETION_ENTRIES: u32 = 65536;
/// A ring is not made smaller than this when the kernel is short of memory; it is an error instead.
pub const RING_ENTRIES_MIN: u32 = 64;
/// Message headers and addresses queued and not yet submitted; a fuller batch is submitted early.
pub const RING_SCRATCH_SLOTS: usize = 256;
/// The longest a shard waits without a turn, so that a stall is told from idleness.
pub const TURN_WAIT: Duration = ms(500);
/// No turn for this long while the process ran, half of it on a CPU, ends the process (exit code 70).
pub const SHARD_STALL: Duration = secs(2);
/// No turn for this long, whatever the shard had of a CPU: one that others have taken comes back sooner.
pub const SHARD_LOST: Duration = secs(20);
/// Pause before accepting again after EMFILE, ENFILE, ENOBUFS or ENOMEM.
pub const ACCEPT_BACKOFF: Duration = ms(100);
/// Before something established is asked for again for which the kernel had no memory (ENOMEM, ENOBUFS).
pub const MEMORY_PAUSE: Duration = ms(10);
/// Commands that wait for one shard. To look at a cluster it is told again when the mailbox was full; of the others
/// control sends a handful in a life.
pub const MAILBOX_COMMANDS: usize = 64;
/// Connections that a shard may have more than the least loaded one before it hands on what it accepts.
pub const EVEN_SLACK: u32 = 2;
/// A connection that ends sooner is brief: it is gone before it matters which shard has it.
pub const BRIEF: Duration = ms(250);
/// How long is looked back, at least and twice that at most, for brief ones and for the load without them.
pub const BRIEF_WINDOW: Duration = ms(100);
/// Messages to other shards that one shard has on their way at once; a connection beyond that is served where it was
/// accepted. A turn's accepts at most post that many before their completions are seen.
pub const POSTS: u32 = 1024;
/// Listen backlog; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 65535;
/// Bytes of a unix socket's name: `sun_path` has 108, one of which is a NUL behind a path or in front of an abstract name.
pub const UNIX_NAME_BYTES: usize = 107;
/// Permissions of a unix socket's file.
pub const SOCKET_MODE: Bound<u32> = bound(0, 0o660, 0o777);
/// Descriptors without which nothing starts.
pub const DESCRIPTORS_MIN: u64 = 32;
/// Descriptors the process keeps for itself (logs, listeners, rings, epoll, eventfds), or a quarter of what it has.
pub const RESERVED_DESCRIPTORS: u64 = 128;

// --- ports (cluster/exhausted.rs, link/connect.rs) -------------------------------------------------------------

/// How long a source address without a free port towards an endpoint is not tried again, unless a port frees: a failed
/// search walks the whole range in the kernel, on the shard's thread (20 us for 1,000 ports, 600 us for 28,000).
pub const EXHAUSTED_FOR: Duration = ms(100);
/// How long after such a search connects from that address to that endpoint go one at a time.
pub const SUSPECT_FOR: Duration = secs(1);
/// Pairs of source address and endpoint that one shard remembers as exhausted; beyond them the one that ends soonest is
/// forgotten. A power of two.
pub const EXHAUSTED_PAIRS: usize = 1024;
/// Source addresses that cannot be bound to which one connect finds out at once before it gives up.
pub const SOURCE_TRIES: u32 = 32;
/// Of a machine's ports towards one endpoint, one in so many may be in use before free ones are looked for in windows. The kernel
/// tries every second port first, so beyond one half it looks at half the range, port by port, on the shard's thread.
pub const PORTS_CROWDED: u64 = 3;
/// Neighbouring ports that are searched at once then: some tens of microseconds. Of ports of which nine in ten are taken one
/// window in 700,000 has none, of 99 in 100 every fourth.
pub const PORT_WINDOW: u16 = 128;
/// Windows searched before the whole range is.
pub const PORT_WINDOWS: u8 = 8;
/// Source addresses of a configuration that are tried by a bind, to warn of what is not this machine's.
pub const SOURCE_CHECKS: u64 = 4096;
/// Percent of the ports towards an endpoint from which on a warning stands, and below which it is taken back.
pub const PORTS_WARN_PERCENT: u64 = 80;
pub const PORTS_CALM_PERCENT: u64 = 70;

// --- the queue in front of full endpoints (link/queue.rs, conn/queue.rs) ----------------------------------------

/// Those who wait for a place at one cluster, over all shards.
pub const MAX_QUEUED: Bound<u64> = bound(0, 1024, 1 << 20);
/// Waiters that are looked at for one place: those in front may have tried the endpoint that has it.
pub const QUEUE_LOOKS: usize = 16;
/// Places of one cluster that are given away in one turn; the next turn gives the rest.
pub const QUEUE_SERVES: usize = 64;
/// Requests that a shard's own waiters have on one link in a row while other shards wait for its place: after them it is
/// closed for the next shard. More would be less even, fewer would connect more often.
pub const QUEUE_RUN: u32 = 8;
/// A shard with waiters looks for places this often although nobody told it of one: whoever would have may have ended.
pub const QUEUE_LOOK: Duration = ms(250);

// --- failing endpoints (cluster/outlier.rs, cluster/breaker.rs, cluster/events.rs) -------------------------------

/// Failures in a row until an endpoint is ejected; `u64::MAX` stands for "off".
pub const CONSECUTIVE_FAILURES: Bound<u64> = bound(1, 5, u64::MAX);
/// Requests of a window before the rate of failures counts.
pub const MINIMUM_VOLUME: Bound<u64> = bound(1, 100, 1 << 30);
/// The window of the rate of failures, which slides in so many steps.
pub const RATE_WINDOW: Bound<Duration> = bound(secs(1), secs(10), secs(600));
pub const RATE_STEPS: u32 = 10;
pub const EJECTION_TIME: Bound<Duration> = bound(ms(100), secs(30), secs(24 * 3600));
pub const MAX_EJECTION_TIME: Bound<Duration> = bound(ms(100), secs(300), secs(24 * 3600));
pub const MAX_EJECTED_PERCENT: Bound<u64> = bound(0, 50, 100);
/// How long an endpoint that came up has less than its share; 0 is off.
pub const SLOW_START: Bound<Duration> = bound(ms(0), ms(0), secs(3600));
/// Endpoints that a route's condition may ask for.
pub const AVAILABLE: Bound<u64> = bound(1, 1, ENDPOINTS_MAX as u64);
/// Failures in a row until a breaker opens.
pub const FAILURE_THRESHOLD: Bound<u64> = bound(1, 5, 1 << 20);
pub const RECOVERY_TIMEOUT: Bound<Duration> = bound(ms(100), secs(30), secs(24 * 3600));
pub const TRIAL_TIMEOUT: Bound<Duration> = bound(ms(100), secs(10), secs(24 * 3600));
/// Events of endpoints that wait for control, which reads them ten times a second; beyond, they are counted as lost. A
/// power of two.
pub const EVENTS: usize = 4096;
// --- active checks (control's health) ---------------------------------------------------------------------------

/// From the start of one check of an endpoint to the start of the next.
pub const CHECK_INTERVAL: Bound<Duration> = bound(ms(10), secs(2), secs(24 * 3600));
/// For a whole check.
pub const CHECK_TIMEOUT: Bound<Duration> = bound(ms(1), secs(2), secs(300));
/// Checks in a row that must pass until an endpoint is up, or fail until it is down.
pub const CHECK_RISE: Bound<u64> = bound(1, 2, 1000);
pub const CHECK_FALL: Bound<u64> = bound(1, 3, 1000);
/// Bytes of a body that are read and searched; what is behind them is not looked at.
pub const CHECK_BODY_BYTES: usize = 64 * 1024;
/// Bytes taken from a check's socket at once.
pub const CHECK_READ_BYTES: usize = 4096;
/// Bytes of a path, and of the fields that a configuration adds to a check's request.
pub const CHECK_PATH_BYTES: usize = 2048;
pub const CHECK_FIELDS: usize = 32;
pub const CHECK_FIELD_BYTES: usize = 4096;
/// Bytes of the text that a body must contain, and ranges of statuses that count as good.
pub const CHECK_TEXT_BYTES: usize = 4096;
pub const CHECK_STATUSES: usize = 64;
/// Bytes of an answer that a reason quotes.
pub const CHECK_QUOTE_BYTES: usize = 64;
/// Checks that run at once; those beyond wait for one to end.
pub const CHECKS_AT_ONCE: usize = 1024;
/// The share of the process's descriptors that checks may have, those that run and connections kept between them: one in
/// so many.
pub const CHECK_DESCRIPTORS_DIVISOR: u64 = 8;
/// Checks sent by hand that run at once.
pub const PROBES_AT_ONCE: usize = 8;

// --- what a shard says of its conns (shard/listing.rs) ------------------------------------------------------------

/// Slots looked at in one turn, and conns described, each at two system calls: together some 20 us.
pub const LISTING_SLOTS_PER_TURN: u32 = 64;
pub const LISTING_ROWS_PER_TURN: u32 = 16;
/// Conns in one answer, by default and at most.
pub const LISTING_ROWS_DEFAULT: usize = 100;
pub const LISTING_ROWS: usize = 1000;

// --- HTTP/1 ---------------------------------------------------------------------------------------------------

/// Bytes of the request line without its CRLF. RFC 9112 section 3 recommends at least 8000.
pub const REQUEST_LINE: Bound<u64> = bound(256, 8 * KIB, 16 * KIB);
/// Bytes of all field lines with their CRLFs, without the empty line that ends them.
pub const HEADER_BLOCK: Bound<u64> = bound(512, 16 * KIB, 40 * KIB);
/// Field lines in one head.
pub const HEADER_FIELDS: Bound<u64> = bound(8, 100, 256);
/// Most fields any head may have, ours or an origin's: sizes the parser's table on the stack.
pub const HEADER_FIELDS_MAX: usize = 256;
/// Header block of an origin's response, bytes.
pub const RESPONSE_HEADER_BLOCK: usize = 56 * 1024;
/// What our own fields may add to a forwarded head (Via, X-Forwarded-*, framing, Date), bytes.
pub const HEAD_ADDED_BYTES: usize = 6 * 1024;
/// Body of one request, bytes; `u64::MAX` stands for "unlimited".
pub const REQUEST_BODY: Bound<u64> = bound(0, u64::MAX, u64::MAX);
/// Requests on one downstream connection; `u64::MAX` stands for "unlimited".
pub const REQUESTS_PER_CONNECTION: Bound<u64> = bound(1, u64::MAX, u64::MAX);
/// Requests that may wait unanswered on one connection, the running one included.
pub const PIPELINED: Bound<u64> = bound(1, 16, 256);
/// Empty lines ignored in front of a request line (RFC 9112 section 2.2 asks for at least one).
pub const LEADING_EMPTY_LINES: usize = 2;
/// Chunk extensions of one body, bytes in all; they are ignored and never forwarded.
pub const CHUNK_EXTENSION_BYTES: u32 = 4096;
/// Digits of a chunk size; sixteen hexadecimal digits hold any 64-bit length.
pub const CHUNK_SIZE_DIGITS: u8 = 16;
/// Trailer section: the same bounds as the default header block.
pub const TRAILER_BYTES: u32 = 16384;
pub const TRAILER_FIELDS: u32 = 100;
/// Interim (1xx) responses of one exchange, count and bytes (threats U01).
pub const INTERIM_RESPONSES: u32 = 16;
pub const INTERIM_BYTES: u32 = 32 * 1024;
/// Options named by the Connection fields of one head: each is looked for among all its fields.
pub const CONNECTION_OPTIONS: u32 = 100;
/// An origin's status line without its CRLF, bytes.
pub const STATUS_LINE_BYTES: usize = 1022;
/// Longest method we pass on.
pub const METHOD_BYTES: usize = 32;
/// Longest host we route by: a DNS name and its port.
pub const HOST_BYTES: usize = 300;
/// Tables of ended heads kept for the next ones; an idle shard keeps no more than this many of its busiest hour.
pub const SPARE_HEADS: usize = 256;
/// How long a shard waits at its start for memory for its ring, and between two tries.
pub const RING_MEMORY_WAIT: Duration = secs(5);
pub const RING_MEMORY_PAUSE: Duration = ms(250);
/// Conns closed at once to make room when descriptors are short.
pub const MAKE_ROOM: usize = 16;
/// After nobody was found who could make room.
pub const ROOM_PAUSE: Duration = ms(10);
/// One that has not asked yet is not expected to within this: two round trips half around the world.
pub const FIRST_BYTES: Duration = ms(500);
/// One that rests between requests gives its place up no sooner.
pub const REST: Duration = secs(1);
/// Idle links closed at once, for each cluster, when descriptors have run out.
pub const RELIEF_LINKS: usize = 4;
/// Bytes of a body by which an early answer still lets the rest be read and dropped, to keep the connection.
pub const DRAIN_BYTES: u64 = 64 * KIB;
/// A refusal's linger: read and discard this much, this long, before closing.
pub const LINGER_BYTES: u32 = 64 * 1024;
pub const LINGER: Duration = secs(2);
/// The same where the refusal says that descriptors or places have run out: lingering holds one more.
pub const LINGER_HURRIED: Duration = ms(200);
/// A client that finished sending gets its answer if that comes within this; later it counts as gone.
pub const CLIENT_GONE_GRACE: Duration = secs(1);
/// A client whose last request is answered sooner is not watched for leaving: that would cost an operation and its cancel for
/// each connection that carries one request.
pub const WATCH_AFTER: Duration = ms(100);
/// Bytes that are received of a message whose body goes by splice: its head and a little of the body, which fit one send.
/// A longer head takes more than one receive, so links whose heads are longer do without.
pub const HEAD_ALONE: u32 = 1024;

// --- before the first byte of a connection's own (proto/proxy_header, proto/client_hello) ------------------------

/// Bytes of a PROXY header of version 1 with its CRLF (HAProxy's doc/proxy-protocol.txt, 2.1: "a 108-byte buffer is
/// always enough").
pub const PROXY_V1_BYTES: usize = 107;
/// Bytes of a PROXY header of version 2 with its TLVs; what the length field could announce is 16 times as much. A
/// balancer's own (addresses, TLS details, ids) are below 536.
pub const PROXY_V2_BYTES: usize = 4096;
/// Bytes up to the end of a ClientHello, record headers included. One with a post-quantum key share is below 2 KiB, and
/// what a server asks for in a cookie may add some.
pub const CLIENT_HELLO_BYTES: usize = 16 * 1024;

// --- timeouts -------------------------------------------------------------------------------------------------

const MAX_WAIT: Duration = secs(24 * 3600);
pub const REQUEST_HEADER_TIMEOUT: Bound<Duration> = bound(ms(10), secs(10), MAX_WAIT);
pub const REQUEST_BODY_TIMEOUT: Bound<Duration> = bound(ms(10), secs(30), MAX_WAIT);
/// Bytes per second that a body must keep, after the first `MIN_RATE_GRACE`; 0 is off.
pub const MIN_RATE: Bound<u64> = bound(0, 500, 1 << 30);
pub const MIN_RATE_GRACE: Duration = secs(10);
pub const SEND_TIMEOUT: Bound<Duration> = bound(ms(10), secs(30), MAX_WAIT);
/// A conn that waits this long for a request has its recv replaced by a poll, which the kernel keeps in less memory; long
/// enough that a client in the middle of its work never pays for the exchange.
pub const PARK_AFTER: Duration = secs(5);
pub const IDLE_TIMEOUT: Bound<Duration> = bound(ms(10), secs(60), MAX_WAIT);
pub const TUNNEL_IDLE_TIMEOUT: Bound<Duration> = bound(ms(10), secs(3600), secs(30 * 24 * 3600));
/// `Duration::MAX` stands for "off".
pub const MAX_LIFETIME: Bound<Duration> = bound(ms(10), Duration::MAX, Duration::MAX);
/// How long a vanished peer may go unnoticed: the kernel counts probes in whole seconds, and less than four of them would
/// take a short outage of the network for a death. `Duration::MAX` stands for "off".
pub const DEAD_PEER: Bound<Duration> = bound(secs(5), secs(120), secs(3600));
pub const CONNECT_TIMEOUT: Bound<Duration> = bound(ms(1), secs(2), secs(300));
pub const RESPONSE_HEADER_TIMEOUT: Bound<Duration> = bound(ms(1), secs(60), MAX_WAIT);
pub const RESPONSE_BODY_TIMEOUT: Bound<Duration> = bound(ms(1), secs(60), MAX_WAIT);
/// For a place at a full endpoint; 0 refuses at once.
pub const QUEUE_TIMEOUT: Bound<Duration> = bound(ms(0), secs(5), MAX_WAIT);
pub const POOL_IDLE_TIMEOUT: Bound<Duration> = bound(ms(1), secs(30), MAX_WAIT);
/// From when readiness fails until no new connections are taken.
pub const DRAIN_ACCEPT_FOR: Bound<Duration> = bound(ms(0), ms(0), MAX_WAIT);
pub const DRAIN_TIMEOUT: Bound<Duration> = bound(ms(0), secs(30), MAX_WAIT);

// --- endpoints by name and by file (control's discovery) --------------------------------------------------------

/// Host names and services of one configuration: each costs a question per TTL.
pub const NAMES_MAX: usize = 4096;
/// Addresses taken of one name, all of its services' targets included; the rest of a longer answer is left out, with a warning.
pub const NAME_ADDRESSES: usize = 256;
/// Targets taken of one service (SRV).
pub const NAME_TARGETS: usize = 64;
/// Questions that are asked at once; each takes up to four descriptors, of those that the process keeps for itself.
pub const NAMES_AT_ONCE: usize = 16;
/// Time between two questions for a name that was answered: the answer's TTL, within these.
pub const NAME_TTL: Bound<Duration> = bound(secs(1), secs(1), secs(300));
/// The pause after a question that was not answered, doubled each time up to the second.
pub const NAME_RETRY: Duration = secs(1);
pub const NAME_RETRY_MAX: Duration = secs(60);
/// For one question to one resolver, which is put twice.
pub const NAME_TIMEOUT: Duration = secs(2);
/// For a question: the addresses of both families of one host, or the targets of a service.
pub const NAME_ANSWER: Duration = secs(15);
/// How long the start waits for the names that are not answered yet, before it serves without them.
pub const NAMES_AT_START: Duration = secs(2);
/// Resolvers that a configuration may name.
pub const RESOLVERS_MAX: usize = 8;
/// A file of endpoints, bytes.
pub const ENDPOINTS_FILE_BYTES: u64 = 1 << 20;
/// Between two looks at a file of endpoints.
pub const ENDPOINTS_FILE_LOOK: Duration = secs(1);
/// Threads that wait for files, so that control does not: one that hangs on a network holds one.
pub const FILE_THREADS: usize = 32;
/// Lines that one change of a cluster's endpoints writes to the log at most.
pub const ENDPOINTS_TOLD: usize = 256;
/// An id of an endpoint that is gone is not given anew before this: what it answered last is still written to the access log.
pub const ENDPOINT_REST: Duration = secs(10);

// --- the configuration's size ---------------------------------------------------------------------------------

pub const SHARDS: Bound<u64> = bound(1, 1, 1024);
pub const LISTENERS_MAX: usize = 1024;
pub const LISTENER_ADDRESSES_MAX: usize = 64;
pub const ROUTES_MAX: usize = 100_000;
pub const CLUSTERS_MAX: usize = 10_000;
pub const ENDPOINTS_MAX: usize = 10_000;
/// Source addresses of one cluster: a link holds the number of its own in 16 bits, of which one says that it has none.
pub const SOURCE_ADDRESSES_MAX: usize = u16::MAX as usize;
pub const ENDPOINT_WEIGHT: Bound<u64> = bound(0, 1, 256);
/// Tiers: an endpoint's is its priority.
pub const ENDPOINT_PRIORITY: Bound<u64> = bound(0, 0, u8::MAX as u64);
/// Open links and running requests of one endpoint; `u64::MAX` stands for "unlimited".
pub const ENDPOINT_CONNECTIONS: Bound<u64> = bound(1, u64::MAX, u64::MAX);
pub const ENDPOINT_REQUESTS: Bound<u64> = bound(1, u64::MAX, u64::MAX);
/// Connections open on one listener, over all shards; the default is what descriptors allow.
pub const LISTENER_CONNECTIONS: Bound<u64> = bound(1, 1 << 20, 1 << 24);
/// Texts in one list of a match.
pub const MATCH_LIST_MAX: usize = 10_000;
/// Bytes of the table that a regular expression is made to, of routes and checks: searching takes one step in it for each byte.
pub const PATTERN_BYTES: usize = 1 << 20;
/// A configuration file, bytes.
pub const CONFIG_FILE_BYTES: u64 = 10 << 20;
/// To read a file that a running process is to go over to, with the files that it names, and to check it.
pub const CONFIG_READ: Duration = secs(10);
/// Entries of a cluster's weighted round-robin cycle (the sum of weights after division by their divisor).
pub const ROUND_ROBIN_CYCLE: usize = 1 << 20;
/// Slots of the table that a hash looks its endpoint up in: a prime, so that each endpoint's order of them meets all. One that
/// would grow with the cluster would move every key each time; this one shares 100 endpoints to within 1 %, and has a slot
/// for each of the largest cluster.
pub const HASH_SLOTS: usize = 65_537;
/// Slots that one pick looks at, because the endpoints there may not be used or have their share, before any that may be used
/// will do.
pub const HASH_PROBES: usize = 256;
/// Percent of its share of the load that an endpoint may have, where picks are by hash; `u32::MAX` is no bound.
pub const BOUNDED_LOAD_PERCENT: Bound<u32> = bound(100, u32::MAX, 10_000);
/// Bytes of the name of a cookie by which clients stick to their endpoints.
pub const STICKY_COOKIE_BYTES: usize = 64;
/// Bytes of the key that its values are made with: what is shorter can be guessed.
pub const STICKY_KEY_BYTES: Bound<usize> = bound(16, 32, 4096);
/// Bytes of its Domain (a DNS name) and Path.
pub const STICKY_DOMAIN_BYTES: usize = 253;
pub const STICKY_PATH_BYTES: usize = 1024;
/// How long a client keeps it; browsers make no more than 400 days of it (RFC 6265bis 5.5). `Duration::MAX` stands for as
/// long as the browser runs.
pub const STICKY_MAX_AGE: Bound<Duration> = bound(secs(1), Duration::MAX, Duration::MAX);
/// Idle links kept to one cluster, over all shards.
pub const POOL_IDLE: Bound<u64> = bound(0, 256, 1 << 20);
/// Attempts of one request at connecting: the first and the next endpoints.
pub const CONNECT_ATTEMPTS: u32 = 8;

// --- second attempts (cluster/{retry,budget,delay}.rs, exchange/beside.rs) ----------------------------------------

/// Further attempts of one request of which bytes were written: each multiplies what a failing origin is sent.
pub const RETRY_ATTEMPTS: Bound<u64> = bound(0, 1, 3);
/// Second attempts in a hundred requests; 20 is what linkerd has as its default too.
pub const RETRY_BUDGET_PERCENT: Bound<u64> = bound(0, 20, 100);
/// Second attempts each second that are allowed whatever the share, over all shards, or a node with one request a second
/// could make none (linkerd's default too).
pub const RETRY_BUDGET_MINIMUM: Bound<u64> = bound(0, 10, 100_000);
/// The budget is a share of the requests of the last so many seconds, counted in buckets of one second.
pub const BUDGET_SECONDS: usize = 10;
/// Largest request body that is held to be sent again, bytes: it lies in one lease.
pub const REPLAY_BODY: Bound<u64> = bound(0, 16 * KIB, 63 * KIB);
/// When a hedge begins, where that is a fixed time.
pub const HEDGE_DELAY: Bound<Duration> = bound(ms(1), ms(100), secs(60));
/// Percentiles that a hedge may wait for: below, nearly every request would be sent twice.
pub const HEDGE_PERCENTILE: Bound<u64> = bound(50, 95, 99);
/// First bytes of a cluster that a shard must have seen before their percentile means anything.
pub const HEDGE_SAMPLES: u64 = 100;
/// How often that percentile is taken anew, and what was seen counts half.
pub const HEDGE_REFRESH: Duration = secs(1);
pub const HEDGE_HALVE: Duration = secs(10);
