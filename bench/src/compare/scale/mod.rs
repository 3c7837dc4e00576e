//! `ringway-bench scale`: many idle tunnels, over as many processes as descriptors make necessary, and what they cost.
//!
//! `figures` reads what the kernel says of them. One process of each rival holds as many as one process of ours first; then
//! ours alone holds the whole number.

mod figures;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::child::{self, Running, check_stop, pause_checked};
use super::idle::{message, settle};
use super::machine::{self, Cpus, shrink_slabs, slab};
use super::peer::{Kind, Peer, Protocol, Proxy, READY, Settings, address_in, wait_ready};
use super::probe::resident;
use super::{REFERENCE, build, say};
use figures::{Held, PortsUsed};

/// Descriptors of a process that are not connections of the load: listeners, rings, logs, epoll.
const OTHER_FILES: u64 = 400;
/// What a tunnel takes of this machine's memory, bytes: four sockets, and what four processes keep for them. Measured: 19,000
/// with the hungriest rival.
const TUNNEL_BYTES: u64 = 28 * 1024;
/// And a process.
const PROCESS_BYTES: u64 = 48 << 20;
/// Connections that an origin takes; the kernel spreads them unevenly.
const ORIGIN_SHARE: f64 = 0.9;
/// Within this everything that was opened must be closed.
const TAKEN_DOWN: Duration = Duration::from_secs(300);
const OPENED: Duration = Duration::from_secs(180);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tunnels, each with one upstream connection, over as many processes as they take.
    #[arg(long, default_value_t = 150_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tunnels: u32,
    /// Tunnels of one process; as many as its descriptors allow if absent.
    #[arg(long)]
    each: Option<u32>,
    /// Tunnels behind an Upgrade through an http listener, not those of a tcp listener. Only ringway takes part.
    #[arg(long)]
    upgrade: bool,
    /// Addresses that upstream connections come from. With more than half of its ports in use towards one destination, an
    /// address makes the kernel search for each connect, for milliseconds.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=254))]
    sources: u8,
    /// How long they are held before they are counted, seconds.
    #[arg(long, default_value_t = 12.0)]
    hold: f64,
    /// Without one process of each rival beside one of ours.
    #[arg(long)]
    without_rivals: bool,
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// The binary to measure; built in release if not given.
    #[arg(long)]
    ringway: Option<PathBuf>,
    /// Where the results go.
    #[arg(long, default_value = "target/scale")]
    out: PathBuf,
}

/// What is held, and by how many.
#[derive(Debug, Clone, Copy)]
struct Plan {
    tunnels: u32,
    /// Of one process.
    each: u32,
    upgrade: bool,
    /// The last of their last numbers.
    sources: u8,
    hold: Duration,
    cpus: Cpus,
    files: u64,
}

impl Plan {
    fn proxies(&self) -> u32 {
        self.tunnels.div_ceil(self.each)
    }

    /// Origins share one address, so that ports are what they are in life: many connections to one place.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of some 20,000")]
    fn origins(&self) -> u32 {
        let most = (self.files.saturating_sub(OTHER_FILES) as f64 * ORIGIN_SHARE) as u32;
        // One needs no spreading, and so no share.
        if u64::from(self.tunnels) + OTHER_FILES <= self.files {
            1
        } else {
            self.tunnels.div_ceil(most.max(1))
        }
    }

