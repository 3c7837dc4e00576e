//! Addresses as the file writes them: to listen on, to connect to, ranges to connect from, networks to believe.

use super::host;
use super::tree::Item;
use crate::discovery::Query;
use dataplane::io::{Address, SocketAddress, UnixName};
use dataplane::limits;
use dataplane::spec::{ListenAddress, Network};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Why a text is no address, and what was probably meant.
type Wrong = (String, Option<String>);

/// What `fd:` addresses are found among: the names of the descriptors from [`FIRST_INHERITED`] on that the process was
/// started with (sd_listen_fds(3)); `None` where nothing will be started.
pub(super) type Inherited<'e> = Option<&'e [String]>;

/// SD_LISTEN_FDS_START.
pub(super) const FIRST_INHERITED: i32 = 3;

/// `"0.0.0.0:8080"`, `"[::]:443"`, `"unix:/run/x.sock"`, `"unix:@x"`, `"fd:3"`, `"fd:NAME"`: several where several
/// inherited sockets have one name. `mode` is for the files of unix sockets.
pub(super) fn listen(item: &Item<'_>, mode: u32, inherited: Inherited<'_>) -> Vec<ListenAddress> {
    let Some(text) = item.words() else { return Vec::new() };
    if let Some(name) = text.strip_prefix("unix:") {
        let name = unix(item, name).map(Arc::new);
        return name.map(|name| ListenAddress::Unix { name, mode }).into_iter().collect();
    }
    if let Some(which) = text.strip_prefix("fd:") {
        return told(item, descriptors(which, inherited)).unwrap_or_default();
    }
    let found = socket(text).map_err(|(what, nearest)| match host_name(text) {
        Some(_) => {
            (format!("{text:?} is a host name: a listener is bound to an IP address and port"), nearest)
        }
        None => (what, nearest),
    });
    told(item, found).map(ListenAddress::Ip).into_iter().collect()
}

fn unix(item: &Item<'_>, name: &str) -> Option<UnixName> {
    match UnixName::new(name.as_bytes()) {
        Ok(unix) => {
            if !name.starts_with(['/', '@']) {
                item.warn("is looked for where ringway is started", Some(format!("unix:/run/{name}")));
            }
            Some(unix)
        }
        Err(wrong) => {
            item.error(wrong.to_string());
            None
        }
    }
}

fn descriptors(which: &str, inherited: Inherited<'_>) -> Result<Vec<ListenAddress>, Wrong> {
    if which.bytes().all(|b| b.is_ascii_digit()) {
        return match which.parse::<i32>() {
            Ok(fd) if fd >= FIRST_INHERITED => Ok(vec![ListenAddress::Inherited(fd)]),
            Ok(_) => Err((format!("{which} is standard input, output or error"), Some("fd:3".to_owned()))),
            Err(_) => Err((format!("{which:?} is no descriptor"), Some("fd:3".to_owned()))),
        };
    }
    // A check starts nothing: what will be inherited is not known.
    let Some(names) = inherited else { return Ok(Vec::new()) };
    let found: Vec<_> = (FIRST_INHERITED..)
        .zip(names)
        .filter(|(_, name)| *name == which)
        .map(|(fd, _)| ListenAddress::Inherited(fd))
        .collect();
    if found.is_empty() {
        let there = if names.is_empty() { "none was passed".to_owned() } else { names.join(", ") };
        return Err((
            format!(
                "no inherited socket is called {which:?} (LISTEN_FDNAMES of systemd's socket unit: {there})"
            ),
            None,
        ));
    }
    Ok(found)
}

/// Where an endpoint's connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Address(Address),
    /// Wherever resolvers say.
    Query(Query),
}

