//! One socket as a shard holds it: what the kernel has in flight on it, and the bytes queued to be sent.
//!
//! A stream that waits long is *parked*: a poll takes the place of its recv, under the same bit and token, because the
//! kernel keeps 864 bytes for a recv that waits and 256 for a poll. Whoever cancels, closes or counts sees no difference.
//!
//! The seam for TLS: a stream that encrypts will hold a session beside these fields, and its `push` and `received` will
//! pass through it; everything above sees plain bytes either way.

use crate::buf::{Chain, Class, Lease, Pool};
use crate::io::{Expect, Fd, Interest, Io, Shutdown, SocketOption, Token};
use crate::limits;

const RECV: u16 = 1 << 0;
const SEND: u16 = 1 << 1;
const CONNECT: u16 = 1 << 2;
const CLOSE: u16 = 1 << 3;
const IN_FLIGHT: u16 = RECV | SEND | CONNECT | CLOSE;
const EOF: u16 = 1 << 4;
const FIN_WANTED: u16 = 1 << 5;
const FIN_SENT: u16 = 1 << 6;
const BULK: u16 = 1 << 7;
const NON_BLOCKING: u16 = 1 << 8;
/// The recv in flight was asked to make room for a poll, or the poll is what is in flight.
const PARKED: u16 = 1 << 9;
/// What is received next is a head whose body is spliced.
const HEAD: u16 = 1 << 10;
/// Small messages in a row, up to [`OFTEN`]: then more of the kind are expected.
const SMALL_ONE: u16 = 1 << 11;
const OFTEN: u16 = 3 << 11;

/// A socket, one bit for each operation in flight on it (submitting a set bit is a bug), and its send queue.
#[derive(Debug)]
pub struct Stream {
    pub fd: Fd,
    bits: u16,
    tx: Chain,
}

impl Stream {
    pub fn new(fd: Fd) -> Self {
        Self { fd, bits: 0, tx: Chain::default() }
    }

    /// Of a socket that was another's before; `eof`: its peer's FIN was seen there.
    pub fn adopted(fd: Fd, eof: bool) -> Self {
        Self { bits: if eof { EOF } else { 0 }, ..Self::new(fd) }
    }

    fn begin(&mut self, bit: u16) {
        assert!(self.bits & bit == 0, "an operation was submitted twice on one descriptor");
        assert!(self.bits & CLOSE == 0, "an operation was submitted on a closing descriptor");
        self.bits |= bit;
    }
    fn end(&mut self, bit: u16) {
        assert!(self.bits & bit != 0, "a completion came for an operation that is not in flight");
        self.bits &= !bit;
    }

    /// Nothing of this socket is with the kernel: it may be closed (invariant 2).
    pub fn is_quiet(&self) -> bool {
        self.bits & IN_FLIGHT == 0
    }
    pub fn is_receiving(&self) -> bool {
        self.bits & RECV != 0
    }
    pub fn is_sending(&self) -> bool {
        self.bits & SEND != 0
    }
    pub fn is_connecting(&self) -> bool {
        self.bits & CONNECT != 0
    }
    /// The peer's FIN was seen.
    pub fn is_eof(&self) -> bool {
        self.bits & EOF != 0
    }
    /// We sent FIN, or will once the queue is empty.
    pub fn is_finished(&self) -> bool {
        self.bits & (FIN_SENT | FIN_WANTED) != 0
    }
    /// Nothing queued and nothing being sent.
    pub fn is_drained(&self) -> bool {
        self.tx.is_empty() && self.bits & SEND == 0
    }
    /// Leases that may still be queued.
    pub fn room(&self) -> usize {
        self.tx.room()
    }
    /// Leases queued, the one being sent included.
    pub fn queued(&self) -> usize {
        self.tx.len()
    }

