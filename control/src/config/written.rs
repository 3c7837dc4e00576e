//! The keys of a file as they are written, by object: what `ringway plan` compares once it knows that an object is another.

use super::keys::{ReloadEffect, Section, Shape};
use super::pieces::{Header, has_long_strings, headers};
use super::{access_log, admin, cluster, drain, listener, process, route, traces};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// The kinds of objects that a file has, in the order in which a plan names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Runtime,
    Drain,
    Admin,
    Log,
    AccessLog,
    Tracing,
    Listener,
    Route,
    Cluster,
}

/// One key of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// As TOML writes it, on one line.
    pub(crate) value: String,
    pub(crate) effect: ReloadEffect,
    /// What is shown in its place, where its value may be a secret.
    pub(crate) hidden: Option<String>,
}

/// The keys of one object, by their path within it: `timeouts.idle`.
pub(crate) type Keys = BTreeMap<String, Written>;

/// The objects of `text` that `wants` asks for, by kind and name. What cannot be read has no keys.
pub(crate) fn objects(text: &str, wants: impl Fn(Kind, &str) -> bool) -> BTreeMap<(Kind, String), Keys> {
    let needed = needed(text, &wants);
    let (tree, _) = DeTable::parse_recoverable(needed.as_deref().unwrap_or(text));
    let root = tree.get_ref();
    let mut objects = BTreeMap::new();
    let mut add = |kind, name: &str, section, table: &DeTable<'_>| {
        if wants(kind, name) {
            let mut keys = Keys::new();
            flatten(section, table, "", &mut keys);
            objects.insert((kind, name.to_owned()), keys);
        }
    };
    let single: [(&str, Kind, &'static Section); 5] = [
        ("runtime", Kind::Runtime, &process::RUNTIME),
        ("drain", Kind::Drain, &drain::SECTION),
        ("admin", Kind::Admin, &admin::SECTION),
        ("log", Kind::Log, &process::LOG),
        ("tracing", Kind::Tracing, &traces::SECTION),
    ];
    for (key, kind, section) in single {
        if let Some(table) = root.get(key).and_then(|value| value.get_ref().as_table()) {
            add(kind, key, section, table);
        }
    }
    for (n, table) in tables(root, "access_log").enumerate() {
        add(Kind::AccessLog, &format!("access_log/{}", n + 1), &access_log::SECTION, table);
    }
    let first = tables(root, "listener").next().and_then(name).unwrap_or("?").to_owned();
    for (key, kind, section) in
        [("listener", Kind::Listener, &listener::SECTION), ("cluster", Kind::Cluster, &cluster::SECTION)]
    {
        for table in tables(root, key) {
            add(kind, name(table).unwrap_or("?"), section, table);
        }
    }
    for (n, table) in tables(root, "route").enumerate() {
        let listeners = table.get("listeners").map(|value| value.get_ref());
        let own = listeners.and_then(|value| match value.as_array() {
            Some(list) => list.first()?.get_ref().as_str(),
            None => value.as_str(),
        });
        let default = || format!("{}/{}", own.unwrap_or(&first), n + 1);
        let name = name(table).map_or_else(default, str::to_owned);
        add(Kind::Route, &name, &route::SECTION, table);
    }
    objects
}

/// The part of `text` in which the tables that are wanted stand: parsing all of it takes longer than all else that a plan does.
/// None where it cannot be told by looking at lines alone; a table too many does no harm.
fn needed(text: &str, wants: &impl Fn(Kind, &str) -> bool) -> Option<String> {
    if has_long_strings(text) {
        return None;
    }
    let mut out = String::new();
    let mut keep = |kind: Option<Kind>, object: &str| -> Option<()> {
        let is_wanted = match kind {
            // What has no name is known by its place, which would be another.
            Some(kind) => wants(kind, named(object)?),
            None => true,
        };
        out.push_str(if is_wanted { object } else { "" });
        Some(())
    };
    // The tables of an object follow its header; until the first header, what belongs to the whole file.
    let (mut kind, mut from) = (None, 0);
    for (line, header) in headers(text) {
        let next = match header {
            Header::Table(path) | Header::Tables(path)
                if kind.is_some_and(|kind| path.starts_with(within(kind))) =>
            {
                continue;
            }
            Header::Tables("listener") => Some(Kind::Listener),
            Header::Tables("route") => Some(Kind::Route),
            Header::Tables("cluster") => Some(Kind::Cluster),
            Header::Table(_) | Header::Tables(_) => None,
        };
        keep(kind, &text[from..line])?;
        (kind, from) = (next, line);
    }
    keep(kind, &text[from..])?;
    Some(out)
}

/// What the paths of an object's own tables begin with, as that of `[cluster.pool]` does.
fn within(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "listener.",
        Kind::Route => "route.",
        Kind::Cluster => "cluster.",
        _ => ".",
    }
}

/// The name of an object, if it stands on a line of its own and is plain.
fn named(object: &str) -> Option<&str> {
    let value = |line: &'_ str| -> Option<(usize, usize)> {
        let rest = line.trim_start().strip_prefix("name")?.trim_start().strip_prefix('=')?.trim_start();
        let rest = rest.strip_prefix('"')?;
        let end = rest.find(['"', '\\'])?;
        rest[end..].starts_with('"').then_some((line.len() - rest.len(), end))
    };
    let mut at = 0;
    for line in object.split_inclusive('\n') {
        if let Some((from, len)) = value(line) {
            return object.get(at + from..at + from + len);
        }
        at += line.len();
    }
    None
}

fn tables<'t>(root: &'t DeTable<'_>, key: &str) -> impl Iterator<Item = &'t DeTable<'t>> {
    let list = root.get(key).and_then(|value| value.get_ref().as_array());
    list.into_iter().flat_map(|list| list.iter()).filter_map(|value| value.get_ref().as_table())
}

