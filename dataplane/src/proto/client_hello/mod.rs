//! A TLS ClientHello (RFC 8446 4.1.2), read for the name (RFC 6066 3) and the protocols (RFC 7301 3.1) that it asks for.
//!
//! Nothing is terminated: the bytes go on as they came. `Scan` walks records (RFC 8446 5.1) octet by octet until the
//! handshake message is whole, however records and pieces cut it; then the message is read once. What cannot be TLS is
//! refused at the first byte that shows it; SSL 2.0's hello is such.

mod name;
mod write;

pub use write::write;

use super::Span;
use crate::fault::CloseReason;
use crate::limits::CLIENT_HELLO_BYTES;

/// ContentType handshake, and HandshakeType client_hello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Major version of every record and hello since SSL 3.0; the minor one says nothing (RFC 8446 5.1).
const MAJOR: u8 = 3;
const RECORD_HEADER: usize = 5;
/// Most bytes of one plaintext record.
const RECORD_MAX: usize = 1 << 14;
/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;
/// ExtensionType server_name and application_layer_protocol_negotiation.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// How far the records were walked; kept from one piece to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes walked.
    at: usize,
    /// The present record's header as far as it was seen; then nothing of it is left here.
    header: [u8; RECORD_HEADER],
    in_header: usize,
    /// Bytes of the present record's fragment that are still to come.
    record_left: usize,
    /// Bytes of the message that were seen, and how many it has in all once its own header was.
    message: usize,
    message_len: usize,
}

/// What a ClientHello asks for. The ranges are of the message that [`read`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The host name in its normal form, as routes compare it: lower case, without a dot at the end. `None` if there is
    /// none, or an IPv4 address, which is no name (RFC 6066 3).
    name: Option<Span>,
    /// The list of protocols as it came, well-formed; empty if there is none.
    protocols: Span,
}

impl Hello {
    /// The name; `message` is what [`read`] wrote.
    pub fn name<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        self.name.map(|name| name.of(message))
    }
    /// The protocols offered, in the client's order.
    pub fn protocols<'a>(&self, message: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        let mut list = Cursor::new(self.protocols.of(message));
        std::iter::from_fn(move || list.short_vector())
    }
}

/// Reads the hello at the front of `bytes`, which begin with the first byte of the client's TLS. `Ok(None)`: more is
/// needed; to be asked again with the same bytes, more behind them, and the same `scan`. A whole message is copied to
/// `message`, whose memory is reused; at most [`CLIENT_HELLO_BYTES`].
///
/// # Errors
/// [`CloseReason::NotTls`], [`CloseReason::ClientHelloInvalid`], [`CloseReason::ClientHelloTooLarge`].
pub fn read(bytes: &[u8], scan: &mut Scan, message: &mut Vec<u8>) -> Result<Option<Hello>, CloseReason> {
    if !scan.walk(bytes)? {
        return Ok(None);
    }
    defragment(bytes, scan.message_len, message);
    parse(message).map(Some).ok_or(CloseReason::ClientHelloInvalid)
}

impl Scan {
    /// Walks what is new; true once the message is whole.
    fn walk(&mut self, bytes: &[u8]) -> Result<bool, CloseReason> {
        while let Some(&byte) = bytes.get(self.at) {
            if self.record_left == 0 {
                self.record_header(byte)?;
                self.at += 1;
            } else if self.message < MESSAGE_HEADER {
                self.message_header(byte)?;
                self.take(1);
            } else {
                let wanted = self.message_len - self.message;
                self.take(wanted.min(self.record_left).min(bytes.len() - self.at));
            }
            if self.message >= MESSAGE_HEADER && self.message == self.message_len {
                return Ok(true);
            }
            // Whatever the message still lacks must come within the bound, record headers included.
            if self.at + self.message_len.saturating_sub(self.message) > CLIENT_HELLO_BYTES {
                return Err(CloseReason::ClientHelloTooLarge);
            }
        }
        Ok(false)
    }

    fn take(&mut self, n: usize) {
        self.at += n;
        self.record_left -= n;
        self.message += n;
    }

    fn record_header(&mut self, byte: u8) -> Result<(), CloseReason> {
        // In the first record this tells another protocol; later, TLS gone wrong: an alert, say, or no fragment.
        let otherwise = if self.message == 0 { CloseReason::NotTls } else { CloseReason::ClientHelloInvalid };
        if matches!((self.in_header, byte), (0, b) if b != HANDSHAKE)
            || (self.in_header == 1 && byte != MAJOR)
        {
            return Err(otherwise);
        }
        self.header[self.in_header] = byte;
        self.in_header += 1;
        if self.in_header == RECORD_HEADER {
            self.in_header = 0;
            self.record_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            // "Implementations MUST NOT send zero-length fragments of Handshake types" (RFC 8446 5.1).
            if self.record_left == 0 || self.record_left > RECORD_MAX {
                return Err(otherwise);
            }
        }
        Ok(())
    }

