//! The completion queues of the simulated kernel: what is ready, when it may be seen, and handing it out.

use super::faults::Fault;
use super::io::{SimIo, World};
use super::operations::Verb;
use super::trace::words;
use crate::buf::{Pool, Sight};
use crate::io::{Completion, Fd, Mono, Outcome, Token};

/// A completion in the queue.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) completion: Completion,
    pub(super) fd: Fd,
    pub(super) verb: Verb,
    /// The bytes of a send, untouched until it is handed out.
    pub(super) sent: Option<(Vec<Sight>, u64)>,
    /// A deliberate bug: the operation it speaks for is still in flight.
    pub(super) forged: bool,
}

/// A cheap checksum, to see that nobody wrote to what is being sent.
pub(super) fn sum(sights: &[Sight], pool: &Pool) -> Option<u64> {
    let mut sum = 0u64;
    for sight in sights {
        // Both ends of each buffer: whoever reuses it writes to its front.
        let all = pool.seen(sight)?;
        let ends = [&all[..all.len().min(128)], &all[all.len().saturating_sub(128)..]];
        for chunk in ends.into_iter().flat_map(|end| end.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = sum.rotate_left(7).wrapping_add(u64::from_le_bytes(word));
        }
    }
    Some(sum)
}

impl<W: World> SimIo<W> {
    /// Puts a terminal completion into the queue.
    pub(super) fn complete(&mut self, fd: Fd, verb: Verb, token: Token, outcome: Outcome) {
        let at = self.seen_at();
        self.enqueue(at, fd, verb, Completion { token, outcome, more: false }, None);
    }
    /// When a completion that happens now is to be seen.
    pub(super) fn seen_at(&mut self) -> Mono {
        let late = if self.net.faults.hit(Fault::LateCompletion) {
            self.net.faults.random().below(2_000_000)
        } else {
            0
        };
        Mono(self.net.now.0 + late)
    }
    pub(super) fn enqueue(
        &mut self,
        at: Mono,
        fd: Fd,
        verb: Verb,
        completion: Completion,
        sent: Option<(Vec<Sight>, u64)>,
    ) {
        self.sequence += 1;
        self.ready.insert((at, self.sequence), Ready { completion, fd, verb, sent, forged: false });
    }
    /// Moves up to `most` completions that may be seen to `out`; says how many.
    pub(super) fn hand_out(&mut self, pool: &Pool, most: usize, out: &mut Vec<Completion>) -> usize {
        let mut n = 0;
        while n < most && self.ready.first_key_value().is_some_and(|((at, _), _)| *at <= self.net.now) {
            let Some((_, ready)) = self.ready.pop_first() else { break };
            let Ready { mut completion, fd, verb, sent, forged } = ready;
            if let Some((sights, before)) = sent {
                let after = sum(&sights, pool);
                assert!(after == Some(before), "the bytes of a send on {fd:?} changed before it completed");
            }
            self.forget_write(&mut completion);
            let forged = forged || self.keeps_in_flight(&completion);
            if !completion.more && !forged {
                self.live.remove(&completion.token);
                self.late_cancels.retain(|(_, token)| *token != completion.token);
                if verb != Verb::Close
                    && let Ok(descriptor) = self.descriptor_mut(fd)
                {
                    descriptor.flying[verb as usize] = false;
                }
            }
            let (what, value) = words(&completion.outcome);
            self.note(what, completion.token, fd, value);
            if self.forge(&completion, pool, out) {
                n += 1;
            }
            out.push(completion);
            n += 1;
        }
        n
    }
}
