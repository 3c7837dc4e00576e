//! A configuration as a tree of its own, to be changed and written again: what is changed at run time is changed here, and goes
//! through the same parser as a file.
//!
//! The order of keys and tables is kept, for some of them mean something by it. Comments and white space are not.

use super::connectable;
use dataplane::limits::ENDPOINT_WEIGHT;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use toml::de::{DeTable, DeValue};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Node {
    Text(String),
    /// A number, a date, `true` or `false`, as TOML writes it.
    Plain(String),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl Node {
    /// The tree of a text; none of one that is no TOML.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let (tree, faults) = DeTable::parse_recoverable(text);
        faults.is_empty().then(|| Self::of_table(tree.get_ref()))
    }

    fn of_table(table: &DeTable<'_>) -> Self {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            (key.to_string(), Self::of_value(value.get_ref()))
        };
        Self::Table(entries.into_iter().map(entry).collect())
    }

    fn of_value(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => Self::Plain(number.to_string()),
            DeValue::Float(number) => Self::Plain(number.to_string()),
            DeValue::Boolean(word) => Self::Plain(word.to_string()),
            DeValue::Datetime(date) => Self::Plain(date.to_string()),
            DeValue::Array(list) => Self::List(list.iter().map(|v| Self::of_value(v.get_ref())).collect()),
            DeValue::Table(table) => Self::of_table(table),
        }
    }

    /// The tree of a value in JSON. The error says what TOML has no value for.
    pub(crate) fn of_json(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::Null => return Err("null is no value: leave the key out".to_owned()),
            Value::Bool(word) => Self::Plain(word.to_string()),
            Value::Number(number) if number.is_f64() => {
                Self::Plain(format!("{:?}", number.as_f64().unwrap_or(0.0)))
            }
            Value::Number(number) => Self::Plain(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::of_json).collect::<Result<_, _>>()?),
            Value::Object(object) => {
                let entry = |(key, value): (&String, &Value)| Ok((key.clone(), Self::of_json(value)?));
                Self::Table(object.iter().map(entry).collect::<Result<_, String>>()?)
            }
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Table(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
    /// What it is called: its `name`.
    pub(crate) fn name(&self) -> Option<&str> {
        self.get("name")?.text()
    }
    /// What an endpoint is called: its name, or where it is, as that is written elsewhere.
    pub(crate) fn endpoint_name(&self) -> Option<String> {
        if let Some(name) = self.name() {
            return Some(name.to_owned());
        }
        let address = self.text().or_else(|| self.get("address")?.text())?;
        let known = connectable(address).map(|address| address.to_string());
        Some(known.unwrap_or_else(|_| address.to_ascii_lowercase()))
    }
    /// The weight of an endpoint, as it is written; the default where it says none.
    pub(crate) fn weight(&self) -> Option<u64> {
        match self.get("weight") {
            None => Some(ENDPOINT_WEIGHT.default),
            Some(Self::Plain(weight)) => weight.parse().ok(),
            Some(_) => None,
        }
    }
    /// An endpoint with another weight, and all else as it is.
    pub(crate) fn weighing(&self, weight: u64) -> Self {
        let mut keys = match self {
            Self::Table(keys) => keys.clone(),
            address => vec![("address".to_owned(), address.clone())],
        };
        let weight = Self::Plain(weight.to_string());
        match keys.iter_mut().find(|(key, _)| key == "weight") {
            Some((_, there)) => *there = weight,
            None => keys.push(("weight".to_owned(), weight)),
        }
        Self::Table(keys)
    }
    /// The list behind a key of a table, made where there is none; none where something else stands there.
    pub(crate) fn list_mut(&mut self, key: &str) -> Option<&mut Vec<Self>> {
        let Self::Table(entries) = self else { return None };
        let at = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.to_owned(), Self::List(Vec::new())));
            entries.len() - 1
        });
        if let Self::List(list) = &mut entries.get_mut(at)?.1 { Some(list) } else { None }
    }
    pub(crate) fn list(&self, key: &str) -> &[Self] {
        if let Some(Self::List(list)) = self.get(key) { list } else { &[] }
    }

    /// The whole as a file.
    pub(crate) fn write(&self) -> String {
        let mut out = String::new();
        let Self::Table(entries) = self else { return out };
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_sections()) {
            line(&mut out, key, value);
        }
        for (key, value) in entries.iter().filter(|(_, value)| value.is_sections()) {
            match value {
                Self::List(list) => list.iter().for_each(|table| section(&mut out, "[[", key, table, "]]")),
                table => section(&mut out, "[", key, table, "]"),
            }
        }
        out
    }

    /// Whether it is written under headers of its own.
    fn is_sections(&self) -> bool {
        match self {
            Self::Table(_) => true,
            Self::List(list) => !list.is_empty() && list.iter().all(|one| matches!(one, Self::Table(_))),
            Self::Text(_) | Self::Plain(_) => false,
        }
    }

    /// On one line.
    fn put(&self, out: &mut String) {
        match self {
            Self::Text(text) => put_text(out, text),
            Self::Plain(text) => out.push_str(text),
            Self::List(list) => put_all(out, ("[", "]"), list, |out, one| one.put(out)),
            Self::Table(entries) => put_all(out, ("{ ", " }"), entries, |out, (key, value)| {
                put_key(out, key);
                out.push_str(" = ");
                value.put(out);
            }),
        }
    }
}

