//! `[drain]`: for each reason to send connections away, how long that takes and how it goes on.

use super::keys::ReloadEffect::Nothing;
use super::keys::{Key, Section, Shape};
use super::tree::Table;
use dataplane::limits;
use dataplane::spec::{Curve, Reason};
use std::time::Duration;

pub(super) static SECTION: Section = Section {
    path: "drain",
    shared: false,
    doc: "How connections are sent away, for each reason. See [operations/drain.md](operations/drain.md).",
    keys: &[
        Key::new("shutdown", Shape::Table(&SHUTDOWN), Nothing, "SIGTERM and SIGQUIT: the process ends."),
        Key::new(
            "deploy",
            Shape::Table(&DEPLOY),
            Nothing,
            "Another process has taken over the sockets; this one ends.",
        ),
        Key::new(
            "rebalance",
            Shape::Table(&REBALANCE),
            Nothing,
            "By hand, `ringway drain`: the process stays.",
        ),
    ],
};

const WINDOW: Key = Key::new(
    "window",
    Shape::Duration(limits::DRAIN_TIMEOUT, None),
    Nothing,
    "From when no new connections are taken until what still runs is closed.",
)
.absent("`runtime.drain_timeout`");
const ACCEPT_FOR: Key = Key::new(
    "accept_for",
    Shape::Duration(limits::DRAIN_ACCEPT_FOR, None),
    Nothing,
    "Before the window: from when `/ready` says 503 until no new connections are taken. As long as a balancer in front of this \
     process takes to notice.",
);
const CURVE: &str = "How connections that wait for a request are closed over three quarters of the window: `linear` is as many \
                     in each second as in any other, `early` begins three times as fast and half of them are closed in its \
                     first fifth, `immediate` is all at once.";
const BY_AND_BY: Key = Key::new("curve", Shape::Word(&["linear", "early", "immediate"], &[]), Nothing, CURVE);

pub(super) static SHUTDOWN: Section = Section {
    path: "drain.shutdown",
    shared: false,
    doc: "Because the process ends.",
    keys: &[
        WINDOW,
        ACCEPT_FOR,
        Key::new("curve", Shape::Word(&["early", "linear", "immediate"], &[]), Nothing, CURVE),
    ],
};
pub(super) static DEPLOY: Section = Section {
    path: "drain.deploy",
    shared: false,
    doc: "Because another process has taken over its sockets.",
    keys: &[WINDOW, BY_AND_BY],
};
pub(super) static REBALANCE: Section = Section {
    path: "drain.rebalance",
    shared: false,
    doc: "Because somebody asked for it. `accept_for` is of the whole node: a listener that drains takes no new connections at \
          once.",
    keys: &[WINDOW, ACCEPT_FOR, BY_AND_BY],
};

/// How connections are sent away for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub window: Duration,
    pub accept_for: Duration,
    pub curve: Curve,
}

/// For each reason, in the order of `Reason::ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paces([Pace; Reason::ALL.len()]);

impl Paces {
    pub fn of(&self, reason: Reason) -> Pace {
        self.0[reason as usize]
    }
}

pub(super) fn read(root: &Table<'_>, drain_timeout: Duration) -> Paces {
    let all = root.table("drain");
    let pace = |reason: Reason| {
        let table = all.table(reason.name());
        let window = table.get("window").and_then(|item| item.duration(limits::DRAIN_TIMEOUT, None));
        let word = table.word("curve");
        Pace {
            window: window.unwrap_or(drain_timeout),
            accept_for: match reason {
                Reason::Deploy => Duration::ZERO,
                Reason::Shutdown | Reason::Rebalance => table.duration("accept_for"),
            },
            curve: Curve::ALL.into_iter().find(|curve| curve.name() == word).unwrap_or(Curve::Linear),
        }
    };
    Paces(Reason::ALL.map(pace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    fn paces(text: &str) -> Paces {
        let text = format!("{text}\n[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n");
        let route = "[[route]]\nrespond = { status = 200 }\n";
        parse(&format!("{text}{route}"), "test", &Environment::of_tests()).unwrap().process.drains
    }

    #[test]
    fn what_is_not_said_is_of_the_reason_or_of_drain_timeout() {
        let seconds = Duration::from_secs;
        let none = paces("");
        for reason in Reason::ALL {
            let curve = if reason == Reason::Shutdown { Curve::Early } else { Curve::Linear };
            assert_eq!(none.of(reason), Pace { window: seconds(30), accept_for: Duration::ZERO, curve });
        }
        let some = paces(
            "[runtime]\ndrain_timeout = \"7s\"\n[drain.shutdown]\naccept_for = \"2s\"\ncurve = \"immediate\"\n\
             [drain.deploy]\nwindow = \"10m\"\ncurve = \"early\"\n",
        );
        let (curve, accept_for) = (Curve::Immediate, seconds(2));
        assert_eq!(some.of(Reason::Shutdown), Pace { window: seconds(7), accept_for, curve });
        let (curve, accept_for) = (Curve::Early, Duration::ZERO);
        assert_eq!(some.of(Reason::Deploy), Pace { window: seconds(600), accept_for, curve });
        assert_eq!(some.of(Reason::Rebalance).window, seconds(7));
    }
}
