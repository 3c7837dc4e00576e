//! `ringway top`: what the running process does, in a terminal, once a second.
//!
//! `ask` asks the admin API and `counts` reads what `/metrics` counts, `numbers` makes rates of two answers, `views` makes a
//! table of each view, `state` is what keys and answers change, `draw` puts it on a screen of any size, `screen` is the terminal
//! itself. Only `ask` and `screen` touch anything outside: the rest are values, whose tests need neither process nor terminal.

mod ask;
mod counts;
mod draw;
mod numbers;
mod screen;
mod state;
mod table;
mod views;

#[cfg(test)]
mod tests;

use crate::admin::commands::Where;
use crate::cli::complain;
use crate::config::{Environment, parse_duration};
use crate::exit::Exit;
use crate::log::access::unprintable;
use crate::ready;
use ask::Source;
use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::Duration;
use tokio::time::Instant;

/// How `ringway top` was called.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct Asked {
    /// How often the process is asked [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub every: Option<Duration>,
    /// Print every view once, with the rates of one interval, and end: for pipes and programs of no terminal
    #[arg(long)]
    pub once: bool,
}

const EVERY: Duration = Duration::from_secs(1);
/// Each question costs the process a few milliseconds, and an hour without one is no display.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);

fn interval(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if (LEAST..=MOST).contains(&every) { Ok(every) } else { Err("from 100ms to 1h".to_owned()) }
}

/// How a terminal may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    colour: bool,
    /// Characters that are not ASCII may be drawn.
    unicode: bool,
}

impl Looks {
    /// By the environment: NO_COLOR (no-color.org), TERM, and the locale.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name| variable(name).filter(|text| !text.is_empty());
        let locale = said("LC_ALL").or_else(|| said("LC_CTYPE")).or_else(|| said("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        Self {
            colour: said("NO_COLOR").is_none() && said("TERM").is_some_and(|term| term != "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// `ringway top`.
pub fn top(asked: &Asked, at: &Where, environment: &Environment) -> Exit {
    if !asked.once && !std::io::stdout().is_terminal() {
        complain("`ringway top` needs a terminal; --once prints what it would show");
        return Exit::CommandLine;
    }
    let source = match at.found(environment) {
        Ok(found) => Source::new(found),
        Err(exit) => return exit,
    };
    let every = asked.every.unwrap_or(EVERY);
    if asked.once {
        return once(&source, every);
    }
    screen::show(source, every, Looks::of(|name| std::env::var(name).ok()))
}

/// Asks twice, an interval apart, and prints every view.
fn once(source: &Source, every: Duration) -> Exit {
    let mut state = state::State::new(source.address(), every);
    let (_keeps_open, wait) = mpsc::channel::<()>();
    for round in 0..2 {
        if round > 0 {
            // Nobody sends: this only waits.
            let _ = wait.recv_timeout(every);
        }
        let answer = source.ask();
        if let Err(why) = &answer {
            complain(&format!("{}: {why}", source.address()));
            return Exit::Unreachable;
        }
        state.took(Instant::now(), answer);
    }
    ready::print(draw::text(&state, Instant::now()).trim_end());
    Exit::Clean
}

/// Characters of a name or message that are shown at most.
const SHOWN: usize = 300;

/// A text that came from elsewhere, as it may be shown: nothing in it moves a cursor, colours anything or turns the direction of what
/// follows.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN));
    for c in text.chars().take(SHOWN) {
        if unprintable(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}
