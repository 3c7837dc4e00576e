//! What is known of an endpoint at a moment: the node's numbers behind it, and the value that is made of them.

use super::breaker::SharedBreaker;
use super::eligible::{Admin, Breaker, Eligible, Health, eligible};
use super::outlier::SharedEjection;
use super::shared::Count;
use crate::io::Mono;
use crate::spec::Cluster;
use crate::sync::{AtomicU32, Ordering};

/// What is known of an endpoint at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub admin: Admin,
    pub health: Health,
    pub ejected: bool,
    pub breaker: Breaker,
    /// When ejection or breaker change by themselves; `Mono::MAX` is never.
    pub until: Mono,
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
    pub(super) ejection: SharedEjection,
    pub(super) breaker: SharedBreaker,
}

const ADMIN_BITS: u32 = 0b11;
const DOWN_BIT: u32 = 0b100;

impl SharedCondition {
    /// Ready and up.
    pub(super) fn new() -> Self {
        Self { told: AtomicU32::new(0), ejection: SharedEjection::new(), breaker: SharedBreaker::new() }
    }
    /// Another endpoint's from now on.
    pub(super) fn renew(&self, ejected: &Count, health: Health) {
        self.set_admin(Admin::Ready);
        self.set_health(health);
        self.ejection.renew(ejected);
        self.breaker.renew();
    }
    /// Sets what the operator says; false if it said so before.
    pub(super) fn set_admin(&self, admin: Admin) -> bool {
        self.tell(|told| told & !ADMIN_BITS | admin as u32)
    }
    /// Sets what the checks say; false if they said so before.
    pub(super) fn set_health(&self, health: Health) -> bool {
        self.tell(|told| match health {
            Health::Up => told & !DOWN_BIT,
            Health::Down => told | DOWN_BIT,
        })
    }
    fn tell(&self, change: impl Fn(u32) -> u32) -> bool {
        let changed = |told: u32| Some(change(told)).filter(|next| *next != told);
        self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed).is_ok()
    }
    pub(super) fn at(&self, spec: &Cluster, now: Mono) -> Condition {
        let told = self.told.load(Ordering::Relaxed);
        let admin = match told & ADMIN_BITS {
            0 => Admin::Ready,
            1 => Admin::Drain,
            _ => Admin::Maint,
        };
        let health = if told & DOWN_BIT == 0 { Health::Up } else { Health::Down };
        let ejected = self.ejection.until(now);
        let rules = spec.circuit_breaker.as_ref().filter(|rules| rules.is_of_endpoints());
        let (breaker, until) =
            rules.map_or((Breaker::Closed, Mono::MAX), |rules| self.breaker.at(rules, now));
        let until = until.min(ejected.unwrap_or(Mono::MAX));
        Condition { admin, health, ejected: ejected.is_some(), breaker, until }
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
                assert_eq!((shared.set_admin(admin), shared.set_health(health)), differs);
                assert!(!shared.set_admin(admin) && !shared.set_health(health));
                assert_eq!((get().admin, get().health), (admin, health));
            }
        }
    }
}
