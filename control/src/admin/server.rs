//! Accepts the API's connections, within bounds of number, size and time.

use super::guard::Guard;
use super::places::{Places, Taken, Watched};
use super::{Ask, api};
use crate::config::AdminSettings;
use axum::Router;
use dataplane::io::Address;
use dataplane::limits;
use dataplane::plane::{self, SocketFile};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// The API at work. Dropped, it is gone, and its socket's file too.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where it listens, with its real port.
    address: Address,
    asks: mpsc::Receiver<Ask>,
    router: Router,
    task: tokio::task::JoinHandle<()>,
    /// The same socket, for the next process in an upgrade, and its address as the configuration has it.
    spare: (String, OwnedFd),
    places: Arc<Places>,
    guard: watch::Sender<Guard>,
    /// Whether connections end behind the answer that they wait for.
    stopped: watch::Sender<bool>,
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How long is waited after an accept failed, as it does when descriptors have run out.
const BACKOFF: Duration = Duration::from_millis(100);

impl Api {
    /// Listens: on `given`, which another process listened on by its configuration's `asked`, if that is the same place. To be
    /// called within the runtime.
    ///
    /// # Errors
    /// As of bind(2): EADDRINUSE where somebody listens already.
    pub(crate) fn start(settings: &AdminSettings, given: Option<(String, OwnedFd)>) -> io::Result<Self> {
        let asked = settings.address.to_string();
        let given = given.filter(|(place, _)| *place == asked).map(|(_, socket)| socket);
        let spare;
        let (listener, address, file) = match &settings.address {
            Address::Ip(to) => {
                let listener = match given {
                    Some(socket) => socket.into(),
                    None => std::net::TcpListener::bind(SocketAddr::from(*to))?,
                };
                spare = listener.try_clone()?.into();
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                let address = Address::Ip(listener.local_addr()?.into());
                (Listener::Tcp(listener), address, None)
            }
            Address::Unix(name) => {
                let (fd, file) = match given {
                    Some(socket) => (socket, SocketFile::of(name)),
                    None => plane::private_listener(name, settings.mode)
                        .map_err(|errno| io::Error::from_raw_os_error(errno.0))?,
                };
                let listener = std::os::unix::net::UnixListener::from(fd);
                spare = listener.try_clone()?.into();
                listener.set_nonblocking(true)?;
                (Listener::Unix(UnixListener::from_std(listener)?), settings.address.clone(), file)
            }
        };
        let (sender, asks) = mpsc::channel(limits::ADMIN_QUESTIONS);
        let places = Arc::new(Places::new());
        let (guard, guarded) = watch::channel(settings.guard.clone());
        let router = api::router(sender, guarded, Arc::clone(&places));
        let (stopped, stops) = watch::channel(false);
        let task = tokio::spawn(serve(listener, router.clone(), Arc::clone(&places), stops));
        let api = Self { address, asks, router, task, spare: (asked, spare), places, guard, stopped, file };
        api.set_mode(settings);
        Ok(api)
    }

    /// Goes over to other settings of the same address. The next request follows them.
    pub(crate) fn follow(&self, settings: &AdminSettings) {
        self.set_mode(settings);
        self.guard.send_replace(settings.guard.clone());
    }

    /// Its socket for another process, and its address as the configuration has it.
    pub(crate) fn hand_over(&self) -> io::Result<(String, OwnedFd)> {
        Ok((self.spare.0.clone(), self.spare.1.try_clone()?))
    }

    /// Another process accepts there from now on. Connections that are kept open end, so that whoever asks again asks that one.
    pub(crate) fn stop(&self) {
        self.task.abort();
        self.stopped.send_replace(true);
    }

    /// The other process is gone: this one accepts there again.
    ///
    /// # Errors
    /// EMFILE where descriptors have run out.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        let socket = self.spare.1.try_clone()?;
        let listener = match self.address {
            Address::Ip(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
            Address::Unix(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
        };
        self.stopped.send_replace(false);
        let stops = self.stopped.subscribe();
        self.task = tokio::spawn(serve(listener, self.router.clone(), Arc::clone(&self.places), stops));
        Ok(())
    }

    /// No other process takes the socket back any more: its file is this one's to remove.
    pub(crate) fn own_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.own();
        }
    }

    /// The end, where another process accepts there. Those that are connected have their answers within `within`.
    pub(crate) async fn leave(mut self, within: Duration) {
        self.stop();
        if let Some(file) = self.file.take() {
            file.leave();
        }
        // What lasts longer is cut off by the end of the process.
        let _ = tokio::time::timeout(within, self.places.empty()).await;
    }

    fn set_mode(&self, settings: &AdminSettings) {
        if let Some(error) = self.file.as_ref().and_then(|file| file.set_mode(settings.mode).err()) {
            tracing::warn!("the permissions of {} stay as they are: {error}", self.address);
        }
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

async fn serve(listener: Listener, router: Router, places: Arc<Places>, stops: watch::Receiver<bool>) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        let Some(taken) = places.take().await else { return };
        match stream {
            Stream::Tcp(stream) => {
                drop(tokio::spawn(serve_one(stream, router.clone(), taken, stops.clone())))
            }
            Stream::Unix(stream) => {
                drop(tokio::spawn(serve_one(stream, router.clone(), taken, stops.clone())))
            }
        }
    }
}

/// One connection, to its end, the end of its time, or until its place is another's; then its place is free.
async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    taken: Taken,
    mut stops: watch::Receiver<bool>,
) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_REQUEST_TIMEOUT)
        .max_buf_size(limits::ADMIN_HEAD_BYTES);
    let (place, router) = (Arc::clone(&taken.place), TowerToHyperService::new(router));
    let service = service_fn(move |mut request: Request<Incoming>| {
        // A body may still have to come; `api` says when the request is whole.
        place.wait();
        request.extensions_mut().insert(Arc::clone(&place));
        let (answered, place) = (router.call(request), Arc::clone(&place));
        async move {
            let answer = answered.await;
            place.answer();
            answer
        }
    });
    let stream = Watched { stream, place: Arc::clone(&taken.place) };
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    let whole = async {
        tokio::select! {
            ended = serving.as_mut() => return ended,
            // An API that is gone has stopped too.
            _ = stops.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    };
    // A client that breaks off is its own affair. Whoever gives its place up asks for nothing more: a request that came meanwhile
    // would be carried out and not answered.
    tokio::select! {
        biased;
        () = taken.place.is_wanted() => {}
        _ = tokio::time::timeout(limits::ADMIN_LIFETIME, whole) => {}
    }
}