    /// Says what it takes, and refuses what this machine has not got.
    fn check(&self) -> anyhow::Result<()> {
        let processes = self.proxies() * 2 + self.origins();
        let bytes = u64::from(self.tunnels) * TUNNEL_BYTES + u64::from(processes) * PROCESS_BYTES;
        let free = machine::memory("MemAvailable");
        let ports = machine::local_ports()?;
        let room = u64::from(self.sources) * u64::from(ports);
        say(&format!(
            "{} tunnels: {} proxies of {}, {} origins behind one address, {processes} processes; about {} MiB of {} MiB; \
             {} addresses x {ports} ports x 1 destination = {room} upstream connections",
            self.tunnels,
            self.proxies(),
            self.each,
            self.origins(),
            bytes >> 20,
            free >> 20,
            self.sources
        ));
        let files = u64::from(self.each) * 2 + OTHER_FILES / 2;
        ensure!(files <= self.files, "{} tunnels need {files} descriptors of {}", self.each, self.files);
        ensure!(bytes < free / 10 * 8, "they would take more than 80 % of the memory that is free");
        ensure!(u64::from(self.tunnels) < room, "the pool of addresses has not enough ports");
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let ringway = match &args.ringway {
        Some(path) => path.clone(),
        None => build()?,
    };
    child::stop_on_signals()?;
    let files = machine::raise_descriptors()?;
    let cpus = machine::cpus()?;
    core_affinity::set_for_current(core_affinity::CoreId { id: cpus.load });
    let most = u32::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(u32::MAX);
    let each = args.each.unwrap_or(most).min(args.tunnels);
    let hold = Duration::from_secs_f64(args.hold);
    let whole =
        Plan { tunnels: args.tunnels, each, upgrade: args.upgrade, sources: args.sources, hold, cpus, files };
    let one = Plan { tunnels: each, ..whole };
    whole.check()?;
    let ours = Peer { name: "ringway", kind: Kind::Ringway, binary: ringway };
    let nginx = Peer { name: REFERENCE, kind: Kind::Nginx, binary: args.nginx.clone() };
    let haproxy = Peer { name: "haproxy", kind: Kind::Haproxy("", ""), binary: args.haproxy.clone() };
    let mut wanted = vec![(&ours, one)];
    if !args.without_rivals && !args.upgrade {
        wanted.extend([(&nginx, one), (&haproxy, one)]);
    }
    if whole.proxies() > 1 {
        wanted.push((&ours, whole));
    }
    std::fs::create_dir_all(&args.out)?;
    let mut lines = std::fs::File::create(args.out.join("scale.jsonl"))?;
    let mut all = Vec::new();
    for (peer, plan) in wanted {
        let held = hold_tunnels(peer, &plan)
            .with_context(|| format!("{} tunnels of {}", plan.tunnels, peer.name))?;
        writeln!(lines, "{}", serde_json::to_string(&held)?)?;
        all.push(held);
    }
    let table = figures::table(&all, &machine::facts());
    std::fs::write(args.out.join("scale.md"), &table)?;
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}

/// Origins of one address, which send back what comes.
fn origins(plan: &Plan) -> anyhow::Result<(Vec<Running>, SocketAddr)> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut started = Vec::new();
    for _ in 0..plan.origins() {
        let mut command = child::pinned(&std::env::current_exe()?, plan.cpus.load, None);
        command.args(["origin", "--raw", "echo", "--reuse-port", "--cpu", &plan.cpus.load.to_string()]);
        command.args(["--listen", &address.to_string()]).args(plan.upgrade.then_some("--upgrade"));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::new(command)?;
        address = address_in(&running.first_line(READY)?)?;
        wait_ready(address, false, &mut running)?;
        started.push(running);
    }
    Ok((started, address))
}

/// Opens `count` tunnels through a proxy, each with one message there and back. They stay while the process does.
fn clients(plan: &Plan, proxy: &Proxy, count: u32) -> anyhow::Result<Running> {
    let mut command = child::pinned(&std::env::current_exe()?, plan.cpus.load, None);
    command.args(["load", "--mode", "idle", "--seconds", "3600", "--connections", &count.to_string()]);
    command.args(["--target", &proxy.address().to_string(), "--cpus", &plan.cpus.load.to_string()]);
    command.arg(if plan.upgrade { "--upgrade" } else { "--message" });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running::new(command)?;
    let line = running.first_line(OPENED)?;
    let said: serde_json::Value = serde_json::from_str(&line).context("what the load says")?;
    ensure!(said["idle"] == count, "of {count} tunnels only {} were opened", said["idle"]);
    Ok(running)
}

