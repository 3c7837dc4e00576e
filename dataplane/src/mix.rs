//! One function that scrambles 64 bits: what draws, hashes and ids are made with.

/// Every bit of the result depends on every bit of `x`; 0 stays 0. Two values never have one result. The finalizer of SplitMix64
/// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014); whoever wants its sequence adds
/// 0x9e3779b97f4a7c15 to a state for each.
#[inline]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
