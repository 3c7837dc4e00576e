//! What concerns the process: `version`, `[runtime]`, `[log]`, `[[access_log]]`.

use super::drain::{self, Paces};
use super::keys::ReloadEffect::{NeedsUpgrade, NextExchange, Nothing};
use super::keys::{Key, Section, Shape};
use super::tree::Table;
use super::{AdminSettings, Environment, access_log, address, admin, listener};
use super::{cluster, route, traces};
use crate::log::{LineFormat, Target};
use dataplane::limits::{self, Bound};
use dataplane::spec::Runtime;
use std::net::SocketAddr;
use std::sync::Arc;

const VERSION: Bound<u64> = Bound { min: 1, default: 1, max: 1 };

pub(super) static ROOT: Section = Section {
    path: "",
    shared: false,
    doc: "The file is TOML, at most 10 MiB. Durations are strings with a unit: `ms`, `s`, `m`, `h`, `d`; sizes likewise: `B`, `KiB`, \
          `MiB`, `GiB`, `TiB`. Names match `[a-z0-9][a-z0-9_.-]{0,63}` and are unique per kind.",
    keys: &[
        Key::new("version", Shape::Count(VERSION, None), Nothing, "The version of this format."),
        Key::new("runtime", Shape::Table(&RUNTIME), NeedsUpgrade, "The process."),
        Key::new("log", Shape::Table(&LOG), Nothing, "The process log, on stderr."),
        Key::new("access_log", Shape::Tables(&access_log::SECTION), Nothing, "Records of requests.")
            .absent("none"),
        Key::new("tracing", Shape::Table(&traces::SECTION), Nothing, "Requests as spans.").absent("none"),
        Key::new("listener", Shape::Tables(&listener::SECTION), Nothing, "Where clients connect.")
            .absent("required"),
        Key::new("route", Shape::Tables(&route::SECTION), NextExchange, "What is done with which request.")
            .absent("none"),
        Key::new("cluster", Shape::Tables(&cluster::SECTION), Nothing, "Where requests are forwarded to.")
            .absent("none"),
        Key::new("admin", Shape::Table(&admin::SECTION), Nothing, "The admin API.").absent("none"),
        Key::new("drain", Shape::Table(&drain::SECTION), Nothing, "How connections are sent away."),
        Key::later("include", Shape::Free("reserved"), Nothing, "Other files."),
        Key::later("certificate", Shape::Free("reserved"), Nothing, "Certificates."),
        Key::later("filter", Shape::Free("reserved"), Nothing, "Filters."),
    ],
};

pub(super) static RUNTIME: Section = Section {
    path: "runtime",
    shared: false,
    doc: "The process.",
    keys: &[
        Key::new(
            "shards",
            Shape::Count(limits::SHARDS, None),
            NeedsUpgrade,
            "Threads that serve, each pinned to a CPU with its own ring. `\"auto\"` is the CPUs that the process may use. All other \
             threads (control, logs, reloads) keep to the CPUs that no shard has, if there are any.",
        )
        .absent("\"auto\""),
        Key::new("backend", Shape::Word(&["auto", "io_uring"], &["epoll"]), NeedsUpgrade, "How the kernel is asked. `\"auto\"` is io_uring."),
        Key::new(
            "node",
            Shape::Free("a name"),
            NeedsUpgrade,
            "This process's pseudonym in Via and the front of its request ids; each process behind another needs its own. \
             `\"auto\"` is random.",
        )
        .absent("\"auto\""),
        Key::new(
            "resolver",
            Shape::Free("addresses of resolvers, as \"127.0.0.1:53\", one or a list"),
            NeedsUpgrade,
            "Who is asked for the host names of endpoints, at most 8. Those of the machine are found by `/etc/hosts` and \
             `/etc/resolv.conf`, which are read again when they change; where some stand here, both are left alone.",
        )
        .absent("the machine's"),
        Key::new(
            "watch",
            Shape::Flag,
            Nothing,
            "Look at this file once a second, and reload when it is another and has stayed so for a second. SIGHUP and \
             `ringway reload` work all the same.",
        ),
        Key::new("drain_timeout", Shape::Duration(limits::DRAIN_TIMEOUT, None), Nothing, "From when no new connections are taken until what still runs is closed: where a reload takes a listener away, and where `[drain]` says nothing else."),
    ],
};

