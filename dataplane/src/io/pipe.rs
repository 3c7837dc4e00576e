//! A pipe as a shard holds it: where bytes stay on their way from socket to socket when user space never sees them.

use super::Fd;

/// A pipe out on loan from the backend, to be given back through [`super::Io::give_pipe`].
///
/// It may hold more bytes than its nominal size: what it counts are references to the network's own buffers.
#[derive(Debug)]
#[must_use]
pub struct Pipe {
    pub(crate) reader: Fd,
    pub(crate) writer: Fd,
    held: usize,
}

impl Pipe {
    /// An empty one.
    pub(crate) fn new(reader: Fd, writer: Fd) -> Self {
        Self { reader, writer, held: 0 }
    }
    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }
    /// The backend moved bytes in.
    pub(crate) fn filled(&mut self, n: usize) {
        self.held += n;
    }
    /// The backend moved bytes out.
    pub(crate) fn drained(&mut self, n: usize) {
        assert!(n <= self.held, "more bytes left a pipe than it held");
        self.held -= n;
    }
}
