//! Reading a spanned TOML tree by the key tables: every value comes out checked, or as its default with a problem told.
//!
//! The tree is `toml`'s `DeTable`: it keeps the place of each key and value, and its parser recovers, so that one fault
//! of syntax does not hide the next (`toml_edit` would add editing and white space, which nothing here needs).

use super::keys::{Key, Section, Shape};
use super::names::{is_name, mend_name};
use super::report::{Problems, Severity, nearest, shown};
use dataplane::limits::Bound;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const NOT_YET: &str = "known, not in this version";

/// What a table is called in problems.
#[derive(Debug, Clone, Copy)]
struct Path {
    section: &'static str,
    /// The key behind which a shared section stands.
    key: &'static str,
}

impl Path {
    /// The full name of a key of the table.
    fn name_of(self, key: &str) -> String {
        let Self { section, key: owner } = self;
        match (section.is_empty(), owner.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => format!("{section}.{key}"),
            (false, false) => format!("{section}.{owner}.{key}"),
        }
    }
}

/// One value, where it stands and what it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'t> {
    path: Path,
    pub(super) key: &'static Key,
    pub(super) value: &'t DeValue<'t>,
    pub(super) offset: usize,
    base: usize,
    pub(super) problems: &'t Problems,
}

impl<'t> Item<'t> {
    pub(super) fn error(&self, what: impl Into<String>) {
        self.tell(Severity::Error, what.into(), None);
    }

    pub(super) fn error_near(&self, what: impl Into<String>, nearest: Option<String>) {
        self.tell(Severity::Error, what.into(), nearest);
    }

    /// As [`Item::error_near`], at a byte of the item's string.
    pub(super) fn error_inside(&self, at: usize, what: impl Into<String>, nearest: Option<String>) {
        self.problems.add_inside(self.offset, at, &self.path.name_of(self.key.name), what.into(), nearest);
    }

    pub(super) fn warn(&self, what: impl Into<String>, nearest: Option<String>) {
        self.tell(Severity::Warning, what.into(), nearest);
    }

    /// A value whose feature has not been built.
    pub(super) fn later(&self, what: &str) {
        self.error(if what.is_empty() { NOT_YET.to_owned() } else { format!("{NOT_YET}: {what}") });
    }

