//! What the generator was asked to do, checked.

use crate::upgrade;
use anyhow::{Context as _, ensure};
use std::net::{Ipv4Addr, SocketAddr};

/// Bounds of what may be asked for.
const CONNECTIONS_MAX: u32 = 4_000_000;
const UPLOAD_BYTES_MAX: u32 = 256 << 20;
/// Of a ping-pong.
pub(super) const MESSAGE_BYTES: usize = 64;

#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Where to connect to.
    #[arg(long)]
    target: SocketAddr,
    /// The CPUs to run on, one executor each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    cpus: Vec<usize>,
    /// Over all executors.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Of the connections, those that carry requests; the rest are held idle. All of them if absent.
    #[arg(long)]
    active: Option<u32>,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long to run before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    #[arg(long, default_value = "keepalive")]
    mode: Mode,
    /// Of a stream.
    #[arg(long, default_value = "down")]
    direction: Direction,
    /// Requests per second over all executors, on a fixed schedule; as fast as answers come if absent.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "/")]
    path: String,
    /// The name in the Host field; the target if absent.
    #[arg(long)]
    host: Option<String>,
    /// Sends a body of so many bytes with each request.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(UPLOAD_BYTES_MAX)))]
    upload: u32,
    /// Asks for WebSocket first; a stream, messages or idleness follow in the tunnel.
    #[arg(long)]
    upgrade: bool,
    /// Idle connections ask with one message of 64 bytes that comes back, instead of a request.
    #[arg(long)]
    message: bool,
    /// A range like 127.0.0.1-127.0.0.9, to connect from in turn: for more connections than one address has ports.
    #[arg(long)]
    source_addresses: Option<String>,
    /// First measures this origin without the target in front, to tell whether the generator is the limit.
    #[arg(long)]
    pub(super) validate: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// HTTP requests, one after the other on each connection.
    Keepalive,
    /// HTTP requests, each on a connection of its own.
    Close,
    /// Bytes in one direction, as fast as they go.
    Stream,
    /// Messages of 64 bytes that the target echoes.
    PingPong,
    /// Connections that asked once, held.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Direction {
    Down,
    Up,
}

/// What every executor works from.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) cpus: Vec<usize>,
    pub(super) active: u32,
    pub(super) idle: u32,
    pub(super) seconds: f64,
    pub(super) warm_up: f64,
    pub(super) mode: Mode,
    pub(super) direction: Direction,
    pub(super) rate: Option<f64>,
    /// What is sent for each request.
    pub(super) request: Vec<u8>,
    /// What is sent once on each idle connection.
    pub(super) idle_request: Vec<u8>,
    /// What comes back is the message that was sent, not a response.
    pub(super) echoes: bool,
    /// What asks for WebSocket on each new connection; empty: nothing does.
    pub(super) handshake: Vec<u8>,
    /// Empty: the kernel chooses.
    pub(super) sources: Vec<Ipv4Addr>,
}

impl Plan {
    pub(super) fn new(args: Args) -> anyhow::Result<Self> {
        ensure!(!args.cpus.is_empty(), "--cpus names no CPU");
        ensure!((0.1..=86_400.0).contains(&args.seconds), "--seconds is from 0.1 to a day");
        ensure!((0.0..=600.0).contains(&args.warm_up), "--warm-up is at most 600");
        ensure!(args.rate.is_none_or(|rate| (0.1..=1e8).contains(&rate)), "--rate is from 0.1 to 1e8");
        let host = args.host.clone().unwrap_or_else(|| args.target.to_string());
        ensure!(
            !host.contains(char::is_control)
                && !args.path.contains([' ', '\r', '\n'])
                && args.path.starts_with('/'),
            "--host and --path go into a request as they are"
        );
        let active = match (args.mode, args.active) {
            (Mode::Idle, _) => 0,
            (_, active) => active.unwrap_or(args.connections).min(args.connections),
        };
        ensure!(active > 0 || args.mode == Mode::Idle, "no connection carries requests");
        let is_http = matches!(args.mode, Mode::Keepalive | Mode::Close);
        ensure!(!is_http || !args.upgrade, "--upgrade is for stream, ping-pong and idle");
        ensure!(args.mode == Mode::Idle || !args.message, "--message is for idle");
        let held_by_message = args.message || args.upgrade;
        let request = match args.mode {
            Mode::PingPong => vec![b'x'; MESSAGE_BYTES],
            _ => request(&host, &args.path, args.upload as usize, args.mode == Mode::Close),
        };
        Ok(Self {
            target: args.target,
            active,
            idle: args.connections - active,
            seconds: args.seconds,
            warm_up: args.warm_up,
            mode: args.mode,
            direction: args.direction,
            rate: args.rate,
            request,
            idle_request: if held_by_message {
                vec![b'x'; MESSAGE_BYTES]
            } else {
                request_idle(&host, &args.path)
            },
            echoes: args.mode == Mode::PingPong || held_by_message,
            handshake: if args.upgrade { upgrade::request(&host, &args.path) } else { Vec::new() },
            sources: args.source_addresses.as_deref().map(range).transpose()?.unwrap_or_default(),
            cpus: args.cpus,
        })
    }

    /// The same load, as fast as it goes, on the origin alone.
    pub(super) fn direct(&self, origin: SocketAddr, seconds: f64) -> Self {
        Self { target: origin, seconds, warm_up: 0.5, rate: None, idle: 0, ..self.clone() }
    }

    /// How many of `all` executor `index` has.
    pub(super) fn share(&self, all: u32, index: usize) -> u32 {
        let (executors, index) =
            (u32::try_from(self.cpus.len()).unwrap_or(1), u32::try_from(index).unwrap_or(0));
        all / executors + u32::from(index < all % executors)
    }
}

fn request_idle(host: &str, path: &str) -> Vec<u8> {
    request(host, path, 0, false)
}

fn request(host: &str, path: &str, upload: usize, close: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    let mut bytes = if upload == 0 {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n")
    } else {
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{connection}Content-Length: {upload}\r\n\r\n")
    }
    .into_bytes();
    bytes.resize(bytes.len() + upload, b'x');
    bytes
}

fn range(text: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |a: &str| a.parse::<Ipv4Addr>().with_context(|| format!("`{a}` is no IPv4 address"));
    let (first, last) = (u32::from(parse(first)?), u32::from(parse(last)?));
    ensure!(first <= last && last - first < 65_536, "--source-addresses is a range of at most 65,536");
    Ok((first..=last).map(Ipv4Addr::from).collect())
}