    /// Arms one recv unless one is armed or the peer has finished. `token` is the recv token of the owner.
    pub fn arm_recv(&mut self, io: &mut impl Io, expect: Expect, token: Token) {
        let class = if self.bits & BULK != 0 { Class::Large } else { Class::Small };
        let expect = if self.bits & HEAD != 0 && expect == Expect::Later { Expect::Head } else { expect };
        self.arm_recv_of(io, class, expect, token);
    }
    /// As [`Stream::arm_recv`], with a class of the caller's choice: small where the bytes will join others.
    pub fn arm_recv_of(&mut self, io: &mut impl Io, class: Class, expect: Expect, token: Token) {
        if self.bits & (RECV | EOF | CLOSE) == 0 {
            self.begin(RECV);
            let often = self.bits & OFTEN == OFTEN && class == Class::Small && expect != Expect::Head;
            io.recv(self.fd, class, if often { Expect::Often } else { expect }, token);
        }
    }
    /// A recv completed with bytes. A full buffer asks for larger ones from now on, a mostly empty one for small ones.
    pub fn on_received(&mut self, lease: &Lease) {
        self.end(RECV);
        self.bits &= !PARKED;
        if lease.len() >= Class::Small.capacity() / 2 {
            self.bits &= !OFTEN;
            self.bits |= if lease.len() >= Class::Small.capacity() { BULK } else { 0 };
        } else {
            self.bits &= !BULK;
            self.bits += if self.bits & OFTEN == OFTEN { 0 } else { SMALL_ONE };
        }
    }
    /// The next message begins with a head and goes on by splice: only its first bytes are to be copied.
    pub fn expect_small(&mut self) {
        self.bits &= !BULK;
    }
    /// Whether the next message will probably be a head, of `Some` bytes, and a body that goes by splice: then little more
    /// than the head is to be copied.
    pub fn expect_head(&mut self, bytes: Option<usize>) {
        match bytes {
            Some(bytes) if bytes < limits::HEAD_ALONE as usize => self.bits = self.bits & !BULK | HEAD,
            Some(_) => self.bits &= !(BULK | HEAD),
            None => self.bits &= !HEAD,
        }
    }
    /// Waits until there is something to read, in place of a recv, unless one is armed or the peer has finished.
    pub fn await_readable(&mut self, io: &mut impl Io, token: Token) {
        if self.bits & (RECV | EOF | CLOSE) == 0 {
            self.begin(RECV);
            io.poll(self.fd, Interest::Readable, token);
        }
    }
    /// A poll in the place of a recv is over: that of [`Stream::await_readable`], or of a parked stream.
    pub fn on_readable(&mut self) {
        self.end(RECV);
        self.bits &= !PARKED;
    }
    /// Waits until there is room to send, in place of a send. Nothing is queued or being sent.
    pub fn await_writable(&mut self, io: &mut impl Io, token: Token) {
        self.begin(SEND);
        io.poll(self.fd, Interest::Writable, token);
    }
    /// The wait of [`Stream::await_writable`] is over.
    pub fn on_writable(&mut self) {
        self.end(SEND);
    }
    /// Lets bytes be spliced out to this socket; false where the system will not.
    pub fn allow_splice_out(&mut self, io: &mut impl Io) -> bool {
        if self.bits & NON_BLOCKING == 0 && io.set_option(self.fd, SocketOption::NonBlocking).is_ok() {
            self.bits |= NON_BLOCKING;
        }
        self.bits & NON_BLOCKING != 0
    }
    /// The peer's FIN was met by a splice.
    pub fn on_spliced_eof(&mut self) {
        self.bits |= EOF;
    }
    pub fn on_eof(&mut self) {
        self.end(RECV);
        self.bits |= EOF;
        self.bits &= !PARKED;
    }
    pub fn on_recv_failed(&mut self) {
        self.end(RECV);
        self.bits &= !PARKED;
    }

    /// Has bytes be taken from the socket only by a recv that is in flight, before all is cancelled: the socket is to go elsewhere.
    pub fn take_back(&mut self, io: &mut impl Io, token: Token) {
        if io.stands(token) && self.bits & (RECV | EOF | CLOSE) == 0 {
            self.begin(RECV);
            io.recv(self.fd, Class::Small, Expect::Later, token);
        }
    }

