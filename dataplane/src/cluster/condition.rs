//! What is known of an endpoint at a moment: the node's numbers behind it, and the value that is made of them.

use super::breaker::SharedBreaker;
use super::eligible::{Admin, Breaker, Eligible, Health, eligible};
use super::outlier::SharedEjection;
use super::shared::Count;
use crate::io::Mono;
use crate::spec::Cluster;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What is known of an endpoint at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub admin: Admin,
    pub health: Health,
    pub ejected: bool,
    pub breaker: Breaker,
    /// When ejection or breaker change by themselves; `Mono::MAX` is never.
    pub until: Mono,
    /// When it last came up: by a check, out of maintenance, readmitted, or as its breaker closed. `Mono(0)` is since the start.
    pub since: Mono,
    /// False of one that is back from an ejection because its time was over, until a request goes well there.
    pub proven: bool,
}

impl Condition {
    pub const fn eligible(&self) -> Eligible {
        eligible(self.admin, self.health, self.ejected, self.breaker)
    }
    /// The same if neither checks nor live traffic had said anything against the endpoint, for a cluster that fails open. What
    /// the operator says holds, and so does a breaker, which is there to spare the endpoint.
    pub const fn trusted(&self) -> Self {
        Self { health: Health::Up, ejected: false, ..*self }
    }
}

/// An endpoint's condition, over all shards.
#[derive(Debug)]
pub(super) struct SharedCondition {
    /// What control said: `health:1 | admin:2`, the lowest bits.
    told: AtomicU32,
    /// When it last came up, but for readmissions.
    came_up: AtomicU64,
    pub(super) ejection: SharedEjection,
    pub(super) breaker: SharedBreaker,
}

const ADMIN_BITS: u32 = 0b11;
const DOWN_BIT: u32 = 0b100;

impl SharedCondition {
    /// Ready and up.
    pub(super) fn new() -> Self {
        Self {
            told: AtomicU32::new(0),
            came_up: AtomicU64::new(0),
            ejection: SharedEjection::new(),
            breaker: SharedBreaker::new(),
        }
    }
    /// Another endpoint's from now on, which has just come.
    pub(super) fn renew(&self, ejected: &Count, health: Health, now: Mono) {
        self.set_admin(Admin::Ready, now);
        self.set_health(health, now);
        self.come_up(now);
        self.ejection.renew(ejected);
        self.breaker.renew();
    }
    /// Sets what the operator says; false if it said so before.
    pub(super) fn set_admin(&self, admin: Admin, now: Mono) -> bool {
        let before = self.tell(|told| told & !ADMIN_BITS | admin as u32);
        if before.is_some_and(|told| admin_of(told) == Admin::Maint) {
            self.come_up(now);
        }
        before.is_some()
    }
    /// Sets what the checks say; false if they said so before.
    pub(super) fn set_health(&self, health: Health, now: Mono) -> bool {
        let before = self.tell(|told| match health {
            Health::Up => told & !DOWN_BIT,
            Health::Down => told | DOWN_BIT,
        });
        if before.is_some() && health == Health::Up {
            self.come_up(now);
        }
        before.is_some()
    }
    /// What was said before, if that changed.
    fn tell(&self, change: impl Fn(u32) -> u32) -> Option<u32> {
        let changed = |told: u32| Some(change(told)).filter(|next| *next != told);
        self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed).ok()
    }
    /// It is up, and was not.
    pub(super) fn come_up(&self, now: Mono) {
        self.came_up.store(now.0, Ordering::Relaxed);
    }
    pub(super) fn at(&self, spec: &Cluster, now: Mono) -> Condition {
        let told = self.told.load(Ordering::Relaxed);
        let admin = admin_of(told);
        let health = if told & DOWN_BIT == 0 { Health::Up } else { Health::Down };
        let ejected = self.ejection.until(now);
        let rules = spec.circuit_breaker.as_ref().filter(|rules| rules.is_of_endpoints());
        let (breaker, until) =
            rules.map_or((Breaker::Closed, Mono::MAX), |rules| self.breaker.at(rules, now));
        let until = until.min(ejected.unwrap_or(Mono::MAX));
        let since = Mono(self.came_up.load(Ordering::Relaxed)).max(self.ejection.back_since(now));
        let proven = self.ejection.is_proven(now);
        Condition { admin, health, ejected: ejected.is_some(), breaker, until, since, proven }
    }
}

fn admin_of(told: u32) -> Admin {
    match told & ADMIN_BITS {
        0 => Admin::Ready,
        1 => Admin::Drain,
        _ => Admin::Maint,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::test_cluster;

    #[test]
    fn what_is_told_is_kept() {
        let (shared, spec) = (SharedCondition::new(), test_cluster(&[1]));
        let get = || shared.at(&spec, Mono(0));
        assert_eq!(get().eligible(), Eligible::Yes);
        for admin in Admin::ALL {
            for health in Health::ALL {
                let differs = (get().admin != admin, get().health != health);
                assert_eq!((shared.set_admin(admin, Mono(1)), shared.set_health(health, Mono(1))), differs);
                assert!(!shared.set_admin(admin, Mono(1)) && !shared.set_health(health, Mono(1)));
                assert_eq!((get().admin, get().health), (admin, health));
            }
        }
    }
}
