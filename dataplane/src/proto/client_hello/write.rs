//! A ClientHello that nobody sends: what `ringway explain` has read in the place of a client's.

use super::{ALPN, CLIENT_HELLO, HANDSHAKE, HOST_NAME, MAJOR, SERVER_NAME};

/// The first record of a client that asks for `name` and offers `protocols`. What is too long for its field is cut off, and so the
/// whole is none that [`super::read`] takes.
pub fn write(name: Option<&str>, protocols: &[String]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let host = [&[HOST_NAME][..], &vector(name.as_bytes())].concat();
        extensions.extend(extension(SERVER_NAME, &vector(&host)));
    }
    if !protocols.is_empty() {
        let of = |p: &String| [&[u8::try_from(p.len()).unwrap_or(u8::MAX)], p.as_bytes()].concat();
        let list: Vec<u8> = protocols.iter().flat_map(of).collect();
        extensions.extend(extension(ALPN, &vector(&list)));
    }
    // Version, random, no session, one suite, no compression (RFC 8446 4.1.2).
    let front = [&[MAJOR, 3][..], &[0; 32], &[0], &vector(&[0x13, 1]), &[1, 0]].concat();
    let body = [front, vector(&extensions)].concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let message = [&[CLIENT_HELLO][..], &length[1..], &body].concat();
    [&[HANDSHAKE, MAJOR, 1][..], &vector(&message)].concat()
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(data)].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{Scan, read};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        let protocols = ["h2".to_owned(), "http/1.1".to_owned()];
        let mut read = |bytes: &[u8]| {
            read(bytes, &mut Scan::default(), &mut message).map(|hello| (hello, message.clone()))
        };
        let (hello, bytes) = read(&write(Some("One.Example"), &protocols)).unwrap();
        let hello = hello.expect("a whole one");
        assert_eq!(hello.name(&bytes), Some(&b"one.example"[..]));
        assert_eq!(hello.protocols(&bytes).collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        let (hello, bytes) = read(&write(None, &[])).unwrap();
        assert_eq!(hello.map(|hello| hello.name(&bytes).is_some()), Some(false));
        for (name, protocol) in [("a b", "h2"), ("", "h2"), ("a", "")] {
            assert!(read(&write(Some(name), &[protocol.to_owned()])).is_err(), "{name:?} {protocol:?}");
        }
        assert!(!matches!(read(&write(Some(&"a".repeat(70_000)), &[])), Ok((Some(_), _))));
    }
}
