//! Sets of statuses, as the keys of a cluster name them.

/// A set of the statuses 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses([u64; 4]);

impl Statuses {
    pub const FIRST: u16 = 400;
    pub const LAST: u16 = 599;
    /// 500 to 599.
    pub const SERVER_ERRORS: Self = {
        let mut set = Self([0; 4]);
        let mut status = 500;
        while status <= Self::LAST {
            let at = (status - Self::FIRST) as usize;
            set.0[at / 64] |= 1 << (at % 64);
            status += 1;
        }
        set
    };

    /// Adds a status; false if it is none of those that a set may hold.
    pub fn add(&mut self, status: u16) -> bool {
        let known = (Self::FIRST..=Self::LAST).contains(&status);
        if known {
            let at = usize::from(status - Self::FIRST);
            self.0[at / 64] |= 1 << (at % 64);
        }
        known
    }
    pub fn has(&self, status: u16) -> bool {
        status
            .checked_sub(Self::FIRST)
            .map(usize::from)
            .is_some_and(|at| self.0.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added() {
        let mut set = Statuses::default();
        assert!(!set.add(399) && !set.add(600));
        for status in [400, 463, 464, 503, 599] {
            assert!(set.add(status));
        }
        let held: Vec<u16> = (0..=u16::MAX).filter(|status| set.has(*status)).collect();
        assert_eq!(held, [400, 463, 464, 503, 599]);
        let errors: Vec<u16> = (0..=u16::MAX).filter(|s| Statuses::SERVER_ERRORS.has(*s)).collect();
        assert_eq!(errors, (500..600).collect::<Vec<u16>>());
    }
}
