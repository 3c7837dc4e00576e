//! The first look at a head, octet by octet in order, so that any cut of the bytes gives the same outcome.
//!
//! Everything that needs no meaning is decided here, as soon as its octet is there: line ends, control octets, sizes,
//! counts, folding. Garbage is therefore answered at once and not when the head's deadline ends. No octet is looked at
//! twice (but a CR that is still alone), so a head that comes byte by byte costs O(n).

use super::octets::{find_control, is_blank};
use crate::fault::Refusal;
use crate::limits::LEADING_EMPTY_LINES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
enum Part {
    /// Empty lines before the start line.
    #[default]
    Leading,
    StartLine,
    Fields,
}

/// How far a head was examined. Keep it beside the bytes; reset it with `Scan::default()` for the next head.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Octets examined, from the first byte.
    at: u32,
    /// Where the line under examination starts.
    line: u32,
    /// Where the field lines start; only in `Part::Fields`.
    block: u32,
    fields: u16,
    leading: u8,
    part: Part,
}

const _: () = assert!(size_of::<Scan>() <= 16);

/// What bounds the scan, and what it calls each fault: requests and responses differ in both.
pub(super) struct Rules {
    pub(super) start_line: u32,
    pub(super) block: u32,
    pub(super) fields: u32,
    pub(super) leading: usize,
    pub(super) start_line_too_long: Refusal,
    pub(super) block_too_large: Refusal,
    pub(super) too_many_fields: Refusal,
    /// Each of `Refusal::{BareLf, BareCr, ...}` as this kind of message names it.
    pub(super) fault: fn(Refusal) -> Refusal,
}

/// A whole head: its start line is `bytes[start..fields]` with its CRLF, its field lines and the last, empty one are
/// `bytes[fields..end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: usize,
    pub(super) fields: usize,
    pub(super) end: usize,
}

impl Scan {
    /// Whether nothing but empty lines came yet: an idle connection, not a slow request.
    pub fn is_idle(&self) -> bool {
        self.part == Part::Leading
    }

    /// Whether no octet was examined yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.at == 0
    }

    /// Octets examined so far.
    pub fn examined(&self) -> usize {
        self.at as usize
    }

    /// Examines what is new in `bytes`. `check_start_line` sees the start line, without CRLF, once it is whole.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        rules: &Rules,
        check_start_line: impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<Option<Extent>, Refusal> {
        // No head is longer than one large lease; the cut keeps the arithmetic in u32 for any caller.
        let bytes = &bytes[..bytes.len().min(1 << 30)];
        loop {
            self.skip_plain(bytes, rules)?;
            let at = self.at as usize;
            let Some(&octet) = bytes.get(at) else { return Ok(None) };
            match octet {
                b'\r' => match bytes.get(at + 1) {
                    None => return Ok(None),
                    Some(b'\n') => {}
                    Some(_) => return Err((rules.fault)(Refusal::BareCr)),
                },
                b'\n' => return Err((rules.fault)(Refusal::BareLf)),
                b'\t' => {
                    self.at += 1;
                    continue;
                }
                _ => return Err((rules.fault)(Refusal::ControlCharacter)),
            }
            let line = &bytes[self.line as usize..at];
            self.at += 2;
            if let Some(extent) = self.end_line(line, rules, &check_start_line)? {
                return Ok(Some(extent));
            }
        }
    }

    /// Moves `at` to the next control octet or the end of the bytes, within the limits.
    fn skip_plain(&mut self, bytes: &[u8], rules: &Rules) -> Result<(), Refusal> {
        let at = self.at as usize;
        let Some(&first) = bytes.get(at) else { return Ok(()) };
        if self.at == self.line && first != b'\r' {
            self.begin_line(first, rules)?;
        }
        // The room ends where only a CR may stand; an octet there that is none says "too large", whatever it is.
        let (room_end, too_large) = match self.part {
            Part::Leading => return Ok(()), // a CR, by begin_line
            Part::StartLine => (self.line + rules.start_line, rules.start_line_too_long),
            // The CRLF of a field line counts as part of the block, that of the last, empty line does not.
            Part::Fields if bytes[self.line as usize] == b'\r' => {
                (self.block + rules.block, rules.block_too_large)
            }
            Part::Fields => ((self.block + rules.block).saturating_sub(2), rules.block_too_large),
        };
        let room_end = room_end as usize;
        let window = &bytes[at..bytes.len().min(room_end.max(at))];
        let plain = find_control(window);
        self.at += to_u32(plain);
        let at = self.at as usize;
        match bytes.get(at) {
            Some(octet) if at >= room_end && *octet != b'\r' => Err(too_large),
            _ => Ok(()),
        }
    }

    /// The first octet of a line that is not empty.
    fn begin_line(&mut self, first: u8, rules: &Rules) -> Result<(), Refusal> {
        match self.part {
            Part::Leading => self.part = Part::StartLine,
            Part::StartLine => {}
            Part::Fields if is_blank(first) => {
                let fault = if self.fields == 0 { Refusal::LeadingSpace } else { Refusal::FoldedField };
                return Err((rules.fault)(fault));
            }
            Part::Fields if u32::from(self.fields) >= rules.fields => return Err(rules.too_many_fields),
            Part::Fields => {}
        }
        Ok(())
    }

    /// A line ended with CRLF; `at` stands behind it.
    fn end_line(
        &mut self,
        line: &[u8],
        rules: &Rules,
        check_start_line: &impl Fn(&[u8]) -> Result<(), Refusal>,
    ) -> Result<Option<Extent>, Refusal> {
        match self.part {
            Part::Leading => {
                self.leading += 1;
                if usize::from(self.leading) > rules.leading {
                    return Err((rules.fault)(Refusal::TooManyEmptyLines));
                }
            }
            Part::StartLine => {
                check_start_line(line)?;
                self.part = Part::Fields;
                self.block = self.at;
            }
            Part::Fields if line.is_empty() => {
                let start = usize::from(self.leading) * 2;
                return Ok(Some(Extent { start, fields: self.block as usize, end: self.at as usize }));
            }
            Part::Fields => self.fields += 1,
        }
        self.line = self.at;
        Ok(None)
    }
}

const _: () = assert!(LEADING_EMPTY_LINES < 128, "counted in a u8");

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
