//! `endpoints` and `endpoints_file` of a cluster: addresses that are written down, names that lead to some, and a list that
//! somebody else writes.

use super::address::{self, Target};
use super::balance;
use super::keys::ReloadEffect::{Drains, NewConnections, NextExchange};
use super::keys::{Key, Section, Shape};
use super::names::is_name;
use super::tree::{Item, Table};
use crate::discovery::{self, Entry, Query, Sources};
use dataplane::io::{Address, SocketAddress};
use dataplane::limits;
use dataplane::spec::{Endpoint, EndpointId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) static ENDPOINT: Section = Section {
    path: "cluster.endpoints",
    shared: false,
    doc: "An endpoint as a table.",
    keys: &[
        Key::new("name", Shape::Free("a name"), Drains, "Its identity in its cluster.").absent("its address"),
        Key::new("address", Shape::Free("an address, as \"127.0.0.1:9000\""), Drains, "Where to connect.")
            .absent("required"),
        Key::new(
            "weight",
            Shape::Count(limits::ENDPOINT_WEIGHT, None),
            NextExchange,
            "Its share; 0 takes nothing.",
        ),
        Key::new(
            "max_connections",
            Shape::Count(limits::ENDPOINT_CONNECTIONS, Some(("unlimited", u64::MAX))),
            NewConnections,
            "Open links, idle ones included (each holds a port), over all shards.",
        ),
        Key::new(
            "max_requests",
            Shape::Count(limits::ENDPOINT_REQUESTS, Some(("unlimited", u64::MAX))),
            NextExchange,
            "Running requests, over all shards.",
        ),
        Key::new("backup", Shape::Flag, NextExchange, "Short for `priority = 1`."),
        Key::new(
            "priority",
            Shape::Count(limits::ENDPOINT_PRIORITY, None),
            NextExchange,
            "Its tier: it is used while no endpoint of a lower number may be.",
        ),
    ],
};

/// What a cluster says of its endpoints.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    entries: Vec<Entry>,
    file: Option<PathBuf>,
}

impl Endpoints {
    /// Those that are written down, with their ids.
    pub(super) fn fixed(&self) -> Vec<Endpoint> {
        let fixed = self.entries.iter().filter(|entry| entry.query.is_none());
        let numbered = (0u16..).zip(fixed);
        numbered.map(|(id, entry)| Endpoint { id: EndpointId(id), ..entry.endpoint.clone() }).collect()
    }
    /// Whether these are all that there will be.
    pub(super) fn are_fixed(&self) -> bool {
        self.file.is_none() && self.entries.iter().all(|entry| entry.query.is_none())
    }
    /// Where further ones come from, if any do.
    pub(super) fn sources(self, sticky_key: Option<Vec<u8>>) -> Option<Arc<Sources>> {
        let Self { entries, file } = &self;
        (!self.are_fixed())
            .then(|| Arc::new(Sources { entries: entries.clone(), file: file.clone(), sticky_key }))
    }
}

pub(super) fn read(table: &Table<'_>, balance: &str) -> Endpoints {
    let file = table.get("endpoints_file").and_then(|item| endpoints_file(&item));
    let list = match table.get("endpoints_file") {
        Some(_) => table.get("endpoints"),
        None => table.need("endpoints"),
    };
    let none = Endpoints { entries: Vec::new(), file: file.clone() };
    let Some(list) = list else { return none };
    if !list.value.is_array() {
        list.wrong_type();
        return none;
    }
    let items = list.each();
    if items.len() > limits::ENDPOINTS_MAX {
        list.error(format!("lists more than {} endpoints", limits::ENDPOINTS_MAX));
        return none;
    }
    let mut names = BTreeSet::new();
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    for item in &items {
        let Some(entry) = entry(item) else { continue };
        let name = &entry.endpoint.name;
        if !names.insert(Arc::clone(name)) {
            let hint = if is_name(name) && !name.contains(':') { "" } else { "; give each a `name`" };
            item.error(format!("another endpoint of this cluster is called {name:?}{hint}"));
        }
        entries.push(entry);
    }
    let all = entries.len() == items.len();
    let endpoints = Endpoints { entries, file };
    if all && endpoints.are_fixed() {
        check_weights(&list, &endpoints.fixed(), balance);
    }
    endpoints
}

/// The path; what is wrong with the file at present is no reason not to start.
fn endpoints_file(item: &Item<'_>) -> Option<PathBuf> {
    let text = item.words()?;
    if text.contains('\0') {
        item.error("a path has no NUL");
        return None;
    }
    if let Err(what) = discovery::read_file(Path::new(text)) {
        item.warn(format!("{text}: {what}: it adds no endpoint until that is mended"), None);
    }
    Some(text.into())
}

fn entry(item: &Item<'_>) -> Option<Entry> {
    if !item.value.is_table() {
        if !item.value.is_str() {
            item.wants("an address or a table");
            return None;
        }
        return Some(plain(address::endpoint(item)?));
    }
    let table = item.table(&ENDPOINT)?;
    let name = table.get("name").map(|item| item.name());
    let weight = table.count32("weight");
    let (max_connections, max_requests) = (table.count32("max_connections"), table.count32("max_requests"));
    let priority = priority(&table);
    let Entry { endpoint, query } = plain(table.need("address").and_then(|item| address::endpoint(&item))?);
    if let (Some(Query::Service(_)), Some(item)) = (&query, table.get("weight")) {
        item.error("the service (SRV) says the weights of its targets");
    }
    let name = match name {
        Some(name) => name?,
        None => Arc::clone(&endpoint.name),
    };
    let endpoint = Endpoint { name, weight, max_connections, max_requests, priority, ..endpoint };
    Some(Entry { endpoint, query })
}

/// An entry that says no more than this.
fn plain(target: Target) -> Entry {
    let endpoint = |name: &str, address| Endpoint::new(EndpointId(0), name, address);
    match target {
        Target::Address(address) => {
            Entry { endpoint: endpoint(&address.to_string(), address.clone()), query: None }
        }
        Target::Query(query) => {
            // Nobody connects there: each address that is found takes its place.
            let nowhere = Address::Ip(SocketAddress::UNSPECIFIED);
            Entry { endpoint: endpoint(&query.to_string(), nowhere), query: Some(query) }
        }
    }
}

fn priority(table: &Table<'_>) -> u8 {
    let priority = u8::try_from(table.count("priority")).unwrap_or(u8::MAX);
    if !table.flag("backup") {
        return priority;
    }
    if let Some(item) = table.get("priority") {
        item.error("`backup = true` says 1 already: write one of the two");
    }
    1
}

fn check_weights(list: &Item<'_>, endpoints: &[Endpoint], balance: &str) {
    let weights = endpoints.iter().map(|e| e.weight);
    if endpoints.iter().all(|e| e.priority > 0) && !endpoints.is_empty() {
        list.warn("every endpoint is a backup: the lowest `priority` is used first", None);
    }
    if !endpoints.is_empty() && weights.clone().all(|w| w == 0) {
        list.warn(
            "every weight is 0: this cluster takes nothing, and what routes send to it is refused",
            None,
        );
    }
    let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
    let cycle = weights.map(|w| (w / divisor) as usize).sum::<usize>();
    if balance == balance::ROUND_ROBIN && cycle > limits::ROUND_ROBIN_CYCLE {
        let most = limits::ROUND_ROBIN_CYCLE;
        list.error(format!("the weights add up to {cycle}, which is out of range (at most {most} in all)"));
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
