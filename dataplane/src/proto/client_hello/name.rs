//! The host name of a server_name extension (RFC 6066 3): checked, and put in the form that routes compare.

use std::net::Ipv4Addr;

/// Bytes of a name and of one of its labels (RFC 1035 2.3.4), dots between them counted.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Puts a name in lower case. Returns its length without the one dot that may stand at its end; `None` if it is no host
/// name: letters, digits, hyphens and, as hosts are named in practice, underscores.
pub(super) fn normalize(name: &mut [u8]) -> Option<usize> {
    name.make_ascii_lowercase();
    let text = name.strip_suffix(b".").unwrap_or(name);
    let is_label = |label: &[u8]| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let is_name = text.len() <= NAME_MAX && text.split(|&b| b == b'.').all(is_label);
    is_name.then_some(text.len())
}

/// "Literal IPv4 and IPv6 addresses are not permitted in HostName": some clients send them all the same. One of IPv6
/// is no name by its colons.
pub(super) fn is_ipv4(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        let normal = |text: &str| {
            let mut name = text.as_bytes().to_vec();
            let len = normalize(&mut name)?;
            name.truncate(len);
            Some(String::from_utf8(name).unwrap())
        };
        for (text, wanted) in [
            ("example.com", "example.com"),
            ("WWW.Example.COM.", "www.example.com"),
            ("localhost", "localhost"),
            ("_sip._tcp.a-b.xn--bcher-kva.de", "_sip._tcp.a-b.xn--bcher-kva.de"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(wanted));
        }
        let label = "a".repeat(63);
        assert!(normal(&label).is_some());
        assert!(normal(&format!("{label}a")).is_none());
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), NAME_MAX);
        assert!(normal(&format!("{longest}.")).is_some());
        assert!(normal(&format!("{longest}a")).is_none());
        for wrong in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a\0b",
            "a\0",
            "b\u{fc}cher.de",
            "*.a",
            "a:443",
            "[::1]",
            "a/b",
        ] {
            assert_eq!(normal(wrong), None, "{wrong:?}");
        }
        assert!(is_ipv4(b"10.0.0.1") && !is_ipv4(b"10.0.0.1.example"));
    }
}
