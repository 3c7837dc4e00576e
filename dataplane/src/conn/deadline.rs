//! Which deadline runs in which phase, and what it means when it passes.
//!
//! | phase | read_by | write_by |
//! |---|---|---|
//! | Open, no byte yet | request_header: close silently | – |
//! | Preface | request_header from accept on, absolute: close | – |
//! | Serving, between requests | idle: close | send: close |
//! | Serving, a head has begun | request_header, absolute: 408 | send: close |
//! | Serving, a body is awaited | request_body between pieces, and the rate floor: 408 | send: close |
//! | Serving, the last request is whole | a moment, then the client is watched for leaving | send: close |
//! | Serving, the client finished sending | a grace for half-closing clients: abort | send: close |
//! | Lingering | linger: close | send: close |
//! | Connecting (tcp) | the link's connect | – |
//! | Tunnel | the tunnel's quiet_since and tunnel_idle | send, of either side: close |
//!
//! `max_lifetime` runs beside all of them, but of a conn whose listener is gone, which has the time of its party; and a conn that has been idle for `limits::PARK_AFTER` is parked.

use super::{Conn, Ends, Phase, close, http1, preface, reply};
use crate::core::Core;
use crate::exchange::{Down, Up};
use crate::fault::{CloseReason, Refusal};
use crate::io::{Io, Kind, Mono};
use crate::limits;
use crate::table::Id;
use crate::tunnel::{self, Fate};
use std::time::Duration;

/// Puts the conn's deadlines into the wheel.
pub fn settle(core: &mut Core, id: Id<Conn>) {
    let Some(conn) = core.conns.get(id) else { return };
    let park_by = park_by(conn, core.clock.mono, core.park_after);
    // Nearly always. A lifetime that a new configuration made shorter is settled by the walk after it (`follow`).
    if conn.tunnel.is_none() && conn.deadlines.fires_by(park_by) {
        return;
    }
    settle_anew(core, id);
}

