//! The simulator's only source of chance: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).

/// A seeded generator. The same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

/// The rate that always hits, for [`Random::chance`].
pub const ALWAYS: u32 = 65_536;

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self { state: seed ^ 0x5851_f42d_4c95_7f2d };
        random.draw();
        random
    }
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::mix::mix(self.state)
    }
    /// A number below `n`; 0 when `n` is 0. The bias of the remainder is far below what a test could notice.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }
    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
    /// True in `rate` of [`ALWAYS`] cases.
    pub fn chance(&mut self, rate: u32) -> bool {
        rate > 0 && (self.draw() >> 48) < u64::from(rate)
    }
    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    /// An independent generator, so that one part's draws do not shift another's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_rates_hold() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| a.draw() == b.draw()));
        let hits = (0..10_000).filter(|_| a.chance(ALWAYS / 4)).count();
        assert!((2_200..2_800).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| a.chance(ALWAYS) && !a.chance(0)));
        assert!((0..1_000).all(|_| (3..=5).contains(&a.between(3, 5))));
    }
}
