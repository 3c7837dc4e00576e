//! Races: many short connections whose receives, sends, cancels, shutdowns and closes overtake each other, with every
//! completion checked against the slot and the life of the slot that asked for it.

use crate::harness::{Harness, loopback};
use crate::ring::on_ring;
use dataplane::buf::{Chain, Class, Pool, PoolSize};
use dataplane::io::{
    Completion, Errno, Expect, Family, Fd, Io, Kind, Mono, Outcome, Shutdown, SocketOption, Token,
};
use dataplane::sys::{Ring, socket};
use std::time::Duration;

const SLOTS: u32 = 64;
const OPERATIONS: u64 = 100_000;
const SEED: u64 = 0x5eed_0001;

/// xorshift64*: the whole run is a function of its seed and of the kernel's timing.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// One end of a connection.
#[derive(Default)]
struct Slot {
    generation: u32,
    fd: Option<Fd>,
    connecting: bool,
    receiving: bool,
    sending: bool,
    leaving: bool,
    closing: bool,
    chain: Chain,
    /// What this end sends and what it must receive, over and over: one byte for each direction of each connection.
    mine: u8,
    theirs: u8,
}

struct Race {
    io: Ring,
    pool: Pool,
    slots: Vec<Slot>,
    dice: Dice,
    listener: Fd,
    received: u64,
    cancelled: u64,
}

impl Race {
    fn token(&self, kind: Kind, slot: u32) -> Token {
        Token::new(kind, slot, self.slots[slot as usize].generation)
    }

    fn free_slot(&self) -> Option<u32> {
        (0..SLOTS).find(|s| self.slots[*s as usize].fd.is_none())
    }

    /// The bytes of a connection are told from its client's port, which both ends know.
    fn occupy(&mut self, slot: u32, fd: Fd, port: u16, client: bool) {
        let [up, down] = [port.to_le_bytes()[0], port.to_le_bytes()[0] ^ 0xff];
        let it = &mut self.slots[slot as usize];
        it.fd = Some(fd);
        (it.mine, it.theirs) = if client { (up, down) } else { (down, up) };
    }

    fn connect(&mut self) {
        let Some(slot) = self.free_slot() else { return };
        let fd = self.io.socket(Family::V4).unwrap();
        self.io.bind(fd, &loopback().into()).unwrap();
        // No TIME_WAIT, or the ports of the machine run out before the test does.
        self.io.set_option(fd, SocketOption::ResetOnClose).unwrap();
        let port = self.io.local_address(fd).unwrap().port();
        self.occupy(slot, fd, port, true);
        self.slots[slot as usize].connecting = true;
        let to = self.io.local_address(self.listener).unwrap();
        self.io.connect(fd, &to.into(), self.token(Kind::LinkConnect, slot));
    }

    /// Does one thing at random to one slot.
    fn act(&mut self, slot: u32) {
        let action = self.dice.roll(8);
        let (receive, send) = (self.token(Kind::ConnRecv, slot), self.token(Kind::ConnSend, slot));
        let it = &mut self.slots[slot as usize];
        let Some(fd) = it.fd.filter(|_| !it.closing) else { return };
        match action {
            0..=1 if !it.receiving && !it.connecting && !it.leaving => {
                it.receiving = true;
                let class = if self.dice.roll(4) == 0 { Class::Large } else { Class::Small };
                let expect = if self.dice.roll(2) == 0 { Expect::Now } else { Expect::Later };
                self.io.recv(fd, class, expect, receive);
            }
            2..=3 if !it.sending && !it.connecting && !it.leaving => {
                let bytes = [it.mine; 300];
                let len = 1 + usize::try_from(self.dice.roll(300)).unwrap();
                for _ in 0..=self.dice.roll(3) {
                    let Some(lease) = self.pool.take_copy(&bytes[..len]) else { break };
                    it.chain.push(lease);
                }
                if it.chain.is_empty() {
                    return;
                }
                it.sending = true;
                self.io.send(fd, &it.chain, &self.pool, send);
            }
            4 => self.io.cancel(receive),
            5 => self.io.cancel(if self.dice.roll(2) == 0 {
                send
            } else {
                self.token(Kind::LinkConnect, slot)
            }),
            6 => {
                let _ = self.io.shutdown(fd, Shutdown::Write);
            }
            7 => {
                it.leaving = true;
                let _ = self.io.shutdown(fd, Shutdown::Both);
                for kind in [Kind::LinkConnect, Kind::ConnRecv, Kind::ConnSend] {
                    self.io.cancel(self.token(kind, slot));
                }
            }
            _ => return,
        }
        self.close_when_quiet(slot);
    }

    fn close_when_quiet(&mut self, slot: u32) {
        let token = self.token(Kind::ConnClose, slot);
        let it = &mut self.slots[slot as usize];
        let busy = it.connecting || it.receiving || it.sending || it.closing;
        if let (Some(fd), true, false) = (it.fd, it.leaving, busy) {
            it.closing = true;
            self.io.close(fd, token);
        }
    }

