//! What the probe says where a seccomp filter forbids io_uring, as containers do.
#![allow(unsafe_code, reason = "only prctl(2) installs a filter; each block runs in a child of its own")]

use crate::child;
use dataplane::io::Errno;
use dataplane::sys::{Unusable, probe};

/// From here on io_uring_setup answers `errno` on this thread, as under a container's profile.
fn forbid_io_uring(errno: i32) {
    // <linux/filter.h> and <linux/seccomp.h>: load the number of the call; if it is io_uring_setup answer the errno.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let call = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, call),
        step(RETURN, 0, 0, ERRNO | errno.unsigned_abs()),
        step(RETURN, 0, 0, ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: no memory is passed. The flag only takes rights away, from a thread of a child process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `filter` and `program` outlive the call, and `len` is the length of `program`.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn probe_says_filtered(errno: i32) {
    assert!(probe().is_ok(), "io_uring works before the filter is there");
    forbid_io_uring(errno);
    let unusable = probe().unwrap_err();
    assert_eq!(unusable, Unusable::Forbidden { errno: Errno(errno), filtered: true });
    let message = unusable.to_string();
    for word in ["seccomp", "Docker", "containerd", "io_uring_enter", "--security-opt"] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

#[test]
fn a_filter_with_eperm_is_named() {
    child::run("forbidden::child_with_eperm");
}

#[test]
#[ignore = "the body of a_filter_with_eperm_is_named"]
fn child_with_eperm() {
    probe_says_filtered(libc::EPERM);
}

#[test]
fn a_filter_with_enosys_is_named() {
    child::run("forbidden::child_with_enosys");
}

#[test]
#[ignore = "the body of a_filter_with_enosys_is_named"]
fn child_with_enosys() {
    probe_says_filtered(libc::ENOSYS);
}
