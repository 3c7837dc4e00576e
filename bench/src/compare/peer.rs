//! The peers: how each is found, configured, started, and ended.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cgroup::Group;
use super::child::{self, Running, check_stop, pause};
use super::machine::{self, Cpus};
use super::probe;
use super::record::PeerFacts;

pub(super) const READY: Duration = Duration::from_secs(10);
/// Connections allowed beyond the scenario's clients: those that ask whether a peer is ready.
const SPARE_CLIENTS: u32 = 100;

/// How a peer is configured and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ringway,
    Nginx,
    /// With these lines in `global` and `defaults`.
    Haproxy(&'static str, &'static str),
    Sozu,
    Pingora,
    /// `ringway-bench floor` of this kind.
    Floor(&'static str),
}

/// What a peer is configured to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    /// Bytes of a TCP connection, unread.
    Tcp,
}

/// One program under measurement.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) binary: PathBuf,
}

/// What the scenario wants of every peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) origin: SocketAddr,
    /// Addresses to connect from, as a range; empty: the kernel chooses. Only ringway is given one.
    pub(super) sources: &'static str,
    pub(super) cpus: Cpus,
    pub(super) pool: u32,
    /// Clients at once, at most.
    pub(super) clients: u32,
    pub(super) files: u64,
}

/// A started peer.
#[derive(Debug)]
pub(super) struct Proxy {
    // In this order: the child is asked to end before its group is killed.
    running: Running,
    group: Option<Group>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Proxy {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        probe::pids(self.group.as_ref(), self.running.pid())
    }
}

const NGINX: &str = include_str!("../../rivals/nginx.conf");
const HAPROXY: &str = include_str!("../../rivals/haproxy.cfg");
const SOZU: &str = include_str!("../../rivals/sozu.toml");
const RINGWAY: &str = include_str!("../../rivals/ringway.toml");
const NGINX_TCP: &str = include_str!("../../rivals/nginx-tcp.conf");
const HAPROXY_TCP: &str = include_str!("../../rivals/haproxy-tcp.cfg");
const RINGWAY_TCP: &str = include_str!("../../rivals/ringway-tcp.toml");
/// Where Debian has the module that carries TCP.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

impl Peer {
    /// Its configuration before names are filled in.
    fn template(&self, protocol: Protocol) -> String {
        let http = protocol == Protocol::Http;
        match self.kind {
            Kind::Ringway => if http { RINGWAY } else { RINGWAY_TCP }.to_owned(),
            Kind::Nginx if http => NGINX.to_owned(),
            Kind::Nginx => NGINX_TCP.replace("@MODULE@", &self.stream_module()),
            Kind::Haproxy(global, defaults) => {
                let template = if http { HAPROXY } else { HAPROXY_TCP };
                template.replace("@GLOBAL@", global).replace("@DEFAULTS@", defaults)
            }
            Kind::Sozu => SOZU.to_owned(),
            Kind::Pingora | Kind::Floor(_) => String::new(),
        }
    }

    /// The line that loads nginx's module for TCP, where that is not built in.
    fn stream_module(&self) -> String {
        let mut asks = Command::new(&self.binary);
        asks.arg("-V");
        let built = child::output(asks, READY).unwrap_or_default();
        if built.contains("--with-stream=dynamic") {
            format!("load_module {NGINX_STREAM};")
        } else {
            String::new()
        }
    }

    /// How many clients it can have of `wanted` with so many descriptors. sozu asks for two for each before it starts.
    pub(super) fn clients(&self, wanted: u32, files: u64) -> u32 {
        let most = u32::try_from(files / 2).unwrap_or(u32::MAX).saturating_sub(SPARE_CLIENTS);
        if self.kind == Kind::Sozu { wanted.min(most) } else { wanted }
    }

