//! A file in pieces, so that its routes, of which there may be thousands, are parsed some at a time: the tree of a piece is gone
//! before the next one is made, and one that fits the caches is made in half the time of one of 60 MiB.
//!
//! Pieces end where lines look like headers. That this is right is not assumed but checked: where a piece, or what is left, is no
//! TOML by itself, the file is parsed as a whole. If all of them are, the file is what they are one after the other.

use memchr::memmem;
use std::ops::Range;

const HEADER: &str = "[[route]]";
/// Bytes of a piece, from which on the next route begins another.
const PIECE_BYTES: usize = 16 * 1024;

/// A text and where its routes stand in it.
#[derive(Debug)]
pub(super) struct Pieces<'t> {
    text: &'t str,
    /// All else at its place: each stretch of routes is one header, and spaces.
    pub(super) rest: String,
    /// Headers in `rest`.
    pub(super) stretches: usize,
    places: Vec<Range<usize>>,
    /// Routes in all.
    pub(super) routes: usize,
}

impl<'t> Pieces<'t> {
    /// None where lines cannot tell where routes stand, or there are none.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        if has_long_strings(text) {
            return None;
        }
        let mut pieces = Self { text, rest: String::new(), stretches: 0, places: Vec::new(), routes: 0 };
        let mut stretch: Option<Range<usize>> = None;
        // What is before this is in `rest`.
        let mut at = 0;
        for (line, header) in headers(text) {
            match header {
                Header::Tables("route") => {
                    // A header that is not closed is for the parser to tell of.
                    if !text[line..].trim_start_matches([' ', '\t']).starts_with(HEADER) {
                        return None;
                    }
                    pieces.routes += 1;
                    pieces.begin(line, stretch.is_none());
                    stretch.get_or_insert(line..line);
                }
                Header::Table(path) | Header::Tables(path) if path.starts_with("route.") => {}
                _ => {
                    if let Some(stretch) = stretch.take() {
                        pieces.leave_out(&mut at, stretch.start..line);
                    }
                }
            }
        }
        if let Some(stretch) = stretch {
            pieces.leave_out(&mut at, stretch.start..text.len());
        }
        pieces.rest.push_str(&text[at..]);
        (pieces.routes > 0).then_some(pieces)
    }

    /// A route begins, in the piece before it or in one of its own.
    fn begin(&mut self, from: usize, is_first: bool) {
        match self.places.last_mut() {
            Some(last) if !is_first && from - last.start < PIECE_BYTES => {}
            last => {
                if let (Some(last), false) = (last, is_first) {
                    last.end = from;
                }
                self.places.push(from..from);
            }
        }
    }

    fn leave_out(&mut self, at: &mut usize, stretch: Range<usize>) {
        self.stretches += 1;
        self.rest.push_str(&self.text[*at..stretch.start]);
        // Within a value that is not at its end this is as wrong as the routes are.
        self.rest.push_str(HEADER);
        let spaces = stretch.len() - HEADER.len();
        self.rest.push_str(&" ".repeat(spaces.saturating_sub(1)));
        self.rest.push_str(if spaces > 0 { "\n" } else { "" });
        if let Some(last) = self.places.last_mut() {
            last.end = stretch.end;
        }
        *at = stretch.end;
    }

    /// Each piece of routes, with its place in the text.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, &'t str)> {
        self.places.iter().map(|place| (place.start, &self.text[place.clone()]))
    }
}

/// Whether there are strings of several lines, in which anything may stand.
pub(super) fn has_long_strings(text: &str) -> bool {
    ["\"\"\"", "'''"].iter().any(|quotes| memmem::find(text.as_bytes(), quotes.as_bytes()).is_some())
}

/// What a line looks like that begins as a header does: the path of a table, or of one among several. It ends at the first
/// bracket, wherever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header<'t> {
    Table(&'t str),
    Tables(&'t str),
}

/// Every such line, by where it begins.
pub(super) fn headers(text: &str) -> impl Iterator<Item = (usize, Header<'_>)> {
    let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1));
    lines.filter_map(|line| {
        let rest = text[line..].trim_start_matches([' ', '\t']).strip_prefix('[')?;
        let (many, rest) = rest.strip_prefix('[').map_or((false, rest), |rest| (true, rest));
        let path = rest.split_once(']').map_or("", |(path, _)| path);
        Some((line, if many { Header::Tables(path) } else { Header::Table(path) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_left_out_and_all_else_stays_where_it_is() {
        let text = "version = 1\n[[route]]\nname = \"a\"\n[route.match]\npath = \"/\"\n  [[route]]\nname = \"ä\"\n[[listener]]\nname = \"l\"\n\
            [[route]]\n[[route.error_page]]\nstatus = 503";
        let pieces = Pieces::of(text).unwrap();
        assert_eq!((pieces.routes, pieces.stretches, pieces.rest.len()), (3, 2, text.len()));
        let at = text.find("[[listener").unwrap();
        assert_eq!(pieces.rest[at..].lines().next(), Some("[[listener]]"));
        assert_eq!(
            pieces.rest.trim_end().lines().map(str::trim).collect::<Vec<_>>(),
            ["version = 1", "[[route]]", "[[listener]]", "name = \"l\"", "[[route]]"]
        );
        let each: Vec<_> =
            pieces.each().map(|(at, piece)| (&text[at..][..piece.len()] == piece, piece)).collect();
        assert!(each.iter().all(|(same, _)| *same));
        assert!(
            each[0].1.starts_with("[[route]]\nname = \"a\"") && each[0].1.ends_with("\"ä\"\n"),
            "{each:?}"
        );
        assert_eq!(each[1].1, "[[route]]\n[[route.error_page]]\nstatus = 503");
    }

    #[test]
    fn pieces_are_of_whole_routes_and_of_some_size() {
        let route = |n: usize| format!("[[route]]\nname = \"{n:0999}\"\n");
        let text: String = (0..100).map(route).collect();
        let pieces = Pieces::of(&text).unwrap();
        let each: Vec<_> = pieces.each().map(|(_, piece)| piece).collect();
        assert_eq!(each.concat(), text);
        assert!(each.iter().all(|piece| piece.starts_with("[[route]]") && piece.len() < PIECE_BYTES + 2000));
        assert_eq!((each.len(), pieces.routes), (6, 100));
    }

    #[test]
    fn what_lines_cannot_tell_is_not_told() {
        for text in ["", "a = 1\n", "x = \"\"\"\n[[route]]\n\"\"\"\n", "x = '''\n[[route]]\n'''\n"] {
            assert!(Pieces::of(text).is_none(), "{text}");
        }
    }
}
