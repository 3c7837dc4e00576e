//! What is shown, and what keys and answers change of it.

use super::ask::Seen;
use super::clean;
use super::numbers::Numbers;
use super::table::{Sort, Table};
use super::views::View;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Duration;
use tokio::time::Instant;

/// Characters of a filter.
const FILTER: usize = 60;

/// An answer that takes longer is told of.
const SLOW: Duration = Duration::from_secs(2);

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

/// Since when nobody answers, and why.
#[derive(Debug)]
struct Lost {
    since: Instant,
    why: String,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) address: String,
    pub(super) every: Duration,
    pub(super) view: View,
    sorts: [Sort; View::ALL.len()],
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
    /// Rows that are above the screen.
    pub(super) above: usize,
    /// What was answered last, if anything ever was.
    pub(super) numbers: Option<Numbers>,
    lost: Option<Lost>,
    /// When an answer came last.
    answered: Option<Instant>,
}

impl State {
    pub(super) fn new(address: &str, every: Duration) -> Self {
        Self {
            address: address.to_owned(),
            every,
            view: View::Traffic,
            sorts: View::ALL.map(View::sort),
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            is_helping: false,
            above: 0,
            numbers: None,
            lost: None,
            answered: None,
        }
    }

    /// An answer came, or none did.
    pub(super) fn took(&mut self, now: Instant, answer: Result<Seen, String>) {
        match answer {
            Ok(seen) => {
                let was_lost = self.lost.take().is_some();
                self.answered = Some(now);
                // What is shown stands still; the first answer after it is compared with the last before it.
                if self.is_paused && self.numbers.is_some() {
                    return;
                }
                match &mut self.numbers {
                    Some(numbers) => numbers.take(seen, was_lost),
                    None => self.numbers = Some(Numbers::new(seen)),
                }
            }
            Err(why) => {
                let before = self.lost.take().map(|lost| lost.since);
                let since = before.or(self.answered).unwrap_or(now);
                self.lost = Some(Lost { since, why });
            }
        }
    }

    /// For how long nobody has answered, and why, where that is longer than answers take.
    pub(super) fn silence(&self, now: Instant) -> Option<(Duration, &str)> {
        if let Some(lost) = &self.lost {
            return Some((now.saturating_duration_since(lost.since), &lost.why));
        }
        let silent = now.saturating_duration_since(self.answered?);
        (silent > self.every + SLOW).then_some((silent, "it is there and does not answer"))
    }

    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.view as usize]
    }

    /// The view's rows, filtered and sorted.
    pub(super) fn table(&self, view: View) -> Option<Table> {
        let mut table = view.table(self.numbers.as_ref()?);
        table.filter(&self.filter);
        table.sort(self.sorts[view as usize]);
        Some(table)
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Next::Leave } else { Next::Stay };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Next::Stay;
        }
        if self.is_helping {
            self.is_helping = false;
            return if key.code == KeyCode::Char('q') { Next::Leave } else { Next::Stay };
        }
        match key.code {
            KeyCode::Char('q') => return Next::Leave,
            KeyCode::Char('?' | 'h') => self.is_helping = true,
            KeyCode::Char(' ' | 'p') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Char('r') => self.sorts[self.view as usize].down ^= true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='7') => {
                let at = digit.to_digit(10).and_then(|digit| View::ALL.get(digit as usize - 1));
                self.look_at(at.copied().unwrap_or(self.view));
            }
            KeyCode::Down | KeyCode::Char('j') => self.above = self.above.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above = self.above.saturating_add(10),
            KeyCode::PageUp => self.above = self.above.saturating_sub(10),
            KeyCode::Home | KeyCode::Char('g') => self.above = 0,
            KeyCode::End | KeyCode::Char('G') => self.above = usize::MAX,
            _ => {}
        }
        Next::Stay
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < FILTER => {
                self.filter += &clean(c.encode_utf8(&mut [0; 4]))
            }
            _ => {}
        }
        self.above = 0;
    }

    fn sort_by_next(&mut self) {
        let (columns, sort) = (self.view.columns(), &mut self.sorts[self.view as usize]);
        sort.column = (sort.column + 1) % columns.len();
        // Numbers are wanted from the largest on, names from the first.
        sort.down = columns[sort.column].right;
        self.above = 0;
    }

    fn turn(&mut self, by: usize) {
        self.look_at(View::ALL[(self.view as usize + by) % View::ALL.len()]);
    }

    fn look_at(&mut self, view: View) {
        self.view = view;
        self.above = 0;
    }
}
