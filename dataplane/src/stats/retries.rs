//! Why a request was sent again, or not: a counter and a word in the access log for each.

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Retried {
    /// A connect failed.
    Connect,
    /// A link was lost before a byte of the response.
    Reset,
    /// An endpoint was too slow.
    Timeout,
    /// An endpoint answered with a status that is tried again.
    Status,
    /// A second attempt began beside the first.
    Hedge,
    /// A second attempt would have been made, and the budget was spent.
    BudgetEmpty,
}

impl Retried {
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Reset, Self::Timeout, Self::Status, Self::Hedge, Self::BudgetEmpty];

    /// Its word in the access log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Hedge => "hedge",
            Self::BudgetEmpty => "budget_empty",
        }
    }
}

/// The reasons that one request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retries(u8);

impl Retries {
    pub const NONE: Self = Self(0);

    pub fn add(&mut self, why: Retried) {
        self.0 |= 1 << why as u8;
    }
    pub fn has(self, why: Retried) -> bool {
        self.0 >> (why as u8) & 1 == 1
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// As one octet, for a record.
    pub fn bits(self) -> u8 {
        self.0
    }
    /// What [`Retries::bits`] said; other bits are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << Retried::ALL.len()) - 1))
    }
}
