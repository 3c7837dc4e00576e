//! How long things took, on one shard: an array of fixed size whose buckets grow with the time that they hold (log-linear),
//! written by the shard alone and merged by control.
//!
//! Four buckets to each doubling, so that a bucket's bounds are at most 25 % apart. Bucket `n` holds times above bound
//! `n - 1` and up to its own, in whole microseconds: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24 and so on to 7516 s
//! (1.75 * 2^32 µs); the last one holds all that took longer.

use super::Counter;

/// Buckets of a histogram: what is left of 1 KiB beside the sum. Loom's coroutines have small stacks, on which they are made.
pub const BUCKETS: usize = if cfg!(loom) { 8 } else { 127 };

/// One shard's times of one kind.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

const _: () = assert!(size_of::<Histogram>() <= 1024, "a histogram takes at most 1 KiB");

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// Counts one that took so long, microseconds.
    pub fn record(&self, us: u64) {
        self.buckets[bucket(us)].add(1);
        self.sum_us.add(us);
    }
}

/// The bucket of a time, microseconds.
fn bucket(us: u64) -> usize {
    // Bounds belong to the bucket below them.
    let below = us.saturating_sub(1);
    if below < 4 {
        return (below & 3) as usize;
    }
    let doubling = below.ilog2() as usize;
    // The two bits behind the highest one say which of the four.
    (4 * (doubling - 1) + (below >> (doubling - 2) & 3) as usize).min(BUCKETS - 1)
}

/// The longest time that a bucket holds, microseconds; of the last one, the longest that is told apart.
pub const fn bound_us(bucket: usize) -> u64 {
    if bucket < 4 { bucket as u64 + 1 } else { (5 + bucket as u64 % 4) << (bucket / 4 - 1) }
}

/// What several shards have in their histograms together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub buckets: [u64; BUCKETS],
    pub sum_us: u64,
}

impl Merged {
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut merged = Self { buckets: [0; BUCKETS], sum_us: 0 };
        for histogram in histograms {
            for (sum, bucket) in merged.buckets.iter_mut().zip(&histogram.buckets) {
                *sum = sum.wrapping_add(bucket.get());
            }
            merged.sum_us = merged.sum_us.wrapping_add(histogram.sum_us.get());
        }
        merged
    }
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_whose_bounds_hold_it() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let random = (0..10_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> (state >> 58)
        });
        for us in (0..10_000).chain(random).chain([u64::MAX]) {
            let at = bucket(us);
            assert!(at == 0 || us > bound_us(at - 1), "{us} µs in bucket {at}");
            assert!(at == BUCKETS - 1 || us <= bound_us(at), "{us} µs in bucket {at}");
        }
        let bounds: Vec<_> = (0..BUCKETS).map(bound_us).collect();
        assert_eq!(bounds[..14], [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24]);
        assert!(bounds.windows(2).skip(3).all(|pair| pair[0] < pair[1] && pair[1] * 4 <= pair[0] * 5));
        assert_eq!(bounds[BUCKETS - 1], 7 << 30);
    }

    #[test]
    fn shards_are_merged() {
        let (one, other) = (Histogram::default(), Histogram::default());
        [0, 1, 2, 9].into_iter().for_each(|us| one.record(us));
        other.record(10);
        let merged = Merged::of([&one, &other].into_iter());
        assert_eq!((merged.count(), merged.sum_us), (5, 22));
        assert_eq!((merged.buckets[0], merged.buckets[1], merged.buckets[8]), (2, 1, 2));
    }
}
