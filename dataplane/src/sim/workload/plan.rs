//! What one seed's clients ask for, how they behave, and what each origin is to do about each request.

use crate::fault::Refusal;
use crate::sim::peers::Act;
use crate::sim::random::Random;

use super::flaws::FLAWS;
use super::message::frame_body;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// How a body travels, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    None,
    Sized(u64),
    Chunked(u64),
    /// Responses only.
    UntilClose(u64),
}

impl Sending {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Sized(n) | Self::Chunked(n) | Self::UntilClose(n) => n,
        }
    }
}

/// What an origin does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdeed {
    FinBeforeHead,
    ResetBeforeHead,
    NeverAnswers,
    Garbage,
    TwoLengths,
    LengthAndEncoding,
    UnknownEncoding,
    TooManyInterim,
    UnaskedUpgrade,
    HugeHead,
    FinInHead,
    FinInBody,
    ResetInBody,
    StallsInBody,
    ExtraBytes,
    NeverReads,
}

pub(super) const MISDEEDS: [Misdeed; 16] = [
    Misdeed::FinBeforeHead,
    Misdeed::ResetBeforeHead,
    Misdeed::NeverAnswers,
    Misdeed::Garbage,
    Misdeed::TwoLengths,
    Misdeed::LengthAndEncoding,
    Misdeed::UnknownEncoding,
    Misdeed::TooManyInterim,
    Misdeed::UnaskedUpgrade,
    Misdeed::HugeHead,
    Misdeed::FinInHead,
    Misdeed::FinInBody,
    Misdeed::ResetInBody,
    Misdeed::StallsInBody,
    Misdeed::ExtraBytes,
    Misdeed::NeverReads,
];

/// What an origin does with its connection once it has answered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    /// `Connection: close`, and then it does.
    SayClose,
    /// FIN on the idle link after so many nanoseconds.
    Fin(u64),
    Reset(u64),
    /// Bytes that nobody asked for.
    Unsolicited(u64),
}

/// An origin's part.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Sending,
    /// 103 responses first.
    pub(super) interim: u8,
    /// Answers before it has read the request's body.
    pub(super) early: bool,
    /// Before the head.
    pub(super) delay: u64,
    pub(super) step: u64,
    pub(super) pause: u64,
    pub(super) misdeed: Option<Misdeed>,
    pub(super) after: After,
    /// Whoever asks a second time is answered well.
    pub(super) mends: bool,
}

impl Answer {
    /// What the nth copy of its request gets, counted from 1.
    pub(super) fn of_copy(&self, n: u32) -> Self {
        let mut answer = self.clone();
        if self.mends && n > 1 {
            (answer.misdeed, answer.delay) = (None, 0);
            answer.status = if self.status >= 400 { 200 } else { self.status };
        }
        answer
    }
}

/// A client's part.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) http10: bool,
    pub(super) close: bool,
    pub(super) body: Sending,
    /// `Expect: 100-continue`; the body waits for it.
    pub(super) expect: bool,
    /// Bytes up and down through the tunnel.
    pub(super) upgrade: Option<(u64, u64)>,
    /// Index in [`FLAWS`]: a request to be refused.
    pub(super) flaw: Option<usize>,
    /// It says that it is another proxy's second attempt.
    pub(super) nested: bool,
    pub(super) answer: Answer,
}

impl Request {
    pub(super) fn is_idempotent(&self) -> bool {
        self.method != "POST" && self.method != "PATCH"
    }
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.flaw.map(|i| FLAWS[i].0)
    }
    /// Whether its answer has no body whatever its head says.
    pub(super) fn bodiless(&self, status: u16) -> bool {
        self.method == "HEAD" || status == 204 || status == 304
    }
    /// The head as bytes, and the body as pieces.
    pub(super) fn encode(&self, id: u32, step: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
        if let Some(flaw) = self.flaw {
            return (FLAWS[flaw].1(id), Vec::new());
        }
        let version = if self.http10 { "1.0" } else { "1.1" };
        let mut head =
            format!("{} /x/{id}?n={id} HTTP/{version}\r\nHost: sim.test\r\nX-Sim: {id}\r\n", self.method);
        match (self.http10, self.close) {
            (true, false) => head.push_str("Connection: keep-alive\r\n"),
            (false, true) => head.push_str("Connection: close\r\n"),
            _ => {}
        }
        if self.upgrade.is_some() {
            head.push_str("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            head.push_str("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
        }
        if self.nested {
            head.push_str("Ringway-Attempt: 9\r\n");
        }
        if self.expect {
            head.push_str("Expect: 100-continue\r\n");
        }
        let chunked = matches!(self.body, Sending::Chunked(_));
        if chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if let Sending::Sized(n) = self.body {
            head.push_str(&format!("Content-Length: {n}\r\n"));
        }
        head.push_str("\r\n");
        let pieces = match self.body {
            Sending::None => Vec::new(),
            _ => frame_body(upload(id), self.body.bytes(), chunked, step),
        };
        (head.into_bytes(), pieces)
    }
}

