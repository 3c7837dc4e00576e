//! Idle clients: each sends one request, or one message through a tunnel, reads what comes back, and stays.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use super::child::{check_stop, pause_checked};
use super::machine::{shrink_slabs, slab};
use super::origin::Role;
use super::peer::{Protocol, Proxy};
use super::probe::resident;
use crate::upgrade;

/// What each client asks once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Request,
    /// 64 bytes that come back.
    Message,
    /// The same behind a WebSocket handshake.
    Upgraded,
}

impl Ask {
    /// What a proxy for `protocol` can be asked whose origin is of this kind.
    pub(super) fn of(protocol: Protocol, origin: Role) -> Self {
        match (protocol, origin) {
            (_, Role::UpgradedEcho | Role::UpgradedSource) => Self::Upgraded,
            (Protocol::Http, _) => Self::Request,
            (Protocol::Tcp, _) => Self::Message,
        }
    }
}

/// Memory that comes with `clients` idle connections: resident in the proxy, and in the kernel's slabs. The slabs hold both
/// ends of each connection, ours too; that share is the same for every peer.
pub(super) fn measure(
    clients: u32,
    ask: Ask,
    seconds: f64,
    start: impl FnOnce() -> anyhow::Result<Proxy>,
) -> anyhow::Result<BTreeMap<String, f64>> {
    settle()?;
    let proxy = start()?;
    let ask = match ask {
        Ask::Request => request,
        Ask::Message => message,
        Ask::Upgraded => upgraded,
    };
    let is_floor = open(proxy.address()).and_then(|mut s| ask(&mut s, proxy.address())).is_err();
    let (resident_before, slab_before) = (resident(&proxy.pids()), slab());
    let mut held = Vec::new();
    for n in 0..clients {
        if n % 256 == 0 {
            check_stop()?;
        }
        let mut socket = open(proxy.address()).with_context(|| format!("client {n}"))?;
        if !is_floor {
            ask(&mut socket, proxy.address()).with_context(|| format!("client {n}"))?;
        }
        held.push(socket);
    }
    pause_checked(Duration::from_secs_f64(seconds))?;
    shrink_slabs();
    let (resident, slab) = (resident(&proxy.pids()), slab());
    let lost = held.iter().filter(|s| is_closed(s)).count();
    if lost > 0 {
        bail!("{lost} of {clients} clients were closed meanwhile");
    }
    let per = |now: u64, before: u64| (now as f64 - before as f64) / f64::from(clients);
    let (user, kernel) = (per(resident, resident_before), per(slab, slab_before));
    drop(held);
    let figures = [
        ("clients", f64::from(clients)),
        ("user_bytes_per_connection", user),
        ("slab_bytes_per_connection", kernel),
        ("bytes_per_connection", user + kernel),
    ];
    Ok(figures.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Until the slabs have stopped shrinking from what ran before: sockets are freed late.
pub(super) fn settle() -> anyhow::Result<()> {
    let mut last = u64::MAX;
    for _ in 0..20 {
        shrink_slabs();
        let now = slab();
        if now.abs_diff(last) < 256 << 10 {
            return Ok(());
        }
        last = now;
        pause_checked(Duration::from_millis(300))?;
    }
    Ok(())
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// One request and its whole answer; the origin's body has 128 bytes, whose end is the end of what comes.
fn request(socket: &mut TcpStream, address: SocketAddr) -> anyhow::Result<()> {
    // In one write: pieces would wait for each other's acknowledgement, 40 ms for each client.
    socket.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let (mut answer, mut length) = ([0; 4096], 0);
    loop {
        let n = socket.read(&mut answer[length..])?;
        if n == 0 {
            bail!("closed before the answer ended");
        }
        length += n;
        let text = String::from_utf8_lossy(&answer[..length]);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200") {
                bail!("answered {}", head.lines().next().unwrap_or_default());
            }
            if body.len() >= 128 {
                return Ok(());
            }
        }
    }
}

/// 64 bytes through the proxy to an origin that sends them back.
pub(super) fn message(socket: &mut TcpStream, _: SocketAddr) -> anyhow::Result<()> {
    let (sent, mut back) = ([b'x'; 64], [0; 64]);
    socket.write_all(&sent)?;
    socket.read_exact(&mut back)?;
    if back == sent { Ok(()) } else { bail!("something else came back") }
}

/// A handshake, and a message through the tunnel behind it.
fn upgraded(socket: &mut TcpStream, address: SocketAddr) -> anyhow::Result<()> {
    socket.write_all(&upgrade::request(&address.to_string(), "/"))?;
    let (mut head, mut piece) = (upgrade::Head::default(), [0; 4096]);
    loop {
        let n = socket.read(&mut piece)?;
        match head.feed(&piece[..n]) {
            Ok(Some(0)) if head.is_switching() => return message(socket, address),
            Ok(None) if n > 0 => {}
            _ => bail!("no upgrade"),
        }
    }
}

fn is_closed(socket: &TcpStream) -> bool {
    // Idle: a read would wait. Anything else is an end.
    let quiet = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0; 1]));
    !matches!(quiet, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}
