//! Origins of our own: each connection runs a script, and every whole request is recorded.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the origin got it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    /// As sent: names in their own case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub chunked: bool,
    pub trailers: Vec<String>,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} repeated: {:?}", self.fields);
        value
    }
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    heads: AtomicUsize,
    accepted: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    dead: AtomicBool,
}

pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// One connection at an origin, in the hands of its script.
pub struct Connection {
    pub stream: TcpStream,
    pub number: usize,
    buffer: Vec<u8>,
    resets: bool,
    shared: Arc<Shared>,
}

impl Origin {
    /// Runs `script` for each connection, on a thread of its own.
    pub fn scripted(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::scripted_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    /// The same at this address.
    pub fn scripted_at(at: SocketAddr, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).expect("bind an origin");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (of_thread, script) = (Arc::clone(&shared), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if of_thread.dead.load(SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                let number = of_thread.accepted.fetch_add(1, SeqCst);
                of_thread.open.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&of_thread);
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    let mut connection =
                        Connection { stream, number, buffer: Vec::new(), resets: false, shared };
                    script(&mut connection);
                    if !connection.resets {
                        let _ = connection.stream.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Answers each request with what `answer` makes of it, keeping the connection.
    pub fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |connection| {
            while let Some(request) = connection.request() {
                if !connection.send(answer(&request)) {
                    return;
                }
            }
        })
    }

    /// Answers 200 with `body`.
    pub fn saying(body: &str) -> Self {
        let answer = sized(200, body.as_bytes());
        Self::answering(move |_| answer.clone())
    }

    /// The same at this address.
    pub fn saying_at(at: SocketAddr, body: &str) -> Self {
        let answer = sized(200, body.as_bytes());
        Self::scripted_at(at, move |connection| {
            while connection.request().is_some() {
                if !connection.send(&answer) {
                    return;
                }
            }
        })
    }

    /// Answers 200 with the request's body.
    pub fn echo() -> Self {
        Self::answering(|request| sized(200, &request.body))
    }

    /// The whole requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
    pub fn request_count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }
    /// Heads so far, of requests whose bodies never came whole too.
    pub fn head_count(&self) -> usize {
        self.shared.heads.load(SeqCst)
    }
    pub fn connection_count(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// Dies as a killed process does: nobody listens, every connection is reset.
    pub fn kill(&self) {
        self.shared.dead.store(true, SeqCst);
        // Wakes the accepting thread, which then drops the listener.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("SO_LINGER");
    drop(stream);
}

/// A response with Content-Length.
pub fn sized(status: u16, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

impl Connection {
    /// The next whole request; `None` at the connection's end or when it is not HTTP.
    pub fn request(&mut self) -> Option<Request> {
        let mut request = self.head()?;
        self.body(&mut request)?;
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// The next head, without its body.
    pub fn head(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let mut parts = lines.next()?.split(' ').map(str::to_owned);
        let request = Request {
            method: parts.next()?,
            target: parts.next()?,
            version: parts.next()?,
            fields: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            ..Request::default()
        };
        self.shared.heads.fetch_add(1, SeqCst);
        Some(request)
    }

    /// Reads the body that belongs to `request`.
    pub fn body(&mut self, request: &mut Request) -> Option<()> {
        let coding = request.field("transfer-encoding").map(str::to_owned);
        let length = request.field("content-length").map(str::to_owned);
        assert!(
            coding.is_none() || length.is_none(),
            "both framings reached an origin: {:?}",
            request.fields
        );
        if coding.is_some() {
            request.chunked = true;
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).ok()?;
                if size == 0 {
                    break;
                }
                self.need(size + 2)?;
                request.body.extend(self.buffer.drain(..size));
                self.buffer.drain(..2);
            }
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    return Some(());
                }
                request.trailers.push(line);
            }
        }
        let length = length.map_or(Some(0), |n| n.parse::<usize>().ok())?;
        self.need(length)?;
        request.body = self.buffer.drain(..length).collect();
        Some(())
    }

    /// False if the peer is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// At least one byte, at most what is there; empty at the end.
    pub fn raw(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() && self.more().is_none() {
            return Vec::new();
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads and drops until the peer ends the connection.
    pub fn until_closed(&mut self) {
        while self.more().is_some() {
            self.buffer.clear();
        }
    }

    pub fn shutdown_write(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with RST when the script returns.
    pub fn reset_at_end(&mut self) {
        self.resets = true;
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        // The clone kept for `kill` would keep the socket open.
        let mine = self.stream.peer_addr().ok();
        self.shared.open.lock().unwrap().retain(|stream| stream.peer_addr().ok() != mine);
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).ok();
            }
            self.more()?;
        }
    }

    fn need(&mut self, bytes: usize) -> Option<()> {
        while self.buffer.len() < bytes {
            self.more()?;
        }
        Some(())
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = vec![0; 65536];
        match self.stream.read(&mut piece) {
            Ok(n) if n > 0 => {
                self.buffer.extend_from_slice(&piece[..n]);
                Some(())
            }
            _ => None,
        }
    }
}
