//! Pairs of source address and endpoint between which no local port is free: one shard's memory of failed searches.
//!
//! A table of a fixed size: a pair stands in one of `WAYS` slots that its number points to, and a new one takes the slot
//! whose memory ends soonest. So a pair may be forgotten early, which costs a search, and is never remembered too long.

use crate::io::Mono;
use crate::limits::{EXHAUSTED_FOR, EXHAUSTED_PAIRS, SUSPECT_FOR};
use crate::spec::{ClusterId, EndpointId};

/// Which of a cluster's source addresses of the endpoint's family, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId(pub u16);

impl SourceId {
    /// The kernel chooses: the cluster lists none.
    pub const KERNEL: Self = Self(u16::MAX);
}

/// One source towards one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub cluster: ClusterId,
    pub endpoint: EndpointId,
    pub source: SourceId,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    pair: Pair,
    /// Not tried before then.
    rests_until: Mono,
    /// Until then connects between the two go one at a time, and this one is under way.
    suspect_until: Mono,
    busy: bool,
}

/// Slots in which a pair may stand.
const WAYS: usize = 8;

/// The pairs that one shard found exhausted of late.
#[derive(Debug)]
pub struct Exhausted {
    slots: Box<[Slot]>,
    /// No pair is suspect beyond this: nearly always in the past, and then nothing is looked up.
    latest: Mono,
}

impl Exhausted {
    pub fn new() -> Self {
        let pair =
            Pair { cluster: ClusterId(u16::MAX), endpoint: EndpointId(u16::MAX), source: SourceId::KERNEL };
        let slot = Slot { pair, rests_until: Mono(0), suspect_until: Mono(0), busy: false };
        Self { slots: vec![slot; EXHAUSTED_PAIRS].into(), latest: Mono(0) }
    }

    fn slot(&mut self, pair: Pair, now: Mono) -> Option<&mut Slot> {
        let slots = if now < self.latest { &mut self.slots[ways(pair)] } else { &mut [][..] };
        slots.iter_mut().find(|slot| slot.pair == pair && now < slot.suspect_until)
    }

    /// Whether a connect between the two may be tried: no search failed within `EXHAUSTED_FOR`, and of a pair that was
    /// full within `SUSPECT_FOR` no other is under way. Else all that come in one turn would search in vain together.
    pub fn may_try(&self, pair: Pair, now: Mono) -> bool {
        let slots = if now < self.latest { &self.slots[ways(pair)] } else { &[][..] };
        let suspect = slots.iter().find(|slot| slot.pair == pair && now < slot.suspect_until);
        suspect.is_none_or(|slot| now >= slot.rests_until && !slot.busy)
    }
    /// A connect between the two begins.
    pub fn begin(&mut self, pair: Pair, now: Mono) {
        if let Some(slot) = self.slot(pair, now) {
            slot.busy = true;
        }
    }
    /// A connect between the two ended, well or not.
    pub fn end(&mut self, pair: Pair, now: Mono) {
        if let Some(slot) = self.slot(pair, now) {
            slot.busy = false;
        }
    }
    /// No port is free between the two.
    pub fn add(&mut self, pair: Pair, now: Mono) {
        let (rests_until, suspect_until) = (now.after(EXHAUSTED_FOR), now.after(SUSPECT_FOR));
        let slots = &mut self.slots[ways(pair)];
        let known = slots.iter().position(|slot| slot.pair == pair);
        let soonest =
            || slots.iter().enumerate().min_by_key(|(_, slot)| slot.suspect_until).map_or(0, |(at, _)| at);
        slots[known.unwrap_or_else(soonest)] = Slot { pair, rests_until, suspect_until, busy: false };
        self.latest = self.latest.max(suspect_until);
    }
    /// A port became free between the two.
    pub fn freed(&mut self, pair: Pair, now: Mono) {
        if let Some(slot) = self.slot(pair, now) {
            slot.rests_until = Mono(0);
        }
    }
}

impl Default for Exhausted {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a pair may stand.
fn ways(pair: Pair) -> std::ops::Range<usize> {
    let number =
        u64::from(pair.cluster.0) << 48 | u64::from(pair.endpoint.0) << 32 | u64::from(pair.source.0);
    // Fibonacci hashing (Knuth, The Art of Computer Programming 6.4): the high bits of the product are well mixed.
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let set = (hash >> 40) as usize % (EXHAUSTED_PAIRS / WAYS);
    set * WAYS..(set + 1) * WAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: u16) -> Pair {
        Pair { cluster: ClusterId(1), endpoint: EndpointId(2), source: SourceId(source) }
    }
    const NOW: Mono = Mono(1_000_000_000);

    #[test]
    fn a_pair_rests_for_its_time_or_until_a_port_frees() {
        let mut table = Exhausted::new();
        assert!(table.may_try(pair(0), NOW));
        table.add(pair(0), NOW);
        table.add(pair(1), NOW);
        let late = NOW.after(EXHAUSTED_FOR);
        assert!(!table.may_try(pair(0), NOW) && !table.may_try(pair(0), Mono(late.0 - 1)));
        assert!(table.may_try(pair(0), late) && table.may_try(pair(2), NOW));
        assert!(table.may_try(Pair { endpoint: EndpointId(3), ..pair(0) }, NOW));
        table.freed(pair(0), NOW);
        assert!(table.may_try(pair(0), NOW) && !table.may_try(pair(1), NOW));
        table.add(pair(0), NOW);
        assert!(!table.may_try(pair(0), NOW));
    }

    /// While a pair is suspect its connects go one at a time; one that ends well lets the next begin.
    #[test]
    fn a_suspect_is_tried_by_one_at_a_time() {
        let mut table = Exhausted::new();
        table.add(pair(0), NOW);
        let late = NOW.after(EXHAUSTED_FOR);
        table.begin(pair(0), late);
        assert!(!table.may_try(pair(0), late));
        table.end(pair(0), late);
        assert!(table.may_try(pair(0), late));
        table.begin(pair(0), late);
        let calm = NOW.after(SUSPECT_FOR);
        assert!(!table.may_try(pair(0), Mono(calm.0 - 1)) && table.may_try(pair(0), calm));
        table.begin(pair(0), calm);
        assert!(table.may_try(pair(0), calm), "no longer suspect");
    }

    /// However many pairs are full, the table neither grows nor forgets more than it must.
    #[test]
    fn too_many_pairs_push_the_oldest_out() {
        let mut table = Exhausted::new();
        for n in 0..10_000 {
            table.add(pair(n), Mono(NOW.0 + u64::from(n)));
        }
        let now = Mono(NOW.0 + 10_000);
        let known = (0..10_000).filter(|&n| !table.may_try(pair(n), now)).count();
        assert_eq!(known, EXHAUSTED_PAIRS);
        assert!((9_990..10_000).all(|n| !table.may_try(pair(n), now)));
        // A pool of nine addresses, the kernel's choice among them, is remembered whole.
        let mut table = Exhausted::new();
        (0..9).for_each(|n| table.add(pair(n), NOW));
        table.add(Pair { source: SourceId::KERNEL, ..pair(0) }, NOW);
        assert!((0..9).all(|n| !table.may_try(pair(n), NOW)));
    }
}