/// The canary of a request's body, and of the bytes up and down its tunnel. The response's is `4 * id`.
pub(super) fn upload(id: u32) -> u64 {
    4 * u64::from(id) + 1
}
pub(super) fn tunnel_up(id: u32) -> u64 {
    4 * u64::from(id) + 2
}
pub(super) fn tunnel_down(id: u32) -> u64 {
    4 * u64::from(id) + 3
}
pub(super) fn download(id: u32) -> u64 {
    4 * u64::from(id)
}

/// What a client does at some point of its last batch instead of behaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// Leaves after writing so many bytes of it.
    AbortRequest(u64, bool),
    /// Leaves after reading so many bytes of the answers.
    AbortResponse(u64, bool),
    /// One byte a second, in the head or in the body.
    Glacial,
    /// Asks for much and reads nothing of it.
    NeverReads,
    /// FIN behind the last request; still wants the answers.
    HalfClose,
    /// Says all but the last byte, and no more.
    Stalls,
    /// Connects and says nothing.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    Reset,
    /// Waits for the other side to close.
    Idle,
}

#[derive(Debug, Clone)]
pub(super) struct ClientPlan {
    pub(super) start: u64,
    /// Requests written together, and the next ones when all are answered.
    pub(super) batches: Vec<Vec<u32>>,
    pub(super) think: u64,
    pub(super) ending: Ending,
    pub(super) mishap: Option<Mishap>,
    /// Writes so many bytes at a time, with `pause` between (0: all at once).
    pub(super) step: usize,
    pub(super) pause: u64,
    pub(super) pace: Option<(usize, u64)>,
}

/// Bytes as acts: `step` at a time with pauses, or all at once.
pub(super) fn say(bytes: Vec<u8>, step: usize, pause: u64, acts: &mut Vec<Act>) {
    if step == 0 || pause == 0 {
        acts.push(Act::Say(bytes));
        return;
    }
    for piece in bytes.chunks(step) {
        acts.push(Act::Say(piece.to_vec()));
        acts.push(Act::Wait(pause));
    }
}

fn size(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => 0,
        1 => random.between(100_000, 300_000),
        2..=5 => random.between(4_000, 40_000),
        _ => random.between(1, 2_000),
    }
}

/// Of one direction of a tunnel: some pour long enough to be spliced.
fn tunnel_size(random: &mut Random) -> u64 {
    if random.one_in(3) { random.between(200_000, 600_000) } else { size(random) }
}

fn draw_answer(random: &mut Random, method: &str, http10: bool) -> Answer {
    let body = match random.below(12) {
        0 => Sending::UntilClose(size(random)),
        1..=4 => Sending::Chunked(size(random)),
        _ => Sending::Sized(size(random)),
    };
    let status = match random.below(20) {
        0 => 204,
        1 if method == "GET" || method == "HEAD" => 304,
        2 => 404,
        3 => 500,
        _ => 200,
    };
    let misdeed = if random.one_in(14) { Some(random.pick(&MISDEEDS)) } else { None };
    // Short, so that the extra bytes are not held up behind a slow client.
    let body =
        if misdeed == Some(Misdeed::ExtraBytes) { Sending::Sized(body.bytes().min(1_000)) } else { body };
    let pieces = random.one_in(6);
    let after = match random.below(16) {
        0 => After::SayClose,
        1 => After::Fin(random.below(3 * SECOND)),
        2 => After::Reset(random.below(SECOND)),
        3 => After::Unsolicited(random.below(SECOND)),
        _ => After::Keep,
    };
    Answer {
        status,
        body,
        interim: if !http10 && random.one_in(12) { random.between(1, 15) as u8 } else { 0 },
        // Closing over an unread body would reset the response away.
        early: random.one_in(10) && !matches!(body, Sending::UntilClose(_)),
        delay: if random.one_in(4) { random.below(300 * MS) } else { 0 },
        // Small pieces, but not so many that a long body outlasts the run.
        step: if pieces { random.between(1, 4_000).max(body.bytes() / 500) } else { 16_384 },
        pause: if pieces { random.below(3 * MS) } else { 0 },
        misdeed,
        after,
        mends: random.one_in(2),
    }
}

