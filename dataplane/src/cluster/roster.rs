//! Who is in a cluster whose endpoints change: it gives ids, and keeps the id of one that is gone until nobody refers to it.
//!
//! An endpoint is known by its address and by the entry of the configuration that it comes from, and where one entry has one
//! address more than once (a file may) by its name too. As long as it is there it has one id, whatever becomes of the others. Gone, it keeps its row, without weight, for the links and requests that it still
//! has; when they have ended on every shard, another may have the row.

use super::balance::{cycle, maglev};
use crate::limits::ENDPOINTS_MAX;
use crate::spec::{Cluster, Endpoint, EndpointId, Hash};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The endpoints of a cluster by id, those that are gone included.
#[derive(Debug, Default)]
pub struct Roster {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    endpoint: Endpoint,
    /// Which entry of the configuration it comes from.
    entry: u16,
    /// Since which swap it is gone.
    gone: Option<u64>,
}

impl Row {
    /// Whether another may have it in swap number `swap`.
    fn may_be_given(&self, swap: u64, is_free: impl Fn(EndpointId, u64) -> bool) -> bool {
        self.gone.is_some_and(|since| since < swap && is_free(self.endpoint.id, since))
    }
}

/// What an update came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Update {
    /// Endpoints that came, those that came back included.
    pub came: usize,
    /// Endpoints that are gone now.
    pub went: usize,
    /// Endpoints for which no id was free.
    pub left_out: usize,
}

impl Roster {
    /// Makes the endpoints in `wanted` those of the cluster, from swap number `swap` on; their ids are given here. An id is
    /// given anew where `is_free` says of its row, which is gone since a swap, that nobody refers to it.
    pub fn update(
        &mut self,
        wanted: impl IntoIterator<Item = (u16, Endpoint)>,
        swap: u64,
        is_free: impl Fn(EndpointId, u64) -> bool,
    ) -> Update {
        let mut named = BTreeSet::new();
        let mut wanted = wanted.into_iter().collect::<Vec<_>>();
        wanted.retain(|(entry, e)| named.insert((*entry, e.address.clone(), Arc::clone(&e.name))));
        let rows = self.rows_of(&wanted);
        let (mut update, mut new, mut stays) = (Update::default(), Vec::new(), vec![false; self.rows.len()]);
        for ((entry, endpoint), at) in wanted.into_iter().zip(rows) {
            match at {
                Some(at) => {
                    stays[at] = true;
                    let row = &mut self.rows[at];
                    update.came += usize::from(row.gone.take().is_some());
                    row.endpoint = Endpoint { id: row.endpoint.id, gone: false, ..endpoint };
                }
                None => new.push((entry, endpoint)),
            }
        }
        for (row, _) in self.rows.iter_mut().zip(&stays).filter(|(row, stays)| !**stays && row.gone.is_none())
        {
            update.went += 1;
            row.gone = Some(swap);
            (row.endpoint.gone, row.endpoint.weight) = (true, 0);
        }
        let mut free = (0..self.rows.len()).filter(|&at| !stays[at]).collect::<Vec<_>>().into_iter();
        for (entry, endpoint) in new {
            let row = |id| Row { endpoint: Endpoint { id, gone: false, ..endpoint }, entry, gone: None };
            let may = |at: &usize| self.rows[*at].may_be_given(swap, &is_free);
            if let Some(at) = free.by_ref().find(may) {
                self.rows[at] = row(self.rows[at].endpoint.id);
            } else if let Ok(id) = u16::try_from(self.rows.len())
                && self.rows.len() < ENDPOINTS_MAX
            {
                self.rows.push(row(EndpointId(id)));
            } else {
                update.left_out += 1;
                continue;
            }
            update.came += 1;
        }
        update
    }