    /// A poll waits in place of the recv, or soon will.
    pub fn is_parked(&self) -> bool {
        self.bits & PARKED != 0
    }
    /// Begins to park: the recv in flight is asked to end. What it says then goes to [`Stream::park_poll`], unless bytes
    /// or the peer's end win the race. The caller knows that nothing is expected for long.
    pub fn park(&mut self, io: &mut impl Io, token: Token) {
        if self.bits & (RECV | PARKED) == RECV {
            self.bits |= PARKED;
            io.cancel(token);
        }
    }
    /// The recv ended to make room: arms the poll in its place. False if the stream is not being parked.
    pub fn park_poll(&mut self, io: &mut impl Io, token: Token) -> bool {
        let parking = self.bits & (RECV | PARKED) == RECV | PARKED;
        if parking {
            io.poll(self.fd, Interest::Readable, token);
        }
        parking
    }

    /// Queues a lease behind what is there. The caller checked [`Stream::room`].
    pub fn push(&mut self, lease: Lease) {
        assert!(!self.is_finished(), "bytes were queued behind the end of a stream");
        self.tx.push(lease);
    }
    /// The last queued lease, to append to, if the kernel is not reading it.
    pub fn back_mut(&mut self) -> Option<&mut Lease> {
        if self.is_sending() { None } else { self.tx.back_mut() }
    }
    /// Sends what is queued unless a send is in flight; then the FIN if one is wanted.
    pub fn flush(&mut self, io: &mut impl Io, pool: &Pool, token: Token) {
        if self.bits & (SEND | CONNECT | CLOSE) != 0 {
            return;
        }
        if !self.tx.is_empty() {
            self.begin(SEND);
            io.send(self.fd, &self.tx, pool, token);
        } else if self.bits & FIN_WANTED != 0 {
            self.bits = self.bits & !FIN_WANTED | FIN_SENT;
            // A failure means that the connection is gone already; the recv in flight will say so.
            let _ = io.shutdown(self.fd, Shutdown::Write);
        }
    }
    /// The kernel took `n` bytes.
    pub fn on_sent(&mut self, n: u32, pool: &mut Pool) {
        self.end(SEND);
        self.tx.consume(n as usize, pool);
    }
    pub fn on_send_failed(&mut self, pool: &mut Pool) {
        self.end(SEND);
        self.tx.clear(pool);
    }
    /// A send, or a wait for room, ended because it was asked to: nothing of the queue was taken. A send that was taken in part
    /// says so in place of that (io_uring/net.c, io_send: short counts are completions like any other).
    pub fn on_send_cancelled(&mut self) {
        self.end(SEND);
    }
    /// Everything queued, for another to send; nothing is in flight.
    pub fn take_queue(&mut self, pool: &mut Pool) -> Vec<u8> {
        assert!(self.is_quiet(), "a queue was taken from under the kernel");
        let bytes = self.tx.iter().flat_map(|lease| pool.bytes(lease).iter().copied()).collect();
        self.tx.clear(pool);
        bytes
    }
    /// No more bytes will be queued: FIN goes out behind the last one, at the next [`Stream::flush`].
    pub fn finish(&mut self) {
        if self.bits & FIN_SENT == 0 {
            self.bits |= FIN_WANTED;
        }
    }

    pub fn connect(&mut self, io: &mut impl Io, to: &crate::io::Address, token: Token) {
        self.begin(CONNECT);
        io.connect(self.fd, to, token);
    }
    pub fn on_connect_ended(&mut self) {
        self.end(CONNECT);
    }

    /// Asks for the end of everything in flight. Their completions still come.
    pub fn cancel(&self, io: &mut impl Io, recv: Token, send: Token, connect: Token) {
        for (bit, token) in [(RECV, recv), (SEND, send), (CONNECT, connect)] {
            if self.bits & bit != 0 {
                io.cancel(token);
            }
        }
    }
    /// Gives queued leases back, unless the kernel still reads them: then the completion of the send does.
    pub fn discard_queue(&mut self, pool: &mut Pool) {
        if !self.is_sending() {
            self.tx.clear(pool);
        }
    }
    /// Asks for the close; nothing is in flight (invariant 2).
    pub fn close(&mut self, io: &mut impl Io, token: Token) {
        assert!(self.is_quiet(), "a descriptor was closed under an operation");
        assert!(self.tx.is_empty(), "a descriptor was closed with leases queued");
        self.begin(CLOSE);
        io.close(self.fd, token);
    }
    pub fn on_closed(&mut self) {
        self.end(CLOSE);
    }
}
