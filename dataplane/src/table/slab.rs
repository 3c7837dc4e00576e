//! A table of slots with generations: grows by chunks, never moves a value, never hands out a stale one.

use crate::io::{Kind, Token};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;

/// Slots added at once when all are taken.
pub const CHUNK_SLOTS: u32 = 1024;

/// In `Slot::next`: the slot is live.
const LIVE: u32 = u32::MAX;
/// In `Slot::next` and `Slab::free`: no further free slot.
const END: u32 = u32::MAX - 1;
/// Most slots a slab can number.
const SLOTS_MAX: u32 = u32::MAX - 2;

/// One life of one slot of a `Slab<T>`; 8 bytes, also as an `Option`. Stale once that life was released.
pub struct Id<T> {
    slot: u32,
    /// 1 to `Token::GENERATION_MASK`.
    generation: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// An id from its parts; `None` for generation 0, which no life has.
    pub fn new(slot: u32, generation: u32) -> Option<Self> {
        NonZeroU32::new(generation).map(|generation| Self { slot, generation, of: PhantomData })
    }
    /// The id that [`Id::token`] packed.
    pub fn of(token: Token) -> Option<Self> {
        Self::new(token.slot(), token.generation())
    }
    /// The token of an operation of `kind` on this slot.
    pub fn token(self, kind: Kind) -> Token {
        Token::new(kind, self.slot, self.generation.get())
    }
    pub fn slot(self) -> u32 {
        self.slot
    }
    pub fn generation(self) -> u32 {
        self.generation.get()
    }
}

// By hand, because a derive would ask the same of T.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.slot, self.generation).cmp(&(other.slot, other.generation))
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.slot, self.generation).hash(state);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    /// Of the present life, or of the next one while the slot is free.
    generation: NonZeroU32,
    /// The next free slot, `END`, or `LIVE`.
    next: u32,
    /// `None` only while free: never used, or removed. A released value stays, for its memory.
    value: Option<T>,
}

/// Of a length that the compiler knows: a place within it needs no check.
type Chunk<T> = [Slot<T>; CHUNK_SLOTS as usize];

/// Up to `max` values of one kind, found by [`Id`]. A freed slot is taken again first, while its memory is warm.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Box<Chunk<T>>>,
    free: u32,
    len: u32,
    max: u32,
}

impl<T> Slab<T> {
    /// An empty slab that will hold at most `max` values. Allocates nothing yet.
    pub const fn new(max: u32) -> Self {
        let max = if max < SLOTS_MAX { max } else { SLOTS_MAX };
        Self { chunks: Vec::new(), free: END, len: 0, max }
    }

    /// Holds `max` values from now on, if that is more than before.
    pub fn raise(&mut self, max: u32) {
        self.max = self.max.max(max.min(SLOTS_MAX));
    }

    /// Live values.
    pub fn len(&self) -> u32 {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn is_full(&self) -> bool {
        self.len >= self.max
    }
    /// Slots that exist, live or free: the bound of a walk with [`Slab::id_at`].
    pub fn slots(&self) -> u32 {
        // At most `max` rounded up to a chunk, and `insert` stops at `max`.
        u32::try_from(self.chunks.len()).map_or(u32::MAX, |n| n.saturating_mul(CHUNK_SLOTS))
    }

    /// Puts `value` into a slot; gives it back when the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Id<T>, T> {
        let Some((id, slot)) = self.take() else { return Err(value) };
        slot.value = Some(value);
        Ok(id)
    }

    /// The value, if this life of it is still on.
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        self.live(id).and_then(|slot| slot.value.as_ref())
    }
    /// The value, if this life of it is still on.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        self.live_mut(id).and_then(|slot| slot.value.as_mut())
    }
    pub fn contains(&self, id: Id<T>) -> bool {
        self.live(id).is_some()
    }

    /// Ends a life and takes the value out; `None` if it had ended already.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let value = self.live_mut(id)?.value.take();
        self.release(id);
        value
    }

    /// Ends a life and drops the value where it stands; false if it had ended already.
    pub fn discard(&mut self, id: Id<T>) -> bool {
        if let Some(slot) = self.live_mut(id) {
            slot.value = None;
        }
        self.release(id)
    }

    /// Ends a life but leaves the value in its slot for [`Slab::insert_with`] to use again; false if it had ended.
    pub fn release(&mut self, id: Id<T>) -> bool {
        let free = self.free;
        let Some(slot) = self.live_mut(id) else { return false };
        slot.next = free;
        slot.generation = following(slot.generation);
        self.free = id.slot;
        self.len -= 1;
        true
    }

    /// The present life in a slot, if it is live: lets a walk go on after the table changed.
    pub fn id_at(&self, slot: u32) -> Option<Id<T>> {
        let found = self.slot(slot)?;
        (found.next == LIVE).then_some(Id { slot, generation: found.generation, of: PhantomData })
    }
    /// Every live id, in order of slots.
    pub fn ids(&self) -> impl Iterator<Item = Id<T>> + '_ {
        (0..self.slots()).filter_map(|slot| self.id_at(slot))
    }
    /// Every live value, in order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> + '_ {
        self.ids().filter_map(|id| self.get(id).map(|value| (id, value)))
    }

    /// A free slot, made live.
    fn take(&mut self) -> Option<(Id<T>, &mut Slot<T>)> {
        if self.is_full() {
            return None;
        }
        if self.free == END {
            self.grow();
        }
        let index = self.free;
        let (chunk, at) = place(index);
        let slot = &mut self.chunks.get_mut(chunk)?[at];
        self.free = slot.next;
        slot.next = LIVE;
        self.len += 1;
        Some((Id { slot: index, generation: slot.generation, of: PhantomData }, slot))
    }

    fn grow(&mut self) {
        let first = self.slots();
        let slots = (1..=CHUNK_SLOTS).map(|n| Slot {
            generation: NonZeroU32::MIN,
            next: if n == CHUNK_SLOTS { END } else { first + n },
            value: None,
        });
        let Ok(chunk) = slots.collect::<Box<[_]>>().try_into() else {
            unreachable!("a chunk has its length")
        };
        self.chunks.push(chunk);
        self.free = first;
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, at) = place(index);
        Some(&self.chunks.get(chunk)?[at])
    }
    // A free slot has the generation of its next life, of which no id was given out yet: the generation alone tells.
    fn live(&self, id: Id<T>) -> Option<&Slot<T>> {
        self.slot(id.slot).filter(|slot| slot.generation == id.generation)
    }
    fn live_mut(&mut self, id: Id<T>) -> Option<&mut Slot<T>> {
        let (chunk, at) = place(id.slot);
        let slot = &mut self.chunks.get_mut(chunk)?[at];
        (slot.generation == id.generation).then_some(slot)
    }
}

