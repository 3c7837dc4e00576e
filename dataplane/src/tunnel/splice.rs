//! A tunnel's direction by splice(2), from the receives that promote it to the trickle that demotes it.

use super::{Fate, Half, Tunnel, lost};
use crate::buf::Pool;
use crate::bulk::{Filled, Poured};
use crate::io::{Expect, Io, Mono, Outcome};
use crate::limits::QUEUE_HIGH;

/// Moves what can be moved now, and waits for whichever side is behind. The direction is promoted, or was and still holds
/// bytes in a pipe.
pub(super) fn drive(
    half: &mut Half<'_>,
    io: &mut impl Io,
    pool: &mut Pool,
    tunnel: &mut Tunnel,
    now: Mono,
) -> Fate {
    if let Some(fate) = pour(half, io, pool, tunnel, now) {
        return fate;
    }
    let bulk = &mut tunnel.bulk[half.from as usize];
    if !bulk.may_splice(half.source, half.sink, false) {
        bulk.demote();
    } else if bulk.is_readable() {
        let share = half.share.take(half.stats.turns.get());
        match bulk.fill(io, half.source, half.sink, u64::MAX, share) {
            Filled::Bytes(n) => {
                half.stats.spliced_bytes.add(n as u64);
                bulk.on_spliced(n);
                tunnel.count(half.from, n);
                tunnel.quiet_since = now;
                if let Some(fate) = pour(half, io, pool, tunnel, now) {
                    return fate;
                }
            }
            Filled::Again => {}
            Filled::Eof => return half.finish(io, pool, now),
            // It goes on by copying, and is tried again once it proves to be bulk again.
            Filled::Refused => bulk.demote(),
            Filled::Failed(errno) => return Fate::Ends(lost(half.from, &Outcome::Failed(errno))),
        }
    }
    if tunnel.bulk[half.from as usize].is_promoted() {
        half.source.await_readable(io, half.recv);
    } else {
        half.source.arm_recv(io, Expect::Now, half.recv);
    }
    Fate::Goes
}

/// Passes on what the pipe holds; a fate where nothing else can be done now.
fn pour(
    half: &mut Half<'_>,
    io: &mut impl Io,
    pool: &mut Pool,
    tunnel: &mut Tunnel,
    now: Mono,
) -> Option<Fate> {
    let bulk = &mut tunnel.bulk[half.from as usize];
    let poured = bulk.pour(io, pool, half.sink, half.send);
    match poured {
        Poured::All(0) | Poured::Waits(0) => {}
        Poured::All(_) | Poured::Waits(_) => tunnel.quiet_since = now,
        Poured::Failed(errno) => return Some(Fate::Ends(lost(half.from.other(), &Outcome::Failed(errno)))),
    }
    if matches!(poured, Poured::All(_)) {
        return None;
    }
    half.time_sink(now);
    if !bulk.is_holding() && !bulk.is_readable() && half.sink.queued() < QUEUE_HIGH {
        // What was queued is still going out: the wait for more begins already.
        half.source.await_readable(io, half.recv);
    }
    Some(Fate::Goes)
}
