//! A plan in words and in JSON.

use super::plan::{Change, KeyChange, Object, Plan, What};
use crate::config::{Kind, ReloadEffect};
use serde_json::{Value, json};
use std::fmt::Write as _;

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Gone => "gone",
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Runtime => "runtime",
        Kind::Drain => "drain",
        Kind::Admin => "admin",
        Kind::Log => "log",
        Kind::AccessLog => "access_log",
        Kind::Tracing => "tracing",
        Kind::Listener => "listener",
        Kind::Route => "route",
        Kind::Cluster => "cluster",
    }
}

/// The kind of an object and its name; none where its kind says all.
fn names(object: &Object) -> (&'static str, String) {
    match object {
        Object::Of(of @ (Kind::Runtime | Kind::Drain | Kind::Admin | Kind::Log | Kind::Tracing), _) => {
            (kind(*of), String::new())
        }
        Object::Of(of, name) => (kind(*of), name.clone()),
        Object::Endpoint(cluster, endpoint) => ("endpoint", format!("{cluster}/{endpoint}")),
        Object::RouteOrder => ("routes", "their order".to_owned()),
    }
}

/// What becomes of connections, in the words of the manual.
fn effect(change: &Change) -> &'static str {
    match (change.what, change.effect) {
        (What::New, ReloadEffect::Nothing) => "is added",
        (_, effect) => effect.name(),
    }
}

impl Plan {
    /// An object for each change.
    pub(crate) fn to_json(&self) -> Value {
        let key = |key: &KeyChange| json!({ "key": key.key, "before": key.before, "after": key.after, "effect": key.effect.name() });
        let change = |change: &Change| {
            let (kind, name) = names(&change.object);
            let keys: Vec<Value> = change.keys.iter().map(key).collect();
            json!({ "kind": kind, "name": name, "change": change.what.word(), "effect": change.effect.name(), "keys": keys })
        };
        Value::Array(self.changes.iter().map(change).collect())
    }

    /// How much there is of each, for a line of the log.
    pub(crate) fn summary(&self) -> String {
        let mut counts = std::collections::BTreeMap::<(&str, What), usize>::new();
        for change in &self.changes {
            *counts.entry((names(&change.object).0, change.what)).or_default() += 1;
        }
        let words: Vec<String> =
            counts.into_iter().map(|((kind, what), n)| format!("{n} {kind} {}", what.word())).collect();
        if words.is_empty() { "nothing changed".to_owned() } else { words.join(", ") }
    }
}

/// The answer to a plan or a reload, as lines.
pub(crate) fn lines(changes: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
    for change in changes.as_array().into_iter().flatten() {
        let name = text(change, "name");
        let space = if name.is_empty() { "" } else { " " };
        let effect = match (change["change"].as_str(), change["effect"].as_str()) {
            (Some("new"), Some("nothing")) => String::new(),
            (_, effect) => format!(": {}", effect.unwrap_or("-")),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{space}{name} {}{effect}", text(change, "kind"), text(change, "change"));
        for key in change["keys"].as_array().into_iter().flatten() {
            let _ = writeln!(
                out,
                "  {}: {} -> {} ({})",
                text(key, "key"),
                text(key, "before"),
                text(key, "after"),
                text(key, "effect")
            );
        }
    }
    if out.is_empty() { "nothing changes\n".to_owned() } else { out }
}

impl Change {
    /// One line of the log.
    pub(crate) fn line(&self) -> String {
        let (kind, name) = names(&self.object);
        let keys: Vec<String> =
            self.keys.iter().map(|key| format!("{} {} -> {}", key.key, key.before, key.after)).collect();
        let keys = if keys.is_empty() { String::new() } else { format!(" ({})", keys.join("; ")) };
        format!("{kind} {name} {}: {}{keys}", self.what.word(), effect(self))
    }
}
