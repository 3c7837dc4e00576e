//! A DNS server of ours that answers as it is told, and misbehaves on demand; UDP and TCP on one port.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What is answered to whoever asks for a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses, each family to its question, lasting so many seconds.
    Addresses(u32, Vec<IpAddr>),
    /// Priority, weight, port and target each.
    Services(u32, Vec<(u16, u16, u16, &'static str)>),
    NxDomain,
    ServFail,
    /// The name is there and has nothing.
    Nothing,
    Silence,
    /// Truncated, and cut off when asked over TCP.
    Truncated,
    /// An alias of itself.
    Loop,
    /// A good answer to another question.
    OtherName(IpAddr),
    /// No DNS at all.
    Garbage,
    /// Half a message.
    Torn,
    /// So many addresses, which needs TCP.
    Huge(u16),
    /// So many targets of a service, each with a name of its own (`h0.test` and on) and this port; needs TCP.
    HugeServices(u16, u16),
    /// An alias of this name; what that is, it has to be asked for.
    Alias(&'static str),
    /// Somebody else says [`FORGED`] first; then comes the true answer, if there is one.
    Forged(Forgery, Option<IpAddr>),
    /// Truncated; over TCP a good answer that takes for ever, a byte each 100 ms.
    Slow(IpAddr),
}

/// Where forged answers lead.
pub const FORGED: &str = "127.0.0.9";

/// What tells a forged answer from a true one.
#[derive(Debug, Clone, Copy)]
pub enum Forgery {
    Id,
    /// From another port, or another address, than was asked.
    Port,
    Address,
    /// It answers for another name, or type.
    Name,
    Type,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicUsize,
    forged: AtomicUsize,
    dead: AtomicBool,
}

/// Ends with the test.
pub struct Dns {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Dns {
    pub fn start() -> Self {
        // A port that both protocols have free.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let (address, shared) = (udp.local_addr().unwrap(), Arc::new(Shared::default()));
        let of_udp = Arc::clone(&shared);
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 4096];
            while !of_udp.dead.load(SeqCst) {
                let Ok((len, from)) = udp.recv_from(&mut question) else { continue };
                let question = &question[..len];
                if let Some(Answer::Forged(forgery, _)) = of_udp.answer(question) {
                    of_udp.forge(forgery, question, &udp, from);
                }
                if let Some(reply) = of_udp.reply(question, false) {
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let of_tcp = Arc::clone(&shared);
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                if of_tcp.dead.load(SeqCst) {
                    return;
                }
                let (mut len, mut question) = ([0; 2], Vec::new());
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                while stream.read_exact(&mut len).is_ok() {
                    question.resize(u16::from_be_bytes(len).into(), 0);
                    let Ok(()) = stream.read_exact(&mut question) else { break };
                    let Some(reply) = of_tcp.reply(&question, true) else { break };
                    let whole = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
                    let slow = matches!(of_tcp.answer(&question), Some(Answer::Slow(_)));
                    let piece = if slow { 1 } else { whole.len() };
                    let mut pieces = whole.chunks(piece);
                    let sent = pieces.all(|piece| {
                        // A process that is slow, which is what is played here.
                        crate::support::pause(Duration::from_millis(if slow { 100 } else { 0 }));
                        stream.write_all(piece).is_ok() && !of_tcp.dead.load(SeqCst)
                    });
                    if !sent {
                        break;
                    }
                }
            }
        });
        Self { address, shared }
    }
    /// From now on this is the answer for `name`; none of a name that was never set: NXDOMAIN.
    pub fn set(&self, name: &str, answer: Answer) {
        self.shared.zone.lock().unwrap().insert(name.to_owned(), answer);
    }
    pub fn addresses(&self, name: &str, ips: &[&str]) {
        self.set(name, Answer::Addresses(1, ips.iter().map(|ip| ip.parse().unwrap()).collect()));
    }
    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(SeqCst)
    }
    /// Forged answers so far.
    pub fn forged(&self) -> usize {
        self.shared.forged.load(SeqCst)
    }
    /// Answers nothing any more, as a killed process does.
    pub fn kill(&self) {
        self.shared.dead.store(true, SeqCst);
        let _ = std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Answer> {
        let (name, _) = name_of(question)?;
        self.zone.lock().unwrap().get(&name.to_ascii_lowercase()).cloned()
    }

    /// Sends what somebody else would send.
    fn forge(&self, forgery: Forgery, question: &[u8], udp: &UdpSocket, to: SocketAddr) {
        let (Some((_, end)), lie) = (name_of(question), Answer::Addresses(1, vec![FORGED.parse().unwrap()]))
        else {
            return;
        };
        let Some(mut message) = reply_with(lie, question, false) else { return };
        match forgery {
            Forgery::Id => message[1] ^= 1,
            // Its first letter.
            Forgery::Name => message[13] = if message[13] == b'z' { b'y' } else { b'z' },
            // TXT in the question, and an address in the answer.
            Forgery::Type => message[end + 1] = 16,
            Forgery::Port | Forgery::Address => {}
        }
        let elsewhere = match forgery {
            Forgery::Port => Some("127.0.0.1:0".to_owned()),
            Forgery::Address => Some(format!("127.0.0.2:{}", udp.local_addr().unwrap().port())),
            _ => None,
        };
        let sent = match elsewhere {
            Some(from) => UdpSocket::bind(from).unwrap().send_to(&message, to),
            None => udp.send_to(&message, to),
        };
        sent.unwrap();
        self.forged.fetch_add(1, SeqCst);
    }

    fn reply(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, SeqCst);
        reply_with(self.answer(question).unwrap_or(Answer::NxDomain), question, tcp)
    }
}

