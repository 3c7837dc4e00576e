//! One question to the resolvers: those of the machine, or those that the configuration names.
//!
//! hickory's stub resolver asks, follows aliases (CNAME) up to its own bound, and takes nothing from an answer that was not
//! asked for. It keeps no answers: `names` knows how long they last.

use dataplane::limits;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::sleep;

/// What the machine is configured by.
const SYSTEM: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// Between two looks at those.
const SYSTEM_LOOK: Duration = Duration::from_secs(2);

/// What came of a question for the addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// At least one, and how long they last.
    Good(Vec<IpAddr>, Duration),
    /// There are none; why.
    Empty(String),
    /// Not answered; why.
    Failed(String),
}

/// One target of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) target: Arc<str>,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

/// The resolvers.
#[derive(Debug, Clone)]
pub(super) struct Resolver(watch::Receiver<TokioResolver>);

impl Resolver {
    /// Those at `servers`; where there are none, those of the machine, whose files are read again when they change.
    pub(super) fn start(servers: &[SocketAddr]) -> Self {
        if !servers.is_empty() {
            return Self(watch::channel(of_servers(servers)).1);
        }
        let (tell, told) = watch::channel(of_machine());
        tokio::spawn(async move {
            let mut seen = look().await;
            while !tell.is_closed() {
                sleep(SYSTEM_LOOK).await;
                let now = look().await;
                if now != seen {
                    seen = now;
                    // Small files, as every program reads them when it asks for a name.
                    tell.send_replace(of_machine());
                }
            }
        });
        Self(told)
    }

    /// The addresses of a host, of IPv4 and of IPv6.
    pub(super) async fn addresses(&self, name: &str) -> (Reply, Reply) {
        let resolver = self.0.borrow().clone();
        let ask = |kind| {
            let resolver = &resolver;
            async move { reply(resolver.lookup(name, kind).await) }
        };
        tokio::join!(ask(RecordType::A), ask(RecordType::AAAA))
    }

    /// The targets of a service, and how long they last.
    pub(super) async fn services(&self, name: &str) -> Result<(Vec<Service>, Duration), String> {
        let resolver = self.0.borrow().clone();
        let lookup = resolver.lookup(name, RecordType::SRV).await.map_err(|error| match why(&error) {
            Reply::Empty(why) | Reply::Failed(why) => why,
            Reply::Good(..) => String::new(),
        })?;
        let service = |data: &RData| match data {
            // "A Target of "." means that the service is decidedly not available at this domain" (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(Service {
                target: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase().into(),
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            }),
            _ => None,
        };
        let services: Vec<_> = lookup.answers().iter().filter_map(|record| service(&record.data)).collect();
        if services.is_empty() {
            Err("the service has no target".to_owned())
        } else {
            Ok((services, lasts(&lookup)))
        }
    }
}

/// How long an answer lasts, aliases on the way included.
fn lasts(lookup: &Lookup) -> Duration {
    let shortest = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let until = tokio::time::Instant::from_std(lookup.valid_until());
    until.saturating_duration_since(tokio::time::Instant::now()).min(Duration::from_secs(shortest.into()))
}

fn reply(lookup: Result<Lookup, NetError>) -> Reply {
    match lookup {
        Ok(lookup) => {
            let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
            let usable: Vec<_> = addresses.map(|ip| ip.to_canonical()).filter(is_usable).collect();
            match usable.is_empty() {
                true => Reply::Empty("no address that can be connected to".to_owned()),
                false => Reply::Good(usable, lasts(&lookup)),
            }
        }
        Err(error) => why(&error),
    }
}

/// Whether something can listen there: answers are believed in nothing else, for a name may lead to this machine too.
fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && *ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn why(error: &NetError) -> Reply {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Reply::Empty("there is no such name (NXDOMAIN)".to_owned())
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Reply::Empty("the name has no address".to_owned())
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Reply::Failed(format!("the resolver says: {code}")),
        NetError::Timeout => Reply::Failed("the resolver does not answer".to_owned()),
        NetError::Truncated => {
            Reply::Failed("the answer is truncated: no whole one came over TCP".to_owned())
        }
        // hickory's word for it.
        NetError::Message("receiver was canceled") => {
            Reply::Failed("the resolver closed the connection: no whole one came over TCP".to_owned())
        }
        other => Reply::Failed(other.to_string()),
    }
}

fn of_servers(servers: &[SocketAddr]) -> TokioResolver {
    let server = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = address.port());
        NameServerConfig::new(address.ip(), true, connections)
    };
    let mut options = options();
    options.use_hosts_file = ResolveHosts::Never;
    build(ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect()), options)
}

/// As /etc/resolv.conf says; without one, a resolver on this machine, as resolv.conf(5) has it.
fn of_machine() -> TokioResolver {
    match system_conf::read_system_conf() {
        Ok((config, asked)) => {
            let mut options = options();
            (options.ndots, options.edns0) = (asked.ndots, asked.edns0);
            options.attempts = asked.attempts.clamp(1, 5);
            build(config, options)
        }
        Err(error) => {
            tracing::warn!("/etc/resolv.conf: {error}; 127.0.0.1 is asked");
            let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            build(ResolverConfig::from_parts(None, Vec::new(), vec![local]), options())
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    (options.timeout, options.attempts, options.cache_size) = (limits::NAME_TIMEOUT, 2, 0);
    options
}

fn build(config: ResolverConfig, options: ResolverOpts) -> TokioResolver {
    let builder = |config, options| {
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options)
    };
    match builder(config, options).build() {
        Ok(resolver) => resolver,
        // Only what TLS or DNSSEC need can fail, and neither is compiled in.
        Err(error) => unreachable!("a resolver without TLS: {error}"),
    }
}

/// When the machine's files last changed.
async fn look() -> [Option<SystemTime>; 2] {
    let look = || SYSTEM.map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
