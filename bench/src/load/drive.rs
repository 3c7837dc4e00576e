//! One connection's requests, one after the other: each is written, and its answer read to its end.

use super::line::{self, Watch};
use super::plan::{MESSAGE_BYTES, Mode};
use super::report::Error;
use super::response::{Progress, Response};
use super::shard::Desk;
use crate::clock;
use glommio::net::TcpStream;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Between two attempts to connect in a closed loop, which would otherwise do nothing else.
const RETRY: Duration = Duration::from_millis(10);

/// How an exchange went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
}

impl Failure {
    fn of(error: &io::Error, fresh: bool) -> Self {
        let error = match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout,
            io::ErrorKind::InvalidData => Error::Status,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable => Error::Connect,
            _ if fresh && error.raw_os_error() == Some(libc::EMFILE) => Error::Connect,
            _ => Error::Reset,
        };
        Self { error }
    }
}

/// Runs requests until the run is over.
pub(super) async fn drive(desk: Rc<Desk>) {
    let mut stream = None;
    let watch = desk.watch();
    while let Some(start) = desk.next().await {
        watch.began.set(clock::now());
        let result = request(&desk, &watch, &mut stream).await;
        watch.began.set(0);
        // A window is of starts, so that what is slow is not cut off by its end.
        let counts = desk.counts(start.scheduled);
        let error = match result {
            Ok(down) => {
                let (nanos, up) = (clock::now() - start.scheduled, desk.plan.request.len());
                let mut tally = desk.tally.borrow_mut();
                tally.succeed(counts, nanos, down, up);
                tally.late(counts && start.late);
                continue;
            }
            Err(failure) => failure.error,
        };
        stream = None;
        if counts {
            desk.tally.borrow_mut().fail_many(error, 1);
        }
        if watch.aborted.take() && clock::now() > desk.until.get() {
            return;
        }
        if desk.plan.rate.is_none() {
            glommio::timer::sleep(RETRY).await;
        }
    }
}

/// One request, on the connection that is there or on a new one. Answers the bytes received.
async fn request(desk: &Desk, watch: &Watch, kept: &mut Option<TcpStream>) -> Result<u64, Failure> {
    let fresh = kept.is_none();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => line::open(desk, watch).await.map_err(|_| Failure { error: Error::Connect })?,
    };
    let fail = |error: io::Error| Failure::of(&error, fresh);
    line::write_all(watch, &mut stream, &desk.plan.request).await.map_err(fail)?;
    if desk.plan.echoes {
        let down = echo(desk, watch, &mut stream).await.map_err(fail)?;
        *kept = Some(stream);
        return Ok(down);
    }
    let (response, down) = answer(desk, watch, &mut stream).await.map_err(fail)?;
    if desk.plan.mode == Mode::Close {
        // The end is the target's to send: who closes first keeps the port for a minute.
        while !response.ends_with_connection()
            && line::read(desk, watch, &mut stream, |piece| !piece.is_empty()).await.map_err(fail)?
        {}
    } else if !response.close {
        *kept = Some(stream);
    }
    if response.status >= 400 { Err(Failure { error: Error::Status }) } else { Ok(down) }
}

/// Reads one response to its end.
pub(super) async fn answer(
    desk: &Desk,
    watch: &Watch,
    stream: &mut TcpStream,
) -> io::Result<(Response, u64)> {
    let (mut response, mut down) = (Response::new(), 0);
    loop {
        let progress = line::read(desk, watch, stream, |piece| {
            down += piece.len() as u64;
            match piece {
                [] if response.ends_with_connection() => Ok(Progress::Done),
                [] => Err(io::ErrorKind::UnexpectedEof.into()),
                piece => response.feed(piece),
            }
        })
        .await??;
        if progress == Progress::Done {
            return Ok((response, down));
        }
    }
}

/// Reads one message back.
pub(super) async fn echo(desk: &Desk, watch: &Watch, stream: &mut TcpStream) -> io::Result<u64> {
    let mut left = MESSAGE_BYTES;
    while left > 0 {
        let len = line::read(desk, watch, stream, <[u8]>::len).await?;
        if len == 0 || len > left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= len;
    }
    Ok(MESSAGE_BYTES as u64)
}
