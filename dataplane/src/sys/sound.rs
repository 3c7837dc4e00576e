//! Whether this kernel's receives that stand can be relied on, found out by what it does.
//!
//! They came with Linux 6.0, their limit with 6.17; and until a68ed2df7213 (Linux 7.0, and 6.18 by its stable releases) the
//! kernel could lose the end of a stream whose last bytes came together with it.

use super::probe::Features;
use super::ring::Ring;
use super::{RingOptions, clock};
use crate::buf::{Class, Pool, PoolSize};
use crate::io::{Completion, Expect, Fd, Io as _, Kind, Outcome, Token};
use crate::limits::RING_SMALL_BUFFERS;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than any kernel takes for what has happened already.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether bytes and the end behind them both come, from a receive that stood before them and from one that came after. False
/// also where that cannot be found out.
pub(super) fn stands_soundly(features: Features) -> bool {
    [true, false].into_iter().all(|stood_before| sees_the_end(features, stood_before).unwrap_or(false))
}

fn sees_the_end(features: Features, stood_before: bool) -> Option<bool> {
    let options =
        RingOptions { submission_entries: 8, completion_entries: 2 * u32::from(RING_SMALL_BUFFERS) };
    let mut ring = Ring::new(Features { standing: true, ..features }, options).ok()?;
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 64, large: 8 });
    let (near, mut far) = UnixStream::pair().ok()?;
    let (fd, recv) = (Fd(near.as_raw_fd()), Token::new(Kind::ConnRecv, 0, 0));
    let mut turn = |ring: &mut Ring, wait: Duration| {
        let mut out: Vec<Completion> = Vec::new();
        ring.turn(&mut pool, clock::now().mono.after(wait), &mut out).ok()?;
        let outcome = out.pop().map(|completion| completion.outcome);
        if let Some(Outcome::Received(lease)) = outcome {
            pool.give_back(lease);
            return Some(Some(true));
        }
        Some(outcome.map(|outcome| !matches!(outcome, Outcome::Eof)))
    };
    let ask = |ring: &mut Ring| ring.recv(fd, Class::Small, Expect::Often, recv);
    if stood_before {
        ask(&mut ring);
        turn(&mut ring, Duration::ZERO)?;
        if !ring.stands(recv) {
            return Some(false); // the kernel refused it: EINVAL
        }
    }
    far.write_all(b"last").ok()?;
    far.shutdown(Shutdown::Write).ok()?;
    if !stood_before {
        ask(&mut ring);
    }
    let bytes = turn(&mut ring, PATIENCE)? == Some(true);
    // If one still stands, the end is yet to come of it: nothing new is asked of the kernel.
    ask(&mut ring);
    let end = turn(&mut ring, PATIENCE)? == Some(false);
    if !end {
        ring.cancel(recv);
        turn(&mut ring, PATIENCE)?;
    }
    Some(bytes && end && ring.in_flight() == 0)
}