/// `"127.0.0.1:9000"`, `"[::1]:9000"`, `"unix:/run/x.sock"`, `"app.internal:9000"`, `"srv:_http._tcp.example.org"`: somewhere
/// to connect to.
pub(super) fn endpoint(item: &Item<'_>) -> Option<Target> {
    let text = item.words()?;
    if let Some(name) = text.strip_prefix("unix:") {
        return unix(item, name).map(|name| Target::Address(name.into()));
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return query(item, host_of(name).map(|name| Query::Service(name.into())));
    }
    if socket(text).is_err()
        && let Some((host, port)) = host_name(text)
    {
        if port == 0 {
            item.error("port 0 cannot be connected to");
        }
        return query(item, host_of(host).map(|name| Query::Host { name: name.into(), port }));
    }
    if !text.contains(':') && text.contains(|c: char| c.is_ascii_alphabetic()) && host_of(text).is_ok() {
        item.error_near(format!("{text:?} lacks its port"), Some(format!("{text}:80")));
        return None;
    }
    let address = told(item, socket(text))?;
    match check_connectable(&address) {
        Err(what) => item.error(what),
        Ok(()) if address.ip().is_some_and(|ip| ip.is_unspecified()) => {
            let local = if address.is_v6() { "[::1]" } else { "127.0.0.1" };
            item.warn("connects to this machine", Some(format!("{local}:{}", address.port())));
        }
        Ok(()) => {}
    }
    Some(Target::Address(address.into()))
}

fn query(item: &Item<'_>, query: Result<Query, String>) -> Option<Target> {
    query.map(Target::Query).map_err(|what| item.error(what)).ok()
}

/// A name as resolvers are asked for it: in lower case; a dot at its end keeps search domains away.
fn host_of(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    host::authority(name.strip_suffix('.').unwrap_or(&name))?;
    Ok(name)
}

/// Somewhere to connect to that is no name, of a list that is not the configuration.
pub(crate) fn connectable(text: &str) -> Result<Address, String> {
    if let Some(name) = text.strip_prefix("unix:") {
        return UnixName::new(name.as_bytes()).map(Address::from).map_err(|wrong| wrong.to_string());
    }
    let address = socket(text).map_err(|(what, _)| match host_name(text) {
        Some((host, _)) => format!("{host} is a host name: those stand in `endpoints`"),
        None => what,
    })?;
    check_connectable(&address)?;
    Ok(address.into())
}

fn check_connectable(address: &SocketAddress) -> Result<(), &'static str> {
    let ip = address.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if address.port() == 0 {
        Err("port 0 cannot be connected to")
    } else if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        Err("a multicast or broadcast address cannot be connected to")
    } else {
        Ok(())
    }
}

/// `"127.0.0.1:53"`: a resolver.
pub(super) fn resolver(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.words()?;
    let address = socket(text).map_err(|(what, nearest)| match text.parse::<IpAddr>() {
        Ok(ip) => (what, Some(SocketAddr::new(ip, 53).to_string())),
        Err(_) => (what, nearest),
    });
    let address = told(item, address)?;
    if let Err(what) = check_connectable(&address) {
        item.error(what);
    }
    Some(address.into())
}

/// `"127.0.0.1:9901"`, `"unix:/run/ringway/admin.sock"`: where the admin API listens.
pub(super) fn admin(item: &Item<'_>) -> Option<Address> {
    let text = item.words()?;
    if let Some(name) = text.strip_prefix("unix:") {
        if name.starts_with('@') {
            item.error("an abstract name has no permissions: anybody on this machine could connect to it");
            return None;
        }
        return unix(item, name).map(Address::from);
    }
    told(item, socket(text)).map(Address::from)
}

/// An admin address as a command line gives it. The error says what is wrong with it.
pub fn admin_address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some(name) => UnixName::new(name.as_bytes()).map(Address::from).map_err(|wrong| wrong.to_string()),
        None => socket(text).map(Address::from).map_err(|(what, _)| what),
    }
}

/// `"0660"`: the permissions of a unix socket's file.
pub(super) fn mode(item: &Item<'_>) -> Option<u32> {
    let text = item.words()?;
    let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b)).then(|| u32::from_str_radix(text, 8).ok());
    match octal.flatten().filter(|mode| *mode <= limits::SOCKET_MODE.max) {
        Some(mode) => Some(mode),
        None => {
            item.error_near(
                "is no permissions in octal digits, \"0000\" to \"0777\"",
                Some("0660".to_owned()),
            );
            None
        }
    }
}

