//! What the process may have: descriptors and locked memory.

/// RLIM_INFINITY as a plain number.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

fn read(resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing during the call.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (result == 0).then_some(limit)
}

/// Raises the soft limit on descriptors to the hard one, and answers what the limit is now.
pub fn raise_descriptor_limit() -> u64 {
    let Some(limit) = read(libc::RLIMIT_NOFILE) else { return 0 };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: `raised` is valid for reading during the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    if result == 0 { raised.rlim_cur } else { limit.rlim_cur }
}

/// Descriptors that may be open now.
pub fn descriptors() -> u64 {
    read(libc::RLIMIT_NOFILE).map_or(u64::MAX, |limit| limit.rlim_cur)
}

/// RLIMIT_MEMLOCK in bytes: the memory the kernel may pin for this user, which the ring's buffer tables count against.
pub fn memlock() -> u64 {
    read(libc::RLIMIT_MEMLOCK).map_or(0, |limit| limit.rlim_cur)
}

/// What the rings of this process may lock: no limit where it has CAP_IPC_LOCK (io_uring_setup(2), capabilities(7)).
pub fn lockable() -> u64 {
    const IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if capabilities >> IPC_LOCK & 1 == 1 { UNLIMITED } else { memlock() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_descriptor_limit();
        let limit = read(libc::RLIMIT_NOFILE).unwrap();
        assert_eq!((limit.rlim_cur, limit.rlim_max), (raised, raised));
        assert!(raised >= 64);
    }
}
