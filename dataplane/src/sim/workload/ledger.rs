//! What every exchange came to, seen from both ends, and everything that should not have been.

use super::flow::Flow;
use super::message::Head;
use super::opening::{Due, Flaw, FlowRules};
use super::plan::{Misdeed, Mishap, Request, Sending};
use crate::fault::{CloseReason, Refusal};
use crate::io::Mono;
use std::collections::BTreeMap;

/// How an exchange ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Never written.
    Unsent,
    /// Written; the connection still open, or ended without any answer.
    Unanswered,
    /// A whole response: of the origin, or the proxy's own.
    Complete {
        status: u16,
        own: bool,
        bytes: u64,
    },
    /// Broken off where the client could see it.
    Cut,
    Tunnelled {
        whole: bool,
    },
}

#[derive(Debug)]
pub(super) struct Exchange {
    /// Which client asked.
    pub(super) client: u32,
    pub(super) request: Request,
    /// How often its head reached an origin, and which of its copies did, a bit each.
    pub(super) arrivals: u32,
    pub(super) copies: u32,
    pub(super) upload_done: bool,
    pub(super) outcome: Outcome,
    /// Its connection had a reason to end before it was answered.
    pub(super) excused: bool,
    /// It met a link that its origin was just ending.
    pub(super) raced: bool,
    /// The client did something of its own at this point.
    pub(super) mishap: Option<Mishap>,
    pub(super) ended_at: Mono,
}

/// The books of one run.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) flows: Vec<Flow>,
    pub violations: Vec<String>,
    /// When origins ended idle links: the race with a request just sent is nobody's fault.
    pub(super) idle_ends: Vec<Mono>,
    /// When origins said what nobody asked for. A request just then may take it for its answer.
    pub(super) poisons: Vec<Mono>,
    /// Connections that clients opened.
    pub connections: u64,
    /// The pool is so small that receives starve: unasked bytes on an idle link may go unseen.
    pub(crate) dry: bool,
    /// Clients begin with PROXY headers; `Some(false)`: and some do not.
    pub(crate) proxied: Option<bool>,
    /// Links begin with PROXY headers, and carry one request each.
    pub(crate) announced: bool,
    /// How flows open.
    pub(crate) flow_rules: FlowRules,
    /// Most copies of one request that origins may see.
    pub(crate) most_copies: u32,
    /// The proxy ends connections by their age.
    pub(crate) mortal: bool,
    /// There is no proxy between the peers: what only a proxy does is not asked for.
    pub(super) direct: bool,
    /// How often each kind of ending was seen, by name.
    pub tally: BTreeMap<String, u64>,
}

/// How long after the end of an idle link a request may still run into it, nanoseconds: every delay of the way.
const RACE: u64 = 500_000_000;

