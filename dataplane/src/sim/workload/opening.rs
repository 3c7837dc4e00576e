//! How flows open where their listener reads something first: PROXY headers and ClientHellos, in pieces and in several
//! records, right ones and wrong ones, and what has to come of each.

use super::plan::{MS, SECOND, say};
use super::preface;
use crate::fault::CloseReason;
use crate::limits::{CLIENT_HELLO_BYTES, PROXY_V1_BYTES, PROXY_V2_BYTES};
use crate::mix::mix;
use crate::sim::peers::Act;
use crate::sim::random::Random;
use crate::spec::SendProxy;

/// What the listener of flows reads before anything else, and what its cluster sends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FlowRules {
    /// PROXY headers; `Some(false)`: they may be left out.
    pub(crate) proxied: Option<bool>,
    pub(crate) announced: Option<SendProxy>,
    /// Routes ask for a ClientHello; `Some(false)`: and what none of them takes goes nowhere.
    pub(crate) routed: Option<bool>,
}

/// Names that the route takes: a whole one, and those below another.
pub(crate) const ROUTED_NAMES: [&str; 2] = ["one.example.com", "*.wild.example"];
/// Names that clients ask for; the first two have a route.
const NAMES: [Option<&str>; 4] =
    [Some("One.Example.com"), Some("a.wild.example"), Some("wild.example"), None];

/// What is wrong with an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    NoHeader,
    BadHeader,
    LongHeader,
    SlowHeader,
    NoHello,
    BadHello,
    LongHello,
    SlowHello,
}

impl Flaw {
    pub(super) const ALL: [Self; 8] = [
        Self::NoHeader,
        Self::BadHeader,
        Self::LongHeader,
        Self::SlowHeader,
        Self::NoHello,
        Self::BadHello,
        Self::LongHello,
        Self::SlowHello,
    ];
    /// How the connection has to end.
    pub(super) fn reason(self) -> CloseReason {
        match self {
            Self::NoHeader => CloseReason::ProxyHeaderMissing,
            Self::BadHeader => CloseReason::ProxyHeaderInvalid,
            Self::LongHeader => CloseReason::ProxyHeaderTooLarge,
            Self::SlowHeader => CloseReason::ProxyHeaderTimeout,
            Self::NoHello => CloseReason::NotTls,
            Self::BadHello => CloseReason::ClientHelloInvalid,
            Self::LongHello => CloseReason::ClientHelloTooLarge,
            Self::SlowHello => CloseReason::ClientHelloTimeout,
        }
    }
    /// Nothing but time tells it from an opening that is right.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Self::SlowHeader | Self::SlowHello)
    }
    fn can_be(self, rules: FlowRules) -> bool {
        match self {
            Self::NoHeader => rules.proxied == Some(true),
            Self::BadHeader | Self::LongHeader | Self::SlowHeader => rules.proxied.is_some(),
            Self::NoHello | Self::BadHello | Self::LongHello | Self::SlowHello => rules.routed.is_some(),
        }
    }
}

/// What has to come of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// An origin of the listener's own cluster, or of the route's.
    Default,
    Named,
    /// No route, and no cluster.
    Nowhere,
    Closed(Flaw),
}

/// One flow's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    flow: u32,
    flaw: Option<Flaw>,
    name: Option<&'static str>,
    routed: bool,
    /// Bytes that fill the hello up, and of each of its records.
    padding: usize,
    record: usize,
    /// It is said so many bytes at a time (0: at once), with so long (nanoseconds) in between.
    step: usize,
    pause: u64,
}

pub(super) fn draw(random: &mut Random, flow: u32) -> Opening {
    let at = random.below(NAMES.len() as u64) as usize;
    let long = random.one_in(5);
    let in_pieces = random.one_in(2);
    let padding = if long { random.between(3_000, 15_000) } else { random.below(200) };
    let record = if long { random.between(1_000, 16_384) } else { random.pick(&[1, 3, 60, 16_384]) };
    Opening {
        flow,
        flaw: random.one_in(5).then(|| random.pick(&Flaw::ALL)),
        name: NAMES[at],
        routed: at < 2,
        padding: padding as usize,
        record: record as usize,
        step: if in_pieces { random.pick(&[1, 7, 100]) } else { 0 },
        pause: random.between(1, 2 * MS),
    }
}

