//! The conns of the shards, as control asks for them: a page at a time, of one shard at a time.

use super::Plane;
pub use crate::shard::listing::{Listing, Place, Row, Upstream, Wanted};
use crate::shard::mailbox::Command;

impl Plane {
    /// Asks a shard, which answers by [`Plane::listed`], within a few turns. One question at a time: the next follows the answer.
    ///
    /// # Errors
    /// The question, where the shard has one already, where its mailbox is full, or where there is no such shard.
    pub fn list(&self, shard: u16, listing: Box<Listing>) -> Result<(), Box<Listing>> {
        let Some(shard) = self.shards.get(usize::from(shard)) else { return Err(listing) };
        if shard.is_listing.get() {
            return Err(listing);
        }
        match shard.commands.borrow_mut().send(Command::List(listing)) {
            Ok(()) => {
                shard.is_listing.set(true);
                Ok(())
            }
            Err(Command::List(listing)) => Err(listing),
            Err(_) => unreachable!("a mailbox gives back what it was given"),
        }
    }

    /// The answer of a shard, once it is there.
    pub fn listed(&self, shard: u16) -> Option<Box<Listing>> {
        let shard = self.shards.get(usize::from(shard))?;
        let listing = shard.listed.borrow_mut().pop().ok()?;
        shard.is_listing.set(false);
        Some(listing)
    }
}
