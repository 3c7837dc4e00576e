//! Access-log records on their way out of a shard: encoded into a bounded byte ring, decoded by the log thread.
//!
//! The writing side copies bytes and stores one index: no allocation, no system call, no wait. It never wakes the
//! reader, which polls (5 to 25 ms apart, control's log thread decides). A record goes in whole or, when the ring is
//! full, not at all, and is counted.

use crate::fault::{CLOSE_REASONS, CloseReason, End, REFUSALS, Refusal};
use crate::io::SocketAddress;
use crate::limits::{LOG_RING_BYTES, LOG_STRING_BYTES};
use crate::proto::trace::TraceParent;
use crate::spec::{ClusterId, EndpointId, ListenerId, Protocol, RouteId};
use crate::stats::request_id::RequestId;
use crate::stats::retries::Retries;
use crate::stats::timings::Timings;
use crate::stats::traced::Traced;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One exchange, or one connection of a tcp listener, as the access log tells it. Strings are raw bytes of the wire; whoever prints them escapes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the listener speaks. Of tcp there is one record for a connection, and nothing in it that is of requests.
    pub protocol: Protocol,
    /// When the request's first byte came, or the tcp connection, nanoseconds since 1970 UTC.
    pub wall_ns: u64,
    pub request_id: RequestId,
    pub listener: ListenerId,
    pub route: Option<RouteId>,
    pub cluster: Option<ClusterId>,
    /// Of the last attempt.
    pub endpoint: Option<EndpointId>,
    /// Unspecified where nobody knows it: see [`Record::client`].
    pub peer: SocketAddress,
    /// The local address of the link that the last attempt used.
    pub upstream_local: Option<SocketAddress>,
    pub method: &'a [u8],
    pub host: &'a [u8],
    pub path: &'a [u8],
    /// Without its "?".
    pub query: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// The trace that the client's request is part of.
    pub trace: Option<TraceParent>,
    /// The span that it is for us, if it is recorded as one.
    pub span: Option<Traced>,
    /// The x of HTTP/1.x.
    pub minor_version: u8,
    /// What the client was told; 0 if it was told nothing.
    pub status: u16,
    /// Body bytes received from the client, framing not counted.
    pub request_body_bytes: u64,
    /// Body bytes sent to the client, framing not counted.
    pub response_body_bytes: u64,
    pub timings: Timings,
    /// Endpoints tried.
    pub attempts: u8,
    /// Why more than one was, or was not.
    pub retries: Retries,
    /// The last attempt went over a pooled link.
    pub link_reused: bool,
    /// Why the answer is our own.
    pub refusal: Option<Refusal>,
    /// Why the connection ended, if it ended with this exchange.
    pub close: Option<CloseReason>,
    /// Who ended it, and where it was then.
    pub end: End,
    /// Which request of its connection this was; the first is 1.
    pub request_number: u64,
    /// Bytes from the client through the tunnel that this exchange, or tcp connection, became.
    pub tunnel_up_bytes: u64,
    /// Bytes to the client through it.
    pub tunnel_down_bytes: u64,
}

/// Bytes of everything in a record that is not a string: an upper bound, for the const assertion and the scratch.
const FIXED_BYTES: usize = 256;
const STRINGS: usize = 6;
/// The longest encoded record.
pub const RECORD_BYTES_MAX: usize = FIXED_BYTES + STRINGS * (LOG_STRING_BYTES + 3);
const _: () = assert!(RECORD_BYTES_MAX * 16 <= LOG_RING_BYTES, "a few of the longest records fit a ring");
const _: () = assert!(LOG_STRING_BYTES < u16::MAX as usize);
const _: () = assert!(Refusal::COUNT < 255 && CloseReason::COUNT < 255, "one byte each, 255 is none");

/// The bytes that a record keeps of `text`.
pub fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(LOG_STRING_BYTES)]
}

