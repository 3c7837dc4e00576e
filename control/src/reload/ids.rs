//! Which name has which id, over all configurations of a process: a name keeps its id for as long as it is there, and an id is
//! another's only when nobody refers to it any more.

use dataplane::limits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ids of one kind of objects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
enum Row {
    Has(Arc<str>),
    /// Gone since that swap, and perhaps still referred to.
    Gone(Arc<str>, u64),
    /// Nobody's since that swap.
    Free(u64),
}

impl Row {
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Has(name) | Self::Gone(name, _) => Some(name),
            Self::Free(_) => None,
        }
    }
}

impl Ids {
    /// The names of a first configuration, in the order of their ids.
    pub(crate) fn of(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { rows: names.into_iter().map(Row::Has).collect() }
    }

    /// Gives each name its id in swap number `swap`; all others are gone.
    ///
    /// # Errors
    /// There are more than so many.
    pub(crate) fn assign(&mut self, names: &[Arc<str>], swap: u64, most: usize) -> Result<Vec<usize>, usize> {
        let mut free = Vec::new();
        for (at, row) in self.rows.iter_mut().enumerate() {
            match row {
                Row::Has(name) => *row = Row::Gone(Arc::clone(name), swap),
                Row::Free(since) if *since < swap => free.push(at),
                Row::Gone(..) | Row::Free(_) => {}
            }
        }
        free.reverse();
        let mut ids = Vec::with_capacity(names.len());
        // Most follow each other as they did: only for others is it worth to sort all names.
        let (mut next, mut sorted) = (0, None);
        for name in names {
            let known = if self.rows.get(next).and_then(Row::name) == Some(name) {
                Some(next)
            } else {
                sorted.get_or_insert_with(|| self.by_name()).get(name).copied()
            };
            next = known.map_or(next, |id| id + 1);
            let id = known.or_else(|| free.pop()).unwrap_or(self.rows.len());
            if id >= most {
                return Err(most);
            }
            match self.rows.get_mut(id) {
                Some(row) => *row = Row::Has(Arc::clone(name)),
                None => self.rows.push(Row::Has(Arc::clone(name))),
            }
            ids.push(id);
        }
        Ok(ids)
    }

    fn by_name(&self) -> BTreeMap<Arc<str>, usize> {
        let named = |(at, row): (usize, &Row)| row.name().map(|name| (Arc::clone(name), at));
        self.rows.iter().enumerate().filter_map(named).collect()
    }

    /// Those that are gone, with the swap since which they are.
    pub(crate) fn gone(&self) -> impl Iterator<Item = (usize, u64)> {
        let gone = |(at, row): (usize, &Row)| match row {
            Row::Gone(_, since) => Some((at, *since)),
            _ => None,
        };
        self.rows.iter().enumerate().filter_map(gone)
    }

    /// From swap number `swap` on nobody has this id; another may have it in a later one.
    pub(crate) fn free(&mut self, id: usize, swap: u64) {
        if let Some(row) = self.rows.get_mut(id).filter(|row| matches!(row, Row::Gone(..))) {
            *row = Row::Free(swap);
        }
    }

    /// Routes are referred to by what they began, which nobody counts: their names are kept for so many of them, and the oldest
    /// ids are given anew.
    pub(crate) fn free_oldest(&mut self, swap: u64) {
        let present = self.rows.iter().filter(|row| matches!(row, Row::Has(_))).count();
        let mut gone: Vec<_> = self.gone().map(|(at, since)| (since, at)).collect();
        gone.sort_unstable();
        let excess = gone.len().saturating_sub(limits::ROUTES_GONE.max(present));
        for (_, at) in gone.into_iter().take(excess) {
            self.free(at, swap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<Arc<str>> {
        all.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn a_name_keeps_its_id_and_an_id_is_given_anew_when_it_is_free() {
        let mut ids = Ids::of(names(&["a", "b", "c"]));
        assert_eq!(ids.assign(&names(&["c", "d", "a"]), 1, 9).unwrap(), [2, 3, 0]);
        assert_eq!(ids.gone().collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(ids.assign(&names(&["e"]), 2, 9).unwrap(), [4], "somebody may refer to the others");
        assert_eq!(ids.gone().collect::<Vec<_>>(), [(0, 2), (1, 1), (2, 2), (3, 2)]);
        assert_eq!(ids.assign(&names(&["b", "e"]), 3, 9).unwrap(), [1, 4], "it is back");
        ids.free(0, 4);
        ids.free(1, 4);
        assert_eq!(ids.assign(&names(&["b", "f"]), 4, 9).unwrap(), [1, 5], "free only from now on");
        assert_eq!(ids.assign(&names(&["b", "f", "g"]), 5, 9).unwrap(), [1, 5, 0]);
        assert_eq!(ids.assign(&names(&["x"]), 6, 6), Err(6));
    }

    #[test]
    fn routes_keep_their_names_for_a_while() {
        let of = |n: usize| -> Vec<Arc<str>> { (0..n).map(|m| format!("{n}/{m}").into()).collect() };
        let mut ids = Ids::of(of(limits::ROUTES_GONE));
        for swap in 1..20 {
            ids.free_oldest(swap);
            ids.assign(&of(1000 + usize::try_from(swap).unwrap()), swap, 1 << 20).unwrap();
        }
        assert!(ids.rows.len() < limits::ROUTES_GONE + 4 * 1100, "{}", ids.rows.len());
    }
}
