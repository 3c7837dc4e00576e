//! Tables: cells that sort as numbers or as text, columns that give way on a narrow screen.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use std::cmp::Ordering;

/// How much a row matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Warn,
    Bad,
}

impl Tone {
    pub(super) fn style(self, colour: bool) -> Style {
        match (self, colour) {
            (Self::Plain, _) => Style::new(),
            (Self::Warn, true) => Style::new().fg(Color::Yellow),
            (Self::Bad, true) => Style::new().fg(Color::Red),
            (Self::Warn, false) => Style::new().add_modifier(Modifier::BOLD),
            (Self::Bad, false) => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        }
    }
}

/// One cell: its text, and the number that it sorts by, where it is one.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    number: Option<f64>,
}

impl Cell {
    /// A text of ours, or one that is [`super::clean`].
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: None }
    }
    /// A number as it is written, "-" where there is none.
    pub(super) fn number(number: Option<f64>, write: fn(f64) -> String) -> Self {
        Self { text: number.map_or_else(|| "-".to_owned(), write), number: Some(number.unwrap_or(-1.0)) }
    }
    fn order(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => self.text.cmp(&other.text),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    pub(super) tone: Tone,
}

/// A column: its title, whether it is numbers, which stand to the right, and how early it goes where the screen is narrow: the highest
/// first, 0 never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) right: bool,
    pub(super) gives_way: u8,
}

pub(super) const fn words(title: &'static str, gives_way: u8) -> Column {
    Column { title, right: false, gives_way }
}

pub(super) const fn figures(title: &'static str, gives_way: u8) -> Column {
    Column { title, right: true, gives_way }
}

/// By which column, and whether the largest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) down: bool,
}

/// Rows of one view.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
}

/// A column's width at most: names may be long.
const WIDEST: usize = 48;

impl Table {
    /// Only rows of which a cell holds `filter`, without regard to case.
    pub(super) fn filter(&mut self, filter: &str) {
        let wanted = filter.to_lowercase();
        self.rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted)));
    }

    pub(super) fn sort(&mut self, sort: Sort) {
        self.rows.sort_by(|one, other| {
            let (one, other) = (one.cells.get(sort.column), other.cells.get(sort.column));
            let order = one.zip(other).map_or(Ordering::Equal, |(one, other)| one.order(other));
            if sort.down { order.reverse() } else { order }
        });
    }

    /// The title and the rows in a width. What does not fit is left out: columns by their order, then what stands to the right.
    pub(super) fn lines(
        &self,
        width: usize,
        sort: Option<Sort>,
        colour: bool,
    ) -> (Line<'static>, Vec<Line<'static>>) {
        let widths = self.widths();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let wide = |shown: &[usize]| shown.iter().map(|at| widths[*at] + 1).sum::<usize>().saturating_sub(1);
        while wide(&shown) > width {
            let first = shown.iter().copied().filter(|at| self.columns[*at].gives_way > 0);
            let Some(goes) = first.max_by_key(|at| self.columns[*at].gives_way) else { break };
            shown.retain(|at| *at != goes);
        }
        // Room that is left stands between columns.
        let gaps = shown.len().saturating_sub(1);
        let gap = 1 + width.saturating_sub(wide(&shown)).checked_div(gaps).unwrap_or(0).min(2);
        let last = shown.last().copied();
        let title = shown.iter().flat_map(|at| {
            let column = self.columns[*at];
            let is_sorted = sort.is_some_and(|sort| sort.column == *at);
            let style =
                Style::new().add_modifier(if is_sorted { Modifier::REVERSED } else { Modifier::BOLD });
            spans(column.title.to_owned(), style, column.right, widths[*at], gap, last == Some(*at))
        });
        let rows = self.rows.iter().map(|row| {
            let style = row.tone.style(colour);
            let cells = shown.iter().filter_map(|at| Some((*at, row.cells.get(*at)?)));
            let cells = cells.flat_map(|(at, cell)| {
                spans(cell.text.clone(), style, self.columns[at].right, widths[at], gap, last == Some(at))
            });
            Line::from_iter(cells)
        });
        (Line::from_iter(title), rows.collect())
    }

    fn widths(&self) -> Vec<usize> {
        let last = self.columns.len().saturating_sub(1);
        let of = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| Some(wide(&row.cells.get(at)?.text)));
            let widest = cells.chain([column.title.len()]).max().unwrap_or(0);
            // The last one may run out of the screen, if it cannot give way.
            if at == last && !column.right && column.gives_way == 0 {
                column.title.len()
            } else {
                widest.min(WIDEST)
            }
        };
        self.columns.iter().enumerate().map(of).collect()
    }
}

fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// One cell in its width, and the gap behind it.
fn spans(
    text: String,
    style: Style,
    right: bool,
    width: usize,
    gap: usize,
    is_last: bool,
) -> Vec<Span<'static>> {
    if is_last && !right {
        return vec![Span::styled(text, style)];
    }
    let text = cut(text, width);
    let space = " ".repeat(width.saturating_sub(wide(&text)));
    let (text, space) = (Span::styled(text, style), Span::raw(space));
    let mut spans = if right { vec![space, text] } else { vec![text, space] };
    if !is_last {
        spans.push(Span::raw(" ".repeat(gap)));
    }
    spans
}