impl Opening {
    pub(super) fn due(&self, rules: FlowRules) -> Due {
        match (self.flaw.filter(|flaw| flaw.can_be(rules)), rules.routed) {
            (Some(flaw), _) => Due::Closed(flaw),
            (None, Some(_)) if self.routed => Due::Named,
            (None, Some(false)) => Due::Nowhere,
            (None, _) => Due::Default,
        }
    }
    /// What its client says first, with the flow's name behind it if it is right.
    pub(super) fn acts(&self, rules: FlowRules) -> Vec<Act> {
        let header = rules.proxied.map(|required| preface::header(self.flow, required)).unwrap_or_default();
        let due = self.due(rules);
        let bytes = match due {
            Due::Closed(flaw) => self.flawed(flaw, header),
            _ => [header, self.hello(rules), self.flow.to_be_bytes().to_vec()].concat(),
        };
        let mut acts = Vec::new();
        match due {
            // Some drip for longer than any deadline; the others stop short.
            Due::Closed(flaw) if flaw.is_slow() && self.step > 0 => {
                say(bytes.clone(), bytes.len() / 8 + 1, SECOND, &mut acts);
            }
            // Whatever is right is here in good time.
            _ if self.step > 0 => say(bytes.clone(), self.step.max(bytes.len() / 200), self.pause, &mut acts),
            _ => acts.push(Act::Say(bytes)),
        }
        acts
    }
    /// The hello as an origin has to get it.
    pub(super) fn hello(&self, rules: FlowRules) -> Vec<u8> {
        if rules.routed.is_some() { records(&self.message(), self.record) } else { Vec::new() }
    }
    /// What is wrong with how it came to an origin, which is one of the route's cluster or of the listener's own.
    pub(super) fn misled(&self, rules: FlowRules, front: &Front, named: bool) -> Option<&'static str> {
        let expected = match self.due(rules) {
            Due::Closed(_) => return Some("its opening is wrong, and it came to an origin"),
            Due::Nowhere => return Some("no route takes it, and it came to an origin"),
            due => due == Due::Named,
        };
        let told = rules.proxied.zip(rules.announced);
        let told = told.and_then(|(required, send)| preface::passed_on(self.flow, required, send));
        if expected != named {
            Some("it came to the wrong cluster")
        } else if front.hello != self.hello(rules) {
            Some("its hello was changed")
        } else if told.is_some_and(|told| told != front.header) {
            Some("what its header says was changed")
        } else {
            None
        }
    }
    fn flawed(&self, flaw: Flaw, header: Vec<u8>) -> Vec<u8> {
        let odd = self.flow % 2 == 1;
        let own = match flaw {
            Flaw::NoHeader if odd => b"PROXY_TCP4 10.0.0.1".to_vec(),
            Flaw::NoHeader => b"\r\n\r\n\0\r\nQUIT?".to_vec(),
            Flaw::BadHeader if odd => b"PROXY TCP4 10.0.0.1 192.0.2.256 1024 443\r\n".to_vec(),
            // A checksum that is none.
            Flaw::BadHeader => b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\x07\x03\0\x04\0\0\0\0".to_vec(),
            Flaw::LongHeader if odd => {
                let mut line = b"PROXY UNKNOWN ".to_vec();
                line.resize(PROXY_V1_BYTES + 1, b'x');
                line
            }
            Flaw::LongHeader => {
                let len = (PROXY_V2_BYTES as u16 - 15).to_be_bytes();
                [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &len].concat()
            }
            Flaw::SlowHeader if odd => b"PROXY TCP4 10.0.0.1 192.0.2.1 1024 443\r".to_vec(),
            Flaw::SlowHeader => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01".to_vec(),
            Flaw::NoHello if odd => b"GET / HTTP/1.1\r\nHost: one.example.com\r\n\r\n".to_vec(),
            Flaw::NoHello => b"\x80\x2e\x01\x03\x01".to_vec(),
            Flaw::BadHello => {
                let mut message = Self { padding: self.padding % 200, ..*self }.message();
                // A session id of 33 bytes, or a record of another kind in the middle.
                message[38] = if odd { 33 } else { 0 };
                let mut bytes = records(&message, 20);
                bytes[25] = if odd { bytes[25] } else { 21 };
                bytes
            }
            // It says that it is too long, or is so by what its records add.
            Flaw::LongHello if odd => b"\x16\x03\x01\0\x04\x01\0\x3f\xf8".to_vec(),
            Flaw::LongHello => {
                let padding = CLIENT_HELLO_BYTES - 500;
                records(&Self { padding, ..*self }.message(), 40)
            }
            Flaw::SlowHello => {
                let mut bytes = records(&self.message(), self.record);
                bytes.pop();
                bytes
            }
        };
        if matches!(flaw, Flaw::NoHello | Flaw::BadHello | Flaw::LongHello | Flaw::SlowHello) {
            return [header, own].concat();
        }
        own
    }
    /// A ClientHello that asks for the name.
    fn message(&self) -> Vec<u8> {
        let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let name = |name: &str| {
            let list = vector(&[&[0][..], &vector(name.as_bytes())].concat());
            [&[0, 0][..], &vector(&list)].concat()
        };
        let padding = (0..self.padding).map(|at| mix(u64::from(self.flow) << 32 | at as u64) as u8);
        let padding = [&[0, 21][..], &vector(&padding.collect::<Vec<_>>())].concat();
        let extensions = [self.name.map(name).unwrap_or_default(), padding].concat();
        let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector(&extensions)].concat();
        [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }
}

/// A handshake message in records of so many bytes.
fn records(message: &[u8], step: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1][..], &(piece.len() as u16).to_be_bytes(), piece].concat();
    message.chunks(step).flat_map(record).collect()
}

/// What came up in front of a flow's name.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) header: Vec<u8>,
    pub(super) hello: Vec<u8>,
}

/// What `bytes`, an origin's first, have in front of a name, which begins with 0; `None` while that is not to be told.
pub(super) fn front(bytes: &[u8], rules: FlowRules) -> Option<Result<Front, String>> {
    let mut header = 0;
    if rules.announced.is_some() {
        match preface::announced(bytes)? {
            Ok((len, _)) => header = len,
            Err(what) => return Some(Err(what)),
        }
    }
    let mut at = header;
    while rules.routed.is_some() && *bytes.get(at)? == 22 {
        let len = bytes.get(at + 3..at + 5)?;
        at += 5 + usize::from(u16::from_be_bytes([len[0], len[1]]));
    }
    let hello = bytes.get(header..at)?.to_vec();
    Some(Ok(Front { header: bytes[..header].to_vec(), hello }))
}