    fn message_header(&mut self, byte: u8) -> Result<(), CloseReason> {
        if self.message == 0 {
            return if byte == CLIENT_HELLO { Ok(()) } else { Err(CloseReason::NotTls) };
        }
        self.message_len = self.message_len << 8 | usize::from(byte);
        if self.message == MESSAGE_HEADER - 1 {
            self.message_len += MESSAGE_HEADER;
        }
        Ok(())
    }
}

/// Copies the message out of the records that it came in. They were walked.
fn defragment(bytes: &[u8], len: usize, message: &mut Vec<u8>) {
    message.clear();
    let mut records = bytes;
    while let Some((header, rest)) = records.split_first_chunk::<RECORD_HEADER>() {
        let record = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let n = record.min(len - message.len()).min(rest.len());
        message.extend_from_slice(&rest[..n]);
        if message.len() == len {
            return;
        }
        records = &rest[n..];
    }
}

/// Reads a whole message. A name is put in its normal form in place.
fn parse(message: &mut [u8]) -> Option<Hello> {
    let mut hello = Hello { name: None, protocols: Span::default() };
    let mut host: Option<Span> = None;
    let mut from = Cursor::new(message);
    from.take(MESSAGE_HEADER)?;
    // legacy_version and random; legacy_session_id, cipher_suites, legacy_compression_methods.
    if from.take(2)?[0] != MAJOR {
        return None;
    }
    from.take(32)?;
    let (id, suites) = (from.short_vector_or_empty()?, from.vector()?);
    if id.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 {
        return None;
    }
    from.short_vector()?;
    // Before extensions were invented a hello ended here (RFC 5246 7.4.1.2).
    let mut extensions = Cursor::new(if from.is_empty() { &[] } else { from.vector()? });
    if !from.is_empty() {
        return None;
    }
    let (mut names, mut protocols) = (0, 0);
    while !extensions.is_empty() {
        let (kind, data) = (extensions.number()?, extensions.vector()?);
        match kind {
            SERVER_NAME => {
                names += 1;
                host = host_name(data)?.map(|name| Span::within(message, name));
            }
            ALPN => {
                protocols += 1;
                hello.protocols = Span::within(message, protocol_list(data)?);
            }
            // GREASE values (RFC 8701) among them.
            _ => {}
        }
    }
    // "There MUST NOT be more than one extension of the same type in a given extension block."
    if names > 1 || protocols > 1 {
        return None;
    }
    if let Some(host) = host {
        let len = name::normalize(host.of_mut(message))?;
        let text = Span { len: u32::try_from(len).ok()?, ..host };
        hello.name = (!name::is_ipv4(text.of(message))).then_some(text);
    }
    Some(hello)
}

/// The host name of a ServerNameList. The outer `None` is a malformed list, the inner one a list without a host name.
fn host_name(data: &[u8]) -> Option<Option<&[u8]>> {
    let mut list = whole_vector(data)?;
    let mut host = None;
    while !list.is_empty() {
        let (kind, name) = (list.take(1)?[0], list.vector()?);
        // "The ServerNameList MUST NOT contain more than one name of the same name_type."
        if kind == HOST_NAME && host.replace(name).is_some() {
            return None;
        }
    }
    Some(host)
}

/// The list of a ProtocolNameList, each of its names checked.
fn protocol_list(data: &[u8]) -> Option<&[u8]> {
    let list = whole_vector(data)?;
    let mut names = list;
    while !names.is_empty() {
        names.short_vector()?;
    }
    Some(list.0)
}

/// A vector that is not empty and has nothing behind it.
fn whole_vector(data: &[u8]) -> Option<Cursor<'_>> {
    let mut from = Cursor::new(data);
    let list = from.vector()?;
    (from.is_empty() && !list.is_empty()).then_some(Cursor::new(list))
}

/// What is left to read of a message, in the presentation language of RFC 8446 3.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
    /// uint16.
    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }
    /// A vector with a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(usize::from(len))
    }
    /// A vector with a length of one byte.
    fn short_vector_or_empty(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }
    /// The same, of one byte at least.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        self.short_vector_or_empty().filter(|bytes| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests;