fn name<'t>(table: &'t DeTable<'_>) -> Option<&'t str> {
    table.get("name")?.get_ref().as_str()
}

fn flatten(section: &'static Section, table: &DeTable<'_>, prefix: &str, keys: &mut Keys) {
    for (key, value) in table {
        let (name, value) = (key.get_ref(), value.get_ref());
        let Some(key) = section.key(name) else { continue };
        let path = format!("{prefix}{name}");
        match (key.shape, value.as_table()) {
            (Shape::Table(inner), Some(table)) => flatten(inner, table, &format!("{path}."), keys),
            _ => {
                let hidden = may_be_secret(section.path, key.name).then(|| without_values(value));
                keys.insert(path, Written { value: shown(value), effect: key.effect, hidden });
            }
        }
    }
}

/// Keys of cookies; and among header fields and cookies one may well be `authorization` or a session.
fn may_be_secret(section: &str, key: &str) -> bool {
    match section {
        "cluster.sticky" => key == "key",
        "cluster.health" | "route.respond" => key == "headers",
        "route.match" => matches!(key, "header" | "cookie"),
        _ => false,
    }
}

fn without_values(value: &DeValue<'_>) -> String {
    let Some(table) = value.as_table() else { return "(secret)".to_owned() };
    let names: Vec<&str> = table.keys().map(|name| &**name.get_ref()).collect();
    format!("(secret: {})", names.join(", "))
}

/// A value as TOML, on one line.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(word) => word.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(list) => {
            let items: Vec<String> = list.iter().map(|value| shown(value.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let item = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                format!("{key} = {}", shown(value.get_ref()))
            };
            let items: Vec<String> = table.iter().map(item).collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

/// What holds for a key of an object that does not write it, by the key's path within the object.
pub(crate) fn default_of(kind: Kind, path: &str) -> String {
    let mut section: &'static Section = match kind {
        Kind::Runtime => &process::RUNTIME,
        Kind::Drain => &drain::SECTION,
        Kind::Admin => &admin::SECTION,
        Kind::Log => &process::LOG,
        Kind::AccessLog => &access_log::SECTION,
        Kind::Tracing => &traces::SECTION,
        Kind::Listener => &listener::SECTION,
        Kind::Route => &route::SECTION,
        Kind::Cluster => &cluster::SECTION,
    };
    let mut default = String::new();
    for part in path.split('.') {
        let Some(key) = section.key(part) else { break };
        default = key.default_text();
        if let Shape::Table(inner) = key.shape {
            section = inner;
        }
    }
    default
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_parsed() {
        let text = "version = 1\n[log]\nlevel = \"warn\"\n[[listener]]\n name = \"a\"\n[listener.timeouts]\nidle = \"5s\"\n\
            [[listener.error_page]]\nstatus = 503\n[[listener]]\nname=\"b\"\n[listener.limits]\npipelined = 3\n[[cluster]]\nname = \"c\"\n[admin]\naddress = \"x\"\n";
        let part = needed(text, &|kind, name| (kind, name) == (Kind::Listener, "b")).unwrap();
        assert_eq!(
            part,
            "version = 1\n[log]\nlevel = \"warn\"\n[[listener]]\nname=\"b\"\n[listener.limits]\npipelined = 3\n[admin]\naddress = \"x\"\n"
        );
        for unsure in [
            "[[route]]\ncluster = \"c\"\n",
            "[[listener]]\nname = \"a\\u0062\"\n",
            "x = \"\"\"\n[[route]]\n\"\"\"\n",
        ] {
            assert_eq!(needed(unsure, &|_, _| false), None, "{unsure}");
        }
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "[runtime]\nshards = 2\n[[listener]]\nname = \"edge\"\naddress = [\"127.0.0.1:0\", \"unix:@x\"]\n\
            [listener.timeouts]\nidle = \"5s\"\n[[route]]\ncluster = \"app\"\nmatch = { path = \"/a\", header = { x = \"1\" } }\n\
            [[cluster]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\"]\n\
            [cluster.health]\nkind = \"http\"\nheaders = { authorization = \"x\" }\n[cluster.sticky]\ncookie = \"c\"\nkey = \"0123456789abcdef\"\n";
        let all = objects(text, |_, _| true);
        let value = |kind, name: &str, key: &str| all[&(kind, name.to_owned())][key].clone();
        assert_eq!(value(Kind::Runtime, "runtime", "shards").effect, ReloadEffect::NeedsUpgrade);
        let address = value(Kind::Listener, "edge", "address");
        assert_eq!(
            (&*address.value, address.effect),
            ("[\"127.0.0.1:0\", \"unix:@x\"]", ReloadEffect::Drains)
        );
        assert_eq!(value(Kind::Listener, "edge", "timeouts.idle").value, "\"5s\"");
        assert_eq!(value(Kind::Route, "edge/1", "match.path").value, "\"/a\"");
        let hidden = |kind, name: &str, key: &str| value(kind, name, key).hidden;
        assert_eq!(hidden(Kind::Cluster, "app", "sticky.key").unwrap(), "(secret)");
        assert_eq!(hidden(Kind::Cluster, "app", "health.headers").unwrap(), "(secret: authorization)");
        assert_eq!(hidden(Kind::Route, "edge/1", "match.header").unwrap(), "(secret: x)");
        assert_eq!(hidden(Kind::Cluster, "app", "health.kind"), None);
        assert_eq!(objects(text, |kind, _| kind == Kind::Log).len(), 0);
        assert_eq!(default_of(Kind::Listener, "timeouts.idle"), "\"1m\"");
        assert!(objects("", |_, _| true).is_empty());
    }
}
