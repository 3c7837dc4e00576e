//! An origin's side of one link: reads requests strictly, checks whose they are, and answers as the plan says.

use super::ledger::Ledger;
use super::message::{Body, Frame, Head, canary, frame_body};
use super::plan::{
    After, Answer, Misdeed, Request, SECOND, Sending, download, tunnel_down, tunnel_up, upload,
};
use super::preface;
use crate::io::{Mono, SocketAddress};
use crate::sim::net::{Net, SocketId};
use crate::sim::peers::{Act, Ended, LISTEN, Peer};

/// Timer cookie: the deed on an idle link; the count of requests answered is added, so that a later one disarms it.
const DEED: u64 = 1_000;

/// One link as its origin sees it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) peer: Peer,
    pub(super) origin: usize,
    inbox: Vec<u8>,
    current: Option<Current>,
    /// Requests answered to their end.
    finished: u64,
    /// A tunnel's incoming bytes.
    tunnel: Option<(u32, Body)>,
    /// What it will do on the idle link.
    last_deed: After,
    /// When it ended the idle link, or said what nobody asked for: no request may come much later.
    forsaken: Option<Mono>,
    /// Whom its first bytes named, where links are announced.
    announced: Option<SocketAddress>,
    /// Nothing more is expected of it: it stays as it is until the other side acts.
    stuck: bool,
}

#[derive(Debug)]
struct Current {
    id: u32,
    body: Body,
    answered: bool,
    deed: After,
    /// Its answer has bytes behind it that nobody asked for.
    extra: bool,
    /// Which copy of the request it is.
    copy: u32,
}