    pub(super) fn facts(&self) -> PeerFacts {
        let program = self.binary.to_string_lossy();
        let version = match self.kind {
            Kind::Ringway | Kind::Sozu | Kind::Floor(_) => machine::version(&program, &["--version"]),
            Kind::Nginx | Kind::Haproxy(..) => machine::version(&program, &["-v"]),
            Kind::Pingora => Some(pingora_version()),
        };
        // Only a floor and pingora have no file.
        let hashes = [Protocol::Http, Protocol::Tcp].map(|protocol| {
            let template = self.template(protocol);
            if template.is_empty() { String::new() } else { machine::hash(&template) }
        });
        PeerFacts {
            name: self.name.to_owned(),
            absent: version
                .is_none()
                .then(|| format!("cannot run {program}; `ringway-bench setup` installs it")),
            version: version.unwrap_or_default(),
            config_hash: if hashes[0] == hashes[1] { hashes[0].clone() } else { hashes.join(" K, ") + " L" },
        }
    }

    pub(super) fn start(&self, settings: &Settings) -> anyhow::Result<Proxy> {
        let asks = settings.protocol == Protocol::Http && !matches!(self.kind, Kind::Floor(_));
        self.start_and(asks, settings)
    }

    /// The same without a first request, where the origin would not answer one.
    pub(super) fn start_unasked(&self, settings: &Settings) -> anyhow::Result<Proxy> {
        self.start_and(false, settings)
    }

    fn start_and(&self, asks: bool, settings: &Settings) -> anyhow::Result<Proxy> {
        let folder = tempfile::tempdir()?;
        let group = Group::new(self.name);
        let mut address = free_address()?;
        let config = fill(&self.template(settings.protocol), address, folder.path(), settings);
        let file = folder.path().join("config");
        fs::write(&file, config)?;
        let mut command = child::pinned(&self.binary, settings.cpus.proxy, group.as_ref());
        let origin = settings.origin.to_string();
        match self.kind {
            Kind::Ringway => command.arg("run").arg("-c").arg(&file),
            Kind::Nginx => command.arg("-c").arg(&file).args(["-e", "/dev/null"]),
            Kind::Haproxy(..) => command.arg("-db").arg("-f").arg(&file),
            Kind::Sozu => command.arg("-c").arg(&file).arg("start"),
            Kind::Pingora => command
                .args(["--listen", &address.to_string(), "--origin", &origin])
                .args(["--pool", &settings.pool.to_string(), "--dir"])
                .arg(folder.path()),
            Kind::Floor(kind) => command
                .args(["floor", kind, "--listen", "127.0.0.1:0", "--origin", &origin])
                .args(["--cpu", &settings.cpus.proxy.to_string()]),
        };
        let log = fs::File::create(folder.path().join("stderr"))?;
        command.stderr(log).stdout(if self.says_address() { Stdio::piped() } else { Stdio::null() });
        let mut running = Running::new(command)?;
        let ready = if self.says_address() {
            running.first_line(READY).and_then(|line| address_in(&line)).map(|said| address = said)
        } else {
            Ok(())
        };
        ready.and_then(|()| wait_ready(address, asks, &mut running)).with_context(|| {
            let said = fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
            format!("{} is not ready; it said: {}", self.name, last_lines(&said))
        })?;
        Ok(Proxy { running, group, address, _folder: folder })
    }

