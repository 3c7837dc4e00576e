//! Reads HTTP/1 messages as a strict peer would: its own reading, so that it does not share a mistake with ringway's.

/// How the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A message of which at least the head is here.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) start: String,
    /// Names in lower case; values as Latin-1.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) head: Vec<u8>,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    /// The body has ended (never of itself if it runs until the close).
    pub(crate) whole: bool,
    /// Bytes that belong to it.
    pub(crate) len: usize,
}

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// To a HEAD.
    BodilessResponse,
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }
    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }
}

/// The message at the front of `bytes`; `None` until its head is whole. Whatever is not plainly right is an error.
pub(crate) fn read(bytes: &[u8], kind: Kind) -> Result<Option<Message>, String> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let wrong = |what: &str| Err(format!("{what}: {}", bytes[..end].escape_ascii()));
    let head = latin1(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return wrong("a control character");
    }
    let mut fields = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return wrong("a line without a colon") };
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            return wrong("a bad name");
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v).collect::<Vec<_>>();
    let framing = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) if kind == Kind::Request => Framing::None,
        ([], []) => Framing::UntilClose,
        ([], ["chunked"]) => Framing::Chunked,
        ([digits], []) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Framing::Length(digits.parse().map_err(|_| "a length that is too large")?)
        }
        _ => return wrong("ambiguous framing"),
    };
    let parts: Vec<&str> = start.split(' ').collect();
    let framing = match kind {
        Kind::Request => {
            if !matches!(parts.as_slice(), [_, _, "HTTP/1.1"]) || all("host").len() != 1 {
                return wrong("no request");
            }
            framing
        }
        Kind::Response | Kind::BodilessResponse => {
            let status = parts.get(1).and_then(|s| s.parse().ok()).unwrap_or(0u16);
            if parts[0] != "HTTP/1.1" || !(100..600).contains(&status) {
                return wrong("no response");
            }
            let bodiless = kind == Kind::BodilessResponse || matches!(status, 100..=199 | 204 | 304);
            if bodiless { Framing::None } else { framing }
        }
    };
    let (body, whole, len) = read_body(&bytes[end + 4..], framing)?;
    let head = bytes[..end + 4].to_vec();
    Ok(Some(Message { start, fields, head, framing, body, whole, len: end + 4 + len }))
}

/// Body, whether it ended, and its bytes with framing.
fn read_body(bytes: &[u8], framing: Framing) -> Result<(Vec<u8>, bool, usize), String> {
    match framing {
        Framing::None => Ok((Vec::new(), true, 0)),
        Framing::Length(n) => {
            let here = bytes.len().min(usize::try_from(n).unwrap_or(usize::MAX));
            Ok((bytes[..here].to_vec(), here as u64 == n, here))
        }
        Framing::UntilClose => Ok((bytes.to_vec(), false, bytes.len())),
        Framing::Chunked => read_chunks(bytes),
    }
}

fn read_chunks(bytes: &[u8]) -> Result<(Vec<u8>, bool, usize), String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok((body, false, at)) };
        let digits = std::str::from_utf8(&rest[..line]).map_err(|_| "a chunk size that is no text")?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("a chunk size {digits:?}"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| "a chunk size that is too large")?;
        let data = &rest[line + 2..];
        if data.len() < size + 2 {
            body.extend_from_slice(&data[..size.min(data.len())]);
            return Ok((body, false, bytes.len()));
        }
        if &data[size..size + 2] != b"\r\n" {
            return Err("a chunk without its CRLF".to_owned());
        }
        body.extend_from_slice(&data[..size]);
        at += line + 2 + size + 2;
        if size == 0 {
            return Ok((body, true, at));
        }
    }
}
