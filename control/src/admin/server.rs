//! Accepts the API's connections, within bounds of number, size and time.

use super::guard::Guard;
use super::{Ask, api};
use crate::config::AdminSettings;
use axum::Router;
use dataplane::io::Address;
use dataplane::limits;
use dataplane::plane::{self, SocketFile};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// The API at work. Dropped, it is gone, and its socket's file too.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where it listens, with its real port.
    address: Address,
    asks: mpsc::Receiver<Ask>,
    task: tokio::task::JoinHandle<()>,
    guard: watch::Sender<Guard>,
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How long is waited after an accept failed, as it does when descriptors have run out.
const BACKOFF: Duration = Duration::from_millis(100);

impl Api {
    /// Listens. To be called within the runtime.
    ///
    /// # Errors
    /// As of bind(2): EADDRINUSE where somebody listens already.
    pub(crate) fn start(settings: &AdminSettings) -> io::Result<Self> {
        let (listener, address, file) = match &settings.address {
            Address::Ip(to) => {
                let listener = std::net::TcpListener::bind(SocketAddr::from(*to))?;
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                let address = Address::Ip(listener.local_addr()?.into());
                (Listener::Tcp(listener), address, None)
            }
            Address::Unix(name) => {
                let made = plane::private_listener(name, settings.mode);
                let (fd, file) = made.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
                let listener = std::os::unix::net::UnixListener::from(fd);
                listener.set_nonblocking(true)?;
                (Listener::Unix(UnixListener::from_std(listener)?), settings.address.clone(), file)
            }
        };
        let (sender, asks) = mpsc::channel(limits::ADMIN_QUESTIONS);
        let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
        let (guard, guarded) = watch::channel(settings.guard.clone());
        let router = api::router(sender, guarded, Arc::clone(&places));
        let task = tokio::spawn(serve(listener, router, places));
        Ok(Self { address, asks, task, guard, file })
    }

    /// Goes over to other settings of the same address. The next request follows them.
    pub(crate) fn follow(&self, settings: &AdminSettings) {
        if let Some(error) = self.file.as_ref().and_then(|file| file.set_mode(settings.mode).err()) {
            tracing::warn!("the permissions of {} stay as they are: {error}", self.address);
        }
        self.guard.send_replace(settings.guard.clone());
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The next question.
    pub(crate) async fn next(&mut self) -> Option<Ask> {
        self.asks.recv().await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: Listener, router: Router, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = match &listener {
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| tokio::spawn(serve_one(stream, router.clone(), place))),
            Listener::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| tokio::spawn(serve_one(stream, router.clone(), place))),
        };
        if accepted.is_err() {
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

/// One connection, to its end or the end of its time; then its place is free.
async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    _place: OwnedSemaphorePermit,
) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_REQUEST_TIMEOUT)
        .max_buf_size(limits::ADMIN_HEAD_BYTES);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that breaks off is its own affair.
    let _ = tokio::time::timeout(limits::ADMIN_LIFETIME, serving).await;
}
