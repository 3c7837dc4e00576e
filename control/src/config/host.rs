//! Host names as matches and origins want them.

use std::net::Ipv6Addr;

/// What a host match came out as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// As requests are compared with it.
    pub(super) text: String,
    /// Whether a port was cut off, which no request is compared by.
    pub(super) had_port: bool,
}

/// A host to match in its normal form: lower case, without port and without one trailing dot; `*.suffix` allowed.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let (host, had_port) = without_port(text);
    let lower = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if lower == "*" {
        return Err("\"*\" is every host: leave `host` out".to_owned());
    }
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    if name.contains('*') {
        return Err(format!("{text:?} may have \"*.\" at its front only"));
    }
    check_name(text, name)?;
    Ok(Pattern { text: lower, had_port })
}

/// The front of a host: in lower case, any characters that a host may have.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(c) = lower.chars().find(|&c| !is_host_char(c)) {
        return Err(format!("{text:?} has {c:?}, which no host has"));
    }
    Ok(lower)
}

/// A Host to send: a name or an address, and perhaps a port.
pub(super) fn authority(text: &str) -> Result<(), String> {
    let (host, _) = without_port(text);
    check_name(text, &host.to_ascii_lowercase())
}

fn without_port(text: &str) -> (&str, bool) {
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            (host, true)
        }
        _ => (text, false),
    }
}

fn check_name(text: &str, name: &str) -> Result<(), String> {
    const LONGEST_LABEL: usize = 63;
    const LONGEST: usize = 253;
    if let Some(literal) = name.strip_prefix('[') {
        let address = literal.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        return address.map(|_| ()).ok_or_else(|| format!("{text:?} is not an IPv6 address in brackets"));
    }
    if !name.is_ascii() {
        return Err(format!("{text:?} must be in its ASCII form (xn--…), as clients send it"));
    }
    if let Some(c) = name.chars().find(|&c| !is_host_char(c)) {
        return Err(format!("{text:?} has {c:?}, which no host has"));
    }
    if name.len() > LONGEST || name.split('.').any(|label| label.is_empty() || label.len() > LONGEST_LABEL) {
        return Err(format!("{text:?} is not a host: labels of 1 to {LONGEST_LABEL}, {LONGEST} in all"));
    }
    Ok(())
}

fn is_host_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        let text = |t| pattern(t).map(|p| p.text);
        assert_eq!(text("API.Example.com."), Ok("api.example.com".into()));
        assert_eq!(text("*.Example.org"), Ok("*.example.org".into()));
        assert_eq!(text("[::1]"), Ok("[::1]".into()));
        assert_eq!(text("10.0.0.1"), Ok("10.0.0.1".into()));
        assert_eq!(pattern("a.b:8080"), Ok(Pattern { text: "a.b".into(), had_port: true }));
        assert_eq!(pattern("[::1]:80"), Ok(Pattern { text: "[::1]".into(), had_port: true }));
        for wrong in [
            "*",
            "a.*.b",
            "*a.b",
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "bücher.de",
            "::1",
            "a:b",
            "[::1",
            "*.",
        ] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
        pattern(&"a".repeat(64)).unwrap_err();
        pattern(&"a.".repeat(127)).unwrap();
        pattern(&"a.".repeat(128)).unwrap_err();
        authority("app.internal:8080").unwrap();
        authority("a\r\nb").unwrap_err();
        assert_eq!(prefix("WWW."), Ok("www.".into()));
        prefix("*.a").unwrap_err();
    }
}