/// A shard's end of its ring.
#[derive(Debug)]
pub struct LogWriter {
    ring: rtrb::Producer<u8>,
    dropped: Arc<AtomicU64>,
    /// One encoded record, so that what goes into the ring is one copy of known length. Never grows.
    scratch: Vec<u8>,
}

/// The log thread's end.
#[derive(Debug)]
pub struct LogReader {
    ring: rtrb::Consumer<u8>,
    dropped: Arc<AtomicU64>,
    scratch: Vec<u8>,
}

/// A shard's ring of `LOG_RING_BYTES`: its two ends.
pub fn ring() -> (LogWriter, LogReader) {
    ring_of(LOG_RING_BYTES)
}

fn ring_of(bytes: usize) -> (LogWriter, LogReader) {
    let (producer, consumer) = rtrb::RingBuffer::new(bytes);
    let dropped = Arc::new(AtomicU64::new(0));
    let scratch = || Vec::with_capacity(RECORD_BYTES_MAX);
    (
        LogWriter { ring: producer, dropped: Arc::clone(&dropped), scratch: scratch() },
        LogReader { ring: consumer, dropped, scratch: scratch() },
    )
}

impl LogWriter {
    /// Puts the whole record in, or counts it as dropped. Strings are cut to `LOG_STRING_BYTES`.
    pub fn write(&mut self, record: &Record<'_>) {
        self.scratch.clear();
        self.scratch.extend_from_slice(&[0; 2]);
        record.encode(&mut self.scratch);
        let len = u16::try_from(self.scratch.len() - 2).unwrap_or(0);
        self.scratch[..2].copy_from_slice(&len.to_le_bytes());
        if self.ring.push_entire_slice(&self.scratch).is_err() {
            // Only this side writes the counter: a load and a store are exact (invariant 13).
            self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Records lost to a full ring since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl LogReader {
    /// Hands at most `limit` records to `each`, oldest first. Returns how many there were.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&Record<'_>)) -> usize {
        let mut count = 0;
        while count < limit && self.next(&mut each) {
            count += 1;
        }
        count
    }

    /// Records lost to a full ring since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Bytes of records that wait in the ring.
    pub fn waiting_bytes(&self) -> usize {
        self.ring.slots()
    }

    /// Whether the shard's end is gone: what `drain` then finds is the last.
    pub fn writer_gone(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Hands over the oldest record, which is read where it is unless it goes on at the ring's begin.
    fn next(&mut self, each: &mut impl FnMut(&Record<'_>)) -> bool {
        let Ok(len) = self.ring.read_chunk(2) else { return false };
        let len = match len.as_slices() {
            ([low, high], _) => u16::from_le_bytes([*low, *high]),
            ([low], [high]) => u16::from_le_bytes([*low, *high]),
            _ => 0,
        };
        // A record is published by one store, so its length is there only when all of it is.
        let Ok(chunk) = self.ring.read_chunk(2 + usize::from(len)) else { return false };
        let record = match chunk.as_slices() {
            (whole, []) => whole,
            (begin, end) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(begin);
                self.scratch.extend_from_slice(end);
                &self.scratch
            }
        };
        match Record::decode(&record[2..]) {
            Some(record) => each(&record),
            None => debug_assert!(false, "a record does not decode"),
        }
        chunk.commit_all();
        true
    }
}

impl<'a> Record<'a> {
    /// The record of a tcp connection, of which nothing but its ends is known yet.
    pub fn of_tcp(listener: ListenerId, peer: SocketAddress, request_id: RequestId) -> Self {
        Self {
            protocol: Protocol::Tcp,
            wall_ns: 0,
            request_id,
            listener,
            route: None,
            cluster: None,
            endpoint: None,
            peer,
            upstream_local: None,
            method: &[],
            host: &[],
            path: &[],
            query: None,
            user_agent: None,
            referer: None,
            trace: None,
            span: None,
            minor_version: 0,
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
            request_number: 0,
            tunnel_up_bytes: 0,
            tunnel_down_bytes: 0,
        }
    }

    /// The client's address; none where it was gone before its address could be asked for.
    pub fn client(&self) -> Option<SocketAddress> {
        Some(self.peer).filter(|peer| *peer != SocketAddress::UNSPECIFIED)
    }

    /// The trace that it is part of: the client's, or one that begins here.
    pub fn trace_id(&self) -> Option<&[u8; 16]> {
        let clients = self.trace.as_ref().map(|trace| &trace.trace_id);
        clients.or_else(|| self.span.as_ref().map(|span| &span.trace_id))
    }

    /// Appends the record; the exact inverse of [`Record::decode`] for strings that need no cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.wall_ns);
        put_u64(out, self.request_id.count);
        out.extend_from_slice(&self.request_id.process.to_le_bytes());
        out.extend_from_slice(&self.request_id.shard.to_le_bytes());
        out.extend_from_slice(&self.listener.0.to_le_bytes());
        out.extend_from_slice(&self.route.map_or(u32::MAX, |id| id.0).to_le_bytes());
        out.extend_from_slice(&self.cluster.map_or(u16::MAX, |id| id.0).to_le_bytes());
        out.extend_from_slice(&self.endpoint.map_or(u16::MAX, |id| id.0).to_le_bytes());
        put_address(out, Some(self.peer));
        put_address(out, self.upstream_local);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&[
            self.minor_version,
            self.protocol as u8,
            self.attempts,
            self.retries.bits(),
            u8::from(self.link_reused),
            self.refusal.map_or(NONE, |refusal| refusal as u8),
            self.close.map_or(NONE, |close| close as u8),
            self.end.bits(),
        ]);
        put_trace(out, self.trace, self.span);
        let [head, queue, lost, connect, response, transfer, total] = self.timings.numbers();
        put_numbers(
            out,
            [
                self.request_body_bytes,
                self.response_body_bytes,
                head,
                queue,
                lost,
                connect,
                response,
                transfer,
                total,
                self.request_number,
                self.tunnel_up_bytes,
                self.tunnel_down_bytes,
            ],
        );
        for text in
            [Some(self.method), Some(self.host), Some(self.path), self.query, self.user_agent, self.referer]
        {
            put_text(out, text);
        }
    }

    /// What [`Record::encode`] wrote, or `None` if `bytes` are anything else.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Cursor(bytes);
        let wall_ns = from.u64()?;
        let count = from.u64()?;
        let process = from.u32()?;
        let request_id = RequestId { process, shard: from.u16()?, count };
        let listener = ListenerId(from.u16()?);
        let route = from.u32().map(|id| (id != u32::MAX).then_some(RouteId(id)))?;
        let cluster = from.u16().map(|id| (id != u16::MAX).then_some(ClusterId(id)))?;
        let endpoint = from.u16().map(|id| (id != u16::MAX).then_some(EndpointId(id)))?;
        let peer = from.address()??;
        let upstream_local = from.address()?;
        let status = from.u16()?;
        let [minor_version, protocol, attempts, retries, reused, refusal, close, end] = from.array()?;
        let (trace, span) = from.trace()?;
        let record = Self {
            trace,
            span,
            protocol: if protocol == Protocol::Tcp as u8 { Protocol::Tcp } else { Protocol::Http },
            wall_ns,
            request_id,
            listener,
            route,
            cluster,
            endpoint,
            peer,
            upstream_local,
            status,
            minor_version,
            attempts,
            retries: Retries::from_bits(retries),
            link_reused: reused != 0,
            refusal: REFUSALS.get(usize::from(refusal)).map(|row| row.refusal),
            close: CLOSE_REASONS.get(usize::from(close)).map(|row| row.0),
            end: End::from_bits(end),
            request_body_bytes: from.number()?,
            response_body_bytes: from.number()?,
            timings: Timings::from_numbers(from.numbers()?),
            request_number: from.number()?,
            tunnel_up_bytes: from.number()?,
            tunnel_down_bytes: from.number()?,
            method: from.text()??,
            host: from.text()??,
            path: from.text()??,
            query: from.text()?,
            user_agent: from.text()?,
            referer: from.text()?,
        };
        from.0.is_empty().then_some(record)
    }
}

