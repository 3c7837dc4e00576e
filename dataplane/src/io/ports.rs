//! Local ports to connect from.

use std::fmt;

/// Local ports, the first and the last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range; `None` if it is empty or begins with port 0, which is none.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }
    pub fn first(self) -> u16 {
        self.first
    }
    pub fn last(self) -> u16 {
        self.last
    }
    /// How many ports it has, 1 to 65,535.
    pub fn len(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }
    /// Never: a range has at least one port.
    pub fn is_empty(self) -> bool {
        false
    }
    /// `width` neighbouring ports of it, which ones `draw` decides; the whole range if it has no more.
    #[must_use]
    pub fn window(self, width: u16, draw: u64) -> Self {
        let places = self.len().saturating_sub(u32::from(width)) + 1;
        if places == 1 || width == 0 {
            return self;
        }
        // Below `places`, which is at most 65,535.
        let first = self.first + u16::try_from(draw % u64::from(places)).unwrap_or(0);
        Self { first, last: first + (width - 1) }
    }
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
    /// What the kernel makes of this range of a socket on a machine with that one (ip(7), IP_LOCAL_PORT_RANGE): an end
    /// outside the machine's range has no effect.
    #[must_use]
    pub fn within(self, machine: Self) -> Self {
        let first = if machine.contains(self.first) { self.first } else { machine.first };
        let left = Self { first, last: machine.last };
        Self { first, last: if left.contains(self.last) { self.last } else { machine.last } }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn ranges_are_counted() {
        assert_eq!(
            (range(32_768, 60_999).len(), range(7, 7).len(), range(1, u16::MAX).len()),
            (28_232, 1, 65_535)
        );
        assert_eq!([PortRange::new(0, 9), PortRange::new(9, 8)], [None; 2]);
        assert_eq!(range(10, 20).to_string(), "10-20");
        assert!(range(10, 20).contains(10) && range(10, 20).contains(20) && !range(10, 20).contains(21));
    }

    #[test]
    fn a_window_lies_within() {
        let all = range(32_768, 60_999);
        for draw in [0, 1, 28_104, 28_105, u64::MAX] {
            let window = all.window(128, draw);
            assert!(window.len() == 128 && all.contains(window.first) && all.contains(window.last), "{draw}");
        }
        assert_eq!((all.window(128, 28_104).last, all.window(128, 28_105).first), (60_999, 32_768));
        assert_eq!([range(5, 9).window(128, 3), range(5, 9).window(5, 3)], [range(5, 9); 2]);
        assert_eq!(range(1, u16::MAX).window(1, 65_534), range(u16::MAX, u16::MAX));
    }

    #[test]
    fn the_machine_bounds_a_socket() {
        let machine = range(32_768, 60_999);
        for (asked, had) in [
            (range(40_000, 50_000), range(40_000, 50_000)),
            (range(10_000, 60_999), machine),
            (range(10_000, 40_000), range(32_768, 40_000)),
            (range(50_000, 65_000), range(50_000, 60_999)),
            (range(1, 9), machine),
            (range(61_000, 65_000), machine),
        ] {
            assert_eq!(asked.within(machine), had, "{asked}");
        }
    }
}