    /// The row that each of `wanted` has already, if it has one.
    fn rows_of(&self, wanted: &[(u16, Endpoint)]) -> Vec<Option<usize>> {
        let mut known: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        // Those that are there before those that are gone.
        for gone in [false, true] {
            for (at, row) in self.rows.iter().enumerate().filter(|(_, row)| row.gone.is_some() == gone) {
                known.entry((row.entry, row.endpoint.address.clone())).or_default().push(at);
            }
        }
        let mut found = vec![None; wanted.len()];
        // Those who keep their names first: one that is called otherwise now has what is left.
        for by_name in [true, false] {
            for ((entry, e), found) in wanted.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                let Some(rows) = known.get_mut(&(*entry, e.address.clone())) else { continue };
                let at = rows.iter().position(|&at| !by_name || self.rows[at].endpoint.name == e.name);
                *found = at.map(|at| rows.remove(at));
            }
        }
        found
    }

    /// Whether a row could be given anew in swap number `swap`, by `is_free` as in [`Roster::update`].
    pub fn has_free(&self, swap: u64, is_free: impl Fn(EndpointId, u64) -> bool) -> bool {
        self.rows.iter().any(|row| row.may_be_given(swap, &is_free))
    }

    /// `spec` with these endpoints, and what it needs of them for its policy; its cookie, if it has one, is the caller's.
    pub fn cluster(&self, spec: &Cluster) -> Cluster {
        let endpoints: Vec<Endpoint> = self.endpoints().cloned().collect();
        let hash = spec.hash.clone().map(|hash| Hash { table: maglev::table(&endpoints), ..hash });
        let cycle = spec.cycle.as_ref().map(|_| cycle::table(&endpoints));
        Cluster { endpoints, hash, cycle, ..spec.clone() }
    }

    /// Every row, in the order of ids.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.rows.iter().map(|row| &row.endpoint)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::io::SocketAddress;

    fn endpoint(n: u8) -> Endpoint {
        let address = SocketAddress::new([10, 0, 0, n].into(), 80);
        Endpoint::new(EndpointId(9999), &format!("e{n}"), address.into())
    }
    fn wanted(numbers: &[u8]) -> Vec<(u16, Endpoint)> {
        numbers.iter().map(|n| (0, endpoint(*n))).collect()
    }
    /// The last numbers of the addresses by id; 0 where it is gone.
    fn rows(roster: &Roster) -> Vec<u8> {
        let number = |e: &Endpoint| e.name[1..].parse::<u8>().unwrap_or(u8::MAX);
        let rows = roster.endpoints().enumerate();
        rows.map(|(at, e)| {
            assert_eq!((usize::from(e.id.0), e.gone, e.gone), (at, e.gone, e.weight == 0));
            if e.gone { 0 } else { number(e) }
        })
        .collect()
    }

    #[test]
    fn a_change_of_one_touches_no_other() {
        let mut roster = Roster::default();
        let all = |_, _| true;
        let none = |_, _| false;
        assert_eq!(roster.update(wanted(&[1, 2, 3]), 1, none), Update { came: 3, went: 0, left_out: 0 });
        assert_eq!(rows(&roster), [1, 2, 3]);
        assert_eq!(roster.update(wanted(&[3, 4, 1]), 2, none), Update { came: 1, went: 1, left_out: 0 });
        assert_eq!(rows(&roster), [1, 0, 3, 4], "the id of one that is referred to is kept");
        // It comes back to its own row, although another could have it.
        assert_eq!(roster.update(wanted(&[2, 5, 3, 4]), 3, all), Update { came: 2, went: 1, left_out: 0 });
        assert_eq!(rows(&roster), [0, 2, 3, 4, 5], "gone only now: not for another in the same swap");
        assert_eq!(
            roster.update(wanted(&[2, 3, 4, 5, 6, 6]), 4, all),
            Update { came: 1, went: 0, left_out: 0 }
        );
        assert_eq!(rows(&roster), [6, 2, 3, 4, 5], "named twice, it is there once");
        assert_eq!(roster.update([], 5, all), Update { came: 0, went: 5, left_out: 0 });
        assert_eq!(rows(&roster), [0; 5]);
    }

    #[test]
    fn a_row_is_given_anew_when_it_is_free_and_not_before() {
        let mut roster = Roster::default();
        roster.update(wanted(&[1, 2]), 1, |_, _| false);
        roster.update(wanted(&[2]), 7, |_, _| false);
        roster.update(wanted(&[2, 3]), 8, |id, since| {
            assert_eq!((id, since), (EndpointId(0), 7));
            false
        });
        assert_eq!(rows(&roster), [0, 2, 3]);
        roster.update(wanted(&[2, 3, 4]), 9, |_, since| since == 7);
        assert_eq!(rows(&roster), [4, 2, 3]);
    }

    /// Two entries of a configuration may lead to one address, and are two endpoints.
    #[test]
    fn entries_are_told_apart() {
        let mut roster = Roster::default();
        let both = [(0, endpoint(1)), (1, endpoint(1))];
        assert_eq!(roster.update(both, 1, |_, _| true).came, 2);
        assert_eq!(roster.update([(1, endpoint(1))], 2, |_, _| true).went, 1);
        assert_eq!(rows(&roster), [0, 1]);
    }

    /// A file may have one address under two names: each keeps its row, and one that is called otherwise now keeps it too.
    #[test]
    fn names_are_told_apart() {
        let called = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| (0, Endpoint { name: (*name).into(), ..endpoint(1) })).collect()
        };
        let mut roster = Roster::default();
        let all = |_, _| true;
        let names = |roster: &Roster| -> Vec<String> {
            let name = |e: &Endpoint| if e.gone { String::new() } else { e.name.to_string() };
            roster.endpoints().map(name).collect()
        };
        assert_eq!(roster.update(called(&["a", "b"]), 1, all).came, 2);
        assert_eq!(roster.update(called(&["b", "a"]), 2, all), Update::default());
        assert_eq!(names(&roster), ["a", "b"]);
        assert_eq!(roster.update(called(&["c", "a"]), 3, all), Update::default());
        assert_eq!(names(&roster), ["a", "c"], "b is called c");
        assert_eq!(roster.update(called(&["c"]), 4, all).went, 1);
        assert_eq!(roster.update(called(&["d"]), 5, all), Update::default());
        assert_eq!(names(&roster), ["", "d"], "who is there comes before who is gone");
        assert_eq!(roster.update(called(&["d", "e", "f"]), 6, all).came, 2);
        assert_eq!(names(&roster), ["e", "d", "f"]);
    }

    #[test]
    fn there_are_no_more_than_ids() {
        let mut roster = Roster::default();
        let many = (0..ENDPOINTS_MAX + 5).map(|n| {
            let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
            let address = SocketAddress::new([10, 0, a, b].into(), 80);
            (0, Endpoint::new(EndpointId(0), "x", address.into()))
        });
        let update = roster.update(many, 1, |_, _| true);
        assert_eq!((update.came, update.left_out), (ENDPOINTS_MAX, 5));
    }
}
