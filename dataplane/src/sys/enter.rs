//! The raw system calls that the `io-uring` crate offers only through a borrowed submitter: entering by the ring's
//! registered descriptor, and registering it.

use crate::io::Errno;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

// <linux/io_uring.h>; the crate keeps these to itself.
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 8;
const ENTER_REGISTERED_RING: u32 = 16;
const ENTER_NO_IOWAIT: u32 = 128;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// struct io_uring_getevents_arg.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// struct __kernel_timespec.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// struct io_uring_rsrc_update.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How long an enter may wait for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    /// Nanoseconds.
    For(u64),
    Forever,
}

/// How a ring is named in `io_uring_enter`: by its registered index where the kernel takes one (one lookup less).
#[derive(Debug)]
pub(super) struct Entry {
    ring: RawFd,
    registered: Option<u32>,
    flags: u32,
}

impl Entry {
    /// Registers the ring's descriptor on the calling thread; without that it is entered by number.
    pub(super) fn new(ring: &impl AsRawFd, no_iowait: bool) -> Self {
        let ring = ring.as_raw_fd();
        let mut update = RingFdUpdate { offset: u32::MAX, reserved: 0, data: u64::from(ring.unsigned_abs()) };
        let done = register(ring, REGISTER_RING_FDS, &mut update) == 1;
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | if no_iowait { ENTER_NO_IOWAIT } else { 0 };
        Self { ring, registered: done.then_some(update.offset), flags }
    }

    /// Submits `pending` entries and waits for one completion as `wait` says. Answers how many were submitted.
    ///
    /// GETEVENTS is always there: with DEFER_TASKRUN completions are only made inside such a call.
    pub(super) fn enter(&self, pending: u32, wait: Wait) -> Result<u32, Errno> {
        let timeout = match wait {
            Wait::For(nanos) => KernelTimespec {
                seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
                nanoseconds: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
            },
            Wait::No | Wait::Forever => KernelTimespec { seconds: 0, nanoseconds: 0 },
        };
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: 0,
            timeout: if matches!(wait, Wait::For(_)) { (&raw const timeout).addr() as u64 } else { 0 },
        };
        let (ring, flags) = match self.registered {
            Some(index) => (i64::from(index), self.flags | ENTER_REGISTERED_RING),
            None => (i64::from(self.ring), self.flags),
        };
        // SAFETY: `arg` and `timeout` outlive the call, and the size passed is that of `arg`. The entries submitted are
        // described by this module's siblings, which keep what they name alive.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                pending,
                u32::from(wait != Wait::No),
                flags,
                &raw const arg,
                size_of::<GetEventsArg>(),
            )
        };
        u32::try_from(result).map_err(|_| last_errno())
    }

    /// Gives the registered index back; a ring stays open as long as one names it.
    pub(super) fn unregister(&mut self) {
        if let Some(offset) = self.registered.take() {
            let mut update = RingFdUpdate { offset, reserved: 0, data: 0 };
            register(self.ring, UNREGISTER_RING_FDS, &mut update);
        }
    }
}

fn register(ring: RawFd, what: u32, update: &mut RingFdUpdate) -> libc::c_long {
    // SAFETY: `update` is one io_uring_rsrc_update, read and written only during the call.
    unsafe { libc::syscall(libc::SYS_io_uring_register, ring, what, ptr::from_mut(update), 1u32) }
}

/// The errno of the call that just failed.
pub(super) fn last_errno() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
