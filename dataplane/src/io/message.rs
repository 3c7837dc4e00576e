//! What one shard tells another: 88 bits, as many as a ring carries to another (IORING_OP_MSG_RING).

use super::{Fd, Kind, Token};
use crate::spec::{ClusterId, ListenerId};

/// A message between two shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A connection that the sender accepted on `listener`, with nothing in flight on it. The receiver owns it.
    Conn { listener: ListenerId, fd: Fd },
    /// A place at a cluster seems to be free, and the next waiter of the receiver is to have it. If it has none that can,
    /// it tells the next shard that waits, and so on for `hops` shards.
    Place { cluster: ClusterId, hops: u16 },
    /// Somebody waits for a place at a cluster of which the receiver holds an idle link.
    Wanted { cluster: ClusterId },
}

/// `kind:8 | what:8 | object:16 | 32 bits`, and 32 more beside it.
const WHAT_SHIFT: u32 = 48;
const OBJECT_SHIFT: u32 = 32;
const CONN: u8 = 1;
const PLACE: u8 = 2;
const WANTED: u8 = 3;

impl Message {
    /// The token and the result of the completion by which it arrives.
    pub(crate) fn encode(self) -> (Token, i32) {
        let (what, object, result) = match self {
            Self::Conn { listener, fd } => (CONN, listener.0, fd.0),
            Self::Place { cluster, hops } => (PLACE, cluster.0, i32::from(hops)),
            Self::Wanted { cluster } => (WANTED, cluster.0, 0),
        };
        let word = u64::from(what) << WHAT_SHIFT | u64::from(object) << OBJECT_SHIFT;
        (Token(Token::new(Kind::Message, 0, 0).0 | word), result)
    }
    /// What arrived; `None` for what no shard sends.
    pub(crate) fn decode(token: Token, result: i32) -> Option<Self> {
        let [kind, what, high, low, ..] = token.0.to_be_bytes();
        let object = u16::from_be_bytes([high, low]);
        if kind != Kind::Message as u8 {
            return None;
        }
        match what {
            CONN => Some(Self::Conn { listener: ListenerId(object), fd: Fd(result) }),
            PLACE => Some(Self::Place { cluster: ClusterId(object), hops: u16::try_from(result).ok()? }),
            WANTED => Some(Self::Wanted { cluster: ClusterId(object) }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        for message in [
            Message::Conn { listener: ListenerId(0), fd: Fd(3) },
            Message::Conn { listener: ListenerId(u16::MAX), fd: Fd(i32::MAX) },
            Message::Place { cluster: ClusterId(u16::MAX), hops: u16::MAX },
            Message::Wanted { cluster: ClusterId(3) },
        ] {
            let (token, result) = message.encode();
            assert_eq!((token.kind(), Message::decode(token, result)), (Kind::Message, Some(message)));
        }
        assert_eq!(Message::decode(Token::new(Kind::Message, 0, 0), 3), None);
        assert_eq!(Message::decode(Token::new(Kind::Accept, 0, 0x1_0000), 3), None);
    }
}
