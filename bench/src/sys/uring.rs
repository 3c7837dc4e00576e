//! One ring of the calling thread: operations are queued, and one call of the kernel per turn submits and waits.

use super::buffers::{Buffers, GROUP, Lease};
use anyhow::Context as _;
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

const SUBMISSION_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 16_384;
/// IORING_RECVSEND_POLL_FIRST and IORING_RECV_MULTISHOT of <linux/io_uring.h>; the crate keeps the second to itself.
const POLL_FIRST: u16 = 1;
const MULTISHOT: u16 = 2;

/// A second ring could be handed the leases of the first.
static MADE: AtomicBool = AtomicBool::new(false);

/// The provided buffers of a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// A power of two.
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: u32,
}

/// What a turn brought. `slot` is what the caller named the operation by.
#[derive(Debug)]
pub(crate) enum Event {
    /// `more` is false when the listener has to be asked again.
    Accepted { result: io::Result<OwnedFd>, more: bool },
    /// `Ok(None)` is the end of the stream. `more`: the receive goes on by itself.
    Received { slot: u32, result: io::Result<Option<Lease>>, more: bool },
    /// The lease is back if it was a lease that was sent.
    Sent { slot: u32, result: io::Result<u32>, lease: Option<Lease> },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Accept,
    Recv,
    SendLease,
    SendStatic,
}

fn user_data(kind: Kind, id: u16, slot: u32) -> u64 {
    (kind as u64) << 56 | u64::from(id) << 32 | u64::from(slot)
}

/// A ring and its provided buffers. There is one in a process, and what it is made of lives until that ends.
pub(crate) struct Uring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    buffers: Buffers,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").finish_non_exhaustive()
    }
}

impl Uring {
    pub(crate) fn new(options: Options) -> anyhow::Result<Self> {
        anyhow::ensure!(!MADE.swap(true, Ordering::Relaxed), "a process has one ring");
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .build(SUBMISSION_ENTRIES)
            .context("io_uring_setup; this needs Linux 6.1")?;
        let (mut submitter, submissions, completions) = Box::leak(Box::new(ring)).split();
        submitter.register_ring_fd().context("registering the ring's descriptor")?;
        let buffers = Buffers::new(&submitter, options.buffers, options.buffer_bytes)?;
        Ok(Self { submitter, submissions, completions, buffers })
    }

    /// Queues an entry, submitting first where the queue is full.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what an entry names is never freed (provided buffers, static bytes), and a buffer that is sent has
            // its lease inside the entry, so nobody lends it to the kernel meanwhile.
            if unsafe { self.submissions.push(entry) }.is_ok() {
                return;
            }
            self.submissions.sync();
            // An error leaves the queue full, and the next round tries again: EBUSY and EINTR pass.
            let _ = self.submitter.submit();
            self.submissions.sync();
        }
    }

    /// Accepts until told otherwise.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>) {
        let entry =
            opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(&entry.user_data(user_data(Kind::Accept, 0, 0)));
    }

    /// Receives into a provided buffer: once, when there is something; or again and again.
    pub(crate) fn recv(&mut self, fd: BorrowedFd<'_>, slot: u32, multishot: bool, poll_first: bool) {
        let how = if multishot { MULTISHOT } else { 0 } | if poll_first { POLL_FIRST } else { 0 };
        let entry = opcode::Recv::new(types::Fd(fd.as_raw_fd()), std::ptr::null_mut(), 0)
            .buf_group(GROUP)
            .ioprio(how)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry.user_data(user_data(Kind::Recv, 0, slot)));
    }

    /// Sends all of a lease, which comes back with the event.
    pub(crate) fn send_lease(&mut self, fd: BorrowedFd<'_>, slot: u32, lease: Lease) {
        let (data, id) = (user_data(Kind::SendLease, lease.id, slot), lease);
        let entry = Self::send(fd, self.buffers.bytes(&id));
        self.push(&entry.user_data(data));
    }

    /// Sends all of `bytes`.
    pub(crate) fn send_static(&mut self, fd: BorrowedFd<'_>, slot: u32, bytes: &'static [u8]) {
        self.push(&Self::send(fd, bytes).user_data(user_data(Kind::SendStatic, 0, slot)));
    }

    fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> squeue::Entry {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // WAITALL: the kernel goes on with what did not fit, so that one event ends one send.
        opcode::Send::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
    }

    pub(crate) fn bytes(&self, lease: &Lease) -> &[u8] {
        self.buffers.bytes(lease)
    }

    /// Whether a receive would find a buffer.
    pub(crate) fn has_buffers(&self) -> bool {
        self.buffers.on_loan() > 0
    }

    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.buffers.give_back(lease);
    }

    /// Submits what is queued and waits for an event, in one call of the kernel.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        self.buffers.publish();
        self.submissions.sync();
        match self.submitter.submit_and_wait(1) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {
                Err(error).context("io_uring_enter")
            }
            _ => {
                self.completions.sync();
                self.submissions.sync();
                Ok(())
            }
        }
    }

    /// The next event of this turn.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let entry = self.completions.next()?;
        let (data, result) = (entry.user_data(), entry.result());
        let slot = u32::try_from(data & u64::from(u32::MAX)).unwrap_or(0);
        let sent_id = u16::try_from(data >> 32 & 0xffff).unwrap_or(0);
        let value = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let more = cqueue::more(entry.flags());
        Some(match data >> 56 {
            // SAFETY: a multishot accept answers descriptors that nobody else owns.
            0 => Event::Accepted { result: value.map(|_| unsafe { OwnedFd::from_raw_fd(result) }), more },
            1 => {
                let lease = cqueue::buffer_select(entry.flags())
                    .and_then(|id| self.buffers.received(id, value.as_ref().map_or(0, |len| *len)));
                let result = match value {
                    Ok(1..) => Ok(lease),
                    end => {
                        lease.into_iter().for_each(|lease| self.buffers.give_back(lease));
                        end.map(|_| None)
                    }
                };
                Event::Received { slot, result, more }
            }
            // The entry carried the lease of this id since `send_lease` took it.
            2 => Event::Sent { slot, result: value, lease: Some(Lease { id: sent_id }) },
            _ => Event::Sent { slot, result: value, lease: None },
        })
    }
}
