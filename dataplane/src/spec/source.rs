//! Where links come from: a cluster's local addresses and ports.

use crate::io::PortRange;
use crate::limits::{PORT_WINDOW, PORTS_CROWDED};
use std::net::IpAddr;

/// Local addresses to connect from, taken in turn; empty = the kernel's choice. Ranges are inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceAddresses {
    pub ranges: Vec<(IpAddr, IpAddr)>,
    /// Local ports; `None` = the machine's range.
    pub ports: Option<PortRange>,
    /// What there is of them on this machine; `None` where that is not known.
    pub range: Option<PortRange>,
}

/// How many addresses of a family a range has.
fn size(&(from, to): &(IpAddr, IpAddr), v6: bool) -> u64 {
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) if !v6 => u64::from(u32::from(b).saturating_sub(u32::from(a))) + 1,
        (IpAddr::V6(a), IpAddr::V6(b)) if v6 => {
            let size = u128::from(b).saturating_sub(u128::from(a)).saturating_add(1);
            u64::try_from(size).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

impl SourceAddresses {
    /// How many addresses of a family there are.
    pub fn count(&self, v6: bool) -> u64 {
        self.ranges.iter().map(|range| size(range, v6)).fold(0, u64::saturating_add)
    }

    /// The ports of its range, where so many links to one endpoint are open that a connect had to search long for a free one.
    pub fn crowded(&self, open_links: u32, v6: bool) -> Option<PortRange> {
        let range = self.range.filter(|range| range.len() > 2 * u32::from(PORT_WINDOW))?;
        let ports = u64::from(range.len()).saturating_mul(self.count(v6).max(1));
        (u64::from(open_links) > ports / PORTS_CROWDED).then_some(range)
    }

    /// The address at `index` of a family's, in the order of the ranges; `None` beyond the last.
    pub fn at(&self, index: u64, v6: bool) -> Option<IpAddr> {
        let mut left = index;
        for range in &self.ranges {
            let here = size(range, v6);
            if left < here {
                return Some(match range.0 {
                    IpAddr::V4(a) => IpAddr::V4((u32::from(a) + u32::try_from(left).unwrap_or(0)).into()),
                    IpAddr::V6(a) => IpAddr::V6((u128::from(a) + u128::from(left)).into()),
                });
            }
            left -= here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbered_by_family() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let pool = SourceAddresses {
            ranges: vec![
                (ip("127.0.0.1"), ip("127.0.0.3")),
                (ip("::1"), ip("::2")),
                (ip("127.0.1.0"), ip("127.0.1.0")),
            ],
            ..SourceAddresses::default()
        };
        let all = |v6| (0..pool.count(v6)).map(|n| pool.at(n, v6).unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(all(false), ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.1.0"]);
        assert_eq!(all(true), ["::1", "::2"]);
        assert_eq!((pool.at(4, false), pool.at(2, true)), (None, None));
        assert_eq!(SourceAddresses::default().count(false), 0);
        let whole =
            SourceAddresses { ranges: vec![(ip("::"), ip("ffff:ffff::"))], ..SourceAddresses::default() };
        assert_eq!(whole.count(true), u64::MAX);
    }
}
