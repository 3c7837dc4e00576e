//! What a key is: its shape and bound, its default, its manual text, and what changing it does on a reload.
//!
//! Each section's table of keys stands in the file that reads the section. The reader (tree.rs) takes bounds and
//! defaults from the table, and the manual (reference.rs) is written from it, so that they cannot differ.

use super::units::{format_duration, format_size};
use dataplane::limits::Bound;
use std::time::Duration;

/// What a change of a key does to what is established when the file is reloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadEffect {
    /// Nothing on any connection; it applies at once.
    Nothing,
    /// The next exchange on a connection follows it.
    NextExchange,
    /// Connections and links opened from then on follow it.
    NewConnections,
    /// What was established by the old value finishes, then closes.
    Drains,
    /// The running process keeps the old value; a binary upgrade or a restart takes the new one.
    NeedsUpgrade,
}

impl ReloadEffect {
    pub const ALL: &'static [Self] =
        &[Self::Nothing, Self::NextExchange, Self::NewConnections, Self::Drains, Self::NeedsUpgrade];

    /// The words of the manual and of `ringway plan`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NextExchange => "next exchange",
            Self::NewConnections => "new connections",
            Self::Drains => "drains",
            Self::NeedsUpgrade => "needs an upgrade",
        }
    }

    /// What it means, for the manual.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Nothing => "no connection notices; the new value applies at once",
            Self::NextExchange => {
                "established connections stay; the next request on each follows the new value"
            }
            Self::NewConnections => "established connections keep the old value; new ones take the new value",
            Self::Drains => "what the old value established finishes its requests and closes",
            Self::NeedsUpgrade => "the running process keeps the old value until it is restarted or upgraded",
        }
    }
}

/// What may stand behind a key, and within which bound.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string, or what the text says.
    Free(&'static str),
    /// One of these words; the first is the default. The second list is known, not in this version.
    Word(&'static [&'static str], &'static [&'static str]),
    /// `"10s"`; a word may stand for one value.
    Duration(Bound<Duration>, Option<(&'static str, Duration)>),
    /// `"64KiB"`; a word may stand for one value.
    Size(Bound<u64>, Option<(&'static str, u64)>),
    /// A whole number; a word may stand for one value.
    Count(Bound<u64>, Option<(&'static str, u64)>),
    /// A number from 0 to 1.
    Fraction,
    /// `true` or `false`; the default is `false`.
    Flag,
    /// A table of these keys.
    Table(&'static Section),
    /// Any number of such tables.
    Tables(&'static Section),
}

impl Shape {
    /// What it is called in a message about something else that stands there.
    pub(super) fn wants(self) -> String {
        match self {
            Self::Free(form) => form.to_owned(),
            Self::Word(words, _) => {
                let words: Vec<_> = words.iter().map(|w| format!("{w:?}")).collect();
                words.join(" or ")
            }
            Self::Duration(_, word) => format!("a duration, as \"10s\"{}", or_word(word.map(|w| w.0))),
            Self::Size(_, word) => format!("a size, as \"64KiB\"{}", or_word(word.map(|w| w.0))),
            Self::Count(_, word) => format!("a whole number{}", or_word(word.map(|w| w.0))),
            Self::Fraction => "a number from 0 to 1".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Tables(section) if section.shared => "a list of tables".to_owned(),
            Self::Tables(section) => format!("tables, each under [[{}]]", section.path),
        }
    }

    /// Its bound, for messages and the manual; empty where there is none.
    pub(super) fn range(self) -> String {
        match self {
            Self::Duration(bound, _) if bound.max == Duration::MAX => {
                format!("at least {}", format_duration(bound.min))
            }
            Self::Duration(bound, _) => {
                format!("{} to {}", format_duration(bound.min), format_duration(bound.max))
            }
            Self::Size(bound, _) if bound.max == u64::MAX => format!("at least {}", format_size(bound.min)),
            Self::Size(bound, _) => format!("{} to {}", format_size(bound.min), format_size(bound.max)),
            Self::Count(bound, _) if bound.max == u64::MAX => format!("at least {}", bound.min),
            Self::Count(bound, _) if bound.min == bound.max => format!("only {}", bound.min),
            Self::Count(bound, _) => format!("{} to {}", bound.min, bound.max),
            Self::Fraction => "0 to 1".to_owned(),
            Self::Free(_) | Self::Word(..) | Self::Flag | Self::Table(_) | Self::Tables(_) => String::new(),
        }
    }

    /// The default that the shape itself knows, as the file would write it.
    fn default(self) -> Option<String> {
        match self {
            Self::Word(words, _) => words.first().map(|w| format!("{w:?}")),
            Self::Duration(bound, word) => Some(match word {
                Some((name, value)) if value == bound.default => format!("{name:?}"),
                _ => format!("{:?}", format_duration(bound.default)),
            }),
            Self::Size(bound, word) => Some(match word {
                Some((name, value)) if value == bound.default => format!("{name:?}"),
                _ => format!("{:?}", format_size(bound.default)),
            }),
            Self::Count(bound, word) => Some(match word {
                Some((name, value)) if value == bound.default => format!("{name:?}"),
                _ => bound.default.to_string(),
            }),
            Self::Fraction => Some("1.0".to_owned()),
            Self::Flag => Some("false".to_owned()),
            Self::Table(_) => Some("the defaults of its keys".to_owned()),
            Self::Free(_) | Self::Tables(_) => None,
        }
    }
}

fn or_word(word: Option<&str>) -> String {
    word.map_or_else(String::new, |word| format!(" or {word:?}"))
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub effect: ReloadEffect,
    /// The manual's text.
    pub doc: &'static str,
    /// What holds when the key is left out, where its shape does not say so.
    absent: Option<&'static str>,
    /// Refused as "known, not in this version" if false.
    pub built: bool,
}

impl Key {
    /// A key of this version.
    pub(super) const fn new(
        name: &'static str,
        shape: Shape,
        effect: ReloadEffect,
        doc: &'static str,
    ) -> Self {
        Self { name, shape, effect, doc, absent: None, built: true }
    }

    /// A key whose feature has not been built; refused wherever it stands.
    pub(super) const fn later(
        name: &'static str,
        shape: Shape,
        effect: ReloadEffect,
        doc: &'static str,
    ) -> Self {
        Self { name, shape, effect, doc, absent: Some("none"), built: false }
    }

    /// Says what holds when the key is left out.
    pub(super) const fn absent(self, text: &'static str) -> Self {
        Self { absent: Some(text), ..self }
    }

    /// What holds when the key is left out, as the manual says it.
    pub fn default_text(&self) -> String {
        match self.absent {
            Some(text) => text.to_owned(),
            None => self.shape.default().unwrap_or_default(),
        }
    }
}

/// A table of the file and the keys it may have.
#[derive(Debug)]
pub struct Section {
    /// As the file names it, `listener.limits`; empty for the whole file. In a `shared` one, the manual's heading.
    pub path: &'static str,
    /// It may stand behind several keys, and its problems are told under theirs.
    pub shared: bool,
    pub doc: &'static str,
    pub keys: &'static [Key],
}

impl Section {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
