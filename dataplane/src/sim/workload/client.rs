//! A client: writes its batches as its plan says, reads the answers strictly, and checks that each is its own.

use super::ledger::{Ledger, Outcome};
use super::message::{Body, Frame, Head, canary};
use super::plan::{ClientPlan, Ending, MS, Mishap, SECOND, download, say, tunnel_down, tunnel_up};
use super::preface;
use crate::io::{Mono, SocketAddress};
use crate::sim::net::Net;
use crate::sim::peers::{Act, Ended, LISTEN, Peer};
use std::collections::VecDeque;

/// Timer cookies.
pub(super) const START: u64 = 10;
const NEXT: u64 = 11;
const SEND_ANYWAY: u64 = 12;
/// A client that waits for an idle connection to be closed, or for an answer, looks again after this.
const PATIENCE: u64 = 13;

/// A client that has finished sending is answered this soon or not at all, nanoseconds.
const PATIENCE_WITH_HALF: u64 = 900 * MS;

#[derive(Debug)]
struct Reading {
    id: u32,
    status: u16,
    own: bool,
    close: bool,
    body: Body,
}

#[derive(Debug)]
pub(super) struct Client {
    actor: u32,
    plan: ClientPlan,
    pub(super) peer: Peer,
    next_batch: usize,
    awaiting: VecDeque<u32>,
    reading: Option<Reading>,
    inbox: Vec<u8>,
    /// Body pieces that wait for a 100, and whose.
    held: Option<(u32, Vec<Vec<u8>>)>,
    tunnel: Option<(u32, Body)>,
    /// The other side said that it will close, or already did.
    closing: bool,
    /// Bytes read since the last batch went out.
    heard: u64,
    thinking: bool,
    /// When it began to wait for the other side to close.
    waits_since: Option<Mono>,
    pub(super) done: bool,
    pub(super) last_move: Mono,
}