/// What of a text stands in a width; "~" says that there is more.
fn cut(text: String, width: usize) -> String {
    if wide(&text) <= width {
        return text;
    }
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if wide(&out) >= width {
            out.pop();
            break;
        }
    }
    out + "~"
}

/// A count as it is: 12345.
pub(super) fn count(number: f64) -> String {
    format!("{number:.0}")
}

/// A rate or another number of which three digits are enough: 0.4, 12, 1.2k, 34M.
pub(super) fn short(number: f64) -> String {
    let (scaled, unit) = scaled(number);
    match scaled {
        0.0 => "0".to_owned(),
        scaled if scaled < 9.95 => format!("{scaled:.1}{unit}"),
        scaled => format!("{scaled:.0}{unit}"),
    }
}

/// Bytes: 0, 12kB, 1.2MB.
pub(super) fn bytes(number: f64) -> String {
    if number < 1000.0 { format!("{number:.0}B") } else { format!("{}B", short(number)) }
}

fn scaled(number: f64) -> (f64, &'static str) {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let (mut left, mut at) = (number, 0);
    // What is rounded to 1000 is a unit more.
    while left >= 999.5 && at + 1 < units.len() {
        left /= 1000.0;
        at += 1;
    }
    (left, units[at])
}

/// Seconds: 850us, 1.2ms, 3.4s.
pub(super) fn time(seconds: f64) -> String {
    let (number, unit) = match seconds {
        short if short < 0.000_999_5 => (short * 1e6, "us"),
        short if short < 0.999_5 => (short * 1e3, "ms"),
        long => (long, "s"),
    };
    if number < 9.95 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

/// A share of one: 42%.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let written =
            [0.0, 0.04, 0.4, 9.94, 9.96, 999.0, 999.6, 1234.0, 12_345.0, 999_600.0, 5e9, 1e30].map(short);
        assert_eq!(
            written,
            ["0", "0.0", "0.4", "9.9", "10", "999", "1.0k", "1.2k", "12k", "1.0M", "5.0G", "1000000000000E"]
        );
        assert_eq!([0.0, 999.0, 1000.0, 1.5e6].map(bytes), ["0B", "999B", "1.0kB", "1.5MB"]);
        assert_eq!(
            [0.000_032, 0.000_85, 0.001, 0.0123, 0.9996, 67.1].map(time),
            ["32us", "850us", "1.0ms", "12ms", "1.0s", "67s"]
        );
        assert_eq!([0.0, 0.424, 1.0].map(percent), ["0%", "42%", "100%"]);
    }

    fn table() -> Table {
        static COLUMNS: &[Column] =
            &[words("NAME", 0), figures("RATE", 0), words("STATE", 2), figures("MORE", 1)];
        let row = |name: &str, rate, state: &str| Row {
            cells: vec![
                Cell::text(name),
                Cell::number(rate, short),
                Cell::text(state),
                Cell::number(Some(1.0), count),
            ],
            tone: Tone::Plain,
        };
        Table {
            columns: COLUMNS,
            rows: vec![row("b", Some(9.0), "up"), row("a", Some(10.0), "down"), row("c", None, "up")],
        }
    }

    fn written(table: &Table, width: usize) -> Vec<String> {
        let (title, rows) = table.lines(width, None, true);
        [title].iter().chain(&rows).map(ToString::to_string).collect()
    }

    #[test]
    fn columns_give_way_in_their_order() {
        let mut table = table();
        table.sort(Sort { column: 1, down: true });
        assert_eq!(written(&table, 20)[1], "a      10 down     1");
        assert_eq!(written(&table, 19)[..2], ["NAME   RATE   MORE", "a        10      1"]);
        assert_eq!(written(&table, 12)[..2], ["NAME   RATE", "a        10"]);
        assert_eq!(written(&table, 3)[1], "a      10");
    }

    #[test]
    fn rows_sort_and_are_filtered() {
        let mut table = table();
        let names =
            |table: &Table| table.rows.iter().map(|row| row.cells[0].text.clone()).collect::<String>();
        for (column, down, want) in
            [(0, false, "abc"), (0, true, "cba"), (1, false, "cba"), (1, true, "abc"), (9, true, "abc")]
        {
            table.sort(Sort { column, down });
            assert_eq!(names(&table), want, "{column} {down}");
        }
        table.filter("UP");
        assert_eq!(names(&table), "bc");
    }

    #[test]
    fn long_names_are_cut_by_their_width() {
        assert_eq!(cut("abcdef".to_owned(), 4), "abc~");
        assert_eq!(cut("abcd".to_owned(), 4), "abcd");
        assert_eq!(wide(&cut("日本語日本語".to_owned(), 6)), 5);
    }
}
