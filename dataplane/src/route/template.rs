//! Writes a template with a request's values into a bounded buffer; computes no length twice (threats T08).

use crate::io::SocketAddress;
use crate::spec::{BodyForm, Template, TemplatePart, Variable};
use std::io::Write;

/// A request's values. Texts are as the head holds them; empty stands for absent.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    pub remote: SocketAddress,
    pub server: SocketAddress,
    /// Without its port.
    pub host: &'a [u8],
    pub method: &'a [u8],
    /// The normal form.
    pub path: &'a [u8],
    /// Without its "?".
    pub query: Option<&'a [u8]>,
    pub scheme: &'a str,
    pub request_id: &'a [u8],
    pub node: &'a str,
    pub listener: &'a str,
    pub route: &'a str,
    pub status: u16,
    /// Why the answer is a refusal; else empty.
    pub reason: &'a str,
}

/// Where the text goes, and so which bytes a variable may bring into it. Fixed text was checked with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A body. In a plain one every byte is as it is; in HTML and JSON no value ends the text or attribute that it is in, and
    /// what is not printable ASCII is percent-encoded.
    Body(BodyForm),
    /// A field's value: control characters are percent-encoded.
    Field,
    /// Location: what a URI may not hold (RFC 3986 section 2) is percent-encoded.
    Location,
}

/// The buffer is too short for the text. What was written so far is no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Writes `template` to the front of `out` and returns its length. Allocates nothing.
pub fn render(
    template: &Template,
    of: &Variables<'_>,
    place: Place,
    out: &mut [u8],
) -> Result<usize, TooLong> {
    let mut to = Cursor { out, len: 0, place };
    for part in &template.0 {
        match part {
            TemplatePart::Text(text) => to.put(text.as_bytes())?,
            TemplatePart::Variable(variable) => to.put_variable(*variable, of)?,
        }
    }
    Ok(to.len)
}

