//! One name, asked for again and again: what is known of it, what an answer changes, and when to ask next.
//!
//! Answers for the two families of addresses come apart and are kept apart. As long as one of them has addresses, what it says
//! holds, and an empty answer for the other means that it has none. Where neither has any, the last that were known stay: a
//! resolver that answers nothing is far more often broken than right, and endpoints that are really gone fail their checks or
//! are ejected.

use super::resolver::{Reply, Resolver, Service};
use super::{Found, Query};
use dataplane::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// An address that a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// As a Host.
    pub(super) authority: Arc<str>,
    /// What a service says of it.
    pub(super) weight: Option<u32>,
    /// How many tiers of the same service come before it.
    pub(super) tier: u8,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) targets: Vec<Target>,
    /// Addresses, and targets of a service, beyond what is taken of one name.
    pub(super) left_out: usize,
}

impl Answer {
    /// What is wrong with it, if it is too long.
    pub(super) fn excess(&self) -> Option<String> {
        let (left_out, addresses, targets) = (self.left_out, limits::NAME_ADDRESSES, limits::NAME_TARGETS);
        let excess =
            || format!("{left_out} are left out of more than {addresses} addresses or {targets} targets");
        (left_out > 0).then(excess)
    }
}

/// Asks for ever, and tells each answer.
pub(super) async fn follow(
    query: Query,
    resolver: Resolver,
    gate: Arc<Semaphore>,
    tell: mpsc::Sender<Found>,
) {
    let (mut known, mut pace) = (Known::default(), Pace::default());
    loop {
        let (wait, answer) = match known.ask(&query, &resolver, &gate).await {
            Ok((targets, ttl)) => (pace.after_answer(ttl), Ok(targets)),
            Err(why) => (pace.after_failure(lot()), Err(why)),
        };
        if tell.send(Found::Name(query.clone(), answer)).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

/// A random number in [0, 1).
fn lot() -> f64 {
    // The state is another each time; 53 bits are exact.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

/// When to ask next.
#[derive(Debug, Default)]
struct Pace {
    /// Without an answer, in a row.
    failures: u32,
}

impl Pace {
    fn after_answer(&mut self, ttl: Duration) -> Duration {
        self.failures = 0;
        ttl.clamp(limits::NAME_TTL.min, limits::NAME_TTL.max)
    }
    /// Twice as long each time, and up to a half longer, as `lot` in [0, 1) draws it.
    fn after_failure(&mut self, lot: f64) -> Duration {
        let wait = limits::NAME_RETRY.saturating_mul(1 << self.failures.min(16)).min(limits::NAME_RETRY_MAX);
        self.failures += 1;
        wait.mul_f64(1.0 + lot / 2.0)
    }
}

/// The last addresses of a host.
#[derive(Debug, Default)]
struct Host {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl Host {
    /// Takes both families' answers; how long they last, or why nothing is known anew.
    fn take(&mut self, v4: Reply, v6: Reply) -> Result<Duration, String> {
        let ttl = match (&v4, &v6) {
            (Reply::Good(_, one), Reply::Good(_, other)) => *one.min(other),
            (Reply::Good(_, ttl), _) | (_, Reply::Good(_, ttl)) => *ttl,
            // A failure says more than that there is nothing of the other family.
            (Reply::Failed(why), _) | (_, Reply::Failed(why)) | (Reply::Empty(why), _) => {
                return Err(why.clone());
            }
        };
        let failed = matches!(v4, Reply::Failed(_)) || matches!(v6, Reply::Failed(_));
        for (known, reply) in [(&mut self.v4, v4), (&mut self.v6, v6)] {
            match reply {
                Reply::Good(addresses, _) => *known = addresses,
                Reply::Empty(_) => known.clear(),
                Reply::Failed(_) => {}
            }
        }
        Ok(if failed { ttl.min(limits::NAME_RETRY_MAX) } else { ttl })
    }
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// By name: the host, or the targets of the service.
    hosts: BTreeMap<Arc<str>, Host>,
}

impl Known {
    async fn ask(
        &mut self,
        query: &Query,
        resolver: &Resolver,
        gate: &Arc<Semaphore>,
    ) -> Result<(Answer, Duration), String> {
        match query {
            Query::Host { name, port } => {
                let ttl = self.take(name, ask_host(name, resolver, gate).await)?;
                let authority: Arc<str> = query.to_string().into();
                let target = |ip| Target {
                    address: SocketAddr::new(ip, *port),
                    authority: Arc::clone(&authority),
                    weight: None,
                    tier: 0,
                };
                let addresses = self.hosts.get(name).into_iter().flat_map(Host::addresses);
                Ok((bounded(addresses.map(target).collect()), ttl))
            }
            Query::Service(name) => {
                let services = in_time(gate, resolver.services(name)).await;
                let (services, mut ttl) = services.unwrap_or_else(Err)?;
                let all = services.len();
                let services = services.get(..limits::NAME_TARGETS).unwrap_or(&services);
                let mut trouble = None;
                // One target that is not found takes no other along, nor makes it wait; what was known of it stands.
                for (host, replies) in ask_hosts(services, resolver, gate).await {
                    match self.take(&host, replies) {
                        Ok(of_host) => ttl = ttl.min(of_host),
                        Err(why) => trouble = Some(format!("{host}: {why}")),
                    }
                }
                self.hosts.retain(|host, _| services.iter().any(|service| service.target == *host));
                let mut answer = bounded(self.targets(services));
                answer.left_out += all - services.len();
                match trouble {
                    Some(why) if answer.targets.is_empty() => Err(why),
                    Some(_) => Ok((answer, ttl.min(limits::NAME_RETRY_MAX))),
                    None => Ok((answer, ttl)),
                }
            }
        }
    }

    fn take(&mut self, host: &Arc<str>, (v4, v6): (Reply, Reply)) -> Result<Duration, String> {
        self.hosts.entry(Arc::clone(host)).or_default().take(v4, v6)
    }

    fn targets(&self, services: &[Service]) -> Vec<Target> {
        let mut tiers: Vec<u16> = services.iter().map(|service| service.priority).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let heaviest = services.iter().map(|service| service.weight).max().unwrap_or(0);
        let target = |service: &Service, ip| Target {
            address: SocketAddr::new(ip, service.port),
            authority: format!("{}:{}", service.target, service.port).into(),
            weight: Some(scaled(service.weight, heaviest)),
            tier: tiers
                .binary_search(&service.priority)
                .map_or(0, |tier| u8::try_from(tier).unwrap_or(u8::MAX)),
        };
        let hosts = services.iter().filter_map(|service| Some((service, self.hosts.get(&service.target)?)));
        hosts.flat_map(|(service, host)| host.addresses().map(move |ip| target(service, ip))).collect()
    }
}

/// What `question` comes to, asked when it is its turn; an error where that takes too long.
async fn in_time<T>(gate: &Semaphore, question: impl Future<Output = T>) -> Result<T, String> {
    // Closed by nobody.
    let _permit = gate.acquire().await;
    let late = |_| format!("no answer within {:?}", limits::NAME_ANSWER);
    timeout(limits::NAME_ANSWER, question).await.map_err(late)
}

async fn ask_host(name: &str, resolver: &Resolver, gate: &Semaphore) -> (Reply, Reply) {
    let replies = in_time(gate, resolver.addresses(name)).await;
    replies.unwrap_or_else(|late| (Reply::Failed(late.clone()), Reply::Failed(late)))
}

/// Asks for the hosts of a service's targets side by side, each once.
async fn ask_hosts(
    services: &[Service],
    resolver: &Resolver,
    gate: &Arc<Semaphore>,
) -> Vec<(Arc<str>, (Reply, Reply))> {
    let hosts: BTreeSet<Arc<str>> = services.iter().map(|service| Arc::clone(&service.target)).collect();
    let mut asked = JoinSet::new();
    for host in hosts {
        let (resolver, gate) = (resolver.clone(), Arc::clone(gate));
        asked.spawn(async move {
            let replies = ask_host(&host, &resolver, &gate).await;
            (host, replies)
        });
    }
    asked.join_all().await
}

/// A weight of a service (0 to 65,535) as one of ours: none is 0, for "a small proportionate probability of being selected"
/// is what 0 asks for (RFC 2782).
fn scaled(weight: u16, heaviest: u16) -> u32 {
    let most = u32::try_from(limits::ENDPOINT_WEIGHT.max).unwrap_or(u32::MAX);
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let scaled = if heaviest > most { weight * most / heaviest } else { weight };
    scaled.max(1)
}

/// No more than may be of one name, in an order that does not depend on the answer's; each address once.
fn bounded(mut targets: Vec<Target>) -> Answer {
    targets.sort_unstable();
    targets.dedup_by(|a, b| a.address == b.address);
    let left_out = targets.len().saturating_sub(limits::NAME_ADDRESSES);
    targets.truncate(limits::NAME_ADDRESSES);
    Answer { targets, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn good(ips: &[&str], ttl: u64) -> Reply {
        Reply::Good(ips.iter().map(|ip| ip.parse().unwrap()).collect(), S(ttl))
    }
    fn known(host: &Host) -> Vec<String> {
        host.addresses().map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn what_is_known_outlasts_every_answer_without_an_address() {
        let empty = || Reply::Empty("none".to_owned());
        let failed = || Reply::Failed("servfail".to_owned());
        let mut host = Host::default();
        assert_eq!(host.take(empty(), empty()), Err("none".to_owned()));
        assert_eq!(host.take(good(&["10.0.0.1", "10.0.0.2"], 60), good(&["::1"], 30)), Ok(S(30)));
        assert_eq!(known(&host), ["10.0.0.1", "10.0.0.2", "::1"]);
        for (v4, v6) in [(empty(), empty()), (failed(), empty()), (empty(), failed()), (failed(), failed())] {
            host.take(v4, v6).unwrap_err();
            assert_eq!(known(&host).len(), 3);
        }
        assert_eq!(host.take(failed(), good(&["::2"], 600)), Ok(limits::NAME_RETRY_MAX), "asked again soon");
        assert_eq!(known(&host), ["10.0.0.1", "10.0.0.2", "::2"]);
        assert_eq!(host.take(good(&["10.0.0.3"], 5), empty()), Ok(S(5)));
        assert_eq!(known(&host), ["10.0.0.3"], "the other family has none");
    }

    #[test]
    fn an_answer_lasts_within_bounds_and_failures_are_spaced_out() {
        let mut pace = Pace::default();
        assert_eq!(
            [pace.after_answer(S(0)), pace.after_answer(S(7)), pace.after_answer(S(86_400))],
            [S(1), S(7), S(300)]
        );
        let waits: Vec<_> = (0..8).map(|_| pace.after_failure(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(pace.after_failure(0.99) < S(90) && pace.after_failure(0.5) == S(75));
        (0..100).for_each(|_| assert!(pace.after_failure(lot()) <= S(90)));
        pace.after_answer(S(5));
        assert_eq!(pace.after_failure(0.0), S(1));
    }

    #[test]
    fn services_have_tiers_and_weights_of_ours() {
        let service =
            |target: &str, priority, weight| Service { target: target.into(), port: 80, priority, weight };
        let mut known = Known::default();
        for (name, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
            known.hosts.entry(name.into()).or_default().v4 = vec![ip.parse().unwrap()];
        }
        let services =
            [service("a", 10, 0), service("b", 10, 5), service("c", 65_535, 100), service("d", 1, 1)];
        let targets: Vec<_> =
            known.targets(&services).into_iter().map(|t| (t.address.to_string(), t.weight, t.tier)).collect();
        assert_eq!(
            targets,
            [
                ("10.0.0.1:80".to_owned(), Some(1), 1),
                ("10.0.0.2:80".to_owned(), Some(5), 1),
                ("10.0.0.3:80".to_owned(), Some(100), 2),
            ]
        );
        assert_eq!([scaled(65_535, 65_535), scaled(32_768, 65_535), scaled(1, 65_535)], [256, 128, 1]);
    }

    #[test]
    fn an_answer_is_bounded_and_in_order() {
        let target = |n: u16| Target {
            address: SocketAddr::new([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]].into(), 1),
            authority: "a:1".into(),
            weight: None,
            tier: 0,
        };
        let answer = bounded((0..1000).rev().chain(0..10).map(target).collect());
        assert_eq!(answer.targets, (0..256).map(target).collect::<Vec<_>>());
        assert_eq!((answer.targets.len(), answer.left_out), (limits::NAME_ADDRESSES, 744));
        assert!(answer.excess().is_some() && bounded(vec![target(1)]).excess().is_none());
    }
}
