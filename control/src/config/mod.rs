//! A configuration file: read, parse, check, and the snapshot that the shards run.
//!
//! The text becomes a spanned tree (`tree`), each section reads its table of it by its keys (`process`, `listener`,
//! `route`, `cluster`), and every problem goes into one report (`report`). The manual is written from the same keys
//! (`reference`).

mod access_log;
mod address;
mod admin;
mod available;
mod balance;
mod cluster;
pub(crate) mod disk;
mod document;
mod drain;
mod endpoint;
mod error_page;
mod failures;
mod health;
mod host;
mod keys;
mod listener;
mod matching;
mod names;
mod pieces;
mod process;
mod reference;
mod reply;
mod report;
mod retry;
mod route;
mod source;
mod sticky;
mod template;
mod traces;
mod tree;
mod units;
mod written;

pub use address::admin_address;
pub(crate) use address::connectable;
pub use admin::AdminSettings;
pub(crate) use document::Node;
pub use drain::{Pace, Paces};
pub use keys::{Key, ReloadEffect, Section, Shape};
pub use listener::auto_connections;
pub(crate) use names::is_name;
pub use process::{AccessLog, Backend, LogFormat, LogLevel, ProcessSettings, Shards};
pub(crate) use reference::body_sections;
pub use reference::{manual, sections};
pub use report::{Problem, Report, Severity};
pub(crate) use sticky::value as sticky_value;

pub use units::{parse_duration, parse_size};
pub use written::Kind;
pub(crate) use written::{Keys, Written, default_of, objects};

use crate::discovery::Sources;
use crate::health::{self as checks, Check};
use dataplane::io::PortRange;
use dataplane::limits;
use dataplane::spec::Snapshot;
use disk::Unopened;
use names::Names;
use pieces::Pieces;
use report::Problems;
use std::cell::Cell;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::DeTable;
use tree::Table;

/// What `ringway` runs without a file.
pub const DEMO: &str = include_str!("demo.toml");

/// What a file's "auto" depends on.
#[derive(Debug, Clone)]
pub struct Environment {
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Descriptors it may open: the soft limit, after it was raised.
    pub descriptors: u64,
    /// Its pseudonym unless the file gives one.
    pub random_node: String,
    /// What values are made with that other processes need not agree on.
    pub random_key: [u8; 16],
    /// Where the ports of connections come from: net.ipv4.ip_local_port_range, where it is known.
    pub local_ports: Option<PortRange>,
    /// Whether links can be connected from an address; one that cannot earns a warning.
    pub is_source: fn(IpAddr) -> bool,
    /// Names of the sockets that the process was started with, from descriptor 3 on; `None` where it will not serve.
    pub inherited: Option<Vec<String>>,
    /// Whether the file itself may be a pipe or the like: in a process that serves, nobody waits for one.
    pub pipes: bool,
}

impl Environment {
    /// A machine that is the same everywhere: for tests and measurements.
    pub fn of_tests() -> Self {
        Self {
            cpus: 2,
            descriptors: 20_128,
            random_node: "n0".to_owned(),
            random_key: [7; 16],
            local_ports: PortRange::new(32_768, 60_999),
            is_source: |ip| ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 5]),
            inherited: None,
            pipes: true,
        }
    }
}

/// A checked file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As it stands there.
    pub text: Arc<str>,
    /// With the endpoints that are written down.
    pub snapshot: Arc<Snapshot>,
    /// By cluster, where further endpoints come from.
    pub sources: Vec<Option<Arc<Sources>>>,
    pub process: ProcessSettings,
    /// By cluster: the active checks of its endpoints.
    pub checks: Vec<Option<Arc<Check>>>,
    /// Descriptors that checks may hold at once.
    pub check_descriptors: u64,
    /// Files whose presence turns switches of the snapshot, by switch, and whether each was there.
    pub maintenance_files: Vec<(PathBuf, bool)>,
    pub warnings: Report,
}

/// Reads and checks a file. Warnings alone are no failure.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let bytes = read(path, environment.pipes).map_err(|what| Report::of_file(&name, what))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let (good, _) = bytes.split_at(error.valid_up_to());
            let problems = Problems::default();
            let what = "this byte is not UTF-8, which TOML is written in".to_owned();
            problems.syntax(good.len(), what, None);
            return Err(problems.finish(&name, std::str::from_utf8(good).unwrap_or_default()));
        }
    };
    parse(text, &name, environment)
}

