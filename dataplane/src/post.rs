//! Messages to other shards, for as long as nobody knows whether they arrive.

use crate::core::Core;
use crate::io::{Io, Kind, Message};
use crate::table::Id;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub struct Post {
    /// Whom it is for.
    pub shard: u16,
    pub message: Message,
}

/// Tells `shard` something. False, and nothing done, while `limits::POSTS` messages are on their way.
pub fn begin(core: &mut Core, io: &mut impl Io, shard: u16, message: Message) -> bool {
    let Ok(id) = core.posts.insert(Post { shard, message }) else { return false };
    io.post(shard, message, id.token(Kind::Post));
    true
}

/// The post `id` ended, well or not: what it was.
pub fn on_ended(core: &mut Core, id: Id<Post>) -> Option<Post> {
    core.posts.remove(id)
}
