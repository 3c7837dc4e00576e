//! A child that the kernel refuses io_uring, as the default seccomp profile of many containers does.
//!
//! The one test file with `unsafe`: a filter is installed between fork and exec, which only `pre_exec` can do.
#![allow(unsafe_code, reason = "pre_exec and prctl have no safe form")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes `io_uring_setup` fail with EPERM in what `command` starts.
pub fn refuse_io_uring(command: &mut Command) {
    // SAFETY: the closure makes two system calls on data of its own and allocates nothing, so it is sound between fork
    // and exec of a threaded process.
    unsafe { command.pre_exec(install) };
}

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn install() -> io::Result<()> {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The number of the system call stands first in seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, refused),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes four numbers and touches no memory.
    let private = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if private != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and the filter it points to live until the call returns; the kernel copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