    /// Whether its first line says where it listens.
    fn says_address(&self) -> bool {
        matches!(self.kind, Kind::Ringway | Kind::Floor(_))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// The version that the lock file of the rival pins.
fn pingora_version() -> String {
    let lock = include_str!("../../rivals/pingora/Cargo.lock");
    let after = lock.split("name = \"pingora\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    format!("pingora {}", after.unwrap_or("of unknown version"))
}

pub(super) fn fill(template: &str, address: SocketAddr, folder: &Path, settings: &Settings) -> String {
    template
        .replace("@DIR@", &folder.to_string_lossy())
        .replace("@PORT@", &address.port().to_string())
        .replace("@ORIGIN@", &settings.origin.to_string())
        .replace("@POOL@", &settings.pool.to_string())
        .replace("@FILES@", &settings.files.to_string())
        .replace("@MAXCONN@", &(settings.clients + SPARE_CLIENTS).to_string())
        .replace("@BUFFERS@", &(2 * (settings.clients + SPARE_CLIENTS)).to_string())
        .replace("@SOURCES@", &sources(settings.sources))
}

/// ringway's line for a pool of addresses to connect from; none where one address has ports enough.
fn sources(range: &str) -> String {
    if range.is_empty() { String::new() } else { format!("source_addresses = [\"{range}\"]") }
}

/// A port of loopback that is free now. Another program may take it first; then the peer fails to start and says so.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The address in a ready line: `{"listening":"A"}` of the bench, `{"listeners":[{"address":"A"}]}` of ringway.
pub(super) fn address_in(line: &str) -> anyhow::Result<SocketAddr> {
    let value: serde_json::Value =
        serde_json::from_str(line).with_context(|| format!("not a ready line: {line}"))?;
    let text = value["listening"].as_str().or_else(|| value["listeners"][0]["address"].as_str());
    text.and_then(|t| t.parse().ok()).with_context(|| format!("no address in {line}"))
}

/// Until it takes connections and, if `asks`, answers a request with 200.
pub(super) fn wait_ready(address: SocketAddr, asks: bool, running: &mut Running) -> anyhow::Result<()> {
    let end = Instant::now() + READY;
    let mut last = String::from("nothing listens");
    while Instant::now() < end {
        check_stop()?;
        if let Some(status) = running.ended() {
            bail!("it ended with {status}");
        }
        match first_answer(address, asks) {
            Ok(line) if !asks || line.contains(" 200") => return Ok(()),
            Ok(line) => last = line,
            Err(e) => last = e.to_string(),
        }
        pause(Duration::from_millis(20));
    }
    bail!("not ready within {} s: {last}", READY.as_secs())
}

fn first_answer(address: SocketAddr, asks: bool) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    if !asks {
        return Ok(String::new());
    }
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0; 64];
    let n = socket.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..n]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_lines_name_the_address() {
        let ours = address_in(r#"{"listeners":[{"name":"edge","address":"127.0.0.1:80"}]}"#).unwrap();
        assert_eq!(ours, address_in(r#"{"listening":"127.0.0.1:80"}"#).unwrap());
        assert!(address_in("{}").is_err() && address_in("no").is_err());
    }

    #[test]
    fn no_name_is_left_to_fill_in() {
        let cpus = Cpus { load: 0, proxy: 1 };
        let origin = "127.0.0.1:9".parse().unwrap();
        for protocol in [Protocol::Http, Protocol::Tcp] {
            let (pool, clients, files, sources) = (1024, 1024, 20_000, "");
            let settings = Settings { protocol, origin, sources, cpus, pool, clients, files };
            for kind in [Kind::Ringway, Kind::Nginx, Kind::Haproxy("", ""), Kind::Sozu] {
                let peer = Peer { name: "p", kind, binary: PathBuf::new() };
                let text = fill(&peer.template(protocol), origin, Path::new("/d"), &settings);
                let left = text.lines().find(|l| !l.starts_with('#') && l.contains('@'));
                assert_eq!(left, None, "{kind:?}, {protocol:?}");
            }
        }
    }

    #[test]
    fn who_asks_for_two_descriptors_each_has_fewer_clients() {
        let peer = |kind| Peer { name: "p", kind, binary: PathBuf::new() };
        assert_eq!(peer(Kind::Sozu).clients(15_000, 20_000), 9_900);
        assert_eq!(peer(Kind::Sozu).clients(9_000, 20_000), 9_000);
        assert_eq!(peer(Kind::Nginx).clients(15_000, 20_000), 15_000);
    }

    #[test]
    fn the_version_of_pingora_is_in_its_lock() {
        assert!(pingora_version().contains('.'), "{}", pingora_version());
    }
}
