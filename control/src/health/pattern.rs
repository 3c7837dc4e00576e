//! A regular expression that a body is searched for, as a table: one step for each byte, whatever the expression and the body.
//!
//! Checks share the control thread, and a body is the endpoint's to choose. The engine that routes use is linear as well, but
//! each of its steps costs as much as the expression is large: on a chosen body of 64 KiB, `1[01]{50}x` took it 86 ms and
//! `1[01]{10000}x` 6.6 s. What fits into no table of [`limits::CHECK_PATTERN_BYTES`] is refused with the configuration.

use dataplane::limits;
use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// What is looked for in a body.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    table: Arc<dense::DFA<Vec<u32>>>,
}

/// Why an expression is none for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPattern {
    /// Its table would have more than [`limits::CHECK_PATTERN_BYTES`], or it is no expression.
    TooLarge,
    /// No body has it.
    Unmatchable,
}

impl Pattern {
    /// Of an expression in the syntax of the `regex` crate, over bytes.
    pub fn new(text: &str) -> Result<Self, NoPattern> {
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(limits::CHECK_PATTERN_BYTES))
            .determinize_size_limit(Some(limits::CHECK_PATTERN_BYTES));
        let of_nfa = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(limits::REGEX_BYTES));
        let table = dense::Builder::new()
            .configure(config)
            .thompson(of_nfa)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .build(text)
            .map_err(|_| NoPattern::TooLarge)?;
        let pattern = Self { text: text.into(), table: Arc::new(table) };
        if pattern.can_match() { Ok(pattern) } else { Err(NoPattern::Unmatchable) }
    }

    /// Whether `body` has it somewhere.
    pub(super) fn holds(&self, body: &[u8]) -> bool {
        // It fails on bytes at which a table gives up; without Unicode there are none.
        matches!(self.table.try_search_fwd(&Input::new(body).earliest(true)), Ok(Some(_)))
    }

    /// Whether any body has it: whether a match can be reached from the start.
    fn can_match(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    #[test]
    fn what_nothing_matches_and_what_is_too_large_is_refused() {
        for text in [r"a\Ab", "a^b", r"a\b\Bc", r"[a&&b]", r"$x", r"(?:z[a&&b])|\Ba\B\b\B"] {
            assert_eq!(Pattern::new(text).unwrap_err(), NoPattern::Unmatchable, "{text}");
        }
        for text in ["1[01]{20}x", "1[01]{10000}x", "(?:a?){20000}b", "("] {
            assert_eq!(Pattern::new(text).unwrap_err(), NoPattern::TooLarge, "{text}");
        }
        for text in ["", "a|[a&&b]", "(?m)a$\n^b", r"\bok\b", r#"(?i)"status":\s*"(?:up|ok|healthy)""#] {
            assert!(Pattern::new(text).is_ok(), "{text}");
        }
    }

    proptest! {
        /// It finds what the other engine finds, anchors, boundaries and bytes beyond ASCII included.
        #[test]
        fn it_agrees_with_the_engine_of_routes(
            text in prop::sample::select(vec![
                "a", "^a", "a$", "(?m)^a$", "(?s)a.b", "a.b", r"\ba\b", r"\Ba", "(?i)A+b?", r"[^a]b", r"\x{ff}a", "(a|b){2,3}$", r"\W",
            ]),
            body in prop::collection::vec(prop::sample::select(b"abAB \n\xff".to_vec()), 0..12),
        ) {
            let other = RegexBuilder::new(text).unicode(false).build().unwrap();
            prop_assert_eq!(Pattern::new(text).unwrap().holds(&body), other.is_match(&body), "{}", text);
        }
    }
}
