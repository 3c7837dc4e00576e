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
