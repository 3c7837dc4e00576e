//! Flows over the tcp listener: a client and an origin that know of no requests, and what each may come to believe.
//!
//! The one rule under every fault: who sees a FIN has every byte that the other meant to send, and the other meant to end
//! there. Whatever else happened, a reset says so.

use super::ledger::Ledger;
use super::message::{canary, is_canary};
use super::opening::{self, Due, FlowRules, Opening};
use super::plan::{MS, SECOND};
use super::{FLOW_ORIGIN_COUNT, ORIGIN_COUNT};
use crate::io::SocketAddress;
use crate::sim::net::{Net, SocketId};
use crate::sim::peers::{Act, Ended, LISTEN, Peer};
use crate::sim::random::Random;

/// Flows of one seed.
pub(super) const FLOWS: usize = 40;
/// A client's first bytes name its flow; an origin's greet before it knows whom.
const NAME_BYTES: usize = 4;
const GREETING: &[u8; 4] = b"220 ";
/// Canaries of flows, apart from those of exchanges.
const CANARY: u64 = 1 << 30;

/// How one side ends once it has said what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// FIN at once behind its bytes.
    Finishes,
    /// FIN once the other's FIN is here.
    FinishesLast,
    /// RST after so many nanoseconds.
    Resets(u64),
    /// Never: the proxy has to.
    Stays,
    /// Reads nothing for a minute, and does not end.
    Deaf,
}

/// What one side says, and how.
#[derive(Debug, Clone, Copy)]
struct Part {
    bytes: u64,
    step: u64,
    pause: u64,
    manner: Manner,
}

/// One flow and what its two sides came to.
#[derive(Debug)]
pub(super) struct Flow {
    start: u64,
    opening: Opening,
    up: Part,
    down: Part,
    client: Seen,
    origin: Seen,
    reached: bool,
}

/// What one side saw of the other.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    bytes: u64,
    ended: Option<Ended>,
    /// It said everything and then FIN.
    finished: bool,
}

/// Named by its number: clients are actors of their own, and a link tells which flow it carries.
#[derive(Debug)]
pub(super) struct FlowClient {
    pub(super) peer: Peer,
    id: u32,
    inbox: Vec<u8>,
    greeted: bool,
    pub(super) done: bool,
}

/// How a deaf side listens at first: one byte, and then nothing for longer than any deadline.
const DEAF: (usize, u64) = (1, 60 * SECOND);

/// An origin's side of a link of a flow.
#[derive(Debug)]
pub(super) struct FlowCall {
    pub(super) peer: Peer,
    pub(super) origin: usize,
    id: Option<u32>,
    inbox: Vec<u8>,
    done: bool,
}

fn draw_part(random: &mut Random) -> Part {
    let bytes = match random.below(10) {
        0 => 0,
        1 => random.between(50_000, 400_000),
        _ => random.between(1, 20_000),
    };
    let pieces = random.one_in(4);
    let manner = match random.below(16) {
        0..=7 => Manner::Finishes,
        8..=12 => Manner::FinishesLast,
        13 => Manner::Resets(random.below(SECOND)),
        14 => Manner::Stays,
        _ => Manner::Deaf,
    };
    Part {
        bytes,
        step: if pieces { random.between(1, 4_000).max(bytes / 200) } else { bytes.max(1) },
        pause: if pieces { random.below(3 * MS) } else { 0 },
        manner,
    }
}

pub(super) fn draw(random: &mut Random, opening: Opening) -> Flow {
    let (mut up, mut down) = (draw_part(random), draw_part(random));
    // To a side that reads nothing, more than everything on the way holds: so that somebody has to give up.
    if up.manner == Manner::Deaf {
        down.bytes = 1_500_000;
        down.step = down.bytes;
    } else if down.manner == Manner::Deaf {
        up.bytes = 1_500_000;
        up.step = up.bytes;
    }
    Flow {
        start: random.below(15 * SECOND),
        opening,
        up,
        down,
        client: Seen::default(),
        origin: Seen::default(),
        reached: false,
    }
}

/// The acts of one side's bytes; its end comes apart.
fn acts(canary_id: u64, part: Part) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut at = 0;
    while at < part.bytes {
        let n = part.step.min(part.bytes - at);
        acts.push(Act::Say(canary(canary_id, at, n as usize)));
        if part.pause > 0 {
            acts.push(Act::Wait(part.pause));
        }
        at += n;
    }
    match part.manner {
        Manner::Finishes => acts.push(Act::Finish),
        Manner::Resets(after) => acts.extend([Act::Wait(after), Act::Reset]),
        Manner::FinishesLast | Manner::Stays | Manner::Deaf => {}
    }
    acts
}

