//! Feeding receives that found no buffer, once buffers are there; and ending those that need none any more.

use super::ring::{Ring, group_of};
use super::sqe;
use crate::buf::{Class, Pool};
use crate::io::{Completion, Fd, Outcome, Token};

impl Ring {
    /// Lends buffers, then asks again for receives that starved: no more than there are buffers, so that a crowd of them
    /// costs what it can use. They wait for readiness first and so take a buffer only for bytes that are there.
    pub(super) fn feed(&mut self, pool: &mut Pool) {
        for index in 0..self.groups.len() {
            self.groups[index].lend(pool);
            self.resume(index, Class::ALL[index + 1]);
        }
        let large = group_of(Class::Large);
        if self.starved[large].count() > 0 && self.groups[large].available() == 0 {
            // No large buffer is left in the pool: small ones do as well, in more pieces.
            self.resume(large, Class::Small);
        }
    }

    /// Asks again for starved receives of group `index`, with buffers of `class`.
    fn resume(&mut self, index: usize, class: Class) {
        if self.starved[index].count() == 0 {
            return;
        }
        let group = &self.groups[group_of(class)];
        for _ in 0..group.available() {
            let operations = &mut self.operations;
            let waits = |token: &Token| operations.get(*token).is_some_and(|o| o.starved);
            let Some(token) = self.starved[index].pop(waits) else { break };
            if let Some(operation) = self.operations.get(token) {
                self.operations.set_fed(token, class);
                let fd = operation.fd;
                let group = self.groups[group_of(class)].id();
                self.push(sqe::recv(fd, group, 0, true, token));
            }
        }
    }

    /// Receives starve while buffers are there: [`Ring::feed`] has more to do, so this is no time to wait.
    pub(super) fn can_feed(&self) -> bool {
        let small = self.groups[group_of(Class::Small)].available();
        (0..self.groups.len())
            .any(|i| self.starved[i].count() > 0 && self.groups[i].available().max(small) > 0)
    }

    /// A receive that the kernel does not hold ends with `outcome`.
    pub(super) fn end_starved(&mut self, class: Class, token: Token, outcome: Outcome) {
        self.operations.remove(token);
        let operations = &mut self.operations;
        self.starved[group_of(class)].forget(|t| operations.get(*t).is_some_and(|o| o.starved));
        self.local.push(Completion { token, outcome, more: false });
    }

    /// Shutting a socket down wakes its receive, also one that the kernel does not hold at this moment.
    pub(super) fn end_starved_of(&mut self, fd: Fd) {
        for class in [Class::Small, Class::Large] {
            let operations = &mut self.operations;
            let its = |token: &Token| operations.get(*token).is_some_and(|o| o.starved && o.fd == fd.0);
            if let Some(token) = self.starved[group_of(class)].find(its) {
                self.end_starved(class, token, Outcome::Eof);
            }
        }
    }
}
