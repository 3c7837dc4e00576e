//! A regular expression as a table: one step for each byte that is looked at, whatever the expression and the bytes.
//!
//! Routes look for it in what clients send, on a shard, and checks in what endpoints answer, on the control thread: neither may
//! be held up by whoever chose those bytes. Engines without a table are linear as well, but each of their steps costs as much as
//! the expression is large: on a chosen body of 64 KiB, `1[01]{50}x` took one 86 ms and `1[01]{10000}x` 6.6 s. What fits into
//! no table of [`limits::PATTERN_BYTES`] is refused with the configuration. A table never changes: shards share it, and a
//! search takes no memory.

use crate::limits;
use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

/// What is looked for in a path, a value or a body.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    table: Arc<dense::DFA<Vec<u32>>>,
}

/// Of two texts that are the same the tables are.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why an expression is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPattern {
    /// It is no expression; why.
    Syntax(String),
    /// Its table would have more than [`limits::PATTERN_BYTES`].
    TooLarge,
    /// It asks for a word boundary of Unicode, for which there is no table.
    UnicodeBoundary,
}

impl NoPattern {
    fn of(error: &dense::BuildError) -> Self {
        let Some(cause) = error.source() else {
            return if error.is_size_limit_exceeded() { Self::TooLarge } else { Self::UnicodeBoundary };
        };
        if cause.downcast_ref::<thompson::BuildError>().is_some_and(|of_nfa| of_nfa.size_limit().is_some()) {
            return Self::TooLarge;
        }
        // The innermost says what and shows where, on several lines; the last says what.
        let mut innermost = cause;
        while let Some(cause) = innermost.source() {
            innermost = cause;
        }
        let text = innermost.to_string();
        Self::Syntax(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    }
}

/// What is wrong with it and what would mend that, to be read after its name.
impl fmt::Display for NoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "is not a regular expression that can be used: {why}"),
            Self::TooLarge => write!(
                f,
                "takes a table of more than {} bytes: make what it repeats shorter, or unbounded",
                limits::PATTERN_BYTES
            ),
            Self::UnicodeBoundary => {
                write!(f, "asks for a word boundary of Unicode: write it without `(?u)`")
            }
        }
    }
}

