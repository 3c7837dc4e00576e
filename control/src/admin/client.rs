//! The other end of the API, for our own commands: one question on a connection of its own.

use super::guard::Token;
use dataplane::io::Address;
use dataplane::limits;
use dataplane::proto::http1::{Parsed, Scan, parse_response};
use dataplane::proto::{Framing, Method, ResponseHead};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a connect may take; the API is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// A status and a body, in JSON.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.body).map_err(|_| STRANGE.to_owned())
    }
    /// The body as what it says; the error says that it is not that.
    pub(crate) fn read<'b, T: serde::Deserialize<'b>>(&'b self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|_| STRANGE.to_owned())
    }
}

/// A running process that may be asked again and again.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) address: Address,
    pub(super) token: Option<Token>,
}

impl Found {
    /// What is at a path, where that comes within so long; the error says why there is nothing, in words.
    pub(crate) fn ask_within(&self, patience: Duration, path: &str) -> Result<Reply, String> {
        let reply = ask_within(patience, &self.address, self.token.as_ref(), "GET", path, None)?;
        if reply.status == 200 {
            return Ok(reply);
        }
        let body = reply.read::<serde_json::Value>().unwrap_or_default();
        let refused = || format!("it refused {path} with {}", reply.status);
        Err(body["error"].as_str().map_or_else(refused, str::to_owned))
    }
}

/// Asks, and waits for the answer. The error is why there is none, in words.
pub(super) fn ask(
    to: &Address,
    token: Option<&Token>,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Reply, String> {
    ask_within(limits::ADMIN_ANSWER_TIMEOUT, to, token, method, path, body)
}

/// The same, for no longer than `patience` from one piece of the answer to the next.
fn ask_within(
    patience: Duration,
    to: &Address,
    token: Option<&Token>,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Reply, String> {
    let host = match to {
        Address::Ip(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    let fields = match body {
        Some(body) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        None if method == "GET" => String::new(),
        None => "Content-Type: application/json\r\nContent-Length: 0\r\n".to_owned(),
    };
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.text())).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}{fields}\r\n{}",
        body.unwrap_or_default()
    );
    match to {
        Address::Ip(address) => {
            let stream = TcpStream::connect_timeout(&SocketAddr::from(*address), CONNECT);
            let timed = |stream: &TcpStream| stream.set_read_timeout(Some(patience));
            let stream =
                stream.and_then(|stream| timed(&stream).map(|()| stream)).map_err(|e| e.to_string())?;
            talk(stream, request.as_bytes())
        }
        Address::Unix(name) => {
            let stream = UnixStream::connect(OsStr::from_bytes(name.bytes()));
            let timed = |stream: &UnixStream| stream.set_read_timeout(Some(patience));
            let stream =
                stream.and_then(|stream| timed(&stream).map(|()| stream)).map_err(|e| e.to_string())?;
            talk(stream, request.as_bytes())
        }
    }
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> Result<Reply, String> {
    let said = |e: io::Error| match e.kind() {
        // What a socket with a timeout says when that is over.
        io::ErrorKind::WouldBlock => "it is there and does not answer".to_owned(),
        _ => e.to_string(),
    };
    stream.write_all(request).map_err(said)?;
    let (mut bytes, mut scan, mut head) = (Vec::new(), Scan::default(), ResponseHead::default());
    let begins = loop {
        match parse_response(&bytes, &mut scan, Method::Get, &mut head) {
            Ok(Parsed::Complete { len }) => break len,
            Ok(Parsed::Partial) => {}
            Err(_) => return Err(STRANGE.to_owned()),
        }
        if more(&mut stream, &mut bytes).map_err(said)? == 0 {
            return Err("it closed without an answer".to_owned());
        }
    };
    // The API sends all its answers with their length.
    let Framing::Length(length) = head.framing else { return Err(STRANGE.to_owned()) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limits::ADMIN_ANSWER_BYTES {
        return Err(format!("its answer has {length} bytes"));
    }
    while bytes.len() < begins + length {
        if more(&mut stream, &mut bytes).map_err(said)? == 0 {
            return Err("the answer is cut off".to_owned());
        }
    }
    bytes.truncate(begins + length);
    bytes.drain(..begins);
    Ok(Reply { status: head.status, body: bytes })
}

const STRANGE: &str = "what answers there is not ringway";

/// Appends what comes next; 0 is the end.
fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let old = bytes.len();
    bytes.resize(old + PIECE, 0);
    let read = stream.read(&mut bytes[old..]);
    bytes.truncate(old + read.as_ref().map_or(0, |n| *n));
    read
}

/// One segment of a path (RFC 3986 3.3): what is not unreserved is percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
