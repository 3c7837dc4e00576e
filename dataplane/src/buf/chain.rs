//! A bounded queue of leases for one direction of one connection.

use super::{Lease, Pool};
use crate::limits::CHAIN_LEASES;

/// Up to `CHAIN_LEASES` leases, sent front first. Every conn and link has one, so it keeps no count beside them.
#[derive(Debug, Default)]
pub struct Chain {
    /// Those that are there stand in front.
    leases: [Option<Lease>; CHAIN_LEASES],
}

impl Chain {
    pub fn is_empty(&self) -> bool {
        self.leases[0].is_none()
    }
    /// Leases queued.
    pub fn len(&self) -> usize {
        self.leases.iter().position(Option::is_none).unwrap_or(CHAIN_LEASES)
    }
    /// Leases that may still be pushed.
    pub fn room(&self) -> usize {
        CHAIN_LEASES - self.len()
    }
    pub fn bytes(&self) -> usize {
        self.iter().map(Lease::len).sum()
    }
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().flatten()
    }
    /// Queues a lease at the back. The caller checked [`Chain::room`].
    pub fn push(&mut self, lease: Lease) {
        assert!(self.room() > 0, "a chain is full");
        self.leases[self.len()] = Some(lease);
    }
    /// The kernel took `n` bytes from the front: finished leases go back to the pool.
    pub fn consume(&mut self, mut n: usize, pool: &mut Pool) {
        while n > 0 {
            let Some(front) = self.leases[0].as_mut() else {
                unreachable!("the kernel took more than was queued")
            };
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            if let Some(done) = self.leases[0].take() {
                pool.give_back(done);
            }
            self.leases.rotate_left(1);
        }
    }
    /// Gives every lease back.
    pub fn clear(&mut self, pool: &mut Pool) {
        for lease in &mut self.leases {
            if let Some(lease) = lease.take() {
                pool.give_back(lease);
            }
        }
    }
    /// The last lease, to append to. Only while no send is in flight: the kernel may be reading it.
    pub fn back_mut(&mut self) -> Option<&mut Lease> {
        self.len().checked_sub(1).and_then(|i| self.leases[i].as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PoolSize;

    #[test]
    fn consumes_over_lease_borders_and_gives_back() {
        let mut pool = Pool::new(PoolSize { tiny: 4, small: 4, large: 4 });
        let mut chain = Chain::default();
        for text in [b"abc".as_slice(), b"de", b"fghi"] {
            chain.push(pool.take_copy(text).unwrap());
        }
        chain.consume(4, &mut pool);
        assert_eq!((chain.len(), chain.bytes()), (2, 5));
        assert_eq!(pool.bytes(chain.iter().next().unwrap()), b"e");
        chain.consume(5, &mut pool);
        assert!(chain.is_empty());
        assert_eq!(pool.leased(crate::buf::Class::Tiny), 0);
    }
}
