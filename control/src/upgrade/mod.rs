//! A binary upgrade: this process starts the next one, which goes on with everything that listens.
//!
//! The two speak over a socket pair that is the next process's standard input, in the messages of `message`. `former` is the next
//! process's view of the one that started it, `next` that one's view of the next.
//!
//! 1. The former gives all that listens, what operators said of endpoints, what checks know of them, and what was changed at run
//!    time, with the file that this was done to.
//! 2. The next one reads its file, in which the changes go on as in a reload; it starts, accepts, and says `Ready` with what it took.
//! 3. The former accepts no more on that and says `Yours`; the next answers `Mine`.
//! 4. The former gives connections that wait for a request, and those that come to wait within a moment. Until then it keeps
//!    descriptors of its own of what listens, and takes everything back should the next one die.
//! 5. The former closes the socket between the two, which says that it takes nothing back; it drains the rest, and ends.

mod conns;
mod former;
mod message;
mod next;

pub(crate) use conns::{Arrival, Travelling};
pub(crate) use former::{Former, may_take_back};
pub(crate) use message::Endpoint;
pub(crate) use message::Speaks;
pub(crate) use next::{Bearer, Gift, Next, Sent, Took};
