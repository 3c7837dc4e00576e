//! What the kernel says of many connections, and the table of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// Connections to one destination, by the address that they come from.
#[derive(Debug, Serialize)]
pub(super) struct PortsUsed {
    addresses: usize,
    least: u64,
    most: u64,
    pub(super) all: u64,
}

impl PortsUsed {
    pub(super) fn towards(destination: SocketAddr) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
        let by_address = sources(&text, destination);
        let counts = || by_address.values().copied();
        Ok(Self {
            addresses: by_address.len(),
            least: counts().min().unwrap_or(0),
            most: counts().max().unwrap_or(0),
            all: counts().sum(),
        })
    }
}

/// Connections to `destination` in the text of /proc/net/tcp, by their local address; not those that wait out their time.
fn sources(text: &str, destination: SocketAddr) -> BTreeMap<Ipv4Addr, u64> {
    const TIME_WAIT: &str = "06";
    let IpAddr::V4(ip) = destination.ip() else { return BTreeMap::new() };
    // The kernel prints the address as the number that it is in memory.
    let number = |ip: Ipv4Addr| u32::from_ne_bytes(ip.octets());
    let wanted = format!("{:08X}:{:04X}", number(ip), destination.port());
    let mut by_address = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let address = local.split(':').next().and_then(|hex| u32::from_str_radix(hex, 16).ok());
        if remote == wanted
            && state != TIME_WAIT
            && let Some(address) = address
        {
            *by_address.entry(Ipv4Addr::from(address.to_ne_bytes())).or_insert(0) += 1;
        }
    }
    by_address
}

/// What was held, and what it took. Bytes are for each tunnel.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    peer: String,
    listener: &'static str,
    tunnels: u32,
    processes: u32,
    /// Resident in the proxies, beyond what they have without connections.
    user_bytes: f64,
    /// The kernel's slabs: all four sockets of a tunnel, and what each process's readiness or ring keeps for them.
    slab_bytes: f64,
    sources: PortsUsed,
    seconds_to_open: f64,
    seconds_to_close: f64,
}

impl Held {
    pub(super) fn new(
        peer: &str,
        upgrade: bool,
        (tunnels, processes): (u32, u32),
        (user, slab): (u64, u64),
        sources: PortsUsed,
        (opened, closed): (Duration, Duration),
    ) -> Self {
        let each = |bytes: u64| bytes as f64 / f64::from(tunnels);
        Self {
            peer: peer.to_owned(),
            listener: if upgrade { "http, Upgrade" } else { "tcp" },
            tunnels,
            processes,
            user_bytes: each(user),
            slab_bytes: each(slab),
            sources,
            seconds_to_open: opened.as_secs_f64(),
            seconds_to_close: closed.as_secs_f64(),
        }
    }
}

/// In Markdown, with the machine in one line.
pub(super) fn table(all: &[Held], facts: &BTreeMap<String, String>) -> String {
    let mut text = String::from(
        "Idle tunnels, one message each, then silence. User: resident in the proxies. Slab: the kernel's, four sockets of a \
         tunnel, two of them the proxy's.\n\n\
         | peer | listener | tunnels | processes | user bytes each | slab bytes each | source addresses, \
         connections of each | opened in | closed in |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for h in all {
        let PortsUsed { addresses, least, most, .. } = &h.sources;
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.0} | {:.0} | {addresses}: {least} - {most} | {:.1} s | {:.1} s |",
            h.peer,
            h.listener,
            h.tunnels,
            h.processes,
            h.user_bytes,
            h.slab_bytes,
            h.seconds_to_open,
            h.seconds_to_close
        );
    }
    let fact = |name: &str| facts.get(name).map_or("unknown", String::as_str);
    _ = writeln!(text, "\n{}, kernel {}, {}.", fact("CPU"), fact("kernel"), fact("date"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_source() {
        let local = |last| format!("{:08X}", u32::from_ne_bytes([127, 0, 1, last]));
        let line = |from: u8, to: &str, state: &str| format!("   1: {}:8001 {to} {state} 0 0\n", local(from));
        let origin = format!("{:08X}:2328", u32::from_ne_bytes([127, 0, 0, 1]));
        let text =
            ["head\n".to_owned(), line(1, &origin, "01"), line(1, &origin, "01"), line(2, &origin, "01")]
                .concat()
                + &line(3, &origin, "06")
                + &line(4, &origin.replace("2328", "2329"), "01");
        let found = sources(&text, "127.0.0.1:9000".parse().unwrap());
        assert_eq!(found, [([127, 0, 1, 1].into(), 2), ([127, 0, 1, 2].into(), 1)].into());
    }
}
