//! A raw client: sends exactly the bytes it is told, reads responses strictly.

use super::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    pub stream: TcpStream,
    /// Received and not yet used.
    buffer: Vec<u8>,
}

/// How a response's body was delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length,
    Chunked,
    UntilClose,
}

#[derive(Debug)]
pub struct Response {
    pub version: String,
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    /// The 1xx heads before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The value of a field that occurs at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} repeated: {:?}", self.fields);
        value
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
    /// Why the answer is ringway's own; empty if it is not.
    pub fn reason(&self) -> &str {
        self.field("ringway-reason").unwrap_or_default()
    }
}

/// A head: version, status, and fields with names in lower case.
pub type Head = (String, u16, Vec<(String, String)>);

/// Why there was no whole response.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended, cleanly or by reset, having given these bytes of it.
    Closed {
        reset: bool,
        bytes: usize,
    },
    TimedOut {
        bytes: usize,
    },
}

impl Client {
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&to, PATIENCE).expect("connect"))
    }

    /// The same where nobody may listen, or no longer: `None` is who was not let in.
    pub fn try_connect(to: SocketAddr) -> Option<Self> {
        TcpStream::connect_timeout(&to, Duration::from_millis(100)).ok().map(Self::over)
    }

    /// From this local address, any port.
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family, SocketType::STREAM, None).expect("a socket");
        bind(&fd, &SocketAddr::new(from, 0)).expect("an address of this machine");
        connect(&fd, &to).expect("connect");
        Self::over(fd.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// One request on a connection of its own, which the request should ask to close.
    pub fn once(to: SocketAddr, request: &str) -> Response {
        let mut client = Self::connect(to);
        client.exchange(request)
    }

    /// `GET path` on a connection of its own.
    pub fn get(to: SocketAddr, path: &str) -> Response {
        Self::once(to, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Sends, ignoring that the peer may have closed meanwhile.
    pub fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    #[track_caller]
    pub fn exchange(&mut self, request: &str) -> Response {
        self.send(request);
        self.response(request.split(' ').next().unwrap_or_default())
    }

    pub fn shutdown_write(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Closes with RST.
    pub fn reset(self) {
        super::origin::reset(self.stream);
    }

    /// The next final response, to a request of `method`.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        match self.try_response(method) {
            Ok(response) => response,
            Err(broken) => panic!("no response: {broken:?}; have {:?}", self.shown()),
        }
    }

    pub fn try_response(&mut self, method: &str) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let (version, status, fields) = self.head()?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let mut response =
                Response { version, status, fields, body: Vec::new(), framing: Framing::None, interim };
            self.body(&mut response, method)?;
            return Ok(response);
        }
    }

    /// Only the next head, interim ones included.
    pub fn head(&mut self) -> Result<Head, Broken> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head in UTF-8");
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().unwrap();
        let mut parts = status_line.splitn(3, ' ');
        let version = parts.next().unwrap().to_owned();
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "status line {status_line:?}");
        let status = parts.next().and_then(|s| s.parse().ok()).expect("a status");
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("field {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Ok((version, status, fields.collect()))
    }

    fn body(&mut self, response: &mut Response, method: &str) -> Result<(), Broken> {
        let bodyless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        let length = response.field("content-length").map(|n| n.parse::<usize>().expect("a length"));
        let coding = response.field("transfer-encoding").map(str::to_owned);
        assert!(length.is_none() || coding.is_none(), "both framings: {:?}", response.fields);
        if bodyless {
            return Ok(());
        }
        if let Some(coding) = coding {
            assert_eq!(coding, "chunked");
            response.framing = Framing::Chunked;
            return self.chunks(&mut response.body);
        }
        if let Some(length) = length {
            response.framing = Framing::Length;
            self.need(length)?;
            response.body = self.buffer.drain(..length).collect();
            return Ok(());
        }
        response.framing = Framing::UntilClose;
        loop {
            match self.more() {
                Ok(()) => (),
                Err(Broken::Closed { reset: false, .. }) => break,
                Err(broken) => return Err(broken),
            }
        }
        response.body = std::mem::take(&mut self.buffer);
        Ok(())
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            self.need(size + 2)?;
            body.extend(self.buffer.drain(..size));
            assert_eq!(self.buffer.drain(..2).collect::<Vec<_>>(), b"\r\n", "end of a chunk");
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8(line[..at].to_vec()).expect("a line in UTF-8"));
            }
            self.more()?;
        }
    }

    fn need(&mut self, bytes: usize) -> Result<(), Broken> {
        while self.buffer.len() < bytes {
            self.more()?;
        }
        Ok(())
    }

    /// Exactly `bytes` of whatever comes (after an upgrade).
    #[track_caller]
    pub fn raw(&mut self, bytes: usize) -> Vec<u8> {
        self.need(bytes).unwrap_or_else(|broken| panic!("wanted {bytes} bytes: {broken:?}"));
        self.buffer.drain(..bytes).collect()
    }

    fn more(&mut self) -> Result<(), Broken> {
        let mut piece = vec![0; 65536];
        let bytes = self.buffer.len();
        match self.stream.read(&mut piece) {
            Ok(0) => Err(Broken::Closed { reset: false, bytes }),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::TimedOut { bytes })
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Broken::Closed { reset: true, bytes }),
        }
    }

    /// Waits for the end of the connection and fails if anything but `nothing more` came, or nothing ends it.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        match self.more() {
            Err(Broken::Closed { .. }) if self.buffer.is_empty() => (),
            other => panic!("wanted the connection's end: {other:?}, have {:?}", self.shown()),
        }
    }

    /// Fails if a byte comes, or the end, within `wait`.
    #[track_caller]
    pub fn expect_silence(&mut self, wait: Duration) {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let got = self.more();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(got, Err(Broken::TimedOut { bytes: 0 }), "wanted silence, have {:?}", self.shown());
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(500)]).into_owned()
    }
}
