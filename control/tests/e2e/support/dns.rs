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
}

#[derive(Default)]
struct Shared {
    zone: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicUsize,
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
                if let Some(reply) = of_udp.reply(&question[..len], false) {
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
                    let Ok(()) = stream.write_all(&whole) else { break };
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
    fn reply(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, end) = name_of(question)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        let answer = self.zone.lock().unwrap().get(&name.to_ascii_lowercase()).cloned();
        self.asked.fetch_add(1, SeqCst);
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
        match answer.unwrap_or(Answer::NxDomain) {
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
        }
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
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// Of class IN.
fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let fixed =
        [&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes()].concat();
    [name, &fixed, data].concat()
}
