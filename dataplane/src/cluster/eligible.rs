//! Whether an endpoint may be used: the one function that decides it, of all that is said of the endpoint.

/// What the operator says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Admin {
    Ready,
    /// Goes on for those who stick to it, and takes nobody new.
    Drain,
    /// Takes nothing.
    Maint,
}

/// What the active checks say of an endpoint; `Up` where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Health {
    Up,
    Down,
}

/// What an endpoint's circuit breaker says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Breaker {
    Closed,
    /// Failed too often, and its time to recover is not over.
    Open,
    /// That time is over: one request may try.
    HalfOpen,
    /// That one request is under way.
    Trying,
}

/// What an endpoint may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Eligible {
    /// Anything.
    Yes,
    /// Those who stick to it.
    StickyOnly,
    /// One request, of the whole node, that finds out whether it works again.
    Trial,
    No(Why),
}

/// Why an endpoint may not be used; of several reasons the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    Maint,
    /// The active checks say so.
    Down,
    /// Live traffic failed at it too often.
    Ejected,
    /// Its circuit breaker is open, or half-open with a trial under way or nobody who may try.
    BreakerOpen,
}

impl Admin {
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// Its word in commands, events and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Health {
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// Its word in events and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl Breaker {
    pub const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::Trying];

    /// Whether it lets nobody pass, not even for a trial.
    pub const fn is_shut(self) -> bool {
        matches!(self, Self::Open | Self::Trying)
    }

    /// Its word in events and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Trying => "half-open, trial under way",
        }
    }
}

impl Eligible {
    /// Its word in answers of the admin side and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::StickyOnly => "sticky only",
            Self::Trial => "one trial",
            Self::No(Why::Maint) => "no: maint",
            Self::No(Why::Down) => "no: down",
            Self::No(Why::Ejected) => "no: ejected",
            Self::No(Why::BreakerOpen) => "no: breaker open",
        }
    }
    /// Whether new requests may be sent there: all, or one.
    pub const fn takes_new(self) -> bool {
        matches!(self, Self::Yes | Self::Trial)
    }
}

/// What an endpoint may be used for. docs/operations/health.md has the whole table, which a test keeps true.
pub const fn eligible(admin: Admin, health: Health, ejected: bool, breaker: Breaker) -> Eligible {
    match (admin, health, ejected, breaker) {
        (Admin::Maint, ..) => Eligible::No(Why::Maint),
        (_, Health::Down, ..) => Eligible::No(Why::Down),
        (_, _, true, _) => Eligible::No(Why::Ejected),
        (_, _, _, Breaker::Open | Breaker::Trying) => Eligible::No(Why::BreakerOpen),
        // A trial is a new request, and whoever sticks to it must not be the one who tries.
        (Admin::Drain, _, _, Breaker::HalfOpen) => Eligible::No(Why::BreakerOpen),
        (Admin::Ready, _, _, Breaker::HalfOpen) => Eligible::Trial,
        (Admin::Drain, _, _, Breaker::Closed) => Eligible::StickyOnly,
        (Admin::Ready, _, _, Breaker::Closed) => Eligible::Yes,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::path::Path;

    /// Every combination, in the order of the manual's table.
    fn all() -> impl Iterator<Item = (Admin, Health, bool, Breaker)> {
        Admin::ALL.into_iter().flat_map(|admin| {
            Health::ALL.into_iter().flat_map(move |health| {
                [false, true].into_iter().flat_map(move |ejected| {
                    Breaker::ALL.into_iter().map(move |breaker| (admin, health, ejected, breaker))
                })
            })
        })
    }

    /// The rules one by one, in other words than the function's.
    #[test]
    fn every_combination_follows_the_rules() {
        for (admin, health, ejected, breaker) in all() {
            let may = eligible(admin, health, ejected, breaker);
            let bad = admin == Admin::Maint || health == Health::Down || ejected;
            let shut = breaker == Breaker::Open || breaker == Breaker::Trying;
            let said = format!("{admin:?} {health:?} {ejected} {breaker:?}: {may:?}");
            assert_eq!(
                matches!(may, Eligible::No(_)),
                bad || shut || (admin, breaker) == (Admin::Drain, Breaker::HalfOpen),
                "{said}"
            );
            assert!(!may.takes_new() || admin == Admin::Ready, "{said}");
            assert_eq!(
                may == Eligible::Trial,
                !bad && admin == Admin::Ready && breaker == Breaker::HalfOpen,
                "{said}"
            );
        }
    }

    /// docs/operations/health.md prints what the function says.
    #[test]
    fn the_manual_has_the_whole_table() {
        const BEGIN: &str =
            "<!-- eligible: written by `UPDATE_DOCS=1 cargo test -p dataplane the_manual` -->\n";
        const END: &str = "<!-- eligible: end -->";
        let mut table =
            String::from("\n| admin | checks | ejected | breaker | may be used |\n|---|---|---|---|---|\n");
        for (admin, health, ejected, breaker) in all() {
            let may = eligible(admin, health, ejected, breaker).name();
            let ejected = if ejected { "yes" } else { "no" };
            writeln!(
                table,
                "| {} | {} | {ejected} | {} | {may} |",
                admin.name(),
                health.name(),
                breaker.name()
            )
            .unwrap();
        }
        table.push('\n');
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/health.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the mark before the table");
        let (there, after) = rest.split_once(END).expect("the mark behind the table");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(
                there == table,
                "the table is stale: UPDATE_DOCS=1 cargo test -p dataplane the_manual writes it"
            );
        }
    }
}