    fn leave(&mut self, slot: u32) {
        self.slots[slot as usize].leaving = true;
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, outcome, more } = completion;
        if token.kind() == Kind::Accept {
            match outcome {
                Outcome::Accepted(fd) => return self.accepted(fd),
                Outcome::Failed(Errno(libc::ECANCELED)) if !more => return,
                other => panic!("seed {SEED:#x}: accept: {other:?}"),
            }
        }
        let slot = token.slot();
        let it = &mut self.slots[slot as usize];
        assert_eq!(
            token.generation(),
            it.generation,
            "seed {SEED:#x}: an answer for an earlier life: {token:?}"
        );
        let bit = match token.kind() {
            Kind::LinkConnect => &mut it.connecting,
            Kind::ConnRecv => &mut it.receiving,
            Kind::ConnSend => &mut it.sending,
            _ => &mut it.closing,
        };
        assert!(std::mem::replace(bit, false), "seed {SEED:#x}: {token:?} was not in flight: {outcome:?}");
        match outcome {
            Outcome::Received(lease) => {
                let alien = self.pool.bytes(&lease).iter().find(|b| **b != it.theirs);
                assert_eq!(alien, None, "seed {SEED:#x}: a byte of another connection");
                self.received += lease.len() as u64;
                self.pool.give_back(lease);
            }
            Outcome::Sent(_) => it.chain.clear(&mut self.pool),
            Outcome::Connected => {}
            Outcome::Eof => self.leave(slot),
            Outcome::Closed => {
                let generation = (it.generation + 1) & Token::GENERATION_MASK;
                *it = Slot { generation, ..Slot::default() };
            }
            Outcome::Failed(errno) => {
                self.cancelled += u64::from(errno.0 == libc::ECANCELED);
                let usual =
                    [libc::ECANCELED, libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN, libc::ECONNABORTED];
                assert!(usual.contains(&errno.0), "seed {SEED:#x}: {token:?}: {errno}");
                it.chain.clear(&mut self.pool);
                if errno.0 != libc::ECANCELED || token.kind() == Kind::LinkConnect {
                    self.leave(slot);
                }
            }
            other => panic!("seed {SEED:#x}: {token:?}: {other:?}"),
        }
        self.close_when_quiet(slot);
    }

    fn accepted(&mut self, fd: Fd) {
        self.io.set_option(fd, SocketOption::ResetOnClose).unwrap();
        match (self.free_slot(), self.io.peer_address(fd)) {
            (Some(slot), Ok(peer)) => self.occupy(slot, fd, peer.port(), false),
            // No room, or reset already: this one closes at once, without a slot.
            _ => socket::close(fd),
        }
    }

    fn turn(&mut self, wait: Duration, out: &mut Vec<Completion>) {
        let now = self.io.turn(&mut self.pool, Mono(0), out).unwrap().mono;
        if out.is_empty() && !wait.is_zero() {
            self.io.turn(&mut self.pool, now.after(wait), out).unwrap();
        }
        for completion in out.drain(..) {
            self.complete(completion);
        }
    }
}

#[test]
fn races_of_open_receive_send_cancel_and_close() {
    let mut harness = on_ring();
    let mut io = harness.start();
    let listener = socket::listener(&loopback(), 1024).unwrap();
    let accept = Token::new(Kind::Accept, 0, 0);
    io.accept(listener, accept);
    let mut race = Race {
        io,
        // Few small buffers, so that receives starve now and then.
        pool: Pool::new(PoolSize { tiny: 1024, small: 2, large: 2 }),
        slots: (0..SLOTS).map(|_| Slot::default()).collect(),
        dice: Dice(SEED),
        listener,
        received: 0,
        cancelled: 0,
    };
    let mut out = Vec::new();
    while race.io.sqes() < OPERATIONS {
        race.connect();
        for _ in 0..race.dice.roll(24) {
            let slot = u32::try_from(race.dice.roll(u64::from(SLOTS))).unwrap();
            race.act(slot);
        }
        race.turn(Duration::ZERO, &mut out);
    }
    race.io.cancel(accept);
    // Everybody leaves: shut down, cancelled, quiet, closed.
    let mut rounds = 0;
    while race.io.in_flight() > 0 || race.slots.iter().any(|s| s.fd.is_some()) {
        for slot in 0..SLOTS {
            if let Some(fd) = race.slots[slot as usize].fd.filter(|_| !race.slots[slot as usize].closing) {
                race.leave(slot);
                let _ = race.io.shutdown(fd, Shutdown::Both);
                for kind in [Kind::LinkConnect, Kind::ConnRecv, Kind::ConnSend] {
                    race.io.cancel(race.token(kind, slot));
                }
                race.close_when_quiet(slot);
            }
        }
        race.turn(Duration::from_millis(100), &mut out);
        rounds += 1;
        assert!(rounds < 100, "seed {SEED:#x}: it does not come to rest: {:?}", race.io);
    }
    socket::close(listener);
    assert!(race.received > 0 && race.cancelled > 0 && race.io.starvations() > 0, "{:?}", race.io);
    harness.finish(race.io, &mut race.pool);
    for class in Class::ALL {
        assert_eq!(race.pool.free(class), race.pool.total(class), "seed {SEED:#x}: {class:?}");
    }
}
