//! When an endpoint changes: `rise` and `fall` checks in a row, counted exactly, so that one that alternates never does.

use super::spec::{Check, Initial};

/// What the checks of one endpoint say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streak {
    up: bool,
    /// Nothing is known yet, and the first check decides.
    open: bool,
    /// Checks in a row that said otherwise than `up`.
    against: u32,
}

impl Streak {
    pub(crate) fn new(initial: Initial) -> Self {
        Self { up: initial == Initial::Up, open: initial == Initial::Probing, against: 0 }
    }

    /// Whether it is up; `None` before the first check where that decides.
    pub(crate) fn known(&self) -> Option<bool> {
        (!self.open).then_some(self.up)
    }

    /// Takes note of a check. True if the endpoint is now what it was not before.
    pub(crate) fn note(&mut self, passed: bool, check: &Check) -> bool {
        if self.open {
            *self = Self { up: passed, open: false, against: 0 };
            return true;
        }
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let changed = self.against >= if self.up { check.fall } else { check.rise };
        if changed {
            *self = Self { up: passed, open: false, against: 0 };
        }
        changed
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Some checks said otherwise, not yet enough of them; or none was made and the first one decides.
    pub(crate) fn is_changing(&self) -> bool {
        self.open || self.against > 0
    }

    /// The word for it in the API.
    pub(crate) fn word(&self) -> &'static str {
        match (self.open, self.up, self.against > 0) {
            (true, ..) => "probing",
            (_, true, false) => "up",
            (_, true, true) => "going down",
            (_, false, false) => "down",
            (_, false, true) => "going up",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rise: u32, fall: u32, initial: Initial) -> Check {
        Check { rise, fall, initial, ..Check::connect() }
    }

    /// The words after each check, `+` passed and `-` failed; a change is marked.
    fn walk(check: &Check, checks: &str) -> Vec<String> {
        let mut streak = Streak::new(check.initial);
        let step = |c: char| {
            let changed = streak.note(c == '+', check);
            format!("{}{}", streak.word(), if changed { "!" } else { "" })
        };
        checks.chars().map(step).collect()
    }

    #[test]
    fn rise_and_fall_are_counted_in_a_row() {
        let up = check(2, 3, Initial::Up);
        assert_eq!(
            walk(&up, "--+---+-++-"),
            [
                "going down",
                "going down",
                "up",
                "going down",
                "going down",
                "down!",
                "going up",
                "down",
                "going up",
                "up!",
                "going down"
            ]
        );
        assert_eq!(walk(&check(1, 1, Initial::Up), "-+-"), ["down!", "up!", "down!"]);
    }

    #[test]
    fn one_that_alternates_never_changes() {
        for (initial, fall) in [(Initial::Up, 3), (Initial::Up, 2), (Initial::Down, 3)] {
            let words = walk(&check(2, fall, initial), &"-+".repeat(100));
            assert!(words.iter().all(|word| !word.ends_with('!')), "{initial:?}, fall {fall}");
        }
    }

    #[test]
    fn what_is_before_the_first_check() {
        assert!(Streak::new(Initial::Up).is_up());
        assert!(!Streak::new(Initial::Down).is_up() && !Streak::new(Initial::Down).is_changing());
        let probing = Streak::new(Initial::Probing);
        assert_eq!((probing.is_up(), probing.is_changing(), probing.word()), (false, true, "probing"));
        assert_eq!(walk(&check(2, 3, Initial::Down), "++"), ["going up", "up!"]);
        assert_eq!(walk(&check(2, 3, Initial::Probing), "+--"), ["up!", "going down", "going down"]);
        assert_eq!(walk(&check(2, 3, Initial::Probing), "-+"), ["down!", "going up"]);
    }
}