/// "None" where a value is one byte, and the length of an absent string where it is two.
const NONE: u8 = 255;
const ABSENT: u16 = u16::MAX;

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// The longest of [`put_numbers`]: seven bits in a byte.
const NUMBER_BYTES: u32 = u64::BITS.div_ceil(7);

/// Numbers that are mostly small or none (`u64::MAX`), lowest seven bits first, the upper bit saying that more follow.
fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    let mut bytes = [0; NUMBER_BYTES as usize * 16];
    let mut len = 0;
    for number in numbers {
        // So that none is the shortest.
        let mut left = number.wrapping_add(1);
        while left > 0x7f {
            bytes[len] = (left & 0x7f) as u8 | 0x80;
            (left, len) = (left >> 7, len + 1);
        }
        bytes[len] = (left & 0x7f) as u8;
        len += 1;
    }
    out.extend_from_slice(&bytes[..len]);
}

fn put_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    let bytes = text.map(cut);
    let len = bytes.map_or(ABSENT, |bytes| u16::try_from(bytes.len()).unwrap_or(ABSENT));
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// One byte that says which of them are there, and those.
fn put_trace(out: &mut Vec<u8>, trace: Option<TraceParent>, span: Option<Traced>) {
    out.push(u8::from(trace.is_some()) | u8::from(span.is_some()) << 1);
    if let Some(TraceParent { trace_id, parent_id, flags }) = trace {
        out.extend_from_slice(&trace_id);
        out.extend_from_slice(&parent_id);
        out.push(flags);
    }
    if let Some(Traced { trace_id, span_id }) = span {
        out.extend_from_slice(&trace_id);
        out.extend_from_slice(&span_id);
    }
}