    /// A name that nothing defines.
    pub(super) fn undefined<'n>(&self, kind: &str, name: &str, known: impl Iterator<Item = &'n str>) {
        let what = format!("no {kind} is called {name:?}");
        let key = self.path.name_of(self.key.name);
        self.problems.absent(Severity::Error, self.offset, &key, what, nearest(name, known));
    }

    fn tell(&self, severity: Severity, what: String, nearest: Option<String>) {
        self.problems.add(severity, self.offset, &self.path.name_of(self.key.name), what, nearest);
    }

    /// Says that something of another type was wanted.
    pub(super) fn wrong_type(&self) {
        self.wants(&self.key.shape.wants());
    }

    pub(super) fn wants(&self, wanted: &str) {
        self.error(format!("wants {wanted}; this is {}", kind(self.value)));
    }

    pub(super) fn text(&self) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type();
        }
        text
    }

    /// A string that is not empty.
    pub(super) fn words(&self) -> Option<&'t str> {
        let text = self.text()?;
        if text.is_empty() {
            self.error("is empty");
        }
        (!text.is_empty()).then_some(text)
    }

    /// A name of ours: `[a-z0-9][a-z0-9_.-]{0,63}`.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        let text = self.text()?;
        if is_name(text) {
            return Some(text.into());
        }
        let mended = mend_name(text);
        self.error_near(
            format!("{text:?} is not a name: a-z and 0-9 first, then also _ . -, at most 64 of them"),
            is_name(&mended).then_some(mended),
        );
        None
    }

    /// The item itself, or each of its list's.
    pub(super) fn each(&self) -> Vec<Self> {
        let Some(list) = self.value.as_array() else { return vec![*self] };
        if list.is_empty() {
            self.error("the list is empty");
        }
        list.iter()
            .map(|v| Self { value: v.get_ref(), offset: self.base + v.span().start, ..*self })
            .collect()
    }

    /// The entries of a table with free names, in the order of the file: the name, its place, its value.
    pub(super) fn entries(&self) -> Option<Vec<(&'t str, Self, Self)>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type();
            return None;
        };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(k, v)| {
                let place = Self { offset: self.base + k.span().start, ..*self };
                let value = Self { value: v.get_ref(), offset: self.base + v.span().start, ..*self };
                (k.get_ref().as_ref(), place, value)
            })
            .collect();
        entries.sort_by_key(|entry| entry.1.offset);
        Some(entries)
    }

    /// The table behind the item.
    pub(super) fn table(&self, section: &'static Section) -> Option<Table<'t>> {
        match self.value.as_table() {
            Some(entries) => {
                let path = match section.shared {
                    true => Path { section: self.path.section, key: self.key.name },
                    false => Path { section: section.path, key: "" },
                };
                Some(Table::open(section, path, entries, (self.base, self.offset), self.problems))
            }
            None => {
                self.wrong_type();
                None
            }
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong_type();
        }
        flag
    }

    pub(super) fn duration(
        &self,
        bound: Bound<Duration>,
        word: Option<(&str, Duration)>,
    ) -> Option<Duration> {
        self.measure(super::units::parse_duration, bound, word)
    }

    pub(super) fn size(&self, bound: Bound<u64>, word: Option<(&str, u64)>) -> Option<u64> {
        self.measure(super::units::parse_size, bound, word)
    }

    /// A number with a unit, or the word for one.
    fn measure<T: PartialOrd>(
        &self,
        parse: fn(&str) -> Result<T, String>,
        bound: Bound<T>,
        word: Option<(&str, T)>,
    ) -> Option<T> {
        let text = self.text()?;
        let (name, value) = word.map_or((None, None), |(name, value)| (Some(name), Some(value)));
        if name == Some(text) {
            return value;
        }
        match parse(text) {
            Ok(value) => self.within(value, bound, &format!("{text:?}")),
            Err(what) => {
                let or = name.map_or_else(String::new, |name| format!("; or {name:?}"));
                self.error_near(what + &or, nearest(text, name));
                None
            }
        }
    }

    pub(super) fn count(&self, bound: Bound<u64>, word: Option<(&str, u64)>) -> Option<u64> {
        if let (Some((name, value)), Some(text)) = (word, self.value.as_str())
            && text == name
        {
            return Some(value);
        }
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type();
            return None;
        };
        let shown = integer.to_string();
        match whole(integer.as_str(), integer.radix()) {
            Some(n) => self.within(n, bound, &shown),
            None => {
                self.out_of_range(&shown);
                None
            }
        }
    }

    /// A whole number where the key's shape does not say its range.
    pub(super) fn count_in(&self, bound: Bound<u64>, range: &str) -> Option<u64> {
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type();
            return None;
        };
        let number = whole(integer.as_str(), integer.radix()).filter(|n| (bound.min..=bound.max).contains(n));
        if number.is_none() {
            self.error(format!("{integer} is out of range ({range})"));
        }
        number
    }

    fn within<T: PartialOrd>(&self, value: T, bound: Bound<T>, shown: &str) -> Option<T> {
        let within = value >= bound.min && value <= bound.max;
        if !within {
            self.out_of_range(shown);
        }
        within.then_some(value)
    }

    fn out_of_range(&self, shown: &str) {
        self.error(format!("{shown} is out of range ({})", self.key.shape.range()));
    }

    fn word(&self, built: &[&'static str], later: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = built.iter().find(|word| **word == text).copied();
        if found.is_none() {
            if later.contains(&text) {
                self.later(&format!("{text:?}"));
            } else {
                let known = built.iter().chain(later).copied();
                self.error_near(
                    format!("wants {}; this is {text:?}", self.key.shape.wants()),
                    nearest(text, known),
                );
            }
        }
        found
    }
}

/// A table of the file, read by the keys of its section. What is left out reads as its default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'t> {
    section: &'static Section,
    path: Path,
    entries: Option<&'t DeTable<'t>>,
    pub(super) offset: usize,
    /// Where the text begins that the tree is of.
    base: usize,
    pub(super) problems: &'t Problems,
}

impl<'t> Table<'t> {
    /// Opens a table and tells of the keys that are unknown or not built.
    fn open(
        section: &'static Section,
        path: Path,
        entries: &'t DeTable<'t>,
        (base, offset): (usize, usize),
        problems: &'t Problems,
    ) -> Self {
        for name in entries.keys() {
            let (text, at) = (name.get_ref().as_ref(), base + name.span().start);
            let full = || path.name_of(&shown(text));
            match section.key(text) {
                Some(key) if key.built => {}
                Some(_) => problems.add(Severity::Error, at, &full(), NOT_YET.to_owned(), None),
                None => {
                    let known = section.keys.iter().map(|key| key.name);
                    let meant = nearest(text, known).or_else(|| elsewhere(text));
                    problems.add(Severity::Error, at, &full(), "unknown key".to_owned(), meant);
                }
            }
        }
        Self { section, path, entries: Some(entries), offset, base, problems }
    }

    /// A table of the file in which everything is left out, at this place.
    pub(super) fn bare(&self, section: &'static Section, offset: usize) -> Self {
        Self { section, path: Path { section: section.path, key: "" }, entries: None, offset, ..*self }
    }

