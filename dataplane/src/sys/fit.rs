//! A ring that fits into the memory that may be locked: of half the size and half again where that is short.

use super::buf_ring::BufRing;
use super::clock;
use super::probe::{Features, Unusable, build, refused};
use super::ring::RingOptions;
use crate::buf::Class;
use crate::limits::{RING_ENTRIES_MIN, RING_MEMORY_PAUSE, RING_MEMORY_WAIT};
use io_uring::IoUring;

/// A ring with its groups of buffers.
pub(super) fn make(features: &Features, options: RingOptions) -> Result<(IoUring, [BufRing; 2]), Unusable> {
    patiently(|| {
        let mut sizes = options;
        loop {
            match assemble(features, &sizes) {
                Err(Unusable::NoMemory { .. }) if sizes.submission_entries > RING_ENTRIES_MIN => {
                    sizes.submission_entries /= 2;
                    sizes.completion_entries = (sizes.completion_entries / 2).max(sizes.submission_entries);
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
