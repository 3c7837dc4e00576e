//! Bytes between two sockets: windows, latency, FIN and RST, and the faults that belong to the network.

use super::socket::{Fin, Segment, SocketId, State, take};
use super::{Happening, Net};
use crate::io::{Errno, Mono};
use crate::sim::faults::Fault;

/// One way over loopback, nanoseconds.
const LATENCY: u64 = 10_000;
/// The most one segment carries (a loopback packet).
const SEGMENT_BYTES: usize = 65_536;

impl Net {
    /// When something sent now arrives.
    pub(super) fn arrival(&mut self) -> Mono {
        let extra = if self.faults.hit(Fault::Latency) { self.faults.random().below(20_000_000) } else { 0 };
        Mono(self.now.0 + LATENCY + extra)
    }
    /// Puts a segment on the wire to `to`, behind what travels already.
    fn launch(&mut self, to: SocketId, segment: Segment) {
        let at = self.arrival();
        let socket = self.socket_mut(to);
        let at = socket.inbound.back().map_or(at, |(last, _)| at.max(*last));
        if let Segment::Data(bytes) = &segment {
            socket.inbound_bytes += bytes.len();
        }
        socket.inbound.push_back((at, segment));
        self.schedule(at, Happening::Deliver(to));
    }
    /// Moves queued bytes of `id` to the wire as far as the peer's window allows, then its FIN.
    pub(super) fn pump(&mut self, id: SocketId) {
        let Some(peer) = self.socket_ref(id).peer else { return };
        if self.socket_ref(id).state != State::Open {
            return;
        }
        let mut moved = false;
        loop {
            let most = if self.faults.hit(Fault::Segments) {
                self.faults.random().between(1, 64) as usize
            } else {
                SEGMENT_BYTES
            };
            let receiver = self.socket_ref(peer);
            let window = receiver.recv_room.saturating_sub(receiver.recv.len() + receiver.inbound_bytes);
            let sender = self.socket_mut(id);
            let n = window.min(sender.send.len()).min(most);
            if n == 0 {
                break;
            }
            let mut bytes = vec![0; n];
            take(&mut sender.send, &mut bytes);
            moved = true;
            self.launch(peer, Segment::Data(bytes));
        }
        let sender = self.socket_mut(id);
        if sender.send.is_empty() && sender.fin == Fin::Queued {
            sender.fin = Fin::Sent;
            self.launch(peer, Segment::Fin);
        }
        if moved {
            self.notice(id);
        }
    }
    /// Ends this side at once and tells the other.
    pub(super) fn emit_reset(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        socket.state = State::Dead;
        socket.send.clear();
        socket.recv.clear();
        if let Some(peer) = socket.peer {
            self.launch(peer, Segment::Reset);
        }
    }
    /// The next segment for `id` arrives.
    pub(super) fn deliver(&mut self, id: SocketId) {
        let Some((at, segment)) = self.socket_mut(id).inbound.pop_front() else { return };
        debug_assert!(at <= self.now, "a segment came before its time");
        if let Segment::Data(bytes) = &segment {
            self.socket_mut(id).inbound_bytes -= bytes.len();
        }
        if self.socket_ref(id).state == State::Dead {
            return;
        }
        match segment {
            Segment::Data(bytes) => self.deliver_data(id, &bytes),
            Segment::Fin => self.socket_mut(id).fin_seen = true,
            Segment::Reset => self.suffer_reset(id),
        }
        self.notice(id);
    }
    fn deliver_data(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = self.socket_mut(id);
        if socket.closed {
            // RFC 9293 3.10.7.1: data for a closed connection is answered by RST.
            self.emit_reset(id);
            return;
        }
        if socket.read_shut && socket.fin != Fin::None {
            // tcp_rcv_state_process, FIN_WAIT with RCV_SHUTDOWN: RFC 1122 asks for a reset.
            socket.error = Some(Errno(libc::ECONNRESET));
            self.emit_reset(id);
            return;
        }
        socket.recv.extend(bytes);
        if self.faults.hit(Fault::Reset) {
            self.break_connection(id);
        }
    }
    /// Both ends are reset, as by a firewall that lost its state.
    pub fn break_connection(&mut self, id: SocketId) {
        if self.socket_ref(id).state != State::Open {
            return;
        }
        if let Some(peer) = self.socket_ref(id).peer {
            self.launch(peer, Segment::Reset);
        }
        self.suffer_reset(id);
        self.notice(id);
    }
    /// An RST arrived. Linux keeps what was received (tcp_reset purges the send queue alone); a network may not.
    fn suffer_reset(&mut self, id: SocketId) {
        let discards = self.faults.hit(Fault::ResetDiscards);
        let socket = self.socket_mut(id);
        if discards && !socket.recv.is_empty() {
            // What is lost must not look like an orderly end.
            socket.recv.clear();
            socket.fin_seen = false;
        }
        socket.error = Some(Errno(if socket.fin_seen { libc::EPIPE } else { libc::ECONNRESET }));
        socket.state = State::Dead;
        socket.send.clear();
    }
}