fn read(path: &Path, pipes: bool) -> Result<Vec<u8>, String> {
    let most = limits::CONFIG_FILE_BYTES;
    let mut bytes = Vec::new();
    let file = if pipes { std::fs::File::open(path).map_err(Unopened::Error) } else { disk::open(path) };
    let file = file.map_err(|why| match why {
        Unopened::Error(_) => format!("cannot be opened: {why}"),
        Unopened::Other(what) => format!("is {what}: what a running process reads is a regular file"),
    })?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= most => Ok(bytes),
        _ => Err(format!("is larger than {}", units::format_size(most))),
    }
}

/// Checks a text; `file` is its name in problems.
pub fn parse(text: &str, file: &str, environment: &Environment) -> Result<Loaded, Report> {
    if u64::try_from(text.len()).is_ok_and(|len| len > limits::CONFIG_FILE_BYTES) {
        let most = units::format_size(limits::CONFIG_FILE_BYTES);
        return Err(Report::of_file(file, format!("is larger than {most}")));
    }
    let (built, problems) = in_pieces(text, environment).unwrap_or_else(|| as_a_whole(text, environment));
    let report = problems.finish(file, text);
    if report.has_errors() {
        return Err(report);
    }
    let Built { snapshot, process, checks, check_descriptors, maintenance_files, sources } = built;
    let snapshot = Arc::new(snapshot);
    let text = text.into();
    Ok(Loaded {
        text,
        snapshot,
        sources,
        process,
        checks,
        check_descriptors,
        maintenance_files,
        warnings: report,
    })
}

/// Reads a text of which each piece is TOML by itself; none of another.
fn in_pieces(text: &str, environment: &Environment) -> Option<(Built, Problems)> {
    let pieces = Pieces::of(text)?;
    let problems = Problems::default();
    let (tree, faults) = DeTable::parse_recoverable(&pieces.rest);
    let root = tree::root(&process::ROOT, &tree, 0, &problems);
    let left = root.tables("route");
    // Of what is left nothing may be a route's.
    if !faults.is_empty() || left.len() != pieces.stretches || !left.iter().all(Table::is_empty) {
        return None;
    }
    let torn = Cell::new(false);
    let routes = Routes {
        count: pieces.routes,
        each: &|read| {
            for (base, piece) in pieces.each() {
                let (tree, faults) = DeTable::parse_recoverable(piece);
                torn.set(torn.get() || !faults.is_empty());
                tree::root(&process::ROOT, &tree, base, &problems)
                    .tables("route")
                    .iter()
                    .for_each(&mut *read);
            }
        },
    };
    let built = build(&root, &routes, environment);
    drop(tree);
    (!torn.get()).then_some((built, problems))
}

/// Reads a text at once, and tells what is no TOML in it.
fn as_a_whole(text: &str, environment: &Environment) -> (Built, Problems) {
    let problems = Problems::default();
    let (tree, faults) = DeTable::parse_recoverable(text);
    for fault in faults {
        let at = fault.span().map_or(text.len(), |span| span.start);
        let (what, meant) = explain(fault.message(), text.get(at..).unwrap_or_default());
        problems.syntax(at, what, meant);
    }
    let root = tree::root(&process::ROOT, &tree, 0, &problems);
    let tables = root.tables("route");
    let routes = Routes { count: tables.len(), each: &|read| tables.iter().for_each(read) };
    let built = build(&root, &routes, environment);
    drop(tree);
    (built, problems)
}

/// A fault of syntax in other words where the parser's would mislead: it takes a bare word for a number or a date.
fn explain(message: &str, rest: &str) -> (String, Option<String>) {
    let word: String =
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(*c)).take(64).collect();
    let bare = word.starts_with(|c: char| c.is_ascii_alphabetic());
    if bare && ["invalid float", "invalid integer", "string values"].iter().any(|m| message.starts_with(m)) {
        return ("a string stands in quotes".to_owned(), Some(format!("{word:?}")));
    }
    (message.replace('\n', " "), None)
}

/// Takes the table of a route.
type TakeRoute<'a> = dyn FnMut(&Table<'_>) + 'a;

/// The tables of routes, wherever they are.
struct Routes<'r> {
    count: usize,
    /// Hands each over, in the order of the file.
    each: &'r dyn Fn(&mut TakeRoute<'_>),
}

