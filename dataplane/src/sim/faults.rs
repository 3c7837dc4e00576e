//! The fault plan of one seed: which faults happen, how often, and how often each did.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each seed enables a random half of the faults at random rates, so that
//! rare combinations meet and no fault hides another.

use super::random::{ALWAYS, Random};

/// One kind of bad luck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// A recv gets fewer bytes than are there.
    ShortRead,
    /// A send takes fewer bytes than it could.
    ShortWrite,
    /// A completion comes late, after others of other descriptors.
    LateCompletion,
    /// The completion queue is handed out a few at a time.
    QueueFull,
    /// No receive buffer for a while (ENOBUFS).
    NoBuffers,
    /// The network is slow: milliseconds instead of microseconds.
    Latency,
    /// Bytes travel in small segments.
    Segments,
    /// A connection with socket buffers of some hundred bytes.
    SmallWindow,
    /// A multishot accept ends although nothing failed.
    AcceptEnds,
    /// The cancelled operation ends by itself first.
    CancelLate,
    /// The thread is not scheduled for some milliseconds.
    Stall,
    /// No pipe is to be had: bytes are copied.
    NoPipe,
    /// A message to another shard fails.
    PostFails,
    /// Bytes are received ahead of being asked for, where more of the kind are expected.
    ReadAhead,
    /// A splice says EAGAIN although a poll said that it could go.
    SpliceAgain,
    /// A splice, in or out, finds no memory (ENOMEM): bytes are copied.
    SpliceNoMemory,
    /// A connection is reset between two bytes.
    Reset,
    /// A reset also destroys what was received and not yet read.
    ResetDiscards,
    /// accept fails with EMFILE or ENFILE, ENOBUFS or ENOMEM.
    AcceptEmfile,
    /// accept fails with ECONNABORTED.
    AcceptAborted,
    /// socket fails with one of these.
    SocketEmfile,
    /// connect finds no memory (ENOMEM).
    ConnectNoMemory,
    /// connect is refused.
    ConnectRefused,
    /// connect gets no answer.
    ConnectSilent,
    /// connect takes longer than it may.
    ConnectSlow,
    /// connect finds no free port (EADDRNOTAVAIL).
    PortsExhausted,
    /// An origin dies: its listener goes away and its connections are reset; later it comes back.
    OriginDies,
}

impl Fault {
    pub const ALL: [Self; 27] = [
        Self::ShortRead,
        Self::ShortWrite,
        Self::LateCompletion,
        Self::QueueFull,
        Self::NoBuffers,
        Self::Latency,
        Self::Segments,
        Self::SmallWindow,
        Self::AcceptEnds,
        Self::CancelLate,
        Self::Stall,
        Self::NoPipe,
        Self::PostFails,
        Self::ReadAhead,
        Self::SpliceAgain,
        Self::SpliceNoMemory,
        Self::Reset,
        Self::ResetDiscards,
        Self::AcceptEmfile,
        Self::AcceptAborted,
        Self::SocketEmfile,
        Self::ConnectNoMemory,
        Self::ConnectRefused,
        Self::ConnectSilent,
        Self::ConnectSlow,
        Self::PortsExhausted,
        Self::OriginDies,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Whether a good request to a good origin may fail by it. The others may cost time only.
    pub fn disrupts(self) -> bool {
        self >= Self::Reset
    }
    /// The highest rate of a swarm, of [`ALWAYS`] draws.
    fn worst(self) -> u32 {
        match self {
            Self::ShortRead | Self::ShortWrite | Self::LateCompletion | Self::Segments => ALWAYS / 2,
            Self::QueueFull | Self::Latency | Self::CancelLate | Self::ResetDiscards => ALWAYS / 2,
            Self::ReadAhead => ALWAYS / 2,
            // Eight source addresses are tried before it counts.
            Self::PortsExhausted => ALWAYS / 2,
            Self::SmallWindow | Self::AcceptEnds | Self::NoPipe | Self::PostFails => ALWAYS / 4,
            Self::SpliceAgain | Self::SpliceNoMemory => ALWAYS / 4,
            Self::AcceptEmfile | Self::AcceptAborted | Self::SocketEmfile => ALWAYS / 16,
            Self::ConnectNoMemory | Self::ConnectRefused => ALWAYS / 16,
            Self::ConnectSilent | Self::ConnectSlow => ALWAYS / 16,
            Self::NoBuffers => ALWAYS / 64,
            Self::Stall | Self::Reset => ALWAYS / 256,
            Self::OriginDies => ALWAYS / 2,
        }
    }
}

/// Rates and counts of every fault.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    random: Random,
    rates: [u32; Fault::COUNT],
    counts: [u64; Fault::COUNT],
}

impl FaultPlan {
    /// No faults: the network as the loopback device gives it.
    pub fn calm(seed: u64) -> Self {
        Self { random: Random::new(seed), rates: [0; Fault::COUNT], counts: [0; Fault::COUNT] }
    }
    /// A random half of all faults.
    pub fn swarm(seed: u64) -> Self {
        Self::drawn(seed, |_| true)
    }
    /// A random half of the faults that cost time only.
    pub fn gentle(seed: u64) -> Self {
        Self::drawn(seed, |fault| !fault.disrupts())
    }
    fn drawn(seed: u64, allowed: impl Fn(Fault) -> bool) -> Self {
        let mut plan = Self::calm(seed);
        for fault in Fault::ALL {
            let (on, scale) = (plan.random.one_in(2), plan.random.between(1, 64));
            if on && allowed(fault) {
                plan.rates[fault as usize] = (fault.worst() / 64).max(1) * scale as u32;
            }
        }
        plan
    }
    /// Sets one rate, of [`ALWAYS`] draws.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: u32) -> Self {
        self.rates[fault as usize] = rate;
        self
    }
    /// Draws: does it happen now? Counts it if so.
    pub fn hit(&mut self, fault: Fault) -> bool {
        let rate = self.rates[fault as usize];
        let hit = rate > 0 && self.random.chance(rate);
        self.counts[fault as usize] += u64::from(hit);
        hit
    }
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
    /// Whether it can happen in this plan.
    pub fn enabled(&self, fault: Fault) -> bool {
        self.rates[fault as usize] > 0
    }
    /// Whether a good request to a good origin may fail under this plan.
    pub fn disrupts(&self) -> bool {
        Fault::ALL.into_iter().any(|f| f.disrupts() && self.enabled(f))
    }
    /// How often it happened.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }
    /// Everything stops going wrong: what was begun must now end well.
    pub fn calm_down(&mut self) {
        self.rates = [0; Fault::COUNT];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stand_in_order_and_swarms_reach_each() {
        assert!(Fault::ALL.iter().enumerate().all(|(i, f)| *f as usize == i));
        for fault in Fault::ALL {
            let seeds = (0..256).filter(|seed| FaultPlan::swarm(*seed).enabled(fault)).count();
            assert!((64..192).contains(&seeds), "{fault:?} in {seeds} of 256 seeds");
        }
        assert!((0..256).all(|seed| !FaultPlan::gentle(seed).disrupts()));
        assert!(!FaultPlan::calm(1).disrupts());
    }
}