/// Builds them up, holds them, counts, and takes them down in order: clients first, then what they went through.
fn hold_tunnels(peer: &Peer, plan: &Plan) -> anyhow::Result<Held> {
    settle()?;
    let (origins, origin) = origins(plan)?;
    let settings = Settings {
        protocol: if plan.upgrade { Protocol::Http } else { Protocol::Tcp },
        origin,
        sources: format!("127.0.1.1-127.0.1.{}", plan.sources).leak(),
        cpus: plan.cpus,
        pool: 64,
        clients: plan.each,
        files: plan.files,
    };
    // With an Upgrade the peer can only be asked for something once the origin takes more than upgrades, which it does not.
    let start = || if plan.upgrade { peer.start_unasked(&settings) } else { peer.start(&settings) };
    let proxies = (0..plan.proxies()).map(|_| start()).collect::<anyhow::Result<Vec<Proxy>>>()?;
    let pids: Vec<u32> = proxies.iter().flat_map(Proxy::pids).collect();
    let (empty, before) = (resident(&pids), slab());
    let began = Instant::now();
    let (mut loads, mut left) = (Vec::new(), plan.tunnels);
    for proxy in &proxies {
        check_stop()?;
        let count = left.min(plan.each);
        loads.push(clients(plan, proxy, count)?);
        left -= count;
        let (done, all, seconds) = (plan.tunnels - left, plan.tunnels, began.elapsed().as_secs_f64());
        say(&format!("{}: {done} of {all} tunnels, {seconds:.1} s", peer.name));
    }
    let opened = began.elapsed();
    pause_checked(plan.hold)?;
    shrink_slabs();
    let slab = slab().saturating_sub(before);
    let user = resident(&pids).saturating_sub(empty);
    let ports = PortsUsed::towards(origin)?;
    ensure!(
        ports.all == u64::from(plan.tunnels),
        "{} of {} upstream connections are open",
        ports.all,
        plan.tunnels
    );
    if !plan.upgrade {
        one_more(&proxies)?;
    }
    let began = Instant::now();
    take_down(loads, proxies, origin)?;
    let closed = began.elapsed();
    drop(origins);
    Ok(Held::new(
        peer.name,
        plan.upgrade,
        (plan.tunnels, plan.proxies()),
        (user, slab),
        ports,
        (opened, closed),
    ))
}

/// Each proxy takes one more beside those that it holds.
fn one_more(proxies: &[Proxy]) -> anyhow::Result<()> {
    for proxy in proxies {
        let mut socket = std::net::TcpStream::connect(proxy.address())?;
        socket.set_read_timeout(Some(READY))?;
        message(&mut socket, proxy.address()).context("a message beside the tunnels that are held")?;
    }
    Ok(())
}

/// Clients leave; once their proxies have let go of every upstream connection, they end too.
fn take_down(mut loads: Vec<Running>, proxies: Vec<Proxy>, origin: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + TAKEN_DOWN;
    // By the signal: the kernel then sends a FIN for each, at once. Told by their standard input, some slept on in some runs:
    // the executor waited in its ring and no timer of it ran any more.
    loads.iter().for_each(|load| load.signal("TERM"));
    let (all, began) = (loads.len(), Instant::now());
    for (n, load) in (1..).zip(&mut loads) {
        load.wait(end.saturating_duration_since(Instant::now()))?;
        say(&format!("{n} of {all} clients' processes ended, {:.1} s", began.elapsed().as_secs_f64()));
    }
    while let left @ 1.. = PortsUsed::towards(origin)?.all {
        ensure!(Instant::now() < end, "{left} upstream connections are left of those whose clients went");
        pause_checked(Duration::from_millis(200))?;
    }
    drop(proxies);
    Ok(())
}
