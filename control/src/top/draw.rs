//! The screen of a state, of whatever size; and all views as text.

use super::Looks;
use super::numbers::Numbers;
use super::state::State;
use super::table::{Tone, short};
use super::views::{View, evenness, stands_out, summary};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Sparkline;
use tokio::time::Instant;

/// Lines of the curve of requests, where there is room for them.
const CURVE: u16 = 3;
/// Rows that a screen has at least before it has a curve too.
const ROOM: u16 = 20;
/// Rows of a view in text, and characters of a line.
const TEXT_ROWS: usize = 200;
const TEXT_WIDTH: usize = 150;

const KEYS: &str = "? help  tab,1-7 view  s sort  r reverse  / filter  space pause  q quit";

const HELP: &[&str] = &[
    "tab, left, right   another view; 1 to 7 go straight there",
    "s                  sort by the next column",
    "r                  sort the other way round",
    "/                  show only rows with a text; enter keeps it, esc ends it",
    "up, down, j, k     move through the rows; page up, page down, home, end",
    "space              stand still, and go on",
    "q, Ctrl-C          leave",
    "",
    "Rates are of the last interval. P50 to P99.9 are of requests that ended in the last",
    "ten: within a factor of two, as /metrics has them. Bytes of a request are counted",
    "when it ends. \"-\" is not known, or none.",
    "",
    "Any key goes back.",
];

/// Draws `state` on the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, looks: Looks, now: Instant) {
    let area = frame.area();
    let mut lines = Lines { area, at: 0, below: 0 };
    lines.put(frame, first(state, looks, now));
    match &state.numbers {
        Some(numbers) => lines.put(frame, Line::raw(summary(numbers))),
        None => lines.put(frame, Line::raw(format!("nobody has answered at {} yet", state.address))),
    }
    if area.height >= 10 {
        for line in notes(state, looks, area.height) {
            lines.put(frame, line);
        }
    }
    if area.height >= 8 {
        lines.put(frame, tabs(state));
        lines.put_below(frame, last(state));
    }
    if state.is_helping {
        for help in HELP {
            lines.put(frame, Line::raw(*help));
        }
    } else if let Some(numbers) = &state.numbers {
        body(frame, state, numbers, looks, lines);
    }
}

/// Lines one after the other, for as long as there is room.
struct Lines {
    area: Rect,
    /// Lines that are used above, and below.
    at: u16,
    below: u16,
}

impl Lines {
    fn left(&self) -> u16 {
        self.area.height.saturating_sub(self.at + self.below)
    }
    fn put(&mut self, frame: &mut Frame<'_>, line: Line<'_>) {
        if self.left() > 0 {
            let area = Rect { y: self.area.y + self.at, height: 1, ..self.area };
            frame.render_widget(line, area);
            self.at += 1;
        }
    }
    fn put_below(&mut self, frame: &mut Frame<'_>, line: Line<'_>) {
        if self.left() > 0 {
            self.below += 1;
            let area = Rect { y: self.area.y + self.area.height - self.below, height: 1, ..self.area };
            frame.render_widget(line, area);
        }
    }
}

/// Who is asked; where there is no answer, since when and why.
fn first(state: &State, looks: Looks, now: Instant) -> Line<'static> {
    let marked = |text: String, colour: Color| {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        Span::styled(text, if looks.colour { style.fg(colour) } else { style })
    };
    if let Some((silent, why)) = state.silence(now) {
        let text = format!("no answer for {} s from {}: {why}", silent.as_secs(), state.address);
        return Line::from(marked(text, Color::Red));
    }
    let version = state.numbers.as_ref().and_then(version).unwrap_or_default();
    let mut spans = vec![
        Span::styled("ringway", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{version} at {}, every {:?}", state.address, state.every)),
    ];
    if state.is_paused {
        spans.extend([Span::raw("  "), marked(" stands still ".to_owned(), Color::Yellow)]);
    }
    Line::from(spans)
}

fn version(numbers: &Numbers) -> Option<String> {
    let (labels, _) = numbers.now.counts.of(super::counts::Family::Version, &[]).next()?;
    Some(format!(" {}", super::clean(labels.first()?)))
}