/// One request. `last` may end the connection, be refused, or become a tunnel.
pub(super) fn draw_request(random: &mut Random, last: bool) -> Request {
    let method = match random.below(16) {
        0..=6 => "GET",
        7..=10 => "POST",
        11 | 12 => "PUT",
        13 => "HEAD",
        14 => "DELETE",
        _ => "OPTIONS",
    };
    let http10 = random.one_in(10);
    let body = match method {
        "POST" if random.one_in(6) => Sending::None,
        "POST" | "PUT" if !http10 && random.one_in(3) => Sending::Chunked(size(random)),
        "POST" | "PUT" => Sending::Sized(size(random)),
        "DELETE" if random.one_in(3) => Sending::Sized(random.below(100)),
        _ => Sending::None,
    };
    let mut request = Request {
        method,
        http10,
        close: last && random.one_in(3),
        expect: !http10 && body.bytes() > 0 && random.one_in(4),
        body,
        upgrade: None,
        flaw: None,
        nested: random.one_in(20),
        answer: draw_answer(random, method, http10),
    };
    if request.answer.misdeed == Some(Misdeed::NeverReads) && request.body.bytes() > 0 && random.one_in(3) {
        // More than the sockets on its way can hold.
        request.body = Sending::Sized(450_000);
    }
    if last && random.one_in(8) {
        (request.method, request.http10, request.close) = ("GET", false, false);
        (request.body, request.expect) = (Sending::None, false);
        request.upgrade = Some((tunnel_size(random), tunnel_size(random)));
        request.answer.status = 101;
        request.answer.misdeed = None;
    } else if last && random.one_in(4) {
        request.flaw = Some(random.below(FLAWS.len() as u64) as usize);
    }
    request
}

/// A client's behaviour; its requests are appended to `requests`, whose indices are their ids.
pub(super) fn draw_client(random: &mut Random, requests: &mut Vec<Request>) -> ClientPlan {
    let mishap = match random.below(24) {
        0 => Some(Mishap::AbortRequest(random.below(3_000), random.one_in(2))),
        1 => Some(Mishap::AbortResponse(random.below(3_000), random.one_in(2))),
        2 => Some(Mishap::Glacial),
        3 => Some(Mishap::NeverReads),
        4 | 5 => Some(Mishap::HalfClose),
        6 => Some(Mishap::Silent),
        7 => Some(Mishap::Stalls),
        _ => None,
    };
    let rounds = if mishap == Some(Mishap::Silent) { 0 } else { random.between(2, 5) };
    let mut batches = Vec::new();
    for round in 0..rounds {
        let many = if random.one_in(4) { random.between(2, 6) } else { 1 };
        let batch = (0..many).map(|n| {
            let mut request = draw_request(random, round + 1 == rounds && n + 1 == many && mishap.is_none());
            // What must be waited for, or ends the connection, is alone or last.
            request.expect &= many == 1 && mishap.is_none();
            requests.push(request);
            (requests.len() - 1) as u32
        });
        batches.push(batch.collect());
    }
    if mishap == Some(Mishap::NeverReads)
        && let Some(last) = requests.last_mut()
    {
        (last.method, last.body) = ("GET", Sending::None);
        last.answer.body = Sending::Sized(1_000_000);
        (last.answer.misdeed, last.answer.status) = (None, 200);
    }
    let slow = random.one_in(12);
    ClientPlan {
        start: random.below(15 * SECOND),
        batches,
        think: if random.one_in(3) { random.below(2 * SECOND) } else { random.below(20 * MS) },
        ending: match random.below(8) {
            0 => Ending::Reset,
            1 => Ending::Idle,
            _ => Ending::Close,
        },
        mishap,
        step: if slow { random.between(1, 40) as usize } else { 0 },
        pause: if slow { random.between(1, 5) * MS } else { 0 },
        pace: if random.one_in(15) {
            Some((random.between(64, 5_000) as usize, random.between(1, 10) * MS))
        } else {
            None
        },
    }
}
