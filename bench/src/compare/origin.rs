//! The origins, on the load's CPU. Never measured.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;

use super::child::{self, Running};
use super::machine::Cpus;
use super::peer::{Protocol, READY, Settings, address_in, fill, free_address, wait_ready};

const NGINX_ORIGIN: &str = include_str!("../../rivals/nginx-origin.conf");

/// What is behind the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Http,
    /// Sends back what comes.
    Echo,
    /// Sends without end.
    Source,
    /// The same behind a WebSocket handshake.
    UpgradedEcho,
    UpgradedSource,
}

impl Role {
    /// The flags of `ringway-bench origin`.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Http => &[],
            Self::Echo => &["--raw", "echo"],
            Self::Source => &["--raw", "source"],
            Self::UpgradedEcho => &["--raw", "echo", "--upgrade"],
            Self::UpgradedSource => &["--raw", "source", "--upgrade"],
        }
    }
}

/// One origin of each role that was asked for. One that nobody speaks to costs nothing.
#[derive(Debug)]
pub(super) struct Origins {
    nginx: PathBuf,
    cpus: Cpus,
    files: u64,
    started: Vec<(Role, Origin)>,
}

impl Origins {
    pub(super) fn new(nginx: PathBuf, cpus: Cpus, files: u64) -> Self {
        Self { nginx, cpus, files, started: Vec::new() }
    }

    /// The origin of a role, started with the first call.
    pub(super) fn of(&mut self, role: Role) -> anyhow::Result<&Origin> {
        let at = match self.started.iter().position(|(r, _)| *r == role) {
            Some(at) => at,
            None => {
                let origin = match role {
                    Role::Http => Origin::start(&self.nginx, self.cpus, self.files)?,
                    role => Origin::own(role, self.cpus.load)?,
                };
                self.started.push((role, origin));
                self.started.len() - 1
            }
        };
        Ok(&self.started[at].1)
    }
}

/// A running origin.
#[derive(Debug)]
pub(super) struct Origin {
    _running: Running,
    pub(super) address: SocketAddr,
    pub(super) name: &'static str,
    _folder: tempfile::TempDir,
}

impl Origin {
    /// The bench's own, or nginx where that does not start.
    fn start(nginx: &Path, cpus: Cpus, files: u64) -> anyhow::Result<Self> {
        Self::own(Role::Http, cpus.load).or_else(|own| {
            Self::nginx(nginx, cpus, files)
                .with_context(|| format!("nor does the bench's own origin start: {own:#}"))
        })
    }

    fn own(role: Role, cpu: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = child::pinned(&std::env::current_exe()?, cpu, None);
        command.args(["origin", "--listen", "127.0.0.1:0", "--cpu", &cpu.to_string()]).args(role.flags());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::new(command)?;
        let address = address_in(&running.first_line(READY)?)?;
        wait_ready(address, role == Role::Http, &mut running)?;
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
        let (protocol, pool, clients, sources) = (Protocol::Http, 0, 0, "");
        let settings = Settings { protocol, origin: address, sources, cpus, pool, clients, files };
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
