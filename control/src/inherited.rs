//! The sockets that systemd's socket units pass: which descriptors, and what they are called (sd_listen_fds(3)).

use std::env;

/// Names of the descriptors from 3 on, in order; none where the environment speaks of another process.
pub(crate) fn names() -> Vec<String> {
    let variable = |name| env::var(name).ok();
    parse(std::process::id(), variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"))
}

fn parse(me: u32, pid: Option<String>, count: Option<String>, names: Option<String>) -> Vec<String> {
    /// More than any process may open.
    const MOST: usize = 1 << 20;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u32>().ok());
    if number(pid) != Some(me) {
        return Vec::new();
    }
    let count = number(count).and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(MOST);
    let names = names.unwrap_or_default();
    // A socket without a name of its own is called "unknown" there.
    let named = names.split(':').filter(|_| !names.is_empty()).map(str::to_owned);
    named.chain(std::iter::repeat("unknown".to_owned())).take(count).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_environment_of_a_socket_unit() {
        let parse = |pid: &str, count: &str, names: Option<&str>| {
            super::parse(7, Some(pid.to_owned()), Some(count.to_owned()), names.map(str::to_owned))
        };
        assert_eq!(parse("7", "2", Some("web:admin")), ["web", "admin"]);
        assert_eq!(parse("7", "1", Some("web:admin")), ["web"]);
        assert_eq!(parse("7", "2", None), ["unknown", "unknown"]);
        assert_eq!(parse("7", "3", Some("web")), ["web", "unknown", "unknown"]);
        assert!(parse("8", "2", Some("web:admin")).is_empty(), "meant for another process");
        assert!(parse("7", "-1", None).is_empty() && parse("", "2", None).is_empty());
        assert!(super::parse(7, None, None, None).is_empty());
    }
}
