//! The one socket option that no library here has a name for.

use std::io;
use std::os::fd::AsRawFd;

/// A bind to an address without a port then takes none before connect, which knows the peer: so that a port serves as
/// many connections as there are pairs of addresses.
pub(crate) fn bind_without_port(fd: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
    // SAFETY: the value is one int, read only during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            bytes,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
