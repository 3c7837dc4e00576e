//! Headers and addresses that an entry of the submission queue points to. The kernel copies them when the entry is
//! submitted, so they live until then and no longer (IORING_FEAT_SUBMIT_STABLE).

use super::socket::RawAddress;
use crate::buf::{Chain, Pool};
use crate::io::{Address, SocketAddress};
use crate::limits::{CHAIN_LEASES, RING_SCRATCH_SLOTS};
use std::ptr;

struct Slot {
    header: libc::msghdr,
    iovecs: [libc::iovec; CHAIN_LEASES],
    address: RawAddress,
}

/// A fixed number of slots, used from the front and all freed at once.
pub(super) struct Scratch {
    slots: Box<[Slot]>,
    used: usize,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("used", &self.used).finish_non_exhaustive()
    }
}

impl Scratch {
    pub(super) fn new() -> Self {
        let slot = || Slot {
            // SAFETY: a msghdr is integers and pointers; all zeroes is an empty one.
            header: unsafe { std::mem::zeroed() },
            iovecs: [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; CHAIN_LEASES],
            address: RawAddress::from(&SocketAddress::UNSPECIFIED.into()),
        };
        Self { slots: (0..RING_SCRATCH_SLOTS).map(|_| slot()).collect(), used: 0 }
    }

    /// Everything queued was submitted: all slots are free again.
    pub(super) fn reset(&mut self) {
        self.used = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == self.slots.len()
    }

    fn slot(&mut self) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(self.used)?;
        self.used += 1;
        Some(slot)
    }

    /// A message header over the bytes of `chain`, valid until [`Scratch::reset`]; `None` when all slots are used.
    pub(super) fn message(&mut self, chain: &Chain, pool: &Pool) -> Option<*const libc::msghdr> {
        let slot = self.slot()?;
        let mut count = 0;
        for lease in chain.iter().filter(|l| !l.is_empty()) {
            let (address, len) = pool.address(lease);
            slot.iovecs[count] = libc::iovec { iov_base: address.cast_mut().cast(), iov_len: len };
            count += 1;
        }
        slot.header.msg_iov = slot.iovecs.as_mut_ptr();
        slot.header.msg_iovlen = count;
        Some(&raw const slot.header)
    }

    /// A socket address, valid until [`Scratch::reset`]; `None` when all slots are used.
    pub(super) fn address(&mut self, to: &Address) -> Option<(*const libc::sockaddr, libc::socklen_t)> {
        let slot = self.slot()?;
        slot.address = RawAddress::from(to);
        Some((slot.address.as_ptr(), slot.address.len()))
    }
}