impl Pattern {
    /// Of an expression in the syntax of the `regex` crate, over bytes.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, NoPattern> {
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(limits::PATTERN_BYTES))
            .determinize_size_limit(Some(limits::PATTERN_BYTES));
        let of_nfa = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(limits::PATTERN_BYTES));
        let syntax = syntax::Config::new().unicode(false).utf8(false).case_insensitive(ignore_case);
        let built = dense::Builder::new().configure(config).thompson(of_nfa).syntax(syntax).build(text);
        let table = built.map_err(|error| NoPattern::of(&error))?;
        Ok(Self { text: text.into(), table: Arc::new(table) })
    }

    /// Whether `bytes` have it somewhere.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        // It fails on bytes at which a table gives up; without word boundaries of Unicode there are none.
        matches!(self.table.try_search_fwd(&Input::new(bytes).earliest(true)), Ok(Some(_)))
    }

    /// Whether any bytes have it: whether a match can be reached from the start. Walks the whole table.
    pub fn can_match(&self) -> bool {
        let Ok(start) = self.table.start_state_forward(&Input::new("")) else { return false };
        let (mut known, mut open) = (BTreeSet::from([start]), vec![start]);
        while let Some(state) = open.pop() {
            if self.table.is_match_state(state) || self.table.is_match_state(self.table.next_eoi_state(state))
            {
                return true;
            }
            for byte in 0..=u8::MAX {
                let next = self.table.next_state(state, byte);
                if known.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    #[test]
    fn what_nothing_matches_is_known() {
        for text in [r"a\Ab", "a^b", r"a\b\Bc", r"[a&&b]", r"$x", r"(?:z[a&&b])|\Ba\B\b\B"] {
            assert!(!Pattern::new(text, false).unwrap().can_match(), "{text}");
        }
        for text in ["", "a|[a&&b]", "(?m)a$\n^b", r"\bok\b", r#"(?i)"status":\s*"(?:up|ok|healthy)""#] {
            assert!(Pattern::new(text, false).unwrap().can_match(), "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        for text in ["1[01]{20}x", "1[01]{50}x", "1[01]{10000}x", "(?:a?){20000}b", "[ab]*a[ab]{30}$"] {
            assert_eq!(Pattern::new(text, false).unwrap_err(), NoPattern::TooLarge, "{text}");
        }
        assert_eq!(Pattern::new(r"(?u:\b)a", false).unwrap_err(), NoPattern::UnicodeBoundary);
        for (text, why) in [("a\n(", "unclosed group"), (r"\p{Greek}", "Unicode not allowed here")] {
            assert_eq!(Pattern::new(text, false).unwrap_err(), NoPattern::Syntax(why.to_owned()), "{text}");
        }
    }

    /// What people write for paths, fields, cookies and agents is far from the bound, with case ignored too.
    #[test]
    fn what_people_write_is_small() {
        for (text, value) in [
            ("^/api/v[0-9]+/users/[^/]+$", "/api/v2/users/ann"),
            (r"(?i)\.(png|jpe?g|gif|svg|webp|css|js|woff2?|ttf|eot|ico|map|mp4|pdf)$", "/a/B.WOFF2"),
            (r"^/(?:en|de|fr|es|it|pt-br|zh-cn)(?:/|$)", "/pt-br/x"),
            ("^/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "/01234567-89ab-cdef-0123-456789abcdef"),
            (r"^/blog/\d{4}/\d{2}/\d{2}/[a-z0-9-]{1,80}/?$", "/blog/2026/11/22/one-more"),
            (
                r"(?i)(?:googlebot|bingbot|slurp|duckduckbot|baiduspider|yandex(?:bot)?|facebookexternalhit)",
                "x YandexBot/3",
            ),
            (r"(?i)(?:android|iphone|ipad).*mobile(?:\s+safari)?/[0-9.]+", "iPhone; Mobile Safari/604.1"),
            (r"^Bearer [A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", "Bearer a.b-c.d_e"),
            (
                r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$",
                "a.b-c.test",
            ),
            (r"/(?:\.git|\.env|wp-admin|wp-login\.php|phpmyadmin|cgi-bin)(?:/|$)", "/x/.env"),
            (r"(?u:^\w+$)", "größe"),
            (r"^(?u:[\w\s-])+/(?u:\d)+$", "ein wört-chen/٣"),
            ("^.{1,200}$", "/a"),
            ("", "x"),
        ] {
            for ignore_case in [false, true] {
                let pattern = Pattern::new(text, ignore_case).unwrap_or_else(|why| panic!("{text}: {why:?}"));
                assert!(pattern.is_in(value.as_bytes()) && pattern.can_match(), "{text}");
                let bytes = pattern.table.memory_usage();
                assert!(bytes < limits::PATTERN_BYTES / 2, "{text}: {bytes}");
            }
        }
    }

    proptest! {
        /// It finds what an engine without a table finds, anchors, boundaries and bytes beyond ASCII included.
        #[test]
        fn it_agrees_with_another_engine(
            text in prop::sample::select(vec![
                "a", "^a", "a$", "(?m)^a$", "(?s)a.b", "a.b", r"\ba\b", r"\Ba", "(?i)A+b?", r"[^a]b", r"\x{ff}a", "(a|b){2,3}$", r"\W",
            ]),
            ignore_case in any::<bool>(),
            body in prop::collection::vec(prop::sample::select(b"abAB \n\xff".to_vec()), 0..12),
        ) {
            let other = RegexBuilder::new(text).unicode(false).case_insensitive(ignore_case).build().unwrap();
            prop_assert_eq!(Pattern::new(text, ignore_case).unwrap().is_in(&body), other.is_match(&body), "{}", text);
        }
    }
}
