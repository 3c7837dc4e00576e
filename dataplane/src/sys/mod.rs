//! The kernel: the ring, its operations, sockets, pinning. The other home of `unsafe`.
