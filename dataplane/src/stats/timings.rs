//! How long the phases of an exchange, or of a tcp connection, took. Defined here, once, for the log and whoever else tells
//! of them; docs/operations/reading-the-access-log.md draws them, with the names that HAProxy and nginx have.
//!
//! The phases follow each other without a gap, so those of an exchange that ended well add up to its total. One that ended
//! in the midst of a phase has neither that phase nor those behind it: the rest of its total was spent there.

/// A phase, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// From the first byte of the request until its head is whole; of a tcp connection from its accept until its preface is,
    /// where it has one.
    Head,
    /// Waiting for a place at a full cluster, all its waits together.
    Queue,
    /// Attempts that came to nothing: from then until the attempt that counts was begun, waits apart. Behind a hedge that
    /// won, the time until it began.
    Lost,
    /// The connect of the attempt that counts; absent where it had a pooled link.
    Connect,
    /// From when that attempt had its link until the first byte of what the origin sent, interim responses included. The
    /// request goes up meanwhile.
    Response,
    /// From then until the client's kernel has the last byte; of a tunnel, all the time that it stood.
    Transfer,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Head, Self::Queue, Self::Lost, Self::Connect, Self::Response, Self::Transfer];

    /// Its word in log and metrics, to which a unit is added.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Queue => "queue",
            Self::Lost => "lost",
            Self::Connect => "connect",
            Self::Response => "response",
            Self::Transfer => "transfer",
        }
    }
}

/// "Did not take place, or did not end."
const NONE: u64 = u64::MAX;

/// The phases of one exchange or tcp connection, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    phases: [u64; Phase::ALL.len()],
    /// From the request's first byte to the end of the exchange; of a tcp connection from its accept to its end.
    pub total_us: u64,
}

impl Timings {
    /// Of something of which only the total is known.
    pub const fn of_total(total_us: u64) -> Self {
        Self { phases: [NONE; Phase::ALL.len()], total_us }
    }
    /// How long a phase took, microseconds; none where there was none, or it did not end.
    pub fn get(&self, phase: Phase) -> Option<u64> {
        Some(self.phases[phase as usize]).filter(|us| *us != NONE)
    }
    /// Sets a phase, microseconds.
    pub fn set(&mut self, phase: Phase, us: u64) {
        self.phases[phase as usize] = us;
    }
    /// Forgets a phase.
    pub fn unset(&mut self, phase: Phase) {
        self.phases[phase as usize] = NONE;
    }
    /// From the begin to the first byte that the origin sent, if one came, microseconds.
    pub fn first_byte_us(&self) -> Option<u64> {
        self.get(Phase::Response)?;
        let before = Phase::ALL.into_iter().take_while(|phase| *phase != Phase::Transfer);
        Some(before.filter_map(|phase| self.get(phase)).sum())
    }
    /// It ended so long after its begin: what is not told for by earlier phases was the last one.
    pub fn end(&mut self, total_us: u64) {
        self.total_us = total_us;
        if let Some(before) = self.first_byte_us() {
            self.set(Phase::Transfer, total_us.saturating_sub(before));
        }
    }
    /// As numbers, the total last; [`Timings::from_numbers`] makes them timings again.
    pub fn numbers(&self) -> [u64; Phase::ALL.len() + 1] {
        let [head, queue, lost, connect, response, transfer] = self.phases;
        [head, queue, lost, connect, response, transfer, self.total_us]
    }
    pub fn from_numbers(numbers: [u64; Phase::ALL.len() + 1]) -> Self {
        let [head, queue, lost, connect, response, transfer, total_us] = numbers;
        Self { phases: [head, queue, lost, connect, response, transfer], total_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_their_names_and_places() {
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
            let mut timings = Timings::of_total(9);
            assert_eq!(timings.get(phase), None);
            timings.set(phase, at as u64);
            assert_eq!((timings.get(phase), timings.numbers()[at]), (Some(at as u64), at as u64));
            assert_eq!(Timings::from_numbers(timings.numbers()), timings);
            timings.unset(phase);
            assert_eq!(timings.get(phase), None);
        }
    }

    #[test]
    fn what_has_no_phase_is_in_the_last_one() {
        let mut timings = Timings::of_total(0);
        timings.end(7);
        assert_eq!((timings.total_us, timings.get(Phase::Transfer)), (7, None), "no origin answered");
        timings.set(Phase::Head, 1);
        timings.set(Phase::Connect, 2);
        timings.set(Phase::Response, 3);
        timings.end(10);
        assert_eq!((timings.first_byte_us(), timings.get(Phase::Transfer)), (Some(6), Some(4)));
    }
}
