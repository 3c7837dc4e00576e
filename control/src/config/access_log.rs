//! `[[access_log]]`: where records go, which, and what their lines look like.

use super::Severity;
use super::keys::ReloadEffect::Nothing;
use super::keys::{Key, Section, Shape};
use super::names::Names;
use super::process::AccessLog;
use super::report::nearest;
use super::tree::{Item, Table};
use crate::log::format::{WORDS, field_names};
use crate::log::{LineFormat, Target};
use dataplane::limits;

pub(super) static SECTION: Section = Section {
    path: "access_log",
    shared: false,
    doc: "One record for each request, and for each connection of a tcp listener. At most 64 of them.",
    keys: &[
        Key::new(
            "to",
            Shape::Free("\"stdout\", \"file:PATH\", \"syslog:HOST:PORT\" or \"syslog:unix:PATH\""),
            Nothing,
            "Where to, each to its own. SIGUSR1 opens files anew and looks hosts up again. Syslog is RFC 5424, a datagram for \
             each line, of facility local0 and severity info; an IPv6 address stands in brackets.",
        )
        .absent("\"stdout\""),
        Key::new(
            "format",
            Shape::Free("\"json\", \"common\", \"combined\" or a text with fields"),
            Nothing,
            "What each line looks like. A text has fields as `${status}`; `$$` is one dollar sign. \
             docs/operations/access-log-formats.md has them all.",
        )
        .absent("\"json\""),
        Key::new("listeners", Shape::Free("names of listeners"), Nothing, "Whose requests and connections.").absent("all"),
        Key::new("sample", Shape::Fraction, Nothing, "Share of records that are written; logs of one value write the same ones."),
    ],
};

pub(super) fn read(tables: &[Table<'_>], listeners: &mut Names) -> Vec<AccessLog> {
    let mut logs: Vec<AccessLog> = Vec::new();
    for table in tables {
        let wanted = table.get("listeners").map(|item| {
            let items = item.each();
            let known = items.iter().filter(|item| listeners.resolve(item).is_some());
            known.filter_map(|item| item.value.as_str().map(Into::into)).collect()
        });
        let format = table.get("format").map_or(Some(LineFormat::Json), |item| format(&item));
        let to = table.get("to").map_or(Some(Target::Stdout), |item| target(&item));
        let sample = table.fraction("sample");
        if sample == 0.0 {
            table.lacks(Severity::Warning, "sample", "is 0: this log stays empty");
        }
        let (Some(to), Some(format)) = (to, format) else { continue };
        if logs.iter().any(|log| log.to == to) {
            let what = "another access log writes there; their lines would mix";
            match table.get("to") {
                Some(item) => item.error(what),
                None => table.error("to", what),
            }
        }
        logs.push(AccessLog { to, format, listeners: wanted, sample });
    }
    logs
}

fn format(item: &Item<'_>) -> Option<LineFormat> {
    let text = item.words()?;
    let fault = match LineFormat::parse(text) {
        Ok(format) => return Some(format),
        Err(fault) => fault,
    };
    let meant = if fault.known {
        nearest(&fault.name, field_names()).map(|name| format!("${{{name}}}"))
    } else {
        nearest(&fault.name, WORDS)
    };
    item.error_inside(fault.at, fault.what, meant);
    None
}

fn target(item: &Item<'_>) -> Option<Target> {
    let text = item.words()?;
    if text.contains('\0') {
        item.error("has a NUL in it");
        return None;
    }
    match text.split_once(':') {
        None if text == "stdout" => Some(Target::Stdout),
        Some(("file", "")) => {
            item.error("\"file:\" lacks its path");
            None
        }
        Some(("file", path)) => Some(Target::File(path.into())),
        Some(("syslog", to)) => syslog(item, to),
        _ => {
            let meant = match text.starts_with(['/', '.']) {
                true => Some(format!("file:{text}")),
                false => nearest(text, ["stdout", "syslog:127.0.0.1:514"]),
            };
            let forms = "\"stdout\", \"file:PATH\", \"syslog:HOST:PORT\" or \"syslog:unix:PATH\"";
            item.error_near(format!("wants {forms}; this is {text:?}"), meant);
            None
        }
    }
}

/// `HOST:PORT` or `unix:PATH`.
fn syslog(item: &Item<'_>, to: &str) -> Option<Target> {
    if let Some(path) = to.strip_prefix("unix:") {
        // What sockaddr_un holds, and a NUL (unix(7)).
        if path.is_empty() || path.len() > limits::UNIX_NAME_BYTES {
            item.error(format!("a socket's path has 1 to {} bytes", limits::UNIX_NAME_BYTES));
            return None;
        }
        return Some(Target::SyslogUnix(path.into()));
    }
    let parted = to.rsplit_once(':').and_then(|(host, port)| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = inner.or_else(|| Some(host).filter(|host| !host.contains([':', '[', ']'])));
        plain.filter(|host| !host.is_empty()).zip(port.parse().ok().filter(|port| *port != 0))
    });
    if parted.is_none() {
        let meant = if to.contains(':') { None } else { Some(format!("syslog:{to}:514")) };
        item.error_near(
            format!("wants \"syslog:HOST:PORT\", the port from 1 to 65535; this is \"syslog:{to}\""),
            meant,
        );
    }
    parted.map(|(host, port)| Target::Syslog { host: host.to_owned(), port })
}
