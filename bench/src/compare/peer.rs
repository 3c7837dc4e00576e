//! The peers: how each is found, configured, started, and ended.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cgroup::Group;
use super::child::{self, Running, check_stop, pause};
use super::machine::{self, Cpus};
use super::probe;
use super::record::PeerFacts;

const READY: Duration = Duration::from_secs(10);

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
    pub(super) origin: SocketAddr,
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
const NGINX_ORIGIN: &str = include_str!("../../rivals/nginx-origin.conf");
const HAPROXY: &str = include_str!("../../rivals/haproxy.cfg");
const SOZU: &str = include_str!("../../rivals/sozu.toml");
const RINGWAY: &str = include_str!("../../rivals/ringway.toml");

impl Peer {
    /// Its configuration before names are filled in.
    fn template(&self) -> String {
        match self.kind {
            Kind::Ringway => RINGWAY.to_owned(),
            Kind::Nginx => NGINX.to_owned(),
            Kind::Haproxy(global, defaults) => {
                HAPROXY.replace("@GLOBAL@", global).replace("@DEFAULTS@", defaults)
            }
            Kind::Sozu => SOZU.to_owned(),
            Kind::Pingora | Kind::Floor(_) => String::new(),
        }
    }

    pub(super) fn facts(&self) -> PeerFacts {
        let program = self.binary.to_string_lossy();
        let version = match self.kind {
            Kind::Ringway | Kind::Sozu | Kind::Floor(_) => machine::version(&program, &["--version"]),
            Kind::Nginx | Kind::Haproxy(..) => machine::version(&program, &["-v"]),
            Kind::Pingora => Some(pingora_version()),
        };
        let template = self.template();
        PeerFacts {
            name: self.name.to_owned(),
            absent: version
                .is_none()
                .then(|| format!("cannot run {program}; `ringway-bench setup` installs it")),
            version: version.unwrap_or_default(),
            config_hash: if template.is_empty() { String::new() } else { machine::hash(&template) },
        }
    }

    pub(super) fn start(&self, settings: &Settings) -> anyhow::Result<Proxy> {
        let folder = tempfile::tempdir()?;
        let group = Group::new(self.name);
        let mut address = free_address()?;
        let config = fill(&self.template(), address, folder.path(), settings);
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
        let asks = !matches!(self.kind, Kind::Floor(_));
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

fn fill(template: &str, address: SocketAddr, folder: &Path, settings: &Settings) -> String {
    template
        .replace("@DIR@", &folder.to_string_lossy())
        .replace("@PORT@", &address.port().to_string())
        .replace("@ORIGIN@", &settings.origin.to_string())
        .replace("@POOL@", &settings.pool.to_string())
        .replace("@FILES@", &settings.files.to_string())
        .replace("@MAXCONN@", &(settings.clients + 100).to_string())
}

/// A port of loopback that is free now. Another program may take it first; then the peer fails to start and says so.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The address in a ready line: `{"listening":"A"}` of the bench, `{"listeners":[{"address":"A"}]}` of ringway.
fn address_in(line: &str) -> anyhow::Result<SocketAddr> {
    let value: serde_json::Value =
        serde_json::from_str(line).with_context(|| format!("not a ready line: {line}"))?;
    let text = value["listening"].as_str().or_else(|| value["listeners"][0]["address"].as_str());
    text.and_then(|t| t.parse().ok()).with_context(|| format!("no address in {line}"))
}

/// Until it takes connections and, if `asks`, answers a request with 200.
fn wait_ready(address: SocketAddr, asks: bool, running: &mut Running) -> anyhow::Result<()> {
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

/// The origin, on the load's CPU. Never measured.
#[derive(Debug)]
pub(super) struct Origin {
    _running: Running,
    pub(super) address: SocketAddr,
    pub(super) name: &'static str,
    _folder: tempfile::TempDir,
}

impl Origin {
    /// The bench's own, or nginx where that does not start.
    pub(super) fn start(nginx: &Path, cpus: Cpus, files: u64) -> anyhow::Result<Self> {
        Self::own(cpus).or_else(|own| {
            Self::nginx(nginx, cpus, files)
                .with_context(|| format!("nor does the bench's own origin start: {own:#}"))
        })
    }

    fn own(cpus: Cpus) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = child::pinned(&std::env::current_exe()?, cpus.load, None);
        command.args(["origin", "--listen", "127.0.0.1:0", "--cpu", &cpus.load.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::new(command)?;
        let address = address_in(&running.first_line(READY)?)?;
        wait_ready(address, true, &mut running)?;
        Ok(Self { _running: running, address, name: "ringway-bench origin", _folder: folder })
    }

    fn nginx(nginx: &Path, cpus: Cpus, files: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let bytes = folder.path().join("bytes");
        fs::create_dir(&bytes)?;
        for size in [64 << 10, 1 << 20] {
            fs::write(bytes.join(size.to_string()), vec![b'x'; size])?;
        }
        let address = free_address()?;
        let settings = Settings { origin: address, cpus, pool: 0, clients: 0, files };
        let config =
            fill(NGINX_ORIGIN, address, folder.path(), &settings).replace("@BODY@", &"x".repeat(128));
        let file = folder.path().join("config");
        fs::write(&file, config)?;
        let mut command = child::pinned(nginx, cpus.load, None);
        command.arg("-c").arg(&file).args(["-e", "/dev/null"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::new(command)?;
        wait_ready(address, true, &mut running)?;
        Ok(Self { _running: running, address, name: "nginx", _folder: folder })
    }
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
        let settings = Settings { origin, cpus, pool: 1024, clients: 1024, files: 20_000 };
        for kind in [Kind::Ringway, Kind::Nginx, Kind::Haproxy("", ""), Kind::Sozu] {
            let peer = Peer { name: "p", kind, binary: PathBuf::new() };
            let text = fill(&peer.template(), origin, Path::new("/d"), &settings);
            let left = text.lines().find(|l| !l.starts_with('#') && l.contains('@'));
            assert_eq!(left, None, "{kind:?}");
        }
    }

    #[test]
    fn the_version_of_pingora_is_in_its_lock() {
        assert!(pingora_version().contains('.'), "{}", pingora_version());
    }
}
