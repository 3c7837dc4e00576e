//! One connection as bytes: connect, write, read, each given up when the watchdog says so.

use super::shard::Desk;
use crate::upgrade;
use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What the watchdog sees of a connection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When the current request began; 0 where there is none.
    pub(super) began: Cell<u64>,
    pub(super) aborted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// Ends what the connection waits for.
    pub(super) fn abort(&self) {
        self.aborted.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// `Pending`, remembered, unless the watchdog was here.
    fn wait<T>(&self, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if self.aborted.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Begins to connect. On loopback the handshake is over when this returns; elsewhere, and for an error, the first write
/// or read waits for it.
fn connect(desk: &Desk, source: Option<std::net::Ipv4Addr>) -> io::Result<TcpStream> {
    let target = desk.plan.target;
    let domain = if target.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_nodelay(true)?;
    if let Some(source) = source {
        crate::sys::bind_without_port(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    match socket.connect(&SockAddr::from(target)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from(socket)),
    }
}

/// Connects and, where the plan says so, asks for WebSocket.
pub(super) async fn open(desk: &Desk, watch: &Watch) -> io::Result<TcpStream> {
    let mut stream = connect(desk, desk.source())?;
    if desk.plan.handshake.is_empty() {
        return Ok(stream);
    }
    write_all(watch, &mut stream, &desk.plan.handshake).await?;
    let mut head = upgrade::Head::default();
    loop {
        // What comes behind the head is the tunnel's first bytes; a source sends them without end, and nobody misses these.
        let ended = read(desk, watch, &mut stream, |piece| match piece {
            [] => Err(()),
            piece => head.feed(piece),
        })
        .await?;
        match ended {
            Ok(Some(_)) if head.is_switching() => return Ok(stream),
            Ok(None) => {}
            Ok(Some(_)) | Err(()) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

pub(super) async fn write_all(watch: &Watch, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = std::future::poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => watch.wait(cx),
            ready => ready,
        })
        .await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Reads a piece into the executor's one buffer and hands it to `act`. An empty piece is the end of the stream.
pub(super) async fn read<T>(
    desk: &Desk,
    watch: &Watch,
    stream: &mut TcpStream,
    mut act: impl FnMut(&[u8]) -> T,
) -> io::Result<T> {
    std::future::poll_fn(|cx| {
        let mut buffer = desk.buffer.borrow_mut();
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Pending => watch.wait(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(len)) => Poll::Ready(Ok(act(&buffer[..len]))),
        }
    })
    .await
}