impl<T: Default> Slab<T> {
    /// Starts a life on whatever value its slot last held (`T::default()` at first), so that what the value allocated
    /// once is used again; `start` must make it as new. `None` when the slab is full.
    pub fn insert_with(&mut self, start: impl FnOnce(&mut T)) -> Option<Id<T>> {
        let (id, slot) = self.take()?;
        start(slot.value.get_or_insert_default());
        Some(id)
    }
}

/// Which chunk, and where in it.
fn place(slot: u32) -> (usize, usize) {
    ((slot / CHUNK_SLOTS) as usize, (slot % CHUNK_SLOTS) as usize)
}

/// Generations go round within a token's 24 bits and leave 0 out.
fn following(generation: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new((generation.get() + 1) & Token::GENERATION_MASK).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const _: () = assert!(size_of::<Option<Id<String>>>() == 8);

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slab = Slab::new(10);
        let old = slab.insert("a").unwrap();
        assert_eq!(slab.remove(old), Some("a"));
        let new = slab.insert("b").unwrap();
        assert_eq!((new.slot(), new.generation()), (old.slot(), old.generation() + 1));
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert!(!slab.release(old) && !slab.contains(old));
        assert_eq!(slab.get(new), Some(&"b"));
        assert_eq!(Id::of(new.token(Kind::ConnRecv)), Some(new));
    }

    #[test]
    fn is_bounded_and_never_moves_a_value() {
        let mut slab = Slab::new(CHUNK_SLOTS + 5);
        let first = slab.insert([7u64; 4]).unwrap();
        let address = std::ptr::from_ref(slab.get(first).unwrap());
        for n in 1..CHUNK_SLOTS + 5 {
            assert_eq!(slab.insert([u64::from(n); 4]).unwrap().slot(), n);
        }
        assert_eq!(slab.insert([0; 4]), Err([0; 4]));
        assert_eq!(slab.insert_with(|_| ()), None);
        assert_eq!(std::ptr::from_ref(slab.get(first).unwrap()), address);
        assert_eq!(slab.ids().count(), slab.len() as usize);
        slab.remove(first);
        assert_eq!(slab.insert([0; 4]).unwrap().slot(), 0);
    }

    #[test]
    fn a_released_value_keeps_its_memory() {
        let mut slab: Slab<Vec<u8>> = Slab::new(4);
        let id = slab.insert_with(|v| v.extend_from_slice(&[1; 100])).unwrap();
        assert!(slab.release(id) && slab.is_empty());
        assert_eq!(slab.get(id), None);
        let id = slab
            .insert_with(|v| {
                assert_eq!(v.len(), 100, "the old value is there to be made new");
                v.clear();
            })
            .unwrap();
        assert!(slab.get(id).unwrap().capacity() >= 100);
    }

    #[test]
    fn generations_go_round_without_zero() {
        let last = NonZeroU32::new(Token::GENERATION_MASK).unwrap();
        assert_eq!(following(last), NonZeroU32::MIN);
        assert_eq!(following(NonZeroU32::MIN).get(), 2);
        assert_eq!(Id::<u8>::new(3, 0), None);
    }

    proptest! {
        /// Against a list of what should be live: every live id finds its value, every dead one nothing.
        #[test]
        fn agrees_with_a_model(steps in proptest::collection::vec((0u8..4, any::<usize>()), 1..400)) {
            let mut slab = Slab::new(50);
            let mut live: Vec<(Id<usize>, usize)> = Vec::new();
            let mut dead = Vec::new();
            for (n, (step, pick)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => match if step == 0 { slab.insert(n).ok() } else { slab.insert_with(|v| *v = n) } {
                        Some(id) => live.push((id, n)),
                        None => prop_assert_eq!(live.len(), 50),
                    },
                    _ if live.is_empty() => {}
                    2 => {
                        let (id, value) = live.swap_remove(pick % live.len());
                        prop_assert_eq!(slab.remove(id), Some(value));
                        dead.push(id);
                    }
                    _ => {
                        let (id, _) = live.swap_remove(pick % live.len());
                        prop_assert!(slab.release(id));
                        dead.push(id);
                    }
                }
                prop_assert_eq!(slab.len() as usize, live.len());
            }
            for (id, value) in &live {
                prop_assert_eq!(slab.get(*id), Some(value));
            }
            for id in dead {
                prop_assert_eq!(slab.get(id), None);
            }
            let mut found: Vec<_> = slab.iter().map(|(id, value)| (id, *value)).collect();
            found.sort_unstable();
            live.sort_unstable();
            prop_assert_eq!(found, live);
        }
    }
}