impl Ledger {
    pub(super) fn violation(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }
    /// A request's head reached an origin.
    pub(super) fn on_arrival(&mut self, id: u32, head: &Head) {
        let Some(exchange) = self.exchanges.get_mut(id as usize) else {
            return self.violation(format!("request {id} was never asked"));
        };
        exchange.arrivals += 1;
        let request = &exchange.request;
        let (method, target) = (request.method, format!("/x/{id}?n={id}"));
        let in_body = |r: Refusal| r >= Refusal::ChunkSizeInvalid && r <= Refusal::TrailerTooLarge;
        let mut wrong = Vec::new();
        match request.refusal() {
            Some(refusal) if in_body(refusal) => {}
            Some(refusal) => wrong.push(format!("it should have been refused as {}", refusal.name())),
            None if head.first != format!("{method} {target} HTTP/1.1") => {
                wrong.push(format!("its first line is {:?}", head.first));
            }
            None => {}
        }
        if exchange.arrivals > 1 && !request.is_idempotent() {
            wrong.push(format!("it is a {method} and came {} times", exchange.arrivals));
        }
        if exchange.arrivals > 1 && request.nested {
            wrong.push(format!("it was a second attempt already, and came {} times", exchange.arrivals));
        }
        // Each copy says which it is, or that it is the first.
        let copy = head.field("ringway-attempt").map_or(Ok(1), str::parse::<u32>).unwrap_or(0).min(31);
        let nested = request.nested && copy == 9;
        if !nested && (copy == 0 || copy > self.most_copies || exchange.copies & 1 << copy != 0) {
            wrong.push(format!("it is copy {copy} of {}, behind {:b}", self.most_copies, exchange.copies));
        }
        exchange.copies |= 1 << copy;
        if exchange.arrivals > self.most_copies {
            wrong.push(format!("it came {} times", exchange.arrivals));
        }
        for name in ["keep-alive", "proxy-connection"] {
            if head.field(name).is_some() {
                wrong.push(format!("it carries {name}"));
            }
        }
        if self.direct {
            wrong.clear();
        } else if head.count("host") != 1 || head.field("via").is_none() {
            wrong.push(format!("Host or Via is wrong: {head:?}"));
        }
        wrong.into_iter().for_each(|what| self.violation(format!("request {id} at an origin: {what}")));
    }
    /// A request came on a link that its origin had ended, or answered unasked, so long ago (nanoseconds).
    pub(super) fn on_forsaken(&mut self, id: u32, ago: u64) {
        self.exchanges[id as usize].raced = true;
        if ago > RACE && !self.dry {
            self.violation(format!("request {id} was sent on a link that ended {} ms ago", ago / 1_000_000));
        }
    }
    /// A request's body arrived whole.
    pub(super) fn on_upload(&mut self, id: u32, got: u64) {
        let exchange = &mut self.exchanges[id as usize];
        exchange.upload_done = true;
        let planned = exchange.request.body.bytes();
        if exchange.request.flaw.is_none() && got != planned {
            self.violation(format!("request {id}: {got} of {planned} bytes arrived as if they were all"));
        }
    }
    pub(super) fn conclude(&mut self, id: u32, outcome: Outcome, now: Mono) {
        let exchange = &mut self.exchanges[id as usize];
        (exchange.outcome, exchange.ended_at) = (outcome, now);
        let word = match outcome {
            Outcome::Complete { status, own: true, .. } => format!("own {status}"),
            Outcome::Complete { status, own: false, .. } => format!("origin {status}"),
            Outcome::Cut => "cut".into(),
            Outcome::Unanswered | Outcome::Unsent => "unanswered".into(),
            Outcome::Tunnelled { .. } => "tunnel".into(),
        };
        *self.tally.entry(word).or_default() += 1;
    }
    /// Exchanges that were sent.
    pub fn sent(&self) -> usize {
        self.exchanges.iter().filter(|e| e.outcome != Outcome::Unsent).count()
    }
    /// What the counters of close reasons must say of flows whose openings are wrong: `counted` tells how often each was met.
    /// Nothing else has these reasons, except that what is right may come too late where something else `went_wrong`.
    pub(crate) fn judge_openings(&mut self, went_wrong: bool, counted: impl Fn(CloseReason) -> u64) {
        for flaw in Flaw::ALL {
            let due = |flow: &&Flow| flow.opening().due(self.flow_rules) == Due::Closed(flaw);
            let due = self.flows.iter().filter(due).count() as u64;
            let counted = counted(flaw.reason());
            if if went_wrong { counted > due && !flaw.is_slow() } else { counted != due } {
                self.violation(format!(
                    "{due} flows have the opening {flaw:?}, and {counted} were closed for it"
                ));
            }
        }
    }
    /// Judges every exchange and flow. `strict`: nothing but the peers' own deeds went wrong.
    pub(super) fn judge(&mut self, strict: bool) {
        for id in 0..self.flows.len() {
            let (word, wrong) = self.flows[id].judge(self.flow_rules, strict && !self.mortal);
            *self.tally.entry(word.into()).or_default() += 1;
            if let Some(what) = wrong {
                let text = format!("flow {id}: {what}: {:?}", self.flows[id]);
                self.violation(text);
            }
        }
        for id in 0..self.exchanges.len() {
            let exchange = &self.exchanges[id];
            let near = |times: &[Mono]| {
                times.iter().any(|at| at.0 <= exchange.ended_at.0 && exchange.ended_at.since(*at) < RACE)
            };
            let aged = self.mortal
                && matches!(exchange.outcome, Outcome::Unanswered | Outcome::Tunnelled { whole: false });
            let poisoned = exchange.raced || exchange.arrivals == 0 && near(&self.poisons);
            let race = exchange.raced || near(&self.idle_ends) || near(&self.poisons);
            let verdict = judge_always(exchange, poisoned)
                .or_else(|| if strict && !aged { judge_strictly(exchange, race) } else { None });
            if let Some(what) = verdict {
                let text = format!("exchange {id}: {what}: {:?}", self.exchanges[id]);
                self.violation(text);
            }
        }
    }
}