/// What a file's sections come to.
struct Built {
    snapshot: Snapshot,
    process: ProcessSettings,
    checks: Vec<Option<Arc<Check>>>,
    check_descriptors: u64,
    maintenance_files: Vec<(PathBuf, bool)>,
    sources: Vec<Option<Arc<Sources>>>,
}

/// Reads all sections. What has problems is filled in with defaults, and not used.
fn build(root: &Table<'_>, routes: &Routes<'_>, environment: &Environment) -> Built {
    let (runtime, mut process) = process::read(root, environment);
    let (tracing, spans) = traces::read(root, &runtime.node, environment);
    process.traces = spans;
    let listener_tables = bounded(root, "listener", limits::LISTENERS_MAX);
    let cluster_tables = bounded(root, "cluster", limits::CLUSTERS_MAX);
    if root.get("listener").is_none() {
        root.lacks(Severity::Error, "listener", "is missing: at least one [[listener]]");
    }
    let (mut listener_ids, listener_names) = Names::read("listener", &listener_tables);
    let (mut cluster_ids, cluster_names) = Names::read("cluster", &cluster_tables);

    let read = cluster::read(&cluster_tables, &cluster_names, environment);
    let (mut clusters, mut checks, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    let mut checked = 0;
    for cluster::Read { cluster, check, sources: of_cluster } in read {
        // How many a name will lead to is not known.
        let found = if of_cluster.is_some() { limits::NAME_TARGETS } else { 0 };
        checked += if check.is_some() { cluster.endpoints.len() + found } else { 0 };
        clusters.push(cluster);
        checks.push(check);
        sources.push(of_cluster);
    }
    check_names(root, &sources);
    let check_descriptors = checks::descriptors(checked, environment.descriptors);
    let mut listeners =
        listener::read(&listener_tables, &listener_names, &mut cluster_ids, environment, check_descriptors);
    let mut pages = 0;
    for (table, listener) in listener_tables.iter().zip(&mut listeners) {
        listener.error_pages = error_page::read(table, &mut pages);
    }
    let mut reader = route::Reader::new(&listeners, &listener_names, pages);
    if is_within(root, "route", routes.count, limits::ROUTES_MAX) {
        (routes.each)(&mut |table| reader.read(table, &mut listener_ids, &mut cluster_ids));
    }
    let route::Reader { routes, offsets, files: maintenance_files, .. } = reader;
    cluster::check_protocols(&cluster_tables, &clusters, &routes, &listeners);
    listener::check_openings(&listener_tables, &listeners, &routes);
    let log_tables = bounded(root, "access_log", limits::ACCESS_LOGS_MAX);
    process.access_logs = access_log::read(&log_tables, &mut listener_ids);

    for listener in &mut listeners {
        listener.access_log = process.access_logs.iter().any(|log| log.takes(&listener.name));
    }
    if !root.problems.any_error() {
        listener::warn_deaf(&listener_tables, &listeners, &routes);
        cluster_ids.warn_unused(&cluster_tables, &cluster_names);
        route::warn_hidden(root, &offsets, &routes);
    }

    let snapshot = Snapshot {
        runtime,
        listeners: listeners.into_iter().map(|l| Some(Arc::new(l))).collect(),
        routes: routes.into(),
        clusters: clusters.into_iter().map(|c| Some(Arc::new(c))).collect(),
        tracing,
    };
    Built { snapshot, process, checks, check_descriptors, maintenance_files, sources }
}

fn check_names(root: &Table<'_>, sources: &[Option<Arc<Sources>>]) {
    let names: usize = sources.iter().flatten().map(|sources| sources.queries().count()).sum();
    if names > limits::NAMES_MAX {
        let most = limits::NAMES_MAX;
        root.error(
            "cluster",
            format!("their endpoints have {names} names, which is out of range (at most {most} in all)"),
        );
    }
}

/// The tables of a kind, unless there are too many of them.
fn bounded<'t>(root: &Table<'t>, kind: &str, most: usize) -> Vec<Table<'t>> {
    let tables = root.tables(kind);
    if is_within(root, kind, tables.len(), most) { tables } else { Vec::new() }
}

fn is_within(root: &Table<'_>, kind: &str, count: usize, most: usize) -> bool {
    if count > most {
        root.error(kind, format!("there are {count} of them, which is out of range (at most {most})"));
    }
    count <= most
}

#[cfg(test)]
mod tests;
