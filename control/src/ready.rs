//! Says that every shard listens: one JSON line for programs, a notice for systemd.

use std::env;
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The ready line, without its newline. `listeners` are the name and bound address of each, `admin` is the API's.
pub(crate) fn line<A: std::fmt::Display>(
    listeners: &[(&str, A)],
    admin: Option<&str>,
    shards: usize,
) -> String {
    // Names match [a-z0-9][a-z0-9_.-]*; an address may be a path.
    let entry = |(name, address): &(&str, A)| {
        format!(r#"{{"name":"{name}","address":{}}}"#, serde_json::Value::from(address.to_string()))
    };
    let listeners = listeners.iter().map(entry).collect::<Vec<_>>().join(",");
    let admin = serde_json::Value::from(admin);
    format!(
        r#"{{"ready":true,"listeners":[{listeners}],"admin":{admin},"shards":{shards},"backend":"io_uring"}}"#
    )
}

/// What the demo says instead: what runs, and what to try.
pub(crate) fn demo_text<A: std::fmt::Display>(
    listeners: &[(&str, A)],
    admin: Option<&str>,
    shards: usize,
) -> String {
    use std::fmt::Write as _;
    let mut text =
        format!("ringway {}: the built-in demo, {shards} shards on io_uring\n\n", env!("CARGO_PKG_VERSION"));
    for (name, address) in listeners {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<12} {address}");
    }
    if let Some(admin) = admin {
        let _ = writeln!(text, "  {:<12} {admin}", "admin");
    }
    let edge = listeners.iter().find(|(name, _)| *name == "edge").or_else(|| listeners.first());
    if let Some((_, edge)) = edge {
        let _ = write!(
            text,
            "\nThe edge balances over the origins behind it. In a second terminal, try:\n\n  \
             curl -i http://{edge}/              three times: three origins answer in turn\n  \
             curl -i http://{edge}/any/path?x=1  the origin says which connection brought it\n"
        );
    }
    if admin.is_some() {
        text.push_str(
            "  ringway status                      clusters and endpoints\n  \
             ringway set origins/127.0.0.1:9000 drain    one origin gets no new requests; `ready` undoes it\n",
        );
    }
    text.push('\n');
    text.push_str(
        "Ctrl-C ends it. `ringway run -c FILE` runs your own configuration, `ringway --help` says more.",
    );
    text
}

/// Writes `text` and a newline to standard output, at once and whole. A closed standard output is no reason to stop.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
}

/// Tells systemd `state` ("READY=1") where it asked to be told (sd_notify(3)).
pub(crate) fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let sent = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(e) = sent {
        tracing::warn!(error = %e, "NOTIFY_SOCKET cannot be told {state}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_documented_one() {
        assert_eq!(
            line(&[("edge", "127.0.0.1:41234")], None, 2),
            r#"{"ready":true,"listeners":[{"name":"edge","address":"127.0.0.1:41234"}],"admin":null,"shards":2,"backend":"io_uring"}"#
        );
        assert_eq!(
            line(&[("a", "[::1]:1"), ("b", "127.0.0.1:2")], Some("127.0.0.1:9901"), 1),
            r#"{"ready":true,"listeners":[{"name":"a","address":"[::1]:1"},{"name":"b","address":"127.0.0.1:2"}],"admin":"127.0.0.1:9901","shards":1,"backend":"io_uring"}"#
        );
    }
}