pub(super) static LOG: Section = Section {
    path: "log",
    shared: false,
    doc: "The process log, on stderr.",
    keys: &[
        Key::new(
            "level",
            Shape::Word(&["info", "error", "warn", "debug", "trace"], &[]),
            Nothing,
            "The least that is written.",
        ),
        Key::new("format", Shape::Word(&["text", "json"], &[]), Nothing, "Of each line."),
    ],
};

/// What the process around the shards is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessSettings {
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub access_logs: Vec<AccessLog>,
    /// Where spans go; `None` sends none.
    pub(crate) traces: Option<crate::traces::Settings>,
    pub backend: Backend,
    /// Where the admin API listens; `None` has none.
    pub admin: Option<AdminSettings>,
    /// As asked; `Snapshot.runtime.shards` is what that comes to here.
    pub shards: Shards,
    /// Whether the file is looked at.
    pub watch: bool,
    /// Who is asked for names; the machine's where there are none.
    pub resolvers: Vec<SocketAddr>,
    pub drains: Paces,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[[access_log]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub to: Target,
    pub format: LineFormat,
    /// Names, which outlast a reload; `None` is all.
    pub listeners: Option<Vec<Arc<str>>>,
    /// 0 to 1.
    pub sample: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Auto,
    IoUring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    Auto,
    Number(u16),
}

/// Reads `version`, `[runtime]` and `[log]`; access logs come later, when listeners have names.
pub(super) fn read(root: &Table<'_>, environment: &Environment) -> (Runtime, ProcessSettings) {
    root.count("version");
    let table = root.table("runtime");
    let cpus = u16::try_from(environment.cpus.clamp(1, max_shards().into())).unwrap_or(1);
    let shards = shards(&table, cpus);
    let backend = if table.word("backend") == "io_uring" { Backend::IoUring } else { Backend::Auto };
    let runtime = Runtime {
        shards: if let Shards::Number(n) = shards { n } else { cpus },
        node: node(&table, environment),
        drain_timeout: table.duration("drain_timeout"),
    };
    let log = root.table("log");
    let settings = ProcessSettings {
        log_level: match log.word("level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
        log_format: if log.word("format") == "json" { LogFormat::Json } else { LogFormat::Text },
        access_logs: Vec::new(),
        traces: None,
        backend,
        admin: admin::read(root),
        shards,
        watch: table.flag("watch"),
        resolvers: resolvers(&table),
        drains: drain::read(root, runtime.drain_timeout),
    };
    (runtime, settings)
}

fn resolvers(table: &Table<'_>) -> Vec<SocketAddr> {
    let items = table.each("resolver");
    if let Some(item) = items.get(limits::RESOLVERS_MAX) {
        item.error(format!("more than {} resolvers", limits::RESOLVERS_MAX));
    }
    items.iter().filter_map(address::resolver).collect()
}

fn max_shards() -> u16 {
    u16::try_from(limits::SHARDS.max).unwrap_or(u16::MAX)
}

fn shards(table: &Table<'_>, cpus: u16) -> Shards {
    let Some(item) = table.get("shards") else { return Shards::Auto };
    match item.value.as_str() {
        Some("auto") => Shards::Auto,
        Some(_) => {
            item.wants("a whole number or \"auto\"");
            Shards::Auto
        }
        None => {
            let number = item.count(limits::SHARDS, None).and_then(|n| u16::try_from(n).ok());
            if number.is_some_and(|n| n > cpus) {
                item.warn(
                    format!("this process may use {cpus} CPUs; more shards share them"),
                    Some(cpus.to_string()),
                );
            }
            number.map_or(Shards::Auto, Shards::Number)
        }
    }
}

fn node(table: &Table<'_>, environment: &Environment) -> Arc<str> {
    let random = || environment.random_node.as_str().into();
    let Some(item) = table.get("node") else { return random() };
    match item.value.as_str() {
        Some("auto") => random(),
        _ => item.name().unwrap_or_else(random),
    }
}

impl AccessLog {
    /// Whether it takes the records of the listener of that name.
    pub fn takes(&self, listener: &str) -> bool {
        self.listeners.as_ref().is_none_or(|names| names.iter().any(|name| **name == *listener))
    }
}