    /// Whether nothing stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_none_or(DeTable::is_empty)
    }

    /// A problem of the table as a whole.
    pub(super) fn error(&self, key: &str, what: impl Into<String>) {
        self.problems.add(Severity::Error, self.offset, &self.path.name_of(key), what.into(), None);
    }

    /// Something is missing or unused.
    pub(super) fn lacks(&self, severity: Severity, key: &str, what: impl Into<String>) {
        self.problems.absent(severity, self.offset, &self.path.name_of(key), what.into(), None);
    }

    /// The value of a key, if it is there and built.
    pub(super) fn get(&self, name: &str) -> Option<Item<'t>> {
        debug_assert!(self.section.key(name).is_some(), "{} has no key {name}", self.section.path);
        // Most keys of most tables are left out, and a table has fewer entries than its section has keys.
        let value = self.entries?.get(name)?;
        let key = self.section.key(name).filter(|key| key.built)?;
        let (path, problems, base) = (self.path, self.problems, self.base);
        Some(Item { path, key, value: value.get_ref(), offset: base + value.span().start, base, problems })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, name: &str) -> Option<Item<'t>> {
        let item = self.get(name);
        if item.is_none() {
            self.lacks(Severity::Error, name, "is missing");
        }
        item
    }

    /// The table behind a key; if it is left out, one in which everything is left out.
    pub(super) fn table(&self, name: &str) -> Self {
        let Some(Shape::Table(section)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} is no table", self.section.path);
            return Self { entries: None, ..*self };
        };
        let absent = self.bare(section, self.offset);
        self.get(name).and_then(|item| item.table(section)).unwrap_or(absent)
    }

    /// The tables of an array of tables, in the order of the file.
    pub(super) fn tables(&self, name: &str) -> Vec<Self> {
        let Some(Shape::Tables(section)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} are no tables", self.section.path);
            return Vec::new();
        };
        let Some(item) = self.get(name) else { return Vec::new() };
        let Some(list) = item.value.as_array() else {
            item.wrong_type();
            return Vec::new();
        };
        let place = |v: &Spanned<_>| self.base + v.span().start;
        let items = list.iter().map(|v| Item { value: v.get_ref(), offset: place(v), ..item });
        items.filter_map(|item| item.table(section)).collect()
    }

    /// The items of a list; one item may stand for a list of one.
    pub(super) fn each(&self, name: &str) -> Vec<Item<'t>> {
        self.get(name).map(|item| item.each()).unwrap_or_default()
    }

    pub(super) fn word(&self, name: &str) -> &'static str {
        let Some(Shape::Word(built, later)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} is no word", self.section.path);
            return "";
        };
        let first = built.first().copied().unwrap_or_default();
        self.get(name).and_then(|item| item.word(built, later)).unwrap_or(first)
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        let Some(Shape::Duration(bound, word)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} is no duration", self.section.path);
            return Duration::ZERO;
        };
        self.get(name).and_then(|item| item.duration(bound, word)).unwrap_or(bound.default)
    }

    /// A duration that overrides another one if it is there.
    pub(super) fn duration_if_set(&self, name: &str) -> Option<Duration> {
        self.get(name).map(|_| self.duration(name))
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        let Some(Shape::Size(bound, word)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} is no size", self.section.path);
            return 0;
        };
        self.get(name).and_then(|item| item.size(bound, word)).unwrap_or(bound.default)
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        let Some(Shape::Count(bound, word)) = self.section.key(name).map(|key| key.shape) else {
            debug_assert!(false, "{}.{name} is no count", self.section.path);
            return 0;
        };
        self.get(name).and_then(|item| item.count(bound, word)).unwrap_or(bound.default)
    }

    /// A count or size that is known to fit 32 bits by its bound; what does not is "no limit".
    pub(super) fn count32(&self, name: &str) -> u32 {
        u32::try_from(self.count(name)).unwrap_or(u32::MAX)
    }

    pub(super) fn size32(&self, name: &str) -> u32 {
        u32::try_from(self.size(name)).unwrap_or(u32::MAX)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(|item| item.flag()).unwrap_or(false)
    }

    pub(super) fn fraction(&self, name: &str) -> f64 {
        let Some(item) = self.get(name) else { return 1.0 };
        let number = match item.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => {
                whole(integer.as_str(), integer.radix()).map(|n| if n > 1 { 2.0 } else { n as f64 })
            }
            _ => {
                item.wrong_type();
                return 1.0;
            }
        };
        let number = number.filter(|n| (0.0..=1.0).contains(n));
        if number.is_none() {
            item.out_of_range(&shown_number(item.value));
        }
        number.unwrap_or(1.0)
    }
}

/// A key of that name in another section, by its full name.
fn elsewhere(name: &str) -> Option<String> {
    let mut found =
        super::sections().iter().filter(|s| !s.shared && s.key(name).is_some_and(|key| key.built));
    let section = found.next()?;
    let only = found.next().is_none();
    only.then(|| Path { section: section.path, key: "" }.name_of(name))
}

fn shown_number(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Float(float) => float.to_string(),
        DeValue::Integer(integer) => integer.to_string(),
        _ => kind(value).to_owned(),
    }
}

fn whole(digits: &str, radix: u32) -> Option<u64> {
    u64::from_str_radix(digits, radix).ok()
}

/// The kind of a value, in a sentence.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The root of the tree of a file, or of a piece of it that begins at `base`.
pub(super) fn root<'t>(
    section: &'static Section,
    tree: &'t Spanned<DeTable<'t>>,
    base: usize,
    problems: &'t Problems,
) -> Table<'t> {
    let path = Path { section: section.path, key: "" };
    Table::open(section, path, tree.get_ref(), (base, 0), problems)
}