/// One byte of family (0 is none, 1 the unix domain, which ends there), then the address and the port.
fn put_address(out: &mut Vec<u8>, address: Option<SocketAddress>) {
    match address.map(|address| address.ip()) {
        None => return out.push(0),
        Some(None) => return out.push(1),
        Some(Some(IpAddr::V4(ip))) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        Some(Some(IpAddr::V6(ip))) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.map_or(0, |address| address.port()).to_le_bytes());
}

/// What is left to decode.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// What [`put_numbers`] wrote of one number.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for at in 0..NUMBER_BYTES {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Some(number.wrapping_sub(1));
            }
        }
        None
    }
    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }
    /// The outer `None` is a decoding failure, the inner one an absent string.
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        match self.u16()? {
            ABSENT => Some(None),
            len => self.take(usize::from(len)).map(Some),
        }
    }
    fn trace(&mut self) -> Option<(Option<TraceParent>, Option<Traced>)> {
        let [which @ 0..=3] = self.array()? else { return None };
        let mut found = (None, None);
        if which & 1 != 0 {
            let (trace_id, parent_id, [flags]) = (self.array()?, self.array()?, self.array()?);
            found.0 = Some(TraceParent { trace_id, parent_id, flags });
        }
        if which & 2 != 0 {
            found.1 = Some(Traced { trace_id: self.array()?, span_id: self.array()? });
        }
        Some(found)
    }
    fn address(&mut self) -> Option<Option<SocketAddress>> {
        let ip = match self.array()? {
            [0] => return Some(None),
            [1] => return Some(Some(SocketAddress::UNIX)),
            [4] => IpAddr::from(self.array::<4>()?),
            [6] => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        Some(Some(SocketAddress::new(ip, self.u16()?)))
    }
}

#[cfg(test)]
mod tests;
