//! A ring that fits into the memory that may be locked: of half the size and half again where that is short.

use super::buf_ring::BufRing;
use super::clock;
use super::probe::{Features, Unusable, build, refused};
use crate::buf::Class;
use crate::limits::{
    RING_COMPLETION_ENTRIES, RING_ENTRIES_MIN, RING_MEMORY_PAUSE, RING_MEMORY_WAIT, RING_SUBMISSION_ENTRIES,
};
use io_uring::IoUring;

/// Sizes of a ring; tests make small ones.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    pub submission_entries: u32,
    pub completion_entries: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { submission_entries: RING_SUBMISSION_ENTRIES, completion_entries: RING_COMPLETION_ENTRIES }
    }
}

impl RingOptions {
    /// The sizes of one of so many shards' rings: of half the size and half again where the memory that may be locked, bytes,
    /// is not enough for all of them. To try instead would take from the others what the kernel gives back late.
    pub fn of_shards(shards: u16, lockable: u64) -> Self {
        let bytes = lockable / u64::from(shards.max(1));
        let mut sizes = Self::default();
        // An eighth is left for what is not counted here.
        while sizes.bytes() > bytes / 8 * 7 && sizes.submission_entries > RING_ENTRIES_MIN {
            sizes = sizes.half();
        }
        sizes
    }
    pub(super) fn half(self) -> Self {
        let submission_entries = self.submission_entries / 2;
        Self { submission_entries, completion_entries: (self.completion_entries / 2).max(submission_entries) }
    }
    /// What the kernel locks for a ring of this size: an entry of the one queue takes 64 bytes, one of the other 16, and
    /// their heads a page (io_uring_setup(2)).
    pub const fn bytes(self) -> u64 {
        self.submission_entries as u64 * 64 + self.completion_entries as u64 * 16 + 4096
    }
}

/// The memory that the shards' rings lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingMemory {
    pub shards: u16,
    /// Of a ring of full size, and of the smallest one that was made, bytes.
    pub asked: u64,
    pub got: u64,
    /// What all of them may lock, bytes; `u64::MAX` is no limit.
    pub lockable: u64,
}

impl RingMemory {
    /// Of rings as they are made where so much may be locked and nobody else has any of it.
    pub fn planned(shards: u16, lockable: u64) -> Self {
        let got = RingOptions::of_shards(shards, lockable).bytes();
        Self { shards, asked: RingOptions::default().bytes(), got, lockable }
    }
    /// They were made smaller than asked.
    pub fn is_short(&self) -> bool {
        self.got < self.asked
    }
}

/// A ring with its groups of buffers.
pub(super) fn make(features: &Features, options: RingOptions) -> Result<(IoUring, [BufRing; 2]), Unusable> {
    patiently(|| {
        let mut sizes = options;
        loop {
            match assemble(features, &sizes) {
                Err(Unusable::NoMemory { .. }) if sizes.submission_entries > RING_ENTRIES_MIN => {
                    sizes = sizes.half();
                }
                made => return made,
            }
        }
    })
}

/// Tries again for a while where memory is short: the kernel takes its time to give that of a ring back which is gone
/// (io_ring_exit_work), one that was tried here, another shard's, or of the process before this one.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Unusable>) -> Result<T, Unusable> {
    let give_up = clock::now().mono.after(RING_MEMORY_WAIT);
    loop {
        match attempt() {
            Err(Unusable::NoMemory { .. }) if clock::now().mono < give_up => {
                std::thread::park_timeout(RING_MEMORY_PAUSE);
            }
            other => return other,
        }
    }
}

/// A ring of this size with its groups of buffers.
fn assemble(features: &Features, sizes: &RingOptions) -> Result<(IoUring, [BufRing; 2]), Unusable> {
    let uring = build(features, sizes.submission_entries, sizes.completion_entries)
        .map_err(|error| refused("io_uring_setup", &error))?;
    let groups = [BufRing::new(Class::Small), BufRing::new(Class::Large)];
    for group in &groups {
        group
            .register(&uring.submitter())
            .map_err(|errno| refused("io_uring_register", &std::io::Error::from_raw_os_error(errno.0)))?;
    }
    Ok((uring, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_share_what_may_be_locked() {
        let entries = |shards: u16, bytes: u64| {
            let sizes = RingOptions::of_shards(shards, bytes);
            let shards = u64::from(shards);
            assert!(shards * sizes.bytes() <= bytes || sizes.submission_entries == RING_ENTRIES_MIN);
            sizes.completion_entries
        };
        let mib = 1 << 20;
        assert_eq!(entries(1, u64::MAX), RING_COMPLETION_ENTRIES);
        assert_eq!([entries(2, 8 * mib), entries(8, 8 * mib), entries(64, 8 * mib)], [65_536, 32_768, 4_096]);
        assert_eq!(
            entries(64, mib / 16),
            RING_COMPLETION_ENTRIES / (RING_SUBMISSION_ENTRIES / RING_ENTRIES_MIN)
        );
        assert_eq!(RingOptions::default().bytes(), 1156 * 1024, "as the documents say");
        let (six, seven) = (RingMemory::planned(6, 8 * mib), RingMemory::planned(7, 8 * mib));
        assert!(!six.is_short() && six.got == six.asked);
        assert!(seven.is_short() && seven.got == 580 * 1024, "{seven:?}");
    }
}
