//! The places of the API's connections. While all are taken, who has waited longest for its next request to come whole gives its
//! place to whoever comes: a client that says nothing, or half a head, keeps nobody from asking whether the process is ready.

use dataplane::limits::{ADMIN_CONNECTIONS, ADMIN_TAKES};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

/// Between two looks for somebody who can go, while nobody can.
const LOOK: Duration = Duration::from_millis(20);
/// In the place of a moment, which count from 1.
const NEVER: u64 = 0;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    began: Instant,
    free: Arc<Semaphore>,
    held: watch::Sender<Vec<Arc<Place>>>,
}

/// One that is taken. Moments are microseconds since [`Places::began`], and 1.
#[derive(Debug)]
pub(super) struct Place {
    began: Instant,
    /// Since when it waits for a request, or for all of one.
    waits: AtomicU64,
    /// Since when there is an answer that its client has not taken.
    answers: AtomicU64,
    ends: Notify,
}

/// A place for as long as it is kept.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) place: Arc<Place>,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new() -> Self {
        let free = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
        Self { began: Instant::now(), free, held: watch::Sender::new(Vec::new()) }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        ADMIN_CONNECTIONS.saturating_sub(self.free.available_permits())
    }

    /// A place for one who came; somebody may lose theirs for it. Waits while all others have requests that run.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Taken> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.make_room().await?,
        };
        let place = Arc::new(Place {
            began: self.began,
            waits: AtomicU64::new(NEVER),
            answers: AtomicU64::new(NEVER),
            ends: Notify::new(),
        });
        place.wait();
        self.held.send_modify(|held| held.push(Arc::clone(&place)));
        Some(Taken { place, places: Arc::clone(self), _permit: permit })
    }

    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        let mut asked = false;
        loop {
            // One at a time: whoever was asked goes as soon as its task runs.
            asked = asked || self.ask_one_to_go();
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => return permit.ok(),
                () = sleep(LOOK) => {}
            }
        }
    }

    fn ask_one_to_go(&self) -> bool {
        let held = self.held.borrow();
        let longest = |moment: fn(&Place) -> &AtomicU64| {
            let since = |place: &&Arc<Place>| moment(place).load(Relaxed);
            held.iter().filter(|place| since(place) != NEVER).min_by_key(since)
        };
        let slow = longest(|place| &place.answers).filter(|place| {
            let since = place.answers.load(Relaxed);
            self.began.elapsed() >= Duration::from_micros(since) + ADMIN_TAKES
        });
        let Some(goes) = longest(|place| &place.waits).or(slow) else { return false };
        goes.run();
        goes.ends.notify_one();
        true
    }

    /// Waits until all are free.
    pub(super) async fn empty(&self) {
        let all = u32::try_from(ADMIN_CONNECTIONS).unwrap_or(u32::MAX);
        // Nothing closes the semaphore.
        let _ = self.free.acquire_many(all).await;
    }
}

impl Place {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    /// For a request, or the rest of one.
    pub(super) fn wait(&self) {
        self.answers.store(NEVER, Relaxed);
        self.waits.store(self.now(), Relaxed);
    }

    /// Its request is whole, and what it asks for is done.
    pub(super) fn run(&self) {
        self.answers.store(NEVER, Relaxed);
        self.waits.store(NEVER, Relaxed);
    }

    /// There is an answer: it is to be sent.
    pub(super) fn answer(&self) {
        self.waits.store(NEVER, Relaxed);
        self.answers.store(self.now(), Relaxed);
    }

    /// Everything was handed to the kernel.
    fn sent(&self) {
        if self.answers.load(Relaxed) != NEVER {
            self.wait();
        }
    }

    /// Waits until it is to be given up.
    pub(super) async fn is_wanted(&self) {
        self.ends.notified().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.held.send_modify(|held| held.retain(|place| !Arc::ptr_eq(place, &self.place)));
    }
}

/// A connection of which its place knows when all of an answer is sent.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) place: Arc<Place>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked for by hyper when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.place.sent();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_longest_goes_and_whoever_runs_stays() {
        let places = Arc::new(Places::new());
        let mut taken = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS {
            taken.push(places.take().await.unwrap());
        }
        assert_eq!(places.taken(), ADMIN_CONNECTIONS);
        // The first two run, the third has its answer already and waits again, longer than nobody.
        taken[0].place.run();
        taken[1].place.run();
        taken[2].place.answer();
        taken[2].place.sent();
        let came = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await.unwrap() }
        });
        taken[3].place.is_wanted().await;
        drop(taken.remove(3));
        let came = came.await.unwrap();
        assert_eq!(places.taken(), ADMIN_CONNECTIONS);

        // Nobody waits: the one who does not take its answer goes, once it had its time.
        taken.push(came);
        taken.iter().for_each(|one| one.place.run());
        taken[5].place.answer();
        assert!(!places.ask_one_to_go());
        let came = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await.unwrap() }
        });
        taken[5].place.is_wanted().await;
        drop(taken.remove(5));
        drop(came.await.unwrap());
        drop(taken);
        places.empty().await;
        assert_eq!(places.taken(), 0);
    }
}
