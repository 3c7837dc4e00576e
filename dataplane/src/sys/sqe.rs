//! One function per operation: fills a submission queue entry, and nothing else.

use crate::io::{Interest, Message, Token};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

/// IORING_RECVSEND_POLL_FIRST: wait for readiness before the first attempt.
const POLL_FIRST: u16 = 1;

/// Every connection until it fails or is cancelled; descriptors in blocking mode (a non-blocking one would make the
/// kernel answer EAGAIN where it should wait), closed on exec.
pub(super) fn accept(fd: i32, token: Token) -> Entry {
    opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(token.0)
}

/// One receive into whichever buffer of `group` is next when bytes are there.
/// At most so many bytes; 0 is as many as the group's buffers hold.
pub(super) fn recv(fd: i32, group: u16, most: u32, poll_first: bool, token: Token) -> Entry {
    opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), most)
        .ioprio(if poll_first { POLL_FIRST } else { 0 })
        .buf_group(group)
        .build()
        .flags(Flags::BUFFER_SELECT)
        .user_data(token.0)
}

/// Receives into buffers of `group` one after another, until so many bytes have come in all (Linux 6.17; before, it ends at once
/// with EINVAL), it fails or is cancelled. Tried at once: armed over bytes and an end that are both there, it would bring the
/// bytes alone.
pub(super) fn recv_standing(fd: i32, group: u16, limit: u32, token: Token) -> Entry {
    /// IORING_RECV_MULTISHOT.
    const MULTISHOT: u16 = 2;
    /// Of `optlen` in struct io_uring_sqe, which the crate does not fill for a receive.
    const LIMIT_AT: usize = 44;
    const { assert!(size_of::<Entry>() == 64) };
    let mut entry = opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), 0)
        .ioprio(MULTISHOT)
        .buf_group(group)
        .build()
        .flags(Flags::BUFFER_SELECT)
        .user_data(token.0);
    // SAFETY: an entry is a struct io_uring_sqe (io_uring.h): 64 plain bytes, of which 44 to 48 are a u32.
    let at = unsafe { (&raw mut entry).byte_add(LIMIT_AT) }.cast::<u32>();
    // SAFETY: it is within the entry, which is aligned to 8.
    unsafe { at.write(limit) };
    entry
}

/// One stretch of bytes, perhaps in part.
pub(super) fn send(fd: i32, bytes: *const u8, len: u32, token: Token) -> Entry {
    opcode::Send::new(types::Fd(fd), bytes, len).flags(libc::MSG_NOSIGNAL).build().user_data(token.0)
}

/// Several stretches of bytes, perhaps in part.
pub(super) fn send_message(fd: i32, message: *const libc::msghdr, token: Token) -> Entry {
    opcode::SendMsg::new(types::Fd(fd), message)
        .flags(libc::MSG_NOSIGNAL.unsigned_abs())
        .build()
        .user_data(token.0)
}

pub(super) fn connect(fd: i32, to: *const libc::sockaddr, len: libc::socklen_t, token: Token) -> Entry {
    opcode::Connect::new(types::Fd(fd), to, len).build().user_data(token.0)
}

/// Readable or writable, once.
pub(super) fn poll(fd: i32, interest: Interest, token: Token) -> Entry {
    let events = match interest {
        Interest::Readable => libc::POLLIN,
        Interest::Writable => libc::POLLOUT,
    };
    opcode::PollAdd::new(types::Fd(fd), u32::from(events.unsigned_abs())).build().user_data(token.0)
}

pub(super) fn close(fd: i32, token: Token) -> Entry {
    opcode::Close::new(types::Fd(fd)).build().user_data(token.0)
}

/// A completion in another ring, which wakes who waits there.
pub(super) fn post(ring: i32, message: Message, token: Token) -> Entry {
    let (arrives_as, result) = message.encode();
    opcode::MsgRingData::new(types::Fd(ring), result, arrives_as.0, None).build().user_data(token.0)
}

/// Ends the operation of `target`. Says nothing when it did: the target's own completion does; the answers that do come
/// (it was too late, it is running) carry `token` and mean nothing.
pub(super) fn cancel(target: Token, token: Token) -> Entry {
    opcode::AsyncCancel::new(target.0).build().flags(Flags::SKIP_SUCCESS).user_data(token.0)
}
