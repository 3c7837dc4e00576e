//! How many links a cluster can have at once, by ports: addresses x ports x destinations. Arithmetic and nothing else.
//!
//! The kernel tells connections apart by four things: source address and port, destination address and port. So each
//! source address has its whole range of ports for each destination.

use crate::io::PortRange;
use crate::spec::{Cluster, SourceAddresses};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The ports that connecting sockets get (ip-sysctl.rst, `ip_local_port_range` and `ip_local_reserved_ports`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPorts {
    first: u16,
    last: u16,
    /// Inclusive, as written: they may overlap and lie outside.
    reserved: Vec<(u16, u16)>,
}

impl LocalPorts {
    /// From the texts of the two sysctls, `"32768\t60999"` and `"8080,9000-9009"`; `None` if they are not such.
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let mut ends = range.split_whitespace().map(str::parse);
        let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
        let reserved = reserved.trim().split(',').filter(|part| !part.is_empty());
        let reserved = reserved.map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((from.parse().ok()?, to.parse().ok()?))
        });
        let reserved = reserved.collect::<Option<_>>()?;
        (ends.next().is_none() && first <= last).then_some(Self { first, last, reserved })
    }

    /// Both ends included.
    pub fn ends(&self) -> (u16, u16) {
        (self.first, self.last)
    }

    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved.iter().any(|&(from, to)| (from..=to).contains(&port))
    }

    /// Whether a connecting socket may get `port`.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port) && !self.is_reserved(port)
    }

    /// How many of them a socket may get that is held to `asked` (IP_LOCAL_PORT_RANGE).
    pub fn count_within(&self, asked: Option<PortRange>) -> u32 {
        let within =
            asked.zip(PortRange::new(self.first.max(1), self.last)).map(|(asked, all)| asked.within(all));
        within.map_or_else(
            || self.count(),
            |used| Self { first: used.first(), last: used.last(), reserved: self.reserved.clone() }.count(),
        )
    }

    /// How many ports a connecting socket may get.
    pub fn count(&self) -> u32 {
        if self.reserved.is_empty() {
            return u32::from(self.last - self.first) + 1;
        }
        (self.first..=self.last).map(|port| u32::from(self.contains(port))).sum()
    }
}

/// What the ports of a cluster come to, in one family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses that links come from; one where the kernel chooses it.
    pub addresses: u64,
    /// Of each address, to each destination.
    pub ports: u32,
    /// Different addresses of endpoints.
    pub destinations: u64,
}

impl Capacity {
    /// Of `cluster` in IPv4 or IPv6; `None` if it has no endpoint there. Another cluster with the same source addresses
    /// and destinations shares these ports.
    pub fn of(cluster: &Cluster, v6: bool, ports: &LocalPorts) -> Option<Self> {
        let there = cluster.present().filter_map(|e| e.address.as_ip()).filter(|a| a.is_v6() == v6);
        let destinations = there.map(|address| (address.ip(), address.port())).collect::<BTreeSet<_>>().len();
        let addresses = count_addresses(&cluster.source_addresses, v6).max(1);
        let destinations = u64::try_from(destinations).unwrap_or(u64::MAX);
        let ports = ports.count_within(cluster.source_addresses.ports);
        (destinations > 0).then_some(Self { addresses, ports, destinations })
    }

    /// Links to one destination.
    pub fn per_destination(&self) -> u64 {
        self.addresses.saturating_mul(self.ports.into())
    }

    /// Links in all.
    pub fn links(&self) -> u64 {
        self.per_destination().saturating_mul(self.destinations)
    }
}

/// How many different addresses of a family `pool` has.
fn count_addresses(pool: &SourceAddresses, v6: bool) -> u64 {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let there = pool.ranges.iter().filter(|range| range.0.is_ipv6() == v6);
    let mut ranges: Vec<_> = there.map(|&(from, to)| (number(from), number(to))).collect();
    ranges.sort_unstable();
    // `next` is the first number that no range before had; ranges that overlap count once.
    let (mut count, mut next) = (0u128, 0u128);
    for (from, to) in ranges {
        let begin = from.max(next);
        if begin <= to {
            count = count.saturating_add((to - begin).saturating_add(1));
            next = to.saturating_add(1);
        }
    }
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::test_cluster;

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        let range = LocalPorts::parse("32768\t60999\n", "\n").unwrap();
        assert_eq!((range.ends(), range.count()), ((32768, 60999), 28232));
        assert!(range.contains(32768) && range.contains(60999) && !range.contains(61000));
        let range = LocalPorts::parse("1000 1009", "1000,1004-1005,1005-1006,9000\n").unwrap();
        assert_eq!(range.count(), 6);
        assert!(range.is_reserved(9000) && !range.contains(1004) && range.contains(1001));
        assert_eq!(LocalPorts::parse("0 65535", "").unwrap().count(), 65536);
        for (range, reserved) in [
            ("", ""),
            ("1", ""),
            ("9 1", ""),
            ("1 2 3", ""),
            ("1 x", ""),
            ("1 65536", ""),
            ("1 2", "a"),
            ("1 2", "1-"),
        ] {
            assert_eq!(LocalPorts::parse(range, reserved), None, "{range:?} {reserved:?}");
        }
    }

    #[test]
    fn addresses_times_ports_times_destinations() {
        let ports = LocalPorts::parse("32768 60999", "").unwrap();
        let mut pool = test_cluster(&[1, 1, 1]);
        let alone = Capacity::of(&pool, false, &ports).unwrap();
        assert_eq!((alone.addresses, alone.destinations), (1, 3));
        assert_eq!(alone.links(), 3 * 28232);
        let ip = |text: &str| text.parse().unwrap();
        pool.source_addresses = SourceAddresses {
            ranges: vec![(ip("127.0.0.1"), ip("127.0.0.9")), (ip("::1"), ip("::1"))],
            ..SourceAddresses::default()
        };
        let nine = Capacity::of(&pool, false, &ports).unwrap();
        assert_eq!((nine.per_destination(), nine.links()), (9 * 28232, 27 * 28232));
        assert_eq!(Capacity::of(&pool, true, &ports), None);
        pool.source_addresses.ranges.push((ip("127.0.0.5"), ip("127.0.0.12")));
        assert_eq!(Capacity::of(&pool, false, &ports).unwrap().addresses, 12, "ranges that overlap");
        pool.endpoints[2].address = pool.endpoints[1].address.clone();
        assert_eq!(Capacity::of(&pool, false, &ports).unwrap().destinations, 2, "one destination twice");
        pool.source_addresses.ports = PortRange::new(40_000, 40_999);
        assert_eq!(Capacity::of(&pool, false, &ports).unwrap().ports, 1000);
        let ports = LocalPorts::parse("32768 60999", "40000-40009").unwrap();
        assert_eq!(Capacity::of(&pool, false, &ports).unwrap().ports, 990);
        pool.source_addresses.ports = PortRange::new(10_000, 33_767);
        assert_eq!(Capacity::of(&pool, false, &ports).unwrap().ports, 1000, "an end outside has no effect");
    }
}
