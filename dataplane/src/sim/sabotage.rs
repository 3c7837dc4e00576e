//! Deliberate bugs, as if the backend or the shard had them: a standing test demands that each is found.

use super::completions::Ready;
use super::io::{SimIo, World};
use super::operations::Verb;
use crate::buf::Pool;
use crate::io::{Completion, Errno, Fd, Kind, Outcome, Token};

/// One deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A receive is reported although it is still in flight: the shard arms a second one.
    MissingInFlightBit,
    /// A received buffer reaches two owners, and so comes back twice.
    BufferTwice,
    /// A completion of a slot's former life acts on its present one.
    StaleCompletion,
    /// The FIN of an idle link is never reported.
    LostIdleFin,
    /// A send to an origin went out, and is reported as failed with nothing sent.
    ForgottenWrite,
    /// A message to another shard is reported as posted and never arrives.
    LostMessage,
}

impl<W: World> SimIo<W> {
    fn strikes(&mut self, which: Sabotage) -> bool {
        let strikes = self.sabotage == Some(which) && self.net.faults.random().one_in(64);
        self.sabotaged += u64::from(strikes);
        strikes
    }
    /// What a send came to, as the shard is told.
    pub(super) fn forget_write(&mut self, completion: &mut Completion) {
        let struck = self.sabotage == Some(Sabotage::ForgottenWrite)
            && completion.token.kind() == Kind::LinkSend
            && matches!(completion.outcome, Outcome::Sent(_))
            && self.net.faults.random().one_in(4);
        if struck {
            self.sabotaged += 1;
            completion.outcome = Outcome::Failed(Errno(libc::EPIPE));
        }
    }
    pub(super) fn swallows_message(&mut self) -> bool {
        self.strikes(Sabotage::LostMessage)
    }
    pub(super) fn swallows_fin(&mut self, token: Token) -> bool {
        token.kind() == Kind::LinkRecv && self.strikes(Sabotage::LostIdleFin)
    }
    /// A receive is reported and goes on all the same.
    pub(super) fn keeps_in_flight(&mut self, completion: &Completion) -> bool {
        matches!(completion.outcome, Outcome::Received(_)) && self.strikes(Sabotage::MissingInFlightBit)
    }
    /// A recv of a slot's new life is answered with the news of its former one.
    pub(super) fn honour_stale(&mut self, fd: Fd, token: Token) {
        let former = self.former.get(&(token.kind() as u8, token.slot()));
        if former.is_some_and(|g| *g != token.generation()) && self.strikes(Sabotage::StaleCompletion) {
            let at = self.seen_at();
            self.sequence += 1;
            let completion = Completion { token, outcome: Outcome::Eof, more: false };
            let ready = Ready { completion, fd, verb: Verb::Recv, sent: None, forged: true };
            self.ready.insert((at, self.sequence), ready);
        }
    }
    /// Adds a completion that should not be; true if it did.
    pub(super) fn forge(&mut self, completion: &Completion, pool: &Pool, out: &mut Vec<Completion>) -> bool {
        let Outcome::Received(lease) = &completion.outcome else { return false };
        if self.strikes(Sabotage::BufferTwice) {
            let outcome = Outcome::Received(pool.forge(lease));
            out.push(Completion { token: completion.token, outcome, more: false });
            return true;
        }
        false
    }
}