fn up(id: u32) -> u64 {
    CANARY + 2 * u64::from(id)
}
fn down(id: u32) -> u64 {
    CANARY + 2 * u64::from(id) + 1
}

/// Checks what came against the canary; false if it is foreign.
fn take(seen: &mut Seen, canary_id: u64, bytes: &[u8], all: u64) -> bool {
    let good = is_canary(canary_id, seen.bytes, bytes) && seen.bytes + bytes.len() as u64 <= all;
    seen.bytes += bytes.len() as u64;
    good
}

/// Reads unless deaf, and goes on speaking. Then, if the other side finished, ends as its manner is.
fn stir(peer: &mut Peer, net: &mut Net, part: Part, inbox: &mut Vec<u8>) {
    peer.speak(net);
    while peer.is_open() {
        let bytes = peer.listen(net);
        if bytes.is_empty() {
            break;
        }
        inbox.extend(bytes);
    }
    if peer.ended == Some(Ended::Eof) && part.manner == Manner::FinishesLast && peer.finished_at.is_none() {
        peer.push(Act::Finish);
    }
    peer.speak(net);
}

/// Whether nothing more will come of a side: it saw the other's end, and said everything.
fn is_over(peer: &Peer) -> bool {
    match peer.ended {
        None => false,
        Some(Ended::Eof) => peer.is_silent(),
        Some(Ended::Broken | Ended::Left) => true,
    }
}

impl FlowClient {
    pub(super) fn new(actor: u32, id: u32) -> Self {
        Self { peer: Peer::new(actor), id, inbox: Vec::new(), greeted: false, done: false }
    }
    pub(super) fn start(&mut self, net: &mut Net, ledger: &mut Ledger, to: SocketAddress) {
        let rules = ledger.flow_rules;
        let flow = &mut ledger.flows[self.id as usize];
        if matches!(flow.opening.due(rules), Due::Closed(_)) {
            // It waits for what it has earned.
            (flow.up.bytes, flow.up.manner) = (0, Manner::Stays);
        }
        self.peer.pace = (flow.up.manner == Manner::Deaf).then_some(DEAF);
        self.peer.connect(net, to);
        flow.opening.acts(rules).into_iter().for_each(|act| self.peer.push(act));
        acts(up(self.id), flow.up).into_iter().for_each(|act| self.peer.push(act));
        self.stir(net, ledger);
    }
    pub(super) fn stir(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.done || self.peer.socket.is_none() && self.peer.ended.is_none() {
            return;
        }
        let part = ledger.flows[self.id as usize].up;
        stir(&mut self.peer, net, part, &mut self.inbox);
        if !self.greeted && self.inbox.len() >= GREETING.len() {
            self.greeted = true;
            if self.inbox.drain(..GREETING.len()).as_slice() != GREETING {
                ledger.violation(format!("flow {}: the origin did not speak first", self.id));
            }
        }
        let due = ledger.flows[self.id as usize].opening.due(ledger.flow_rules);
        let flow = &mut ledger.flows[self.id as usize];
        let mut good = self.inbox.is_empty() || !matches!(due, Due::Closed(_) | Due::Nowhere);
        if self.greeted {
            good &= take(&mut flow.client, down(self.id), &self.inbox, flow.down.bytes);
            self.inbox.clear();
        }
        flow.client.ended = self.peer.ended;
        flow.client.finished |= self.peer.finished_at.is_some();
        if !good {
            ledger.violation(format!("flow {}: foreign bytes came down", self.id));
        }
        if is_over(&self.peer) {
            ledger.flows[self.id as usize].client.finished |= self.peer.ended == Some(Ended::Eof);
            self.peer.leave(net, false);
            self.done = true;
        }
    }
    pub(super) fn on_timer(&mut self, net: &mut Net, ledger: &mut Ledger, cookie: u64) {
        if cookie == LISTEN {
            self.peer.pace = None;
        }
        self.stir(net, ledger);
    }
}