/// `"10.0.0.0/8"`, or one address.
pub(super) fn network(item: &Item<'_>) -> Option<Network> {
    let text = item.words()?;
    let network = told(item, parse_network(text))?;
    let base = first_of(network);
    if base != network.address {
        item.warn(
            format!("{} has bits behind its prefix, which do not count", network.address),
            Some(format!("{base}/{}", network.prefix)),
        );
    }
    Some(Network { address: base, ..network })
}

/// `"127.0.0.1-127.0.0.9"`, `"10.0.0.0/24"` (without its first and last address in IPv4), or one address.
pub(super) fn range(item: &Item<'_>) -> Option<(IpAddr, IpAddr)> {
    let text = item.words()?;
    let (from, to) = told(item, parse_range(text))?;
    if from.is_multicast() || to.is_multicast() {
        item.error("a multicast address cannot be connected from");
        return None;
    }
    Some((from, to))
}

/// How many addresses a range has.
pub(super) fn range_size((from, to): (IpAddr, IpAddr)) -> u128 {
    number(to).saturating_sub(number(from)).saturating_add(1)
}

fn told<T>(item: &Item<'_>, found: Result<T, Wrong>) -> Option<T> {
    found.map_err(|(what, nearest)| item.error_near(what, nearest)).ok()
}

fn socket(text: &str) -> Result<SocketAddress, Wrong> {
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => Err((format!("{text:?} has a scope id"), None)),
        Ok(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => {
            let v4 = v6.ip().to_canonical();
            Err((format!("{text:?} is an IPv4 address in IPv6 form"), Some(format!("{v4}:{}", v6.port()))))
        }
        Ok(address) => Ok(address.into()),
        Err(_) => Err(why_no_socket(text)),
    }
}

fn why_no_socket(text: &str) -> Wrong {
    let as_socket = |text: &str| text.parse::<SocketAddr>().ok().map(|a| a.to_string());
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return (format!("{text:?} is a URL; an address has no scheme"), as_socket(rest));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let meant = unbracketed(text).unwrap_or_else(|| SocketAddr::new(ip, 8080).to_string());
        return (format!("{text:?} lacks its port"), Some(meant));
    }
    let port = text.trim_start_matches('*').trim_start_matches(':');
    if let Ok(port) = port.parse::<u16>() {
        return (format!("{text:?} lacks its IP address"), Some(format!("0.0.0.0:{port}")));
    }
    match text.rsplit_once(':') {
        Some((ip, port))
            if ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) && port.parse::<u16>().is_err() =>
        {
            (format!("{port:?} is not a port (0 to 65535)"), None)
        }
        _ => {
            let (what, mended) =
                ("is not an IP address and port, as \"127.0.0.1:8080\"", as_socket(text.trim()));
            (format!("{text:?} {what}"), mended.or_else(|| unbracketed(text)))
        }
    }
}

/// What `::1:8080` was meant to be, if its last group can be a port and the rest an address.
fn unbracketed(text: &str) -> Option<String> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(SocketAddr::new(ip, port.parse().ok()?).to_string())
}

/// The host and port of `name:port`, if it has that form.
fn host_name(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let named = host.bytes().all(is_host) && host.bytes().any(|b| b.is_ascii_alphabetic());
    if named { Some((host, port.parse().ok()?)) } else { None }
}

fn parse_network(text: &str) -> Result<Network, Wrong> {
    let wrong = || (format!("{text:?} is not a network, as \"10.0.0.0/8\""), None);
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
    let address: IpAddr = ip.parse().map_err(|_| wrong())?;
    if let Some(v4) = mapped(address) {
        return Err((format!("{text:?} is an IPv4 address in IPv6 form"), Some(v4.to_string())));
    }
    let longest = bits(address);
    let Some(prefix) = prefix else { return Ok(Network { address, prefix: longest }) };
    let all_digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    match prefix.parse::<u8>() {
        Ok(prefix) if all_digits && prefix <= longest => Ok(Network { address, prefix }),
        _ => Err((format!("{prefix:?} is not a prefix length (0 to {longest})"), None)),
    }
}

fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Wrong> {
    let Some((from, to)) = text.split_once('-') else {
        let network = parse_network(text).map_err(|(what, nearest)| match text.contains('/') {
            true => (what, nearest),
            false => {
                (format!("{text:?} is not an address, a network or a range \"127.0.0.1-127.0.0.9\""), nearest)
            }
        })?;
        return Ok(usable(network));
    };
    let parse = |text: &str| {
        let text = text.trim();
        text.parse::<IpAddr>().map_err(|_| (format!("{text:?} is not an IP address"), None))
    };
    let (from, to) = (parse(from)?, parse(to)?);
    if from.is_ipv4() != to.is_ipv4() {
        return Err((format!("{text:?} goes from one family of addresses to the other"), None));
    }
    if from > to {
        return Err((format!("{text:?} ends before it begins"), Some(format!("{to}-{from}"))));
    }
    Ok((from, to))
}

/// The addresses of a network that a socket can have: in IPv4 the first names the network, the last is its broadcast.
fn usable(network: Network) -> (IpAddr, IpAddr) {
    let (first, size) =
        (number(first_of(network)), bits(network.address) - network.prefix.min(bits(network.address)));
    let last = first | 1u128.checked_shl(u32::from(size)).map_or(u128::MAX, |n| n - 1);
    match network.address {
        IpAddr::V4(_) if size >= 2 => (v4(first + 1), v4(last - 1)),
        IpAddr::V4(_) => (v4(first), v4(last)),
        IpAddr::V6(_) => (IpAddr::V6(first.into()), IpAddr::V6(last.into())),
    }
}

fn first_of(network: Network) -> IpAddr {
    let host = bits(network.address) - network.prefix.min(bits(network.address));
    let mask = u128::MAX.checked_shl(u32::from(host)).unwrap_or(0);
    let first = number(network.address) & mask;
    match network.address {
        IpAddr::V4(_) => v4(first),
        IpAddr::V6(_) => IpAddr::V6(first.into()),
    }
}

fn mapped(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map(IpAddr::V4),
        IpAddr::V4(_) => None,
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn v4(number: u128) -> IpAddr {
    IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges() {
        let range = |text| parse_range(text).map_err(|w| w.0);
        assert_eq!(range("127.0.0.1-127.0.0.9"), Ok((ip("127.0.0.1"), ip("127.0.0.9"))));
        assert_eq!(range("127.0.0.1 - 127.0.0.9"), Ok((ip("127.0.0.1"), ip("127.0.0.9"))));
        assert_eq!(range("127.0.0.7"), Ok((ip("127.0.0.7"), ip("127.0.0.7"))));
        assert_eq!(range("10.1.2.3/24"), Ok((ip("10.1.2.1"), ip("10.1.2.254"))));
        assert_eq!(range("10.1.2.3/31"), Ok((ip("10.1.2.2"), ip("10.1.2.3"))));
        assert_eq!(range("0.0.0.0/0").map(range_size), Ok((1 << 32) - 2));
        assert_eq!(range("::/0").map(range_size), Ok(u128::MAX));
        assert_eq!(range("fd00::/127"), Ok((ip("fd00::"), ip("fd00::1"))));
        for wrong in
            ["", "-", "127.0.0.9-127.0.0.1", "1.1.1.1-::1", "1.1.1.1/33", "1.1.1.1/+8", "a", "::ffff:1.2.3.4"]
        {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_meant() {
        let nearest = |text| socket(text).unwrap_err().1;
        assert_eq!(nearest(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(nearest("8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(nearest("*:80").as_deref(), Some("0.0.0.0:80"));
        assert_eq!(nearest("::1").as_deref(), Some("[::1]:8080"));
        assert_eq!(nearest("fe80::1:99999"), None);
        assert_eq!(nearest("http://10.0.0.1:80/").as_deref(), Some("10.0.0.1:80"));
        assert_eq!(nearest("[::ffff:1.2.3.4]:80").as_deref(), Some("1.2.3.4:80"));
        assert_eq!(host_name("app.internal:9000"), Some(("app.internal", 9000)));
        assert_eq!(host_name("10.0.0.1:9000"), None);
        assert_eq!(host_name("app"), None);
    }
}