/// What stands out, in as many lines as a screen of this height can spare.
fn notes(state: &State, looks: Looks, height: u16) -> Vec<Line<'static>> {
    let Some(numbers) = &state.numbers else { return Vec::new() };
    let mut found = stands_out(numbers);
    if numbers.restarts > 0 {
        let times =
            if numbers.restarts == 1 { String::new() } else { format!(" {} times", numbers.restarts) };
        found.push((Tone::Plain, format!("another process took over{times} since: its counts began anew")));
    }
    let most = if height >= ROOM { 3 } else { 1 };
    let more = found.len().saturating_sub(most);
    found.truncate(most);
    if let Some((_, text)) = found.last_mut()
        && more > 0
    {
        *text = format!("(and {more} more) {text}");
    }
    if found.is_empty() {
        found.push((Tone::Plain, "nothing stands out".to_owned()));
    }
    found.into_iter().map(|(tone, text)| Line::styled(text, tone.style(looks.colour))).collect()
}

fn tabs(state: &State) -> Line<'static> {
    let tab = |(at, view): (usize, &View)| {
        let style = Style::new();
        let style = if *view == state.view { style.add_modifier(Modifier::REVERSED) } else { style };
        [Span::styled(format!("{} {}", at + 1, view.title()), style), Span::raw("  ")]
    };
    Line::from_iter(View::ALL.iter().enumerate().flat_map(tab))
}

fn last(state: &State) -> Line<'static> {
    match (state.is_typing, &*state.filter) {
        (true, filter) => Line::raw(format!("only rows with: {filter}_")),
        (false, "") => Line::raw(KEYS),
        (false, filter) => Line::raw(format!("only rows with {filter:?} (esc: all)  {KEYS}")),
    }
}

fn body(frame: &mut Frame<'_>, state: &State, numbers: &Numbers, looks: Looks, mut lines: Lines) {
    if state.view == View::Traffic && looks.unicode && frame.area().height >= ROOM {
        curve(frame, numbers, &mut lines);
    }
    if state.view == View::Shards
        && let Some(text) = evenness(numbers)
    {
        lines.put(frame, Line::raw(text));
    }
    let Some(table) = state.table(state.view) else { return };
    let (title, rows) = table.lines(usize::from(frame.area().width), Some(state.sort()), looks.colour);
    lines.put(frame, title);
    let room = usize::from(lines.left());
    let above = state.above.min(rows.len().saturating_sub(room));
    let all = rows.len();
    for row in rows.into_iter().skip(above) {
        lines.put(frame, row);
    }
    if all == 0 {
        lines.put(frame, Line::raw(if state.filter.is_empty() { "none" } else { "no row has that" }));
    }
}

/// Requests a second over the last minutes.
fn curve(frame: &mut Frame<'_>, numbers: &Numbers, lines: &mut Lines) {
    let (width, all) = (usize::from(frame.area().width), &numbers.history);
    let shown = all.iter().skip(all.len().saturating_sub(width));
    // A rate is no more than a u64 holds, and a curve needs no fractions of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are not negative")]
    let points: Vec<Option<u64>> = shown.map(|rate| rate.map(|rate| rate as u64)).collect();
    let most = points.iter().flatten().max().copied().unwrap_or(0);
    let text = format!("requests a second, one interval a column; at most {}", short(most as f64));
    lines.put(frame, Line::raw(text));
    let area = Rect { y: frame.area().y + lines.at, height: CURVE.min(lines.left()), ..frame.area() };
    frame.render_widget(Sparkline::default().data(&points), area);
    lines.at += area.height;
}

/// Every view, one below the other.
pub(super) fn text(state: &State, now: Instant) -> String {
    let plain = Looks { colour: false, unicode: false };
    let mut lines = vec![first(state, plain, now).to_string()];
    if let Some(numbers) = &state.numbers {
        lines.push(summary(numbers));
        lines.extend(stands_out(numbers).into_iter().map(|(_, text)| text));
        for view in View::ALL {
            lines.push(format!("\n{}", view.title()));
            let Some(table) = state.table(view) else { continue };
            let (title, rows) = table.lines(TEXT_WIDTH, None, false);
            let more = rows.len().saturating_sub(TEXT_ROWS);
            lines.push(title.to_string());
            lines.extend(rows.iter().take(TEXT_ROWS).map(ToString::to_string));
            if more > 0 {
                lines.push(format!("(and {more} more)"));
            }
        }
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}
