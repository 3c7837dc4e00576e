//! `source_addresses` and `source_ports` of a cluster: where its links come from, and whether this machine can do that.

use super::endpoint::Endpoints;
use super::tree::{Item, Table};
use super::{Environment, address};
use crate::ports;
use dataplane::io::PortRange;
use dataplane::limits;
use dataplane::spec::SourceAddresses;
use std::net::IpAddr;

pub(super) fn read(table: &Table<'_>, found: &Endpoints, environment: &Environment) -> SourceAddresses {
    let endpoints = found.fixed();
    let items = table.each("source_addresses");
    let mut ranges = Vec::with_capacity(items.len());
    let mut checks = limits::SOURCE_CHECKS;
    for item in &items {
        let Some(range) = address::range(item) else { continue };
        ranges.push(range);
        if endpoints.iter().all(|e| e.address.as_ip().is_none_or(|a| a.is_v6() != range.0.is_ipv6()))
            && !endpoints.is_empty()
            && found.are_fixed()
        {
            let family = if range.0.is_ipv6() { "IPv6" } else { "IPv4" };
            item.warn(format!("no endpoint has an {family} address: these are never used"), None);
        } else {
            warn_of_strangers(item, range, &mut checks, environment.is_source);
        }
    }
    let count = ranges.iter().map(|&range| address::range_size(range)).fold(0, u128::saturating_add);
    if count > limits::SOURCE_ADDRESSES_MAX as u128
        && let Some(item) = items.first()
    {
        let most = limits::SOURCE_ADDRESSES_MAX;
        item.error(format!("{count} addresses are out of range (at most {most} in all)"));
    }
    let ports = table.get("source_ports").and_then(|item| ports(&item, environment.local_ports));
    let machine = environment.local_ports;
    let range = machine.map(|machine| ports.map_or(machine, |ports| ports.within(machine)));
    SourceAddresses { ranges, ports, range }
}

/// Addresses that are not this machine's: a link from one fails, and the next is tried.
fn warn_of_strangers(
    item: &Item<'_>,
    range: (IpAddr, IpAddr),
    checks: &mut u64,
    is_source: fn(IpAddr) -> bool,
) {
    let whole = SourceAddresses { ranges: vec![range], ..SourceAddresses::default() };
    let strangers: Vec<IpAddr> = ports::strangers(&whole, range.0.is_ipv6(), checks, is_source).collect();
    let Some(first) = strangers.first() else { return };
    let more = match strangers.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    item.warn(
        format!("{first}{more} cannot be connected from: not an address of this machine (or net.ipv4.ip_nonlocal_bind)"),
        None,
    );
}

fn ports(item: &Item<'_>, machine: Option<PortRange>) -> Option<PortRange> {
    let text = item.words()?;
    let ends = text.split_once('-').map(|(first, last)| (first.trim().parse(), last.trim().parse()));
    let Some((Ok(first), Ok(last))) = ends else {
        item.error(format!("{text:?} is not a range of ports, as \"10000-60999\""));
        return None;
    };
    let Some(ports) = PortRange::new(first, last) else {
        let nearest = (first > last && last > 0).then(|| format!("{last}-{first}"));
        item.error_near(format!("{text:?} is empty or begins with port 0"), nearest);
        return None;
    };
    if let Some(machine) = machine
        && ports.within(machine) != ports
    {
        let used = ports.within(machine);
        item.warn(
            format!("net.ipv4.ip_local_port_range is {machine} on this machine: links use {used}"),
            None,
        );
    }
    Some(ports)
}
