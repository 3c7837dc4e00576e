//! Names of listeners and clusters: unique per kind, defined before they are used, and each one's use remembered.

use super::report::Severity;
use super::tree::{Item, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of one kind and the ids they stand for.
#[derive(Debug)]
pub(super) struct Names {
    kind: &'static str,
    ids: BTreeMap<Arc<str>, u16>,
    used: Vec<bool>,
}

impl Names {
    /// Reads the names of all tables of a kind. The second list is each table's name: a stand-in where it has none.
    pub(super) fn read(kind: &'static str, tables: &[Table<'_>]) -> (Self, Vec<Arc<str>>) {
        let mut ids = BTreeMap::new();
        let mut names = Vec::with_capacity(tables.len());
        for (index, table) in tables.iter().enumerate() {
            let id = u16::try_from(index).unwrap_or(u16::MAX);
            let item = table.need("name");
            let name = item.and_then(|item| item.name());
            if let (Some(item), Some(name)) = (item, &name) {
                if ids.contains_key(name) {
                    item.error(format!("another {kind} is called {name:?}"));
                } else {
                    ids.insert(Arc::clone(name), id);
                }
            }
            names.push(name.unwrap_or_else(|| "?".into()));
        }
        (Self { kind, ids, used: vec![false; tables.len()] }, names)
    }

    /// The id behind a name that a key gives, or a problem.
    pub(super) fn resolve(&mut self, item: &Item<'_>) -> Option<u16> {
        let name = item.text()?;
        let id = self.ids.get(name).copied();
        match id.and_then(|id| self.used.get_mut(usize::from(id))) {
            Some(used) => *used = true,
            None => item.undefined(self.kind, name, self.ids.keys().map(AsRef::as_ref)),
        }
        id
    }

    /// Warns of each table that nothing names.
    pub(super) fn warn_unused(&self, tables: &[Table<'_>], names: &[Arc<str>]) {
        for ((table, name), _) in tables.iter().zip(names).zip(&self.used).filter(|(_, used)| !**used) {
            let what = format!("nothing uses the {} {name:?}", self.kind);
            table.lacks(Severity::Warning, "name", what);
        }
    }
}

/// `[a-z0-9][a-z0-9_.-]{0,63}`.
pub(crate) fn is_name(text: &str) -> bool {
    let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 64
        && text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|b| first(&b) || b"_.-".contains(&b))
}

/// The name that a text was probably meant to be, if it is one then.
pub(super) fn mend_name(text: &str) -> String {
    let mended = text.trim().to_ascii_lowercase();
    mended.chars().map(|c| if c == ' ' || c == '/' || c == ':' { '-' } else { c }).take(64).collect()
}