struct Cursor<'a> {
    out: &'a mut [u8],
    len: usize,
    place: Place,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end).ok_or(TooLong)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Writes a value from the request, encoded as the place demands.
    fn put_value(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut bytes = bytes;
        let front = self.out.get(..self.len).is_some_and(|front| matches!(front, b"" | b"/"));
        if self.place == Place::Location && front {
            // "//host/x" or "/\\host" at the front would send the client to another host.
            let slashes = bytes.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
            bytes = &bytes[slashes..];
            if slashes > 0 && self.len == 0 {
                self.put(b"/")?;
            }
        }
        for &byte in bytes {
            let own: &[u8] = match (self.place, byte) {
                (Place::Body(BodyForm::Html), b'&') => b"&amp;",
                (Place::Body(BodyForm::Html), b'<') => b"&lt;",
                (Place::Body(BodyForm::Html), b'>') => b"&gt;",
                (Place::Body(BodyForm::Html), b'"') => b"&quot;",
                (Place::Body(BodyForm::Html), b'\'') => b"&#39;",
                (Place::Body(BodyForm::Json), b'"') => b"\\\"",
                (Place::Body(BodyForm::Json), b'\\') => b"\\\\",
                _ => b"",
            };
            if !own.is_empty() {
                self.put(own)?;
                continue;
            }
            let encoded = match self.place {
                Place::Body(BodyForm::Plain) => false,
                Place::Body(BodyForm::Html | BodyForm::Json) => !matches!(byte, b' '..=b'~'),
                Place::Field => byte.is_ascii_control(),
                Place::Location => !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte),
            };
            if encoded {
                self.put(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])?;
            } else {
                self.put(&[byte])?;
            }
        }
        Ok(())
    }

    fn put_variable(&mut self, variable: Variable, of: &Variables<'_>) -> Result<(), TooLong> {
        match variable {
            Variable::RemoteAddr => self.put_ip(of.remote),
            Variable::RemotePort => self.put_port(of.remote),
            Variable::ServerAddr => self.put_ip(of.server),
            Variable::ServerPort => self.put_port(of.server),
            Variable::Host => self.put_value(of.host),
            Variable::Method => self.put_value(of.method),
            Variable::Path => self.put_value(of.path),
            Variable::Query => self.put_value(of.query.unwrap_or_default()),
            Variable::PathAndQuery => {
                self.put_value(of.path)?;
                let Some(query) = of.query else { return Ok(()) };
                self.put(b"?")?;
                self.put_value(query)
            }
            Variable::Scheme => self.put(of.scheme.as_bytes()),
            Variable::RequestId => self.put_value(of.request_id),
            Variable::Node => self.put(of.node.as_bytes()),
            Variable::Listener => self.put(of.listener.as_bytes()),
            Variable::Route => self.put(of.route.as_bytes()),
            Variable::Status => self.put_display(of.status),
            Variable::Reason => self.put(of.reason.as_bytes()),
        }
    }

    /// `unix:` of a unix socket, which has no port either.
    fn put_ip(&mut self, address: SocketAddress) -> Result<(), TooLong> {
        match address.ip() {
            Some(ip) => self.put_display(ip),
            None => self.put_display(address),
        }
    }
    fn put_port(&mut self, address: SocketAddress) -> Result<(), TooLong> {
        if address.is_unix() { Ok(()) } else { self.put_display(address.port()) }
    }

    /// Writes a number or an address.
    fn put_display(&mut self, value: impl std::fmt::Display) -> Result<(), TooLong> {
        let mut rest = self.out.get_mut(self.len..).ok_or(TooLong)?;
        let room = rest.len();
        write!(rest, "{value}").map_err(|_full| TooLong)?;
        self.len += room - rest.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Variables<'_> = Variables {
        remote: SocketAddress::UNSPECIFIED,
        server: SocketAddress::UNSPECIFIED,
        host: b"example.com",
        method: b"GET",
        path: b"/a%2Fb",
        query: Some(b"x=1"),
        scheme: "http",
        request_id: b"id",
        node: "n",
        listener: "edge",
        route: "r/1",
        status: 503,
        reason: "queue_full",
    };

    fn template(parts: &[&str]) -> Template {
        let part = |part: &&str| match Variable::NAMES
            .iter()
            .find(|(name, _)| *name == part.trim_start_matches('$'))
        {
            Some((_, variable)) if part.starts_with('$') => TemplatePart::Variable(*variable),
            _ => TemplatePart::Text((*part).into()),
        };
        Template(parts.iter().map(part).collect())
    }

    fn text(parts: &[&str], of: &Variables<'_>, place: Place) -> String {
        let mut out = [0; 200];
        let len = render(&template(parts), of, place, &mut out).unwrap();
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn every_variable_has_its_value() {
        let of = Variables {
            remote: SocketAddress::new([127, 0, 0, 1].into(), 4000),
            server: SocketAddress::new("::1".parse().unwrap(), 80),
            ..OF
        };
        let mut all = Vec::new();
        for (name, _) in Variable::NAMES {
            all.push(text(&[&format!("${name}")], &of, Place::Location));
        }
        let want = [
            "127.0.0.1",
            "4000",
            "::1",
            "80",
            "example.com",
            "GET",
            "/a%2Fb",
            "x=1",
            "/a%2Fb?x=1",
            "http",
            "id",
            "n",
            "edge",
            "r/1",
            "503",
            "queue_full",
        ];
        assert_eq!(all, want);
        assert_eq!(
            text(&["<", "$remote_addr", ":", "$remote_port", ">"], &of, Place::Body(BodyForm::Plain)),
            "<127.0.0.1:4000>"
        );
        let bare = Variables { query: None, ..of };
        assert_eq!(text(&["$path_and_query", "|", "$query"], &bare, Place::Body(BodyForm::Plain)), "/a%2Fb|");
        let empty = Variables { query: Some(b""), ..of };
        assert_eq!(text(&["$path_and_query"], &empty, Place::Body(BodyForm::Plain)), "/a%2Fb?");
    }

    #[test]
    fn a_buffer_is_filled_to_its_end_and_not_beyond() {
        let parts = template(&["ab", "$remote_addr", "$host"]);
        let mut out = [b'.'; 21];
        assert_eq!(render(&parts, &OF, Place::Body(BodyForm::Plain), &mut out[..20]), Ok(20));
        assert_eq!(&out, b"ab0.0.0.0example.com.");
        for len in 0..20 {
            assert_eq!(
                render(&parts, &OF, Place::Body(BodyForm::Plain), &mut out[..len]),
                Err(TooLong),
                "{len}"
            );
        }
    }

    #[test]
    fn nothing_of_a_request_breaks_out_of_a_page() {
        let of = Variables { path: "/<script>'\"\\&\r\n\u{e9}".as_bytes(), ..OF };
        let html = text(&["$path"], &of, Place::Body(BodyForm::Html));
        assert_eq!(html, "/&lt;script&gt;&#39;&quot;\\&amp;%0D%0A%C3%A9");
        let json = text(&["$path"], &of, Place::Body(BodyForm::Json));
        assert_eq!(json, "/<script>'\\\"\\\\&%0D%0A%C3%A9");
    }

    #[test]
    fn nothing_of_a_request_breaks_out_of_a_field() {
        let of =
            Variables {
                path: b"/a\r\nset-cookie: x", host: b"a\x7f", query: Some("é <b>".as_bytes()), ..OF
            };
        assert_eq!(text(&["$host", "$path"], &of, Place::Field), "a%7F/a%0D%0Aset-cookie: x");
        let location = text(&["http://h", "$path_and_query"], &of, Place::Location);
        assert_eq!(location, "http://h/a%0D%0Aset-cookie:%20x?%C3%A9%20%3Cb%3E");
    }

    #[test]
    fn a_path_at_the_front_of_location_stays_on_this_host() {
        for path in [b"//evil.test/x".as_slice(), b"/\\evil.test/x", b"///\\//evil.test/x"] {
            let of = Variables { path, ..OF };
            assert_eq!(text(&["$path"], &of, Place::Location), "/evil.test/x", "{path:?}");
        }
        let of = Variables { path: b"/evil.test", ..OF };
        assert_eq!(text(&["/", "$path"], &of, Place::Location), "/evil.test");
        let of = Variables { path: b"//x", ..OF };
        assert_eq!(text(&["https://h", "$path"], &of, Place::Location), "https://h//x");
    }
}
