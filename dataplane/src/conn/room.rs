//! Descriptors run short: connections that are of least use make room, so that those at work keep theirs, and their links
//! can be opened (threat D05).
//!
//! The kernel gives the lowest free number (open(2)), so the number of what was accepted says how many are taken, without
//! counting and for the whole process. Some are spared for links: from a number on each newcomer costs those of least use
//! their place, and from a higher one on newcomers are closed at once.

use super::{Conn, Phase, close};
use crate::core::Core;
use crate::fault::CloseReason;
use crate::io::{Fd, Io, Mono};
use crate::limits::{FIRST_BYTES, MAKE_ROOM, RESERVED_DESCRIPTORS, REST, ROOM_PAUSE};
use crate::link;
use crate::table::Id;

/// From which numbers on descriptors are short, and spare.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    short: i32,
    spare: i32,
}

impl Descriptors {
    /// Of a process that may have `limit` descriptors (RLIMIT_NOFILE).
    pub fn of_limit(limit: u64) -> Self {
        let reserve = RESERVED_DESCRIPTORS.min(limit / 4);
        let at = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        Self { short: at(limit - reserve), spare: at(limit - reserve / 2) }
    }
}

impl Default for Descriptors {
    /// Never short.
    fn default() -> Self {
        Self { short: i32::MAX, spare: i32::MAX }
    }
}

/// How much use a conn is, the least first; of the same kind the one that has been so for longest, since when is what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// It was answered, and only what it still sends is waited for.
    Lingers(Mono),
    /// It has asked for nothing, for longer than the way of a first request takes.
    NeverAsked(Mono),
    /// It waits between two requests, and has for a while.
    Rests(Mono),
}

/// None of a conn that is at work, or was until a moment ago.
fn use_of(conn: &Conn, now: Mono) -> Option<Use> {
    let asks = conn.exchange.is_some();
    let was_slow = conn.opened.after(FIRST_BYTES) <= now;
    let since = conn.deadlines.progress.before(now);
    match conn.phase() {
        Phase::Lingering if conn.stream.is_drained() => Some(Use::Lingers(since)),
        Phase::Open | Phase::Preface if was_slow => Some(Use::NeverAsked(conn.opened)),
        Phase::Serving if !asks && conn.requests == 0 && was_slow => Some(Use::NeverAsked(conn.opened)),
        Phase::Serving if !asks && since.after(REST) <= now => Some(Use::Rests(since)),
        _ => None,
    }
}

/// Whether what was just accepted may have its descriptor; makes room if there is little.
pub fn may_stay(core: &mut Core, io: &mut impl Io, fd: Fd) -> bool {
    if fd.0 < core.descriptors.short {
        return true;
    }
    make(core, io);
    fd.0 < core.descriptors.spare
}

/// At the end of a turn: where a link found no descriptor, the next one shall.
pub fn look(core: &mut Core, io: &mut impl Io) {
    if std::mem::take(&mut core.lacks_descriptors) {
        make_for_links(core, io);
    }
}

/// Makes room, of whatever can be spared. Idle links are closed last, because they are for those who are at work.
pub fn make_for_links(core: &mut Core, io: &mut impl Io) {
    if !make(core, io) {
        link::pool::close_some(core, io);
    }
}

/// Closes some of the conns that are of least use; whether there were any. Looks at all of them, for `MAKE_ROOM` at once: only
/// for emergencies, and not again soon after it found none.
pub fn make(core: &mut Core, io: &mut impl Io) -> bool {
    let now = core.now();
    if now < core.room_look {
        return false;
    }
    let mut least: Vec<(Use, Id<Conn>)> = Vec::with_capacity(MAKE_ROOM);
    for (id, conn) in core.conns.iter() {
        let Some(of) = use_of(conn, now) else { continue };
        let at = least.partition_point(|(other, _)| *other <= of);
        if at < MAKE_ROOM {
            least.truncate(MAKE_ROOM - 1);
            least.insert(at, (of, id));
        }
    }
    for (_, id) in &least {
        core.stats.made_room.add(1);
        close::begin(core, io, *id, CloseReason::Evicted);
    }
    if least.is_empty() {
        core.room_look = now.after(ROOM_PAUSE);
    }
    !least.is_empty()
}
