//! Conns that leave: which of them were told so together, by when they are gone, and how far those that wait have been closed.

use crate::io::Mono;
use crate::spec::Order;
use std::time::Duration;

/// Conns that were told together to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party(u8);

/// Parties that are told apart at once.
const PARTIES: u8 = u8::MAX - 1;
/// Those of them that reloads make; whoever comes then leaves with the last. The others are for orders, of which there are fewer
/// (`limits::DRAINS_MAX`).
const OF_RELOADS: usize = 100;
const _: () = assert!(crate::limits::DRAINS_MAX < PARTIES as usize - OF_RELOADS, "each order has a party");

impl Party {
    /// From 1 to `PARTIES`.
    pub fn new(number: u8) -> Option<Self> {
        (1..=PARTIES).contains(&number).then_some(Self(number))
    }
    pub fn number(self) -> u8 {
        self.0
    }
}

/// A walk over the slots of all conns, on the curve of an order. It takes them in an order of its own, so that conns which came
/// one after the other do not go one after the other, and those of a few slots go evenly.
#[derive(Debug, Clone, Copy)]
struct Walk {
    order: Order,
    done: u32,
    /// A power of two.
    of: u32,
    from: u32,
}

impl Walk {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to `of`")]
    fn target(&self, now: Mono) -> u32 {
        let target = self.order.share(now) * f64::from(self.of);
        (target.ceil() as u32).min(self.of)
    }
    fn slot(&self, at: u32) -> u32 {
        // Odd, so that each slot is met once; neighbours are spread evenly (Knuth 6.4).
        at.wrapping_mul(0x9e37_79b9).wrapping_add(self.from) & (self.of - 1)
    }
}

#[derive(Debug)]
struct Leaving {
    party: Party,
    by: Mono,
    /// Of an order; a reload's conns were closed as far as they waited.
    walk: Option<Walk>,
}

/// Everybody that leaves.
#[derive(Debug, Default)]
pub struct Parties {
    /// The first to be over comes first.
    all: Vec<Leaving>,
}

impl Parties {
    /// When something is to be done about one of them.
    pub fn due(&self, now: Mono) -> Mono {
        let of_walk = |walk: &Walk| match walk.done {
            done if done >= walk.of => Mono::MAX,
            done if done < walk.target(now) => now,
            _ => now.after(walk.order.look(walk.of)),
        };
        let due = |one: &Leaving| one.by.min(one.walk.as_ref().map_or(Mono::MAX, of_walk));
        self.all.iter().map(due).min().unwrap_or(Mono::MAX)
    }
    /// Whom a conn leaves with whose listener is gone: those of the last tenth of a second go together.
    pub fn join_reload(&mut self, by: Mono) -> Party {
        const TOGETHER: Duration = Duration::from_millis(100);
        let of_reloads = || self.all.iter().filter(|one| one.walk.is_none());
        match of_reloads().next_back() {
            Some(last) if last.by.after(TOGETHER) >= by || of_reloads().count() >= OF_RELOADS => last.party,
            _ => self.begin(by, None),
        }
    }
    /// Whom a conn leaves with that leaves by `order`, of conns in so many slots.
    pub fn join(&mut self, order: Order, slots: u32, seed: u64) -> Party {
        if let Some(party) = self.of(order.number) {
            return party;
        }
        let from = (seed ^ u64::from(order.number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let walk = Walk { order, done: 0, of: slots.max(1).next_power_of_two(), from: from as u32 };
        self.begin(order.until, Some(walk))
    }
    fn begin(&mut self, by: Mono, walk: Option<Walk>) -> Party {
        let is_free = |number: &u8| self.all.iter().all(|one| one.party.0 != *number);
        let Some(party) = (1..=PARTIES).find(is_free).map(Party) else {
            unreachable!("orders and reloads together have fewer parties")
        };
        let at = self.all.partition_point(|one| one.by <= by);
        self.all.insert(at, Leaving { party, by, walk });
        party
    }
    /// The party of an order.
    pub fn of(&self, order: u32) -> Option<Party> {
        let is_its = |one: &&Leaving| one.walk.is_some_and(|walk| walk.order.number == order);
        self.all.iter().find(is_its).map(|one| one.party)
    }
    /// One whose time is over; it is forgotten.
    pub fn over(&mut self, now: Mono) -> Option<Party> {
        let is_over = self.all.first().is_some_and(|one| one.by <= now);
        is_over.then(|| self.all.remove(0).party)
    }
    /// Only these orders are still obeyed.
    pub fn keep(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.all.retain(|one| one.walk.is_none_or(|walk| is_kept(walk.order.number)));
    }
    /// The next slot whose conn, if it is of that party and waits, leaves now.
    pub fn step(&mut self, now: Mono) -> Option<(u32, Party, Order)> {
        self.all.iter_mut().find_map(|one| {
            let walk =
                one.walk.as_mut().filter(|walk| walk.done < walk.of && walk.done < walk.target(now))?;
            let slot = walk.slot(walk.done);
            walk.done += 1;
            Some((slot, one.party, walk.order))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Curve, Reason};

    fn order(number: u32, curve: Curve, until: u64) -> Order {
        Order { number, reason: Reason::Rebalance, curve, began: Mono(0), until: Mono(until) }
    }

    #[test]
    fn a_walk_meets_each_slot_once_and_evenly() {
        let mut parties = Parties::default();
        let party = parties.join(order(1, Curve::Linear, 4_000_000), 3000, 7);
        let mut met = vec![0_u32; 4096];
        let mut of_few = Vec::new();
        for at in 0..=3_000 {
            let now = Mono(at * 1000);
            while let Some((slot, of, _)) = parties.step(now) {
                assert_eq!(of, party);
                met[slot as usize] += 1;
                if slot < 8 {
                    of_few.push(at);
                }
            }
            assert!(parties.due(now) > now);
        }
        assert!(met.iter().all(|times| *times == 1));
        let gaps: Vec<u64> = of_few.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (100..800).contains(gap)), "the first eight go evenly: {of_few:?}");
        assert_eq!(parties.due(Mono(3_000_000)), Mono(4_000_000), "then comes the end");
        assert_eq!((parties.over(Mono(3_999_999)), parties.over(Mono(4_000_000))), (None, Some(party)));
    }

    #[test]
    fn the_first_to_be_over_comes_first_and_numbers_are_used_again() {
        let mut parties = Parties::default();
        let late = parties.join(order(1, Curve::Immediate, 500), 1, 0);
        let soon = parties.join(order(2, Curve::Immediate, 200), 1, 0);
        let reload = parties.join_reload(Mono(300));
        assert_eq!(parties.join_reload(Mono(301)), reload, "together");
        assert_eq!(parties.join(order(1, Curve::Immediate, 500), 1, 0), late);
        assert_eq!(parties.over(Mono(250)), Some(soon));
        assert_eq!(parties.over(Mono(250)), None);
        parties.keep(|number| number != 1);
        assert_eq!(parties.of(1), None);
        assert_eq!(parties.over(Mono(500)), Some(reload));
        for number in 0..1000_u64 {
            parties.join_reload(Mono(1_000_000_000 * number));
        }
        let orders: Vec<Party> = (0..100).map(|n| parties.join(order(n, Curve::Linear, 9), 1, 0)).collect();
        assert!(orders.iter().all(|one| orders.iter().filter(|other| one == *other).count() == 1));
    }
}