impl Call {
    pub(super) fn new(actor: u32, origin: usize, socket: SocketId) -> Self {
        let mut peer = Peer::new(actor);
        peer.adopt(socket);
        Self {
            peer,
            origin,
            inbox: Vec::new(),
            current: None,
            finished: 0,
            tunnel: None,
            last_deed: After::Keep,
            forsaken: None,
            announced: None,
            stuck: false,
        }
    }
    /// Something happened on the link.
    pub(super) fn stir(&mut self, net: &mut Net, ledger: &mut Ledger) {
        while self.peer.is_open() {
            let bytes = self.peer.listen(net);
            if bytes.is_empty() {
                break;
            }
            self.inbox.extend(bytes);
            self.digest(net.now, ledger);
            if self.peer.pace.is_some() {
                break;
            }
        }
        self.peer.speak(net);
        self.settle(net, ledger);
        match self.peer.ended {
            Some(Ended::Eof) if self.tunnel.is_some() => {
                self.peer.push(Act::Close);
                self.peer.ended = None;
                self.peer.speak(net);
                self.peer.ended.get_or_insert(Ended::Eof);
            }
            Some(Ended::Eof | Ended::Broken) if self.peer.socket.is_some() && self.tunnel.is_none() => {
                self.peer.leave(net, false);
            }
            _ => {}
        }
    }
    pub(super) fn on_timer(&mut self, net: &mut Net, ledger: &mut Ledger, cookie: u64) {
        if cookie == LISTEN && self.stuck {
            return;
        }
        if cookie >= DEED {
            let idle = self.current.is_none() && self.peer.is_open() && self.tunnel.is_none();
            if idle && cookie == DEED + self.finished {
                self.do_deed(net, ledger);
            }
            return;
        }
        self.stir(net, ledger);
    }
    fn do_deed(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.peer.socket.is_some_and(|socket| !net.is_flushed(socket)) {
            // The answer is still on its way: what follows it now is no deed on an idle link.
            let at = Mono(net.now.0 + 100_000_000);
            return net.timer(self.peer.actor(), at, DEED + self.finished);
        }
        match self.last_deed {
            After::SayClose => self.peer.leave(net, false),
            After::Fin(_) => {
                // It goes on reading, to see whether anyone still sends a request here.
                self.forsaken = Some(net.now);
                ledger.idle_ends.push(net.now);
                self.peer.push(Act::Finish);
                self.peer.push(Act::Wait(3 * SECOND));
                self.peer.push(Act::Close);
            }
            After::Reset(_) => {
                ledger.idle_ends.push(net.now);
                self.peer.leave(net, true);
            }
            After::Unsolicited(_) => {
                ledger.poisons.push(net.now);
                self.forsaken = Some(net.now);
                self.peer.push(Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()));
            }
            After::Keep => {}
        }
        self.peer.speak(net);
    }
    /// The exchange is over once its body was read and its answer was said.
    fn settle(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let over = self
            .current
            .as_ref()
            .is_some_and(|c| c.answered && c.body.is_done() && self.peer.is_silent() && !self.stuck);
        if !over {
            return;
        }
        let Some(current) = self.current.take() else { return };
        self.finished += 1;
        self.last_deed = current.deed;
        self.forsaken = current.extra.then_some(net.now);
        if current.extra {
            ledger.poisons.push(net.now);
        }
        let wait = match current.deed {
            After::Keep => return,
            After::SayClose => 0,
            After::Fin(n) | After::Reset(n) | After::Unsolicited(n) => n,
        };
        net.timer(self.peer.actor(), Mono(net.now.0 + wait), DEED + self.finished);
    }
    /// Takes what was received as far as it goes.
    fn digest(&mut self, now: Mono, ledger: &mut Ledger) {
        while !self.inbox.is_empty() && !self.stuck {
            if ledger.announced && self.announced.is_none() {
                match preface::announced(&self.inbox) {
                    None => return,
                    Some(Ok((len, client))) => {
                        self.inbox.drain(..len);
                        self.announced = Some(client);
                    }
                    Some(Err(what)) => {
                        ledger.violation(format!("an origin received {what}"));
                        self.stuck = true;
                    }
                }
                continue;
            }
            if let Some((id, body)) = &mut self.tunnel {
                match body.feed(&self.inbox) {
                    Ok(n) if n == self.inbox.len() => {
                        ledger.exchanges[*id as usize].upload_done = body.is_done();
                    }
                    Ok(_) => ledger.violation(format!("more bytes came up tunnel {id} than were sent")),
                    Err(what) => ledger.violation(format!("tunnel {id}, upwards: {what}")),
                }
                self.inbox.clear();
            } else if let Some(current) = &mut self.current {
                match current.body.feed(&self.inbox) {
                    Ok(n) => {
                        self.inbox.drain(..n);
                        if current.body.is_done() {
                            self.on_upload(ledger);
                        }
                    }
                    Err(what) => {
                        ledger.violation(format!("request {}: {what}", current.id));
                        self.stuck = true;
                    }
                }
                if self.current.as_ref().is_some_and(|c| c.body.is_done() && !self.inbox.is_empty()) {
                    return self.on_extra(now, ledger);
                }
            } else if !self.take_head(now, ledger) {
                return;
            }
        }
    }
    fn on_extra(&mut self, now: Mono, ledger: &mut Ledger) {
        // The answer is still being said: no proxy may send the next request on this link yet.
        if !self.peer.is_silent() || !self.current.as_ref().is_some_and(|c| c.answered) {
            ledger.violation(format!("bytes of a next request before the answer: {:?}", self.current));
            self.stuck = true;
            return;
        }
        self.forsaken = self.current.take().and_then(|c| c.extra.then_some(now));
        self.finished += 1;
        self.digest(now, ledger);
    }
    /// Reads one head; false while it is incomplete.
    fn take_head(&mut self, now: Mono, ledger: &mut Ledger) -> bool {
        let (head, len) = match Head::parse(&self.inbox) {
            None => return false,
            Some(Ok(parsed)) => parsed,
            Some(Err(what)) => {
                ledger.violation(format!("an origin received a malformed head: {what}"));
                self.stuck = true;
                return false;
            }
        };
        self.inbox.drain(..len);
        let id = head.field("x-sim").and_then(|v| v.parse::<u32>().ok());
        let (Some(id), Ok(frame)) = (id, head.frame(Frame::Sized(0))) else {
            ledger.violation(format!("an origin received a head it should not have: {head:?}"));
            self.stuck = true;
            return false;
        };
        ledger.on_arrival(id, &head);
        self.check_client(id, &head, ledger);
        if let Some(since) = self.forsaken {
            ledger.on_forsaken(id, now.since(since));
            // Whatever it takes for its answer, nobody else shall take the next one.
            self.peer.push(Act::Reset);
            self.stuck = true;
            return false;
        }
        let exchange = &ledger.exchanges[id as usize];
        let answer = exchange.request.answer.of_copy(exchange.arrivals);
        let checked = exchange.request.flaw.is_none();
        let body = Body::new(upload(id), frame, checked);
        let whole = body.is_done();
        self.current = Some(Current {
            id,
            body,
            answered: false,
            deed: answer.after,
            extra: answer.misdeed == Some(Misdeed::ExtraBytes),
            copy: exchange.arrivals,
        });
        if answer.misdeed == Some(Misdeed::NeverReads) && !whole {
            self.peer.pace = Some((1, 1_000_000_000_000));
        }
        if whole {
            self.on_upload(ledger);
        } else if answer.early {
            self.answer(ledger);
        } else if head.field("expect").is_some() {
            self.peer.push(Act::Say(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
        }
        true
    }
    /// Whom the proxy says that it asks for must be who does, and on a link that began with that, nobody else.
    fn check_client(&self, id: u32, head: &Head, ledger: &mut Ledger) {
        let client = ledger.exchanges[id as usize].client;
        let claimed = ledger.proxied.and_then(|required| preface::claimed(client, required));
        let forwarded = head.field("x-forwarded-for");
        if let Some(claimed) = claimed
            && forwarded != claimed.ip().map(|ip| ip.to_string()).as_deref()
        {
            ledger.violation(format!("request {id} of {claimed} is said to be of {forwarded:?}"));
        }
        if let (Some(announced), Some(claimed)) = (self.announced, claimed)
            && announced != claimed
        {
            ledger
                .violation(format!("the link of request {id}, of {claimed}, was announced as {announced}'s"));
        }
        if self.announced.is_some() && self.finished > 0 {
            ledger.violation(format!("request {id} came on a link that had been another's"));
        }
    }
    fn on_upload(&mut self, ledger: &mut Ledger) {
        let Some(current) = &self.current else { return };
        let (id, got) = (current.id, current.body.got);
        ledger.on_upload(id, got);
        if !current.answered {
            self.answer(ledger);
        }
    }
    /// Queues the answer.
    fn answer(&mut self, ledger: &mut Ledger) {
        let Some(current) = &mut self.current else { return };
        current.answered = true;
        let id = current.id;
        let request = &ledger.exchanges[id as usize].request;
        let answer = &request.answer.of_copy(current.copy);
        if answer.delay > 0 {
            self.peer.push(Act::Wait(answer.delay));
        }
        if let Some((up, down)) = request.upgrade {
            self.tunnel = Some((id, Body::new(tunnel_up(id), Frame::Sized(up), true)));
            ledger.exchanges[id as usize].upload_done = up == 0;
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Sim: {id}\r\n\r\n"
            );
            self.current = None;
            self.peer.push(Act::Say(head.into_bytes()));
            self.peer.push(Act::Say(canary(tunnel_down(id), 0, down as usize)));
            return;
        }
        for _ in 0..answer.interim {
            let hint = format!("HTTP/1.1 103 Early Hints\r\nX-Sim: {id}\r\nLink: </{id}>\r\n\r\n");
            self.peer.push(Act::Say(hint.into_bytes()));
        }
        let (acts, stuck) = acts_of(id, request, answer);
        acts.into_iter().for_each(|act| self.peer.push(act));
        self.stuck |= stuck;
    }
}

