//! An authority, `host[:port]`: strict syntax, and the host that routes match.

use crate::limits::HOST_BYTES;
use std::net::Ipv6Addr;

/// Why an authority is refused; the caller names it by where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthorityFault {
    Userinfo,
    Invalid,
}

/// Checks `host[:port]` and gives the length of the host that routes match: without port and one trailing dot, an IPv6
/// address with its brackets.
///
/// Stricter than RFC 3986: a registered name has letters, digits, `-`, `_` and `.` only and no empty label (no percent
/// escapes, no comma that a list could hide behind); a port, if there is a colon, has 1 to 5 digits and is <= 65535.
pub(super) fn host_len(authority: &[u8]) -> Result<usize, AuthorityFault> {
    if let Some(len) = plain_len(authority) {
        return Ok(len);
    }
    if authority.contains(&b'@') {
        return Err(AuthorityFault::Userinfo);
    }
    let host_end = match authority {
        [b'[', rest @ ..] => rest.iter().position(|b| *b == b']').map_or(0, |at| at + 2),
        _ => authority.iter().position(|b| *b == b':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let sound = authority.len() <= HOST_BYTES && is_port(port);
    match host {
        _ if !sound => Err(AuthorityFault::Invalid),
        [b'[', address @ .., b']'] if is_ipv6(address) => Ok(host.len()),
        _ => {
            let name = host.strip_suffix(b".").unwrap_or(host);
            if is_registered_name(name) { Ok(name.len()) } else { Err(AuthorityFault::Invalid) }
        }
    }
}

/// As [`host_len`], in one pass, for what nearly all authorities are: a registered name or an IPv4 address, with or without
/// a port. `None` says nothing.
fn plain_len(authority: &[u8]) -> Option<usize> {
    let mut after_label = false;
    let mut end = authority.len();
    for (at, octet) in authority.iter().enumerate() {
        if IS_LABEL_OCTET[usize::from(*octet)] {
            after_label = true;
        } else if *octet == b'.' && after_label {
            after_label = false;
        } else {
            end = at;
            break;
        }
    }
    (after_label && authority.len() <= HOST_BYTES && is_port(&authority[end..])).then_some(end)
}

/// What a label of a registered name has here, digits of an IPv4 address among them.
const IS_LABEL_OCTET: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0u8;
    while octet < 128 {
        table[octet as usize] = octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        octet += 1;
    }
    table
};

/// Nothing, or a colon and a number.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0')) <= 65535
        }
        _ => false,
    }
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_registered_name(name: &[u8]) -> bool {
    name.split(|b| *b == b'.')
        .all(|label| !label.is_empty() && label.iter().all(|b| IS_LABEL_OCTET[usize::from(*b)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Result<&str, AuthorityFault> {
        host_len(authority.as_bytes()).map(|len| &authority[..len])
    }

    #[test]
    fn hosts() {
        assert_eq!(host("a"), Ok("a"));
        assert_eq!(host("A.Example:80"), Ok("A.Example"));
        assert_eq!(host("a.example.:8080"), Ok("a.example"));
        assert_eq!(host("_srv.a_b.example:65535"), Ok("_srv.a_b.example"));
        assert_eq!(host("127.0.0.1:0"), Ok("127.0.0.1"));
        assert_eq!(host("[::1]:80"), Ok("[::1]"));
        assert_eq!(host("[::ffff:1.2.3.4]"), Ok("[::ffff:1.2.3.4]"));
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            ".",
            "..",
            "a..",
            "a..b",
            ".a",
            "a:",
            ":80",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:65536",
            "a:000080",
            "a:+1",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[::1%25eth0]",
            "[v1.a]",
            "[::1]:",
            "a b",
            "a,b",
            "a/b",
            "a\\b",
            "a%41",
            "a\0",
            "é",
            "a?b",
            "a#b",
            "a;b",
            "*",
            "a*",
            "[a]",
            "a]",
            "\u{80}",
        ] {
            assert_eq!(host(bad), Err(AuthorityFault::Invalid), "{bad:?}");
        }
        for bad in ["u@b", "u:p@b", "@", "a@[::1]"] {
            assert_eq!(host(bad), Err(AuthorityFault::Userinfo), "{bad:?}");
        }
        let long = "a".repeat(HOST_BYTES);
        assert_eq!(host(&long), Ok(long.as_str()));
        assert_eq!(host(&format!("{long}a")), Err(AuthorityFault::Invalid));
    }
}
