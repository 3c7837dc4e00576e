//! The 64 bits that come back with a completion: what kind of operation, which slot, which life of the slot.

/// Who asked for an operation, and for which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The backend's own (cancel requests, wake-ups); never reaches the shard.
    Backend = 0,
    Accept,
    ListenerClose,
    ConnRecv,
    ConnSend,
    ConnClose,
    LinkConnect,
    LinkRecv,
    LinkSend,
    LinkClose,
    Mailbox,
    /// A message to another shard.
    Post,
    /// A message of another shard: see [`super::Message`].
    Message,
    /// Keys of the timer wheel; no operation carries them.
    ConnTimer,
    LinkTimer,
    AcceptTimer,
    WaitTimer,
    /// The backend's own, as [`Self::Backend`]: a receive that goes on by itself beside the recv of a conn, or of a link.
    ConnStanding,
    LinkStanding,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    const ALL: [Self; 19] = [
        Self::Backend,
        Self::Accept,
        Self::ListenerClose,
        Self::ConnRecv,
        Self::ConnSend,
        Self::ConnClose,
        Self::LinkConnect,
        Self::LinkRecv,
        Self::LinkSend,
        Self::LinkClose,
        Self::Mailbox,
        Self::Post,
        Self::Message,
        Self::ConnTimer,
        Self::LinkTimer,
        Self::AcceptTimer,
        Self::WaitTimer,
        Self::ConnStanding,
        Self::LinkStanding,
    ];
}

/// `kind:8 | generation:24 | slot:32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// Generations wrap at 24 bits.
    pub const GENERATION_MASK: u32 = 0x00ff_ffff;

    pub fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        debug_assert!(generation <= Self::GENERATION_MASK);
        Self(
            u64::from(kind as u8) << 56
                | u64::from(generation & Self::GENERATION_MASK) << 32
                | u64::from(slot),
        )
    }
    pub fn kind(self) -> Kind {
        Kind::ALL[usize::from(self.0.to_be_bytes()[0])]
    }
    pub fn slot(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
    pub fn generation(self) -> u32 {
        ((self.0 >> 32) & u64::from(Self::GENERATION_MASK)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        for kind in Kind::ALL {
            let token = Token::new(kind, 0xdead_beef, 0x00ab_cdef);
            assert_eq!((token.kind(), token.slot(), token.generation()), (kind, 0xdead_beef, 0x00ab_cdef));
        }
    }
}