/// The final answer as acts, and whether the origin then does nothing more.
fn acts_of(id: u32, request: &Request, answer: &Answer) -> (Vec<Act>, bool) {
    let (status, len) = (answer.status, answer.body.bytes());
    let framing = match answer.body {
        _ if status == 204 => String::new(),
        Sending::None | Sending::Sized(_) => format!("Content-Length: {len}\r\n"),
        Sending::Chunked(_) => "Transfer-Encoding: chunked\r\n".into(),
        Sending::UntilClose(_) => String::new(),
    };
    let close = if answer.after == After::SayClose { "Connection: close\r\n" } else { "" };
    let head =
        |framing: &str| format!("HTTP/1.1 {status} Sure\r\nX-Sim: {id}\r\n{close}{framing}\r\n").into_bytes();
    let bodiless = request.bodiless(status);
    let pieces = if bodiless {
        Vec::new()
    } else {
        frame_body(download(id), len, matches!(answer.body, Sending::Chunked(_)), answer.step)
    };
    let wrong = |text: &str| (vec![Act::Say(head(text)), Act::Close], false);
    match answer.misdeed {
        Some(Misdeed::FinBeforeHead) => (vec![Act::Close], false),
        Some(Misdeed::ResetBeforeHead) => (vec![Act::Reset], false),
        Some(Misdeed::NeverAnswers | Misdeed::NeverReads) => (Vec::new(), true),
        Some(Misdeed::Garbage) => {
            (vec![Act::Say(b"\x16\x03 this is no answer\r\n\r\n".to_vec()), Act::Close], false)
        }
        Some(Misdeed::TwoLengths) => wrong("Content-Length: 5\r\nContent-Length: 6\r\n"),
        Some(Misdeed::LengthAndEncoding) => wrong("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        Some(Misdeed::UnknownEncoding) => wrong("Transfer-Encoding: cow\r\n"),
        Some(Misdeed::HugeHead) => wrong(&format!("X-A: {}\r\n", "a".repeat(65_000))),
        Some(Misdeed::UnaskedUpgrade) => {
            let head =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            (vec![Act::Say(head.to_vec())], true)
        }
        Some(Misdeed::TooManyInterim) => (
            vec![
                Act::Say(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20)),
                Act::Say(head("Content-Length: 0\r\n")),
            ],
            false,
        ),
        Some(Misdeed::FinInHead) => (vec![Act::Say(head(&framing)[..20].to_vec()), Act::Close], false),
        Some(deed @ (Misdeed::FinInBody | Misdeed::ResetInBody | Misdeed::StallsInBody))
            if !bodiless && len > 0 =>
        {
            let bytes = pieces.concat();
            let mut acts = vec![Act::Say(head(&framing)), Act::Say(bytes[..(len / 2) as usize].to_vec())];
            match deed {
                Misdeed::FinInBody => acts.push(Act::Close),
                Misdeed::ResetInBody => acts.extend([Act::Wait(20_000_000), Act::Reset]),
                _ => return (acts, true),
            }
            (acts, false)
        }
        _ => (good_acts(head(&framing), pieces, answer, bodiless), false),
    }
}

/// A whole answer, and what its origin adds to it.
fn good_acts(head: Vec<u8>, pieces: Vec<Vec<u8>>, answer: &Answer, bodiless: bool) -> Vec<Act> {
    let mut acts = vec![Act::Say(head)];
    for (n, piece) in pieces.into_iter().enumerate() {
        if n > 0 && answer.pause > 0 {
            acts.push(Act::Wait(answer.pause));
        }
        acts.push(Act::Say(piece));
    }
    let until_close = matches!(answer.body, Sending::UntilClose(_)) && !bodiless;
    if answer.misdeed == Some(Misdeed::ExtraBytes) && !until_close {
        acts.push(Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()));
    }
    if until_close {
        acts.push(Act::Close);
    }
    acts
}