fn put_all<T>(out: &mut String, ends: (&str, &str), all: &[T], mut each: impl FnMut(&mut String, &T)) {
    out.push_str(ends.0);
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        each(out, one);
    }
    out.push_str(ends.1);
}

fn section(out: &mut String, open: &str, key: &str, table: &Node, close: &str) {
    let Node::Table(entries) = table else { return };
    let mut name = String::new();
    put_key(&mut name, key);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{open}{name}{close}");
    let is_table = |value: &Node| matches!(value, Node::Table(_));
    for (key, value) in entries.iter().filter(|(_, value)| !is_table(value)) {
        line(out, key, value);
    }
    for (inner, value) in entries.iter().filter(|(_, value)| is_table(value)) {
        let Node::Table(entries) = value else { continue };
        let _ = write!(out, "[{name}.");
        put_key(out, inner);
        out.push_str("]\n");
        entries.iter().for_each(|(key, value)| line(out, key, value));
    }
}

/// A key and its value; a list of more than one table has a line for each.
fn line(out: &mut String, key: &str, value: &Node) {
    put_key(out, key);
    out.push_str(" = ");
    match value {
        Node::List(list) if list.len() > 1 => {
            out.push_str("[\n");
            for one in list {
                out.push_str("  ");
                one.put(out);
                out.push_str(",\n");
            }
            out.push(']');
        }
        value => value.put(out),
    }
    out.push('\n');
}

fn put_key(out: &mut String, key: &str) {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match !key.is_empty() && key.bytes().all(bare) {
        true => out.push_str(key),
        false => put_text(out, key),
    }
}

/// A basic string (TOML 1.0).
fn put_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = "version = 0x1\nx = [1, 2.5, inf, true, \"\\u0007\\\\\\\"\\n\", 1979-05-27]\n[runtime]\nshards = 1\n\
            [[route]]\nmatch.header = { \"x y\" = \"1\", a = { regex = '\\d' } }\n[[route]]\n[route.respond]\nstatus = 200\n\
            [[cluster]]\nendpoints = [\"a\", { name = \"b\", address = \"c\" }]\nnone = []\nempty = {}\n";
        let tree = Node::of_text(text).unwrap();
        let written = tree.write();
        assert_eq!(Node::of_text(&written).as_ref(), Some(&tree), "{written}");
        assert_eq!(tree.list("route").len(), 2);
        let header = tree.list("route")[0].get("match").unwrap().get("header").unwrap();
        assert!(
            matches!(header, Node::Table(keys) if keys[0].0 == "x y" && keys[1].0 == "a"),
            "in their order"
        );
        assert_eq!(Node::of_text("a = "), None);
    }

    #[test]
    fn json_has_the_same_values() {
        let json = serde_json::json!({ "name": "a", "weight": 3, "rate": 0.5, "on": true, "list": [1], "t": { "k": "v" } });
        let toml = "name = \"a\"\nweight = 3\nrate = 0.5\non = true\nlist = [1]\nt = { k = \"v\" }\n";
        let (json, Some(Node::Table(mut toml))) = (Node::of_json(&json).unwrap(), Node::of_text(toml)) else {
            panic!()
        };
        let Node::Table(mut json) = json else { panic!() };
        json.sort_by(|one, other| one.0.cmp(&other.0));
        toml.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(json, toml);
        Node::of_json(&serde_json::json!({ "a": [null] })).unwrap_err();
    }

    #[test]
    fn endpoints_are_called_as_elsewhere() {
        let name =
            |text: &str| Node::of_text(&format!("e = {text}")).unwrap().get("e").unwrap().endpoint_name();
        assert_eq!(name("\"127.0.0.1:80\"").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(name("{ address = \"[::0001]:80\" }").as_deref(), Some("[::1]:80"));
        assert_eq!(name("{ name = \"one\", address = \"x:1\" }").as_deref(), Some("one"));
        assert_eq!(name("\"App.internal:80\"").as_deref(), Some("app.internal:80"));
        assert_eq!(name("3"), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC*|[\\x00-\\x7f]*", key in "\\PC*|[\\x00-\\x7f]*") {
            let inner = Node::Table(vec![(key.clone(), Node::Text(text.clone()))]);
            let tree = Node::Table(vec![
                (format!("a{key}"), Node::List(vec![Node::Text(text), inner.clone()])),
                ("b".to_owned(), Node::List(vec![inner])),
            ]);
            prop_assert_eq!(Node::of_text(&tree.write()), Some(tree));
        }
    }
}