fn reply_with(answer: Answer, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let (name, end) = name_of(question)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let asked = &question[12..end + 4];
    let head = |flags: u16, answers: usize| {
        let mut head = question[..2].to_vec();
        for n in [flags, 1, answers as u16, 0, 0] {
            head.extend(n.to_be_bytes());
        }
        [&head, asked].concat()
    };
    let ok = |records: Vec<Vec<u8>>| Some([head(0x8180, records.len()), records.concat()].concat());
    let pointer = [0xc0, 12];
    let address = |ttl, ip: &IpAddr| match (ip, kind) {
        (IpAddr::V4(v4), A) => Some(record(&pointer, A, ttl, &v4.octets())),
        (IpAddr::V6(v6), AAAA) => Some(record(&pointer, AAAA, ttl, &v6.octets())),
        _ => None,
    };
    match answer {
        Answer::Addresses(ttl, ips) => ok(ips.iter().filter_map(|ip| address(ttl, ip)).collect()),
        Answer::Services(ttl, list) if kind == SRV => ok(list
            .iter()
            .map(|(priority, weight, port, target)| {
                let numbers = [priority, weight, port].map(|n| n.to_be_bytes()).concat();
                record(&pointer, SRV, ttl, &[numbers, encoded(target)].concat())
            })
            .collect()),
        Answer::Services(..) | Answer::Nothing => ok(Vec::new()),
        Answer::NxDomain => Some(head(0x8183, 0)),
        Answer::ServFail => Some(head(0x8182, 0)),
        Answer::Silence => None,
        Answer::Truncated if tcp => None,
        Answer::Truncated => Some(head(0x8380, 0)),
        Answer::Loop => ok(vec![record(&pointer, CNAME, 1, &encoded(&name))]),
        Answer::OtherName(IpAddr::V4(ip)) if kind == A => {
            ok(vec![record(&encoded("other.test"), A, 1, &ip.octets())])
        }
        Answer::OtherName(_) => ok(Vec::new()),
        Answer::Garbage => Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Answer::Torn => {
            let whole = [head(0x8180, 1), record(&pointer, A, 1, &[127, 0, 0, 9])].concat();
            Some(whole[..whole.len() - 3].to_vec())
        }
        Answer::Huge(_) if !tcp => Some(head(0x8380, 0)),
        Answer::Huge(_) if kind != A => ok(Vec::new()),
        Answer::Huge(count) => {
            let ip = |n: u16| [127, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]];
            ok((1..=count).map(|n| record(&pointer, A, 1, &ip(n))).collect())
        }
        Answer::HugeServices(..) if !tcp => Some(head(0x8380, 0)),
        Answer::HugeServices(count, port) => {
            let target =
                |n| [&[0, 1, 0, 1], &port.to_be_bytes()[..], &encoded(&format!("h{n}.test"))].concat();
            ok((0..count).map(|n| record(&pointer, SRV, 1, &target(n))).collect())
        }
        Answer::Alias(target) => ok(vec![record(&pointer, CNAME, 1, &encoded(target))]),
        Answer::Forged(_, truth) => reply_with(Answer::Addresses(1, vec![truth?]), question, tcp),
        Answer::Slow(_) if !tcp => Some(head(0x8380, 0)),
        Answer::Slow(ip) => reply_with(Answer::Addresses(1, vec![ip]), question, tcp),
    }
}

/// The name of the first question, and where its type stands.
fn name_of(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*question.get(at)?);
        let label = question.get(at + 1..at + 1 + len)?;
        at += 1 + len;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8(label.to_vec()).ok()?);
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .filter(|label| !label.is_empty())
        .flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// Of class IN.
fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let fixed =
        [&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes()].concat();
    [name, &fixed, data].concat()
}