impl Client {
    pub(super) fn new(actor: u32, plan: ClientPlan) -> Self {
        let mut peer = Peer::new(actor);
        peer.pace = plan.pace;
        Self {
            actor,
            plan,
            peer,
            next_batch: 0,
            awaiting: VecDeque::new(),
            reading: None,
            inbox: Vec::new(),
            held: None,
            tunnel: None,
            closing: false,
            heard: 0,
            thinking: false,
            waits_since: None,
            done: false,
            last_move: Mono(0),
        }
    }
    pub(super) fn start(&self) -> u64 {
        self.plan.start
    }
    pub(super) fn on_timer(
        &mut self,
        net: &mut Net,
        ledger: &mut Ledger,
        cookie: u64,
        target: SocketAddress,
    ) {
        if self.done {
            return;
        }
        match cookie {
            START => {
                self.thinking = false;
                ledger.connections += 1;
                self.peer.connect(net, target);
                self.announce(ledger);
                self.write_batch(net, ledger);
            }
            // The connection may have ended meanwhile; then the next one takes the batch.
            NEXT if self.thinking => {
                self.thinking = false;
                self.write_batch(net, ledger);
            }
            SEND_ANYWAY => self.release(),
            LISTEN if self.plan.mishap == Some(Mishap::NeverReads) => self.peer.pace = None,
            _ => {}
        }
        self.stir(net, ledger);
    }
    /// What a balancer in front would say first. A silent client's says nothing either.
    fn announce(&mut self, ledger: &Ledger) {
        let Some(required) = ledger.proxied.filter(|_| self.plan.mishap != Some(Mishap::Silent)) else {
            return;
        };
        let mut acts = Vec::new();
        say(preface::header(self.actor, required), self.plan.step, self.plan.pause, &mut acts);
        acts.into_iter().for_each(|act| self.peer.push(act));
    }
    fn is_last_batch(&self) -> bool {
        self.next_batch >= self.plan.batches.len()
    }
    /// Writes the next batch, or begins to end.
    fn write_batch(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let Some(batch) = self.plan.batches.get(self.next_batch).cloned() else { return };
        self.next_batch += 1;
        let mishap = self.plan.mishap.filter(|_| self.is_last_batch());
        let mut acts = Vec::new();
        for id in batch {
            let exchange = &mut ledger.exchanges[id as usize];
            (exchange.outcome, exchange.mishap) = (Outcome::Unanswered, mishap);
            exchange.client = self.actor;
            self.awaiting.push_back(id);
            let step = if self.plan.step == 0 { 8_192 } else { self.plan.step.max(512) as u64 };
            let (head, pieces) = exchange.request.encode(id, step);
            // A long head byte by byte would meet its deadline.
            let piece = if head.len() > 1_000 { 0 } else { self.plan.step };
            say(head, piece, self.plan.pause, &mut acts);
            if exchange.request.expect {
                self.held = Some((id, pieces));
                net.timer(self.actor, Mono(net.now.0 + SECOND), SEND_ANYWAY);
            } else {
                pieces.into_iter().for_each(|piece| acts.push(Act::Say(piece)));
            }
        }
        self.heard = 0;
        match mishap {
            Some(Mishap::AbortRequest(n, reset)) => acts = cut(acts, n, reset),
            Some(Mishap::Glacial) => {
                let bytes = flatten(acts);
                acts = Vec::new();
                // Longer than any deadline for a head, and then silence.
                say(bytes[..bytes.len().min(40)].to_vec(), 1, SECOND, &mut acts);
            }
            Some(Mishap::Stalls) => {
                let bytes = flatten(acts);
                let rest = if self.plan.ending == Ending::Close { 1 } else { bytes.len().min(30) };
                acts = vec![Act::Say(bytes[..bytes.len() - rest].to_vec())];
                // Some stall for good, some go on too slowly.
                say(bytes[bytes.len() - rest..].to_vec(), 1, SECOND, &mut acts);
                acts.truncate(2 * rest - 1);
            }
            Some(Mishap::HalfClose) => acts.push(Act::Finish),
            Some(Mishap::NeverReads) => self.peer.pace = Some((1, 40 * SECOND)),
            _ => {}
        }
        acts.into_iter().for_each(|act| self.peer.push(act));
    }
    /// The body that waited for a 100 goes out.
    fn release(&mut self) {
        if let Some((id, pieces)) = self.held.take()
            && self.awaiting.contains(&id)
            && !self.closing
        {
            pieces.into_iter().for_each(|piece| self.peer.push(Act::Say(piece)));
        }
    }
    /// Something happened on the connection.
    pub(super) fn stir(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.done {
            return;
        }
        self.last_move = net.now;
        self.peer.speak(net);
        while self.peer.is_open() {
            let bytes = self.peer.listen(net);
            if bytes.is_empty() {
                break;
            }
            self.heard += bytes.len() as u64;
            self.inbox.extend(bytes);
            self.digest(net, ledger);
            if self.peer.pace.is_some() {
                break;
            }
        }
        self.go_on(net, ledger);
        self.peer.speak(net);
        if self.peer.ended.is_some() {
            self.finish(net, ledger);
        }
    }
    /// Decides what comes next when nothing is outstanding.
    fn go_on(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if !self.peer.is_open() {
            return;
        }
        if let Some(Mishap::AbortResponse(n, reset)) = self.plan.mishap
            && self.is_last_batch()
            && self.heard >= n
            && (self.heard > 0 || self.peer.is_silent())
        {
            return self.peer.leave(net, reset);
        }
        if let Some((id, body)) = &self.tunnel {
            if body.is_done() && self.peer.is_silent() {
                let id = *id;
                self.tunnel = None;
                ledger.conclude(id, Outcome::Tunnelled { whole: true }, net.now);
                // Some tunnels are left open by both sides.
                if self.plan.ending != Ending::Idle {
                    self.peer.push(Act::Finish);
                }
                self.wait(net);
            }
            return;
        }
        if !self.awaiting.is_empty() || self.thinking {
            return;
        }
        if self.closing {
            return self.wait(net);
        }
        if !self.is_last_batch() {
            self.thinking = true;
            return net.timer(self.actor, Mono(net.now.0 + self.plan.think), NEXT);
        }
        match (self.plan.mishap, self.plan.ending) {
            (Some(Mishap::Silent | Mishap::HalfClose), _) | (_, Ending::Idle) => self.wait(net),
            (_, Ending::Close) => self.peer.leave(net, false),
            (_, Ending::Reset) => self.peer.leave(net, true),
        }
    }
    fn wait(&mut self, net: &mut Net) {
        if self.waits_since.is_none() {
            self.waits_since = Some(net.now);
            net.timer(self.actor, Mono(net.now.0 + 60 * SECOND), PATIENCE);
        }
    }
    /// Reads answers out of what has come.
    fn digest(&mut self, net: &mut Net, ledger: &mut Ledger) {
        while !self.inbox.is_empty() {
            if let Some((id, body)) = &mut self.tunnel {
                match body.feed(&self.inbox) {
                    Ok(n) if n == self.inbox.len() => {}
                    Ok(_) => ledger.violation(format!("more bytes came down tunnel {id} than were sent")),
                    Err(what) => ledger.violation(format!("tunnel {id}, downwards: {what}")),
                }
                self.inbox.clear();
            } else if let Some(reading) = &mut self.reading {
                match reading.body.feed(&self.inbox) {
                    Ok(n) => {
                        self.inbox.drain(..n);
                    }
                    Err(what) => {
                        ledger.violation(format!("client {}, answer to {}: {what}", self.actor, reading.id));
                        self.inbox.clear();
                        self.peer.leave(net, true);
                    }
                }
                self.conclude_if_done(net, ledger);
            } else if !self.take_head(net, ledger) {
                return;
            }
        }
    }
    fn conclude_if_done(&mut self, net: &Net, ledger: &mut Ledger) {
        let Some(reading) = self.reading.take_if(|r| r.body.is_done()) else { return };
        let Reading { id, status, own, close, body } = reading;
        self.awaiting.pop_front();
        self.closing |= close;
        if self.held.as_ref().is_some_and(|(held, _)| *held == id) {
            // Answered before the body was sent: what follows would be read as that body.
            self.held = None;
            self.closing = true;
        }
        ledger.conclude(id, Outcome::Complete { status, own, bytes: body.got }, net.now);
    }
    /// Reads one head; false while it is incomplete.
    fn take_head(&mut self, net: &mut Net, ledger: &mut Ledger) -> bool {
        let (head, len) = match Head::parse(&self.inbox) {
            None => return false,
            Some(Ok(parsed)) => parsed,
            Some(Err(what)) => {
                ledger.violation(format!("client {} received a malformed head: {what}", self.actor));
                self.peer.leave(net, true);
                return false;
            }
        };
        self.inbox.drain(..len);
        let status = head.first.get(9..12).and_then(|s| s.parse::<u16>().ok()).unwrap_or(0);
        let sim = head.field("x-sim").map(str::to_string);
        let Some(id) = self.awaiting.front().copied() else {
            if sim.is_some() || !matches!(status, 400..=599) {
                ledger.violation(format!("client {} received an answer to nothing: {head:?}", self.actor));
            }
            self.closing = true;
            self.inbox.clear();
            return false;
        };
        if sim.as_ref().is_some_and(|sim| *sim != id.to_string()) {
            ledger.violation(format!("client {} asked {id} and received {head:?}", self.actor));
            self.peer.leave(net, true);
            return false;
        }
        let request = ledger.exchanges[id as usize].request.clone();
        if !head.first.starts_with("HTTP/1.1 ") || !(100..600).contains(&status) {
            ledger.violation(format!("client {}: first line {:?}", self.actor, head.first));
        }
        if status == 101 && request.upgrade.is_some() {
            self.begin_tunnel(ledger, id);
            return true;
        }
        if status < 200 {
            if request.http10 || status == 101 {
                ledger.violation(format!("{status} to request {id}"));
            }
            if status == 100 {
                self.release();
            }
            return true;
        }
        let frame = match head.frame(Frame::UntilClose) {
            _ if request.bodiless(status) => Frame::Sized(0),
            Ok(frame) => frame,
            Err(what) => {
                ledger.violation(format!("the answer to {id} has {what}"));
                Frame::UntilClose
            }
        };
        let close = head.says_close() || request.http10 && head.field("connection").is_none();
        let own = sim.is_none();
        let checked = !own && request.flaw.is_none();
        let body = Body::new(download(id), frame, checked);
        self.reading = Some(Reading { id, status, own, close, body });
        self.conclude_if_done(net, ledger);
        true
    }
    fn begin_tunnel(&mut self, ledger: &Ledger, id: u32) {
        let Some((up, down)) = ledger.exchanges[id as usize].request.upgrade else { return };
        self.awaiting.pop_front();
        self.closing = true;
        self.tunnel = Some((id, Body::new(tunnel_down(id), Frame::Sized(down), true)));
        let mut acts = Vec::new();
        say(canary(tunnel_up(id), 0, up as usize), 4_096, MS, &mut acts);
        acts.into_iter().for_each(|act| self.peer.push(act));
    }
    /// The connection is over for this client.
    fn finish(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let ended = self.peer.ended;
        if let Some(reading) = self.reading.take() {
            self.awaiting.pop_front();
            let Reading { id, status, own, body, .. } = reading;
            let whole = body.ends_with_connection() && ended == Some(Ended::Eof);
            let outcome =
                if whole { Outcome::Complete { status, own, bytes: body.got } } else { Outcome::Cut };
            ledger.conclude(id, outcome, net.now);
            // A later exchange may have reset the connection while this answer was still on its way.
            ledger.exchanges[id as usize].excused = !self.awaiting.is_empty();
            self.closing = true;
        }
        if let Some((id, _)) = self.tunnel.take() {
            ledger.conclude(id, Outcome::Tunnelled { whole: false }, net.now);
            // Whoever reads slowly may let the tunnel stand still for longer than one may.
            ledger.exchanges[id as usize].excused = self.plan.pace.is_some();
        }
        let gone = self.peer.finished_at.is_some_and(|at| net.now.since(at) >= PATIENCE_WITH_HALF);
        // Whoever reads slowly learns late that the idle connection was closed meanwhile.
        let late = self.plan.pace.is_some();
        let excused = self.closing || ended == Some(Ended::Left) || gone || late;
        for id in self.awaiting.drain(..) {
            ledger.exchanges[id as usize].excused = excused;
            ledger.conclude(id, Outcome::Unanswered, net.now);
        }
        self.peer.leave(net, false);
        if self.is_last_batch() {
            self.done = true;
            return;
        }
        // More to ask for: a new connection does.
        self.peer = Peer::new(self.actor);
        self.peer.pace = self.plan.pace;
        (self.held, self.closing, self.thinking, self.waits_since) = (None, false, false, None);
        self.inbox.clear();
        net.timer(self.actor, Mono(net.now.0 + self.plan.think + MS), START);
    }
}

fn flatten(acts: Vec<Act>) -> Vec<u8> {
    acts.into_iter()
        .filter_map(|act| if let Act::Say(bytes) = act { Some(bytes) } else { None })
        .flatten()
        .collect()
}
/// The first `n` bytes of what would be said, and then an abrupt end.
fn cut(acts: Vec<Act>, n: u64, reset: bool) -> Vec<Act> {
    let bytes = flatten(acts);
    let n = bytes.len().min(n as usize);
    vec![Act::Say(bytes[..n].to_vec()), Act::Wait(50 * MS), if reset { Act::Reset } else { Act::Close }]
}