impl FlowCall {
    pub(super) fn new(actor: u32, origin: usize, socket: SocketId) -> Self {
        let mut peer = Peer::new(actor);
        peer.adopt(socket);
        Self { peer, origin, id: None, inbox: Vec::new(), done: false }
    }
    /// Some greet before they have heard anything; which, the parity of the link says, because the flow is not known yet.
    pub(super) fn open(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.peer.actor().is_multiple_of(2) {
            self.peer.push(Act::Say(GREETING.to_vec()));
        }
        self.stir(net, ledger);
    }
    pub(super) fn stir(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.done {
            return;
        }
        let unknown = Part { bytes: 0, step: 1, pause: 0, manner: Manner::Finishes };
        let part = self.id.map_or(unknown, |id| ledger.flows[id as usize].down);
        stir(&mut self.peer, net, part, &mut self.inbox);
        if self.id.is_none() && self.learn(ledger) {
            return self.stir(net, ledger);
        }
        if let Some(id) = self.id {
            let flow = &mut ledger.flows[id as usize];
            let good = take(&mut flow.origin, up(id), &self.inbox, flow.up.bytes);
            self.inbox.clear();
            flow.origin.ended = self.peer.ended;
            flow.origin.finished |= self.peer.finished_at.is_some();
            if !good {
                ledger.violation(format!("flow {id}: foreign bytes came up"));
            }
        } else if self.peer.ended == Some(Ended::Eof) {
            ledger.violation("an origin was told the end of a flow that had not begun".into());
        }
        if is_over(&self.peer) || self.id.is_none() && self.peer.ended.is_some() {
            if let Some(id) = self.id {
                ledger.flows[id as usize].origin.finished |= self.peer.ended == Some(Ended::Eof);
            }
            self.peer.leave(net, false);
            self.done = true;
        }
    }
    pub(super) fn on_timer(&mut self, net: &mut Net, ledger: &mut Ledger, cookie: u64) {
        if cookie == LISTEN {
            self.peer.pace = None;
        }
        self.stir(net, ledger);
    }
    /// Reads which flow it is; false while its name is not here.
    fn learn(&mut self, ledger: &mut Ledger) -> bool {
        let rules = ledger.flow_rules;
        let front = match opening::front(&self.inbox, rules) {
            None => return false,
            Some(Ok(front)) => front,
            Some(Err(what)) => {
                self.done = true;
                ledger.violation(format!("a flow came to an origin with {what}"));
                return false;
            }
        };
        let at = front.header.len() + front.hello.len();
        let Some(name) = self.inbox[at..].first_chunk::<NAME_BYTES>() else { return false };
        let id = u32::from_be_bytes(*name);
        self.inbox.drain(..at + NAME_BYTES);
        let Some(flow) = ledger.flows.get_mut(id as usize) else {
            self.done = true;
            ledger.violation(format!("flow {id} was never begun"));
            return false;
        };
        self.id = Some(id);
        let twice = std::mem::replace(&mut flow.reached, true).then_some("came to an origin twice");
        if let Some(what) = twice.or_else(|| flow.opening.misled(rules, &front, self.is_named())) {
            ledger.violation(format!("flow {id}: {what}: {front:?}"));
        }
        let flow = &ledger.flows[id as usize];
        if !self.peer.actor().is_multiple_of(2) {
            self.peer.push(Act::Say(GREETING.to_vec()));
        }
        self.peer.pace = (flow.down.manner == Manner::Deaf).then_some(DEAF);
        acts(down(id), flow.down).into_iter().for_each(|act| self.peer.push(act));
        true
    }
    /// It is of the cluster that a route leads to.
    fn is_named(&self) -> bool {
        self.origin >= usize::from(ORIGIN_COUNT + FLOW_ORIGIN_COUNT)
    }
}

impl Flow {
    pub(super) fn start(&self) -> u64 {
        self.start
    }
    pub(super) fn opening(&self) -> &Opening {
        &self.opening
    }
    /// Both sides mean to end well.
    fn is_polite(&self) -> bool {
        let ends = |part: Part| matches!(part.manner, Manner::Finishes | Manner::FinishesLast);
        let first = [self.up, self.down].iter().any(|part| part.manner == Manner::Finishes);
        ends(self.up) && ends(self.down) && first
    }
    /// A word for the tally, and what was wrong.
    pub(super) fn judge(&self, rules: FlowRules, strict: bool) -> (&'static str, Option<&'static str>) {
        let (client, origin) = (self.client, self.origin);
        let due = self.opening.due(rules);
        if let Due::Closed(_) = due {
            // Which reason it had, the counters say.
            return ("flow closed by its opening", None);
        }
        let whole_down = client.ended == Some(Ended::Eof);
        let whole_up = origin.ended == Some(Ended::Eof);
        let wrong = if whole_down && (client.bytes < self.down.bytes || !origin.finished) {
            Some("a cut flow looked complete to its client")
        } else if whole_up && (origin.bytes < self.up.bytes || !client.finished) {
            Some("a cut flow looked complete to its origin")
        } else if strict && due != Due::Nowhere && self.is_polite() && !(whole_down && whole_up) {
            Some("a polite flow did not end well")
        } else {
            None
        };
        let word = match (client.ended, self.reached) {
            (Some(Ended::Eof), _) if whole_up => "flow whole",
            (_, false) if due == Due::Nowhere => "flow without a route",
            (_, false) => "flow not connected",
            (Some(Ended::Broken), _) => "flow cut",
            _ => "flow left",
        };
        (word, wrong)
    }
}
