//! The one writer of heads: nothing leaves this proxy in a start line or a field but through it (H05).

use super::octets::{find_control, is_token};
use std::net::IpAddr;

/// Appends to a buffer; once it is full, everything else is ignored and [`Writer::finish`] says so.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, full: false }
    }

    /// Our own text, as it is. Inlined: most of it is constant and then a store or two.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) {
        match self.out.get_mut(self.at..self.at + text.len()) {
            Some(room) if !self.full => {
                room.copy_from_slice(text);
                self.at += text.len();
            }
            _ => self.full = true,
        }
    }

    /// Field lines of a parsed head as they stand in it, each `NAME: VALUE` and CRLF: what [`Writer::field`] would write.
    pub(super) fn lines(&mut self, lines: &[u8]) {
        debug_assert!(lines.ends_with(b"\r\n"), "not a line");
        self.text(lines);
    }

    /// Text from elsewhere: a control octet in it becomes SP (RFC 9110 5.5), so that it can never end a line.
    pub(super) fn foreign(&mut self, text: &[u8]) {
        let from = self.at;
        self.text(text);
        if self.full || find_control(text) == text.len() {
            return;
        }
        for octet in &mut self.out[from..self.at] {
            if *octet != b'\t' && super::octets::is_control(*octet) {
                *octet = b' ';
            }
        }
    }

    /// `NAME: VALUE`. A name that is no token is left out: it cannot be written without changing its meaning.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if is_token(name) {
            self.text(name);
            self.text(b": ");
            self.foreign(value);
            self.text(b"\r\n");
        }
    }

    /// A field of ours: `start` is its name with `: `.
    #[inline]
    pub(super) fn own(&mut self, start: &'static [u8], value: &[u8]) {
        debug_assert!(start.strip_suffix(b": ").is_some_and(is_token), "no name of a field");
        self.text(start);
        self.foreign(value);
        self.text(b"\r\n");
    }

    pub(super) fn number(&mut self, number: u64) {
        let digit = |n: u64| b'0' + (n % 10) as u8;
        match number {
            0..10 => self.text(&[digit(number)]),
            10..100 => self.text(&[digit(number / 10), digit(number)]),
            100..1000 => self.text(&[digit(number / 100), digit(number / 10), digit(number)]),
            _ => {
                self.number(number / 1000);
                self.text(&[digit(number / 100), digit(number / 10), digit(number)]);
            }
        }
    }

    /// `content-length: N`.
    pub(super) fn content_length(&mut self, length: u64) {
        self.text(b"content-length: ");
        self.number(length);
        self.text(b"\r\n");
    }

    /// An address without port; an IPv4-mapped one as IPv4.
    pub(super) fn address(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                for (i, octet) in v4.octets().into_iter().enumerate() {
                    if i > 0 {
                        self.text(b".");
                    }
                    self.number(u64::from(octet));
                }
            }
            IpAddr::V6(v6) => self.display(v6),
        }
    }

    /// Anything that displays; for what is rare.
    pub(super) fn display(&mut self, value: impl std::fmt::Display) {
        use std::io::Write;
        let mut room = &mut self.out[self.at..];
        let before = room.len();
        if self.full || write!(room, "{value}").is_err() {
            self.full = true;
            return;
        }
        self.at += before - room.len();
    }

    /// The empty line. Returns the length of the whole; `None` if it did not fit.
    pub(super) fn finish(mut self) -> Option<usize> {
        self.text(b"\r\n");
        (!self.full).then_some(self.at)
    }

    /// Behind [`Writer::finish`]'s line comes a body: the same, with it.
    pub(super) fn finish_with(mut self, body: &[u8]) -> Option<usize> {
        self.text(b"\r\n");
        self.text(body);
        (!self.full).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = [0; 100];
        let mut to = Writer::new(&mut out);
        write(&mut to);
        let len = to.finish().unwrap();
        out[..len].escape_ascii().to_string()
    }

    #[test]
    fn no_value_ends_a_line() {
        let text = written(|to| to.field(b"location", b"/a\r\nSet-Cookie: x\nb\0c\td\x7f\x80"));
        assert_eq!(text, "location: /a  Set-Cookie: x b c\\td \\x80\\r\\n\\r\\n");
        assert_eq!(written(|to| to.field(b"a\r\nb", b"c")), "\\r\\n");
        assert_eq!(written(|to| to.field(b"", b"c")), "\\r\\n");
    }

    #[test]
    fn numbers() {
        assert_eq!(written(|to| to.number(0)), "0\\r\\n");
        assert_eq!(written(|to| to.number(u64::MAX)), format!("{}\\r\\n", u64::MAX));
        for (address, text) in [("::1", "::1"), ("10.0.255.3", "10.0.255.3"), ("::ffff:1.2.3.4", "1.2.3.4")] {
            assert_eq!(written(|to| to.address(address.parse().unwrap())), format!("{text}\\r\\n"));
        }
    }

    #[test]
    fn full_is_none_and_never_a_part() {
        for room in 0..6 {
            let mut out = vec![0; room];
            let mut to = Writer::new(&mut out);
            to.text(b"abcd");
            to.text(b"");
            assert_eq!(to.finish(), (room == 6).then_some(6));
            let mut to = Writer::new(&mut out);
            to.display(1_000_000);
            to.text(b"a");
            assert_eq!(to.finish(), None);
        }
    }
}