/// Those too that a new configuration made shorter.
pub(super) fn settle_anew(core: &mut Core, id: Id<Conn>) {
    let Some(conn) = core.conns.get(id) else { return };
    let park_by = park_by(conn, core.clock.mono, core.park_after);
    let tunnel = conn.tunnel.map_or(Mono::MAX, |t| tunnel::due(core, t));
    let Core { shard, conns, wheel, snapshot, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    if conn.phase() == Phase::Closing {
        return;
    }
    let lifetime = if conn.ends != Ends::NOT_YET {
        Mono::MAX
    } else {
        snapshot
            .listener(conn.listener)
            .map_or(Mono::MAX, |l| lifetime_by(*shard, id, conn.opened, l.timeouts.max_lifetime))
    };
    conn.deadlines.settle(wheel, id.token(Kind::ConnTimer), lifetime.min(tunnel).min(park_by));
}

/// When a conn's lifetime ends: at `lifetime`, or up to a tenth of it earlier, so that conns which came together (after a
/// restart, say) do not all come back together. Each conn has its place in that tenth by its slot and generation.
pub fn lifetime_by(shard: u16, id: Id<Conn>, opened: Mono, lifetime: Duration) -> Mono {
    if lifetime == Duration::MAX {
        return Mono::MAX;
    }
    // The high bits of a product with 2^64 divided by the golden ratio: neighbours are spread evenly (Knuth 6.4).
    let of = u64::from(shard) << 48 ^ u64::from(id.generation()) << 24 ^ u64::from(id.slot());
    let place = (of.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
    opened.after(lifetime - lifetime / 10 * (place >> 6) / 1024)
}

/// When an idle conn is parked. A deadline like the others: the wheel looks at a busy conn once in that time, and what it
/// says to that is no more than this.
fn park_by(conn: &Conn, now: Mono, park_after: Duration) -> Mono {
    if conn.is_idle() && conn.stream.is_receiving() && !conn.stream.is_parked() {
        conn.deadlines.progress.before(now).after(park_after)
    } else {
        Mono::MAX
    }
}

/// When the first byte of the head that is being read came: its deadline runs from then. Now, where none runs. A new
/// configuration with another `request_header` moves this by the difference for heads that come meanwhile, never before
/// the conn's accept.
pub fn head_began(core: &Core, id: Id<Conn>) -> Mono {
    let now = core.now();
    let Some(conn) = core.conns.get(id) else { return now };
    let Some(listener) = core.snapshot.listener(conn.listener) else { return now };
    let allowed = u64::try_from(listener.timeouts.request_header.as_nanos()).unwrap_or(u64::MAX);
    Mono(conn.deadlines.read_by.0.saturating_sub(allowed)).max(conn.opened).min(now)
}

/// The conn is to go, and nothing told its client so far: it gets a moment to ask, and is told then.
pub fn on_last_chance(core: &mut Core, id: Id<Conn>) {
    let by = core.now().after(limits::CLIENT_GONE_GRACE);
    if let Some(conn) = core.conns.get_mut(id) {
        conn.deadlines.read_by = conn.deadlines.read_by.min(by);
    }
    settle(core, id);
}

/// A conn that leaves waits for a request, but not for long: something moved on it just now.
pub fn on_leaving(core: &mut Core, id: Id<Conn>, quiet: Duration) {
    let now = core.now();
    if let Some(conn) = core.conns.get_mut(id) {
        let by = conn.deadlines.progress.before(now).after(quiet);
        conn.deadlines.read_by = conn.deadlines.read_by.min(by);
    }
    settle(core, id);
}

/// A conn no longer leaves: what waits for a request does so as long as any other.
pub fn on_staying(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, snapshot, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    conn.ends = Ends::NOT_YET;
    if let Some(timeouts) = snapshot.listener(conn.listener).map(|listener| listener.timeouts)
        && conn.exchange.is_none()
        && conn.rx.is_none()
    {
        match conn.phase() {
            Phase::Serving => conn.deadlines.read_by = now.after(timeouts.idle),
            Phase::Open | Phase::Preface => {
                let by = conn.opened.after(timeouts.request_header);
                conn.deadlines.read_by = conn.deadlines.read_by.max(by);
            }
            _ => {}
        }
    }
    settle(core, id);
}

/// The wheel fired for a conn: perhaps too early, because deadlines move without telling it.
pub fn on_timer(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    conn.deadlines.on_fired();
    let listener = core.snapshot.listener(conn.listener);
    let lifetime =
        listener.map_or(Mono::MAX, |l| lifetime_by(core.shard, id, conn.opened, l.timeouts.max_lifetime));
    if conn.ends == Ends::NOT_YET && lifetime <= now {
        conn.ends = Ends::EXPIRED;
        if on_expired(core, io, id) {
            return;
        }
    }
    let Core { conns, snapshot, .. } = &mut *core;
    let Some(conn) = conns.get_mut(id) else { return };
    let send = snapshot.listener(conn.listener).map_or(limits::SEND_TIMEOUT.default, |l| l.timeouts.send);
    if conn.deadlines.is_write_over(io, conn.stream.fd, now, send) {
        return close::begin(core, io, id, CloseReason::SendTimeout);
    }
    if let Some(tunnel) = conn.tunnel
        && let Fate::Ends(reason) = tunnel::on_timer(core, io, tunnel)
    {
        return close::begin(core, io, id, reason);
    }
    let Some(conn) = core.conns.get(id) else { return };
    if conn.deadlines.read_by <= now {
        on_read_deadline(core, io, id);
    }
    park_if_due(core, io, id);
    // Whatever was decided, the wheel must know of what is left.
    settle(core, id);
}

fn park_if_due(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    if park_by(conn, now, core.park_after) <= now {
        conn.stream.park(io, id.token(Kind::ConnRecv));
        core.stats.parks.add(1);
    }
}

/// The lifetime is over: an idle conn or a tunnel (also one to be) ends now, an exchange may finish. True if the conn is ending.
fn on_expired(core: &mut Core, io: &mut impl Io, id: Id<Conn>) -> bool {
    let Some(conn) = core.conns.get(id) else { return true };
    let now_idle = conn.exchange.is_none() && conn.rx.is_none();
    match conn.phase() {
        Phase::Open | Phase::Serving if now_idle => close::begin(core, io, id, CloseReason::Lifetime),
        Phase::Preface | Phase::Connecting | Phase::Tunnel => {
            close::begin(core, io, id, CloseReason::Lifetime)
        }
        _ => return false,
    }
    true
}

fn on_read_deadline(core: &mut Core, io: &mut impl Io, id: Id<Conn>) {
    let now = core.now();
    let Some(conn) = core.conns.get_mut(id) else { return };
    let begun = conn.rx.is_some() && !conn.scan.is_idle();
    let heads = begun && conn.exchange.is_none() && matches!(conn.phase(), Phase::Open | Phase::Serving);
    if !heads {
        // That of a head is told by it how long it took.
        conn.deadlines.read_by = Mono::MAX;
    }
    let goes = core.draining || conn.ends.leaves();
    match conn.phase() {
        Phase::Lingering => close::begin(core, io, id, CloseReason::LingerEnded),
        Phase::Open | Phase::Preface if goes => close::begin(core, io, id, CloseReason::Drained),
        Phase::Preface => preface::on_deadline(core, io, id),
        Phase::Open if !begun => close::begin(core, io, id, CloseReason::SilentTimeout),
        Phase::Open | Phase::Serving => match conn.exchange.and_then(|x| core.exchanges.get(x)) {
            None if begun => reply::refuse(core, io, id, Refusal::RequestHeaderTimeout),
            None if goes => close::begin(core, io, id, CloseReason::Drained),
            None => close::begin(core, io, id, CloseReason::IdleTimeout),
            Some(x) if conn.stream.is_eof() => {
                if x.down() == Down::Waiting {
                    close::begin(core, io, id, CloseReason::ClientAborted);
                }
            }
            Some(x) if matches!(x.up(), Up::Body | Up::Drain) => {
                let slow = rate_floor(core, id).is_some_and(|by| by <= now);
                let refusal = if slow { Refusal::RequestBodyTooSlow } else { Refusal::RequestBodyTimeout };
                reply::refuse(core, io, id, refusal);
            }
            Some(_) => http1::watch(core, io, id),
        },
        Phase::Connecting | Phase::Tunnel | Phase::Closing => {}
    }
}

/// By when the next byte of the body must come for `min_rate` to hold: after the grace, the body's bytes must be worth
/// its age. Only the time in which we were reading counts.
fn rate_floor(core: &Core, id: Id<Conn>) -> Option<Mono> {
    let conn = core.conns.get(id)?;
    let x = core.exchanges.get(conn.exchange?)?;
    let rate = core.snapshot.listener(conn.listener)?.timeouts.min_rate;
    let earned = x.up_bytes.saturating_mul(1_000_000_000).checked_div(rate)?;
    let by = x.body_since.after(limits::MIN_RATE_GRACE);
    Some(Mono(by.0.saturating_add(earned)))
}

/// A body is being read (its recv is armed): the deadline of its next piece.
pub fn on_body_awaited(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, exchanges, .. } = core;
    let Some(x) = conns.get(id).and_then(|c| c.exchange).and_then(|x| exchanges.get_mut(x)) else { return };
    if x.head.expect_continue && x.interim_count == 0 && !x.body_taken {
        // The client waits for the origin's word, and the origin has a deadline of its own.
        return;
    }
    if let Some(paused) = x.paused_since.take() {
        // While the origin held us up the client was not slow.
        x.body_since = Mono(x.body_since.0 + now.since(paused));
    }
    let floor = rate_floor(core, id).unwrap_or(Mono::MAX);
    let Some(conn) = core.conns.get_mut(id) else { return };
    let wait = core
        .snapshot
        .listener(conn.listener)
        .map_or(limits::REQUEST_BODY_TIMEOUT.default, |l| l.timeouts.request_body);
    conn.deadlines.read_by = now.after(wait).min(floor);
    settle(core, id);
}

/// An interim response went to a client that has sent nothing of its body yet.
pub fn on_body_invited(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, exchanges, .. } = core;
    if let Some(x) = conns.get(id).and_then(|c| c.exchange).and_then(|x| exchanges.get_mut(x)) {
        x.body_since = now;
        x.paused_since = None;
    }
    on_body_awaited(core, id);
}

/// The body is not being read for now: its clock stands still.
pub fn on_body_paused(core: &mut Core, id: Id<Conn>) {
    let now = core.now();
    let Core { conns, exchanges, .. } = core;
    let Some(conn) = conns.get_mut(id) else { return };
    conn.deadlines.read_by = Mono::MAX;
    if let Some(x) = conn.exchange.and_then(|x| exchanges.get_mut(x))
        && x.paused_since.is_none()
    {
        x.paused_since = Some(now);
    }
}