/// What may not be under any fault.
fn judge_always(exchange: &Exchange, poisoned: bool) -> Option<&'static str> {
    let Exchange { request, outcome, .. } = exchange;
    match *outcome {
        Outcome::Complete { status, own: false, bytes } => {
            let answer = &request.answer;
            let until_close = matches!(answer.body, Sending::UntilClose(_));
            let mended = answer.mends && exchange.arrivals > 1 && status == answer.of_copy(2).status;
            let expected = if request.bodiless(status) { 0 } else { answer.body.bytes() };
            if exchange.arrivals == 0 {
                return Some("answered by an origin that never saw it");
            }
            if request.flaw.is_some() {
                return None;
            }
            if status != answer.status && !mended {
                return Some("another status than the origin's");
            }
            // Only a close-delimited body can be cut in secret, and then by its origin.
            (bytes != expected && !until_close).then_some("a cut response looked complete")
        }
        Outcome::Complete { status, own: true, .. } => {
            let asked = request.refusal() == Some(Refusal::MaxForwards);
            (status < 300 && !poisoned && !asked).then_some("the proxy invented a success")
        }
        _ => None,
    }
}

/// What a run without disruptive faults must give.
fn judge_strictly(exchange: &Exchange, race: bool) -> Option<&'static str> {
    let Exchange { request, outcome, mishap, excused, .. } = exchange;
    if *outcome == Outcome::Unsent
        || matches!(
            mishap,
            Some(Mishap::AbortRequest(..) | Mishap::AbortResponse(..) | Mishap::NeverReads | Mishap::Stalls)
        )
    {
        return None;
    }
    let ended = Outcome::Tunnelled { whole: false };
    if (matches!(outcome, Outcome::Unanswered | Outcome::Cut) || *outcome == ended) && *excused {
        return None;
    }
    let own =
        |wanted: u16| matches!(outcome, Outcome::Complete { status, own: true, .. } if *status == wanted);
    if *mishap == Some(Mishap::Glacial) {
        return (!own(408) && !*excused).then_some("a glacial request was not refused");
    }
    // A long upload meets the end of lingering before its client has read the answer.
    let lossy = request.body.bytes() > 40_000;
    if let Some(refusal) = request.refusal() {
        // A flaw in the body may come too late: the origin has answered, or failed, already.
        if exchange.arrivals > 0 && (request.answer.early || request.answer.misdeed.is_some()) {
            return None;
        }
        return (!own(refusal.status())).then_some("not refused as it should be");
    }
    let good = match outcome {
        Outcome::Complete { own, .. } => !own,
        Outcome::Tunnelled { whole } => *whole,
        _ => false,
    };
    let answered = match request.answer.misdeed {
        Some(_) if good && request.answer.mends && exchange.arrivals > 1 => true,
        _ if lossy && *outcome != Outcome::Unsent => true,
        _ if exchange.raced => good || own(502) || own(200) || *outcome == Outcome::Cut,
        None | Some(Misdeed::ExtraBytes) => good || (race && own(502)),
        Some(Misdeed::NeverAnswers) => own(504),
        Some(Misdeed::NeverReads) => own(504) || good,
        Some(Misdeed::FinInBody | Misdeed::ResetInBody | Misdeed::StallsInBody) => {
            good || own(502) || own(504) || matches!(outcome, Outcome::Cut | Outcome::Unanswered)
        }
        Some(_) => own(502),
    };
    (!answered).then_some("not answered as it should be")
}
